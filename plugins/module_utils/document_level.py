# Copyright (c) 2026 The ocrfleet.gpu_stack contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The document level of the benchmark: the same PDFs through OlmOCR's real pipeline, baseline and candidate in turn.

Three habits of the pipeline would make figures up. It exits 0 when every page failed: only result files count, and a
run with a page that the model did not read gives no figure. It does nothing in a workspace that it has seen: each run
has a new one. It writes beside the source: it gets copies. What is timed is the time of its workers, from the first
item of work to the last worker's end, by its own log; imports and a server's start are left out. Before the first pair
of a set each side runs once and is not counted, since the first run finds caches and kernels cold. Pages a second say
something only where both sides do the same work: they have to write as much, and of documents that this collection
made, whose words are known, what stands there. Whether FlashInfer
had a part in the figures, the log of the vllm that the pipeline starts has to say.
"""

from __future__ import annotations

import contextlib
import glob
import json
import math
import os
import re
import shutil
import statistics
import subprocess
import tempfile
from datetime import datetime

from ansible_collections.ocrfleet.gpu_stack.plugins.module_utils import (
    activation,
    commands,
    document_check,
    hopes,
    paired,
    vllm_log,
)
from ansible_collections.ocrfleet.gpu_stack.plugins.module_utils.staging import Stage

_STAMP = r"^(?P<time>\d{4}-\d\d-\d\d \d\d:\d\d:\d\d,\d{3}) - .* - INFO - Worker \d+ "
_BEGUN = re.compile(_STAMP + "processing work item", re.MULTILINE)
_DONE = re.compile(r" - INFO - Finished TaskGroup for worker on ")
_ENDED = re.compile(_STAMP + "exiting due to empty queue", re.MULTILINE)
SIDES = ("baseline", "candidate")
# By the path of a document the lines of each of its pages.
Words = dict[str, list[list[str]]]
# What other kernels round may change a length by, always in the same way; and a change that no noise excuses.
ROUNDED, OTHER_WORK = 0.02, 0.1
ALONE = "no second worker was at work beside the first"


class RunError(Exception):
    """A run whose time says nothing: a page failed, or nothing was done."""


class PagesUnread(RunError):
    """A run in which the model did not read this many pages."""

    def __init__(self, message: str, pages: int) -> None:
        super().__init__(message)
        self.pages = pages


def working_seconds(log: str) -> float:
    """The time of the workers by the pipeline's log."""
    begun, ended = _BEGUN.search(log), list(_ENDED.finditer(log))
    if not begun or not ended:
        raise RunError("the pipeline's log names no work: nothing was done")
    first, last = (datetime.strptime(found["time"], "%Y-%m-%d %H:%M:%S,%f") for found in (begun, ended[-1]))
    if last <= first:
        raise RunError(f"expected the workers to end after {first}, found {last}: the clock was set back meanwhile")
    return (last - first).total_seconds()


def at_once(log: str) -> int:
    """How many workers were at work beside one another at the most, by the log of OlmOCR 0.4.2."""
    now = most = 0
    for line in log.splitlines():
        now += bool(_BEGUN.match(line)) - bool(_DONE.search(line))
        most = max(most, now)
    return most


def named_copies(documents: list[str]) -> dict[str, str]:
    """Each document by the name that its copy gets. Numbered, since two folders may have files of one name."""
    return {f"{number}-{os.path.basename(document)}": document for number, document in enumerate(documents, 1)}


def page_count(document: str) -> int:
    """How many pages a PDF has."""
    said = subprocess.run(["pdfinfo", document], check=True, timeout=60, capture_output=True, text=True).stdout
    return int(re.findall(r"^Pages:\s+(\d+)$", said, re.MULTILINE)[-1])


def judged(workspace: str, copies: dict[str, str], words: Words) -> dict:
    """Pages and tokens by the result files. Raises RunError unless every page of every copy was read."""
    found = {}
    for path in glob.glob(os.path.join(glob.escape(workspace), "results", "output_*.jsonl")):
        with open(path, encoding="utf-8") as file:
            for line in filter(str.strip, file):
                record = json.loads(line)
                found[os.path.basename(record["metadata"]["Source-File"])] = record
    totals = {"pages": 0, "failed": 0, "tokens": 0}
    for copy, record in found.items():
        totals["pages"] += record["metadata"]["pdf-total-pages"]
        totals["failed"] += record["metadata"]["total-fallback-pages"]
        totals["tokens"] += record["metadata"]["total-output-tokens"]
        if not (record["text"] or "").strip():
            raise RunError(f"the text of {copies.get(copy, copy)} is empty")
    lost = [document for copy, document in copies.items() if copy not in found]
    if lost:
        raise PagesUnread(
            f"{len(lost)} of {len(copies)} documents gave no text at all: {', '.join(lost[:3])}",
            totals["failed"] + sum(map(page_count, lost)),
        )
    if totals["failed"]:
        raise PagesUnread(f"{totals['failed']} of {totals['pages']} pages were not read by the model", totals["failed"])
    if not totals["tokens"]:
        raise RunError("the pipeline's results name no output tokens: that both sides write as much cannot be told")
    for copy, record in found.items():
        _hold_words(copies.get(copy, copy), record["text"], words)
    return totals


