# Copyright (c) 2026 The ocrfleet.gpu_stack contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""What the rollouts of one state folder are to each other."""

from __future__ import annotations

import os
import resource
import sqlite3
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from ocrfleet import errors, planning, policy
from ocrfleet.state import FORMAT, State
from ocrfleet.store import Store

from .conftest import hooks

# What a rollout of another format has to be told before it is in that format.
RENAMED = "ALTER TABLE host RENAME COLUMN name TO host"
OLDER = "ALTER TABLE host DROP COLUMN first_run"


def add(hosts: list[str], name: str = "20260101-000000-aaaa") -> State:
    """A rollout in the state folder of `command`."""
    chosen = policy.complete({})
    waves = planning.waves(hosts, dict.fromkeys(hosts, "f1"), chosen)
    return State.create(Store(Path("state")).rollouts / name, chosen, ["hosts"], planning.Fleet(hosts, {}), waves)


def make_foreign(state: State, *changes: str, number: int = FORMAT - 1) -> None:
    state.close()
    with sqlite3.connect(state.folder / "state.db") as db:
        for change in (*changes, f"PRAGMA user_version={number}"):
            db.execute(change)


def told(state: State, number: int = FORMAT - 1) -> list[str]:
    return [state.folder.name, f"format {number}, this ocrfleet knows {FORMAT}", f"folder away: {state.folder}"]


@pytest.mark.parametrize(("number", "change"), [(FORMAT - 1, OLDER), (FORMAT + 1, "CREATE TABLE more (more TEXT)")])
def test_an_unfinished_rollout_of_another_format_keeps_its_hosts(command, fake, number: int, change: str) -> None:
    other = add(["h1", "h9"])
    make_foreign(other, change, number=number)
    code, said = command("rollout", "-i", "hosts")
    assert code == errors.REFUSED, said
    assert [text for text in (*told(other, number), "1 of these hosts, such as h1") if text not in said] == []
    assert (fake.calls, len(list(Path("state/rollouts").iterdir()))) == ([], 1)
    assert command("rollout", "-i", "hosts", "-l", "!h1")[0] == errors.DONE


@pytest.mark.parametrize("is_over", [False, True])
def test_where_the_hosts_of_another_format_cannot_be_read_nothing_goes_on(command, fake, is_over: bool) -> None:
    assert command("rollout", "-i", "hosts")[0] == errors.DONE
    mine = Store(Path("state")).open(None)
    other = add(["h9"], "99991231-000000-0000")
    if is_over:
        other.set_state("finished")
    make_foreign(other, RENAMED)
    fake.calls.clear()
    for argv in (["rollout", "-i", "hosts"], ["resume", mine.id], ["rollback", mine.id]):
        code, said = command(*argv)
        assert code == errors.REFUSED, said
        assert [text for text in told(other) if text not in said] == []
    assert (fake.calls, mine.state) == ([], "finished")
    assert command("status", mine.id)[0] == errors.DONE
    other.folder.rename("away")
    assert command("rollback", mine.id)[0] == errors.DONE


def test_no_way_back_past_what_another_format_converted_later(command, fake) -> None:
    assert command("rollout", "-i", "hosts")[0] == errors.DONE
    mine = Store(Path("state")).open(None)
    other = add(["h3"], "99991231-000000-0000")
    other.end([("h3", "converted", "", {"transaction": {"baseline_id": "b"}}, "")])
    other.set_state("finished")
    make_foreign(other, OLDER)
    code, said = command("rollback", mine.id)
    assert (code, "converted h3" in said) == (errors.REFUSED, True), said
    assert [text for text in told(other) if text not in said] == []


def test_hosts_that_another_format_may_have_left_down_count(command, fake) -> None:
    ends = {"x1": "converted", "x2": "failed", "x3": "pending", "x4": "rolled back", "x5": "converted"}
    other = add([*ends, "h4", "not-begun"])
    other.begin([*ends, "h4"], "0001")
    other.end([(name, state, "", {}, "") for name, state in ends.items()])
    other.set_drained(["x5"], True)
    other.set_state("aborted")
    make_foreign(other, OLDER)
    assert list(Store(Path("state")).out_of_service(but="")) == ["x2", "x3", "x5", "h4"]
    code, said = command("rollout", "-i", "hosts", "-l", "!h4", waves=["100%"], apart=[["h2", "h4"]])
    assert code == errors.STOPPED, said
    assert [hosts for _playbook, hosts, _variables in fake.calls] == [["h1", "h3"]]


