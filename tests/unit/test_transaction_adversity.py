# Copyright (c) 2026 The ocrfleet.gpu_stack contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Two misfortunes at once: a kill and a damaged baseline, a spoilt file and a full disk, a clock that goes back."""

from __future__ import annotations

import datetime
import json
import os
import shlex
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from ansible_collections.ocrfleet.gpu_stack.plugins.module_utils import freeze, journal, state_folder, transaction
from made_environment import SITE, add_distribution, make_environment
from transaction_bench import LATER, RUN, Bench, Killed, Services, convert, promote_and_be_killed

pytestmark = pytest.mark.usefixtures("namespace")
NEXT = {**RUN, "boot": "b2"}
OTHERS = [{**RUN, "pid": pid} for pid in range(12, 16)]


def killed(call: Callable[[], object], exchanged: bool) -> None:
    """Kill `call` right before or right after the exchange of the trees."""
    original = transaction.Transaction._exchange

    def exchange(work: transaction.Transaction, tree: str) -> None:
        if exchanged:
            original(work, tree)
        raise Killed

    with pytest.MonkeyPatch.context() as patched:
        patched.setattr(transaction.Transaction, "_exchange", exchange)
        with pytest.raises(Killed):
            call()


def edit_through_a_link(bench: Bench) -> None:
    with (bench.tree() / SITE / "tool/__init__.py").open("r+") as file:
        file.write("two = 2\n")


def cycle(bench: Bench, owner: dict[str, Any] = RUN) -> None:
    """A run that promotes what it changed nothing of, and lets go."""
    bench.work(owner=owner).begin()
    bench.work(owner=owner).promote()
    bench.work(owner=owner).prune()


def make_anew(bench: Bench) -> None:
    """Another environment at the path. The old one goes last, or the new folder may get its inode number."""
    old = str(bench.environment) + "-old"
    os.rename(bench.environment, old)
    make_environment(bench.environment)
    transaction.clone.remove(old)


def promoted(bench: Bench) -> Path:
    """Promote a change; gives the tree of the kept baseline."""
    bench.work().begin()
    bench.change()
    bench.work().promote()
    (kept,) = bench.leftovers()
    return Path(kept)


@pytest.mark.parametrize("end", ["recover", "discard", "begin"])
@pytest.mark.parametrize("strategy", ["staged", "in_place"])
def test_an_edit_of_the_baseline_is_told_by_whoever_ends_the_transaction(
    tmp_path: Path, strategy: str, end: str
) -> None:
    bench = Bench(tmp_path, strategy)
    bench.work().begin()
    edit_through_a_link(bench)
    owner = RUN if end == "discard" else NEXT
    with pytest.raises(transaction.Refused, match=r"not what was frozen: .*tool/__init__.py: mtime.*tool==1.0"):
        getattr(bench.work(owner=owner), end)()


@pytest.mark.parametrize("end", ["recover", "discard", "begin"])
def test_a_restore_that_is_finished_for_another_is_proven(bench: Bench, end: str) -> None:
    kept = promoted(bench)
    (kept / "notes.txt").unlink()
    killed(lambda: bench.work().restore(), exchanged=True)
    with pytest.raises(transaction.Refused, match=r"finished the restore.*notes.txt: missing"):
        getattr(bench.work(owner=NEXT), end)()
    assert [Path(left).parent.name for left in bench.leftovers()] == ["held-back"]


def test_a_restore_that_was_killed_before_its_proof_is_proven(bench: Bench, monkeypatch: pytest.MonkeyPatch) -> None:
    kept = promoted(bench)
    (kept / "notes.txt").unlink()

    def kill(*arguments: Any) -> None:
        raise Killed

    monkeypatch.setattr(transaction.Transaction, "_proof", kill)
    with pytest.raises(Killed):
        bench.work().restore()
    monkeypatch.undo()
    with pytest.raises(transaction.Refused, match=r"notes.txt: missing"):
        bench.work(owner=NEXT).recover()
    assert [Path(left).parent.name for left in bench.leftovers()] == ["held-back"]


