#!/usr/bin/env python3
# SPDX-License-Identifier: MIT
"""The metrics of a host, scraped as a monitoring system does and read by a strict parser."""
import concurrent.futures
import http.client
import json
import pathlib
import re
import socket
import subprocess
import sys
import tempfile
import time

import moves

NAME = r"[a-zA-Z_:][a-zA-Z0-9_:]*"
LABELS = re.compile(r'([a-zA-Z_][a-zA-Z0-9_]*)="((?:[^"\\\n]|\\[\\"n])*)"(?:,|$)')
SUFFIXES = {"counter": ["_total", "_created"], "histogram": ["_bucket", "_count", "_sum"],
            "info": ["_info"], "gauge": [""], "stateset": [""]}
DEVICES = "devices " + " ".join(f"nic{i}" for i in range(256))
STATES = [f"state {i} {i % 8}" for i in range(256)]
TYPE = "application/openmetrics-text; version=1.0.0; charset=utf-8"


def parse(text):
    """{sample with labels: value}; fails on whatever OpenMetrics 1.0 forbids."""
    lines = text.split("\n")
    assert lines[-1] == "" and lines[-2] == "# EOF" and lines.count("# EOF") == 1
    families, values, family = {}, {}, None
    for line in lines[:-2]:
        comment = re.fullmatch(rf"# (TYPE|UNIT|HELP) ({NAME}) (.+)", line)
        if comment:
            word, name, rest = comment.groups()
            if word == "TYPE":
                assert name not in families, f"{name} twice"
                assert rest in SUFFIXES
                family = families[name] = {"name": name, "TYPE": rest}
            else:
                assert family["name"] == name and word not in family, line
                family[word] = rest
            if word == "UNIT":
                assert name.endswith("_" + rest), line
            continue
        sample = re.fullmatch(rf"({NAME})(?:\{{(.*)\}})? ([0-9.]+)", line)
        assert sample, f"no sample: {line!r}"
        name, labels, value = sample.groups()
        assert "HELP" in family
        assert name in [family["name"] + suffix for suffix in SUFFIXES[family["TYPE"]]], line
        found = LABELS.findall(labels or "")
        assert ",".join(f'{key}="{value}"' for key, value in found) == (labels or ""), line
        assert len({key for key, _ in found}) == len(found)
        if family["TYPE"] == "stateset":
            assert dict(found)[name] and value in "01"
        if family["TYPE"] == "info":
            assert value == "1"
        key = (name, *sorted((key, re.sub(r"\\(.)", r"\1", value)) for key, value in found))
        assert key not in values, f"{key} twice"
        values[key] = float(value)
    check_histograms(families, values)
    return values


def check_histograms(families, values):
    for name in (name for name, family in families.items() if family["TYPE"] == "histogram"):
        found = [(dict(key[1:])["le"], value) for key, value in values.items()
                 if key[0] == name + "_bucket"]
        bounds = [float(bound) for bound, _ in found]
        counts = [value for _, value in found]
        assert bounds == sorted(bounds) and bounds[-1] == float("inf")
        # Bounds are written as numbers with a point.
        assert all("." in bound or bound == "+Inf" for bound, _ in found)
        assert counts == sorted(counts) and counts[-1] == values[(name + "_count",)]


def must_fail(text):
    try:
        parse(text)
    except (AssertionError, KeyError, TypeError):
        return
    raise AssertionError(f"the parser takes {text!r}")


def test_parser():
    """The parser must be able to fail."""
    good = "# TYPE a gauge\n# HELP a Text.\na 1\n# EOF\n"
    assert parse(good) == {("a",): 1.0}
    for old, new in (("# EOF\n", ""), ("a 1\n", "a 1\na 1\n"), ("a 1", "b 1"), ("a 1", "a x"),
                     ("gauge", "counter"), ("a 1", 'a{b="\\x"} 1'), ("a 1", 'a{b="c" 1'),
                     ("# HELP", "# UNIT a seconds\n# HELP"), ("# HELP a Text.\n", "")):
        must_fail(good.replace(old, new))


