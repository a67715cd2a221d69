# Copyright (c) 2026 The ocrfleet.gpu_stack contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""ocrfleet on real hosts by SSH. Run by `make molecule SCENARIO=fleet`; the tests build on each other, in order."""

from __future__ import annotations

import json
import os
import shlex
import signal
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest
import yaml

PROJECT = Path(__file__).parents[2]
RUN = os.environ["OCRFLEET_TEST_RUN"]
FOLDER = Path(os.environ["MOLECULE_EPHEMERAL_DIRECTORY"])
INVENTORY = [f"--inventory={PROJECT}/molecule/inventory/fleet.yml", f"--inventory={FOLDER}/hosts/"]
ENVIRONMENT = "/home/ocr/stack/envs/olmocr-optimized"
STATE = "/home/ocr/stack/envs/.olmocr-optimized.gpu_stack"
# The light hosts have no system packages, and need none.
LIGHT = {"__stack_platforms": {"debian-12": {"manager": "apt", "packages": []}}}
DONE, STOPPED, PAUSED, REFUSED = 0, 3, 4, 5


def podman(*argv: str, stdin: str = "", check: bool = True) -> str:
    env = {**os.environ, "CONTAINERS_CONF": str(PROJECT / "tests/hosts/containers.conf")}
    done = subprocess.run(["podman", *argv], input=stdin, capture_output=True, text=True, env=env, check=False)
    assert done.returncode == 0 or not check, done.stderr
    return done.stdout


def on(host: str, script: str, check: bool = True) -> str:
    """The output of a shell script on a host, past SSH and past everything that is tested."""
    argv = ["exec", "--interactive", "--user", "ocr", "--env", "HOME=/home/ocr", f"ocrfleet-{RUN}-{host}", "sh", "-e"]
    return podman(*argv, stdin=script, check=check).strip()


def tree(host: str) -> str:
    """One line that is the same for the same environment, byte for byte."""
    program = (PROJECT / "molecule/shared/tree.py").read_text()
    return on(host, f"python3 - {ENVIRONMENT} deep <<'END'\n{program}\nEND\n")


def packages(host: str) -> list[str]:
    return on(host, f"cd {ENVIRONMENT}/lib/python3.11/site-packages && ls -d *.dist-info").split()


def contents(host: str) -> str:
    """Every file of the environment with its hash, but for what Python compiles."""
    return on(host, f"cd {ENVIRONMENT} && find . -type f ! -path '*/__pycache__/*' | sort | xargs sha256sum")


def evidence(host: str) -> dict[str, Any]:
    return dict(json.loads(on(host, "cat $HOME/stack/reports/evidence.json")))


def has_flashinfer(host: str) -> bool:
    return "flashinfer_python-0.3.1.dist-info" in packages(host)


def untouched(host: str) -> bool:
    return on(host, f"ls -d {STATE} /home/ocr/stack/reports 2>&1 || true").count("No such file") == 2


