# Copyright (c) 2026 The ocrfleet.gpu_stack contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The state of one rollout on disk. Each step is written, and synced, before it is taken."""

from __future__ import annotations

import json
import os
import sqlite3
import time
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ocrfleet import evidence
from ocrfleet.errors import FleetError
from ocrfleet.gate import CONVERTED
from ocrfleet.planning import Fleet, Wave
from ocrfleet.policy import Policy

# Other versions read a few columns of any format, see Foreign: where one comes to mean something else, it is renamed.
FORMAT = 3

# Of a rollout: planned, running, soaking, waiting (approval), paused, stopped (a gate), aborted, finished.
OVER = ("aborted", "finished", "rolled back")
# Of a host: pending, running, converted, unchanged (had it already), failed, unreachable, skipped (not drained),
# unknown (its run told nothing of it), rolling back, rolled back.
TO_DO_AGAIN = ("running", "failed", "unreachable", "skipped", "unknown")

_TABLES = """
CREATE TABLE rollout (
    id TEXT, created REAL, state TEXT, note TEXT, policy TEXT, inventory TEXT, total INTEGER, backward INTEGER,
    cwd TEXT
);
CREATE TABLE wave (
    number INTEGER PRIMARY KEY, cohort TEXT, canary INTEGER, state TEXT, began REAL, ended REAL, note TEXT
);
CREATE TABLE host (
    position INTEGER PRIMARY KEY, name TEXT UNIQUE, wave INTEGER, groups TEXT, state TEXT, message TEXT, run TEXT,
    drained INTEGER DEFAULT 0, first REAL, first_run TEXT, began REAL, ended REAL, baseline TEXT, figures TEXT,
    evidence TEXT
);
CREATE INDEX host_wave ON host (wave);
CREATE INDEX host_state ON host (state);
CREATE TABLE request (kind TEXT, made REAL);
CREATE TABLE history (at REAL, what TEXT);
"""


@dataclass
class Host:
    """One row of the table of hosts.

    `first` is when this rollout first handed the host to a playbook; None where it did not, or where all that came of
    it is a host as it was before. `first_run` is that run: the clock here may be set back between two runs.
    """

    name: str
    wave: int
    state: str
    message: str
    run: str
    drained: bool
    first: float | None
    first_run: str
    began: float | None
    ended: float | None
    baseline: str
    figures: str


def _is_no_fault_of_the_file(error: sqlite3.DatabaseError) -> bool:
    """Whether the disk, rights or another process stand in the way; what is not in the file is SQLITE_ERROR."""
    code = getattr(error, "sqlite_errorcode", sqlite3.SQLITE_ERROR) & 0xFF  # without what more SQLite tells of it
    return isinstance(error, sqlite3.OperationalError) and code != sqlite3.SQLITE_ERROR


class OtherFormat(FleetError):
    """Another version of ocrfleet made this rollout."""


