# SPDX-License-Identifier: MIT
"""What a guest's disks can be: QEMU's own; ours in the QEMU process; ours behind a vfio-user server in
another process."""
import json
import subprocess

from rig import Devices
from vm import VmError, machine


class QemuDisks(Devices):
    """QEMU's own disks: what the rig itself is proved with."""

    modules = ("virtio_pci", "virtio_blk")
    files, blocks = "/dev/vda", "/dev/vdb"

    def begin(self, name):
        arguments = []
        for i, image in enumerate(self.rig.images):
            arguments += ["-drive", f"file={image},if=none,id=disk{i},format=raw,cache=none",
                          "-device", f"virtio-blk-pci,drive=disk{i}"]
        return [], arguments
