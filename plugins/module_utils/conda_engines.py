# Copyright (c) 2026 The ocrfleet.gpu_stack contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The conda, mamba and micromamba of a host, and whether one has to be installed."""

from __future__ import annotations

import json
import os
import re
import shutil
from collections.abc import Callable
from dataclasses import asdict, dataclass, field

from ansible_collections.ocrfleet.gpu_stack.plugins.module_utils import commands
from ansible_collections.ocrfleet.gpu_stack.plugins.module_utils.machine import BEGUN

KINDS = ("conda", "mamba", "micromamba")
# Where their installers put them when nothing else is said.
FOLDERS = ("miniforge3", "mambaforge", "miniconda3", "anaconda3", "conda")
PARENTS = ("~", "/opt", "/srv", "/usr/local")
# In the folder: we have installed it, and may take it away again.
OURS = ".ocrfleet-installed"
_SECONDS = 60.0


@dataclass(frozen=True)
class Engine:
    """One engine. `environments` are the folders in which it looks for an environment by name."""

    executable: str
    kind: str
    version: str
    root: str = ""
    environments: tuple[str, ...] = field(default=())

    def as_dict(self) -> dict:
        return {**asdict(self), "environments": list(self.environments)}


def look(executable: str, run: Callable[..., commands.Result] = commands.run) -> Engine | None:
    """The engine at a path, or None where nothing there answers."""
    said = run([executable, "--version"], timeout=_SECONDS)
    version = re.search(r"\d+\.\d+[\w.]*", said.stdout)
    if not said.ok or not version:
        return None
    kind = next((kind for kind in reversed(KINDS) if kind in os.path.basename(executable)), "conda")
    info = run([executable, "info", "--json"], timeout=_SECONDS)
    try:
        told = json.loads(info.stdout) if info.ok else {}
    except ValueError:
        told = {}
    # micromamba names the same things in words: "base environment", "envs directories".
    root = told.get("root_prefix") or told.get("base environment") or ""
    folders = told.get("envs_dirs") or told.get("envs directories") or []
    return Engine(executable, kind, version[0], root, tuple(folders))


def candidates(home: str, which: Callable[[str], str | None] = shutil.which) -> list[str]:
    """Where an engine may be, the wanted home first."""
    folders = [home, *(os.path.join(os.path.expanduser(parent), name) for parent in PARENTS for name in FOLDERS)]
    paths = [os.path.join(folders[0], "bin", "conda")]
    paths += [path for path in (which(kind) for kind in KINDS) if path]
    paths += [os.path.join(folder, "bin", "conda") for folder in folders[1:]]
    paths += [os.path.expanduser("~/.local/bin/micromamba"), os.path.expanduser("~/bin/micromamba")]
    seen: dict[str, str] = {}
    for path in paths:
        if os.access(path, os.X_OK):
            seen.setdefault(os.path.realpath(path), path)
    return list(seen.values())


def survey(home: str, run: Callable[..., commands.Result] = commands.run) -> list[Engine]:
    return [engine for engine in (look(path, run) for path in candidates(home)) if engine]


@dataclass(frozen=True)
class Way:
    """`existing` or `installer`, why, the executable, and what stands in the way."""

    method: str
    why: str
    executable: str
    problems: tuple[str, ...] = ()


def choose(method: str, home: str, executable: str, found: list[Engine], begun: bool, checksum: str) -> Way:
    """Which engine is used. `executable` is the one that the operator names, or empty."""
    ours = os.path.join(home, "bin", "conda")
    # What a killed installer left may answer, and is not whole.
    whole = [engine for engine in found if not (begun and engine.executable == ours)]
    if executable and method != "installer":
        if any(engine.executable == executable for engine in whole):
            return Way("existing", f"{executable} is named by conda_executable", executable)
        return Way(
            "existing",
            "named by conda_executable",
            executable,
            (
                f"conda: expected {executable} to answer, found that it does not; correct conda_executable, or "
                "empty it to have one looked for",
            ),
        )
    usable = [engine for engine in whole if method != "installer" or engine.executable == ours]
    if usable:
        return Way("existing", f"{usable[0].kind} {usable[0].version} is there", usable[0].executable)
    if method == "existing":
        return Way(
            "existing",
            "asked for",
            "",
            (
                "conda: expected conda, mamba or micromamba on PATH or in the usual places, found none; name it by "
                "conda_executable, or choose conda_method installer",
            ),
        )
    problems = []
    environments = os.path.join(home, "envs")
    if begun and os.path.isdir(environments) and os.listdir(environments):
        problems.append(
            f"conda: expected no environment in {home}, whose installation by this collection did not end, found "
            f"{', '.join(sorted(os.listdir(environments)))}; other hands finished it: remove {home}{BEGUN} to keep it"
        )
    if os.path.lexists(home) and not begun:
        problems.append(f"conda: expected nothing at {home}, found something that is no conda; move it away")
    if not checksum:
        problems.append(
            "conda: expected conda_installer_checksum, found none, and none is known here for this version and "
            "architecture; take it from the file .sha256 beside the installer"
        )
    why = "an earlier installation did not end" if begun else "no conda, mamba or micromamba is there"
    return Way("installer", why, ours, tuple(problems))
