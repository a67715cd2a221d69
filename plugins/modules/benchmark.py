#!/usr/bin/python
# Copyright (c) 2026 The ocrfleet.gpu_stack contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

from __future__ import annotations

DOCUMENTATION = r"""
module: benchmark
short_description: Measure in pairs what FlashInfer brings, baseline and candidate in turn on one host
version_added: 0.1.0
description:
  - Measures at three levels. What cannot run here is C(not_run), with the reason.
  - C(documents) sends PDFs through OlmOCR's real pipeline. C(server) asks two vllm engines side by side. C(kernels)
    times FlashInfer's kernels beside those that vllm uses without it.
  - A level is measured only where the candidate has FlashInfer and the baseline has none, and no other package differs
    but those that FlashInfer brought. C(kernels) needs no baseline.
  - A verdict is C(faster) or C(slower) only where its interval leaves out "equal". The chance that any verdict of a
    level is false is at most 5 %, where the pairs are independent of each other. C(no difference found) is a verdict.
options:
  environment:
    description: The environment's path.
    type: path
    required: true
  baseline:
    description: The tree without FlashInfer. Left out, it is what lies at O(environment).
    type: path
  candidate:
    description: The tree with FlashInfer. Left out, it is what lies at O(environment).
    type: path
  levels:
    description: What to measure.
    type: list
    elements: str
    choices: [documents, server, kernels]
    default: [documents, server, kernels]
  pdfs:
    description: PDF files on the host. Left out, scanned, digital and mixed ones are made.
    type: list
    elements: path
    default: []
  documents:
    description: How many PDFs of each kind are made.
    type: int
    default: 4
  pages:
    description: How many pages each of them has.
    type: int
    default: 2
  workers:
    description: The pipeline's numbers of workers, each measured by itself.
    type: list
    elements: int
    default: [1, 2, 4]
  repeats:
    description: >-
      How many pairs are measured. Each is a run of the pipeline on either side, a start of vllm on either side, or a
      process that calls both sides' kernels. Below 5 there is no verdict.
    type: int
    default: 5
  server:
    description: URL of an OpenAI-compatible server for the level C(documents). Left out, the pipeline starts vllm.
    type: str
    default: ""
  stand_in:
    description: What the server is, where it only stands in for a model on a GPU. The report names it.
    type: str
    default: ""
  model:
    description: The model. Left out, OlmOCR's own, or the server's first; the level C(server) then uses dummy weights.
    type: str
    default: ""
  timeout:
    description: >-
      Seconds that one run of the pipeline, or one start of an engine, may take. After as many no further start of an
      engine, or process that calls kernels, is begun.
    type: int
    default: 1800
  min_speedup:
    description:
      - The least mean speed-up that is accepted, for example V(1.05). It holds where the mean of the intervals' lower
        ends is as large, at the level C(documents), or where that is not asked for C(server). V(0) asks for none.
    type: float
    default: 0
  max_slowdown:
    description:
      - The largest slow-down of any comparison that is accepted, for example V(0.02). It holds where no interval
        reaches further down. V(1) accepts all.
    type: float
    default: 1
attributes:
  check_mode:
    support: full
    description: Measures nothing; every level is C(not_run).
  diff_mode:
    support: none
    description: Nothing is changed.
author:
  - The ocrfleet.gpu_stack contributors (@ocrfleet)
"""

EXAMPLES = r"""
- name: Compare the environment with its kept baseline
  ocrfleet.gpu_stack.benchmark:
    environment: /opt/conda/envs/olmocr-optimized
    baseline: /opt/conda/envs/.olmocr-optimized.gpu_stack/transactions/20261124/baseline
    levels: [documents]
    server: http://127.0.0.1:8000/v1
"""

RETURN = r"""
levels:
  description:
    - Each level with C(status) (V(measured), V(failed) or V(not_run)), C(reason), and C(comparisons); with the time at
      which it C(finished), and the C(fingerprint) of the candidate's packages.
    - C(documents) and C(server) have under C(baseline) and C(candidate) the C(proof), lines of vllm's log that say what
      it used. Where these of C(documents) do not name FlashInfer a C(note) says so. Where they name its sampler alone
      there is none, and it serves only requests with top_k or top_p. OlmOCR 0.4.2 sends neither; a model's
      C(generation_config.json) may.
    - A comparison has a C(status) of its own, and where that is V(failed) a C(reason). Else it has both sides'
      C(median) and C(spread), the C(speedup) with its interval from C(low) to C(high), and a C(verdict).
    - C(documents) tells under C(read) how many C(documents) and C(pages) each set had, for which numbers of C(workers),
      and how many C(repeats) were asked for.
    - A comparison of documents has as C(failed_pages) how many each side's model did not read. Such a run is in no
      pair, and the side with more of them is never called the faster, but C(not comparable). The comparison failed
      where the two sides' output tokens a page differ beyond noise, or a made document's words are not there.
  returned: always
  type: dict
gate:
  description:
    - C(min_speedup) and C(max_slowdown) as they were asked for, as C(problems) what is not met, and on what it was
      judged, the C(level), when that C(finished), and the C(fingerprint) of the candidate's packages. Empty where
      nothing is asked for.
  returned: always
  type: dict
problems:
  description: Levels that failed, and demands of O(min_speedup) and O(max_slowdown) that are not met.
  returned: always
  type: list
  elements: str
said:
  description: Each comparison in words.
  returned: always
  type: list
  elements: str
"""

