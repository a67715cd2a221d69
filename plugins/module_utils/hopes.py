# Copyright (c) 2026 The ocrfleet.gpu_stack contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""What was hoped for before anything was measured, by kind of document. Source: the project's mission.

By hand only scanned PDFs were timed, without FlashInfer, over one worker.
"""

from __future__ import annotations

from dataclasses import dataclass, field


@dataclass(frozen=True)
class Hope:
    gain: str  # of FlashInfer
    by_hand: dict[int, str] = field(default_factory=dict)  # speed-up over one worker without it, by workers
    hoped: dict[int, str] = field(default_factory=dict)  # the same with it


HOPES = {
    "scanned": Hope("10 to 30 %", {2: "2.3x", 4: "3.1x"}, {2: "2.5 to 2.8x", 4: "3.4 to 3.7x"}),
    "digital": Hope("nothing"),
    "mixed": Hope("5 to 15 %"),
}
REMARKS = [
    "Hopes of the project's mission, before anything was measured. By hand is over one worker, without FlashInfer.",
    "What more workers bring has no verdict: their numbers are measured one after the other and not in pairs, so there "
    "is no interval.",
]


def of_scaling(kind: str, workers: int) -> str:
    """What stands beside a measured speed-up over one worker; of a kind that nothing is hoped of, an empty text."""
    hope = HOPES.get(kind)
    if hope is None:
        return ""
    if workers in hope.hoped:
        return f"{hope.by_hand[workers]} by hand before; hoped for {hope.hoped[workers]}"
    return f"hoped of FlashInfer: {hope.gain}"


def _by_workers(figures: dict[int, str]) -> str:
    told = [f"{figure} with {workers}" for workers, figure in figures.items()]
    if told:
        told[0] += " workers"
    return ", ".join(told)


def _measured(entries: list[dict], served: bool) -> str:
    if not entries:
        return "not measured"
    if served:
        return "nothing of FlashInfer: a server read them"
    told = []
    for entry in entries:
        interval = f" ({entry['low']:.2f} to {entry['high']:.2f})" if entry.get("low") is not None else ""
        workers = "1 worker" if entry["workers"] == 1 else f"{entry['workers']} workers"
        told.append(f"{entry['speedup']:.2f}x{interval} with {workers}")
    return ", ".join(told)


def beside(level: dict) -> list[dict[str, str]]:
    """The table as rows, with what the level `documents` measured of each kind; what else it measured comes last."""
    served = bool(level.get("server") or level.get("stand_in"))
    by_kind: dict[str, list[dict]] = {kind: [] for kind in HOPES}
    for entry in level.get("comparisons") or []:
        if entry.get("set") and entry.get("verdict") is not None:
            by_kind.setdefault(entry["set"], []).append(entry)
    return [
        {
            "kind": kind,
            "gain": hope.gain,
            "measured": _measured(entries, served),
            "by_hand": _by_workers(hope.by_hand),
            "hoped": _by_workers(hope.hoped),
        }
        for kind, entries in by_kind.items()
        for hope in [HOPES.get(kind, Hope("as above, by their kind"))]
    ]
