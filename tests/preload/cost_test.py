#!/usr/bin/env python3
# SPDX-License-Identifier: MIT
"""What the preload library costs calls that are about nothing of ours, beside the same without it.

The best of many rounds, so that a busy machine disturbs little; and both several times in turn.
"""
import subprocess
import sys

TOOL, COST = sys.argv[1:3]
WITH = (TOOL, "run", "--quiet", "--device", "dmacopy", "--")
# Of what a call takes itself, and beside that: calls that make the kernel work vary most.
MOST_SHARE = 0.25
MOST_NS = 60


def measure(*prefix):
    out = subprocess.run([*prefix, COST], text=True, capture_output=True, check=True).stdout
    return {line.split()[0]: float(line.split()[1]) for line in out.splitlines()}


def main():
    best = {}
    for _ in range(3):
        for which, prefix in (("without", ()), ("with", WITH)):
            for call, ns in measure(*prefix).items():
                key = (call, which)
                best[key] = min(ns, best.get(key, ns))
    print(f"  {'ns a call':12} without    with    more")
    for call in dict.fromkeys(call for call, _ in best):
        without, with_ = best[call, "without"], best[call, "with"]
        print(f"  {call:12} {without:7.1f} {with_:7.1f} {with_ - without:7.1f}")
        assert with_ - without < MOST_NS + MOST_SHARE * without, call


if __name__ == "__main__":
    main()
