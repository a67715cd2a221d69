# Copyright (c) 2026 The ocrfleet.gpu_stack contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""What an operator types and sees. The rollout is one of 30 hosts, with one that says something nasty."""

from __future__ import annotations

import io
import json
import os
import re
import shlex
import sqlite3
import stat
import subprocess
import tracemalloc
from collections.abc import Callable
from datetime import datetime, timezone
from pathlib import Path
from typing import Any

import pytest
import yaml
from rich.console import Console

from ocrfleet import ansible, cli, errors, planning, policy, rollout
from ocrfleet.rollout import Driver
from ocrfleet.state import State
from ocrfleet.store import Store
from ocrfleet.survey import Survey

from .conftest import Silent

ROOT = Path(__file__).resolve().parents[3]
NASTY = "<script>alert(1)</script> [bold red]x[/] \x1b[31mred\x1b]0;title\x07"


@pytest.fixture
def folder(tmp_path: Path, fake: Any) -> Path:
    """A state folder with a rollout of 30 hosts, stopped in its third wave."""
    store = Store(tmp_path / "state")
    names = [f"ocr-gpu-{number:02d}" for number in range(1, 31)]
    fleet = planning.Fleet(names, {name: ["gpu_vms"] for name in names})
    chosen = policy.complete({"waves": [1, "20%", "100%"]})
    baselines = {name: "5f2c9be01d" if name != "ocr-gpu-17" else "a90c6612ee" for name in names}
    waves = planning.waves(names, baselines, chosen)
    state = State.create(store.new(), chosen, ["inventory"], fleet, waves)
    fake.answers["ocr-gpu-12"] = "failed"
    Driver(state, Silent(), make_ansible=fake).forward()
    state.end([("ocr-gpu-12", "failed", NASTY, state.evidence("ocr-gpu-12"), "")])
    return tmp_path / "state"


@pytest.fixture
def ocrfleet(folder: Path, capsys: pytest.CaptureFixture[str]) -> Callable[..., tuple[int, str, str]]:
    def run(*argv: str) -> tuple[int, str, str]:
        code = cli.main(["--state-dir", str(folder), *argv])
        said = capsys.readouterr()
        return code, said.out, said.err

    return run


def documented() -> list[str]:
    """Every `ocrfleet status` and `report` with a query that the guide shows."""
    text = (ROOT / "docs/guides/fleet.md").read_text(encoding="utf-8").replace("\\\n", " ")
    return [line for line in re.findall(r"^ocrfleet .*--query.*$", text, re.MULTILINE) if " plan " not in line]


@pytest.mark.parametrize("line", documented())
def test_the_queries_in_the_guide_run_and_find_something(line: str, ocrfleet: Any) -> None:
    words = shlex.split(line, comments=True)[1:]
    code, said, _ = ocrfleet(*words)
    assert code == errors.DONE
    assert said.strip() not in ("", "[]", "null", "{}"), line


def test_the_guide_has_queries() -> None:
    assert len(documented()) >= 4


def test_the_guide_lists_every_exit_code() -> None:
    text = (ROOT / "docs/guides/fleet.md").read_text(encoding="utf-8")
    for code, meaning in errors.MEANING.items():
        assert f"| {code} | {meaning} |" in text


def test_the_guides_policy_is_a_policy_of_the_guides_inventory(tmp_path: Path, monkeypatch: Any) -> None:
    text = (ROOT / "docs/guides/fleet.md").read_text(encoding="utf-8")
    shown, workers = re.findall(r"```yaml\n(.*?)```", text, re.DOTALL)
    assert policy.complete(yaml.safe_load(workers))["shards"] == 3
    (tmp_path / "policy.yml").write_text(shown)
    [hosts] = re.findall(r"```ini\n(.*?)```", text, re.DOTALL)
    (tmp_path / "hosts").write_text(hosts)
    (tmp_path / "lb-ctl").touch(mode=0o755)  # the program of its hooks
    monkeypatch.setenv("PATH", f"{tmp_path}:{os.environ['PATH']}")
    monkeypatch.setattr(cli, "survey", lambda _inventory, hosts, *_: Survey(dict.fromkeys(hosts, "f1"), {}, {}))
    args = cli.parser().parse_args(["plan", "-i", str(tmp_path / "hosts"), "-p", str(tmp_path / "policy.yml")])
    chosen, fleet, _found = cli.look(args, Console(file=io.StringIO()))
    assert set(chosen["groups"]) <= {name for names in fleet.groups.values() for name in names}


