# Copyright (c) 2026 The ocrfleet.gpu_stack contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""What is under way, at the foot of a terminal, while everything else goes on being printed above it."""

from __future__ import annotations

import os
import sys
import time
from collections.abc import Callable, Mapping
from typing import Any

from ansible_collections.ocrfleet.gpu_stack.plugins.plugin_utils import progress

try:
    from rich.console import Console
    from rich.live import Live
    from rich.table import Table
    from rich.text import Text

    HAS_RICH = True
except ImportError:
    HAS_RICH = False

# By these whoever keeps the output says so, though it may be a terminal to us: CI systems, and ansible-runner with AWX.
KEEPERS = {"CI", "AWX_ISOLATED_DATA_DIR"}
SHOWN = 8  # hosts; the others are counted


def duration(seconds: float) -> str:
    whole = int(seconds)
    return f"{whole // 60} min {whole % 60:02d} s" if whole >= 60 else f"{whole} s"


def wanted(stream: Any, environment: Mapping[str, str]) -> bool:
    """Whether the stream is a terminal that can be drawn on, and nobody's log."""
    drawable = HAS_RICH and stream.isatty() and environment.get("TERM", "dumb") != "dumb"
    return drawable and not KEEPERS & environment.keys()


class View:
    """What is drawn: the task, and the hosts that are at it with what they say and for how long."""

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        self.clock = clock
        self.began = clock()
        self.phase = ""
        self.task = ""
        self.hosts: dict[str, tuple[float, str]] = {}

    def start_task(self, phase: str, task: str) -> None:
        self.phase, self.task = progress.printable(phase), progress.printable(task)

    def start_host(self, host: str) -> None:
        self.hosts[host] = (self.clock(), "")

    def end_host(self, host: str) -> None:
        self.hosts.pop(host, None)

    def hears(self, line: str) -> bool:
        """Whether a printed line tells how far a host is, and so is drawn instead."""
        told = progress.read(line)
        if not told or told[0] not in self.hosts:
            return False
        self.hosts[told[0]] = (self.hosts[told[0]][0], told[1])
        return True

    def __rich__(self) -> Table:
        now = self.clock()
        table = Table.grid(padding=(0, 2))
        head = Text.assemble((self.phase, "bold"), " " if self.phase else "", self.task or "starting")
        table.add_row(head, Text(f"{duration(now - self.began)} in all", "dim"))
        under_way = list(self.hosts.items())
        for host, (since, what) in under_way[:SHOWN]:
            told = progress.printable(f"  {what}" if what else "")
            table.add_row(Text.assemble("  ", (progress.printable(host), "cyan"), told), duration(now - since))
        if len(under_way) > SHOWN:
            table.add_row(f"  and {len(under_way) - SHOWN} hosts more")
        return table


def drawn_on(stream: Any) -> Any:
    """The same terminal, less the lock that Ansible has put around its standard output.

    Ansible prints under that lock, and what is printed waits for the view's own. Drawing is done under the view's own,
    and would wait for Ansible's: each for the other, for ever.
    """
    return open(stream.fileno(), "w", encoding=stream.encoding, errors=stream.errors, closefd=False)


class Screen:
    """Stands in for the standard output: what is printed goes above the view, but for what the view shows itself."""

    def __init__(self, view: View, stream: Any) -> None:
        self.view, self.stream = view, stream
        self.process = os.getpid()
        self.console = Console(file=drawn_on(stream), highlight=False)
        self.live = Live(
            view,
            console=self.console,
            refresh_per_second=4,
            transient=True,
            redirect_stdout=False,
            redirect_stderr=False,
        )

    def start(self) -> None:
        self.stream.flush()
        self.live.start()
        sys.stdout = self

    def stop(self) -> None:
        """Take the view away for good; safe to be called again, and in a forked process."""
        if os.getpid() == self.process and sys.stdout is self:
            sys.stdout = self.stream
            self.live.stop()

    def write(self, text: str) -> int:
        if os.getpid() != self.process:
            # A worker has none of the threads that draw, and may not wait for their locks.
            return int(self.stream.write(text))
        if not self.view.hears(text):
            line = text.removesuffix("\n")
            self.console.print(Text.from_ansi(line), end=text[len(line) :], soft_wrap=True)
        return len(text)

    def flush(self) -> None:
        self.stream.flush()

    def __getattr__(self, name: str) -> Any:
        return getattr(self.stream, name)