def _hold_words(document: str, text: str, words: Words) -> None:
    """Raise RunError where a page that this collection made does not hold half of its lines.

    A model that reads may misread a line here and there; one that stops early, or whose kernels are wrong, loses pages.
    """
    pages, said = words.get(document, []), document_check.letters(text)
    wrong = [page for page in pages if 2 * sum(document_check.letters(line) in said for line in page) < len(page)]
    if wrong:
        raise RunError(
            f"{len(wrong)} of {len(pages)} pages of {os.path.basename(document)} do not hold the document's own words, "
            f"as {wrong[0][0]!r}"
        )


def proof(log: str, env: dict[str, str]) -> list[str]:
    """What the pipeline's own vllm says that it used. Raises RunError where it was started to use something else."""
    contradiction = vllm_log.contradiction(log, env.get(activation.SAMPLER))
    if contradiction:
        raise RunError(contradiction)
    return vllm_log.proof(log)


def run(
    stage: Stage,
    documents: list[str],
    *,
    workers: int,
    server: str,
    model: str,
    env: dict[str, str],
    timeout: float,
    words: Words | None = None,
) -> dict:
    """One run of the pipeline over copies of `documents` in a workspace of its own."""
    folder = tempfile.mkdtemp(prefix="ocrfleet-benchmark-")
    try:
        copies = named_copies(documents)
        os.mkdir(os.path.join(folder, "pdfs"))
        for copy, document in copies.items():
            shutil.copyfile(document, os.path.join(folder, "pdfs", copy))
        argv = [stage.python, "-m", "olmocr.pipeline", "workspace", "--markdown", "--workers", str(workers)]
        # One document an item of work, so that there is work for every worker.
        # Without the rate the pipeline gives up a document for one page, and nothing tells how many were not read.
        argv += ["--pages_per_group", "1", "--max_page_error_rate", "1"]
        argv += document_check.model_options(server, model)
        argv += ["--pdfs", *(os.path.join("pdfs", copy) for copy in copies)]
        result: commands.Result = stage.run(
            # In UTC, where no summer time ends or begins in the middle of a run.
            argv,
            timeout=timeout,
            env={"PYTHONDONTWRITEBYTECODE": "1", **env, "TZ": "UTC"},
            cwd=folder,
        )
        if not result.ok:
            raise RunError(result.outcome(lines=3))
        totals = judged(os.path.join(folder, "workspace"), copies, words or {})
        log = result.stderr + result.stdout
        seconds = working_seconds(log)
        proven = [] if server else proof(log, env)
    finally:
        shutil.rmtree(folder, ignore_errors=True)
    rates = {"pages_per_second": totals["pages"] / seconds, "tokens_per_second": totals["tokens"] / seconds}
    return {**totals, "seconds": seconds, "at_once": at_once(log), "proof": proven, **rates}


def _in_turn(
    sides: dict, documents: list[str], workers: int, options: dict, order: list[str], words: Words
) -> tuple[dict[str, dict], dict[str, PagesUnread]]:
    """One run of each side, and why one has none that left pages unread. Raises RunError with the side that failed."""
    pair: dict[str, dict] = {}
    unread: dict[str, PagesUnread] = {}
    for side in order:
        stage, env = sides[side]
        given = {name: options[name] for name in ("server", "model", "timeout")}
        try:
            pair[side] = run(stage, documents, workers=workers, env=env, words=words, **given)
        except PagesUnread as error:
            unread[side] = error
        except RunError as error:
            raise RunError(f"{side}: {error}") from error
    return pair, unread


def other_work(lengths: list[list[float]]) -> str:
    """Why both sides' output tokens a page, in pairs, are not those of the same work, or "".

    Noise in the length is in the speed's interval, too. Shorter by rule looks like speed: so they may differ by no more
    than the noise of the pairs, or ROUNDED where that is more, and by no more than OTHER_WORK whatever the noise.
    """
    logs = [math.log(candidate / baseline) for baseline, candidate in lengths]
    reach = math.log(1 + OTHER_WORK)
    if len(logs) >= paired.LEAST_PAIRS:
        quantile = paired.student_quantile(0.95, len(logs) - 1)
        noise = quantile * statistics.stdev(logs) / math.sqrt(len(logs))
        reach = min(reach, max(noise, math.log(1 + ROUNDED)))
    if abs(statistics.fmean(logs)) <= reach:
        return ""
    before, after = (statistics.median(side) for side in zip(*lengths))
    return (
        f"expected either side to write as much, found {before:.1f} output tokens a page without FlashInfer and "
        f"{after:.1f} with it: their speeds are not those of the same work"
    )


