# Copyright (c) 2026 The ocrfleet.gpu_stack contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The way back: whose, to which baseline, and that nothing but the way back follows it."""

from __future__ import annotations

import json
import os
import subprocess
from typing import Any

import pytest

from ocrfleet import cli, errors, rollout
from ocrfleet.errors import FleetError
from ocrfleet.rollout import Driver
from ocrfleet.state import State
from ocrfleet.store import Store

from .conftest import Counting, Killed, Silent, hooks

BACK = "ocrfleet.gpu_stack.rollback"
RESTORED = {"transaction": {"baseline_id": "b", "proof": {"equal": True}}}


def states(state: State) -> dict[str, str]:
    return {host.name: host.state for host in state.hosts()}


def test_it_returns_what_this_rollout_converted_and_nothing_else(make, drive, back, fake) -> None:
    state = make(5, waves=[1, "100%"])
    fake.answers.update(h2="unchanged", h4="failed", h5="failed")
    fake.tells.update(h4=RESTORED, h5={"transaction": {}})
    assert drive(state) == errors.STOPPED
    fake.answers.clear()
    assert back(state) == errors.DONE
    [(playbook, hosts, variables)] = fake.calls
    assert (playbook, hosts) == (BACK, ["h1", "h3"])
    assert variables["ocrfleet_baselines"] == {"h1": "base-h1", "h3": "base-h3"}
    assert state.counts() == {"failed": 2, "rolled back": 2, "unchanged": 1}


def test_a_failed_host_without_a_proof_is_put_back_to_the_baseline_that_its_evidence_names(
    make, drive, back, fake
) -> None:
    state = make(2, waves=[1, "100%"])
    fake.answers["h2"] = "failed"
    drive(state)
    fake.answers.clear()
    assert back(state) == errors.DONE
    assert fake.calls[0][2]["ocrfleet_baselines"] == {"h1": "base-h1", "h2": "base-h2"}


@pytest.mark.parametrize(
    ("outcome", "told"),
    [
        ("unreachable", {"transaction": {}}),
        ("unknown", {"transaction": {}}),
        ("failed", {"finished": "2000-01-01T00:00:00Z"}),
    ],
)
def test_a_host_that_may_have_been_changed_is_left_and_named(make, drive, back, fake, outcome: str, told: Any) -> None:
    state = make(2, waves=[1, "100%"])
    fake.answers["h2"] = outcome
    fake.tells["h2"] = told
    drive(state)
    fake.answers.clear()
    assert back(state) == errors.STOPPED
    assert [hosts for _playbook, hosts, _variables in fake.calls] == [["h1"]]
    assert (state.state, "h2 (not rolled back" in state.note) == ("stopped", True)


def test_a_baseline_that_is_no_name_gets_into_no_variable(make, drive, back, fake) -> None:
    state = make(2, waves=["100%"])
    drive(state)
    with state._transaction() as db:
        db.execute("UPDATE host SET baseline = '{{ lookup(\"pipe\", \"id\") }}' WHERE name = 'h1'")
    assert back(state) == errors.STOPPED
    assert "lookup(" not in json.dumps([variables["ocrfleet_baselines"] for _p, _h, variables in fake.calls])
    assert states(state) == {"h1": "not rolled back", "h2": "rolled back"}


def test_the_state_keeps_no_baseline_that_is_no_name(make) -> None:
    state = make(1)
    state.end([("h1", "converted", "", {"transaction": {"baseline_id": "{{ 1 }}"}}, "")])
    assert state.hosts()[0].baseline == ""


def test_a_host_that_was_not_rolled_back_is_tried_again_by_the_next_rollback_once(make, drive, back, fake) -> None:
    state = make(2, waves=["100%"])
    drive(state)
    fake.answers["h2"] = "failed"
    assert back(state) == errors.STOPPED
    assert len(fake.calls) == 1
    assert states(state) == {"h1": "rolled back", "h2": "not rolled back"}
    assert back(state) == errors.STOPPED
    fake.answers.clear()
    assert back(state) == errors.DONE
    assert [hosts for _playbook, hosts, _variables in fake.calls] == [["h2"]]
    assert states(state) == {"h1": "rolled back", "h2": "rolled back"}


