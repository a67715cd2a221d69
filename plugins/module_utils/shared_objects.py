# Copyright (c) 2026 The ocrfleet.gpu_stack contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Which libraries a compiled module asks the host for, and which of them the host has.

Read from the bytes of the files: not every host has readelf, and names of libraries and of symbol versions stand in a
shared object as they are (`.dynstr`).
"""

from __future__ import annotations

import mmap
import os
import platform
import re
from collections.abc import Mapping

from ansible_collections.ocrfleet.gpu_stack.plugins.module_utils.nvidia import version_key

# Sets of symbols that grow with each release: a module that names a newer one than the library has is not loaded.
FAMILIES = ("GLIBC", "GLIBCXX", "CXXABI")
_OF_LIBSTDCXX = FAMILIES[1:]
_VERSION = re.compile(rb"\b(GLIBC|GLIBCXX|CXXABI)_(\d+(?:\.\d+)+)")
_LIBSTDCXX = "libstdc++.so.6"


def linked_cudart(path: str) -> str:
    """The CUDA major version of the runtime library that a shared object asks for, "" where it asks for none."""
    try:
        with open(path, "rb") as file, mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ) as content:
            match = re.search(rb"libcudart\.so\.(\d+)", content)
            return match[1].decode() if match else ""
    except (OSError, ValueError):  # an empty file cannot be mapped
        return ""


def symbol_versions(content: bytes) -> dict[str, str]:
    """The highest version of each family in a shared object: of a module what it needs, of a library what it has."""
    found: dict[str, str] = {}
    for family, version in {(match[1].decode(), match[2].decode()) for match in _VERSION.finditer(content)}:
        if version_key(version) > version_key(found.get(family, "")):
            found[family] = version
    return found


def offered(tree: str, root: str = "/") -> dict[str, str]:
    """What the host has for modules that the Python of an environment loads, by family; "" where it cannot be told."""
    try:
        glibc = (os.confstr("CS_GNU_LIBC_VERSION") or "").rpartition(" ")[2]
    except ValueError:  # another C library does not know the name
        glibc = ""
    found = _libstdcxx(tree, root)
    return {"GLIBC": glibc, **{family: found.get(family, "") for family in _OF_LIBSTDCXX}}


def _libstdcxx(tree: str, root: str) -> dict[str, str]:
    """The versions of the libstdc++ that is loaded: conda's beside its Python, else the system's."""
    python = os.path.realpath(os.path.join(tree, "bin", "python"))
    folders = [os.path.join(os.path.dirname(os.path.dirname(python)), "lib")]
    folders += [os.path.join(root, "usr", name) for name in (f"lib/{platform.machine()}-linux-gnu", "lib64")]
    for folder in folders:
        try:
            with open(os.path.join(folder, _LIBSTDCXX), "rb") as file:
                return symbol_versions(file.read())
        except OSError:
            continue
    return {}


def lacking(needs: Mapping[str, str], here: Mapping[str, str]) -> list[str]:
    """Which symbols a module needs that are newer than what is here, as far as that is known. See `offered`."""
    return [
        f"{family}: expected at most {here[family]}, which is here, found a module that needs {needs[family]}"
        for family in FAMILIES
        if needs.get(family) and here.get(family) and version_key(str(needs[family])) > version_key(here[family])
    ]