def _entry(sides: dict, name: str, documents: list[str], workers: int, options: dict, words: Words) -> dict:
    """The pairs of one set and one number of workers, or why there are none."""
    entry: dict = {
        "name": f"{name}, {workers} {'worker' if workers == 1 else 'workers'}",
        "set": name,
        "workers": workers,
        "unit": "pages/s",
        "better": "higher",
        "failed_pages": dict.fromkeys(SIDES, 0),
    }
    orders = [list(SIDES), list(reversed(SIDES))]
    pairs, reason = [], ""
    try:
        for turn in range(options["repeats"]):
            pair, unread = _in_turn(sides, documents, workers, options, orders[turn % 2], words)
            for side, error in unread.items():
                entry["failed_pages"][side] += error.pages
                reason = f"{side}: {error}"
            if not unread:
                pairs.append(pair)
    except RunError as error:
        return {**entry, "pairs": [], "reason": str(error)}
    if not pairs:
        return {**entry, "pairs": [], "reason": reason}
    rates = [
        [[pair[side][rate] for side in SIDES] for pair in pairs] for rate in ("pages_per_second", "tokens_per_second")
    ]
    lengths = [[tokens / pages for pages, tokens in zip(*both)] for both in zip(*rates)]
    different = other_work(lengths)
    if different:
        return {**entry, "pairs": [], "reason": different}
    return {
        **entry,
        "pairs": rates[0],
        "tokens_per_second": {
            side: statistics.median(pair[side]["tokens_per_second"] for pair in pairs) for side in SIDES
        },
        "at_once": max(pair[side]["at_once"] for pair in pairs for side in SIDES),
        "proof": {side: {line for pair in pairs for line in pair[side]["proof"]} for side in SIDES},
    }


def fair(judged_entries: list[dict]) -> list[dict]:
    """The comparisons, none of which calls a side the faster that left more pages unread than the other."""
    favours = {paired.FASTER: ("candidate", "baseline"), paired.SLOWER: ("baseline", "candidate")}

    def verdict(entry: dict) -> dict:
        better, worse = favours.get(entry.get("verdict", ""), SIDES)
        unfair = entry.get("verdict") in favours and entry["failed_pages"][better] > entry["failed_pages"][worse]
        return {**entry, "verdict": paired.UNFAIR} if unfair else entry

    return [verdict(entry) for entry in judged_entries]


def measure(
    sides: dict[str, tuple[Stage, dict]], sets: dict[str, list[str]], options: dict, words: Words | None = None
) -> tuple[list[dict], dict]:
    """Comparisons by set and number of workers, and what each side's vllm says that it used.

    `sides` has `baseline` and `candidate`, each with its variables. Of what a server used nothing is known. `words` has
    the lines of each page of the documents whose text is known.
    """
    entries: list[dict] = []
    known = words or {}
    for name, documents in sets.items():
        # Where this fails, so does the first pair, which says why.
        with contextlib.suppress(RunError):
            _in_turn(sides, documents, options["workers"][0], options, list(SIDES), known)
        entries += [_entry(sides, name, documents, workers, options, known) for workers in options["workers"]]
    proofs = [found for found in (entry.pop("proof", None) for entry in entries) if found]
    return entries, {} if options["server"] or not proofs else _used(proofs)


def _used(proofs: list[dict[str, set[str]]]) -> dict:
    """The `proof` of each side over all comparisons, and in `note` why the figures are not about FlashInfer, or ""."""
    lines = {side: sorted({line for found in proofs for line in found[side]}) for side in SIDES}
    note = vllm_log.doubt(*("\n".join(lines[side]) for side in SIDES))
    return {**{side: {"proof": lines[side]} for side in SIDES}, "note": note}


def scaling(judged_entries: list[dict]) -> list[dict]:
    """Speed-up over one worker, by set: medians of both sides, beside what was hoped for."""
    alone = {entry["set"]: entry for entry in judged_entries if entry["workers"] == 1 and entry.get("baseline")}
    return [
        {
            "set": entry["set"],
            "workers": entry["workers"],
            "hoped": hopes.of_scaling(entry["set"], entry["workers"]),
            "note": "" if entry["at_once"] > 1 else ALONE,
            **{side: entry[side]["median"] / alone[entry["set"]][side]["median"] for side in ("baseline", "candidate")},
        }
        for entry in judged_entries
        if entry["workers"] > 1 and entry.get("baseline") and entry["set"] in alone
    ]
