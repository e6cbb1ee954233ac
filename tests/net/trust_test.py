#!/usr/bin/env python3
# SPDX-License-Identifier: MIT
"""Between hosts: who is not to be trusted is refused on both sides, with a sentence, before any
device is touched; and whoever connects beside a source, whatever it says, does not hinder it.

	trust_test.py TOOL LINK
"""
import contextlib
import re
import socket
import struct
import subprocess
import sys

import hosts
import moving

WAIT_MS = 120000  # for the right source, which comes after all the others


# ---- certificates and keys ----

class Pki:
    """An authority and what it has signed; and another one, of which nobody has heard."""

    def __init__(self, folder):
        self.folder = folder
        for authority in ("ours", "theirs"):
            self.key(authority)
            self.certtool(authority, "--generate-self-signed", "ca", "cert_signing_key")
        self.sign("destination", "ours", f'ip_address = "{moving.ADDRESS}"')
        self.sign("source", "ours", 'dns_name = "source.example"')
        self.sign("stranger", "theirs", 'dns_name = "source.example"',
                  f'ip_address = "{moving.ADDRESS}"')
        self.sign("elsewhere", "ours", 'dns_name = "elsewhere.example"')
        for name, names in (("", 'dns_name = "source.example"'),
                            ("-destination", f'ip_address = "{moving.ADDRESS}"')):
            self.sign(f"old{name}", "ours", names, 'activation_date = "2001-01-01 00:00:00"',
                      'expiration_date = "2002-01-01 00:00:00"')
            self.sign(f"young{name}", "ours", names, 'activation_date = "2090-01-01 00:00:00"',
                      'expiration_date = "2091-01-01 00:00:00"')
        for name, user in (("psk", "mover"), ("psk-wrong", "mover"), ("psk-unknown", "nobody")):
            subprocess.run(["psktool", "-u", user, "-p", self.path(name)], check=True,
                           stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)

    def path(self, name):
        return str(self.folder / name)

    def key(self, name):
        self.run("--generate-privkey", "--key-type", "ecdsa", "--curve", "secp256r1",
                 "--outfile", self.path(f"{name}.key"))

    def sign(self, name, authority, *lines):
        self.key(name)
        self.certtool(name, "--generate-certificate", "tls_www_client", "tls_www_server",
                      "signing_key", *lines, authority=authority)

    def certtool(self, name, what, *lines, authority=None):
        with open(self.path(f"{name}.cfg"), "w", encoding="ascii") as template:
            template.write("\n".join([f'cn = "{name}"', *lines]) + "\n")
        self.run(what, "--load-privkey", self.path(f"{name}.key"), "--template",
                 self.path(f"{name}.cfg"), "--outfile", self.path(f"{name}.pem"),
                 *(["--load-ca-certificate", self.path(f"{authority}.pem"),
                    "--load-ca-privkey", self.path(f"{authority}.key")] if authority else []))

    @staticmethod
    def run(*args):
        subprocess.run(["certtool", *args], check=True, stdin=subprocess.DEVNULL,
                       stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)

    def shows(self, name, trusts="ours", **more):
        """Options of a side with a certificate."""
        return {"tls_ca": self.path(f"{trusts}.pem"), "tls_cert": self.path(f"{name}.pem"),
                "tls_key": self.path(f"{name}.key"), **more}

    def knows(self, name):
        """Options of a side with a pre-shared key."""
        return {"psk_file": self.path(name)}


# ---- refusals ----

class Waiting:
    """A destination that waits for long."""

    def __init__(self, here, scheme, **keys):
        self.host = here.host("destination", "--empty")
        self.receive = moving.receive(self.host, scheme, stall_timeout_ms=WAIT_MS, **keys)
        self.seen()

    def touched(self):
        return [device.touched() for device in self.host.world.devices["destination"]]

    def seen(self):
        """What it says from now on is news, and so is what happens to its devices."""
        self.before = len(self.host.log), self.touched()


def refused(source, there, said, log, **options):
    """A send that comes to nothing: what it says, and what the destination's log says."""
    there.seen()
    send = moving.send(source, there.receive, **options)
    assert send.end()["code"] == 1, f"{send.code}: {send.text}"
    assert re.search(said, send.text), f"no '{said}': {send.text}"
    assert "the source's devices run" in send.text and send.phase() == "negotiate", send.text
    assert source.state() == "running"
    there.host.says(log, there.before[0])
    assert there.touched() == there.before[1], "a device of the destination was touched"
    assert there.receive.ended is None, there.receive.text


def let_in(here, source, there, **options):
    """The right source, after all that."""
    send = moving.send(source, there.receive, exceed=True, **options)
    states = moving.judge(send, there.receive, moving.HANG)
    assert states == ("empty", "running"), send.text
    moving.verify(send, there.receive)
    here.restore()


