#!/usr/bin/env python3
# SPDX-License-Identifier: MIT
"""`quiesce host`, send, receive, save, restore, plan and ask from outside, with real processes."""
import concurrent.futures
import contextlib
import json
import os
import pathlib
import re
import resource
import signal
import socket
import stat
import struct
import subprocess
import sys
import tempfile
import threading
import time
import urllib.request

TOOL = sys.argv[1]
MANUAL = pathlib.Path(__file__).parent.parent / "docs"
TIMEOUT = 120
WORKERS = int(sys.argv[2])  # side by side


def run(*args, code=0, **options):
    done = subprocess.run([TOOL, *map(str, args)], text=True, capture_output=True, check=False,
                          timeout=TIMEOUT, **options)
    assert done.returncode == code, f"{args}: exit {done.returncode}: {done.stderr}\n{done.stdout}"
    if code == 2:
        assert not done.stdout and done.stderr.count("\n") == 1, done
        assert done.stderr.endswith("--help'\n"), done
    return done


class Process:
    """A command that runs beside us. What it says on stderr can be waited for."""

    def __init__(self, *args, **options):
        self.process = subprocess.Popen([TOOL, *map(str, args)], stdout=subprocess.PIPE,
                                        stderr=subprocess.PIPE, text=True, **options)
        self.args = args
        self.said = []
        self.news = threading.Condition()
        self.reader = threading.Thread(target=self.read, daemon=True)
        self.reader.start()

    def read(self):
        for line in self.process.stderr:
            with self.news:
                self.said.append(line)
                self.news.notify_all()
        with self.news:
            self.said.append(None)
            self.news.notify_all()

    def wait_for(self, text):
        """The first line with this text that it says, or has said."""
        found = []

        def look():
            found[:] = [line for line in self.said if line and text in line]
            return found or None in self.said

        with self.news:
            assert self.news.wait_for(look, TIMEOUT), f"{self.args}: no '{text}' in {self.said}"
        assert found, f"{self.args}: ended without '{text}': {self.said}"
        return found[0]

    def signal(self, number):
        self.process.send_signal(number)

    def end(self, code=0, number=None):
        """Wait until it ends by itself, or of the signal."""
        if number:
            self.signal(number)
        output = self.process.stdout.read()
        ended = self.process.wait(TIMEOUT)
        self.reader.join(TIMEOUT)
        self.error = "".join(line for line in self.said if line)
        assert ended == code, f"{self.args}: exit {ended}, not {code}: {self.error}\n{output[-300:]}"
        return output


class World:
    """A folder with device servers and hosts, all of which end with it."""

    def __init__(self, folder, shared):
        self.folder = folder
        self.shared = shared  # for files that are memory
        self.processes = []
        self.count = 0

    def path(self, name):
        return str(self.folder / name)

    def fresh(self, name):
        self.count += 1
        return self.path(f"{name}{self.count}")

    def start(self, *args, **options):
        process = Process(*args, **options)
        self.processes.append(process)
        return process

    def ready(self, *args, begins):
        process = self.start(*args)
        line = process.process.stdout.readline()
        assert line.startswith(begins), f"{args}: {line} {process.said}"
        process.metrics = line.split()[-1]
        return process

    def device(self, spec="dmacopy,memory=1M", *args):
        """The URI of a device that is served."""
        path = self.fresh("dev")
        self.ready("serve", spec, "--socket", path, *args, begins="serving ")
        return f"vfio-user:{path}"

    def devices(self, count=2, spec="dmacopy,memory=1M"):
        return [f"d{i}={self.device(spec)}" for i in range(count)]

    def host(self, devices, *args):
        control = self.fresh("host")
        process = self.ready("host", *devices, "--control", control, *args,
                             begins="room for" if "--empty" in args else "holding")
        process.control = control
        return process

    def receiver(self, transport, *args):
        process = self.start("receive", "--from", transport, *args)
        process.wait_for("waiting at")
        return process

    def close(self, failed):
        for process in self.processes:
            if process.process.poll() is None:
                process.process.kill()
            elif failed:
                print(f"{process.args}: had ended with {process.process.returncode}: {process.said}",
                      file=sys.stderr)
        for process in self.processes:
            process.process.wait()


@contextlib.contextmanager
def world():
    with tempfile.TemporaryDirectory(prefix="q") as name, \
            tempfile.TemporaryDirectory(prefix="q", dir="/dev/shm") as shared:
        here = World(pathlib.Path(name), pathlib.Path(shared))
        failed = True
        try:
            yield here
            failed = False
        finally:
            here.close(failed)


def tenant_result(text):
    """Of a host with --json that ended, as its last object."""
    decoder, objects, text = json.JSONDecoder(), [], text.strip()
    while text:
        value, end = decoder.raw_decode(text)
        objects.append(value)
        text = text[end:].strip()
    return objects[-1]["tenant"]


def finish(host, code=0):
    """The tenant there compares everything: nothing was lost, doubled or wrong."""
    run("ask", "finish", "--host", host.control)
    result = tenant_result(host.end(code))
    assert result["engine_bytes"] > 0 and result["bytes_kept"] > 0, result
    for key in ("bytes_wrong", "interrupts_lost", "interrupts_doubled"):
        assert result[key] == 0, result
    return result


def status(host):
    return json.loads(run("ask", "status", "--host", host.control, "--json").stdout)


def state_of(uri):
    return json.loads(run("info", uri.split("=")[-1], "--json").stdout)["migration"]["state"]


TENANT = ("--memory", "8M", "--tenant", "copy", "--json")


# ---- the command line ----

