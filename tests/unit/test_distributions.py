# Copyright (c) 2026 The ocrfleet.gpu_stack contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
from __future__ import annotations

import pytest
from ansible_collections.ocrfleet.gpu_stack.plugins.module_utils import distributions
from made_environment import SITE, add_distribution, make_environment


@pytest.fixture
def tree(tmp_path):
    return make_environment(tmp_path / "env")


def test_a_whole_environment_has_no_damage(tree):
    assert distributions.damaged(str(tree)) == []


def delete(tree):
    (tree / SITE / "tool/data.bin").unlink()


def truncate(tree):
    (tree / SITE / "tool/data.bin").write_text("")


def cut_record(tree):
    record = tree / SITE / "tool-1.0.dist-info/RECORD"
    record.write_text(record.read_text().split("\n")[0] + "\n")


def empty_metadata(tree):
    (tree / SITE / "tool-1.0.dist-info/METADATA").write_text("")


def stop_before_record(tree):
    for name in ("RECORD", "INSTALLER"):
        (tree / SITE / "tool-1.0.dist-info" / name).unlink()


@pytest.mark.parametrize(
    ("harm", "said"),
    [
        (delete, "tool/data.bin: no such file or directory"),
        (truncate, "tool/data.bin: 0 bytes, its RECORD says 5"),
        (cut_record, "cut short"),
        (empty_metadata, "METADATA: missing or empty"),
        (stop_before_record, "an installer was stopped here"),
    ],
)
def test_each_kind_of_damage_is_named(tree, harm, said):
    harm(tree)
    found = distributions.damaged(str(tree))
    assert [(damage.name, damage.version) for damage in found] == [("tool", "1.0")]
    assert said in " ".join(found[0].problems)


def test_compiled_files_may_come_and_go(tree):
    record = tree / SITE / "tool-1.0.dist-info/RECORD"
    record.write_text(record.read_text() + "tool/__pycache__/gone.cpython-311.pyc,,\n")
    assert distributions.damaged(str(tree)) == []


def test_a_record_of_conda_or_debian_that_is_missing_is_no_damage(tree):
    (tree / SITE / "tool-1.0.dist-info/RECORD").unlink()
    (tree / SITE / "tool-1.0.dist-info/INSTALLER").write_text("conda\n")
    assert distributions.damaged(str(tree)) == []


def test_the_fingerprint_follows_what_is_installed(tree):
    before = distributions.fingerprint(str(tree))
    (tree / "notes.txt").write_text("changed by hand\n")
    assert distributions.fingerprint(str(tree)) == before
    add_distribution(tree, "other", "2.0", {"other.py": "\n"})
    assert distributions.fingerprint(str(tree)) != before


def test_the_time_of_a_wheel_s_file_is_no_part_of_the_fingerprint(tree):
    before = distributions.fingerprint(str(tree))
    with (tree / SITE / "tool-1.0.dist-info/RECORD").open("a") as record:
        record.write("tool-1.0.dist-info/uv_cache.json,sha256=aa,126\n")
    assert distributions.fingerprint(str(tree)) == before


def test_origins_names_and_requirements_are_read(tree):
    info = tree / SITE / "Tool_Box.x-2.dist-info"
    info.mkdir()
    (info / "METADATA").write_text(
        "Name: Tool_Box.x\nVersion: 2\nRequires-Dist: six>1\nRequires-Dist: torch\n\nText: no header\n"
    )
    (info / "direct_url.json").write_text('{"url": "file:///src/toolbox"}')
    found = distributions.installed(str(tree))["tool-box-x"]
    assert (found.version, found.origin, found.requires) == ("2", "file:///src/toolbox", ("six>1", "torch"))


def test_hosts_with_the_same_versions_compare_equal_however_they_were_installed(tmp_path):
    for name in ("one", "two"):
        add_distribution(tmp_path / name, "tool", "1.0", {"tool.py": f"# {name}\n"})
    add_distribution(tmp_path / "three", "tool", "1.1", {"tool.py": "# one\n"})
    found = {name: distributions.versions_fingerprint(str(tmp_path / name)) for name in ("one", "two", "three")}
    assert found["one"] == found["two"] != found["three"]
    assert distributions.fingerprint(str(tmp_path / "one")) != distributions.fingerprint(str(tmp_path / "two"))


@pytest.mark.parametrize(
    ("direct_url", "requirement"),
    [
        ("", "tool==1.0"),
        ('{"url": "file:///wheels/tool-1.0.whl", "archive_info": {}}', "tool @ file:///wheels/tool-1.0.whl"),
        ('{"url": "file:///src/tool", "dir_info": {"editable": true}}', "-e file:///src/tool"),
        (
            '{"url": "https://example.org/tool", "vcs_info": {"vcs": "git", "commit_id": "1a2b"}}',
            "tool @ git+https://example.org/tool@1a2b",
        ),
        ("[]", "tool==1.0"),
    ],
)
def test_each_distribution_can_be_asked_for_again(tree, direct_url, requirement):
    if direct_url:
        (tree / SITE / "tool-1.0.dist-info/direct_url.json").write_text(direct_url)
    assert distributions.installed(str(tree))["tool"].requirement == requirement
