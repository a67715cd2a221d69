# Copyright (c) 2026 The ocrfleet.gpu_stack contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""What was hoped for by kind of document, and what was measured beside it."""

from __future__ import annotations

import pytest
from ansible_collections.ocrfleet.gpu_stack.plugins.filter.beside_hopes import beside_hopes
from ansible_collections.ocrfleet.gpu_stack.plugins.module_utils import hopes, made_documents


def entry(kind: str, workers: int, **figures) -> dict:
    return {"name": f"{kind}, {workers}", "set": kind, "workers": workers, "verdict": "faster", **figures}


FIGURES = {"speedup": 1.021, "low": 1.01, "high": 1.03}


def column(level: dict, name: str) -> dict[str, str]:
    return {row["kind"]: row[name] for row in beside_hopes(level)["rows"]}


def test_each_kind_that_is_made_has_its_own_hope():
    assert set(column({}, "gain")) == set(made_documents.KINDS)
    assert column({}, "gain") == {"scanned": "10 to 30 %", "digital": "nothing", "mixed": "5 to 15 %"}
    assert column({}, "by_hand") == {"scanned": "2.3x with 2 workers, 3.1x with 4", "digital": "", "mixed": ""}
    assert column({}, "hoped") == {
        "scanned": "2.5 to 2.8x with 2 workers, 3.4 to 3.7x with 4",
        "digital": "",
        "mixed": "",
    }


@pytest.mark.parametrize(
    ("kind", "workers", "told"),
    [
        ("scanned", 2, "2.3x by hand before; hoped for 2.5 to 2.8x"),
        ("scanned", 4, "3.1x by hand before; hoped for 3.4 to 3.7x"),
        ("scanned", 8, "hoped of FlashInfer: 10 to 30 %"),
        ("digital", 2, "hoped of FlashInfer: nothing"),
        ("mixed", 4, "hoped of FlashInfer: 5 to 15 %"),
        ("your PDFs", 2, ""),
    ],
)
def test_a_hope_stands_only_beside_its_own_kind(kind, workers, told):
    assert hopes.of_scaling(kind, workers) == told


def test_what_was_measured_stands_beside_the_hope():
    level = {
        "comparisons": [
            entry("scanned", 1, **FIGURES),
            entry("scanned", 2, **{**FIGURES, "speedup": 0.9, "low": None}),
            entry("your PDFs", 1, **FIGURES),
            {"name": "mixed, 1 worker", "set": "mixed", "workers": 1, "reason": "a page failed"},
        ]
    }
    assert column(level, "measured") == {
        "scanned": "1.02x (1.01 to 1.03) with 1 worker, 0.90x with 2 workers",
        "digital": "not measured",
        "mixed": "not measured",
        "your PDFs": "1.02x (1.01 to 1.03) with 1 worker",
    }
    assert column(level, "gain")["your PDFs"] == "as above, by their kind"


@pytest.mark.parametrize("served", [{"server": "http://h/v1"}, {"stand_in": "a stand-in"}])
def test_what_a_server_read_is_not_put_beside_a_hope(served):
    level = {"comparisons": [entry("scanned", 1, **FIGURES)], **served}
    assert column(level, "measured")["scanned"] == "nothing of FlashInfer: a server read them"
    assert column(level, "measured")["digital"] == "not measured"