def check_usage(here):
    model = "model:dmacopy"
    plain = here.path("plain")
    pathlib.Path(plain).write_bytes(b"x" * 100)
    pages = here.path("pages")
    pathlib.Path(pages).write_bytes(bytes(4096))
    nobody = f"vfio-user:{here.path('nobody')}"
    control = here.path("c")
    for args in (["host"], ["host", model], ["host", "nonsense"],
                 ["host", model, "--memory", "5"],
                 ["host", model, "--memory", "0"], ["host", model, "--memory", "x"],
                 ["host", model, "--tenant", "some"], ["host", model, "--empty"],
                 ["host", f"a={model}", f"a={model}"], ["host", f"a b={model}"],
                 ["host", f"={model}"], ["host", model, "--peer", "0:0"],
                 ["host", model, "--peer", "0:1"], ["host", model, "--peer", "0"],
                 ["host", model, model, "--peer", "0:1:x"], ["host", model, "--nonsense"],
                 ["host", model, model, "--peer", "0:1:2:3"],
                 ["host", model, "--control", ""], ["host", model, "--control", "x" * 120],
                 ["host", model, "--control", plain], ["host", model, "--control", "/none/c"],
                 ["host", model, "--control", control, "--memory-file", here.path("none")],
                 ["host", model, "--control", control, "--memory-file", plain],
                 ["host", model, "--control", control, "--memory-file", pages],
                 ["host", model, "--memory-file", plain, "--memory", "1M"],
                 ["host", model, "--memory", "1M", "--tenant", "copy"],
                 ["host", "model:dmacopy,memory=64K", "--tenant", "copy"],
                 ["host", model, model, "--peer", "0:1", "--tenant", "copy"],
                 ["host", nobody, "--control", control], ["host", "model:none", "--metrics", "0"],
                 ["host", "model:dmacopy,flags=2", "--control", control],
                 ["send"], ["send", model], ["send", "--to", "unix:/x"],
                 ["send", "--to", "nonsense", model], ["send", "--to", "", model],
                 ["send", "--to", "file:/x", model], ["send", "--to", "unix:/x", nobody],
                 ["send", "--to", "unix:/x", "--to", "unix:/y", model],
                 ["send", "--to", "unix:/x", model, "--host", control],
                 ["send", "--to", "unix:/x", "--host", here.path("nobody")],
                 ["send", "--to", "unix:/x", "--host", plain],
                 ["send", "--to", "unix:/x", model, "--downtime-limit", "5"],
                 ["send", "--to", "unix:/x", model, "--downtime-limit", "0ms"],
                 ["send", "--to", "unix:/x", model, "--timeout", "1h"],
                 ["send", "--to", "unix:/x", model, "--stall-timeout", "0s"],
                 ["save", "--to", "/x", model, "--stall-timeout", "5s"],
                 ["send", "--to", "unix:/x", model, "--bandwidth", "0"],
                 ["send", "--to", "unix:/x", model, "--channels", "0"],
                 ["send", "--to", "unix:/x", model, "--channels", "1000"],
                 ["send", "--to", "unix:/x", model, "--quiesce", "perhaps"],
                 ["send", "--to", "tls:x:1", model, "--tls-anonymous", "--psk-file", plain],
                 ["receive"], ["receive", model], ["receive", "--from", "unix:/x"],
                 ["receive", "--from", "unix:/x", model, "--bandwidth", "1M"],
                 ["receive", "--from", "unix:", model],
                 ["receive", "--from", "unix:/none/x", model],
                 ["receive", "--from", f"unix:{plain}", model],
                 ["save", "--to", here.folder, model], ["save", "--to", "unix:x", model],
                 ["save", "--to", "tls:x:1", model], ["restore", "--from", "tcp:x:1", model],
                 ["send", "--to", "unix:/x", model, "--bandwidth", "63K"],
                 ["host", model, model, "--peer", "0:1:12", "--control", control],
                 ["save"], ["save", model], ["save", "--to", "", model],
                 ["save", "--to", "-", "--host", control], ["save", "--to", "x"],
                 ["restore"], ["restore", model], ["restore", "--from", "x"],
                 ["save", "--to", "x", model, "--report", here.path("none/x.html")],
                 ["save", "--to", "x", model, "--report", here.folder],
                 ["save", "--to", "x", model, "--report", here.path("x" * 250)],
                 ["send", "--to", "unix:/x", "--host", control, "--report", "/proc/x.html"],
                 ["plan", model, "--report", here.path("plan.html")],
                 ["save", "--to", here.path("x"), "--report", here.path("x"), model],
                 ["plan"], ["plan", "--to", "unix:/x"], ["plan", "nonsense"], ["plan", nobody],
                 ["ask"], ["ask", "status"], ["ask", "nonsense", "--host", control],
                 ["ask", "status", "finish", "--host", control],
                 ["ask", "status", "--host", here.path("nobody")]):
        run(*args, code=2)
    # Whoever takes one for the other is told what to write.
    for args, words in ((["send", "--to", "file:/x"], "quiesce save --to /x"),
                        (["receive", "--from", "file:/x"], "quiesce restore --from /x"),
                        (["save", "--to", "file:/x"], "write '/x'")):
        assert words in run(*args, model, code=2).stderr, args
    other = here.path("other")
    os.symlink(plain, other)
    for args in (["plan"], ["send", "--to", "unix:/x"], ["save", "--to", "x"],
                 ["receive", "--from", "unix:/x"], ["host", "--control", control]):
        for pair in ((nobody, nobody), (f"vfio-user:{plain}", f"vfio-user:{other}"),
                     ("vfio:0000:0A:00.1", "vfio:0000:0a:00.1,via=cdev")):
            done = run(*args, f"a={pair[0]}", model, f"b={pair[1]}", code=2)
            assert f"the device {pair[1]} is named twice, as 'a' and as 'b'" in done.stderr, done
    os.unlink(other)
    for command in ("host", "send", "receive", "save", "restore", "plan", "ask"):
        text = run(command, "--help").stdout
        assert "--host" in text or command == "host"
        assert command == "ask" or "--tenant" in text, text
        if "--quiesce=MODE" not in text:
            assert command in ("host", "ask"), text
    for option, command in (("--bandwidth", "receive"), ("--tls-anonymous", "save"),
                            ("--exceed", "save"), ("--plaintext", "restore")):
        assert option not in run(command, "--help").stdout, (command, option)
    assert sorted(os.listdir(here.folder)) == ["pages", "plain"], "nothing was touched"


# ---- plan ----

def check_plan(here):
    devices = [f"a={here.device('dmacopy,memory=1M,flags=5')}", f"b={here.device()}"]
    plan = run("plan", *devices, "--peer", "a:b", "--peer", "1:0:0", code=1)
    for words in ("STOP_COPY, PRE_COPY, dirty log", "STOP_COPY, P2P, PRE_COPY, dirty log",
                  "a can read and write region 2 of b: 1.0 MiB at IOVA 0x10000000000",
                  "b can read and write region 0 of a: 4.0 KiB", "strategy  refuse"):
        assert words in plan.stdout, f"{words}: {plan.stdout}"
    assert "duration with --quiesce=auto on both sides (clause SET-3)" in plan.stderr and "'a'" in plan.stderr and "'b'" in plan.stderr, plan.stderr

    # Who receives has the same trouble, and does not wait for a source to find out.
    done = run("receive", *devices, "--peer", "a:b", "--from", f"unix:{here.path('t')}", code=1)
    assert "(clause SET-3)" in done.stderr and "waiting at" not in done.stderr, done.stderr

    plan = run("plan", *devices, "--peer", "a:b", "--quiesce=auto")
    assert "the other 1 of 2 pairs: no reach" in plan.stdout, plan.stdout
    assert "no device reaches another" in run("plan", *devices).stdout
    plan = json.loads(run("plan", *devices, "--peer", "a:b", "--json", "--quiesce=auto",
                          "--exceed").stdout)
    assert plan["possible"] and plan["strategy"] == "revoke" and plan["revoked_mappings"] == 1
    assert [device["flags"] for device in plan["devices"]] == [5, 7]
    assert all(device["dirty_log"] and device["state_bytes"] and device["type"] == "dmacopy"
               for device in plan["devices"])
    assert plan["memory_bytes"] == 64 << 20 and plan["downtime_limit_us"] == 300000
    reach = {(pair["from"], pair["to"]): pair["mappings"] for pair in plan["reach"]}
    assert reach == {("a", "b"): [{"iova": 1 << 40, "size": 1 << 20, "region": 2, "offset": 0,
                                   "read": True, "write": True}], ("b", "a"): []}
    native = json.loads(run("plan", devices[1], "--json", "--downtime-limit", "10s").stdout)
    assert native["strategy"] == "native" and native["downtime_limit_us"] == 10000000
    assert native["strategy_reason"] and not native["asked"]
    parts = native["predicted"]
    assert parts["total_us"] == sum(parts.values()) - parts["total_us"] > 0, parts
    assert native["fits"] and "at least" in native["reason"], native

    host = here.host(devices[1:])
    before = status(host)
    plan_it = ("plan", "--host", host.control)
    assert json.loads(run(*plan_it, "--json", "--exceed").stdout)["possible"]
    short = run(*plan_it, "--downtime-limit", "1ms", code=1)
    assert "raise the limit" in short.stderr and "(--exceed)" in short.stderr, short.stderr
    assert "predicted downtime  at least" in short.stdout, short.stdout
    short = json.loads(run(*plan_it, "--downtime-limit", "1ms", "--json", code=1).stdout)
    assert not short["possible"] and not short["fits"] and short["predicted"]["total_us"], short
    assert json.loads(run(*plan_it, "--downtime-limit", "1ms", "--json", "--exceed").stdout)[
        "possible"]
    assert status(host) == before
    host.end(number=signal.SIGTERM)
    return set_of_keys(plan)


