# Copyright (c) 2026 The ocrfleet.gpu_stack contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""What the role report wrote of a host: read, held against a form, and believed as far as it goes.

A host tells its evidence itself. What of it goes into extra variables would be run as a template there, on the control
node, so nothing goes there but texts of a form that holds no template.
"""

from __future__ import annotations

import datetime
import hashlib
import json
import re
import time
from pathlib import Path
from typing import Any

Evidence = dict[str, Any]

# What this program reads, by its type. All of evidence.json has a schema in the role report.
_TYPES = {
    "transaction": dict,
    "kept_baselines": dict,
    "outside_transaction": list,
    "lock": str,
    "finished": str,
    "versions": dict,
    "checks": list,
}
_BASELINE = re.compile(r"[A-Za-z0-9_.:-]+")
# Of a requirements file: NAME==VERSION and its hashes. No option, no URL, no other file.
_LOCK_LINE = re.compile(
    r"[ \t]*(?:[A-Za-z0-9][\w.-]*(?:\[[\w., -]*\])?[ \t]*==[ \t]*[\w.+!]+(?:[ \t]*;[\w.'\"<>=!()~, \t]*)?)?"
    r"(?:[ \t]*--hash=[a-z0-9]+:[0-9a-f]+)*[ \t]*\\?|[ \t]*#[^\\\x00-\x08\x0a-\x1f]*",
    re.ASCII,
)
_LINE_LENGTH = 2000


def folder(reports: Path, host: str) -> Path | None:
    """Where the role report writes a host's report (its module_utils/report_folder.py), None where it refuses to."""
    plain = re.sub(r"[^A-Za-z0-9_.-]", "_", host)
    if host in (".", ".."):
        return None
    return reports / (plain if plain == host else f"{plain}-{hashlib.sha256(host.encode('utf-8')).hexdigest()[:8]}")


def read(reports: Path, host: str) -> Evidence:
    """A host's evidence below `reports`, or {}."""
    place = folder(reports, host)
    if place is None:
        return {}
    try:
        found = json.loads((place / "evidence.json").read_text(encoding="utf-8"))
        # Bytes that are no UTF-8 stand in it as halves of pairs, which no page or database takes.
        found = json.loads(json.dumps(found, ensure_ascii=False).encode("utf-8", "replace"))
    except (OSError, ValueError, RecursionError):
        return {}
    return found if isinstance(found, dict) and found.get("host") == host and _has_form(found) else {}


def _has_form(found: Evidence) -> bool:
    proof = found["transaction"].get("proof", {}) if isinstance(found.get("transaction"), dict) else {}
    checks = found.get("checks", [])
    return (
        all(isinstance(found[name], kind) for name, kind in _TYPES.items() if name in found)
        and isinstance(proof, dict)
        and all(isinstance(check, dict) for check in checks)
    )


def is_proof(found: Evidence) -> bool:
    return found.get("result") == "verified"


def earlier(found: Evidence, began: float) -> bool:
    """Whether evidence is that of an earlier run, which a host shows again when there is nothing to do."""
    return str(found.get("finished", "")) < time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime(began))


def baseline(found: Evidence) -> str:
    """Where a roll-back leads; an empty text where the host names none, or none that is a name."""
    text = found.get("transaction", {}).get("baseline_id")
    return text if is_baseline(text) else ""


def way_back(found: Evidence, since: float) -> str:
    """Where a roll-back leads.

    A run that was killed before it could tell left a baseline, and the next, which had nothing to do, names those that
    are kept: it is the first that was frozen since then. Both clocks count, as in `earlier`.
    """
    times = {name: _seconds(created) for name, created in found.get("kept_baselines", {}).items() if is_baseline(name)}
    frozen = sorted((at, name) for name, at in times.items() if at >= int(since))
    return baseline(found) or (frozen[0][1] if frozen else "")


def _seconds(created: object) -> float:
    try:
        return datetime.datetime.fromisoformat(str(created)).timestamp()
    except ValueError:
        return 0.0


def began(transaction: object) -> float:
    """When a transaction began, by its name, in seconds since the epoch; never, where it has none of that form."""
    try:
        stamp = str(transaction).partition("-")[0]
        return datetime.datetime.strptime(stamp, "%Y%m%dT%H%M%S.%fZ").replace(tzinfo=datetime.timezone.utc).timestamp()
    except ValueError:
        return float("inf")


def is_baseline(text: object) -> bool:
    return isinstance(text, str) and bool(_BASELINE.fullmatch(text))


def is_lock(text: str) -> bool:
    return all(len(line) <= _LINE_LENGTH and _LOCK_LINE.fullmatch(line) for line in text.split("\n"))


def wrong(found: Evidence) -> str:
    """What in a host's evidence has not the form that extra variables and files may be made of."""
    named = found.get("transaction", {}).get("baseline_id")
    if named and not is_baseline(named):
        return "its evidence names a baseline that is no name; look at the host"
    if not is_lock(found.get("lock", "")):
        return "the lock in its evidence has lines that are no NAME==VERSION or hash; look at the host"
    return ""


def is_restored(found: Evidence) -> bool:
    """Whether a failed run proved that the environment is as it was."""
    return found.get("transaction", {}).get("proof", {}).get("equal") is True


def is_untouched(found: Evidence) -> bool:
    """Whether a run failed, and told so, before it began to change the environment. Of earlier runs it says nothing."""
    return found.get("result") == "failed" and not found.get("transaction") and not found.get("outside_transaction")
