# SPDX-License-Identifier: MIT
"""What a guest's disks can be: QEMU's own; ours in the QEMU process; ours behind a vfio-user server in
another process."""
import itertools
import json
import subprocess

from rig import Devices
from vm import VmError, machine

NAMES = ("files", "blocks")
# How a QEMU is told which devices are its own: the argument of its -object, and what names one.
WAYS = {
    "fd": ("iommufd,id=iommufd0,fd={iommufd}", "iommufd=iommufd0,fd={{vfio{0}}}"),
    "host": ("iommufd,id=iommufd0", "iommufd=iommufd0,host={{host{0}}}"),
    "sysfsdev": ("iommufd,id=iommufd0", "iommufd=iommufd0,sysfsdev={{sysfs{0}}}"),
    "group": (None, "host={{host{0}}}"),
    "group-sysfsdev": (None, "sysfsdev={{sysfs{0}}}"),
}


class QemuDisks(Devices):
    """QEMU's own disks: what the rig itself is proved with."""

    modules = ("virtio_pci", "virtio_blk")

    def begin(self, name):
        arguments = []
        for i, image in enumerate(self.rig.images):
            arguments += ["-drive", f"file={image},if=none,id=disk{i},format=raw,cache=none",
                          "-device", f"virtio-blk-pci,drive=disk{i},serial={NAMES[i]}"]
        return [], arguments


class QuiesceDisks(Devices):
    """Our NVMe controllers, "files" and "blocks", in the place of the kernel's VFIO devices. `specs` are
    what they keep their blocks in, {0} being the image. Those in `served` are served by a process
    of their own. A single one has both the file system and the blocks. `faults` is what the
    servers make them do; QEMU's process, where there is none. Each QEMU gets them in the next of
    the `ways`."""

    modules = ("nvme",)

    def __init__(self, rig, specs=("file={0}", "file={0}"), served=(), flags=7, faults=(),
                 ways=("fd",)):
        super().__init__(rig)
        self.specs = [f"nvme,{spec},flags={flags},name={name},serial={name}"
                      for spec, name in zip(specs, NAMES)]
        self.served = served
        self.faults = [word for fault in faults for word in ("--fault", fault)]
        self.ways = itertools.cycle(ways)
        self.way_of = {}
        self.left = []  # the way of each QEMU that has ended by itself
        self.servers = {}
        self.reports = []
        if len(specs) == 1:
            # The file system leaves the end of its image free.
            self.blocks, self.offset = "files", rig.FILES_BYTES

    def begin(self, name):
        report = self.rig.guest.path(f"{name}.json")
        command = [self.rig.quiesce, "run", "--json", report]
        if not self.served:
            command += self.faults
        self.way_of[name] = next(self.ways)
        iommufd, way = WAYS[self.way_of[name]]
        arguments = ["-object", iommufd] if iommufd else []
        for i, spec in enumerate(self.specs):
            device = spec.format(self.rig.images[i])
            if NAMES[i] in self.served:
                device = self.serve(name, i, device)
            command += ["--device", device]
            arguments += ["-device", f"vfio-pci,id=disk{i},{way.format(i)},"
                          "enable-migration=on,migration-events=on"]
        return [*command, "--"], arguments

    def serve(self, name, i, spec):
        """A server of the device for this QEMU; its URI."""
        path = self.rig.guest.path(f"{name}.disk{i}")
        server = subprocess.Popen(
            [self.rig.quiesce, "serve", spec, "--socket", path, *self.faults],
            stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, text=True,
            preexec_fn=machine.end_with_parent)
        self.servers.setdefault(name, []).append(server)
        if not server.stdout.readline():
            raise VmError(f"no server of {spec}")
        return f"vfio-user:{path}"

    def end(self, vm):
        for server in self.servers.pop(vm.name, []):
            server.terminate()
            server.communicate()
            if server.returncode:
                raise VmError(f"a device server of {vm.name} ended with {server.returncode}")
        try:
            with open(self.rig.guest.path(f"{vm.name}.json"), encoding="utf-8") as file:
                self.reports.append(json.load(file))
            self.left.append(self.way_of[vm.name])
        except FileNotFoundError:
            pass  # it was killed
