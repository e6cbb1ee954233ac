#!/usr/bin/env python3
# SPDX-License-Identifier: MIT
"""Between hosts: the link is cut, mended or stalled, and processes are killed, in every phase of a
move. Then the source runs on unharmed, or the destination runs, or both are stopped and say so;
never both run, and nothing hangs beyond its limits.

	fault_test.py TOOL LINK cuts|kills WORKERS [SHARE]

WORKERS scenarios run side by side, since most of it is waiting. With SHARE only every so-manieth,
for builds that are slow.
"""
import contextlib
import itertools
import sys

import hosts
import moving

# Nothing heard for so long is a failure. It is seen an eighth later at most; then the last words
# may take a second, and so may the farewell to each device two. What was needed is printed.
STALL_MS = 1000
LOOKS = 8
LAST_WORDS_S = 1
FAREWELL_S = 2
BUSY = 2  # so many times longer on a machine that does other things
SOURCES = 5  # that a destination may meet, where they do not come to negotiate in its time

# How a move is made to stay in a phase until somebody has struck.
STAY = {
    "negotiate": {"bandwidth": 16 << 20},
    "pre-copy": {"bandwidth": 4 << 20},
    "stop": {"no_precopy": True, "bandwidth": 16 << 20},
    "stop-copy": {"no_precopy": True, "bandwidth": 8 << 20},
    "load": {"no_precopy": True},
    "commit": {"no_precopy": True},
}
# What one side of the hand-over waits for in it; types as in src/migrate/frame.h.
MESSAGES = {"READY": 13, "COMMIT": 14, "RUNNING": 15}
AWAITED = {"load": "READY", "commit": "COMMIT"}
DELAY_MS = 20

slowest_s = 0.0


def bound(here, stall_ms):
    """Seconds after the cut in which either side must have ended."""
    return BUSY * (stall_ms / 1000 * (1 + 1 / LOOKS) + LAST_WORDS_S + here.count * FAREWELL_S)


def begin(here, stall_ms=STALL_MS, **keys):
    """A move that is under way: the send and the receive."""
    source, destination = here.pair()
    here.net.cable(f"delay {DELAY_MS}")
    there = moving.receive(destination, stall_timeout_ms=stall_ms, **moving.PLAIN)
    options = {"stall_timeout_ms": stall_ms, "exceed": True, **moving.PLAIN, **keys}
    return moving.send(source, there, **options), there


def conclude(here, name, send, receive, stall_ms=STALL_MS, broken=None):
    """How it ended, which must be in time, and that nothing was lost."""
    global slowest_s
    struck = moving.time.monotonic()
    within = bound(here, stall_ms)
    send.end(within)
    for _ in range(SOURCES):
        if send.code == 0 or receive.ended or receive.phase() not in ("nothing", "negotiate"):
            break
        print(f"{name}: the source ended, the destination goes on waiting")
        send = send_again(here, send, receive)
        send.end()
        within, broken = moving.HANG, None
    states = moving.judge(send, receive, within, broken)
    took = max(send.ended_at, receive.ended_at) - struck
    slowest_s = max(slowest_s, took - stall_ms / 1000)
    print(f"{name}: source {states[0]}, destination {states[1]} after {took:.1f} s", flush=True)
    here.net.cable("mend", "delay 0")
    moving.verify(send, receive)
    here.restore()
    return states


def send_again(here, send, receive):
    """To a destination that has not met a source yet, as far as it knows. Should it be in the midst
    of doing so, this comes to nothing.
    """
    here.net.cable("mend", "delay 0")
    source = send.host
    if source.state() != "running":
        source.close()
        here.open.remove(source)
        source = here.host("source")
    return moving.send(source, receive, exceed=True, **moving.PLAIN)


# ---- the cable ----

def cut_in(phase):
    def check(here):
        send, receive = begin(here, **STAY[phase])
        send.until(phase)
        here.net.cable("cut")
        conclude(here, f"cut in {phase}", send, receive)
    return check


def cut_after(bytes_passed):
    def check(here):
        here.net.cable(f"cut-after {bytes_passed}")
        send, receive = begin(here)
        # Short of that many the move just succeeds. A destination that has not met its source,
        # which had no time for it, waits for another.
        here.net.await_cut(lambda: send.ended is not None)
        conclude(here, f"cut after {bytes_passed} bytes", send, receive)
    return check