class Host:
    """A metrics-host: told what happens, scraped over HTTP."""

    def __init__(self, program, address):
        # Ends with its input, which closes when this object or this process does.
        self.process = subprocess.Popen([program, address], stdin=subprocess.PIPE,
                                        stdout=subprocess.PIPE, text=True)
        self.address = self.process.stdout.readline().strip()

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self.process.stdin.close()
        self.process.stdout.close()
        assert self.process.wait(60) == 0

    def tell(self, line):
        self.process.stdin.write(line + "\n")
        self.process.stdin.flush()
        assert self.process.stdout.readline() == "ok\n"

    def connect(self):
        if self.address.startswith("unix:"):
            connection = http.client.HTTPConnection("localhost", timeout=30)
            connection.sock = socket.socket(socket.AF_UNIX)
            connection.sock.connect(self.address[5:])
            return connection
        host, port = self.address.rsplit(":", 1)
        return http.client.HTTPConnection(host.strip("[]"), int(port), timeout=30)

    def ask(self, method, path, body=None):
        connection = self.connect()
        connection.request(method, path, body)
        answer = connection.getresponse()
        text = answer.read().decode()
        connection.close()
        return answer, text

    def scrape(self):
        answer, text = self.ask("GET", "/metrics")
        assert answer.status == 200 and answer.headers["Content-Type"] == TYPE
        return parse(text)


def test_values(program, _):
    with Host(program, "0") as host:
        empty = host.scrape()
        assert empty[("quiesce_devices",)] == 0
        assert empty[("quiesce_phase", ("phase", "idle"), ("verb", ""))] == 1
        assert not any(key[0] == "quiesce_device_state" for key in empty)
        host.tell('devices nic0 a"b\\c größe nic0')
        for line in ("state 0 2", "state 1 6", "state 2 8", "state 3 1", "state 9 1", "blocks 7",
                     "blocks 5"):
            host.tell(line)
        values = host.scrape()
        states = {(dict(key[1:])["device"], dict(key[1:])["index"]):
                  dict(key[1:])["quiesce_device_state"]
                  for key, value in values.items() if key[0] == "quiesce_device_state" and value}
        assert states == {("nic0", "0"): "RUNNING", ('a"b\\c', "1"): "PRE_COPY",
                          ("nic0", "3"): "STOP"}, states
        assert sum(key[0] == "quiesce_device_state" for key in values) == 24
        assert values[("quiesce_tenant_blocks_total",)] == 7
        assert values[("quiesce_devices",)] == 4
        assert ("quiesce_info", ("version", "0.1.0")) in values