def test_a_host_that_this_rollout_did_not_convert_stays_as_it_is(make, drive, back, fake) -> None:
    """It was away at first, and then had it already."""
    state = make(2, waves=[1, "100%"])
    fake.answers["h2"] = "unreachable"
    assert drive(state) == errors.STOPPED
    fake.answers["h2"] = "unchanged"
    assert drive(state) == errors.DONE
    assert states(state) == {"h1": "converted", "h2": "unchanged"}
    assert back(state) == errors.DONE
    assert [hosts for _playbook, hosts, _variables in fake.calls] == [["h1"]]


def test_a_host_whose_killed_run_converted_it_is_this_rollouts(make, drive, back, fake) -> None:
    state = make(2, waves=[1, "100%"])
    fake.answers["h2"] = "unreachable"
    assert drive(state) == errors.STOPPED
    fake.answers["h2"] = "unchanged"
    fake.tells["h2"] = {"finished": "9999-01-01T00:00:00Z"}
    assert drive(state) == errors.DONE
    assert states(state) == {"h1": "converted", "h2": "converted"}


def test_a_host_whose_killed_run_told_nothing_is_converted_and_has_no_known_way_back(make, drive, back, fake) -> None:
    """The run after it has nothing to do, so its evidence has no transaction and no lock."""
    state = make(3, waves=[1, 1])
    fake.answers["h2"] = "unknown"
    fake.tells["h2"] = {"transaction": {}, "lock": "", "finished": "9999-01-01T00:00:00Z"}
    assert drive(state) == errors.STOPPED
    fake.answers["h2"] = "unchanged"
    assert drive(state) == errors.DONE
    assert states(state) == {"h1": "converted", "h2": "converted", "h3": "converted"}
    assert back(state) == errors.STOPPED
    assert states(state) == {"h1": "rolled back", "h2": "not rolled back", "h3": "rolled back"}
    assert "rollback_list_only" in state.note


def test_the_way_to_list_baselines_works_as_it_is_told(make, drive, back, fake, tmp_path, monkeypatch) -> None:
    """From wherever the reader is: the collection is found."""
    monkeypatch.delenv("ANSIBLE_COLLECTIONS_PATH", raising=False)
    monkeypatch.chdir(tmp_path)
    state = make(1)
    fake.answers["h1"] = "unknown"
    assert drive(state) == errors.STOPPED
    fake.answers["h1"] = "unchanged"
    fake.tells["h1"] = {"transaction": {}, "lock": "", "finished": "9999-01-01T00:00:00Z"}
    assert drive(state) == errors.DONE
    assert back(state) == errors.STOPPED
    command = state.hosts()[0].message.splitlines()[-1]
    assert command.endswith("ocrfleet.gpu_stack.rollback -l h1 -e rollback_list_only=true")
    (tmp_path / "inv").write_text("h1\n")
    environ = {name: value for name, value in os.environ.items() if not name.startswith("ANSIBLE_")}
    line = f"{command} --list-hosts"
    done = subprocess.run(["sh", "-c", line], env=environ, capture_output=True, text=True, check=False)
    assert (done.returncode, "h1" in done.stdout) == (0, True), done.stderr


def test_a_host_whose_killed_run_told_nothing_goes_back_to_what_that_run_froze(make, drive, back, fake) -> None:
    """It is the first that is younger than the hand-over; those of other rollouts are older."""
    state = make(2, waves=[1, 1])
    fake.answers["h2"] = "unknown"
    kept = {
        "second": "9999-01-02T00:00:00+01:00",
        "first": "9999-01-02T00:00:00+02:00",
        "before": "2000-01-01T00:00:00+00:00",
        "{{ not a name }}": "9999-01-01T00:00:00+00:00",
        "no-time": "yesterday",
    }
    fake.tells["h2"] = {"transaction": {}, "kept_baselines": kept, "finished": "9999-01-03T00:00:00Z"}
    assert drive(state) == errors.STOPPED
    fake.answers["h2"] = "unchanged"
    assert drive(state) == errors.DONE
    fake.calls.clear()
    fake.answers.clear()
    assert back(state) == errors.DONE
    assert fake.calls[0][2]["ocrfleet_baselines"] == {"h1": "base-h1", "h2": "first"}


def test_a_canary_whose_killed_run_told_no_lock_stops(make, drive, fake) -> None:
    state = make(2)
    fake.answers["h1"] = "unknown"
    fake.tells["h1"] = {"transaction": {}, "lock": "", "finished": "9999-01-01T00:00:00Z"}
    assert drive(state) == errors.STOPPED
    fake.answers["h1"] = "unchanged"
    assert drive(state) == errors.STOPPED
    assert states(state) == {"h1": "converted", "h2": "pending"}
    assert "told no lock" in state.note


