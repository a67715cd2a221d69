# Copyright (c) 2026 The ocrfleet.gpu_stack contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Two runs beside each other."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from ocrfleet import cli, errors


def figure(name: str, low: float | None, high: float | None) -> dict[str, Any]:
    return {"name": name, "unit": "s", "better": "lower", "speedup": 1.0, "low": low, "high": high, "verdict": "faster"}


def run(folder: Path, *figures: dict[str, Any], **changes: Any) -> str:
    """The folder of a run's report."""
    evidence = {
        "host": "gpu-1",
        "result": "verified",
        "finished": "2026-11-25T10:00:00Z",
        "method": "pypi",
        "spec": {"protected": "all"},
        "versions": {"torch": "2.8.0+cu128", "flashinfer": "0.3.1"},
        "plan": [{"name": "flashinfer-python", "version": "0.3.1", "required_by": []}],
        "checks": [{"name": "smoke", "title": "Kernels", "status": "not_run", "reason": "no GPU"}],
        "benchmark": {"documents": {"status": "measured", "comparisons": list(figures)}},
        **changes,
    }
    folder.mkdir()
    (folder / "evidence.json").write_text(json.dumps(evidence))
    return str(folder)


def compared(capsys: pytest.CaptureFixture[str], *argv: str) -> dict[str, Any]:
    assert cli.main(["compare", *argv, "--output=json"]) == errors.DONE
    return json.loads(capsys.readouterr().out)