def test_the_report_of_thirty_hosts(ocrfleet: Any, folder: Path) -> None:
    code, said, err = ocrfleet("report")
    assert code == errors.DONE
    assert "waves" not in said and [line.split()[0] for line in said.splitlines() if "ocr-gpu-" in line][1:] == [
        "ocr-gpu-12"
    ]
    assert "\x1b]" not in said
    assert "1 failed" in said
    files = sorted(folder.glob("rollouts/*/fleet.*"))
    assert [path.name for path in files] == ["fleet.html", "fleet.json"]
    page = files[0].read_text()
    assert page.count("<script") == 1
    assert "&lt;script&gt;alert(1)&lt;/script&gt; [bold red]x[/]" in page
    assert "\x1b" not in page
    assert page.count("<tr>") >= 30
    data = json.loads(files[1].read_text())
    assert len(data["hosts"]) == 30
    assert data["hosts"][0]["evidence"]["result"] == "verified"
    assert all(stat.S_IMODE(path.stat().st_mode) == 0o600 for path in files)
    assert stat.S_IMODE(folder.stat().st_mode) == 0o700


def test_the_report_begins_with_the_hosts_that_need_somebody(command, fake) -> None:
    fake.answers["h3"] = "failed"
    assert command("rollout", "-i", "hosts", waves=["100%"])[0] == errors.STOPPED
    assert command("report")[0] == errors.DONE
    [page] = Path("state").glob("rollouts/*/fleet.html")
    assert re.findall(r'<tr><td data-name="host">(h\d)', page.read_text()) == ["h3", "h2", "h4", "h1"]


def not_run(reason: str) -> dict[str, str]:
    return {"title": "CUDA is available", "status": "not_run", "reason": reason}


def test_the_report_tells_why_checks_were_not_run_and_what_was_measured(ocrfleet: Any, folder: Path) -> None:
    state = Store(folder).open(None)
    level = {"status": "measured", "comparisons": [{"verdict": "faster", "speedup": 1.25}]}
    tells = {
        "ocr-gpu-01": {"checks": [not_run("no <b>GPU</b>")], "benchmark": {"documents": level}},
        "ocr-gpu-02": {"checks": [not_run("no <b>GPU</b>")]},
        "ocr-gpu-03": {"checks": [not_run("no driver")]},
        "ocr-gpu-04": {"checks": [{"title": "CUDA is available", "status": "failed", "reason": "no device"}]},
        "ocr-gpu-05": {"checks": [{"title": "CUDA is available", "status": "passed", "reason": ""}]},
    }
    for name, told in tells.items():
        state.end([(name, "converted", "", {**state.evidence(name), **told}, "")])
    run = next(host.run for host in state.hosts() if host.name == "ocr-gpu-01")
    reports = state.folder / "runs" / run / "reports/ocr-gpu-01"
    reports.mkdir(parents=True)
    (reports / "report.html").touch()
    _, said, _ = ocrfleet("report")
    assert re.search(
        r"CUDA is available +3 not run, 1 failed, 1 passed; failed: no device \(1\); not run: no <b>", said
    )
    data = json.loads((state.folder / "fleet.json").read_text())
    assert data["checks"] == [
        {
            "title": "CUDA is available",
            "not_run": 3,
            "failed": 1,
            "passed": 1,
            "reasons": [
                {"status": "failed", "reason": "no device", "hosts": 1},
                {"status": "not_run", "reason": "no <b>GPU</b>", "hosts": 2},
            ],
        }
    ]
    own = f"runs/{run}/reports/ocr-gpu-01/report.html"
    assert [host["report"] for host in data["hosts"][:2]] == [own, None]
    assert data["hosts"][0]["measured"] == "documents: 1 faster; mean speed-up 1.25"
    page = (state.folder / "fleet.html").read_text()
    assert "not run: no &lt;b&gt;GPU&lt;/b&gt; (2)" in page
    assert f'<a href="{own}">ocr-gpu-01</a>' in page and page.count("<a ") == 1
    assert page.count("documents: 1 faster; mean speed-up 1.25") == 1