def test_after_a_kill_of_a_first_run_a_host_with_nothing_to_do_is_unchanged(make, drive) -> None:
    state = make(1)
    state.begin(["h1"], "0001")
    state.hand_over(["h1"])
    reports = state.folder / "runs/0001/reports/h1"
    reports.mkdir(parents=True)
    (reports / "evidence.json").write_text(json.dumps({"host": "h1", "result": "verified", "finished": "9999"}))
    assert drive(state) == errors.DONE
    assert states(state) == {"h1": "unchanged"}


@pytest.mark.parametrize(("finished", "expected"), [("2000", "unchanged"), ("9999", "converted")])
def test_after_a_kill_evidence_of_an_earlier_run_is_no_conversion(make, drive, finished: str, expected: str) -> None:
    state = make(1)
    state.begin(["h1"], "0001")
    state.hand_over(["h1"])
    reports = state.folder / "runs/0001/reports/h1"
    reports.mkdir(parents=True)
    told = {"host": "h1", "result": "verified", "finished": finished, "transaction": {"baseline_id": "b"}}
    (reports / "evidence.json").write_text(json.dumps(told))
    assert drive(state) == errors.DONE
    assert states(state) == {"h1": expected}


@pytest.mark.parametrize("after", [False, True])
@pytest.mark.parametrize("at", range(2, 12))
def test_whoever_goes_on_after_a_kill_on_the_way_back_goes_back(
    make, drive, fake, at: int, after: bool, monkeypatch
) -> None:
    hook = {"command": ["true"]}
    state = make(3, waves=["100%"], apart=[["h1", "h2"]], hooks={"drain": hook, "undrain": hook})
    assert drive(state) == errors.DONE
    monkeypatch.setattr(state, "_transaction", Counting(state, at, after))
    try:
        Driver(state, Silent(), make_ansible=fake).back()
    except Killed:
        pass
    else:
        assert at > 9
    state.close()
    again = State(state.folder)
    fake.calls.clear()
    with pytest.raises(FleetError, match="cannot go on"):
        drive(again)
    assert fake.calls == []
    assert again.backward
    assert Driver(again, Silent(), make_ansible=fake).back() == errors.DONE
    assert {playbook for playbook, _hosts, _variables in fake.calls} <= {BACK}
    assert again.counts() == {"rolled back": 3}
    assert not [host.name for host in again.hosts() if host.drained]


def test_resume_of_a_rollback_goes_back_and_never_forward(make, drive, back, fake, monkeypatch, capsys) -> None:
    state = make(3, waves=["100%"])
    drive(state)
    fake.answers["h2"] = "failed"
    assert back(state) == errors.STOPPED
    fake.answers.clear()
    fake.calls.clear()
    store = Store(state.folder.parent / "store")
    store.new().symlink_to(state.folder)
    monkeypatch.setattr(cli, "Driver", lambda *a, **k: Driver(*a, **k, make_ansible=fake))
    argv = ["--state-dir", str(store.folder), "resume"]
    assert cli.main(argv) == errors.DONE
    assert [(playbook, hosts) for playbook, hosts, _variables in fake.calls] == [(BACK, ["h2"])]
    for over in ("aborted", "rolled back"):
        state.set_state(over)
        assert cli.main(argv) == errors.WRONG_INPUT
        assert f"is {over}; there is nothing to resume" in capsys.readouterr().err
    assert len(fake.calls) == 1


@pytest.mark.parametrize("left", ["running", "rolling back"])
def test_the_processes_of_a_killed_driver_are_waited_for(make, drive, fake, monkeypatch, left: str) -> None:
    state = make(1)
    drive(state)
    state.begin(["h1"], "0007", left)
    still: list[list[int]] = [[77], [77], []]
    monkeypatch.setattr(rollout, "at_work", lambda *_: still.pop(0))
    fake.calls.clear()
    watcher = Silent()
    Driver(state, watcher, make_ansible=fake, sleep=lambda seconds: None).back()
    assert still == []
    assert watcher.notes[0].endswith("works as process 77")


def test_processes_that_work_on_no_host_are_not_waited_for(make, drive, monkeypatch) -> None:
    """A connection that SSH keeps open for the next run carries the mark as well."""
    state = make(1)
    monkeypatch.setattr(rollout, "at_work", lambda *_: [77])
    assert drive(state, sleep=lambda seconds: pytest.fail("it waited")) == errors.DONE


