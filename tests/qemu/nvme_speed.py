#!/usr/bin/env python3
# SPDX-License-Identifier: MIT
"""How fast a guest reads 4 KiB at random from our nvme in the QEMU process, and from QEMU's own nvme:
the same image, in the same guest, in turn. Prints JSON; the figure is the ratio of the medians.

nvme_speed.py QUIESCE READS [ROUNDS [COUNT]]"""
import json
import os
import statistics
import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))
from vm import debian, initramfs, machine

DEPTHS = (1, 8, 32)
# The first disk is QEMU's, the second ours: whichever the guest's kernel found first.
INIT = initramfs.INIT + """
for disk in /sys/block/nvme*n1; do
	case $(cat $disk/device/model) in
	Quiesce*) ours=/dev/${{disk##*/}};;
	*) theirs=/dev/${{disk##*/}};;
	esac
done
/bin/reads $theirs $ours {rounds} {count} {depths}
echo "GUEST done"
poweroff -f
"""
COMMAND_LINE = "console=ttyS0 tsc=unstable lpj=4000000 mitigations=off audit=0 loglevel=6 panic=1"
BAD = r"WRONG|nvme\S* .*(timeout|polled|abort|reset|invalid id|dead)|I/O error|BUG:|Oops|Call Trace"


def measure(quiesce, reads, rounds, count):
    kernel, qemu = debian.kernel(), debian.qemu()
    with machine.Guest() as guest:
        image = guest.path("image")
        with open(image, "wb") as file:
            for _ in range(64):
                file.write(os.urandom(1 << 20))
        disk = initramfs.Initramfs()
        disk.busybox(debian.busybox())
        disk.modules(kernel, ["nvme"])
        disk.program("bin/reads", reads)
        disk.file("init", INIT.format(rounds=rounds, count=count,
                                      depths=" ".join(map(str, DEPTHS))), 0o755)
        guest.start(qemu, [
            "-object", "iommufd,id=iommufd0,fd={iommufd}",
            "-device", "vfio-pci,iommufd=iommufd0,fd={vfio0}",
            "-drive", f"file={image},if=none,id=theirs,format=raw,file.locking=off",
            "-device", "nvme,drive=theirs,serial=theirs",
            "-kernel", kernel.unpacked, "-initrd", disk.write(guest.path("initrd")),
            "-append", COMMAND_LINE], wrapper=[
                quiesce, "run", "--quiet", "--device",
                f"nvme,file={image},readonly=on,name=ours", "--"], cpus=2)
        guest.console.wait("GUEST done", timeout=600, refuse=BAD)
        found = guest.console.all(r"READS (\d+) (\d+) (\d+) (\d+)")
    rates = {}
    for line in found:
        number, depth, reads_done, took_us = map(int, line.groups())
        rates.setdefault((depth, number), []).append(reads_done * 1e6 / took_us)
    figures = []
    for depth in DEPTHS:
        theirs, ours = (statistics.median(rates[depth, number]) for number in (0, 1))
        figures.append({"depth": depth, "qemu_iops": round(theirs), "quiesce_iops": round(ours),
                        "ratio": round(ours / theirs, 3)})
    return {"random_read_4k": figures}


if __name__ == "__main__":
    quiesce, reads, *more = sys.argv[1:]
    rounds, count = [*map(int, more), *(5, 4000)[len(more):]]
    print(json.dumps(measure(quiesce, reads, rounds, count), indent=1))
