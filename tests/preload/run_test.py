#!/usr/bin/env python3
# SPDX-License-Identifier: MIT
"""`quiesce run` from outside: a VMM that knows only the kernel's calls, and what is printed."""
import json
import os
import pathlib
import select
import signal
import subprocess
import sys
import tempfile

TOOL, VMM = sys.argv[1:3]
SPECS = ("dmacopy,memory=64K", "dmacopy,memory=64K", "nvme,ram=1M")
DEVICES = tuple(word for spec in SPECS for word in ("--device", spec))


def run(*args, code=0, **more):
    done = subprocess.run([TOOL, "run", *args], text=True, capture_output=True, check=False,
                          timeout=120, **more)
    assert done.returncode == code, f"{args}: exit {done.returncode}: {done.stderr}"
    return done


def vmm_tests():
    names = subprocess.run([VMM], text=True, capture_output=True, check=True).stdout.split()
    assert len(names) > 10
    for name in names:
        done = run("--quiet", *DEVICES, "--", VMM, name)
        print(f"  {name}: ok {done.stderr.strip()}")
        # What a program should know of is said once.
        said = {"fork": "opened before fork()", "ioeventfd": "opened before fork()",
                "sockets": "cannot be sent"}
        assert said.get(name, "") in done.stderr, done.stderr
        assert bool(done.stderr) == (name in said), done.stderr


def over_a_socket(folder):
    """The same program with its devices in other processes."""
    servers = []
    sockets = [folder / f"{n}.sock" for n in range(len(SPECS))]
    try:
        for spec, socket in zip(SPECS, sockets):
            server = subprocess.Popen([TOOL, "serve", spec, "--socket", socket],
                                      stdout=subprocess.PIPE, text=True)
            servers.append(server)
            assert server.stdout.readline().startswith("serving")
        devices = [word for s in sockets for word in ("--device", f"vfio-user:{s}")]
        for name in ("cdev", "legacy", "move", "revoke", "mappings", "track", "strict-device", "ioeventfd",
                     "intx", "request"):
            run("--quiet", *devices, "--", VMM, name)
            print(f"  {name} over vfio-user: ok")
        done = run(*devices, "--", VMM, "cdev")
        assert "interrupts: signalled by its server" in done.stderr, done.stderr
    finally:
        for server in servers:
            server.kill()
            server.wait()
    done = run("--device", f"vfio-user:{sockets[0]}", "--", VMM, "cdev", code=1)
    assert "cannot open vfio0" in done.stderr and "was never opened" in done.stderr, done.stderr


def what_it_says(folder):
    seen = folder / "seen.json"
    trace = folder / "trace"
    done = run(*DEVICES, "--trace", trace, "--json", seen, "--", VMM, "move")
    assert "{iommufd} is fd 1000" in done.stderr and "saved 1 times" in done.stderr, done.stderr
    devices = json.loads(seen.read_text())["devices"]
    assert [d["name"] for d in devices] == ["vfio0", "vfio1", "vfio2"]
    assert devices[0]["saved"] == devices[1]["loaded"] == 1
    assert devices[0]["saved_bytes"] == devices[1]["loaded_bytes"] > 512
    assert devices[0]["violations"] == 0 and devices[0]["entered"]["STOP_COPY"] == 1
    assert "vfio1 RESUMING session-write" in trace.read_text()
    # A trace that is not whole is no secret, and it may go where there is no path.
    done = run("--quiet", *DEVICES, "--trace", "/dev/full", "--", VMM, "cdev")
    assert done.stderr.count("it is not complete") == 1, done.stderr
    done = run("--quiet", *DEVICES, "--trace", "/dev/stdout", "--", VMM, "cdev")
    assert "vfio0 RUNNING" in done.stdout, done.stderr
    run("--quiet", *DEVICES, "--trace", os.path.relpath(folder / "moved"), "--", "sh", "-c",
        f"cd / && {os.path.abspath(VMM)} cdev")
    assert "vfio0 RUNNING" in (folder / "moved").read_text()
    # Accesses to a stopped device are seen, and told.
    done = run("--quiet", *DEVICES, "--json", seen, "--", VMM, "revoke")
    assert json.loads(seen.read_text())["devices"][0]["violations"] == 2
    # A write by an eventfd is an access too, and interrupts are counted, those that had to wait as well.
    run("--quiet", *DEVICES, "--json", seen, "--", VMM, "ioeventfd")
    assert json.loads(seen.read_text())["devices"][0]["violations"] == 1
    done = run(*DEVICES, "--json", seen, "--", VMM, "intx")
    assert "4 delivered, 1 held back" in done.stderr, done.stderr
    first, _, last = [device["interrupts"] for device in json.loads(seen.read_text())["devices"]]
    assert first is None and last == {"delivered": 4, "held": 1}
    done = run("--device", "dmacopy", "--device", "dmacopy", "--fault",
               "vfio0.set-state:STOP_COPY=EIO", "--", VMM, "move", code=1)
    assert "struck" in done.stderr and "1 state changes failed" in done.stderr, done.stderr


