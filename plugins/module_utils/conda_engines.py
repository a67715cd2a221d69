# Copyright (c) 2026 The ocrfleet.gpu_stack contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Where a host has conda, mamba or micromamba."""

from __future__ import annotations

import os
import shutil
from collections.abc import Callable

KINDS = ("conda", "mamba", "micromamba")
# Where their installers put them when nothing else is said.
FOLDERS = ("miniforge3", "mambaforge", "miniconda3", "anaconda3", "conda")
PARENTS = ("~", "/opt", "/srv", "/usr/local")


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
