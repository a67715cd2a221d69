# Copyright (c) 2026 The ocrfleet.gpu_stack contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""What a host that failed says, from Ansible's event to what is read: the cause, and what became of the baseline."""

from __future__ import annotations

import io
import json
from pathlib import Path
from typing import Any

import pytest
from rich.console import Console

from ocrfleet import cli, errors
from ocrfleet.ansible import Ansible, _Seen
from ocrfleet.display import Progress
from ocrfleet.store import Store
from ocrfleet.text import SENTENCES, one_line, plain

JUDGE = "Fail with the cause and with what became of the baseline, or where only the report is missing"
# As the role flashinfer says it of a host whose kernels compute wrong numbers.
CAUSE = (
    "The stack at /opt/olmocr is not in order: Small kernels compute the right numbers on the GPU (smoke): 1 of 6 "
    "kernels failed. torch_matmul: wrong_result, expected a relative error of at most 0.01 against the float32 "
    "reference, found 0.0501; do not serve with it: repeat it with the same seed, then compile anew (remove "
    "FlashInfer's cache, or the pack) and look for memory errors of the GPU (nvidia-smi -q -d ECC, dmesg)"
)
BACK = (
    "The baseline 20261127T062257.233687Z-8dab is back and proven: 68934 files, each RECORD whole, "
    "PyTorch 2.8.0+cu128 (CUDA 12.8)."
)
NOT_BACK = [
    "The baseline 20261127T062257.233687Z-8dab is NOT proven to be back.",
    "Restoring it said: " + "no space left on device, " * 12,
    "Differs: torch/lib/libtorch_cuda.so",
    "To finish by hand, on the control node: ansible-playbook ocrfleet.gpu_stack.rollback --limit h2 "
    "-e rollback_baseline=20261127T062257.233687Z-8dab",
]


def said(message: object, task: str = JUDGE) -> str:
    """What is kept of a failed task."""
    seen = _Seen()
    event = {"event": "runner_on_failed", "event_data": {"host": "h2", "task": task, "res": {"msg": message}}}
    Ansible._look(event, seen, lambda *_: None)
    return seen.messages["h2"]


@pytest.mark.parametrize(
    ("task", "message", "kept"),
    [
        (JUDGE, [f"Fail when an item failed: {CAUSE}", BACK], f"{CAUSE}\n{BACK}"),
        (JUDGE, ["Install FlashInfer: no room", BACK], f"Install FlashInfer: no room\n{BACK}"),
        ("Fail with the cause", "Check the disk: no room", "Check the disk: no room"),
        ("Fail when an item failed", "Fail to open the device: none", "Fail to open the device: none"),
        ("Install FlashInfer", "no room", "Install FlashInfer: no room"),
    ],
)
def test_the_name_of_a_task_that_only_tells_is_left_out(task: str, message: object, kept: str) -> None:
    assert said(message, task) == kept


@pytest.mark.parametrize("fate", [[BACK], NOT_BACK])
def test_cause_and_baseline_are_read_wherever_a_message_is_shown(
    tmp_path: Path, make: Any, capsys: pytest.CaptureFixture[str], fate: list[str]
) -> None:
    message = said([f"Fail when an item failed: {CAUSE}", *fate])
    store = Store(tmp_path / "state")
    state = make(hosts=3)
    store.new().symlink_to(state.folder)
    state.end([("h2", "failed", message, {}, "")])
    live = io.StringIO()
    Progress(state, Console(file=live, width=100)).host("h2", "failed", message)
    shown = [live.getvalue()]
    for query in ([], ["--query", "hosts[?state=='failed'].[name, message]"]):
        assert cli.main(["--state-dir", str(store.folder), "status", *query]) == errors.DONE
        shown.append(" ".join(capsys.readouterr().out.split()))
    for text in shown:
        assert "The stack at /opt/olmocr is not in order" in text
        assert fate[0] in text
        assert (" … " in text) is (len(message) > SENTENCES), "a cut is shown"
    assert cli.main(["--state-dir", str(store.folder), "status", "--output", "json"]) == errors.DONE
    hosts = {host["name"]: host["message"] for host in json.loads(capsys.readouterr().out)["hosts"]}
    assert hosts["h2"] == message == "\n".join([CAUSE, *fate])


@pytest.mark.parametrize(
    ("text", "limit", "shown"),
    [
        ("short", 20, "short"),
        ("abcdefghijklmnopqrstuvwxyz", 11, "abcd … wxyz"),
        ("a" * 80 + "\nit is back", 45, "a" * 16 + " … " + "a" * 15 + " it is back"),
        ("one\n" * 50 + "two", 21, "one one o … e one two"),
    ],
)
def test_a_long_text_is_cut_in_its_middle_and_says_so(text: str, limit: int, shown: str) -> None:
    assert one_line(text, limit) == shown
    assert len(plain(text, limit)) <= limit


def test_a_message_longer_than_is_kept_keeps_its_end() -> None:
    assert said(["x" * 5000, BACK]).endswith(BACK)
