# Copyright (c) 2026 The ocrfleet.gpu_stack contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Make the folder that a site without a network installs from. Runs on the control node; no host is asked."""

from __future__ import annotations

import os
import re
from collections.abc import Callable
from dataclasses import dataclass
from urllib.parse import unquote, urlsplit

from ansible_collections.ocrfleet.gpu_stack.plugins.module_utils import bundle, digests, package_plan
from ansible_collections.ocrfleet.gpu_stack.plugins.module_utils.distributions import Distribution, canonical
from ansible_collections.ocrfleet.gpu_stack.plugins.module_utils.uv import Change, Uv

# The oldest C library of the supported distributions is newer; the baseline's locks are resolved for this one too.
PLATFORM = "manylinux_2_28"


@dataclass
class Planner(Uv):
    """uv for an environment that is not there: what is installed is the baseline's lock."""

    version: str = ""  # of the environment's Python
    platform: str = ""
    baseline: tuple[tuple[str, str], ...] = ()

    def _run(self, *arguments: str, **settings):  # type: ignore[no-untyped-def]
        if arguments[0] == "compile":
            arguments = (*arguments, "--python-version", self.version, "--python-platform", self.platform)
        return super()._run(*arguments, **settings)

    def changes(
        self, requirements: list[str], constraints: list[str], lock: str = "", no_deps: bool = False
    ) -> list[Change]:
        arguments = ["compile", "--no-header", "--no-annotate", *self._build_flags()]
        arguments += ["--no-deps"] if no_deps else []
        arguments += [self._request(requirements), *self._constraint_flags(constraints)]
        before = dict(self.baseline)
        after = package_plan.locked_versions(self._run(*arguments).stdout)
        return [Change(name, before.get(name), new) for name, new in after.items() if before.get(name) != new]

    def files(self, pins: list[str]) -> str:
        """Where the files of each pin lie, as pylock.toml (PEP 751)."""
        arguments = ["compile", "--no-deps", "--no-header", "--format", "pylock.toml", *self._build_flags()]
        return self._run(*arguments, self._request(pins)).stdout


def installed(lock: str) -> dict[str, Distribution]:
    """The baseline's packages, as an environment that was made from its lock would have them."""
    return {name: Distribution(name, version, "") for name, version in package_plan.locked_versions(lock).items()}


def locked_hashes(lock: str) -> dict[str, set[str]]:
    """The SHA-256 sums that a lock allows, by package."""
    found: dict[str, set[str]] = {}
    name = ""
    for line in lock.splitlines():
        pin = re.match(package_plan.PINNED, line)
        name = canonical(pin[1]) if pin else name
        found.setdefault(name, set()).update(re.findall(r"--hash=sha256:([0-9a-f]{64})", line))
    return found


def choose(package: dict, tags: list[str], allowed: set[str]) -> dict | None:
    """The file of a pylock.toml package to take: the wheel that fits best, else the source distribution.

    `tags` are those of the target, best first. Returns url, name, size and sha256; None when nothing fits.
    """
    rank = {tag: place for place, tag in enumerate(tags)}
    best: tuple[int, dict] | None = None
    for entry in package.get("wheels", []):
        name = file_name(entry)
        if entry["hashes"].get("sha256") not in allowed or not name.endswith(".whl"):
            continue
        python, abi, platforms = name[: -len(".whl")].split("-")[-3:]
        kinds = [f"{p}-{a}-{s}" for p in python.split(".") for a in abi.split(".") for s in platforms.split(".")]
        place = min((rank[kind] for kind in kinds if kind in rank), default=None)
        if place is not None and (best is None or place < best[0]):
            best = (place, entry)
    source = package.get("sdist")
    entry = best[1] if best else source if source and source["hashes"].get("sha256") in allowed else None
    return entry and {"name": file_name(entry), "url": entry["url"], "sha256": entry["hashes"]["sha256"]}


def file_name(entry: dict) -> str:
    return entry.get("name") or unquote(os.path.basename(urlsplit(entry["url"]).path))


def fetch(path: str, sha256: str, download: Callable[[str], None]) -> bool:
    """Have the file with this sum at `path`, by `download` where it is not. Whether it was downloaded.

    A download under way has a name of its own and is taken away by the next run, so that a killed run leaves no half
    of a file under the name of the whole.
    """
    if os.path.exists(path) and digests.sha256(path) == sha256:
        return False
    part = path + bundle.PART
    download(part)
    found = digests.sha256(part)
    if found != sha256:
        os.unlink(part)
        raise bundle.Unusable(f"{os.path.basename(path)}: expected SHA-256 {sha256}, downloaded {found}")
    os.replace(part, path)
    return True


def clear(folder: str, wanted: set[str]) -> list[str]:
    """Remove from the bundle what does not belong there: earlier releases, downloads that were cut short."""
    stale = bundle.unlisted(folder, {"files": dict.fromkeys(wanted)})
    for name in stale:
        os.unlink(os.path.join(folder, name))
    return stale