def test_migrations(program, _):
    with Host(program, "localhost:0") as host:
        move = moves.good(2)
        last = move["samples"][-2]
        move["samples"].pop()
        host.tell("progress " + json.dumps(move))
        values = host.scrape()
        assert values[("quiesce_phase", ("phase", "pre-copy"), ("verb", "send"))] == 1
        for name, expected in (("pass", 6), ("sent_bytes", last["bytes_sent"]),
                               ("remaining_bytes", last["bytes_remaining"]),
                               ("link_bytes_per_second", last["bytes_per_second"]),
                               ("dirty_bytes_per_second", last["dirty_per_second"]),
                               ("predicted_downtime_seconds",
                                last["predicted_downtime_us"] / 1e6),
                               ("downtime_limit_seconds", 0.3), ("last_downtime_seconds", 0)):
            assert values[("quiesce_" + name,)] == expected, name
        host.tell("moved " + json.dumps(move))
        move["report"].update(downtime_us=20001)
        host.tell("moved " + json.dumps(move))
        move["report"].update(downtime_us=11_500_000)
        host.tell("moved " + json.dumps(move))
        host.tell("moved " + json.dumps(moves.failed()))
        lost = moves.failed()
        lost["report"]["owner"] = "unproved"
        lost["verb"] = "receive"
        host.tell("moved " + json.dumps(lost))
        values = host.scrape()
        assert values[("quiesce_phase", ("phase", "idle"), ("verb", ""))] == 1
        assert values[("quiesce_pass",)] == values[("quiesce_downtime_limit_seconds",)] == 0
        ended = {(dict(key[1:])["verb"], dict(key[1:])["result"]): value
                 for key, value in values.items() if key[0] == "quiesce_migrations_total"}
        assert len(ended) == 12 and {key: value for key, value in ended.items() if value} == {
            ("send", "ok"): 3, ("send", "failed"): 1, ("receive", "unproved"): 1}
        report = move["report"]
        sent = values[("quiesce_moved_bytes_total", ("kind", "device"), ("verb", "send"))]
        assert sent == 3 * report["device_bytes"] + moves.failed()["report"]["device_bytes"]
        assert values[("quiesce_last_downtime_seconds",)] == 11.5
        assert values[("quiesce_last_predicted_downtime_seconds",)] == 0.0185
        bucket = {dict(key[1:])["le"]: value for key, value in values.items()
                  if key[0] == "quiesce_downtime_seconds_bucket"}
        # The bound itself belongs to its bucket; 20 ms and 20.001 ms both lie below 25.
        assert (bucket["0.01"], bucket["0.025"], bucket["10.0"], bucket["+Inf"]) == (0, 2, 2, 3)
        assert abs(values[("quiesce_downtime_seconds_sum",)] - 11.540001) < 1e-9


def test_bounds(program, _):
    """Exactly on a bound of the histogram."""
    with Host(program, "0") as host:
        move = moves.good(1)
        for downtime in (1000, 1001, 10_000_000, 10_000_001):
            move["report"]["downtime_us"] = downtime
            host.tell("moved " + json.dumps(move))
        bucket = {dict(key[1:])["le"]: value for key, value in host.scrape().items()
                  if key[0] == "quiesce_downtime_seconds_bucket"}
        assert [bucket[le] for le in ("0.001", "0.0025", "5.0", "10.0", "+Inf")] == [1, 2, 2, 3, 4]


def test_refusals(program, _):
    with Host(program, "[::1]:0" if socket.has_ipv6 and has_loopback6() else "0") as host:
        assert host.ask("GET", "/")[0].status == 404
        assert host.ask("GET", "/metrics/")[0].status == 404
        assert host.ask("GET", "/metrics", b"body")[0].status == 400
        for method in ("POST", "HEAD", "PUT", "DELETE", "OPTIONS"):
            answer, _ = host.ask(method, "/metrics", b"x" * 100000 if method == "PUT" else None)
            assert answer.status == 405 and answer.headers["Allow"] == "GET", method
        connection = host.connect()
        connection.request("GET", "/metrics", headers={"X": "y" * 100000})
        try:
            assert connection.getresponse().status in (413, 431)
        except (http.client.HTTPException, OSError):
            pass
        connection.close()
        # Two requests over one connection.
        connection = host.connect()
        for _ in range(2):
            connection.request("GET", "/metrics")
            assert parse(connection.getresponse().read().decode())
        connection.close()
        host.scrape()


def has_loopback6():
    with socket.socket(socket.AF_INET6) as probe:
        try:
            probe.bind(("::1", 0))
        except OSError:
            return False
    return True