@pytest.mark.parametrize(
    "damage", [b"no database at all" * 400, b"", "truncated", "DROP TABLE wave", "DELETE FROM rollout"]
)
def test_a_damaged_rollout_is_told_and_hinders_no_other(command, damage: Any) -> None:
    bad = add(["h1"])
    bad.close()
    file = bad.folder / "state.db"
    if damage == "truncated":
        file.write_bytes(file.read_bytes()[:9000])
    elif isinstance(damage, bytes):
        file.write_bytes(damage)
    else:
        with sqlite3.connect(file) as db:
            db.execute(damage)
    code, said = command("rollout", "-i", "hosts")
    assert (code, f"whether rollout {bad.folder.name} has some of these hosts" in " ".join(said.split())) == (0, True)
    assert f"{file} cannot be read" in command("status", "--all", "--output", "json")[1]


@pytest.fixture
def full_disk() -> Iterator[None]:
    """No file grows above the size of the lock."""
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (4096, before[1]))
    yield
    resource.setrlimit(resource.RLIMIT_FSIZE, before)


@pytest.mark.parametrize(
    "argv",
    [["status"], ["status", "--all"], ["report"], ["abort"], ["resume"], ["rollout", "-i", "hosts"]],
    ids=" ".join,
)
def test_a_full_disk_is_no_damage(command, argv: list[str], request: Any) -> None:
    state = add(["h1"])
    state.close()
    request.getfixturevalue("full_disk")
    code, said = command(*argv)
    assert code == errors.STATE, said
    assert "move its folder away" not in said


@pytest.fixture
def few_files() -> Iterator[None]:
    """Twenty more can be opened."""
    before = resource.getrlimit(resource.RLIMIT_NOFILE)
    taken = set(map(int, os.listdir("/proc/self/fd")))
    free = [number for number in range(1000) if number not in taken]
    resource.setrlimit(resource.RLIMIT_NOFILE, (free[20], before[1]))
    yield
    resource.setrlimit(resource.RLIMIT_NOFILE, before)


@pytest.mark.parametrize("argv", [["resume"], ["rollback"], ["status", "--all"]], ids=" ".join)
def test_a_long_history_holds_no_files_open(command, argv: list[str], request: Any) -> None:
    for number in range(10):
        state = add([f"x{number}"], f"20260101-000000-{number:04}")
        state.set_state("finished")
        state.close()
    add(["h1"], "20260102-000000-aaaa").close()
    request.getfixturevalue("few_files")
    code, said = command(*argv)
    assert code == errors.DONE, said


def test_no_rollout_begins_on_hosts_of_an_unfinished_one(command, fake) -> None:
    first = add(["h3"])
    code, said = command("rollout", "-i", "hosts")
    assert (code, f"rollout {first.id} is not over (planned) and has 1 of these hosts" in said) == (
        errors.REFUSED,
        True,
    )
    assert (fake.calls, len(list(Path("state/rollouts").iterdir()))) == ([], 1)


@pytest.mark.parametrize(
    ("settings", "touched"),
    [({"apart": [["h1", "h2"]]}, [["h4", "h3"]]), ({"groups": {"odd": {"at_once": 1}}}, [["h2", "h4"]])],
)
@pytest.mark.parametrize("left", ["running", "rolling back"])
def test_hosts_of_another_rollout_that_are_down_count(command, fake, settings: Any, touched: Any, left: str) -> None:
    """Also for the limit of a group of which this rollout does not have that host."""
    assert command("rollout", "-i", "hosts", "-l", "h1")[0] == errors.DONE
    Store(Path("state")).open(None).begin(["h1"], "0002", left)
    fake.calls.clear()
    code, said = command("rollout", "-i", "hosts", "-l", "!h1", waves=["100%"], **settings)
    assert code == errors.STOPPED, said
    assert [hosts for _playbook, hosts, _variables in fake.calls] == touched


