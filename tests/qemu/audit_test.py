#!/usr/bin/env python3
# SPDX-License-Identifier: MIT
"""`quiesce audit` finds by itself what QEMU is known to do to the contract, and the guest tells what it
costs. Usage: audit_test.py QUIESCE JUDGE"""
import json
import subprocess
import sys
import tempfile
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

QUIESCE, JUDGE = [str(Path(program).resolve()) for program in sys.argv[1:]]
RECIPE = Path(__file__).resolve().parent / "audit_recipe.py"
DISK = "nvme,ram=16M,serial=blocks"


def audit(report, fault=None):
    """Move once; what the guest says of its data, what was reported, and the kinds of findings."""
    done = subprocess.run(
        [QUIESCE, "audit", "--device", f"source={DISK}", "--device", f"destination={DISK}", "--json",
         report, *(["--fault", fault] if fault else []), "--", sys.executable, RECIPE, QUIESCE, JUDGE,
         "{socket0}", "{socket1}"], text=True, capture_output=True, check=False)
    assert done.returncode == 1, f"{done.returncode}: {done.stdout}{done.stderr}"
    print(done.stdout)
    said = dict(line.split(": ", 1) for line in done.stdout.splitlines()
                if line.startswith(("reported: ", "data: ")))
    assert said["reported"] == "success", said
    found = json.loads(Path(report).read_text(encoding="utf-8"))
    return said["data"], {(one["kind"], one["clause"]) for one in found["findings"]}


MOVES = (
    # Reset and run after a failed start and after a refused state.
    ("destination.arc:STOP-RUNNING_P2P=EIO", "wrong", {("violation", "ORD-8")}),
    ("destination.arc:RESUMING-STOP=EIO", "wrong", {("violation", "ORD-8")}),
    # Validation after the source is gone; interrupt setup while RESUMING.
    (None, "right", {("violation", "ORD-5"), ("stretch", "ORD-2")}),
    # Stale memory without dirty tracking.
    ("source.get-migration=nolog", "wrong", {("violation", "ORD-7")}))


def main():
    # A guest whose disk forgot everything waits long for it: the others move meanwhile.
    with tempfile.TemporaryDirectory() as folder, ThreadPoolExecutor(3) as pool:
        runs = [pool.submit(audit, f"{folder}/{i}.json", move[0]) for i, move in enumerate(MOVES)]
        for (fault, data, clauses), run in zip(MOVES, runs):
            found = run.result()
            assert found[0] == data and clauses <= found[1], f"{fault}: {found}"


main()