def check_plan_asks(here):
    """A destination that is asked answers, and waits on for the set."""
    transport = f"unix:{here.fresh('t')}"
    ours, theirs = here.devices(), here.devices()
    receiver = here.receiver(transport, *theirs, "--json")
    for _ in range(2):
        plan = json.loads(run("plan", *ours, "--to", transport, "--json", "--exceed").stdout)
        assert plan["asked"] and plan["bytes_per_second"] and plan["rtt_us"], plan
    done = run("plan", ours[0], "--to", transport, code=1)
    assert "2 at the destination" in done.stderr or "2 devices" in done.stderr, done.stderr
    run("send", *ours, "--to", transport, "--exceed")
    receiver.wait_for("holding the set")
    receiver.end(number=signal.SIGTERM)


def set_of_keys(value):
    if isinstance(value, list):
        return set().union(*(set_of_keys(entry) for entry in value))
    if isinstance(value, dict):
        return set(value) | set_of_keys(list(value.values()))
    return set()


def check_documented(keys):
    words = set()
    for name in ("commands.rst", "seeing.rst"):
        if (MANUAL / name).exists():
            words |= set(re.findall(r"[a-z_0-9]+", " ".join(
                re.findall(r"``(.*?)``", (MANUAL / name).read_text(), re.S))))
    missing = {key for key in keys if key not in words and key.removesuffix("_us") not in words}
    assert not missing, f"not in the manual: {missing}"


# ---- send and receive ----

def move(source, destination, transport, send=(), receive=()):
    """From one host to another, asked for by two commands."""
    there = Process("receive", "--from", transport, "--host", destination.control, "--json",
                    "--quiet", *receive)
    transport = there.wait_for("waiting at").split()[-1]
    here = json.loads(run("send", "--to", transport, "--host", source.control, "--json", "--exceed", *send)
                      .stdout)
    said = there
    there = json.loads(there.end())
    assert len(said.error.splitlines()) == 1, f"only where it waits: {said.error}"
    assert here["result"] == there["result"] == "ok", (here, there)
    assert here["verb"] == "send" and there["verb"] == "receive"
    assert [device["name"] for device in here["devices"]] == ["d0", "d1"]
    assert here["report"]["owner"] == there["report"]["owner"] == "destination"
    assert here["downtime_limit_us"] and not there["downtime_limit_us"], "that is the source's"
    # Both have a lane for each device, which account for the same bytes.
    for side in here, there:
        lanes = [{phase["device"] for phase in move["phases"] if phase["name"] == "precopy"} - {None}
                 for move in (here, side)]
        assert lanes[0] == lanes[1], (here["phases"], side["phases"])
        lanes = {phase["device"] for phase in side["phases"] if phase["name"] == "stop-copy"}
        assert lanes >= {0, 1}, side["phases"]
        assert sum(phase["bytes"] for phase in side["phases"] if phase["device"] is not None) == \
            side["report"]["device_bytes"], side
    report = here["report"]
    assert report["downtime_us"] > 0 and here["phases"] and here["samples"]
    predicted, measured = report["predicted"]["total_us"], report["measured"]["total_us"]
    assert predicted and measured == report["downtime_us"], report
    assert report["prediction_error_permille"] == int((measured - predicted) * 1000 / measured)
    assert not status(source)["devices"][0]["state"], "the source has let go of its devices"
    assert status(source)["state"] == "empty" and status(destination)["state"] == "running"
    assert status(destination)["devices"][0]["state"] == "RUNNING"
    return here


def check_moves(here):
    """There and back, again and again; the tenant knows whether anything was lost."""
    psk = here.path("psk")
    pathlib.Path(psk).write_text("mover:000102030405060708090a0b0c0d0e0f\n", encoding="ascii")
    hosts = [here.host(here.devices(), *TENANT, "--metrics", "0"),
             here.host(here.devices(), "--empty", *TENANT)]
    assert stat.S_IMODE(os.stat(hosts[0].control).st_mode) == 0o600
    moves = [(f"unix:{here.path('m')}", ("--report", here.path("report.html")), ()),
             ("tcp:127.0.0.1:0", ("--plaintext", "--channels", "3"), ("--plaintext",)),
             ("tls:127.0.0.1:0", ("--psk-file", psk), ("--psk-file", psk)),
             (f"unix:{here.path('m')}", ("--no-precopy",), ("--quiesce=auto",))]
    for number, (transport, send, receive) in enumerate(moves):
        moved = move(hosts[number % 2], hosts[1 - number % 2], transport, send, receive)
    page = pathlib.Path(here.path("report.html")).read_text(encoding="utf-8")
    assert page.lstrip().lower().startswith("<!doctype html") and "d1" in page
    keys = set_of_keys(moved) | set_of_keys(status(hosts[0]))
    metrics = urllib.request.urlopen(f"http://{hosts[0].metrics}/metrics", timeout=TIMEOUT)
    text = metrics.read().decode()
    for line in ('quiesce_migrations_total{verb="send",result="ok"} 2', "quiesce_devices 2"):
        assert line in text, text
    keys |= set(finish(hosts[0]))
    hosts[1].end(number=signal.SIGTERM)
    return keys


def check_plaintext(here):
    """tcp: is refused unless it was asked for, on both sides and before anything is touched."""
    host = here.host(here.devices(), *TENANT)
    for verb in "send", "plan":
        done = run(verb, "--to", "tcp:127.0.0.1:1", "--host", host.control, code=2)
        assert "(--plaintext)" in done.stderr, done.stderr
    run("receive", "--from", "tcp:127.0.0.1:0", *here.devices(), *TENANT, code=2)
    run("send", "--to", "tls:127.0.0.1:1", "--host", host.control, code=2)
    run("send", "--to", "tls:127.0.0.1:1", "--psk-file", here.path("none"), "--host",
        host.control, code=2)
    done = run("send", "--to", "tcp:127.0.0.1:1", "--plaintext", "--host", host.control, code=1)
    assert "the source's devices run" in done.stderr, done.stderr
    finish(host)


def check_anonymous(here):
    """A source without a certificate is taken where both sides say so."""
    template, key, certificate = (here.path(name) for name in ("template", "key", "certificate"))
    pathlib.Path(template).write_text("cn = there\ndns_name = localhost\nca\ncert_signing_key\n"
                                      "signing_key\ntls_www_server\n", encoding="ascii")
    for args in (["--generate-privkey", "--key-type=ecdsa", "--outfile", key],
                 ["--generate-self-signed", "--template", template, "--load-privkey", key,
                  "--outfile", certificate]):
        subprocess.run(["certtool", *args], check=True, capture_output=True, timeout=TIMEOUT)
    shows = ("--tls-ca", certificate, "--tls-cert", certificate, "--tls-key", key)
    receiver = here.receiver("tls:127.0.0.1:0", *here.devices(), *TENANT, *shows,
                             "--tls-anonymous")
    to = receiver.wait_for("waiting at").split()[-1].replace("127.0.0.1", "localhost")
    host = here.host(here.devices(), *TENANT)
    trusts = ("--host", host.control, "--tls-ca", certificate)
    done = run("send", "--to", to, *trusts, code=2)
    assert "anonymous" in done.stderr, done.stderr
    run("plan", "--to", to, *trusts, "--tls-anonymous", "--exceed")
    run("send", "--to", to, *trusts, "--tls-anonymous", "--exceed")
    assert not tenant_result(receiver.end(number=signal.SIGTERM))["bytes_wrong"]


