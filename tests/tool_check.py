#!/usr/bin/env python3
# SPDX-License-Identifier: MIT
"""`quiesce check` from outside: what it prints and writes, its exit codes, and the way back from a
finding to the same finding."""
import contextlib
import json
import os
import pathlib
import shlex
import signal
import subprocess
import sys
import tempfile
import xml.etree.ElementTree as xml

TOOL = sys.argv[1]
# In builds that take their time, one set of flags says enough.
FLAGS = (1, 3, 5, 7) if len(sys.argv) < 3 else (7,)
RESULTS = {"holds", "broken", "not promised", "could not be tried"}


def run(*args, code=0):
    done = subprocess.run([TOOL, "check", *args], text=True, capture_output=True, check=False,
                          timeout=120)
    assert done.returncode == code, f"{args}: exit {done.returncode}: {done.stdout}{done.stderr}"
    return done


class Served:
    """A device over vfio-user, that fails where `fault` says so."""

    def __init__(self, path, fault=None, spec="dmacopy,memory=64K"):
        command = [TOOL, "serve", spec, "--socket", str(path)]
        self.process = subprocess.Popen(command + (["--fault", fault] if fault else []),
                                        stdout=subprocess.PIPE, stderr=subprocess.DEVNULL,
                                        text=True, errors="surrogateescape")
        self.uri = f"vfio-user:{path}"
        assert self.process.stdout.readline().startswith("serving ")

    def __enter__(self):
        return self.uri

    def __exit__(self, *_):
        self.process.send_signal(signal.SIGTERM)
        self.process.wait(20)
        self.process.stdout.close()


def check_conforming(folder):
    """A sound device: every item has a result, in all formats the same."""
    out = folder / "out.json"
    junit = folder / "out.xml"
    done = run("model:dmacopy,memory=64K", "--tells-peers", "off", "--json", str(out), "--junit",
               str(junit))
    device = json.loads(out.read_text())["devices"][0]
    ids = [f["id"] for f in device["findings"]]
    assert len(ids) == len(set(ids)) == 53, ids
    assert ids[0] == "STATE-1" and ids[34] == "LOG-4" and ids[-1] == "walk", ids
    assert device["verdict"] == "conforms" and device["error"] is None, device
    assert device["exerciser"] == device["type"] == "dmacopy" and device["kind"] == "runtime"
    assert {f["result"] for f in device["findings"]} == {"holds"}, device["findings"]
    for item in ids:
        assert f"\n  {item} " in done.stdout, item
    assert "conforms\n53 hold, 0 broken, 0 not promised, 0 could not be tried" in done.stdout
    suite = xml.parse(junit).getroot().find("testsuite")
    assert [case.get("name") for case in suite] == ids and suite.get("failures") == "0"
    tap = run("model:dmacopy,memory=64K", "--tap").stdout.splitlines()
    assert len(tap) == 54 and tap[-1] == "1..53" and all(t.startswith("ok ") for t in tap[:-1])


def check_flags(folder):
    """What a device has not promised is no fault of it."""
    out = folder / "flags.json"
    run("model:dmacopy,memory=64K,flags=1", "--json", str(out))
    found = {f["id"]: f for f in json.loads(out.read_text())["devices"][0]["findings"]}
    assert set(f["result"] for f in found.values()) <= RESULTS - {"broken"}
    for item in ("ARC-4", "SESS-4", "DEV-4", "DEV-5", "precopy-info"):
        assert found[item]["result"] == "not promised" and "no P" in found[item]["text"], found


def check_broken(folder):
    """A liar is named with evidence, and the command that it ends with shows it again."""
    out, junit = folder / "broken.json", folder / "broken.xml"
    with Served(folder / "s", "set-state:RUNNING/RUNNING=EINVAL") as uri:
        done = run(uri, "--clause", "ARC-2", "--json", str(out), "--junit", str(junit), code=1)
        device = json.loads(out.read_text())["devices"][0]
        (finding,) = device["findings"]
        assert device["verdict"] == "broken" and finding["clause"] == "ARC-2"
        assert finding["text"] == "a request for RUNNING in RUNNING gives: Invalid argument"
        assert finding["promise"].startswith("A request for the current state succeeds"), finding
        assert finding["steps"][-1] == ("device RUNNING set-state target=RUNNING session=0 = "
                                        "-EINVAL"), finding
        for line in ("BROKEN ARC-2", "does not conform: it breaks ARC-2", finding["again"],
                     *finding["steps"]):
            assert line in done.stdout, (line, done.stdout)
        suite = xml.parse(junit).getroot().find("testsuite")
        failure = suite.find("testcase").find("failure")
        assert failure.get("type") == "ARC-2" and finding["steps"][-1] in failure.text
        again = shlex.split(finding["again"])
        assert again[0] == "quiesce" and again[1] == "check"
        done = run(*again[2:], "--tap", code=1)
        assert done.stdout.startswith("not ok 1 - ") and finding["text"] in done.stdout


