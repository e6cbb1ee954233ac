#!/usr/bin/env python3
# SPDX-License-Identifier: MIT
"""A recipe for `quiesce audit`: unmodified QEMUs move a Linux guest that works on an NVMe disk of ours,
and the guest's own judge says whether its data is right. It never fails because the move did: it
says what happened, in three lines. The devices are at the sockets. A QEMU that has not ended by itself
is told to with QMP's quit, as an operator does it: what it leaves of its devices is its own doing.

Usage: audit_recipe.py QUIESCE JUDGE SOURCE DESTINATION [SOURCE DESTINATION...]
The first pair of sockets is the disk that the guest works on; others are devices that move with it."""
import os
import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parent))
import rig as rigs
from vm import VmError, machine

# What a migration may take to end.
PATIENCE = 60
# How long a destination that failed may take to end by itself: QEMU does so unless it is told not to.
PATIENCE_TO_END = 20
# What costs a guest time and not data: an interrupt did not come, and the driver looked by itself.
LATE = r"KERNEL nvme\S* .*timeout, completion polled"
# How long a source may take to go on after a failed move.
PATIENCE_TO_RESUME = 10


class AuditedDisk(rigs.Devices):
    """One NVMe disk with the serial number "blocks", behind the socket of the side that is started, and
    whatever else there is."""

    modules = ("nvme",)
    files = False
    patience_ms = 10000

    def __init__(self, rig, sockets):
        super().__init__(rig)
        self.sides = [sockets[side::2] for side in range(2)]

    def begin(self, name):
        wrapper = [self.rig.quiesce, "run", "--quiet"]
        arguments = ["-object", f"memory-backend-memfd,id=ram,share=on,size={self.rig.guest.memory}",
                     "-machine", "memory-backend=ram", "-object", "iommufd,id=iommufd0,fd={iommufd}"]
        for number, socket in enumerate(self.sides.pop(0)):
            wrapper += ["--device", f"vfio-user:{socket}"]
            arguments += ["-device", f"vfio-pci,id=vfio{number},iommufd=iommufd0,fd={{vfio{number}}},"
                          "enable-migration=on"]
        return [*wrapper, "--"], arguments


def say(key, value):
    print(f"{key}: {value}", flush=True)


def data_is_right(rig):
    """The guest's word: it lives, and all that memory and disk hold is what it must be."""
    refuse = rigs.BAD.replace("timeout|polled|", "timeout, abort|")
    try:
        rig.beats(refuse=refuse)
        wrong = rig.say("verify", "VERIFIED", refuse)["wrong"]
        for late in rig.guest.console.all(LATE):
            print(f"an interrupt was missed: {late.string}", flush=True)
        return not wrong
    except (VmError, OSError) as error:
        print(str(error).splitlines()[0], flush=True)
        return False


def ended(vm, timeout=PATIENCE):
    """How a migration ended on one side."""
    try:
        return vm.wait_migration("completed", "failed", "cancelled", timeout=timeout)
    except (VmError, OSError):
        return "did not end"


def runs(vm):
    """Whether it runs the guest, once it has made up its mind: a failed move may take it back."""
    try:
        if vm.qmp.execute("query-status")["status"] == "finish-migrate":
            vm.qmp.wait("RESUME", timeout=PATIENCE_TO_RESUME)
        return vm.qmp.execute("query-status")["status"] == "running"
    except (VmError, OSError):
        return False


def leave(vm, name):
    """Tell a QEMU to end, unless it did so by itself."""
    try:
        if not vm.qmp or vm.process.poll() is not None:
            print(f"the {name} ended by itself, exit code {vm.wait(PATIENCE_TO_END)}", flush=True)
            return
        print(f"the {name} was told to quit, exit code {vm.quit()}", flush=True)
    except (VmError, OSError):
        print(f"the {name} had to be killed: what it leaves says nothing of QEMU", flush=True)
        vm.kill()


def end_failed(vm):
    """A destination that failed ends by itself, or is told to."""
    try:
        print(f"the destination ended by itself, exit code {vm.wait(PATIENCE_TO_END)}", flush=True)
    except VmError:
        leave(vm, "destination")


def move(rig):
    """Move the guest; whether that is reported as done."""
    try:
        there = rig.start("-incoming", "defer")
        machine.begin_migration(rig.vm, there)
    except (VmError, OSError) as error:
        say("outcome", "refused to start the move")
        print(str(error).splitlines()[0], flush=True)
        for vm in rig.guest.vms[1:]:
            leave(vm, "destination")
        return False
    here = ended(rig.vm)
    if here == "completed" and ended(there) == "completed" and runs(there):
        say("outcome", "moved, runs at the destination")
        leave(rig.vm, "source")
        rig.vm = there
        return True
    say("outcome", f"{here}, runs {'at the source' if runs(rig.vm) else 'nowhere'}")
    end_failed(there)
    return here == "completed"


def main():
    quiesce, judge, *sockets = (os.path.abspath(path) for path in sys.argv[1:])
    with rigs.Rig(quiesce, judge, lambda rig: AuditedDisk(rig, sockets)) as rig:
        try:
            rig.boot()
            rig.beats()
        except (VmError, OSError) as error:
            say("outcome", "the guest did not start")
            say("reported", "failure")
            print(str(error).splitlines()[0], *(vm.said() for vm in rig.guest.vms), flush=True)
            return
        success = move(rig)
        say("reported", "success" if success else "failure")
        say("data", "right" if data_is_right(rig) else "wrong")
        leave(rig.vm, "last one")


main()
