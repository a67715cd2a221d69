# Copyright (c) 2026 The ocrfleet.gpu_stack contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The transaction on a made environment, in this process; kills are exceptions that nothing handles."""

from __future__ import annotations

import json
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from ansible_collections.ocrfleet.gpu_stack.plugins.module_utils import (
    exchange,
    inventory,
    journal,
    staging,
    transaction,
)
from made_environment import SITE, add_distribution
from transaction_bench import (
    BOTH,
    LATER,
    RUN,
    Bench,
    Killed,
    Services,
    convert,
    killed_while_it_restarts,
    promote_and_be_killed,
)

pytestmark = pytest.mark.usefixtures("namespace")


@BOTH
def test_the_way_through_and_back(tmp_path: Path, strategy: str) -> None:
    bench = Bench(tmp_path, strategy)
    bench.work().begin()
    told = bench.work().describe()
    assert (told["state"], told["strategy"]) == ("open", strategy)
    assert (told["candidate"] is None) == (strategy == "in_place")
    assert [Path(export["path"]).parent for export in told["exports"]] == [bench.home]
    bench.change()
    assert bench.is_baseline() == (strategy == "staged")

    assert bench.work().promote() is True
    assert bench.is_result()
    assert bench.state == "promoted"
    assert bench.work().promote() is False
    assert bench.work().prove()["equal"] is False

    changed, proof = bench.work().restore()
    assert (changed, proof["equal"], proof["differences"]) == (True, True, [])
    assert bench.is_baseline()
    assert bench.leftovers() == []
    assert bench.work().restore()[0] is False


@pytest.mark.parametrize(
    ("file", "text", "command"),
    [
        ("INSTALLER", "uv", "/opt/uv pip install --python {python} --reinstall --no-deps tool==1.0"),
        ("INSTALLER", "conda", "conda install --prefix {tree} --yes --force-reinstall tool=1.0"),
        (
            "direct_url.json",
            '{"url": "file:///src/tool", "dir_info": {"editable": true}}',
            "/opt/uv pip install --python {python} --reinstall --no-deps --editable file:///src/tool",
        ),
        (
            "direct_url.json",
            '{"url": "file:///wheels/tool-1.0.whl"}',
            "/opt/uv pip install --python {python} --reinstall --no-deps 'tool @ file:///wheels/tool-1.0.whl'",
        ),
    ],
)
def test_what_is_damaged_is_repaired_from_where_it_came(bench: Bench, file: str, text: str, command: str) -> None:
    (bench.environment / SITE / "tool-1.0.dist-info" / file).write_text(text)
    (bench.environment / SITE / "tool/data.bin").unlink()
    with pytest.raises(transaction.Refused) as raised:
        bench.work(uv="/opt/uv").begin()
    quoted = {"tree": f"'{bench.environment}'", "python": f"'{bench.environment}/bin/python'"}
    assert raised.value.details["repair"] == command.format(**quoted)


@BOTH
@pytest.mark.parametrize("end", ["discard", "restore", "recover"])
def test_work_can_be_dropped(tmp_path: Path, strategy: str, end: str) -> None:
    bench = Bench(tmp_path, strategy)
    bench.work().begin()
    bench.change()
    getattr(bench.work(), end)()
    assert bench.is_baseline()
    bench.work().prune()
    assert bench.leftovers() == []
    assert bench.work().prove()["equal"] is True


@BOTH
def test_beginning_again_ends_what_was_left(tmp_path: Path, strategy: str) -> None:
    bench = Bench(tmp_path, strategy)
    bench.work().begin()
    bench.change()
    recovered = bench.work(owner={**RUN, "boot": "b2"}).begin()
    assert "left by x of ann" in recovered["found"]
    assert bench.is_baseline()
    assert bench.state == "open"


def kill_at(monkeypatch: pytest.MonkeyPatch, step: int, after: bool) -> None:
    """Kill at the `step`-th write, exchange or rename, before it is done or after."""
    count = 0

    def guarded(original: Callable[..., Any]) -> Callable[..., Any]:
        def call(*arguments: Any, **named: Any) -> Any:
            nonlocal count
            count += 1
            this = count
            if this == step and not after:
                raise Killed
            result = original(*arguments, **named)
            if this == step:
                raise Killed
            return result

        return call

    monkeypatch.setattr(journal, "write_file", guarded(journal.write_file))
    monkeypatch.setattr(exchange, "exchange", guarded(exchange.exchange))
    monkeypatch.setattr(transaction.clone, "make", guarded(transaction.clone.make))
    monkeypatch.setattr(transaction.clone, "remove", guarded(transaction.clone.remove))
    monkeypatch.setattr(transaction.os, "rename", guarded(os.rename))


