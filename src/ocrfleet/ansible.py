# Copyright (c) 2026 The ocrfleet.gpu_stack contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Runs of ansible-playbook through ansible-runner: on which hosts, with what result for each of them."""

from __future__ import annotations

import importlib.metadata
import json
import math
import os
import re
import shlex
import shutil
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from types import MappingProxyType
from typing import Any

import yaml

from ocrfleet import evidence, workers
from ocrfleet.errors import FleetError, Refused
from ocrfleet.evidence import Evidence
from ocrfleet.planning import Fleet
from ocrfleet.text import plain

# Called with the kind of event, the host ("" for none) and the name of the task.
OnEvent = Callable[[str, str, str], None]
Events = ("runner_on_start", "runner_on_ok", "runner_on_failed", "runner_on_unreachable", "playbook_on_task_start")

ENDED_BY_SIGNAL = 128  # and above: what a shell makes of a signal, and ansible-runner, with 254

# What a host that is asked for its baseline tells.
FACTS = ("versions_fingerprint", "installed", "transaction")

# Every ansible-playbook of a rollout carries its run in its environment, so that a later driver finds it.
MARK = "OCRFLEET_RUN"
HOOKS = "-hook-"  # in the name of a run that is a hook's
# A host that loses its power says nothing: without questions of its own SSH would wait for hours. Five minutes.
KEEP_ALIVE = "-o ServerAliveInterval=30 -o ServerAliveCountMax=10"
# Of the environment of ansible-playbook, what holds at a worker too.
TRAVELS = ("ANSIBLE_SSH_EXTRA_ARGS", "ANSIBLE_HOST_KEY_CHECKING", "ANSIBLE_TASK_TIMEOUT")
NEEDS = "what the playbook uses has to be installed there, this collection in the version that is here"

# Names of tasks, before what they say, that only tell what another one found.
_JUDGES = re.compile(r"\A(?:Fail (?:when|where|with) [^:\n]*: )+")


class Silent(Refused):
    """A worker that does not answer."""


@dataclass
class Outcome:
    """What one run did on one host."""

    state: str
    message: str = ""
    evidence: dict[str, Any] = field(default_factory=dict)
    facts: dict[str, Any] = field(default_factory=dict)


@dataclass
class _Seen:
    """What the events of one ansible-playbook tell."""

    stats: dict[str, Any] | None = None
    messages: dict[str, str] = field(default_factory=dict)
    facts: dict[str, dict[str, Any]] = field(default_factory=dict)
    rc: int | None = None
    error: str = ""
    other_version: str = ""
    started: bool = False


def checkout() -> Path | None:
    """The collection that this program is part of, when it runs from one."""
    root = Path(__file__).resolve().parents[2]
    return root if (root / "galaxy.yml").is_file() or (root / "MANIFEST.json").is_file() else None


def collection_version() -> str:
    """That of this program, which is the collection's."""
    root = checkout()
    if root is None:
        return importlib.metadata.version("ocrfleet")
    manifest = root / "MANIFEST.json"
    if manifest.is_file():
        return str(json.loads(manifest.read_text(encoding="utf-8"))["collection_info"]["version"])
    return str(yaml.safe_load((root / "galaxy.yml").read_text(encoding="utf-8"))["version"])