def check_own_hosts(here):
    """The commands hold the devices themselves; memory is a file on either side."""
    files = [here.shared / "memory0", here.shared / "memory1"]
    content = os.urandom(1 << 20) + bytes(1 << 20) + os.urandom(4096)
    pathlib.Path(files[0]).write_bytes(content)
    pathlib.Path(files[1]).write_bytes(os.urandom(len(content)))
    transport = f"unix:{here.fresh('t')}"
    devices = here.devices()
    receiver = here.receiver(transport, *devices, "--memory-file", files[1], "--peer", "d0:d1")
    done = run("send", "--to", transport, *here.devices(), "--memory-file", files[0], "--peer",
               "d0:d1", "--exceed", "--json")
    report = json.loads(done.stdout)["report"]
    assert report["stop_bytes"] > 1 << 20, "others may write the file: sent again after the stop"
    receiver.wait_for("holding the set")
    output = receiver.end(number=signal.SIGTERM)
    assert "the destination runs" in output, output
    assert pathlib.Path(files[1]).read_bytes() == content


def check_unseen(here):
    """A set that moved has moved, whether or not anybody could be told."""
    folder = pathlib.Path(here.fresh("gone"))
    folder.mkdir()
    host = here.host(here.devices(), *TENANT)
    transport = f"unix:{here.fresh('t')}"
    receiver = here.receiver(transport, *here.devices(), *TENANT, "--report", folder / "r.html")
    folder.rmdir()
    with open("/dev/full", "w", encoding="ascii") as full:
        done = subprocess.run([TOOL, "send", "--to", transport, "--host", host.control, "--exceed",
                               "--json"], stdout=full, stderr=subprocess.PIPE, text=True,
                              check=False, timeout=TIMEOUT)
    assert done.returncode == 0 and "cannot write to standard output" in done.stderr, done
    assert status(host)["state"] == "empty"
    assert "r.html" in receiver.wait_for("cannot be written")
    assert not tenant_result(receiver.end(number=signal.SIGTERM))["bytes_wrong"]
    for ours in True, False:
        host = here.host(here.devices(), *TENANT)
        saver = here.start("save", "--to", here.fresh("s"), *(
            (*here.devices(), *TENANT) if ours else ("--host", host.control)))
        saver.process.stdout.close()
        saver.process.stdout = open(os.devnull, encoding="ascii")
        saver.end()
        assert "cannot write to standard output" in saver.error, saver.error


def check_mismatch(here):
    """Everything that differs is named at once, by both sides, and nothing has changed."""
    host = here.host(here.devices(), *TENANT)
    transport = f"unix:{here.fresh('t')}"
    receiver = here.receiver(transport, f"other={here.device('dmacopy,memory=2M,flags=5')}",
                             "--memory", "4M", "--once")
    done = run("send", "--to", transport, "--host", host.control, code=1)
    receiver.end(1)
    for text in (done.stderr, receiver.error):
        for words in ("2 devices", "'d0'", "'other'", "flags 7 at the source and 5", "0x800000"):
            assert words in text, f"{words}: {text}"
    assert "SESS-11" in receiver.error
    receiver = here.receiver(transport, *here.devices(), "--memory", "8M", "--once")
    done = run("send", "--to", transport, "--host", host.control, "--exceed", code=1)
    receiver.end(1)
    for text in (done.stderr, receiver.error):
        for words in ("'d0' has 0x100000 bytes of region 2 of 'd1'", "nothing at the destination",
                      "the copying tenant (2 engines", "nobody (no tenant)"):
            assert words in text, f"{words}: {text}"
    assert "start both sides with the same --tenant" in done.stderr, done.stderr
    assert "pre-copy" not in done.stderr, done.stderr
    finish(host)


def check_waiting_on(here):
    """Without --once a receiver refuses what does not fit, says so and takes what fits."""
    host = here.host(here.devices(), *TENANT)
    transport = f"unix:{here.fresh('t')}"
    receiver = here.receiver(transport, *here.devices(), *TENANT)
    done = run("send", "--to", transport, *here.devices(), "--memory", "4M", code=1)
    assert "memory region 0 is 0x400000 bytes" in done.stderr, done.stderr
    receiver.wait_for("dropped a source: 3 differences")
    run("send", "--to", transport, "--host", host.control, "--exceed")
    receiver.wait_for("holding the set")
    result = tenant_result(receiver.end(number=signal.SIGTERM))
    assert result["bytes_wrong"] == 0, result


def check_short_memory(here):
    """Memory that somebody has made shorter cannot move, and the host that had it lives on."""
    name = here.shared / f"quiesce-short-{os.getpid()}"
    name.write_bytes(b"m" * (1 << 20))
    try:
        host = here.host(here.devices(), "--memory-file", str(name))
        os.truncate(name, 1 << 16)
        saved = here.fresh("s")
        done = run("save", "--to", saved, "--host", host.control, code=1)
        assert "made shorter by somebody, to 65536 of 1048576 bytes" in done.stderr, done.stderr
        assert not os.path.exists(saved) and status(host)["state"] == "running"
        os.truncate(name, 1 << 20)
        run("save", "--to", saved, "--host", host.control)
        host.end(number=signal.SIGTERM)
    finally:
        name.unlink()


def check_frozen_device(here):
    """A device server that answers no more is given up after --device-timeout, by its name."""
    devices = here.devices()
    host = here.host(devices, "--device-timeout", "2s", "--memory", "1M")
    frozen = here.processes[1]
    frozen.signal(signal.SIGSTOP)
    began = time.monotonic()
    done = run("save", "--to", here.fresh("s"), "--host", host.control, "--timeout", "4s", code=1)
    assert "'d1'" in done.stderr, done.stderr
    assert time.monotonic() - began < 20, "it waited for long"
    frozen.signal(signal.SIGCONT)
    host.end(1, number=signal.SIGTERM)


def check_cancelled_silence(here):
    """The other side is silent, for up to an hour; a cancel is heard all the same."""
    host = here.host(here.devices(), *TENANT)
    transport = f"unix:{here.fresh('t')}"
    receiver = here.receiver(transport, *here.devices(), *TENANT)
    receiver.signal(signal.SIGSTOP)
    sender = here.start("send", "--to", transport, "--host", host.control, "--stall-timeout",
                        "60min")
    sender.wait_for("send: negotiate")
    run("ask", "cancel", "--host", host.control)
    sender.end(1)
    assert "cancelled by the user in phase 'negotiate'" in sender.error, sender.error
    receiver.signal(signal.SIGCONT)
    finish(host)


