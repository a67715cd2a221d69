# Copyright (c) 2026 The ocrfleet.gpu_stack contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Work that other machines do: `ansible-runner worker`, reached by a command line of the policy.

ansible-runner sends a folder and the arguments of the run to the command's input, and takes events and the run's
artifacts from its output. Everything that a run needs of this machine is put into that folder first.
"""

from __future__ import annotations

import json
import os
import shlex
import shutil
import signal
import subprocess
import tempfile
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import IO, Any, cast

from ocrfleet.text import one_line, plain

# Where a run's artifacts lie on the machine that does it; ansible-runner tells its callback so. They come back.
THERE = "{{ lookup('ansible.builtin.env', 'AWX_ISOLATED_DATA_DIR') }}"
# Seconds without anything taken or told, from a worker that has not begun a run, after which its command is ended.
ANSWER = 120.0
PACKS = "kernel-packs"  # the role kernel_pack's own default, below the folder that a run is begun in
# Prints what `ansible.at_work` looks for, where that function cannot look.
_MARKS = """
import pathlib, sys
for process in pathlib.Path("/proc").glob("[0-9]*"):
    try:
        entries = (process / "environ").read_bytes().split(b"\\0")
    except OSError:
        continue
    for entry in entries:
        if entry.startswith(sys.argv[1].encode()):
            print(entry.decode(errors="replace"))
"""
_ASK = [
    {
        "hosts": "localhost",
        "gather_facts": False,
        "tasks": [{"ansible.builtin.command": {"argv": ["{{ ansible_playbook_python }}", "-c", _MARKS, "{{ mark }}"]}}],
    }
]

Job = dict[str, Any]
OnRunnerEvent = Callable[[dict[str, Any]], bool]


def shown(command: list[str]) -> str:
    return f"worker `{plain(shlex.join(command), 300)}`"


def pack(private: Path, job: Job, inventory: list[str], hosts: list[str]) -> Job:
    """Put inventory, limit, playbook and the variables' files below `private`; the job as the worker is to have it."""
    (private / "limit").write_text("\n".join(hosts) + "\n", encoding="utf-8")
    project = private / "project"
    project.mkdir()  # ansible-playbook works there
    playbook = Path(job["playbook"])
    if playbook.is_file():
        shutil.copy(playbook, project)
    sources = [f"--inventory={_source(private, number, source)}" for number, source in enumerate(inventory)]
    return {
        **job,
        "playbook": playbook.name if playbook.is_file() else job["playbook"],
        "limit": "@../limit",
        "cmdline": shlex.join([*_defaults(private, job), *sources]),
        "extravars": _with_lock(private, job),
    }


