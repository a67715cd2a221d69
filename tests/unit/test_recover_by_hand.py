# Copyright (c) 2026 The ocrfleet.gpu_stack contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The commands of docs/guides/recover-by-hand.md, run as they stand there on a promoted environment."""

from __future__ import annotations

import re
import subprocess
from pathlib import Path

import pytest
from ansible_collections.ocrfleet.gpu_stack.plugins.module_utils import staging, transaction
from made_environment import SITE, add_distribution, make_environment

GUIDE = Path(__file__).resolve().parents[2] / "docs/guides/recover-by-hand.md"
OWNER = {"controller": "c", "boot": "b", "pid": 1, "started": "1", "host": "h", "user": "u", "label": "l"}


@pytest.fixture
def environment(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """An environment that was promoted; its baseline is kept."""
    monkeypatch.setattr(staging, "unavailable", lambda timeout=20: None)
    path = make_environment(tmp_path / "envs/olmocr-optimized")
    work(path).begin()
    candidate = Path(work(path).describe()["candidate"])
    add_distribution(candidate, "flashinfer_python", "0.3.1", {"flashinfer/__init__.py": "x = 1\n"})
    work(path).promote()
    return path


def work(environment: Path) -> transaction.Transaction:
    options = {"environment": str(environment), "owner": OWNER, "strategy": "staged", "lock_wait": 0.5}
    home = environment.parents[1] / "home"
    home.mkdir(exist_ok=True)
    return transaction.Transaction(transaction.Options(export_dir=str(home), **options), lambda warning: None)


def test_the_commands_put_the_baseline_back_and_the_collection_still_knows_it(environment: Path) -> None:
    flashinfer = environment / SITE / "flashinfer_python-0.3.1.dist-info"
    assert flashinfer.exists()
    text = GUIDE.read_text(encoding="utf-8")
    script = re.search(r"```sh\n(cd .*?)```", text, re.DOTALL)
    assert script, "the guide has a shell block that begins with cd"
    identifier = work(environment).describe()["id"]
    commands = script[1].replace("/srv/miniforge3/envs", str(environment.parent)).replace("/ID/", f"/{identifier}/")
    subprocess.run(["sh", "-euc", commands], check=True, timeout=60)
    assert not flashinfer.exists()
    assert (environment.parent / "olmocr-optimized.broken" / SITE / flashinfer.name).exists()
    # What the guide promises: the copy is the baseline, and the next run still finds what its journal describes.
    proof = work(environment).prove()
    assert proof["equal"], proof["differences"]
    assert work(environment).restore()[1]["equal"]


def test_the_journal_says_where_it_stands_without_any_tool(environment: Path) -> None:
    journal = environment.parent / ".olmocr-optimized.gpu_stack/journal.json"
    assert '"promoted"' in journal.read_text(encoding="utf-8")
