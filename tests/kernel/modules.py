# SPDX-License-Identifier: MIT
"""Modules of a Debian kernel that Debian does not build: the sample device mtty, and, from 6.6 on, VFIO
once more with device files and iommufd, which Debian leaves out. They are made of Debian's own
source package of that kernel against its headers; nothing of the kernel is kept in this repository.
The result is cached by the kernel's version and by this file."""
import os
import re
import shutil
import subprocess
from pathlib import Path

from vm import VmError, cache, debian

# What of the source is needed.
SAMPLES = "samples/vfio-mdev"
SOURCES = ("drivers/iommu/iommu-priv.h", "drivers/iommu/iommufd", "drivers/vfio",
           "lib/interval_tree.c", SAMPLES)
# What is part of the kernel's image where the options are on rides in iommufd here.
TOP = "obj-m += drivers/iommu/iommufd/ drivers/vfio/ samples/vfio-mdev/\n"
RIDE = "iommufd-y += iova_bitmap.o interval_tree_span.o\n"
SPAN = """#include <linux/export.h>
#undef EXPORT_SYMBOL_GPL
#define EXPORT_SYMBOL_GPL(name)
#include "../../../lib/interval_tree.c"
"""
MTTY = {"CONFIG_SAMPLE_VFIO_MDEV_MTTY": "m"}
OPTIONS = {
    "CONFIG_IOMMUFD": "m",
    "CONFIG_VFIO_DEVICE_CDEV": "y",
    # Headers only: see RIDE.
    "CONFIG_IOMMUFD_DRIVER": None,
    "CONFIG_INTERVAL_TREE_SPAN_ITER": None,
}


def numbers(version):
    return tuple(map(int, re.match(r"(\d+)\.(\d+)", version).groups()))


def has_device_files(kernel):
    """Whether the source has what the way through device files needs."""
    return numbers(kernel.version) >= (6, 6)


def link_all(source, folder, but=()):
    folder.mkdir(parents=True)
    for entry in source.iterdir():
        if entry.name not in but:
            (folder / entry.name).symlink_to(entry)


def headers(kernel, folder):
    """The kernel's build folder: Debian's three packages for it put together, without installing."""
    own = debian.package(re.escape(f"linux-headers-{kernel.version}"))
    abi = kernel.version.rsplit("-", 1)[0]
    common = debian.package(re.escape(f"linux-headers-{abi}-common"))
    series = re.escape("%d.%d" % numbers(kernel.version))
    kbuild = debian.package(f"linux-kbuild-({re.escape(abi)}|{series})")
    tools = next((kbuild / "usr/lib").glob("linux-kbuild-*"))
    source, build = folder / "source", folder / "build"
    # Without vmlinux: it is there for debug information alone, which costs time.
    link_all(common / f"usr/src/linux-headers-{abi}-common", source, ("scripts", "tools"))
    link_all(own / f"usr/src/linux-headers-{kernel.version}", build,
             ("scripts", "tools", "Makefile", "vmlinux"))
    for place in (source, build):
        for name in ("scripts", "tools"):
            (place / name).symlink_to(tools / name)
    (build / "Makefile").write_text(f"include {source}/Makefile\n")


def extract(kernel, folder):
    """The parts of the kernel's source that are compiled."""
    package = debian.package(re.escape("linux-source-%d.%d" % numbers(kernel.version)))
    archive = next((package / "usr/src").glob("linux-source-*.tar.xz"))
    debian.run("tar", "--extract", "--file", archive, "--directory", folder, "--wildcards",
               "--strip-components=1", *(f"linux-source-*/{name}" for name in
                 (SOURCES if has_device_files(kernel) else [SAMPLES])))


def compile_in(kernel, folder, linux, options, top):
    """Compile the modules that `top` names, with the sources in `folder`."""
    defines = ["-D" + name + ("_MODULE=1" if value == "m" else "=1")
               for name, value in options.items()]
    (folder / "Kbuild").write_text(f"subdir-ccflags-y += {' '.join(defines)}\n{top}")
    command = ["make", "-s", "-C", str(linux / "build"), f"M={folder}", f"-j{os.cpu_count()}",
               *(f"{name}={value}" for name, value in options.items() if value), "modules"]
    done = subprocess.run(command, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE,
                          stderr=subprocess.STDOUT, text=True, check=False)
    if done.returncode:
        raise VmError(f"the modules of kernel {kernel.version} do not compile:\n{done.stdout}")


def keep(work, folder):
    """Keep the modules, without what is only for debugging."""
    folder.mkdir()
    for module in work.rglob("*.ko"):
        debian.run("strip", "--strip-debug", module)
        module.rename(folder / module.name.replace("-", "_"))


def make(kernel, folder):
    work, stock, linux = folder / "work", folder / "work-stock", folder / "linux"
    work.mkdir()
    extract(kernel, work)
    headers(kernel, linux)
    shutil.copytree(work / SAMPLES, stock / SAMPLES)
    compile_in(kernel, stock, linux, MTTY, f"obj-m += {SAMPLES}/\n")
    keep(stock, folder / "stock")
    if has_device_files(kernel):
        makefile = work / "drivers/iommu/iommufd/Makefile"
        makefile.write_text(makefile.read_text() + RIDE)
        (makefile.parent / "interval_tree_span.c").write_text(SPAN)
        compile_in(kernel, work, linux, {**MTTY, **OPTIONS}, TOP)
        keep(work, folder / "cdev")
    debian.run("rm", "-rf", work, stock, linux)


def build(kernel):
    """A folder with two: `stock` has mtty for the kernel as it is, and `cdev`, from 6.6 on, VFIO with
    device files and mtty for that."""
    key = f"{kernel.version}-" + cache.key(kernel.image.parents[1].name,
                                           Path(__file__).resolve())
    return cache.produce("kernel-modules", key, lambda folder: make(kernel, folder))
