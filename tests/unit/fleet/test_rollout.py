# Copyright (c) 2026 The ocrfleet.gpu_stack contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The driver: who is touched, who is not, and that it goes on from any step at which it was killed."""

from __future__ import annotations

import json
import os
import signal
import sqlite3
import subprocess
import time
from collections import Counter
from dataclasses import replace
from datetime import datetime, timezone
from pathlib import Path
from typing import Any

import pytest

from ocrfleet import ansible, errors, rollout
from ocrfleet.errors import FleetError
from ocrfleet.rollout import Driver
from ocrfleet.state import State

from .conftest import Counting, Killed, Silent, hooks


def touched(fake: Any) -> Counter[str]:
    return Counter(host for _playbook, hosts, _variables in fake.calls for host in hosts)


def test_every_host_is_converted_once_and_the_canarys_lock_is_what_the_others_get(make, drive, fake) -> None:
    state = make(10)
    assert drive(state) == errors.DONE
    assert state.state == "finished"
    assert touched(fake) == Counter({f"h{number}": 1 for number in range(1, 11)})
    locks = [variables.get("flashinfer_lock") for _playbook, _hosts, variables in fake.calls]
    assert locks[0] is None
    assert len(set(locks[1:])) == 1
    with open(locks[1], encoding="utf-8") as file:
        assert file.read() == "flashinfer-python==0.3.1\n"


def test_hosts_that_did_not_answer_get_no_lock_of_another_one(make, drive, fake) -> None:
    """Two of them need have nothing in common, and a lock that does not fit would be refused at each `resume`."""
    state = make(5, baselines={"h1": "f1", "h2": "f1"}, waves=[1, "100%"])
    assert drive(state) == errors.DONE
    locked = {host: "flashinfer_lock" in variables for _playbook, hosts, variables in fake.calls for host in hosts}
    assert locked == {"h1": False, "h2": True, "h3": False, "h4": False, "h5": False}


@pytest.mark.parametrize("outcome", ["failed", "unreachable", "unknown"])
def test_when_the_canary_is_not_converted_nobody_else_is_touched(make, drive, fake, outcome: str) -> None:
    state = make(10, allowed_failures="50%")
    fake.answers["h1"] = outcome
    assert drive(state) == errors.STOPPED
    assert touched(fake) == Counter({"h1": 1})
    assert (state.state, "h1" in state.note) == ("stopped", True)


def test_a_failure_in_a_later_wave_stops_and_resume_after_repair_does_only_what_is_left(make, drive, fake) -> None:
    state = make(10, waves=[1, 4, "100%"])
    fake.answers["h3"] = "failed"
    assert drive(state) == errors.STOPPED
    assert set(touched(fake)) == {"h1", "h2", "h3", "h4", "h5"}
    del fake.answers["h3"]
    assert drive(state) == errors.DONE
    assert touched(fake) == Counter({f"h{number}": 1 + (number == 3) for number in range(1, 11)})


def test_as_many_as_allowed_may_fail_and_the_exit_code_tells(make, drive, fake) -> None:
    state = make(10, waves=[1, "100%"], allowed_failures=1)
    fake.answers["h3"] = "failed"
    assert drive(state) == errors.INCOMPLETE
    assert state.counts() == {"converted": 9, "failed": 1}


def test_a_canary_slower_than_allowed_stops(make, drive, fake) -> None:
    state = make(3, gates=[{"name": "pages a second", "query": "speed", "at_least": 11}])
    assert drive(state) == errors.STOPPED
    assert touched(fake) == Counter({"h1": 1})
    assert "pages a second: 10, at least 11 is asked for" in state.note


def test_a_figure_that_nobody_can_read_stops_the_rollout_and_ends_no_driver(make, drive, back, fake, tmp_path) -> None:
    gates = [{"name": "verify", "query": "timings.verify", "at_most": 300}]
    state = make(3, waves=[3], gates=gates, hooks=hooks(tmp_path))
    fake.tells["h2"] = {"timings": {"verify": 10**400}}
    assert drive(state) == errors.STOPPED
    assert [host.drained for host in state.hosts()] == [False] * 3
    assert "verify: timings.verify gives no number" in state.note
    assert back(state) == errors.DONE


def test_hosts_that_must_not_be_down_together_are_done_one_after_the_other(make, drive, fake) -> None:
    state = make(4, waves=[1, "100%"], apart=[["h2", "h3"]])
    assert drive(state) == errors.DONE
    assert [hosts for _playbook, hosts, _variables in fake.calls] == [["h1"], ["h2", "h4"], ["h3"]]


def test_a_host_that_cannot_be_drained_is_skipped_and_counted(make, drive, fake, tmp_path) -> None:
    state = make(3, waves=[1, "100%"], hooks=hooks(tmp_path, '[ "$1" != h2 ]'))
    assert drive(state) == errors.STOPPED
    assert set(touched(fake)) == {"h1", "h3"}
    assert "not drained" in next(host.message for host in state.hosts() if host.name == "h2")


