#!/usr/bin/env python3
# SPDX-License-Identifier: MIT
"""The static probes that the library has are those that the manual lists, with as many arguments.

Usage: probes.py MANUAL OBJECT…, where an object is a shared library or a program. What is a place
that a tracer finds is a note in it, ELF's own, read here byte by byte.
"""
import re
import struct
import sys


def sections(data):
    """(name, bytes) of every section of a 64-bit ELF file."""
    assert data[:5] == b"\x7fELF\x02", "no 64-bit ELF file"
    order = "<" if data[5] == 1 else ">"
    offset, = struct.unpack_from(order + "Q", data, 0x28)
    size, count, strings = struct.unpack_from(order + "HHH", data, 0x3a)
    headers = [struct.unpack_from(order + "IIQQQQ", data, offset + i * size)
               for i in range(count)]
    start = headers[strings][4]
    for name, _, _, _, at, length in headers:
        end = data.index(b"\0", start + name)
        yield data[start + name:end].decode(), data[at:at + length], order


def notes(path):
    """(provider, probe, arguments) of every note that systemtap's sys/sdt.h made."""
    with open(path, "rb") as file:
        data = file.read()
    found = []
    for name, content, order in sections(data):
        at = 0
        while name == ".note.stapsdt" and at < len(content):
            owner, length, kind = struct.unpack_from(order + "III", content, at)
            assert kind == 3 and content[at + 12:at + 12 + owner] == b"stapsdt\0"
            at += 12 + (owner + 3) // 4 * 4
            # Where it is, the base, and a semaphore: three addresses, then three texts.
            texts = content[at + 24:at + length].split(b"\0")
            found.append(tuple(text.decode() for text in texts[:3]))
            assert struct.unpack_from(order + "Q", content, at)[0] > 0
            at += (length + 3) // 4 * 4
    return found


def documented(path):
    """{probe: number of arguments} of the manual's table of probes."""
    with open(path, encoding="utf-8") as file:
        text = file.read()
    text = text[text.index(".. _probes:"):]
    return {name: arguments.count(",") + 1 for name, arguments in
            re.findall(r"^   \* - ``(\w+__\w+)``\n     - ``(.+)``$", text, re.M)}


def check(manual, path):
    wanted = documented(manual)
    assert len(wanted) >= 6, "the manual's table of probes cannot be read"
    found = {}
    for provider, name, arguments in notes(path):
        assert provider == "quiesce", f"{path}: a probe of provider {provider}"
        found.setdefault(name, set()).add(len(arguments.split()))
    for name in sorted(set(wanted) | set(found)):
        assert name in found, f"{path} has no probe {name}, which {manual} lists"
        assert name in wanted, f"{manual} does not list the probe {name} of {path}"
        assert found[name] == {wanted[name]}, \
            f"{path}: {name} has {found[name]} arguments and {wanted[name]} in {manual}"
    return len(found)


def main():
    for path in sys.argv[2:]:
        print(f"{path}: {check(sys.argv[1], path)} probes, as the manual lists them")


if __name__ == "__main__":
    main()
