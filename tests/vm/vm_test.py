#!/usr/bin/env python3
# SPDX-License-Identifier: MIT
"""What tests of virtual machines stand on: a guest boots from Debian's packages, speaks over its console,
and keeps one stream of lines over migrations; packages come out of the cache without any network."""
import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))
from vm import debian, initramfs, machine

# The kernel would speak in the middle of a line. Nothing speaks without pause: what QEMU's serial port could
# not get rid of when the guest stopped, both sides say.
SCRIPT = initramfs.INIT + """
dmesg -n 1
echo "GUEST ready $(uname -r)"
n=0
while :; do n=$((n+1)); echo "BEAT $n"; usleep 10000; if read -t 0 word; then read word; echo "HEARD $word"; fi; done
"""


def main():
    kernel, qemu = debian.kernel(), debian.qemu()
    print(f"kernel {kernel.version}, QEMU {'.'.join(map(str, qemu.version))}")
    disk = initramfs.Initramfs()
    disk.busybox(debian.busybox())
    disk.modules(kernel, ["nvme", "ext4"])
    disk.file("init", SCRIPT, 0o755)
    with machine.Guest() as guest:
        initrd = disk.write(guest.path("initrd"))
        arguments = ["-kernel", kernel.unpacked, "-initrd", initrd,
                     "-append", "console=ttyS0 tsc=unstable nokaslr quiet"]
        here = guest.start(qemu, arguments)
        here.capabilities(events=True)
        assert guest.console.wait(r"GUEST ready (\S+)")[1] == kernel.version
        for _ in range(2):
            there = guest.start(qemu, [*arguments, "-incoming", "defer"])
            there.capabilities(events=True)
            machine.migrate(here, there)
            assert here.quit() == 0
            here = there
            here.send("hello")
            guest.console.wait("HEARD hello")
        beats = [found[0] for found in guest.console.all(r"^.*BEAT.*$")]
        for count, beat in enumerate(beats, 1):
            assert beat == f"BEAT {count}", f"'{beat}' after {beats[max(count - 4, 0):count - 1]}"
        print(f"{len(beats)} lines over 2 migrations, each whole and once")


main()