def test_who_is_undrained(make, drive, fake, tmp_path) -> None:
    record = {"command": ["sh", "-c", f'echo "$1" >>{tmp_path}/back', "undrain", "{host}"]}
    state = make(3, waves=["100%"], hooks={"drain": {"command": ["true"]}, "undrain": record})
    fake.answers.update(h2="failed", h3="unreachable")
    assert drive(state) == errors.STOPPED
    assert (tmp_path / "back").read_text().split() == ["h1"]
    assert [host.name for host in state.hosts() if host.drained] == ["h2", "h3"]


class Asking(Silent):
    """Asks for something as soon as it hears of something."""

    def __init__(self, state: State, heard: str, asked: str) -> None:
        super().__init__()
        self.state, self.heard, self.asked = state, heard, asked

    def note(self, text: str) -> None:
        if self.heard in text:
            self.state.request(self.asked)


def test_approval_and_abort(make, drive, fake) -> None:
    state = make(3, waves=[1, 1], approve_after=[1])
    assert drive(state, wait=False) == errors.PAUSED
    assert (state.state, set(touched(fake))) == ("waiting", {"h1"})
    state.request("approve")
    watcher = Asking(state, "waiting for", "abort")
    assert Driver(state, watcher, wait=False, make_ansible=fake).forward() == errors.PAUSED
    assert (state.state, set(touched(fake))) == ("aborted", {"h1"})
    with pytest.raises(FleetError, match="cannot go on"):
        drive(state)


def test_a_wave_of_an_aborted_rollout_does_not_run_on(make, drive, fake) -> None:
    state = make(2, waves=["100%"], forks=1)
    fake.answers["h1"] = lambda _host: state.request("abort") or "converted"
    assert drive(state) == errors.PAUSED
    assert [(wave["state"], wave["note"]) for wave in state.waves()] == [("stopped", "aborted")]


@pytest.mark.parametrize("asked", ["abort", "pause"])
def test_what_was_asked_of_a_command_that_ended_does_not_hit_the_next(make, drive, back, fake, asked: str) -> None:
    state = make(2)
    fake.answers["h2"] = "failed"
    assert Driver(state, Asking(state, "gate is closed", asked), make_ansible=fake).forward() == errors.STOPPED
    assert drive(state) == errors.STOPPED
    state.request(asked)
    fake.answers.clear()
    assert back(state) == errors.DONE


def test_a_wave_soaks_and_a_killed_soak_is_not_begun_anew(make, drive, fake) -> None:
    now = [0.0]
    state = make(2, waves=[1], soak_minutes=10)
    assert drive(state, wait=False) == errors.PAUSED
    ended = state.waves()[0]["ended"]

    def sleep(seconds: float) -> None:
        now[0] += seconds
        if now[0] > 300 and not state.folder.joinpath("once").exists():
            state.folder.joinpath("once").touch()
            raise Killed

    with pytest.raises(Killed):
        drive(state, clock=lambda: ended + now[0], sleep=sleep)
    assert drive(state, clock=lambda: ended + now[0], sleep=sleep) == errors.DONE
    assert 600 <= now[0] < 610


def test_a_repaired_wave_soaks_from_its_own_end(make, drive, fake) -> None:
    state = make(2, waves=[1], soak_minutes=10)
    fake.answers["h1"] = "failed"
    assert drive(state) == errors.STOPPED
    with state._transaction() as db:
        db.execute("UPDATE wave SET ended = ended - 3600 WHERE number = 1")
    fake.answers.clear()
    assert drive(state, wait=False) == errors.PAUSED
    assert set(touched(fake)) == {"h1"}


def test_a_wave_is_stopped_between_its_batches(make, fake) -> None:
    state = make(5, waves=[1, "100%"], forks=2)
    watcher = Silent()
    watcher.host = lambda name, *_: state.request("pause") if name == "h2" else None
    assert Driver(state, watcher, make_ansible=fake).forward() == errors.PAUSED
    assert [hosts for _playbook, hosts, _variables in fake.calls] == [["h1"], ["h2", "h3"]]


@pytest.mark.parametrize(
    ("told", "drained", "expected"),
    [
        ({}, False, "skipped"),
        ({"transaction": {"proof": {"equal": True}}}, False, "converted"),
        ({"transaction": {"proof": {"equal": True}}}, True, "skipped"),
    ],
)
def test_what_failed_without_a_proof_or_is_drained_counts_as_down(
    make, drive, fake, tmp_path, told: Any, drained: bool, expected: str
) -> None:
    chosen = hooks(tmp_path, undrain='[ "$1" != h2 ]') if drained else {}
    state = make(3, waves=[1, 1], allowed_failures=1, apart=[["h2", "h3"]], hooks=chosen)
    fake.answers["h2"] = "failed"
    fake.tells["h2"] = told
    drive(state)
    assert next(host.state for host in state.hosts() if host.name == "h3") == expected


