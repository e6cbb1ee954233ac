#!/usr/bin/env python3
# SPDX-License-Identifier: MIT
"""The guest's judge must be able to fail: it runs here on a file and a folder, and each thing that a broken
migration does to a guest is done to it: a page of memory that stayed behind, a wrong byte, a write
that got lost, a block in the wrong place, a file cut short or gone. Usage: judge_test.py JUDGE"""
import os
import re
import subprocess
import sys
import tempfile

JUDGE = os.path.abspath(sys.argv[1])
PAGE = 4096
BLOCKS = 2048  # of each raw worker


class Judge:
    """The program on a file of blocks and a folder, both in the current folder: O_DIRECT needs a real
    file system."""

    def __enter__(self):
        self.folder = tempfile.TemporaryDirectory(dir=".")
        self.blocks = os.path.join(self.folder.name, "blocks")
        self.files = os.path.join(self.folder.name, "files")
        os.mkdir(self.files)
        with open(self.blocks, "wb") as file:
            file.truncate(2 * BLOCKS * PAGE)
        self.process = subprocess.Popen([JUDGE, self.files, self.blocks, "0"], text=True, bufsize=1,
                                        stdin=subprocess.PIPE, stdout=subprocess.PIPE)
        self.wrong = []
        self.done = 0  # reads and writes, when it last said
        self.wait("WORKING")
        return self

    def __exit__(self, *_):
        self.process.kill()
        self.process.communicate()
        self.folder.cleanup()

    def wait(self, answer):
        """The number of wrong things in the answer."""
        for line in self.process.stdout:
            if line.startswith("WRONG"):
                self.wrong.append(line.strip())
            found = re.match(rf"{answer} wrong=(\d+) writes=(\d+) reads=(\d+)", line)
            if found:
                self.done = int(found[2]) + int(found[3])
                return int(found[1])
        raise AssertionError(f"the judge ended before it said {answer}")

    def say(self, word, answer):
        self.process.stdin.write(word + "\n")
        return self.wait(answer)

    def let_work(self):
        """Let it do a good deal, and pause it."""
        self.say("go", "GOING")
        due = self.done + 2000
        while self.done < due:
            self.say("go", "GOING")
        assert self.say("pause", "PAUSED") == 0, self.wrong

    def swap_block(self, block, content):
        """The block's content before; the new one is written if there is one."""
        with open(self.blocks, "r+b", buffering=0) as file:
            old = os.pread(file.fileno(), PAGE, block * PAGE)
            if content is not None:
                os.pwrite(file.fileno(), content, block * PAGE)
                os.fsync(file.fileno())
        return old

    def worker(self):
        """A process of a raw worker, and where its pool is: the one large memory it could share."""
        with open(f"/proc/{self.process.pid}/task/{self.process.pid}/children") as children:
            pids = children.read().split()
        for pid in pids:
            with open(f"/proc/{pid}/maps", encoding="utf-8") as maps:
                for line in maps:
                    first, last = [int(part, 16) for part in line.split()[0].split("-")]
                    if last - first == BLOCKS * PAGE and "/dev/zero" in line:
                        return pid, first
        raise AssertionError("no worker has a pool")


def unfilled_page(judge):
    """It stayed behind since before its first read."""
    pid, pool = judge.worker()
    with open(f"/proc/{pid}/mem", "r+b", buffering=0) as memory:
        slot = next(i for i in range(BLOCKS) if any(os.pread(memory.fileno(), PAGE, pool + i * PAGE)))
        os.pwrite(memory.fileno(), bytes(PAGE), pool + slot * PAGE)
    return "in memory since it was read: it holds nothing"


def stale_page(judge):
    pid, pool = judge.worker()
    with open(f"/proc/{pid}/mem", "r+b", buffering=0) as memory:
        def pages():
            return [os.pread(memory.fileno(), PAGE, pool + i * PAGE) for i in range(BLOCKS)]
        before = pages()
        judge.let_work()
        now = pages()
        slot = next(i for i in range(BLOCKS) if any(before[i]) and before[i][:16] != now[i][:16])
        os.pwrite(memory.fileno(), before[slot], pool + slot * PAGE)
    return "in memory since it was read: it holds"


def wrong_byte(judge):
    content = bytearray(judge.swap_block(7, None))
    content[1000] ^= 1
    judge.swap_block(7, bytes(content))
    return "read from the device: byte 1000 is wrong"


def lost_write(judge):
    before = [judge.swap_block(i, None) for i in range(BLOCKS)]
    judge.let_work()
    block = next(i for i in range(BLOCKS) if judge.swap_block(i, None) != before[i])
    judge.swap_block(block, before[block])
    return r"read from the device: it holds generation \d+ instead of"


def misplaced(judge):
    judge.swap_block(9, judge.swap_block(BLOCKS + 9, None))
    return "read from the device: it holds page 9 of 1"


def some_file(judge):
    return max((os.path.join(judge.files, name) for name in os.listdir(judge.files)),
               key=os.path.getsize)


def short_file(judge):
    os.truncate(some_file(judge), 100)
    return r"reading .*: 100 bytes instead of"


def lost_file(judge):
    os.unlink(some_file(judge))
    return "opening .*: No such file"


def main():
    with Judge() as judge:
        judge.let_work()
        assert judge.say("verify", "VERIFIED") == 0, judge.wrong
        assert judge.say("end", "ENDED") == 0, judge.wrong
        assert judge.process.wait() == 0
    for lie in (unfilled_page, stale_page, wrong_byte, lost_write, misplaced, short_file, lost_file):
        with Judge() as judge:
            judge.let_work()
            due = lie(judge)
            found = judge.say("verify", "VERIFIED")
            assert found >= 1 and any(re.search(due, line) for line in judge.wrong), (
                f"{lie.__name__}: '{due}' was not said, but {judge.wrong}")
            print(f"{lie.__name__}: {judge.wrong[0]}")


main()
