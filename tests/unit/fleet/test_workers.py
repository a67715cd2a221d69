# Copyright (c) 2026 The ocrfleet.gpu_stack contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Rollouts through the real `ansible-runner worker`, in a process that has nothing of this one's environment."""

from __future__ import annotations

import json
import os
import shutil
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import yaml

from ocrfleet import ansible, errors, evidence, planning, policy, rollout, workers
from ocrfleet.rollout import Driver
from ocrfleet.state import State

from .conftest import Silent
from .test_real_runs import EVIDENCE, HOSTS, MANY, ROOT, TELL, TELLS, small_fleet

LOCK = str(EVIDENCE["lock"]).strip()
# Beside evidence, what else comes back or was sent. `wait-HOST` has the host's run wait for `go`.
CONVERT = """
- hosts: all
  gather_facts: false
  vars: {store: "{{ kernel_pack_store | default(folder ~ '/packs') }}"}
  tasks:
    - ansible.builtin.shell: echo begin >>{{ folder }}/ran-{{ inventory_hostname }}
    - ansible.builtin.wait_for: {path: "{{ folder }}/go", timeout: 60, sleep: 1}
      when: (folder ~ '/wait-' ~ inventory_hostname) is file
    - ansible.builtin.shell: echo end >>{{ folder }}/ran-{{ inventory_hostname }}
    - ansible.builtin.copy:
        content: >-
          {{ {'lock': lookup('ansible.builtin.file', flashinfer_lock) if flashinfer_lock is defined else '',
              'lock_is': flashinfer_lock | default(''),
              'packs': lookup('ansible.builtin.fileglob', store ~ '/*', wantlist=true) | map('basename'),
              'beside': beside_the_inventory, 'cwd': lookup('ansible.builtin.pipe', 'pwd'),
              'home': lookup('ansible.builtin.env', 'HOME') | basename} | to_json }}
        dest: "{{ folder }}/had-{{ inventory_hostname }}"
        mode: "0600"
    - ansible.builtin.file: {path: "{{ item }}", state: directory, mode: "0700"}
      loop: ["{{ report_dir }}/{{ inventory_hostname }}", "{{ store }}"]
    - ansible.builtin.copy: {content: pack, dest: "{{ store }}/of-{{ inventory_hostname }}", mode: "0600"}
"""
CONVERT += TELL


def worker(
    folder: Path, name: str, before: str = "", collections: Path = ROOT / "collections", programs: Path | None = None
) -> list[str]:
    """A command that runs a worker elsewhere, as far as one machine has an elsewhere. `before` is shell."""
    home = folder / f"home-{name}"
    home.mkdir()
    path = f"{programs or home}:{Path(sys.executable).parent}:{os.defpath}"
    script = folder / name
    script.write_text(
        f"#!/bin/sh\ncd {home}\necho used >>{folder}/used-{name}\n{before}\n"
        f"exec env -i HOME={home} PATH={path} LC_ALL=C.UTF-8 ANSIBLE_COLLECTIONS_PATH={collections} "
        "ansible-runner worker\n"
    )
    script.chmod(0o755)
    return [str(script)]


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    small_fleet(tmp_path)
    (tmp_path / "convert.yml").write_text(CONVERT)
    (tmp_path / "group_vars").mkdir()
    (tmp_path / "group_vars/all.yml").write_text("beside_the_inventory: yes it is\n")
    return tmp_path


def rewrite_policy(folder: Path, **settings: Any) -> None:
    shape = {"waves": [1, "100%"], "playbook": "convert.yml", "rollback_playbook": "back.yml"}
    (folder / "policy.yml").write_text(yaml.safe_dump({**shape, **settings}))


@pytest.fixture
def ocrfleet(folder: Path) -> Callable[..., tuple[int, str]]:
    def run(*argv: str) -> tuple[int, str]:
        command = [str(Path(sys.executable).with_name("ocrfleet")), "--state-dir", str(folder / "state"), *argv]
        done = subprocess.run(command, cwd=folder, capture_output=True, text=True, timeout=180, check=False)
        return done.returncode, done.stdout + done.stderr

    return run