def test_a_promotion_taken_back_is_proven(bench: Bench, restarts: Services) -> None:
    promote_and_be_killed(bench, restarts)
    (kept,) = bench.leftovers()
    (Path(kept) / "notes.txt").unlink()
    restarts.errors = ["found failed", ""]
    with pytest.raises(transaction.Refused, match=r"ocr: found failed; put baseline .* back.*notes.txt: missing"):
        bench.work(owner=NEXT).recover()


def test_no_candidate_is_made_from_a_damaged_baseline(bench: Bench) -> None:
    convert(bench)
    (kept,) = bench.leftovers()
    plain = bench.work().describe()["id"]
    shutil.rmtree(Path(kept) / SITE / "tool")
    shutil.rmtree(Path(kept) / SITE / "tool-1.0.dist-info")  # whole, so that no RECORD misses anything
    for ask in ("begin", "plan"):
        work = bench.work(owner=LATER, source=plain)
        with pytest.raises(transaction.Refused, match="no longer what was frozen"):
            work.begin() if ask == "begin" else work.plan("begin")
    assert bench.is_result()


def test_a_spoilt_meta_file_stops_the_promotion_and_no_way_back(bench: Bench) -> None:
    bench.work().begin()
    bench.change()
    folder = Path(bench.work().state_dir) / "transactions" / bench.work().describe()["id"]
    (folder / "meta.json").write_text("{")
    with pytest.raises(transaction.Refused, match=r"meta.json cannot be read, so nothing was promoted"):
        bench.work().promote()
    assert bench.is_baseline()
    bench.work().discard()
    bench.work().begin()
    assert bench.is_baseline()


def test_a_meta_file_spoilt_after_the_promotion_keeps_no_baseline_away(bench: Bench) -> None:
    kept = promoted(bench)
    (kept.parent / "meta.json").write_text("{")
    assert bench.work().restore()[1]["equal"] is True
    assert bench.is_baseline()


def test_the_baseline_of_the_last_change_outlives_a_clock_that_was_set_back(
    bench: Bench, monkeypatch: pytest.MonkeyPatch
) -> None:
    for _ in range(3):
        cycle(bench)
    real = datetime.datetime

    class Back(real):
        @classmethod
        def now(cls, tz: datetime.tzinfo | None = None) -> datetime.datetime:  # type: ignore[override]
            return real.now(tz) - datetime.timedelta(days=1)

    monkeypatch.setattr(transaction.datetime, "datetime", Back)
    before = bench.work().describe()["id"]
    cycle(bench)
    last = bench.work().describe()
    assert last["id"] > before
    assert last["baselines"][0]["id"] == last["id"]
    bench.work(owner=LATER, keep=1).prune()
    assert [found["id"] for found in bench.work().describe()["baselines"]][0] == last["id"]


@pytest.mark.parametrize("end", ["failed", "killed"])
def test_a_baseline_is_pruned_whole_or_not_at_all(bench: Bench, monkeypatch: pytest.MonkeyPatch, end: str) -> None:
    for _ in range(2):
        cycle(bench)
    promoted_id = bench.work().describe()["id"]

    def half(tree: str, fds: tuple[int, ...] = ()) -> None:
        shutil.rmtree(os.path.join(tree, "tree", SITE))
        raise Killed if end == "killed" else transaction.clone.CloneError("rm: Operation not permitted")

    with monkeypatch.context() as patched:
        patched.setattr(transaction.clone, "remove", half)
        if end == "killed":
            with pytest.raises(Killed):
                bench.work(owner=LATER, keep=1).prune()
        else:
            bench.work(owner=LATER, keep=1).prune()
            assert "could not be removed yet" in bench.warnings[-1]
    listed = bench.work().describe()["baselines"]
    assert promoted_id in [found["id"] for found in listed]
    assert all((Path(found["path"]) / SITE).exists() for found in listed)


def test_a_journal_unreadable_in_the_middle_of_a_restore_blocks_nothing(bench: Bench) -> None:
    promoted(bench)
    killed(lambda: bench.work().restore(), exchanged=True)
    Path(bench.work().journal_path).write_bytes(b"garbage")
    assert "finished the restore" in bench.work(owner=NEXT).recover()["done"]
    assert bench.is_baseline()
    assert bench.state == "restored"


