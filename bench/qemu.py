#!/usr/bin/env python3
# SPDX-License-Identifier: MIT
"""Figures of an unmodified QEMU on our devices, under software emulation: compare those of one run with
each other, not with another machine's. Usage: qemu.py BUILD [downtime|overhead|nvme]..."""
import os
import statistics
import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1] / "tests"))
from vm import debian, initramfs, machine

MIB = 1 << 20
ROUNDS = 7
DEPTHS = (1, 8, 32)
# What a driver that waits in vain, or a kernel in trouble, says: figures beside that mean nothing.
BAD = r"WRONG|nvme\S* .*(timeout|polled|abort|reset|invalid id|dead)|I/O error|BUG:|Oops|Call Trace"
# Obeys one line after the other. Which NVMe disk is ours, its model tells.
INIT = initramfs.INIT + """
dmesg -n 1
disks() {
	for disk in /sys/block/nvme*n1; do
		case $(cat $disk/device/model) in
		Quiesce*) ours=/dev/${disk##*/};;
		*) theirs=/dev/${disk##*/};;
		esac
	done
}
echo "GUEST ready"
while read line; do eval "$line"; done
"""
APPEND = "console=ttyS0 tsc=unstable lpj=4000000 mitigations=off audit=0 panic=1"


class Bench:
    """A guest that does what it is told, and the programs that it needs."""

    def __init__(self, build):
        self.quiesce = os.path.join(build, "quiesce")
        self.preload = os.path.abspath(os.path.join(build, "libquiesce-preload.so"))
        self.reads = os.path.join(build, "tests/qemu/qemu-reads")
        self.qemu, self.kernel = debian.qemu(), debian.kernel()

    def start(self, guest, arguments, devices=(), more=(), environment=None, cpus=1):
        """A QEMU with these devices of ours."""
        initrd = guest.path("initrd")
        if not os.path.exists(initrd):
            disk = initramfs.Initramfs()
            disk.busybox(debian.busybox())
            disk.modules(self.kernel, ["nvme", "virtio_pci", "virtio_blk"])
            disk.program("bin/reads", self.reads)
            disk.file("init", INIT, 0o755)
            disk.write(initrd)
        wrapper = []
        if devices:
            wrapper = [self.quiesce, "run", "--quiet"]
            arguments = [*arguments, "-object", "iommufd,id=iommufd0,fd={iommufd}"]
        for i, device in enumerate(devices):
            wrapper += ["--device", device]
            arguments += ["-device", f"vfio-pci,id=v{i},iommufd=iommufd0,fd={{vfio{i}}},"
                          "enable-migration=on,migration-events=on"]
        vm = guest.start(self.qemu, ["-kernel", self.kernel.unpacked, "-initrd", initrd,
                                     "-append", APPEND, *arguments, *more],
                         wrapper=[*wrapper, "--"] if devices else [], environment=environment,
                         cpus=cpus)
        vm.capabilities(events=True)
        return vm


def at(event):
    return event["timestamp"]["seconds"] + event["timestamp"]["microseconds"] / 1e6


def states(vm, state):
    """When the devices of this QEMU entered the state."""
    return [at(event) for event in vm.qmp.heard
            if event["event"] == "VFIO_MIGRATION" and event["data"]["device-state"] == state]


def phases(source, destination):
    """Seconds of each phase of a stop, from the first device that is quiescent to the last that runs."""
    for vm in (source, destination):
        vm.qmp.forget()  # and so hear all that was to be heard
    quiet = states(source, "pre-copy-p2p")
    stopped = states(source, "stop-copy")
    begun = states(destination, "running-p2p")
    running = states(destination, "running")
    return {"quiesce": max(quiet) - min(quiet), "stop": max(stopped) - max(quiet),
            "save, send, load": min(begun) - max(stopped), "start": max(running) - min(begun),
            "in all": max(running) - min(quiet),
            "what QEMU calls downtime": source.qmp.execute("query-migrate")["downtime"] / 1000}


def downtime(bench):
    """How long an idle guest stops when only its devices have something left to move."""
    for count in (1, 4, 16):
        devices = [f"nvme,ram=1M,name=disk{i}" for i in range(count)]
        found = []
        with machine.Guest() as guest:
            here = bench.start(guest, [], devices)
            guest.console.wait("GUEST ready")
            for _ in range(ROUNDS):
                there = bench.start(guest, [], devices, ["-incoming", "defer"])
                machine.migrate(here, there)
                found.append(phases(here, there))
                here.quit()
                here = there
        print(f"{count} devices, median of {ROUNDS} moves: " + ", ".join(
            f"{name} {statistics.median(one[name] for one in found) * 1000:.1f} ms"
            for name in found[0]), flush=True)


