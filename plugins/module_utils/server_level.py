# Copyright (c) 2026 The ocrfleet.gpu_stack contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The server level of the benchmark: two vllm engines side by side on one GPU, started anew for each pair.

Both engines of a start are ready together, so that their measurements are seconds apart and drift hits both. The one
that is not asked waits and takes no GPU time.
"""

from __future__ import annotations

import contextlib
import json
import os
import re
import select
import signal
import statistics
import subprocess
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field

from ansible_collections.ocrfleet.gpu_stack.plugins.module_utils import (
    activation,
    engine_timings,
    programs,
    staging,
    vllm_log,
)

GIB = 2**30
LAST_SECONDS = 10  # in which killed processes go; where nobody reaps them (a container) they never do


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
            # One place for the model of all starts: what vllm has compiled it finds again by the model's path, too.
            model = os.path.join(os.path.dirname(folder), "model")
            self.ask({"folder": model, **settings}, timeout)
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

    def refuse_other_sampler(self) -> None:
        """Raise where the log says that vllm samples otherwise than it was started to."""
        contradiction = vllm_log.contradiction(self._said(), self.variant.env.get(activation.SAMPLER))
        if contradiction:
            raise EngineError(f"{self.variant.name}: {contradiction}")

    def _works(self) -> bool:
        """Whether any process of the group is left."""
        try:
            os.killpg(self.process.pid, 0)
        except OSError:
            return False
        return True

    def stop(self) -> None:
        with contextlib.suppress(OSError):
            os.killpg(self.process.pid, signal.SIGKILL)
        self.process.wait()
        # vllm's engine is a child of that process, and the next one needs its memory.
        until = time.monotonic() + LAST_SECONDS
        while self._works() and time.monotonic() < until:
            time.sleep(0.1)
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


def measure(
    variants: tuple[Variant, Variant],
    folder: str,
    settings: dict,
    loads: list[Load],
    *,
    tokens: tuple[int, int],
    starts: int,
    timeout: float,
    seconds: float,
    keep: Callable[[list[dict]], None] = lambda _entries: None,
) -> tuple[list[dict], dict]:
    """Comparisons, one a load, and how each of the two engines was started, with `note` as of the document level.

    A pair is a start of either engine: two starts of one program differ by more than its repetitions do (memory that
    lies elsewhere, graphs that were captured anew), and within one start that would look like a difference of the
    variants. Who starts, and is asked, first changes. `keep` gets the entries after each start. No start begins after
    `seconds`; each may take `timeout` seconds.
    """
    baseline, candidate = variants
    entries: list[dict] = [
        {"name": load.name, "unit": "tokens/s", "better": "higher", "pairs": [], "against": baseline.name}
        for load in loads
    ]
    began: dict[str, list[Engine]] = {variant.name: [] for variant in variants}
    deadline = time.monotonic() + seconds
    for start in range(starts):
        if start > 0 and time.monotonic() > deadline:
            break
        with contextlib.ExitStack() as stack:
            for variant in in_turn(list(variants), start):
                place = os.path.join(folder, f"{variant.name}-{start}")
                began[variant.name].append(stack.enter_context(started(variant, place, settings, timeout)))
            engines = [began[variant.name][-1] for variant in variants]
            for engine in engines:
                engine.refuse_other_sampler()
            for entry, rates in zip(entries, measure_start(engines, loads, tokens, start)):
                entry["pairs"].append(rates)
        keep(entries)
    about = {"baseline": described(began[baseline.name]), "candidate": described(began[candidate.name])}
    return entries, {**about, "note": vllm_log.doubt(*("\n".join(side["proof"]) for side in about.values()))}


ROUNDS = 2  # of one start, after the warm-up: either engine is first to be asked in one of them


def measure_start(engines: list[Engine], loads: list[Load], tokens: tuple[int, int], start: int) -> list[list[float]]:
    """For each load, either engine's tokens per second: the geometric mean over the rounds of this start."""
    rates: list[list[list[float]]] = [[[] for _engine in engines] for _load in loads]
    for turn in range(-1, ROUNDS):
        for load, seen in zip(loads, rates):
            request = {
                "requests": load.requests,
                "sampling": load.sampling,
                "prompt_tokens": tokens[0],
                "output_tokens": tokens[1] if turn >= 0 else 8,
                "seed": time.time_ns() % 2**32,
            }
            for position in in_turn(list(range(len(engines))), start + turn):
                rate = engines[position].ask(request, timeout=600)["tokens_per_second"]
                if turn >= 0:
                    seen[position].append(rate)
    return [[statistics.geometric_mean(side) for side in seen] for seen in rates]


def in_turn(sides: list, turn: int) -> list:
    """The sides in their order, or in every second turn in the other one."""
    return sides if turn % 2 == 0 else sides[::-1]


def described(engines: list[Engine]) -> dict:
    """What the starts of one variant had in common, the median of their times, and what vllm says that it used."""
    return {
        "name": engines[-1].variant.name,
        "env": engines[-1].variant.env,
        "starts": len(engines),
        "ready_seconds": round(statistics.median(engine.ready_seconds for engine in engines), 1),
        "proof": sorted({line for engine in engines for line in engine.proof()}),
    }
