# Copyright (c) 2026 The ocrfleet.gpu_stack contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Where the role conda takes its installer from, and which checksum it is held against."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import yaml
from ansible.parsing.dataloader import DataLoader
from ansible.template import Templar, trust_as_template

VARS = yaml.safe_load((Path(__file__).resolve().parents[2] / "roles/conda/vars/main.yml").read_text())
FACTS: dict[str, Any] = {
    "conda_installer": "",
    "conda_installer_checksum": "",
    "conda_version": "26.3.2-3",
    "__conda": {"architecture": "x86_64"},
}
BUNDLE = {"__stack_bundle": {"conda_installer": "/bundle/conda/m.sh", "conda_installer_checksum": "sha256:b"}}
BARE = {"__stack_bundle": {"conda_installer": "", "conda_installer_checksum": ""}}
MIRROR = {"conda_installer": "https://mirror.invalid/m.sh", "conda_installer_checksum": "sha256:m"}
OWN = {"conda_installer": "/srv/m.sh", "conda_installer_checksum": "sha256:o"}


@pytest.mark.parametrize(
    ("known", "source", "checksum"),
    [
        pytest.param({}, "https://github.com/", "sha256:8481", id="the release"),
        pytest.param(MIRROR, "https://mirror.invalid/m.sh", "sha256:m", id="a mirror"),
        pytest.param(BUNDLE, "/bundle/conda/m.sh", "sha256:b", id="a bundle"),
        pytest.param({**BUNDLE, **MIRROR}, "/bundle/conda/m.sh", "sha256:b", id="a bundle, for a URL"),
        pytest.param({**BUNDLE, **OWN}, "/srv/m.sh", "sha256:o", id="a path of one's own"),
        pytest.param({**BARE, **MIRROR}, "https://mirror.invalid/m.sh", "sha256:m", id="a bundle without one"),
    ],
)
def test_the_installer_and_its_checksum(known: dict[str, Any], source: str, checksum: str) -> None:
    given = {
        name: trust_as_template(text) if isinstance(text, str) else text
        for name, text in {**VARS, **FACTS, **known}.items()
    }
    templar = Templar(loader=DataLoader(), variables=given)
    assert str(templar.template(given["__conda_source"])).startswith(source)
    assert templar.template(given["__conda_checksums"])["x86_64"].startswith(checksum)
