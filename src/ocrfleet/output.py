# Copyright (c) 2026 The ocrfleet.gpu_stack contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""What `plan`, `status` and `report` print: one plain data structure, as a table, as JSON, or as a query of it."""

from __future__ import annotations

import io
import json
import math
import re
import sys
import time
from collections import Counter
from typing import Any

import jmespath
from jmespath.exceptions import JMESPathError
from rich.console import Console
from rich.table import Table
from rich.text import Text

from ocrfleet.display import colour
from ocrfleet.errors import FleetError
from ocrfleet.state import State
from ocrfleet.text import SENTENCES, duration, one_line, plain

ANY_WIDTH = 100_000


def stamp(at: float | None) -> str | None:
    return None if at is None else time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime(at))


def rollout_data(state: State, driven: bool) -> dict[str, Any]:
    """All that a rollout's state tells, without the hosts' evidence."""
    hosts = [
        {
            "name": host.name,
            "wave": host.wave,
            "state": host.state,
            "message": host.message,
            "figures": host.figures,
            "began": stamp(host.began),
            "seconds": round(host.ended - host.began, 1) if host.ended and host.began else None,
            "drained": host.drained,
            "log": str(state.folder / "runs" / host.run) if host.run else None,
        }
        for host in state.hosts()
    ]
    waves = []
    for wave in state.waves():
        members = [host for host in hosts if host["wave"] == wave["number"]]
        waves.append(
            {
                **{name: wave[name] for name in ("number", "cohort", "state", "note")},
                "canary": bool(wave["canary"]),
                "began": stamp(wave["began"]),
                "seconds": round(wave["ended"] - wave["began"], 1) if wave["ended"] and wave["began"] else None,
                "hosts": len(members),
                "states": dict(Counter(str(host["state"]) for host in members)),
            }
        )
    return {
        "id": state.id,
        "state": state.state,
        "note": state.note,
        "at_work": driven and state.state not in ("finished", "aborted", "rolled back", "stopped", "paused"),
        "created": stamp(state.created),
        "states": state.counts(),
        "waves": waves,
        "hosts": hosts,
        "history": [{"at": stamp(at), "what": what} for at, what in state.history()],
    }


def query(data: Any, expression: str) -> Any:
    """JMESPath, as the AWS command line has it, on plain JSON data."""
    try:
        return jmespath.search(expression, json.loads(json.dumps(data, default=str)))
    except JMESPathError as error:
        raise FleetError(
            f"--query: {' '.join(str(error).split())}. Expected JMESPath, see https://jmespath.org"
        ) from error


def told(host: dict[str, Any]) -> str:
    """What there is to say of a host, for people."""
    out = "out of service" if host["drained"] and host["state"] not in ("running", "rolling back") else ""
    return "; ".join(text for text in (out, host["message"] or host["figures"]) if text)


def as_json(data: Any) -> str:
    """JSON that every reader takes: Python writes NaN, which hosts may say, as it is."""
    try:
        return json.dumps(data, indent=2, default=str, allow_nan=False)
    except ValueError:
        return json.dumps(_without_nan(data), indent=2, default=str)


def _without_nan(data: Any) -> Any:
    if isinstance(data, dict):
        return {name: _without_nan(value) for name, value in data.items()}
    if isinstance(data, list):
        return [_without_nan(value) for value in data]
    return None if isinstance(data, float) and not math.isfinite(data) else data


def show_json(data: Any) -> None:
    sys.stdout.write(f"{as_json(data)}\n")


def _is_id(value: Any) -> bool:
    return isinstance(value, str) and bool(re.fullmatch(r"\d{8}-\d{6}-[0-9a-f]+", value))


def _cell(value: Any) -> Text:
    if value is None:
        return Text("")
    if isinstance(value, (dict, list)):
        return Text(one_line(json.dumps(value, default=str, ensure_ascii=False), SENTENCES))
    return Text(one_line(value, SENTENCES), colour(value) if value in ("converted", "failed", "unreachable") else "")


def _print(table: Table, console: Console) -> None:
    """A table; where nobody looks at it, each row as one line of whatever length, for grep and its like."""
    if console.is_terminal:
        console.print(table)
        return
    with io.StringIO() as text:
        Console(file=text, width=ANY_WIDTH, color_system=None).print(table)
        for line in text.getvalue().splitlines():
            console.print(Text(line.rstrip()), soft_wrap=True)


def _rows(data: Any) -> tuple[list[str], list[list[Any]]]:
    """Names of the columns, if they have any, and the values below."""
    rows = data if isinstance(data, list) else [data]
    if rows and isinstance(rows[0], dict):
        names = list(rows[0])
        return names, [[row.get(name) if isinstance(row, dict) else row for name in names] for row in rows]
    return [], [row if isinstance(row, list) else [row] for row in rows]


def show_table(data: Any, console: Console) -> None:
    """Whatever a query gave: rows of mappings, rows of lists, a mapping, or a single value."""
    names, rows = _rows(data)
    table = Table(box=None, pad_edge=False, show_header=bool(names))
    for number in range(max([len(names), *map(len, rows)])):
        ids = [len(row[number]) for row in rows if number < len(row) and _is_id(row[number])]
        # An id is what one types next, so it is neither cut nor broken.
        table.add_column(Text(plain(names[number]) if names else ""), overflow="fold", min_width=max(ids, default=None))
    for row in rows:
        table.add_row(*map(_cell, row))
    _print(table, console)


def _states(states: dict[str, int]) -> Text:
    return Text(", ").join(Text(f"{number} {state}", colour(state)) for state, number in sorted(states.items()))


def show_rollout(data: dict[str, Any], console: Console, every_host: bool) -> None:
    """A rollout for people: where it stands, its waves, and the hosts that need somebody (or all of them)."""
    title = f": {data['state']}, planned {data['created']}"
    console.print(Text.assemble(("rollout ", "bold"), (data["id"], "bold"), title), soft_wrap=True)
    if data["note"]:
        console.print(Text(f"  {plain(data['note'])}"), soft_wrap=True)
    table = Table(box=None, pad_edge=False)
    for name in ("wave", "baseline", "state", "hosts", "time", "result"):
        table.add_column(name)
    for wave in data["waves"]:
        table.add_row(
            f"{wave['number']}{' canary' if wave['canary'] else ''}",
            Text(plain(wave["cohort"])[:12]),
            wave["state"],
            str(wave["hosts"]),
            "" if wave["seconds"] is None else duration(wave["seconds"]),
            _states(wave["states"]),
        )
    _print(table, console)
    shown = [host for host in data["hosts"] if every_host or told(host)]
    if shown:
        console.print()
        hosts = Table(box=None, pad_edge=False)
        for name in ("host", "wave", "state", "time", "what was said"):
            hosts.add_column(name, overflow="fold")
        for host in shown:
            hosts.add_row(
                Text(one_line(host["name"])),
                str(host["wave"]),
                Text(host["state"], colour(host["state"])),
                "" if host["seconds"] is None else duration(host["seconds"]),
                Text(one_line(told(host), SENTENCES)),
            )
        _print(hosts, console)
    console.print(Text.assemble("all: ", _states(data["states"])))
