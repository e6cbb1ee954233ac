#!/usr/bin/env python3
# SPDX-License-Identifier: MIT
"""`quiesce check` of a device of ours at the kernel's interface, with each set of migration flags: what the
device promises must come through the preload library, and through the client for the kernel's devices,
whether that makes up for what a driver lacks or is raw."""
import json
import subprocess
import sys
import tempfile

TOOL = sys.argv[1]
FLAGS = (1, 3, 5, 7)
DEVICE = "vfio:/dev/vfio/devices/vfio0"
# A device of the kernel is no file that another one could be given, and reports nothing about its user.
UNTRIED = {"DEV-5", "peer-access"}


def main():
    with tempfile.TemporaryDirectory(prefix="quiesce-kernel-") as folder:
        checks = {}
        for flags in FLAGS:
            command = [TOOL, "run", "--quiet", "--device", f"dmacopy,memory=64K,flags={flags}", "--",
                       TOOL, "check", DEVICE, DEVICE + ",raw", "--json", f"{folder}/{flags}.json"]
            checks[flags] = subprocess.Popen(command, stdin=subprocess.DEVNULL,
                                             stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)
        for flags, check in checks.items():
            said = check.communicate(timeout=100)[0]
            if check.returncode:
                sys.exit(f"flags {flags}: exit {check.returncode}\n{said}")
            with open(f"{folder}/{flags}.json", encoding="utf-8") as file:
                devices = json.load(file)["devices"]
            for device in devices:
                untried = {item["id"] for item in device["findings"]
                           if item["result"] == "could not be tried"}
                if device["kind"] != "kernel" or device["flags"] != flags or untried - UNTRIED:
                    sys.exit(f"flags {flags}: {untried} could not be tried\n{said}")
            print(said.splitlines()[-1])


main()
