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
import os
import re
import tarfile
from collections.abc import Mapping

from ansible_collections.ocrfleet.gpu_stack.plugins.module_utils.commands import Result
from ansible_collections.ocrfleet.gpu_stack.plugins.module_utils.flashinfer_install import linked_cudart, release

MANIFEST = "manifest.json"
FORMAT = 1
# What a pack is signed for, so that a signature of something else by the same key does not count.
NAMESPACE = "ocrfleet-kernel-pack"
# What a pack's modules were built for; all of it must be the same where they are loaded.
KEYS = ("flashinfer", "torch", "cuda", "python", "architecture", "machine")
_NAME = re.compile(r"[A-Za-z0-9_]+")


class Refused(Exception):
    """A pack that must not be used here, with the reason."""


def kind(probe: Mapping[str, str], python: str, architecture: str, machine: str) -> dict[str, str]:
    """What a pack is bound to. `probe` has `flashinfer`, `torch` and `torch_cuda` as they import."""
    return {
        "flashinfer": probe["flashinfer"],
        "torch": probe["torch"],
        "cuda": probe["torch_cuda"],
        "python": python,
        "architecture": architecture,
        "machine": machine,
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
    wrong = [line.strip() for line in said if re.search(r"\berror\b|\bfatal\b|cannot find|Error:", line)]
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
        raise Refused(f"expected the names of the compiled modules, found {said.strip()[-200:]!r}")
    return names


def file_name(bound_to: Mapping[str, str]) -> str:
    """What the pack of one kind of host is called wherever packs are kept."""
    return (
        f"flashinfer-{bound_to['flashinfer']}-torch-{bound_to['torch']}-{bound_to['python']}-"
        f"sm{bound_to['architecture']}-{bound_to['machine']}.tar.xz"
    )


def sha256(content: bytes) -> str:
    return hashlib.sha256(content).hexdigest()


def manifest(modules: Mapping[str, bytes], bound_to: Mapping[str, str]) -> dict:
    return {
        "format": FORMAT,
        **{key: bound_to[key] for key in KEYS},
        "modules": {
            name: {"sha256": sha256(content), "size": len(content)} for name, content in sorted(modules.items())
        },
    }


def collect(paths: Mapping[str, str], bound_to: Mapping[str, str]) -> dict[str, bytes]:
    """Read the compiled modules, by name. A module that another CUDA's compiler made is refused."""
    modules = {}
    for name, path in sorted(paths.items()):
        wanted, found = bound_to["cuda"].split(".")[0], linked_cudart(path)
        if found and found != wanted:
            raise Refused(
                f"{name}: expected a module for CUDA {bound_to['cuda']}, found one that loads libcudart.so.{found}; "
                "remove the cache and compile with the stack's nvcc"
            )
        with open(path, "rb") as file:
            modules[name] = file.read()
    if not modules:
        raise Refused("expected compiled modules, found none; run the FlashInfer kernels of gpu_smoke first")
    return modules


def pack(modules: Mapping[str, bytes], bound_to: Mapping[str, str]) -> bytes:
    """The archive. The same modules give the same bytes, so that a cache can be asked by hash."""
    stream = io.BytesIO()
    files = {MANIFEST: json.dumps(manifest(modules, bound_to), indent=1, sort_keys=True).encode()}
    files.update({f"{name}/{name}.so": content for name, content in sorted(modules.items())})
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
        raise Refused(f"{path} is no kernel pack: {error}") from error
    try:
        listed = json.loads(files.pop(MANIFEST))
        modules = listed["modules"]
    except (KeyError, TypeError, ValueError) as error:
        raise Refused(f"{path} is no kernel pack: expected {MANIFEST} with a list of modules") from error
    if listed.get("format") != FORMAT:
        raise Refused(f"{path}: expected a kernel pack of format {FORMAT}, found {listed.get('format')}; pack it again")
    result = {}
    for name, entry in modules.items():
        if not _NAME.fullmatch(name):
            raise Refused(f"{path}: {name!r} is no module's name")
        module = files.pop(f"{name}/{name}.so", None)
        if module is None or sha256(module) != entry.get("sha256"):
            raise Refused(
                f"{path}: {name} is {'missing' if module is None else 'not what its checksum says'}; pack it again"
            )
        result[name] = module
    if files:
        raise Refused(f"{path}: expected the modules of its manifest, found also {', '.join(sorted(files))}")
    return listed, result


def mismatches(listed: Mapping[str, str], here: Mapping[str, str]) -> list[str]:
    """Where a pack was built for something else than what is here."""
    return [
        f"{key}: expected {here[key]}, the pack has {listed.get(key)}" for key in KEYS if listed.get(key) != here[key]
    ]


def to_place(modules: Mapping[str, bytes], folder: str) -> list[str]:
    """The modules that are not in `folder` as they should be."""
    missing = []
    for name, content in modules.items():
        try:
            with open(os.path.join(folder, name, f"{name}.so"), "rb") as file:
                if file.read() == content:
                    continue
        except OSError:
            pass
        missing.append(name)
    return missing


def place(modules: Mapping[str, bytes], names: list[str], folder: str) -> None:
    """Write modules to where FlashInfer looks for them, each by an atomic rename.

    A file is never written in place: in a candidate it may be a hard link to the file that services use.
    """
    for name in names:
        target = os.path.join(folder, name, f"{name}.so")
        os.makedirs(os.path.dirname(target), exist_ok=True)
        with open(f"{target}.new", "wb") as file:
            file.write(modules[name])
            file.flush()
            os.fsync(file.fileno())
        os.replace(f"{target}.new", target)
