# Copyright (c) 2026 The ocrfleet.gpu_stack contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The report of a rollout: fleet.json with all evidence, a page, and a summary for the terminal."""

from __future__ import annotations

import base64
import hashlib
import html
import json
import os
from collections import Counter
from collections.abc import Iterator
from importlib import resources
from pathlib import Path
from typing import Any
from urllib.parse import quote

from rich.console import Console
from rich.text import Text

from ocrfleet import evidence, measured
from ocrfleet.gate import CONVERTED
from ocrfleet.output import as_json, rollout_data, show_rollout, told
from ocrfleet.state import State
from ocrfleet.text import duration, one_line, plain

# What the page shows of a host's evidence itself.
SHOWN = ("versions",)


def fleet_data(state: State, whole: bool = True) -> dict[str, Any]:
    """The rollout, each host with its evidence, and the checklist summed up over all hosts.

    Evidence is much for a large fleet: where it need not be `whole`, only what the page shows is kept of it.
    """
    data = rollout_data(state, False)
    checks: dict[str, Counter[str]] = {}
    reasons: dict[str, dict[str, Counter[str]]] = {}
    versions: dict[str, Counter[str]] = {}
    for host in data["hosts"]:
        found = state.evidence(host["name"])
        host["evidence"] = found if whole else {name: found[name] for name in SHOWN if name in found}
        host["measured"] = measured.sentence(found)
        host["report"] = _own_report(state, host)
        for check in found.get("checks", []):
            title, status = str(check.get("title")), str(check.get("status"))
            checks.setdefault(title, Counter())[status] += 1
            reason = one_line(check.get("reason") or "no reason was told")
            reasons.setdefault(title, {}).setdefault(status, Counter())[reason] += 1
        for name, version in found.get("versions", {}).items():
            versions.setdefault(str(name), Counter())[str(version or "none")] += 1
    data["checks"] = [
        # A host may call its result `title`, too.
        {**counted, "title": title, "reasons": _most_frequent(reasons[title])}
        for title, counted in checks.items()
    ]
    data["versions"] = {name: dict(counted) for name, counted in versions.items()}
    return data


def _most_frequent(reasons: dict[str, Counter[str]]) -> list[dict[str, Any]]:
    """Of failures, and of what was not run, the reason that most hosts give."""
    top = [(status, *reasons[status].most_common(1)[0]) for status in ("failed", "not_run") if status in reasons]
    return [{"status": status, "reason": reason, "hosts": hosts} for status, reason, hosts in top]


def _own_report(state: State, host: dict[str, Any]) -> str | None:
    """The path of a host's own page from the rollout's folder, where its last run left one."""
    reports = evidence.folder(Path(host["log"]) / "reports", host["name"]) if host["log"] else None
    page = reports / "report.html" if reports else None
    return str(page.relative_to(state.folder)) if page and page.is_file() else None


def _whole_json(state: State, data: dict[str, Any]) -> Iterator[str]:
    """All of it as JSON, with one host's evidence in memory at a time."""
    before = "{\n  "
    for name, value in data.items():
        yield f"{before}{json.dumps(name)}: "
        before = ",\n  "
        if name != "hosts" or not value:
            yield _indented(as_json(value), "  ")
            continue
        for number, host in enumerate(value):
            text = as_json({**host, "evidence": state.evidence(host["name"])})
            yield f"{',' if number else '['}\n    {_indented(text, '    ')}"
        yield "\n  ]"
    yield "\n}\n"


def _indented(text: str, by: str) -> str:
    return text.replace("\n", f"\n{by}")


def write(state: State, data: dict[str, Any]) -> list[Path]:
    """fleet.json and fleet.html in the rollout's folder, readable by their owner only."""
    files = []
    for name, parts in (("fleet.json", _whole_json(state, data)), ("fleet.html", [page(data)])):
        draft = state.folder / f"{name}.new"
        descriptor = os.open(draft, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600)
        with os.fdopen(descriptor, "w", encoding="utf-8") as file:
            file.writelines(parts)
        os.replace(draft, state.folder / name)
        files.append(state.folder / name)
    return files