def test_a_promotion_found_without_its_journal_is_noted_as_one(bench: Bench) -> None:
    bench.work().begin()
    bench.change()
    killed(lambda: bench.work().promote(), exchanged=True)
    Path(bench.work().journal_path).write_bytes(b"garbage")
    bench.work(owner=NEXT).recover()
    meta = Path(bench.work().state_dir) / "transactions" / bench.work().describe()["id"] / "meta.json"
    assert json.loads(meta.read_text())["promoted"] is True
    assert bench.state == "promoted"


def test_a_begin_that_fails_makes_no_step_forward_of_the_way_back(
    bench: Bench, monkeypatch: pytest.MonkeyPatch
) -> None:
    convert(bench)
    bench.work(owner=LATER).begin()
    add_distribution(bench.tree(), "more", "1", {"more.py": "\n"})
    bench.work(owner=LATER).promote()
    bench.work(owner=LATER).prune()
    oldest = bench.work().describe()["baselines"][-1]["id"]
    bench.work(owner=OTHERS[0], baseline=oldest).restore()
    with monkeypatch.context() as patched:
        patched.setattr(transaction.clone, "shortage", lambda *arguments: "no space")
        with pytest.raises(transaction.Refused, match="no space"):
            bench.work(owner=OTHERS[1]).begin()
    with monkeypatch.context() as patched:

        def kill(*arguments: Any) -> None:
            raise Killed

        patched.setattr(transaction.clone, "shortage", kill)
        with pytest.raises(Killed):
            bench.work(owner=OTHERS[2]).begin()
    bench.work(owner={**OTHERS[2], "boot": "b2"}).recover()
    assert bench.work(owner=OTHERS[3]).restore()[0] is False
    assert bench.is_baseline()


def test_a_begin_that_is_refused_leaves_the_evidence_of_the_last_baseline(bench: Bench) -> None:
    promoted(bench)
    bench.work().restore()
    (bench.environment / SITE / "tool/data.bin").unlink()
    with pytest.raises(transaction.Refused, match="is damaged"):
        bench.work(owner=LATER).begin()
    assert f"{SITE}/tool/data.bin: missing" in bench.work().prove()["differences"]


def test_what_was_edited_in_place_is_no_baseline_of_an_earlier_begin_that_came_to_nothing(tmp_path: Path) -> None:
    bench = Bench(tmp_path, "in_place")
    with pytest.MonkeyPatch.context() as patched:

        def kill(*arguments: Any) -> None:
            raise Killed

        patched.setattr(transaction.clone, "make", kill)
        with pytest.raises(Killed):
            bench.work().begin()
    bench.work(owner=NEXT).begin()
    bench.change()
    bench.work(owner={**RUN, "boot": "b3"}).recover()
    assert bench.is_baseline()
    assert bench.leftovers() == []


@pytest.mark.parametrize("spoilt", ["no inode", "inventory"])
def test_what_was_replaced_outlives_a_proof_that_does_not_come_to_its_end(
    bench: Bench, monkeypatch: pytest.MonkeyPatch, spoilt: str
) -> None:
    kept = promoted(bench)
    (kept / "notes.txt").unlink()
    with monkeypatch.context() as patched:
        if spoilt == "inventory":
            (kept.parent / "inventory.json").write_text("[")
            with pytest.raises(transaction.Refused, match="inventory of baseline"):
                bench.work().restore()
        else:

            def no_inode(path: str, mode: int = 0o777) -> None:
                raise OSError(28, "No space left on device", path)

            patched.setattr(transaction.os, "mkdir", no_inode)
            assert bench.work().restore()[1]["equal"] is False
    bench.work(owner=NEXT).recover()
    assert [Path(left).parent.name for left in bench.leftovers()] == ["held-back"]


def test_what_is_replaced_is_kept_where_that_is_asked_for(bench: Bench) -> None:
    convert(bench)
    assert bench.work(owner=LATER, keep_replaced=True).restore()[1]["equal"]
    (held,) = bench.leftovers()
    assert Path(held).parent.name == "held-back" and list(Path(held).glob("lib/python3*/site-packages/flashinfer"))
    assert "that was asked for, so what was replaced is kept" in bench.warnings[-1]


