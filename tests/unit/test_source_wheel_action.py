# Copyright (c) 2026 The ocrfleet.gpu_stack contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
from __future__ import annotations

import hashlib
import json
import sys

import ad_hoc
import pytest
import yaml
from ansible.errors import AnsibleActionFail
from ansible_collections.ocrfleet.gpu_stack.plugins.action import source_wheel


@pytest.mark.parametrize(
    ("source", "kind"),
    [
        ("https://github.com/flashinfer-ai/flashinfer.git", "git"),
        ("git@mirror.example:ai/flashinfer", "git"),
        ("ssh://mirror.example/flashinfer", "git"),
        ("https://mirror.example/flashinfer-0.3.1.tar.gz?x=1", "url"),
        ("{here}/a.zip", "archive"),
        ("{here}", "folder"),
    ],
)
def test_the_kind_is_told_by_the_source(tmp_path, source, kind):
    (tmp_path / "a.zip").touch()
    assert source_wheel.kind_of(source.format(here=tmp_path)) == kind


def test_what_is_nothing_is_an_error(tmp_path):
    with pytest.raises(AnsibleActionFail, match=r"found nothing at .*/none; correct flashinfer_source"):
        source_wheel.kind_of(f"{tmp_path}/none")


def test_a_folder_is_packed_to_the_same_bytes_and_without_its_history(tmp_path):
    (tmp_path / "src/.git").mkdir(parents=True)
    (tmp_path / "src/pyproject.toml").write_text("x")
    source_wheel.pack(str(tmp_path / "src"), str(tmp_path / "a"))
    (tmp_path / "src/pyproject.toml").touch()
    (tmp_path / "src/.git/HEAD").write_text("moved on")
    source_wheel.pack(str(tmp_path / "src"), str(tmp_path / "b"))
    assert (tmp_path / "a").read_bytes() == (tmp_path / "b").read_bytes()


def test_each_kind_of_host_has_a_wheel_of_its_own():
    host = {"torch": "2.8.0", "cuda": "12.8", "python": "3.11", "machine": "x86_64"}
    names = {
        source_wheel.entry_name("0.3.1", source, {**host, **other})
        for source in ({"ref": "v1"}, {"ref": "v2"})
        for other in ({}, {"torch": "2.9.0"}, {"cuda": "12.9"}, {"python": "3.12"}, {"machine": "aarch64"})
    }
    assert len(names) == 10
    assert all(name.startswith("flashinfer-python-0.3.1-") for name in names)


def test_a_wheel_that_changed_in_the_wheelhouse_is_not_given_away(tmp_path):
    assert source_wheel.read_entry(tmp_path) is None
    made = {"wheel": "x.whl", "sha256": hashlib.sha256(b"x").hexdigest()}
    (tmp_path / "x.whl").write_bytes(b"x")
    (tmp_path / source_wheel.PROVENANCE).write_text(json.dumps(made))
    assert source_wheel.read_entry(tmp_path) == made
    (tmp_path / "x.whl").write_bytes(b"y")
    with pytest.raises(AnsibleActionFail, match="is damaged .*remove the folder, and it is built again"):
        source_wheel.read_entry(tmp_path)


def test_check_mode_skips_what_cannot_be_foretold(tmp_path):
    given = {"environment": "/e", "uv": "/uv", "source": str(tmp_path), "version": "0.3.1", "cuda": "12.8"}
    given |= {"wheelhouse": str(tmp_path / "wheelhouse"), "dest": str(tmp_path / "dest")}
    play = [{"hosts": "all", "gather_facts": False, "tasks": [{"ocrfleet.gpu_stack.source_wheel": given}]}]
    (tmp_path / "play.yml").write_text(yaml.safe_dump(play))
    python = f"ansible_python_interpreter={sys.executable}"
    code, said = ad_hoc.play(tmp_path, "-i", "vm,", "-c", "local", "-e", python, "--check", tmp_path / "play.yml")
    assert (code, "skipped=1" in said) == (0, True), said
    assert not (tmp_path / "wheelhouse").exists()