def show(data: dict[str, Any], console: Console) -> None:
    show_rollout(data, console, every_host=False)
    console.print()
    for check in data["checks"]:
        counted = {status: number for status, number in check.items() if status not in ("title", "reasons")}
        numbers = ", ".join(f"{number} {one_line(status, 60).replace('_', ' ')}" for status, number in counted.items())
        console.print(
            Text("; ".join([f"{one_line(check['title'], 100):60} {numbers}", *_reasons(check)])), soft_wrap=True
        )
    for name, counted in data["versions"].items():
        found = ", ".join(f"{one_line(version, 60)} on {number}" for version, number in counted.items())
        console.print(Text(f"{one_line(name, 60)}: {found}"))


def _reasons(check: dict[str, Any]) -> list[str]:
    """Each most frequent reason, with the number of hosts that give it."""
    return [f"{row['status'].replace('_', ' ')}: {plain(row['reason'])} ({row['hosts']})" for row in check["reasons"]]


STYLE = """
body { font: 15px/1.5 system-ui, sans-serif; margin: 2rem auto; max-width: 80rem; padding: 0 1rem; color: #1b1f24;
  overflow-wrap: anywhere; }
table { border-collapse: collapse; width: 100%; margin: 1rem 0 2rem; }
th, td { text-align: left; padding: .3rem .7rem; border-bottom: 1px solid #d8dee4; vertical-align: top; }
th { overflow-wrap: normal; } td:first-child { min-width: 9rem; } a { color: inherit; }
#hosts th, #hosts td:nth-child(-n+6) { white-space: nowrap; }
#hosts td:nth-child(7) { min-width: 15rem; } #hosts td:last-child { min-width: 16rem; }
.wide { overflow-x: auto; } #hosts th { cursor: pointer; } #hosts th::after { content: " \\2195"; opacity: .5; }
#hosts th[aria-sort=ascending]::after { content: " \\2191"; }
#hosts th[aria-sort=descending]::after { content: " \\2193"; }
.good { color: #116329; } .bad { color: #a40e26; font-weight: 600; }
/* On a phone a row is a block: its first cell and its texts have lines of their own, others their column's name. */
@media (max-width: 40rem) {
  table, tbody, tr { display: block; } tr[hidden], thead { display: none; }
  #hosts thead { display: block; } #hosts thead tr { display: flex; flex-wrap: wrap; border: 0; }
  tr { border-bottom: 1px solid #d8dee4; padding: .5rem 0; } th, td { border: 0; padding: 0 .8rem 0 0; }
  td, #hosts td, #hosts td:nth-child(n) { display: inline-block; min-width: 0; white-space: normal; }
  td:first-child, #hosts td:first-child, td:last-child, #hosts td:nth-child(7) { display: block; }
  td:empty, #hosts td:empty { display: none; } td:first-child { font-weight: 600; }
  td:not(:first-child)::before { content: attr(data-name) " "; opacity: .65; }
}
@media (prefers-color-scheme: dark) {
  body { background: #0d1117; color: #e6edf3; } th, td, tr { border-color: #30363d; }
  .good { color: #56d364; } .bad { color: #ff7b72; }
}
"""


def _table(head: list[str], rows: list[list[str]], name: str = "") -> str:
    names = [html.escape(name) for name in head]
    top = "".join(f'<th scope="col">{name}</th>' for name in names)
    cells = (zip(names, row, strict=True) for row in rows)
    body = "".join(
        "<tr>" + "".join(f'<td data-name="{name}">{cell}</td>' for name, cell in row) + "</tr>\n" for row in cells
    )
    return (
        f'<div class="wide"><table id="{name}"><thead>' + f"<tr>{top}</tr></thead><tbody>\n{body}</tbody></table></div>"
    )