def check_walk(folder):
    """A walk finds what is wrong by itself, shrinks it, and its seed shows it again."""
    out = folder / "walk.json"
    with Served(folder / "w", "data-size/STOP_COPY=EINVAL") as uri:
        run(uri, "--clause", "walk", "--json", str(out), code=1)
        (finding,) = json.loads(out.read_text())["devices"][0]["findings"]
        assert finding["clause"] == "SESS-10" and finding["seed"], finding
        # The shortest: go there, and ask.
        assert finding["text"].startswith("after 2 of "), finding
        assert "STOP_COPY data-size" in finding["steps"][-1], finding
        assert finding["again"].endswith(f"--clause walk --seed {finding['seed']}"), finding
        run(*shlex.split(finding["again"])[2:], "--json", str(out), code=1)
        (again,) = json.loads(out.read_text())["devices"][0]["findings"]
        assert (again["text"], again["clause"]) == (finding["text"], "SESS-10"), again


def conforms(folder, uris, unpromised):
    """All at once: nothing is untried, and nothing but what the flags do not promise."""
    out = folder / "all.json"
    run(*uris, "--tells-peers", "off", "--dangerous", "--json", str(out))
    devices = json.loads(out.read_text())["devices"]
    assert len(devices) == len(uris)
    for device in devices:
        found = {f["id"]: f["result"] for f in device["findings"]}
        assert device["verdict"] == "conforms" and device["exerciser"] == device["type"], device
        lacking = {i for i, result in found.items() if result != "holds"}
        assert lacking == unpromised(device["flags"]), (device["uri"], lacking)
        assert {found[i] for i in lacking} <= {"not promised"}, found
        assert not [f for f in device["findings"] if "could not be tried" in f["text"]], device


def nvme_lacks(flags):
    return {"DEV-5", "peer-access"} | (set() if flags & 2 else {"DEV-4"}) | (
        set() if flags & 4 else {"ARC-4", "SESS-4", "precopy-info"})


def check_nvme(folder):
    """The other model conforms fully, with each set of flags, in this process and behind a socket."""
    if len(FLAGS) > 1:
        conforms(folder, [f"model:nvme,ram=1M,flags={flags}" for flags in FLAGS], nvme_lacks)
    with contextlib.ExitStack() as stack:
        conforms(folder, [stack.enter_context(Served(folder / f"n{flags}", spec=f"nvme,ram=1M,flags={flags}"))
                          for flags in FLAGS], nvme_lacks)
    with open(folder / "disk", "wb") as disk:
        disk.truncate(1 << 20)
    # What is written to a file is no state of the device; nothing else is different.
    run(f"model:nvme,file={folder}/disk", "--clause", "SESS-4", "--clause", "SESS-8", "--clause", "LOG-1")
    done = run(f"model:nvme,file={folder}/disk,readonly=on", "--clause", "DEV-1", code=3)
    assert "the exerciser nvme cannot prepare the device: Read-only" in " ".join(done.stdout.split())
    # Too few interrupts for what the exerciser does.
    assert "; no exerciser for this device" in run("model:nvme,ram=1M,queues=3", "--clause", "DEV-1", code=3).stdout


def check_unknown(folder):
    """A device of a type that nobody knows: what needs to know it is said to be untried."""
    with Served(folder / "u", "region-read:0=fill:0") as uri:
        done = run(uri, "--clause", "DEV-1", code=3)
        assert "no exerciser for this device type" in done.stdout, done.stdout
        run(uri, "--clause", "SESS-3", "--clause", "ARC-1")


def check_destination(folder):
    """What one device saves is loaded by another one; a stranger refuses it."""
    with Served(folder / "to") as uri:
        run("model:dmacopy,memory=64K", "--to", uri)
        # One that is another device breaks nothing by refusing it.
        done = run("model:dmacopy,memory=128K", "--to", uri, code=3)
        assert "cannot take what the device saves" in done.stderr, done.stderr