def environment() -> dict[str, str]:
    """What ansible-playbook is started with. From a checkout, that checkout's collection and settings are used."""
    env = {"PATH": f"{Path(sys.executable).parent}{os.pathsep}{os.environ.get('PATH', os.defpath)}"}
    env["PWD"] = os.getcwd()  # the roles name folders by it: those of where the rollout was begun, not of this shell
    env["ANSIBLE_SSH_EXTRA_ARGS"] = os.environ.get("ANSIBLE_SSH_EXTRA_ARGS", KEEP_ALIVE)
    # ansible-runner 2.4 turns the check off where this is not set, whatever ansible.cfg says.
    env["ANSIBLE_HOST_KEY_CHECKING"] = os.environ.get("ANSIBLE_HOST_KEY_CHECKING", "True")
    root = checkout()
    if root and (root / "collections/ansible_collections").is_dir():
        env["ANSIBLE_COLLECTIONS_PATH"] = os.environ.get("ANSIBLE_COLLECTIONS_PATH", str(root / "collections"))
        # A setting of the operator's own folder wins.
        if "ANSIBLE_CONFIG" not in os.environ and not Path("ansible.cfg").is_file():
            env["ANSIBLE_CONFIG"] = str(root / "ansible.cfg")
    elif root and root.parent.parent.name == "ansible_collections":
        env["ANSIBLE_COLLECTIONS_PATH"] = os.environ.get("ANSIBLE_COLLECTIONS_PATH", str(root.parents[2]))
    if Path("ansible.cfg").is_file() and "ANSIBLE_CONFIG" not in os.environ:
        env["ANSIBLE_CONFIG"] = str(Path("ansible.cfg").absolute())  # runner works in a folder of its own
    return env


def by_hand(inventory: list[str], playbook: str, host: str, *more: str) -> str:
    """An ansible-playbook for one host, as it works where ocrfleet does: in the shell of whoever reads of it."""
    known = [str(Path.home() / ".ansible/collections"), "/usr/share/ansible/collections"]
    path = environment().get("ANSIBLE_COLLECTIONS_PATH")
    needed = path is not None and "ANSIBLE_COLLECTIONS_PATH" not in os.environ and path not in known
    program = "ansible-playbook"
    program = program if shutil.which(program) else str(Path(sys.executable).with_name(program))
    sources = [word for source in inventory for word in ("-i", source)]
    words = [f"ANSIBLE_COLLECTIONS_PATH={path}"] if needed else []
    return shlex.join([*words, program, *sources, playbook, "-l", host, *more])


def believed(found: Evidence, began: float) -> Outcome:
    """What evidence says that a host is verified makes of it."""
    problem = evidence.wrong(found)
    if problem:
        return Outcome("unknown", problem, found)
    changed = evidence.baseline(found) and not evidence.earlier(found, began)
    return Outcome("converted" if changed else "unchanged", "", found)


def judge(host: str, seen: _Seen, found: Evidence, needs_evidence: bool, began: float) -> Outcome:
    """One host's outcome. Ansible's word that nothing failed is not enough: a rescued host says so too."""
    message, facts = seen.messages.get(host, ""), seen.facts.get(host, {})
    if seen.stats is None and not seen.started and not found and seen.rc and 0 < seen.rc < ENDED_BY_SIGNAL:
        # It refused its playbook or its inventory, by itself: so far no host was asked anything.
        return Outcome("failed", seen.error, {"host": host, "result": "failed", "failure": seen.error})
    if seen.stats is None:
        return Outcome("unknown", message or seen.error or f"ansible-playbook ended early (code {seen.rc})", found)
    if seen.stats.get("dark", {}).get(host):
        return Outcome("unreachable", message or "unreachable", found, facts)
    if seen.stats.get("failures", {}).get(host):
        return Outcome("failed", message or "failed", found, facts)
    if host not in seen.stats.get("processed", {}):
        return Outcome("unknown", "the run told nothing of this host", found, facts)
    if needs_evidence and not evidence.is_proof(found):
        rescued = "; a failure was rescued" if seen.stats.get("rescued", {}).get(host) else ""
        told = found.get("result", "there is none")
        return Outcome("failed", f"no evidence that it is verified ({told}){rescued}", found, facts)
    return replace(believed(found, began), facts=facts) if needs_evidence else Outcome("converted", "", found, facts)


def deal(hosts: list[str], shards: int, places: Mapping[str, int] = MappingProxyType({})) -> dict[int, list[str]]:
    """Hosts dealt out to at most `shards` hands in turn; by its place, where a host is to have the same hand always."""
    hands: dict[int, list[str]] = {}
    for number, host in enumerate(hosts):
        hands.setdefault(places.get(host, number) % shards, []).append(host)
    return hands


