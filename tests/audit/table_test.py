#!/usr/bin/env python3
# SPDX-License-Identifier: MIT
"""The manual's table of liars is what the liars come to now. Usage: table_test.py LIARS TABLE"""
import pathlib
import subprocess
import sys

liars, table = sys.argv[1:]
done = subprocess.run([liars, "--rst"], text=True, capture_output=True, check=False)
assert done.returncode == 0, done.stdout
assert pathlib.Path(table).read_text(encoding="utf-8") == done.stdout, (
    f"{table} is not current; write it anew: audit-liars --rst")