def check_x509_sources(here, pki):
    there = Waiting(here, "tls", **pki.shows("destination", tls_peer="source.example"))
    source = here.host("source")
    unsigned, mixed = "is not signed by an authority", "use certificates, or both pre-shared keys"
    for options, said, log in (
            (pki.shows("stranger"), "refuses our certificate", unsigned),
            (pki.shows("old"), "refuses our certificate.*expired", "has expired on"),
            (pki.shows("young"), "refuses our certificate.*not valid yet", "is not valid before"),
            (pki.shows("elsewhere"), "refuses our certificate", "does not bear the name"),
            (pki.shows("source", trusts="theirs"), unsigned, "refuses our certificate"),
            (pki.shows("source", tls_peer="elsewhere.example"), "does not bear the name",
             "refuses our certificate"),
            (pki.knows("psk"), mixed, mixed),
            ({"scheme": "tcp", **moving.PLAIN}, ".", "does not speak TLS")):
        refused(source, there, said, log, **options)
    let_in(here, source, there, **pki.shows("source"))


def check_no_certificate(here, pki):
    """One that shows none is refused where it begins, and by the destination."""
    there = Waiting(here, "tls", **pki.shows("destination"))
    source = here.host("source")
    send = moving.send(source, there.receive, tls_ca=pki.path("ours.pem"))
    assert send.end()["code"] == 2 and "needs a certificate" in send.text, send.text
    port = there.receive.address.split(":")[-1]
    bare = subprocess.run(
        hosts.Hosts.on("source", "gnutls-cli", "--x509cafile", pki.path("ours.pem"), "--port",
                       port, moving.ADDRESS),
        input=b"x" * 40, capture_output=True, timeout=moving.HANG, check=False)
    assert b"ertificate" in bare.stdout + bare.stderr, bare
    there.host.says("shows no certificate")
    assert there.touched() == there.before[1]
    let_in(here, source, there, **pki.shows("source"))


def check_destinations(here, pki):
    """A right source and a destination that is not what it should be: the source refuses it."""
    source = here.host("source")
    for shows, said in (("stranger", "is not signed by an authority"),
                        ("old-destination", "has expired on"),
                        ("young-destination", "is not valid before"),
                        ("elsewhere", "does not bear the name")):
        there = Waiting(here, "tls", **pki.shows(shows))
        refused(source, there, said, "refuses our certificate", **pki.shows("source"))
        there.host.close()
        here.open.remove(there.host)
    there = Waiting(here, "tcp", **moving.PLAIN)
    refused(source, there, "TLS", "no channel of a migration", scheme="tls", **pki.shows("source"))
    let_in(here, source, there, **moving.PLAIN)


def check_psk(here, pki):
    there = Waiting(here, "tls", **pki.knows("psk"))
    source = here.host("source")
    mixed = "use certificates, or both pre-shared keys"
    for options, said, log in (
            (pki.knows("psk-wrong"), "is not the one in", "is not the one in"),
            (pki.knows("psk-unknown"), "does not know our identity", "is not in"),
            (pki.shows("source"), mixed, mixed)):
        refused(source, there, said, log, **options)
    let_in(here, source, there, **pki.knows("psk"))


# ---- strangers ----

def connect(there):
    made = hosts.Hosts.socket("source")
    made.settimeout(moving.HANG)
    made.connect((moving.ADDRESS, int(there.address.split(":")[-1])))
    return made


def hello(number, channels):
    """The first frame of a source (src/migrate/frame.h), but for its digest, or any nonsense."""
    return struct.pack("<IIIIQQQ", 1, 0, 0, 0x20000, number, 0x43455351 << 32 | channels, 0)


def check_strangers(here, pki):
    """They come before the source and stay, and the source is let in all the same."""
    for scheme, keys, right in (("tcp", moving.PLAIN, moving.PLAIN),
                                ("tls", pki.shows("destination"), pki.shows("source"))):
        there = Waiting(here, scheme, **keys)
        source = here.host("source")
        strangers = [connect(there.receive) for _ in range(40)]
        for i, stranger in enumerate(strangers[:32]):
            say = (b"", b"x" * 40, b"GET / HTTP/1.1\r\n\r\n" + b" " * 40, hello(i, 3),
                   b"\x16\x03\x01\x02\x00", bytes(100000), hello(i, 3)[:39],
                   b"\xff" * 4096)[i % 8]
            with contextlib.suppress(OSError):  # it may be refused already
                stranger.sendall(say)
                if i % 3 == 0:
                    stranger.shutdown(socket.SHUT_WR)
        let_in(here, source, there, **right)
        for stranger in strangers:
            stranger.close()


CHECKS = (check_x509_sources, check_no_certificate, check_destinations, check_psk,
          check_strangers)


def main(tool, link):
    hosts.enter()
    with moving.world(tool, link, traced=True) as here:
        pki = Pki(here.folder)
        for check in CHECKS:
            began = moving.time.monotonic()
            check(here, pki)
            print(f"{check.__name__}: {moving.time.monotonic() - began:.1f} s", flush=True)


if __name__ == "__main__":
    main(*sys.argv[1:])
