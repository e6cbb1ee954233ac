#!/usr/bin/env python3
# SPDX-License-Identifier: MIT
"""The views of a migration, from outside: the HTML report, the text for a terminal, and the JSON.

A page is taken apart as a browser would: elements that close, nothing from elsewhere, drawings that
stay within themselves, and names of devices that are text whatever stands in them.
"""
import copy
import html.parser
import json
import os
import pathlib
import re
import resource
import signal
import subprocess
import sys
import tempfile
import xml.etree.ElementTree

import moves

VOID = {"meta", "br", "hr", "img", "input", "link"}
HOSTILE = "</title><script>alert(1)</script>\"'&\x1b]0;\u202e"


class Page(html.parser.HTMLParser):
    """The text of a page, its elements and its drawings; fails on what does not close."""

    def __init__(self, text):
        super().__init__(convert_charrefs=True)
        self.open, self.elements, self.text, self.headings = [], [], [], []
        self.parts = []
        self.feed(text)
        self.close()
        assert not self.open, f"never closed: {self.open}"
        found = re.findall(r"<svg viewBox=\"0 0 1000.*?</svg>", text, re.S)
        self.drawings = [xml.etree.ElementTree.fromstring(svg) for svg in found]

    def handle_starttag(self, tag, attrs):
        self.elements.append((tag, dict(attrs)))
        if tag not in VOID:
            self.open.append(tag)

    def handle_startendtag(self, tag, attrs):
        self.elements.append((tag, dict(attrs)))

    def handle_endtag(self, tag):
        assert self.open and self.open[-1] == tag, f"</{tag}> closes {self.open[-1:]}"
        self.open.pop()

    def handle_data(self, data):
        if self.open:
            self.parts.append((self.open[-1], data))
        if self.open and self.open[-1] == "h2":
            self.headings.append(data)
        if self.open and self.open[-1] != "style":
            self.text.append(data)

    def text_of(self, name):
        return [data for tag, data in self.parts if tag == name and data.strip()]

    def tags(self, name):
        return [attrs for tag, attrs in self.elements if tag == name]


def run(program, mode, move, *more, **options):
    text = move if isinstance(move, bytes) else json.dumps(move).encode()
    return subprocess.run([program, mode, *more], input=text, capture_output=True, check=False,
                          timeout=60, **options)


def report(program, move, folder):
    path = folder / "report.html"
    done = run(program, "html", move, str(path))
    assert done.returncode == 0, done.stderr
    assert [entry.name for entry in folder.iterdir()] == ["report.html"]
    return path.read_text()


def check_alone(text, page):
    """Nothing is loaded from anywhere, nothing is run."""
    tags = {tag for tag, _ in page.elements}
    assert not tags & {"script", "link", "img", "iframe", "object", "embed", "base", "form"}, tags
    for tag, attrs in page.elements:
        for name in attrs:
            assert not name.startswith("on") and name not in ("src", "href", "style"), (tag, name)
    assert not re.search(r"url\(|@import|https?:", text)
    assert {"charset": "utf-8"} in page.tags("meta")
    assert "prefers-color-scheme:dark" in text
    ids = [attrs["id"] for _, attrs in page.elements if "id" in attrs]
    assert len(ids) == len(set(ids))


def check_drawing(svg):
    """It has a title, and everything in it is within it."""
    width, height = map(float, svg.get("viewBox").split()[2:])
    labels = svg.get("aria-labelledby").split()
    names = {element.get("id"): element.text for element in svg.iter() if element.get("id")}
    assert [bool(names[label].strip()) for label in labels] == [True, True]
    for element in svg.iter():
        x, y = float(element.get("x", 0)), float(element.get("y", 0))
        wide, high = float(element.get("width", 0)), float(element.get("height", 0))
        assert 0 <= x <= x + wide <= width + 0.2 and 0 <= y <= y + high <= height, element.attrib
        if element.tag == "rect":
            assert wide >= 1 and high >= 1, element.attrib
        for x, y in re.findall(r"[ML]([-\d.]+) ([-\d.]+)", element.get("d", "")):
            assert 0 <= float(x) <= width and 0 <= float(y) <= height, element.attrib


def check_page(program, move, folder):
    text = report(program, move, folder)
    page = Page(text)
    check_alone(text, page)
    for svg in page.drawings:
        check_drawing(svg)
    lanes = [svg for svg in page.drawings if not svg.findtext("title").startswith("Bytes")]
    for svg in lanes:
        count = len(svg.findall("rect[@class='lane']"))
        assert count == len(move["devices"]), count
    return text, page


def bars(svg, kind):
    return [group for group in svg.findall("g") if group.get("class") == kind]


