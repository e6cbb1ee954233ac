# SPDX-License-Identifier: MIT
"""What kernels do against the contract: what is known of it, what a run has seen, and the document that
says both. The document is written from here, and a run compares it with what it saw."""
import datetime
import re
import textwrap

# Identifier, clause, what the contract says and the kernel does, what the client does about it.
KNOWN = [
    ("precopy-end", "SESS-3", "A drained PRE_COPY reads as the end of the stream",
     "``read()`` of a PRE_COPY session that has nothing for now returns 0, which is the end of a "
     "stream, and not ENOMSG.",
     "Takes 0 for the end in STOP_COPY only, and for ENOMSG in the PRE_COPY states."),
    ("poll-always", "SESS-3", "The session is always ready for poll()",
     "The driver has no poll operation, so ``poll()`` says readable whether there is data or not.",
     "Reads first, and waits with ``poll()`` only after EAGAIN; one that is ready again and again "
     "without data is asked once a millisecond, with a limit."),
    ("precopy-flags", "SESS-4", "Pre-copy info hands the caller's flags back",
     "The flags of VFIO_MIG_GET_PRECOPY_INFO are an output, and come back as they were passed in.",
     "Passes none, and opts in to VFIO_DEVICE_FEATURE_MIG_PRECOPY_INFOv2 where it exists."),
    ("set-echo", "STATE-4", "A refused request answers with the state that was asked for",
     "After a failed SET of the device state the structure still has the requested state in it.",
     "Reads the state after every failure (ORD-4)."),
    ("session-lost", "SESS-9", "Without a free descriptor the state changes and the session is lost",
     "The kernel looks for a descriptor only after the driver has changed its state.",
     "Looks for a descriptor first, and refuses with the state unchanged; if another thread takes "
     "it in between, brings the device back to where it was."),
    ("reset-keeps", "ARC-5", "A reset leaves registers as they were",
     "mtty's reset ends its migration and leaves its registers.",
     "Nothing: what a device's reset does is the driver's. ``quiesce check`` allows for it."),
    ("stopped-writes", "DEV-7", "Register writes reach a stopped device, and what it saves",
     "A write in STOP_COPY lands in the register, and a second save has another stream (DEV-3).",
     "Discards register accesses of a stopped device: reads give all ones, writes vanish, and "
     "mappings are taken away."),
    ("rejected-runs", "SESS-6", "A stream that was refused is run once it is long enough",
     "The write of a wrong header fails, but counts; after the rest of the stream the device leaves "
     "RESUMING and runs.",
     "After a failed write shows ERROR instead of leaving RESUMING, until a reset."),
    ("incomplete", "SESS-6", "An incomplete stream", "RESUMING is left with an incomplete stream.", ""),
    ("log-probe", "LOG-1", "The probe promises a dirty log that does not work",
     "A kernel built without IOMMUFD_DRIVER answers the probe of "
     "VFIO_DEVICE_FEATURE_DMA_LOGGING_REPORT and starts the log, and then cannot report.",
     "Starts, reports and stops once when a device is opened, and believes that."),
    ("log-twice", "LOG-3", "A dirty log is started twice",
     "A second start while the log runs succeeds, as does a stop while none runs.",
     "Knows whether a log runs: EBUSY and EINVAL."),
    ("trigger-stopped", "DEV-2", "A trigger in STOP is delivered at once",
     "An interrupt that the user triggers while the device is stopped arrives, and is not held.",
     "Holds triggers until the device runs, and drops them with a reset."),
    ("state-kept", "STATE-5", "The state outlives the user",
     "A device that is let go in STOP_COPY is in STOP_COPY for its next user, registers and all.",
     "Resets when it lets go, and at open a device that is in another state than RUNNING."),
    ("load-abandoned", "ORD-9", "A load that was let go crashes the kernel",
     "The session ends with its user, the state stays RESUMING, and the next user's request for STOP "
     "loads from a session that is gone.",
     "Resets before it lets go of a device in RESUMING, and one that was killed there leaves it to "
     "the next open, which resets before anything else."),
]
# What `quiesce check vfio:…,raw` must say of each, not knowing of them: the clause that it finds broken, or
# why it cannot.
CHECKED = {
    "precopy-end": "SESS-3",
    "poll-always": "the interface of a device has no ``poll()``",
    "precopy-flags": "the client passes no flags; a program sees it that does",
    "set-echo": "the answer to a failed request is not part of the interface: only its errno is, and the "
                "state is asked for",
    "session-lost": "SESS-9",
    "reset-keeps": "it sees that a reset leaves the register, and judges nothing by that register after one: "
                   "no clause is about it",
    "stopped-writes": "DEV-7",
    "rejected-runs": "SESS-6",
    "log-probe": "the device has no dirty log then",
    "log-twice": "LOG-3",
    "trigger-stopped": "DEV-2",
    "state-kept": "STATE-5",
    "load-abandoned": "not without ``--dangerous``: the kernel crashes",
}
WAYS = {"cdev": "with device files and iommufd (VFIO of the same source, these options on)",
        "legacy": "as Debian builds it (groups and containers)"}