def survives_a_kill(bench: Bench, action: str, step: int, after: bool) -> bool:
    """Kill `action` at `step`, recover as the next run does, and judge; False when there is no such step."""
    if action != "begin":
        bench.work().begin()
        bench.change()
    if action == "restore":
        bench.work().promote()
    with pytest.MonkeyPatch.context() as armed:
        kill_at(armed, step, after)
        try:
            getattr(bench.work(), action)()
            return False
        except Killed:
            pass
    if bench.strategy == "staged":
        assert bench.is_baseline() or bench.is_result()

    bench.work(owner={**RUN, "boot": "b2"}).recover()

    assert bench.is_baseline() or (action in ("promote", "restore") and bench.is_result())
    assert bench.state in ("none", "promoted", "restored", "discarded")
    assert bench.work().recover()["changed"] is False
    if not bench.is_baseline():
        assert bench.work().restore()[1]["equal"] is True
    bench.work().prune()
    assert bench.leftovers() == []
    return True


@BOTH
@pytest.mark.parametrize("after", [False, True], ids=["before", "after"])
@pytest.mark.parametrize(("action", "steps"), [("begin", 12), ("promote", 6), ("restore", 6), ("discard", 4)])
def test_a_kill_at_any_step_is_survived(tmp_path: Path, strategy: str, action: str, steps: int, after: bool) -> None:
    step = 1
    while True:
        (tmp_path / str(step)).mkdir()
        if not survives_a_kill(Bench(tmp_path / str(step), strategy), action, step, after):
            break
        step += 1
    assert step > steps, "the kills no longer reach the steps that they are meant for"


@pytest.mark.parametrize(
    ("harm", "named"),
    [
        (lambda site: (site / "tool/data.bin").unlink(), "tool 1.0: tool/data.bin: no such file"),
        (lambda site: (site / "tool-1.0.dist-info/RECORD").write_text("tool/__init__.py,"), "cut short"),
        (lambda site: (site / "tool-1.0.dist-info/METADATA").write_text(""), "METADATA"),
    ],
)
def test_a_damaged_environment_is_no_baseline(bench: Bench, harm: Callable[[Path], object], named: str) -> None:
    harm(bench.environment / SITE)
    with pytest.raises(transaction.Refused, match=named) as raised:
        bench.work().begin()
    assert "--reinstall --no-deps tool==1.0" in str(raised.value)
    assert bench.state == "none"


@BOTH
@pytest.mark.parametrize("end", ["promote", "restore"])
def test_an_edit_through_a_hard_link_is_found(tmp_path: Path, strategy: str, end: str) -> None:
    bench = Bench(tmp_path, strategy)
    bench.work().begin()
    with (bench.tree() / SITE / "tool/__init__.py").open("r+") as file:
        file.write("two = 2\n")  # as long as before
    if end == "promote":
        with pytest.raises(transaction.Refused, match="no longer what was frozen.*--no-deps tool==1.0"):
            bench.work().promote()
        assert bench.state == "open"
    else:
        proof = bench.work().restore()[1]
        assert proof["equal"] is False
        assert proof["differences"][0].startswith(f"{SITE}/tool/__init__.py: mtime")
        assert proof["repair"].endswith("tool==1.0")


def test_an_edit_that_keeps_size_and_time_is_found_by_the_deep_proof(bench: Bench) -> None:
    bench.work().begin()
    path = bench.environment / SITE / "tool/__init__.py"
    status = path.stat()
    path.write_text("two = 2\n")
    os.utime(path, ns=(status.st_atime_ns, status.st_mtime_ns))
    assert bench.work().prove()["equal"] is True
    assert bench.work(deep=True).prove()["differences"] == [
        f"{SITE}/tool/__init__.py: its contents are not those of its RECORD"
    ]


def test_an_incomplete_candidate_is_not_promoted(bench: Bench) -> None:
    bench.work().begin()
    bench.change()
    (bench.tree() / SITE / "flashinfer/__init__.py").unlink()
    with pytest.raises(transaction.Refused, match="flashinfer_python 0.3.1: flashinfer/__init__.py"):
        bench.work().promote()
    assert bench.is_baseline()


def test_a_change_of_production_meanwhile_is_not_overwritten(bench: Bench) -> None:
    bench.work().begin()
    bench.change()
    add_distribution(bench.environment, "tool", "1.1", {"tool/__init__.py": "new = 1\n"})
    with pytest.raises(transaction.Refused, match="changed production meanwhile"):
        bench.work().promote()


