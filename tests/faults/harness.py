# Copyright (c) 2026 The ocrfleet.gpu_stack contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""An environment made by uv, and runs of ansible-playbook on it."""

from __future__ import annotations

import itertools
import json
import os
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import oracle

REPOSITORY = Path(__file__).parents[2]
TOOLS = Path(sys.executable).parent
HERE = Path(__file__).parent
BASELINE = ["packaging==24.1", "six==1.16.0", "click==8.1.7"]
RESULT = "click==8.1.8"
KILLS = int(os.environ.get("FAULTS_KILLS", "200"))
ENDED = ("none", "promoted", "restored", "discarded")


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

    def __post_init__(self) -> None:
        self.folder.mkdir(parents=True, exist_ok=True)
        self.environment = self.folder / self.name
        self.home = self.folder / "home"
        self.home.mkdir(exist_ok=True)
        self.make()

    def make(self) -> None:
        """Make the environment anew, as it was before the collection ever saw it."""
        shutil.rmtree(self.environment, ignore_errors=True)
        shutil.rmtree(self.state_dir, ignore_errors=True)
        python = str(self.environment / "bin/python")
        self.call([self.uv, "venv", "--quiet", "--offline", str(self.environment)])
        argv = [self.uv, "pip", "install", "--quiet", "--offline", "--link-mode=copy", "--python", python, *BASELINE]
        self.call(argv)
        (self.environment / "notes by hand.txt").write_text("no RECORD knows this\n")
        self.before = oracle.tree(str(self.environment))
        self.baseline = oracle.signature(str(self.environment))
        self.result = self.baseline.replace("click-8.1.7", "click-8.1.8")

    @property
    def state_dir(self) -> Path:
        return self.folder / f".{self.name}.gpu_stack"

    def call(self, argv: list[str]) -> None:
        subprocess.run(argv, check=True, capture_output=True, env=self.environ(), timeout=120)

    def environ(self) -> dict[str, str]:
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
            **self.env,
        }

    def argv(self, **changes: Any) -> list[str]:
        settings = {
            "environment_path": str(self.environment),
            "home": str(self.home),
            "uv": self.uv,
            "python": sys.executable,
            "requirement": RESULT,
            "ansible_python_interpreter": sys.executable,
            "ansible_connection": "local",
            **self.settings,
            **changes,
        }
        playbook = [str(TOOLS / "ansible-playbook"), "--inventory=vm1,", str(HERE / "change.yml")]
        return [*self.prefix, *playbook, "--extra-vars", json.dumps(settings)]

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

    def journal(self) -> dict[str, Any]:
        try:
            return dict(json.loads((self.state_dir / "journal.json").read_bytes())["body"])
        except (OSError, ValueError, KeyError):
            return {}

    def state(self) -> str:
        return state_of(self.journal())

    def is_baseline(self) -> bool:
        return oracle.tree(str(self.environment)) == self.before

    def is_result(self) -> bool:
        return oracle.signature(str(self.environment)) == self.result

    def is_safe(self) -> bool:
        """Byte for byte the baseline, or the complete result; and nothing half-made is left beside it."""
        trees = list(self.state_dir.glob("trash/*"))
        return (self.is_baseline() or self.is_result()) and self.state() in ENDED and not trees

    def processes(self, run: subprocess.Popen[str]) -> dict[int, str]:
        """The living processes of a run, orphans included, each with its command line."""
        found = {}
        for status in Path("/proc").glob("[0-9]*/environ"):
            pid = int(status.parts[2])
            try:
                # Every process of this host carries its home, and nothing else on the machine does.
                if f"HOME={self.home}\0".encode() in status.read_bytes() + b"\0" or pid == run.pid:
                    found[pid] = Path(f"/proc/{pid}/cmdline").read_bytes().replace(b"\0", b" ").decode(errors="replace")
            except OSError:
                continue
        return found

    def kill(self, run: subprocess.Popen[str], target: str) -> bool:
        """SIGKILL a part of a run: `playbook`, `module`, `uv`, or `everything`. False when there is none such now."""
        found = self.processes(run)
        if target == "playbook":
            chosen = [run.pid]
        elif target == "everything":
            chosen = sorted(found)
        else:
            mark = "AnsiballZ_" if target == "module" else f"{self.uv} "
            chosen = [pid for pid, command in found.items() if mark in command and pid != run.pid]
            if target == "uv":
                chosen = [pid for pid in chosen if "install.py" not in found[pid] and "ansible" not in found[pid]]
        for pid in chosen:
            try:
                os.kill(pid, signal.SIGKILL)
            except ProcessLookupError:
                continue
        return bool(chosen)

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


def wait_for(
    host: Host,
    states: tuple[str, ...],
    run: subprocess.Popen[str],
    limit: float = 120.0,
    unlike: dict[str, Any] | None = None,
) -> bool:
    """Wait until the journal is at one of the states; False when the run ended before. `unlike` is a journal that an
    earlier run left, which does not count."""
    until = time.monotonic() + limit
    while time.monotonic() < until:
        body = host.journal()
        if state_of(body) in states and body != unlike:
            return True
        if run.poll() is not None:
            return False
        time.sleep(0.0005)
    return False
