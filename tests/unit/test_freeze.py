# Copyright (c) 2026 The ocrfleet.gpu_stack contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
from __future__ import annotations

import datetime
import json
import os
from pathlib import Path

import pytest
import yaml
from ansible_collections.ocrfleet.gpu_stack.plugins.module_utils import commands, freeze
from made_environment import add_distribution, make_environment

NOON = datetime.datetime(2026, 11, 23, 12, 30, 5)
ME = (os.geteuid(), os.getegid())


def test_packages_come_with_version_and_origin(tmp_path: Path) -> None:
    tree = make_environment(tmp_path / "environment")
    info = next(tree.glob("lib/python3.11/site-packages/tool-1.0.dist-info"))
    (info / "direct_url.json").write_text('{"url": "file:///wheels/tool-1.0.whl"}')
    assert freeze.packages(str(tree)) == {
        "tool": {"version": "1.0", "installer": "uv", "origin": "file:///wheels/tool-1.0.whl", "editable": False},
        "torch": {"version": "2.8.0", "installer": "uv", "origin": "", "editable": False},
    }
    assert freeze.torch_on_disk(str(tree)) == {"metadata": "2.8.0", "version": "2.8.0+cu128", "cuda": "12.8"}
    assert set(freeze.torch_on_disk(str(tmp_path)).values()) == {None}
    assert freeze.pip_freeze(str(tree), None).text == "tool @ file:///wheels/tool-1.0.whl\ntorch==2.8.0\n"


def test_a_failing_freeze_is_an_error(tmp_path: Path) -> None:
    tree = make_environment(tmp_path / "environment")
    with pytest.raises(freeze.FreezeError, match="exit code 1"):
        freeze.pip_freeze(str(tree), "false")


def test_an_environment_of_conda_is_written_down_without_conda(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))
    tree = make_environment(tmp_path / "olmocr-optimized")
    assert freeze.conda_export(str(tree)) is None
    (tree / "conda-meta").mkdir()
    manifest = {"name": "python", "version": "3.11.9", "build": "h1", "channel": "https://host/forge/linux-64"}
    (tree / "conda-meta/python-3.11.9-h1.json").write_text(json.dumps(manifest))
    export = freeze.conda_export(str(tree))
    assert export is not None
    assert export.made_by == "conda-meta"
    assert yaml.safe_load(export.text) == {
        "name": "olmocr-optimized",
        "channels": ["https://host/forge"],
        "dependencies": ["python=3.11.9=h1", {"pip": ["tool==1.0", "torch==2.8.0"]}],
        "prefix": str(tree),
    }


def test_conda_itself_is_asked_where_the_history_names_it(tmp_path: Path) -> None:
    tree = make_environment(tmp_path / "environment")
    conda = tmp_path / "base/bin/conda"
    conda.parent.mkdir(parents=True)
    conda.write_text('#!/bin/sh\necho "dependencies: [$*]"\n')
    conda.chmod(0o755)
    (tree / "conda-meta").mkdir()
    (tree / "conda-meta/history").write_text(f"==> now <==\n# cmd: {conda} create --name environment\n")
    export = freeze.conda_export(str(tree))
    assert export == freeze.Export(
        "olmocr-env-baseline-{stamp}.yml", f"dependencies: [env export --prefix {tree}]\n", "conda env export"
    )


def test_a_baseline_of_the_same_day_is_never_overwritten(tmp_path: Path) -> None:
    first = freeze.Export("olmocr-baseline-{stamp}.txt", "torch==2.8.0\n", "x")
    second = freeze.Export("olmocr-baseline-{stamp}.txt", "torch==2.8.0\nflashinfer-python==0.3.1\n", "x")
    names = [freeze.place(export, str(tmp_path), NOON, ME) for export in (first, first, second)]
    assert [Path(name).name for name in names] == [
        "olmocr-baseline-20261123.txt",
        "olmocr-baseline-20261123.txt",
        "olmocr-baseline-20261123-123005.txt",
    ]
    assert Path(names[0]).read_text() == first.text


def test_root_runs_the_owners_python_as_the_owner(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    tree = make_environment(tmp_path / "environment")
    add_distribution(tree, "pip", "24.2", {})
    asked: list[list[str]] = []

    def run(argv: list[str], **rest: object) -> commands.Result:
        asked.append(argv)
        return commands.Result(argv, 0, "torch==2.8.0\n", "", 0.0)

    monkeypatch.setattr(commands, "run", run)
    monkeypatch.setattr(freeze.os, "geteuid", lambda: 0)
    status = os.stat(tree)
    monkeypatch.setattr(
        freeze.os, "stat", lambda path: os.stat_result((status.st_mode, 1, 1, 1, 65534, 65534, 0, 0, 0, 0))
    )
    freeze.pip_freeze(str(tree), None)
    assert asked[0][:4] == ["runuser", "--user", "nobody", "--"]
