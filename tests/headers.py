#!/usr/bin/env python3
# SPDX-License-Identifier: MIT
"""Every public header compiles alone, in C and in C++, without a warning."""
import pathlib
import subprocess
import sys


def main():
    include = pathlib.Path(sys.argv[1])
    failed = 0
    installed = set(sys.argv[2:])
    headers = {header.name for header in include.rglob("*.h")}
    if installed and installed != headers:
        failed = 1
        print(f"not installed: {headers - installed}; not there: {installed - headers}")
    for header in sorted(include.rglob("*.h")):
        name = header.relative_to(include)
        for compiler, language in (("cc", ["-x", "c", "-std=c11"]),
                                   ("c++", ["-x", "c++", "-std=c++14"])):
            run = subprocess.run(
                [compiler, *language, "-Wall", "-Wextra", "-Wpedantic", "-Werror",
                 "-fsyntax-only", f"-I{include}", "-"],
                input=f"#include <{name}>\n", text=True, capture_output=True, check=False)
            if run.returncode:
                failed = 1
                print(f"{name} with {compiler}:\n{run.stderr}")
    return failed


if __name__ == "__main__":
    sys.exit(main())
