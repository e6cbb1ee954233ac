# SPDX-License-Identifier: MIT
"""Guests and the QEMU processes that run them. A guest has one console, whichever process runs it:
what it prints before and after a migration is one stream of lines. Everything that a guest started
ends with it, also when the test fails or is told to end."""
import collections
import ctypes
import json
import os
import re
import selectors
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import threading
import time

from . import VmError

ACCELERATOR = os.environ.get("QUIESCE_VM_ACCEL", "tcg")
# Seconds until a test gives up. A machine that emulates beside others is slow, never this slow.
PATIENCE = 120
PR_SET_PDEATHSIG = 1


class Console:
    """A guest's serial line, over all QEMUs that run it, one after the other."""

    def __init__(self, log):
        self.lines = []
        self.partial = b""
        self.read = 0
        self.changed = threading.Condition()
        self.log = open(log, "wb", buffering=0)
        self.sockets = []
        self.selector = selectors.DefaultSelector()
        self.wake, waker = socket.socketpair()
        self.selector.register(waker, selectors.EVENT_READ)
        self.thread = threading.Thread(target=self.pump, daemon=True)
        self.thread.start()

    def attach(self, connection):
        with self.changed:
            self.sockets.append(connection)
            self.selector.register(connection, selectors.EVENT_READ)
        self.wake.send(b"+")

    def pump(self):
        while True:
            ready = {key.fileobj for key, _ in self.selector.select()}
            with self.changed:
                # The source has written all before the destination writes: older ones first.
                for connection in [one for one in self.sockets if one in ready]:
                    self.take(connection)
                self.changed.notify_all()
            for other in ready - set(self.sockets):
                if other.fileno() >= 0 and not other.recv(64):
                    return

    def take(self, connection):
        try:
            data = connection.recv(65536)
        except OSError:
            data = b""
        if not data:
            self.selector.unregister(connection)
            self.sockets.remove(connection)
            connection.close()
            return
        self.log.write(data)
        *lines, self.partial = (self.partial + data).split(b"\n")
        self.lines += [line.decode(errors="replace").rstrip("\r") for line in lines]

    def wait(self, pattern, timeout=PATIENCE, refuse=None):
        """The match of the next whole line that has the pattern, after the one last waited for. A
        line that has `refuse` ends the wait with an error."""
        deadline = time.monotonic() + timeout
        with self.changed:
            while True:
                while self.read < len(self.lines):
                    line = self.lines[self.read]
                    self.read += 1
                    if refuse and re.search(refuse, line):
                        raise VmError(f"the guest said: {line}")
                    found = re.search(pattern, line)
                    if found:
                        return found
                if not self.sockets or not self.changed.wait(deadline - time.monotonic()):
                    why = "in time" if self.sockets else "before its QEMU ended"
                    raise VmError(f"the guest did not say '{pattern}' {why}; it last said:\n  "
                                  + "\n  ".join(self.last(12)))

    def last(self, count):
        """The last lines, without the signs of life between them."""
        lines = [line for i, line in enumerate(self.lines)
                 if not line.startswith("BEAT") or i + 1 == len(self.lines)]
        return lines[-count:]

    def all(self, pattern):
        """Matches of all lines until now."""
        with self.changed:
            return [found for line in self.lines if (found := re.search(pattern, line))]

    def close(self):
        self.wake.close()
        self.thread.join()
        self.log.close()


class Qmp:
    """A connection to QEMU's monitor."""

    def __init__(self, connection):
        self.connection = connection
        self.buffer = b""
        self.events = collections.deque()
        self.heard = []  # every event ever, with those that nobody waited for
        self.receive(time.monotonic() + PATIENCE)
        self.execute("qmp_capabilities")

    def receive(self, deadline):
        while b"\n" not in self.buffer:
            self.connection.settimeout(max(deadline - time.monotonic(), 0.001))
            try:
                data = self.connection.recv(65536)
            except TimeoutError:
                raise VmError("QEMU's monitor said nothing in time") from None
            except OSError:
                data = b""
            if not data:
                raise VmError("QEMU ended")
            self.buffer += data
        line, self.buffer = self.buffer.split(b"\n", 1)
        said = json.loads(line)
        if "event" in said:
            self.heard.append(said)
        return said

    def execute(self, command, /, **arguments):
        """The command's return value. Names with "_" for "-" where a keyword needs it."""
        arguments = {name.replace("_", "-"): value for name, value in arguments.items()}
        self.connection.sendall(json.dumps({"execute": command, "arguments": arguments}).encode()
                                + b"\n")
        deadline = time.monotonic() + PATIENCE
        while True:
            said = self.receive(deadline)
            if "event" in said:
                self.events.append(said)
            elif "error" in said:
                raise VmError(f"QEMU refused {command}: {said['error']['desc']}")
            else:
                return said["return"]

    def wait(self, *names, timeout=PATIENCE, where=lambda data: True):
        """The next event of one of these names, with data that `where` accepts; others before it are
        forgotten."""
        deadline = time.monotonic() + timeout
        while True:
            said = self.events.popleft() if self.events else self.receive(deadline)
            if said.get("event") in names and where(said.get("data", {})):
                return said

    def forget(self):
        """Forget the events until now."""
        self.execute("query-status")
        self.events.clear()