def test_a_number_that_is_none_leaves_the_report_readable(ocrfleet: Any, folder: Path) -> None:
    state = Store(folder).open(None)
    level = {"status": "measured", "comparisons": [{"verdict": "faster", "speedup": 10**400}]}
    told = {"speed": [float("nan"), float("inf"), 1.5], "benchmark": {"documents": level}}
    state.end([("ocr-gpu-01", "converted", "", {**state.evidence("ocr-gpu-01"), **told}, "")])

    def refuse(name: str) -> None:
        raise AssertionError(name)

    for said in (ocrfleet("report", "--output=json")[1], (state.folder / "fleet.json").read_text()):
        (host, *_others) = json.loads(said, parse_constant=refuse)["hosts"]
        assert host["evidence"]["speed"] == [None, None, 1.5]
        assert host["measured"] == "its benchmark cannot be read"


def test_what_is_written_is_all_that_is_told_and_takes_the_memory_of_few_hosts(ocrfleet: Any, folder: Path) -> None:
    state = Store(folder).open(None)
    for host in state.hosts():
        state.end([(host.name, "converted", "", {**state.evidence(host.name), "lock": "#" * 1_000_000}, "")])
    tracemalloc.start()
    assert ocrfleet("report")[0] == errors.DONE
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert peak < 15_000_000, "evidence of all hosts at a time"
    written = (state.folder / "fleet.json").read_text()
    assert ocrfleet("report", "--output=json")[1] == written


def test_no_text_of_a_host_steers_the_terminal(ocrfleet: Any, folder: Path) -> None:
    state = Store(folder).open(None)
    told = {
        "versions": {"torch": NASTY},
        "checks": [{"title": NASTY, "status": NASTY, "reason": NASTY}, {"title": "a", "status": "failed"}],
        "benchmark": {"documents": {"status": NASTY, "reason": NASTY}},
    }
    state.end([("ocr-gpu-01", "converted", "", {**state.evidence("ocr-gpu-01"), **told}, "")])
    for argv in ((), ("--query", "hosts[0].evidence"), ("--query", "hosts[0].evidence.versions.torch")):
        assert "\x1b" not in ocrfleet("report", *argv)[1]
    assert "\x1b" not in (state.folder / "fleet.html").read_text()


def test_status_as_json_and_as_a_table(ocrfleet: Any) -> None:
    _, said, _ = ocrfleet("status", "--output", "json")
    data = json.loads(said)
    assert data["state"] == "stopped"
    assert [wave["state"] for wave in data["waves"]][:2] == ["passed", "passed"]
    _, said, _ = ocrfleet("status")
    assert "ocr-gpu-12" in said
    assert "no driver is at work on it; go on with: ocrfleet resume" in said


@pytest.mark.parametrize(
    ("argv", "code", "said"),
    [
        (["status", "nothing"], errors.WRONG_INPUT, "found 'nothing'; `ocrfleet status --all` lists them"),
        (["status", "../x"], errors.WRONG_INPUT, "expected the id of a rollout, or its beginning"),
        (["status", ""], errors.WRONG_INPUT, "expected the id of a rollout, or its beginning"),
        (["status", "--query", "a..b"], errors.WRONG_INPUT, "--query"),
        (["approve"], errors.WRONG_INPUT, "expected one that waits for an approval"),
        (["rollout", "-i", "nowhere,", "-p", "/nonexistent"], errors.WRONG_INPUT, "expected a policy file"),
    ],
)
def test_bad_input_is_one_clear_error(ocrfleet: Any, argv: list[str], code: int, said: str) -> None:
    found, _, err = ocrfleet(*argv)
    assert (found, said in err) == (code, True), err
    assert "Traceback" not in err


