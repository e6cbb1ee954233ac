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
MODELS = ("dmacopy,memory=64K", "nvme,ram=1M")
FLAGS = (1, 3, 5, 7)
DEVICE = "vfio:/dev/vfio/devices/vfio0"
# A device of the kernel is no file that another one could be given, and reports nothing about its user.
UNTRIED = {"DEV-5", "peer-access"}


def begin(spec, file):
    command = [TOOL, "run", "--quiet", "--device", spec, "--", TOOL, "check", DEVICE, DEVICE + ",raw",
               "--json", file]
    return subprocess.Popen(command, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE,
                            stderr=subprocess.STDOUT, text=True)


def judge(model, flags, check, file):
    said = check.communicate(timeout=100)[0]
    if check.returncode:
        sys.exit(f"{model}, flags {flags}: exit {check.returncode}\n{said}")
    with open(file, encoding="utf-8") as found:
        devices = json.load(found)["devices"]
    for device in devices:
        untried = {item["id"] for item in device["findings"]
                   if item["result"] == "could not be tried"}
        if (device["kind"] != "kernel" or device["flags"] != flags or untried - UNTRIED
                or device["exerciser"] != model.split(",")[0]):
            sys.exit(f"{model}, flags {flags}: {untried} could not be tried\n{said}")
    print(f"{model}, flags {flags}: {said.splitlines()[-1]}")


def main():
    with tempfile.TemporaryDirectory(prefix="quiesce-kernel-") as folder:
        checks = [(model, flags, f"{folder}/{model[0]}{flags}.json") for model in MODELS for flags in FLAGS]
        running = [begin(f"{model},flags={flags}", file) for model, flags, file in checks]
        for (model, flags, file), check in zip(checks, running):
            judge(model, flags, check, file)


main()
