# Copyright (c) 2026 The ocrfleet.gpu_stack contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The driver: takes a rollout from whatever state it is in to its end, one written step after the other."""

from __future__ import annotations

import hashlib
import os
import signal
import threading
import time
from collections.abc import Callable, Container, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import replace
from datetime import datetime, timezone
from pathlib import Path
from typing import Any, NoReturn, Protocol

from ocrfleet import errors, evidence, gate, hooks, planning, survey
from ocrfleet.ansible import HOOKS, Ansible, Outcome, Silent, at_work, believed, by_hand, remove_leftovers
from ocrfleet.errors import FleetError, Refused
from ocrfleet.state import Host, State
from ocrfleet.text import one_line, plain

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
    """Works on one rollout. `clock`, `sleep` and `make_ansible` are what tests and simulations replace.

    `elsewhere` are the hosts that other rollouts have left out of service, each with its groups, and `drained` those of
    them that their hooks have drained: while this driver holds the store's lock no other one changes that. `here`
    leaves the policy's workers out.
    """

    def __init__(
        self,
        state: State,
        watcher: Watcher,
        wait: bool = True,
        make_ansible: Callable[..., Ansible] = Ansible,
        elsewhere: Mapping[str, list[str]] | None = None,
        drained: Container[str] = (),
        here: bool = False,
        clock: Callable[[], float] = time.time,
        sleep: Callable[[float], None] = time.sleep,
    ) -> None:
        self.state = state
        self.policy = state.policy
        self.fleet = state.fleet()
        self.watcher = watcher
        self.wait = wait
        self.elsewhere = list(elsewhere or {})
        self.drained = drained
        self.fleet.groups = {**(elsewhere or {}), **self.fleet.groups}
        self.clock = clock
        self.sleep = sleep
        # A rollout that an earlier version began has no such settings.
        workers = [] if here else self.policy.get("workers", [])
        minutes = self.policy.get("task_minutes", 0)
        self.ansible = make_ansible(
            state.folder,
            state.inventory,
            self.policy["forks"],
            self.policy["shards"],
            workers,
            self.fleet.hosts,
            minutes,
        )
        self.interrupted = threading.Event()

    # --- from the beginning, and from wherever it was left ---

    def forward(self) -> int:
        """Go on until the end, a closed gate, or a pause. Returns the exit code."""
        if self.state.backward or self.state.state == "aborted":
            raise FleetError(f"rollout {self.state.id} is {self.state.state}; it cannot go on. Begin another one")
        self.state.drop_requests("abort", "pause")
        with self._signals():
            try:
                self._settle()
                waves = self.state.waves()
                for wave in waves:
                    if wave["state"] != "passed":
                        self._wave(wave)
                # Those that were allowed to fail when an earlier command passed their wave: nothing waits for them.
                for wave in waves:
                    if wave["state"] == "passed":
                        self._again(wave)
            except Interrupted as end:
                return end.code
        missing = [
            host.name for host in self.state.hosts() if host.drained or host.state not in gate.CONVERTED or host.figures
        ]
        if self.state.state != "finished":
            note = f"{len(missing)} hosts not converted, out of service, or with a missed figure" if missing else ""
            self.state.set_state("finished", note)
        return errors.INCOMPLETE if missing else errors.DONE

    def abort(self) -> None:
        """End a rollout that no driver works on. Hosts that are converted or as they were go back into service."""
        try:
            found = self._still_at_work()
        except Silent as error:
            self.watcher.note(f"{error}")
            found = []
        if found:
            raise Refused(
                f"its earlier run still works as {', '.join(found)}; `ocrfleet resume {self.state.id}` waits for "
                "that, or end it and abort again"
            )
        self._read_what_is_left(undrain=False)
        self._end()

    def _end(self) -> None:
        """End it for good. Of hosts that an ended run left under way somebody has to be told."""
        under_way = self.state.hosts(states=["running"])
        # Handed over is what was drained before; on the others nothing was begun.
        self._skip({host.name: "ended before it was begun on" for host in under_way if host.first is None})
        why = "its run was ended from outside; look at the host"
        for state, then in (("running", "unknown"), ("rolling back", "not rolled back")):
            self._skip({host.name: why for host in self.state.hosts(states=[state])}, then)
        self._undrain(self.state.hosts())
        for wave in self.state.waves():
            if wave["state"] == "running":
                self.state.set_wave(wave["number"], "stopped", "aborted")
        self.state.set_state("aborted", "as requested")

    def _settle(self) -> None:
        """Find out what an earlier driver left: wait for its processes, and read what they still wrote."""
        self._wait_for_earlier()
        self._read_what_is_left()
        self._listen()  # before those that were under way are done again

    def _read_what_is_left(self, undrain: bool = True) -> None:
        remove_leftovers(self.state.folder)
        ended = []
        for host in self.state.hosts(states=["running"]):
            found = evidence.read(self.ansible.reports(host.run), host.name)
            if evidence.is_proof(found):
                first = host.first if host.first_run != host.run else None
                ended.append((host.name, self._answered(first, believed(found, host.began or 0))))
            elif found and not evidence.earlier(found, host.began or 0):
                ended.append((host.name, Outcome("failed", plain(found.get("failure", "failed")), found)))
        if ended:
            self.watcher.note(f"{len(ended)} hosts had ended before the driver did")
            self._record(ended)
        # Nobody is at work on these: they go back into service, or are drained again with their next run.
        if undrain:
            self._undrain(self.state.hosts())

    def _still_at_work(self) -> list[str]:
        """What an earlier driver left at work. Where no host is under way, only its hooks may still work on one.

        All others are connections that SSH keeps for a while. A worker goes on also where the connection to it was
        lost, which left its hosts without a result.
        """
        # An ansible-playbook that was killed leaves what it had begun on hosts at work, with no result.
        lost = self.state.hosts(states=("running", "rolling back", "unknown", "not rolled back"))
        under_way = bool(lost)
        drained = [host.name for host in self.state.hosts() if host.drained]
        kind = "" if under_way else HOOKS
        here = at_work(self.state.folder, kind) if under_way or drained else []
        if here or not self.ansible.workers:
            return [f"process {pid}" for pid in here]
        return self.ansible.at_work_there([host.name for host in lost]) or self.ansible.at_work_there(drained, HOOKS)

    def _wait_for_earlier(self) -> None:
        until, told = self.clock() + PATIENCE, False
        while found := self._still_at_work():
            if not told:
                self.watcher.note(f"waiting for the earlier run, which still works as {found[0]}")
                told = True
            if self.clock() > until:
                again = ", and ask for the abort again" if self.state.take_request("abort") else ""
                raise Refused(f"the earlier run still works as {', '.join(found)}; end that, then resume{again}")
            # An abort has to wait: it tells what became of hosts that are still worked on.
            self._pause_where_asked(self.state.take_request("pause"))
            self.sleep(POLL)

    def _told(self, known: Host, outcome: Outcome) -> Outcome:
        """What a run found of a host, held against what is `known` of it."""
        if known.figures:  # it was looked at again: an earlier run did tell what became of it
            changed = outcome.state == "unchanged" and known.baseline
            return replace(outcome, state="converted") if changed else outcome
        return self._answered(known.first, outcome)

    @staticmethod
    def _answered(first: float | None, outcome: Outcome) -> Outcome:
        """What a run found of a host that an earlier run of this rollout was handed, `first` at that time.

        Where there is nothing to do and the evidence is of this rollout's time, that earlier run has converted the
        host, and was ended before it could tell. Older evidence means that it had everything already.
        """
        mine = first is not None and not evidence.earlier(outcome.evidence, first)
        return replace(outcome, state="converted") if mine and outcome.state == "unchanged" else outcome

    # --- a wave ---

    def _wave(self, wave: dict[str, Any]) -> None:
        number = wave["number"]
        hosts = self.state.hosts(number)
        if wave["state"] in ("pending", "running", "stopped"):
            self._retry(number)
            self.state.set_state("running")
            self.state.set_wave(number, "running")
            self.watcher.wave(number, wave["cohort"], len(hosts))
            self._batches(wave)
            self._stop_where_closed(number, bool(wave["canary"]))
            self.watcher.note(f"wave {number}: the gate is open")
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

    def _retry(self, number: int) -> list[str]:
        again = self.state.retry(number)
        if again:
            self.watcher.note(f"again in wave {number}: {', '.join(again[:5])}{' …' if len(again) > 5 else ''}")
        return again

    def _again(self, wave: dict[str, Any]) -> None:
        if self._retry(wave["number"]) or self.state.hosts(wave["number"], ["pending"]):
            self.state.set_state("running")
            self._batches(wave)

    def _batches(self, wave: dict[str, Any]) -> None:
        number = wave["number"]
        # Those that did not answer need have nothing in common, so each resolves its own packages.
        own = wave["canary"] or wave["cohort"] == planning.NO_ANSWER
        lock = "" if own else self._lock(number, wave["cohort"])
        while pending := [host.name for host in self.state.hosts(number, ["pending"])]:
            self._listen()
            self._stop_where_none_comes_back(number)
            if wave["state"] != "passed":
                self._stop_where_closed(number, bool(wave["canary"]))
            now = datetime.fromtimestamp(self.clock(), timezone.utc)
            batch = planning.next_batch(pending, self._down(), self.fleet, self.policy, now)
            if batch.hosts:
                self._batch(list(batch.hosts), lock)
            elif batch.until is not None:
                self._pass_time(batch.until.timestamp(), f"waiting for a maintenance window, {batch.until:%a %H:%M %Z}")
            else:
                why = "a limit of the policy does not allow it while other hosts are down"
                self._skip(dict.fromkeys(pending, why))
        self._stop_where_none_comes_back(number)

    def _down(self) -> list[str]:
        """Hosts that are out of service, by this rollout or another one."""
        out = [host.name for host in self.state.out_of_service()]
        mended = {h.name for h in self.state.named(self.elsewhere) if h.state in gate.CONVERTED and not h.drained}
        return [*out, *(name for name in self.elsewhere if name not in mended)]

    def _stop_where_none_comes_back(self, number: int) -> None:
        """A hook that fails for one host fails for the next: going on would take the fleet out of service."""
        out = [host.name for host in self.state.hosts(number, gate.CONVERTED) if host.drained]
        if out and "undrain" in self.policy["hooks"]:
            note = (
                f"converted, and still out of service, since the hook undrain failed: {', '.join(out[:5])}"
                f"{' …' if len(out) > 5 else ''}; mend the hook, then resume"
            )
            self._stop(number, note, f"wave {number} goes no further: {note}")

    def _batch(self, names: list[str], lock: str) -> None:
        known = {host.name: host for host in self.state.named(names)}
        run = self._new_run()
        # In one step: what is drained or under way from here on is found by whoever comes after a kill.
        self.state.begin(names, run)
        ready = self._in_time(self._drain(names, run))
        if not ready:
            return
        variables = dict(self.policy["variables"])
        if lock:
            variables["flashinfer_lock"] = lock
        if any(host.figures for host in known.values()):
            # Its figure is in the evidence of a run that ended well: it has nothing to do, and would tell the same.
            variables["stack_recheck"] = True
        self.state.hand_over(ready)
        # Those that another rollout drained are out also where this one has no hook.
        self.state.set_drained([name for name in ready if name in self.drained], True)
        outcomes = self.ansible.run(run, self.policy["playbook"], ready, variables, self.watcher.event)
        self._record([(name, self._told(known[name], outcome)) for name, outcome in outcomes.items()])
        self._undrain(self.state.named(outcomes))

    def _in_time(self, names: list[str]) -> list[str]:
        """Those whose windows are still open after draining took its time; the others go back into service."""
        now = datetime.fromtimestamp(self.clock(), timezone.utc)
        late = planning.shut(names, self.fleet, self.policy, now)
        if late:
            self.watcher.note(f"the window closed while they were drained: {', '.join(late[:5])}")
            self.state.put_off(late)
            self._undrain(self.state.named(late))
        return [name for name in names if name not in late]

    def _record(self, ended: list[tuple[str, Outcome]]) -> None:
        rows = []
        for name, found in ended:
            figures = ""
            if found.state in gate.CONVERTED:
                figures = "; ".join(gate.figure_problems(found.evidence, self.policy["gates"]))
            rows.append((name, found.state, found.message, found.evidence, figures))
        self._keep_locks(ended)
        self.state.end(rows)
        for name, state, message, _evidence, figures in rows:
            self.watcher.host(name, state, message or figures)

    def _keep_locks(self, ended: list[tuple[str, Outcome]]) -> None:
        """A canary that is looked at again later installs nothing, and tells no lock then."""
        canaries = {wave["number"]: wave["cohort"] for wave in self.state.waves() if wave["canary"]}
        waves = {host.name: host.wave for host in self.state.named(name for name, _found in ended)}
        for name, found in ended:
            text = found.evidence.get("lock", "")
            if waves[name] in canaries and found.state in gate.CONVERTED and text and evidence.is_lock(text):
                self._write_lock(canaries[waves[name]], text)

    def _lock(self, number: int, cohort: str) -> str:
        """The file of the packages that the canary got, exactly: what its like get after it. "" where it got none.

        It is made of the canary's evidence each time, so a kill cannot lose it; and else what an earlier run left.
        """
        canary = next(wave["number"] for wave in self.state.waves() if wave["cohort"] == cohort and wave["canary"])
        got_packages = False
        for host in self.state.hosts(canary, gate.CONVERTED):
            found = self.state.evidence(host.name)
            text = found.get("lock", "")
            if text and evidence.is_lock(text):
                return self._write_lock(cohort, text)
            # Where its evidence names no baseline, a run that told nothing has converted it.
            changed = found.get("plan") or found.get("changed") or not evidence.baseline(found)
            got_packages = got_packages or (host.state == "converted" and bool(changed))
        kept = self._lock_file(cohort)
        if kept.is_file():
            return str(kept)
        if got_packages and "flashinfer_lock" not in self.policy["variables"]:
            self._stop(
                number,
                "the canary got packages and told no lock of them, so its like could get others; "
                "begin another rollout with a flashinfer_lock in the policy's variables",
            )
        return ""

    def _lock_file(self, cohort: str) -> Path:
        # A cohort's name is what hosts told, so it is in no file's name.
        return self.state.folder / "locks" / f"{hashlib.sha256(cohort.encode()).hexdigest()[:16]}.txt"

    def _write_lock(self, cohort: str, text: str) -> str:
        file = self._lock_file(cohort)
        file.parent.mkdir(mode=0o700, exist_ok=True)
        draft = file.with_suffix(".new")
        draft.touch(mode=0o600)
        draft.write_text(text, encoding="utf-8")
        os.replace(draft, file)
        return str(file)

    def _stop_where_closed(self, number: int, canary: bool) -> None:
        """The gate is closed, or could not open any more whatever becomes of the hosts that are left."""
        hosts = self.state.hosts(number)
        left = sum(host.state == "pending" for host in hosts)
        # One that is looked at again may reach the figure that it missed.
        judged = {h.name: "converted" if h.state == "pending" else h.figures or h.state for h in hosts}
        decision = gate.decide(judged, canary, self.policy)
        if decision.closed:
            shown = "; ".join(one_line(reason) for reason in decision.reasons[:5])
            more = len(decision.reasons) - 5
            note = f"{len(decision.reasons)} of {len(judged)} hosts: {shown}{f'; and {more} more' if more > 0 else ''}"
            note += f"; {left} not begun" if left else ""
            self.watcher.note(f"wave {number}: the gate is closed, no further host is touched")
            self._stop(number, note, f"the gate after wave {number} is closed: {note}")

    def _stop(self, number: int, note: str, why: str = "") -> NoReturn:
        self.state.set_wave(number, "stopped", note)
        self.state.set_state("stopped", why or f"wave {number} does not begin: {note}")
        raise Interrupted(errors.STOPPED)

    def _skip(self, reasons: dict[str, str], state: str = "skipped") -> None:
        self.state.end([(name, state, why, self.state.evidence(name), "") for name, why in reasons.items()])
        for name, why in reasons.items():
            self.watcher.host(name, state, why)

    # --- hooks ---

    def _drain(self, names: list[str], run: str, otherwise: dict[str, str] | None = None) -> list[str]:
        """Those of the hosts that are out of service now; the others are `otherwise` then, by name, or skipped."""
        hook = self.policy["hooks"].get("drain")
        if not hook:
            return names
        self.state.set_drained(names, True)
        problems = hooks.call(hook, names, self.ansible, f"{run}{HOOKS}drain", lambda *_: None)
        # The hook may have got half way, or an earlier one all of it: they are out of service until an undrain says no.
        then = {name: (otherwise or {}).get(name, "skipped") for name in problems}
        for state in sorted(set(then.values())):
            self._skip({name: f"not drained: {problems[name]}" for name in problems if then[name] == state}, state)
        self._undrain(self.state.named(problems))
        return [name for name in names if name not in problems]

    def _undrain(self, hosts: list[Host]) -> None:
        """Back into service: what is converted, and what is provably as it was.

        What another rollout left out of service was not in order before: to be as it was is not enough for it.
        """
        hook = self.policy["hooks"].get("undrain")
        theirs = []
        for host in hosts:
            if not host.drained:
                continue
            if not self.state.is_sound(host):
                if host.state not in ("running", "rolling back"):
                    self.watcher.note(f"{host.name}: stays out of service, since it is {host.state}")
            elif self._is_theirs(host):
                theirs.append(host.name)
                self.watcher.note(f"{host.name}: stays out of service, since another rollout left it so")
            elif not self._has_hook(host):
                self.watcher.note(
                    f"{host.name}: still out of service: another rollout drained it, and there is no hook undrain"
                )
        # What became of it is for that one to say, which then has to find it as it left it.
        self.state.set_drained([name for name in theirs if name in self.drained], False)
        ready = self._not_undrained(hosts)
        if not ready:
            return
        problems = (
            hooks.call(hook, ready, self.ansible, f"{self._new_run()}{HOOKS}undrain", lambda *_: None) if hook else {}
        )
        self.state.set_drained([name for name in ready if name not in problems], False)
        for name, why in problems.items():
            self.watcher.note(f"{name}: still out of service, the hook undrain failed: {one_line(why)}")

    def _is_theirs(self, host: Host) -> bool:
        """Whether another rollout left a host out of service, and this one has not mended it."""
        return host.name in self.elsewhere and host.state not in gate.CONVERTED

    def _has_hook(self, host: Host) -> bool:
        """Whether this rollout can undrain a host. Without a hook there is only what another one's has drained."""
        return "undrain" in self.policy["hooks"] or host.name not in self.drained

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
            self._end()
            raise Interrupted(errors.PAUSED)
        self._pause_where_asked(asked)

    def _pause_where_asked(self, asked: str) -> None:
        if asked == "pause" or self.interrupted.is_set():
            self.state.set_state("paused", "as requested" if asked else "interrupted")
            raise Interrupted(errors.PAUSED)

    @contextmanager
    def _signals(self) -> Iterator[None]:
        """Ctrl-C, SIGTERM and the end of the terminal stop after the hosts that are under way."""

        def stop(_number: int, _frame: object) -> None:
            self.interrupted.set()
            self.watcher.note("stopping after the hosts that are under way")

        if threading.current_thread() is not threading.main_thread():
            yield
            return
        numbers = [signal.SIGINT, signal.SIGTERM]
        if signal.getsignal(signal.SIGHUP) is not signal.SIG_IGN:  # as nohup sets it
            numbers.append(signal.SIGHUP)
        before = {number: signal.signal(number, stop) for number in numbers}
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
        return f"{max(*numbers, self.state.last_run(), 0) + 1:04d}"

    # --- back ---

    def back(self, ignore_limits: bool = False) -> int:
        """Put every host back that this rollout changed, under the same limits, at any time of day."""
        groups = {} if ignore_limits else {n: {**g, "windows": []} for n, g in self.policy["groups"].items()}
        anytime = {**self.policy, "windows": [], "groups": groups}
        if ignore_limits:
            anytime.update(at_once="100%", apart=[])
        self.state.drop_requests("abort", "pause")
        self.state.turn_back()
        with self._signals():
            try:
                self._settle()
                self._ask_the_untold()
                now = datetime.fromtimestamp(self.clock(), timezone.utc)
                # Each is tried once, and what an earlier roll-back failed with last, so that it stands in nobody's way.
                # A killed roll-back left `rolling back`; to put a host back twice does no harm.
                hosts = sorted(self.state.to_put_back(), key=lambda host: host.state == "not rolled back")
                names = [host.name for host in hosts]
                while names:
                    self._listen()
                    down = self._down()
                    batch = planning.next_batch(names, down, self.fleet, anytime, now).hosts
                    # Where too many are down for anyone else to go down, the way is to bring one of these back.
                    batch = batch or tuple([name for name in names if name in down][:1])
                    if not batch:
                        self.watcher.note(self._held_back())
                        break
                    names = [name for name in names if name not in batch]
                    if (self._back(list(batch)) or self._not_undrained(self.state.named(batch))) and names:
                        self.watcher.note(f"putting back failed; {len(names)} further hosts stay as they are")
                        break
            except Interrupted as end:
                return end.code
        left = self.state.to_put_back()
        out = self._not_undrained(self.state.hosts())
        if left or out:
            shown = [
                f"{host.name} ({host.state}{': ' + one_line(host.message) if host.message else ''})" for host in left
            ]
            why = [
                f"{what}: {len(those)} of {len(self.fleet.hosts)} hosts: {'; '.join(those[:5])}"
                f"{f'; and {len(those) - 5} more' if len(those) > 5 else ''}"
                for what, those in (
                    ("not known to be rolled back", shown),
                    ("still out of service, since the hook undrain failed", out),
                )
                if those
            ]
            self.state.set_state("stopped", ". ".join(why))
            return errors.STOPPED
        self.state.set_state("rolled back")
        return errors.DONE

    def _ask_the_untold(self) -> None:
        """Ask hosts of which no evidence tells, reading only: one that has its planned packages needs no way back."""
        untold = {host.name: host for host in self.state.to_put_back() if not self._baseline(host)}
        if not untold:
            return
        self.watcher.note(f"asking {len(untold)} hosts, whose runs told nothing, which baseline they have")
        cohorts = {wave["number"]: wave["cohort"] for wave in self.state.waves()}
        variables = self.policy["variables"]
        outcomes = self.ansible.run(
            self._new_run(), survey.PLAYBOOK, list(untold), variables, self.watcher.event, needs_evidence=False
        )
        why = "its packages are those that it had when this rollout was planned, and no change is under way"
        settled = [
            name
            for name, host in untold.items()
            if survey.is_as_planned(outcomes[name].facts, cohorts[host.wave], host.first or 0.0)
        ]
        self._skip(dict.fromkeys(settled, why), "rolled back")
        self._undrain(self.state.named(settled))

    def _held_back(self) -> str:
        out = [f"{host.name} ({host.state})" for host in self.state.out_of_service()]
        out += [f"{name} (by another rollout)" for name in self.elsewhere]
        return (
            "a limit of the policy allows no further host to go back while others are down: "
            f"{', '.join(out[:5])}{' …' if len(out) > 5 else ''}; bring those back, or take the others down as well "
            f"with `ocrfleet rollback {self.state.id} --ignore-limits`"
        )

    def _not_undrained(self, hosts: list[Host]) -> list[str]:
        """Those that could be in service, were it not for the hook."""
        return [
            host.name
            for host in hosts
            if host.drained and not self._is_theirs(host) and self._has_hook(host) and self.state.is_sound(host)
        ]

    def _baseline(self, host: Host) -> str:
        """What a host is put back to, or an empty text: the host's own last change may be another rollout's."""
        found = self.state.evidence(host.name)
        if not host.baseline and host.first is not None and not evidence.earlier(found, host.first):
            return evidence.way_back(found, host.first)
        return host.baseline if evidence.is_baseline(host.baseline) else ""

    def _back(self, names: list[str]) -> bool:
        """Put hosts back; whether the playbook failed on one. One that is away, or unknown, says nothing of others."""
        before = {host.name: host for host in self.state.named(names)}
        baselines = {name: self._baseline(host) for name, host in before.items()}
        known = [name for name in names if baselines[name]]
        why = "this rollout may have changed it, and no evidence names the baseline to return to; to list those it has:"
        lists, only = "ocrfleet.gpu_stack.rollback", ("-e", "rollback_list_only=true")
        lost = {
            name: f"{why}\n{by_hand(self.state.inventory, lists, name, *only)}" for name in names if name not in known
        }
        self._skip(lost, "not rolled back")
        if not known:
            return False
        run = self._new_run()
        # Whoever cannot be drained stays what it was, and so in service where it could be.
        sound = [name for name in known if self.state.is_sound(before[name])]
        otherwise = {**dict.fromkeys(known, "not rolled back"), **{name: before[name].state for name in sound}}
        self.state.begin(known, run, "rolling back")
        ready = self._drain(known, run, otherwise)
        if not ready:
            return False
        variables = {
            **self.policy["variables"],
            "ocrfleet_baselines": {name: baselines[name] for name in ready},
            # Run as a template on the control node: a baseline is a name and nothing else, see evidence.py.
            "rollback_baseline": "{{ ocrfleet_baselines[inventory_hostname] }}",
        }
        playbook = self.policy["rollback_playbook"]
        outcomes = self.ansible.run(run, playbook, ready, variables, self.watcher.event, False)
        ended = [
            (name, "rolled back" if o.state == "converted" else "not rolled back", o) for name, o in outcomes.items()
        ]
        self.state.end([(name, state, o.message, self.state.evidence(name), "") for name, state, o in ended])
        for name, state, o in ended:
            self.watcher.host(name, state, o.message)
        self._undrain(self.state.named(outcomes))
        return any(o.state in ("failed", "unknown") for o in outcomes.values())