import os
import shutil
import subprocess
import tempfile
import time

from ansible.module_utils.basic import AnsibleModule
from ansible_collections.ocrfleet.gpu_stack.plugins.module_utils import (
    activation,
    benchmark_gate,
    distributions,
    document_check,
    document_level,
    flashinfer_policy,
    gpu_presence,
    kernel_level,
    level_status,
    made_documents,
    package_drift,
    paired,
    server_level,
    staging,
)

# Two engines with OlmOCR's language model in bfloat16: 15 GiB of weights and 17 GiB of cache each, and their graphs.
SERVER_MIB = 76 * 1024
ENGINE = {
    "max_model_len": 4096,
    "max_num_seqs": 128,
    "gpu_memory_utilization": 0.35,
    "kv_cache_memory_bytes": 17 * server_level.GIB,
}


# The trees that are compared stay as they are: what Python compiles on import is not written into them.
NO_TRACES = {"PYTHONDONTWRITEBYTECODE": "1"}


class NotRun(Exception):
    """Why a level cannot run here."""


class Benchmark:
    def __init__(self, options: dict, folder: str) -> None:
        self.options, self.folder = options, folder
        self.gpu = gpu_presence.evidence()
        self.sides = {}
        for side in ("baseline", "candidate"):
            stage = staging.Stage(options["environment"], options[side])
            caches = os.path.join(folder, f"{side}-caches")
            self.sides[side] = (stage, {**activation.with_own_caches(activation.read(stage.tree), caches), **NO_TRACES})

    def trees(self) -> tuple[str, str]:
        """The baseline's tree, and the candidate's."""
        return self.sides["baseline"][0].tree, self.sides["candidate"][0].tree

    def refuse(self, level: str) -> None:
        """Raise NotRun where the two sides do not differ by FlashInfer: any figure would be about something else."""
        baseline, candidate = self.trees()
        if flashinfer_policy.PACKAGE not in distributions.installed(candidate):
            raise NotRun(f"expected FlashInfer in {candidate}, found none; install it first")
        if level == "kernels":  # FlashInfer and what vllm uses without it are both in the candidate
            return
        if baseline == candidate:
            raise NotRun("there is nothing to compare with: no baseline without FlashInfer is kept")
        if flashinfer_policy.PACKAGE in distributions.installed(baseline):
            raise NotRun(f"expected a baseline without FlashInfer, found FlashInfer in {baseline}")
        before, after = distributions.versions(baseline), distributions.versions(candidate)
        others = package_drift.lost(after, before, flashinfer_policy.brought(candidate), before)
        if others:
            told = [
                f"{one.name} {one.after or 'none'} in the baseline and {one.before or 'none'} in the candidate"
                for one in others
            ]
            raise NotRun(
                "expected a baseline and a candidate that differ by FlashInfer and what it brought alone, found "
                f"{'; '.join(told)}; any figure would be about these as well"
            )

    def documents(self) -> dict:
        options = self.options
        missing = [tool for tool in ("pdfinfo", "pdftoppm") if shutil.which(tool) is None]
        if missing:
            raise NotRun(f"{' and '.join(missing)} not found on PATH: install poppler-utils")
        if not options["server"] and not self.gpu:
            raise NotRun("this host has no NVIDIA GPU, and no OpenAI-compatible server is named")
        model = options["model"]
        if options["server"] and not model:
            model = next(iter(document_check.models(options["server"])), "")
        words: document_level.Words = {}
        if options["pdfs"]:
            sets = {"your PDFs": options["pdfs"]}
        else:
            sets = {
                kind: made_documents.make(self.folder, kind, options["documents"], options["pages"])
                for kind in made_documents.KINDS
            }
            if not options["stand_in"]:  # which reads nothing
                told = made_documents.words(options["documents"], options["pages"])
                words = {path: pages for paths in sets.values() for path, pages in zip(paths, told)}
        measured, used = document_level.measure(self.sides, sets, {**options, "model": model}, words)
        entries = document_level.fair(paired.compare_family(measured))
        return {
            "status": "measured",
            "reason": "",
            "comparisons": entries,
            "scaling": document_level.scaling(entries),
            "stand_in": options["stand_in"],
            "server": options["server"],
            "read": {
                "documents": {name: len(paths) for name, paths in sets.items()},
                "pages": {name: sum(map(document_level.page_count, paths)) for name, paths in sets.items()},
                "workers": options["workers"],
                "repeats": options["repeats"],
            },
            **used,
        }

    def server(self) -> dict:
        if not self.gpu:
            raise NotRun("this host has no NVIDIA GPU")
        env = {**os.environ, **self.sides["candidate"][1]}
        free, _total = gpu_presence.free_memory(env.get("CUDA_VISIBLE_DEVICES")) or (0, 0)
        if free < SERVER_MIB:
            raise NotRun(f"two engines side by side need {SERVER_MIB} MiB of GPU memory, {free} are free")
        baseline, candidate = (server_level.Variant(side, stage, env) for side, (stage, env) in self.sides.items())
        settings = {**ENGINE, "model": self.options["model"]}
        loads = [server_level.Load(requests) for requests in (1, 2, 4, 20, 128)]
        try:
            entries, about = server_level.measure(
                (baseline, candidate),
                self.folder,
                settings,
                loads,
                tokens=(2000, 200),
                starts=self.options["repeats"],
                timeout=self.options["timeout"],
                seconds=self.options["timeout"],
            )
        except server_level.EngineError as error:
            return {"status": "failed", "reason": str(error), "comparisons": []}
        return {"status": "measured", "reason": "", "comparisons": paired.compare_family(entries), **about}

    def kernels(self) -> dict:
        if not self.gpu:
            raise NotRun("this host has no NVIDIA GPU")
        stage, env = self.sides["candidate"]
        found = kernel_level.measure(
            stage, self.folder, env, processes=self.options["repeats"], timeout=self.options["timeout"]
        )
        return {**found, "comparisons": paired.compare_family(found["comparisons"])}

    def run(self, level: str) -> dict:
        started = time.monotonic()
        try:
            self.refuse(level)
            measured: dict = level_status.settled(getattr(self, level)())
        except NotRun as error:
            measured = {"status": "not_run", "reason": str(error), "comparisons": []}
        # A result that is not what it should be, or a document that cannot be made.
        except (ValueError, LookupError, TypeError, OSError, subprocess.SubprocessError) as error:
            measured = {"status": "failed", "reason": f"{type(error).__name__}: {error}", "comparisons": []}
        return {
            **measured,
            "seconds": round(time.monotonic() - started, 1),
            "finished": time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime()),
            "fingerprint": distributions.fingerprint(self.trees()[1]),
        }


