# Copyright (c) 2026 The ocrfleet.gpu_stack contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Say which files are not as they should be, and the command that brings them back from where they came."""

from __future__ import annotations

import shlex
from collections.abc import Iterable, Mapping

from ansible_collections.ocrfleet.gpu_stack.plugins.module_utils import distributions

TOLD = 50  # differences that a result carries


def capped(lines: list[str]) -> list[str]:
    """The lines as a result carries them: so many, and how many more there are."""
    return lines if len(lines) <= TOLD else [*lines[:TOLD], f"... and {len(lines) - TOLD} more"]


def reparable(differences: list[str]) -> list[str]:
    """The paths of an inventory's differences whose files an installer could bring back."""
    split = [line.split(": ", 1) for line in differences]
    return [path for path, what in split if what != "was not there"]


def way_back(host: str, environment: str, baseline: str) -> str:
    """The command, on the control node, that exchanges a kept baseline in: it needs no index and no cache."""
    options = f"environment={shlex.quote(environment)} action=restore baseline={baseline}"
    return shlex.join(["ansible", host or "HOST", "-m", "ocrfleet.gpu_stack.env_transaction", "-a", options])


def command(
    environment: str,
    damage: list[distributions.Damage],
    names: Iterable[str] = (),
    uv: str = "",
    frozen: Mapping[str, distributions.Distribution] | None = None,
) -> str:
    """The command that brings damaged distributions, and those named, back from where they came from.

    What is in `frozen` comes back as it was then, the others as they are installed.
    """
    wanted = sorted({*names, *(distributions.canonical(found.name) for found in damage)})
    known = dict(frozen or {})
    if not known.keys() >= set(wanted):
        known = {**distributions.installed(environment), **known}
    pins, conda = [], []
    for name in wanted:
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
