# Copyright (c) 2026 The ocrfleet.gpu_stack contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""An environment made by uv, and runs of ansible-playbook on it."""

from __future__ import annotations

import fcntl
import itertools
import json
import os
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import conda_shape
import oracle
import stopping

REPOSITORY = Path(__file__).parents[2]
TOOLS = Path(sys.executable).parent
HERE = Path(__file__).parent
SYSTEMD = HERE / "systemd"
BASELINE = ["packaging==24.1", "six==1.16.0", "click==8.1.7"]
# PyTorch is tests/stand_ins/light_stack.py's: its three values are those of the real one, and it computes nothing.
STAND_IN = "torch==2.8.0"
TORCH = {"metadata": "2.8.0", "version": "2.8.0+cu128", "cuda": "12.8"}
UNIT = "ocr.service"
STAND_INS = "stand-ins"  # the folder of their wheels, in the cache
RESULT = "click==8.1.8"
CLICK = "lib/python3*/site-packages/click-*.dist-info"  # where the two differ
KILLS = int(os.environ.get("FAULTS_KILLS", "200"))
ENDED = ("none", "promoted", "restored", "discarded")
# States of a few milliseconds: to stop in them, a module must be led there step by step.
SHORT = ("cloning", "promoting", "discarding", "restoring")
TRIES = 25  # to stop a run at a state before it passed it; a busy machine misses the short ones often


