# Copyright (c) 2026 The ocrfleet.gpu_stack contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""A kernel pack: FlashInfer's compiled modules of one host, for every host of the same kind.

A pack is a tar archive of `manifest.json` and `<uri>/<uri>.so`. FlashInfer loads a module from
`flashinfer/data/aot/<uri>/<uri>.so` without a compiler. It does not check what the module was built for, so
that is done here, before anything is placed.
"""

from __future__ import annotations

import hashlib
import io
import json
import lzma
import re
import tarfile
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from ansible_collections.ocrfleet.gpu_stack.plugins.module_utils import (
    placed_kernels,
    shared_objects,
    ssh_signature,
)
from ansible_collections.ocrfleet.gpu_stack.plugins.module_utils.commands import Result
from ansible_collections.ocrfleet.gpu_stack.plugins.module_utils.flashinfer_install import release

MANIFEST = "manifest.json"
FORMAT = 1
# What a pack is signed for, so that a signature of something else by the same key does not count.
NAMESPACE = "ocrfleet-kernel-pack"
# What a pack's modules were built for; all of it must be the same where they are loaded. What they need of the system's
# libraries must be there, or less than what is.
KEYS = ("flashinfer", "torch", "cuda", "python", "architecture", "machine")
_NAME = re.compile(r"[A-Za-z0-9_]+")
_AGAIN = "build the pack anew, or bring one that is whole"


class Refused(Exception):
    """A pack that must not be used here, with the reason."""


def kind(
    probe: Mapping[str, str], python: str, architecture: str, machine: str, libraries: Mapping[str, str]
) -> dict[str, str]:
    """What a pack is bound to. `probe` has `flashinfer`, `torch` and `torch_cuda` as they import.

    `libraries` are of `shared_objects.offered`.
    """
    return {
        "flashinfer": probe["flashinfer"],
        "torch": probe["torch"],
        "cuda": probe["torch_cuda"],
        "python": python,
        "architecture": architecture,
        "machine": machine,
        **libraries,
    }


def compile_for(architecture: str, flashinfer: str) -> dict[str, str]:
    """The variables with which FlashInfer compiles for one architecture, and does not look for a GPU.

    Code for Hopper and later uses instructions of that architecture alone, whose name has an `a`. FlashInfer adds it
    only from 0.6 on; it also knows, better than can be told here, which letter a 12.x wants of which nvcc.
    """
    major, minor = int(architecture[:-1]), architecture[-1]
    letter = "a" if 9 <= major < 12 or (major >= 12 and release(flashinfer) < (0, 6)) else ""
    return {
        "CUDA_VISIBLE_DEVICES": "",
        "FLASHINFER_CUDA_ARCH_LIST": f"{major}.{minor}{letter}",
        "TORCH_CUDA_ARCH_LIST": f"{major}.{minor}",  # names the cache's folder in FlashInfer 0.3
    }


def compile_complaint(result: Result) -> str:
    """Why compiling failed: the lines that name an error. The end of the output is another compiler's warnings."""
    said = f"{result.stdout}\n{result.stderr}".splitlines()
    # A traceback's own lines come with every failure.
    named = re.compile(r"\berror\b|\bfatal\b|cannot find|memory exhausted|Error:")
    wrong = [line.strip() for line in said if named.search(line)]
    if result.timed_out or not wrong:
        return result.outcome(5)
    return "\n".join(line[:300] for line in [*wrong[:6], wrong[-1]][: len(wrong)])


def compiled_names(said: str) -> list[str]:
    """The modules that `kernel_compile` names in the last line of its output. `Refused` where it names none."""
    try:
        names = json.loads(said.strip().splitlines()[-1])
    except (IndexError, ValueError):
        names = None
    if not isinstance(names, list) or not names:
        raise Refused(
            f"expected the names of the compiled modules, found {said.strip()[-200:]!r}; FlashInfer printed something "
            "else: see whether this release's modules can be compiled at all (docs/compatibility.md)"
        )
    return names


def file_name(bound_to: Mapping[str, str]) -> str:
    """What the pack of one kind of host is called wherever packs are kept.

    A distribution's compiler makes modules for its libraries, so each distribution has a pack of its own.
    """
    return (
        f"flashinfer-{bound_to['flashinfer']}-torch-{bound_to['torch']}-{bound_to['python']}-"
        f"sm{bound_to['architecture']}-{bound_to['machine']}-"
        f"glibc{bound_to['GLIBC']}-glibcxx{bound_to['GLIBCXX']}.tar.xz"
    )


def sha256(content: bytes) -> str:
    return hashlib.sha256(content).hexdigest()


