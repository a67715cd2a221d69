# Copyright (c) 2026 The ocrfleet.gpu_stack contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The server level of the benchmark: two vllm engines side by side on one GPU, asked in turn.

Both engines stay ready, so that a pair of measurements is seconds apart and drift hits both. The one that is not asked
waits and takes no GPU time.
"""

from __future__ import annotations

import contextlib
import json
import os
import re
import select
import signal
import subprocess
import time
from collections.abc import Iterator
from dataclasses import dataclass, field

from ansible_collections.ocrfleet.gpu_stack.plugins.module_utils import engine_timings, programs, staging, vllm_log

GIB = 2**30


class EngineError(Exception):
    """An engine that did not start or did not answer."""


@dataclass
class Variant:
    """A way to start vllm: in which environment, and with which variables."""

    name: str
    stage: staging.Stage
    env: dict[str, str] = field(default_factory=dict)


@dataclass
class Load:
    """Requests that are sent at once."""

    requests: int
    sampling: dict = field(default_factory=lambda: {"temperature": 0.1})
    name: str = ""

    def __post_init__(self) -> None:
        plural = "request" if self.requests == 1 else "requests"
        self.name = f"{self.requests} {plural}{self.name and ', ' + self.name}"


class Engine:
    """A vllm engine in a process of its own."""

    def __init__(self, variant: Variant, folder: str, settings: dict, timeout: float) -> None:
        self.variant = variant
        os.makedirs(folder, exist_ok=True)
        self.log = os.path.join(folder, "vllm.log")
        program = programs.written(engine_timings, folder)
        environment = variant.stage.environment
        path = os.pathsep.join([os.path.join(environment, "bin"), os.environ.get("PATH", os.defpath)])
        offline = {"HF_HUB_OFFLINE": "1", "VLLM_NO_USAGE_STATS": "1", "VLLM_WORKER_MULTIPROC_METHOD": "spawn"}
        with open(self.log, "w", encoding="utf-8") as log:
            self.process = subprocess.Popen(
                variant.stage.argv([variant.stage.python, program]),
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=log,
                text=True,
                cwd=folder,
                env={**os.environ, "LC_ALL": "C", **offline, "PATH": path, **variant.env},
                start_new_session=True,
            )
        began = time.monotonic()
        try:
            self.ask({"folder": os.path.join(folder, "model"), **settings}, timeout)
            self.ready_seconds = time.monotonic() - began
        except BaseException:
            self.stop()
            raise

    def ask(self, request: dict, timeout: float) -> dict:
        stdin, stdout = self.process.stdin, self.process.stdout
        if stdin is None or stdout is None:
            raise AssertionError("the engine is started with pipes")
        try:
            stdin.write(json.dumps(request) + "\n")
            stdin.flush()
        except OSError as error:
            raise EngineError(f"{self.variant.name}: the engine has ended ({self.complaint()})") from error
        if not select.select([stdout], [], [], timeout)[0]:
            raise EngineError(f"{self.variant.name}: no answer within {timeout:.0f} s ({self.complaint()})")
        line = stdout.readline()
        answer: dict = json.loads(line) if line.strip() else {"error": f"the engine ended: {self.complaint()}"}
        if "error" in answer:
            raise EngineError(f"{self.variant.name}: {answer['error']} ({self.complaint()})")
        return answer

    def _said(self) -> str:
        with open(self.log, encoding="utf-8", errors="replace") as file:
            return file.read()

    def complaint(self) -> str:
        """The last line of the log that names an error: the cause stands above vllm's own tracebacks."""
        wrong = [line.strip() for line in self._said().splitlines() if re.search(r"\b\w*(Error|error:)", line)]
        return wrong[-1][-400:] if wrong else "its log names no error"

    def proof(self) -> list[str]:
        return vllm_log.proof(self._said())

    def stop(self) -> None:
        with contextlib.suppress(OSError):
            os.killpg(self.process.pid, signal.SIGKILL)
        self.process.wait()
        for pipe in (self.process.stdin, self.process.stdout):
            with contextlib.suppress(OSError):
                pipe.close()  # type: ignore[union-attr]


@contextlib.contextmanager
def started(variant: Variant, folder: str, settings: dict, timeout: float) -> Iterator[Engine]:
    engine = Engine(variant, folder, settings, timeout)
    try:
        yield engine
    finally:
        engine.stop()


def described(engine: Engine) -> dict:
    return {
        "name": engine.variant.name,
        "env": engine.variant.env,
        "ready_seconds": round(engine.ready_seconds, 1),
        "proof": engine.proof(),
    }


def measure_pair(
    baseline: Engine, candidate: Engine, loads: list[Load], *, tokens: tuple[int, int], rounds: int, deadline: float
) -> list[dict]:
    """Comparisons, one a load, after a warm-up. Who goes first changes; no round begins after `deadline`."""
    entries = [
        {"name": load.name, "unit": "tokens/s", "better": "higher", "pairs": [], "against": baseline.variant.name}
        for load in loads
    ]
    for turn in range(-1, rounds):
        if turn > 0 and time.monotonic() > deadline:
            break
        for load, entry in zip(loads, entries):
            seed = time.time_ns() % 2**32
            request = {
                "requests": load.requests,
                "sampling": load.sampling,
                "prompt_tokens": tokens[0],
                "output_tokens": tokens[1] if turn >= 0 else 8,
                "seed": seed,
            }
            order = [baseline, candidate] if turn % 2 == 0 else [candidate, baseline]
            rates = {id(engine): engine.ask(request, timeout=600)["tokens_per_second"] for engine in order}
            if turn >= 0:
                entry["pairs"].append([rates[id(baseline)], rates[id(candidate)]])  # type: ignore[attr-defined]
    return entries