def states(ocrfleet: Any) -> dict[str, str]:
    return dict(json.loads(ocrfleet("status", "--query", "hosts[].[name, state]", "--output", "json")[1]))


def had(folder: Path, host: str) -> dict[str, Any]:
    return dict(json.loads((folder / f"had-{host}").read_text()))


def test_a_rollout_and_its_way_back_through_two_workers(folder: Path, ocrfleet: Any) -> None:
    rewrite_policy(folder, workers=[worker(folder, "a"), worker(folder, "b")])
    (folder / "kernel-packs").mkdir()
    (folder / "kernel-packs/of-before").touch()
    code, said = ocrfleet("rollout", "-i", "inventory.yml", "-p", "policy.yml")
    assert code == errors.DONE, said
    assert states(ocrfleet) == dict.fromkeys(HOSTS, "converted")
    assert not any(had(folder, host)["lock_is"].startswith(str(folder)) for host in HOSTS)
    # What the canary got and left here reached both, and what they made came back.
    assert [had(folder, host)["lock"] for host in HOSTS] == ["", LOCK, LOCK]
    assert sorted(had(folder, "h1")["packs"]) == ["of-before"]
    assert {tuple(sorted(had(folder, host)["packs"])) for host in ("h2", "h3")} == {("of-before", "of-h1")}
    assert sorted(file.name for file in (folder / "kernel-packs").iterdir()) == ["of-before", "of-h1", "of-h2", "of-h3"]
    assert {had(folder, host)["beside"] for host in HOSTS} == {"yes it is"}
    assert not any(had(folder, host)["cwd"].startswith(str(folder)) for host in HOSTS)
    # Each host has the same worker always, whichever others are in its wave.
    assert [had(folder, host)["home"] for host in HOSTS] == ["home-a", "home-b", "home-a"]
    assert ocrfleet("rollback")[0] == errors.DONE
    assert {(folder / f"back-{name}").read_text() for name in HOSTS} == {"base-1"}
    assert not list(folder.glob("state/rollouts/*/runs/*/*.runner"))
    logs = [file.read_text() for file in folder.glob("state/rollouts/*/runs/*/*.log")]
    assert len(logs) == 5
    assert all("PLAY RECAP" in text for text in logs)


@pytest.mark.parametrize(
    ("command", "said"),
    [
        ("no-such-program", "No such file or directory: 'no-such-program'"),
        ("echo 'ansible-runner: not found' >&2; exit 127", "ansible-runner: not found (code 127)"),
        ("echo Welcome", "Line with invalid JSON data: b'Welcome"),
        ("", "ocrfleet.gpu_stack.survey could not be found"),
    ],
)
def test_a_worker_that_does_not_work_is_told_before_a_host_is_touched(
    folder: Path, ocrfleet: Any, command: str, said: str
) -> None:
    broken = [command] if command.startswith("no-") else worker(folder, "b", command, collections=folder)
    rewrite_policy(folder, workers=[worker(folder, "a"), broken])
    for verb in ("plan", "rollout"):
        code, told = ocrfleet(verb, "-i", "inventory.yml", "-p", "policy.yml")
        assert code == errors.WRONG_INPUT, told
        assert said in told
        assert f"worker `{broken[0]}`: " in told
        assert "installed there" in told if not command else "--worker-info" in told
    assert not list(folder.glob("ran-*"))


def another_version(folder: Path, version: str) -> Path:
    """A copy of this collection that says it is of another version."""
    copy = folder / "others/ansible_collections/ocrfleet/gpu_stack"
    for name in ("meta", "playbooks", "plugins", "roles"):
        shutil.copytree(ROOT / name, copy / name, ignore=shutil.ignore_patterns("__pycache__"))
    (copy / "galaxy.yml").write_text((ROOT / "galaxy.yml").read_text().replace("version: ", f"version: {version} # "))
    return folder / "others"