BROKEN = {"transaction": {}, "outside_transaction": ["PyTorch"]}
REFUSED = {"transaction": {}, "outside_transaction": []}


def leave_broken(command, fake, tmp_path: Path) -> None:
    """A rollout that changes h1, fails without a proof, and leaves it drained."""
    fake.answers["h1"], fake.tells["h1"] = "failed", BROKEN
    assert command("rollout", "-i", "hosts", "-l", "h1", hooks=hooks(tmp_path))[0] == errors.STOPPED
    assert command("abort")[0] == errors.DONE
    (tmp_path / "back").unlink(missing_ok=True)
    time.sleep(1.1)  # the next one is told apart by the second


@pytest.mark.parametrize("drain", ["true", "false"])
def test_what_a_rollout_left_broken_a_later_one_does_not_put_into_service_as_it_is(
    command, fake, tmp_path, drain: str
) -> None:
    leave_broken(command, fake, tmp_path)
    fake.tells["h1"] = REFUSED  # which says only that the later one changed nothing
    code, said = command("rollout", "-i", "hosts", "-l", "h1", hooks=hooks(tmp_path, drain=drain))
    assert code == errors.STOPPED
    assert "h1: stays out of service" in said and "another rollout left it so" in said
    assert not (tmp_path / "back").exists()
    assert list(Store(Path("state")).out_of_service(but="")) == ["h1"]
    assert command("abort")[0] == errors.DONE
    fake.answers.clear()
    fake.tells.clear()
    time.sleep(1.1)
    assert command("rollout", "-i", "hosts", "-l", "h1", hooks=hooks(tmp_path))[0] == errors.DONE
    assert (tmp_path / "back").read_text() == "h1\n"
    assert Store(Path("state")).out_of_service(but="") == {}


def test_what_it_was_put_back_to_is_as_broken_as_before(command, fake, tmp_path) -> None:
    leave_broken(command, fake, tmp_path)
    fake.answers.clear()
    fake.tells.clear()
    assert command("rollout", "-i", "hosts", "-l", "h1", hooks=hooks(tmp_path))[0] == errors.DONE
    (tmp_path / "back").unlink()
    command("rollback")
    assert not (tmp_path / "back").exists()
    assert list(Store(Path("state")).out_of_service(but="")) == ["h1"]


def test_a_host_that_another_rollout_drained_is_named_where_there_is_no_hook(command, fake, tmp_path) -> None:
    leave_broken(command, fake, tmp_path)
    fake.answers.clear()
    fake.tells.clear()
    code, said = command("rollout", "-i", "hosts", "-l", "h1,h2", waves=["100%"])
    assert code == errors.INCOMPLETE, said
    assert "h1: still out of service: another rollout drained it, and there is no hook undrain" in said
    assert {name: found.drained for name, found in Store(Path("state")).out_of_service(but="").items()} == {"h1": True}


def test_two_rollouts_do_not_keep_a_host_out_because_of_each_other(command, fake, tmp_path) -> None:
    """The second found it as the first had left it; once the first has put it back, nothing keeps it."""
    fake.answers["h2"], fake.tells["h2"] = "failed", {"transaction": {"baseline_id": "base-h2"}}
    both = {"waves": ["100%"], "hooks": hooks(tmp_path)}
    assert command("rollout", "-i", "hosts", "-l", "h2", **both)[0] == errors.STOPPED
    assert command("abort")[0] == errors.DONE
    first = Store(Path("state")).open(None).id
    time.sleep(1.1)
    fake.tells["h2"] = REFUSED
    assert command("rollout", "-i", "hosts", "-l", "h2", **both)[0] == errors.STOPPED
    assert command("abort")[0] == errors.DONE
    assert list(Store(Path("state")).out_of_service(but="")) == ["h2"]
    (tmp_path / "back").unlink(missing_ok=True)
    fake.answers.clear()
    fake.tells.clear()
    code, said = command("rollback", first)
    assert code == errors.DONE, said
    assert (tmp_path / "back").read_text() == "h2\n"
    assert Store(Path("state")).out_of_service(but="") == {}