def cut_at(message, expected):
    """Who must stop, and who may run, follows from which message of the hand-over is lost."""
    def check(here):
        # On a machine that has no time for them for seconds, they may not come as far as that.
        for stall_ms in (3 * STALL_MS, 9 * STALL_MS, 27 * STALL_MS):
            here.net.cable(f"cut-at {MESSAGES[message]}")
            send, receive = begin(here, stall_ms, no_precopy=True)
            here.net.await_cut(lambda: send.ended is not None)
            was_cut = here.net.was_cut
            states = conclude(here, f"{message} {'lost' if was_cut else 'not sent'}", send, receive,
                              stall_ms)
            if was_cut:
                break
        assert was_cut, f"{message} was not seen on the cable"
        assert states == expected, states
    return check


def cut_past_deadline(phase):
    """The deadline of all ends the wait, long before silence would."""
    def check(here):
        timeout_ms = 4000
        # On a machine that has no time for them the destination may not wait for the deadline.
        for stall_ms in (STALL_MS, 3 * STALL_MS, 9 * STALL_MS):
            send, receive = begin(here, stall_ms, stall_timeout_ms=10 * timeout_ms,
                                  timeout_ms=timeout_ms, **STAY[phase])
            send.until(phase)
            here.net.cable("loss 1000")
            send.end_at_deadline(timeout_ms, late=5)
            here.net.cable("loss 0")
            conclude(here, f"deadline in {phase}", send, receive, stall_ms)
            if "the destination failed" not in send.text:
                break
        if send.code == 1:
            assert f"{timeout_ms} ms" in send.text, send.text
    return check


def mended_in(phase):
    """A cut that is mended within the limits is only slow."""
    def check(here):
        send, receive = begin(here, 20 * STALL_MS, **{**STAY[phase], "bandwidth": 16 << 20})
        send.until(phase)
        for _ in range(2):
            here.net.cable("cut")
            # As long as it takes TCP to notice and to try again.
            moving.time.sleep(0.5)
            here.net.cable("mend")
        states = conclude(here, f"mended in {phase}", send, receive, 20 * STALL_MS)
        assert states == ("empty", "running"), states
    return check


CUTS = [
    *(cut_in(phase) for phase in STAY if phase != "commit"),
    cut_at("READY", ("running", "unproved")),
    cut_at("COMMIT", ("unproved", "unproved")),
    cut_at("RUNNING", ("unproved", "running")),
    *(cut_past_deadline(phase) for phase in ("negotiate", "pre-copy", "stop-copy")),
    *(mended_in(phase) for phase in ("pre-copy", "stop-copy")),
    *(cut_after(count) for count in (100, 1000, 3000, 100000, 4000000, 12000000)),
]


# ---- processes ----

def kill_in(phase, victim):
    def check(here):
        # A death is heard at once, and until we have struck nobody must give up.
        stall_ms = 20 * STALL_MS
        broken = None
        if phase in AWAITED:
            here.net.cable(f"cut-at {MESSAGES[AWAITED[phase]]}")
        send, receive = begin(here, stall_ms, **STAY[phase])
        if phase in AWAITED:
            here.net.await_cut(lambda: send.ended is not None)
        send.until(phase)
        if victim == "source":
            send.host.kill()
        elif victim == "destination":
            receive.host.kill()
        else:
            side = victim.split("'")[0]
            here.devices[side][1].kill()
            # At the destination the set has it only when that was too late to be in this phase.
            broken = side if side == "source" or receive.ended else None
        # What was on its way arrives.
        here.net.cable("mend")
        conclude(here, f"{victim} killed in {phase}", send, receive, stall_ms, broken)
        if victim.endswith("device"):
            assert send.code == 0 or "'d1'" in send.text or "'d1'" in receive.text, \
                f"{send.text} {receive.text}"
    return check


KILLS = [kill_in(phase, victim) for phase, victim in itertools.product(
    STAY, ("source", "destination", "source's device", "destination's device"))]


@contextlib.contextmanager
def place(tool, link):
    with moving.world(tool, link) as here:
        yield here
    print(f"the latest end was {slowest_s:.1f} s after the limit on silence")


def main(tool, link, what, workers, share=1):
    hosts.enter()
    hosts.side_by_side(int(workers), {"cuts": CUTS, "kills": KILLS}[what][::int(share)],
                       lambda: place(tool, link))


if __name__ == "__main__":
    main(*sys.argv[1:])
