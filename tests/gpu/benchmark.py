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

from ansible_collections.ocrfleet.gpu_stack.plugins.module_utils import (
    kernel_level,
    nvidia,
    paired,
    server_level,
    staging,
)

SECONDS = float(os.environ.get("BENCHMARK_SECONDS", "480"))
STARTED = time.monotonic()
PROMPT_TOKENS, OUTPUT_TOKENS = 2000, 200
STARTS = int(os.environ.get("BENCHMARK_STARTS", "5"))  # of either side; a pair each, and fewer give no verdict
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
CANDIDATES = [
    ("sampler", {**BASELINE, "VLLM_USE_FLASHINFER_SAMPLER": "1"}, True),
    ("attention", {**BASELINE, "VLLM_ATTENTION_BACKEND": "FLASHINFER"}, False),
]
WANTED = os.environ.get("BENCHMARK_CANDIDATES", "sampler attention").split()
SETTINGS = " ".join(f"{name}={value!r}" for name, value in sorted(os.environ.items()) if name.startswith("BENCHMARK_"))


def loads(truncated: bool) -> list[server_level.Load]:
    made = [server_level.Load(requests, TEMPERATURE, "temperature only") for requests in (1, 4, 20, 128)]
    return made + ([server_level.Load(128, TRUNCATED, "top-k 50, top-p 0.9")] if truncated else [])


def say(text: str) -> None:
    sys.stdout.write(f"[{time.monotonic() - STARTED:5.0f} s] {text}\n")
    sys.stdout.flush()


def measure_server(stage: staging.Stage, out: str, env: dict[str, str], keep) -> None:  # type: ignore[no-untyped-def]
    """Each candidate against the baseline, in as many starts of the two as the time allows, at least one."""
    ends = time.monotonic() + SECONDS
    pairs: dict[str, dict] = {}

    def kept(name: str, pair: dict) -> None:
        pairs[name] = pair
        failed = [f"{failing}: {one['reason']}" for failing, one in pairs.items() if one["status"] == "failed"]
        keep(
            {
                "status": "failed" if failed else "measured",
                "reason": "; ".join(failed),
                "pairs": pairs,
                "engine": ENGINE,
                "tokens": [PROMPT_TOKENS, OUTPUT_TOKENS],
            }
        )

    baseline = server_level.Variant("baseline", stage, {**env, **BASELINE})
    candidates = [candidate for candidate in CANDIDATES if candidate[0] in WANTED]
    for position, (name, variables, truncated) in enumerate(candidates):
        left = (ends - time.monotonic()) / (len(candidates) - position)
        try:
            measured, about = server_level.measure(
                (baseline, server_level.Variant(name, stage, {**env, **variables})),
                os.path.join(out, name),
                ENGINE,
                loads(truncated),
                tokens=(PROMPT_TOKENS, OUTPUT_TOKENS),
                starts=STARTS,
                timeout=900,
                seconds=left,
                keep=lambda entries, name=name: kept(
                    name, {"status": "measured", "comparisons": paired.compare_family(entries)}
                ),
            )
            kept(name, {"status": "measured", **about, "comparisons": paired.compare_family(measured)})
        except server_level.EngineError as error:
            kept(name, {"status": "failed", "reason": str(error)})
        for line in sentences(pairs[name]):
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


def heading(level: dict, what: str) -> list[str]:
    """When, where and by which command a level was measured: two calls may be days apart, and fill one file."""
    measured = f"{level['date']}, {level.get('device', {}).get('device') or 'no GPU'}, {level['python']}"
    return [
        f"### {what}, {measured}: {level['status']} {level.get('reason', '')}".rstrip(),
        "",
        f"Command: `{level['command']}`. Median and distance between the quartiles.",
        "",
    ]


