# Copyright (c) 2026 The ocrfleet.gpu_stack contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
from __future__ import annotations

from ansible_collections.ocrfleet.gpu_stack.plugins.module_utils import conda_engines


def test_an_engine_is_found_at_home_first_then_on_path_and_told_once(tmp_path):
    home, other = tmp_path / "miniforge3", tmp_path / "opt/conda"
    for folder in (home, other):
        (folder / "bin").mkdir(parents=True)
        (folder / "bin/conda").write_text("#!/bin/sh\n")
        (folder / "bin/conda").chmod(0o755)
    (tmp_path / "conda").symlink_to(home / "bin/conda")
    on_path = {"conda": str(tmp_path / "conda"), "mamba": str(other / "bin/conda")}
    found = conda_engines.candidates(str(home), on_path.get)
    assert found[:2] == [str(home / "bin/conda"), str(other / "bin/conda")]
    (home / "bin/conda").chmod(0o644)
    assert str(home / "bin/conda") not in conda_engines.candidates(str(home), on_path.get)