def test_resume_tries_those_again_that_were_allowed_to_fail(make, drive, fake) -> None:
    state = make(4, waves=[1, "100%"], allowed_failures=1)
    fake.answers["h3"] = "failed"
    assert drive(state) == errors.INCOMPLETE
    assert drive(state) == errors.INCOMPLETE
    fake.answers.clear()
    fake.calls.clear()
    assert drive(state) == errors.DONE
    [(_playbook, hosts, variables)] = fake.calls
    assert (hosts, "flashinfer_lock" in variables, state.state) == (["h3"], True, "finished")
    assert drive(state) == errors.DONE
    assert len(fake.calls) == 1


def test_resume_tries_hosts_with_a_missed_figure_again(make, drive, fake) -> None:
    state = make(2, gates=[{"name": "pages a second", "query": "speed", "at_least": 11}])
    assert drive(state) == errors.STOPPED
    fake.tells.update(h1={"speed": 12}, h2={"speed": 12})
    assert drive(state) == errors.DONE
    assert touched(fake) == Counter(h1=2, h2=1)
    assert [variables.get("stack_recheck") for _playbook, _hosts, variables in fake.calls] == [None, True, None]


@pytest.mark.parametrize("state", ["unchanged", "converted"])
def test_what_a_host_was_before_it_is_looked_at_again_it_stays(make, drive, fake, state):
    """A recheck changes nothing, and tells of its own time: that is no run that was ended before it could tell."""
    rollout_state = make(1, gates=[{"name": "pages a second", "query": "speed", "at_least": 11}])
    fake.answers["h1"] = state
    fake.tells["h1"] = {} if state == "converted" else {"transaction": {}}
    assert drive(rollout_state) == errors.STOPPED
    fake.answers["h1"] = "unchanged"
    fake.tells["h1"] = {"lock": "", "transaction": {}, "speed": 12, "finished": "9999-01-01T00:00:00Z"}
    assert drive(rollout_state) == errors.DONE
    (host,) = rollout_state.hosts()
    assert (host.state, host.baseline) == (state, "base-h1" if state == "converted" else "")


def test_a_canary_that_is_looked_at_again_does_not_lose_its_lock(make, drive, fake):
    """A recheck installs nothing: it tells no lock, no plan and no transaction."""
    state = make(2, gates=[{"name": "pages a second", "query": "speed", "at_least": 11}])
    assert drive(state) == errors.STOPPED
    fake.tells["h1"] = {"lock": "", "transaction": {}, "speed": 12}
    fake.tells["h2"] = {"speed": 12}
    assert drive(state) == 0
    assert [host.state for host in state.hosts()] == ["converted"] * 2
    (variables,) = [variables for _playbook, hosts, variables in fake.calls if hosts == ["h2"]]
    assert Path(variables["flashinfer_lock"]).read_text(encoding="utf-8") == "flashinfer-python==0.3.1\n"


def test_a_host_whose_drain_failed_half_way_is_undrained(make, drive, fake, tmp_path) -> None:
    state = make(2, waves=["100%"], hooks=hooks(tmp_path, '[ "$1" != h2 ]'))
    assert drive(state) == errors.STOPPED
    assert (tmp_path / "back").read_text().split() == ["h2", "h1"]
    assert not [host.name for host in state.hosts() if host.drained]


def test_a_broken_host_whose_second_drain_fails_is_still_known_to_be_out(make, drive, fake, tmp_path) -> None:
    state = make(1, hooks=hooks(tmp_path, f"[ ! -e {tmp_path}/refused ]"))
    fake.answers["h1"] = "failed"
    assert drive(state) == errors.STOPPED
    (tmp_path / "refused").touch()
    assert drive(state) == errors.STOPPED
    assert [(host.state, host.drained) for host in state.hosts()] == [("skipped", True)]
    assert not (tmp_path / "back").exists()


def test_a_restored_host_is_undrained_after_a_kill(make, drive, fake, tmp_path) -> None:
    state = make(1, hooks=hooks(tmp_path))
    fake.answers["h1"] = "failed"
    fake.tells["h1"] = {"transaction": {"proof": {"equal": True}}}
    drive(state)
    state.set_drained(["h1"], True)
    (tmp_path / "back").unlink()
    watcher = Silent()
    Driver(state, watcher, make_ansible=fake).abort()
    assert (tmp_path / "back").read_text().split() == ["h1"]
    assert not state.hosts()[0].drained


