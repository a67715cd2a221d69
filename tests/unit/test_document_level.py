# Copyright (c) 2026 The ocrfleet.gpu_stack contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The document level with a stand-in for the pipeline that has its three habits."""

from __future__ import annotations

import socket
import subprocess
import sys
from dataclasses import dataclass, field
from pathlib import Path

import pytest
from ansible_collections.ocrfleet.gpu_stack.plugins.module_utils import (
    document_level,
    made_documents,
    paired,
    staging,
)

FAKE = Path(__file__).parent / "fixtures/gpu/fake_olmocr"
STAGE = staging.Stage(str(Path(sys.executable).parent.parent))
OPTIONS = {"workers": [1, 2], "repeats": 5, "server": "http://127.0.0.1:1/v1", "model": "m", "timeout": 60}


def env(how: str = "ok", seconds: str = "0.05") -> dict[str, str]:
    return {"PYTHONPATH": str(FAKE), "FAKE_OLMOCR": how, "FAKE_SECONDS": seconds}


@pytest.fixture
def documents(tmp_path):
    folder = tmp_path / "source"
    folder.mkdir()
    return made_documents.make(str(folder), "digital", 2, 2)


def run(documents, how="ok"):
    return document_level.run(STAGE, documents, workers=1, server="u", model="m", env=env(how), timeout=60)


def test_pages_are_counted_over_the_time_of_the_workers(documents):
    done = run(documents)
    assert (done["pages"], done["tokens"]) == (4, 200)
    assert done["pages_per_second"] == pytest.approx(4 / done["seconds"])
    assert 0.05 <= done["seconds"] < 0.053


@pytest.mark.parametrize(
    ("how", "told"),
    [
        ("all-failed", "2 of 2 documents gave no text at all"),  # the pipeline exits 0 all the same
        ("one-lost", "1 of 2 documents gave no text at all: /.*/source/digital-0.pdf"),
        ("one-page", "2 of 4 pages were not read by the model"),
        ("empty", "is empty"),
        ("crash", "ended with exit code 3"),
    ],
)
def test_a_run_in_which_a_page_failed_gives_no_figure(documents, how, told):
    with pytest.raises(document_level.RunError, match=told):
        run(documents, how)


def test_a_second_run_does_the_work_again(documents):
    assert run(documents)["pages"] == run(documents)["pages"] == 4


def test_a_run_that_did_nothing_gives_no_figure():
    with pytest.raises(document_level.RunError, match="nothing was done"):
        document_level.working_seconds("2026-11-25 01:02:03,004 - olmocr - INFO - No work to do, exiting")


WORKED = (
    "2026-11-{} - olmocr.pipeline - INFO - Worker 0 processing work item a\n"
    "2026-11-{} - olmocr.pipeline - INFO - Worker 0 exiting due to empty queue\n"
)


@pytest.mark.parametrize(
    ("begun", "ended", "seconds"),
    [("25 01:02:03,004", "25 01:02:05,504", 2.5), ("25 23:59:59,500", "26 00:00:01,000", 1.5)],
)
def test_the_time_of_the_workers_may_pass_midnight(begun, ended, seconds):
    assert document_level.working_seconds(WORKED.format(begun, ended)) == seconds


@pytest.mark.parametrize("ended", ["25 02:00:20,000", "25 02:59:50,000"])
def test_a_clock_that_went_back_gives_no_figure(ended):
    """It gave 8,000 pages a second."""
    with pytest.raises(document_level.RunError, match="expected the workers to end after .* 02:59:50, .* the clock"):
        document_level.working_seconds(WORKED.format("25 02:59:50,000", ended))


def test_the_folder_of_the_source_stays_as_it_is(documents):
    folder = Path(documents[0]).parent
    before = sorted(folder.iterdir())
    run(documents)
    assert sorted(folder.iterdir()) == before