class Ansible:
    """Runs playbooks for one rollout. `folder` is the rollout's own.

    Where there are `workers`, each is a command of one shard. Whatever a host's transaction remembers of a run holds
    on the machine of that run, so each host of the `fleet` has the same worker always.
    """

    def __init__(
        self,
        folder: Path,
        inventory: list[str],
        forks: int = 20,
        shards: int = 1,
        workers: Iterable[list[str]] = (),
        fleet: Iterable[str] = (),
        task_minutes: float = 0,
    ) -> None:
        self.folder = folder
        self.inventory = inventory
        self.forks = forks
        self.workers = list(workers)
        self.shards = len(self.workers) or shards
        self.places = {host: place for place, host in enumerate(fleet)} if self.workers else {}
        self.problems: list[str] = []  # of workers that did not tell the end of a run
        self.env = environment()
        if task_minutes:
            # Of each task, so that one host that hangs fails by itself: to end ansible-playbook would end all of them.
            self.env["ANSIBLE_TASK_TIMEOUT"] = str(math.ceil(60 * task_minutes))

    def reports(self, run: str) -> Path:
        return self.folder / "runs" / run / "reports"

    def run(
        self,
        run: str,
        playbook: str,
        hosts: list[str],
        variables: dict[str, Any],
        on_event: OnEvent,
        needs_evidence: bool = True,
    ) -> dict[str, Outcome]:
        """Run a playbook on hosts, in as many processes as there are shards. `run` must be new: old events mix in."""
        began = time.time()
        home = self.folder / "runs" / run
        home.mkdir(mode=0o700, parents=True)
        hands = deal(hosts, self.shards, self.places)
        seen = {number: _Seen() for number in hands}
        threads = [
            # Not in the main thread: there ansible-runner takes the signals over, and ends the playbook by SIGKILL.
            threading.Thread(
                target=self._play,
                args=(home, number, self._job(run, number, playbook, variables, needs_evidence), hand, seen, on_event),
            )
            for number, hand in hands.items()
        ]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        outcomes = {}
        for number, hand in hands.items():
            for host in hand:
                found = evidence.read(self.reports(run), host) if needs_evidence else {}
                outcomes[host] = judge(host, seen[number], found, needs_evidence, began)
        return {host: outcomes[host] for host in hosts}

    def _job(self, run: str, number: int, playbook: str, variables: dict[str, Any], reports: bool) -> workers.Job:
        """What ansible-runner is asked for, wherever it runs."""
        folder = f"{workers.THERE}/reports" if self.workers else str(self.reports(run))
        ident = f"{run}-{number}"
        # The role stack there refuses to begin anything where the collection is of another version.
        variables = {**variables, "ocrfleet_version": collection_version()} if self.workers else variables
        return {
            "ident": ident,
            "playbook": playbook,
            "forks": self.forks,
            "extravars": {**variables, "report_dir": folder} if reports else variables,
            # What a worker's machine has of its own is left to it.
            "envvars": {
                **{name: value for name, value in self.env.items() if not self.workers or name in TRAVELS},
                **mark(self.folder, ident),
            },
            "settings": {"pexpect_timeout": 1},
            "suppress_env_files": True,
            "quiet": True,
        }

    def _play(
        self, home: Path, number: int, job: workers.Job, hosts: list[str], all_seen: dict[int, _Seen], on_event: OnEvent
    ) -> None:
        seen, ident = all_seen[number], job["ident"]
        private = home / f"{ident}.runner"
        private.mkdir(mode=0o700)
        log = home / f"{ident}.log"

        def look(event: dict[str, Any]) -> bool:
            return self._look(event, seen, on_event)

        try:
            if self.workers:
                self._stream(self.workers[number], home, private, job, hosts, seen, look)
            else:
                self._run_here(home, private, job, hosts, seen, look)
        except Exception as error:  # whatever it is, these hosts have no result, and the gate must hear of it
            seen.error = f"ansible-runner: {type(error).__name__}: {error}"
            seen.stats = None
        finally:
            # `env` there holds every variable, and `command` the environment. The output is worth keeping.
            for output in (workers.artifacts(private, job) / "stdout", workers.returned(private, job) / "stdout"):
                if output.is_file():
                    os.replace(output, log)
            shutil.rmtree(private, ignore_errors=True)
        if seen.stats is None and not seen.error:
            seen.error = _last_words(log, seen.rc)
            if self.workers:
                seen.error = f"{workers.shown(self.workers[number])}: {seen.error}; {NEEDS}"
        if self.workers and seen.stats is None:
            self.problems.append(seen.error)
        if seen.other_version:
            self.problems.append(f"{workers.shown(self.workers[number])}: {seen.other_version}")

    def _run_here(
        self, home: Path, private: Path, job: workers.Job, hosts: list[str], seen: _Seen, look: workers.OnRunnerEvent
    ) -> None:
        import ansible_runner  # slow to import, and `ocrfleet status` does without

        limit = home / f"{job['ident']}.limit"
        limit.write_text("\n".join(hosts) + "\n", encoding="utf-8")
        runner = ansible_runner.run(
            private_data_dir=str(private),
            project_dir=os.getcwd(),
            inventory=self.inventory,
            limit=f"@{limit}",
            event_handler=look,
            **workers.with_variables_in_a_file(private, job),
        )
        seen.rc = runner.rc

    def _stream(
        self,
        worker: list[str],
        home: Path,
        private: Path,
        job: workers.Job,
        hosts: list[str],
        seen: _Seen,
        look: workers.OnRunnerEvent,
    ) -> None:
        sent = workers.pack(private, job, self.inventory, hosts)
        # What was said is kept also where the connection is lost, and the output with it.
        with (home / f"{job['ident']}.log").open("w", encoding="utf-8") as log:

            def take(event: dict[str, Any]) -> bool:
                log.write(f"{event.get('stdout', '')}\n")
                return look(event)

            problem = workers.stream(worker, private, sent, {**os.environ, **self.env, **job["envvars"]}, take)
        if problem:
            seen.stats, seen.error = None, problem
            return
        workers.unpack(private, job, self.reports(job["ident"].rpartition("-")[0]))
        rc = workers.returned(private, job) / "rc"
        seen.rc = int(rc.read_text(encoding="utf-8")) if rc.is_file() else None

    def at_work_there(self, hosts: Iterable[str], kind: str = "") -> list[str]:
        """Runs of this rollout that go on at the workers of these hosts. Raises Silent where one does not answer."""
        numbers = sorted({self.places[host] % self.shards for host in hosts if host in self.places})
        asked: list[list[str]] = []
        found = []
        for worker in (self.workers[number] for number in numbers):
            if worker in asked:
                continue
            asked.append(worker)
            begins = f"{MARK}={self.folder}/"
            marks, problem = workers.at_work(worker, begins, {**os.environ, **self.env})
            if problem:
                raise Silent(
                    f"{problem}. Whether an earlier run goes on there cannot be told: mend that, then resume; or, "
                    "where that machine is gone, go on with --here, without workers"
                )
            runs = [text[len(begins) :] for text in marks]
            found += [f"{run} at {workers.shown(worker)}" for run in runs if kind in run]
        return found

    @staticmethod
    def _look(event: dict[str, Any], seen: _Seen, on_event: OnEvent) -> bool:
        """Take what is needed of an event. It must not raise: that would leave ansible-playbook without its reader."""
        try:
            kind, data = event.get("event", ""), event.get("event_data", {})
            seen.started = seen.started or kind == "playbook_on_start"
            if kind == "playbook_on_stats":
                seen.stats = {name: data.get(name, {}) for name in ("processed", "failures", "dark", "rescued")}
            host, result = str(data.get("host", "")), data.get("res")
            if kind in ("runner_on_failed", "runner_on_unreachable") and not data.get("ignore_errors"):
                said = result.get("msg", "") if isinstance(result, dict) else ""
                text = "\n".join(str(line) for line in said) if isinstance(said, list) else str(said)
                seen.messages[host] = plain(_JUDGES.sub("", f"{data.get('task', '')}: {text}"))
                if isinstance(result, dict) and result.get("other_version"):
                    seen.other_version = plain(result["other_version"], 300)
            if kind == "runner_on_ok" and isinstance(result, dict) and "versions_fingerprint" in result:
                seen.facts[host] = {name: result.get(name) for name in FACTS}
            if kind in Events:
                on_event(kind, host, plain(data.get("task", ""), 200))
        except Exception as error:
            seen.error = f"an event could not be read: {type(error).__name__}: {error}"
        return False  # do not keep the event as a file