def module_file(name: str) -> str:
    """Where a module lies, in a pack and in the folder that FlashInfer loads it from."""
    return f"{name}/{name}.so"


def manifest(modules: Mapping[str, bytes], bound_to: Mapping[str, str], nvcc: str = "") -> dict:
    """What a pack says of itself. `nvcc` is the version of the compiler, which binds nothing and explains much."""
    return {
        "format": FORMAT,
        "nvcc": nvcc,
        **{key: bound_to[key] for key in KEYS},
        "needs": needs(modules),
        "modules": {
            name: {"sha256": sha256(content), "size": len(content)} for name, content in sorted(modules.items())
        },
    }


def needs(modules: Mapping[str, bytes]) -> dict[str, str]:
    """The highest versions of the system's symbols that any of the modules needs, by family."""
    return shared_objects.symbol_versions(b"\0".join(modules.values()))


def collect(paths: Mapping[str, str], bound_to: Mapping[str, str]) -> dict[str, bytes]:
    """Read the compiled modules, by name. One of another CUDA's compiler, or that does not load here, is refused."""
    modules = {}
    for name, path in sorted(paths.items()):
        wanted, found = bound_to["cuda"].split(".")[0], shared_objects.linked_cudart(path)
        if found and found != wanted:
            raise Refused(
                f"{name}: expected a module for CUDA {bound_to['cuda']}, found one that loads libcudart.so.{found}; "
                "remove the cache and compile with the stack's nvcc"
            )
        with open(path, "rb") as file:
            modules[name] = file.read()
        lacks = shared_objects.lacking(needs({name: modules[name]}), bound_to)
        if lacks:
            raise Refused(
                f"{name}: {'; '.join(lacks)}: it would not load in the environment that it was compiled for; remove "
                "the cache and compile with the distribution's own C++ compiler (CXX)"
            )
    if not modules:
        raise Refused(
            f"expected compiled modules of FlashInfer {bound_to['flashinfer']} for {bound_to['architecture']} in the "
            "cache, found none; compile them first (state=compiled, with the same FLASHINFER_WORKSPACE_BASE)"
        )
    return modules


def pack(modules: Mapping[str, bytes], listed: Mapping) -> bytes:
    """The archive. The same modules give the same bytes, so that a cache can be asked by hash."""
    stream = io.BytesIO()
    files = {MANIFEST: json.dumps(listed, indent=1, sort_keys=True).encode()}
    files.update({module_file(name): content for name, content in sorted(modules.items())})
    with tarfile.open(fileobj=stream, mode="w:xz", preset=3) as archive:
        for name, content in files.items():
            entry = tarfile.TarInfo(name)
            entry.size, entry.mode = len(content), 0o644
            archive.addfile(entry, io.BytesIO(content))
    return stream.getvalue()


def unpack(path: str, packed: bytes) -> tuple[dict, dict[str, bytes]]:
    """The manifest and the modules of the archive that was read from `path`, each held against its checksum.

    Only the names that the manifest lists are read, and nothing is extracted by a path from the archive.
    """
    try:
        with tarfile.open(fileobj=io.BytesIO(packed)) as archive:
            content = {entry.name: archive.extractfile(entry) for entry in archive.getmembers() if entry.isreg()}
            files = {name: file.read() for name, file in content.items() if file is not None}
    except (OSError, tarfile.TarError, lzma.LZMAError, EOFError) as error:
        raise Refused(f"{path}: expected a kernel pack, found no archive ({error}); {_AGAIN}") from error
    listed = _read_manifest(path, files.pop(MANIFEST, None))
    result: dict[str, bytes] = {}
    for name, entry in listed["modules"].items():
        module = files.pop(module_file(name), None)
        found = "nothing" if module is None else sha256(module)
        if module is None or found != entry["sha256"]:
            raise Refused(f"{path}: expected {name} with the checksum {entry['sha256']}, found {found}; {_AGAIN}")
        result[name] = module
    # Of the modules themselves: packs of before do not say it, and what another one says is a claim.
    listed["needs"] = needs(result)
    if files:
        raise Refused(
            f"{path}: expected the modules of its manifest alone, found also {', '.join(sorted(files))}; {_AGAIN}"
        )
    return listed, result