def test_another_run_is_refused_until_it_ends(bench: Bench) -> None:
    second = {**RUN, "pid": 20, "started": "200", "label": "second"}
    bench.work().begin()
    bench.change()
    for action in ("begin", "promote", "discard", "restore", "recover", "prune"):
        with pytest.raises(transaction.Contested, match="x of ann on control node deploy") as raised:
            getattr(bench.work(owner=second), action)()
        assert raised.value.details["contested"]["pid"] == 10
        assert raised.value.details["held"] is True
    bench.work().promote()
    with pytest.raises(transaction.Contested):
        bench.work(owner=second).begin()
    bench.work().prune()
    bench.work(owner=second).begin()
    with pytest.raises(transaction.Contested, match="second of ann"):
        bench.work().restore()


def test_a_lock_that_outlived_its_run_is_told_as_such(bench: Bench) -> None:
    convert(bench)
    with journal.lock(bench.work().state_dir), pytest.raises(transaction.Refused) as raised:
        bench.work(owner=LATER, lock_wait=0.0).recover()
    assert raised.value.details == {"held": True}


def test_a_second_run_is_told_before_it_waits_for_the_lock(bench: Bench) -> None:
    bench.work().begin()
    with journal.lock(bench.work().state_dir):
        for action in ("begin", "restore", "recover"):
            with pytest.raises(transaction.Contested):
                getattr(bench.work(owner={**RUN, "pid": 20, "started": "200"}, lock_wait=0.0), action)()


@pytest.mark.parametrize("freed", [{"gone": journal.key(RUN)}, {"takeover": True}])
def test_a_dead_run_gives_way(bench: Bench, freed: dict[str, Any]) -> None:
    bench.work().begin()
    bench.work(owner={**RUN, "pid": 20}, **freed).begin()
    assert bench.work().describe()["owner"]["pid"] == 20


def test_baselines_are_kept_and_any_of_them_comes_back(bench: Bench) -> None:
    ids = []
    for version in ("1.1", "1.2", "1.3"):
        bench.work().begin()
        ids.append(bench.work().describe()["id"])
        add_distribution(bench.tree(), "another", version, {})
        for old in bench.tree().glob(f"{SITE}/another-*.dist-info"):
            if version not in old.name:
                transaction.clone.remove(str(old))
        bench.work().promote()
    assert [found["id"] for found in bench.work().describe()["baselines"]] == ids[::-1]

    assert bench.work(baseline=ids[0]).restore()[1]["equal"] is True
    assert bench.is_baseline()
    assert bench.work(baseline=ids[2]).restore()[1]["equal"] is True
    assert list(bench.environment.glob(f"{SITE}/another-1.2.dist-info"))
    assert bench.work(baseline=ids[0]).restore()[1]["equal"] is True, "going forward must not lose the first baseline"
    assert bench.is_baseline()
    with pytest.raises(transaction.Refused, match=f"kept are: .*{ids[0]}"):
        bench.work(baseline="none").restore()


def test_prune_keeps_the_newest(bench: Bench) -> None:
    for _ in range(3):
        bench.work().begin()
        bench.work().promote()
    ids = [found["id"] for found in bench.work().describe()["baselines"]]
    assert bench.work(keep=2).prune() == ids[2:]
    assert [found["id"] for found in bench.work().describe()["baselines"]] == ids[:2]
    assert bench.work(keep=2).prune() == []


@pytest.mark.parametrize("action", ["restore", "recover"])
def test_what_a_killed_write_left_goes_with_the_next_end(bench: Bench, action: str) -> None:
    convert(bench)
    state = Path(bench.work().state_dir)
    half_written = [state / ".journal.json.1.new", next(state.glob("transactions/*")) / ".meta.json.1.new"]
    for path in half_written:
        path.write_bytes(b"{")
    getattr(bench.work(), action)()
    assert [path for path in half_written if path.exists()] == []


def test_an_environment_that_was_removed_comes_back(bench: Bench) -> None:
    bench.work().begin()
    bench.work().promote()
    transaction.clone.remove(str(bench.environment))
    assert bench.work().restore()[1]["equal"] is True
    assert bench.is_baseline()


def test_the_only_copy_is_not_dropped(bench: Bench) -> None:
    bench.work().begin()
    transaction.clone.remove(str(bench.environment))
    with pytest.raises(transaction.Refused, match="may be all that is left"):
        bench.work().recover()
    assert len(bench.leftovers()) == 1


