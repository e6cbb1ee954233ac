#!/usr/bin/env python3
# SPDX-License-Identifier: MIT
"""The line over all suites counts whatever failed once, above all what died after its last result. Usage:
sum_test.py SUM-TESTS"""
import json
import pathlib
import subprocess
import sys
import tempfile

JUNIT = """<?xml version='1.0' encoding='utf8'?>
<testsuites>
<testsuite name="quiesce"><testcase name="quiesce:tool / good" classname="quiesce" />
<testcase name="quiesce:tool / bad" classname="quiesce"><failure /></testcase></testsuite>
<testsuite name="quiesce.quiesce:unit / taps"><testcase name="1 - one" /><testcase name="2 - two">
<failure /></testcase><testcase name="3 - three"><skipped /></testcase></testsuite>
<testsuite name="quiesce.quiesce:unit / dies"><testcase name="1 - one" /></testsuite>
</testsuites>
"""
RESULTS = {"quiesce:tool / good": "OK", "quiesce:tool / bad": "FAIL", "quiesce:unit / taps": "FAIL"}


def sums(folder, results, *more):
    (folder / "testlog.junit.xml").write_text(JUNIT, encoding="utf-8")
    (folder / "testlog.json").write_text("".join(
        json.dumps({"name": name, "result": result, "returncode": 66}) + "\n"
        for name, result in results.items()), encoding="utf-8")
    done = subprocess.run([sys.executable, sys.argv[1], folder / "testlog.junit.xml", *more],
                          text=True, capture_output=True, check=False)
    return done.returncode, done.stdout.splitlines()[-1], done.stdout


def main():
    with tempfile.TemporaryDirectory() as name:
        folder = pathlib.Path(name)
        code, last, _ = sums(folder, RESULTS | {"quiesce:unit / dies": "OK"})
        assert (code, last) == (1, "3 passed, 2 failed, 1 skipped"), last
        for result in ("ERROR", "TIMEOUT"):
            code, last, said = sums(folder, RESULTS | {"quiesce:unit / dies": result})
            assert (code, last) == (1, "3 passed, 3 failed, 1 skipped"), last
            assert "failed: quiesce:unit / dies" in said, said
        code, last, _ = sums(folder, RESULTS, folder / "none")
        assert (code, last) == (1, "3 passed, 3 failed, 1 skipped"), last


main()