def _read_manifest(path: str, text: bytes | None) -> dict:
    """The manifest as one of this format; `Refused` where it is anything else, whatever its types are."""
    try:
        listed = json.loads(text or b"")
    except (ValueError, RecursionError) as error:
        found = "none" if text is None else f"one that is no JSON ({error})"
        raise Refused(f"{path}: expected a kernel pack's {MANIFEST}, found {found}; {_AGAIN}") from error
    if not isinstance(listed, dict) or listed.get("format") != FORMAT:
        found = str(listed.get("format") if isinstance(listed, dict) else type(listed).__name__)
        raise Refused(f"{path}: expected a kernel pack of format {FORMAT}, found {found[:60]}; {_AGAIN}")
    modules = listed.get("modules")
    if not isinstance(modules, dict) or not modules:
        raise Refused(f"{path}: expected modules by name in its {MANIFEST}, found {str(modules)[:60]!r}; {_AGAIN}")
    for name, entry in modules.items():
        if not _NAME.fullmatch(name):
            raise Refused(f"{path}: expected a module's name of letters, digits and _, found {name[:60]!r}; {_AGAIN}")
        if not isinstance(entry, dict) or not isinstance(entry.get("sha256"), str):
            raise Refused(f"{path}: expected the checksum sha256 of {name}, found {str(entry)[:60]!r}; {_AGAIN}")
    return listed


def mismatches(listed: Mapping[str, Any], here: Mapping[str, str]) -> list[str]:
    """Where a pack was built for something else than what is here, or needs newer libraries than there are."""
    other = [
        f"{key}: expected {here[key]}, the pack has {listed.get(key)}" for key in KEYS if listed.get(key) != here[key]
    ]
    return other + placed_kernels.lacking(listed, here)


@dataclass(frozen=True)
class Placing:
    """What placing a pack changes in the package `flashinfer`: modules written, modules removed, the manifest."""

    written: tuple[str, ...]
    removed: tuple[str, ...]
    manifest: bool

    def __bool__(self) -> bool:
        return bool(self.written or self.removed or self.manifest)


def to_place(listed: Mapping, modules: Mapping[str, bytes], package: str) -> Placing:
    """What has to change so that these modules, and no others, lie where FlashInfer loads them."""
    own = placed_kernels.of_package(package)
    if own:
        raise Refused(
            f"expected a FlashInfer without compiled modules of its own, found {', '.join(own)} in its RECORD; do "
            "without a pack (kernel_pack_file empty, kernel_pack_build false), or install FlashInfer from a wheel "
            "that has no kernels"
        )
    for relative in (placed_kernels.MANIFEST, *(module_file(name) for name in modules)):
        placed_kernels.check(package, relative)
    paths = placed_kernels.modules(package)
    return Placing(
        written=tuple(
            name
            for name, content in modules.items()
            if name not in paths or placed_kernels.digest(paths[name]) != sha256(content)
        ),
        removed=tuple(placed_kernels.leftovers(package, list(modules))),
        manifest=placed_kernels.manifest(package) != listed,
    )


def place(listed: Mapping, modules: Mapping[str, bytes], placing: Placing, package: str) -> None:
    """Carry out what `to_place` found. The manifest comes last: until then nothing counts as of this pack."""
    placed_kernels.remove(package, list(placing.removed))
    for name in placing.written:
        placed_kernels.write(package, module_file(name), modules[name])
    if placing.manifest:
        text = json.dumps(listed, indent=1, sort_keys=True) + "\n"
        placed_kernels.write(package, placed_kernels.MANIFEST, text.encode())


def objection(package: str, here: Mapping[str, str], keys: Sequence[str]) -> str:
    """Why the pack that is placed must not be used; "" where it may, or there is none.

    With `keys`, lines as in a `.pub` file, one of them must have signed it.
    """
    listed = placed_kernels.manifest(package)
    if not listed:
        return ""
    wrong = mismatches(listed, here)
    signed_by = listed.get("signed_by") or ""
    if keys and signed_by not in {ssh_signature.fingerprint(key) for key in keys}:
        wrong.append(f"expected the signature of a trusted key, found {signed_by or 'none'}")
    return "; ".join(wrong)


def clear(package: str, check_mode: bool) -> list[str]:
    """Take out the pack that is placed; the modules that are removed, or would be. Others stay, and the checklist
    names them."""
    placed_kernels.check(package, placed_kernels.MANIFEST)
    listed = placed_kernels.manifest(package)["modules"]
    names = [name for name in placed_kernels.modules(package) if name in listed]
    if not check_mode:
        placed_kernels.remove(package, names)
        placed_kernels.forget(package)
    return names


def is_placed(package: str, here: Mapping[str, str], keys: Sequence[str] = ()) -> bool:
    """Whether a pack for what is here is placed, whole, signed where there are `keys`, and nothing beside it."""
    listed = placed_kernels.manifest(package)
    if not listed or objection(package, here, keys):
        return False
    origins = placed_kernels.origins(package, here)
    return set(origins) == set(listed["modules"]) and set(origins.values()) == {placed_kernels.PACK}
