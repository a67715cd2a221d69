# Copyright (c) 2026 The ocrfleet.gpu_stack contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
from __future__ import annotations

import pytest
from ansible_collections.ocrfleet.gpu_stack.plugins.module_utils import flashinfer_policy
from ansible_collections.ocrfleet.gpu_stack.plugins.module_utils.distributions import Distribution


def vllm(version, *requires):
    return {"vllm": Distribution("vllm", version, "", requires=requires)}


# The requirement as vllm 0.11.0's metadata has it.
VLLM_0_11 = vllm("0.11.0", "torch==2.8.0", 'flashinfer-python==0.3.1; extra == "flashinfer"')


@pytest.mark.parametrize(
    ("wanted", "installed", "version", "said"),
    [
        ("auto", VLLM_0_11, "0.3.1", "vllm 0.11.0 declares it"),
        ("auto", vllm("0.9", "torch"), "0.2", "declares none"),
        ("auto", vllm("0.9", "flashinfer-python==9; extra == 'other'"), "0.2", "declares none"),
        ("auto", {}, "0.2", "no vllm is installed"),
        (
            "0.6.13",
            VLLM_0_11,
            "0.6.13",
            "fi_version names it, though the installed vllm 0.11.0 was built against 0.3.1",
        ),
        ("0.3.1", VLLM_0_11, "0.3.1", "fi_version names it"),
        ("0.6.13", {}, "0.6.13", "fi_version names it"),
    ],
)
def test_selection(wanted, installed, version, said):
    selected = flashinfer_policy.select(wanted, installed, default="0.2")
    assert selected.version == version
    assert said in selected.reason


def test_companions_are_asked_for_at_exactly_the_version():
    selected = flashinfer_policy.select("0.6.13", {}, default="")
    assert selected.companions == ["flashinfer-cubin==0.6.13", "flashinfer-jit-cache==0.6.13"]


@pytest.mark.parametrize(
    ("written", "found"),
    [
        ('{"method": "pypi", "version": "0.3.1"}', {"method": "pypi", "version": "0.3.1"}),
        ('{"method": "pypi", "version": "0.2.5"}', {}),  # of one that was there before
        ('{"method": "pypi", "version": "0.3.1", "packages": {"x": "1"}}', {"method": "pypi", "version": "0.3.1"}),
        ("[]", {}),
        ("{", {}),
        (None, {}),
    ],
)
def test_the_method_is_what_the_role_wrote_about_this_version(tmp_path, written, found):
    if written is not None:
        (tmp_path / "etc/ocrfleet").mkdir(parents=True)
        (tmp_path / flashinfer_policy.RECORD).write_text(written)
    assert flashinfer_policy.installed_by(str(tmp_path), "0.3.1") == found


@pytest.mark.parametrize(
    ("written", "found"),
    [('{"version": "0.2", "packages": {"x": "1"}}', {"x": "1"}), ('{"version": "0.2"}', {}), ("[]", {})],
)
def test_what_came_with_it_is_what_the_role_wrote(tmp_path, written, found):
    (tmp_path / "etc/ocrfleet").mkdir(parents=True)
    (tmp_path / flashinfer_policy.RECORD).write_text(written)
    assert flashinfer_policy.brought(str(tmp_path)) == found
