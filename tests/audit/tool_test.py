#!/usr/bin/env python3
# SPDX-License-Identifier: MIT
"""`quiesce audit` from outside: it stands before devices and runs commands, writes its reports, provokes, and
refuses what is wrong. Usage: tool_test.py QUIESCE"""
import json
import os
import pathlib
import signal
import socket
import struct
import subprocess
import sys
import tempfile
import xml.etree.ElementTree

TOOL = str(pathlib.Path(sys.argv[1]).resolve())
DEVICE = "dmacopy,memory=64K"
# A set of two engines that reach each other, and a tenant who has them copy, moved by our own engine.
MOVE = """set -e
cd "$2"
mkfifo said
exec 3<>said
"$1" receive "x=vfio-user:$5" "y=vfio-user:$6" --tenant copy --memory 4M --from unix:move 2>&3 &
there=$!
trap 'kill $there' EXIT
while read -r line <&3; do
	case $line in *"waiting at"*) break;; esac
done
# However long the stop takes on a busy machine.
"$1" send --quiet "x=vfio-user:$3" "y=vfio-user:$4" --tenant copy --memory 4M --to unix:move --exceed
trap - EXIT
kill $there
wait $there
"""


# A command that takes a device and makes a file.
TOUCH = ("sh", "-c", ': {socket0}; : > "$1"', "sh")


def run(*args, code=0, **env):
    done = subprocess.run([TOOL, "audit", *args], text=True, capture_output=True, check=False,
                          timeout=100, env={**os.environ, **env})
    assert done.returncode == code, f"{args}: exit {done.returncode}: {done.stdout}{done.stderr}"
    return done


def check_usage(folder):
    sock = str(folder / "a.sock")
    for args, says in (
            ([], "a device is missing"), (["--to", "model:dmacopy"], "before its --socket"),
            (["--socket", sock], "--to URI is missing"),
            (["--device", DEVICE, "--profile", "loud"], "no profile 'loud'"),
            (["--device", DEVICE, "--fault", "reset=drop"], "cannot do 'drop'"),
            (["--device", DEVICE, "--fault", "eth7.reset=EIO"], "a device 'eth7' that there is not"),
            (["--device", "none"], "none"), (["--device", DEVICE, "--"], "COMMAND is missing"),
            (["--device", DEVICE, "--provoke"], "needs the recipe"),
            (["--device", DEVICE, "--provoke", "--", "true"], "takes no device"),
            *((["--device", DEVICE, option, str(folder / "none" / "x"), "--", *TOUCH, str(folder / "ran")],
               "cannot write to") for option in ("--json", "--junit")),
            (["--provoke", "--device", DEVICE, "--json", str(folder), "--", *TOUCH, str(folder / "ran")],
             "cannot write to"),
            (["--socket", str(folder / "none" / "x"), "--to", "model:dmacopy", "--", "true"],
             "cannot listen")):
        done = run(*args, code=2, TMPDIR=str(folder))
        assert says in done.stderr and done.stderr.count("\n") == 1, done.stderr
    # Nothing of a run that did not come about stays.
    run("--device", DEVICE, "--", str(folder / "none"), code=2, TMPDIR=str(folder))
    assert not list(folder.iterdir()), list(folder.iterdir())


