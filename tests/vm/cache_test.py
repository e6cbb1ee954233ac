#!/usr/bin/env python3
# SPDX-License-Identifier: MIT
"""The cache of packages: a folder is whole or not there, whoever is killed or runs at the same time; what is
there needs no network; and what cannot be had is said in a sentence. No package is fetched."""
import json
import os
import signal
import subprocess
import sys
import tempfile
from pathlib import Path

TESTS = str(Path(__file__).resolve().parents[1])
HEAD = f"""
import sys, os, signal
sys.path.insert(0, {TESTS!r})
from vm import VmError, cache, debian
"""


def python(script, **environment):
    return subprocess.Popen([sys.executable, "-c", HEAD + script], text=True,
                            stdout=subprocess.PIPE, stderr=subprocess.STDOUT,
                            env=dict(os.environ, **environment))


def says(process):
    return process.communicate()[0].strip()


def once_for_all():
    """Several at a time: one makes it, and all see it whole."""
    script = """
def make(folder):
    print("made", flush=True)
    for i in range(200):
        (folder / str(i)).write_text("x")
print(len(list(cache.produce("kind", "key", make).iterdir())))
"""
    said = sorted(says(one) for one in [python(script) for _ in range(4)])
    assert said == ["200", "200", "200", "made\n200"], said


def killed_and_failed(cache):
    """One that dies or fails while it makes leaves nothing that the next could take for whole."""
    dies = python("""
def make(folder):
    (folder / "half").write_text("x")
    os.kill(os.getpid(), signal.SIGKILL)
cache.produce("killed", "key", make)
""")
    assert dies.wait() == -signal.SIGKILL
    assert [path.name.startswith(".making-") for path in (cache / "killed").iterdir()] == [True]
    fails = says(python("""
def make(folder):
    (folder / "half").write_text("x")
    raise VmError("no more")
try:
    cache.produce("killed", "key", make)
except VmError as error:
    print(error)
"""))
    assert fails == "no more" and not list((cache / "killed").iterdir()), fails
    makes = says(python("""
print(os.listdir(cache.produce("killed", "key", lambda f: (f / "whole").write_text("x"))))
"""))
    assert makes == "['whole']" and os.listdir(cache / "killed") == ["key"], makes


def stub(folder, name, script):
    path = Path(folder) / name
    path.write_text("#!/bin/sh\n" + script)
    path.chmod(0o755)


ASK = """
try:
    print(debian.package("something"))
except VmError as error:
    print(f"error: {error}")
"""


def no_network(cache, stubs, path):
    """What is there is had without apt; what is not is missed in words."""
    for name in ("apt-get", "apt-cache"):
        stub(stubs, name, "echo 'E: there is no network' >&2\nexit 100\n")
    missed = says(python(ASK, PATH=path))
    assert missed.startswith("error: ") and "there is no network" in missed, missed
    folder = cache / "packages" / "something_1_amd64"
    folder.mkdir(parents=True)
    chosen = Path(says(python(
        'print(cache.root() / "chosen" / cache.key(*debian.release(), "something", False))')))
    chosen.parent.mkdir()
    chosen.write_text(json.dumps({"folder": folder.name}))
    assert says(python(ASK, PATH=path)) == str(folder)
    chosen.unlink()


def not_to_be_had(stubs, path):
    """Mirrors that have other packages only, and a system that knows none with its release."""
    name = says(python("print(debian.release()[0])"))
    inrelease = f"'http://mirror.invalid/debian/dists/{name}/InRelease' x 0"
    stub(stubs, "apt-get", f'case "$*" in *print-uris*) echo "{inrelease}";; esac\n')
    stub(stubs, "apt-cache", "")
    said = says(python(ASK, PATH=path))
    assert "has a package 'something'" in said and len(said.splitlines()) == 1, said
    stub(stubs, "apt-get", "")
    said = says(python(ASK, PATH=path))
    assert f"has the suite '{name}'" in said and len(said.splitlines()) == 1, said


def main():
    os.environ.pop("QUIESCE_VM_REFRESH", None)
    with tempfile.TemporaryDirectory() as home, tempfile.TemporaryDirectory() as stubs:
        os.environ["XDG_CACHE_HOME"] = home
        cache, path = Path(home) / "quiesce", f"{stubs}:{os.environ['PATH']}"
        once_for_all()
        killed_and_failed(cache)
        no_network(cache, stubs, path)
        not_to_be_had(stubs, path)


main()
