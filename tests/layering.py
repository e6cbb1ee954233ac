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

INCLUDE = re.compile(r'^\s*#\s*include\s+(?:"([^"]+)"|<(quiesce/[^>]+)>)', re.M)
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


def module_of(include, own):
    if include.startswith("quiesce/"):
        return include.split("/")[1].removesuffix(".h")
    return include.split("/")[0] if "/" in include else own


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
        for quoted, public in INCLUDE.findall(path.read_text()):
            used = module_of(quoted or public, own)
            if path.name.endswith("_test.c") and used == "dmacopy":
                continue
            if used not in allowed:
                problems.append(f"{path.relative_to(root)}: includes {quoted or public}, but "
                                f"{own} may not use {used}")
    for leaf in LEAVES:
        for path in sorted((root / leaf).rglob("*.[ch]")):
            for quoted, _ in INCLUDE.findall(path.read_text()):
                if quoted and quoted.split("/")[0] in layers.keys() - {PUBLISHED}:
                    problems.append(f"{path.relative_to(root)}: includes {quoted}, but a leaf "
                                    f"uses public headers only")
    return problems


def self_test():
    """The test must be able to fail."""
    assert cycle({"a": ["b"], "b": []})
    assert cycle({"b": [], "a": ["b"]}) is None
    assert module_of("quiesce/set.h", "x") == "set"
    assert module_of("base/fd.h", "x") == "base"
    assert INCLUDE.findall('#include "wire/wire.h"\n#include <quiesce/set.h>\n') == [
        ("wire/wire.h", ""), ("", "quiesce/set.h")]


def main():
    self_test()
    problems = check(pathlib.Path(sys.argv[1]))
    print("\n".join(problems) or "every include stands in src/LAYERS")
    return 1 if problems else 0


if __name__ == "__main__":
    sys.exit(main())