def test_an_environment_made_by_hand_since_is_held_back(bench: Bench) -> None:
    convert(bench)
    make_anew(bench)
    (bench.environment / "precious.txt").write_text("x")
    bench.work(owner=LATER).restore()
    assert bench.is_baseline()
    (held,) = bench.leftovers()
    assert (Path(held) / "precious.txt").exists()
    assert f"kept at {held} until the next prune" in bench.warnings[-1]
    assert bench.work(owner=LATER).plan("prune")[-1] == f"remove {held}, which was held back"
    assert held in bench.work(owner=LATER).prune()


def test_what_was_added_to_a_promoted_result_goes_with_it(bench: Bench) -> None:
    convert(bench)
    (bench.environment / "added since").touch()
    bench.work(owner=LATER).restore()
    assert bench.is_baseline()
    assert bench.leftovers() == []


def test_the_last_copy_is_not_dropped_beside_another_environment(bench: Bench) -> None:
    bench.work().begin()
    make_anew(bench)
    (bench.environment / "notes.txt").write_text("another one")
    with pytest.raises(transaction.Refused, match="is not the folder that was frozen"):
        bench.work(owner=NEXT).recover()
    assert len(bench.leftovers()) == 1


# --- services -------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("ways", [("recover", "recover"), ("recover", "begin"), ("recover", "restore")])
def test_no_service_is_restarted_without_an_exchange(bench: Bench, restarts: Services, ways: tuple[str, ...]) -> None:
    bench.work(services=["ocr"]).begin()
    bench.change()
    killed(lambda: bench.work().promote(), exchanged=False)
    for way in ways:
        getattr(bench.work(owner=NEXT), way)()
    assert restarts.asked == []


def test_promoting_again_and_prune_do_not_pass_over_a_service(bench: Bench, restarts: Services) -> None:
    bench.work(services=["ocr"]).begin()
    bench.change()
    restarts.errors = ["found failed"]
    for _ in range(2):
        with pytest.raises(transaction.Refused, match="ocr: found failed"):
            bench.work().promote()
    with pytest.raises(transaction.Refused, match="prune waits for the services of transaction"):
        bench.work().prune()
    restarts.errors = []
    assert bench.work().promote() is True
    bench.work().prune()
    assert restarts.asked == [["ocr"]] * 3


def test_the_way_back_past_several_changes_restarts_the_services_of_each(bench: Bench, restarts: Services) -> None:
    convert(bench)
    bench.work(owner=LATER, services=["ocr"]).begin()
    bench.work(owner=LATER).promote()
    bench.work(owner=LATER).prune()
    oldest = bench.work().describe()["baselines"][-1]["id"]
    restarts.asked.clear()
    bench.work(owner=OTHERS[0], baseline=oldest).restore()
    assert restarts.asked == [["ocr"]]


def test_a_lost_service_does_not_hide_an_unequal_proof(bench: Bench, restarts: Services) -> None:
    bench.work(services=["ocr"]).begin()
    kept = None
    bench.change()
    bench.work().promote()
    (kept,) = bench.leftovers()
    (Path(kept) / "notes.txt").unlink()
    restarts.errors = ["found failed"]
    with pytest.raises(transaction.Refused, match=r"ocr: found failed; and the baseline .* notes.txt: missing"):
        bench.work().restore()


# --- check mode -----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("wrong", [{"source": "nonsense"}, {"export_dir": "/nonexistent"}])
def test_check_mode_refuses_what_begin_refuses(bench: Bench, wrong: dict[str, str]) -> None:
    for ask in ("begin", "plan"):
        work = bench.work(**wrong)
        with pytest.raises(transaction.Refused):
            work.begin() if ask == "begin" else work.plan("begin")


def test_check_mode_knows_that_a_restore_takes_a_promotion_back_at_once(bench: Bench) -> None:
    bench.work().begin()
    bench.change()
    killed(lambda: bench.work().promote(), exchanged=True)
    identifier = bench.work().describe()["id"]
    assert bench.work().plan("restore") == [f"exchange baseline {identifier} in at {bench.environment}, and prove it"]
    bench.work().restore()
    assert bench.is_baseline()