def markdown(results: dict) -> str:
    kernels, server = results.get("kernels", {}), results.get("server", {})
    lines = []
    if kernels:
        lines += heading(kernels, "Kernels")
        lines += ["| kernel | process | where from | first call, s |", "|---|---|---|---|"]
        for process, entries in kernels.get("first_calls", {}).items():
            for entry in entries:
                cells = (entry["name"], process, entry["origin"], f"{entry['first_call_seconds']} {entry['reason']}")
                lines.append(f"| {' | '.join(cells)} |")
        against = ", ".join(sorted({entry["against"] for entry in kernels["comparisons"] if "against" in entry}))
        lines += ["", f"Against: {against}. A pair is a process.", "", *table(kernels["comparisons"]), ""]
    if server:
        lines += heading(server, "vllm")
    for name, pair in server.get("pairs", {}).items():
        lines += [f"#### {name}: {pair['status']} {pair.get('reason', '')}".rstrip(), ""]
        for side in ("baseline", "candidate"):
            about = pair.get(side)
            if about:
                ready = f"{about['starts']} starts, ready after {about['ready_seconds']} s (median)"
                lines.append(f"- {about['name']}: {ready}; {'; '.join(about['proof'])}")
        lines += ["", *table(pair.get("comparisons", [])), ""]
    return "\n".join(lines) + "\n"


def main() -> int:
    python, out, what = os.path.abspath(sys.argv[1]), os.path.abspath(sys.argv[2]), (sys.argv[3:] or ["all"])[0]
    if what not in ("kernels", "server", "all"):
        raise SystemExit(f"expected kernels, server or all, found {what!r}")
    unknown = sorted(set(WANTED) - {name for name, _variables, _truncated in CANDIDATES})
    if unknown or not WANTED:
        raise SystemExit(f"expected sampler and attention in BENCHMARK_CANDIDATES, found {WANTED}")
    environment = os.path.dirname(os.path.dirname(python))
    stage = staging.Stage(environment)
    os.makedirs(out, exist_ok=True)
    path = os.path.join(out, "results.json")
    results: dict = {}
    if os.path.exists(path):
        with open(path, encoding="utf-8") as file:
            results = json.load(file)  # of the other level, from an earlier call
    env = {"FLASHINFER_WORKSPACE_BASE": os.environ.get("FLASHINFER_WORKSPACE_BASE", os.path.join(out, "cache"))}
    card = nvidia.survey(timeout=30)
    about = {
        "date": datetime.date.today().isoformat(),
        "python": f"{environment}, {os.cpu_count()} cores",
        "command": f"{SETTINGS} tests/gpu/benchmark.sh ENV_PYTHON OUT {what}".lstrip(),
        "device": {"device": ", ".join(gpu.name for gpu in card.gpus)},
    }

    def keep(level: str, found: dict) -> None:
        results[level] = {**about, **found}
        with open(path, "w", encoding="utf-8") as file:
            json.dump(results, file, indent=1)
        with open(os.path.join(out, "results.md"), "w", encoding="utf-8") as file:
            file.write(markdown(results))

    levels = ["kernels", "server"] if what == "all" else [what]
    if "kernels" in levels:
        folder = os.path.join(out, "kernels")
        os.makedirs(folder, exist_ok=True)

        def judged(found: dict) -> dict:
            return {**found, "comparisons": paired.compare_family(found["comparisons"])}

        found = judged(
            kernel_level.measure(
                stage, folder, env, processes=STARTS, timeout=400, keep=lambda partly: keep("kernels", judged(partly))
            )
        )
        keep("kernels", found)
        for line in sentences(found):
            say(line)
    if "server" in levels and not card.gpus:
        keep("server", {"status": "not_run", "reason": card.absent or "no GPU was found", "pairs": {}})
    elif "server" in levels:
        measure_server(stage, out, env, lambda found: keep("server", found))
    statuses = {level: results[level]["status"] for level in levels}
    told = ", ".join(f"{level} {status}" for level, status in statuses.items())
    say(f"written to {out}/results.json and results.md: {told}")
    return 0 if set(statuses.values()) == {"measured"} else 1


if __name__ == "__main__":
    raise SystemExit(main())