def command_line(folder):
    done = run("--quiet", *DEVICES, "--", "sh", "-c",
               "echo {vfio1} {iommufd} {vfio7} {host1}; ls -d {sysfs0}; exit 7", code=7)
    first, sysfs = done.stdout.splitlines()
    assert first == "1002 1000 {vfio7} 5153:02:00.0" and sysfs.endswith("/5153:01:00.0")
    assert not pathlib.Path(sysfs).exists(), "the folder of the run is still there"
    # The numbers reach whatever the command starts.
    run("--quiet", *DEVICES, "--", "sh", "-c", f"exec {VMM} cdev")
    for args, text in ((("--", "true"), "--device SPEC is missing"),
                       (("--device", "dmacopy"), "COMMAND is missing"),
                       (("--device", "nothing", "--", "true"), "there is no model"),
                       (("--device", "vfio:0000:3b:00.2", "--", "true"),
                        "serve it ('quiesce serve vfio:0000:3b:00.2 --socket PATH')"),
                       (("--device", "vfio-user:", "--", "true"), "names no socket"),
                       (("--fault", "x=EIO", "--device", "dmacopy", "--", "true"), "x"),
                       (("--fault", "vfio1.reset=EIO", "--device", "dmacopy", "--", "true"),
                        "for a device 'vfio1' that there is not; there is vfio0"),
                       (("--device", "dmacopy", "--trace", folder / "no/file", "--", "true"),
                        "cannot write the trace")):
        assert text in run(*args, code=2).stderr
    done = run("--device", "dmacopy", "--", folder / "nothing", code=2)
    assert "cannot start" in done.stderr
    assert run("--device", "dmacopy", "--", "sh", "-c", "kill -9 $$", code=137).returncode == 137


def signals(folder):
    """Who asks `quiesce run` to end asks the command."""
    fifo = folder / "fifo"
    os.mkfifo(fifo)
    script = f"trap 'exit 5' TERM; echo > {fifo}; while :; do sleep 0.05; done"
    process = subprocess.Popen([TOOL, "run", "-q", "--device", "dmacopy", "--", "sh", "-c", script])
    fifo.read_text()
    process.send_signal(signal.SIGTERM)
    assert process.wait(timeout=60) == 5


def folders(folder):
    """A launcher that was killed leaves its folder, as long as the command needs it; the next run removes
    what nobody needs any more, and nothing else."""
    environment = os.environ | {"TMPDIR": str(folder)}
    quick = ["--quiet", "--device", "dmacopy", "--", "true"]
    (folder / "quiesce-run.file").touch()
    fifo, script = folder / "ready", "echo $$ > {0}; read line < {0}"
    os.mkfifo(fifo)
    process = subprocess.Popen([TOOL, "run", "-q", "--device", "dmacopy", "--", "sh", "-c",
                                script.format(fifo)], env=environment)
    command = int(fifo.read_text())
    (left,) = [path for path in folder.glob("quiesce-run.*") if path.is_dir()]
    process.kill()
    process.wait()
    run(*quick, env=environment)
    assert (left / "devices.json").exists(), "the command still needs it"
    ended = os.pidfd_open(command)
    fifo.write_text("\n")
    assert select.select([ended], [], [], 60)[0]
    os.close(ended)
    run(*quick, env=environment)
    assert [path.name for path in folder.glob("quiesce-run*")] == ["quiesce-run.file"]


def main():
    with tempfile.TemporaryDirectory(prefix="quiesce-") as name:
        folder = pathlib.Path(name)
        vmm_tests()
        over_a_socket(folder)
        what_it_says(folder)
        command_line(folder)
        signals(folder)
        folders(folder)
    print("run: ok")


if __name__ == "__main__":
    main()