def test_check_mode_tells_the_restarts_of_an_environment_changed_in_place(tmp_path: Path, restarts: Services) -> None:
    bench = Bench(tmp_path, "in_place")
    bench.work(services=["ocr"]).begin()
    bench.change()
    for action in ("recover", "restore", "discard"):
        assert bench.work().plan(action)[-1] == "restart ocr, and see it active"


def test_check_mode_plans_begin_beside_work_in_place(tmp_path: Path) -> None:
    bench = Bench(tmp_path, "in_place")
    bench.work().begin()
    transaction.clone.remove(str(bench.environment / SITE / "tool"))
    assert "exchange the baseline back in" in bench.work(owner=NEXT).plan("begin")[0]
    bench.work(owner=NEXT).begin()


# --- the way back, asked for again ----------------------------------------------------------------------------------


def test_a_run_that_dropped_its_work_goes_no_step_further_back(bench: Bench) -> None:
    convert(bench)
    bench.work(owner=LATER).begin()
    bench.work(owner=LATER).discard()
    assert bench.work(owner=LATER).restore()[0] is False  # its own baseline is what it began with
    assert bench.is_result()


def test_the_way_back_on_demand_is_one_step_however_often_it_is_asked_for(bench: Bench) -> None:
    convert(bench)
    cycle(bench, LATER)
    assert [bench.work(owner=owner).restore()[0] for owner in OTHERS[:2]] == [True, False]
    assert bench.is_result()


@pytest.mark.parametrize("freed", [{"gone": journal.key(RUN)}, {"takeover": True}, {"owner": NEXT}])
@pytest.mark.parametrize("strategy", ["staged", "in_place"])
def test_no_run_promotes_what_another_one_made(tmp_path: Path, strategy: str, freed: dict[str, Any]) -> None:
    bench = Bench(tmp_path, strategy)
    bench.work().begin()
    bench.change()
    for ask in ("promote", "plan"):
        work = bench.work(**{"owner": LATER, **freed})
        with pytest.raises(transaction.Refused, match=r"made by x of ann .* was verified.*action: recover"):
            work.promote() if ask == "promote" else work.plan("promote")
    assert bench.state == "open"
    bench.work(**{"owner": LATER, **freed}).recover()
    assert bench.is_baseline()


# --- begin ----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("where", ["in production", "in the clone"])
@pytest.mark.parametrize("strategy", ["staged", "in_place"])
def test_a_write_while_it_is_frozen_undoes_begin(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, strategy: str, where: str
) -> None:
    bench = Bench(tmp_path, strategy)
    original = transaction.clone.make

    def make(source: str, target: str, *settings: Any) -> None:
        original(source, target, *settings)
        Path(source if where == "in production" else target, "written meanwhile").touch()

    monkeypatch.setattr(transaction.clone, "make", make)
    with pytest.raises(transaction.Refused, match="while it was frozen: .*written meanwhile: was not there"):
        bench.work().begin()
    assert bench.leftovers() == []


def test_a_begin_that_is_undone_leaves_the_state_folder_as_it_was(
    bench: Bench, monkeypatch: pytest.MonkeyPatch
) -> None:
    convert(bench)
    state = Path(bench.work().state_dir)

    def found() -> tuple[dict[str, Any], list[str]]:
        return journal.read(bench.work().journal_path), sorted(str(path) for path in state.glob("*/*"))

    before = found()

    def fail(*arguments: Any) -> None:
        raise transaction.clone.CloneError("cp: Input/output error")

    monkeypatch.setattr(transaction.clone, "make", fail)
    with pytest.raises(transaction.Refused, match="begin failed and was undone"):
        bench.work(owner=LATER).begin()
    after = found()
    assert after[1] == before[1]
    assert (after[0]["owner"], after[0]["transaction"]["id"], after[0]["transaction"]["state"]) == (
        None,
        before[0]["transaction"]["id"],
        "promoted",
    )
    assert (state / "ballast").stat().st_size == state_folder.BALLAST  # the kept baseline may still need it