def sentences(level: str, found: dict) -> list[str]:
    """What was measured in words; of a level without a figure, why there is none."""
    told = [paired.sentence(entry) for entry in found["comparisons"]]
    told = told or [f"{found['status'].replace('_', ' ')}, {found['reason']}"]
    return [f"{level}: {line}" for line in [*told, found.get("note")] if line]


def main() -> None:
    levels = ["documents", "server", "kernels"]
    module = AnsibleModule(
        argument_spec={
            "environment": {"type": "path", "required": True},
            "baseline": {"type": "path"},
            "candidate": {"type": "path"},
            "levels": {"type": "list", "elements": "str", "choices": levels, "default": levels},
            "pdfs": {"type": "list", "elements": "path", "default": []},
            "documents": {"type": "int", "default": 4},
            "pages": {"type": "int", "default": 2},
            "workers": {"type": "list", "elements": "int", "default": [1, 2, 4]},
            "repeats": {"type": "int", "default": 5},
            "server": {"type": "str", "default": ""},
            "stand_in": {"type": "str", "default": ""},
            "model": {"type": "str", "default": ""},
            "timeout": {"type": "int", "default": 1800},
            "min_speedup": {"type": "float", "default": 0},
            "max_slowdown": {"type": "float", "default": 1},
        },
        supports_check_mode=True,
    )
    options = module.params
    absent = [path for path in options["pdfs"] if not os.path.isfile(path)]
    if absent:
        module.fail_json(msg=f"expected PDF files, found none at {', '.join(absent)}")
    if options["repeats"] < 1 or not options["workers"] or min(options["workers"]) < 1:
        module.fail_json(msg="expected repeats and workers of at least 1")
    asked = {name: options[name] for name in ("min_speedup", "max_slowdown")}
    try:
        benchmark_gate.is_set(**asked)
    except ValueError as error:
        module.fail_json(msg=str(error))
    folder = tempfile.mkdtemp(prefix="benchmark", dir=module.tmpdir)
    try:
        if module.check_mode:
            waiting: dict = {"status": "not_run", "reason": "check mode", "comparisons": []}
            measured: dict[str, dict] = {level: waiting for level in options["levels"]}
        else:
            benchmark = Benchmark(options, folder)
            measured = {level: benchmark.run(level) for level in options["levels"]}
    finally:
        shutil.rmtree(folder, ignore_errors=True)
    problems = [] if module.check_mode else benchmark_gate.problems(measured, **asked)
    module.exit_json(
        changed=False,
        levels=measured,
        problems=problems,
        gate={} if module.check_mode else benchmark_gate.judged(measured, **asked),
        said=[line for level, found in measured.items() for line in sentences(level, found)],
    )


if __name__ == "__main__":
    main()