def test_good(program, folder):
    for devices, seconds in ((1, 2), (4, 2), (64, 60), (256, 60), (700, 2)):
        move = moves.good(devices, seconds)
        text, page = check_page(program, move, folder)
        assert page.headings == ["All of it", "Bytes and predicted stop", "The stop",
                                   "Parts of the stop", "Phases"], page.headings
        whole, curves, stop = page.drawings
        halt = whole.findall("g[@class='halt']/rect")
        # 20 ms within a minute are seen; the zoomed drawing needs no mark.
        assert len(halt) == 1 and float(halt[0].get("width")) >= 2
        assert not stop.findall("g[@class='halt']")
        assert "stop 20 ms" in whole.findtext("g[@class='halt']/text")
        # The passes of a device are apart, those of memory touch.
        assert devices * 4 < len(bars(whole, "copy")) <= devices * 6 + 2
        assert len(bars(stop, "final")) == devices + 2 and not bars(stop, "copy")
        assert len(curves.findall("path[@class='limit']")) == 1
        assert f"nic{devices - 1}: stop-copy, 9.0 ms" in text
        assert "The prediction was 7.5 % too short." in page.text
        assert len(text) < 40000 + devices * 5000
    move = moves.good(1)
    move["report"]["owner"] = "source"
    _, page = check_page(program, move, folder)
    assert "The stop was not seen to its end." in page.text, "nobody measured the end"
    assert "The prediction was" not in page.text


def test_destination(program, folder):
    """It has waited, was given no limit and predicts nothing: none of that is made up."""
    move = moves.good(2)
    waited = 3600 * 1000000
    for entry in move["phases"]:
        entry["start_us"] += waited
    for entry in move["samples"]:
        entry.update(elapsed_us=entry["elapsed_us"] + waited, predicted_downtime_us=0)
    move.update(verb="receive", downtime_limit_us=0)
    move["report"].update(waited_us=waited, total_us=waited + 2000000)
    for part in ("predicted", "measured"):
        move["report"][part] = dict.fromkeys(move["report"][part], 0)
    _, page = check_page(program, move, folder)
    assert page.headings == ["All of it", "Bytes", "The stop", "Phases"], page.headings
    words = " ".join("".join(page.text).split())
    facts = dict(zip(page.text_of("dt"), page.text_of("dd")))
    assert facts["waited"] == "3600 s" and facts["took"] == "2.00 s", facts
    assert facts["stopped"] == "for 20 ms", facts
    assert "3600 s" not in words[words.index("first began"):], "tables begin where drawings do"


def test_curves(program, folder):
    move = moves.good(2)
    _, page = check_page(program, move, folder)
    curve = {path.get("class"): path.get("d") for path in page.drawings[1].findall("path")
             if path.get("class").startswith("curve")}
    sent = [float(y) for y in re.findall(r" ([\d.]+)", curve["curve copy"])]
    predicted = [float(y) for y in re.findall(r" ([\d.]+)", curve["curve quiesce"])]
    # Up is more; the first pass predicted nothing.
    assert sent == sorted(sent, reverse=True) and len(sent) == len(move["samples"])
    assert predicted == sorted(predicted) and len(predicted) == len(move["samples"]) - 12
    # In a short run what is left is told now and then; it is one line, down to nothing.
    part, last = move["samples"][5], move["samples"][-1]
    move["samples"] = [{**part, "phase": phase, "bytes_remaining": left, "elapsed_us": us}
                       for phase, left, us in (("negotiate", 0, 1), ("pre-copy", 4096, 10000),
                                               ("stop", 0, 20000), ("stop-copy", 2048, 30000),
                                               ("load", 0, last["elapsed_us"]))]
    _, page = check_page(program, move, folder)
    left = page.drawings[1].find("path[@class='curve final']").get("d")
    assert re.sub(r"[\d. ]", "", left) == "MLL", left
    ground = [text for text in page.drawings[1].iter("text") if text.text == "0 B"][0]
    assert abs(float(left.split()[-1]) - (float(ground.get("y")) - 4)) < 0.2, left
    # A destination does not know it.
    for sample in move["samples"]:
        sample["bytes_remaining"] = 0
    _, page = check_page(program, move, folder)
    assert page.drawings[1].find("path[@class='curve final']") is None
    assert "bytes left" not in page.text
    move["samples"] = []
    _, page = check_page(program, move, folder)
    assert "Bytes and predicted stop" not in page.headings


def test_failed(program, folder):
    move = moves.failed()
    _, page = check_page(program, move, folder)
    assert "The stop" not in page.headings and "Parts of the stop" not in page.headings
    assert move["error"]["text"] in page.text
    assert "Now: " + move["report"]["outcome"] in page.text
    assert "never" in page.text
    assert not page.drawings[0].findall("g[@class='halt']")
    move["report"]["owner"] = "unproved"
    _, page = check_page(program, move, folder)
    assert "unproved" in page.text and "still, on this side" in page.text


