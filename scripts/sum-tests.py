#!/usr/bin/env python3
# SPDX-License-Identifier: MIT
"""One line over the JUnit files that meson wrote. A file that is missing is a failure: its build did
not get as far as running anything."""
import pathlib
import sys
import xml.etree.ElementTree as tree


def main():
    passed = failed = skipped = 0
    for name in sys.argv[1:]:
        if not pathlib.Path(name).exists():
            print(f"{name}: not written, so that build ran no test")
            failed += 1
            continue
        for case in tree.parse(name).iter("testcase"):
            if case.find("failure") is not None or case.find("error") is not None:
                failed += 1
                print(f"failed: {case.get('classname', '')} {case.get('name', '')}")
            elif case.find("skipped") is not None:
                skipped += 1
            else:
                passed += 1
    print(f"{passed} passed, {failed} failed, {skipped} skipped")
    return 1 if failed or not passed else 0


if __name__ == "__main__":
    sys.exit(main())
