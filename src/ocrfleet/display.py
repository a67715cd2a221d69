# Copyright (c) 2026 The ocrfleet.gpu_stack contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Progress: a live view on a terminal, plain lines elsewhere. Texts of hosts are data, never markup."""

from __future__ import annotations

import contextlib
import os
import threading
import time
from collections import Counter
from types import TracebackType
from typing import IO, Any

from rich.console import Console, Group
from rich.live import Live
from rich.progress_bar import ProgressBar
from rich.table import Table
from rich.text import Text

from ocrfleet.state import State
from ocrfleet.text import SENTENCES, duration, one_line

COLOURS = {
    "converted": "green",
    "unchanged": "green",
    "rolled back": "cyan",
    "running": "yellow",
    "rolling back": "yellow",
    "pending": "dim",
}
DONE = ("converted", "unchanged", "rolled back", "failed", "unreachable", "skipped", "unknown", "not rolled back")


def colour(state: str) -> str:
    return COLOURS.get(state, "red")


class Output:
    """A file whose reader may go away, `tee` at Ctrl-C or a terminal, and who writes goes on; `lost` is set then."""

    def __init__(self, file: IO[str]) -> None:
        self.file = file
        self.lost = threading.Event()

    def write(self, text: str) -> int:
        try:
            return self.file.write(text)
        except OSError:
            self._lose()
            return len(text)

    def flush(self) -> None:
        try:
            self.file.flush()
        except OSError:
            self._lose()

    def _lose(self) -> None:
        # What is still buffered goes there too, or Python would end with an error of its own.
        with contextlib.suppress(OSError), open(os.devnull, "w", encoding="utf-8") as nowhere:
            os.dup2(nowhere.fileno(), self.file.fileno())
        self.lost.set()

    def __getattr__(self, name: str) -> Any:
        return getattr(self.file, name)


class Progress:
    """Follows a rollout. `host` and `event` may be called from several threads."""

    def __init__(self, state: State, console: Console) -> None:
        self.console = console
        self.lock = threading.Lock()
        self.hosts = {host.name: host.state for host in state.hosts()}
        self.waves = len(state.waves())
        self.current = ""
        self.tasks: dict[str, str] = {}
        self.began = time.monotonic()
        self.done_before = sum(found in DONE for found in self.hosts.values())
        self.live = (
            Live(get_renderable=self.view, console=console, refresh_per_second=4) if console.is_terminal else None
        )

    def __enter__(self) -> Progress:
        if self.live:
            self.live.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self.live:
            self.live.stop()

    def _line(self, text: Text) -> None:
        self.console.print(Text.assemble((time.strftime("%H:%M:%S "), "dim"), text), soft_wrap=True)

    def note(self, text: str) -> None:
        self._line(Text(one_line(text, 1000)))

    def wave(self, number: int, cohort: str, hosts: int) -> None:
        with self.lock:
            self.current = f"wave {number} of {self.waves}"
        self.note(f"wave {number} of {self.waves}: {hosts} host{'s' if hosts != 1 else ''}, baseline {cohort[:12]}")

    def event(self, kind: str, host: str, task: str) -> None:
        if not host or not task:
            return
        with self.lock:
            self.hosts[host] = "running"
            new = self.tasks.get(host) != task
            self.tasks[host] = task
        # Without a terminal a line for each task of each host would drown what matters.
        if self.live is None and new and kind == "runner_on_unreachable":
            self.note(f"{host}: unreachable at {task}")

    def host(self, name: str, state: str, message: str) -> None:
        with self.lock:
            self.hosts[name] = state
            self.tasks.pop(name, None)
        said = f": {one_line(message, SENTENCES)}" if message else ""
        self._line(Text.assemble((f"  {one_line(name)} {state}", colour(state)), said))

    def view(self) -> Group:
        """The live part: how far, who is at what, how fast, how long still."""
        with self.lock:
            counts, tasks = Counter(self.hosts.values()), dict(self.tasks)
        done, total = sum(counts[state] for state in DONE), len(self.hosts)
        seconds = time.monotonic() - self.began
        here = done - self.done_before
        table = Table.grid(padding=(0, 2))
        left = f", about {duration(seconds / here * (total - done))} left" if here and total > done else ""
        rate = f", {here / seconds * 60:.1f} hosts a minute" if here and seconds else ""
        table.add_row(
            Text(self.current or "starting", "bold"),
            ProgressBar(total=total, completed=done, width=40),
            Text(f"{done} of {total} hosts, {duration(seconds)}{rate}{left}"),
        )
        states = Text("  ").join(Text(f"{number} {state}", colour(state)) for state, number in sorted(counts.items()))
        phases = Table.grid(padding=(0, 2))
        for task, number in Counter(tasks.values()).most_common(4):
            phases.add_row(Text(f"{number:>5}", "yellow"), Text(one_line(task, 90)))
        return Group(table, states, phases)