def test_abort_after_a_kill_tells_what_became_of_whom(make, fake, monkeypatch) -> None:
    state = make(3, waves=["100%"])
    state.begin(["h1", "h2"], "0001")
    state.set_drained(["h1", "h2"], True)
    state.hand_over(["h1", "h2"])
    reports = state.folder / "runs/0001/reports/h1"
    reports.mkdir(parents=True)
    told = {"host": "h1", "result": "verified", "finished": "9999", "transaction": {"baseline_id": "b"}}
    (reports / "evidence.json").write_text(json.dumps(told))
    watcher = Silent()
    monkeypatch.setattr(rollout, "at_work", lambda *_: [77])
    with pytest.raises(errors.Refused, match="77"):
        Driver(state, watcher, make_ansible=fake).abort()
    assert state.state == "planned"
    monkeypatch.setattr(rollout, "at_work", lambda *_: [])
    Driver(state, watcher, make_ansible=fake).abort()
    assert state.state == "aborted"
    assert [(host.state, host.drained) for host in state.hosts()] == [
        ("converted", False),
        ("unknown", True),
        ("pending", False),
    ]
    assert "h2: stays out of service, since it is unknown" in watcher.notes


def test_two_baselines_have_two_canaries_and_two_locks(make, drive, fake) -> None:
    state = make(6, baselines={"h1": "a", "h2": "a", "h3": "a", "h4": "a", "h5": "b", "h6": "b"}, waves=[1, "100%"])
    assert drive(state) == errors.DONE
    assert [(hosts, "flashinfer_lock" in variables) for _playbook, hosts, variables in fake.calls] == [
        (["h1"], False),
        (["h2", "h3", "h4"], True),
        (["h5"], False),
        (["h6"], True),
    ]


def test_what_a_host_calls_its_packages_gets_into_no_path(make, drive, fake) -> None:
    """Two names that begin alike are two cohorts all the same."""
    one, other = "../../../{{ 1 }}/one", "../../../{{ 1 }}/other"
    state = make(4, baselines={"h1": one, "h2": one, "h3": other, "h4": other}, waves=[1, "100%"])
    fake.tells.update(h1={"lock": "a==1\n"}, h3={"lock": "a==2\n"})
    assert drive(state) == errors.DONE
    locks = {hosts[0]: variables.get("flashinfer_lock", "") for _playbook, hosts, variables in fake.calls}
    assert not any(mark in path for path in locks.values() for mark in ("..", "{"))
    found = [Path(locks[host]) for host in ("h2", "h4")]
    assert [path.read_text() for path in found] == ["a==1\n", "a==2\n"]
    assert {path.parent for path in found} == {state.folder / "locks"}


def test_a_killed_canarys_lock_is_what_the_others_get(make, drive, fake) -> None:
    state = make(2)
    state.begin(["h1"], "0001")
    state.hand_over(["h1"])
    reports = state.folder / "runs/0001/reports/h1"
    reports.mkdir(parents=True)
    told = {"host": "h1", "result": "verified", "finished": "9999", "transaction": {"baseline_id": "b"}}
    (reports / "evidence.json").write_text(json.dumps({**told, "lock": "a==1\n"}))
    assert drive(state) == errors.DONE
    [(_playbook, hosts, variables)] = fake.calls
    assert hosts == ["h2"]
    assert Path(variables["flashinfer_lock"]).read_text() == "a==1\n"


def test_a_canary_that_got_packages_and_tells_no_lock_stops(make, drive, fake) -> None:
    state = make(2)
    fake.tells["h1"] = {"lock": "", "plan": [{"name": "flashinfer-python", "version": "0.3.1"}]}
    assert drive(state) == errors.STOPPED
    assert set(touched(fake)) == {"h1"}
    assert "told no lock" in state.note


def test_a_canary_without_anything_to_install_has_no_lock(make, drive, fake) -> None:
    fake.tells["h1"] = {"lock": ""}
    assert drive(make(2)) == errors.DONE


@pytest.mark.parametrize("after", [False, True])
@pytest.mark.parametrize("at", range(1, 28))
def test_a_kill_at_any_write_is_survived(make, fake, at: int, after: bool, monkeypatch) -> None:
    hook = {"command": ["true"]}
    state = make(
        5, waves=[1, 2, "100%"], approve_after=[1], soak_minutes=0.0001, hooks={"drain": hook, "undrain": hook}
    )
    state.request("approve")
    killer = Counting(state, at, after)
    monkeypatch.setattr(state, "_transaction", killer)
    killed = True
    try:
        Driver(state, Silent(), make_ansible=fake).forward()
        killed = False
    except Killed:
        pass
    before = touched(fake)
    first_calls = list(fake.calls)
    done_before = {host.name for host in state.hosts() if host.state == "converted"}
    state.close()
    again = State(state.folder)
    if again.state == "waiting" or not again.db.execute("SELECT 1 FROM history WHERE what LIKE 'approved%'").fetchone():
        again.request("approve")
    fake.calls.clear()
    assert Driver(again, Silent(), make_ansible=fake).forward() == errors.DONE
    assert again.counts() == {"converted": 5}
    assert not done_before & set(touched(fake)), "a finished host was done again"
    assert set(before) | set(touched(fake)) == {f"h{number}" for number in range(1, 6)}
    assert not [host.name for host in again.hosts() if host.drained]
    for _playbook, hosts, variables in [*first_calls, *fake.calls]:
        assert ("flashinfer_lock" in variables) is (hosts != ["h1"]), "the canary's lock is lost"
    assert killed or at > 23


