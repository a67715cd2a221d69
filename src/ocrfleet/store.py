# Copyright (c) 2026 The ocrfleet.gpu_stack contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The folder that holds all rollouts, and the lock that lets one driver work in it."""

from __future__ import annotations

import fcntl
import json
import os
import secrets
import shlex
import stat
import time
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ocrfleet.errors import FleetError, Refused
from ocrfleet.gate import CONVERTED
from ocrfleet.state import OVER, Foreign, OtherFormat, State
from ocrfleet.temporary import files_below


def default_folder() -> Path:
    base = os.environ.get("XDG_STATE_HOME") or str(Path.home() / ".local/state")
    return Path(base, "ocrfleet")


def _holder(descriptor: int) -> dict[str, Any]:
    """What the driver that holds the lock has written into it."""
    try:
        return dict(json.loads(os.pread(descriptor, 4096, 0)))
    except (ValueError, TypeError):
        return {}


@dataclass(frozen=True)
class LeftOut:
    """Why a host is out of service: the rollout that left it so, and whether that has drained it."""

    rollout: str
    drained: bool


def left_out(states: Iterable[State]) -> dict[str, LeftOut]:
    """Hosts that are out of service. Of each the last tells that left it out, or converted it.

    A later rollout that did neither, because it was refused or could not drain the host, found it as broken as before;
    and what it was put back to is what it was before.
    """
    told: dict[str, tuple[float, LeftOut | None]] = {}
    for state in states:
        out = {host.name for host in state.out_of_service()}
        for host in state.hosts():
            if host.name not in out and host.state not in CONVERTED:
                continue
            if host.began is not None and host.began > told.get(host.name, (0.0, None))[0]:
                found = LeftOut(state.id, bool(host.drained)) if host.name in out else None
                told[host.name] = (host.began, found)
    return {name: found for name, (_began, found) in told.items() if found}


def _refuse_foreign(folder: Path) -> None:
    """What is in the state is done on hosts: whoever else could write there could have it do anything."""
    try:
        found = folder.stat()
    except FileNotFoundError:
        return
    other = "name another one with --state-dir"
    if not stat.S_ISDIR(found.st_mode):
        raise FleetError(f"expected a folder, found a file at {folder}; {other}")
    if found.st_uid != os.geteuid():
        raise FleetError(
            f"expected a folder of your own, found {folder}, which belongs to user {found.st_uid}; {other}"
        )
    mode = stat.S_IMODE(found.st_mode)
    if mode & 0o022:
        raise FleetError(
            f"expected a folder that only you may write to, found {folder} with mode {mode:04o}; "
            f"{other}, or where it is for nothing else: chmod go-w {shlex.quote(str(folder))}"
        )


