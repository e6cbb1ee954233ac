#!/usr/bin/env python3
# SPDX-License-Identifier: MIT
"""Write a seed corpus for one fuzz target into a directory: valid inputs, to start from."""
import json
import pathlib
import struct
import sys


def message(command, body=b"", flags=0, number=1):
    return struct.pack("<HHIII", number, command, 16 + len(body), flags, 0) + body


def u32(*values):
    return struct.pack(f"<{len(values)}I", *values)


VERSION = struct.pack("<HH", 0, 1) + json.dumps({"capabilities": {
    "max_msg_fds": 8, "max_data_xfer_size": 4096, "write_multiple": True,
    "twin_socket": {"supported": True, "fd_index": 0}, "quiesce": {"version": 1}}}).encode() + b"\0"
GET, SET, PROBE = 1 << 16, 1 << 17, 1 << 18
REQUESTS = [
    (2, u32(32, 3, 0, 0, 0, 0, 4096, 0)),
    (3, u32(24, 0, 0, 0, 4096, 0)),
    (3, u32(24, 2, 0, 0, 0, 0)),
    (4, u32(16, 0, 0, 0)),
    (5, u32(200, 0, 2, 0, 0, 0, 0, 0)),
    (6, u32(200, 0, 0, 0)),
    (7, u32(16, 0, 2, 0)),
    (8, u32(20, 0x21, 2, 0, 3)),
    (8, u32(23, 0x22, 2, 0, 3) + b"\1\0\1"),
    (8, u32(20, 0x24, 2, 0, 1)),
    (9, u32(0, 0, 0, 4)),
    (10, u32(16, 0, 0, 4, 7)),
    (10, u32(256, 0, 0, 8, 16, 0)),
    (13, b""),
    (15, u32(1, 0, 0, 0, 0, 4, 9, 9)),
    (16, u32(16, GET | 1)),
    (16, u32(16, GET | 2)),
    (16, u32(16, SET | 2, 6, 0)),
    (16, u32(16, SET | 2, 3, 0)),
    (16, u32(16, SET | 2, 4, 0)),
    (16, u32(40, SET | 6, 4096, 0, 1, 0, 0, 0, 65536, 0)),
    (16, u32(24, SET | 6, 4096, 0, 0, 0)),
    (16, u32(8, SET | 7)),
    (16, u32(99, GET | 8, 0, 0, 65536, 0, 4096, 0)),
    (16, u32(16, GET | 9)),
    (16, u32(24, GET | 0xff01)),
    (16, u32(8, PROBE | GET | SET | 2)),
    (17, u32(108, 100)),
    (18, u32(8, 4, 0)),
]
REGION = (u32(112, 15, 2, 32) + struct.pack("<QQ", 65536, 0) +
          struct.pack("<HHIII", 1, 1, 72, 1, 0) + struct.pack("<QQ", 4096, 4096) + b"\0" * 8 +
          struct.pack("<HHIII", 0x5153, 1, 0, 2, 0))


def wire():
    for command, body in REQUESTS:
        yield bytes([command]) + body
    yield bytes([11]) + struct.pack("<QQ", 4096, 64)
    yield bytes([12]) + struct.pack("<QQ", 4096, 4) + b"abcd"
    yield bytes([20]) + REQUESTS[20][1][8:]
    yield bytes([21]) + REQUESTS[23][1][8:]
    yield bytes([24]) + REGION
    yield bytes([26]) + VERSION
    stream = b"".join(message(c, b, number=i) for i, (c, b) in enumerate(REQUESTS))
    for size in (4, 17, 100, 255):
        pieces = [stream[i:i + size] for i in range(0, len(stream), size)]
        yield bytes([28]) + b"".join(bytes([len(p)]) + p for p in pieces)


def server():
    conversation = b"".join(message(c, b) for c, b in REQUESTS)
    for options in (1, 3, 5, 7, 13):
        yield bytes([options, 0]) + conversation
        yield bytes([options, 7]) + conversation
    for command, body in REQUESTS:
        yield bytes([13, 0]) + message(command, body)
    yield bytes([0, 0]) + message(1, VERSION) + conversation
    yield bytes([0, 1]) + message(1, VERSION)