def test_two_documents_of_one_name_are_two(tmp_path):
    """By hand both went into one copy, and half of the work was measured."""
    for folder in ("a", "b"):
        (tmp_path / folder).mkdir()
    found = [made_documents.make(str(tmp_path / folder), "digital", 1, 2)[0] for folder in ("a", "b")]
    assert [Path(path).name for path in found] == ["digital-0.pdf"] * 2
    assert run(found)["pages"] == 4
    with pytest.raises(document_level.RunError, match="1 of 2 documents gave no text at all: /.*/a/digital-0.pdf"):
        run(found, "one-lost")


@dataclass(frozen=True)
class Watched(staging.Stage):
    """A stage that keeps what it ran."""

    ran: list = field(default_factory=list)

    def run(self, argv, **options):
        self.ran.append((argv, options["env"]))
        return super().run(argv, **options)


def test_a_vllm_of_its_own_has_a_port_of_its_own(documents):
    """The pipeline's own default may be production's, which would answer."""
    stage = Watched(STAGE.environment)
    for _run in range(2):
        document_level.run(stage, documents, workers=1, server="", model="", env=env(), timeout=60)
    ports = [argv[argv.index("--port") + 1] for argv, _env in stage.ran]
    assert "30024" not in ports and ports[0] != ports[1]
    with socket.socket() as listener:
        listener.bind(("", int(ports[0])))
    document_level.run(stage, documents, workers=1, server="http://h/v1", model="m", env=env(), timeout=60)
    assert "--port" not in stage.ran[-1][0]


@pytest.mark.parametrize("workers", [1, 4])
def test_the_pipeline_is_asked_for_what_is_measured(documents, workers):
    """Each document is an item of work, or there is none for a second worker; its clock knows no summer time."""
    stage = Watched(STAGE.environment)
    document_level.run(stage, documents, workers=workers, server="http://h/v1", model="m", env=env(), timeout=60)
    ((argv, variables),) = stage.ran
    assert argv == [
        *[stage.python, "-m", "olmocr.pipeline", "workspace", "--markdown", "--workers", str(workers)],
        *["--pages_per_group", "1", "--max_page_error_rate", "1", "--server", "http://h/v1", "--model", "m"],
        *["--pdfs", "pdfs/1-digital-0.pdf", "pdfs/2-digital-1.pdf"],
    ]
    assert variables["TZ"] == "UTC"


def test_each_set_begins_with_a_run_of_either_side_that_does_not_count(documents):
    stage = Watched(STAGE.environment)
    sides = {side: (stage, {**env(), "SIDE": side}) for side in ("baseline", "candidate")}
    options = {**OPTIONS, "workers": [2, 4], "repeats": 3}
    entries, _about = document_level.measure(sides, {"mine": documents, "yours": documents}, options)
    assert [len(entry["pairs"]) for entry in entries] == [3, 3, 3, 3]
    there, back = ["baseline", "candidate"], ["candidate", "baseline"]
    assert [variables["SIDE"] for _argv, variables in stage.ran] == 2 * [*there, *2 * [*there, *back, *there]]


RECORDED = Path(__file__).parent / "fixtures/recorded"


def logged(name: str, **variables: str) -> dict[str, str]:
    return {**env(), "FAKE_VLLM_LOG": str(RECORDED / f"vllm-0.11.0-{name}.txt"), **variables}


def measured(documents, baseline, candidate, **options):
    sides = {"baseline": (STAGE, baseline), "candidate": (STAGE, candidate)}
    return document_level.measure(sides, {"mine": documents}, {**OPTIONS, "workers": [1], "repeats": 1, **options})


def test_what_vllm_used_is_told_of_either_side(documents):
    entries, about = measured(documents, logged("no-flashinfer"), logged("sampler-on"), server="")
    attention = "Using Flash Attention backend on V1 engine."
    assert about == {
        "baseline": {"proof": ["FlashInfer is not available.", attention]},
        "candidate": {"proof": [attention, "Using FlashInfer for top-p & top-k sampling."]},
        "note": "",
    }
    assert [len(entry["pairs"]) for entry in entries] == [1]
    assert measured(documents, logged("no-flashinfer"), logged("sampler-on"))[1] == {}, "a server's vllm is another"


