# Copyright (c) 2026 The ocrfleet.gpu_stack contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""What is told, and written, where a run meets another one, ends what one left, or takes one back."""

from __future__ import annotations

import json
import subprocess
import sys

import light_stack
import pytest
from light_hosts import TOOLS, LightHosts

# A control node of another name: whether its run still lives cannot be seen from here.
ELSEWHERE = ["unshare", "--uts", "--map-root-user", "sh", "-euc", 'hostname other-node; exec "$@"', "sh"]
MINE = ("mine", "1.0", "", {"mine.py": "one = 1\n"})


@pytest.fixture
def host(tmp_path_factory: pytest.TempPathFactory) -> LightHosts:
    hosts = LightHosts(tmp_path_factory.mktemp("returns"))
    hosts.wheel(hosts.wheels, *light_stack.WHEELS[3])
    hosts.wheel(hosts.wheels, *MINE)
    hosts.add("vm", stack_offline=True, stack_find_links=[str(hosts.wheels)])
    said = hosts.run(playbook="playbooks/flashinfer.yml")
    assert hosts.evidence("vm")["result"] == "verified", said
    return hosts


def words(said: str) -> str:
    return " ".join(said.split())


def test_a_rollback_tells_what_goes_and_marks_the_evidence(host: LightHosts) -> None:
    tree = host.environment("vm")
    python = str(tree / "bin/python")
    host.call("uv", "pip", "install", "--quiet", "--python", python, "--no-index", "-f", str(host.wheels), "mine")

    check = words(host.run("--check", playbook="playbooks/rollback.yml"))
    assert "mine 1.0, not there in the baseline" in check and "would be kept in" in check
    assert host.evidence("vm")["result"] == "verified"
    assert list(tree.glob("lib/python3*/site-packages/flashinfer"))

    said = words(host.run(playbook="playbooks/rollback.yml"))
    assert "mine 1.0, not there in the baseline" in said and "failed=0" in said
    assert "PyTorch 2.8.0+cu128 (CUDA 12.8), no FlashInfer." in said
    assert host.changes("vm") == []
    kept = tree.parent / f".{tree.name}.gpu_stack/held-back"
    assert list(kept.glob("*/lib/python3*/site-packages/mine.py"))
    evidence = host.evidence("vm")
    assert (evidence["result"], evidence["spec"]["FlashInfer"]) == ("restored", "none")
    assert "flashinfer-python 0.3.1 is not in the result" in evidence["notes"]
    assert evidence["transaction"]["proof"]["equal"] is True

    again = words(host.run(playbook="playbooks/rollback.yml"))
    assert "changed=0" in again and "failed=0" in again
    assert host.evidence("vm") == evidence
    after = words(host.run(playbook="playbooks/flashinfer.yml"))
    assert "it was returned to a baseline since the last run" in after
    assert host.evidence("vm")["result"] == "verified"


def test_a_run_that_meets_another_one_leaves_its_report_and_the_next_tells_of_it(host: LightHosts) -> None:
    before = {path: path.read_bytes() for path in (host.folder / "reports/vm").iterdir()}
    begin = [str(TOOLS / "ansible"), "vm", "--inventory=vm,", "--connection=local"]
    begin += ["--extra-vars", json.dumps({"ansible_python_interpreter": sys.executable})]
    begin += ["--module-name=ocrfleet.gpu_stack.env_transaction"]
    begin += [f"--args=environment={host.environment('vm')} action=begin export_dir={host.folder / 'home'}"]
    subprocess.run([*ELSEWHERE, *begin], check=True, env=host.environ(), timeout=120, capture_output=True)

    said = words(host.run("-e", "fi_method=constrained", playbook="playbooks/flashinfer.yml"))
    assert "belongs to a run of another control node" in said and "failed=1" in said
    assert "flashinfer_takeover: true" in said
    assert "no report is written" in said
    assert {path: path.read_bytes() for path in (host.folder / "reports/vm").iterdir()} == before

    taking = ("-e", '{"flashinfer_takeover": true}')
    host.run("-e", "fi_method=constrained", *taking, playbook="playbooks/flashinfer.yml")
    evidence = host.evidence("vm")
    assert evidence["result"] == "verified"
    assert [note for note in evidence["notes"] if note.startswith("an earlier run did not end. Found: transaction")]


def test_a_host_that_has_everything_is_asked_once_and_verified_anew_where_that_is_asked_for(host: LightHosts) -> None:
    site = {"pytorch_lock": "", "olmocr_lock": "", "olmocr_extras": []}

    def run(**more: object) -> tuple[str, dict]:
        said = words(host.run("-e", json.dumps({**site, **more}), playbook="playbooks/site.yml"))
        assert "failed=0" in said, said
        return said, host.evidence("vm")

    first = run()[1]
    assert run()[1] == first
    said, again = run(stack_recheck=True)
    assert "it is asked to be looked at again (stack_recheck)" in said
    assert (again["result"], again["spec_hash"]) == ("verified", first["spec_hash"])
    assert again["finished"] > first["finished"] and not again["changed"]
    said, last = run()
    assert "changed=0" in said and last == again