def test_a_host_that_ended_before_its_driver_is_believed_by_its_evidence(make, drive, fake) -> None:
    state = make(2, waves=["100%"])
    state.begin(["h1", "h2"], "0001")
    reports = state.folder / "runs/0001/reports"
    (reports / "h1").mkdir(parents=True)
    told = {"host": "h1", "result": "verified", "finished": "9999", "transaction": {"baseline_id": "base"}}
    (reports / "h1/evidence.json").write_text(json.dumps(told))
    assert drive(state) == errors.DONE
    assert touched(fake) == Counter({"h2": 1})
    assert fake.calls[0][1] == ["h2"]


def test_the_state_is_on_disk_before_a_host_is_touched(make, drive, fake) -> None:
    state = make(2, waves=["100%"])
    seen: dict[str, str] = {}

    def look(host: str) -> str:
        with sqlite3.connect(state.folder / "state.db") as db:
            seen.update(db.execute("SELECT name, state FROM host").fetchall())
        return "converted"

    fake.answers.update(h1=look)
    assert drive(state) == errors.DONE
    assert seen == {"h1": "running", "h2": "running"}


# --- who is down, and stays down ---


def test_a_failing_undrain_stops_before_the_next_host_goes_down(make, drive, fake, tmp_path) -> None:
    state = make(6, waves=[1, 2, "100%"], forks=1, hooks=hooks(tmp_path, undrain=f"[ ! -e {tmp_path}/broken ]"))
    fake.answers["h2"] = lambda _host: (tmp_path / "broken").touch() or "converted"
    assert drive(state) == errors.STOPPED
    assert set(touched(fake)) == {"h1", "h2"}
    assert "h2" in state.note and "the hook undrain failed" in state.note
    assert drive(state) == errors.STOPPED
    assert set(touched(fake)) == {"h1", "h2"}, "the hook is as it was, and nobody else goes down"
    (tmp_path / "broken").unlink()
    fake.answers.clear()
    assert drive(state) == errors.DONE
    assert touched(fake) == Counter({f"h{number}": 1 for number in range(1, 7)})
    assert (tmp_path / "back").read_text().split() == ["h1", "h2", "h3", "h4", "h5", "h6"]


def test_a_rollout_whose_last_host_is_out_of_service_is_not_done(make, drive, fake, tmp_path) -> None:
    state = make(1, hooks=hooks(tmp_path, undrain="false"))
    assert drive(state) == errors.STOPPED
    assert [(host.state, host.drained) for host in state.hosts()] == [("converted", True)]


def test_a_host_that_is_down_counts_also_while_it_waits_to_be_done_again(make, drive, fake) -> None:
    state = make(3, waves=[1, "100%"], apart=[["h2", "h3"]], allowed_failures=2)
    fake.answers.update(h2="unreachable", h3="unreachable")
    drive(state)
    fake.answers["h3"] = "converted"
    fake.calls.clear()
    drive(state)
    # h2 may be down, and h3 may serve: neither is done before the other is known to be in service.
    assert "h3" not in touched(fake)
    fake.answers["h2"] = "converted"
    drive(state)
    assert {host.state for host in state.hosts(states=["converted"])} == {"converted"}


def test_hosts_that_other_rollouts_left_down_count_too(make, fake) -> None:
    state = make(2, waves=["100%"], apart=[["h2", "elsewhere"]])
    assert Driver(state, Silent(), make_ansible=fake, elsewhere={"elsewhere": []}).forward() == errors.STOPPED
    assert set(touched(fake)) == {"h1"}
    assert Driver(state, Silent(), make_ansible=fake).forward() == errors.DONE


def test_hosts_of_a_group_that_other_rollouts_left_down_use_up_its_limit_and_no_other(make, fake) -> None:
    """h1 is of the group, and the rollout has nothing to do with the host that is down."""
    state = make(2, waves=["100%"], at_once=1, groups={"odd": {"at_once": 1}})
    down = {"h9": ["odd"], "other": ["even"]}
    assert Driver(state, Silent(), make_ansible=fake, elsewhere=down).forward() == errors.STOPPED
    assert set(touched(fake)) == {"h2"}
    assert Driver(state, Silent(), make_ansible=fake, elsewhere={"other": ["even"]}).forward() == errors.DONE


