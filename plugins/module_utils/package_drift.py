# Copyright (c) 2026 The ocrfleet.gpu_stack contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""What an environment's owner installed, moved or took out since FlashInfer came, and would lose by a way back."""

from __future__ import annotations

from ansible_collections.ocrfleet.gpu_stack.plugins.module_utils import flashinfer_policy
from ansible_collections.ocrfleet.gpu_stack.plugins.module_utils.uv import Change

# They are what the change is about.
_SUBJECT = (flashinfer_policy.PACKAGE, *flashinfer_policy.COMPANIONS)

Versions = dict[str, str]


def changes(before: Versions, after: Versions) -> list[Change]:
    """What differs between two sets of packages."""
    return [
        Change(name, before.get(name), after.get(name))
        for name in sorted(before.keys() | after.keys())
        if before.get(name) != after.get(name)
    ]


def result(baseline: Versions, moves: dict[str, str | None]) -> Versions:
    """A set of packages after some came, moved, or went (None)."""
    return {name: version for name, version in {**baseline, **moves}.items() if version is not None}


def lost(live: Versions, baseline: Versions, brought: dict[str, str | None], after: Versions) -> list[Change]:
    """What `after` undoes of what neither the baseline nor the last change (`brought`) accounts for."""
    expected = result(baseline, brought)
    return [
        change
        for change in changes(live, after)
        if live.get(change.name) != expected.get(change.name) and change.name not in _SUBJECT
    ]


def told(undone: list[Change]) -> str:
    """The refusal of a change that would lose them."""

    def row(change: Change) -> str:
        if change.after is None:
            return f"{change.name} {change.before} would go"
        if change.before is None:
            return f"{change.name}, which was taken out, would come back as {change.after}"
        return f"{change.name} {change.before} would be {change.after}"

    return (
        "Refused: this starts from the kept baseline without FlashInfer, and would undo what was changed in the "
        f"environment since FlashInfer came: {'; '.join(map(row, undone))}. Stay with the release and the method that "
        "are there, or set flashinfer_discard_changes=true and make these changes again afterwards; the environment as "
        "it is now is then kept beside the new one"
    )