def test_a_playbook_that_fails_ends_the_way_back_and_that_host_comes_last(make, drive, back, fake) -> None:
    state = make(4, waves=["100%"], forks=1)
    drive(state)
    fake.answers["h1"] = "failed"
    assert back(state) == errors.STOPPED
    assert [hosts for _playbook, hosts, _variables in fake.calls] == [["h1"]]
    assert back(state) == errors.STOPPED
    assert [hosts for _playbook, hosts, _variables in fake.calls] == [["h2"], ["h3"], ["h4"], ["h1"]]


def test_one_that_is_away_does_not_end_the_way_back(make, drive, back, fake) -> None:
    state = make(2, waves=["100%"], forks=1)
    drive(state)
    fake.answers["h1"] = "unreachable"
    assert back(state) == errors.STOPPED
    assert states(state) == {"h1": "not rolled back", "h2": "rolled back"}


def test_who_is_down_counts_on_the_way_back(make, drive, back, fake) -> None:
    state = make(3, waves=["100%"], apart=[["h1", "h2"]])
    drive(state)
    fake.answers["h1"] = "unreachable"
    assert back(state) == errors.STOPPED
    assert states(state) == {"h1": "not rolled back", "h2": "converted", "h3": "rolled back"}
    fake.answers.clear()
    assert back(state) == errors.DONE


AS_PLANNED = {"versions_fingerprint": "f1", "installed": None}
LONG_AGO = "20200101T000000.000000Z-ab12"
OF_THIS_ROLLOUT = "99990101T000000.000000Z-ab12"


@pytest.mark.parametrize(
    ("answer", "is_back"),
    [
        ({**AS_PLANNED, "transaction": {}}, True),  # its run never began one
        ({**AS_PLANNED, "transaction": {"id": OF_THIS_ROLLOUT, "state": "restored"}}, True),  # by hand, say
        ({**AS_PLANNED, "transaction": {"id": OF_THIS_ROLLOUT, "state": "discarded"}}, True),
        ({**AS_PLANNED, "transaction": {"id": LONG_AGO, "state": "promoted"}}, True),
        ({**AS_PLANNED, "transaction": {"id": OF_THIS_ROLLOUT, "state": "promoted"}}, False),  # its start, say
        ({**AS_PLANNED, "transaction": {"id": LONG_AGO, "state": "open"}}, False),
        ({**AS_PLANNED, "transaction": {"id": LONG_AGO, "state": "restored", "services": ["ocr.service"]}}, False),
        ({**AS_PLANNED, "transaction": {"state": "unreadable"}}, False),
        ({**AS_PLANNED, "transaction": {"id": "{{ 1 }}", "state": "promoted"}}, False),
        ({**AS_PLANNED, "transaction": "restored"}, False),
        ({**AS_PLANNED}, False),  # an older collection at a worker tells nothing of it
        ({"versions_fingerprint": "f2", "transaction": {}}, False),
        ({}, False),
    ],
    ids=str,
)
def test_a_host_that_told_nothing_is_back_where_it_has_its_planned_packages_and_nothing_open(
    make, drive, back, fake, answer: dict[str, Any], is_back: bool, tmp_path
) -> None:
    state = make(2, waves=[1, "100%"], hooks=hooks(tmp_path))
    fake.answers["h2"] = "unknown"
    fake.tells["h2"] = {"transaction": {}}
    assert drive(state) == errors.STOPPED
    fake.answers.clear()
    fake.facts["h2"] = answer
    assert back(state) == (errors.DONE if is_back else errors.STOPPED)
    assert states(state) == {"h1": "rolled back", "h2": "rolled back" if is_back else "not rolled back"}
    assert [host.name for host in state.hosts() if host.drained] == ([] if is_back else ["h2"])


def test_a_host_without_a_planned_baseline_is_not_taken_for_back(make, drive, back, fake) -> None:
    state = make(1, baselines={"other": "f1"})
    fake.answers["h1"] = "unknown"
    fake.tells["h1"] = {"transaction": {}}
    assert drive(state) == errors.STOPPED
    fake.facts["h1"] = {"versions_fingerprint": "no answer", "transaction": {}}
    assert back(state) == errors.STOPPED


