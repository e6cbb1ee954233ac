# SPDX-License-Identifier: MIT
"""Sets that move between the two hosts of hosts.py: device servers, `quiesce host` with a tenant on
either side, requests at their control sockets with the events that come back, and the judgement
that every test here ends with: one owner at most, nothing lost, nothing beyond the limits.
"""
import contextlib
import json
import pathlib
import re
import signal
import socket
import subprocess
import sys
import tempfile
import threading
import time

import hosts

# Order of the phases, as either side tells them.
SOURCE_PHASES = ("negotiate", "pre-copy", "stop", "stop-copy", "load", "commit")
DESTINATION_PHASES = ("negotiate", "pre-copy", "stop-copy", "validate", "commit", "run")
HANG = 120  # seconds after which something that has no limit of its own hangs
ADDRESS = hosts.ADDRESSES["destination"]


STEP = 0.1  # seconds between two looks at whether a limit is over


def waited_for_cpu():
    """Seconds since the machine's start in which something on it waited for a CPU; 0 where the
    kernel does not say.
    """
    with contextlib.suppress(OSError):
        told = pathlib.Path("/proc/pressure/cpu").read_text(encoding="ascii")
        return int(re.search(r"^some .*total=(\d+)", told).group(1)) / 1e6
    return 0


class Request:
    """Something that a host was asked, and the events that come of it."""

    def __init__(self, host, verb, **keys):
        self.host, self.verb = host, verb
        self.phases = SOURCE_PHASES if verb in ("send", "plan") else DESTINATION_PHASES
        self.reached = -1
        self.address = None
        self.ended = None  # the last event, or {} when the host went away
        self.news = threading.Condition()
        self.began_at = time.monotonic()
        self.ended_at = None
        self.socket = socket.socket(socket.AF_UNIX)
        self.socket.connect(host.control)
        self.socket.sendall(json.dumps({"request": verb, **keys}).encode() + b"\n")
        threading.Thread(target=self.read, daemon=True).start()

    def read(self):
        with contextlib.suppress(OSError), self.socket, self.socket.makefile() as lines:
            for line in lines:
                if self.take(json.loads(line)):
                    break
        with self.news:
            self.ended_at = self.ended_at or time.monotonic()
            self.ended = self.ended or {}
            self.news.notify_all()

    def take(self, event):
        with self.news:
            if event["event"] == "progress" and event["sample"]["phase"] in self.phases:
                self.reached = self.phases.index(event["sample"]["phase"])
            elif event["event"] == "listening":
                self.address = event["address"]
            elif event["event"] in ("end", "status"):
                self.ended, self.ended_at = event, time.monotonic()
            self.news.notify_all()
            return self.ended

    def wait(self, look, limit=HANG):
        """Until look() is true. The limit is in seconds of a machine that has time for us: one that
        stands still is over as soon as it goes on, and while something waits for a CPU they last
        longer.
        """
        hangs_at = time.monotonic() + limit + HANG
        with self.news:
            pressure = waited_for_cpu()
            while not self.news.wait_for(look, STEP):
                before, pressure = pressure, waited_for_cpu()
                limit -= max(STEP - (pressure - before), STEP / 10)
                assert limit > 0 and time.monotonic() < hangs_at, f"{self} hangs in {self.phase()}"

    def phase(self):
        return self.phases[self.reached] if self.reached >= 0 else "nothing"

    def until(self, phase):
        """Until it is there, or past that, or has ended."""
        self.wait(lambda: self.ended is not None or self.reached >= self.phases.index(phase))

    def end(self, limit=HANG):
        """The last event, no later than `limit` seconds from now."""
        self.wait(lambda: self.ended is not None, limit)
        return self.ended

    def end_at_deadline(self, timeout_ms, late):
        """The last event, no later than `late` seconds after that much time since it was asked."""
        return self.end(self.began_at + timeout_ms / 1000 + late - time.monotonic())

    @property
    def code(self):
        """As the exit code of the command; None when the host died."""
        return self.ended.get("code")

    @property
    def text(self):
        """All that a person reads at its end."""
        error, move = self.ended.get("error") or {}, self.ended.get("move") or {}
        return " / ".join(filter(None, (error.get("clause"), error.get("text"),
                                        move.get("report", {}).get("outcome"))))

    @property
    def report(self):
        return self.ended["move"]["report"]

    def __str__(self):
        return f"{self.verb} of the {self.host.where}"


