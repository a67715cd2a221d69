# Copyright (c) 2026 The ocrfleet.gpu_stack contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Rollouts whose ansible-playbook is replaced by a table: everything else, the database too, is real."""

from __future__ import annotations

import json
from collections.abc import Callable
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

from ocrfleet import cli, planning, policy, survey
from ocrfleet.ansible import Ansible, Outcome
from ocrfleet.rollout import Driver
from ocrfleet.state import State


class Killed(BaseException):
    """Stands for SIGKILL: nothing in the driver may catch it."""


class Silent:
    """A watcher that keeps what it is told."""

    def __init__(self) -> None:
        self.notes: list[str] = []

    def note(self, text: str) -> None:
        self.notes.append(text)

    def wave(self, number: int, cohort: str, hosts: int) -> None: ...

    def event(self, kind: str, host: str, task: str) -> None: ...

    def host(self, name: str, state: str, message: str) -> None: ...


class FakeAnsible(Ansible):
    """`answers` gives a host's state; a callable decides by itself. `calls` keeps which hosts each run had.

    `tells` gives what a host's evidence says in place of the usual, and `facts` what it answers when it is asked which
    baseline it has, which is in no `calls`.
    """

    answers: dict[str, Any] = {}
    tells: dict[str, dict[str, Any]] = {}
    calls: list[tuple[str, list[str], dict[str, Any]]] = []
    facts: dict[str, dict[str, Any]] = {}

    def run(self, run, playbook, hosts, variables, on_event, needs_evidence=True):
        self.reports(run).mkdir(parents=True)
        if playbook == survey.PLAYBOOK:
            return {host: Outcome("converted", facts=self.facts.get(host, {})) for host in hosts}
        type(self).calls.append((playbook, list(hosts), dict(variables)))
        outcomes = {}
        for host in hosts:
            answer = self.answers.get(host, "converted")
            state = answer(host) if callable(answer) else answer
            evidence = {
                "host": host,
                "result": "verified" if state in ("converted", "unchanged") else "failed",
                "finished": "2000-01-01T00:00:00Z" if state == "unchanged" else "9999-01-01T00:00:00Z",
                "lock": "flashinfer-python==0.3.1\n",
                "speed": 10,
                "transaction": {"baseline_id": f"base-{host}"},
                **self.tells.get(host, {}),
            }
            outcomes[host] = Outcome(state, "" if state == "converted" else f"{host} said no", evidence)
        return outcomes


def hooks(folder: Path, drain: str = "true", undrain: str = "true") -> dict[str, Any]:
    """Hooks of one line of shell each, where $1 is the host; what is undrained is written down."""
    return {
        "drain": {"command": ["sh", "-c", drain, "drain", "{host}"]},
        "undrain": {"command": ["sh", "-c", f'{undrain} && echo "$1" >>{folder}/back', "undrain", "{host}"]},
    }


@pytest.fixture
def fake() -> type[FakeAnsible]:
    class Fake(FakeAnsible):
        answers: dict[str, Any] = {}
        tells: dict[str, dict[str, Any]] = {}
        calls: list[tuple[str, list[str], dict[str, Any]]] = []
        facts: dict[str, dict[str, Any]] = {}

    return Fake


@pytest.fixture
def make(tmp_path: Path) -> Callable[..., State]:
    def make_state(hosts: int = 10, baselines: dict[str, str] | None = None, **settings: Any) -> State:
        names = [f"h{number}" for number in range(1, hosts + 1)]
        groups = {name: ["odd" if int(name[1:]) % 2 else "even"] for name in names}
        fleet = planning.Fleet(names, groups)
        chosen = policy.complete(json.loads(json.dumps(settings)))
        waves = planning.waves(names, baselines or dict.fromkeys(names, "f1"), chosen)
        return State.create(tmp_path / f"rollout-{len(list(tmp_path.iterdir()))}", chosen, ["inv"], fleet, waves)

    return make_state


@pytest.fixture
def back(fake: type[FakeAnsible]) -> Callable[..., int]:
    def run(state: State, watcher: Silent | None = None, **changes: Any) -> int:
        fake.calls.clear()
        return Driver(state, watcher or Silent(), make_ansible=fake).back(**changes)

    return run


@pytest.fixture
def drive(fake: type[FakeAnsible]) -> Callable[..., int]:
    def run(state: State, **changes: Any) -> int:
        return Driver(state, Silent(), make_ansible=fake, **changes).forward()

    return run


@pytest.fixture
def driver_gets(fake: type[FakeAnsible]) -> dict[str, Any]:
    """What the driver of `command` gets beside what is typed."""
    return {"make_ansible": fake, "sleep": lambda _seconds: pytest.fail("it waited")}


@pytest.fixture
def command(tmp_path: Path, driver_gets: dict[str, Any], monkeypatch: Any, capsys: Any) -> Callable[..., Any]:
    """What an operator types, in a folder of its own: code, and what was said. All hosts have the same baseline.

    `hosts`, an inventory, is there: h1 to h4, those with an odd number in a group.
    """
    monkeypatch.chdir(tmp_path)
    (tmp_path / "hosts").write_text("[even]\nh2\nh4\n[odd]\nh1\nh3\n")
    monkeypatch.setattr(cli, "Driver", lambda *a, **k: Driver(*a, **k, **driver_gets))
    monkeypatch.setattr(cli, "survey", lambda _i, hosts, *_: survey.Survey(dict.fromkeys(hosts, "f1"), {}, {}))

    def run(*argv: str, **settings: Any) -> tuple[int, str]:
        if settings:
            (tmp_path / "policy.yml").write_text(json.dumps(settings))
            argv = (*argv, "-p", "policy.yml")
        code = cli.main(["--state-dir", "state", *argv])
        said = capsys.readouterr()
        return code, said.out + said.err

    return run


class Counting:
    """Kills the driver at its Nth write to the database, before it takes place or after."""

    def __init__(self, state: State, at: int, after: bool) -> None:
        self.state, self.left, self.after = state, at, after
        self.real = state._transaction

    def __call__(self) -> Any:
        @contextmanager
        def transaction() -> Any:
            self.left -= 1
            if self.left == 0 and not self.after:
                raise Killed
            with self.real() as db:
                yield db
            if self.left == 0 and self.after:
                raise Killed

        return transaction()
