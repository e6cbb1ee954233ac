#!/usr/bin/env python3
# SPDX-License-Identifier: MIT
"""One line over the JUnit files that meson wrote, and what stands in its log beside each: a test that died after
its last result is in the log alone. A file that is missing is a failure: its build did not get as
far as running anything."""
import json
import pathlib
import sys
import xml.etree.ElementTree as tree

BAD = {"FAIL", "ERROR", "TIMEOUT", "INTERRUPT", "UNEXPECTEDPASS"}


def count(name):
    """Passed, skipped, and the names of what failed."""
    passed = skipped = 0
    failed = []
    known = set()
    for suite in tree.parse(name).iter("testsuite"):
        for case in suite.iter("testcase"):
            if case.find("failure") is not None or case.find("error") is not None:
                failed.append(f"{case.get('classname', '')} {case.get('name', '')}")
                known |= {case.get("name"), suite.get("name", "").partition(".")[2]}
            elif case.find("skipped") is not None:
                skipped += 1
            else:
                passed += 1
    for line in pathlib.Path(name).with_name("testlog.json").read_text(encoding="utf-8").splitlines():
        test = json.loads(line)
        if test["result"] in BAD and test["name"] not in known:
            failed.append(f"{test['name']}, which ended with {test['returncode']} after its last result")
    return passed, skipped, failed


def main():
    passed = failed = skipped = 0
    for name in sys.argv[1:]:
        if not pathlib.Path(name).exists():
            print(f"{name}: not written, so that build ran no test")
            failed += 1
            continue
        more, left_out, bad = count(name)
        passed += more
        skipped += left_out
        failed += len(bad)
        for test in bad:
            print(f"failed: {test}")
    print(f"{passed} passed, {failed} failed, {skipped} skipped")
    return 1 if failed or not passed else 0


if __name__ == "__main__":
    sys.exit(main())