def test_a_host_whose_window_closed_while_it_was_drained_is_put_off(make, fake, tmp_path, monkeypatch) -> None:
    state = make(1, windows=[{"from": "22:00", "to": "23:00"}], hooks=hooks(tmp_path))
    at = [datetime(2026, 11, 27, 22, 55, tzinfo=timezone.utc).timestamp()]
    begun = []
    real = rollout.hooks.call

    def call(hook, *arguments):
        at[0] += 600 * (not begun and hook == state.policy["hooks"]["drain"])
        return real(hook, *arguments)

    def sleep(seconds):
        assert not state.hosts()[0].drained, "it serves until the window opens again"
        begun.append(at[0])
        at[0] += 3600

    monkeypatch.setattr(rollout.hooks, "call", call)
    watcher = Silent()
    driver = Driver(state, watcher, make_ansible=fake, clock=lambda: at[0], sleep=sleep)
    assert driver.forward() == errors.DONE
    assert "the window closed while they were drained: h1" in watcher.notes
    assert touched(fake) == Counter({"h1": 1})
    assert datetime.fromtimestamp(at[0], timezone.utc).hour == 22
    assert (tmp_path / "back").read_text().split() == ["h1", "h1"]


def test_no_batch_begins_once_more_have_failed_than_may(make, drive, fake, tmp_path) -> None:
    """All that is left of the wave would be drained for a gate that cannot open any more."""
    state = make(9, waves=[1, "100%"], forks=2, allowed_failures=2, hooks=hooks(tmp_path))
    fake.answers.update(h2="failed", h4="failed", h5="failed")
    assert drive(state) == errors.STOPPED
    assert set(touched(fake)) == {"h1", "h2", "h3", "h4", "h5"}
    assert [host.name for host in state.hosts() if host.drained] == ["h2", "h4", "h5"]
    assert "3 of 8 hosts: h2: failed; h4: failed; h5: failed; 4 not begun" in state.note
    fake.answers.clear()
    assert drive(state) == errors.DONE
    assert touched(fake) == Counter({**{f"h{number}": 1 for number in range(1, 10)}, "h2": 2, "h4": 2, "h5": 2})


def test_a_host_whose_run_failed_before_it_changed_anything_serves_on(make, drive, fake, tmp_path) -> None:
    state = make(1, hooks=hooks(tmp_path))
    fake.answers["h1"] = "failed"
    fake.tells["h1"] = {"transaction": {}}
    assert drive(state) == errors.STOPPED
    assert [(host.state, host.drained) for host in state.hosts()] == [("failed", False)]


IDLE = ("failed", {"transaction": {}})


@pytest.mark.parametrize(
    ("earlier", "drained"),
    [
        ([IDLE], False),
        ([("failed", {"transaction": {"proof": {"equal": True}}})], False),
        ([("failed", {})], True),
        ([("unknown", {}), IDLE], True),
        ([("unreachable", {})], True),
        ([("failed", {"transaction": {}, "outside_transaction": ["PyTorch"]})], True),
    ],
)
def test_a_refused_run_says_nothing_of_what_an_earlier_one_has_changed(
    make, drive, back, fake, tmp_path, earlier: Any, drained: bool
) -> None:
    """What was as it was before the refused run is so after it; whatever an earlier run left is there still."""
    state = make(1, hooks=hooks(tmp_path))
    for fake.answers["h1"], fake.tells["h1"] in [*earlier, IDLE]:
        assert drive(state) == errors.STOPPED
    assert [(host.state, host.drained) for host in state.hosts()] == [("failed", drained)]
    assert [host.name for host in state.out_of_service()] == (["h1"] if drained else [])
    assert [host.name for host in state.to_put_back()] == (["h1"] if drained else [])
    fake.answers["h1"], fake.tells["h1"] = "converted", {}
    assert drive(state) == errors.DONE
    assert [(host.state, host.drained, host.baseline) for host in state.hosts()] == [("converted", False, "base-h1")]


def test_a_clock_that_is_set_back_forgets_no_earlier_run(make, drive, fake, tmp_path, monkeypatch) -> None:
    state = make(1, hooks=hooks(tmp_path))
    for now, fake.answers["h1"], fake.tells["h1"] in [(2e9, "unknown", {}), (1e9, *IDLE)]:
        monkeypatch.setattr(time, "time", lambda now=now: now)
        assert drive(state) == errors.STOPPED
    assert [host.name for host in state.to_put_back()] == ["h1"]
    assert [host.drained for host in state.hosts()] == [True]


@pytest.mark.parametrize("told", [["PyTorch"], ["return to a kept baseline"]])
def test_a_host_that_was_changed_without_a_transaction_stays_out(make, drive, fake, tmp_path, told: list[str]) -> None:
    state = make(1, hooks=hooks(tmp_path))
    fake.answers["h1"] = "failed"
    fake.tells["h1"] = {"transaction": {}, "outside_transaction": told}
    assert drive(state) == errors.STOPPED
    assert [(host.state, host.drained) for host in state.hosts()] == [("failed", True)]