def check_socket(folder):
    """Before a server of another process; a fault that strikes is said."""
    report = folder / "report.json"
    junit = folder / "report.xml"
    sock = folder / "nic0.sock"
    ask = f"{TOOL} info vfio-user:{sock} >/dev/null"
    done = run("--socket", str(sock), "--to", f"model:{DEVICE}", "--json", str(report), "--junit",
               str(junit), "--fault", "nic0.data-size=say:7", "--", "sh", "-c",
               f": {{socket0}}; {ask} && {ask}")
    assert "the fault 'nic0.data-size=say:7' strikes nic0" in done.stderr, done.stderr
    assert "0 violations, 0 stretches, 0 refused" in done.stdout, done.stdout
    found = json.loads(report.read_text())
    assert found["devices"] == 2 and found["actions"] > 10 and found["findings"] == [], found
    assert found["profile"] == "strict" and found["exit_code"] == 0, found
    suite = xml.etree.ElementTree.parse(junit).getroot()
    assert suite.get("failures") == "0" and int(suite.get("tests")) == len(suite) == 14
    assert not sock.exists()
    run("--device", DEVICE, "--", "sh", "-c", ": {socket0}; exit 3", code=1)
    # Nobody came: that is no good report.
    done = run("--device", DEVICE, "--", "true", code=1)
    assert "nothing was audited" in done.stderr, done.stderr
    # A device of the kernel is none of our models.
    # It is opened once before anybody asks, to say at once why it cannot be.
    done = run("--device", "vfio:0000:7f:1f.7", "--", "sh", "-c", ": {socket0}", code=2)
    assert "no PCI device 0000:7f:1f.7" in done.stderr and "auditing" not in done.stderr, done.stderr


def check_provoke(folder):
    """What the recipe says of the data decides; a lost guest that was reported is not silent."""
    report = folder / "provoke.json"
    recipe = (f"{TOOL} info vfio-user:{{socket0}} >/dev/null && data=right || data=wrong; "
              "echo outcome: asked; echo reported: success; echo data: $data")
    done = run("--provoke", "--json", str(report), "--device", f"nic0={DEVICE}", "--fault",
               "nic0.get-info=EIO", "--fault", "nic0.log-stop=EIO", "--", "sh", "-c", recipe, code=1)
    runs = json.loads(report.read_text())
    assert [(one["fault"], one["struck"], one["data"]) for one in runs] == [
        (None, False, "right"), ("nic0.get-info=EIO", True, "silently lost"),
        ("nic0.log-stop=EIO", False, "right")], runs
    assert "silently lost in 1 of 3 runs" in done.stdout and "not reached" in done.stdout
    # A recipe that is killed has said nothing.
    done = run("--provoke", "--device", f"nic0={DEVICE}", "--fault", "nic0.log-stop=EIO", "--", "sh", "-c",
               ": {socket0}; kill -9 $$", code=1)
    assert "2 of 2 runs did not say what became of the data" in done.stderr, done.stderr


def ask(sock, command, body):
    """One request in the words of vfio-user."""
    sock.sendall(struct.pack("<HHIII", 1, command, 16 + len(body), 0, 0) + body)
    header = sock.recv(16, socket.MSG_WAITALL)
    size, flags = struct.unpack_from("<II", header, 4)
    assert flags == 1, header
    return sock.recv(size - 16, socket.MSG_WAITALL)


def check_context(folder):
    """Actions that differ in where they go only are told in one line, which does not say that all went there."""
    path, report = str(folder / "nic.sock"), folder / "context.json"
    with subprocess.Popen([TOOL, "audit", "--socket", path, "--to", f"model:{DEVICE}", "--json", str(report)],
                          stdout=subprocess.PIPE, text=True) as audit, socket.socket(socket.AF_UNIX) as user:
        assert audit.stdout.readline().startswith("auditing ")
        user.connect(path)
        ask(user, 1, struct.pack("<HH", 0, 1) + b'{"capabilities":{}}\0')
        for offset in (0x40, 0x48, 0x40):
            ask(user, 9, struct.pack("<QII", offset, 0, 8))
        ask(user, 16, struct.pack("<IIIi", 16, 1 << 17 | 2, 1, -1))
        for _ in range(3):
            ask(user, 9, struct.pack("<QII", 0x40, 0, 8))
        audit.send_signal(signal.SIGTERM)
        assert audit.wait(60) == 1
    (finding,) = json.loads(report.read_text())["findings"]
    assert (finding["clause"], finding["count"]) == ("ORD-1", 3), finding
    lines = [line.split("  ", 1)[1] for line in finding["context"]]
    assert "RUNNING  region-read region 0 offset 0x40 = 8, 3 times, the first of them there" in lines, lines
    assert lines[-1] == "STOP  region-read region 0 offset 0x40 = 8", lines