def test_many(program, _):
    """Silent connections do not keep a scrape away, and more than there is room for end."""
    with Host(program, "0") as host:
        host.tell(DEVICES)
        silent = [host.connect() for _ in range(12)]
        for connection in silent:
            connection.connect()
        progress = "progress " + json.dumps(moves.good(1))
        with concurrent.futures.ThreadPoolExecutor(3) as pool:
            # Meanwhile a set moves, its devices change their states and their number.
            moving = pool.submit(lambda: [host.tell(line) for i in range(100) for line in (
                progress, f"state {i} {i % 8}", f"blocks {i}", DEVICES, *STATES[:8])])
            list(pool.map(lambda _: host.scrape(), range(10)))
            moving.result()
        for line in STATES:
            host.tell(line)
        found = [len(host.scrape()) for _ in range(2)]
        assert len(set(found)) == 1 and found[0] > 2048
        for connection in silent:
            connection.close()


def test_full(program, _):
    """With all connections taken and open it still ends at once, and not when they time out."""
    with Host(program, "0") as host:
        connections = [host.connect() for _ in range(16)]
        for connection in connections:
            connection.request("GET", "/metrics")
            assert connection.getresponse().read()
        began = time.monotonic()
    assert time.monotonic() - began < 5, "it waited for its connections"
    for connection in connections:
        connection.close()


def closes(connection):
    """Whether the other side has ended it."""
    connection.sock.setblocking(False)  # one with a time limit would wait all the same
    try:
        return connection.sock.recv(1) == b""
    except BlockingIOError:
        return False
    except OSError:
        return True


def test_drips(program, _):
    """Who sends a byte now and then and never a request does not stay; who asks does."""
    with Host(program, "0") as host:
        drips = [host.connect() for _ in range(15)]
        for connection in drips:
            connection.connect()
        asking = host.connect()
        began = time.monotonic()
        while not all(closes(drip) for drip in drips):
            for drip in drips:
                try:
                    drip.sock.send(b"G" if drip is drips[0] else b"x")
                except OSError:
                    pass
            # As long as it has its answers it may go on.
            asking.request("GET", "/metrics")
            assert parse(asking.getresponse().read().decode())
            host.tell("look 1000")
            time.sleep(0.05)
            assert time.monotonic() - began < 60, "they are never ended"
        for connection in [*drips, asking]:
            connection.close()
        host.scrape()


def test_unix(program, folder):
    path = folder / "metrics.sock"
    with Host(program, f"unix:{path}") as host:
        assert host.scrape() and path.stat().st_mode & 0o777 == 0o600
        second = subprocess.run([program, f"unix:{path}"], stdin=subprocess.DEVNULL, timeout=60,
                                capture_output=True, check=False)
        assert second.returncode == 1 and b"Address already in use" in second.stderr
        assert host.scrape()
    assert not path.exists()
    # What a dead process left is replaced, what is no socket is not.
    left = socket.socket(socket.AF_UNIX)
    left.bind(str(path))
    left.close()
    with Host(program, f"unix:{path}") as host:
        assert host.scrape()
    path.write_text("mine")
    second = subprocess.run([program, f"unix:{path}"], stdin=subprocess.DEVNULL, timeout=60,
                            capture_output=True, check=False)
    assert second.returncode == 1 and path.read_text() == "mine"


def test_addresses(program, _):
    with Host(program, "0") as host:
        taken = host.address
        assert taken.startswith("127.0.0.1:")
        for address in ("", ":", "x", "99999", "-1", "1x", "::1", "[]:1", ":80", "unix:",
                        "unix:" + "x" * 200, "no such host:1", taken):
            done = subprocess.run([program, address], stdin=subprocess.DEVNULL, timeout=60,
                                  capture_output=True, text=True, check=False)
            assert done.returncode == 1, address
            assert f"metrics cannot be served at '{address}' (" in done.stderr, done.stderr


def main():
    program = sys.argv[1]
    test_parser()
    tests = [test_values, test_migrations, test_bounds, test_refusals, test_many, test_full,
             test_drips, test_unix, test_addresses]
    for test in tests:
        with tempfile.TemporaryDirectory() as folder:
            test(program, pathlib.Path(folder))
        print(f"{test.__name__}: ok")


if __name__ == "__main__":
    main()
