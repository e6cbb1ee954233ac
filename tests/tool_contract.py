#!/usr/bin/env python3
# SPDX-License-Identifier: MIT
"""`quiesce contract` from outside: its JSON against rules written here, its other formats against
its JSON, and every wrong command line ends with exit code 2 and one line."""
import collections
import json
import re
import subprocess
import sys

STATES = ["ERROR", "STOP", "RUNNING", "STOP_COPY", "RESUMING", "RUNNING_P2P", "PRE_COPY",
          "PRE_COPY_P2P"]
SAVING = {"PRE_COPY", "PRE_COPY_P2P", "STOP_COPY"}
P2P, PRE = 2, 4


def run(tool, *args, code=0):
    done = subprocess.run([tool, *args], text=True, capture_output=True, check=False)
    assert done.returncode == code, f"{args}: exit {done.returncode}, {done.stderr}"
    return done


def arcs(flags):
    found = {("STOP", "RESUMING"), ("RESUMING", "STOP"), ("STOP", "STOP_COPY"),
             ("STOP_COPY", "STOP")}
    running_down = "RUNNING_P2P" if flags & P2P else "RUNNING"
    found |= {(running_down, "STOP"), ("STOP", running_down)}
    if flags & P2P:
        found |= {("RUNNING", "RUNNING_P2P"), ("RUNNING_P2P", "RUNNING")}
    if flags & PRE:
        found |= {("RUNNING", "PRE_COPY"), ("PRE_COPY", "RUNNING")}
        last = "PRE_COPY_P2P" if flags & P2P else "PRE_COPY"
        found.add((last, "STOP_COPY"))
    if flags & P2P and flags & PRE:
        for other in ("PRE_COPY", "RUNNING_P2P"):
            found |= {(other, "PRE_COPY_P2P"), ("PRE_COPY_P2P", other)}
    return found


def next_step(flags, current, target):
    """Breadth first; inside a path only saving states when both ends are, none of them else."""
    have = arcs(flags)
    states = {s for arc in have for s in arc}
    if current not in states or target not in states:
        return "EINVAL"
    inside = current in SAVING and target in SAVING
    queue = collections.deque([(current, None)])
    seen = {current}
    while queue:
        at, first = queue.popleft()
        if at == target:
            return first or current
        if at != current and (at in SAVING) != inside:
            continue
        for start, end in sorted(have):
            if start == at and end not in seen:
                seen.add(end)
                queue.append((end, first or end))
    return "EINVAL"


def check_next(entries):
    assert len(entries) == 4 * 8 * 9
    for entry in entries:
        assert set(entry) == {"flags", "current", "target", "next"}
        want = next_step(entry["flags"], entry["current"], entry["target"])
        assert entry["next"] == want, f"{entry}: {want} expected"
    keys = {(e["flags"], e["current"], e["target"]) for e in entries}
    assert keys == {(f, c, t) for f in (1, 3, 5, 7) for c in STATES for t in [*STATES, "8"]}


def verdict(action, state):
    """Rules instead of a table: what the list says, group by group."""
    active = state in ("RUNNING", "PRE_COPY")
    p2p = state.endswith("_P2P")
    precopy = state.startswith("PRE_COPY")
    if action == "precopy-info":
        return "allow" if precopy else "EINVAL"
    if action == "data-read":
        return "allow" if state in SAVING else "ENODEV"
    if action == "data-write":
        return "allow" if state == "RESUMING" else "ENODEV"
    if active or action in ("dma-mapping", "log-report", "query", "reset"):
        return "allow"
    if action == "register-access":
        return "tolerate" if p2p else "discard"
    if action == "peer-access":
        return "allow" if p2p else "discard"
    if action.startswith("device-") and action.endswith("-dma"):
        if not p2p:
            return "never"
        return "never-new" if action == "device-peer-dma" else "if-told"
    if action == "device-irq":
        return "drop" if state == "ERROR" else "hold"
    if action == "config-read":
        return "tolerate" if state in ("RESUMING", "ERROR") else "allow"
    if state == "ERROR":
        return "EIO"
    if action == "irq-trigger":
        return "hold"
    if action == "config-write" and p2p:
        return "tolerate"
    if action in ("config-write", "irq-setup") and state == "RESUMING":
        return "tolerate"
    return "allow"


def check_actions(entries):
    assert len(entries) == 17 * 8
    for entry in entries:
        assert set(entry) == {"action", "state", "verdict"}
        want = verdict(entry["action"], entry["state"])
        assert entry["verdict"] == want, f"{entry}: {want} expected"
    assert len({(e["action"], e["state"]) for e in entries}) == 17 * 8