class Host:
    """A `quiesce host`, with a tenant, on one of the two hosts."""

    def __init__(self, world, where, devices, *args):
        self.world, self.where = world, where
        self.control = world.fresh("control")
        self.log, self.news = "", threading.Condition()
        self.killed = False
        named = [f"d{i}={uri}" for i, uri in enumerate(devices)]
        self.process = subprocess.Popen(
            hosts.Hosts.on(where, world.tool, "host", *named, "--control", self.control,
                           "--tenant", "copy", "--json", *args),
            stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
        self.reader = threading.Thread(target=self.read, daemon=True)
        self.reader.start()
        line = self.process.stdout.readline()
        assert line.startswith(("holding", "room for")), f"{line} {self.log}"

    def read(self):
        for line in self.process.stderr:
            with self.news:
                self.log += line
                self.news.notify_all()

    def says(self, words, since=0):
        """Wait until these words (a regular expression) stand in its log."""
        with self.news:
            assert self.news.wait_for(lambda: re.search(words, self.log[since:]), HANG), \
                f"the {self.where} does not say '{words}': {self.log[since:]}"

    def ask(self, verb):
        return Request(self, verb).end()

    def state(self):
        """Of the set there: "running", "empty", "unproved", "broken"; "dead" with the process."""
        status, hangs_at = None, time.monotonic() + HANG
        # The tenant is about to find out that a device has died.
        while status is None or (status.get("state") == "running" and
                                 any(not device["state"] for device in status["devices"])):
            if self.process.poll() is not None:
                return "dead"
            assert time.monotonic() < hangs_at, f"{self.where}: nobody misses the device: {status}"
            status = {}
            with contextlib.suppress(OSError):
                status = self.ask("status")
        if not status:  # it is about to end, since its tenant cannot go on
            self.process.wait(HANG)
            return "dead"
        running = [device["state"] == "RUNNING" for device in status["devices"]]
        assert all(running) == (status["state"] == "running"), status
        assert any(running) <= (status["state"] in ("running", "broken")), status
        return status["state"]

    def kill(self):
        self.killed = True
        self.process.kill()
        self.process.wait(HANG)

    def finish(self):
        """The tenant compares everything: nothing was lost, doubled or wrong."""
        self.ask("finish")
        output = self.process.stdout.read()
        self.process.wait(HANG)
        decoder = json.JSONDecoder()
        tenant = decoder.raw_decode(output.strip())[0]["tenant"]
        assert self.process.returncode == 0, f"{self.where}: {tenant} {self.log}"
        # Struck early and on a busy machine it may not have finished a block yet.
        assert tenant["engine_bytes"] > 0 and tenant["bytes_kept"] > 0, tenant
        for key in ("bytes_wrong", "interrupts_lost", "interrupts_doubled"):
            assert tenant[key] == 0, f"{self.where}: {tenant}"
        return tenant

    def close(self):
        if self.process.poll() is None:
            self.process.send_signal(signal.SIGTERM)
            self.process.stdout.read()
            self.process.wait(HANG)
        self.reader.join(HANG)
        assert "Sanitizer" not in self.log and "runtime error" not in self.log, self.log


class Device:
    """A device server; hosts come and go, it stays."""

    def __init__(self, world, spec):
        self.tool, self.path = world.tool, world.fresh("dev")
        self.uri = f"vfio-user:{self.path}"
        self.trace = f"{self.path}.trace"
        self.killed = False
        self.process = subprocess.Popen(
            [world.tool, "serve", spec, "--socket", self.path,
             *(["--trace", self.trace] if world.traced else [])],
            stdout=subprocess.PIPE, text=True)
        line = self.process.stdout.readline()
        assert line.startswith("serving "), line

    def touched(self):
        """How often anybody changed its state or data, as far as it was traced."""
        trace = pathlib.Path(self.trace).read_text(encoding="utf-8")
        return trace.count(" set-state ") + trace.count(" session-write ")

    def lives(self):
        """Whether nobody killed it. That it ends by itself is never right: what others then say of
        it would hide that.
        """
        code = self.process.poll()
        assert code is None or self.killed, f"the server of {self.uri} ended by itself: {code}"
        return code is None

    def wait_free(self):
        """Until its server has noticed that the last user is gone, which takes it a moment."""
        deadline = time.monotonic() + HANG
        while self.lives():
            info = subprocess.run([self.tool, "info", self.uri], stdout=subprocess.DEVNULL,
                                  stderr=subprocess.PIPE, text=True, check=False)
            if info.returncode == 0:
                return
            assert time.monotonic() < deadline, f"{self.uri} is never let go of: {info.stderr}"

    def kill(self):
        self.killed = True
        self.process.kill()
        self.process.wait(HANG)


class World:
    """Two hosts, the cable, devices on both; what a scenario changes is put right after it."""

    def __init__(self, tool, link, folder, spec, count, memory, traced):
        self.tool, self.folder = tool, folder
        self.spec, self.count, self.memory, self.traced = spec, count, memory, traced
        self.numbers = {}
        self.devices = {where: [] for where in hosts.ADDRESSES}
        self.open = []
        self.net = hosts.Hosts(link)

    def fresh(self, name):
        number = self.numbers[name] = self.numbers.get(name, 0) + 1
        return str(self.folder / f"{name}{number}")

    def host(self, where, *args):
        """A host with the devices of that side, as many of which are made as have died."""
        alive = [device for device in self.devices[where] if device.lives()]
        for device in alive:
            device.wait_free()
        alive += [Device(self, self.spec) for _ in range(self.count - len(alive))]
        self.devices[where] = alive
        try:
            host = Host(self, where, [device.uri for device in alive], "--memory", self.memory,
                        *args)
        except AssertionError:
            assert all(device.lives() for device in alive)
            raise
        self.open.append(host)
        return host

    def pair(self):
        """A source with a running set, and a destination with room for it."""
        return self.host("source"), self.host("destination", "--empty")

    def restore(self):
        """The cable is whole and quick, and nobody holds a device."""
        self.net.cable("mend", "delay 0", "loss 0")
        self.net.bandwidth(None)
        while self.open:
            self.open.pop().close()
        for device in self.devices["source"] + self.devices["destination"]:
            device.lives()


@contextlib.contextmanager
def world(tool, link, spec="dmacopy,memory=1M", count=2, memory="8M", traced=False):
    with tempfile.TemporaryDirectory(prefix="q") as name:
        here = World(tool, link, pathlib.Path(name), spec, count, memory, traced)
        with here.net:
            try:
                yield here
            except BaseException:
                for host in here.open:
                    print(f"-- the {host.where} said:\n{host.log}", file=sys.stderr)
                raise
            finally:
                for host in here.open:
                    host.process.kill()
                for device in here.devices["source"] + here.devices["destination"]:
                    device.process.kill()


# ---- a move ----

PLAIN = {"plaintext": True}


def receive(host, scheme="tcp", port=0, **keys):
    request = Request(host, "receive", transport=f"{scheme}:{ADDRESS}:{port}", **keys)
    request.wait(lambda: request.address or request.ended is not None)
    assert request.address, request.text
    return request


def send(host, waiting, scheme=None, **keys):
    """To a receive that waits."""
    there = waiting.address.split(":", 1)
    return Request(host, "send", transport=f"{scheme or there[0]}:{there[1]}", **keys)


def judge(here, there, within, broken=None):
    """Of a send, the receive that it went to, and what became of the set: both have ended `within`
    seconds, say what they should, and one has the set, or both know that nobody can tell. On the
    `broken` side a device has died: where the set is there, it is broken, or its tenant has ended
    it. A host that was killed may have said how it went before. Returns the states of both hosts.
    """
    here.end(within)
    there.end(within)
    states = {here: here.host.state(), there: there.host.state()}
    story = "; ".join(f"{request}: {request.code}, {state}: {request.text}"
                      for request, state in states.items())
    assert list(states.values()).count("running") <= 1, f"two owners: {story}"
    has = {side: ("running", "broken", "dead") if broken == side else ("running",)
           for side in ("source", "destination")}
    due = {here: {None: ("dead",), 0: ("empty",), 1: has["source"], 3: ("unproved",)},
           there: {None: ("dead",), 0: has["destination"], 1: ("empty",), 3: ("unproved",)}}
    for request, state in states.items():
        assert state in due[request].get(request.code, ()) or \
            (request.host.killed and state == "dead"), story
        if request.code == 3:
            assert "no proof" in request.text or "failed to start here" in request.text, story
        if request.code in (1, 3):
            assert len(request.text.split()) > 8, story
    if "dead" not in states.values():
        assert states[here] in has["source"] or states[there] in has["destination"] or \
            here.code == there.code == 3, f"no owner: {story}"
    return states[here], states[there]


def verify(here, there):
    """The tenant goes on and accounts for everything, where the set is. Where nobody can tell, we
    are the person who looks at the other side and decides.
    """
    states = [request.host.state() for request in (here, there)]
    if "running" not in states and "unproved" in states:
        assert (here if states[0] == "unproved" else there).host.ask("run")["code"] == 0
        states = [request.host.state() for request in (here, there)]
        assert states.count("running") == 1, states
    for request, state in zip((here, there), states):
        if state == "running":
            request.host.finish()
