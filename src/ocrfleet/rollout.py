# Copyright (c) 2026 The ocrfleet.gpu_stack contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The driver: takes a rollout from whatever state it is in to its end, one written step after the other."""

from __future__ import annotations

import signal
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from datetime import datetime, timezone
from typing import Any, Protocol

from ocrfleet import errors, gate, hooks, planning
from ocrfleet.ansible import Ansible, Outcome, at_work, evidence_of, is_proof
from ocrfleet.errors import FleetError, Refused
from ocrfleet.state import Host, State
from ocrfleet.text import one_line

POLL = 1.0
# How long processes of a killed driver may still work before a new one gives up on them.
PATIENCE = 1800.0


class Watcher(Protocol):
    """Who is told how it goes; see display.py."""

    def note(self, text: str) -> None: ...
    def wave(self, number: int, cohort: str, hosts: int) -> None: ...
    def event(self, kind: str, host: str, task: str) -> None: ...
    def host(self, name: str, state: str, message: str) -> None: ...


class Interrupted(Exception):
    """The rollout stops here in an orderly way: its state says why."""

    def __init__(self, code: int) -> None:
        self.code = code


class Driver:
    """Works on one rollout. `clock`, `sleep` and `make_ansible` are what tests and simulations replace."""

    def __init__(
        self,
        state: State,
        watcher: Watcher,
        wait: bool = True,
        make_ansible: Callable[..., Ansible] = Ansible,
        clock: Callable[[], float] = time.time,
        sleep: Callable[[float], None] = time.sleep,
    ) -> None:
        self.state = state
        self.policy = state.policy
        self.fleet = state.fleet()
        self.watcher = watcher
        self.wait = wait
        self.clock = clock
        self.sleep = sleep
        self.ansible = make_ansible(state.folder, state.inventory, self.policy["forks"], self.policy["shards"])
        self.interrupted = threading.Event()

    # --- from the beginning, and from wherever it was left ---

    def forward(self) -> int:
        """Go on until the end, a closed gate, or a pause. Returns the exit code."""
        if self.state.state in ("aborted", "rolled back", "rolling back"):
            raise FleetError(f"rollout {self.state.id} is {self.state.state}; it cannot go on. Begin another one")
        with self._signals():
            try:
                self._settle()
                for wave in self.state.waves():
                    if wave["state"] != "passed":
                        self._wave(wave)
            except Interrupted as end:
                return end.code
        missing = [host.name for host in self.state.hosts() if host.state not in gate.CONVERTED]
        if self.state.state != "finished":
            self.state.set_state("finished", f"{len(missing)} hosts not converted" if missing else "")
        return errors.INCOMPLETE if missing else errors.DONE

    def _settle(self) -> None:
        """Find out what an earlier driver left: wait for its processes, and read what they still wrote."""
        until, told = self.clock() + PATIENCE, False
        while self.state.hosts(states=["running"]) and (processes := at_work(self.state.folder)):
            if not told:
                self.watcher.note(f"waiting for the earlier run, which still works as process {processes[0]}")
                told = True
            if self.clock() > until:
                raise Refused(f"the earlier run still works as processes {processes}; end them, then resume")
            self._listen()
            self.sleep(POLL)
        ended = []
        for host in self.state.hosts(states=["running"]):
            evidence = evidence_of(self.ansible.reports(host.run), host.name)
            if is_proof(evidence):
                ended.append((host.name, Outcome("converted", "", evidence)))
        if ended:
            self.watcher.note(f"{len(ended)} hosts had ended before the driver did")
            self._record(ended)
        # Nobody is at work on these: they go back into service, or are drained again with their next run.
        self._undrain([host for host in self.state.hosts(states=gate.CONVERTED) if host.drained])

    # --- a wave ---

    def _wave(self, wave: dict[str, Any]) -> None:
        number = wave["number"]
        hosts = self.state.hosts(number)
        if wave["state"] in ("pending", "running", "stopped"):
            again = self.state.retry(number)
            if again:
                self.watcher.note(f"again in wave {number}: {', '.join(again[:5])}{' …' if len(again) > 5 else ''}")
            self.state.set_state("running")
            self.state.set_wave(number, "running")
            self.watcher.wave(number, wave["cohort"], len(hosts))
            self._batches(number, wave["cohort"], bool(wave["canary"]))
            self._judge(number, bool(wave["canary"]))
            self.state.set_wave(number, "judged")
        if number == len(self.state.waves()):
            self.state.set_wave(number, "passed")
            return
        if wave["state"] != "soaked":
            self._soak(number)
            self.state.set_wave(number, "soaked")
        if number in self.policy["approve_after"]:
            self._approval(number)
        self.state.set_wave(number, "passed")

    def _batches(self, number: int, cohort: str, canary: bool) -> None:
        while pending := [host.name for host in self.state.hosts(number, ["pending"])]:
            self._listen()
            down = [host.name for host in self.state.hosts(states=["running", "unreachable", "unknown"])]
            now = datetime.fromtimestamp(self.clock(), timezone.utc)
            batch = planning.next_batch(pending, down, self.fleet, self.policy, now)
            if batch.hosts:
                self._batch(list(batch.hosts), cohort, canary)
            elif batch.until is not None:
                self._pass_time(batch.until.timestamp(), f"waiting for a maintenance window, {batch.until:%a %H:%M %Z}")
            else:
                why = "a limit of the policy does not allow it while other hosts are down"
                self._skip(dict.fromkeys(pending, why))

    def _batch(self, names: list[str], cohort: str, canary: bool) -> None:
        known = {host.name: host for host in self.state.hosts(states=["pending"])}
        run = self._new_run()
        # In one step: what is drained or under way from here on is found by whoever comes after a kill.
        self.state.begin(names, run)
        ready = self._drain(names, run)
        if not ready:
            return
        variables = dict(self.policy["variables"])
        lock = self.state.lock_of(cohort)
        if lock and not canary:
            variables["flashinfer_lock"] = lock
        outcomes = self.ansible.run(run, self.policy["playbook"], ready, variables, self.watcher.event)
        ended = []
        for name, outcome in outcomes.items():
            if outcome.state == "unchanged" and known[name].run:
                # An earlier run of this rollout has touched it, so this rollout answers for it.
                outcome = Outcome("converted", outcome.message, outcome.evidence)
            ended.append((name, outcome))
        self._record(ended)
        if canary:
            self._keep_lock(cohort, [outcome.evidence for _name, outcome in ended])
        self._undrain([host for host in self.state.hosts() if host.name in outcomes])

    def _record(self, ended: list[tuple[str, Outcome]]) -> None:
        rows = []
        for name, found in ended:
            figures = ""
            if found.state in gate.CONVERTED:
                figures = "; ".join(gate.figure_problems(found.evidence, self.policy["gates"]))
            rows.append((name, found.state, found.message, found.evidence, figures))
        self.state.end(rows)
        for name, state, message, _evidence, figures in rows:
            self.watcher.host(name, state, message or figures)

    def _keep_lock(self, cohort: str, found: list[dict[str, Any]]) -> None:
        """The packages that the canary got, exactly, are what its like get after it."""
        text = next((evidence["lock"] for evidence in found if evidence.get("lock")), "")
        if not text or self.state.lock_of(cohort):
            return
        folder = self.state.folder / "locks"
        folder.mkdir(mode=0o700, exist_ok=True)
        file = folder / f"{cohort[:12]}.txt"
        file.write_text(text, encoding="utf-8")
        self.state.keep_lock(cohort, str(file))

    def _judge(self, number: int, canary: bool) -> None:
        judged = {host.name: host.figures or host.state for host in self.state.hosts(number)}
        decision = gate.decide(judged, canary, self.policy)
        if decision.closed:
            shown = "; ".join(one_line(reason) for reason in decision.reasons[:5])
            more = len(decision.reasons) - 5
            note = f"{len(decision.reasons)} of {len(judged)} hosts: {shown}{f'; and {more} more' if more > 0 else ''}"
            self.state.set_wave(number, "stopped", note)
            self.state.set_state("stopped", f"the gate after wave {number} is closed: {note}")
            self.watcher.note(f"wave {number}: the gate is closed, no further host is touched")
            raise Interrupted(errors.STOPPED)
        self.watcher.note(f"wave {number}: the gate is open")

    def _skip(self, reasons: dict[str, str], state: str = "skipped") -> None:
        self.state.end([(name, state, why, self.state.evidence(name), "") for name, why in reasons.items()])
        for name, why in reasons.items():
            self.watcher.host(name, state, why)

    # --- hooks ---

    def _drain(self, names: list[str], run: str, otherwise: str = "skipped") -> list[str]:
        hook = self.policy["hooks"].get("drain")
        if not hook:
            return names
        self.state.set_drained(names, True)
        problems = hooks.call(hook, names, self.ansible, f"{run}-drain", lambda *_: None)
        self.state.set_drained(problems, False)
        self._skip({name: f"not drained: {why}" for name, why in problems.items()}, otherwise)
        return [name for name in names if name not in problems]

    def _undrain(self, hosts: list[Host]) -> None:
        """Back into service: what is converted, and what is provably as it was."""
        hook = self.policy["hooks"].get("undrain")
        sound = [host.name for host in hosts if host.drained and self._is_sound(host)]
        if not sound:
            return
        problems = hooks.call(hook, sound, self.ansible, f"{self._new_run()}-undrain", lambda *_: None) if hook else {}
        self.state.set_drained([name for name in sound if name not in problems], False)
        for name, why in problems.items():
            self.watcher.note(f"{name}: still out of service, the hook undrain failed: {one_line(why)}")

    def _is_sound(self, host: Host) -> bool:
        if host.state in (*gate.CONVERTED, "rolled back"):
            return True
        proof = self.state.evidence(host.name).get("transaction", {}).get("proof", {})
        return host.state == "failed" and bool(proof.get("equal"))

    # --- waiting, and being told ---

    def _soak(self, number: int) -> None:
        minutes = self.policy["soak_minutes"]
        if minutes:
            ended = next(wave["ended"] for wave in self.state.waves() if wave["number"] == number)
            self.state.set_state("soaking", f"{minutes:g} minutes after wave {number}")
            self._pass_time(ended + 60 * minutes, f"soaking {minutes:g} minutes after wave {number}")

    def _approval(self, number: int) -> None:
        self.state.set_state(
            "waiting", f"wave {number} went well; `ocrfleet approve {self.state.id}` lets the next begin"
        )
        self.watcher.note(f"waiting for `ocrfleet approve {self.state.id}`")
        while not self.state.take_request("approve"):
            self._listen()
            if not self.wait:
                raise Interrupted(errors.PAUSED)
            self.sleep(POLL)
        self.state.set_state("running", f"approved after wave {number}")

    def _pass_time(self, until: float, why: str) -> None:
        if self.clock() < until:
            self.watcher.note(why)
        while (left := until - self.clock()) > 0:
            self._listen()
            if not self.wait:
                self.state.set_state("paused", why)
                raise Interrupted(errors.PAUSED)
            self.sleep(min(POLL, left))

    def _listen(self) -> None:
        """Between two steps: do as somebody asked. Hosts under way have ended by then."""
        asked = self.state.take_request("abort", "pause")
        if asked == "abort":
            self.state.set_state("aborted", "as requested")
            raise Interrupted(errors.PAUSED)
        if asked == "pause" or self.interrupted.is_set():
            self.state.set_state("paused", "as requested" if asked else "interrupted")
            raise Interrupted(errors.PAUSED)

    @contextmanager
    def _signals(self) -> Iterator[None]:
        """Ctrl-C and SIGTERM stop after the hosts that are under way."""

        def stop(_number: int, _frame: object) -> None:
            self.interrupted.set()
            self.watcher.note("stopping after the hosts that are under way")

        if threading.current_thread() is not threading.main_thread():
            yield
            return
        before = {number: signal.signal(number, stop) for number in (signal.SIGINT, signal.SIGTERM)}
        try:
            yield
        finally:
            for number, handler in before.items():
                signal.signal(number, handler)

    def _new_run(self) -> str:
        """A name that no run of this rollout had, also where a kill left a folder behind."""
        folder = self.state.folder / "runs"
        folder.mkdir(mode=0o700, exist_ok=True)
        numbers = [int(path.name.split("-")[0]) for path in folder.iterdir() if path.name.split("-")[0].isdigit()]
        numbers += [int(host.run) for host in self.state.hosts() if host.run.isdigit()]
        return f"{max(numbers, default=0) + 1:04d}"

    # --- back ---

    def back(self) -> int:
        """Put every host back that this rollout converted, under the same limits, at any time of day."""
        anytime = {
            **self.policy,
            "windows": [],
            "groups": {n: {**g, "windows": []} for n, g in self.policy["groups"].items()},
        }
        with self._signals():
            try:
                self._settle()
                self.state.set_state("rolling back")
                now = datetime.fromtimestamp(self.clock(), timezone.utc)
                # A killed roll-back left `rolling back`; to put a host back twice does no harm.
                while names := [host.name for host in self.state.hosts(states=("converted", "rolling back"))]:
                    self._listen()
                    batch = planning.next_batch(names, [], self.fleet, anytime, now)
                    self._back(list(batch.hosts))
            except Interrupted as end:
                return end.code
        left = self.state.hosts(states=("not rolled back", "running", "unknown"))
        if left:
            shown = f"{left[0].name} ({left[0].state}{': ' + one_line(left[0].message) if left[0].message else ''})"
            self.state.set_state("stopped", f"{len(left)} hosts are not known to be rolled back, such as {shown}")
            return errors.STOPPED
        self.state.set_state("rolled back")
        return errors.DONE

    def _back(self, names: list[str]) -> None:
        baselines = {host.name: host.baseline for host in self.state.hosts() if host.name in set(names)}
        run = self._new_run()
        self.state.begin(names, run, "rolling back")
        ready = self._drain(names, run, "not rolled back")
        variables = {
            **self.policy["variables"],
            "ocrfleet_baselines": baselines,
            "rollback_baseline": "{{ ocrfleet_baselines[inventory_hostname] }}",
        }
        playbook = self.policy["rollback_playbook"]
        outcomes = self.ansible.run(run, playbook, ready, variables, self.watcher.event, False) if ready else {}
        ended = [
            (name, "rolled back" if o.state == "converted" else "not rolled back", o) for name, o in outcomes.items()
        ]
        self.state.end([(name, state, o.message, self.state.evidence(name), "") for name, state, o in ended])
        for name, state, o in ended:
            self.watcher.host(name, state, o.message)
        self._undrain([host for host in self.state.hosts() if host.name in outcomes])
