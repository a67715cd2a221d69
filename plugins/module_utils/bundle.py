# Copyright (c) 2026 The ocrfleet.gpu_stack contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The folder that a site without a network installs from, and what is wrong with one.

`manifest.json` is written last and names every other file with its size and SHA-256. A folder without it is not
finished; a file that it does not name does not belong, since uv would take a planted wheel from the folder.
"""

from __future__ import annotations

import json
import os

from ansible_collections.ocrfleet.gpu_stack.plugins.module_utils import digests

MANIFEST = "manifest.json"
FORMAT = 1
WHEELS = "wheels"
UV = "bin/uv"

# Downloads under way; see bundle_make.
PART = ".part"

_TEXTS = ("python", "architecture", "uv", "torch", "olmocr", "flashinfer", "flashinfer_lock", "flashinfer_source")

_PATHS = ("flashinfer_lock", "flashinfer_source", "conda_installer")


class Unusable(Exception):
    """The folder cannot be used; the text says what was expected, what was found and what to do."""


def parse(text: str) -> dict:
    """The manifest. Raises Unusable where it is none, or of another format."""
    try:
        manifest = json.loads(text)
    except ValueError as error:
        raise Unusable(f"{MANIFEST}: expected JSON, found none ({error}); make the bundle anew") from None
    found = manifest.get("format") if isinstance(manifest, dict) else None
    if found != FORMAT:
        raise Unusable(f"{MANIFEST}: expected format {FORMAT}, found {found}; make the bundle with this collection")
    files = manifest.get("files")
    whole = isinstance(files, dict) and all(isinstance(manifest.get(name), str) for name in _TEXTS)
    if not whole or not all(_is_entry(name, entry) for name, entry in files.items()):
        raise Unusable(f"{MANIFEST}: expected what its schema says, found something else; make the bundle anew")
    for name in _PATHS:
        # It is read on the control node: a path that leads elsewhere would give away, or use, what is no part of it.
        if manifest.get(name) and manifest[name] not in files:
            raise Unusable(
                f"{MANIFEST}: expected in {name} one of its files, found {manifest[name]}; make the bundle anew"
            )
    return manifest


def installer_checksum(manifest: dict) -> str:
    """The checksum of conda's installer, as `sha256:` and its digits; "" where the bundle has none."""
    name = manifest.get("conda_installer")
    return f"sha256:{manifest['files'][name]['sha256']}" if name else ""


def _is_entry(name: str, entry: object) -> bool:
    inside = not os.path.isabs(name) and os.path.normpath(name) == name and not name.startswith("..")
    return inside and isinstance(entry, dict) and {"size", "sha256"} <= entry.keys()


def read(folder: str) -> str:
    """The text of the manifest. Raises Unusable where there is none."""
    path = os.path.join(folder, MANIFEST)
    try:
        with open(path, encoding="utf-8") as file:
            return file.read()
    except (OSError, UnicodeDecodeError) as error:
        reason = getattr(error, "strerror", None) or "unreadable"
        raise Unusable(
            f"expected a finished bundle at {folder}, found no {MANIFEST} there ({reason}); "
            "correct stack_bundle, or make it with playbooks/bundle.yml"
        ) from None


def damaged(folder: str, manifest: dict) -> dict[str, str]:
    """What is wrong with each file that the manifest names, by file."""
    wrong = {}
    for name, entry in manifest["files"].items():
        path = os.path.join(folder, name)
        if not os.path.isfile(path):
            wrong[name] = "missing"
        elif os.path.getsize(path) != entry["size"]:
            wrong[name] = f"damaged: {os.path.getsize(path)} bytes, expected {entry['size']}"
        elif digests.sha256(path) != entry["sha256"]:
            wrong[name] = "damaged: its SHA-256 is another one"
    return wrong


def unlisted(folder: str, manifest: dict) -> list[str]:
    """Files in the folder that the manifest does not name."""
    found = []
    for parent, _folders, files in os.walk(folder):
        found += [os.path.relpath(os.path.join(parent, name), folder) for name in files]
    return sorted(set(found) - manifest["files"].keys() - {MANIFEST})


def mismatches(manifest: dict, expected: dict[str, str]) -> list[str]:
    """Where the bundle was made for something else than `expected`, by the manifest's keys."""
    return [
        f"made for {name} {manifest[name]}, expected {wanted}; make one for that"
        for name, wanted in expected.items()
        if wanted and manifest[name] != wanted
    ]


def problems(folder: str, manifest: dict, expected: dict[str, str]) -> list[str]:
    """Everything that is wrong with the bundle, one sentence each."""
    return [
        *mismatches(manifest, expected),
        *(f"{name}: {what}" for name, what in damaged(folder, manifest).items()),
        *(f"{name}: not named in {MANIFEST}, and does not belong there" for name in unlisted(folder, manifest)),
    ]
