# SPDX-License-Identifier: MIT
"""Debian's packages for virtual machines, unpacked into the cache. Nothing is installed: apt runs
with lists and a state of its own, on the mirrors that this system is configured for, and needs no
rights. Security and backports are had from the same mirrors even where the system names neither.
Signatures are those of Debian's archive keyring."""
import functools
import json
import os
import re
import shutil
import struct
import subprocess
from pathlib import Path

from . import VmError, cache

KEYRING = "/usr/share/keyrings/debian-archive-keyring.gpg"
# Of what a program depends on, these are this system's own: they belong to its dynamic linker.
HOST_OWN = {"libc6", "libgcc-s1", "gcc-12-base"}
# What this process has already asked the mirrors for.
LOOKED_UP = set()


def run(*command, environment=None, cwd=None):
    """The command's output; its failure is an exception with its own words."""
    done = subprocess.run(command, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE,
                          stderr=subprocess.PIPE, text=True, check=False, cwd=cwd,
                          env=dict(environment or os.environ, LC_ALL="C.UTF-8"))
    if done.returncode:
        said = (done.stderr.strip() or done.stdout.strip()).splitlines()[-6:]
        raise VmError(f"'{' '.join(map(str, command[:2]))}' failed: " + " ".join(said))
    return done.stdout


@functools.cache
def release():
    """Codename and architecture of this system."""
    lines = Path("/etc/os-release").read_text(encoding="utf-8").splitlines()
    fields = dict(line.split("=", 1) for line in lines if "=" in line)
    name = fields.get("VERSION_CODENAME", "").strip('"')
    if fields.get("ID", "").strip('"') != "debian" or not name:
        raise VmError("virtual machines for tests are made of Debian's packages: this is not Debian")
    return name, run("dpkg", "--print-architecture").strip()


class Apt:
    """apt with lists and a state of its own, in a folder of the cache."""

    def __init__(self):
        self.name, self.architecture = release()
        self.folder = cache.root() / f"apt-{self.name}-{self.architecture}"
        for part in ("state/lists/partial", "cache/archives/partial"):
            (self.folder / part).mkdir(parents=True, exist_ok=True)
        # Nothing counts as installed: what is had does not depend on what this system has.
        (self.folder / "status").touch()
        settings = {
            "Dir::State": self.folder / "state",
            "Dir::State::status": self.folder / "status",
            "Dir::Cache": self.folder / "cache",
            "Dir::Etc::sourcelist": self.folder / "sources.list",
            "Dir::Etc::sourceparts": "/dev/null",
            "Dir::Etc::preferences": "/dev/null",
            "Dir::Etc::preferencesparts": "/dev/null",
            "Acquire::Languages": "none",
            "Acquire::Retries": "3",
            "APT::Install-Recommends": "false",
            "APT::Get::AllowUnauthenticated": "false",
            "Debug::NoLocking": "true",
        }
        if os.geteuid() == 0:
            # The user that apt would become cannot enter root's home.
            settings["APT::Sandbox::User"] = "root"
        self.options = [word for key, value in settings.items() for word in ("-o", f"{key}={value}")]

    def mirrors(self):
        """Where this system gets its release and its security fixes from."""
        places = {}
        for line in run("apt-get", "update", "--print-uris").splitlines():
            found = re.match(r"'(\S+?)/?dists/([^/']+)/InRelease'", line)
            if found:
                places.setdefault(found[2], found[1].rstrip("/"))
        main = places.get(self.name)
        if not main:
            raise VmError(f"no source of this system's apt has the suite '{self.name}'; add one "
                          "to /etc/apt/sources.list")
        beside = main[:-len("/debian")] if main.endswith("/debian") else main
        return main, places.get(f"{self.name}-security", f"{beside}/debian-security")

    def update(self):
        """Fetch the lists; without a suite that cannot be had where the others can."""
        main, security = self.mirrors()
        suites = [(main, self.name), (main, f"{self.name}-updates"),
                  (security, f"{self.name}-security"), (main, f"{self.name}-backports")]
        line = f"deb [arch={self.architecture} signed-by={KEYRING}]"
        cache.write(self.folder / "sources.list",
                    "".join(f"{line} {where} {suite} main\n" for where, suite in suites))
        self.complaint = ""
        try:
            run("apt-get", *self.options, "-o", "APT::Update::Error-Mode=any", "update")
        except VmError as error:
            self.complaint = f" ({error})"

    def versions(self, names):
        """The newest version of each package, over all suites."""
        found = {}
        if not names:
            return found
        for line in run("apt-cache", *self.options, "madison", *names).splitlines():
            name, version = [part.strip() for part in line.split("|")[:2]]
            if name not in found or newer(version, found[name]):
                found[name] = version
        return found

    def newest(self, pattern, called):
        """Name and version of the newest package whose whole name matches the pattern."""
        names = run("apt-cache", *self.options, "pkgnames").split()
        found = self.versions([name for name in names if re.fullmatch(pattern, name)])
        if not found:
            raise VmError(f"no suite of Debian {self.name} on this system's mirrors has {called}"
                          f"{self.complaint}")
        best = next(iter(found))
        for name in found:
            if newer(found[name], found[best]):
                best = name
        return best, found[best]

    def download(self, name, version, depends):
        """Package files in the returned folder: one, or with everything it depends on."""
        archives = self.folder / "cache" / "archives"
        for old in archives.glob("*.deb"):
            old.unlink()
        suite = []
        if f"{self.name}-backports" in run("apt-cache", *self.options, "madison", name):
            suite = ["-t", f"{self.name}-backports"]
        if depends:
            run("apt-get", *self.options, *suite, "--yes", "--download-only", "install",
                f"{name}={version}")
        else:
            run("apt-get", *self.options, "download", f"{name}={version}", cwd=archives)
        return sorted(archives.glob("*.deb"))