def check_gone(folder):
    """A server that dies is seen to, and what comes after it could not be tried."""
    out = folder / "gone.json"
    with Served(folder / "g", "set-state:RESUMING@1=kill") as uri:
        run(uri, "--clause", "ARC-1", "--clause", "ARC-2", "--json", str(out), code=3)
    device = json.loads(out.read_text())["devices"][0]
    assert {f["result"] for f in device["findings"]} <= {"could not be tried"}, device


def look(out, *args, code):
    run(*args, "--json", str(out), code=code)
    (device,) = json.loads(out.read_text())["devices"]
    return device, {f["id"]: f for f in device["findings"]}


def check_killed(folder):
    """That a server dies is told where it happened, breaks no clause, and is never a good report."""
    out = folder / "killed.json"
    with Served(folder / "k1", "set-state:STOP_COPY/RUNNING@2=kill") as uri:
        device, found = look(out, uri, code=1)
    assert device["verdict"] == "broken" and len(found) == 53, device
    broken = [f for f in found.values() if f["result"] == "broken"]
    assert [(f["id"], f["clause"], f["gone"]) for f in broken] == [("ARC-1", None, True)], broken
    assert broken[0]["steps"][-1] == "device RUNNING set-state target=STOP_COPY session=0 = -ENOTCONN"
    assert found["ARC-2"]["result"] == "could not be tried" and "has ended" in found["ARC-2"]["text"], found
    # In the midst of an item that opens the device again, and so meets nobody.
    with Served(folder / "k2", "data-size/STOP@3+=kill") as uri:
        device, found = look(out, uri, code=1)
    (broken,) = [f for f in found.values() if f["result"] == "broken"]
    assert broken["gone"] and broken["clause"] is None and broken["steps"], broken
    # A connection that ends and can be made again: the walk is cut down to that.
    done = run("model:dmacopy,memory=64K", "--fault", "set-irqs/RUNNING_P2P=disconnect", "--json", str(out), code=1)
    assert "is gone in " in done.stdout and "breaks" not in done.stdout.splitlines()[-2], done.stdout
    found = {f["id"]: f for f in json.loads(out.read_text())["devices"][0]["findings"]}
    assert found["walk"]["gone"] and len(found["walk"]["steps"]) < 10, found["walk"]
    # Before anything was tried: nothing is said of its promises.
    with Served(folder / "k3", "get-region-info=kill") as uri:
        device, found = look(out, uri, code=3)
    assert not found and "after it was asked what it is" in device["error"], device


def check_refusing(folder):
    """One that changes no state does not conform; one whose streams cannot be loaded breaks no clause about
    requests; and why something could not be tried is always said."""
    out = folder / "refusing.json"
    for fault, clauses in (("set-state=EBUSY", {"ARC-1"}), ("arc=EAGAIN", {"ARC-1"}),
                           ("session-read=flip", {"SESS-5"}), ("session-read=EBUSY", {"SESS-1", "SESS-2", "SESS-3"}), ("region-write=EBUSY", {"DEV-7"})):
        with Served(folder / "r", fault) as uri:
            _, found = look(out, uri, code=1)
        assert {f["clause"] for f in found.values() if f["result"] == "broken"} == clauses, (fault, found)
        assert all(f["text"] for f in found.values()), (fault, found)


def check_fault(folder):
    """A device made to lie for the occasion, and a command that any shell takes."""
    out = folder / "fault.json"
    device, found = look(out, "model:dmacopy,memory=64K", "--fault", "device.set-state:RUNNING/RUNNING=EINVAL",
                         "--clause", "ARC-2", code=1)
    again = found["ARC-2"]["again"]
    assert shlex.split(again)[2:] == ["model:dmacopy,memory=64K", "--clause", "ARC-2", "--fault",
                                      "device.set-state:RUNNING/RUNNING=EINVAL"], again
    odd = folder / "it's a $(folder)"
    odd.mkdir()
    with Served(odd / "s", "set-state:RUNNING/RUNNING=EINVAL") as uri:
        _, found = look(out, uri, "--clause", "ARC-2", code=1)
        again = found["ARC-2"]["again"].replace("quiesce", shlex.quote(TOOL), 1)
        done = subprocess.run(["sh", "-c", again], text=True, capture_output=True, check=False, timeout=60)
        assert done.returncode == 1 and found["ARC-2"]["text"] in done.stdout, done


