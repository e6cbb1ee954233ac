#!/usr/bin/env python3
# SPDX-License-Identifier: MIT
"""The client for the kernel's devices against devices of ours at the kernel's interface: both ends of that
interface are this project's, so everything between them has to fit. A tenant's two engines move from
one process to another; it compares every byte, and the devices judge their user."""
import os
import re
import signal
import subprocess
import sys
import tempfile

TOOL = sys.argv[1]
DEVICES = ["a=vfio:/dev/vfio/devices/vfio0", "b=vfio:/dev/vfio/devices/vfio1"]
TENANT = ["--memory", "16M", "--tenant", "copy", "--downtime-limit", "60s"]


def command(*arguments):
    """The tool with two devices of ours in place of the kernel's."""
    return [TOOL, "run", *["--device", "dmacopy,memory=1M"] * 2, "--", TOOL, *arguments]


def start(*arguments):
    return subprocess.Popen(command(*arguments), stdin=subprocess.DEVNULL, stdout=subprocess.PIPE,
                            stderr=subprocess.STDOUT, text=True, start_new_session=True)


def until(process, pattern):
    """All it says until a line that matches."""
    said = ""
    for line in process.stdout:
        said += line
        if re.search(pattern, line):
            return said
    sys.exit(f"it did not say '{pattern}':\n{said}")


def judge(name, said, code):
    verdicts = re.findall(r"against the contract: (\d+) violations, (\d+) stretches", said)
    if code or len(verdicts) != 2 or any(violations != "0" for violations, _ in verdicts):
        sys.exit(f"{name} ended with {code} and {verdicts}:\n{said}")


def main():
    info = subprocess.run(command("info", DEVICES[0][2:]), stdin=subprocess.DEVNULL, text=True,
                          stdout=subprocess.PIPE, stderr=subprocess.STDOUT, check=False)
    if info.returncode or "STOP_COPY, P2P, PRE_COPY (flags 7)" not in info.stdout:
        sys.exit(f"info ended with {info.returncode}:\n{info.stdout}")
    with tempfile.TemporaryDirectory(prefix="quiesce-kernel-") as folder:
        place = f"unix:{folder}/move"
        receiver = start("receive", "--from", place, *DEVICES, *TENANT[:4])
        said = until(receiver, "waiting at")
        sender = start("send", "--to", place, *DEVICES, *TENANT)
        sent = sender.communicate()[0]
        judge("send", sent, sender.returncode)
        said += until(receiver, "holding the set")
        # All of its session: the command that holds the devices is not our child.
        os.killpg(receiver.pid, signal.SIGTERM)
        said += receiver.communicate()[0]
        judge("receive", said, receiver.returncode)
        found = re.search(r"(\d+) bytes wrong; (\d+) interrupts, (\d+) lost, (\d+) doubled", said)
        if not found or found[1] != "0" or found[3] != "0" or found[4] != "0":
            sys.exit(f"the tenant found something wrong:\n{said}")
    print(found[0])


main()
