# Copyright (c) 2026 The ocrfleet.gpu_stack contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The program behind benchmark.sh: the kernel and the server level of the role benchmark, on one environment."""

from __future__ import annotations

import datetime
import json
import os
import sys
import time

from ansible_collections.ocrfleet.gpu_stack.plugins.module_utils import kernel_level, paired, server_level, staging

SECONDS = float(os.environ.get("BENCHMARK_SECONDS", "480"))
STARTED = time.monotonic()
PROMPT_TOKENS, OUTPUT_TOKENS, MAXIMUM_ROUNDS = 2000, 200, 12
TEMPERATURE = {"temperature": 0.1}
TRUNCATED = {"temperature": 1.0, "top_k": 50, "top_p": 0.9}
ENGINE = {
    "model": "",
    "max_model_len": 4096,
    "max_num_seqs": 128,
    # Two engines share the card: each takes 15 GiB of weights, this cache, and some for its graphs.
    "gpu_memory_utilization": 0.35,
    "kv_cache_memory_bytes": 17 * server_level.GIB,
}
BASELINE = {"VLLM_ATTENTION_BACKEND": "FLASH_ATTN", "VLLM_USE_FLASHINFER_SAMPLER": "0"}
# The control is the baseline against itself: what it shows is the difference between two starts, not FlashInfer.
CANDIDATES = [
    ("sampler", {**BASELINE, "VLLM_USE_FLASHINFER_SAMPLER": "1"}, True),
    ("attention", {**BASELINE, "VLLM_ATTENTION_BACKEND": "FLASHINFER"}, False),
    ("control", BASELINE, True),
]


def loads(truncated: bool) -> list[server_level.Load]:
    made = [server_level.Load(requests, TEMPERATURE, "temperature only") for requests in (1, 4, 20, 128)]
    return made + ([server_level.Load(128, TRUNCATED, "top-k 50, top-p 0.9")] if truncated else [])


def say(text: str) -> None:
    sys.stdout.write(f"[{time.monotonic() - STARTED:5.0f} s] {text}\n")
    sys.stdout.flush()


def measure_server(stage: staging.Stage, out: str, env: dict[str, str], keep) -> None:  # type: ignore[no-untyped-def]
    """One baseline engine for the whole level; the candidates come and go beside it."""
    ends = time.monotonic() + SECONDS
    found: dict = {"status": "measured", "pairs": {}, "engine": ENGINE, "tokens": [PROMPT_TOKENS, OUTPUT_TOKENS]}
    variant = server_level.Variant("baseline", stage, {**env, **BASELINE})
    with server_level.started(variant, os.path.join(out, "baseline"), ENGINE, 900) as baseline:
        say(f"baseline ready after {baseline.ready_seconds:.0f} s")
        for position, (name, variables, truncated) in enumerate(CANDIDATES):
            left = ends - time.monotonic()
            if left < 60:
                found["pairs"][name] = {"status": "not_run", "reason": f"{SECONDS:.0f} s were over"}
                keep(found)
                continue
            share = time.monotonic() + left / (len(CANDIDATES) - position)
            variant = server_level.Variant(name, stage, {**env, **variables})
            try:
                with server_level.started(variant, os.path.join(out, name), ENGINE, 900) as candidate:
                    say(f"{name} ready after {candidate.ready_seconds:.0f} s")
                    measured = server_level.measure_pair(
                        baseline,
                        candidate,
                        loads(truncated),
                        tokens=(PROMPT_TOKENS, OUTPUT_TOKENS),
                        rounds=MAXIMUM_ROUNDS,
                        deadline=share - 15,
                    )
                    found["pairs"][name] = {
                        "status": "measured",
                        "baseline": server_level.described(baseline),
                        "candidate": server_level.described(candidate),
                        "comparisons": paired.compare_family(measured),
                    }
            except server_level.EngineError as error:
                found["pairs"][name] = {"status": "failed", "reason": str(error)}
            keep(found)
            for line in sentences(found["pairs"][name]):
                say(f"{name}: {line}")


def sentences(level: dict) -> list[str]:
    return [paired.sentence(entry) for entry in level.get("comparisons", [])] or [
        f"{level['status']}: {level.get('reason', '')}"
    ]


