#!/usr/bin/env python3
# SPDX-License-Identifier: MIT
"""Unmodified QEMUs move a Linux guest that works on our devices without pause and judges every byte.
Usage: proof_test.py QUIESCE JUDGE WHAT"""
import sys
import time

import disks
from rig import Rig
from vm import VmError, machine

MIB = 1 << 20


def slowly(vm):
    """So little bandwidth that the migration stays in pre-copy until it is told to go on."""
    vm.qmp.execute("migrate-set-parameters", max_bandwidth=24 * MIB, downtime_limit=1)


def fast(vm):
    vm.qmp.execute("migrate-set-parameters", max_bandwidth=4096 * MIB, downtime_limit=2000)


def begin_slowly(rig, **capabilities):
    """A migration that has sent all memory once, and goes on sending what changes."""
    there = rig.destination(**capabilities)
    slowly(rig.vm)
    machine.begin_migration(rig.vm, there)
    rig.vm.qmp.wait("MIGRATION_PASS", where=lambda data: data["pass"] >= 2)
    return there


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
    rig.say("pause", "PAUSED")
    fast(rig.vm)
    machine.end_migration(rig.vm, there)
    rig.arrived(there)
    return there