class Store:
    """Finds, lists and makes rollouts. A folder that is given keeps its mode: what is put into it is private."""

    def __init__(self, folder: Path) -> None:
        # By one name, whatever link led here: processes of a run are found by it.
        self.folder = folder.expanduser().resolve()
        self.rollouts = self.folder / "rollouts"
        for place in (self.folder, self.rollouts):
            _refuse_foreign(place)

    def _make(self) -> None:
        self.folder.mkdir(mode=0o700, parents=True, exist_ok=True)
        self.rollouts.mkdir(mode=0o700, exist_ok=True)

    def new(self) -> Path:
        self._make()
        return self.rollouts / f"{time.strftime('%Y%m%d-%H%M%S', time.gmtime())}-{secrets.token_hex(2)}"

    def _folders(self) -> list[Path]:
        """Newest first. A plan that was killed before it was whole is none."""
        found = self.rollouts.iterdir() if self.rollouts.is_dir() else ()
        return sorted((path for path in found if (path / "state.db").is_file()), reverse=True)

    def _some(self) -> list[Path]:
        folders = self._folders()
        if not folders:
            raise FleetError(f"there is no rollout in {self.folder} yet; begin one with `ocrfleet rollout`")
        return folders

    def look(self) -> Iterator[tuple[str, State | FleetError]]:
        """All rollouts by their ids, newest first; why, where one cannot be read. Each is closed before the next."""
        for folder in self._folders():
            try:
                state = State(folder)
            except FleetError as error:
                yield folder.name, error
                continue
            try:
                yield folder.name, state
            finally:
                state.close()

    def _others(self, but: str) -> Iterator[State]:
        """The other rollouts, also those of other formats. Raises Refused where it cannot be told what one has.

        One that is damaged tells nothing for good, and is left out.
        """
        for name, found in self.look():
            if isinstance(found, State) and found.id != but:
                yield found
            if isinstance(found, OtherFormat):
                foreign = self._foreign(name, found)
                try:
                    yield foreign
                finally:
                    foreign.close()

    def _foreign(self, name: str, why: OtherFormat) -> State:
        folder = self.rollouts / name
        try:
            return Foreign(folder)
        except FleetError as error:
            raise Refused(
                f"which hosts rollout {name} has cannot be told: {why} to finish it, then move its folder away: "
                f"{folder}"
            ) from error

    def open(self, name: str | None) -> State:
        """The rollout of that id, or of the only one that begins so, or the newest."""
        folders = self._some()
        if name is None:
            return State(folders[0])
        if not name or Path(name).name != name:
            raise FleetError(
                f"expected the id of a rollout, or its beginning, found {name!r}; `ocrfleet status --all` lists them"
            )
        found = [folder for folder in folders if folder.name == name]
        found = found or [folder for folder in folders if folder.name.startswith(name)]
        if len(found) != 1:
            several = f", with which {len(found)} begin: {', '.join(folder.name for folder in found[:5])}"
            raise FleetError(
                f"expected the id of a rollout in {self.folder}, or an unambiguous beginning of one, found {name!r}"
                f"{several if found else ''}{', …' if len(found) > 5 else ''}; `ocrfleet status --all` lists them"
            )
        return State(found[0])

    def refuse_overlap(self, hosts: list[str], but: str = "") -> None:
        """Two unfinished rollouts must not share a host: each would judge what the other did."""
        for state in self._others(but):
            if state.state in OVER:
                continue
            shared = sorted({host.name for host in state.hosts()} & set(hosts))
            if shared:
                raise Refused(
                    f"rollout {state.id} is not over ({state.state}) and has {len(shared)} of these hosts, "
                    f"such as {shared[0]}; finish it with `ocrfleet resume {state.id}`, or end it with "
                    f"`ocrfleet abort {state.id}`{state.by}"
                )

    def out_of_service(self, but: str) -> dict[str, LeftOut]:
        """Hosts that other rollouts left out of service, over or not."""
        return left_out(self._others(but))

    def refuse_converted_later(self, hosts: list[str], rollout: State) -> None:
        """No rollout works on a host that a later one has converted: that one would think it is as it left it."""
        for state in self._others(rollout.id):
            if state.created <= rollout.created:
                continue
            later = [h.name for h in state.hosts() if h.baseline and h.state != "rolled back" and h.name in hosts]
            if later:
                shown = ", ".join(later[:10]) + (f" and {len(later) - 10} more" if len(later) > 10 else "")
                raise Refused(
                    f"rollout {state.id} came later and converted {shown}; roll that back first, with "
                    f"`ocrfleet rollback {state.id}`, or begin another rollout{state.by}"
                )

    @contextmanager
    def driver(self, what: str) -> Iterator[Callable[[str], None]]:
        """Held by the one process that works on hosts; the kernel lets go when that process ends, however it ends.

        What it gives is to be told the id of the rollout that is worked on. Temporary files lie below the folder then.
        """
        if what == "rollout":
            self._make()
        else:
            self._some()
        descriptor = os.open(self.folder / "driver.lock", os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
        try:
            try:
                fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError:
                told = _holder(descriptor)
                raise Refused(
                    f"another rollout is at work: {told.get('what', 'unknown')}, process {told.get('pid', 'unknown')}, "
                    f"since {told.get('since', 'unknown')}; wait for it, or ask it to stop with `ocrfleet pause`"
                ) from None
            said = {"what": what, "pid": os.getpid(), "since": time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime())}

            def tell(rollout: str) -> None:
                os.ftruncate(descriptor, 0)
                os.pwrite(descriptor, json.dumps({**said, "rollout": rollout}).encode(), 0)

            tell("")
            with files_below(self.folder):
                yield tell
        finally:
            os.close(descriptor)

    def is_driven(self, rollout: str) -> bool:
        """Whether a driver is at work on this rollout now."""
        try:
            descriptor = os.open(self.folder / "driver.lock", os.O_RDWR | os.O_CLOEXEC)
        except FileNotFoundError:
            return False
        try:
            fcntl.flock(descriptor, fcntl.LOCK_SH | fcntl.LOCK_NB)
        except BlockingIOError:
            return _holder(descriptor).get("rollout") == rollout
        finally:
            os.close(descriptor)
        return False
