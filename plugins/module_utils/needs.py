# Copyright (c) 2026 The ocrfleet.gpu_stack contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""What a package declares that it needs, held against what an environment has."""

from __future__ import annotations

import inspect
import json
from dataclasses import dataclass

from ansible_collections.ocrfleet.gpu_stack.plugins.module_utils import needs_probe
from ansible_collections.ocrfleet.gpu_stack.plugins.module_utils.staging import Stage

SATISFIED = "satisfied"  # by what the environment had already
INSTALLED = "installed"  # added, or planned to be
CONFLICTING = "conflicting"  # with a protected package, which wins
UNAVAILABLE = "unavailable"  # from the sources
UNMET = (CONFLICTING, UNAVAILABLE)


class Unreadable(Exception):
    """The environment's Python could not say what it has."""


@dataclass
class Need:
    """One declared requirement. `status` and `reason` are filled in as it is looked into."""

    requirement: str
    name: str
    installed: str | None
    status: str = ""
    reason: str = ""


def read(
    stage: Stage, declared: list[str] | str, coming: dict[str, str] | None = None, timeout: float = 60
) -> list[Need]:
    """The requirements that apply to the environment's Python; `status` is empty where one is not met.

    `declared` is a list of requirements, or the path of a `pyproject.toml` whose build requirements are meant.
    `coming` are packages, by canonical name and version, that will be there besides what is installed.
    """
    program = inspect.getsource(needs_probe)
    result = stage.run(
        [stage.python, "-c", program, json.dumps(declared), json.dumps(coming or {})],
        timeout=timeout,
        env={"PYTHONDONTWRITEBYTECODE": "1"},
    )
    if not result.ok:
        raise Unreadable(f"the environment's Python cannot read requirements: {result.outcome(lines=3)}")
    return [
        Need(row["requirement"], row["name"], row["installed"], SATISFIED if row["satisfied"] else "")
        for row in json.loads(result.stdout)
        if row["applies"]
    ]