def test_hostile(program, folder):
    move = moves.good(2)
    shown = HOSTILE.replace("\x1b", "?").replace("\u202e", "???")
    for entry, key in ((move, "transport"), (move, "host"), (move, "plan"),
                       (move["devices"][1], "name"), (move["devices"][1], "uri"),
                       (move["phases"][0], "name"), (move["report"], "outcome")):
        entry[key] = HOSTILE[:31] if key == "name" and entry is move["phases"][0] else HOSTILE
    move["error"] = {"errno": 5, "clause": "<b>", "text": HOSTILE}
    text, page = check_page(program, move, folder)
    assert "".join(page.text).count(shown) >= 6
    assert "<script" not in text and "<b>" not in text


def test_extremes(program, folder):
    most = 1 << 62
    empty = moves.good(1)
    empty.update(devices=[], phases=[], samples=[], downtime_limit_us=0)
    empty["report"].update(downtime_us=0, total_us=0, memory_bytes=0, device_bytes=0)
    check_page(program, empty, folder)
    large = moves.good(2)
    for entry in large["phases"][::2]:
        entry.update(start_us=most, duration_us=most, bytes=most, count=(1 << 32) - 1)
    for entry in large["samples"]:
        entry.update(elapsed_us=most, bytes_sent=most, bytes_remaining=most,
                     predicted_downtime_us=most)
    for downtime in (0, 1, most):
        large["report"].update(downtime_us=downtime, total_us=most)
        large.update(started_at=most, memory_bytes=most, bandwidth=most)
        check_page(program, large, folder)
    # A recording in no order of time at all.
    mixed = moves.good(3)
    mixed["phases"].reverse()
    mixed["samples"].reverse()
    check_page(program, mixed, folder)


def limit_file_size():
    signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
    resource.setrlimit(resource.RLIMIT_FSIZE, (8192, 8192))


def test_whole_or_not(program, folder):
    """A report that cannot be written leaves the one that was there, and nothing else."""
    path = folder / "report.html"
    path.write_text("the last one")
    done = run(program, "html", moves.good(4), str(path), preexec_fn=limit_file_size)
    assert done.returncode == 1 and b"cannot be written (File too large)" in done.stderr, done
    assert path.read_text() == "the last one"
    assert [entry.name for entry in folder.iterdir()] == ["report.html"]
    done = run(program, "html", moves.good(1), str(folder))
    assert done.returncode == 1 and b"which is no file" in done.stderr
    done = run(program, "html", moves.good(1), str(folder / "no" / "report.html"))
    assert done.returncode == 1 and b"No such file" in done.stderr
    done = run(program, "html", moves.good(1), str(path), umask=0o027)
    assert done.returncode == 0 and path.stat().st_mode & 0o777 == 0o640


def test_text(program, _):
    for locale in ("C", "C.UTF-8"):
        environment = dict(os.environ, LC_ALL=locale, TERM="xterm")
        done = run(program, "text", moves.good(12), env=environment)
        assert done.returncode == 0
        out = done.stdout.decode("utf-8" if locale != "C" else "ascii")
        lines = done.stderr.decode().splitlines()
        assert "\x1b" not in out and "\r" not in out and "and 4 devices more: see --json" in out
        # Changes of phase only, for two seconds.
        assert [line.split(": ")[1].split(" pass")[0] for line in lines] == [
            "negotiate", "pre-copy", "stop"], lines
    done = run(program, "text", moves.failed())
    assert done.returncode == 1
    assert done.stderr.decode().splitlines()[-2:] == [
        "quiesce: device 'nic1' writes 900 MiB/s and the link carries 800 MiB/s",
        "  now: " + moves.failed()["report"]["outcome"]]
    unproved = moves.failed()
    unproved["report"]["owner"] = "unproved"
    assert run(program, "text", unproved).returncode == 3


def test_json(program, _):
    for move in (moves.good(3), moves.failed()):
        done = run(program, "json", move)
        assert done.returncode == 0 and json.loads(done.stdout) == move
    for text in (b"", b"[]", b"{}", b"{", b"null", b"\xff", json.dumps(moves.good())[:-1].encode()):
        assert run(program, "json", text).returncode == 4, text
    lost = copy.deepcopy(moves.good(2))
    lost["devices"].pop()
    assert run(program, "json", lost).returncode == 4


def main():
    program = sys.argv[1]
    tests = [test_good, test_destination, test_curves, test_failed, test_hostile, test_extremes, test_whole_or_not,
             test_text, test_json]
    for test in tests:
        with tempfile.TemporaryDirectory() as folder:
            test(program, pathlib.Path(folder))
        print(f"{test.__name__}: ok")


if __name__ == "__main__":
    main()