def stream():
    """Mode, size of the pieces, then edits of four bytes to a valid stream."""
    for mode in (1, 2):
        for piece in (0, 1, 64):
            yield bytes([mode, piece])
    for at in range(0, 512, 16):
        yield bytes([2, 0]) + struct.pack("<HBB", at, 1, 2)
    yield bytes([0, 16]) + b"QSCSTATE" + struct.pack("<HHI", 1, 0, 64)


def migrate():
    """What a source says after its HELLO, of which the target makes frames."""
    yield b"\xff" + bytes(range(64))
    for start in range(0, 256, 32):
        yield bytes([start]) + bytes(range(start, start + 32)) * 4
    for mode in (1, 2, 4, 12, 28):
        yield bytes([mode]) + bytes(range(32)) * 4


def file():
    """Mode, which byte to damage, then the file or what is in it."""
    for damage in (0, 1, 9, 20, 60):
        yield bytes([0, damage, 0]) + bytes(range(64))
    for size in (0, 15, 16, 47, 48, 100):
        yield bytes([1, 0, 0]) + (b"QSCSAVE\0" + u32(1, 0) + bytes(size))[:size]
    yield bytes([1, 0, 0]) + b"QSCSAVE\0" + u32(1, 0) + b"QSCEND\0\0" + bytes(24)


def preload():
    """Whether a device is set up already, then steps: what, which file, then a command with its structure
    and what is filled in, or an access."""
    def call(file, number, body, filled=b"\x80", event=1):
        return bytes([15, file, number, 0xc0 | len(body)]) + body + filled + bytes([0, event])

    def feature(number, operation, body):
        return call(1, 27, u32(0) + body, bytes([number, operation]))

    def irqs(file, what, index, count, event=1):
        return call(file, 21, b"", bytes([what, index, 0, count]), event)

    bind = call(2, 14, u32(0, 0, 0))
    map_ = call(0, 5, u32(7, 1, 0) + struct.pack("<QQQ", 0xaa << 56, 8192, 4096))
    log = (feature(6, 2, struct.pack("<QIIQ", 4096, 1, 0, 0xaa << 56))
           + feature(8, 1, struct.pack("<QQQQ", 0, 8192, 4096, 0xaa << 56)) + feature(7, 2, b""))
    yield b"\1" + map_ + log + call(0, 7, u32(1) + struct.pack("<QQ", 4096, 8192))
    for state in (1, 3, 4, 6):
        yield (b"\1" + map_ + feature(2, 2, u32(state, 0)) + bytes([1, 6, 99, 2, 6, 9]) + bytes(9)
               + feature(2, 2, u32(2, 0)))
    vectors = irqs(1, 8, 2, 2) + irqs(1, 9, 2, 1) + irqs(1, 9, 2, 0)
    write = call(1, 25, u32(4) + struct.pack("<QQ", 0x40, 5) + u32(0), b"\2")
    yield b"\1" + vectors + write + bytes([10, 0, 1]) + write
    yield b"\0" + bind + irqs(2, 8, 0, 1) + irqs(2, 5, 0, 1) + bytes([10, 0, 1]) + irqs(2, 9, 0, 1)
    yield b"\1" + irqs(1, 8, 4, 1) + irqs(1, 9, 4, 1) + bytes([7, 1, 0, 9, 0, 1, 1, 1, 7, 1, 1, 8, 0])
    for number in range(39):
        yield b"\1" + bytes([15, number % 6, number, 0xff]) + bytes(70)


def nvme():
    """What a driver does, action by action: commands from 64 on, below them everything else."""
    for start in range(0, 256, 16):
        yield bytes(range(start, start + 16)) * 24
    for kind in range(64, 256, 12):
        yield (bytes([kind, kind // 3, 1, 0, kind & 7, 7]) + u32(3, 1, 7) + bytes(12)) * 12


def main():
    target, directory = sys.argv[1], pathlib.Path(sys.argv[2])
    directory.mkdir(parents=True, exist_ok=True)
    for i, seed in enumerate({
            "wire": wire, "server": server, "stream": stream, "migrate": migrate,
            "file": file, "preload": preload, "nvme": nvme}[target]()):
        (directory / f"seed-{i:03}").write_bytes(seed)


if __name__ == "__main__":
    main()
