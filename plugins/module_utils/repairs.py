# Copyright (c) 2026 The ocrfleet.gpu_stack contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Say which files are not as they should be, and the command that brings them back from where they came."""

from __future__ import annotations

import shlex
from collections.abc import Iterable

from ansible_collections.ocrfleet.gpu_stack.plugins.module_utils import distributions

TOLD = 50  # differences that a result carries


def capped(lines: list[str]) -> list[str]:
    """The lines as a result carries them: so many, and how many more there are."""
    return lines if len(lines) <= TOLD else [*lines[:TOLD], f"... and {len(lines) - TOLD} more"]


def reparable(differences: list[str]) -> list[str]:
    """The paths of an inventory's differences whose files an installer could bring back."""
    split = [line.split(": ", 1) for line in differences]
    return [path for path, what in split if what != "was not there"]


def command(environment: str, damage: list[distributions.Damage], names: Iterable[str] = (), uv: str = "") -> str:
    """The command that brings damaged distributions, and those named, back from where they came from."""
    known = distributions.installed(environment)
    pins, conda = [], []
    for name in sorted({*names, *(distributions.canonical(found.name) for found in damage)}):
        found = known.get(name)
        if found is None:
            continue
        if found.installer == "conda":
            conda.append(f"{name}={found.version}")
        elif found.editable:
            pins += ["--editable", found.origin]
        else:
            pins.append(found.requirement)
    commands = []
    # uv 0.13 does not reinstall what has a RECORD that it cannot read; what has no metadata it installs over.
    unread = [found.path for found in damage if any("/RECORD: " in problem for problem in found.problems)]
    if unread:
        commands.append(["rm", "-r", "--", *unread])
    if pins:
        python = f"{environment}/bin/python"
        commands.append([uv or "uv", "pip", "install", "--python", python, "--reinstall", "--no-deps", *pins])
    if conda:
        commands.append(["conda", "install", "--prefix", environment, "--yes", "--force-reinstall", *conda])
    return " && ".join(shlex.join(command) for command in commands)