def _last_words(log: Path, rc: int | None) -> str:
    try:
        lines = [line.strip() for line in log.read_text(encoding="utf-8", errors="replace").splitlines()]
    except OSError:
        lines = []
    said = [line for line in lines if "ERROR" in line or "error" in line] or [line for line in lines if line]
    last = re.sub(r"\x1b\[[0-9;]*m", "", said[-1]) if said else "it said nothing"
    return plain(f"ansible-playbook ended early (code {rc}): {last}")


def mark(folder: Path, run: str) -> dict[str, str]:
    """What a process of a run carries in its environment."""
    return {MARK: f"{folder}/{run}"}


def at_work(folder: Path, kind: str = "") -> list[int]:
    """Processes of earlier runs of a rollout, with `kind` in the run's name, that outlived their driver."""
    begins, holds = f"{MARK}={folder}/".encode(), kind.encode()
    found = []
    for process in Path("/proc").glob("[0-9]*"):  # no pattern below it: glob falls over a process that ends
        pid = int(process.name)
        try:
            entries = (process / "environ").read_bytes().split(b"\0")
        except OSError:
            continue
        if (
            pid != os.getpid()
            and not _is_kept(process)
            and any(entry.startswith(begins) and holds in entry[len(begins) :] for entry in entries)
        ):
            found.append(pid)
    return sorted(found)


