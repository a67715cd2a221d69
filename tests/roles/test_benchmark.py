# Copyright (c) 2026 The ocrfleet.gpu_stack contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The role benchmark from the kept baseline to the report, and what it says of runs that failed.

ansible-playbook, the role, the modules, the transaction and the mount namespaces are real; OlmOCR is a stand-in that
takes as long as each tree's own variables say.
"""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Any

import ad_hoc
import jsonschema
import pytest
import yaml
from ansible_collections.ocrfleet.gpu_stack.plugins.filter.with_measurement import OTHER, with_measurement
from ansible_collections.ocrfleet.gpu_stack.plugins.module_utils import (
    activation,
    benchmark_gate,
    distributions,
    inventory,
    staging,
)
from made_environment import add_distribution
from transaction_bench import Bench

ROOT = Path(__file__).resolve().parents[2]
FAKE = ROOT / "tests/unit/fixtures/gpu/fake_olmocr"
SCHEMA = json.loads((ROOT / "roles/report/files/evidence.schema.json").read_text(encoding="utf-8"))
PLAY = [
    {
        "hosts": "all",
        "gather_facts": False,
        "tasks": [{"ansible.builtin.include_role": {"name": "ocrfleet.gpu_stack.benchmark"}}],
    }
]


def starts_with(tree: Path, seconds: float, how: str = "ok") -> None:
    """Have a tree's OlmOCR be the stand-in, which takes that long."""
    path = tree / activation.ENVIRONMENT_FILE
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(f"PYTHONPATH='{FAKE}'\nFAKE_SECONDS={seconds}\nFAKE_OLMOCR={how}\n")


class Host:
    """A promoted environment with FlashInfer, and its kept baseline without, in which the pipeline is slower."""

    def __init__(self, folder: Path, how: str = "ok") -> None:
        self.folder = folder
        bench = Bench(folder)
        self.environment = bench.environment
        starts_with(self.environment, 0.4)
        bench.work().begin()
        candidate = bench.tree()
        add_distribution(candidate, "flashinfer_python", "0.3.1", {"flashinfer/__init__.py": "x = 1\n"})
        starts_with(candidate, 0.05, how)
        bench.work().promote()
        bench.work().prune()
        (self.baseline,) = (Path(row["path"]) for row in bench.work().describe()["baselines"])

    def run(self, stored: dict[str, Any] | None = None, **settings: Any) -> tuple[int, str]:
        variables = {
            "ansible_connection": "local",
            "ansible_python_interpreter": sys.executable,
            "stack_environment": str(self.environment),
            "stack_root": str(self.folder / "root"),
            "report_dir": str(self.folder / "reports"),
            "benchmark_levels": ["documents"],
            "benchmark_documents": 1,
            "benchmark_pages": 2,
            "benchmark_workers": [1],
            "benchmark_repeats": 5,
            "benchmark_server": "http://127.0.0.1:1/v1",  # nobody listens: the stand-in asks none
            "benchmark_model": "stand-in",
            "benchmark_stand_in": "a fake OlmOCR",
            "__stack_machine": {"stored_evidence": stored or {}},
            **settings,
        }
        hosts, play = self.folder / "hosts.json", self.folder / "play.yml"
        hosts.write_text(json.dumps({"all": {"hosts": {"one": variables}}}))
        play.write_text(yaml.safe_dump(PLAY))
        return ad_hoc.play(self.folder, "-i", hosts, play, variables={"HOME": str(self.folder / "home")})

    def evidence(self) -> dict[str, Any]:
        return dict(json.loads((self.folder / "reports/one/evidence.json").read_text()))


needs_namespaces = pytest.mark.skipif(
    staging.unavailable() is not None, reason="no mount namespace can be had here, in which the baseline is run"
)