@pytest.mark.parametrize("data", [b"", b"garbage \xff", b'{"format": 1, "sha256": "x", "body": {}}'])
@pytest.mark.parametrize(
    ("stage", "state"), [("begin", "discarded"), ("promote", "promoted"), ("restore", "discarded")]
)
@BOTH
def test_an_unreadable_journal_is_made_anew_from_the_trees(
    tmp_path: Path, strategy: str, stage: str, state: str, data: bytes
) -> None:
    bench = Bench(tmp_path, strategy)
    bench.work().begin()
    if stage != "begin":
        bench.change()
        bench.work().promote()
    if stage == "restore":
        bench.work().restore()
    path = Path(bench.work().journal_path)
    path.write_bytes(data)
    if strategy == "in_place" and stage == "begin":
        identifier = next(Path(bench.work().state_dir).glob("transactions/*")).name
        with pytest.raises(transaction.Refused, match=f"baseline: {identifier}"):
            bench.work().recover()
        assert bench.work(baseline=identifier).restore()[1]["equal"] is True
        return
    recovered = bench.work().recover()
    assert recovered["changed"] is True
    assert bench.state == state
    assert bench.is_result() == (state == "promoted")
    assert list(path.parent.glob("journal.json.unreadable-*"))


@pytest.mark.parametrize("strategy", ["staged", "in_place"])
def test_a_journal_of_another_environment_is_made_anew_too(tmp_path: Path, strategy: str) -> None:
    bench, other = Bench(tmp_path / "one", strategy), Bench(tmp_path / "two", strategy)
    convert(bench)
    other.work().begin()
    path = Path(bench.work().journal_path)
    path.write_bytes(Path(other.work().journal_path).read_bytes())
    assert bench.work().describe()["problem"] == f"it is that of another environment, {other.environment}"
    assert bench.work(owner=LATER).recover()["changed"] is True
    assert (bench.state, bench.is_result()) == ("promoted", True)


def test_an_environment_that_was_moved_keeps_its_journal(bench: Bench, tmp_path: Path) -> None:
    convert(bench)
    folder = tmp_path / "moved"
    os.rename(bench.environment.parent, folder)
    moved = transaction.Transaction(transaction.Options(str(folder / bench.environment.name), owner=RUN))
    assert (moved.describe()["state"], moved.describe()["problem"]) == ("promoted", None)


def test_an_unreadable_journal_after_going_back_leads_no_step_forward(bench: Bench) -> None:
    convert(bench)
    bench.work(owner=LATER).begin()
    bench.work(owner=LATER).promote()
    bench.work(owner=LATER).prune()
    oldest = bench.work().describe()["baselines"][-1]["id"]
    bench.work(owner={**RUN, "pid": 12}, baseline=oldest).restore()
    Path(bench.work().journal_path).write_bytes(b"garbage")
    bench.work().recover()
    assert bench.is_baseline()
    assert bench.work().describe()["id"] == oldest


def test_an_unreadable_journal_beside_an_unknown_environment_names_every_way(bench: Bench) -> None:
    convert(bench)
    (kept,) = bench.work().describe()["baselines"]
    transaction.clone.make(str(bench.environment), str(bench.environment) + "-copy", [], reflink=False)
    transaction.clone.remove(str(bench.environment))
    os.rename(str(bench.environment) + "-copy", bench.environment)
    Path(bench.work().journal_path).write_bytes(b"garbage")
    told = bench.work().describe()
    assert (told["state"], told["problem"]) == ("unreadable", "it is no JSON: cut short or overwritten")
    assert told["baselines"] == [kept]
    with pytest.raises(transaction.Refused, match=rf"{kept['id']} \(FlashInfer not installed, at .*action: restore"):
        bench.work().recover()
    assert bench.work(baseline=kept["id"]).restore()[1]["equal"] is True


def test_spoilt_hashes_are_named_and_all_else_is_proven(bench: Bench) -> None:
    bench.work().begin()
    path = Path(bench.work().state_dir) / "transactions" / bench.work().describe()["id"] / "hashes.json"
    path.write_text("{")
    assert bench.work().prove()["equal"] is True
    with pytest.raises(transaction.Refused, match="RECORD hashes of baseline .* cannot be read"):
        bench.work(deep=True).prove()


def test_a_proof_is_no_sign_of_life(bench: Bench) -> None:
    bench.work().begin()
    lock = Path(bench.work().state_dir) / "lock"
    os.utime(lock, (1, 1))
    bench.work(owner=LATER).prove()
    assert lock.stat().st_mtime == 1


@pytest.mark.parametrize("action", ["begin", "recover", "restore", "promote", "discard", "prune", "prove"])
def test_a_newer_journal_is_left_alone(bench: Bench, action: str) -> None:
    bench.work().begin()
    path = Path(bench.work().journal_path)
    newer = path.read_bytes().replace(b'"format": 1', b'"format": 2')
    path.write_bytes(newer)
    with pytest.raises(transaction.Refused, match="newer version"):
        getattr(bench.work(baseline=""), action)()
    assert path.read_bytes() == newer