def _is_kept(process: Path) -> bool:
    """Whether a process is a connection that SSH keeps for the next run, which does nothing by itself."""
    try:
        return (process / "cmdline").read_bytes().rstrip(b"\0 ").endswith(b"[mux]")
    except OSError:
        return False


def remove_leftovers(folder: Path) -> None:
    """What ansible-runner wrote for a run that was killed: it holds every variable. What was printed is kept."""
    for private in folder.glob("runs/*/*.runner"):
        for printed in private.glob("artifacts/*/stdout"):
            os.replace(printed, private.with_suffix(".log"))
        shutil.rmtree(private, ignore_errors=True)


def _called(argv: list[str], **settings: str) -> subprocess.CompletedProcess[str]:
    """A program of Ansible that asks no host, with what ansible-playbook is started with."""
    env = {**os.environ, **environment(), **settings}
    return subprocess.run(argv, env=env, capture_output=True, text=True, timeout=300, check=False)


def _said(done: subprocess.CompletedProcess[str]) -> str:
    return plain(done.stderr.strip() or done.stdout.strip())


def check_playbooks(names: list[str], variables: dict[str, Any], there: bool) -> None:
    """Raise FleetError where a playbook cannot be had, or read, with the variables that a run of it gets.

    What one needs may be `there`, at workers, alone: then only its file is looked for.
    """
    files = [name for name in names if "/" in name or name.endswith((".yml", ".yaml"))]
    gone = [name for name in files if not Path(name).is_file()]
    if gone:
        raise FleetError(f"the policy names playbooks that are not there; nothing was touched: {', '.join(gone)}")
    if there or not names:
        return
    with tempfile.NamedTemporaryFile("w", suffix=".json", encoding="utf-8") as file:  # its mode is 0600
        json.dump(variables, file)
        file.flush()
        argv = ["ansible-playbook", "--syntax-check", "--inventory=localhost,", f"--extra-vars=@{file.name}", *names]
        done = _called(argv)
    if done.returncode != 0:
        raise FleetError(f"the policy names a playbook that cannot be run; nothing was touched: {_said(done)}")