def test_a_rollout_is_named_by_the_beginning_of_its_id(ocrfleet: Any, folder: Path) -> None:
    first, second = Store(folder).open(None).id, later(folder, ["a"]).id
    for name, chosen in ((first, first), (first[:-1], first), ("9", second), (None, second)):
        code, said, _ = ocrfleet("status", *([name] if name else []), "--query", "id", "--output", "json")
        assert (code, json.loads(said)) == (errors.DONE, chosen)
    Store(folder).new().with_name(f"{first}0").symlink_to(Store(folder).open(first).folder)
    assert Store(folder).open(first).folder.name == first, "the whole id is not ambiguous"
    code, _, err = ocrfleet("resume", first[:8])
    assert code == errors.WRONG_INPUT
    assert f"found {first[:8]!r}, with which 2 begin: {first}0, {first}; " in err


@pytest.mark.parametrize("width", [None, "60"])
def test_ids_and_texts_are_whole_in_every_table(
    ocrfleet: Any, folder: Path, width: str | None, monkeypatch: Any
) -> None:
    """Elsewhere than on a terminal, too, where a row is a line."""
    if width:
        monkeypatch.setenv("COLUMNS", width)
        monkeypatch.setenv("FORCE_COLOR", "1")  # rich takes it for a terminal
    first = Store(folder).open(None)
    told = f"the cause {'/opt/x' * 30} and the end"
    first.end([("ocr-gpu-12", "failed", told, {}, "")])
    later(folder, [f"a-host-with-a-long-name-{number}" for number in range(20)])
    for argv in (["--all"], ["--all", "--query", "[].[id, state, created, hosts, out_of_service]"]):
        _, said, _ = ocrfleet("status", *argv)
        assert first.id in said and "99991231-000000-0000" in said
    for argv in ([first.id], [first.id, "--query", "hosts[?state=='failed'].[name, message]"]):
        _, said, _ = ocrfleet("status", *argv)
        [*_, line] = [line for line in said.splitlines() if "ocr-gpu-12" in line]
        assert line.endswith("and the end") is (width is None)
        assert "and the end" in " ".join(said.split())
    assert f"ocrfleet resume {first.id}" in ocrfleet("status", first.id)[1]


def test_a_second_driver_is_refused_and_told_who_works(ocrfleet: Any, folder: Path) -> None:
    with Store(folder).driver("rollout"):
        code, _, err = ocrfleet("resume")
    assert code == errors.REFUSED
    assert re.search(r"another rollout is at work: rollout, process \d+, since 20", err)


def test_a_rollout_that_shares_hosts_with_an_unfinished_one_is_refused(folder: Path) -> None:
    store = Store(folder)
    with pytest.raises(errors.Refused, match="is not over .stopped. and has 1 of these hosts, such as ocr-gpu-30"):
        store.refuse_overlap(["ocr-gpu-30", "another"])
    store.open(None).set_state("aborted")
    store.refuse_overlap(["ocr-gpu-30"])


def test_abort_without_a_driver_ends_it_at_once(ocrfleet: Any) -> None:
    assert ocrfleet("abort")[0] == errors.DONE
    code, _, err = ocrfleet("resume")
    assert (code, "cannot go on" in err) == (errors.WRONG_INPUT, True)


def test_a_host_out_of_service_is_named(ocrfleet: Any, folder: Path) -> None:
    Store(folder).open(None).set_drained(["ocr-gpu-03"], True)
    _, said, _ = ocrfleet("status")
    assert re.search(r"ocr-gpu-03 .*out of service", said)
    ocrfleet("report")
    [page] = folder.glob("rollouts/*/fleet.html")
    assert page.read_text().count("out of service") == 1


