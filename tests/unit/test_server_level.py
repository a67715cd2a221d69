# Copyright (c) 2026 The ocrfleet.gpu_stack contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Two engines in turn, with a stand-in for vllm: what is tested is the pairing and how failures are told, never a
speed.
"""

from __future__ import annotations

import json
import sys
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


def variant(name: str, how: str, record: Path | None = None) -> server_level.Variant:
    stage = staging.Stage(str(Path(sys.executable).parent.parent))
    recorded = {"FAKE_VLLM_RECORD": str(record)} if record else {}
    return server_level.Variant(name, stage, {"PYTHONPATH": str(FAKE), "FAKE_VLLM": how, **recorded})


RECORDED = Path(__file__).parent / "fixtures/recorded"


def logged(name: str, log: str, **variables: str) -> server_level.Variant:
    """An engine whose log is one that was recorded."""
    made = variant(name, "1")
    recorded = {"FAKE_VLLM_LOG": str(RECORDED / f"vllm-0.11.0-{log}.txt"), **variables}
    return server_level.Variant(name, made.stage, {**made.env, **recorded})


def measure(folder: Path, *variants: server_level.Variant, starts: int = 5, seconds: float = 60):
    loads = [server_level.Load(1), server_level.Load(2)]
    options = {"tokens": (10, 5), "starts": starts, "timeout": 60, "seconds": seconds}
    return server_level.measure(variants, str(folder), SETTINGS, loads, **options)


def test_the_faster_engine_is_found(tmp_path):
    kept: list[int] = []
    loads = [server_level.Load(1), server_level.Load(2)]
    entries, about = server_level.measure(
        (variant("slow", "200"), variant("fast", "20")),
        str(tmp_path),
        SETTINGS,
        loads,
        tokens=(10, 5),
        starts=5,
        timeout=60,
        seconds=60,
        keep=lambda entries: kept.append(len(entries[0]["pairs"])),
    )
    judged = paired.compare_family(entries)
    # No verdict: a busy machine may delay one of five answers by more than the stand-ins differ.
    assert [(entry["name"], entry["pairs"], entry["speedup"] > 1) for entry in judged] == [
        ("1 request", 5, True),
        ("2 requests", 5, True),
    ]
    assert kept == [1, 2, 3, 4, 5]
    assert (about["baseline"]["name"], about["candidate"]["name"], about["candidate"]["starts"]) == ("slow", "fast", 5)
    assert about["candidate"]["proof"] == ["Using Flash Attention backend on V1 engine."]
    assert about["candidate"]["ready_seconds"] >= 0.2, "the stand-in takes that long to start"


def test_each_pair_is_a_start_of_either_engine_and_none_is_always_first(tmp_path):
    record = tmp_path / "record"
    measure(tmp_path, variant("a", "1", record), variant("b", "2", record), starts=2)
    said = [json.loads(line) for line in record.read_text().splitlines()]
    starts = [line["how"] for line in said if "started" in line]
    assert starts == ["1", "2", "2", "1"]
    models = {line["started"]["model"] for line in said if "started" in line}
    assert len(models) == 1, "vllm's cache of what it has compiled goes by the model's path"
    asked = [line for line in said if "prompts" in line]
    # For each start a warm-up and two rounds, each of two loads that both engines get one after the other.
    assert len(asked) == 2 * 3 * 2 * 2
    for first, second in zip(asked[::2], asked[1::2]):
        assert {first["how"], second["how"]} == {"1", "2"}
        assert first["prompts"] == second["prompts"], "both answer the same"
    assert asked[0]["prompts"] != asked[2]["prompts"]
    measured = [pair["how"] for pair in asked[::2] if pair["sampling"]["max_tokens"] == 5]
    assert sorted(measured) == ["1"] * 4 + ["2"] * 4
    assert {line["sampling"]["max_tokens"] for line in asked} == {8, 5}


def test_engines_answer_each_request_in_full_and_from_scratch(tmp_path):
    record = tmp_path / "record"
    measure(tmp_path, variant("a", "1", record), variant("b", "2", record), starts=1)
    said = [json.loads(line) for line in record.read_text().splitlines()]
    assert {line["started"]["enable_prefix_caching"] for line in said if "started" in line} == {False}
    assert {line["sampling"]["ignore_eos"] for line in said if "sampling" in line} == {True}


def test_no_start_begins_after_the_deadline(tmp_path):
    entries, _about = measure(tmp_path, variant("a", "10"), variant("b", "10"), seconds=-1)
    assert [len(entry["pairs"]) for entry in entries] == [1, 1]


def test_an_engine_is_gone_afterwards(tmp_path):
    with server_level.started(variant("a", "10"), str(tmp_path / "a"), SETTINGS, 60) as engine:
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
    ):
        measure(tmp_path, variant("good", "1"), variant("bad", how))


def test_figures_in_which_flashinfer_had_no_part_are_told_as_such(tmp_path):
    """The stand-in says FlashAttention and nothing of its sampler, unless a log is recorded."""
    entries, about = measure(tmp_path, variant("a", "1"), variant("b", "1"), starts=1)
    assert len(entries) == 2
    assert about["note"].startswith("vllm's log does not name all that it used")
    off, on = logged("b", "sampler-off"), logged("b", "sampler-on")
    _entries, about = measure(tmp_path / "off", logged("a", "no-flashinfer"), off, starts=1)
    assert about["note"].startswith("both sides used Flash Attention and PyTorch's sampler: the figures say nothing")
    _entries, about = measure(tmp_path / "on", logged("a", "no-flashinfer"), on, starts=1)
    assert about["note"] == ""


def test_an_engine_that_samples_otherwise_than_it_was_started_fails(tmp_path):
    wrong = logged("b", "sampler-off", VLLM_USE_FLASHINFER_SAMPLER="1")
    with pytest.raises(server_level.EngineError, match="b: expected vllm to sample with FlashInfer, as it was started"):
        measure(tmp_path, logged("a", "no-flashinfer"), wrong, starts=1)