def newer(one, other):
    return not subprocess.run(["dpkg", "--compare-versions", one, "gt", other],
                              check=False).returncode


def unpack(debs, folder):
    for deb in debs:
        if run("dpkg-deb", "--field", deb, "Package").strip() not in HOST_OWN:
            run("dpkg-deb", "--extract", deb, folder)
        deb.unlink()
    # A kernel's installation would make modules.dep: the package has none.
    for modules in [*folder.glob("lib/modules/*"), *folder.glob("usr/lib/modules/*")]:
        run(tool("depmod"), "-b", modules.parents[2], modules.name)


def package(pattern, depends=False, called=None):
    """The folder with the files of the newest package whose whole name matches the pattern, over the
    release, its updates, security and backports; with those of all it depends on if wanted. `called`
    says what there is not when there is none."""
    name, architecture = release()
    chosen = cache.root() / "chosen" / cache.key(name, architecture, pattern, depends)
    with cache.lock("apt"):
        if chosen.exists() and (chosen in LOOKED_UP or not os.environ.get("QUIESCE_VM_REFRESH")):
            folder = cache.root() / "packages" / json.loads(chosen.read_text())["folder"]
            if folder.is_dir():
                return folder
        apt = updated_apt()
        found, version = apt.newest(pattern, called or f"a package '{pattern}'")
        key = f"{found}_{version.replace(':', '%3a')}_{architecture}" + ("+" if depends else "")
        try:
            folder = cache.produce("packages", key, lambda making:
                                   unpack(apt.download(found, version, depends), making))
        except (VmError, OSError) as error:
            raise VmError(f"cannot have the Debian package {found} {version}: {error}"
                          f"{apt.complaint}") from error
        cache.write(chosen, json.dumps({"pattern": pattern, "folder": key}))
        LOOKED_UP.add(chosen)
        return folder


@functools.cache
def updated_apt():
    """apt with lists of today, once for a process."""
    apt = Apt()
    apt.update()
    return apt


# How a kernel is packed, by the first bytes, and who unpacks it.
PACKED = {b"\x28\xb5\x2f\xfd": ["zstd"], b"\xfd7zX": ["xz", "--single-stream"], b"\x1f\x8b": ["gzip"]}


def unpack_kernel(image, folder):
    """The program that a bzImage unpacks and jumps to, as an ELF file: where Documentation/arch/x86/boot.rst
    says it is."""
    data = image.read_bytes()
    start, size = struct.unpack_from("<II", data, 0x248)
    start += ((data[0x1f1] or 4) + 1) * 512
    # The last four bytes are its size.
    payload = data[start:start + size - 4]
    command = next(words for magic, words in PACKED.items() if payload.startswith(magic))
    (folder / "packed").write_bytes(payload)
    with open(folder / "vmlinux", "wb") as out:
        subprocess.run([tool(command[0]), *command[1:], "-dc", folder / "packed"], stdout=out,
                       check=True)
    (folder / "packed").unlink()


class Kernel:
    """A Debian kernel: its image (path), version, and the folder of its modules with modules.dep."""

    def __init__(self, root):
        self.root = root
        self.image = next((root / "boot").glob("vmlinuz-*"))
        self.version = self.image.name[len("vmlinuz-"):]
        self.config = root / "boot" / f"config-{self.version}"
        self.modules = next(path for path in (root / "lib/modules" / self.version,
                                              root / "usr/lib/modules" / self.version)
                            if path.is_dir())


    @functools.cached_property
    def unpacked(self):
        """The same image as QEMU starts it where a processor is emulated: unpacked already, which takes
        the guest a third of its boot. The image itself where it cannot be."""
        try:
            return cache.produce("kernels", self.root.name,
                                 functools.partial(unpack_kernel, self.image)) / "vmlinux"
        except (StopIteration, VmError, OSError, struct.error, subprocess.SubprocessError):
            return self.image


def kernel(version="6.12"):
    """The newest Debian kernel that begins with this version: "6.12", "6.1", "6.12.95"."""
    _, architecture = release()
    # Three numbers at least: with two it is a package that only depends on the newest.
    three = r"(?=\d+\.\d+\.\d)"
    return Kernel(package(rf"linux-image-{three}{re.escape(version)}(?![0-9])[0-9.+~a-z]*"
                          rf"(-[0-9]+)?-{architecture}", called=f"a kernel {version}"))


def tool(name):
    """The path of a program that may be outside an ordinary user's path."""
    found = shutil.which(name, path=os.environ.get("PATH", "") + ":/usr/sbin:/sbin")
    if not found:
        raise VmError(f"the program {name} is missing: run scripts/setup")
    return found


class Qemu:
    """An unpacked QEMU: the command that starts it (to be given more arguments), the environment it
    needs, its version (three numbers)."""

    def __init__(self, root, binary):
        self.binary = root / "usr/bin" / binary
        self.command = [str(self.binary)]
        for firmware in ("qemu", "seabios"):
            self.command += ["-L", str(root / "usr/share" / firmware)]
        folders = [root / "usr/lib/x86_64-linux-gnu", root / "lib/x86_64-linux-gnu"]
        self.environment = dict(os.environ, LD_LIBRARY_PATH=":".join(map(str, folders)))
        said = run(self.binary, "--version", environment=self.environment)
        self.version = tuple(map(int, re.search(r"version (\d+)\.(\d+)\.(\d+)", said).groups()))


def qemu():
    """The newest QEMU for x86 that Debian has for this release, backports included."""
    return Qemu(package("qemu-system-x86", depends=True), "qemu-system-x86_64")


def busybox():
    """The path of a busybox that needs no library."""
    return package("busybox-static") / "bin/busybox"
