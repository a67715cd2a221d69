# Copyright (c) 2026 The ocrfleet.gpu_stack contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Filters are loaded by the control process, not by the process of each task on each host."""

from __future__ import annotations

from pathlib import Path

import ad_hoc
import pytest
import yaml

FILTER = """
import os
with open(os.environ["LOADED"], "a") as file:
    file.write(f"{os.getpid()}\\n")
class FilterModule:
    def filters(self):
        return {"same": lambda value: value}
"""


@pytest.mark.parametrize(("first", "processes"), [(["ocrfleet.gpu_stack.check_inputs"], 1), ([], 6)])
def test_a_filter_is_loaded_once(tmp_path: Path, first: list[str], processes: int) -> None:
    """Else the second case proves nothing, or Ansible has mended it."""
    (tmp_path / "filter_plugins").mkdir()
    (tmp_path / "filter_plugins/same.py").write_text(FILTER)
    tasks = [{name: {}} for name in first] + [{"ansible.builtin.debug": {"msg": "{{ 'a' | same }}"}}] * 3
    (tmp_path / "play.yml").write_text(yaml.safe_dump([{"hosts": "all", "gather_facts": False, "tasks": tasks}]))
    loaded = tmp_path / "loaded"
    code, said = ad_hoc.play(tmp_path, "-i", "h1,h2,", "play.yml", variables={"LOADED": str(loaded)})
    assert code == 0, said
    assert len(set(loaded.read_text().split())) == processes
