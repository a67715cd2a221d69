# Copyright (c) 2026 The ocrfleet.gpu_stack contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
from __future__ import annotations

import json

import pytest
from ansible_collections.ocrfleet.gpu_stack.plugins.action import check_inputs

SPECS = {
    "stack": {"stack_root": {"type": "str"}, "stack_offline": {"type": "bool"}},
    "flashinfer": {
        "fi_method": {"type": "str", "choices": ["pypi", "none"]},
        "fi_version": {"type": "str"},
        "flashinfer_services": {"type": "list", "elements": "str"},
    },
}


@pytest.mark.parametrize(
    ("name", "said"),
    [
        ("fi_metod", "did you mean fi_method?"),
        ("flashinfer_service", "did you mean flashinfer_services?"),
        ("stack_rooot", "did you mean stack_root?"),
        ("fi_zzzzzzzzzzzz", "see the roles' documentation"),
    ],
)
def test_a_misspelled_name_is_an_error_that_names_the_nearest(name, said):
    (sentence,) = check_inputs.unknown_names([name, "fi_method"], SPECS)
    assert sentence.startswith(f"{name} is no variable of this collection")
    assert said in sentence


@pytest.mark.parametrize(
    "name", ["fi_method", "stack_root", "other_thing", "__flashinfer_plan", "ansible_user", "figure"]
)
def test_other_names_are_nobodys_business(name):
    assert check_inputs.unknown_names([name], SPECS) == []


@pytest.mark.parametrize(
    ("values", "said"),
    [
        ({"fi_method": "pip"}, "value of fi_method must be one of: pypi, none, got: pip"),
        ({"stack_offline": "perhaps"}, "not a valid boolean"),
        ({"flashinfer_services": {"a": 1}}, "list"),
    ],
)
def test_wrong_values_are_named(values, said):
    (sentence,) = check_inputs.wrong_values(values, SPECS)
    assert said in sentence


@pytest.mark.parametrize(
    "values", [{}, {"fi_method": "none"}, {"stack_offline": "true"}, {"flashinfer_services": ["a.service"]}]
)
def test_right_values_pass(values):
    assert check_inputs.wrong_values(values, SPECS) == []


@pytest.mark.parametrize(
    ("values", "said"),
    [
        ({"fi_version": "0.5"}, "fi_version: expected a release of FlashInfer such as 0.3.1, found 0.5; write 0.5.0"),
        ({"fi_version": 0.5}, "found 0.5; write 0.5.0"),
        ({"fi_version": "v0.6.0-rc1"}, "found v0.6.0-rc1; write 0.6.0rc1"),
        ({"fi_version": "0.5.*"}, "found 0.5.*; docs/compatibility.md lists"),
        ({"fi_version": "latest"}, "found latest; docs/compatibility.md lists"),
        ({"flashinfer_default_version": "auto"}, "flashinfer_default_version: expected a release"),
    ],
)
def test_a_version_that_is_no_release_is_told(values, said):
    (sentence,) = check_inputs.wrong_releases(values)
    assert said in sentence


@pytest.mark.parametrize("version", ["auto", "0.3.1", "0.7.2.post1", "0.6.0rc1", "0.2.5+cu124torch2.6"])
def test_a_release_passes(version):
    assert check_inputs.wrong_releases({"fi_version": version}) == []
    assert check_inputs.wrong_releases({}) == []


@pytest.mark.parametrize("given", [5, "2.5", -0.1, "nan", "inf"])
def test_a_slow_down_that_is_no_share_is_told_once(given):
    assert check_inputs.idle_gates({"flashinfer_max_slowdown": given}) == [
        f"flashinfer_max_slowdown: expected a share from 0 to 1, found {given}; write 0.05 where up to 5 % slower is "
        "accepted, and 1 for none"
    ]


@pytest.mark.parametrize("given", [0.05, "0.499", -1, "nan", "inf"])
def test_a_speed_up_that_is_no_ratio_is_told_once(given):
    assert check_inputs.idle_gates({"flashinfer_min_speedup": given}) == [
        f"flashinfer_min_speedup: expected 0 for none, or a ratio of at least 0.5, found {given}; write 1.05 where at "
        "least 5 % faster is asked for"
    ]


@pytest.mark.parametrize(
    "values",
    [{}]
    + [{"flashinfer_max_slowdown": given} for given in (0, 0.02, "0.02", 1, "1.0")]
    + [{"flashinfer_min_speedup": given} for given in (0, "0", 0.5, 1.05, "1.05")]
    + [{"flashinfer_min_speedup": "much"}, {"flashinfer_max_slowdown": []}],  # what is no number is told by its type
)
def test_a_gate_that_can_be_met_and_missed_passes(values):
    assert check_inputs.idle_gates(values) == []


def test_an_empty_list_of_what_is_protected_is_told():
    (sentence,) = check_inputs.idle_values({"flashinfer_protect": []})
    assert "found an empty list" in sentence
    assert check_inputs.idle_values({}) == check_inputs.idle_values({"flashinfer_protect": ["torch"]}) == []


def test_the_hash_follows_what_decides_the_stack_and_nothing_else():
    base = {"fi_method": "pypi", "report_dir": "a"}
    assert check_inputs.spec_hash(base) == check_inputs.spec_hash({**base, "report_dir": "b"})
    # A worker of a rollout has a new one for each run.
    assert check_inputs.spec_hash(base) == check_inputs.spec_hash({**base, "kernel_pack_store": "b"})
    assert check_inputs.spec_hash(base) == check_inputs.spec_hash({**base, "flashinfer_wheelhouse": "b"})
    assert check_inputs.spec_hash(base) != check_inputs.spec_hash({**base, "fi_method": "none"})


def test_a_lock_counts_by_what_it_holds(tmp_path):
    hashes = []
    for name, text in [("a", "six==1.17.0\n"), ("b", "six==1.17.0\n"), ("a", "six==1.16.0\n")]:
        (tmp_path / name).write_text(text)
        hashes.append(check_inputs.spec_hash({"flashinfer_lock": str(tmp_path / name)}))
    assert hashes[0] == hashes[1] != hashes[2]


def test_every_role_of_the_collection_can_be_read():
    specs = check_inputs.load_specs(check_inputs.ROLES)
    assert "fi_method" in specs["flashinfer"]
    assert check_inputs.wrong_values({"fi_method": "no such"}, specs)


@pytest.mark.parametrize("name", ["galaxy.yml", "MANIFEST.json"])
def test_a_run_that_another_version_sent_is_refused(tmp_path, name):
    told = {"version": "1.2.0", "collection_info": {"version": "1.2.0"}}
    (tmp_path / name).write_text(json.dumps(told))
    assert [check_inputs.other_version(wanted, tmp_path) for wanted in (None, "", "1.2.0")] == ["", "", ""]
    assert "expected version 1.3.0 of this collection" in check_inputs.other_version("1.3.0", tmp_path)
    assert "found 1.2.0" in check_inputs.other_version("1.3.0", tmp_path)