def matrix(*axes: Sequence[Any]) -> list[tuple[Any, ...]]:
    """Every combination of the values. In the bounded run: a diagonal, on which each value of each axis still lies."""
    whole = list(itertools.product(*axes))
    if KILLS >= 200:
        return whole
    longest = max(len(axis) for axis in axes)
    return [tuple(axis[(i + i // len(axis)) % len(axis)] for axis in axes) for i in range(longest)]


def state_of(journal: dict[str, Any]) -> str:
    """The state that a journal is at."""
    return str((journal.get("transaction") or {}).get("state", "none"))


@dataclass
class Outcome:
    """How a run of the playbook ended."""

    rc: int
    said: str


@dataclass
class Host:
    """One environment, with all that a run needs of its own."""

    folder: Path
    uv: str
    cache: Path
    name: str = "environment"
    env: dict[str, str] = field(default_factory=dict)
    settings: dict[str, Any] = field(default_factory=dict)
    prefix: list[str] = field(default_factory=list)
    conda: bool = False
    service: bool = False  # whether one runs from the environment, which every change is told of

    def __post_init__(self) -> None:
        self.folder.mkdir(parents=True, exist_ok=True)
        self.environment = self.folder / self.name
        self.home = self.folder / "home"
        self.home.mkdir(exist_ok=True)
        self.service_folder = self.folder / "service"
        if self.service:
            self.service_folder.mkdir(exist_ok=True)
            self.settings["units"] = [UNIT]
        self.make()

    def make(self) -> None:
        """Make the environment anew, as it was before the collection ever saw it."""
        shutil.rmtree(self.environment, ignore_errors=True)
        shutil.rmtree(self.state_dir, ignore_errors=True)
        for export in self.home.glob("olmocr-*"):
            export.unlink()
        python = str(self.environment / "bin/python")
        self.call([self.uv, "venv", "--quiet", "--offline", str(self.environment)])
        argv = [self.uv, "pip", "install", "--quiet", "--offline", "--link-mode=copy", "--python", python]
        self.call([*argv, *BASELINE])
        self.call([*argv, "--no-index", f"--find-links={self.cache / STAND_INS}", STAND_IN])
        (self.environment / "notes by hand.txt").write_text("no RECORD knows this\n")
        if self.conda:
            conda_shape.put_into(self.environment)
        self.before = oracle.tree(str(self.environment))
        self.baseline = oracle.signature(str(self.environment))
        assert f"torch {' '.join(TORCH.values())}" in self.baseline
        self.result = self.baseline.replace("click-8.1.7", "click-8.1.8")
        if self.service:
            self.call([str(SYSTEMD / "systemctl"), "restart", "--", UNIT])

    @property
    def state_dir(self) -> Path:
        return self.folder / f".{self.name}.gpu_stack"

    def call(self, argv: list[str]) -> str:
        done = subprocess.run(argv, check=True, capture_output=True, text=True, env=self.environ(), timeout=120)
        return done.stdout

    def environ(self) -> dict[str, str]:
        with_service = {
            "PATH": f"{SYSTEMD}{os.pathsep}{os.environ['PATH']}",
            "PYTHONPATH": f"{SYSTEMD}{os.pathsep}{REPOSITORY / 'collections'}",
            "SERVICE_FOLDER": str(self.service_folder),
            "SERVICE_ENVIRONMENT": str(self.environment),
        }
        return {
            **os.environ,
            "UV_CACHE_DIR": str(self.cache),
            "UV_PYTHON": sys.executable,
            "ANSIBLE_CONFIG": str(REPOSITORY / "ansible.cfg"),
            "ANSIBLE_COLLECTIONS_PATH": str(REPOSITORY / "collections"),
            "ANSIBLE_LOCAL_TEMP": str(self.folder / "ansible"),
            "PYTHONPATH": str(REPOSITORY / "collections"),
            "PYTHONDONTWRITEBYTECODE": "1",
            "HOME": str(self.home),
            "ANSIBLE_HOME": str(self.home / ".ansible"),
            **(with_service if self.service else {}),
            **self.env,
        }

    def argv(self, **changes: Any) -> list[str]:
        settings = {
            "environment_path": str(self.environment),
            "home": str(self.home),
            "uv": self.uv,
            "python": sys.executable,
            "requirement": RESULT,
            "torch": TORCH,
            "ansible_python_interpreter": sys.executable,
            "ansible_connection": "local",
            **self.settings,
            **changes,
        }
        playbook = settings.pop("playbook", str(HERE / "change.yml"))
        program = [str(TOOLS / "ansible-playbook"), "--inventory=vm1,", playbook]
        return [*self.prefix, *program, "--extra-vars", json.dumps(settings)]

    def by_hand(self, asked: str) -> Outcome:
        """Call the module as the docs say to do it by hand."""
        argv = [str(TOOLS / "ansible"), "vm1", "--inventory=vm1,", "--connection=local"]
        argv += ["--extra-vars", json.dumps({"ansible_python_interpreter": sys.executable})]
        argv += ["--module-name=ocrfleet.gpu_stack.env_transaction", f"--args=environment={self.environment} {asked}"]
        done = subprocess.run(argv, capture_output=True, text=True, env=self.environ(), cwd=self.folder, timeout=120)
        return Outcome(done.returncode, done.stdout + done.stderr)

    def kept(self) -> list[Path]:
        """The trees in the state folder."""
        return sorted(self.state_dir.glob("transactions/*/tree"))

    def start(self, **changes: Any) -> subprocess.Popen[str]:
        return subprocess.Popen(
            self.argv(**changes),
            env=self.environ(),
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            start_new_session=True,
            cwd=self.folder,
        )

    def run(self, **changes: Any) -> Outcome:
        process = self.start(**changes)
        said, _ = process.communicate(timeout=300)
        return Outcome(process.returncode, said)

    @property
    def journal_path(self) -> Path:
        return self.state_dir / "journal.json"

    def journal(self) -> dict[str, Any]:
        """The journal's body, which tests read without the collection's help; empty when there is none."""
        try:
            return dict(json.loads(self.journal_path.read_bytes())["body"])
        except FileNotFoundError:
            return {}
        except (OSError, ValueError, KeyError, TypeError):
            return {"transaction": {"state": "unreadable"}}

    def state(self) -> str:
        return state_of(self.journal())

    def is_baseline(self) -> bool:
        """Byte for byte what it was, owners, modes and times too."""
        return oracle.tree(str(self.environment)) == self.before

    def is_result(self) -> bool:
        """The complete result: what the change brings is whole, and nothing else has changed."""
        root = str(self.environment)
        if oracle.signature(root) != self.result or oracle.wrong_contents(root):
            return False
        now, before = (oracle.without_times(found) for found in (oracle.tree(root), self.before))
        changed = {path for path in {*now, *before} if now.get(path) != before.get(path)}
        expected = conda_shape.WRITTEN if self.conda else ()
        return all("click" in path or path in expected for path in changed) and (
            not self.conda or conda_shape.was_written(self.environment)
        )

    def restarts(self) -> int:
        """How often the service was to be restarted since the last call of `forget_restarts`."""
        return (self.service_folder / "asked").read_text().count(f"restart -- {UNIT}")

    def forget_restarts(self) -> None:
        (self.service_folder / "asked").write_text("")

    def wrong_service(self) -> list[str]:
        """Where the service does not run from what lies at the environment's path."""
        if not self.service:
            return []
        names = [str(path.relative_to(self.environment)) for path in self.environment.glob(CLICK)]
        there = f"{self.environment.stat().st_ino}\n{' '.join(sorted(names))}\n"
        runs = (self.service_folder / "runs").read_text()
        return [] if runs == there else [f"the service runs from {runs.split()}, at the path is {there.split()}"]

    def wrong(self) -> list[str]:
        """What is not as promised once a run has ended."""
        found = [] if self.is_baseline() or self.is_result() else ["neither the baseline nor the complete result"]
        body = self.journal()
        if state_of(body) not in ENDED or body.get("owner"):
            found.append(f"the journal is at {state_of(body)}, and belongs to {body.get('owner') or 'nobody'}")
        said = self.call([str(self.environment / "bin/python"), "-I", "-B", "-c", oracle.ASK_TORCH]).split()
        if said != [TORCH["version"], TORCH["cuda"]]:
            found.append(f"torch says of itself {said}")
        left = oracle.left_behind(str(self.state_dir), body.get("transaction") or {}, {self.baseline, self.result})
        beside = [*self.folder.glob(".*gpu_stack-trial"), *self.home.glob(".*.new")]
        return [*found, *self.wrong_service(), *left, *(f"left behind: {path}" for path in beside)]

    def is_safe(self) -> bool:
        """Byte for byte the baseline, or the complete result; and nothing half-made is left anywhere."""
        return not self.wrong()

    def processes(self, run: subprocess.Popen[str] | None = None) -> dict[int, str]:
        """The living processes of a run, orphans included, each with its command line; without one, of the host."""
        found = {}
        home = (
            f"HOME={self.home}\0".encode()
        )  # every process of this host carries it, and nothing else on the machine does
        for process in Path("/proc").glob("[0-9]*"):  # no pattern below it: glob falls over a process that ends
            pid = int(process.name)
            try:
                if home in (process / "environ").read_bytes() + b"\0" or (run and pid == run.pid):
                    found[pid] = (process / "cmdline").read_bytes().replace(b"\0", b" ").decode(errors="replace")
            except OSError:
                continue
        return {pid: command for pid, command in found.items() if stopping.is_alive(pid)}

    def is_module(self, command: str) -> bool:
        """Whether a command line is that of the module that writes the journal."""
        return "AnsiballZ_env_transaction" in command and not command.startswith("/bin/sh")

    def tell(self, run: subprocess.Popen[str] | None, number: int) -> list[int]:
        """Send a signal to every process of a run, and to those that they start meanwhile; gives all of them."""
        reached: list[int] = []
        while fresh := [pid for pid in self.processes(run) if pid not in reached]:
            stopping.send(fresh, number)
            reached += fresh
        if number == signal.SIGSTOP:
            stopping.wait_till_stopped(reached)
        return reached

    def stop_when(self, run: subprocess.Popen[str], reached: Callable[[], bool], step: bool) -> list[int]:
        """Stop every process of a run as soon as `reached` holds, and give them; none when that could not be.

        With `step` the module is led there step by step. A run that ended, or in which it no longer holds once all has
        stopped, goes on.
        """
        module, looked = 0, 0.0
        until = time.monotonic() + 120
        while run.poll() is None and time.monotonic() < until:
            if reached():
                stopping.send([module] if module else [], signal.SIGSTOP)  # at once; finding all takes a millisecond
                stopped = self.tell(run, signal.SIGSTOP)
                if reached() and run.poll() is None:
                    return stopped
                break
            if not (module and stopping.is_alive(module)) and time.monotonic() > looked + 0.005:
                looked = time.monotonic()
                module = next((pid for pid, line in self.processes(run).items() if self.is_module(line)), 0)
            if module and step:
                stopping.step(module)
            else:
                time.sleep(stopping.GRAIN)
        self.tell(run, signal.SIGCONT)
        return []

    def hold(self, run: subprocess.Popen[str], state: str, unlike: dict[str, Any] | None = None) -> list[int]:
        """Stop every process of a run at a state of its journal, and give them; none when the run passed it.

        `unlike` is a journal that an earlier run left, which does not count.
        """

        def is_there() -> bool:
            body = self.journal()
            return state_of(body) == state and body != unlike

        return self.stop_when(run, is_there, step=state in SHORT)

    def stopped_when(
        self, reached: Callable[[], bool], step: bool, **changes: Any
    ) -> tuple[subprocess.Popen[str], list[int]]:
        """A run on the environment as it was at first, stopped as soon as `reached` holds; and its processes."""
        said = ""
        for _ in range(TRIES):
            run = self.start(**changes)
            if stopped := self.stop_when(run, reached, step):
                return run, stopped
            self.kill(run, "everything")
            said = self.end(run)
            self.make()
        raise AssertionError(f"no run could be stopped there: {said}")

    def held(self, state: str, **changes: Any) -> tuple[subprocess.Popen[str], list[int]]:
        """A run on the environment as it was at first, stopped at a state of its journal; and its processes."""
        return self.stopped_when(lambda: self.state() == state, state in SHORT, **changes)

    def is_locked(self) -> bool:
        """Whether something works on the trees."""
        with (self.state_dir / "lock").open("rb") as file:
            try:
                fcntl.flock(file, fcntl.LOCK_SH | fcntl.LOCK_NB)
            except BlockingIOError:
                return True
        return False

    def chosen(self, run: subprocess.Popen[str], target: str) -> list[int]:
        """The processes that a part of a run has now: of `playbook`, `module`, `uv`, or `everything`."""
        found = self.processes(run)
        if target == "playbook":
            return [run.pid]
        if target == "everything":
            return sorted(found)
        mark = "AnsiballZ_" if target == "module" else f"{self.uv} "
        pids = [pid for pid, command in found.items() if mark in command and pid != run.pid]
        if target == "uv":
            pids = [pid for pid in pids if "install.py" not in found[pid] and "ansible" not in found[pid]]
        return pids

    def kill(self, run: subprocess.Popen[str], target: str) -> bool:
        """SIGKILL a part of a run. False when there is none such now."""
        if target == "everything":
            return bool(self.tell(run, signal.SIGKILL))
        return stopping.send(self.chosen(run, target), signal.SIGKILL) > 0

    def end(self, run: subprocess.Popen[str]) -> str:
        """Wait for the end of a run and of its orphans; gives what it said."""
        return run.communicate(timeout=300)[0]

    def settle(self, run: subprocess.Popen[str], limit: float = 300.0) -> None:
        """Wait for the end of a run itself; orphans go on."""
        try:
            run.wait(limit)
        finally:
            if run.stdout is not None:
                run.stdout.close()


class Watcher:
    """Samples an environment's path from a process of its own."""

    def __init__(self, host: Host) -> None:
        self.process = subprocess.Popen(
            [sys.executable, str(HERE / "oracle.py"), str(host.environment), host.baseline, host.result],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
        )
        assert self.process.stdout is not None
        self.process.stdout.readline()

    def stop(self) -> dict[str, Any]:
        said, _ = self.process.communicate("stop\n", timeout=30)
        return dict(json.loads(said))


@dataclass
class Lengths:
    """Seconds that a run takes which nothing disturbs, and that its journal is at each state."""

    run: float
    states: dict[str, float]


def measure(host: Host, ends: Sequence[str]) -> Lengths:
    """Take the time of runs that end in each way; of a state that several go through, the longest."""
    found = Lengths(0.0, {})
    for fail_at in ends:
        left, last, since = host.journal(), "", time.monotonic()
        started = since
        run = host.start(fail_at=fail_at)
        while run.poll() is None:
            body, now = host.journal(), time.monotonic()
            if body != left and state_of(body) != last:
                found.states[last] = max(now - since, found.states.get(last, 0.0))
                last, since = state_of(body), now
            time.sleep(stopping.GRAIN)
        now = time.monotonic()
        found.states[last] = max(now - since, found.states.get(last, 0.0))
        found.run = max(found.run, now - started)
        host.settle(run)
    return found