def later(folder: Path, hosts: list[str]) -> State:
    """A rollout of some hosts after the one in `folder`."""
    store = Store(folder)
    fleet = planning.Fleet(hosts, {})
    chosen = policy.complete({})
    return State.create(
        store.rollouts / "99991231-000000-0000", chosen, ["inventory"], fleet, planning.waves(hosts, {}, chosen)
    )


def test_no_way_back_past_what_came_later(ocrfleet: Any, folder: Path, fake: Any, monkeypatch: Any) -> None:
    monkeypatch.setattr(cli, "Driver", lambda *a, **k: Driver(*a, **k, make_ansible=fake))
    first = Store(folder).open(None)
    first.set_state("finished")
    second = later(folder, ["ocr-gpu-04", "ocr-gpu-05"])
    fake.calls.clear()
    code, _, err = ocrfleet("rollback", first.id)
    assert (code, f"rollout {second.id} is not over" in err) == (errors.REFUSED, True)
    Driver(second, Silent(), make_ansible=fake).forward()
    fake.calls.clear()
    code, _, err = ocrfleet("rollback", first.id)
    assert (code, "converted ocr-gpu-04, ocr-gpu-05; roll that back first" in err) == (errors.REFUSED, True)
    assert (fake.calls, first.state) == ([], "finished")
    assert ocrfleet("rollback", second.id)[0] == errors.DONE
    fake.answers.clear()
    assert ocrfleet("rollback", first.id)[0] == errors.DONE
    assert first.counts()["rolled back"] == 26, "the last batch of the third wave was not begun"


def test_no_resume_past_what_came_later(ocrfleet: Any, folder: Path, fake: Any, monkeypatch: Any) -> None:
    """It would convert the host anew by its own, older variables and lock, behind the back of the later one."""
    monkeypatch.setattr(cli, "Driver", lambda *a, **k: Driver(*a, **k, make_ansible=fake))
    first = Store(folder).open(None)
    first.set_state("finished")
    fake.answers.clear()
    second = later(folder, ["ocr-gpu-12"])
    Driver(second, Silent(), make_ansible=fake).forward()
    fake.calls.clear()
    code, _, err = ocrfleet("resume", first.id)
    assert (code, f"rollout {second.id} came later and converted ocr-gpu-12" in err) == (errors.REFUSED, True)
    assert fake.calls == []
    assert ocrfleet("rollback", second.id)[0] == errors.DONE
    assert ocrfleet("resume", first.id)[0] == errors.DONE


def test_a_rollout_that_cannot_be_read_stands_in_nobodys_way(ocrfleet: Any, folder: Path) -> None:
    store = Store(folder)
    good = store.open(None)
    good.set_state("finished")
    bad = later(folder, ["a"])
    bad.close()
    (bad.folder / "state.db").write_bytes(b"no database at all" * 400)
    code, said, _ = ocrfleet("status", "--all", "--output", "json")
    rows = {row["id"]: row["state"] for row in json.loads(said)}
    assert (code, rows[good.id]) == (errors.DONE, "finished")
    assert "cannot be read" in rows[bad.folder.name]
    Store(folder).refuse_overlap(["ocr-gpu-30"])
    # Not the one before it: to roll that back instead would be a surprise.
    code, said, err = ocrfleet("rollback")
    assert (code, "cannot be read" in err) == (errors.WRONG_INPUT, True)