class Fleet:
    """One state folder of ocrfleet, and a policy."""

    def __init__(self, folder: Path, limit: str, **policy: Any) -> None:
        self.folder, self.limit = folder, limit
        folder.mkdir(parents=True, exist_ok=True)
        self.policy = folder / "policy.json"
        self.policy.write_text(json.dumps({"variables": LIGHT, **policy}))

    def argv(self, command: str, *more: str) -> list[str]:
        shape = (
            [*INVENTORY, f"--limit={self.limit}", f"--policy={self.policy}"] if command in ("plan", "rollout") else []
        )
        return [sys.executable, "-m", "ocrfleet", f"--state-dir={self.folder}/state", command, *shape, *more]

    def run(self, command: str, *more: str) -> subprocess.CompletedProcess[str]:
        done = subprocess.run(self.argv(command, *more), capture_output=True, text=True, cwd=PROJECT, check=False)
        print(done.stdout[-6000:], done.stderr[-3000:])
        return done

    def start(self, command: str, *more: str) -> subprocess.Popen[str]:
        return subprocess.Popen(
            self.argv(command, *more), stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, cwd=PROJECT
        )

    def status(self, query: str) -> Any:
        return json.loads(self.run("status", "--output=json", f"--query={query}").stdout)

    def states(self) -> dict[str, str]:
        return {name: state for name, state in self.status("hosts[].[name, state]")}

    def message(self, host: str) -> str:
        return str(self.status(f"hosts[?name=='{host}'].message | [0]"))

    def wait_until(
        self, seen: Callable[[], bool], what: str, process: subprocess.Popen[str], pause: float = 0.05
    ) -> None:
        until = time.monotonic() + 1200
        while not seen():
            assert process.poll() is None, f"ended before {what}: {process.stdout.read() if process.stdout else ''}"
            assert time.monotonic() < until, f"expected {what} within 1200 s"
            time.sleep(pause)

    def wait_for_task(self, task: str, process: subprocess.Popen[str]) -> None:
        """Until ansible-playbook says that a task begins."""
        logs = "state/rollouts/*/runs/*/*.runner/artifacts/*/stdout"
        self.wait_until(
            lambda: any(task in log.read_text(errors="replace") for log in self.folder.glob(logs)), task, process
        )


@contextmanager
def fault(host: str, what: str) -> Iterator[None]:
    on(host, f"echo {what} >$HOME/stand-in-fault")
    try:
        yield
    finally:
        on(host, "rm -f $HOME/stand-in-fault")


FIRST = ("fleet-1", "fleet-2", "fleet-3", "fleet-4")
WAVES = [1, 2, "100%"]
PHASES = {
    "look": ": Look at the machine, change nothing",
    "plan": ": Ask for FlashInfer, to plan",
    "freeze": ": Freeze the environment and make a candidate",
    "install": ": Ask for FlashInfer, to install",
    "verify": ": Run the checklist (about",
    "promote": ": Make the candidate the environment",
    "report": ": Write the report on the host and on the control node",
}


@dataclass
class Seen:
    """What `ocrfleet` made of the first four hosts; Ansible alone is held against it."""

    before: dict[str, str] = field(default_factory=dict)
    stopped: dict[str, str] = field(default_factory=dict)
    finished: dict[str, str] = field(default_factory=dict)
    evidence: dict[str, Any] = field(default_factory=dict)


def each(of: Callable[[str], Any], hosts: Iterable[str] = FIRST) -> dict[str, Any]:
    return {host: of(host) for host in hosts}


@pytest.fixture(scope="module")
def first() -> Fleet:
    return Fleet(FOLDER / "fleet-first", ":".join(FIRST), waves=WAVES)


@pytest.fixture(scope="module")
def seen() -> Seen:
    return Seen()


def test_when_the_canary_fails_nobody_else_is_touched(first: Fleet, seen: Seen) -> None:
    seen.before = each(tree)
    with fault("fleet-1", "broken"):
        assert first.run("rollout").returncode == STOPPED
    assert "broken on purpose" in first.message("fleet-1")
    assert each(tree) == seen.before
    assert first.states() == {"fleet-1": "failed", "fleet-2": "pending", "fleet-3": "pending", "fleet-4": "pending"}
    assert all(untouched(host) for host in ("fleet-2", "fleet-3", "fleet-4"))


def test_when_one_of_wave_two_fails_it_is_restored_and_wave_three_does_not_start(first: Fleet, seen: Seen) -> None:
    with fault("fleet-3", "broken"):
        assert first.run("resume").returncode == STOPPED
    assert "broken on purpose" in first.message("fleet-3")
    assert tree("fleet-3") == seen.before["fleet-3"]
    assert first.states() == {"fleet-1": "converted", "fleet-2": "converted", "fleet-3": "failed", "fleet-4": "pending"}
    assert untouched("fleet-4")
    seen.stopped = each(contents)