def test_a_host_copied_file_by_file_still_knows_its_baseline(bench: Bench, tmp_path: Path) -> None:
    bench.work().begin()
    bench.change()
    bench.work().promote()
    (tmp_path / "taken").mkdir()
    parent = bench.environment.parent
    os.rename(parent, tmp_path / "taken/away")
    transaction.clone.make(str(tmp_path / "taken/away"), str(parent), [], reflink=False)
    assert bench.work().recover()["changed"] is False
    assert bench.work().restore()[1]["equal"] is True
    assert bench.is_baseline()


@pytest.mark.parametrize("exchanged", [True, False])
def test_a_host_copied_file_by_file_while_it_promoted_keeps_its_baseline(
    bench: Bench, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, exchanged: bool
) -> None:
    bench.work().begin()
    bench.change()
    original = transaction.Transaction._exchange

    def killed(work: transaction.Transaction, tree: str) -> None:
        if exchanged:
            original(work, tree)
        raise Killed

    monkeypatch.setattr(transaction.Transaction, "_exchange", killed)
    with pytest.raises(Killed):
        bench.work().promote()
    monkeypatch.undo()
    monkeypatch.setattr(staging, "unavailable", lambda timeout=20: None)
    (tmp_path / "taken").mkdir()
    parent = bench.environment.parent
    os.rename(parent, tmp_path / "taken/away")
    transaction.clone.make(str(tmp_path / "taken/away"), str(parent), [], reflink=False)
    done = bench.work().recover()["done"]
    assert ("finished the promotion" in done) == exchanged
    assert bench.is_result() == exchanged
    if exchanged:
        bench.work().restore()
    assert bench.is_baseline()


def test_a_link_is_resolved_and_told(bench: Bench, tmp_path: Path) -> None:
    link = tmp_path / "production"
    link.symlink_to(bench.environment)
    bench.work(environment=str(link)).begin()
    assert bench.work(environment=str(link)).describe()["environment"] == str(bench.environment)
    assert "is a link to" in bench.warnings[0]
    assert link.is_symlink()


@pytest.mark.parametrize(
    ("prepare", "told"),
    [
        (lambda tree: (tree / "pyvenv.cfg").unlink(), "is no Python environment"),
        (lambda tree: (tree / "condabin").mkdir(), "conda's base environment"),
        (lambda tree: os.rename(tree, tree.parent / "moved"), "is no Python environment"),
    ],
)
def test_what_is_no_environment_is_refused(bench: Bench, prepare: Callable[[Path], object], told: str) -> None:
    prepare(bench.environment)
    with pytest.raises(transaction.Refused, match=told):
        bench.work().begin()


def test_a_relative_path_is_refused() -> None:
    with pytest.raises(transaction.Refused, match="absolute"):
        transaction.Transaction(transaction.Options(environment="envs/x"))


def test_another_filesystem_is_refused(bench: Bench) -> None:
    elsewhere = Path("/dev/shm") / f"gpu-stack-test-{os.getpid()}"  # noqa: S108 - any other filesystem
    if not elsewhere.parent.is_dir() or elsewhere.parent.stat().st_dev == bench.environment.stat().st_dev:
        pytest.skip("there is no second filesystem here")
    try:
        with pytest.raises(transaction.Refused, match="another filesystem"):
            bench.work(state_dir=str(elsewhere)).begin()
    finally:
        transaction.clone.remove(str(elsewhere))


def test_services_are_restarted_after_an_exchange_and_a_loss_is_told(bench: Bench, restarts: Services) -> None:
    bench.work(services=["ocr"]).begin()
    assert restarts.asked == []
    bench.change()
    restarts.errors = ["found failed"]
    with pytest.raises(transaction.Refused, match="promoted, but not every service came back: ocr: found failed"):
        bench.work(services=["ocr"]).promote()
    with pytest.raises(transaction.Refused, match="restored, but not every service") as raised:
        bench.work(services=["ocr"]).restore()
    assert raised.value.details["proof"]["equal"] is True
    assert bench.is_baseline()
    assert restarts.asked == [["ocr"], ["ocr"]]


