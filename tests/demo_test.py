#!/usr/bin/env python3
# SPDX-License-Identifier: MIT
"""quiesce demo, run as a person would run it: it must prove what it claims, survive the death of any
of its pieces with a clear message, and leave nothing behind. Usage: demo_test.py QUIESCE"""
import json
import os
import re
import resource
import signal
import subprocess
import sys
import tempfile
import time

QUIESCE = os.path.abspath(sys.argv[1])
SMALL = ["--memory", "32M", "--state", "8M"]
TIMEOUT = 60


def check(condition, text):
    if not condition:
        raise AssertionError(text)


def descendants(pid):
    """Pids and names of what a demo has started."""
    found = {}
    for entry in os.listdir("/proc"):
        if not entry.isdigit():
            continue
        try:
            with open(f"/proc/{entry}/stat") as stat:
                text = stat.read()
        except OSError:
            continue
        name = text[text.index("(") + 1:text.rindex(")")]
        if int(text[text.rindex(")") + 2:].split()[1]) == pid:
            found[name] = int(entry)
    return found


class Demo:
    """A demo with a directory for temporary files of its own."""

    def __init__(self, *arguments, before=None, **more_environment):
        self.directory = tempfile.TemporaryDirectory()
        environment = dict(os.environ, TMPDIR=self.directory.name, LC_ALL="C.UTF-8")
        environment.update(more_environment)
        self.process = subprocess.Popen(
            [QUIESCE, "demo", *arguments], env=environment, stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, preexec_fn=before)
        self.seen = []

    def wait_line(self, text):
        for line in self.process.stdout:
            self.seen.append(line)
            if text in line:
                return
        raise AssertionError(f"no line with '{text}': {self.seen} {self.process.stderr.read()}")

    def end(self):
        """Exit status, standard output and error; nothing may be left."""
        children = descendants(self.process.pid)
        try:
            out, err = self.process.communicate(timeout=TIMEOUT)
        except subprocess.TimeoutExpired:
            self.process.kill()
            raise AssertionError("it hangs") from None
        # Children of a process that was killed are gone a moment later.
        for name, pid in children.items():
            for _ in range(100):
                if not os.path.exists(f"/proc/{pid}"):
                    break
                time.sleep(0.05)
            else:
                raise AssertionError(f"{name} is still there")
        left = os.listdir(self.directory.name)
        check(not left, f"files are left: {left}")
        self.directory.cleanup()
        # The thread sanitizer's remark on what it has been told to leave alone.
        err = "".join(line for line in err.splitlines(True) if "LLVMSymbolizer" not in line)
        return self.process.returncode, "".join(self.seen) + out, err


def run_json(*arguments):
    status, out, err = Demo(*arguments, "--json").end()
    try:
        return status, json.loads(out), err
    except ValueError:
        raise AssertionError(f"status {status}, no JSON: {out!r} {err!r}") from None


def check_ok(status, outcome, err, devices, migrations):
    outcome["phases"] = len(outcome["phases"])
    check(status == 0 and outcome["result"] == "ok", f"status {status}: {err} {outcome}")
    check(err == "", f"an error although all is well: {err}")
    check(outcome["devices"] == devices and outcome["migrations"] == migrations, outcome)
    check(outcome["bytes_moved"] > 0 and outcome["bytes_kept"] > 0, outcome)
    for key in ("bytes_wrong", "interrupts_lost", "interrupts_doubled"):
        check(outcome[key] == 0, f"{key}: {outcome[key]}")
    check(outcome["violations"] == [] and outcome["error"] is None, outcome)
    downtime = outcome["downtime_us"]
    check(0 < downtime["min"] <= downtime["median"] <= downtime["max"], downtime)
    check(downtime["max"] < outcome["total_us"], downtime)


def test_default_shape():
    status, outcome, err = run_json("--devices", "3", *SMALL, "--traffic", "1")
    phases = outcome["phases"]
    check_ok(status, outcome, err, 3, 2)
    keys = {"result", "devices", "migrations", "bytes_moved", "bytes_wrong", "interrupts_lost",
            "interrupts_doubled", "violations", "downtime_us", "total_us", "phases"}
    check(keys <= outcome.keys(), f"missing: {keys - outcome.keys()}")
    # A block is one transfer and one interrupt a hop.
    check(outcome["interrupts"] >= outcome["blocks"] * 4, outcome)
    for phase in phases:
        check({"name", "device", "start_us", "duration_us", "bytes"} <= phase.keys(), phase)
        check(phase["start_us"] + phase["duration_us"] <= outcome["total_us"], phase)
    for migration in (1, 2):
        of = [p for p in phases if p["migration"] == migration]
        check({p["device"] for p in of} == {None, 0, 1, 2}, "a device without a phase")
    # Everything travels at least once each time.
    check(outcome["memory_bytes"] >= 2 * (32 << 20), outcome["memory_bytes"])
    check(outcome["device_bytes"] >= 2 * 3 * (8 << 20), outcome["device_bytes"])