def read_inventory(inventory: list[str], limit: str | None) -> Fleet:
    """The hosts of an inventory and their groups, as Ansible reads it. A source that cannot be read is an error."""
    # Of a folder that holds nothing but group_vars Ansible says too that it cannot be read.
    files = [source for source in inventory if not Path(source).is_dir()]
    if files and files != inventory:
        _listing(files, None, strict=True)
    listing = _listing(inventory, limit, strict=files == inventory)
    fleet = fleet_of(listing)
    # Ansible takes each line of a limit for a pattern, and a group before a host of the same name. A hook's command
    # takes a dash for an option.
    strange = [host for host in fleet.hosts if host in listing or host[0] in "!&~@#-" or set(host) & set("*?[")]
    if strange:
        raise FleetError(
            "the inventory has hosts whose names are taken for a group, a pattern or an option: "
            f"{', '.join(strange[:10])}; a run for one of them would touch others, so give them other names"
        )
    return fleet


def _listing(inventory: list[str], limit: str | None, strict: bool) -> dict[str, Any]:
    argv = ["ansible-inventory", "--list", "--export", *(f"--inventory={source}" for source in inventory)]
    env = {}
    if strict:
        # Otherwise a source that cannot be read is left out, and its hosts with it.
        env["ANSIBLE_INVENTORY_ANY_UNPARSED_IS_FAILED"] = "1"
    if limit:
        argv.append(f"--limit={limit}")
        # Otherwise a part of it that matches nothing, a misspelt host, is passed over.
        env["ANSIBLE_HOST_PATTERN_MISMATCH"] = "error"
    done = _called(argv, **env)
    try:
        listing = json.loads(done.stdout)
    except ValueError:
        listing = None
    if done.returncode != 0 or not isinstance(listing, dict):
        strange = re.search(r"Could not match supplied host pattern, ignoring:\s+(\S+)", done.stderr)
        if limit and strange:
            raise FleetError(
                f"--limit: expected patterns that each match hosts of the inventory, found {plain(strange[1])}; "
                "correct it, or leave it out; `ansible-inventory --graph` shows hosts and groups"
            )
        within = f" with --limit {plain(limit)}" if limit else ""
        raise FleetError(f"the inventory cannot be read{within}: {_said(done)}")
    return listing


def fleet_of(listing: dict[str, Any]) -> Fleet:
    """Hosts in Ansible's own order, group by group from the top down, and for each all groups above it."""
    parents: dict[str, set[str]] = {}
    for name, group in listing.items():
        for child in group.get("children", []) if isinstance(group, dict) else []:
            parents.setdefault(child, set()).add(name)

    def above(name: str) -> set[str]:
        found: set[str] = set()
        waiting = [name]
        while waiting:
            current = waiting.pop()
            if current not in found:
                found.add(current)
                waiting += parents.get(current, set())
        return found

    # The listing itself is sorted by names; only the lists of children have the inventory's order.
    names = ["all"]
    for name in names:
        names += [child for child in listing.get(name, {}).get("children", []) if child not in names]
    groups: dict[str, set[str]] = {}
    hosts: dict[str, None] = {}
    for name in dict.fromkeys([*names, *listing]):
        group = listing.get(name)
        if name == "_meta" or not isinstance(group, dict):
            continue
        for host in group.get("hosts", []):
            hosts.setdefault(host)
            groups.setdefault(host, set()).update(above(name))
    return Fleet(list(hosts), {host: sorted(names) for host, names in groups.items()})