def test_resume_works_where_the_rollout_was_begun(
    ocrfleet: Any, folder: Path, fake: Any, tmp_path: Path, monkeypatch: Any
) -> None:
    there = tmp_path / "there"
    there.mkdir()
    monkeypatch.chdir(there)
    Store(folder).open(None).set_state("finished")
    state = later(folder, ["a"])
    monkeypatch.chdir(tmp_path)
    seen = []
    fake.answers["a"] = lambda host: seen.append(Path.cwd()) or "converted"
    monkeypatch.setattr(cli, "Driver", lambda *a, **k: Driver(*a, **k, make_ansible=fake))
    assert ocrfleet("resume", state.id)[0] == errors.DONE
    assert seen == [there]
    monkeypatch.chdir(tmp_path)
    there.rmdir()
    code, _, err = ocrfleet("resume", state.id)
    assert (code, "was begun in" in err) == (errors.WRONG_INPUT, True)


@pytest.mark.parametrize(
    ("argv", "said"),
    [
        (["-i", "good", "-i", "typo"], "the inventory cannot be read"),
        (["-i", "good", "-i", "variables", "-i", "typo"], "the inventory cannot be read"),
        (["-i", "good", "-i", "variables", "-l", "a", "-p", "policy.yml"], "host z"),
        (["-i", "good", "-l", "a", "-p", "policy.yml"], "host z"),
        (["-i", "good", "-l", "a,h55"], "--limit: expected patterns that each match hosts of the inventory, found h55"),
        (["-i", "good", "-i", "variables", "-l", "a:h5*"], "found h5*;"),
        (["-i", "good", "-l", "all:!h55"], "found h55;"),
        (["-i", "good", "-l", "all:&gpu"], "found gpu;"),
        (["-i", "good", "-l", "h55"], "found h55;"),
        (["-i", "good", "-l", "@none"], "--limit @none"),
    ],
)
def test_what_the_inventory_lacks_is_told(
    ocrfleet: Any, tmp_path: Path, monkeypatch: Any, argv: list[str], said: str
) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "good").write_text("a\nb\n")
    (tmp_path / "variables/group_vars/all").mkdir(parents=True)
    (tmp_path / "policy.yml").write_text("apart: [[b, z]]\n")
    monkeypatch.setattr(cli, "survey", lambda *_: pytest.fail("a host was asked"))
    code, _, err = ocrfleet("plan", *argv)
    assert (code, said in err, "host b" in err) == (errors.WRONG_INPUT, True, False), err


def test_an_abort_reaches_the_rollout_it_names_or_nobody(ocrfleet: Any, folder: Path) -> None:
    store = Store(folder)
    first = store.open(None)
    with store.driver("rollout") as working_on:
        working_on("another")
        code, _, err = ocrfleet("abort", first.id)
        assert (code, "another rollout is at work" in err) == (errors.REFUSED, True)
        assert '"at_work": false' in ocrfleet("status", first.id, "--output", "json")[1]
        assert first.take_request("abort") == ""
        working_on(first.id)
        code, said, _ = ocrfleet("abort", first.id)
        assert (code, "is noted" in said) == (errors.DONE, True)


def out_of_service_by_rollout(ocrfleet: Any) -> dict[str, list[str]]:
    _, said, _ = ocrfleet("status", "--all", "--output", "json")
    return {row["id"]: row["out_of_service"] for row in json.loads(said)}


def test_who_is_out_of_service_is_known_to_all_rollouts(ocrfleet: Any, folder: Path, fake: Any) -> None:
    store = Store(folder)
    first = store.open(None)
    first.set_drained(["ocr-gpu-02"], True)
    first.set_state("aborted")
    assert list(store.out_of_service(but="")) == ["ocr-gpu-02", "ocr-gpu-12"]
    assert store.out_of_service(but=first.id) == {}
    assert out_of_service_by_rollout(ocrfleet) == {first.id: ["ocr-gpu-02", "ocr-gpu-12"]}
    second = later(folder, ["ocr-gpu-12"])
    Driver(second, Silent(), make_ansible=fake).forward()
    assert out_of_service_by_rollout(ocrfleet) == {first.id: ["ocr-gpu-02"], second.id: ["ocr-gpu-12"]}
    fake.answers.clear()
    Driver(second, Silent(), make_ansible=fake).forward()
    assert list(store.out_of_service(but="")) == ["ocr-gpu-02"]
    assert out_of_service_by_rollout(ocrfleet) == {first.id: ["ocr-gpu-02"], second.id: []}


