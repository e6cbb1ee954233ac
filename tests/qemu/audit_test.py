#!/usr/bin/env python3
# SPDX-License-Identifier: MIT
"""`quiesce audit` finds by itself what QEMU is known to do to the contract, and the guest tells what it
costs; devices of one QEMU are judged as a set. Usage: audit_test.py QUIESCE JUDGE"""
import json
import subprocess
import sys
import tempfile
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))
from vm import debian

QUIESCE, JUDGE = [str(Path(program).resolve()) for program in sys.argv[1:]]
RECIPE = Path(__file__).resolve().parent / "audit_recipe.py"
DISK = "nvme,ram=16M,serial=blocks"
ENGINE = "dmacopy,memory=1M"


def audit(report, fault=None, more=()):
    """Move once, with more devices beside the disk; what the guest says of its data, and what was
    found."""
    devices = [f"{name}={DISK}" for name in ("source", "destination")]
    for number, spec in enumerate(more, 2):
        devices += [f"{name}{number}={spec}" for name in ("source", "destination")]
    done = subprocess.run(
        [QUIESCE, "audit", *(word for device in devices for word in ("--device", device)), "--json",
         report, *(["--fault", fault] if fault else []), "--", sys.executable, RECIPE, QUIESCE, JUDGE,
         *(f"{{socket{number}}}" for number in range(len(devices)))],
        text=True, capture_output=True, check=False)
    assert done.returncode in (0, 1), f"{done.returncode}: {done.stdout}{done.stderr}"
    print(done.stdout)
    said = dict(line.split(": ", 1) for line in done.stdout.splitlines()
                if line.startswith(("reported: ", "data: ")))
    assert said["reported"] == "success", said
    return said["data"], json.loads(Path(report).read_text(encoding="utf-8"))


def kinds(found):
    return {(one["kind"], one["clause"]) for one in found["findings"]}


MOVES = (
    # Reset and run after a refused state.
    ("destination.arc:RESUMING-STOP=EIO", "wrong", {("violation", "ORD-8")}),
    # Stale memory without dirty tracking.
    ("source.get-migration=nolog", "wrong", {("violation", "ORD-7")}))


def check_set(folder):
    """Two devices of one QEMU, the second with memory that the first one's DMA reaches: QEMU waits for
    all to be quiescent before any stops, and for all to have left STOP before any runs. It validates
    when the source is gone; here the destination takes its time for that."""
    data, found = audit(f"{folder}/set.json", "destination.arc:RESUMING-STOP=delay:2s", (ENGINE,))
    assert data == "right" and (found["devices"], found["moves"]) == (4, 2), found
    assert {("violation", "ORD-5"), ("stretch", "ORD-2")} <= kinds(found), found
    assert not [clause for _, clause in kinds(found) if clause and clause.startswith("SET-")], found


def check_single(folder):
    """A QEMU with the devices in place of the kernel's, as the manual shows it."""
    qemu = debian.qemu()
    report = Path(folder) / "single.json"
    done = subprocess.run(
        [QUIESCE, "audit", "--device", "nvme,ram=16M", "--device", ENGINE, "--json", report, "--",
         *qemu.command, "-accel", "tcg", "-M", "q35", "-m", "64", "-nodefaults", "-display", "none", "-S",
         "-qmp", "stdio", "-object", "iommufd,id=iommufd0,fd={iommufd}",
         "-device", "vfio-pci,iommufd=iommufd0,fd={vfio0}",
         "-device", "vfio-pci,iommufd=iommufd0,fd={vfio1}"],
        input='{"execute": "qmp_capabilities"}\n{"execute": "quit"}\n', text=True, capture_output=True,
        check=False, env=qemu.environment)
    assert done.returncode == 0, f"{done.returncode}: {done.stdout}{done.stderr}"
    found = json.loads(report.read_text(encoding="utf-8"))
    assert found["devices"] == 2 and found["actions"] > 100 and found["exit_code"] == 0, found
    assert "actions by users of 2 devices" in done.stdout, done.stdout


def main():
    # A guest whose disk forgot everything waits long for it: the others move meanwhile.
    with tempfile.TemporaryDirectory() as folder, ThreadPoolExecutor(3) as pool:
        runs = [pool.submit(audit, f"{folder}/{i}.json", move[0]) for i, move in enumerate(MOVES)]
        others = [pool.submit(check, folder) for check in (check_set, check_single)]
        for (fault, data, clauses), run in zip(MOVES, runs):
            found = run.result()
            assert found[0] == data and clauses <= kinds(found[1]), f"{fault}: {found}"
        for other in others:
            other.result()


main()
