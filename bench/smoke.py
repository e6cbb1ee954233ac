#!/usr/bin/env python3
# SPDX-License-Identifier: MIT
"""The benchmarks run and say what they promise; the figures of a quick run mean nothing."""
import json
import os
import subprocess
import sys

KEYS = {"register_read_one_cpu", "register_read_spinning", "state_data_read",
        "state_data_read_memcpy", "log_report", "mark_page", "mark_run", "dma_write"}
FIELDS = {"key", "name", "unit", "value", "against", "against_value", "ratio"}


def main():
    program = sys.argv[1]
    out = subprocess.run([program, "--quick", "--json"], check=True, stdout=subprocess.PIPE).stdout
    figures = json.loads(out)["figures"]
    want = set(KEYS)
    if len(os.sched_getaffinity(0)) < 2:
        want.remove("register_read_spinning")
    assert {figure["key"] for figure in figures} == want, figures
    for figure in figures:
        assert FIELDS <= set(figure), figure
        assert figure["against_value"] > 0, figure
        assert figure["key"].startswith("mark") or figure["value"] > 0, figure
    people = subprocess.run([program, "--quick"], check=True, stdout=subprocess.PIPE).stdout.decode()
    assert all(figure["name"].split(",")[0] in people for figure in figures), people
    wrong = subprocess.run([program, "fast"], stderr=subprocess.PIPE)
    assert wrong.returncode == 2 and b"no arguments are taken" in wrong.stderr, wrong
    print("every figure is there")


if __name__ == "__main__":
    main()
