# Copyright (c) 2026 The ocrfleet.gpu_stack contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""What the bills of materials name, and what is said of a host that has none."""

from __future__ import annotations

import importlib.metadata
import json
import sys
from pathlib import Path
from typing import Any

import pytest
import sbom

LOCK = (
    "packaging==26.3 \\\n    --hash=sha256:" + "0" * 64 + "\njmespath==1.1.0 \\\n    --hash=sha256:" + "1" * 64 + "\n"
)


def test_a_bill_of_materials_names_every_package_with_its_hash() -> None:
    bill = sbom.of_lock(LOCK)
    assert [part["purl"] for part in bill["components"]] == ["pkg:pypi/jmespath@1.1.0", "pkg:pypi/packaging@26.3"]
    hashes = [
        reference["hashes"][0]["content"] for part in bill["components"] for reference in part["externalReferences"]
    ]
    assert hashes == ["1" * 64, "0" * 64]


def test_a_lock_without_hashes_makes_no_bill() -> None:
    with pytest.raises(SystemExit, match="expected a hash for packaging"):
        sbom.of_lock("packaging==26.3\n")


def test_the_bill_of_an_environment_names_what_is_installed_there() -> None:
    bill = sbom.of_environment(sys.executable)
    named = {part["name"]: part["version"] for part in bill["components"]}
    assert named["ansible-core"] == importlib.metadata.version("ansible-core")


VERIFIED = {"host": "h1", "result": "verified", "lock": LOCK}


@pytest.mark.parametrize(
    ("evidence", "why"),
    [
        pytest.param(VERIFIED, "", id="verified, with a lock"),
        pytest.param({**VERIFIED, "lock": ""}, "its last run installed nothing", id="a second run"),
        pytest.param({**VERIFIED, "result": "restored"}, "its last run ended as restored", id="taken back"),
        pytest.param({**VERIFIED, "result": "failed"}, "its last run ended as failed", id="failed"),
        pytest.param({"host": "h1", "lock": LOCK}, "its last run ended as None", id="no result"),
        pytest.param(
            {**VERIFIED, "lock": "-r /etc/passwd\n"}, "no NAME==VERSION or hash", id="a lock that reads files"
        ),
        pytest.param({**VERIFIED, "lock": [LOCK]}, "no NAME==VERSION or hash", id="a lock that is no text"),
        pytest.param([], "is no evidence", id="no evidence"),
        pytest.param("{", "cannot be read", id="cut short"),
    ],
)
def test_a_host_has_a_bill_or_it_is_said_why_not(tmp_path: Path, evidence: Any, why: str) -> None:
    (tmp_path / "h1").mkdir()
    text = evidence if isinstance(evidence, str) else json.dumps(evidence)
    (tmp_path / "h1/evidence.json").write_text(text)
    found, without = sbom.added(tmp_path)
    assert found == ({} if why else {"added-h1": LOCK})
    assert list(without) == (["h1"] if why else [])
    assert why in without.get("h1", "")


def test_where_nothing_was_reported_no_host_is_named(tmp_path: Path) -> None:
    assert sbom.added(tmp_path / "reports") == ({}, {})


def test_each_lock_of_a_baseline_has_a_bill() -> None:
    files = [*(sbom.ROOT / "roles/olmocr/files/locks").iterdir()]
    assert sorted(sbom.baselines()) == sorted(f"baseline-{file.stem}" for file in files)


def test_all_bills_are_written_anew(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """A host that was taken back keeps no bill of an earlier time."""
    reports, folder = tmp_path / "reports", tmp_path / "bills"
    for name, evidence in {"h1": VERIFIED, "h2": {**VERIFIED, "host": "h2", "result": "restored"}}.items():
        (reports / name).mkdir(parents=True)
        (reports / name / "evidence.json").write_text(json.dumps(evidence))
    folder.mkdir()
    (folder / "added-h2.cdx.json").write_text("{}")
    (folder / "mine.txt").write_text("")
    monkeypatch.setattr(sbom, "REPORTS", reports)
    monkeypatch.setattr(sbom, "baselines", lambda: {"baseline-light": LOCK})
    sbom.main([str(folder)])
    assert sorted(path.name for path in folder.iterdir()) == [
        "added-h1.cdx.json",
        "baseline-light.cdx.json",
        "control-node.cdx.json",
        "mine.txt",
    ]
    for name in ("added-h1", "baseline-light"):
        assert len(json.loads((folder / f"{name}.cdx.json").read_text())["components"]) == 2
    ours = json.loads((folder / "control-node.cdx.json").read_text())["components"]
    assert "ansible-core" in {part["name"] for part in ours}
    said = capsys.readouterr().out
    assert "added-h1.cdx.json: 2 packages" in said
    assert "h2 has no bill: its last run ended as restored" in said


@pytest.mark.parametrize("arguments", [[], ["a", "b"]])
def test_another_number_of_arguments_is_refused(arguments: list[str]) -> None:
    with pytest.raises(SystemExit, match="usage"):
        sbom.main(arguments)
