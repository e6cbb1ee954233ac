#!/usr/bin/env python3
# SPDX-License-Identifier: MIT
"""The shared library exports exactly what the public headers mark QSC_API, under a version."""
import pathlib
import re
import subprocess
import sys


def main():
    root, library = pathlib.Path(sys.argv[1]), sys.argv[2]
    declared = set()
    for header in (root / "include").rglob("*.h"):
        text = re.sub(r"/\*.*?\*/", "", header.read_text(), flags=re.S)
        declared |= set(re.findall(r"^QSC_API\b[^;]*?\b(qsc_\w+)\s*\(", text, re.M))
    listing = subprocess.run(["nm", "-D", "--defined-only", library], check=True, text=True,
                             capture_output=True).stdout
    exported, unversioned = set(), set()
    for line in listing.splitlines():
        kind, name = line.split()[-2:]
        if kind == "A":
            continue
        base, _, version = name.partition("@@")
        exported.add(base)
        if not version:
            unversioned.add(base)
    for name in sorted(declared - exported):
        print(f"declared but not exported: {name}")
    for name in sorted(exported - declared):
        print(f"exported but not declared in a public header: {name}")
    for name in sorted(unversioned):
        print(f"exported without a version: {name}")
    return 1 if declared ^ exported or unversioned else 0


if __name__ == "__main__":
    sys.exit(main())