# --- the order of what is written -----------------------------------------------------------------------------------


def steps_of(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """Note each exchange, rename, sync and state of the journal from now on."""
    steps: list[str] = []

    def noting(name: str, original: Callable[..., Any], told: int) -> Callable[..., Any]:
        def call(*arguments: Any) -> Any:
            steps.append(" ".join([name, *map(str, arguments[:told])]))
            return original(*arguments)

        return call

    monkeypatch.setattr(transaction.exchange, "exchange", noting("exchange", transaction.exchange.exchange, 2))
    monkeypatch.setattr(transaction.exchange, "sync_folder", noting("sync", transaction.exchange.sync_folder, 1))
    monkeypatch.setattr(
        transaction.exchange, "sync_filesystem", noting("syncfs", transaction.exchange.sync_filesystem, 0)
    )
    monkeypatch.setattr(transaction.os, "rename", noting("rename", os.rename, 2))
    write = transaction.Transaction._write

    def writing(work: transaction.Transaction, record: dict[str, Any], owner: dict[str, Any] | None) -> None:
        write(work, record, owner)
        steps.append(f"journal {record['state']}")

    monkeypatch.setattr(transaction.Transaction, "_write", writing)
    return steps


def after(steps: list[str], step: str, many: int) -> list[str]:
    """The steps that follow one."""
    found = steps.index(step) + 1
    return steps[found : found + many]


@pytest.mark.parametrize("removed", [False, True])
def test_an_exchange_is_on_disk_before_anything_follows_from_it(
    bench: Bench, monkeypatch: pytest.MonkeyPatch, removed: bool
) -> None:
    tree = promoted(bench)
    if removed:
        transaction.clone.remove(str(bench.environment))
    steps = steps_of(monkeypatch)
    bench.work().restore()
    moved = f"{'rename' if removed else 'exchange'} {tree} {bench.environment}"
    assert after(steps, moved, 2) == [f"sync {bench.environment.parent}", f"sync {tree.parent}"]
    gone = [step for step in steps if step.startswith(f"rename {tree} ") and "/trash/" in step]
    assert [after(steps, step, 1) for step in gone] == ([] if removed else [[f"sync {tree.parent}"]])


def test_what_is_exchanged_in_is_on_disk_before_it_and_before_the_journal_says_so(
    bench: Bench, monkeypatch: pytest.MonkeyPatch
) -> None:
    steps = steps_of(monkeypatch)
    bench.work().begin()
    assert steps.index("journal cloning") < steps.index("syncfs") < steps.index("journal open")
    steps.clear()
    bench.change()
    candidate = bench.tree()
    bench.work().promote()
    writing = f"sync {bench.work().state_dir}"  # how the journal is put into its place, by a rename
    assert [step for step in steps if step != writing and not step.startswith("rename")] == [
        "syncfs",
        "journal promoting",
        f"exchange {candidate} {bench.environment}",
        f"sync {bench.environment.parent}",
        f"sync {candidate.parent}",  # after the exchange
        f"sync {candidate.parent}",  # after meta.json
        "journal promoted",
    ]


def test_a_tree_that_is_put_where_it_belongs_is_there_after_a_power_cut(
    bench: Bench, monkeypatch: pytest.MonkeyPatch
) -> None:
    promoted(bench)
    steps = steps_of(monkeypatch)
    first = Path(bench.work()._tree(bench.work().describe()["id"]))
    bench.work().prune()
    cycle(bench, LATER)
    second = Path(bench.work()._tree(bench.work().describe()["id"]))
    bench.work(owner=OTHERS[0], baseline=first.parent.name).restore()
    bench.work(owner=OTHERS[1], baseline=second.parent.name).restore()
    assert after(steps, f"rename {second} {first}", 2) == [f"sync {first.parent}", f"sync {second.parent}"]
    assert sorted(bench.leftovers()) == [str(first)]


def test_the_state_folder_is_on_disk_before_anything_is_in_it(bench: Bench, monkeypatch: pytest.MonkeyPatch) -> None:
    steps = steps_of(monkeypatch)
    bench.work().begin()
    assert steps[0] == f"sync {bench.environment.parent}"


# --- a folder made anew with the inode number of the one before it ---------------------------------------------------


def give_number(bench: Bench, path: Path, which: str) -> None:
    """Let journal and meta file say that a folder has the inode number of a tree, as where a number was used again."""
    work = bench.work()
    body = journal.read(work.journal_path)
    number = {f"{which}_ino": path.stat().st_ino}
    body["transaction"].update(number)
    Path(work.journal_path).write_bytes(journal.encode(body))
    meta = Path(work.state_dir) / "transactions" / body["transaction"]["id"] / "meta.json"
    meta.write_text(json.dumps({**json.loads(meta.read_text()), **number}))


@pytest.fixture
def generations(tmp_path: Path) -> None:
    if state_folder.generation(str(tmp_path)) is None:
        pytest.skip("this filesystem tells no generation of an inode")


@pytest.mark.usefixtures("generations")
def test_another_environment_is_no_baseline_by_its_number(bench: Bench) -> None:
    bench.work().begin()
    make_anew(bench)
    (bench.environment / "notes.txt").write_text("another one")
    give_number(bench, bench.environment, "baseline")
    with pytest.raises(transaction.Refused, match="is not the folder that was frozen"):
        bench.work(owner=NEXT).recover()
    assert len(bench.leftovers()) == 1


@pytest.mark.usefixtures("generations")
def test_another_environment_is_no_result_by_its_number(bench: Bench) -> None:
    convert(bench)
    make_anew(bench)
    (bench.environment / "precious.txt").write_text("x")
    give_number(bench, bench.environment, "result")
    bench.work(owner=LATER).restore()
    assert bench.is_baseline()
    (held,) = bench.leftovers()
    assert (Path(held) / "precious.txt").exists()


@pytest.mark.usefixtures("generations")
@pytest.mark.parametrize("which", ["baseline", "result"])
def test_nothing_is_promoted_beside_a_folder_made_anew(bench: Bench, which: str) -> None:
    bench.work().begin()
    tree = bench.environment if which == "baseline" else bench.tree()
    copy = tree.parent / "copy"
    transaction.clone.make(str(tree), str(copy), [], reflink=False)
    transaction.clone.remove(str(tree))
    os.rename(copy, tree)
    give_number(bench, tree, which)
    with pytest.raises(transaction.Refused, match="was replaced by something else since begin"):
        bench.work().promote()


@pytest.mark.parametrize("strategy", ["staged", "in_place"])
def test_a_journal_without_generations_is_read(tmp_path: Path, strategy: str) -> None:
    bench = Bench(tmp_path, strategy)
    bench.work().begin()
    bench.change()
    work = bench.work()
    body = journal.read(work.journal_path)
    meta = Path(work.state_dir) / "transactions" / body["transaction"]["id"] / "meta.json"
    for noted in (body["transaction"], known := json.loads(meta.read_text())):
        for name in ("baseline_generation", "result_generation"):
            del noted[name]
    meta.write_text(json.dumps(known))
    Path(work.journal_path).write_bytes(journal.encode(body))
    bench.work().promote()
    assert bench.is_result()
    assert bench.work().restore()[1]["equal"] is True
    assert bench.is_baseline()


# --- what repairs ---------------------------------------------------------------------------------------------------


def give_another_cuda(bench: Bench) -> None:
    """An edit that reaches both trees and leaves size and time alone: only PyTorch's values tell."""
    path = bench.tree() / SITE / "torch/version.py"
    status = path.stat()
    text = path.read_text()
    with path.open("r+") as file:
        file.write(text.replace("cu128", "cu126").replace("12.8", "12.6"))
    os.utime(path, ns=(status.st_atime_ns, status.st_mtime_ns))


def test_where_only_torch_tells_its_family_is_installed_again_as_it_was_frozen(bench: Bench) -> None:
    add_distribution(bench.environment, "nvidia_cublas_cu12", "12.8.4.1", {"nvidia/cublas.so": "x"})
    bench.work().begin()
    give_another_cuda(bench)
    proof = bench.work(uv="/opt/uv").restore()[1]
    assert (proof["equal"], proof["differences"], proof["damaged"]) == (False, [], [])
    again = "--reinstall --no-deps nvidia-cublas-cu12==12.8.4.1 torch==2.8.0"
    assert proof["repair"] == f"/opt/uv pip install --python '{bench.environment}/bin/python' {again}"
    assert f"torch cuda 12.6, was 12.8. To repair it: {proof['repair']}" in transaction.unequal(proof, changed=True)


def test_the_command_for_a_torch_that_does_not_import_is_there_though_its_files_are_as_frozen(bench: Bench) -> None:
    bench.work().begin()
    bench.work().restore()
    proof = bench.work(uv="/opt/uv").prove()
    assert (proof["equal"], proof["repair"]) == (True, "")
    assert proof["torch"]["repair"].endswith("--reinstall --no-deps torch==2.8.0")


def test_what_another_version_replaced_is_installed_again_as_it_was_frozen(bench: Bench) -> None:
    bench.work().begin()
    bench.work().restore()
    shutil.rmtree(bench.environment / SITE / "torch-2.8.0.dist-info")
    text = (bench.environment / SITE / "torch/version.py").read_text()
    add_distribution(bench.environment, "torch", "2.4.1", {"torch/version.py": text.replace("2.8.0+cu128", "2.4.1")})
    proof = bench.work(uv="/opt/uv").prove()
    assert proof["torch"]["found"]["metadata"] == "2.4.1"
    assert proof["repair"].endswith("--reinstall --no-deps torch==2.8.0")


@pytest.mark.parametrize("spoilt", ["missing", "of a version that did not note what is editable"])
def test_without_a_list_of_what_was_frozen_the_command_names_what_is_there(bench: Bench, spoilt: str) -> None:
    direct_url = '{"url": "file:///src/tool", "dir_info": {"editable": true}}'
    (bench.environment / SITE / "tool-1.0.dist-info/direct_url.json").write_text(direct_url)
    bench.work().begin()
    packages = Path(bench.work().state_dir) / "transactions" / bench.work().describe()["id"] / "packages.json"
    listed = json.loads(packages.read_text())
    del listed["tool"]["editable"]
    packages.unlink() if spoilt == "missing" else packages.write_text(json.dumps(listed))
    bench.work().restore()
    (bench.environment / SITE / "tool/data.bin").write_text("other")
    assert bench.work().prove()["repair"].endswith("--reinstall --no-deps --editable file:///src/tool")


def test_where_the_baseline_is_kept_the_way_back_needs_no_index(bench: Bench) -> None:
    promoted(bench)
    identifier = bench.work().describe()["id"]
    options = f"environment='{bench.environment}' action=restore baseline={identifier}"
    said = bench.work(uv="/opt/uv").prove()["repair"]
    assert shlex.split(said) == ["ansible", "vm1", "-m", "ocrfleet.gpu_stack.env_transaction", "-a", options]


# --- smaller --------------------------------------------------------------------------------------------------------


def test_a_named_baseline_is_proven_beside_an_unreadable_journal(bench: Bench) -> None:
    bench.work().begin()
    identifier = bench.work().describe()["id"]
    Path(bench.work().journal_path).write_bytes(b"x")
    assert bench.work(baseline=identifier).prove()["equal"] is True


def test_a_begin_that_is_refused_tells_what_it_had_recovered(bench: Bench) -> None:
    bench.work().begin()
    bench.change()
    bench.work().restore()
    bench.work(owner=LATER).begin()
    with pytest.raises(transaction.Refused, match="no baseline nonsense") as raised:
        bench.work(owner={**LATER, "boot": "b2"}, source="nonsense").begin()
    assert "dropped the unfinished candidate" in raised.value.details["recovered"]["done"]


def test_exports_of_one_second_do_not_overwrite_each_other(tmp_path: Path) -> None:
    now, owner = datetime.datetime.now(), (os.getuid(), os.getgid())
    texts = [f"{number}\n" for number in range(5)]
    exports = [freeze.Export("olmocr-baseline-{stamp}.txt", text, "x") for text in texts]
    paths = [freeze.place(export, str(tmp_path), now, owner) for export in exports]
    assert [Path(path).read_text() for path in paths] == texts
