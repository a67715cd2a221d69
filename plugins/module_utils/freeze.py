# Copyright (c) 2026 The ocrfleet.gpu_stack contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Write down what an environment holds: the package list, and the dated files in its owner's home."""

from __future__ import annotations

import contextlib
import datetime
import glob
import itertools
import json
import os
import pwd
import re
import shutil
from dataclasses import dataclass
from typing import Any

from ansible_collections.ocrfleet.gpu_stack.plugins.module_utils import commands, distributions, journal

TIMEOUT = 300  # seconds, for one freeze command
# Freezing must not change what it freezes: Python would write its caches.
_QUIET = {"PYTHONDONTWRITEBYTECODE": "1", "PYTHONNOUSERSITE": "1"}


class FreezeError(Exception):
    """The environment's contents could not be written down."""


@dataclass(frozen=True)
class Export:
    """One file that describes the baseline, and what made its contents."""

    name: str  # with {stamp} for the date
    text: str
    made_by: str


def packages(tree: str) -> dict[str, dict[str, Any]]:
    """Every installed distribution: version, installer, origin, whether it is editable."""
    noted = ("version", "installer", "origin", "editable")
    return {
        name: {key: getattr(found, key) for key in noted}
        for name, found in sorted(distributions.installed(tree).items())
    }


def torch_on_disk(tree: str) -> dict[str, str | None]:
    """PyTorch's three values, read from its files: `metadata`, `version` and `cuda`, each None where it is not told.

    Nothing is started, so that a proof costs no import; see the module torch_version for what an import says.
    """
    values: dict[str, str | None] = {"metadata": None, "version": None, "cuda": None}
    for site in distributions.site_packages(tree):
        for name, path, pattern in (
            ("metadata", "torch-*.dist-info/METADATA", r"^Version: *(\S+)"),
            ("version", "torch/version.py", r"^__version__\b[^=]*= *['\"]([^'\"]+)"),
            ("cuda", "torch/version.py", r"^cuda\b[^=]*= *['\"]([^'\"]+)"),
        ):
            for file_name in sorted(glob.glob(os.path.join(glob.escape(site), path))):
                with open(file_name, encoding="utf-8", errors="replace") as file:
                    found = re.search(pattern, file.read(), re.MULTILINE)
                values[name] = values[name] or (found.group(1) if found else None)
    return values


def _as_owner(argv: list[str], environment: str) -> list[str]:
    """Root does not run what lies in somebody's environment with its own rights."""
    owner = os.stat(environment).st_uid
    if os.geteuid() != 0 or owner == 0:
        return argv
    account = pwd.getpwuid(owner)
    return ["runuser", "--user", account.pw_name, "--", "env", f"HOME={account.pw_dir}", *argv]


def pip_freeze(environment: str, uv: str | None) -> Export:
    """The list in the form that `pip install --requirement` takes back. Raises FreezeError."""
    name = "olmocr-baseline-{stamp}.txt"
    python = os.path.join(environment, "bin", "python")
    if uv:
        argv = [uv, "pip", "freeze", "--python", python]
        result = commands.run(_as_owner(argv, environment), timeout=TIMEOUT, env=_QUIET)
        if not result.ok:
            raise FreezeError(f"the package list cannot be written: {result.outcome(lines=5)}")
        return Export(name, result.stdout, "uv pip freeze")
    if distributions.installed(environment).get("pip"):
        argv = [python, "-m", "pip", "--disable-pip-version-check", "freeze", "--all"]
        result = commands.run(_as_owner(argv, environment), timeout=TIMEOUT, env=_QUIET)
        if result.ok:
            return Export(name, result.stdout, "pip freeze")
    lines = [f"{found.requirement}\n" for _name, found in sorted(distributions.installed(environment).items())]
    return Export(name, "".join(lines), "the environment's metadata")


