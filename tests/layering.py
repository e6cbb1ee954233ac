#!/usr/bin/env python3
# SPDX-License-Identifier: MIT
"""The tree is the architecture: every #include must be one that src/LAYERS allows.

A module may include itself and the modules it names; a public header counts as the module of its
name. Leaves (tools, models, preload, bench, docs) may include public headers, the kernel's interface
(abi) and their own folder.
Tests beside their source may include anything their module may, and the models they try it with.
"""
import pathlib
import re
import sys

INCLUDE = re.compile(r'^\s*#\s*include\s+(?:"([^"]+)"|<([^>]+)>)', re.M)
LEAVES = ("tools", "models", "preload", "bench", "docs")
PUBLISHED = "abi"  # by the kernel: no secret of ours


def read_layers(path):
    layers = {}
    for line in path.read_text().splitlines():
        line = line.split("#")[0].strip()
        if line:
            module, _, uses = line.partition(":")
            layers[module.strip()] = uses.split()
    return layers


def cycle(layers):
    done = set()
    for module, uses in layers.items():
        for used in uses:
            if used not in done:
                return f"src/LAYERS: {module} uses {used}, which does not stand above it"
        done.add(module)
    return None


def includes(text, layers):
    """What it includes of ours; what the system has stands in angle brackets and is no module's."""
    return [quoted or angled for quoted, angled in INCLUDE.findall(text)
            if quoted or angled.split("/")[0] in {"quiesce", *layers}]


def module_of(include, own):
    if include.startswith("quiesce/"):
        return include.split("/")[1].removesuffix(".h")
    return include.split("/")[0] if "/" in include else own


def leaf_may(include, layers):
    """Its own folder's files and those of other leaves, but by no way around the public headers."""
    parts = include.split("/")
    return "src" not in parts and parts[0] not in layers.keys() - {PUBLISHED}


def check(root):
    layers = read_layers(root / "src" / "LAYERS")
    problems = [p for p in [cycle(layers)] if p]
    modules = {p.name for p in (root / "src").iterdir() if p.is_dir()}
    for name in sorted(modules ^ set(layers)):
        problems.append(f"src/LAYERS and the folders of src/ differ in: {name}")
    files = list((root / "src").rglob("*.[ch]")) + list((root / "include").rglob("*.h"))
    for path in sorted(files):
        own = path.stem if "include" in path.parts else path.relative_to(root / "src").parts[0]
        allowed = {own, *layers.get(own, [])}
        for include in includes(path.read_text(), layers):
            used = module_of(include, own)
            if path.name.endswith("_test.c") and used == "dmacopy":
                continue
            if used not in allowed:
                problems.append(f"{path.relative_to(root)}: includes {include}, but "
                                f"{own} may not use {used}")
    for leaf in LEAVES:
        for path in sorted((root / leaf).rglob("*.[ch]")):
            for include in includes(path.read_text(), layers):
                if not leaf_may(include, layers):
                    problems.append(f"{path.relative_to(root)}: includes {include}, but a leaf "
                                    f"uses public headers only")
    return problems


def self_test():
    """The test must be able to fail."""
    assert cycle({"a": ["b"], "b": []})
    assert cycle({"b": [], "a": ["b"]}) is None
    assert module_of("quiesce/set.h", "x") == "set"
    assert module_of("base/fd.h", "x") == "base"
    layers = {"wire": [], "runtime": [], PUBLISHED: []}
    text = '#include "wire/wire.h"\n#include <quiesce/set.h>\n#include <runtime/core.h>\n#include <poll.h>'
    assert includes(text, layers) == ["wire/wire.h", "quiesce/set.h", "runtime/core.h"]
    assert leaf_may("tool.h", layers) and leaf_may("abi/vfio.h", layers)
    assert leaf_may("quiesce/set.h", layers)
    assert not leaf_may("runtime/core.h", layers) and not leaf_may("../../src/base/fd.h", layers)


def main():
    self_test()
    problems = check(pathlib.Path(sys.argv[1]))
    print("\n".join(problems) or "every include stands in src/LAYERS")
    return 1 if problems else 0


if __name__ == "__main__":
    sys.exit(main())
