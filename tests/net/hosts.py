# SPDX-License-Identifier: MIT
"""Two hosts on one machine: network namespaces "source" and "destination", joined by veth pairs
through a third in which tests/net/link.c stands between them (delay, loss, cuts) and tc limits the
bandwidth. All of it lives in namespaces of this process alone and goes when that ends.

A program that imports this calls enter() first, which starts it again inside.
"""
import contextlib
import ctypes
import json
import multiprocessing
import os
import select
import socket
import subprocess
import sys
import threading

ADDRESSES = {"source": "10.47.0.1", "destination": "10.47.0.2"}
CLONE_NEWNET = 0x40000000
CLONE_NEWNS = 0x00020000
INSIDE = "QUIESCE_NET_INSIDE"


def enter():
    """Start this program again in a network and mount namespace of its own, once."""
    if os.environ.get(INSIDE):
        subprocess.run(["mount", "-t", "tmpfs", "hosts", "/run"], check=True)
        return
    os.environ[INSIDE] = "1"
    command = ["unshare", "--net", "--mount", "--pid", "--fork", "--kill-child", "--mount-proc"]
    if os.geteuid() != 0:
        command += ["--user", "--map-root-user"]
    os.execvp("unshare", [*command, sys.executable, *sys.argv])


def sh(*args):
    subprocess.run(args, check=True, stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL)


def side_by_side(workers, jobs, place=contextlib.nullcontext):
    """Call every job with what place() gives, in so many processes that each have networks of their
    own. Whoever is done takes the next.
    """
    taken = multiprocessing.Value("i", 0)

    def work():
        if ctypes.CDLL(None, use_errno=True).unshare(CLONE_NEWNET | CLONE_NEWNS) != 0:
            raise OSError(ctypes.get_errno(), "unshare")
        sh("mount", "-t", "tmpfs", "hosts", "/run")
        with place() as here:
            while True:
                with taken.get_lock():
                    number, taken.value = taken.value, taken.value + 1
                if number >= len(jobs):
                    return
                jobs[number](here)

    processes = [multiprocessing.Process(target=work) for _ in range(min(workers, len(jobs)))]
    for process in processes:
        process.start()
    for process in processes:
        process.join()
    if any(process.exitcode for process in processes):
        sys.exit(1)


class Hosts:
    """A context: two hosts and the cable between them."""

    def __init__(self, link):
        sh("ip", "link", "set", "lo", "up")
        sh("mkdir", "-p", "/run/netns")
        for host, address in ADDRESSES.items():
            inner, outer = f"v-{host[:6]}", f"c-{host[:6]}"
            sh("ip", "netns", "add", host)
            sh("ip", "link", "add", outer, "type", "veth", "peer", "name", inner, "netns", host)
            # What crosses a cable is whole frames with right checksums.
            for where, interface in ((["ip", "netns", "exec", host], inner), ([], outer)):
                sh(*where, "ethtool", "-K", interface, "tx", "off", "tso", "off",
                   "gso", "off", "gro", "off")
            sh("ip", "link", "set", outer, "up")
            for args in (["addr", "add", f"{address}/24", "dev", inner],
                         ["link", "set", inner, "up"], ["link", "set", "lo", "up"]):
                sh("ip", "-n", host, *args)
        self.introduce()
        self.link = subprocess.Popen([link, "c-source", "c-destin"], stdin=subprocess.PIPE,
                                     stdout=subprocess.PIPE, text=True, bufsize=1)
        self.was_cut = False
        self.expect("ready")

    @staticmethod
    def introduce():
        """Each knows the other for ever: after a cut a kernel that asks who is there and hears
        nothing says "no route to host" to whoever connects, for some time after it was mended.
        """
        for host, other in (("source", "destination"), ("destination", "source")):
            shown = subprocess.run(["ip", "-j", "-n", other, "link", "show", f"v-{other[:6]}"],
                                   check=True, stdout=subprocess.PIPE).stdout
            sh("ip", "-n", host, "neigh", "replace", ADDRESSES[other], "lladdr",
               json.loads(shown)[0]["address"], "dev", f"v-{host[:6]}", "nud", "permanent")

    def await_cut(self, over):
        """Until the cable says that it was cut where it should be, or over() is true."""
        while not self.was_cut and not over():
            if select.select([self.link.stdout], [], [], 0.1)[0]:
                self.expect("cut")

    def expect(self, word):
        """Read what the cable says; that it was cut may come in between."""
        while True:
            line = self.link.stdout.readline().strip()
            self.was_cut |= line == "cut"
            if line == word:
                return
            assert line == "cut", f"the cable said '{line}' where '{word}' was due"

    def cable(self, *orders):
        """Give the cable orders: "delay 20", "loss 10", "cut", "mend", "cut-after 1000", "cut-at 14"."""
        for order in orders:
            self.was_cut &= order != "mend"
            self.link.stdin.write(order + "\n")
            self.expect("ok")

    def bandwidth(self, bits):
        """Limit both ways ("200mbit"), or None for no limit."""
        for host in ADDRESSES:
            device = f"v-{host[:6]}"
            if bits:
                sh("ip", "netns", "exec", host, "tc", "qdisc", "replace", "dev", device, "root",
                   "tbf", "rate", bits, "burst", "128k", "latency", "100ms")
            else:
                subprocess.run(["ip", "netns", "exec", host, "tc", "qdisc", "del", "dev", device,
                                "root"], check=False, stderr=subprocess.DEVNULL)

    @staticmethod
    def on(host, *command):
        """The command line that runs a command on a host."""
        return ["ip", "netns", "exec", host, *command]

    @staticmethod
    def socket(host):
        """A TCP socket of a host, for this process."""
        made = []

        def make():
            # A thread changes hosts alone, and what it has made stays there.
            with open(f"/run/netns/{host}", "rb") as there:
                if ctypes.CDLL(None, use_errno=True).setns(there.fileno(), CLONE_NEWNET) == 0:
                    made.append(socket.socket(socket.AF_INET))

        thread = threading.Thread(target=make)
        thread.start()
        thread.join()
        return made[0]

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self.link.stdin.close()
        self.link.wait(timeout=10)
        for host in ADDRESSES:
            # With the namespace alone it would go some time later.
            sh("ip", "link", "delete", f"c-{host[:6]}")
            sh("ip", "netns", "delete", host)