def test_one_device_and_a_file():
    with tempfile.NamedTemporaryFile() as file:
        file.write(os.urandom(300_001))
        file.flush()
        status, outcome, err = run_json(file.name, "--devices", "1", *SMALL, "--migrations", "3",
                                        "--traffic", "0")
    check_ok(status, outcome, err, 1, 3)


def test_flag_sets():
    for flags in ("1", "3", "5"):
        status, outcome, err = run_json("--flags", flags, "--devices", "2", *SMALL,
                                        "--migrations", "2", "--traffic", "0")
        check_ok(status, outcome, err, 2, 2)


def check_timeline(out):
    """Every sign in a lane is in the legend below it, and means one thing."""
    meaning, lanes = {}, ""
    for line in out.splitlines():
        if re.match("  [AB]  device ", line):
            lanes += line[61:]
        elif lanes and line.startswith("     "):
            legend = dict(entry.split(" ") for entry in line.strip().split("  "))
            missing = set(lanes) - set(legend) - {" "}
            check(not missing, f"{missing} not in the legend {line}")
            for sign, name in legend.items():
                check(meaning.setdefault(sign, name) == name, f"{sign} is {name} and {meaning}")
            check(len(set(legend.values())) == len(legend), f"twice in {line}")
            lanes = ""
    check(meaning and not lanes, f"no legend in {out}")


def test_signs():
    for locale in ("C", "C.UTF-8"):
        for flags in ("1", "7"):
            status, out, err = Demo("--devices", "2", *SMALL, "--migrations", "1", "--traffic", "0",
                                    "--flags", flags, LC_ALL=locale).end()
            check(status == 0, f"status {status}: {err}")
            check_timeline(out)
            check(out.isascii() == (locale == "C"), out)


def test_for_people():
    status, out, err = Demo("--devices", "2", *SMALL, "--migrations", "1", "--traffic", "1").end()
    check(status == 0 and err == "", f"{status} {err}")
    for text in ("migration 1", "the stop", "device 1", "0 lost, 0 doubled", "Nothing was lost",
                 "no clause broken: ORD-1, DEV-1, DEV-2, DEV-6, SET-1, SET-2 watched"):
        check(text in out, f"'{text}' is missing in {out}")
    check("0 B sent" not in out, out)
    check_timeline(out)
    check(re.search("A  precopy .* MiB +[0-9.]+ [KMG]iB/s ", out), f"no rate in {out}")
    check(re.search("moved at [0-9.]+ [KMG]iB/s", out), f"no rate in {out}")
    wide = [line for line in out.splitlines() if len(line) > 100]
    check(not wide, f"wider than 100 columns: {wide}")


def break_during_migration(name, number, more=()):
    """Start a migration and kill one piece of it."""
    demo = Demo("--devices", "2", "--memory", "256M", "--state", "32M", "--traffic", "0", *more)
    demo.wait_line(f"migration {number} begins")
    os.kill(descendants(demo.process.pid)[name], signal.SIGKILL)
    status, out, err = demo.end()
    check(status == 1, f"status {status} after {name} was killed: {out} {err}")
    check(f"migration {number} failed" in err and "signal 9" in err, err)
    check("Nothing was lost" not in out and "Failed" in out, out)
    return out, err


def test_destination_server_dies():
    out, err = break_during_migration("quiesce dev B1", 1)
    check("server of device 1 on side B was killed" in err, err)
    # The source went on and has compared everything.
    check("bytes wrong  0" in out and "0 lost, 0 doubled" in out, out)
    check("no clause broken: " in out, out)


def test_destination_host_dies():
    out, err = break_during_migration("quiesce host B", 1)
    check("host B was killed" in err, err)
    # What host B would have told of its waves is gone with it.
    check("no clause broken: ORD-1, DEV-6 watched" in out, out)
    check("bytes wrong  0" in out and "0 lost, 0 doubled" in out, out)


def test_source_host_dies():
    _, err = break_during_migration("quiesce host A", 1)
    check("host A was killed" in err, err)
    check("the states of the devices of side A, which had the set, are not known" in err, err)


def test_source_server_dies():
    _, err = break_during_migration("quiesce dev B0", 2)
    check("server of device 0 on side B was killed" in err, err)
    check("now:  devices of side B, which had the set: 1 in " in err, err)
    check("; 0 gave no answer; " in err, err)
    check("the demo has ended everything it had started" in err, err)
    check("run the set" not in err, err)