@needs_namespaces
def test_from_the_kept_baseline_to_the_report(tmp_path: Path) -> None:
    host = Host(tmp_path)
    trees = [(tree, inventory.take(str(tree))) for tree in (host.environment, host.baseline)]
    code, said = host.run()
    assert code == 0, said
    found = host.evidence()
    jsonschema.validate(found, SCHEMA)
    level = found["benchmark"]["documents"]
    assert (found["result"], level["status"], found["gate"]) == ("measured", "measured", {})
    assert level["fingerprint"] == distributions.fingerprint(str(host.environment))
    assert {entry["verdict"] for entry in level["comparisons"]} == {"faster"}
    assert len(level["comparisons"]) == 3
    assert 'name="benchmark, documents: scanned, 1 worker"' in (tmp_path / "reports/one/report.xml").read_text()
    for tree, before in trees:
        assert inventory.differences(before, inventory.take(str(tree))) == []


@needs_namespaces
def test_a_gate_that_is_missed_stands_in_the_report_and_fails_the_play(tmp_path: Path) -> None:
    host = Host(tmp_path)
    code, said = host.run(flashinfer_min_speedup=1.05)
    assert code == 2, said
    assert host.evidence()["gate"]["problems"] == [
        "expected documents that the environment's own vllm reads, found them sent to a fake OlmOCR, whose speed says "
        "nothing of this FlashInfer; leave benchmark_server empty, or documents out of benchmark_levels"
    ]
    assert "The gate" in (tmp_path / "reports/one/report.html").read_text()
    assert "found them sent to a fake OlmOCR" in said


@needs_namespaces
def test_a_level_that_failed_fails_the_play_after_its_report(tmp_path: Path) -> None:
    code, said = Host(tmp_path, "one-page").run()
    assert code == 2, said
    assert "expected the level documents to be measured, found that it failed: scanned, 1 worker: candidate:" in said
    level = json.loads((tmp_path / "reports/one/evidence.json").read_text())["benchmark"]["documents"]
    assert (level["status"], {entry["status"] for entry in level["comparisons"]}) == ("failed", {"failed"})


DOCUMENTS = {"status": "measured", "comparisons": [], "fingerprint": "now", "finished": "2026-11-25T01:02:03Z"}
KERNELS = {**DOCUMENTS, "finished": "2026-11-26T01:02:03Z"}
STORED = {"host": "a", "result": "verified", "fingerprint": "now", "finished": "2026-11-24T01:02:03Z", "notes": ["x"]}
MEASURED = {"levels": {"kernels": KERNELS}, "gate": {}}


def test_levels_are_put_beside_those_of_the_same_packages() -> None:
    found = with_measurement({**STORED, "benchmark": {"documents": DOCUMENTS, "kernels": DOCUMENTS}}, MEASURED, "a")
    assert found == {**STORED, "benchmark": {"documents": DOCUMENTS, "kernels": KERNELS}, "gate": {}}


def test_a_level_of_other_packages_goes() -> None:
    old = {"documents": {**DOCUMENTS, "fingerprint": "then"}, "server": {"status": "measured", "comparisons": []}}
    assert with_measurement({**STORED, "benchmark": old}, MEASURED, "a")["benchmark"] == {"kernels": KERNELS}


def test_evidence_of_other_packages_says_nothing_of_what_was_measured() -> None:
    other = {**STORED, "fingerprint": "then", "benchmark": {"documents": {**DOCUMENTS, "fingerprint": "then"}}}
    found = with_measurement(other, MEASURED, "a")
    assert found == {
        "host": "a",
        "result": "measured",
        "fingerprint": "now",
        "notes": [OTHER],
        "benchmark": {"kernels": KERNELS},
        "gate": {},
    }
    assert "notes" not in with_measurement({}, MEASURED, "a")


def test_a_gate_stays_until_one_is_asked_for_anew() -> None:
    missed = {
        "min_speedup": 2.0,
        "max_slowdown": 1.0,
        "problems": ["too slow"],
        "fingerprint": "now",
        "level": "documents",
    }
    met = {**missed, "problems": []}
    assert with_measurement({**STORED, "gate": missed}, MEASURED, "a")["gate"] == missed
    assert with_measurement({**STORED, "gate": missed}, {**MEASURED, "gate": met}, "a")["gate"] == met
    assert with_measurement(STORED, {**MEASURED, "gate": missed}, "a")["gate"] == missed
    then = {**missed, "fingerprint": "then"}
    assert with_measurement({**STORED, "gate": then}, MEASURED, "a")["gate"] == {}
    # Refused, and installed later without a gate: the packages are those that it was judged on.
    assert with_measurement({**STORED, "fingerprint": "then", "gate": missed}, MEASURED, "a")["gate"] == missed


