#!/usr/bin/env python3
# SPDX-License-Identifier: MIT
"""Linux's own driver on our nvme in an unmodified QEMU: it is probed, gets a file system and a lot of
data, loses its driver and gets it back, keeps everything over a reboot, and forgets what is discarded.
nvme_test.py QUIESCE"""
import hashlib
import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))
from rig import BAD, COMMAND_LINE
from vm import VmError, debian, initramfs, machine

MIB = 1 << 20
# Two boots of a kernel, on a machine that does other things too.
PATIENCE = 280
INIT = initramfs.INIT + """
find() {
	for disk in /sys/block/nvme*n1; do
		grep -q "^$1 *\\$" $disk/device/serial && echo /dev/${disk##*/}
	done
}
must() { "$@" || echo "WRONG $*"; }
ram=$(find ram) file=$(find file)
grep -h . /sys/class/nvme/nvme*/model | grep -qv "^Quiesce NVMe" && echo "WRONG model"
if mount -t ext4 $ram /mnt 2>/dev/null; then
	cd /mnt && must md5sum -c -s sum && cd /
	must umount /mnt
	must e2fsck -f -n $ram >/dev/null
	must blkdiscard $ram
	echo "GUEST discarded"
	for at in 0 1 5 9; do
		dd if=$ram bs=1M skip=$at count=1 2>/dev/null | tr -d '\\0' | grep -q . && echo "WRONG rest"
	done
	echo "GUEST done"
	poweroff -f
fi
must mkfs.ext4 -q $ram
must mount -t ext4 $ram /mnt
dd if=/dev/urandom of=/mnt/data bs=1M count=8 2>/dev/null
(cd /mnt && md5sum data >sum)
must umount /mnt
must rmmod nvme
must insmod /lib/modules/nvme.ko
ram= file=
while ! [ -b "$ram" -a -b "$file" ]; do ram=$(find ram) file=$(find file); done
must mount -t ext4 $ram /mnt
(cd /mnt && must md5sum -c -s sum)
dd if=/mnt/data of=$file bs=1M seek=3 conv=fsync 2>/dev/null
echo "GUEST sum $(cut -c 1-32 /mnt/sum)"
must umount /mnt
reboot -f
"""


def run(quiesce):
    kernel, qemu = debian.kernel(), debian.qemu()
    with machine.Guest() as guest:
        image = guest.path("image")
        with open(image, "wb") as file:
            file.truncate(32 * MIB)
        disk = initramfs.Initramfs()
        disk.busybox(debian.busybox())
        disk.modules(kernel, ["crc32c_generic", "ext4", "nvme"])
        for name in ("mkfs.ext4", "e2fsck", "blkdiscard"):
            disk.program(f"sbin/{name}", debian.tool(name))
        disk.file("init", INIT, 0o755)
        guest.start(qemu, [
            "-object", "iommufd,id=iommufd0,fd={iommufd}",
            "-device", "vfio-pci,iommufd=iommufd0,fd={vfio0}",
            "-device", "vfio-pci,iommufd=iommufd0,fd={vfio1}",
            "-kernel", kernel.unpacked, "-initrd", disk.write(guest.path("initrd")),
            "-append", COMMAND_LINE], wrapper=[
                quiesce, "run", "--quiet", "--device", "nvme,ram=64M,serial=ram",
                "--device", f"nvme,file={image},serial=file", "--"], cpus=2)
        total = guest.console.wait(r"GUEST sum (\w+)", timeout=PATIENCE, refuse=BAD)[1]
        guest.console.wait("GUEST done", timeout=PATIENCE, refuse=BAD)
        guest.vms[0].wait()
        with open(image, "rb") as file:
            file.seek(3 * MIB)
            if hashlib.md5(file.read(8 * MIB)).hexdigest() != total:
                raise VmError("the file does not hold what the guest wrote to it")


if __name__ == "__main__":
    run(sys.argv[1])