def check_busy(here):
    """One request at a time; what cannot begin says why, and the one under way goes on."""
    host = here.host(here.devices(), *TENANT)
    done = run("receive", "--from", f"unix:{here.fresh('t')}", "--host", host.control, code=1)
    assert "has a set already" in done.stderr, done.stderr
    for verb, words in (("cancel", "nothing to cancel"), ("run", "proved to own")):
        assert words in run("ask", verb, "--host", host.control, code=1).stderr
    empty = here.host(here.devices(), "--empty")
    done = run("send", "--to", f"unix:{here.fresh('t')}", "--host", empty.control, code=1)
    assert "has no set" in done.stderr, done.stderr
    waiting = Process("receive", "--from", f"unix:{here.fresh('t')}", "--host", empty.control)
    waiting.wait_for("waiting at")
    done = run("receive", "--from", f"unix:{here.fresh('t')}", "--host", empty.control, code=1)
    assert "busy with 'receive'" in done.stderr, done.stderr
    assert status(empty)["request"] == "receive"
    assert status(empty)["devices"][0]["state"] is None, "nobody else asks the devices meanwhile"
    done = run("save", "--to", "-", "--host", host.control, code=2)
    assert "pipe of the command" in done.stderr, done.stderr
    run("ask", "cancel", "--host", empty.control)
    waiting.end(1)
    assert "cancelled" in waiting.error, waiting.error
    assert status(empty)["state"] == "empty" and status(empty)["request"] is None
    done = run("host", "model:dmacopy", "--control", host.control, code=1)
    assert "another host listens" in done.stderr, done.stderr
    empty.end(number=signal.SIGTERM)
    finish(host)


# ---- what goes wrong ----

# So slow that there is time to strike in this phase, at either side.
SLOW = {
    "pre-copy": ("--bandwidth", "2M"),
    "stop-copy": ("--bandwidth", "2M", "--no-precopy", "--exceed"),
}


def slow_move(here, phase, *args):
    """A host, a receiver, and a send that is in this phase between them."""
    host = here.host(here.devices(), *TENANT)
    transport = f"unix:{here.fresh('t')}"
    theirs = here.devices()
    receiver = here.receiver(transport, *theirs, *TENANT)
    sender = here.start("send", "--to", transport, "--host", host.control, *SLOW[phase], *args)
    sender.wait_for(f"send: {phase}")
    return host, sender, receiver, theirs


def check_killed_destination(here, phase):
    host, sender, receiver, theirs = slow_move(here, phase)
    receiver.end(-signal.SIGKILL, number=signal.SIGKILL)
    sender.end(1)
    assert "the source's devices run" in sender.error, sender.error
    assert all(state_of(uri) == "RUNNING" for uri in theirs), "let go and reset"
    assert status(host)["state"] == "running"
    finish(host)


def check_killed_device(here):
    """What cannot be brought back can be tried again, and says each time what is in the way."""
    host, sender, receiver, _ = slow_move(here, "stop-copy")
    here.processes[1].end(-signal.SIGKILL, number=signal.SIGKILL)
    receiver.process.kill()  # unless the source was quicker to tell it
    sender.end(1)
    assert "then run the set" in sender.error, sender.error
    assert status(host)["state"] == "broken"
    for _ in range(2):
        done = run("ask", "run", "--host", host.control, code=1)
        assert "device 'd1'" in done.stderr, done.stderr
        assert status(host)["state"] == "broken"
    host.end(1, number=signal.SIGTERM)


def check_lost_device(here):
    """A set that lost a device while nothing moves does not run, and whoever asks hears it."""
    host = here.host(here.devices(1))
    assert status(host)["state"] == "running"
    here.processes[0].end(-signal.SIGKILL, number=signal.SIGKILL)
    told = status(host)
    assert told["state"] == "broken" and told["devices"][0]["state"] is None, told
    done = run("ask", "status", "--host", host.control)
    assert done.stdout.startswith("state    broken\n"), done.stdout
    assert "  does not answer\n" in done.stdout, done.stdout
    done = run("ask", "run", "--host", host.control, code=1)
    assert "device 'd0'" in done.stderr and "is gone" in done.stderr, done.stderr
    host.end(1, number=signal.SIGTERM)


def check_watching(here):
    """Who watches is owed nothing, so the host's end is an end as any, unless it was moving."""
    host = here.host(here.devices(1), "--memory", "1M")
    watch = subprocess.Popen([TOOL, "ask", "watch", "--host", host.control], text=True,
                             stdout=subprocess.PIPE, stderr=subprocess.PIPE)
    assert json.loads(watch.stdout.readline())["event"] == "status"
    run("save", "--to", here.path("watched"), "--host", host.control, "--quiet")
    host.end(number=signal.SIGTERM)
    events, errors = watch.communicate(timeout=TIMEOUT)
    assert watch.returncode == 0 and not errors, (watch.returncode, errors)
    assert json.loads(events.splitlines()[-1])["event"] == "end", events
    host, sender, receiver, _ = slow_move(here, "pre-copy")
    watch = subprocess.Popen([TOOL, "ask", "watch", "--host", host.control], text=True,
                             stdout=subprocess.PIPE, stderr=subprocess.PIPE)
    assert json.loads(watch.stdout.readline())["request"] == "send"
    host.end(-signal.SIGKILL, number=signal.SIGKILL)
    errors = watch.communicate(timeout=TIMEOUT)[1]
    assert watch.returncode == 3 and "look whether the other side does" in errors, errors
    sender.end(3)
    receiver.end(1)


def check_killed_source(here, phase):
    host, sender, receiver, theirs = slow_move(here, phase)
    host.end(-signal.SIGKILL, number=signal.SIGKILL)
    sender.end(3)
    assert "went away" in sender.error, sender.error
    receiver.end(1)
    assert "nothing loaded here runs" in receiver.error, receiver.error
    assert all(state_of(uri) == "RUNNING" for uri in theirs), "let go and reset"
    assert os.path.exists(host.control)
    host = here.ready("host", *theirs, "--control", host.control, *TENANT, begins="holding")
    host.end(number=signal.SIGTERM)


def check_killed_command(here):
    """Who asked goes; the host, which was asked, goes on."""
    host, sender, receiver, _ = slow_move(here, "pre-copy", "--bandwidth", "40M", "--exceed")
    sender.end(-signal.SIGKILL, number=signal.SIGKILL)
    receiver.wait_for("holding the set")
    tenant_result(receiver.end(number=signal.SIGTERM))
    assert status(host)["state"] == "empty"
    host.end(number=signal.SIGINT)


def check_cancelled(here, phase):
    """SIGINT to the one who asked: the source goes on, nothing that was loaded remains."""
    host, sender, receiver, theirs = slow_move(here, phase)
    sender.end(1, number=signal.SIGINT)
    assert "cancel" in sender.error.lower(), sender.error
    receiver.end(1)
    assert all(state_of(uri) == "RUNNING" for uri in theirs)
    assert status(host)["state"] == "running"
    finish(host)


def check_host_told_to_end(here):
    """SIGTERM to a host that moves: cancelled first, then the tenant compares everything."""
    host, sender, receiver, _ = slow_move(here, "pre-copy")
    result = tenant_result(host.end(number=signal.SIGTERM))
    assert result["engine_bytes"] and not result["bytes_wrong"], result
    sender.end(1)
    receiver.end(1)


def check_cancelled_receiver(here):
    host, sender, receiver, theirs = slow_move(here, "pre-copy")
    receiver.end(1, number=signal.SIGTERM)
    sender.end(1)
    assert all(state_of(uri) == "RUNNING" for uri in theirs)
    finish(host)


