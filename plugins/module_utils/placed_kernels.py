# Copyright (c) 2026 The ocrfleet.gpu_stack contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""What lies in the folder from which FlashInfer loads compiled modules unasked, and where each of them came from.

FlashInfer takes `flashinfer/data/aot/<uri>/<uri>.so` wherever it is, and checks nothing. So the manifest of a pack lies
beside its modules where it is placed, and a module counts as the pack's only while it is what the manifest says.
"""

from __future__ import annotations

import contextlib
import csv
import glob
import json
import os
import shutil
from collections.abc import Mapping
from typing import Any

from ansible_collections.ocrfleet.gpu_stack.plugins.module_utils import (
    digests,
    shared_objects,
    tree_file,
)

MANIFEST = "ocrfleet-pack.json"
# Where a module came from: a pack that is placed, such a pack for something else than is here, the wheel of
# flashinfer-python itself, or nobody knows.
PACK, MISMATCHED, PACKAGE, UNLISTED = "pack", "mismatched", "package", "unlisted"


def folder(package: str) -> str:
    """The folder of compiled modules of the package `flashinfer`, given by its path."""
    return os.path.join(package, "data", "aot")


def digest(path: str) -> str:
    """The SHA-256 of a file, empty where it cannot be read."""
    try:
        return digests.sha256(path)
    except OSError:
        return ""


def manifest(package: str) -> dict[str, Any]:
    """The manifest of the pack that is placed; an empty one where there is none, or none that can be read."""
    try:
        with open(os.path.join(folder(package), MANIFEST), encoding="utf-8") as file:
            found = json.load(file)
    except (OSError, ValueError):
        return {}
    return found if isinstance(found, dict) and isinstance(found.get("modules"), dict) else {}


def modules(package: str) -> dict[str, str]:
    """The paths of the modules that FlashInfer would load, by name."""
    found = {}
    for path in sorted(glob.glob(os.path.join(glob.escape(folder(package)), "*", "*.so"))):
        name = os.path.basename(path)[: -len(".so")]
        if os.path.basename(os.path.dirname(path)) == name:
            found[name] = path
    return found


def of_package(package: str) -> list[str]:
    """The modules that flashinfer-python's own RECORD lists: its wheel was built with kernels in it."""
    site, name = os.path.split(package)
    found = []
    for record in glob.glob(os.path.join(glob.escape(site), "flashinfer_python-*.dist-info", "RECORD")):
        with contextlib.suppress(OSError, UnicodeDecodeError, csv.Error), open(record, encoding="utf-8") as file:
            listed = [row[0].split("/") for row in csv.reader(file) if row]
            found += [parts[3] for parts in listed if parts[:3] == [name, "data", "aot"] and parts[-1].endswith(".so")]
    return sorted(set(found))


def fits(listed: Mapping[str, Any], here: Mapping[str, str]) -> bool:
    """Whether a pack was built for what is here, as far as that is known. Labels of versions are left out.

    0.0.0 is what a FlashInfer that was built from a plain source tree calls itself, whatever its metadata says.
    """
    equal = {key: value for key, value in here.items() if value and key not in shared_objects.FAMILIES}
    both = [(str(listed.get(key, "")), value) for key, value in equal.items()]
    public = [[text.split("+", maxsplit=1)[0] for text in pair] for pair in both]
    same = all(built_for == found or built_for == "0.0.0" for built_for, found in public)
    return same and not lacking(listed, here)


def lacking(listed: Mapping[str, Any], here: Mapping[str, str]) -> list[str]:
    """What the modules of a pack need of the system that is newer than what is here. One of before does not say."""
    needs = listed.get("needs")
    return shared_objects.lacking(needs if isinstance(needs, dict) else {}, here)


def origins(package: str, here: Mapping[str, str]) -> dict[str, str]:
    """Where each module came from, by name. One of the pack that was changed since is `UNLISTED`.

    `here` is what is installed, by the keys of a manifest. What was upgraded after a pack was placed makes it mismatch.
    """
    placed, own = manifest(package), of_package(package)
    listed = placed.get("modules", {})
    of_pack = PACK if fits(placed, here) else MISMATCHED

    def origin(name: str, path: str) -> str:
        entry = listed.get(name)
        if isinstance(entry, dict) and entry.get("sha256") == digest(path):
            return of_pack
        return PACKAGE if name in own and entry is None else UNLISTED

    return {name: origin(name, path) for name, path in modules(package).items()}


def leftovers(package: str, wanted: list[str]) -> list[str]:
    """The modules that are none of the wanted: FlashInfer would load them, whoever put them there."""
    return sorted(set(modules(package)) - set(wanted))


def remove(package: str, names: list[str]) -> None:
    """Remove modules with their folders. A link is removed, not what it leads to."""
    for name in names:
        path = os.path.join(folder(package), name)
        if os.path.isdir(path) and not os.path.islink(path):
            shutil.rmtree(path)
        else:
            os.unlink(path)


def _below_site(package: str, relative: str) -> tuple[str, str]:
    site, name = os.path.split(package)
    return site, os.path.join(name, "data", "aot", relative)


def check(package: str, relative: str) -> None:
    """Raise `tree_file.Unsafe` where a file of the folder of modules, `relative` to it, would lead out of it."""
    tree_file.check(*_below_site(package, relative))


def forget(package: str) -> None:
    """Remove the manifest of a pack that is placed."""
    with contextlib.suppress(FileNotFoundError):
        os.unlink(os.path.join(folder(package), MANIFEST))


def write(package: str, relative: str, content: bytes) -> None:
    """Write a file of the folder of modules, `relative` to it."""
    tree_file.write(*_below_site(package, relative), content)