def test_figures_in_which_flashinfer_had_no_part_are_told_as_such(documents):
    _entries, about = measured(documents, logged("no-flashinfer"), logged("sampler-off"), server="")
    assert about["note"].startswith("both sides used Flash Attention and PyTorch's sampler: the figures say nothing")


def test_a_vllm_that_samples_otherwise_than_it_was_started_fails(documents):
    variables = {"VLLM_USE_FLASHINFER_SAMPLER": "1"}
    entries, about = measured(documents, logged("no-flashinfer"), logged("sampler-off", **variables), server="")
    assert (entries[0]["pairs"], about) == ([], {})
    assert entries[0]["reason"].startswith("candidate: expected vllm to sample with FlashInfer, as it was started")
    assert measured(documents, logged("no-flashinfer"), logged("sampler-off", **variables))[0][0]["pairs"]


STARTS = "2026-11-25 01:02:03,004 - olmocr.pipeline - INFO - Worker {} processing work item {}\n"
ENDS = "2026-11-25 01:02:03,004 - olmocr.pipeline - INFO - Finished TaskGroup for worker on {}\n"


@pytest.mark.parametrize(
    ("log", "most"),
    [
        ("", 0),
        (STARTS.format(0, "a") + ENDS.format("a") + STARTS.format(1, "b") + ENDS.format("b"), 1),
        (STARTS.format(0, "a") + STARTS.format(1, "b") + ENDS.format("a") + ENDS.format("b"), 2),
    ],
)
def test_workers_beside_one_another_are_counted(log, most):
    assert document_level.at_once(log) == most


@pytest.mark.parametrize(("at_once", "note"), [(1, "no second worker was at work beside the first"), (2, "")])
def test_more_workers_that_were_none_are_told(at_once, note):
    entries = [
        {"set": "a", "workers": workers, "at_once": at_once, "baseline": {"median": 1}, "candidate": {"median": 1}}
        for workers in (1, 2)
    ]
    assert [row["note"] for row in document_level.scaling(entries)] == [note]


def test_a_hope_is_told_of_the_set_it_is_of():
    entries = [
        {"set": kind, "workers": workers, "at_once": 2, "baseline": {"median": 1}, "candidate": {"median": 1}}
        for kind in ("scanned", "digital")
        for workers in (1, 2)
    ]
    rows = document_level.scaling(entries)
    assert [(row["set"], row["hoped"]) for row in rows] == [
        ("scanned", "2.3x by hand before; hoped for 2.5 to 2.8x"),
        ("digital", "hoped of FlashInfer: nothing"),
    ]


def test_both_sides_in_turn_and_what_more_workers_bring(documents):
    sides = {"baseline": (STAGE, env("ok", "0.4")), "candidate": (STAGE, env("ok", "0.2"))}
    entries = paired.compare_family(document_level.measure(sides, {"mine": documents}, OPTIONS)[0])
    assert [(entry["name"], entry["pairs"], entry["verdict"]) for entry in entries] == [
        ("mine, 1 worker", 5, "faster"),
        ("mine, 2 workers", 5, "faster"),
    ]
    assert all(entry["tokens_per_second"]["candidate"] > entry["tokens_per_second"]["baseline"] for entry in entries)
    rows = document_level.scaling(entries)
    assert [(row["workers"], round(row["baseline"], 1), row["hoped"]) for row in rows] == [(2, 1.0, "")]


def test_a_side_that_fails_has_its_reason_and_no_figure(documents):
    sides = {"baseline": (STAGE, env()), "candidate": (STAGE, env("all-failed"))}
    entries, _about = document_level.measure(sides, {"mine": documents}, {**OPTIONS, "workers": [1]})
    assert entries[0]["pairs"] == []
    assert entries[0]["reason"].startswith("candidate: 2 of 2 documents")