def check_timeout(here):
    host, sender, receiver, _ = slow_move(here, "pre-copy", "--timeout", "10s",
                                          "--bandwidth", "500K")
    sender.end(1)
    assert "10000 ms" in sender.error and "(--timeout, " in sender.error, sender.error
    there = json.loads(receiver.end(1))
    # What was cut short is seen as what went through is.
    cut = [phase for phase in there["phases"]
           if phase["name"] == "precopy" and phase["device"] is None]
    assert len(cut) == 1 and cut[0]["bytes"] and cut[0]["duration_us"], there["phases"]
    assert there["report"]["waited_us"] < there["report"]["total_us"], there["report"]
    finish(host)


def check_silent(here):
    """A destination that says nothing more; the option for how long that may be is named."""
    host, sender, receiver, _ = slow_move(here, "pre-copy", "--stall-timeout", "5s")
    receiver.signal(signal.SIGSTOP)
    sender.end(1)
    assert "--stall-timeout" in sender.error, sender.error
    receiver.end(-signal.SIGKILL, number=signal.SIGKILL)
    finish(host)


def check_limit(here):
    """A limit that cannot be kept: who writes how fast against what; with --exceed it moves."""
    args = ("--memory", "1M", "--tenant", "copy", "--json")
    host = here.host(here.devices(2, "dmacopy,memory=128K"), *args)
    empty = here.host(here.devices(2, "dmacopy,memory=128K"), "--empty", *args)
    transport = f"unix:{here.fresh('t')}"
    there = Process("receive", "--from", transport, "--host", empty.control)
    there.wait_for("waiting at")
    done = run("send", "--to", transport, "--host", host.control, "--downtime-limit", "20ms",
               "--bandwidth", "4M", code=1)
    # Which of the two it is, the machine decides.
    assert re.search(r"(user|device 'd[01]') writes .*B a second.* (carries|allows) |changes of state .* take",
                     done.stderr), done
    assert "raise the limit" in done.stderr and "(--exceed)" in done.stderr, done
    assert "the source's devices run" in done.stderr, done
    there.end(1)
    move(host, empty, transport, ("--downtime-limit", "1ms"))
    host.end(number=signal.SIGTERM)
    finish(empty)


class Cable:
    """Stands between two sides and is cut before the first message of a kind (src/migrate/frame.h)."""

    HEADER = 40
    COMMIT, RUNNING = 14, 15

    def __init__(self, here, to, before):
        self.path = here.fresh("cable")
        self.to, self.before = to, before
        self.ends = []
        self.listener = socket.socket(socket.AF_UNIX)
        self.listener.bind(self.path)
        self.listener.listen()
        threading.Thread(target=self.accept, daemon=True).start()

    def accept(self):
        with contextlib.suppress(OSError):
            while True:
                source = self.listener.accept()[0]
                destination = socket.socket(socket.AF_UNIX)
                destination.connect(self.to)
                self.ends += [source, destination]
                for pair in ((source, destination), (destination, source)):
                    threading.Thread(target=self.carry, args=pair, daemon=True).start()

    def carry(self, here, there):
        with contextlib.suppress(OSError, struct.error), here.makefile("rb") as stream:
            while True:
                header = stream.read(self.HEADER)
                kind, size = struct.unpack("<II", header[:8])
                if kind == self.before:
                    break
                there.sendall(header + stream.read(size))
        self.cut()

    def cut(self):
        for end in self.ends:
            with contextlib.suppress(OSError):
                end.shutdown(socket.SHUT_RDWR)


def check_unproved(here, before):
    """The cable is cut in the hand-over: who has no proof stays stopped, and a person decides."""
    host = here.host(here.devices(), *TENANT)
    empty = here.host(here.devices(), "--empty", *TENANT)
    transport = here.path("destination")
    there = Process("receive", "--from", f"unix:{transport}", "--host", empty.control)
    there.wait_for("waiting at")
    cable = Cable(here, transport, getattr(Cable, before))
    done = run("send", "--to", f"unix:{cable.path}", "--host", host.control, "--exceed",
               code=3)
    assert "no proof that the destination" in done.stderr and "SET-5" in done.stderr, done.stderr
    assert f"'quiesce ask run --host {host.control}'" in done.stderr, done.stderr
    assert status(host)["state"] == "unproved"
    assert all(device["state"] == "STOP_COPY" for device in status(host)["devices"])
    done = run("send", "--to", "unix:/x", "--host", host.control, code=1)
    assert "quiesce ask run" in done.stderr, done.stderr
    if before == "COMMIT":
        there.end(3)
        assert "SET-5" in there.error, there.error
        assert status(empty)["state"] == "unproved"
        empty.end(3, number=signal.SIGTERM)
        run("ask", "run", "--host", host.control)
        assert status(host)["state"] == "running"
        finish(host)
    else:
        there.end()
        host.end(3, number=signal.SIGTERM)
        finish(empty)


def check_unproved_commands(here):
    """Commands that are their own hosts keep what may be the only copy until a person decides."""
    transport = here.path("destination")
    there = Process("receive", "--from", f"unix:{transport}", *here.devices(), *TENANT)
    there.wait_for("waiting at")
    cable = Cable(here, transport, Cable.COMMIT)
    source = Process("send", "--to", f"unix:{cable.path}", *here.devices(), *TENANT, "--exceed")
    for side in source, there:
        side.wait_for("SET-5")
        assert f"kill -USR1 {side.process.pid}" in side.wait_for("holding the stopped set")
    there.end(3, number=signal.SIGTERM)
    source.signal(signal.SIGUSR1)
    source.wait_for("the set runs here")
    source.signal(signal.SIGUSR1)
    source.wait_for("SIGUSR1 runs nothing")
    output = source.end(number=signal.SIGTERM)
    for key in "bytes_wrong", "interrupts_lost", "interrupts_doubled":
        assert f'"{key}": 0' in output, output


# ---- files ----

TRACED = re.compile(r" (set-state|session-write|region-write|dma-map|reset)")


def saved(here, *args):
    """A set with a tenant, in a file; what `quiesce save` said of it."""
    host = here.host(here.devices(), *TENANT)
    path = here.fresh("saved")
    run("save", "--to", path, "--host", host.control, *args)
    assert status(host)["state"] == "empty"
    host.end(number=signal.SIGTERM)
    return path


def check_file(here):
    path = saved(here)
    assert sorted(name for name in os.listdir(here.folder) if "saved" in name) == [
        os.path.basename(path)]
    # It may be the only copy: nothing else is written over it, however it is called.
    for args in (["save", "--to", here.path("other")], ["restore", "--from", here.path("other")]):
        done = run(*args, "model:dmacopy", "--report", path, code=2)
        assert f"does not replace '{path}', which holds a saved set" in done.stderr, done.stderr
    folder, name = os.path.split(here.fresh("saved"))
    done = run("save", "--to", f"{folder}/{name}", "model:dmacopy", "--memory", "1M", "--report",
               f"{folder}/./{name}")
    assert "which holds a saved set" in done.stderr, done.stderr
    done = run("restore", "--from", f"{folder}/{name}", "model:dmacopy", "--memory", "2M",
               "--quiet", code=1)
    assert done.stderr.startswith("quiesce restore: 1 difference"), done.stderr
    empty = here.host(here.devices(), "--empty", *TENANT)
    run("restore", "--from", path, "--host", empty.control)
    assert status(empty)["state"] == "running"
    second = here.host(here.devices(), "--empty", *TENANT)
    done = run("restore", "--from", path, "--host", second.control, code=2)
    assert "No such file" in done.stderr, done.stderr
    assert os.path.exists(path + ".restored")
    done = run("save", "--to", path, "--host", empty.control)
    os.unlink(path + ".restored")
    restored = here.start("restore", "--from", path, *here.devices(), *TENANT)
    restored.wait_for("holding the set")
    result = tenant_result(restored.end(number=signal.SIGTERM))
    assert result["engine_bytes"] and not result["bytes_wrong"] and not result["interrupts_lost"]


