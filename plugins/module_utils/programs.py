# Copyright (c) 2026 The ocrfleet.gpu_stack contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Modules that are programs for another Python, that of the environment."""

from __future__ import annotations

import functools
import os
import types


@functools.cache
def text(module: types.ModuleType) -> str:
    """A module's text, read once: Ansible's archive cannot be read any more by who has given up root's rights."""
    return str(module.__loader__.get_source(module.__name__))  # type: ignore[union-attr]


def written(module: types.ModuleType, folder: str) -> str:
    """The path of a program below `folder`, where it is written; programs of one folder can import each other.

    On a host its text lies inside Ansible's archive. And elsewhere, beside it, lie modules that would hide packages of
    the same names (`nvidia`) from what it imports.
    """
    path = os.path.join(folder, "programs", module.__name__.rpartition(".")[2] + ".py")
    os.makedirs(os.path.dirname(path), exist_ok=True)
    with open(path, "w", encoding="utf-8") as file:
        file.write(text(module))
    return path