def check_clauses(entries):
    count = collections.Counter(e["id"].split("-")[0] for e in entries)
    assert count == {"STATE": 5, "ARC": 7, "SESS": 11, "DEV": 8, "LOG": 4, "SET": 5, "ORD": 9}
    for entry in entries:
        assert set(entry) == {"id", "binds", "authority", "text"}
        group = entry["id"].split("-")[0]
        assert entry["binds"] == {"SET": "set", "ORD": "user"}.get(group, "device")
        assert set(entry["authority"].split(", ")) <= set("HSQV")
        assert entry["text"].endswith((".", ")"))


def check_formats(tool, contract):
    text = run(tool, "contract").stdout
    rst = run(tool, "contract", "--rst").stdout
    flat = " ".join(text.split())
    for entry in contract["clauses"]:
        assert f"\n   {entry['id']}\n" in rst
        assert " ".join(entry["text"].split()) in flat, entry["id"]
    assert contract["path"] in flat
    parts = [line[9:] for line in rst.splitlines() if line.startswith(".. begin ")]
    assert parts == [line[7:] for line in rst.splitlines() if line.startswith(".. end ")]
    assert len(parts) == len(set(parts)) == 2 + 4 + 2 + 7
    dot = run(tool, "contract", "--dot").stdout
    edges = {tuple(line.split("[")[0].replace("\t", "").strip().split(" -> "))
             for line in dot.splitlines() if " -> " in line}
    assert edges == set().union(*(arcs(f) for f in (1, 3, 5, 7)))
    assert max(len(line) for line in text.splitlines()) <= 100


def check_usage(tool):
    wrong = [[], ["nonsense"], ["contract", "x"], ["contract", "--nonsense"], ["contract", "-q"],
             ["contract", "--json=1"], ["contract", "--json", "--dot"], ["demo", "--devices"],
             ["help", "nonsense"], ["help", "contract", "more"], ["serve", "--s"]]
    for args in wrong:
        done = run(tool, *args, code=2)
        assert not done.stdout
        assert done.stderr.startswith("quiesce") and done.stderr.count("\n") == 1, done.stderr
        assert re.search(r"; see 'quiesce( [a-z]+)? --help'\n$", done.stderr), done.stderr
    assert run(tool, "help").stdout == run(tool, "--help").stdout
    for command in ("contract", "demo", "info", "serve"):
        assert run(tool, "help", command).stdout == run(tool, command, "--help").stdout
        assert run(tool, command, "--version").stdout == run(tool, "--version").stdout
    assert "contract" in run(tool, "--help").stdout
    assert "--json" in run(tool, "contract", "--help").stdout
    assert run(tool, "--version").stdout.startswith("quiesce ")


def check_streams(tool):
    """Exit codes when there is no reader, for what is printed and for what is complained about."""
    wrong = ["contract", "--nonsense"]
    for args in (["contract"], ["contract", "--json"], ["contract", "--help"],
                 ["contract", "--version"], ["--help"], ["--version"],
                 ["info", "--json", "model:dmacopy"], ["info", "model:dmacopy"]):
        for out in (">/dev/full", ">&-"):
            done = subprocess.run(["sh", "-c", f'"$@" {out}', "sh", tool, *args], text=True,
                                  stderr=subprocess.PIPE, check=False)
            assert done.returncode == 1 and "standard output" in done.stderr, (args, out, done)
        for err in ("2>/dev/full", "2>&-", "<&- 2>&-"):
            done = subprocess.run(["sh", "-c", f'"$@" {err}', "sh", tool, *args], check=False,
                                  stdout=subprocess.PIPE)
            assert done.returncode == 0 and done.stdout, (args, err, done)
    for end in ("2>/dev/full", "2>&-", ">&- 2>&-"):
        done = subprocess.run(["sh", "-c", f'"$@" {end}', "sh", tool, *wrong], check=False)
        assert done.returncode == 2, (end, done)


def main():
    tool = sys.argv[1]
    contract = json.loads(run(tool, "contract", "--json").stdout)
    assert set(contract) == {"path", "next", "actions", "clauses"}
    check_next(contract["next"])
    check_actions(contract["actions"])
    check_clauses(contract["clauses"])
    check_formats(tool, contract)
    check_usage(tool)
    check_streams(tool)
    return 0


if __name__ == "__main__":
    sys.exit(main())