@pytest.mark.parametrize("recovered", [True, False], ids=["services back with the baseline", "not even then"])
def test_a_promotion_cut_off_whose_services_do_not_come_back_is_taken_back(
    bench: Bench, restarts: Services, recovered: bool
) -> None:
    promote_and_be_killed(bench, restarts)
    restarts.errors = ["found failed", ""] if recovered else ["found failed"]
    if recovered:
        done = bench.work(owner={**RUN, "boot": "b2"}).recover()["done"]
        assert "ocr: found failed; put baseline" in done
    else:
        with pytest.raises(transaction.Refused, match="restored, but not every service came back") as raised:
            bench.work(owner={**RUN, "boot": "b2"}).recover()
        assert raised.value.details["changed"] is True
    assert bench.is_baseline()
    assert bench.state == "restored"
    # Told once more by the run after it, and then no more.
    restarts.errors = ["found failed"]
    again = bench.work(owner={**RUN, "boot": "b2"}).recover()
    assert again["changed"] is not recovered
    assert ("not every one came back: ocr: found failed" in again["done"]) is not recovered
    assert bench.work(owner={**RUN, "boot": "b2"}).recover()["changed"] is False


@pytest.mark.parametrize("action", ["restore", "recover"])
def test_a_restore_cut_off_at_the_services_restarts_them(bench: Bench, restarts: Services, action: str) -> None:
    bench.work(services=["ocr"]).begin()
    bench.change()
    bench.work().promote()
    killed_while_it_restarts(restarts)
    with pytest.raises(Killed):
        bench.work().restore()
    restarts.then = lambda: None
    restarts.asked.clear()
    getattr(bench.work(), action)()
    assert restarts.asked == [["ocr"]]
    assert bench.is_baseline()


@pytest.mark.parametrize("end", ["recover", "discard", "restore"])
def test_services_of_an_environment_changed_in_place_are_restarted_with_its_baseline(
    tmp_path: Path, restarts: Services, end: str
) -> None:
    bench = Bench(tmp_path, "in_place")
    bench.work(services=["ocr"]).begin()
    bench.change()
    getattr(bench.work(), end)()
    assert restarts.asked == [["ocr"]]
    assert bench.is_baseline()


def test_a_restore_on_demand_tells_that_it_changed_something_though_a_service_is_lost(
    bench: Bench, restarts: Services
) -> None:
    convert(bench)
    restarts.errors = ["found failed"]
    with pytest.raises(transaction.Refused, match="ocr: found failed") as raised:
        bench.work(owner=LATER, services=["ocr"]).restore()
    assert raised.value.details["changed"] is True
    assert bench.is_baseline()


def test_services_that_a_kill_left_behind_are_restarted(bench: Bench, restarts: Services) -> None:
    promote_and_be_killed(bench, restarts)
    restarts.asked.clear()
    assert bench.work().recover()["done"] == "the exchange had happened; finished the promotion, restarted ocr"
    assert restarts.asked == [["ocr"]]
    assert bench.is_result()


def test_no_space_after_the_exchange_keeps_neither_baseline_nor_services_away(
    bench: Bench, restarts: Services, monkeypatch: pytest.MonkeyPatch
) -> None:
    bench.work(services=["ocr"]).begin()
    bench.change()
    bench.work().promote()
    original = journal.write_file

    def full(path: str, data: bytes, owner: tuple[int, int] | None = None) -> None:
        raise OSError(28, "No space left on device")

    def no_inode(path: str, mode: int = 0o777) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(journal, "write_file", full)
    monkeypatch.setattr(transaction.os, "mkdir", no_inode)
    changed, proof = bench.work().restore()
    assert (changed, proof["equal"]) == (True, True)
    assert restarts.asked == [["ocr"], ["ocr"]]
    assert "could not be brought up to date" in bench.warnings[-1]
    monkeypatch.setattr(journal, "write_file", original)
    bench.work().recover()
    assert bench.is_baseline()
    assert bench.state in ("restored", "promoted")
    assert bench.leftovers() == []


def test_a_full_disk_does_not_keep_the_baseline_away(bench: Bench, monkeypatch: pytest.MonkeyPatch) -> None:
    bench.work().begin()
    bench.change()
    bench.work().promote()
    original = journal.write_file
    ballast = Path(bench.work().state_dir) / "ballast"

    def full(path: str, data: bytes, owner: tuple[int, int] | None = None) -> None:
        if ballast.exists():
            raise OSError(28, "No space left on device")
        original(path, data, owner)

    monkeypatch.setattr(journal, "write_file", full)
    assert bench.work().restore()[1]["equal"] is True
    assert bench.is_baseline()
    assert (bench.state, bench.warnings) == ("restored", [])  # the ballast gave way to the journal


def listing(bench: Bench) -> dict[str, Any]:
    """The trees and the state folder, as far as anything could have touched them."""
    return inventory.take(str(bench.environment.parent))


