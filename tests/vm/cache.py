# SPDX-License-Identifier: MIT
"""A cache of folders by key, outside the repository, shared by every test and clone of a user. A
folder is there whole or not at all, whoever is interrupted or runs at the same time."""
import contextlib
import fcntl
import hashlib
import os
import shutil
import tempfile
from pathlib import Path


def root():
    """The folder of the cache; it exists."""
    base = os.environ.get("XDG_CACHE_HOME") or os.path.expanduser("~/.cache")
    path = Path(base) / "quiesce"
    path.mkdir(parents=True, exist_ok=True)
    return path


@contextlib.contextmanager
def lock(name):
    """Be the only process that does `name`; the kernel lets go of it when this process dies."""
    path = root() / "locks" / name
    path.parent.mkdir(exist_ok=True)
    with open(path, "w", encoding="utf-8") as file:
        fcntl.flock(file, fcntl.LOCK_EX)
        yield


def produce(kind, key, make):
    """The folder of `key`, made by make(folder) if it is not there. A key names the content: no
    folder is ever made again or changed."""
    path = root() / kind / key
    if path.is_dir():
        return path
    path.parent.mkdir(exist_ok=True)
    with lock(kind):
        if path.is_dir():
            return path
        # What an interrupted run left: nobody else is here.
        for left in path.parent.glob(".making-*"):
            shutil.rmtree(left, ignore_errors=True)
        making = Path(tempfile.mkdtemp(prefix=".making-", dir=path.parent))
        try:
            making.chmod(0o755)
            make(making)
            os.sync()
            making.rename(path)
        finally:
            shutil.rmtree(making, ignore_errors=True)
    return path


def write(path, text):
    """Replace a file as a whole."""
    path.parent.mkdir(exist_ok=True)
    with tempfile.NamedTemporaryFile("w", dir=path.parent, delete=False) as file:
        file.write(text)
    os.replace(file.name, path)


def key(*parts):
    """A key for content made of these: strings, bytes, and paths, which stand for what they hold."""
    digest = hashlib.sha256()
    for part in parts:
        data = part.read_bytes() if isinstance(part, Path) else part
        data = data if isinstance(data, bytes) else str(data).encode()
        digest.update(len(data).to_bytes(8, "little") + data)
    return digest.hexdigest()[:24]
