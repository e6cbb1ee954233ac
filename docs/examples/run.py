#!/usr/bin/env python3
# SPDX-License-Identifier: MIT
"""The example programs of the documents, run as the documents say: two servers of the small device,
and a program that moves one's work to the other."""
import pathlib
import signal
import subprocess
import sys
import tempfile

TALLY, HOLD = sys.argv[1:3]


def serve(path):
    process = subprocess.Popen([TALLY, path], stdout=subprocess.PIPE, text=True)
    assert process.stdout.readline() == f"serving at {path}\n"
    return process


def fail_at_once(folder, good, bad_one):
    """One of the two processes cannot begin: the other ends too, and says why."""
    uris = [f"vfio-user:{path}" for path in (good, good)]
    uris[bad_one] = f"vfio-user:{folder}/nobody.sock"
    done = subprocess.run([HOLD, *uris, f"{folder}/m.sock"], text=True, capture_output=True,
                          check=False, timeout=20)
    assert done.returncode == 1, done
    assert "nobody.sock" in done.stderr, done.stderr
    assert f"the {('source', 'destination')[bad_one]} has failed" in done.stderr, done.stderr


def main():
    with tempfile.TemporaryDirectory() as folder:
        paths = [f"{folder}/a.sock", f"{folder}/b.sock"]
        servers = [serve(path) for path in paths]
        try:
            fail_at_once(folder, paths[1], 0)
            fail_at_once(folder, paths[0], 1)
            done = subprocess.run([HOLD, *(f"vfio-user:{p}" for p in paths), f"{folder}/m.sock"],
                                  text=True, capture_output=True, check=False, timeout=100)
        finally:
            for server in servers:
                server.send_signal(signal.SIGTERM)
        print(done.stdout, done.stderr)
        assert done.returncode == 0, f"hold: exit {done.returncode}"
        assert "sum: right, interrupts: 1\n" in done.stdout
        for server in servers:
            assert server.wait(60) == 0
        assert not list(pathlib.Path(folder).iterdir()), "a socket was left behind"
    return 0


if __name__ == "__main__":
    sys.exit(main())