def check_bad_file(here):
    """Cut off or altered anywhere: refused, and no device has seen anything of it."""
    path = saved(here)
    whole = pathlib.Path(path).read_bytes()
    trace = here.path("trace")
    devices = [f"d{i}={uri}" for i, uri in enumerate([
        here.device("dmacopy,memory=1M", "--trace", trace), here.device()])]
    empty = here.host(devices, "--empty", *TENANT)
    bad = pathlib.Path(here.path("bad"))
    for change in ("empty", "head", "cut", "last", "first", "middle", "more"):
        data = bytearray(whole)
        if change == "first":
            data[0] ^= 1
        elif change == "middle":
            data[len(data) // 2] ^= 0x10
        bad.write_bytes({"empty": b"", "head": data[:20], "cut": data[:len(data) // 2],
                         "last": data[:-1], "more": data + b"x"}.get(change, data))
        done = subprocess.run([TOOL, "restore", "--from", bad, "--host", empty.control, "--quiet"],
                              capture_output=True, text=True, timeout=TIMEOUT, check=False)
        assert done.returncode in (1, 2), f"{change}: {done}"
        assert str(bad) in done.stderr, f"{change}: {done.stderr}"
        assert status(empty)["state"] == "empty" and bad.exists()
        done = subprocess.run([TOOL, "restore", "--from", "-", *devices, *TENANT],
                              input=bad.read_bytes(), capture_output=True, timeout=TIMEOUT,
                              check=False)
        assert done.returncode in (1, 2), f"{change}: {done}"
    # Redirected, a good one is refused too: it would remain, to be restored again.
    with open(path, "rb") as redirected:
        done = subprocess.run([TOOL, "restore", "--from", "-", *devices, *TENANT], stdin=redirected,
                              capture_output=True, text=True, timeout=TIMEOUT, check=False)
    # As the command takes it, which is not as the library does.
    assert done.returncode == 2 and "give its path instead, so" in done.stderr, done
    assert "file:" not in done.stderr, done
    done = run("restore", "--from", here.path("none"), "--host", empty.control, code=2)
    assert here.path("none") in done.stderr
    for line in pathlib.Path(trace).read_text().splitlines():
        assert " set-state " not in line and " session-write " not in line, line
    os.replace(path, bad)
    run("restore", "--from", bad, "--host", empty.control)
    finish(empty)


def check_pipe(here):
    """From one process into another."""
    saver = here.start("save", "--to", "-", *here.devices(), *TENANT, "--quiet")
    restorer = here.start("restore", "--from", "-", *here.devices(), *TENANT,
                          stdin=saver.process.stdout)
    restorer.wait_for("holding the set")
    result = tenant_result(restorer.end(number=signal.SIGTERM))
    assert not result["bytes_wrong"] and not result["interrupts_lost"], result
    saver.process.stdout = open(os.devnull, encoding="ascii")
    saver.end()


def check_full_pipe(here):
    """Nobody reads: the limit ends it, and what went wrong is not that a reader left later."""
    memory = here.shared / "memory"
    memory.write_bytes(os.urandom(4 << 20))
    reader, writer = os.pipe()
    saver = subprocess.Popen([TOOL, "save", "--to", "-", *here.devices(), "--memory-file", memory,
                              "--timeout", "500ms"], stdout=writer, stderr=subprocess.PIPE, text=True)
    os.close(writer)
    said = saver.communicate(timeout=TIMEOUT)[1]
    os.close(reader)
    assert saver.returncode == 1 and "500 ms were over" in said, said
    assert "(--timeout, " in said and "the source's devices run" in said, said
    # Every option counts, whatever it is saved to.
    done = subprocess.run([TOOL, "save", "--to", "-", *here.devices(), "--memory", "1M", "--json",
                           "--downtime-limit", "7s", "--bandwidth", "9M"], check=True,
                          capture_output=True, timeout=TIMEOUT)
    move = json.loads(done.stderr)  # nothing else is there
    assert move["downtime_limit_us"] == 7000000 and move["bandwidth"] == 9 << 20, move


def check_no_pipe(here):
    """What "-" stands for can keep a set, or it is said that it cannot."""
    save, restore = ["save", "--to", "-"], ["restore", "--from", "-"]
    with open(os.devnull, "r+b") as null:
        for command, stream, words in (
                (save, {"stdout": null}, "standard output is neither a file nor a pipe"),
                (save, {"preexec_fn": lambda: os.close(1)}, "standard output is neither a file nor a pipe"),
                (restore, {"stdin": null}, "standard input is neither a file nor a pipe"),
                (restore, {"preexec_fn": lambda: os.close(0)}, "standard input is neither a file nor a pipe")):
            done = subprocess.run([TOOL, *command, "model:dmacopy", "--memory", "64K"], text=True,
                                  stderr=subprocess.PIPE, timeout=TIMEOUT, check=False,
                                  **{"stdout": subprocess.DEVNULL, **stream})
            assert done.returncode == 2 and words in done.stderr, done


def check_few_descriptors(here):
    """With too few file descriptors it is said that it is these that are missing, whatever was about
    to be opened; and the device serves on.
    """
    device, = here.devices(1)
    for most in range(4, 64):
        done = subprocess.run([TOOL, "save", "--to", here.fresh("saved"), device, "--memory", "64K",
                               "--quiet"], text=True, capture_output=True, timeout=TIMEOUT, check=False,
                              preexec_fn=lambda most=most: resource.setrlimit(
                                  resource.RLIMIT_NOFILE, (most, most)))
        if not done.returncode:
            return
        assert "oo many open files" in done.stderr or "loading shared" in done.stderr, \
            f"{most}: {done.stderr}"
    raise AssertionError(f"64 descriptors do not suffice: {done.stderr}")


def check_full_disk(here):
    """What cannot be written is not moved."""
    host = here.host(here.devices(), *TENANT)
    for target in ("/dev/full", here.path("none/file"), here.folder):
        done = subprocess.run([TOOL, "save", "--to", target, "--host", host.control],
                              capture_output=True, text=True, timeout=TIMEOUT, check=False)
        assert done.returncode in (1, 2) and done.stderr, done
        assert status(host)["state"] == "running"
    finish(host)


def check_file_limit(here):
    """Nor what may not be written: `ulimit -f`."""
    path = saved(here)
    host = here.host(here.devices(), *TENANT)
    limit = (1 << 20, resource.RLIM_INFINITY)
    resource.prlimit(host.process.pid, resource.RLIMIT_FSIZE, limit)
    done = run("save", "--to", here.fresh("saved"), "--host", host.control, code=1)
    assert "File too large" in done.stderr and "source's devices run" in done.stderr, done.stderr
    assert status(host)["state"] == "running"
    finish(host)
    with subprocess.Popen(["cat", path], stdout=subprocess.PIPE) as pipe:
        done = run("restore", "--from", "-", "model:dmacopy", "--memory", "64K", code=1,
                   stdin=pipe.stdout, preexec_fn=lambda: resource.setrlimit(resource.RLIMIT_FSIZE, limit))
    assert "File too large" in done.stderr, done.stderr


# ---- the control socket ----

def connect(host):
    client = socket.socket(socket.AF_UNIX)
    client.settimeout(TIMEOUT)
    client.connect(host.control)
    return client


def answer(client, line):
    client.sendall(line)
    return json.loads(client.makefile().readline())


def check_control(here):
    host = here.host(here.devices(), *TENANT)
    for line, words in ((b"nonsense\n", "JSON"), (b"[]\n", "'request'"), (b"{}\n", "'request'"),
                        (b'{"request":"none"}\n', "'none'"), (b'{"request":7}\n', "no request"),
                        (b'{"request":"send"}\n', "'transport'"),
                        (b'{"request":"send","transport":"fd:0"}\n', "pipe of the command"),
                        (b'{"request":"send","transport":"x","more":1}\n', "'more'"),
                        (b'{"request":"send","transport":"x","bandwidth":-1}\n', "'bandwidth'"),
                        (b'{"request":"send","transport":"x","bandwidth":"1"}\n', "'bandwidth'"),
                        (b'{"request":"receive","transport":"x","bandwidth":1}\n', "belong"),
                        (b'{"request":"send","transport":"a\\u0000b"}\n', "'transport'"),
                        (b'{"request":"save","transport":"unix:x"}\n', "file:PATH"),
                        (b'{"request":"send","transport":"file:x"}\n', "is no file"),
                        (b'{"request":"send","transport":"x","bandwidth":1}\n', "at least 65536"),
                        (b'{"request":"send","transport":"x","quiesce":"y"}\n', "'quiesce'")):
        with connect(host) as client:
            end = answer(client, line)
            assert end["event"] == "end" and end["code"] == 2, end
            assert set(end) == {"event", "code", "error", "move", "plan"}, end
            assert words in end["error"]["text"], end
            assert answer(client, b'{"request":"status"}\n')["state"] == "running"
    with connect(host) as client:
        client.sendall(b"x" * 16384)
        assert not client.recv(1), "a line without an end is not kept"
    watchers = [connect(host) for _ in range(12)]
    for client in watchers:
        assert answer(client, b'{"request":"watch"}\n')["event"] == "status"
    with connect(host) as client:
        client.sendall(b'{"request":"watch"}\n')
        assert not client.recv(1), "one watcher more than there may be"
    assert status(host)["state"] == "running", "there is room for who asks"
    silent = [connect(host) for _ in range(4)]
    with connect(host) as client:
        end = json.loads(client.makefile().readline())
        assert end["code"] == 1 and "too many" in end["error"]["text"], end
    done = run("ask", "--host", host.control, "status", code=1)
    assert "too many are connected" in done.stderr, done.stderr
    for client in silent:
        client.close()
    here.receiver(f"unix:{here.path('watched')}", *here.devices(), *TENANT)
    run("send", "--to", f"unix:{here.path('watched')}", "--host", host.control, "--exceed")
    for client in watchers:
        events = [json.loads(line)["event"]
                  for line in read_until(client, b'"event":"end"').splitlines()]
        assert events[0] == "begin" and "progress" in events and events[-1] == "end", events
        client.close()
    host.end(number=signal.SIGTERM)


def check_ends_once(here):
    """What ends at once, while the host is still being told that it began, ends once."""
    host = here.host(here.devices(), *TENANT)
    asked = 1000
    end = b'"event":"end"'
    with connect(host) as watcher:
        assert answer(watcher, b'{"request":"watch"}\n')["event"] == "status"
        ends = 0
        for _ in range(asked):
            with connect(host) as client:
                client.sendall(b'{"request":"send","transport":"unix:/none/none"}\n')
                read_until(client, end)
            ends += read_until(watcher, end).count(end)
        host.end(number=signal.SIGTERM)
        ends += watcher.makefile("rb").read().count(end)
    assert ends == asked, f"{ends} ends of {asked} requests"


def check_false_host(here):
    """What answers at a socket may be anything: no success without a code, no control characters."""
    path = here.path("false")
    begun = b'{"event":"begin","move":{}}\n'
    evil = json.dumps({"event": "end", "code": 1, "error": {
        "errno": 1, "clause": "\x1b[2J", "text": "a\x1b]0;x\x07b"}}).encode() + b"\n"
    state = json.dumps({"event": "status", "state": "\x1b[2J", "devices": [{"name": "\x07"}]})
    for data, code, words in (
            (b"nonsense\n[]\n", 1, "went away before"), (begun, 3, "went away before"),
            (b'{"event":"end"}\n', 1, "an answer that is none"),
            (b'{"event":"end","code":"0"}\n', 1, "an answer that is none"),
            (begun + b'{"event":"end","code":99}\n', 3, "look whether the other side does"),
            (b'{"event":' + b"[" * 100000 + b"\n", 1, "went away before"),
            (evil, 1, "a?]0;x?b"), (state.encode() + b"\n", 0, "")):
        for args in (["send", "--to", "unix:/x"], ["plan"], ["ask", "status"]):
            if not code and args[0] != "ask":
                continue
            with socket.socket(socket.AF_UNIX) as listener:
                listener.bind(path)
                listener.listen()

                def answer_it(listener=listener, data=data):
                    client = listener.accept()[0]
                    with contextlib.suppress(OSError), client:
                        client.recv(1 << 16)
                        client.sendall(data)

                thread = threading.Thread(target=answer_it)
                thread.start()
                done = run(*args, "--host", path, code=code)
                thread.join()
            os.unlink(path)
            assert words in done.stderr, done
            assert not re.search("[\x1b\x07]", done.stdout + done.stderr), done


def read_until(client, words):
    data = b""
    while words not in data or not data.endswith(b"\n"):
        piece = client.recv(1 << 16)
        assert piece, data
        data += piece
    return data


CHECKS = (check_usage, check_timeout, check_silent, check_unseen, check_killed_device,
          check_anonymous, check_own_hosts, check_mismatch, check_waiting_on, check_short_memory,
          check_frozen_device, check_cancelled_silence, check_busy, check_control,
          check_ends_once, check_false_host, check_plaintext, check_plan_asks, check_file,
          check_bad_file, check_pipe, check_no_pipe, check_full_pipe, check_full_disk,
          check_file_limit, check_few_descriptors, check_killed_command, check_host_told_to_end,
          check_cancelled_receiver, check_unproved_commands, check_lost_device, check_watching)
IN_PHASES = (check_killed_destination, check_killed_source, check_cancelled)


def run_check(check, *args):
    with world() as here:
        return check(here, *args)


def main():
    jobs = [(check_moves,), (check_plan,), (check_limit,), *((check,) for check in CHECKS),
            *((check, phase) for check in IN_PHASES for phase in SLOW),
            *((check_unproved, before) for before in ("COMMIT", "RUNNING"))]
    with concurrent.futures.ThreadPoolExecutor(WORKERS) as pool:
        results = [pool.submit(run_check, *job) for job in jobs]
        for job, result in zip(jobs, results):
            try:
                result.result()
            except BaseException:
                print(f"failed: {job[0].__name__} {job[1:]}", file=sys.stderr)
                pool.shutdown(cancel_futures=True)
                raise
    check_documented(results[0].result() | results[1].result())
    return 0


if __name__ == "__main__":
    sys.exit(main())
