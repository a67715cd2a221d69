# Copyright (c) 2026 The ocrfleet.gpu_stack contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The command with the real ansible-runner and ansible-playbook, on hosts that have nothing to install."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import yaml

from ocrfleet import errors
from ocrfleet.ansible import Ansible, check_playbooks
from ocrfleet.errors import FleetError
from ocrfleet.evidence import is_untouched

ROOT = Path(__file__).resolve().parents[3]
HOSTS = ("h1", "h2", "h3")
# What the role report leaves of a host, as a task.
TELL = """\
    - ansible.builtin.copy:
        content: "{{ evidence | combine({'host': inventory_hostname, 'finished': at}) | to_json }}"
        dest: "{{ report_dir }}/{{ inventory_hostname }}/evidence.json"
        mode: "0600"
      vars:
        at: "{{ now(utc=true, fmt='%Y-%m-%dT%H:%M:%SZ') }}"
"""
# Fails where a file of the host's name says so; else leaves evidence as the role report does.
CONVERT = """
- hosts: all
  gather_facts: false
  tasks:
    - ansible.builtin.fail: {msg: "no room on {{ inventory_hostname }}"}
      when: (folder ~ '/bad-' ~ inventory_hostname) is file
    - ansible.builtin.file: {path: "{{ report_dir }}/{{ inventory_hostname }}", state: directory, mode: "0700"}
"""
CONVERT += TELL
BACK = """
- hosts: all
  gather_facts: false
  tasks:
    - ansible.builtin.copy:
        content: "{{ rollback_baseline }}"
        dest: "{{ folder }}/back-{{ inventory_hostname }}"
        mode: "0600"
"""
EVIDENCE = {"result": "verified", "transaction": {"baseline_id": "base-1"}, "lock": "flashinfer-python==0.3.1\n"}


def small_fleet(folder: Path, **policy: Any) -> Path:
    """Put an inventory, a policy and its playbooks there; `bad-HOST` beside them has that host fail."""
    hosts = {name: {"ansible_connection": "local", "ansible_python_interpreter": sys.executable} for name in HOSTS}
    variables = {"stack_root": str(folder / "none"), "folder": str(folder), "evidence": EVIDENCE}
    (folder / "inventory.yml").write_text(json.dumps({"all": {"hosts": hosts, "vars": variables}}))
    (folder / "convert.yml").write_text(CONVERT)
    (folder / "back.yml").write_text(BACK)
    settings = {"waves": [1, 1], "playbook": "convert.yml", "rollback_playbook": "back.yml", "shards": 2, **policy}
    (folder / "policy.yml").write_text(yaml.safe_dump(settings))
    return folder


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    return small_fleet(tmp_path)


@pytest.fixture
def ocrfleet(folder: Path) -> Callable[..., tuple[int, str]]:
    def run(*argv: str) -> tuple[int, str]:
        command = [Path(sys.executable).with_name("ocrfleet"), "--state-dir", folder / "state", *argv]
        environment = {**os.environ, "ANSIBLE_COLLECTIONS_PATH": str(ROOT / "collections")}
        done = subprocess.run(
            command, cwd=folder, env=environment, capture_output=True, text=True, timeout=180, check=False
        )
        return done.returncode, done.stdout + done.stderr

    return run


def states(ocrfleet: Any) -> dict[str, str]:
    code, said = ocrfleet("status", "--query", "hosts[].[name, state]", "--output", "json")
    assert code == 0, said
    return dict(json.loads(said))


def test_a_rollout_stops_at_a_failure_and_is_resumed_and_rolled_back(folder: Path, ocrfleet: Any) -> None:
    (folder / "bad-h2").touch()
    code, said = ocrfleet("rollout", "-i", "inventory.yml", "-p", "policy.yml")
    assert code == errors.STOPPED, said
    assert "no room on h2" in said
    assert states(ocrfleet) == {"h1": "converted", "h2": "failed", "h3": "pending"}
    (folder / "bad-h2").unlink()
    assert ocrfleet("resume")[0] == errors.DONE
    assert states(ocrfleet) == dict.fromkeys(HOSTS, "converted")
    assert ocrfleet("rollback")[0] == errors.DONE
    assert states(ocrfleet) == dict.fromkeys(HOSTS, "rolled back")
    assert {(folder / f"back-{name}").read_text() for name in HOSTS} == {"base-1"}


def run(folder: Path, playbook: str) -> dict[str, Any]:
    ansible = Ansible(folder / "rollout", [str(folder / "inventory.yml")], shards=2)
    return ansible.run("run", playbook, list(HOSTS), {}, lambda kind, host, task: None)


