#!/usr/bin/env python3
# SPDX-License-Identifier: MIT
"""Compile each example with the one command that the documents give, against what is installed."""
import os
import pathlib
import subprocess
import sys
import tempfile


def run(command, folder, environment):
    done = subprocess.run(command, cwd=folder, env=environment, text=True, stdout=subprocess.PIPE,
                          stderr=subprocess.STDOUT, check=False, shell=isinstance(command, str))
    assert done.returncode == 0, f"{command}\n{done.stdout}"
    return done.stdout


def main():
    meson, build, *sources = (os.path.abspath(path) for path in sys.argv[1:])
    # Not with the flags and the destination of the build around it.
    environment = {name: value for name, value in os.environ.items()
                   if name not in ("CFLAGS", "LDFLAGS", "DESTDIR")}
    with tempfile.TemporaryDirectory() as folder:
        root = f"{folder}/root"
        run([meson, "install", "-C", build, "--no-rebuild", "--quiet", "--destdir", root], folder,
            environment)
        metadata = next(pathlib.Path(root).rglob("quiesce.pc"))
        environment["PKG_CONFIG_PATH"] = str(metadata.parent)
        environment["PKG_CONFIG_SYSROOT_DIR"] = root
        for source in sources:
            said = run(f'cc "{source}" $(pkg-config --cflags --libs quiesce)', folder, environment)
            assert not said, said
    return 0


if __name__ == "__main__":
    sys.exit(main())