def test_a_lost_host_holds_the_others_back_only_until_somebody_says_otherwise(make, drive, back, fake) -> None:
    state = make(3, waves=[1, "100%"], at_once=1, groups={"odd": {"at_once": 1}}, apart=[["h1", "h2"]])
    fake.answers["h2"] = "unreachable"
    fake.tells["h2"] = {"transaction": {}}
    assert drive(state) == errors.STOPPED
    told = Silent()
    assert back(state, told) == errors.STOPPED
    assert (fake.calls, states(state)["h1"]) == ([], "converted")
    [note] = [note for note in told.notes if "limit" in note]
    assert "while others are down: h2 (not rolled back)" in note
    assert f"`ocrfleet rollback {state.id} --ignore-limits`" in note
    assert back(state, ignore_limits=True) == errors.STOPPED
    assert [hosts for _playbook, hosts, _variables in fake.calls] == [["h1"]]
    assert states(state) == {"h1": "rolled back", "h2": "not rolled back", "h3": "pending"}


def test_a_lost_host_that_is_back_lets_the_others_go(make, drive, back, fake) -> None:
    state = make(2, waves=[1, "100%"], at_once=1)
    fake.answers["h2"] = "unreachable"
    fake.tells["h2"] = {"transaction": {}}
    assert drive(state) == errors.STOPPED
    assert back(state) == errors.STOPPED
    fake.facts["h2"] = {**AS_PLANNED, "transaction": {}}
    assert back(state) == errors.DONE
    assert states(state) == {"h1": "rolled back", "h2": "rolled back"}


def test_with_too_many_down_one_of_these_goes_back(make, drive, back, fake) -> None:
    state = make(2, waves=["100%"], at_once=2)
    fake.answers.update(h1="failed", h2="failed")
    drive(state)
    with state._transaction() as db:
        db.execute("UPDATE rollout SET policy = json_set(policy, '$.at_once', 1)")
    fake.answers.clear()
    assert back(state) == errors.DONE
    assert [hosts for _playbook, hosts, _variables in fake.calls] == [["h1"], ["h2"]]


def test_a_failing_undrain_ends_the_way_back_before_the_next_host_goes_down(make, drive, back, fake, tmp_path) -> None:
    broken = tmp_path / "broken"
    state = make(3, waves=["100%"], forks=1, hooks=hooks(tmp_path, undrain=f"[ ! -e {broken} ]"))
    assert drive(state) == errors.DONE
    broken.touch()
    assert back(state) == errors.STOPPED
    assert states(state) == {"h1": "rolled back", "h2": "converted", "h3": "converted"}
    assert "still out of service, since the hook undrain failed: 1 of 3 hosts: h1" in state.note
    broken.unlink()
    assert back(state) == errors.DONE
    assert not [host.name for host in state.hosts() if host.drained]


def test_a_way_back_whose_last_host_is_out_of_service_is_not_done(make, drive, back, tmp_path) -> None:
    broken = tmp_path / "broken"
    state = make(1, hooks=hooks(tmp_path, undrain=f"[ ! -e {broken} ]"))
    assert drive(state) == errors.DONE
    broken.touch()
    assert back(state) == errors.STOPPED
    assert (state.state, states(state)) == ("stopped", {"h1": "rolled back"})


def test_a_host_that_cannot_be_drained_for_the_way_back_serves_on_as_it_was(make, drive, back, fake, tmp_path) -> None:
    refused = tmp_path / "refused"
    state = make(2, waves=["100%"], hooks=hooks(tmp_path, drain=f'[ ! -e {refused} ] || [ "$1" != h1 ]'))
    assert drive(state) == errors.DONE
    refused.touch()
    assert back(state) == errors.STOPPED
    assert states(state) == {"h1": "converted", "h2": "rolled back"}
    assert not [host.name for host in state.hosts() if host.drained]
    assert "h1 (converted: not drained" in state.note
    refused.unlink()
    assert back(state) == errors.DONE
    assert states(state) == {"h1": "rolled back", "h2": "rolled back"}


@pytest.mark.parametrize("policy", [{}, {"forks": 1}])
@pytest.mark.parametrize("has_hooks", [True, False])
def test_a_host_that_another_rollout_left_out_does_not_end_the_way_back(
    make, drive, fake, tmp_path, policy: dict[str, Any], has_hooks: bool
) -> None:
    given = {"hooks": hooks(tmp_path)} if has_hooks else {}
    state = make(4, waves=["100%"], **policy, **given)
    assert drive(state) == errors.DONE
    driver = Driver(state, Silent(), make_ansible=fake, elsewhere={"h2": []}, drained={"h2"})
    assert driver.back() == errors.DONE
    assert state.counts() == {"rolled back": 4}
    if has_hooks:
        assert "h2" not in (tmp_path / "back").read_text().split()[4:]  # those of the way forward come first
