#!/usr/bin/env python3
# SPDX-License-Identifier: MIT
"""`quiesce audit` finds by itself what QEMU is known to do to the contract, and the guest tells what it
costs. Usage: audit_test.py QUIESCE JUDGE"""
import json
import subprocess
import sys
import tempfile
from pathlib import Path

QUIESCE, JUDGE = [str(Path(program).resolve()) for program in sys.argv[1:]]
RECIPE = Path(__file__).resolve().parent / "audit_recipe.py"
DISK = "nvme,ram=16M,serial=blocks"


def audit(report, *more, code):
    done = subprocess.run(
        [QUIESCE, "audit", "--device", f"source={DISK}", "--device", f"destination={DISK}", "--json",
         report, *more, "--", sys.executable, RECIPE, QUIESCE, JUDGE, "{socket0}", "{socket1}"],
        text=True, capture_output=True, check=False)
    assert done.returncode == code, f"{done.returncode}: {done.stdout}{done.stderr}"
    print(done.stdout)
    return json.loads(Path(report).read_text(encoding="utf-8"))


def main():
    with tempfile.TemporaryDirectory() as folder:
        found = audit(f"{folder}/move.json", code=1)
        kinds = {(one["kind"], one["clause"]) for one in found["findings"]}
        assert found["moves"] == 1, found
        # Validation after the source is gone; interrupt setup while RESUMING.
        assert {("violation", "ORD-5"), ("stretch", "ORD-2")} <= kinds, kinds
        # Reset and run after a failed start; stale memory without dirty tracking.
        runs = audit(f"{folder}/faults.json", "--provoke", "--fault",
                     "destination.arc:STOP-RUNNING_P2P=EIO", "--fault", "source.get-migration=nolog",
                     code=1)
        assert [one["data"] for one in runs] == ["right", "silently lost", "silently lost"], runs
        assert "ORD-8" in runs[1]["clauses"] and "ORD-7" in runs[2]["clauses"], runs


main()
