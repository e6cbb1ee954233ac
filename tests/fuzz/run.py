#!/usr/bin/env python3
# SPDX-License-Identifier: MIT
"""Run a fuzz target for some seconds from its seeds: run.py TARGET PROGRAM CORPUS SECONDS."""
import pathlib
import subprocess
import sys


def main():
    target, program, corpus, seconds = sys.argv[1:]
    seeds = pathlib.Path(__file__).with_name("seeds.py")
    subprocess.run([sys.executable, seeds, target, corpus], check=True)
    # Found inputs are kept in the build folder, and are where the next run starts.
    return subprocess.run([program, f"-max_total_time={seconds}", "-max_len=8192", "-timeout=10",
                           "-print_final_stats=1", f"-artifact_prefix={corpus}.", corpus],
                          check=False).returncode


if __name__ == "__main__":
    sys.exit(main())
