#!/usr/bin/env python3
# SPDX-License-Identifier: MIT
"""Print, for a shell's eval, what it needs to start a guest by hand: $qemu, the command of Debian's newest
QEMU, $kernel, and $initrd of a guest that counts on its NVMe disk and says so on its console."""
import shlex
import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))
from vm import VmError, cache, debian, initramfs

INIT = initramfs.INIT + """
until [ -b /dev/nvme0n1 ]; do usleep 50000; done
count=0
while count=$((count + 1)); do
	echo $count | dd of=/dev/nvme0n1 bs=4096 conv=sync oflag=direct 2>/dev/null
	found=$(dd if=/dev/nvme0n1 bs=4096 count=1 iflag=direct 2>/dev/null | head -n 1)
	[ "$found" = $count ] && echo "$count is on the disk" || echo "WRONG: not $count but $found"
	usleep 100000
done
"""


def main():
    kernel, qemu = debian.kernel(), debian.qemu()
    disk = initramfs.Initramfs()
    disk.busybox(debian.busybox())
    disk.modules(kernel, ["nvme"])
    disk.file("init", INIT, 0o755)
    folder = cache.produce("ramdisks", cache.key(kernel.version, INIT),
                           lambda making: disk.write(making / "initrd"))
    command = ["env", f"LD_LIBRARY_PATH={qemu.environment['LD_LIBRARY_PATH']}", *qemu.command]
    print(f"qemu={shlex.quote(' '.join(command))}")
    print(f"kernel={shlex.quote(str(kernel.unpacked))}")
    print(f"initrd={shlex.quote(str(folder / 'initrd'))}")


try:
    main()
except VmError as error:
    sys.exit(f"shell.py: {error}")