def cpu(vm):
    """Seconds of CPU that the QEMU has used."""
    with open(f"/proc/{vm.process.pid}/stat", encoding="utf-8") as stat:
        fields = stat.read().rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")


def read(vm, disk):
    """Random reads of 4 KiB in the guest, 8 at a time: how many a second, and CPU microseconds each."""
    used = cpu(vm)
    vm.send(f"/bin/reads {disk} {disk} 1 5000 8")
    found = [vm.guest.console.wait(r"^READS \d 8 (\d+) (\d+)$", refuse="WRONG") for _ in range(2)]
    reads, took_us = [sum(int(one[part]) for one in found) for part in (1, 2)]
    return reads * 1e6 / took_us, (cpu(vm) - used) * 1e6 / reads


def image(guest):
    path = guest.path("image")
    with open(path, "wb") as file:
        file.write(os.urandom(MIB) * 64)
    return path


def overhead(bench):
    """QEMU without devices of ours, with the preload library and without. Each guest is booted anew and
    differs from the one before: the same without the library, twice, tells by how much."""
    found = {"preloaded": [], "bare": [], "bare again": []}
    for _ in range(ROUNDS):
        for name, rates in found.items():
            environment = {"LD_PRELOAD": bench.preload} if name == "preloaded" else None
            with machine.Guest() as guest:
                vm = bench.start(guest, [
                    "-drive", f"file={image(guest)},if=none,id=disk,format=raw,cache=none",
                    "-device", "virtio-blk-pci,drive=disk"], environment=environment)
                guest.console.wait("GUEST ready")
                rates.append(read(vm, "/dev/vda"))
    print(f"QEMU's own disk, random reads of 4 KiB, medians of {ROUNDS} guests:")
    for part, unit in enumerate(("reads a second", "us of CPU a read")):
        first, *others = [statistics.median(one[part] for one in rates) for rates in found.values()]
        print(f"  preloaded {first:.0f}, bare {others[0]:.0f}, bare again {others[1]:.0f} {unit}; "
              f"preloaded to bare {first / others[0]:.2f}, bare to bare {others[1] / others[0]:.2f}",
              flush=True)


def nvme(bench):
    """Our NVMe in the QEMU process beside QEMU's own: one image, in one guest, in turn."""
    rates = {}
    with machine.Guest() as guest:
        path = image(guest)
        vm = bench.start(guest, [
            "-drive", f"file={path},if=none,id=theirs,format=raw,file.locking=off",
            "-device", "nvme,drive=theirs,serial=theirs"],
            [f"nvme,file={path},readonly=on"], cpus=2)
        guest.console.wait("GUEST ready")
        vm.send("dmesg -n 6")
        vm.send(f"disks; /bin/reads $theirs $ours {ROUNDS} 4000 {' '.join(map(str, DEPTHS))}")
        for _ in range(ROUNDS * len(DEPTHS) * 2):
            found = guest.console.wait(r"^READS (\d) (\d+) (\d+) (\d+)$", refuse=BAD)
            number, depth, reads, took_us = map(int, found.groups())
            rates.setdefault((depth, number), []).append(reads * 1e6 / took_us)
    print(f"random reads of 4 KiB from one image, medians of {ROUNDS} rounds:")
    for depth in DEPTHS:
        theirs, ours = (statistics.median(rates[depth, number]) for number in (0, 1))
        print(f"  {depth} at a time: QEMU's own NVMe {theirs:.0f}, ours {ours:.0f} a second; "
              f"ours to QEMU's {ours / theirs:.2f} (aim 0.85)", flush=True)


def main():
    build, *names = sys.argv[1:]
    kinds = {"downtime": downtime, "overhead": overhead, "nvme": nvme}
    if unknown := set(names) - set(kinds):
        sys.exit(f"qemu.py: there is no '{unknown.pop()}'; there are {', '.join(kinds)}")
    bench = Bench(build)
    print(f"QEMU {'.'.join(map(str, bench.qemu.version))}, {machine.ACCELERATOR}, "
          f"guest kernel {bench.kernel.version}")
    for name in names or kinds:
        kinds[name](bench)


main()