def test_a_server_dies_between_migrations():
    """The demo ends by what it knows itself, not when the tenant has waited long enough."""
    demo = Demo("--devices", "2", *SMALL, "--traffic", "600")
    demo.wait_line("blocks")
    os.kill(descendants(demo.process.pid)["quiesce dev A1"], signal.SIGKILL)
    status, _, err = demo.end()
    check(status == 1, f"status {status}: {err}")
    check("server of device 1 on side A was killed by signal 9" in err, err)
    check("failed before migration 1" in err and " for 15 s" not in err, err)


def test_killed_itself():
    """It can remove nothing then; the next one does."""
    killed = Demo("--devices", "1", *SMALL, "--traffic", "600")
    killed.wait_line("blocks")
    children = descendants(killed.process.pid)
    killed.process.kill()
    killed.process.communicate()
    while any(os.path.exists(f"/proc/{pid}") for pid in children.values()):
        time.sleep(0.01)
    check(os.listdir(killed.directory.name), "there is nothing to remove")
    following = Demo("--devices", "1", *SMALL, "--migrations", "1", "--traffic", "0",
                     TMPDIR=killed.directory.name)
    status, out, err = following.end()
    check(status == 0, f"status {status}: {out} {err}")
    killed.end()


def test_interrupted():
    demo = Demo("--devices", "2", *SMALL, "--traffic", "30")
    demo.wait_line("blocks")
    demo.process.send_signal(signal.SIGTERM)
    status, _, err = demo.end()
    check(status == -signal.SIGTERM and "interrupted" in err, f"{status} {err}")
    demo = Demo("--devices", "2", *SMALL, "--traffic", "30", "--json")
    while "quiesce dev B1" not in descendants(demo.process.pid):
        check(demo.process.poll() is None, "it has ended")
    demo.process.send_signal(signal.SIGINT)
    status, out, err = demo.end()
    check(status == -signal.SIGINT and out == "" and "interrupted" in err, f"{status} {out} {err}")


def test_usage():
    with tempfile.NamedTemporaryFile() as empty:
        wrong = (["--devices", "0"], ["--devices", "65"], ["--devices", "two"],
                 ["--memory", "1M"], ["--memory", "huge"], ["--memory", "33554433"],
                 ["--state", "3M"], ["--state", "4K"], ["--memory", "400G"],
                 ["--migrations", "0"], ["--flags", "2"], ["--flags", "x"], ["--traffic", "-1"],
                 ["/nonexistent"], ["/"], [empty.name], ["a", "b"], ["--nonsense"])
        for arguments in wrong:
            status, out, err = Demo(*arguments).end()
            check(status == 2, f"{arguments}: status {status}, {err}")
            check(out == "" and err.count("\n") == 1, f"{arguments}: {out} {err}")


def test_usage_names_what_is_wrong():
    for arguments, text in ((["--flags", "2"], "--flags takes 1, 3, 5 or 7 (STATE-1), not '2'"),
                            (["--flags", "8"], "--flags takes 1, 3, 5 or 7 (STATE-1), not '8'"),
                            (["--memory", "1000T"], "--memory may be at most 512G"),
                            (["--state", "2T"], "--state may be at most 1T")):
        status, _, err = Demo(*arguments).end()
        check(status == 2 and f"quiesce demo: {text};" in err, f"{arguments}: {status} {err}")


def test_unusable_directory():
    for directory in ("/nonexistent", "/" + "x" * 300, "/" + "x" * 75, "/proc"):
        for more in ((), ("--json",)):
            status, out, err = Demo(*more, TMPDIR=directory).end()
            check(status == 2 and out == "", f"{directory}: status {status}, {out} {err}")
            check("TMPDIR" in err and err.count("\n") == 1, f"{directory}: {err}")


def test_cannot_start():
    def few_files():
        resource.setrlimit(resource.RLIMIT_NOFILE, (13, 13))

    status, out, err = Demo(*SMALL, before=few_files).end()
    check(status == 1 and "Failed" not in out, f"status {status}: {out}")
    check("cannot start: " in err and "Too many open files" in err, err)
    check("the tenant had not started" in err and err.count("\n") == 2, err)
    status, out, _ = Demo(*SMALL, "--json", before=few_files).end()
    check(status == 1 and json.loads(out)["result"] == "failed", f"status {status}: {out}")


def main():
    failed = 0
    tests = [value for name, value in globals().items() if name.startswith("test_")]
    if len(sys.argv) > 2:
        tests = [test for test in tests if test.__name__ in sys.argv[2:]]
    print(f"1..{len(tests)}")
    for number, test in enumerate(tests, 1):
        began = time.monotonic()
        try:
            test()
            print(f"ok {number} - {test.__name__} # {time.monotonic() - began:.1f} s", flush=True)
        except AssertionError as error:
            failed += 1
            text = str(error).replace("\n", "\n# ")
            print(f"not ok {number} - {test.__name__}\n# {text}", flush=True)
    return failed > 0


sys.exit(main())