def table(entries: list[dict]) -> list[str]:
    lines = [
        "| what | baseline | FlashInfer | speed-up, 95 % for all rows together | pairs | verdict |",
        "|---|---|---|---|---|---|",
    ]
    for entry in entries:
        if entry.get("verdict") is None:
            word = "failed" if entry.get("status") == "failed" else "not run"
            lines.append(f"| {entry['name']} | | | | | {word}: {' '.join(str(entry.get('reason')).split())[:200]} |")
            continue
        sides = [
            f"{entry[side]['median']:.4g} ± {entry[side]['spread']:.2g} {entry['unit']}"
            for side in ("baseline", "candidate")
        ]
        interval = "" if entry["low"] is None else f" ({entry['low']:.3f} to {entry['high']:.3f})"
        cells = (entry["name"], *sides, f"{entry['speedup']:.3f}{interval}", str(entry["pairs"]), entry["verdict"])
        lines.append(f"| {' | '.join(cells)} |")
    return lines


def markdown(results: dict, what: str) -> str:
    kernels, server = results.get("kernels", {}), results.get("server", {})
    device = kernels.get("device", {})
    lines = [
        f"### {results['date']}, {device.get('device', 'see the log')}, {results['python']}",
        "",
        f"Command: `tests/gpu/benchmark.sh ENV_PYTHON OUT {what}`. Median and distance between the quartiles.",
        "",
    ]
    if kernels:
        lines += [f"#### Kernels: {kernels['status']} {kernels.get('reason', '')}", ""]
        lines += ["| kernel | process | where from | first call, s |", "|---|---|---|---|"]
        for process, entries in kernels.get("first_calls", {}).items():
            for entry in entries:
                cells = (entry["name"], process, entry["origin"], f"{entry['first_call_seconds']} {entry['reason']}")
                lines.append(f"| {' | '.join(cells)} |")
        against = ", ".join(sorted({entry["against"] for entry in kernels["comparisons"] if "against" in entry}))
        lines += ["", f"Against: {against}", "", *table(kernels["comparisons"]), ""]
    for name, pair in server.get("pairs", {}).items():
        lines += [f"#### vllm, {name}: {pair['status']} {pair.get('reason', '')}", ""]
        for side in ("baseline", "candidate"):
            about = pair.get(side)
            if about:
                lines.append(f"- {about['name']}: ready after {about['ready_seconds']} s; {'; '.join(about['proof'])}")
        lines += ["", *table(pair.get("comparisons", [])), ""]
    return "\n".join(lines) + "\n"


def main() -> int:
    python, out, what = os.path.abspath(sys.argv[1]), os.path.abspath(sys.argv[2]), (sys.argv[3:] or ["all"])[0]
    if what not in ("kernels", "server", "all"):
        raise SystemExit(f"expected kernels, server or all, found {what!r}")
    environment = os.path.dirname(os.path.dirname(python))
    stage = staging.Stage(environment)
    os.makedirs(out, exist_ok=True)
    path = os.path.join(out, "results.json")
    results: dict = {}
    if os.path.exists(path):
        with open(path, encoding="utf-8") as file:
            results = json.load(file)  # of the other level, from an earlier call
    results.update(date=datetime.date.today().isoformat(), python=f"{environment}, {os.cpu_count()} cores")
    env = {"FLASHINFER_WORKSPACE_BASE": os.environ.get("FLASHINFER_WORKSPACE_BASE", os.path.join(out, "cache"))}

    def keep(level: str, found: dict) -> None:
        results[level] = found
        with open(path, "w", encoding="utf-8") as file:
            json.dump(results, file, indent=1)
        with open(os.path.join(out, "results.md"), "w", encoding="utf-8") as file:
            file.write(markdown(results, what))

    if what in ("kernels", "all"):
        folder = os.path.join(out, "kernels")
        os.makedirs(folder, exist_ok=True)
        found = kernel_level.measure(stage, folder, env, rounds=15, timeout=400)
        found["comparisons"] = paired.compare_family(found["comparisons"])
        keep("kernels", found)
        for line in sentences(found):
            say(line)
    if what in ("server", "all"):
        if results.get("kernels", {}).get("status") == "not_run":
            keep("server", {"status": "not_run", "reason": results["kernels"]["reason"], "pairs": {}})
        else:
            try:
                measure_server(stage, out, env, lambda found: keep("server", found))
            except server_level.EngineError as error:
                keep("server", {"status": "failed", "reason": str(error), "pairs": {}})
                say(str(error))
    statuses = {results[level]["status"] for level in ("kernels", "server") if level in results}
    say(f"written to {out}/results.json and results.md: {', '.join(sorted(statuses))}")
    return 0 if statuses == {"measured"} else 1


if __name__ == "__main__":
    raise SystemExit(main())
