#!/usr/bin/env python3
# SPDX-License-Identifier: MIT
"""The benchmarks run and say what they promise; the figures of a quick run mean nothing."""
import json
import os
import subprocess
import sys

KEYS = {"register_read_one_cpu", "register_read_spinning", "state_data_read",
        "state_data_read_memcpy", "state_data_write", "log_report", "mark_page", "mark_run",
        "dma_write", "quiesce_device", "quiesce_device_vfio_user",
        "audit_added", "audit_dma_added", "audit_dma_file_added", "audit_log_added", "audit_data_read_added",
        "audit_data_write_added", "fault_added"}
FIELDS = {"key", "name", "unit", "value", "against", "against_value", "ratio"}


def main():
    program = sys.argv[1]
    out = subprocess.run([program, "--quick", "--json"], check=True, stdout=subprocess.PIPE).stdout
    result = json.loads(out)
    figures = result["figures"]
    want = set(KEYS)
    if len(os.sched_getaffinity(0)) < 2:
        want.remove("register_read_spinning")
    assert {figure["key"] for figure in figures} == want, figures
    for figure in figures:
        assert FIELDS <= set(figure), figure
        assert figure["against_value"] > 0, figure
        difference = figure["key"].startswith(("mark", "quiesce", "audit", "fault"))
        assert difference or figure["value"] > 0, figure
    moves = result["moves"]
    assert {(move["devices"], move["precopy"]) for move in moves} == {
        (1, False), (4, False), (1, True), (4, True)}, moves
    for move in moves:
        assert move["state_bytes"] == 4 << 20, move
        assert 0 < move["downtime_us"] <= move["total_us"], move
        assert move["socket_us"] > 0 and move["memcpy_us"] > 0, move
    people = subprocess.run([program, "--quick"], check=True, stdout=subprocess.PIPE).stdout.decode()
    assert all(figure["name"].split(",")[0] in people for figure in figures), people
    assert "4 devices of 4 MiB, pre-copy" in people, people
    wrong = subprocess.run([program, "fast"], stderr=subprocess.PIPE)
    assert wrong.returncode == 2 and b"is no benchmark" in wrong.stderr, wrong
    chosen = subprocess.run([program, "--quick", "--json", "report"], check=True,
                            stdout=subprocess.PIPE).stdout
    assert [figure["key"] for figure in json.loads(chosen)["figures"]] == ["log_report"], chosen
    print("every figure is there")


if __name__ == "__main__":
    main()