def check_names(folder):
    """A path may have any byte in it: what is written stays well-formed, and a failure a failure."""
    out, junit = folder / "names.json", folder / "names.xml"
    path = os.fsencode(folder) + b"/\xff<&\"\x01 \xc3\xa9 # SKIP\nok 2 - s"
    with Served(os.fsdecode(path), "set-state:RUNNING/RUNNING=EINVAL") as uri:
        args = [TOOL, "check", uri, "--clause", "ARC-2"]
        done = subprocess.run([*args, "--json", str(out), "--junit", str(junit)], capture_output=True, check=False,
                              timeout=120)
        tap = subprocess.run([*args, "--tap"], capture_output=True, check=False, timeout=120)
    assert done.returncode == tap.returncode == 1, (done, tap)
    (device,) = json.loads(out.read_text("utf-8"))["devices"]
    assert device["uri"].endswith("/?<&\"\x01 é # SKIP\nok 2 - s") and device["verdict"] == "broken", device
    suite = xml.parse(junit).getroot().find("testsuite")
    assert '/?<&"? é # SKIP' in suite.get("name") and suite.find("testcase").find("failure") is not None, suite
    lines = tap.stdout.split(b"\n")
    assert b' \xc3\xa9 \\# SKIP?ok 2 - s ARC-2: a request' in lines[0] and lines[0].startswith(b"not ok 1 "), lines
    assert lines[-2:] == [b"1..1", b""] and all(line.startswith(b"# ") for line in lines[1:-2]), lines


def check_missing(folder):
    """Where one of several devices cannot be had, the others have been checked and reported."""
    out, junit = folder / "missing.json", folder / "missing.xml"
    for missing, why in ((f"vfio-user:{folder}/none", "cannot connect"), ("nothing:x", "is no device"),
                         ("model:none", "none"), ("model:nvme", "needs either file")):
        done = run("model:dmacopy,memory=64K", missing, "model:dmacopy,memory=64K", "--clause", "ARC-1",
                   "--json", str(out), "--junit", str(junit), code=3)
        assert why in done.stderr and done.stdout.count(" conforms\n") == 2, done
        devices = json.loads(out.read_text())["devices"]
        assert [d["verdict"] for d in devices] == ["conforms", "could not be tried", "conforms"], devices
        assert why in devices[1]["error"] and devices[1]["uri"] == missing, devices[1]
        assert [s.get("errors") for s in xml.parse(junit).getroot()] == ["0", "1", "0"]


def check_partly(folder):
    """What holds only as far as it was tried is marked and counted."""
    _, found = look(folder / "partly.json", "model:dmacopy,memory=64K", code=0)
    assert {i for i, f in found.items() if f["partly"]} == {"STATE-5", "DEV-4", "peer-access"}, found
    done = run("model:dmacopy,memory=64K", "--clause", "STATE-5")
    assert "5 ~" in done.stdout and "1 were not tried in all parts" in done.stdout, done.stdout


def check_usage(folder):
    for args in ([], ["model:dmacopy", "--clause", "SESS-99"], ["model:none"], ["nothing:x"],
                 ["model:dmacopy", "--clause", "ORD-1"], ["model:dmacopy", "--seed", "x"],
                 ["model:dmacopy", "--fault", "nic.reset=EIO"], ["model:dmacopy", "--fault", "reset=none"],
                 ["model:dmacopy", "--register", "0:0:3"], [f"vfio-user:{folder}/none"],
                 ["model:dmacopy", "--tells-peers", "perhaps"],
                 ["model:dmacopy", "--json", f"{folder}/none/x"]):
        done = run(*args, code=2)
        assert not done.stdout and done.stderr.count("\n") == 1, done
        assert done.stderr.endswith("--help'\n"), done
    assert "steps '100001' is no number from 1 to 100000;" in run("model:dmacopy", "--steps", "100001", code=2).stderr
    # Whole, however long it is.
    assert "or vfio:/dev/vfio/12, each with ,via=cdev or ,via=legacy where it matters; see" in \
        run("vfio:nothing", code=2).stderr


def main():
    with tempfile.TemporaryDirectory() as name:
        folder = pathlib.Path(name)
        for check in (check_conforming, check_nvme, check_flags, check_broken, check_walk, check_unknown,
                      check_destination, check_gone, check_killed, check_refusing, check_fault, check_names,
                      check_missing, check_partly, check_usage):
            check(folder)
            print(f"{check.__name__}: ok")


if __name__ == "__main__":
    main()