def test_a_refused_run_is_found_after_a_kill(make, fake, tmp_path) -> None:
    state = make(1, hooks=hooks(tmp_path))
    state.begin(["h1"], "0001")
    state.set_drained(["h1"], True)
    state.hand_over(["h1"])
    reports = state.folder / "runs/0001/reports/h1"
    reports.mkdir(parents=True)
    told = {"host": "h1", "result": "failed", "failure": "no room", "finished": "9999", "transaction": {}}
    (reports / "evidence.json").write_text(json.dumps(told))
    Driver(state, Silent(), make_ansible=fake).abort()
    assert [(host.state, host.drained, host.message) for host in state.hosts()] == [("failed", False, "no room")]


def test_a_converted_host_that_fails_when_it_is_looked_at_again_is_not_as_it_was(make, drive, fake, tmp_path) -> None:
    state = make(1, gates=[{"name": "speed", "query": "speed", "at_least": 11}], hooks=hooks(tmp_path))
    assert drive(state) == errors.STOPPED
    fake.answers["h1"], fake.tells["h1"] = IDLE
    assert drive(state) == errors.STOPPED
    (host,) = state.hosts()
    assert (host.state, host.drained, host.baseline) == ("failed", True, "base-h1")
    assert [host.name for host in state.to_put_back()] == ["h1"]


def test_bytes_that_are_no_text_lose_no_result(make, drive, fake) -> None:
    """Ansible hands them on as halves of pairs of UTF-16, which no database takes."""
    state = make(2, waves=["100%"])
    fake.answers["h1"] = "failed"
    real = fake.run

    def run(self, *arguments, **more):
        outcomes = real(self, *arguments, **more)
        message = rollout.plain("no such file: caf\udce9")
        return {name: replace(found, message=message) for name, found in outcomes.items()}

    fake.run = run
    assert drive(state) == errors.STOPPED
    assert [host.state for host in state.hosts()] == ["failed", "converted"]
    assert state.hosts()[0].message == "no such file: caf\N{REPLACEMENT CHARACTER}"


def test_a_hook_that_does_not_end_is_ended_with_all_that_it_started(make, drive, tmp_path) -> None:
    """It would go on draining a host that is back in service."""
    chosen = hooks(tmp_path, drain=f"sleep 300 & echo $! >{tmp_path}/child; wait")
    chosen["drain"]["timeout"] = 0.5
    state = make(1, hooks=chosen)
    assert drive(state) == errors.STOPPED
    assert "did not end within 0.5 s, and was ended" in state.hosts()[0].message
    child = Path("/proc", (tmp_path / "child").read_text().strip(), "stat")
    assert not child.exists() or child.read_text().split()[2] == "Z"


def test_hooks_are_found_after_a_kill_and_outlive_ctrl_c(make, drive, fake, tmp_path) -> None:
    say = (
        f'tr "\\0" "\\n" </proc/$$/environ | grep ^OCRFLEET_RUN= >{tmp_path}/mark; ps -o pgid= -p $$ >{tmp_path}/group'
    )
    state = make(1, hooks=hooks(tmp_path, drain=say))
    assert drive(state) == errors.DONE
    assert (tmp_path / "mark").read_text().strip() == f"OCRFLEET_RUN={state.folder}/0001-hook-drain"
    assert int((tmp_path / "group").read_text()) != os.getpgid(0)


def test_a_hook_that_outlived_its_driver_is_waited_for(make, drive, monkeypatch) -> None:
    state = make(1)
    state.set_drained(["h1"], True)
    still = [[77], []]
    asked = []
    monkeypatch.setattr(rollout, "at_work", lambda _folder, kind="": asked.append(kind) or still.pop(0))
    assert drive(state, sleep=lambda seconds: None) == errors.DONE
    assert asked == ["-hook-", "-hook-"]


def test_what_a_killed_run_left_of_its_variables_goes(make, drive) -> None:
    state = make(1)
    left = state.folder / "runs/0001/0001-0.runner"
    (left / "artifacts/0001-0").mkdir(parents=True)
    (left / "artifacts/0001-0/command").write_text("secret")
    (left / "artifacts/0001-0/stdout").write_text("TASK [the last one]")
    assert drive(state) == errors.DONE
    assert not left.exists()
    # Somebody will want to read just that.
    assert (state.folder / "runs/0001/0001-0.log").read_text() == "TASK [the last one]"


