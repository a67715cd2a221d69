# Copyright (c) 2026 The ocrfleet.gpu_stack contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The scenarios' oracle tells the methods apart."""

from __future__ import annotations

import hashlib
import importlib.util
import json
import zipfile
from pathlib import Path
from typing import Any

import pytest

PATH = Path(__file__).resolve().parents[2] / "molecule/shared/oracle.py"
spec = importlib.util.spec_from_file_location("oracle_of_scenarios", PATH)
assert spec and spec.loader
oracle = importlib.util.module_from_spec(spec)
spec.loader.exec_module(oracle)


@pytest.fixture
def built(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> dict[str, Any]:
    """A host on which FlashInfer came as a wheel that was built there."""
    prefix, site = tmp_path / "envs/olmocr", tmp_path / "envs/olmocr/site"
    monkeypatch.setattr(oracle, "site_packages", lambda: str(site))
    wheel = tmp_path / "wheelhouse/key/flashinfer_python-0.3.1-py3-none-any.whl"
    for folder in (wheel.parent, site / "flashinfer", prefix / "etc/ocrfleet"):
        folder.mkdir(parents=True)
    with zipfile.ZipFile(wheel, "w") as archive:
        archive.writestr("flashinfer/__init__.py", "built = 1\n")
    (site / "flashinfer/__init__.py").write_text("built = 1\n")
    digest = hashlib.sha256(wheel.read_bytes()).hexdigest()
    (prefix / "etc/ocrfleet/flashinfer.json").write_text(json.dumps({"method": "source", "wheel_sha256": digest}))
    evidence = tmp_path / "evidence.json"
    evidence.write_text(json.dumps({"wheel": {"sha256": digest, "torch": "2.8.0"}, "needs": []}))
    return {
        "prefix": str(prefix),
        "evidence": str(evidence),
        "method": "source",
        "torch": {"version": "2.8.0+cu128"},
        "needs": {},
    }


def test_a_wheel_that_was_built_is_what_is_installed(built: dict[str, Any]) -> None:
    assert [*oracle.check_wheel(built), *oracle.check_needs(built)] == []


@pytest.mark.parametrize(
    ("changes", "said"),
    [({"method": "pypi"}, "a wheel is said to have been built"), ({"torch": {"version": "2.9.0"}}, "built against")],
)
def test_another_method_or_another_torch_is_told(built: dict[str, Any], changes: dict[str, Any], said: str) -> None:
    assert any(said in text for text in oracle.check_wheel({**built, **changes}))


def test_what_came_otherwise_than_from_the_wheel_is_told(built: dict[str, Any]) -> None:
    (Path(built["prefix"]) / "site/flashinfer/__init__.py").write_text("from the index\n")
    assert [text.partition(" is not ")[1] for text in oracle.check_wheel(built)] == [" is not "]


def test_a_need_that_is_met_otherwise_is_told(built: dict[str, Any]) -> None:
    expected = {**built, "needs": {"numpy": "satisfied"}}
    (text,) = oracle.check_needs(expected)
    assert "expected the needs" in text