def test_a_worker_with_another_version_of_the_collection_is_refused(
    folder: Path, ocrfleet: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Also where it got that after the plan was made."""
    other = worker(folder, "b", collections=another_version(folder, "9.8.7"))
    rewrite_policy(folder, workers=[worker(folder, "a"), other])
    own = yaml.safe_load((ROOT / "galaxy.yml").read_text())["version"]
    said = (
        f"worker `{other[0]}`: expected version {own} of this collection, as where the rollout is driven, found 9.8.7"
    )
    for verb in ("plan", "rollout"):
        code, told = ocrfleet(verb, "-i", "inventory.yml", "-p", "policy.yml")
        assert (code, said in " ".join(told.split())) == (errors.WRONG_INPUT, True), told
    assert not list(folder.glob("ran-*"))
    monkeypatch.chdir(folder)
    run = ansible.Ansible(folder / "rollout", [str(folder / "inventory.yml")], workers=[other], fleet=HOSTS)
    found = run.run("run", "ocrfleet.gpu_stack.flashinfer", ["h2"], {}, lambda *_: None)["h2"]
    assert (found.state, "found 9.8.7" in found.message) == ("failed", True)
    assert evidence.is_untouched(found.evidence)


@pytest.mark.parametrize("files", [0, 200])
def test_a_command_that_never_reads_its_input_is_ended(
    folder: Path, monkeypatch: pytest.MonkeyPatch, files: int
) -> None:
    """Whether what is sent fits into the pipe, or fills it."""
    monkeypatch.chdir(folder)
    monkeypatch.setattr(workers, "ANSWER", 1.0)
    beside = folder / "group_vars/all"
    (folder / "group_vars/all.yml").unlink()
    beside.mkdir()
    for number in range(files):
        (beside / f"{number}.yml").write_text(f"# {os.urandom(1000).hex()}\n")
    deaf = ["sh", "-c", f"sleep 300 & echo $! >{folder}/child; wait"]
    run = ansible.Ansible(folder / "rollout", [str(folder / "inventory.yml")], workers=[deaf], fleet=HOSTS)
    began = time.monotonic()
    found = run.run("run", "convert.yml", ["h2"], {}, lambda *_: None)["h2"]
    assert time.monotonic() - began < 30
    assert found.state == "unknown"
    assert "found: no answer within 1 s, so it was ended" in found.message
    assert run.problems == [found.message]
    child = Path("/proc", (folder / "child").read_text().strip(), "stat")
    assert not child.exists() or child.read_text().split()[2] == "Z"


def test_a_command_that_says_something_else_and_does_not_end_is_ended(
    folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(workers, "ANSWER", 1.0)
    names, problem = workers.at_work(["sh", "-c", "echo Welcome; exec sleep 300"], "OCRFLEET_RUN=", dict(os.environ))
    assert (names, "found: no answer within 1 s" in problem) == ([], True)


def test_a_worker_that_is_at_work_may_be_silent_for_longer(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(folder)
    monkeypatch.setattr(workers, "ANSWER", 8.0)
    (folder / "say.yml").write_text(
        "- hosts: all\n  gather_facts: false\n  tasks: [{ansible.builtin.command: sleep 10}]"
    )
    run = ansible.Ansible(
        folder / "rollout", [str(folder / "inventory.yml")], workers=[worker(folder, "a")], fleet=HOSTS
    )
    assert run.run("run", "say.yml", ["h2"], {}, lambda *_: None, False)["h2"].state == "converted"


def test_the_hosts_of_a_worker_that_fails_have_no_result_and_are_done_again(folder: Path, ocrfleet: Any) -> None:
    broken = f"[ ! -e {folder}/ran-h1 ] || [ -e {folder}/mended ] || {{ echo cut off >&2; exit 255; }}"
    rewrite_policy(folder, workers=[worker(folder, "a"), worker(folder, "b", broken)])
    code, said = ocrfleet("rollout", "-i", "inventory.yml", "-p", "policy.yml")
    assert code == errors.STOPPED, said
    assert states(ocrfleet) == {"h1": "converted", "h2": "unknown", "h3": "converted"}
    assert "cut off (code 255)" in said
    # Whether the lost run goes on there cannot be told either.
    code, said = ocrfleet("resume")
    assert code == errors.REFUSED
    assert "found: cut off (code 255); " in said
    assert "Whether an earlier run goes on there cannot be told" in said
    (folder / "mended").touch()
    assert ocrfleet("resume")[0] == errors.DONE
    assert states(ocrfleet) == dict.fromkeys(HOSTS, "converted")


def test_where_a_worker_is_gone_resume_goes_on_here(folder: Path, ocrfleet: Any) -> None:
    gone = worker(folder, "b", f"[ ! -e {folder}/ran-h1 ] || exit 255")
    rewrite_policy(folder, workers=[worker(folder, "a"), gone])
    assert ocrfleet("rollout", "-i", "inventory.yml", "-p", "policy.yml")[0] == errors.STOPPED
    code, said = ocrfleet("resume", "--here")
    assert code == errors.DONE, said
    assert states(ocrfleet) == dict.fromkeys(HOSTS, "converted")


def begin(folder: Path, **settings: Any) -> State:
    chosen = policy.complete({"playbook": "convert.yml", **settings})
    waves = planning.waves(list(HOSTS), dict.fromkeys(HOSTS, "f1"), chosen)
    inventory = [str(folder / "inventory.yml")]
    return State.create(folder / "rollout", chosen, inventory, planning.Fleet(list(HOSTS)), waves)


def wait_for(file: Path) -> None:
    until = time.monotonic() + 60
    while not file.is_file():
        assert time.monotonic() < until, f"{file} did not come"
        time.sleep(0.05)


def test_resume_waits_for_a_worker_that_outlived_the_driver(
    folder: Path, ocrfleet: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Past the processes of this machine, where a remote worker's would not be."""
    rewrite_policy(folder, workers=[worker(folder, "a")])
    (folder / "wait-h1").touch()
    argv = [sys.executable, "-m", "ocrfleet", "--state-dir", "state", "rollout", "-i", "inventory.yml"]
    driver = subprocess.Popen([*argv, "-p", "policy.yml"], cwd=folder, stdout=subprocess.DEVNULL)
    wait_for(folder / "ran-h1")
    driver.send_signal(signal.SIGKILL)
    driver.wait()
    assert states(ocrfleet)["h1"] == "running"
    state = State(next(folder.glob("state/rollouts/*")))
    monkeypatch.chdir(folder)
    monkeypatch.setattr(rollout, "at_work", lambda *_: [])
    watcher = Silent()
    with pytest.raises(errors.Refused, match=r"0001-0 at worker `.*/a`"):
        Driver(state, watcher).abort()

    def go(_seconds: float) -> None:
        # The run that waits is told to go on once the driver has been seen to wait for it.
        (folder / "go").touch()

    assert Driver(state, watcher, sleep=go).forward() == errors.DONE
    assert any(note.startswith("waiting for the earlier run, which still works as 0001-0") for note in watcher.notes)
    # One after the other, and what the lost run did was this rollout's.
    assert (folder / "ran-h1").read_text().split() == ["begin", "end", "begin", "end"]
    assert {host.state for host in state.hosts()} == {"converted"}


def test_a_run_whose_artifacts_did_not_come_back_has_no_result(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Ansible's word that nothing failed had come, the evidence had not: whether it failed is not known."""
    monkeypatch.chdir(folder)
    whole = worker(folder, "a")[0]
    cut = ["sh", "-c", f"{whole} | sed '/\"zipfile\"/,$d'"]
    run = ansible.Ansible(folder / "rollout", [str(folder / "inventory.yml")], workers=[cut], fleet=HOSTS)
    found = run.run("run", "convert.yml", ["h2"], {}, lambda *_: None)
    assert found["h2"].state == "unknown"
    assert "the connection was lost" in found["h2"].message


def test_where_a_worker_cannot_be_asked_abort_names_its_hosts_and_a_roll_back_is_refused(folder: Path) -> None:
    state = begin(folder, workers=[worker(folder, "a", "exit 255")])
    state.begin(["h1"], "0001")
    state.hand_over(["h1"])
    watcher = Silent()
    Driver(state, watcher).abort()
    assert [host.state for host in state.hosts()] == ["unknown", "pending", "pending"]
    assert any("cannot be told" in note for note in watcher.notes)
    with pytest.raises(errors.Refused, match="cannot be told"):
        Driver(state, watcher).back()
    assert Driver(state, watcher, here=True).back() == errors.STOPPED
    assert state.hosts()[0].state == "not rolled back"


def test_a_worker_without_ansible_cannot_tell_what_is_at_work(folder: Path) -> None:
    programs = folder / "programs"
    programs.mkdir()
    (programs / "ansible-playbook").write_text("#!/bin/sh\nexit 1\n")
    (programs / "ansible-playbook").chmod(0o755)
    names, problem = workers.at_work(worker(folder, "a", programs=programs), "OCRFLEET_RUN=", dict(os.environ))
    assert (names, "it does not run Ansible" in problem) == ([], True)


def test_an_inventory_of_several_sources_reaches_a_worker(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(folder)
    whole = folder / "whole"
    (whole / "host_vars").mkdir(parents=True)
    hosts = {"h4": {"ansible_connection": "local", "ansible_python_interpreter": sys.executable}}
    (whole / "hosts.yml").write_text(json.dumps({"all": {"hosts": hosts}}))
    (whole / "host_vars/h4.yml").write_text("said: beside a folder\nkernel_pack_store: its own\n")
    (folder / "say.yml").write_text(
        "- hosts: all\n  gather_facts: false\n  tasks: [{fail: {msg: \"{{ said | default('none') }}"
        "{{ beside_the_inventory | default('') }} {{ kernel_pack_store }}\"}}]"
    )
    sources = [str(folder / "inventory.yml"), str(whole), "h5,"]
    a = worker(folder, "a")
    run = ansible.Ansible(folder / "rollout", sources, workers=[a], fleet=["h1", "h4", "h5"])
    found = run.run("run", "say.yml", ["h1", "h4", "h5"], {}, lambda *_: None)
    assert found["h4"].message.endswith("beside a folderyes it is its own"), found
    assert found["h5"].message.endswith("/kernel-packs")


def test_no_variable_is_on_a_workers_command_line(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(folder)
    (folder / "tells.yml").write_text(TELLS)
    sources = [str(folder / "inventory.yml")]
    run = ansible.Ansible(folder / "rollout", sources, workers=[worker(folder, "a")], fleet=HOSTS)
    message = run.run("run", "tells.yml", ["h1"], MANY, lambda *_: None)["h1"].message
    assert "20001 hidden hidden" in message
    assert "ansible-playbook" in message
    assert message.count("hidden") == 2 and "base-1" not in message


def test_a_connection_that_is_lost_leaves_no_result_and_what_was_said_is_kept(
    folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The command ends, as ssh does, while the worker behind it works on."""
    monkeypatch.chdir(folder)
    (folder / "wait-h2").touch()
    behind = worker(folder, "behind")[0]
    line = folder / "line"
    line.write_text(
        f"#!/bin/sh\nmkfifo {folder}/pipe\nexec 3<&0\n{behind} <&3 >{folder}/pipe &\nexec cat {folder}/pipe\n"
    )
    line.chmod(0o755)

    def by(command: list[str]) -> ansible.Ansible:
        return ansible.Ansible(folder / "rollout", [str(folder / "inventory.yml")], workers=[command], fleet=HOSTS)

    found: dict[str, Any] = {}
    at_work = threading.Thread(
        target=lambda: found.update(by([str(line)]).run("run", "convert.yml", ["h2"], {}, lambda *_: None))
    )
    at_work.start()
    wait_for(folder / "ran-h2")
    for process in Path("/proc").glob("[0-9]*"):
        try:
            words = (process / "cmdline").read_bytes().split(b"\0")
        except OSError:
            continue
        if words[:2] == [b"cat", f"{folder}/pipe".encode()]:
            os.kill(int(process.name), signal.SIGKILL)
    at_work.join()
    assert found["h2"].state == "unknown"
    assert "the connection was lost" in found["h2"].message
    assert "TASK [ansible.builtin.shell]" in (folder / "rollout/runs/run/run-0.log").read_text()
    asked = worker(folder, "asked")
    assert by(asked).at_work_there(["h2"]) == [f"run-0 at {workers.shown(asked)}"]
    assert by(asked).at_work_there(["h2"], kind=ansible.HOOKS) == []
    (folder / "go").touch()
    until = time.monotonic() + 60
    while (folder / "ran-h2").read_text().split() != ["begin", "end"]:
        assert time.monotonic() < until, "the run did not go on"
        time.sleep(0.1)
