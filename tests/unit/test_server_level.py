# Copyright (c) 2026 The ocrfleet.gpu_stack contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Two engines in turn, with a stand-in for vllm: what is tested is the pairing and how failures are told, never a
speed.
"""

from __future__ import annotations

import sys
import time
from pathlib import Path

import pytest
from ansible_collections.ocrfleet.gpu_stack.plugins.module_utils import paired, server_level, staging

FAKE = Path(__file__).parent / "fixtures/gpu/fake_vllm"
SETTINGS = {
    "model": "",
    "max_model_len": 64,
    "max_num_seqs": 4,
    "gpu_memory_utilization": 0.3,
    "kv_cache_memory_bytes": 1,
}


def started(tmp_path: Path, name: str, how: str):
    stage = staging.Stage(str(Path(sys.executable).parent.parent))
    variant = server_level.Variant(name, stage, {"PYTHONPATH": str(FAKE), "FAKE_VLLM": how})
    return server_level.started(variant, str(tmp_path / name), SETTINGS, 60)


def measure(baseline, candidate, rounds: int = 5, seconds: float = 60) -> list[dict]:
    loads = [server_level.Load(1), server_level.Load(2)]
    ends = time.monotonic() + seconds
    return server_level.measure_pair(baseline, candidate, loads, tokens=(10, 5), rounds=rounds, deadline=ends)


def test_the_faster_engine_is_found(tmp_path):
    with started(tmp_path, "slow", "200") as baseline, started(tmp_path, "fast", "20") as candidate:
        judged = paired.compare_family(measure(baseline, candidate))
        about = server_level.described(candidate)
    # No verdict: a busy machine may delay one of five answers by more than the stand-ins differ.
    assert [(entry["name"], entry["pairs"], entry["speedup"] > 1) for entry in judged] == [
        ("1 request", 5, True),
        ("2 requests", 5, True),
    ]
    assert about["proof"] == ["Using Flash Attention backend on V1 engine."]
    assert about["ready_seconds"] >= 0.2, "the stand-in takes that long to start"


def test_no_round_begins_after_the_deadline(tmp_path):
    with started(tmp_path, "a", "10") as baseline, started(tmp_path, "b", "10") as candidate:
        assert [len(entry["pairs"]) for entry in measure(baseline, candidate, seconds=-1)] == [1, 1]


def test_an_engine_is_gone_afterwards(tmp_path):
    with started(tmp_path, "a", "10") as engine:
        assert engine.process.poll() is None
    assert engine.process.poll() is not None


@pytest.mark.parametrize(
    ("how", "told"),
    [
        ("no-start", "the engine core failed .*out of memory, said the log"),
        ("no-answer", "the engine ended"),
        ("too-few", "expected 8 tokens, got 7"),
    ],
)
def test_failures_are_told(tmp_path, how, told):
    with (
        pytest.raises(server_level.EngineError, match=told),
        started(tmp_path, "good", "1") as baseline,
        started(tmp_path, "bad", how) as candidate,
    ):
        measure(baseline, candidate)