def figures(low: float, finished: str, **more: Any) -> dict[str, Any]:
    entry = {"name": "mixed, 1 worker", "status": "measured", "pairs": 5, "speedup": low + 0.1, "high": low + 0.2}
    return {**DOCUMENTS, "finished": finished, "comparisons": [{**entry, "low": low}], **more}


def judged(levels: dict[str, Any]) -> dict[str, Any]:
    return benchmark_gate.judged(levels, min_speedup=1.05, max_slowdown=1)


FIRST, SECOND = "2026-11-25T01:02:03Z", "2026-11-26T01:02:03Z"
FAST, SLOW = {"documents": figures(1.1, FIRST)}, {"documents": figures(0.9, SECOND)}


def test_a_gate_is_judged_again_on_what_is_measured_anew() -> None:
    """A gate that was met stood beside newer figures that contradict it."""
    stored = {**STORED, "benchmark": FAST, "gate": judged(FAST)}
    assert (stored["gate"]["problems"], stored["gate"]["level"], stored["gate"]["finished"]) == ([], "documents", FIRST)
    found = with_measurement(stored, {"levels": SLOW, "gate": {}}, "a")
    assert found["gate"] == judged(SLOW)
    assert (len(found["gate"]["problems"]), found["gate"]["finished"]) == (1, SECOND)
    faster = {"documents": figures(1.2, SECOND)}
    assert with_measurement(found, {"levels": faster, "gate": {}}, "a")["gate"] == judged(faster)


def test_a_gate_is_not_judged_again_on_what_it_was_not_judged_on() -> None:
    server = {"server": figures(1.3, SECOND)}
    missed = {**STORED, "benchmark": SLOW, "gate": judged(SLOW)}
    assert with_measurement(missed, {"levels": server, "gate": {}}, "a")["gate"] == judged(SLOW)
    idle = {"documents": {**DOCUMENTS, "status": "not_run", "reason": "no GPU", "finished": SECOND}}
    # That could not be measured is no figure, and a figure of before is none that it was judged on.
    nothing = {**STORED, "benchmark": FAST, "gate": judged(idle)}
    assert with_measurement(nothing, {"levels": idle, "gate": {}}, "a")["gate"] == judged(idle)
    assert with_measurement(nothing, {"levels": server, "gate": {}}, "a")["gate"] == judged(idle)
    met = {**STORED, "benchmark": FAST, "gate": judged(FAST)}
    assert with_measurement(met, {"levels": idle, "gate": {}}, "a")["gate"] == judged(FAST)


def test_a_level_that_fails_later_misses_a_gate_that_was_met() -> None:
    met = {**STORED, "benchmark": FAST, "gate": judged(FAST)}
    failed = {"kernels": {**KERNELS, "status": "failed", "reason": "a wrong row"}}
    (problem,) = with_measurement(met, {"levels": failed, "gate": {}}, "a")["gate"]["problems"]
    assert "a wrong row" in problem


@pytest.mark.parametrize("status", ["measured", "failed"])
def test_a_level_that_cannot_run_now_leaves_what_was_found_before(status: str) -> None:
    before = {"kernels": {**KERNELS, "status": status}}
    now = {**MEASURED, "levels": {"kernels": {**KERNELS, "status": "not_run", "reason": "no GPU"}}}
    assert with_measurement({**STORED, "benchmark": before}, now, "a")["benchmark"] == before
    found = with_measurement({**STORED, "benchmark": now["levels"]}, now, "a")["benchmark"]
    assert found == now["levels"]
    then = {"kernels": {**before["kernels"], "fingerprint": "then"}}
    assert with_measurement({**STORED, "benchmark": then}, now, "a")["benchmark"] == now["levels"]


def test_a_server_that_verifies_is_not_one_to_measure_with() -> None:
    defaults = yaml.safe_load((ROOT / "roles/benchmark/defaults/main.yml").read_text())
    assert defaults["benchmark_server"] == ""
