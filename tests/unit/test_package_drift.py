# Copyright (c) 2026 The ocrfleet.gpu_stack contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""What a way back to the kept baseline would undo of what the environment's owner did since."""

from __future__ import annotations

import pytest
from ansible_collections.ocrfleet.gpu_stack.plugins.module_utils import package_drift

BASELINE = {"vllm": "0.11.0", "numpy": "2.0"}
BROUGHT = {"flashinfer-python": "0.3.1", "pynvml": "13"}
LIVE = {**BASELINE, **BROUGHT}
NEXT = {"flashinfer-python": "0.6.13"}


@pytest.mark.parametrize(
    ("live", "brought", "coming", "said"),
    [
        pytest.param(LIVE, BROUGHT, NEXT, [], id="only what FlashInfer brought goes"),
        pytest.param({**LIVE, "tabulate": "1"}, BROUGHT, NEXT, ["tabulate 1 would go"], id="installed since"),
        pytest.param({**LIVE, "tabulate": "1"}, BROUGHT, {"tabulate": "1"}, [], id="it comes again"),
        pytest.param({**LIVE, "vllm": "0.11.1"}, BROUGHT, NEXT, ["vllm 0.11.1 would be 0.11.0"], id="upgraded since"),
        pytest.param({**LIVE, "pynvml": "14"}, BROUGHT, NEXT, ["pynvml 14 would go"], id="a dependency upgraded since"),
        pytest.param(
            {"vllm": "0.11.0", **BROUGHT},
            BROUGHT,
            {},
            ["numpy, which was taken out, would come back as 2.0"],
            id="taken out since",
        ),
        pytest.param({**LIVE, "numpy": "1"}, {**BROUGHT, "numpy": "1"}, NEXT, [], id="moved by the last change"),
        pytest.param(LIVE, {}, NEXT, ["pynvml 13 would go"], id="nothing is recorded"),
    ],
)
def test_what_would_be_undone_is_named(live, brought, coming, said):
    lost = package_drift.lost(live, BASELINE, brought, package_drift.result(BASELINE, coming))
    text = package_drift.told(lost)
    assert len(lost) == len(said)
    assert all(part in text for part in said)


def test_what_goes_and_what_comes_is_told_against_the_environment():
    after = package_drift.result(BASELINE, NEXT)
    assert [(row.name, row.before, row.after) for row in package_drift.changes(LIVE, after)] == [
        ("flashinfer-python", "0.3.1", "0.6.13"),
        ("pynvml", "13", None),
    ]
