# Copyright (c) 2026 The ocrfleet.gpu_stack contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The document level of the benchmark: the same PDFs through OlmOCR's real pipeline, baseline and candidate in turn.

Three habits of the pipeline would make figures up. It exits 0 when every page failed: only result files count, and a
page that the model did not read makes the run a failure. It does nothing in a workspace that it has seen: each run
has a new one. It writes beside the source: it gets copies. What is timed is the time of its workers, from the first
item of work to the last worker's end, by its own log; imports and a server's start are left out.
"""

from __future__ import annotations

import glob
import json
import os
import re
import shutil
import statistics
import tempfile
import time
from datetime import datetime

from ansible_collections.ocrfleet.gpu_stack.plugins.module_utils import commands
from ansible_collections.ocrfleet.gpu_stack.plugins.module_utils.staging import Stage

_STAMP = r"^(?P<time>\d{4}-\d\d-\d\d \d\d:\d\d:\d\d,\d{3}) - .* - INFO - Worker \d+ "
_BEGUN = re.compile(_STAMP + "processing work item", re.MULTILINE)
_ENDED = re.compile(_STAMP + "exiting due to empty queue", re.MULTILINE)
# The figures and hopes of the procedure by hand (its document PARALLELIZATION), by the number of workers.
HOPED = {2: "2.3x by hand before; hoped for 2.5 to 2.8x", 4: "3.1x by hand before; hoped for 3.4 to 3.7x"}


class RunError(Exception):
    """A run whose time says nothing: a page failed, or nothing was done."""


def working_seconds(log: str) -> float:
    """The time of the workers by the pipeline's log."""
    begun, ended = _BEGUN.search(log), list(_ENDED.finditer(log))
    if not begun or not ended:
        raise RunError("the pipeline's log names no work: nothing was done")
    first, last = (datetime.strptime(found["time"], "%Y-%m-%d %H:%M:%S,%f") for found in (begun, ended[-1]))
    return max(0.001, (last - first).total_seconds())


def judged(workspace: str, documents: list[str]) -> dict:
    """Pages and tokens by the result files. Raises RunError unless every page of every document was read."""
    found = {}
    for path in glob.glob(os.path.join(glob.escape(workspace), "results", "output_*.jsonl")):
        with open(path, encoding="utf-8") as file:
            for line in filter(str.strip, file):
                record = json.loads(line)
                found[os.path.basename(record["metadata"]["Source-File"])] = record
    lost = sorted(set(map(os.path.basename, documents)) - set(found))
    if lost:
        raise RunError(f"{len(lost)} of {len(documents)} documents gave no text at all: {', '.join(lost[:3])}")
    totals = {"pages": 0, "failed": 0, "tokens": 0}
    for record in found.values():
        totals["pages"] += record["metadata"]["pdf-total-pages"]
        totals["failed"] += record["metadata"]["total-fallback-pages"]
        totals["tokens"] += record["metadata"]["total-output-tokens"]
        if not (record["text"] or "").strip():
            raise RunError(f"the text of {record['metadata']['Source-File']} is empty")
    if totals["failed"]:
        raise RunError(f"{totals['failed']} of {totals['pages']} pages were not read by the model")
    return totals


def run(
    stage: Stage, documents: list[str], *, workers: int, server: str, model: str, env: dict[str, str], timeout: float
) -> dict:
    """One run of the pipeline over copies of `documents` in a workspace of its own."""
    folder = tempfile.mkdtemp(prefix="ocrfleet-benchmark-")
    try:
        copies = []
        for document in documents:
            copies.append(os.path.join("pdfs", os.path.basename(document)))
            os.makedirs(os.path.join(folder, "pdfs"), exist_ok=True)
            shutil.copyfile(document, os.path.join(folder, copies[-1]))
        argv = [stage.python, "-m", "olmocr.pipeline", "workspace", "--markdown", "--workers", str(workers)]
        # One document an item of work, so that there is work for every worker.
        argv += ["--pages_per_group", "1", "--max_page_retries", "3"]
        argv += ["--server", server] if server else []
        argv += ["--model", model] if model else []
        result: commands.Result = stage.run(
            [*argv, "--pdfs", *copies], timeout=timeout, env={"PYTHONDONTWRITEBYTECODE": "1", **env}, cwd=folder
        )
        if not result.ok:
            raise RunError(result.outcome(lines=3))
        totals = judged(os.path.join(folder, "workspace"), documents)
        seconds = working_seconds(result.stderr + result.stdout)
    finally:
        shutil.rmtree(folder, ignore_errors=True)
    rates = {"pages_per_second": totals["pages"] / seconds, "tokens_per_second": totals["tokens"] / seconds}
    return {**totals, "seconds": seconds, **rates}


def measure(sides: dict[str, tuple[Stage, dict]], sets: dict[str, list[str]], options: dict) -> list[dict]:
    """Comparisons by set and number of workers. `sides` has `baseline` and `candidate`, each with its variables."""
    entries = []
    for name, documents in sets.items():
        for workers in options["workers"]:
            plural = "worker" if workers == 1 else "workers"
            entry: dict = {
                "name": f"{name}, {workers} {plural}",
                "set": name,
                "workers": workers,
                "unit": "pages/s",
                "better": "higher",
                "pairs": [],
                "tokens_per_second": [],
            }
            try:
                for turn in range(options["repeats"]):
                    pair = {}
                    for side in list(sides) if turn % 2 == 0 else reversed(list(sides)):
                        stage, env = sides[side]
                        pair[side] = run(
                            stage,
                            documents,
                            workers=workers,
                            server=options["server"],
                            model=options["model"],
                            env=env,
                            timeout=options["timeout"],
                        )
                    entry["pairs"].append([pair[side]["pages_per_second"] for side in ("baseline", "candidate")])
                    entry["tokens_per_second"].append(
                        [pair[side]["tokens_per_second"] for side in ("baseline", "candidate")]
                    )
                entry["tokens_per_second"] = {
                    side: statistics.median(pair[position] for pair in entry["tokens_per_second"])
                    for position, side in enumerate(("baseline", "candidate"))
                }
            except RunError as error:
                entry.pop("tokens_per_second")
                entry.update(pairs=[], reason=f"{side}: {error}")
            entries.append(entry)
    return entries


def scaling(judged_entries: list[dict]) -> list[dict]:
    """Speed-up over one worker, by set: medians of both sides, beside what was hoped for."""
    alone = {entry["set"]: entry for entry in judged_entries if entry["workers"] == 1 and entry.get("baseline")}
    return [
        {
            "set": entry["set"],
            "workers": entry["workers"],
            "hoped": HOPED.get(entry["workers"], ""),
            **{side: entry[side]["median"] / alone[entry["set"]][side]["median"] for side in ("baseline", "candidate")},
        }
        for entry in judged_entries
        if entry["workers"] > 1 and entry.get("baseline") and entry["set"] in alone
    ]


def elapsed(started: float) -> float:
    return round(time.monotonic() - started, 1)