def _conda_of(environment: str) -> str | None:
    """The conda that made the environment: as its history names it, above `envs/`, or on PATH."""
    candidates = []
    with contextlib.suppress(OSError):
        history = os.path.join(environment, "conda-meta", "history")
        with open(history, encoding="utf-8", errors="replace") as file:
            candidates = re.findall(r"^# cmd: (\S*/conda) ", file.read(), re.MULTILINE)
    parent = os.path.dirname(environment)
    if os.path.basename(parent) == "envs":
        candidates.append(os.path.join(os.path.dirname(parent), "bin", "conda"))
    candidates.append(shutil.which("conda") or "")
    return next((path for path in candidates if os.access(path, os.X_OK)), None)


def _from_manifests(environment: str, lines: list[str]) -> str:
    names, channels = [], []
    for path in sorted(glob.glob(os.path.join(glob.escape(environment), "conda-meta", "*.json"))):
        with open(path, encoding="utf-8", errors="replace") as file:
            try:
                manifest = json.load(file)
                names.append(f"{manifest['name']}={manifest['version']}={manifest['build']}")
            except (ValueError, KeyError, TypeError):
                raise FreezeError(f"{path} is no conda manifest; repair the environment with conda first") from None
        channel = str(manifest.get("channel", "")).rstrip("/")
        channels.append(re.sub(r"/(linux-\w+|noarch)$", "", channel) or "defaults")
    text = [f"name: {os.path.basename(environment)}", "channels:"]
    text += [f"  - {json.dumps(channel)}" for channel in dict.fromkeys(channels)]
    text += ["dependencies:", *(f"  - {name}" for name in names)]
    pip = [line for line in lines if line and not line.startswith("#")]
    if pip:
        text += ["  - pip:", *(f"      - {json.dumps(line)}" for line in pip)]
    return "\n".join([*text, f"prefix: {json.dumps(environment)}", ""])


def conda_export(environment: str) -> Export | None:
    """What `conda env export` says of the environment, or None for one that conda did not make.

    Where no conda is to be found the file is made from the manifests in `conda-meta`. Raises FreezeError.
    """
    if not os.path.isdir(os.path.join(environment, "conda-meta")):
        return None
    name = "olmocr-env-baseline-{stamp}.yml"
    conda = _conda_of(environment)
    if conda:
        argv = [conda, "env", "export", "--prefix", environment]
        result = commands.run(_as_owner(argv, environment), timeout=TIMEOUT, env=_QUIET)
        if result.ok and "dependencies:" in result.stdout:
            return Export(name, result.stdout, "conda env export")
    pip = [
        f"{found.name}=={found.version}"
        for _name, found in sorted(distributions.installed(environment).items())
        if found.installer != "conda"
    ]
    return Export(name, _from_manifests(environment, pip), "conda-meta")


def home_of(environment: str) -> str:
    """The home of the environment's owner. Raises FreezeError."""
    owner = os.stat(environment).st_uid
    try:
        home = pwd.getpwuid(owner).pw_dir
    except KeyError:
        raise FreezeError(
            f"the owner of {environment} (uid {owner}) has no account, so no home for the frozen lists; set export_dir"
        ) from None
    if not os.path.isdir(home):
        raise FreezeError(f"the home {home} of the owner of {environment} does not exist; set export_dir")
    return home


def place(export: Export, folder: str, now: datetime.datetime, owner: tuple[int, int]) -> str:
    """Put an export into `folder` under its dated name and give its path.

    A file of that name with other contents is an earlier baseline of the same day: it stays, and this one gets the
    time into its name. Raises OSError.
    """
    stamps = (now.strftime(pattern) for pattern in ("%Y%m%d", "%Y%m%d-%H%M%S", "%Y%m%d-%H%M%S.%f"))
    more = (f"{now.strftime('%Y%m%d-%H%M%S.%f')}-{number}" for number in itertools.count(2))
    for stamp in itertools.chain(stamps, more):
        path = os.path.join(folder, export.name.format(stamp=stamp))
        if not os.path.lexists(path):
            break
        with contextlib.suppress(OSError), open(path, encoding="utf-8", errors="replace") as file:
            if file.read() == export.text:
                return path
    journal.write_file(path, export.text.encode(), owner)
    return path
