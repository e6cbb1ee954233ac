# SPDX-License-Identifier: MIT
"""Initial ramdisks: an archive of files, programs with the libraries they need, and modules of a Debian
kernel in the order in which they load. The same content gives the same bytes."""
import lzma
import os
import re
import stat
import subprocess
from pathlib import Path

from . import VmError


class Initramfs:
    """What goes into a ramdisk; write() makes the file."""

    def __init__(self):
        self.entries = {}
        self.order = []
        self.node("dev/console", stat.S_IFCHR | 0o600, (5, 1))
        for folder in ("proc", "sys", "tmp", "mnt", "root"):
            self.folder(folder)

    def folder(self, path):
        for parent in [*reversed(Path(path).parents), Path(path)]:
            if str(parent) != ".":
                self.entries.setdefault(str(parent), (stat.S_IFDIR | 0o755, b"", (0, 0)))

    def node(self, path, mode, device):
        self.folder(Path(path).parent)
        self.entries[path] = (mode, b"", device)

    def file(self, path, content, mode=0o644):
        """A file with these bytes or this text."""
        self.folder(Path(path).parent)
        content = content.encode() if isinstance(content, str) else content
        self.entries[path] = (stat.S_IFREG | mode, content, (0, 0))

    def link(self, path, target):
        self.folder(Path(path).parent)
        self.entries[path] = (stat.S_IFLNK | 0o777, target.encode(), (0, 0))

    def program(self, path, source):
        """A program of this system, with the libraries that it needs."""
        self.file(path, Path(source).read_bytes(), 0o755)
        listed = subprocess.run(["ldd", source], stdout=subprocess.PIPE, stderr=subprocess.STDOUT,
                                text=True, check=False)
        if listed.returncode:
            return  # a static one
        if "not found" in listed.stdout:
            raise VmError(f"{source} lacks a library on this system: {listed.stdout.strip()}")
        for library in re.findall(r"(?:=>|^)\s*(/\S+) \(", listed.stdout, re.MULTILINE):
            self.file(library.lstrip("/"), Path(library).read_bytes(), 0o755)

    def busybox(self, source):
        """busybox with a link for each of its commands."""
        self.program("bin/busybox", source)
        listed = subprocess.run([source, "--list"], stdout=subprocess.PIPE, text=True, check=True)
        for command in listed.stdout.split():
            if command != "busybox":
                self.link(f"bin/{command}", "busybox")

    def modules(self, kernel, names):
        """Modules of the kernel, each after what it depends on; those built in are there anyway.
        /etc/modules lists the files in the order in which init loads them."""
        depends = {}
        for line in (kernel.modules / "modules.dep").read_text().splitlines():
            path, needs = line.split(":")
            depends[module_name(path)] = (path, needs.split())
        builtin = {module_name(line) for line in
                   (kernel.modules / "modules.builtin").read_text().splitlines()}
        for name in map(module_name, names):
            if name in builtin:
                continue
            if name not in depends:
                raise VmError(f"kernel {kernel.version} has no module '{name}'")
            path, needs = depends[name]
            for needed in [*reversed(needs), path]:
                self.module(module_name(needed), (kernel.modules / needed).read_bytes())

    def module(self, name, content):
        """One module's file, loaded after those before it."""
        path = f"lib/modules/{name}.ko"
        if path not in self.order:
            self.order.append(path)
        self.file(path, lzma.decompress(content) if content[:6] == b"\xfd7zXZ\0" else content)

    def write(self, path):
        """Write the archive (cpio, "newc"; what the kernel unpacks fastest is not compressed)."""
        self.file("etc/modules", "".join(f"/{name}\n" for name in self.order))
        with open(path, "wb") as out:
            for inode, name in enumerate(sorted(self.entries), 1):
                mode, content, device = self.entries[name]
                out.write(header(name, inode, mode, len(content), device))
                out.write(content + b"\0" * (-len(content) % 4))
            out.write(header("TRAILER!!!", 0, 0, 0, (0, 0)))
        return path


def module_name(path):
    return os.path.basename(path).split(".ko")[0].replace("-", "_")


def header(name, inode, mode, size, device):
    fields = [inode, mode, 0, 0, 1, 0, size, 0, 0, *device, len(name) + 1, 0]
    head = b"070701" + b"".join(b"%08x" % field for field in fields) + name.encode() + b"\0"
    return head + b"\0" * (-len(head) % 4)


# An init that brings a guest up; a test's own script goes on from here. ttyS0 is the console.
INIT = """#!/bin/sh
export PATH=/bin:/sbin
mount -t proc none /proc
mount -t sysfs none /sys
mount -t devtmpfs none /dev
stty -echo
while read module; do insmod $module || echo "INIT cannot load $module"; done </etc/modules
"""