class State:
    """One rollout's database. Every method is one transaction."""

    by = ""  # what an error about it adds: which version of ocrfleet can do what is asked for

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        file = folder / "state.db"
        if not file.is_file():
            raise FleetError(f"expected a rollout at {folder}, found none; `ocrfleet status --all` lists them")
        # Only ever one connection in each process; the driver's threads take turns.
        self.db = sqlite3.connect(file, timeout=30, check_same_thread=False, isolation_level=None)
        try:
            self.db.execute("PRAGMA journal_mode=WAL")
            self.db.execute("PRAGMA synchronous=FULL")
            self.format = int(self.db.execute("PRAGMA user_version").fetchone()[0])
            if self.format < 1:
                raise FleetError(f"{file} cannot be read: it has no format; restore it, or move its folder away")
            self._prove()
        except FleetError:
            self.db.close()
            raise
        except sqlite3.DatabaseError as error:
            self.db.close()
            if _is_no_fault_of_the_file(error):
                raise type(error)(f"{file}: {error}") from error
            raise FleetError(f"{file} cannot be read: {error}; restore it, or move its folder away") from error

    def _prove(self) -> None:
        """Raise OtherFormat, or whatever reading what is not there raises."""
        if self.format != FORMAT:
            raise OtherFormat(
                f"{self.folder / 'state.db'} has format {self.format}, this ocrfleet knows {FORMAT}; "
                "use the version that made it"
            )
        self.db.execute("SELECT * FROM wave LIMIT 1")
        self._one("id")
        self.counts()

    @classmethod
    def create(cls, folder: Path, policy: Policy, inventory: list[str], fleet: Fleet, waves: list[Wave]) -> State:
        """Lay the plan down. The database appears under its name only when it is whole."""
        folder.mkdir(mode=0o700, parents=True)
        draft = folder / "state.new"
        # SQLite gives its own files beside it the same rights.
        os.close(os.open(draft, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600))
        db = sqlite3.connect(draft, isolation_level=None)
        try:
            db.executescript("BEGIN;" + _TABLES)
            position = {host: number for number, host in enumerate(fleet.hosts)}
            db.execute(
                "INSERT INTO rollout VALUES (?, ?, 'planned', '', ?, ?, ?, 0, ?)",
                (folder.name, time.time(), json.dumps(policy), json.dumps(inventory), len(fleet.hosts), os.getcwd()),
            )
            db.executemany(
                "INSERT INTO wave VALUES (?, ?, ?, 'pending', NULL, NULL, '')",
                [(wave.number, wave.cohort, wave.canary) for wave in waves],
            )
            db.executemany(
                "INSERT INTO host"
                " (position, name, wave, groups, state, message, run, first_run, baseline, figures, evidence)"
                " VALUES (?, ?, ?, ?, 'pending', '', '', '', '', '', '')",
                [
                    (position[host], host, wave.number, json.dumps(fleet.groups.get(host, [])))
                    for wave in waves
                    for host in wave.hosts
                ],
            )
            db.execute(f"PRAGMA user_version={FORMAT}")
            db.execute("COMMIT")
        finally:
            db.close()
        os.replace(draft, folder / "state.db")
        return cls(folder)

    def close(self) -> None:
        self.db.close()

    @contextmanager
    def _transaction(self) -> Iterator[sqlite3.Connection]:
        self.db.execute("BEGIN IMMEDIATE")
        try:
            yield self.db
        except BaseException:
            self.db.execute("ROLLBACK")
            raise
        self.db.execute("COMMIT")

    # --- what is asked ---

    def _one(self, column: str) -> Any:
        row = self.db.execute(f"SELECT {column} FROM rollout").fetchone()  # noqa: S608 - columns are ours
        if row is None:
            raise sqlite3.DatabaseError("it tells of no rollout")
        return row[0]

    @property
    def id(self) -> str:
        return str(self._one("id"))

    @property
    def state(self) -> str:
        return str(self._one("state"))

    @property
    def note(self) -> str:
        return str(self._one("note"))

    @property
    def created(self) -> float:
        return float(self._one("created"))

    @property
    def cwd(self) -> str:
        """Where it was begun: playbooks, hooks and ansible.cfg are named from there."""
        return str(self._one("cwd"))

    @property
    def backward(self) -> bool:
        """Whether it is being rolled back, or was. There is no way forward from there."""
        return bool(self._one("backward"))

    @property
    def policy(self) -> Policy:
        return dict(json.loads(self._one("policy")))

    @property
    def inventory(self) -> list[str]:
        return list(json.loads(self._one("inventory")))

    def fleet(self) -> Fleet:
        rows = self.db.execute("SELECT name, groups FROM host ORDER BY position").fetchall()
        return Fleet([name for name, groups in rows], {name: json.loads(groups) for name, groups in rows})

    def waves(self) -> list[dict[str, Any]]:
        names = ("number", "cohort", "canary", "state", "began", "ended", "note")
        rows = self.db.execute(f"SELECT {', '.join(names)} FROM wave ORDER BY number")  # noqa: S608 - names are ours
        return [dict(zip(names, row, strict=True)) for row in rows]

    def _hosts(self, where: str, *values: Any) -> list[Host]:
        names = "name, wave, state, message, run, drained, first, first_run, began, ended, baseline, figures"
        query = f"SELECT {names} FROM host WHERE {where} ORDER BY position"  # noqa: S608 - ours, values are bound
        return [Host(*row) for row in self.db.execute(query, values)]

    def hosts(self, wave: int | None = None, states: Iterable[str] | None = None) -> list[Host]:
        if states is None:
            return self._hosts("?1 IS NULL OR wave = ?1", wave)
        wanted = list(states)
        return self._hosts(f"(?1 IS NULL OR wave = ?1) AND state IN ({', '.join('?' * len(wanted))})", wave, *wanted)

    def named(self, names: Iterable[str]) -> list[Host]:
        return [host for name in names for host in self._hosts("name = ?", name)]

    def out_of_service(self) -> list[Host]:
        """Hosts that are drained, under way, away, or not provably as they were; to be done again or not."""
        handed = "first IS NOT NULL AND state IN ('failed', 'pending', 'skipped', 'not rolled back')"
        found = self._hosts(f"drained OR state IN ('running', 'rolling back', 'unreachable', 'unknown') OR ({handed})")
        return [host for host in found if host.drained or not self.is_sound(host)]

    def last_run(self) -> int:
        return int(self.db.execute("SELECT max(CAST(run AS INTEGER)) FROM host").fetchone()[0] or 0)

    def counts(self) -> dict[str, int]:
        return dict(self.db.execute("SELECT state, count(*) FROM host GROUP BY state").fetchall())

    def evidence(self, name: str) -> dict[str, Any]:
        row = self.db.execute("SELECT evidence FROM host WHERE name = ?", (name,)).fetchone()
        return dict(json.loads(row[0])) if row and row[0] else {}

    def is_sound(self, host: Host) -> bool:
        """Whether a host is converted, or provably as it was."""
        if host.state in (*CONVERTED, "rolled back"):
            return True
        if host.state not in ("failed", "skipped", "pending"):
            return False
        found = self.evidence(host.name)
        # One that is to be done again, or was skipped then, is as its last run left it.
        verified = host.state != "failed" and evidence.is_proof(found)
        return host.first is None or verified or evidence.is_restored(found)

    def to_convert(self, wave: int | None = None) -> list[Host]:
        """Hosts that a way forward from here works on, of a wave or of all."""
        return [host for host in self.hosts(wave) if host.state in ("pending", *TO_DO_AGAIN) or host.figures]

    def to_put_back(self) -> list[Host]:
        """Hosts that this rollout changed, or may have changed, and that are not known to be back."""
        return [host for host in self.hosts() if host.first is not None and not self._is_back(host)]

    def _is_back(self, host: Host) -> bool:
        if host.state in ("unchanged", "rolled back"):
            return True
        restored = host.state in ("failed", "skipped", "pending") and evidence.is_restored(self.evidence(host.name))
        return not host.baseline and restored

    def history(self) -> list[tuple[float, str]]:
        return self.db.execute("SELECT at, what FROM history ORDER BY rowid").fetchall()

    # --- steps ---

    def _say(self, db: sqlite3.Connection, what: str) -> None:
        db.execute("INSERT INTO history VALUES (?, ?)", (time.time(), what))

    def set_state(self, state: str, note: str = "") -> None:
        with self._transaction() as db:
            db.execute("UPDATE rollout SET state = ?, note = ?", (state, note))
            self._say(db, f"{state}{': ' + note if note else ''}")

    def turn_back(self) -> None:
        """From here on whoever goes on with this rollout goes back."""
        with self._transaction() as db:
            db.execute("UPDATE rollout SET backward = 1, state = 'rolling back', note = ''")
            self._say(db, "rolling back")

    def set_wave(self, number: int, state: str, note: str = "") -> None:
        # A wave that runs again ends anew, and so does its soak begin anew.
        times = "began = coalesce(began, ?3), ended = NULL" if state == "running" else "ended = coalesce(ended, ?3)"
        with self._transaction() as db:
            db.execute(
                f"UPDATE wave SET state = ?1, note = ?2, {times} WHERE number = ?4",  # noqa: S608 - ours
                (state, note, time.time(), number),
            )
            self._say(db, f"wave {number} {state}{': ' + note if note else ''}")

    def begin(self, names: Iterable[str], run: str, state: str = "running") -> None:
        """Written before the hosts are drained."""
        now = time.time()
        with self._transaction() as db:
            db.executemany(
                "UPDATE host SET state = ?, run = ?, began = ?, ended = NULL, message = '' WHERE name = ?",
                [(state, run, now, name) for name in names],
            )
            self._say(db, f"run {run} begins")

    def put_off(self, names: Iterable[str]) -> None:
        """They were drained, and nothing else is begun on them now."""
        with self._transaction() as db:
            db.executemany("UPDATE host SET state = 'pending' WHERE name = ?", [(name,) for name in names])

    def hand_over(self, names: Iterable[str]) -> None:
        """Written before the hosts are converted: what was known of them before holds no longer."""
        now = time.time()
        with self._transaction() as db:
            db.executemany(
                "UPDATE host SET first = coalesce(first, ?),"
                " first_run = CASE WHEN first IS NULL THEN run ELSE first_run END,"
                " evidence = '', figures = '' WHERE name = ?",
                [(now, name) for name in names],
            )

    def end(self, results: Iterable[tuple[str, str, str, dict[str, Any], str]]) -> None:
        """Of each host its name, state, message, evidence and the figures that it missed."""
        now = time.time()
        with self._transaction() as db:
            for name, state, message, found, figures in results:
                # The first change that this rollout made decides where a roll-back leads.
                baseline = evidence.baseline(found) if state == "converted" else ""
                as_it_was = state == "failed" and (evidence.is_untouched(found) or evidence.is_restored(found))
                # An earlier run that handed it over first may have changed it all the same.
                db.execute(
                    "UPDATE host SET state = ?, message = ?, ended = ?, figures = ?, evidence = ?,"
                    " baseline = CASE WHEN baseline = '' THEN ? ELSE baseline END,"
                    " first = CASE WHEN ? AND first_run = run THEN NULL ELSE first END WHERE name = ?",
                    (state, message, now, figures, json.dumps(found) if found else "", baseline, as_it_was, name),
                )

    def set_drained(self, names: Iterable[str], drained: bool) -> None:
        with self._transaction() as db:
            db.executemany("UPDATE host SET drained = ? WHERE name = ?", [(drained, name) for name in names])

    def retry(self, number: int) -> list[str]:
        """Have the hosts of a wave done again that were not converted, or missed a figure."""
        names = [host.name for host in self.to_convert(number) if host.state != "pending"]
        with self._transaction() as db:
            db.executemany("UPDATE host SET state = 'pending' WHERE name = ?", [(name,) for name in names])
        return names

    # --- between a driver and the commands that talk to it ---

    def request(self, kind: str) -> None:
        with self._transaction() as db:
            db.execute("INSERT INTO request VALUES (?, ?)", (kind, time.time()))
            self._say(db, f"{kind} requested")

    def drop_requests(self, *kinds: str) -> None:
        """Forget what was asked of an earlier command."""
        while self.take_request(*kinds):
            pass

    def take_request(self, *kinds: str) -> str:
        """The strongest of the requests of these kinds, in the order given, or an empty text. It is taken away."""
        found = {row[0] for row in self.db.execute("SELECT kind FROM request")}
        chosen = next((kind for kind in kinds if kind in found), "")
        if chosen:
            with self._transaction() as db:
                db.execute("DELETE FROM request WHERE kind = ?", (chosen,))
        return chosen


class Foreign(State):
    """A rollout of another format. Read is what every format so far has, for the rollouts beside it; written nothing.

    Raises FleetError where it has not.
    """

    def _prove(self) -> None:
        self.db.execute("PRAGMA query_only=ON")
        for column in ("id", "state", "created"):
            self._one(column)
        self.hosts()
        self.by = (
            f". It has format {self.format}, this ocrfleet knows {FORMAT}: use the version that made it, or move its "
            f"folder away: {self.folder}"
        )

    def _hosts(self, where: str, *values: Any) -> list[Host]:
        query = f"SELECT name, state, drained, began, baseline FROM host WHERE {where} ORDER BY position"  # noqa: S608
        return [
            Host(name, 0, state, "", "", drained, None, "", began, None, baseline, "")
            for name, state, drained, began, baseline in self.db.execute(query, values)
        ]

    def out_of_service(self) -> list[Host]:
        """Hosts that may be: only the version that made it can tell what their evidence says."""
        sound = (*CONVERTED, "rolled back")
        return [h for h in self.hosts() if h.drained or (h.began is not None and h.state not in sound)]