def with_variables_in_a_file(private: Path, job: Job) -> Job:
    """A job whose variables lie where ansible-runner takes them from: everybody may read a command line.

    Linux takes 128 KiB in one word of it, too, and the way back names each host of its batch.
    """
    env = private / "env"
    env.mkdir(mode=0o700)
    descriptor = os.open(env / "extravars", os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
    with os.fdopen(descriptor, "w", encoding="utf-8") as file:
        json.dump(job["extravars"], file)
    return {name: value for name, value in job.items() if name != "extravars"}


def _source(private: Path, number: int, source: str) -> str:
    """One source of the inventory with the variables beside it, as ansible-playbook is to name it there."""
    here = Path(source)
    if not here.exists():
        return source  # a list of hosts
    folder = private / "sources" / str(number)
    if here.is_dir():
        shutil.copytree(here, folder / here.name, ignore_dangling_symlinks=True)
    else:
        folder.mkdir(parents=True)
        shutil.copy(here, folder)
        for kind in ("group_vars", "host_vars"):
            if (here.parent / kind).is_dir():
                shutil.copytree(here.parent / kind, folder / kind, ignore_dangling_symlinks=True)
    return f"../sources/{number}/{here.name}"


def artifacts(private: Path, job: Job) -> Path:
    return private / "artifacts" / str(job["ident"])


def returned(private: Path, job: Job) -> Path:
    """Where a run's artifacts lie here after it."""
    return artifacts(private / "back", job)


def _with_lock(private: Path, job: Job) -> dict[str, Any]:
    """The variables, with the lock that they name beside them."""
    lock = Path(str(job["extravars"].get("flashinfer_lock") or "")).expanduser()
    if not lock.is_file():
        return dict(job["extravars"])
    artifacts(private, job).mkdir(parents=True, exist_ok=True)
    shutil.copy(lock, artifacts(private, job) / "flashinfer.lock")
    return {**job["extravars"], "flashinfer_lock": f"{THERE}/flashinfer.lock"}


def _defaults(private: Path, job: Job) -> list[str]:
    """The packs of compiled kernels that this machine keeps, where a run that converts looks and leaves new ones.

    Told by a source of the inventory before all others: so whatever else sets it, wins.
    """
    if "report_dir" not in job["extravars"] or "kernel_pack_store" in job["extravars"]:
        return []
    there = artifacts(private, job) / PACKS
    there.parent.mkdir(parents=True, exist_ok=True)
    if Path(PACKS).is_dir():
        shutil.copytree(PACKS, there)
    defaults = {"all": {"vars": {"kernel_pack_store": f"{THERE}/{PACKS}"}}}
    (private / "defaults.json").write_text(json.dumps(defaults), encoding="utf-8")
    return ["--inventory=../defaults.json"]


def unpack(private: Path, job: Job, reports: Path) -> None:
    """Put the reports that came back among the others, and new packs into the store here."""
    came = returned(private, job)
    if (came / "reports").is_dir():
        shutil.copytree(came / "reports", reports, dirs_exist_ok=True)
    for file in sorted((came / PACKS).glob("[!.]*")):
        kept = Path(PACKS, file.name)
        if file.is_file() and not file.is_symlink() and not kept.exists():
            kept.parent.mkdir(exist_ok=True)
            draft = kept.with_name(f".{job['ident']}-{file.name}")
            shutil.copyfile(file, draft)
            os.replace(draft, kept)


@dataclass
class _Told:
    """What the worker says of the run as a whole."""

    began: bool = False
    why: str = ""

    def status(self, data: dict[str, Any], runner_config: object = None) -> None:
        self.began = self.began or data.get("status") == "running"
        self.why = str(data.get("job_explanation") or self.why)


class _Input:
    """A command's input, as far as ansible-runner needs it; knows when something was last taken."""

    def __init__(self, to: IO[bytes]) -> None:
        self.to = to
        self.taken = time.monotonic()

    def write(self, data: bytes) -> int:
        count = self.to.write(data)
        self.taken = time.monotonic()
        return count

    def flush(self) -> None:
        self.to.flush()
        self.taken = time.monotonic()

    def __getattr__(self, name: str) -> Any:
        return getattr(self.to, name)


@contextmanager
def _bounded(worker: subprocess.Popen[bytes], given: _Input, told: _Told) -> Iterator[threading.Event]:
    """End the command, with all that it started, where it neither takes its input nor begins; the event says so.

    A run that has begun may take its time, and nothing comes of it then until its next task.
    """
    silent, over = threading.Event(), threading.Event()

    def watch() -> None:
        while not over.wait(min(1.0, ANSWER / 4)) and not told.began:
            if worker.returncode is None and time.monotonic() - given.taken > ANSWER:
                silent.set()
                with suppress(ProcessLookupError):
                    os.killpg(worker.pid, signal.SIGKILL)
                return

    watching = threading.Thread(target=watch)
    watching.start()
    try:
        yield silent
    finally:
        over.set()
        watching.join()


def stream(command: list[str], private: Path, job: Job, env: dict[str, str], on_event: OnRunnerEvent) -> str:
    """Have a worker do a job. Returns why its end is not known, or an empty text."""
    import ansible_runner  # slow to import, and `ocrfleet status` does without

    told = _Told()
    with tempfile.TemporaryFile() as said:
        try:
            # A session of its own: Ctrl-C is for the driver, and nobody is there to type a password.
            worker = subprocess.Popen(
                command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=said, env=env, start_new_session=True
            )
        except OSError as error:
            return _no_worker(command, str(error))
        given = _Input(cast(IO[bytes], worker.stdin))
        with _bounded(worker, given, told) as silent:
            try:
                _transmit(given, private, job)
                ended = ansible_runner.run(
                    streamer="process",
                    _input=worker.stdout,
                    private_data_dir=str(private / "back"),
                    ident=job["ident"],
                    quiet=True,
                    event_handler=on_event,
                    status_handler=told.status,
                )
                problem = told.why or "it said nothing" if ended.status in ("error", "unstarted") else ""
            except Exception as error:  # a stream that was cut off is no archive, or no base64
                problem = f"{type(error).__name__}: {error}"
            if problem:
                # What it says of its end comes before what it says of a reader that went away.
                with suppress(subprocess.TimeoutExpired):
                    worker.wait(timeout=2)
                problem = _last_line(said) or problem
            # Nobody listens any more. A worker that is at work goes on to its end, and is waited for.
            _close(worker.stdout)
            code = worker.wait()
        if silent.is_set():
            problem = f"no answer within {ANSWER:g} s, so it was ended"
    if not problem:
        return ""
    problem = f"{problem} (code {code})"
    if told.began:
        return f"{shown(command)}: the connection was lost: {one_line(problem)}; its run may go on there"
    return _no_worker(command, problem)


def _transmit(given: _Input, private: Path, job: Job) -> None:
    import ansible_runner

    try:
        with suppress(BrokenPipeError):  # it has ended, and why is in what it said
            sent = with_variables_in_a_file(private, job)
            ansible_runner.run(streamer="transmit", _output=given, private_data_dir=str(private), **sent)
    finally:
        _close(given.to)


def _close(end: IO[bytes] | None) -> None:
    with suppress(BrokenPipeError):  # of what was not sent yet
        if end:
            end.close()


def _last_line(said: IO[bytes]) -> str:
    said.seek(0)
    lines = [line.strip() for line in said.read().decode(errors="replace").splitlines()]
    return next((line for line in reversed(lines) if line), "")


def _no_worker(command: list[str], found: str) -> str:
    return (
        f"{shown(command)}: expected a command that runs `ansible-runner worker`, asks for nothing and prints nothing "
        f"else, found: {one_line(found)}; try it by hand with --worker-info at its end"
    )


@dataclass
class _Runs:
    names: list[str] = field(default_factory=list)
    answered: bool = False

    def take(self, event: dict[str, Any]) -> bool:
        result = event.get("event_data", {}).get("res")
        if event.get("event") == "runner_on_ok" and isinstance(result, dict):
            self.answered, self.names = True, sorted({str(line) for line in result.get("stdout_lines", [])})
        return False


def at_work(command: list[str], begins: str, env: dict[str, str]) -> tuple[list[str], str]:
    """The marks that processes there carry and that begin so; and why that cannot be told, or an empty text."""
    found = _Runs()
    with tempfile.TemporaryDirectory(prefix="ocrfleet-") as folder:
        private = Path(folder)
        (private / "project").mkdir()
        (private / "project" / "at_work.yml").write_text(json.dumps(_ASK), encoding="utf-8")
        job = {
            "ident": "at_work",
            "playbook": "at_work.yml",
            "cmdline": "--inventory=localhost,",
            "extravars": {
                "mark": begins,
                "ansible_connection": "local",
                "ansible_python_interpreter": "{{ ansible_playbook_python }}",
            },
            "settings": {"pexpect_timeout": 1},
            "suppress_env_files": True,
        }
        problem = stream(command, private, job, env, found.take)
    return found.names, problem if found.answered or problem else f"{shown(command)}: it does not run Ansible"
