#!/usr/bin/env python3
# SPDX-License-Identifier: MIT
"""Unmodified QEMUs move a Linux guest that works on our devices without pause and judges every byte.
Usage: proof_test.py QUIESCE JUDGE WHAT"""
import functools
import os
import sys
import time

import disks
from rig import Rig
from vm import VmError, machine

MIB = 1 << 20


def slowly(vm, mib=24):
    """The migration stays in pre-copy until it is told to go on. However little the guest of a busy
    machine writes: QEMU is told that not even a page would fit into the stop."""
    vm.qmp.execute("migrate-set-parameters", max_bandwidth=mib * MIB, downtime_limit=1,
                   avail_switchover_bandwidth=4096)


def fast(vm):
    vm.qmp.execute("migrate-set-parameters", max_bandwidth=4096 * MIB, downtime_limit=2000,
                   avail_switchover_bandwidth=0)


def begin_slowly(rig, **capabilities):
    """A migration that has sent all memory once, and goes on sending what changes."""
    there = rig.destination(**capabilities)
    slowly(rig.vm, 192)
    machine.begin_migration(rig.vm, there)
    rig.vm.qmp.wait("MIGRATION_PASS", where=lambda data: data["pass"] >= 2)
    slowly(rig.vm)
    return there


def reads_more(rig, count=100):
    """The guest has read so much more from its devices, however slow it is."""
    due = rig.say("go", "GOING")["reads"] + count
    while rig.say("go", "GOING")["reads"] < due:
        rig.beats(1)


def still_here(rig):
    """The guest is where it was: nobody was faster than what the test wants to do now."""
    status = rig.vm.qmp.execute("query-migrate")["status"]
    if status != "active":
        raise VmError(f"the migration is '{status}' and not in pre-copy any more")


def switchover_ack(rig):
    """The source stops the guest only when the destination has the devices' first state."""
    rig.move(switchover_ack=True, return_path=True)


def cancel(rig, **capabilities):
    """Cancelled in pre-copy: the guest goes on where it is."""
    there = begin_slowly(rig)
    rig.vm.qmp.execute("migrate_cancel")
    assert rig.vm.wait_migration("cancelled", "failed", "completed") == "cancelled"
    fast(rig.vm)
    rig.discard(there)


def kill_destination(rig):
    """The destination dies in pre-copy."""
    there = begin_slowly(rig)
    there.kill()
    assert rig.vm.wait_migration("cancelled", "failed", "completed") == "failed"
    fast(rig.vm)
    rig.discard(there)


def stopped(rig):
    """A migration that stands between the guest's stop and the devices' last state."""
    there = rig.destination(pause_before_switchover=True)
    machine.begin_migration(rig.vm, there)
    rig.vm.wait_migration("pre-switchover")
    return there


def cancel_stopped(rig):
    """Cancelled with the guest stopped."""
    there = stopped(rig)
    rig.vm.qmp.execute("migrate_cancel")
    assert rig.vm.wait_migration("cancelled", "failed", "completed") == "cancelled"
    rig.discard(there)


def kill_destination_stopped(rig):
    """The destination dies when it is to get the devices' last state."""
    there = stopped(rig)
    there.kill()
    rig.vm.qmp.execute("migrate-continue", state="pre-switchover")
    assert rig.vm.wait_migration("cancelled", "failed", "completed") == "failed"
    rig.discard(there)


def pause_between(rig):
    """Memory moves while the guest works; the guest rests at the stop. What devices wrote until then
    arrives."""
    there = begin_slowly(rig)
    # Into memory that has been sent.
    reads_more(rig)
    rig.say("pause", "PAUSED")
    still_here(rig)
    fast(rig.vm)
    machine.end_migration(rig.vm, there)
    rig.arrived(there)
    return there


def multifd(rig):
    """Memory, and the state of several devices at once, over several connections. "on": QEMU refuses to
    move rather than to send the devices' state over the main one. Without a return path the source does
    not wait until it has sent that state: it is completed, closes, and the destination fails."""
    there = rig.destination(multifd=True, return_path=True)
    for vm in (rig.vm, there):
        for device in vm.qmp.execute("qom-list", path="/machine/peripheral"):
            if device["type"] == "child<vfio-pci>":
                vm.qmp.execute("qom-set", path=f"/machine/peripheral/{device['name']}",
                               property="x-migration-multifd-transfer", value="on")
    machine.migrate(rig.vm, there)
    rig.arrived(there)
    for device in range(len(rig.devices.specs)):
        rig.vm.qmp.execute("qom-set", path=f"/machine/peripheral/disk{device}",
                           property="x-migration-multifd-transfer", value="auto")


def verify(rig):
    """All that memory and devices hold, while the guest is where it is."""
    rig.say("verify", "VERIFIED")
    rig.say("go", "GOING")


def run(programs, steps, **options):
    """Boot a guest on such disks, take it through the steps, and judge the guest and what it used."""
    begun = time.monotonic()
    with Rig(*programs, functools.partial(disks.QuiesceDisks, **options)) as rig:
        rig.boot()
        print(f"booted after {time.monotonic() - begun:.1f} s", flush=True)
        for step in steps:
            begun = time.monotonic()
            step(rig)
            print(f"{step.__name__}: {time.monotonic() - begun:.1f} s", flush=True)
        counted = rig.finish()
        violations = [device["violations"] for report in rig.devices.reports
                      for device in report["devices"]]
        assert violations and not sum(violations), f"the devices saw violations: {violations}"
        # Whoever was given its devices in one of the ways had the guest, and gave it on or ended it.
        ways = options.get("ways", ())
        assert set(ways) <= set(rig.devices.left), f"of {ways} only {rig.devices.left} had the guest"
        print(f"{rig.moves} moves; {counted['writes']} writes, {counted['reads']} reads, "
              f"{counted['pages']} pages compared, none wrong", flush=True)


def moves(programs):
    """Two disks in QEMU's process: there and back ten times, and whatever can come between. Each QEMU is
    told in another way which devices are its own: by descriptor, address and folder, with iommufd and
    in groups."""
    run(programs, [Rig.move, Rig.move, switchover_ack, cancel, Rig.move, kill_destination, Rig.move,
                   multifd, cancel_stopped, Rig.move, kill_destination_stopped, Rig.move, verify,
                   pause_between, verify, Rig.move, Rig.move], ways=tuple(disks.WAYS))


def served(programs):
    """One disk in QEMU's process; the other one, whose content is its state, behind a server in
    another process."""
    run(programs, [Rig.move, switchover_ack, cancel, multifd, kill_destination, verify,
                   kill_destination_stopped, pause_between], specs=("file={0}", "ram=32M"), served=("blocks",))


def flags(programs):
    """Devices that can do less. QEMU takes several without P2P for a set that cannot move."""
    for number, specs in ((1, ("file={0}",)), (3, ("file={0}", "ram=32M")), (5, ("file={0}",))):
        print(f"flags {number}:", flush=True)
        run(programs, [Rig.move, cancel_stopped, pause_between], specs=specs, flags=number)


def lie(programs):
    """A dirty log that keeps quiet: the guest must find out, or it could not find anything. No more is
    asked of it: the queues of its driver are as old as the pages are."""
    with Rig(*programs, functools.partial(disks.QuiesceDisks, served=("blocks",),
                                          faults=("log-report=drop",))) as rig:
        rig.boot()
        pause_between(rig)
        rig.vm.send("verify")
        print(rig.guest.console.wait(r"WRONG .* in memory since it was read: it holds .*")[0])


def main():
    *programs, what = sys.argv[1:]
    globals()[what]([os.path.abspath(program) for program in programs])


main()