def _host(host: dict[str, Any]) -> str:
    """A host's name, which leads to its own report where there is one beside this page."""
    name = _text(host["name"])
    return f'<a href="{quote(host["report"])}">{name}</a>' if host["report"] else name


def _state(state: str) -> str:
    kind = "good" if state in ("converted", "unchanged", "rolled back", "passed", "finished") else ""
    kind = "bad" if state in ("failed", "unreachable", "unknown", "skipped", "stopped", "not rolled back") else kind
    return f'<span class="{kind}">{html.escape(state)}</span>'


def _states(states: dict[str, int]) -> str:
    return ", ".join(f"{number} {_state(state)}" for state, number in sorted(states.items()))


def _text(value: object) -> str:
    return html.escape(plain(value))


def _duration(seconds: float | None) -> str:
    """A length of time, which the page's script sorts by its seconds."""
    return "" if seconds is None else f'<span data-order="{seconds}">{duration(seconds)}</span>'


def _version(host: dict[str, Any], name: str) -> str:
    versions = host["evidence"].get("versions", {})
    return _text(versions[name] or "none") if name in versions else ""


def _needs_nobody(host: dict[str, Any]) -> bool:
    return host["state"] in (*CONVERTED, "pending", "rolled back") and not host["figures"] and not host["drained"]


def page(data: dict[str, Any]) -> str:
    """One file, nothing fetched, every text in it escaped. Only its own script runs: it sorts and filters the hosts.

    The hosts that need somebody come first.
    """
    script = resources.files("ocrfleet").joinpath("host_table.js").read_text(encoding="utf-8")
    hashed = base64.b64encode(hashlib.sha256(script.encode()).digest()).decode()
    policy = f"default-src 'none'; style-src 'unsafe-inline'; script-src 'sha256-{hashed}'"
    waves = [
        [
            f"{wave['number']}{' canary' if wave['canary'] else ''}",
            _text(wave["cohort"][:12]),
            _state(wave["state"]),
            str(wave["hosts"]),
            _duration(wave["seconds"]),
            _states(wave["states"]),
        ]
        for wave in data["waves"]
    ]
    hosts = [
        [
            _host(host),
            str(host["wave"]),
            _state(host["state"]),
            _duration(host["seconds"]),
            *(_version(host, name) for name in ("torch", "flashinfer")),
            _text(host["measured"]),
            _text(told(host)),
        ]
        for host in sorted(data["hosts"], key=_needs_nobody)
    ]
    checks = [
        [
            _text(row["title"]),
            *(str(row.get(status, 0) or "") for status in ("passed", "failed", "not_run")),
            "<br>".join(map(_text, _reasons(row))),
        ]
        for row in data["checks"]
    ]
    columns = ["host", "wave", "state", "time", "PyTorch", "FlashInfer", "measured", "what was said"]
    title = f"Rollout {_text(data['id'])}"
    return (
        f'<!doctype html>\n<html lang="en"><head><meta charset="utf-8"><title>{title}</title>'
        f'<meta http-equiv="Content-Security-Policy" content="{policy}">'
        f'<meta name="viewport" content="width=device-width, initial-scale=1"><style>{STYLE}</style></head><body>\n'
        f"<h1>{title}</h1><p>{_state(data['state'])} {_text(data['note'])}</p>\n"
        f"<p>Planned {data['created']}; last step {data['history'][-1]['at'] if data['history'] else 'none yet'}</p>\n"
        f"<p>{_states(data['states'])}</p>\n"
        f"<h2>Waves</h2>{_table(['wave', 'baseline', 'state', 'hosts', 'time', 'result'], waves)}\n"
        f"<h2>Checklist</h2>{_table(['check', 'passed', 'failed', 'not run', 'most frequent reason'], checks)}\n"
        '<h2>Hosts</h2><p><label>Show hosts with <input id="filter" type="search" placeholder="failed"></label> '
        '<span id="shown"></span></p>\n'
        f"{_table(columns, hosts, 'hosts')}\n"
        f"<script>{script}</script></body></html>\n"
    )
