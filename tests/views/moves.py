# SPDX-License-Identifier: MIT
"""Migrations made up for the tests of the views: what a recording of one would say."""

PARTS = ("pause", "quiesce", "stop", "collect", "transfer", "load", "commit", "run")
MIB = 1 << 20


def phase(name, device, start, duration, moved=0, count=1):
    return {"name": name, "device": device, "start_us": int(start), "duration_us": int(duration),
            "bytes": int(moved), "count": count}


def sample(name, elapsed, sent, left, number=1, rate=0, dirty=0, predicted=0):
    return {"phase": name, "pass": number, "elapsed_us": int(elapsed), "bytes_sent": int(sent),
            "bytes_remaining": int(left), "bytes_per_second": int(rate),
            "dirty_per_second": int(dirty), "predicted_downtime_us": int(predicted)}


def downtime(values):
    entry = {f"{name}_us": int(value) for name, value in zip(PARTS, values)}
    entry["total_us"] = sum(entry.values())
    return entry


def precopy(devices, seconds, passes):
    """Each pass is half as long as the one before it, and predicts a shorter stop."""
    phases = [phase("negotiate", None, 300, 4000), phase("log-start", None, 4400, 600),
              phase("start-precopy", None, 5200, 900)]
    phases += [phase("start-precopy", i, 5200 + i, 700) for i in range(devices)]
    samples = [sample("negotiate", 300, 0, 0, 0)]
    at, sent, left = 6500, 0, 800 * MIB * seconds / 2
    length = seconds * 1e6 / 2
    for number in range(1, passes + 1):
        for i in range(devices):
            phases.append(phase("precopy", i, at + 10 * i, length / (2 + i % 3), 4 * MIB / number))
        phases.append(phase("precopy-memory", None, at, length, left))
        for step in range(10):
            part = step / 10
            samples.append(sample("pre-copy", at + part * length, sent + part * left,
                                  left * (1 - part / 2), number, 800 * MIB, 400 * MIB,
                                  0 if number == 1 else seconds * 1e6 / 2 ** number + 9000))
        sent, left, at, length = sent + left, left / 2, at + length, length / 2
    phases.append(phase("precopy", None, 6500, at - 6500, sent))
    return phases, samples, at, sent


def stop(devices, at):
    """Twenty milliseconds, of which the devices take a little more each."""
    phases = [phase("pause", None, at, 600), phase("quiesce", None, at + 700, 1100),
              phase("stop", None, at + 1900, 2900), phase("stopped", None, at + 4850, 100),
              phase("user-state", None, at + 5000, 60, 4096),
              phase("final-memory", None, at + 5100, 3000, 24 * MIB),
              phase("load", None, at + 14300, 1900), phase("commit", None, at + 16300, 3700)]
    for i in range(devices):
        part = (i + 1) / devices
        phases += [phase("quiesce", i, at + 700, 200 + 900 * part),
                   phase("stop", i, at + 1900, 400 + 2500 * part),
                   phase("stop-copy", i, at + 5100, 2000 + 7000 * part, 4 * MIB)]
    return phases


def good(devices=4, seconds=2, passes=6):
    phases, samples, at, sent = precopy(devices, seconds, passes)
    samples.append(sample("stop", at, sent, 0, passes))
    return {
        "verb": "send", "transport": "tcp:venus.example:7000", "host": "mars.example",
        "started_at": 1800000000, "memory_bytes": 4096 * MIB, "downtime_limit_us": 300000,
        "bandwidth": 0, "plan": "every device has P2P, so all are made quiescent natively",
        "ended": True, "result": "ok", "error": None,
        "devices": [{"name": f"nic{i}", "uri": f"vfio-user:/run/nic{i}", "flags": 7}
                    for i in range(devices)],
        "phases": sorted(phases + stop(devices, at), key=lambda entry: entry["start_us"]),
        "samples": samples,
        "report": {
            "owner": "destination", "total_us": int(at + 21000), "waited_us": 0, "downtime_us": 20000,
            "memory_bytes": int(sent) + 24 * MIB, "device_bytes": devices * 9 * MIB,
            "stop_bytes": (24 + 4 * devices) * MIB, "passes": passes,
            "predicted": downtime((500, 1000, 2500, 200, 9000, 2000, 800, 2500)),
            "measured": downtime((700, 1100, 2950, 150, 9300, 1900, 900, 3000)),
            "prediction_error_permille": 75,
            "outcome": "the destination runs; the source's devices are stopped and may be closed",
        },
    }


def failed(devices=4):
    """Cancelled in pre-copy: no stop, nothing predicted for it."""
    move = good(devices)
    at = next(entry["start_us"] for entry in move["phases"] if entry["name"] == "pause")
    move["phases"] = [entry for entry in move["phases"] if entry["start_us"] < at]
    move["samples"] = move["samples"][:-1]
    move["report"].update(
        owner="source", downtime_us=0, stop_bytes=0, measured=downtime([0] * 8),
        predicted=downtime([0] * 8), prediction_error_permille=0,
        outcome="the migration failed and changed nothing: the source's devices run; mend the "
                "cause and try again")
    move["result"] = "failed"
    move["error"] = {"errno": 62, "clause": "",
                     "text": "device 'nic1' writes 900 MiB/s and the link carries 800 MiB/s"}
    return move
