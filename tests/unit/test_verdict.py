# Copyright (c) 2026 The ocrfleet.gpu_stack contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""What the role flashinfer says when it fails: the cause, and what became of the environment."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from ansible.parsing.dataloader import DataLoader
from ansible.template import Templar, trust_as_template

TEMPLATE = Path(__file__).resolve().parents[2] / "roles/flashinfer/templates/verdict.txt.j2"
TORCH = {"metadata": "2.8.0", "version": "2.8.0+cu128", "cuda": "12.8"}
PROOF: dict[str, Any] = {
    "equal": True,
    "checked_files": 7,
    "torch": {"baseline": TORCH, "found": TORCH, "repair": "uv torch==2.8.0"},
    "repair": "",
}
FACTS: dict[str, Any] = {
    "stack_environment": "/envs/ocr",
    "inventory_hostname": "vm1",
    "__flashinfer_failure": {"task": "Promote", "message": "no"},
    "__flashinfer_baseline_id": "",
    "__flashinfer_plain": {"id": "B0"},
    "__flashinfer_torch": {**TORCH, "problem": None},
    "__flashinfer_version": {"files_fingerprint": "f1"},
    "__flashinfer_now": {"files_fingerprint": "f1"},
    "__flashinfer_status": {"changed": False},
    "__flashinfer_returned": {},
    "__flashinfer_restored": {},
    "__flashinfer_proof": {},
}
LOST = "/envs/ocr is in state restored, but not every service came back: ocr: found failed"
# What is known, and what has to be said of it, line for line after the cause.
TABLE: dict[str, tuple[dict[str, Any], list[str]]] = {
    "nothing begun": ({}, ["The environment at /envs/ocr was not touched."]),
    "something else changed it": (
        {"__flashinfer_now": {"files_fingerprint": "f2"}},
        [
            "This run began no change of the environment at /envs/ocr, and its files are NOT as they were when it "
            "began: something else changed them meanwhile. Find out what before the next run, which would freeze them "
            "as they are."
        ],
    ),
    "nobody looked": (
        {"__flashinfer_version": {}},
        [
            "This run began no change of the environment at /envs/ocr. "
            "That its files are as they were was not looked at."
        ],
    ),
    "an earlier run ended, and nobody looked": (
        {
            "__flashinfer_status": {"changed": True, "recovered": {"done": "put baseline B1 back"}},
            "__flashinfer_now": {},
        },
        [
            "What an earlier run had left at /envs/ocr was ended: put baseline B1 back. "
            "This run itself began no change there."
        ],
    ),
    "an earlier run ended": (
        {"__flashinfer_status": {"changed": True, "recovered": {"done": "put baseline B1 back"}}},
        [
            "What an earlier run had left at /envs/ocr was ended: put baseline B1 back. "
            "This run itself changed nothing there."
        ],
    ),
    "an earlier run ended without its services": (
        {"__flashinfer_status": {"changed": True, "failed": True, "msg": LOST}},
        [
            "What an earlier run had left at /envs/ocr was ended: its trees are where they should be. "
            "This run itself changed nothing there."
        ],
    ),
    "none returned to the baseline and lost a service": (
        {"__flashinfer_returned": {"changed": True, "failed": True, "msg": LOST}},
        ["The environment at /envs/ocr had been returned to baseline B0 before that."],
    ),
    "back": (
        {"__flashinfer_baseline_id": "B1", "__flashinfer_proof": {"proof": PROOF}},
        ["The baseline B1 is back and proven: 7 files, each RECORD whole, PyTorch 2.8.0+cu128 (CUDA 12.8)."],
    ),
    "back, a service is not": (
        {
            "__flashinfer_baseline_id": "B1",
            "__flashinfer_proof": {"proof": PROOF},
            "__flashinfer_restored": {"changed": True, "msg": LOST},
        },
        [
            "The baseline B1 is back and proven: 7 files, each RECORD whole, PyTorch 2.8.0+cu128 (CUDA 12.8).",
            f"Restoring it said: {LOST}",
        ],
    ),
    "not back": (
        {
            "__flashinfer_baseline_id": "B1",
            "__flashinfer_proof": {
                "proof": {**PROOF, "equal": False, "differences": ["bin/x: missing"], "repair": "uv x==1"}
            },
        },
        [
            "The baseline B1 is NOT proven to be back.",
            "Differs: bin/x: missing",
            "To repair it: uv x==1",
            "To finish by hand, on the control node: ansible-playbook ocrfleet.gpu_stack.rollback --limit vm1 "
            "-e rollback_baseline=B1",
        ],
    ),
    "another torch": (
        {
            "__flashinfer_baseline_id": "B1",
            "__flashinfer_proof": {"proof": PROOF},
            "__flashinfer_torch": {"metadata": "2.4.1", "version": "2.4.1", "cuda": "12.1", "problem": None},
        },
        [
            "The baseline B1 is NOT proven to be back.",
            "PyTorch says: 2.4.1 (CUDA 12.1, metadata 2.4.1); frozen was 2.8.0+cu128 (CUDA 12.8, metadata 2.8.0)",
            "To repair it: uv torch==2.8.0",
            "To finish by hand, on the control node: ansible-playbook ocrfleet.gpu_stack.rollback --limit vm1 "
            "-e rollback_baseline=B1",
        ],
    ),
    "a torch that does not import": (
        {
            "__flashinfer_baseline_id": "B1",
            "__flashinfer_proof": {"proof": PROOF},
            "__flashinfer_torch": {"problem": "importing torch failed: no libcudart"},
        },
        [
            "The baseline B1 is NOT proven to be back.",
            "PyTorch says: importing torch failed: no libcudart",
            "To repair it: uv torch==2.8.0",
            "To finish by hand, on the control node: ansible-playbook ocrfleet.gpu_stack.rollback --limit vm1 "
            "-e rollback_baseline=B1",
        ],
    ),
}


@pytest.mark.parametrize("case", TABLE)
def test_the_verdict(case: str) -> None:
    known, said = TABLE[case]
    templar = Templar(loader=DataLoader(), variables={**FACTS, **known})
    text = str(templar.template(trust_as_template(TEMPLATE.read_text(encoding="utf-8"))))
    assert text.splitlines() == ["Promote: no", *said]