@pytest.mark.parametrize(
    ("given", "said"),
    [
        (
            {"approve_after": [2]},
            "approve_after: expected numbers of waves that another one follows, found 2; .* 2 waves",
        ),
        (
            {"windows": [{"from": "22:00", "to": "23:00"}], "host_minutes": 90},
            "windows: expected a time at which all windows of a host are open, found none within a week for a, b",
        ),
    ],
)
def test_a_policy_that_asks_for_what_never_comes_is_refused(given: Any, said: str) -> None:
    chosen = policy.complete({"waves": [1], **given})
    fleet = planning.Fleet(["a", "b"], {})
    with pytest.raises(errors.FleetError, match=said):
        cli.refuse_vain(chosen, fleet, planning.waves(fleet.hosts, {}, chosen))


def test_no_rollout_is_made_of_a_policy_that_asks_for_what_never_comes(command, fake) -> None:
    code, said = command("rollout", "-i", "hosts", approve_after=[9])
    assert (code, "approve_after: expected numbers of waves" in said) == (errors.WRONG_INPUT, True), said
    assert (fake.calls, list(Path("state/rollouts").iterdir())) == ([], [])


def test_with_no_wait_a_rollout_ends_where_it_would_wait(command) -> None:
    code, said = command("rollout", "-i", "hosts", "--no-wait", approve_after=[1])
    assert (code, "waiting for `ocrfleet approve" in said) == (errors.PAUSED, True), said


def at(hour: int, minute: int) -> float:
    return datetime(2026, 11, 27, hour, minute, tzinfo=timezone.utc).timestamp()


AT_NIGHT = [{"from": "22:00", "to": "23:00"}]


@pytest.mark.parametrize("windows", [{"windows": AT_NIGHT}, {"groups": {"odd": {"windows": AT_NIGHT}}}])
def test_the_way_back_waits_for_no_window(command, driver_gets, fake, windows: Any) -> None:
    driver_gets["clock"] = lambda: at(22, 10)
    assert command("rollout", "-i", "hosts", "-l", "odd", **windows)[0] == errors.DONE
    driver_gets["clock"] = lambda: at(12, 0)
    fake.calls.clear()
    code, said = command("rollback")
    assert (code, [hosts for _p, hosts, _v in fake.calls]) == (errors.DONE, [["h1", "h3"]]), said


def test_a_host_whose_drain_took_of_its_minutes_is_done_while_its_window_is_open(command, driver_gets, fake) -> None:
    """Whether it fits is asked before it is drained; to put it off then would drain it for nothing."""
    driver_gets["clock"] = lambda: at(22, 20 if Path("drained").exists() else 10)
    hooks = {"drain": {"command": ["touch", "drained"]}, "undrain": {"command": ["true"]}}
    code, said = command("rollout", "-i", "hosts", "-l", "h1", windows=AT_NIGHT, host_minutes=45, hooks=hooks)
    assert (code, len(fake.calls)) == (errors.DONE, 1), said


def test_the_processes_of_a_killed_driver_are_given_up_after_half_an_hour(
    command, driver_gets, fake, monkeypatch: Any
) -> None:
    assert command("rollout", "-i", "hosts")[0] == errors.DONE
    state = Store(Path("state")).open(None)
    state.begin(["h1"], "0007")
    monkeypatch.setattr(rollout, "at_work", lambda *_: [77])
    minutes: list[float] = []
    driver_gets["clock"] = lambda: 60.0 * len(minutes)
    driver_gets["sleep"] = lambda seconds: minutes.append(seconds) if len(minutes) < 40 else pytest.fail("it waits on")
    fake.calls.clear()
    code, said = command("resume")
    assert (code, "the earlier run still works as process 77; end that, then resume" in said) == (errors.REFUSED, True)
    assert (len(minutes), fake.calls, [host.name for host in state.hosts(states=["running"])]) == (31, [], ["h1"])