def test_check_mode_tells_and_touches_nothing(bench: Bench) -> None:
    assert bench.work().plan("begin")[0].startswith(f"freeze {bench.environment}: ")
    assert not Path(bench.work().state_dir).exists()
    with pytest.raises(transaction.Refused, match="open transaction"):
        bench.work().plan("promote")
    with pytest.raises(transaction.Refused, match="no baseline"):
        bench.work().plan("restore")
    bench.work().begin()
    bench.change()
    identifier = bench.work().describe()["id"]
    before = listing(bench)
    dropped = f"drop the candidate of transaction {identifier}, left at open"
    exchanged = f"exchange baseline {identifier} in at {bench.environment}, and prove it"
    restarted = "restart ocr, and see it active"
    assert bench.work(services=["ocr"]).plan("promote") == [
        f"make the candidate of transaction {identifier} the environment {bench.environment}",
        restarted,
    ]
    for action in ("restore", "discard", "recover"):
        assert bench.work().plan(action) == [dropped]
    assert bench.work().plan("begin")[0] == dropped
    with pytest.raises(transaction.Refused, match="prune waits"):
        bench.work().plan("prune")
    assert listing(bench) == before
    bench.work().promote()
    before = listing(bench)
    assert bench.work(services=["ocr"]).plan("restore") == [exchanged, restarted]
    assert bench.work().plan("discard") == bench.work().plan("recover") == bench.work().plan("prune") == []
    assert listing(bench) == before
    assert bench.is_result()


def test_check_mode_refuses_what_the_action_would_refuse(bench: Bench) -> None:
    bench.work().begin()
    bench.change()
    (bench.tree() / SITE / "flashinfer/__init__.py").unlink()
    with pytest.raises(transaction.Refused, match="is not complete"):
        bench.work().plan("promote")


def test_check_mode_looks_at_both_trees_before_it_promises_to_promote(bench: Bench) -> None:
    bench.work().begin()
    bench.change()
    (bench.environment / "written meanwhile").touch()
    with pytest.raises(transaction.Refused, match="written meanwhile: was not there"):
        bench.work().plan("promote")
    (bench.environment / "written meanwhile").unlink()
    os.rename(bench.environment, str(bench.environment) + "-moved")
    with pytest.raises(transaction.Refused, match="was replaced by something else"):
        bench.work().plan("promote")


def test_check_mode_promises_no_damaged_baseline(bench: Bench) -> None:
    convert(bench)
    (kept,) = bench.leftovers()
    (Path(kept) / SITE / "tool/data.bin").unlink()
    with pytest.raises(transaction.Refused, match="no longer what was frozen"):
        bench.work(owner=LATER).plan("restore")


def test_a_group_that_the_owner_is_not_in_is_refused_in_check_mode_too(
    bench: Bench, monkeypatch: pytest.MonkeyPatch
) -> None:
    uid = os.stat(bench.environment).st_uid
    monkeypatch.setattr(transaction.os, "geteuid", lambda: uid or 1)
    monkeypatch.setattr(transaction.Transaction, "_check_place", lambda work: None)
    monkeypatch.setattr(transaction.os, "getgroups", lambda: [54321])
    monkeypatch.setattr(transaction.os, "getegid", lambda: 54321)
    for ask in (bench.work().begin, lambda: bench.work().plan("begin")):
        with pytest.raises(transaction.Refused, match=r"group that uid \d+ is not in.*chgrp -hR 54321"):
            ask()


@pytest.mark.parametrize(
    ("strategy", "action", "told"),
    [
        ("staged", "promote", "finish the promotion of"),
        ("staged", "restore", "finish the restore of"),
        ("in_place", "promote", "exchange the baseline back in"),
    ],
)
def test_check_mode_tells_how_a_killed_run_would_be_ended(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, strategy: str, action: str, told: str
) -> None:
    bench = Bench(tmp_path, strategy)
    bench.work().begin()
    bench.change()
    if action == "restore":
        bench.work().promote()
    original = transaction.Transaction._write

    def killed(work: transaction.Transaction, record: Any, owner: Any) -> None:
        if record and record["state"] in ("promoted", "restored"):
            raise Killed
        original(work, record, owner)

    monkeypatch.setattr(transaction.Transaction, "_write", killed)
    with pytest.raises(Killed):
        getattr(bench.work(), action)()
    monkeypatch.undo()
    monkeypatch.setattr(staging, "unavailable", lambda timeout=20: None)
    plan = bench.work().plan("recover")
    assert plan[0].startswith(told)
    bench.work().recover()
    assert bench.work().plan("recover") == []


def test_the_journal_is_plain_json(bench: Bench) -> None:
    bench.work().begin()
    body = json.loads(Path(bench.work().journal_path).read_text())["body"]
    assert body["transaction"]["state"] == "open"
    assert body["owner"]["pid"] == 10


