# Copyright (c) 2026 The ocrfleet.gpu_stack contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""What the module benchmark refuses to compare, and what it calls a failure.

OlmOCR, vllm and FlashInfer are stand-ins.
"""

from __future__ import annotations

import itertools
import json
import re
import subprocess
from pathlib import Path
from types import SimpleNamespace

import pytest
from ansible_collections.ocrfleet.gpu_stack.plugins.module_utils import (
    document_level,
    flashinfer_policy,
    gpu_presence,
    kernel_level,
    kernel_timings,
    made_documents,
    server_level,
    smoke,
    staging,
)
from ansible_collections.ocrfleet.gpu_stack.plugins.modules import benchmark
from made_environment import SITE, add_distribution, make_environment

FAKE = Path(__file__).parent / "fixtures/gpu"
SERVER = "http://127.0.0.1:1/v1"


def tree(folder: Path, flashinfer: bool) -> str:
    made = make_environment(folder)
    if flashinfer:
        add_distribution(made, "flashinfer_python", "0.3.1", {"flashinfer/__init__.py": ""})
    return str(made)


@pytest.fixture
def trees(tmp_path) -> dict[str, str]:
    return {name: tree(tmp_path / name, name == "with") for name in ("with", "without")}


def made(tmp_path: Path, environment: str, baseline: str | None = None, candidate: str | None = None, **more: object):
    options = {
        "environment": environment,
        "baseline": baseline,
        "candidate": candidate,
        "pdfs": [],
        "documents": 1,
        "pages": 1,
        "workers": [1],
        "repeats": 5,
        "server": SERVER,
        "stand_in": "",
        "model": "m",
        "timeout": 60,
        **more,
    }
    folder = tmp_path / "folder"
    folder.mkdir(exist_ok=True)
    return benchmark.Benchmark(options, str(folder))


@pytest.mark.parametrize("level", ["documents", "server", "kernels"])
def test_a_candidate_without_flashinfer_is_not_measured(tmp_path, trees, level):
    found = made(tmp_path, trees["with"], candidate=trees["without"]).run(level)
    assert (found["status"], found["comparisons"]) == ("not_run", [])
    assert re.fullmatch("expected FlashInfer in .*/without, found none; install it first", found["reason"])


@pytest.mark.parametrize("level", ["documents", "server"])
def test_a_baseline_with_flashinfer_is_not_measured(tmp_path, trees, level):
    candidate = tree(tmp_path / "newer", flashinfer=True)
    found = made(tmp_path, trees["with"], candidate=candidate).run(level)
    assert found["status"] == "not_run"
    assert found["reason"] == f"expected a baseline without FlashInfer, found FlashInfer in {trees['with']}"
    assert "no baseline without FlashInfer" in made(tmp_path, trees["with"]).run(level)["reason"]


def test_what_differs_by_more_than_flashinfer_is_not_measured(tmp_path, trees):
    for name, version in (("without", "0.10.1"), ("with", "0.11.0")):
        add_distribution(Path(trees[name]), "vllm", version, {"vllm/__init__.py": ""})
    add_distribution(Path(trees["with"]), "apache_tvm_ffi", "0.1.0", {"tvm_ffi.py": ""})
    add_distribution(Path(trees["without"]), "xformers", "0.0.32", {"xformers.py": ""})
    record = Path(trees["with"], flashinfer_policy.RECORD)
    record.parent.mkdir(parents=True)
    brought = {"flashinfer-python": "0.3.1", "apache-tvm-ffi": "0.1.0"}
    record.write_text(json.dumps({"method": "pypi", "version": "0.3.1", "packages": brought}))
    for level in ("documents", "server"):
        found = made(tmp_path, trees["with"], baseline=trees["without"]).run(level)
        assert found["status"] == "not_run"
        assert found["reason"].startswith(
            "expected a baseline and a candidate that differ by FlashInfer and what it brought alone, found vllm "
            "0.10.1 in the baseline and 0.11.0 in the candidate; xformers 0.0.32 in the baseline and none in the "
            "candidate; any figure"
        )
    assert "NVIDIA GPU" in made(tmp_path, trees["with"], baseline=trees["without"]).run("kernels")["reason"]


def fake_documents(monkeypatch: pytest.MonkeyPatch, *lines: object) -> None:
    """Result files with these lines, from a pipeline that ends well."""

    def run(stage, documents, **_options):
        workspace = Path(documents[0]).parent / "workspace"
        (workspace / "results").mkdir(parents=True, exist_ok=True)
        (workspace / "results/output_0.jsonl").write_text("\n".join(map(str, lines)))
        return document_level.judged(str(workspace), document_level.named_copies(documents))

    monkeypatch.setattr(document_level, "run", run)


@pytest.mark.parametrize("line", ["{", "{}", "[]", json.dumps({"metadata": {"Source-File": "1-scanned-0.pdf"}})])
def test_a_broken_result_file_is_a_failure(tmp_path, trees, monkeypatch, line):
    fake_documents(monkeypatch, line)
    found = made(tmp_path, trees["with"], baseline=trees["without"]).run("documents")
    assert found["status"] == "failed"
    assert found["reason"]


def test_a_side_that_cannot_read_a_page_fails_the_level(tmp_path, trees, monkeypatch):
    def run(stage, documents, **_options):
        if stage.tree == trees["with"]:
            raise document_level.RunError("8 of 8 pages were not read by the model")
        return {"pages_per_second": 1.0, "tokens_per_second": 9.0, "at_once": 1, "proof": []}

    monkeypatch.setattr(document_level, "run", run)
    found = made(tmp_path, trees["with"], baseline=trees["without"]).run("documents")
    assert found["status"] == "failed"
    assert "8 of 8 pages" in found["reason"]
    assert {entry["status"] for entry in found["comparisons"]} == {"failed"}


@pytest.mark.parametrize(
    "error", [subprocess.CalledProcessError(1, "pdftoppm"), subprocess.TimeoutExpired("pdftoppm", 60)]
)
def test_documents_that_cannot_be_made_fail_their_level_only(tmp_path, trees, monkeypatch, error):
    """It was a traceback, and with it every level was lost that had been measured already."""

    def make(*_arguments):
        raise error

    monkeypatch.setattr(made_documents, "make", make)
    found = made(tmp_path, trees["with"], baseline=trees["without"]).run("documents")
    assert (found["status"], found["comparisons"]) == ("failed", [])
    assert found["reason"].startswith(type(error).__name__) and "pdftoppm" in found["reason"]


def test_a_level_says_when_and_on_what_it_was_measured(tmp_path, trees, monkeypatch):
    rate = {"pages_per_second": 1.0, "tokens_per_second": 9.0, "at_once": 1, "proof": []}
    monkeypatch.setattr(document_level, "run", lambda *_arguments, **_options: rate)
    found = made(tmp_path, trees["with"], baseline=trees["without"]).run("documents")
    assert (found["status"], found["server"]) == ("measured", SERVER)
    assert set(found["read"]["documents"].values()) == {made(tmp_path, trees["with"]).options["documents"]}
    assert min(found["read"]["pages"].values()) >= 1
    assert {entry["status"] for entry in found["comparisons"]} == {"measured"}
    assert re.fullmatch(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\dZ", found["finished"])
    assert found["fingerprint"] == made(tmp_path, trees["with"]).run("server")["fingerprint"]
    other = made(tmp_path, trees["without"], candidate=trees["without"]).run("server")
    assert found["fingerprint"] != other["fingerprint"]


def test_figures_that_are_not_about_flashinfer_are_told_as_such(tmp_path, trees, monkeypatch):
    lines = ["Using Flash Attention backend on V1 engine.", "FlashInfer is not available."]
    rate = {"pages_per_second": 1.0, "tokens_per_second": 9.0, "at_once": 1, "proof": lines}
    monkeypatch.setattr(document_level, "run", lambda *_arguments, **_options: rate)
    monkeypatch.setattr(gpu_presence, "evidence", lambda: ["a GPU"])
    found = made(tmp_path, trees["with"], baseline=trees["without"], server="").run("documents")
    assert (found["status"], found["baseline"], found["candidate"]) == ("measured", *2 * [{"proof": sorted(lines)}])
    assert benchmark.sentences("documents", found)[-1] == (
        "documents: both sides used Flash Attention and PyTorch's sampler: the figures say nothing of FlashInfer"
    )


CALL = {"name": "flashinfer_decode", "status": "passed", "reason": "", "message": "", "first_call_seconds": 1.0}
CALL = {**CALL, "origin": "pack", "error": None}
PAIRS = {"event": "comparison", "name": "decode", "unit": "ms", "better": "lower", "pairs": [[2, 1]] * 3}
WRONG = {"event": "comparison", "name": "prefill", "unit": "ms", "better": "lower", "reason": "the two outputs differ"}


@pytest.mark.parametrize(
    ("call", "events", "status", "reason"),
    [
        (CALL, [PAIRS, {"event": "end"}], "measured", ""),
        (CALL, [PAIRS, WRONG, {"event": "end"}], "failed", "prefill: the two outputs differ"),
        (
            {**CALL, "status": "failed", "message": "NaN where none belongs"},
            [PAIRS, {"event": "end"}],
            "failed",
            "flashinfer_decode: NaN where none belongs",
        ),
        (CALL, [PAIRS], "failed", "ended with exit code"),
    ],
)
def test_a_kernel_that_computes_something_wrong_fails_its_level(
    tmp_path, trees, monkeypatch, call, events, status, reason
):
    monkeypatch.setattr(smoke, "run_all", lambda *_arguments: ([call], {"capability": "9.0"}, 1, []))
    monkeypatch.setattr(smoke, "read_events", lambda _path: events)
    stage = staging.Stage(trees["with"])
    found = kernel_level.measure(stage, str(tmp_path), {}, processes=3, timeout=60)
    assert found["status"] == status
    assert reason in found["reason"]
    assert [entry["status"] for entry in found["comparisons"]][1:] == (["failed"] if WRONG in events else [])


def test_two_engines_need_the_memory_of_the_gpu_that_they_would_take(tmp_path, trees, monkeypatch):
    asked: list[str | None] = []
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "1")
    monkeypatch.setattr(gpu_presence, "evidence", lambda: ["GPU 0", "GPU 1"])
    monkeypatch.setattr(gpu_presence, "free_memory", lambda visible: asked.append(visible) or (40000, 81559))
    found = made(tmp_path, trees["with"], baseline=trees["without"]).run("server")
    assert (found["status"], asked) == ("not_run", ["1"])
    assert found["reason"] == "two engines side by side need 77824 MiB of GPU memory, 40000 are free"


def test_a_pair_of_kernels_is_a_process(tmp_path, trees, monkeypatch):
    """Within one process memory stays where it is, and what that does to a kernel would pass for a difference."""
    said = iter([[[4, 1], [1, 1]], [[9, 1], [1, 1]], [[16, 1], [1, 1]]])
    monkeypatch.setattr(smoke, "run_all", lambda *_arguments: ([CALL], {"capability": "9.0"}, 1, []))
    monkeypatch.setattr(smoke, "read_events", lambda _path: [{**PAIRS, "pairs": next(said)}, {"event": "end"}])
    kept: list[dict] = []
    found = kernel_level.measure(
        staging.Stage(trees["with"]), str(tmp_path), {}, processes=3, timeout=60, keep=kept.append
    )
    (entry,) = found["comparisons"]
    assert [[round(side, 6) for side in pair] for pair in entry["pairs"]] == [[2, 1], [3, 1], [4, 1]]
    # What a run that is cut short leaves behind.
    assert [len(partly["comparisons"][0]["pairs"]) for partly in kept] == [1, 2, 3]


def test_no_process_begins_after_the_time(tmp_path, trees, monkeypatch):
    monkeypatch.setattr(smoke, "run_all", lambda *_arguments: ([CALL], {"capability": "9.0"}, 1, []))
    monkeypatch.setattr(smoke, "read_events", lambda _path: [PAIRS, {"event": "end"}])
    found = kernel_level.measure(staging.Stage(trees["with"]), str(tmp_path), {}, processes=3, timeout=-1)
    assert [len(entry["pairs"]) for entry in found["comparisons"]] == [1]


class Clock:
    """Stands in for CUDA events: each call of a side takes its milliseconds of this clock."""

    def __init__(self) -> None:
        self.now, self.order = 0.0, []
        self.cuda = SimpleNamespace(Event=lambda **_options: Event(self), synchronize=lambda: None)

    def side(self, name: str, milliseconds: float):
        def run() -> None:
            self.order.append(name)
            self.now += milliseconds

        return run


class Event:
    def __init__(self, clock: Clock) -> None:
        self.clock, self.at = clock, 0.0

    def record(self) -> None:
        self.at = self.clock.now

    def synchronize(self) -> None:
        pass

    def elapsed_time(self, end: Event) -> float:
        return end.at - self.at


def test_kernels_are_timed_in_turn_by_call():
    clock = Clock()
    pairs = kernel_timings.in_turn(clock, clock.side("a", 6.0), clock.side("b", 3.0), rounds=4, each=3)
    assert pairs == [[2.0, 1.0]] * 4
    blocks = [name for name, _calls in itertools.groupby(clock.order[-8 * 3 :])]
    assert blocks == ["a", "b", "a", "b", "a"], "the one that was last is first in the next pair"


@pytest.mark.parametrize(("cache", "count"), [(4_200_000, 48), (16_800_000, 12), (537_000_000, 1)])
def test_a_decode_reads_its_cache_from_memory(cache, count):
    assert kernel_timings.copies(cache, 50 * 10**6) == count


def test_an_environment_that_does_not_start_is_no_absence_of_a_gpu(tmp_path, trees, monkeypatch):
    call = {**CALL, "status": "failed", "message": "torch does not import"}
    monkeypatch.setattr(smoke, "run_all", lambda *_arguments: ([call], {}, 1, []))
    found = kernel_level.measure(staging.Stage(trees["with"]), str(tmp_path), {}, processes=3, timeout=60)
    assert (found["status"], found["reason"]) == ("failed", "torch does not import")


def test_measuring_writes_nothing_into_the_trees(tmp_path, trees, monkeypatch):
    """By an engine of the level server: Python would compile what it imports, and write that beside it."""
    monkeypatch.delenv("PYTHONDONTWRITEBYTECODE", raising=False)
    made_benchmark = made(tmp_path, trees["with"], baseline=trees["without"])
    stage, env = made_benchmark.sides["baseline"]
    module = Path(stage.tree) / SITE / "vllm/__init__.py"
    module.parent.mkdir()
    module.write_text((FAKE / "fake_vllm/vllm/__init__.py").read_text(encoding="utf-8"))
    at_its_place = staging.Stage(stage.tree)
    variant = server_level.Variant("a", at_its_place, {"PYTHONPATH": str(module.parents[1]), "FAKE_VLLM": "1", **env})
    settings = {**benchmark.ENGINE, "model": ""}
    with server_level.started(variant, str(tmp_path / "engine"), settings, 60):
        pass
    assert not (module.parent / "__pycache__").exists()
