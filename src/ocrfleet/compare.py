# Copyright (c) 2026 The ocrfleet.gpu_stack contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Two runs of the playbooks beside each other, from the evidence of each: what differs, and which figures moved."""

from __future__ import annotations

import json
import math
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.table import Table
from rich.text import Text

from ocrfleet.errors import FleetError
from ocrfleet.text import one_line

EVIDENCE = "evidence.json"
# What a run is known by; two runs always differ in them.
IDENTITY = ("host", "finished", "result")


def load(path: Path) -> dict[str, Any]:
    """The evidence in a file, or in a report's folder."""
    file = path / EVIDENCE if path.is_dir() else path
    try:
        found = json.loads(file.read_text(encoding="utf-8"))
    except (OSError, ValueError, RecursionError) as error:
        reason = error.strerror if isinstance(error, OSError) else "it is no JSON"
        raise FleetError(
            f"expected a run's {EVIDENCE} at {path}, or a folder with one, found none: {reason}; each report has one "
            "beside it"
        ) from None
    if not isinstance(found, dict) or not {"host", "result"} <= found.keys():
        raise FleetError(
            f"expected a run's {EVIDENCE} at {path}, found another JSON file; each report has one beside it"
        )
    strange = [name for name in found if not _has_form({"result": "", name: found[name]})]
    if strange:
        raise FleetError(
            f"expected evidence as the role report writes it at {path}, found another form of {', '.join(strange)}"
        )
    return found


def _has_form(evidence: dict[str, Any]) -> bool:
    """Whether all that is compared can be read. Whatever else that lets it fail, a host has said it."""
    try:
        list(_facts(evidence))
        figures = [figure[name] for _what, figure in _figures(evidence) for name in ("speedup", "low", "high")]
        return all(math.isfinite(number) for number in figures if number is not None)
    except (AttributeError, KeyError, TypeError, ValueError, ArithmeticError):
        return False


def _facts(evidence: dict[str, Any]) -> Iterator[tuple[str, str]]:
    """What can be held against another run, each under a name of its own."""
    yield "result", str(evidence["result"])
    yield "method", str(evidence.get("method") or "")
    for section in ("spec", "environment", "versions"):
        for name, value in (evidence.get(section) or {}).items():
            yield f"{section}: {name}", one_line(value, 500)
    for row in evidence.get("plan") or []:
        yield f"package: {row['name']}", str(row["version"])
    for row in evidence.get("changed") or []:
        yield f"package: {row['name']}", f"{row['before']} -> {row['after']}"
    for check in evidence.get("checks") or []:
        yield f"check: {check['title']}", one_line(f"{check['status']} {check.get('reason') or ''}", 500)
    for level, measured in (evidence.get("benchmark") or {}).items():
        yield f"benchmark: {level}", one_line(f"{measured.get('status')} {measured.get('reason') or ''}", 500)
        # The date of a run is that of its installation, and what is measured anew later stands under the same one.
        yield f"benchmark: {level}, measured", one_line(measured.get("finished") or "", 500)
        read = measured.get("read")
        for name, value in read.items() if isinstance(read, dict) else ():
            yield f"benchmark: {level}, {name}", one_line(value, 500)
        if _served(measured):
            yield f"benchmark: {level}, read by", _served(measured)


def _served(measured: dict[str, Any]) -> str:
    """What read a level's documents in place of the environment's own vllm: a stand-in, or a server by its URL."""
    return one_line(measured.get("stand_in") or measured.get("server") or "", 500)


def _figures(evidence: dict[str, Any]) -> Iterator[tuple[str, dict[str, Any]]]:
    for level, measured in (evidence.get("benchmark") or {}).items():
        for row in measured.get("comparisons") or []:
            if row.get("speedup") is not None:
                figure = {key: row.get(key) for key in ("speedup", "low", "high", "verdict")}
                yield f"{level}: {row['name']}", {**figure, "served": _served(measured)}


def _moved(first: dict[str, Any] | None, second: dict[str, Any] | None) -> str:
    """What two intervals of a speed-up say of each other; the runs are no pair, so overlapping ones say nothing."""
    if not first or not second:
        return "measured in one run only"
    if first["served"] != second["served"]:
        return "not comparable: another server"
    if None in (first["low"], first["high"], second["low"], second["high"]):
        return "no interval"
    if second["low"] > first["high"]:
        return "higher"
    return "lower" if second["high"] < first["low"] else "no difference found"


def compare(first: dict[str, Any], second: dict[str, Any]) -> dict[str, Any]:
    """Both runs' identity, every fact in which they differ ("" where a run does not have it), and their speed-ups."""
    facts = dict(_facts(first)), dict(_facts(second))
    figures = dict(_figures(first)), dict(_figures(second))
    return {
        "runs": [{name: run.get(name) for name in IDENTITY} for run in (first, second)],
        "differences": [
            {"what": name, "first": facts[0].get(name, ""), "second": facts[1].get(name, "")}
            for name in dict.fromkeys((*facts[0], *facts[1]))
            if facts[0].get(name) != facts[1].get(name)
        ],
        "speedups": [
            {
                "what": name,
                "first": figures[0].get(name),
                "second": figures[1].get(name),
                "moved": _moved(figures[0].get(name), figures[1].get(name)),
            }
            for name in dict.fromkeys((*figures[0], *figures[1]))
        ],
    }


def _speedup(figure: dict[str, Any] | None) -> str:
    if not figure:
        return ""
    known = None not in (figure["low"], figure["high"])
    return f"{figure['speedup']:.3f}" + (f" ({figure['low']:.3f} to {figure['high']:.3f})" if known else "")


def show(data: dict[str, Any], console: Console) -> None:
    names = [f"{one_line(run['host'])}, {one_line(run['finished'] or 'no date')}" for run in data["runs"]]
    different = [(row["what"], row["first"] or "-", row["second"] or "-") for row in data["differences"]]
    _table(("what differs", *names), different or [("nothing", "", "")], console)
    if data["speedups"]:
        console.print()
        measured = [
            (row["what"], _speedup(row["first"]) or "-", _speedup(row["second"]) or "-", row["moved"])
            for row in data["speedups"]
        ]
        _table(("speed-up by FlashInfer", *names, "second against first"), measured, console)


def _table(names: tuple[str, ...], rows: Sequence[tuple[str, ...]], console: Console) -> None:
    table = Table(box=None, pad_edge=False)
    for name in names:
        table.add_column(Text(name), overflow="fold")
    for row in rows:
        table.add_row(*(Text(one_line(cell, 500)) for cell in row))
    console.print(table)