def test_another_release_starts_from_the_baseline_without_any(bench: Bench) -> None:
    bench.work().begin()
    plain = bench.work().describe()["baseline_id"]
    add_distribution(bench.tree(), "flashinfer_python", "0.3.1", {"flashinfer/__init__.py": "\n"})
    add_distribution(bench.tree(), "only_for_0_3", "1", {"only.py": "\n"})
    bench.work().promote()
    bench.work().prune()

    bench.work(source=plain).begin()
    assert not (bench.tree() / SITE / "only.py").exists()
    assert (bench.environment / SITE / "only.py").exists()  # production is as it was
    add_distribution(bench.tree(), "flashinfer_python", "0.5.3", {"flashinfer/__init__.py": "# newer\n"})
    bench.work().promote()
    bench.work(keep=1).prune()

    told = bench.work().describe()["baselines"]
    assert [found["flashinfer"] for found in told] == ["0.3.1", None]  # the plain one outlives its turn
    assert not (bench.environment / SITE / "only.py").exists()
    bench.work(baseline=plain).restore()
    assert inventory.differences(bench.before, inventory.take(str(bench.environment))) == []


def test_a_source_that_is_not_kept_is_refused(bench: Bench) -> None:
    with pytest.raises(transaction.Refused, match="no baseline nonsense is kept"):
        bench.work(source="nonsense").begin()
    assert inventory.differences(bench.before, inventory.take(str(bench.environment))) == []


def test_going_back_on_demand_refuses_a_baseline_that_is_no_longer_what_was_frozen(bench: Bench) -> None:
    convert(bench)
    (kept,) = bench.leftovers()
    (Path(kept) / SITE / "tool/data.bin").unlink()
    with pytest.raises(transaction.Refused, match=r"no longer what was frozen: .*tool/data.bin: missing"):
        bench.work(owner=LATER).restore()
    assert bench.is_result()
    assert bench.leftovers() == [kept]


def test_what_a_failed_proof_replaced_is_left_and_told(bench: Bench) -> None:
    bench.work().begin()
    bench.change()
    bench.work().promote()
    (kept,) = bench.leftovers()
    (Path(kept) / SITE / "tool/data.bin").unlink()
    changed, proof = (
        bench.work().restore()
    )  # the run that changed it: its result failed, so the baseline comes all the same
    assert (changed, proof["equal"]) == (True, False)
    assert len(bench.leftovers()) == 1
    assert "is kept at" in bench.warnings[-1]
    bench.work().recover()
    assert len(bench.leftovers()) == 1
    bench.work().prune()
    assert bench.leftovers() == []


@pytest.mark.parametrize("taken_back", ["discard", "restore"])
def test_the_way_back_leads_past_a_run_that_failed(bench: Bench, taken_back: str) -> None:
    convert(bench)
    bench.work(owner=LATER).begin()
    if taken_back == "restore":
        bench.work(owner=LATER).promote()
    getattr(bench.work(owner=LATER), taken_back)()
    bench.work(owner=LATER).prune()
    again = {**RUN, "pid": 12}
    assert "exchange baseline" in bench.work(owner=again).plan("restore")[0]
    told = bench.work(owner=again).describe()["way_back"]
    changed, proof = bench.work(owner=again).restore()
    assert (changed, proof["equal"], proof["baseline_id"]) == (True, True, told)
    assert bench.is_baseline()
    # Asked once more it is where it should be: no step further back.
    assert bench.work(owner={**RUN, "pid": 13}).restore()[0] is False
    assert bench.is_baseline()


def test_a_return_that_ends_a_killed_run_leads_no_step_further_when_asked_for_again(bench: Bench) -> None:
    convert(bench)
    bench.work(owner=LATER).begin()
    for pid in (12, 13):
        bench.work(owner={**RUN, "pid": pid}, takeover=True).restore()
        assert bench.is_result()
    assert bench.work(owner={**RUN, "pid": 14}).plan("restore") == []


def test_a_result_is_not_kept_for_a_run_that_never_promoted(bench: Bench) -> None:
    convert(bench)
    bench.work(owner=LATER).begin()
    bench.work(owner=LATER).restore()  # its folder stays till the next begin, and names the result as its baseline
    bench.work(owner={**RUN, "pid": 12}).restore()
    assert bench.is_baseline()
    assert bench.leftovers() == []


def test_production_is_looked_at_after_all_that_takes_long(bench: Bench, monkeypatch: pytest.MonkeyPatch) -> None:
    bench.work().begin()
    bench.change()
    original = exchange.sync_filesystem

    def slow(folder: str) -> None:
        original(folder)
        (bench.environment / "written meanwhile").touch()

    monkeypatch.setattr(exchange, "sync_filesystem", slow)
    with pytest.raises(transaction.Refused, match="written meanwhile: was not there"):
        bench.work().promote()