class Seen:
    """What a run has seen, by way and finding."""

    def __init__(self, kernel):
        self.kernel = kernel
        self.way = None
        self.verdicts = {}
        self.words = {}
        self.tried = {}

    def verdict(self, name, deviates):
        self.verdicts[self.way, name] = deviates

    def said(self, name, text):
        self.words.setdefault((self.way, name), []).append(text)

    def checked(self, text):
        """A line of TAP, without number and device."""
        ok, item, why = re.fullmatch(r"(ok|not ok) ([\w-]+)(?: # SKIP|:) (.*)", text).groups()
        self.tried[self.way, item] = why if ok == "not ok" else None

    def broken(self, item):
        """In which ways of access, and what was said."""
        return {way: self.tried[way, item] for way in WAYS if self.tried.get((way, item))}

    def ways(self, name, verdict=True):
        return [way for way in WAYS if self.verdicts.get((way, name)) is verdict]


HEAD = """.. SPDX-License-Identifier: MIT
.. Written by tests/kernel/run --update, from tests/kernel/findings.py and from what it saw.

What kernels do against the contract
====================================

``tests/kernel/run`` asks a Debian kernel and its sample device mtty what the
:doc:`contract <contract>` says, without our client. Below is each place where they differ, the calls
that show it, and what the client does about it. A run compares what it sees with this page and
fails where they differ.

Seen with {version} ({package}) on {date}.
"""


def heading(text, line):
    return f"{text}\n{line * len(text)}\n"


def fill(text):
    return textwrap.fill(text, 100, break_long_words=False, break_on_hyphens=False)


def render(seen):
    """The document of what was seen."""
    parts = [HEAD.format(version=seen.kernel.version, package=package(seen.kernel),
                         date=datetime.date.today().isoformat())]
    parts.append("\n".join(f"* {way}: {text}" for way, text in WAYS.items()) + "\n")
    held = []
    for name, clause, title, what, client in KNOWN:
        ways = seen.ways(name)
        if not ways:
            held.append(f"* {clause}, {title.lower()}: {', '.join(seen.ways(name, False))}")
            continue
        words = "\n".join(f"   {line}" for line in seen.words.get((ways[0], name), []))
        parts.append(heading(f"{clause}: {title}", "-"))
        parts.append(fill(f"*{name}*, {' and '.join(ways)}. {what}") + "\n\n"
                     f".. code-block:: text\n\n{words}\n\n"
                     + fill(f"The client: {client[0].lower()}{client[1:]}") + "\n")
    parts.append(render_checked(seen))
    parts.append(heading("What was looked for and is not so", "-"))
    parts.append("\n".join(held) + "\n")
    return "\n".join(parts)


CHECK_HEAD = """What the checker finds by itself
--------------------------------

``quiesce check vfio:…,raw --register 0:7:1`` is told nothing of all this, only where mtty's scratch
register is (:doc:`check-your-device`). Which of the above it must find broken, and does:

.. list-table::
   :header-rows: 1
   :widths: 20 80

   * - finding
     - the checker
"""


def row(first, second):
    return f"   * - {first}\n     - {second}\n"


def render_checked(seen):
    """What `quiesce check` saw of it, in two tables."""
    text = CHECK_HEAD
    for name, verdict in CHECKED.items():
        if seen.ways(name):
            text += row(name, f"finds {verdict} broken" if verdict.isupper()
                        else f"cannot see it: {verdict}")
    text += ("\nAll that it finds broken, and what it says:\n\n.. list-table::\n   :header-rows: 1\n"
             "   :widths: 20 15 65\n\n   * - item\n     - devices\n     - seen\n")
    for item in dict.fromkeys(item for _, item in seen.tried):
        for way, why in seen.broken(item).items():
            text += f"   * - {item}\n     - {way}\n     - {why}\n"
    return text


def rediscovered(seen):
    """Pairs of whether the checker found a deviation, and a name."""
    for name, verdict in CHECKED.items():
        ways = seen.ways(name) if verdict.isupper() else []
        if name == "log-twice":
            # One that cannot report is none to the client, whichever way it is opened.
            ways = [way for way in ways if way not in seen.ways("log-probe")]
        for way in ways:
            yield way in seen.broken(verdict), f"{way}: the checker finds {name} by {verdict}"


def package(kernel):
    """Name and version of the package."""
    return kernel.root.name.rsplit("_", 1)[0].replace("_", " ").replace("%3a", ":")


def plain(text):
    """Without the line that tells when."""
    return re.sub(r"^Seen with .*$", "Seen", text, flags=re.M)


def compare(seen, document):
    """Pairs of whether it holds, and a name."""
    known = {name for name, *_ in KNOWN}
    names = {name for _, name in seen.verdicts}
    yield names <= known, f"every finding is known: {' '.join(sorted(names - known)) or 'all'}"
    yield from rediscovered(seen)
    written = document.read_text(encoding="utf-8") if document.exists() else ""
    series = re.search(r"^Seen with (\d+\.\d+)", written, re.M)
    if series and not seen.kernel.version.startswith(series[1] + "."):
        yield True, f"findings of another series than {series[1]} are not compared"
        return
    same = plain(render(seen)) == plain(written)
    if not same:
        here = plain(render(seen)).splitlines()
        there = plain(written).splitlines()
        for line in here:
            if line not in there:
                print(f"# seen, not written: {line}")
        for line in there:
            if line not in here:
                print(f"# written, not seen: {line}")
    yield same, "docs/kernel-findings.rst says what was seen"
