# SPDX-License-Identifier: MIT
"""A guest that works on block devices and judges them (tests/qemu/guest), moved from one QEMU to the
next. What the devices are is a `Devices`; the rig neither knows nor cares."""
import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))
from vm import VmError, debian, initramfs, machine

MIB = 1 << 20
# What no guest's log may have: an interrupt that got lost, a request that timed out, a file system or
# a kernel that found something broken. Of the guest's program: WRONG.
BAD = (r"WRONG|nvme\S* .*(timeout|polled|abort|reset|invalid id|dead)|I/O error|EXT4-fs (error|warning)"
       r"|BUG:|Oops|Call Trace|blocked for more than|detected stall|Kernel panic")

# The kernel's warnings come as lines of their own; by itself it would speak in the middle of others'.
INIT = initramfs.INIT + """
dmesg -n 1
cat /dev/kmsg | sed 's/^[0-4],[^;]*;/KERNEL /;t;d' &
# The path of the disk with this serial number: controllers come in any order, and late.
disk() {{
	while :; do
		for serial in /sys/block/*/serial /sys/block/nvme*/device/serial; do
			block=$(echo $serial | cut -d / -f 4)
			[ "$(cat $serial 2>/dev/null | tr -d ' ')" = $1 ] && [ -b /dev/$block ] && echo /dev/$block && return
		done
		usleep 50000
	done
}}
! {files} || mount -t ext4 $(disk files) /mnt || echo "WRONG cannot mount it"
blocks=$(disk {blocks})
[ {patience} = 0 ] || for file in /sys/block/*/queue/io_timeout; do echo {patience} >$file; done
/bin/judge {folder} $blocks {offset}
! {files} || umount /mnt
echo "GUEST done"
poweroff -f
"""
# A busy machine's emulated clock is bad: the kernel is told instead of measuring.
COMMAND_LINE = "console=ttyS0 tsc=unstable lpj=4000000 mitigations=off cryptomgr.notests audit=0 loglevel=6 panic=1"
# Migration capabilities that only some moves have.
EXTRAS = ("switchover_ack", "return_path", "multifd", "pause_before_switchover")


class Devices:
    """What a QEMU gets its disks from. Each QEMU of the guest gets them anew: one with the serial number
    "files", which has a file system, if there are `files`, and one with `blocks`, which has room from
    `offset` on."""

    modules = ()
    files = True
    blocks = "blocks"
    offset = 0
    # Milliseconds after which the guest's driver gives up on a disk; 0 leaves it at 30 s.
    patience_ms = 0

    def __init__(self, rig):
        self.rig = rig

    def begin(self, name):
        """The wrapper of a QEMU's command, and the arguments it needs."""
        raise NotImplementedError

    def end(self, vm):
        """A QEMU has ended."""


class Rig:
    """A context: images, a ramdisk, and a guest that runs in the QEMU `self.vm`."""

    FILES_BYTES = 48 * MIB

    def __init__(self, quiesce, judge, devices, cpus=2):
        self.guest = machine.Guest()
        self.quiesce = quiesce
        self.judge = judge
        self.make_devices = devices
        self.cpus = cpus
        self.moves = 0
        self.sent = None  # what QEMU counted in the last move
        self.vm = None

    def __enter__(self):
        self.qemu, self.kernel = debian.qemu(), debian.kernel()
        self.guest.__enter__()
        self.images = [self.image(name, 64 * MIB) for name in ("files", "blocks")]
        debian.run(debian.tool("mkfs.ext4"), "-q", self.images[0], f"{self.FILES_BYTES >> 10}k")
        self.devices = self.make_devices(self)
        self.initrd = self.ramdisk()
        return self

    def __exit__(self, *error):
        self.guest.__exit__(*error)

    def image(self, name, size):
        path = self.guest.path(name)
        with open(path, "wb") as file:
            file.truncate(size)
        return path

    def ramdisk(self):
        disk = initramfs.Initramfs()
        disk.busybox(debian.busybox())
        disk.modules(self.kernel, ["crc32c_generic", "ext4", *self.devices.modules])
        disk.program("bin/judge", self.judge)
        disk.file("init", INIT.format(
            blocks=self.devices.blocks, offset=self.devices.offset,
            patience=self.devices.patience_ms,
            files=str(self.devices.files).lower(),
            folder="/mnt" if self.devices.files else "-"), 0o755)
        return disk.write(self.guest.path("initrd"))

    def start(self, *more, **capabilities):
        """A QEMU with the devices; one that waits for the guest if `more` says so."""
        name = f"qemu{len(self.guest.vms)}"
        wrapper, arguments = self.devices.begin(name)
        vm = self.guest.start(self.qemu, [
            *arguments, "-kernel", self.kernel.unpacked, "-initrd", self.initrd,
            "-append", COMMAND_LINE, *more], name, wrapper, cpus=self.cpus)
        vm.capabilities(events=True, **capabilities)
        return vm

    def boot(self):
        self.vm = self.start()
        self.say(None, "WORKING")

    def say(self, word, answer, refuse=BAD):
        """Give the guest an order; the numbers of its answer."""
        if word:
            self.vm.send(word)
        said = self.guest.console.wait(rf"{answer} (wrong=.*)", refuse=refuse)[1]
        return {name: int(value) for name, value in (part.split("=") for part in said.split())}

    def beats(self, count=3, refuse=BAD):
        """Wait until the guest has beaten so many times more: it lives."""
        for _ in range(count):
            self.guest.console.wait(r"BEAT \d+", refuse=refuse)

    def destination(self, **capabilities):
        """A QEMU that waits for the guest; both it and the one that runs the guest have these
        capabilities, and no others."""
        there = self.start("-incoming", "defer", **capabilities)
        self.vm.capabilities(**(dict.fromkeys(EXTRAS, False) | capabilities))
        self.vm.qmp.forget()
        return there

    def move(self, **capabilities):
        """Move the guest to a new QEMU, and let the old one end."""
        there = self.destination(**capabilities)
        machine.migrate(self.vm, there)
        self.arrived(there)

    def arrived(self, there):
        """The guest is there, and lives; the old QEMU ends."""
        self.sent = self.vm.qmp.execute("query-migrate")["ram"]
        if self.vm.quit():
            raise VmError(f"QEMU {self.vm.name} ended with an error: {self.vm.said()}")
        self.devices.end(self.vm)
        self.vm = there
        self.moves += 1
        self.beats()

    def discard(self, there):
        """End a destination that never got the guest; the guest lives where it was."""
        there.kill()
        self.devices.end(there)
        self.beats()

    def finish(self):
        """Compare everything, end the guest, check the file system; the guest's numbers."""
        self.say("verify", "VERIFIED")
        counted = self.say("end", "ENDED")
        self.guest.console.wait("GUEST done", refuse=BAD)
        self.vm.wait()
        self.devices.end(self.vm)
        if counted["wrong"]:
            raise VmError(f"the guest found {counted['wrong']} errors")
        debian.run(debian.tool("e2fsck"), "-f", "-n", self.images[0])
        return counted