def test_resume_after_repair_finishes_and_a_second_rollout_is_refused_meanwhile(first: Fleet, seen: Seen) -> None:
    done_before = on("fleet-1", "stat -c %Y $HOME/stack/reports/evidence.json")
    process = first.start("resume")
    first.wait_for_task("TASK [ocrfleet.gpu_stack.stack", process)
    second = first.run("rollout")
    assert (second.returncode, "another rollout is at work" in second.stderr) == (REFUSED, True)
    said, _ = process.communicate(timeout=600)
    assert process.returncode == DONE, said
    assert set(first.states().values()) == {"converted"}
    assert all(each(has_flashinfer).values())
    assert on("fleet-1", "stat -c %Y $HOME/stack/reports/evidence.json") == done_before, (
        "a finished host was done again"
    )
    seen.finished, seen.evidence = each(contents), each(evidence)


def test_the_same_rollout_again_changes_nothing(first: Fleet, seen: Seen) -> None:
    assert first.run("rollout").returncode == DONE
    assert set(first.states().values()) == {"unchanged"}
    assert each(contents) == seen.finished


def test_roll_back_of_the_first_rollout(first: Fleet, seen: Seen) -> None:
    name = sorted(path.name for path in (first.folder / "state/rollouts").iterdir())[0]
    assert first.run("rollback", name).returncode == DONE
    assert each(tree) == seen.before


def playbook(name: str, **variables: Any) -> subprocess.CompletedProcess[str]:
    argv = ["ansible-playbook", *INVENTORY, f"--limit={':'.join(FIRST)}"]
    argv += [f"--extra-vars={json.dumps({**LIGHT, **variables})}", f"playbooks/{name}.yml"]
    done = subprocess.run(argv, capture_output=True, text=True, cwd=PROJECT, check=False)
    print(done.stdout[-6000:], done.stderr[-3000:])
    return done


def test_ansible_alone_gives_the_same(seen: Seen) -> None:
    """The same inventory, waves and fault: after the failure, after the repair, and after the way back."""
    with fault("fleet-3", "broken"):
        assert playbook("rollout", rollout_waves=WAVES).returncode != 0
    assert each(contents) == seen.stopped
    assert tree("fleet-3") == seen.before["fleet-3"]
    assert playbook("rollout", rollout_waves=WAVES).returncode == 0
    assert each(contents) == seen.finished
    for host in FIRST:
        mine, theirs = evidence(host), seen.evidence[host]
        for name in ("result", "method", "versions", "lock", "plan", "changed"):
            assert mine[name] == theirs[name], (host, name)
        assert [(check["name"], check["status"]) for check in mine["checks"]] == [
            (check["name"], check["status"]) for check in theirs["checks"]
        ]
    assert playbook("rollback").returncode == 0
    assert each(tree) == seen.before


LIMITED = tuple(f"fleet-{number}" for number in range(1, 8))
RACKS = {"rack_a": LIMITED[1:4], "rack_b": LIMITED[3:5]}  # as in the inventory; fleet-4 is in both
APART = ("fleet-3", "fleet-6")


def hook_here(folder: Path, what: str) -> dict[str, Any]:
    """A hook that is a command on the control node: it notes for which host, and when."""
    return {"command": ["sh", "-c", f'echo "$1 {what} $(date +%s.%N)" >>{folder}/hooks.log', "hook", "{host}"]}


def hook_there(folder: Path, what: str) -> dict[str, Any]:
    """A hook that is a playbook: it notes on the host when, and fails where the file no-WHAT says so."""
    script = f"echo $(hostname) {what} $(date +%s.%N) >>$HOME/{folder.name}.log; test ! -e $HOME/no-{what}"
    tasks = [{"name": f"Note the {what}", "ansible.builtin.shell": script}]
    folder.mkdir(exist_ok=True)
    file = folder / f"{what}.yml"
    file.write_text(json.dumps([{"name": what, "hosts": "all", "gather_facts": False, "tasks": tasks}]))
    return {"playbook": str(file)}


@contextmanager
def undrainable(host: str) -> Iterator[None]:
    on(host, "touch $HOME/no-drain")
    try:
        yield
    finally:
        on(host, "rm $HOME/no-drain")


