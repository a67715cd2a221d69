# Copyright (c) 2026 The ocrfleet.gpu_stack contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""An environment with transactions on it, for the tests of those; and a stand-in for systemd."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from ansible_collections.ocrfleet.gpu_stack.plugins.module_utils import inventory, services, transaction
from made_environment import SITE, add_distribution, make_environment

RUN = {
    "controller": "deploy/1/ns",
    "boot": "b1",
    "pid": 10,
    "started": "100",
    "host": "vm1",
    "user": "ann",
    "label": "x",
}
LATER = {**RUN, "pid": 11}
BOTH = pytest.mark.parametrize("strategy", ["staged", "in_place"])


class Killed(BaseException):
    """Stands for SIGKILL: no handler of the product's may see it as an error."""


class Bench:
    """An environment, and transactions on it as a run after another would start them."""

    def __init__(self, folder: Path, strategy: str = "staged") -> None:
        self.home = folder / "home"
        self.home.mkdir(parents=True)
        self.environment = make_environment(folder / "envs ü" / "olmocr optimized")
        self.strategy = strategy
        self.before = inventory.take(str(self.environment))
        self.warnings: list[str] = []

    def work(self, **changes: Any) -> transaction.Transaction:
        settings: dict[str, Any] = {
            "environment": str(self.environment),
            "owner": RUN,
            "strategy": self.strategy,
            "export_dir": str(self.home),
            "lock_wait": 0.5,
            **changes,
        }
        return transaction.Transaction(transaction.Options(**settings), self.warnings.append)

    @property
    def state(self) -> str:
        return str(self.work().describe()["state"])

    def tree(self) -> Path:
        told = self.work().describe()
        return Path(told["candidate"] or told["environment"])

    def change(self) -> None:
        add_distribution(self.tree(), "flashinfer_python", "0.3.1", {"flashinfer/__init__.py": "x = 1\n"})
        (self.tree() / "pyvenv.cfg").write_text("home = elsewhere\n")

    def is_baseline(self) -> bool:
        return inventory.differences(self.before, inventory.take(str(self.environment))) == []

    def is_result(self) -> bool:
        return (self.environment / SITE / "flashinfer_python-0.3.1.dist-info/RECORD").exists()

    def leftovers(self) -> list[str]:
        """The trees that exist beside the environment."""
        state = Path(self.work().state_dir)
        found = [*state.glob("transactions/*/tree"), *state.glob("trash/*"), *state.glob("held-back/*")]
        return [str(path) for path in found]


class Services:
    """Stands in for systemd: counts the restarts, and fails those that it is told to."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.asked: list[list[str]] = []
        self.errors: list[str] = []  # of the next restarts, the last one on
        self.then: Callable[[], None] = lambda: None
        monkeypatch.setattr(services, "restart", self.restart)

    def restart(self, units: list[str]) -> list[dict[str, Any]]:
        if not units:
            return []
        self.asked.append(units)
        self.then()
        error = (self.errors.pop(0) if len(self.errors) > 1 else self.errors[0]) if self.errors else ""
        return [{"name": unit, "state": "x", "error": error} for unit in units]


def killed_while_it_restarts(restarts: Services) -> None:
    def kill() -> None:
        raise Killed

    restarts.then = kill


def promote_and_be_killed(bench: Bench, restarts: Services) -> None:
    bench.work(services=["ocr"]).begin()
    bench.change()
    killed_while_it_restarts(restarts)
    with pytest.raises(Killed):
        bench.work().promote()  # begin has been told of the services
    restarts.then = lambda: None


def convert(bench: Bench) -> None:
    """A run that succeeds and lets the environment go."""
    bench.work().begin()
    bench.change()
    bench.work().promote()
    bench.work().prune()