def test_a_run_is_like_itself(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    first = run(tmp_path / "a", figure("pages/s", 0.9, 1.1))
    data = compared(capsys, first, first + "/evidence.json")
    assert data["differences"] == []
    assert [row["moved"] for row in data["speedups"]] == ["no difference found"]
    assert cli.main(["compare", first, first]) == errors.DONE
    assert "nothing" in capsys.readouterr().out


def test_every_difference_is_told_and_nothing_else(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    first = run(tmp_path / "a")
    second = run(
        tmp_path / "b",
        host="gpu-2",
        method="auto: source",
        versions={"torch": "2.8.0+cu128", "flashinfer": "0.6.13"},
        plan=[{"name": "flashinfer-python", "version": "0.6.13", "required_by": []}],
        changed=[{"name": "torch", "before": "2.8.0", "after": "2.11.0"}],
        checks=[{"name": "smoke", "title": "Kernels", "status": "passed", "reason": ""}],
    )
    data = compared(capsys, first, second)
    assert [run["host"] for run in data["runs"]] == ["gpu-1", "gpu-2"]
    assert {row["what"]: (row["first"], row["second"]) for row in data["differences"]} == {
        "method": ("pypi", "auto: source"),
        "versions: flashinfer": ("0.3.1", "0.6.13"),
        "package: flashinfer-python": ("0.3.1", "0.6.13"),
        "package: torch": ("", "2.8.0 -> 2.11.0"),
        "check: Kernels": ("not_run no GPU", "passed"),
    }


@pytest.mark.parametrize(
    ("first", "second", "moved"),
    [
        ((0.9, 1.1), (1.05, 1.2), "no difference found"),
        ((0.9, 1.0), (1.01, 1.2), "higher"),
        ((1.01, 1.2), (0.9, 1.0), "lower"),
        ((None, None), (0.9, 1.0), "no interval"),
    ],
)
def test_speedups_are_told_apart_only_where_their_intervals_do_not_meet(
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
    first: tuple[float, float],
    second: tuple[float, float],
    moved: str,
) -> None:
    runs = [run(tmp_path / name, figure("pages/s", *limits)) for name, limits in (("a", first), ("b", second))]
    assert [row["moved"] for row in compared(capsys, *runs)["speedups"]] == [moved]


@pytest.mark.parametrize(
    ("first", "second", "moved", "differ"),
    [
        ({"stand_in": "a stand-in"}, {"stand_in": ""}, "not comparable: another server", ("a stand-in", "")),
        ({"server": "a"}, {"server": ""}, "not comparable: another server", ("a", "")),
        ({"server": "a"}, {"server": "b"}, "not comparable: another server", ("a", "b")),
        ({"stand_in": "x", "server": "a"}, {"stand_in": "x", "server": "b"}, "higher", ()),
        ({"server": "a"}, {"server": "a"}, "higher", ()),
    ],
)
def test_figures_of_another_server_have_not_moved(
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
    first: dict[str, str],
    second: dict[str, str],
    moved: str,
    differ: tuple[str, ...],
) -> None:
    levels = [
        {"documents": {"status": "measured", "comparisons": [figure("pages/s", *limits)], **served}}
        for limits, served in (((0.9, 1.0), first), ((1.1, 1.2), second))
    ]
    data = compared(capsys, *(run(tmp_path / str(number), benchmark=found) for number, found in enumerate(levels)))
    assert [row["moved"] for row in data["speedups"]] == [moved]
    told = [(row["what"], row["first"], row["second"]) for row in data["differences"]]
    assert told == ([("benchmark: documents, read by", *differ)] if differ else [])


def test_a_level_that_failed_is_a_difference(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    failed = {"kernels": {"status": "failed", "reason": "decode: a wrong result", "comparisons": []}}
    measured = {"kernels": {"status": "measured", "reason": ""}}
    data = compared(capsys, run(tmp_path / "a", benchmark=failed), run(tmp_path / "b", benchmark=measured))
    assert data["differences"] == [
        {"what": "benchmark: kernels", "first": "failed decode: a wrong result", "second": "measured"}
    ]


def test_two_measurements_under_one_installation_are_told_apart(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    def level(finished: str, pages: int) -> dict[str, Any]:
        read = {"documents": {"your PDFs": 1}, "pages": {"your PDFs": pages}, "workers": [1], "repeats": 5}
        return {"documents": {"status": "measured", "finished": finished, "read": read}}

    first = run(tmp_path / "a", benchmark=level("2026-11-25T11:00:00Z", 1))
    second = run(tmp_path / "b", benchmark=level("2026-11-26T11:00:00Z", 8))
    told = {row["what"]: (row["first"], row["second"]) for row in compared(capsys, first, second)["differences"]}
    assert told == {
        "benchmark: documents, measured": ("2026-11-25T11:00:00Z", "2026-11-26T11:00:00Z"),
        "benchmark: documents, pages": ("{'your PDFs': 1}", "{'your PDFs': 8}"),
    }


def test_what_only_one_run_measured_is_told_so(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("COLUMNS", "200")
    runs = [run(tmp_path / "a", figure("pages/s", 0.9, 1.1)), run(tmp_path / "b")]
    (row,) = compared(capsys, *runs)["speedups"]
    assert (row["second"], row["moved"]) == (None, "measured in one run only")
    assert cli.main(["compare", *runs]) == errors.DONE
    assert "1.000 (0.900 to 1.100)" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("content", "said"), [(None, "No such file"), ("{", "it is no JSON"), ("[]", "another JSON file")]
)
def test_what_is_no_evidence_is_refused(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], content: str | None, said: str
) -> None:
    (tmp_path / "wrong").mkdir()
    if content is not None:
        (tmp_path / "wrong/evidence.json").write_text(content)
    assert cli.main(["compare", run(tmp_path / "a"), str(tmp_path / "wrong")]) == errors.WRONG_INPUT
    assert said in capsys.readouterr().err


def test_no_text_of_a_run_steers_the_terminal(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    nasty = "2026\x1b]0;owned\x07\x1b[2J"
    runs = [
        run(tmp_path / name, figure(nasty + name, 0.9, 1.1), finished=nasty, host=nasty, method=nasty + name)
        for name in ("a", "b")
    ]
    assert cli.main(["compare", *runs]) == errors.DONE
    assert "\x1b" not in capsys.readouterr().out


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("plan", [{}]),
        ("plan", 5),
        ("changed", ["torch"]),
        ("checks", ["x"]),
        ("spec", [1]),
        ("benchmark", {"server": "x"}),
        ("benchmark", {"server": {"comparisons": [figure("a", "x", None)]}}),
        ("benchmark", {"server": {"comparisons": [{"name": "a", "speedup": "x"}]}}),
        ("benchmark", {"server": {"comparisons": [{"name": "a", "speedup": 10**400}]}}),
        ("benchmark", {"server": {"comparisons": [{"name": "a", "speedup": float("nan")}]}}),
    ],
)
def test_evidence_of_another_form_is_refused_by_its_part(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], name: str, value: Any
) -> None:
    runs = run(tmp_path / "a"), run(tmp_path / "b", **{name: value})
    assert cli.main(["compare", *runs]) == errors.WRONG_INPUT
    said = capsys.readouterr().err
    assert f"{runs[1]}, found another form of {name}" in said


def test_evidence_too_deep_to_read_is_refused(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "deep.json").write_text("[" * 100_000)
    assert cli.main(["compare", str(tmp_path / "deep.json"), run(tmp_path / "a")]) == errors.WRONG_INPUT
    assert "it is no JSON" in capsys.readouterr().err