@pytest.mark.parametrize("own", [None, "-o ServerAliveInterval=5"])
def test_ssh_asks_whether_a_host_is_there_still(command, driver_gets, fake, monkeypatch: Any, own: str | None) -> None:
    if own:
        monkeypatch.setenv("ANSIBLE_SSH_EXTRA_ARGS", own)
    else:
        monkeypatch.delenv("ANSIBLE_SSH_EXTRA_ARGS", raising=False)
    seen = set()

    class Looking(fake):
        def run(self, *arguments, **more):
            seen.add(self.env["ANSIBLE_SSH_EXTRA_ARGS"])
            return super().run(*arguments, **more)

    driver_gets["make_ansible"] = Looking
    assert command("rollout", "-i", "hosts", "-l", "h1")[0] == errors.DONE
    assert seen == {own or "-o ServerAliveInterval=30 -o ServerAliveCountMax=10"}


@pytest.mark.parametrize("name", ["gpu", "~x", "!x", "&x", "a*", "--all"])
def test_a_host_whose_name_ansible_takes_for_others_is_refused(tmp_path: Path, name: str) -> None:
    inventory = tmp_path / "hosts.yml"
    inventory.write_text(json.dumps({"gpu": {"hosts": {"h1": None, name: None}}}))
    with pytest.raises(errors.FleetError, match="are taken for a group, a pattern or an option: "):
        ansible.read_inventory([str(inventory)], None)


def test_the_hosts_have_the_order_in_which_ansible_takes_them(tmp_path: Path) -> None:
    """The first one is the canary, as in playbooks/rollout.yml; `ansible-inventory` sorts the groups by name."""
    deep = {"children": {"rack": {"hosts": {"h3": None}}}}
    groups = {"site": deep, "first": {"hosts": {"h9": None}}, "all_else": {"hosts": {"h2": None, "h1": None}}}
    inventory = tmp_path / "hosts.yml"
    inventory.write_text(json.dumps({"all": {"children": groups}}))
    listed = subprocess.run(
        ["ansible", "all", "--list-hosts", f"--inventory={inventory}"], capture_output=True, text=True, check=True
    )
    assert listed.stdout.split()[2:] == ["h9", "h2", "h1", "h3"]
    assert ansible.read_inventory([str(inventory)], None).hosts == ["h9", "h2", "h1", "h3"]


def test_the_name_of_a_cohort_steers_no_terminal(ocrfleet: Any, folder: Path) -> None:
    """It is the fingerprint that hosts told."""
    state = Store(folder).open(None)
    with state._transaction() as db:
        db.execute("UPDATE wave SET cohort = ?", ("\x1b[2J\x1bc",))
    code, said, _ = ocrfleet("status")
    assert (code, "\x1b[2J" in said, "\x1bc" in said) == (errors.DONE, False, False)


def test_the_plan_shows_a_cohorts_name_without_what_steers_a_terminal(capsys: pytest.CaptureFixture[str]) -> None:
    found = Survey({"a": "\x1b[2J\x1bc"}, {"a": "\x1bc"}, {"a": "\x1bc"})
    cli.show_plan(cli.plan_data(policy.complete({}), planning.Fleet(["a"]), found), cli.Console(highlight=False))
    assert "\x1b" not in capsys.readouterr().out


def test_a_disk_that_is_full_is_told(ocrfleet: Any, monkeypatch: Any) -> None:
    def full(*_: Any) -> None:
        raise sqlite3.OperationalError("database or disk is full")

    monkeypatch.setattr(State, "request", full)
    monkeypatch.setattr(Store, "is_driven", lambda *_: True)
    code, _, err = ocrfleet("pause")
    assert (code, err) == (
        errors.STATE,
        "ocrfleet: the state cannot be kept: database or disk is full; mend that, then resume\n",
    )