@dataclass(frozen=True)
class Outage:
    """A host was out of service, or on the way there or back: times by the hooks."""

    host: str
    since: float
    until: float


def outages(fleet: Fleet, hosts: Iterable[str] = LIMITED) -> list[Outage]:
    """What the hooks noted, here and on the hosts: each drain of a host has one undrain after it, and no other."""
    here = fleet.folder / "hooks.log"
    notes = here.read_text() if here.is_file() else ""
    for host in hosts:
        notes += on(host, f"cat $HOME/{fleet.folder.name}.log 2>/dev/null || true") + "\n"
    said = sorted((host, float(at), what) for host, what, at in (line.split() for line in notes.split("\n") if line))
    assert [what for _host, _at, what in said] == ["drain", "undrain"] * (len(said) // 2), said
    assert [host for host, _at, _what in said[::2]] == [host for host, _at, _what in said[1::2]], said
    return [Outage(host, since, until) for (host, since, _), (_, until, _) in zip(said[::2], said[1::2], strict=True)]


def most_down(found: list[Outage], hosts: Iterable[str]) -> int:
    """Of these hosts, how many were out of service at the same time."""
    ours = [outage for outage in found if outage.host in hosts]
    return max(sum(other.since <= outage.since < other.until for other in ours) for outage in ours)


def changes(host: str, since: float) -> list[float]:
    """When a file or folder of the stack was last changed on a host, whatever changed it and whatever it claims."""
    script = f"find /home/ocr/stack -newerct @{since} ! -name __pycache__ ! -path '*/__pycache__/*' -printf '%C@\\n'"
    return [float(at) for at in on(host, script).split()]


def changed_in_service(found: list[Outage], since: float) -> dict[str, list[float]]:
    """Hosts that were changed while they were in service, and when."""
    late = {
        host: [
            at
            for at in changes(host, since)
            if not any(outage.since < at < outage.until for outage in found if outage.host == host)
        ]
        for host in LIMITED
    }
    return {host: times for host, times in late.items() if times}


@dataclass
class Limited:
    """A rollout under a policy that limits all it can, and what its hosts were before."""

    fleet: Fleet
    began: float
    opens: float
    before: dict[str, str]


@pytest.fixture(scope="module")
def limited() -> Limited:
    """Its window opens one to two minutes from now: what runs until then finds it shut."""
    began = time.time()
    opens = 60 * (began // 60 + 2)
    window = {name: time.strftime("%H:%M", time.gmtime(at)) for name, at in (("from", opens), ("to", opens + 7200))}
    folder = FOLDER / "fleet-limited"
    fleet = Fleet(
        folder,
        ":".join(LIMITED),
        waves=[1, "100%"],
        at_once=3,
        groups={"rack_a": {"at_once": 2}, "rack_b": {"at_once": 1}},
        apart=[APART],
        windows=[window],
        approve_after=[1],
        hooks={"drain": hook_there(folder, "drain"), "undrain": hook_here(folder, "undrain")},
    )
    return Limited(fleet, began, opens, each(tree, LIMITED))


def assert_within_limits(found: list[Outage]) -> None:
    """Each limit is reached, and none is passed."""
    assert most_down(found, LIMITED) == 3
    assert {rack: most_down(found, hosts) for rack, hosts in RACKS.items()} == {"rack_a": 2, "rack_b": 1}
    assert most_down(found, APART) == 1


def test_while_its_window_is_shut_a_rollout_begins_nothing(limited: Limited) -> None:
    done = limited.fleet.run("rollout", "--no-wait")
    assert time.time() < limited.opens, "too slow a machine for this test"
    assert (done.returncode, "waiting for a maintenance window" in done.stdout) == (PAUSED, True)
    assert set(limited.fleet.states().values()) == {"pending"}
    assert outages(limited.fleet) == []
    assert not any(each(lambda host: changes(host, limited.began), LIMITED).values())


def test_abort_lets_hosts_at_work_end_and_go_back_into_service_and_begins_no_other() -> None:
    """Here a command drains, and a playbook brings back."""
    folder, hosts = FOLDER / "fleet-abort", FIRST[:3]
    hooks = {"drain": hook_here(folder, "drain"), "undrain": hook_there(folder, "undrain")}
    fleet = Fleet(folder, ":".join(hosts), waves=["100%"], at_once=2, hooks=hooks)
    before, began = each(tree, hosts), time.time()
    process = fleet.start("rollout")
    fleet.wait_for_task(PHASES["freeze"], process)
    asked = time.time()
    assert fleet.run("abort").returncode == DONE
    said, _ = process.communicate(timeout=600)
    assert (process.returncode, fleet.status("state")) == (PAUSED, "aborted"), said
    assert fleet.states() == {"fleet-1": "converted", "fleet-2": "converted", "fleet-3": "pending"}
    assert each(has_flashinfer, hosts) == {"fleet-1": True, "fleet-2": True, "fleet-3": False}
    found = outages(fleet)
    assert [outage.host for outage in found if outage.since < asked < outage.until] == ["fleet-1", "fleet-2"]
    assert (len(found), changes("fleet-3", began)) == (2, [])
    assert fleet.run("rollback").returncode == DONE
    assert each(tree, hosts) == before
    found = outages(fleet)
    assert Counter(outage.host for outage in found) == {"fleet-1": 2, "fleet-2": 2}
    assert changed_in_service(found, began) == {}


def test_limits_hold_until_hosts_that_fail_or_cannot_be_drained_close_the_gate(limited: Limited) -> None:
    fleet = limited.fleet
    with fault("fleet-3", "broken"), undrainable("fleet-5"):
        resumed = time.time()
        process = fleet.start("resume")
        time.sleep(max(0, limited.opens - time.time()))
        fleet.wait_until(lambda: fleet.status("state") == "waiting", "it waits for an approval", process, pause=1)
        approved = time.time()
        assert [outage.host for outage in outages(fleet)] == ["fleet-1"]
        assert fleet.run("approve").returncode == DONE
        said, _ = process.communicate(timeout=600)
        assert process.returncode == STOPPED, said
    expected = {"fleet-1": "converted", "fleet-2": "converted", "fleet-3": "failed", "fleet-5": "skipped"}
    assert fleet.states() == {**dict.fromkeys(LIMITED, "pending"), **expected}
    assert "broken on purpose" in fleet.message("fleet-3")
    assert "not drained: Note the drain" in fleet.message("fleet-5")
    found = outages(fleet)
    assert {outage.host: outage.since > approved for outage in found} == {host: host != "fleet-1" for host in expected}
    assert limited.opens < min(outage.since for outage in found)
    # What failed is as before, and what could not be drained was never touched. Both are in service again.
    assert tree("fleet-3") == limited.before["fleet-3"]
    assert (untouched("fleet-5"), changes("fleet-5", limited.began)) == (True, [])
    assert fleet.run("resume").returncode == DONE
    assert set(fleet.states().values()) == {"converted"}
    assert all(each(has_flashinfer, LIMITED).values())
    found = outages(fleet)
    assert Counter(outage.host for outage in found) == {**dict.fromkeys(LIMITED, 1), "fleet-3": 2, "fleet-5": 2}
    assert_within_limits(found)
    assert changed_in_service(found, resumed) == {}


def test_the_way_back_has_the_same_hooks_and_limits(limited: Limited) -> None:
    fleet, began = limited.fleet, time.time()
    with undrainable("fleet-7"):
        assert fleet.run("rollback").returncode == STOPPED
    assert fleet.states() == {**dict.fromkeys(LIMITED, "rolled back"), "fleet-7": "converted"}
    assert (has_flashinfer("fleet-7"), changes("fleet-7", began)) == (True, [])
    assert fleet.run("rollback").returncode == DONE
    assert each(tree, LIMITED) == limited.before
    found = [outage for outage in outages(fleet) if outage.since > began]
    assert Counter(outage.host for outage in found) == {**dict.fromkeys(LIMITED, 1), "fleet-7": 2}
    assert_within_limits(found)
    assert changed_in_service(found, began) == {}


def test_a_drifted_host_is_found_beforehand_and_has_a_wave_of_its_own() -> None:
    on("fleet-8", f"cp -r {ENVIRONMENT}/lib/python3.11/site-packages/olmocr-0.4.2.dist-info /tmp/drift")
    on("fleet-8", f"mv /tmp/drift {ENVIRONMENT}/lib/python3.11/site-packages/by_hand-1.0.dist-info")
    on(
        "fleet-8",
        f"cd {ENVIRONMENT}/lib/python3.11/site-packages/by_hand-1.0.dist-info && sed -i s/olmocr/by-hand/ METADATA"
        " && printf 'by_hand-1.0.dist-info/METADATA,,\\n' >RECORD",
    )
    fleet = Fleet(FOLDER / "fleet-drift", "fleet-5:fleet-6:fleet-7:fleet-8", waves=["100%"])
    shown = fleet.run("plan", "--output=json", "--query=waves[].[canary, hosts]")
    assert json.loads(shown.stdout) == [[True, ["fleet-5", "fleet-6", "fleet-7"]], [True, ["fleet-8"]]]


# Who dies: the driver, whose playbooks may end by themselves, or all that runs on the control node.
KILLS = {f"fleet-{number}": (phase, number % 2 == 0) for number, phase in enumerate(PHASES, start=1)}


def children(pid: int) -> list[int]:
    """A process and all below it."""
    found = [pid]
    for task in Path(f"/proc/{pid}/task").glob("*/children"):
        for child in task.read_text().split():
            found += children(int(child))
    return found


def kill_and_resume(host: str) -> None:
    phase, everything = KILLS[host]
    fleet = Fleet(FOLDER / f"fleet-kill-{host}", host)
    process = fleet.start("rollout")
    fleet.wait_for_task(PHASES[phase], process)
    for pid in children(process.pid) if everything else [process.pid]:
        os.kill(pid, signal.SIGKILL)
    process.wait()
    assert fleet.states() == {host: "running"}
    assert fleet.run("resume").returncode == DONE
    assert fleet.states() == {host: "converted"}
    assert has_flashinfer(host)
    journal = json.loads(on(host, f"cat {STATE}/journal.json"))["body"]
    assert journal["transaction"]["state"] == "promoted"


def test_a_controller_killed_in_each_phase_is_resumed() -> None:
    with ThreadPoolExecutor() as pool:
        list(pool.map(kill_and_resume, KILLS))


def test_a_host_that_is_away_and_one_that_reboots_stop_the_rollout_and_resume_finishes_it() -> None:
    assert Fleet(FOLDER / "fleet-kill-fleet-1", "fleet-1").run("rollback").returncode == DONE
    fleet = Fleet(FOLDER / "fleet-away", "fleet-1:fleet-8")
    before = tree("fleet-8")
    podman("stop", "--time=2", f"ocrfleet-{RUN}-fleet-1")
    with fault("fleet-8", "600"):
        process = fleet.start("rollout")
        fleet.wait_for_task(PHASES["verify"], process)
        on("fleet-8", "until [ -e $HOME/stand-in-sleeps ]; do sleep 0.1; done")
        podman("restart", "--time=2", f"ocrfleet-{RUN}-fleet-8")
        said, _ = process.communicate(timeout=600)
        assert process.returncode == STOPPED, said
        assert "no answer from fleet-1" in said
    assert tree("fleet-8") == before
    assert fleet.states() == {"fleet-1": "pending", "fleet-8": "unreachable"}
    podman("start", f"ocrfleet-{RUN}-fleet-1")
    assert fleet.run("resume").returncode == DONE
    assert set(fleet.states().values()) == {"converted"}


@pytest.fixture(scope="module")
def collection(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("collection")
    subprocess.run(["ansible-galaxy", "collection", "build", f"--output-path={folder}"], cwd=PROJECT, check=True)
    return next(folder.glob("*.tar.gz"))


def make_worker(host: str, collection: Path) -> list[str]:
    """Make a host a control node, as docs/guides/fleet.md says; the command that runs a worker there."""
    podman("cp", str(collection), f"ocrfleet-{RUN}-{host}:/opt/collection.tar.gz")
    podman("cp", str(PROJECT / "execution-environment.lock"), f"ocrfleet-{RUN}-{host}:/opt/control.lock")
    reach = yaml.safe_load((FOLDER / f"hosts/host_vars/{host}.yml").read_text())
    common = shlex.split(reach["ansible_ssh_common_args"])
    ssh = ["ssh", f"-p{reach['ansible_port']}", f"-i{FOLDER}/id", "-oBatchMode=yes", *common, "ocr@127.0.0.1"]
    script = """
        set -e
        folder=$HOME/.ansible/collections/ansible_collections/ocrfleet/gpu_stack
        mkdir -p $folder && tar -xzf /opt/collection.tar.gz -C $folder
        uv venv --quiet --clear --python /usr/bin/python3 $HOME/control
        uv pip install --quiet --python $HOME/control/bin/python --require-hashes -r /opt/control.lock
    """
    subprocess.run([*ssh, script], check=True)
    return [*ssh, "PATH=$HOME/control/bin:$PATH", "exec", "ansible-runner", "worker"]


def test_two_workers_by_ssh_of_which_one_outlives_the_control_node(collection: Path) -> None:
    """Each worker converts the machine that it runs on, since the containers do not reach each other by SSH."""
    hosts = ("fleet-6", "fleet-7")
    for host in hosts:
        Fleet(FOLDER / f"fleet-kill-{host}", host).run("rollback")
    before = each(tree, hosts)
    with ThreadPoolExecutor() as pool:
        workers = list(pool.map(lambda host: make_worker(host, collection), hosts))
    variables = {**LIGHT, "ansible_connection": "local"}
    fleet = Fleet(FOLDER / "fleet-workers", ":".join(hosts), waves=[1, 1], workers=workers, variables=variables)
    with fault("fleet-6", "20"):
        process = fleet.start("rollout")
        on("fleet-6", "rm -f $HOME/stand-in-sleeps; until [ -e $HOME/stand-in-sleeps ]; do sleep 0.1; done")
        for pid in children(process.pid):  # ssh too
            os.kill(pid, signal.SIGKILL)
        process.wait()
    assert fleet.states() == {"fleet-6": "running", "fleet-7": "pending"}
    resumed = fleet.run("resume")
    assert resumed.returncode == DONE
    assert "waiting for the earlier run" in resumed.stdout
    assert set(fleet.states().values()) == {"converted"}
    # The lost run was not undone: it ended well there, and the next one found nothing to do.
    (again,) = fleet.folder.glob("state/rollouts/*/runs/0002/0002-0.log")
    assert "End the play for this host" in again.read_text()
    told = [evidence(host) for host in hosts]
    assert [found["result"] for found in told] == ["verified", "verified"]
    assert told[0]["lock"] == told[1]["lock"] != ""
    assert fleet.run("rollout").returncode == DONE
    assert set(fleet.states().values()) == {"unchanged"}
    first = sorted(path.name for path in (fleet.folder / "state/rollouts").iterdir())[0]
    assert fleet.run("rollback", first).returncode == DONE
    assert each(tree, hosts) == before


@pytest.mark.skipif(os.environ.get("OCRFLEET_FLEET_REAL") == "0", reason="OCRFLEET_FLEET_REAL=0")
def test_the_real_stack() -> None:
    fleet = Fleet(FOLDER / "fleet-real", "fleet_real", variables={}, waves=[1, "100%"])
    assert fleet.run("rollout").returncode == DONE
    assert set(fleet.states().values()) == {"converted"}
    evidence = json.loads(on("fleet-real-2", "cat /srv/ocrfleet/fleet-real-2/reports/evidence.json"))
    assert evidence["versions"] == {"torch": "2.8.0+cu128", "vllm": "0.11.0", "olmocr": "0.4.2", "flashinfer": "0.3.1"}