def test_what_each_host_came_to(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(folder)
    inventory = json.loads((folder / "inventory.yml").read_text())
    # Nobody listens on the first port.
    inventory["all"]["hosts"]["h3"].update(ansible_connection="ssh", ansible_host="127.0.0.1", ansible_port=1)
    (folder / "inventory.yml").write_text(json.dumps(inventory))
    (folder / "bad-h2").touch()
    found = run(folder, "convert.yml")
    assert {name: outcome.state for name, outcome in found.items()} == {
        "h1": "converted",
        "h2": "failed",
        "h3": "unreachable",
    }
    assert found["h2"].message.endswith("no room on h2")
    assert found["h1"].evidence["transaction"] == EVIDENCE["transaction"]
    # Neither the variables nor the environment of a run are left behind.
    assert sorted(path.suffix for path in (folder / "rollout/runs/run").iterdir()) == [
        "",
        ".limit",
        ".limit",
        ".log",
        ".log",
    ]


# Fails with its own command line, and with how long the variables are that it was given.
TELLS = """
- hosts: all
  gather_facts: false
  tasks:
    - ansible.builtin.fail:
        msg: "{{ baselines | length }} {{ baselines.h1 }} {{ found }} {{ lookup('ansible.builtin.pipe', line) }}"
      vars: {line: "tr '\\\\0' ' ' </proc/$PPID/cmdline"}
"""
# More than Linux takes in one argument, and with a template, as the way back of a large batch has it.
MANY = {"baselines": {"h1": "hidden", **dict.fromkeys(map(str, range(20000)), "base-1")}, "found": "{{ baselines.h1 }}"}


def test_no_variable_is_on_a_command_line(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Everybody on the machine could read it."""
    monkeypatch.chdir(folder)
    (folder / "tells.yml").write_text(TELLS)
    ansible = Ansible(folder / "rollout", [str(folder / "inventory.yml")])
    message = ansible.run("run", "tells.yml", ["h1"], MANY, lambda *_: None)["h1"].message
    assert "20001 hidden hidden" in message
    assert "ansible-playbook" in message
    assert message.count("hidden") == 2 and "base-1" not in message


def test_a_playbook_that_cannot_begin_leaves_every_host_as_it_was(
    folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(folder)
    found = run(folder, "misspelt.yml")
    assert all(outcome.state == "failed" and is_untouched(outcome.evidence) for outcome in found.values())
    assert all("misspelt.yml" in outcome.message for outcome in found.values())


@pytest.mark.parametrize(
    ("settings", "said"),
    [
        ({"playbook": "misspelt.yml"}, "misspelt.yml"),
        ({"playbook": "ocrfleet.gpu_stack.nosuch"}, "the playbook: ocrfleet.gpu_stack.nosuch could not be found"),
        ({"rollback_playbook": "torn.yml"}, "torn.yml"),
        ({"hooks": {"undrain": {"playbook": "gone.yml"}, "drain": {"command": ["true"]}}}, "gone.yml"),
        (
            {"hooks": {"undrain": {"command": ["true"]}, "drain": {"command": ["no-such-program", "{host}"]}}},
            "hooks.drain: expected a program, found none at no-such-program",
        ),
        ({"variables": {"fi_method": "pipy"}}, "3 hosts: "),
        ({"approve_after": [9]}, "approve_after: expected numbers of waves that another one follows, found 9"),
    ],
    ids=str,
)
@pytest.mark.parametrize("command", ["plan", "rollout"])
def test_what_cannot_be_carried_out_is_refused_before_a_rollout_is_made(
    folder: Path, ocrfleet: Any, command: str, settings: dict[str, Any], said: str
) -> None:
    (folder / "torn.yml").write_text("- hosts: [")
    policy = {**yaml.safe_load((folder / "policy.yml").read_text()), **settings}
    (folder / "policy.yml").write_text(yaml.safe_dump(policy))
    code, told = ocrfleet(command, "-i", "inventory.yml", "-p", "policy.yml")
    assert (code, said in " ".join(told.split())) == (errors.WRONG_INPUT, True), told
    assert "there is no rollout" in ocrfleet("status")[1]


HANGS = """
- hosts: all
  gather_facts: false
  tasks:
    - block:
        - ansible.builtin.command: sleep 300
          when: inventory_hostname == 'h2'
        - ansible.builtin.file: {path: "{{ report_dir }}/{{ inventory_hostname }}", state: directory, mode: "0700"}
"""
HANGS += TELL.replace("    - ", "        - ", 1).replace("\n      ", "\n          ")
HANGS += """
      rescue:
        - ansible.builtin.copy: {content: back, dest: "{{ folder }}/back-{{ inventory_hostname }}", mode: "0600"}
        - ansible.builtin.fail: {msg: "{{ ansible_failed_result.msg }}"}
"""


def test_a_host_that_hangs_fails_as_with_any_error_and_holds_no_other_one(folder: Path, ocrfleet: Any) -> None:
    (folder / "hangs.yml").write_text(HANGS)
    settings = {
        "waves": ["100%"],
        "playbook": "hangs.yml",
        "task_minutes": 0.2,
    }  # a busy machine needs seconds for a task
    (folder / "policy.yml").write_text(yaml.safe_dump(settings))
    began = time.monotonic()
    code, said = ocrfleet("rollout", "-i", "inventory.yml", "-p", "policy.yml")
    assert code == errors.STOPPED, said
    assert time.monotonic() - began < 60
    assert states(ocrfleet) == {"h1": "converted", "h2": "failed", "h3": "converted"}
    assert "Timed out after 12 second(s)" in " ".join(said.split())
    assert (folder / "back-h2").is_file()


@pytest.mark.parametrize(("asked", "checked"), [(None, "True"), ("False", "False")])
def test_host_keys_are_checked_unless_the_operator_says_otherwise(
    folder: Path, monkeypatch: pytest.MonkeyPatch, asked: str | None, checked: str
) -> None:
    monkeypatch.chdir(folder)
    monkeypatch.delenv("ANSIBLE_HOST_KEY_CHECKING", raising=False)
    if asked:
        monkeypatch.setenv("ANSIBLE_HOST_KEY_CHECKING", asked)
    said = "{{ lookup('ansible.builtin.config', 'HOST_KEY_CHECKING') }}"
    tasks = [{"ansible.builtin.fail": {"msg": f"checked: {said}"}}]
    (folder / "keys.yml").write_text(json.dumps([{"hosts": "all", "gather_facts": False, "tasks": tasks}]))
    assert run(folder, "keys.yml")["h1"].message.endswith(f"checked: {checked}")


def test_folders_are_looked_for_where_the_rollout_was_begun(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The roles name theirs by PWD, which is the shell's of whoever resumes."""
    monkeypatch.chdir(folder)
    monkeypatch.setenv("PWD", "/elsewhere")
    tasks = [{"ansible.builtin.fail": {"msg": "{{ lookup('ansible.builtin.env', 'PWD') }}"}}]
    (folder / "where.yml").write_text(json.dumps([{"hosts": "all", "gather_facts": False, "tasks": tasks}]))
    assert run(folder, "where.yml")["h1"].message.endswith(f" {folder.resolve()}")


def test_a_reader_that_goes_away_stops_it_between_two_hosts(folder: Path, ocrfleet: Any) -> None:
    """As `tee` does at Ctrl-C, `head`, and a terminal that is closed."""
    policy = yaml.safe_load((folder / "policy.yml").read_text())
    hook = {"command": ["true"]}
    policy.update(waves=["100%"], forks=1, shards=1, hooks={"drain": hook, "undrain": hook})
    (folder / "policy.yml").write_text(yaml.safe_dump(policy))
    line = f"{Path(sys.executable).with_name('ocrfleet')} --state-dir state rollout -i inventory.yml -p policy.yml"
    environment = {**os.environ, "ANSIBLE_COLLECTIONS_PATH": str(ROOT / "collections")}
    done = subprocess.run(
        ["bash", "-c", f"{line} | head -1; echo ${{PIPESTATUS[0]}}"],
        cwd=folder,
        env=environment,
        capture_output=True,
        text=True,
        timeout=180,
        check=False,
    )
    assert (done.stdout.splitlines()[-1], done.stderr) == (str(errors.PAUSED), "")
    code, said = ocrfleet("status", "--query", "hosts[].[name, state, drained]", "--output", "json")
    found = {name: (state, drained) for name, state, drained in json.loads(said)}
    # Where it was heard at once none was begun on; a host that was, has ended and is back in service.
    assert {drained for _state, drained in found.values()} == {False}, said
    assert found["h3"] == ("pending", False)
    assert ocrfleet("resume")[0] == errors.DONE


def test_a_playbook_is_read_with_the_variables_of_its_run(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(folder)
    text = "- hosts: '{{ target }}'\n  serial: '{{ batch }}'\n  tasks: []\n"
    (folder / "varying.yml").write_text(text)
    check_playbooks(["varying.yml"], {"target": "all", "batch": 1}, False)
    with pytest.raises(FleetError, match="is undefined"):
        check_playbooks(["varying.yml"], {}, False)


def test_what_workers_have_is_not_looked_for_here(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(folder)
    (folder / "theirs.yml").write_text("- hosts: all\n  roles: [only.at_worker.role]\n")
    check_playbooks(["theirs.yml", "only.at_worker.playbook"], {}, True)
    with pytest.raises(FleetError, match=r"playbooks that are not there; nothing was touched: gone.yml"):
        check_playbooks(["gone.yml"], {}, True)


def test_a_driver_works_without_an_output(folder: Path, ocrfleet: Any) -> None:
    line = f"{Path(sys.executable).with_name('ocrfleet')} --state-dir state rollout -i inventory.yml -p policy.yml >&-"
    environment = {**os.environ, "ANSIBLE_COLLECTIONS_PATH": str(ROOT / "collections")}
    done = subprocess.run(["bash", "-c", line], cwd=folder, env=environment, timeout=180, check=False)
    assert done.returncode == errors.DONE
    assert states(ocrfleet) == dict.fromkeys(HOSTS, "converted")
