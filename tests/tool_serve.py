#!/usr/bin/env python3
# SPDX-License-Identifier: MIT
"""`quiesce serve` and `quiesce info` from outside: what they print, clean up and refuse."""
import json
import os
import pathlib
import re
import resource
import signal
import socket
import struct
import subprocess
import sys
import tempfile

TOOL = sys.argv[1]
SPEC = "dmacopy,memory=64K,name=nic0,flags=5"
TRACE_LINE = re.compile(r"\d+ nic0 (\?|[A-Z][A-Z0-9_]+) [a-z-]+( [a-z-]+=\S*)* = (\d+|-E[A-Z]+) "
                        r"\d+ns")


def run(*args, code=0):
    done = subprocess.run([TOOL, *args], text=True, capture_output=True, check=False, timeout=60)
    assert done.returncode == code, f"{args}: exit {done.returncode}: {done.stderr}"
    if code:
        assert not done.stdout and done.stderr.count("\n") == 1, done
        assert done.stderr.endswith("--help'\n") == (code == 2), done
    return done


class Server:
    """A `quiesce serve` that is ready when this is constructed."""

    def __init__(self, path, *args):
        self.process = subprocess.Popen([TOOL, "serve", SPEC, "--socket", str(path), *args],
                                        stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
        line = self.process.stdout.readline()
        assert line == f"serving {SPEC} at {path}\n", line

    def end(self, number=signal.SIGTERM):
        self.process.send_signal(number)
        return self.wait()

    def wait(self):
        self.process.communicate(timeout=60)
        return self.process.returncode


def hold(path):
    """A vfio-user client that has shaken hands and says nothing more."""
    client = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
    client.connect(str(path))
    body = struct.pack("<HH", 0, 1) + b'{"capabilities":{}}\0'
    client.sendall(struct.pack("<HHIII", 1, 1, 16 + len(body), 0, 0) + body)
    header = client.recv(16, socket.MSG_WAITALL)
    size, flags, error = struct.unpack("<4xIII", header)
    assert flags & 0x2f == 1, f"refused with errno {error}"
    client.recv(size - 16, socket.MSG_WAITALL)
    return client


def check_usage(folder):
    sock = str(folder / "usage.sock")
    for args in ([], ["info"], ["info", "nonsense"], ["info", "vfio-user:"], ["info", "model:none"],
                 ["info", "model:dmacopy", "more"], ["info", "model:dmacopy,flags=6"],
                 ["info", "model:dmacopy,memory=5"], ["info", "--nonsense"],
                 ["serve"], ["serve", "dmacopy"], ["serve", "--socket", sock],
                 ["serve", "none", "--socket", sock], ["serve", "dmacopy", "--socket", ""],
                 ["serve", "dmacopy", "--socket", str(folder / ("x" * 120))],
                 ["serve", "dmacopy", "--socket", sock, "more"],
                 ["serve", "dmacopy,nonsense=1", "--socket", sock]):
        run(*args, code=2)
    # A file of a model is the person's too, whatever the command.
    model = f"nvme,file={folder / 'nothing'}"
    for args in (["serve", model, "--socket", sock], ["info", f"model:{model}"],
                 ["check", f"model:{model}"], ["run", "--device", model, "--", "true"],
                 ["audit", "--device", model, "--", "true"], ["plan", f"a=model:{model}"],
                 ["host", f"a=model:{model}", "--control", sock]):
        assert "make it with truncate" in run(*args, code=2).stderr, args
    # A device of the kernel's that is not there is a wrong command line, by whatever name.
    for name, says in (("0000:7f:1f.7", "no PCI device 0000:7f:1f.7"), ("3b:00.2", "is no name of"),
                       ("11111111-2222-3333-4444-555555555555", "no mediated device"),
                       ("/dev/vfio/999999999", "no IOMMU group 999999999"),
                       ("/dev/vfio/devices/vfio99", "there is no /dev/vfio/devices/vfio99"),
                       ("/dev/vfio/devices/vfio99,via=legacy", "no device behind /dev/vfio/devices/vfio99")):
        for args in (["info", f"vfio:{name}"], ["plan", f"a=vfio:{name}"],
                     ["serve", f"vfio:{name}", "--socket", sock]):
            said = run(*args, code=2).stderr
            assert says in said and said.count(f"vfio:{name}:") == 1, said
    dead = socket.socket(socket.AF_UNIX)
    dead.bind(str(folder / "dead"))
    said = run("serve", f"vfio-user:{folder / 'dead'}", "--socket", sock, code=1).stderr
    assert "start it again" in said and said.count(f"vfio-user:{folder / 'dead'}") == 1, said
    dead.close()
    plain = folder / "plain"
    plain.touch()
    for path, says in ((plain, "no socket"), (folder, "no socket"),
                       (folder / "none" / "sock", "create its folder")):
        done = run("serve", "dmacopy", "--socket", str(path), code=2)
        assert says in done.stderr and done.stderr.count(str(path)) == 1, done.stderr
    for path, says in ((plain, "no socket"), (sock, "start the server"),
                       (plain / "x", "Not a directory")):
        done = run("info", f"vfio-user:{path}", code=2)
        assert says in done.stderr and done.stderr.count(str(path)) == 1, done.stderr
    for trace in (folder / "none" / "trace", folder):
        done = run("serve", "dmacopy", "--socket", sock, "--trace", str(trace), code=2)
        assert done.stderr.count(str(trace)) == 1, done.stderr
    assert not os.path.exists(sock)
    for command in ("serve", "info"):
        assert "--help" in run(command, "--help").stdout
    lines = run("serve", "--help").stdout.splitlines()
    models = lines[next(i for i, line in enumerate(lines) if line.startswith("Model dmacopy")):]
    assert all(line.startswith(("Model ", "  ")) and len(line) < 80 for line in models), models


def check_info(path):
    here = json.loads(run("info", f"model:{SPEC}", "--json").stdout)
    there = json.loads(run("info", f"vfio-user:{path}", "--json").stdout)
    assert there.pop("uri") == f"vfio-user:{path}" and here.pop("uri") == f"model:{SPEC}"
    assert there == here, f"{there}\n{here}"
    assert set(here) == {"properties", "pci", "regions", "interrupts", "migration", "layout"}
    assert "pci" in here["properties"] and here["pci"]["vendor"]
    migration = here["migration"]
    assert migration["flags"] == 5 and migration["capabilities"] == ["STOP_COPY", "PRE_COPY"]
    assert migration["state"] == "RUNNING" and migration["dirty_log"] is True
    assert migration["stop_copy_size"] > 0
    regions = {region["name"]: region for region in here["regions"]}
    assert regions["BAR2"]["size"] == 65536
    assert regions["BAR2"]["mappable"] == [{"offset": 0, "size": 65536}]
    assert regions["BAR0"]["stopped"] == "discard" and regions["config"]["stopped"] == "allow"
    assert any(irq["name"] == "MSI-X" and irq["vectors"] > 0 for irq in here["interrupts"])
    assert here["layout"]["type"] == "dmacopy"
    parts = {part["name"]: part for part in here["layout"]["parts"]}
    assert {part["kind"] for part in parts.values()} == {"section", "block"}, parts
    assert all(part["size"] and part["min_version"] <= part["version"] for part in parts.values())
    text = run("info", f"vfio-user:{path}").stdout
    for word in ("64 KiB", "STOP_COPY, PRE_COPY (flags 5)", "RUNNING", "MSI-X", "discard",
                 "type dmacopy", *parts):
        assert word in text, word


def check_fault(folder):
    """A bad specification is a sentence; a good one strikes, and says so once."""
    path = folder / "fault.sock"
    for spec, says in (("set-state", "is not POINT=KIND"), ("st=EIO", "has no point 'st'"),
                       ("reset=drop", "cannot do 'drop' at reset"),
                       ("set-state:UP=EIO", "knows no state 'UP'"),
                       ("nic1.reset=EIO", "a device 'nic1' that there is not; there is nic0")):
        done = run("serve", SPEC, "--socket", str(path), "--fault", spec, code=2)
        assert says in done.stderr and spec in done.stderr, done.stderr
    assert not path.exists()
    server = Server(path, "--fault", "data-size=say:4711,nic0.get-irq-info:4=say:0")
    for _ in range(2):
        said = json.loads(run("info", f"vfio-user:{path}", "--json").stdout)
        assert said["migration"]["stop_copy_size"] == 4711
    server.process.send_signal(signal.SIGTERM)
    _, err = server.process.communicate(timeout=60)
    assert err.count("the fault 'data-size=say:4711' strikes nic0") == 2, err
    for point, what in (("get-info", "describe itself"), ("get-region-info", "describe region 0"),
                        ("get-irq-info", "describe interrupt index 0"),
                        ("get-state", "tell its migration state")):
        mute = Server(path, "--fault", f"{point}=EIO")
        done = run("info", f"vfio-user:{path}", code=1)
        assert f"it does not {what}: Input/output error" in done.stderr, done.stderr
        assert mute.end() == 0
    refusing = Server(path, "--fault", "open@1=EBUSY")
    run("info", f"vfio-user:{path}", code=1)
    assert refusing.end() == 0


def keys_of(value):
    if isinstance(value, list):
        return set().union(*(keys_of(entry) for entry in value))
    if isinstance(value, dict):
        return set(value) | keys_of(list(value.values()))
    return set()


def check_documented(path):
    """Every key of the output stands in the manual."""
    manual = pathlib.Path(__file__).parent.parent / "docs" / "commands.rst"
    words = set(re.findall(r"[a-z_]+", " ".join(re.findall(r"``(.*?)``", manual.read_text(),
                                                          re.S))))
    missing = keys_of(json.loads(run("info", f"vfio-user:{path}", "--json").stdout)) - words
    assert not missing, f"not in {manual}: {missing}"


def check_one_user(path):
    client = hold(path)
    done = run("info", f"vfio-user:{path}", code=1)
    assert "holds the device" in done.stderr, done.stderr
    return client


def check_few_descriptors(folder):
    """A server that cannot take a file of the client's does not go on as if none had come."""
    path = folder / "few.sock"
    server = Server(path, "-v")
    client = hold(path)
    with tempfile.TemporaryFile() as memory:
        memory.truncate(4096)
        taken = {int(fd) for fd in os.listdir(f"/proc/{server.process.pid}/fd")}
        free = min(set(range(len(taken) + 1)) - taken)
        resource.prlimit(server.process.pid, resource.RLIMIT_NOFILE, (free, free))
        body = struct.pack("<IIQQQ", 32, 3, 0, 0x100000, 4096)
        socket.send_fds(client, [struct.pack("<HHIII", 2, 2, 16 + len(body), 0, 0) + body],
                        [memory.fileno()])
        assert not client.recv(16), "the mapping was taken without its memory"
    client.close()
    server.process.terminate()
    said = server.process.communicate(timeout=60)[1]
    assert "Too many open files, and one that it passed was lost" in said and server.process.returncode == 0, said


def main():
    with tempfile.TemporaryDirectory() as name:
        folder = pathlib.Path(name)
        path = folder / "device.sock"
        trace = folder / "trace"
        check_usage(folder)
        check_few_descriptors(folder)

        server = Server(path, "--trace", str(trace))
        done = run("serve", SPEC, "--socket", str(path), "--trace", str(trace), code=1)
        assert "another server listens" in done.stderr, done.stderr
        check_info(path)
        check_documented(path)
        client = check_one_user(path)
        assert server.end(signal.SIGINT) == 0, "a signal with a client connected"
        client.close()
        assert not path.exists()
        lines = trace.read_text().splitlines()
        assert any(" get-info " in line for line in lines)
        for line in lines:
            assert TRACE_LINE.fullmatch(line), line

        killed = Server(path)
        assert killed.end(signal.SIGKILL) == -signal.SIGKILL and path.exists()
        assert "has ended" in run("info", f"vfio-user:{path}", code=1).stderr
        once = Server(path, "--once")
        run("info", f"vfio-user:{path}")
        assert once.wait() == 0 and not path.exists()
        check_fault(folder)
        polling = Server(path, "--poll")
        run("info", f"vfio-user:{path}")
        assert polling.end() == 0
        telling = Server(path, "--verbose", "--once")
        run("info", f"vfio-user:{path}")
        said = telling.process.communicate(timeout=60)[1]
        assert "a client holds the device\n" in said and "has let go of the device\n" in said, said
    return 0


if __name__ == "__main__":
    sys.exit(main())
