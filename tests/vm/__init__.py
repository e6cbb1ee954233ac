# SPDX-License-Identifier: MIT
"""Virtual machines for tests: Debian's packages out of a cache (debian), initial ramdisks (initramfs),
guests' consoles and QEMU processes (machine). A test imports it with tests/ in its path:

    kernel = debian.kernel("6.12")
    qemu = debian.qemu()
    with machine.Guest() as guest:
        guest.start(qemu, ["-kernel", kernel.unpacked, ...])
        guest.console.wait("ready")

The accelerator is TCG unless QUIESCE_VM_ACCEL says otherwise. Nothing is ever downloaded twice: what
was once had is used until QUIESCE_VM_REFRESH=1 asks for newer packages.
"""


class VmError(Exception):
    """What a test cannot go on without, in a sentence for people."""