class Vm:
    """One QEMU process: name, process, qmp, and the file that has what it says."""

    def __init__(self, guest, name, process, log):
        self.guest = guest
        self.name = name
        self.process = process
        self.log = log
        self.serial = None
        self.qmp = None

    def send(self, text):
        """Type a line into the guest's console, which is this QEMU's as long as it runs the guest."""
        self.serial.sendall(text.encode() + b"\n")

    def said(self):
        with open(self.log, encoding="utf-8", errors="replace") as file:
            return file.read().strip()

    def capabilities(self, **capabilities):
        """Switch migration capabilities on and off ("_" for "-")."""
        self.qmp.execute("migrate-set-capabilities", capabilities=[
            {"capability": name.replace("_", "-"), "state": state}
            for name, state in capabilities.items()])

    def wait_migration(self, *ends, timeout=PATIENCE):
        """How the migration ends: one of these states. Needs the capability "events"."""
        return self.qmp.wait("MIGRATION", timeout=timeout,
                             where=lambda data: data["status"] in ends)["data"]["status"]

    def quit(self, timeout=PATIENCE):
        """Let it end by itself; its exit code."""
        try:
            self.qmp.execute("quit")
        except VmError:
            pass  # it ended before it could answer
        return self.wait(timeout)

    def wait(self, timeout=PATIENCE):
        try:
            return self.process.wait(timeout)
        except subprocess.TimeoutExpired:
            raise VmError(f"QEMU {self.name} does not end") from None

    def kill(self):
        """End it and all it started, at once."""
        try:
            os.killpg(self.process.pid, signal.SIGKILL)
        except ProcessLookupError:
            pass
        self.process.wait()
        if self.qmp:
            self.qmp.connection.close()


class Guest:
    """A context: a guest's console, the QEMUs that run it, and a folder for all of it."""

    def __init__(self, memory="256M"):
        self.memory = memory
        self.vms = []
        self.folder = None
        self.console = None

    def __enter__(self):
        if (threading.current_thread() is threading.main_thread()
                and signal.getsignal(signal.SIGTERM) == signal.SIG_DFL):
            signal.signal(signal.SIGTERM, lambda *_: sys.exit("told to end"))
        self.folder = tempfile.mkdtemp(prefix="quiesce-vm-")
        self.console = Console(os.path.join(self.folder, "console"))
        return self

    def __exit__(self, kind, error, _):
        for vm in self.vms:
            vm.kill()
            if kind and vm.said():
                print(f"QEMU {vm.name} said:\n{vm.said()}", file=sys.stderr)
        self.console.close()
        if kind:
            print("the guest's last words:\n  " + "\n  ".join(self.console.last(30)),
                  file=sys.stderr)
        shutil.rmtree(self.folder, ignore_errors=True)

    def path(self, name):
        """A path in the guest's folder."""
        return os.path.join(self.folder, name)

    def start(self, qemu, arguments, name=None, wrapper=(), environment=None, cpus=1):
        """Start a QEMU for this guest: a q35 without default devices, its console and monitor
        connected. `wrapper` is a command that QEMU's command is given to."""
        name = name or f"vm{len(self.vms)}"
        log = self.path(f"{name}.log")
        command = [*map(str, wrapper), *qemu.command, "-accel", ACCELERATOR, "-machine", "q35",
                   "-cpu", "host" if ACCELERATOR == "kvm" else "qemu64,+rdrand", "-smp", str(cpus),
                   "-m", self.memory, "-nodefaults", "-no-user-config", "-display", "none"]
        listeners = []
        for kind in ("serial", "qmp"):
            path = self.path(f"{name}.{kind}")
            listener = socket.socket(socket.AF_UNIX)
            listener.bind(path)
            listener.listen(1)
            listeners.append(listener)
            command += ["-chardev", f"socket,id={kind},path={path}"]
        command += ["-serial", "chardev:serial", "-mon", "chardev=qmp,mode=control",
                    *map(str, arguments)]
        with open(log, "wb") as output:
            process = subprocess.Popen(
                command, stdin=subprocess.DEVNULL, stdout=output, stderr=output,
                start_new_session=True, preexec_fn=end_with_parent,
                env=dict(qemu.environment, **(environment or {})))
        vm = Vm(self, name, process, log)
        self.vms.append(vm)
        vm.serial, qmp = [accept(listener, vm) for listener in listeners]
        self.console.attach(vm.serial)
        vm.qmp = Qmp(qmp)
        return vm


def end_with_parent():
    ctypes.CDLL(None).prctl(PR_SET_PDEATHSIG, signal.SIGKILL)


def accept(listener, vm):
    """QEMU's connection; an error with its words if it ends instead."""
    watch = os.pidfd_open(vm.process.pid)
    try:
        with selectors.DefaultSelector() as selector, listener:
            selector.register(listener, selectors.EVENT_READ)
            selector.register(watch, selectors.EVENT_READ)
            ready = {key.fileobj for key, _ in selector.select(PATIENCE)}
            if listener in ready:
                return listener.accept()[0]
        raise VmError(f"QEMU {vm.name} did not start: {vm.said() or 'no word of it'}")
    finally:
        os.close(watch)


def begin_migration(source, destination):
    """Begin to move the guest. The destination was started with "-incoming defer"."""
    path = destination.guest.path(f"{destination.name}.incoming")
    destination.qmp.execute("migrate-incoming", uri=f"unix:{path}")
    source.qmp.execute("migrate", uri=f"unix:{path}")


def end_migration(source, destination, timeout=PATIENCE):
    """Wait until the guest has moved. Both have the capability "events"."""
    status = source.wait_migration("completed", "failed", "cancelled", timeout=timeout)
    if status != "completed":
        why = source.qmp.execute("query-migrate").get("error-desc", "no reason given")
        raise VmError(f"the migration from {source.name} {status}: {why} {destination.said()}")
    if destination.wait_migration("completed", "failed", timeout=timeout) != "completed":
        raise VmError(f"the migration to {destination.name} failed there: {destination.said()}")


def migrate(source, destination):
    """Move the guest."""
    begin_migration(source, destination)
    end_migration(source, destination)