def check_full(folder):
    """What cannot be written is said in one sentence, after everything else."""
    info = ("sh", "-c", f"{TOOL} info vfio-user:{{socket0}} > /dev/null")
    for option in ("--json", "--junit"):
        done = run("--device", DEVICE, option, "/dev/full", "--", *info, code=1)
        assert done.stderr == "quiesce audit: cannot write to /dev/full: No space left on device\n", done
        assert "0 violations" in done.stdout, done.stdout
    done = run("--provoke", "--device", DEVICE, "--fault", "log-stop=EIO", "--json", "/dev/full", "--", "sh", "-c",
               ": {socket0}; echo data: right", code=1)
    assert done.stderr == "quiesce audit: cannot write to /dev/full: No space left on device\n", done


def check_names(folder):
    """A device may have any name: the reports stay well-formed, and tell of it."""
    report, junit = folder / "names.json", folder / "names.xml"
    done = subprocess.run([TOOL, "audit", "--device", b'\xffx<&"\x01\xc3\xa9=' + DEVICE.encode(),
                           "--json", str(report), "--junit", str(junit), "--",
                           "sh", "-c", '"$1" check vfio-user:{socket0} --clause ARC-1', "sh", TOOL],
                          capture_output=True, check=False, timeout=100)
    assert done.returncode in (0, 1), done
    found = json.loads(report.read_text("utf-8"))["findings"]
    assert found and {f["device"] for f in found} == {'?x<&"\x01é'}, found
    failures = list(xml.etree.ElementTree.parse(junit).getroot().iter("failure"))
    assert failures and all(f.get("message").startswith('?x<&"?é: ') for f in failures), failures


def check_leaves(folder):
    """Who a recipe leaves behind, with its output, is not waited for."""
    fifo = folder / "fifo"
    os.mkfifo(fifo)
    done = run("--provoke", "--device", DEVICE, "--fault", "log-stop=EIO", "--", "sh", "-c",
               f": {{socket0}}; (read -r x) 2>/dev/null < {fifo} & printf 'outcome: left\ndata: right'")
    assert done.stdout.count(" left ") == 2 and "lost in 0 of 2 runs" in done.stdout, done.stdout
    # Both of them wait for somebody who writes.
    with open(fifo, "w", encoding="ascii"):
        pass
    fifo.unlink()


def check_stops(folder):
    """A signal ends the run and does not begin the next; what there was is reported."""
    report, fifo = folder / "stopped.json", folder / "begun"
    os.mkfifo(fifo)
    with subprocess.Popen([TOOL, "audit", "--provoke", "--device", DEVICE, "--json", str(report), "--", "sh", "-c",
                           f": {{socket0}}; echo > {fifo}; exec sleep 90"], stdout=subprocess.DEVNULL,
                          stderr=subprocess.PIPE, text=True) as audit:
        fifo.read_text()
        audit.send_signal(signal.SIGTERM)
        said = audit.communicate(timeout=60)[1]
    assert audit.returncode == 1 and "ended by a signal before all runs were done" in said, said
    assert [(one["fault"], one["data"]) for one in json.loads(report.read_text())] == [(None, "not decided")]


def check_own_engine(folder):
    """What it asks of VMMs our own engine does itself: a set that moves while it works comes out clean."""
    report = folder / "move.json"
    devices = [word for name in ("x0", "y0", "x1", "y1")
               for word in ("--device", f"{name}=dmacopy,memory=256K")]
    done = run("--json", str(report), *devices, "--", "sh", "-c", MOVE, "sh", TOOL, str(folder),
               *(f"{{socket{i}}}" for i in range(4)))
    found = json.loads(report.read_text())
    assert found["moves"] == 2 and found["devices"] == 4 and found["actions"] > 100, found
    assert found["findings"] == [] and found["dropped"] == 0, found
    assert ", 0 lost, 0 doubled" in done.stdout, done.stdout


def main():
    with tempfile.TemporaryDirectory() as name:
        check_usage(pathlib.Path(name))
        check_socket(pathlib.Path(name))
        check_provoke(pathlib.Path(name))
        for check in (check_context, check_full, check_names, check_leaves, check_stops, check_own_engine):
            check(pathlib.Path(name))


main()