def test_an_abort_waits_for_the_run_of_a_killed_driver_and_tells_what_became_of_its_hosts(
    make, fake, tmp_path, monkeypatch
) -> None:
    """To end at once would let another rollout begin on hosts that are still worked on."""
    state = make(3, waves=["100%"], hooks=hooks(tmp_path))
    state.begin(["h1", "h2"], "0001")
    state.set_drained(["h1", "h2"], True)
    state.hand_over(["h1"])
    still: list[list[int]] = [[77], [77], []]
    monkeypatch.setattr(rollout, "at_work", lambda *_: still.pop(0))
    watcher = Asking(state, "waiting for the earlier run", "abort")
    asked_while: list[list[list[int]]] = []
    driver = Driver(state, watcher, make_ansible=fake, sleep=lambda _: asked_while.append(list(still)))
    assert driver.forward() == errors.PAUSED
    assert (still, len(asked_while)) == ([], 2)
    assert (state.state, fake.calls) == ("aborted", [])
    assert [wave["state"] for wave in state.waves()] == ["pending"]  # none of it began anew
    # The second was drained, and never begun on.
    assert {host.name: (host.state, host.drained) for host in state.hosts()} == {
        "h1": ("unknown", True),
        "h2": ("skipped", False),
        "h3": ("pending", False),
    }


def test_what_a_killed_ansible_playbook_left_at_work_is_waited_for(make, drive, fake, monkeypatch) -> None:
    state = make(1)
    fake.answers["h1"] = "unknown"
    assert drive(state) == errors.STOPPED
    still: list[list[int]] = [[77], []]
    monkeypatch.setattr(rollout, "at_work", lambda *_: still.pop(0))
    fake.answers.clear()
    assert drive(state, sleep=lambda _: None) == errors.DONE
    assert still == []


def test_a_missed_figure_that_was_allowed_is_not_what_was_asked_for(make, drive, fake) -> None:
    state = make(2, allowed_failures=1, waves=[1, 1], gates=[{"name": "speed", "query": "speed", "at_least": 5}])
    fake.tells["h2"] = {"speed": 1}
    assert drive(state) == errors.INCOMPLETE
    assert "1 hosts not converted, out of service, or with a missed figure" in state.note


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM, signal.SIGHUP])
def test_a_signal_stops_after_the_hosts_that_are_under_way(make, fake, tmp_path, number: signal.Signals) -> None:
    state = make(2, waves=["100%"], forks=1, hooks=hooks(tmp_path))

    def interrupted(_host: str) -> str:
        signal.raise_signal(number)
        return "converted"

    fake.answers["h1"] = interrupted
    assert Driver(state, Silent(), make_ansible=fake).forward() == errors.PAUSED
    assert {host.name: (host.state, host.drained) for host in state.hosts()} == {
        "h1": ("converted", False),
        "h2": ("pending", False),
    }


def test_nohup_is_left_as_it_is(make, fake) -> None:
    before = signal.signal(signal.SIGHUP, signal.SIG_IGN)
    try:
        fake.answers["h1"] = lambda _: signal.raise_signal(signal.SIGHUP) or "converted"
        assert Driver(make(2), Silent(), make_ansible=fake).forward() == errors.DONE
    finally:
        signal.signal(signal.SIGHUP, before)


def test_a_host_of_another_rollout_that_this_one_has_converted_is_down_no_more(make, fake) -> None:
    state = make(3, waves=[1, "100%"], at_once=1, apart=[["h1", "h2"]])
    driver = Driver(state, Silent(), make_ansible=fake, elsewhere={"h1": []}, drained=set())
    assert driver.forward() == errors.DONE
    assert state.counts() == {"converted": 3}


def test_an_abort_undrains_each_host_once(make, fake, tmp_path) -> None:
    """A hook that hangs is waited for once."""
    record = {"command": ["sh", "-c", f'echo "$1" >>{tmp_path}/tried; false', "undrain", "{host}"]}
    state = make(2, waves=["100%"], hooks={"drain": {"command": ["true"]}, "undrain": record})
    state.begin(["h1", "h2"], "0001")
    state.set_drained(["h1", "h2"], True)
    Driver(state, Silent(), make_ansible=fake).abort()
    assert sorted((tmp_path / "tried").read_text().split()) == ["h1", "h2"]


def test_a_connection_that_ssh_keeps_is_nothing_at_work(tmp_path) -> None:
    kept = ["bash", "-c", "exec -a 'ssh: /home/me/.ansible/cp/ab12 [mux]' cat"]
    carried = {**os.environ, **ansible.mark(tmp_path, "0001-0")}
    mux = subprocess.Popen(kept, env=carried, stdin=subprocess.PIPE, stdout=subprocess.DEVNULL)
    with mux, subprocess.Popen(["sleep", "60"], env=carried) as working:
        try:
            while not Path(f"/proc/{mux.pid}/cmdline").read_bytes().endswith(b"[mux]\0"):  # the shell's has it, too
                time.sleep(0.05)
            assert ansible.at_work(tmp_path) == [working.pid]
        finally:
            mux.kill()
            working.kill()