@pytest.mark.parametrize(("kind", "words"), [("digital", 2), ("scanned", 0), ("mixed", 1)])
def test_made_documents_are_what_they_are_called(tmp_path, kind, words):
    (path,) = made_documents.make(str(tmp_path), kind, 1, 2)
    said = subprocess.run(["pdftotext", path, "-"], capture_output=True, text=True, check=True).stdout
    assert len([page for page in said.split("\f") if page.strip()]) == words
    assert said.count("\f") == 2


def judged(documents, candidate, repeats=6, **options):
    sides = {"baseline": (STAGE, env("ok", "0.4")), "candidate": (STAGE, candidate)}
    options = {**OPTIONS, "workers": [1], "repeats": repeats, **options}
    found = document_level.measure(sides, {"mine": documents}, options)[0]
    (entry,) = document_level.fair(paired.compare_family(found))
    return entry


def test_a_page_that_is_not_read_costs_its_pair_alone(documents, tmp_path):
    """It had cost all pairs of its documents and workers."""
    seen = {**env("sometimes", "0.4"), "FAKE_SEEN": str(tmp_path / "seen")}
    sides = {"baseline": (STAGE, env("ok", "0.4")), "candidate": (STAGE, seen)}
    entry = document_level._entry(sides, "mine", documents, 1, {**OPTIONS, "repeats": 6}, {})
    assert len(entry["pairs"]) == 5
    assert entry["failed_pages"] == {"baseline": 0, "candidate": 2}


def test_a_side_that_leaves_more_pages_unread_is_never_the_faster(documents):
    entries = [
        {"name": "a", "verdict": verdict, "failed_pages": {"baseline": 1, "candidate": failed}}
        for verdict, failed in (("faster", 2), ("faster", 1), ("faster", 0), ("slower", 0), ("slower", 2))
    ]
    assert [entry["verdict"] for entry in document_level.fair(entries)] == [
        *("not comparable", "faster", "faster", "not comparable", "slower")
    ]


@pytest.mark.parametrize("tokens", ["2", "95", "110"])
def test_a_side_that_writes_more_or_less_does_other_work(documents, tokens):
    """2 tokens a page where there were 100 was faster, and met each gate."""
    entry = judged(documents, {**env("ok", "0.05"), "FAKE_TOKENS": tokens})
    assert "verdict" not in entry
    assert entry["reason"].startswith(f"expected either side to write as much, found {50:.1f} output tokens a page")


@pytest.mark.parametrize(
    ("lengths", "same"),
    [
        ([[100, 99]] * 5, True),  # what other kernels round, always in the same way
        ([[100, 97]] * 5, False),
        ([[100, 90], [100, 105], [100, 110], [100, 92], [100, 99]], True),
        ([[100, 80], [100, 105], [100, 60], [100, 92], [100, 99]], False),
        ([[100, 95]] * 3, True),  # too few to tell noise by
        ([[100, 2]] * 3, False),
    ],
)
def test_how_much_the_lengths_may_differ(lengths, same):
    assert (document_level.other_work(lengths) == "") == same


def test_made_documents_are_held_against_their_words(documents, tmp_path):
    """Rubbish of the right length was as good as what stands on the pages."""
    text = tmp_path / "text"
    words = dict(zip(documents, made_documents.words(2, 2)))
    right = "\n".join(line.upper() for pages in words.values() for page in pages for line in page)
    for said, problem in ((right, ""), (right[: len(right) // 3], "1 of 2 pages"), ("rubbish " * 500, "2 of 2 pages")):
        text.write_text(said)
        entry = judged(documents, {**env("ok", "0.4"), "FAKE_TEXT": str(text)}, repeats=1)
        assert "reason" not in entry, "of others' PDFs the words are not known"
        sides = {side: (STAGE, {**env(), "FAKE_TEXT": str(text)}) for side in ("baseline", "candidate")}
        options = {**OPTIONS, "workers": [1], "repeats": 1}
        (entry,), _about = document_level.measure(sides, {"made": documents}, options, words)
        assert (entry["pairs"] == []) == bool(problem)
        assert problem in entry.get("reason", "") and ("do not hold" in entry.get("reason", "")) == bool(problem)
