# Copyright (c) 2026 The ocrfleet.gpu_stack contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The transaction of an environment: freeze, work on a candidate, promote it or restore the baseline.

The exchange of two trees is the only thing that ever happens at the environment's path. Which tree is where is read
from the inode numbers of the two folders and their generations, which an exchange does not change; so a journal that is
one step behind (a kill, a power cut) never leads to a wrong step.
"""

from __future__ import annotations

import contextlib
import datetime
import errno
import json
import os
import secrets
import shlex
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from typing import Any

from ansible_collections.ocrfleet.gpu_stack.plugins.module_utils import (
    clone,
    distributions,
    exchange,
    freeze,
    inventory,
    journal,
    repairs,
    services,
    staging,
    torch_values,
)
from ansible_collections.ocrfleet.gpu_stack.plugins.module_utils.state_folder import (
    BALLAST,
    NOTED,
    TREES,
    Record,
    Refused,
    StateFolder,
    folder_inode,
    is_noted,
    noted,
)

OPEN_STATES = ("freezing", "cloning", "open", "promoting", "restoring", "discarding")
STAMP = "%Y%m%dT%H%M%S.%fZ"  # how the name of a transaction begins
SETTLED = ("promoted", "restored", "discarded")


@dataclass
class Options:
    """What the caller decides; see the documentation of the module env_transaction."""

    environment: str
    state_dir: str = ""
    owner: dict[str, Any] = field(default_factory=dict)
    gone: str = ""
    takeover: bool = False
    lease: float = 3600.0
    strategy: str = "auto"
    keep: int = 3
    baseline: str = ""
    export_dir: str = ""
    source: str = ""
    services: list[str] = field(default_factory=list)
    uv: str = ""
    deep: bool = False
    keep_replaced: bool = False
    lock_wait: float = journal.LOCK_WAIT


class ServicesMissing(Refused):
    """The trees are where they should be, and a service did not come back after their exchange."""


def unequal(proof: dict[str, Any], changed: bool) -> str:
    """What is not as it was frozen, and how it is repaired; "" where all is."""
    if proof["equal"]:
        return ""
    said = [*proof["damaged"], *proof["differences"]][:8]
    found, frozen = proof["torch"]["found"], proof["torch"]["baseline"]
    said += [f"torch {name} {found[name]}, was {frozen[name]}" for name in frozen if found[name] != frozen[name]]
    repair = f" To repair it: {proof['repair']}" if proof["repair"] else ""
    done = "was put back" if changed else "is in its place"
    return f"the baseline {done}, but it is not what was frozen: {'; '.join(said)}.{repair}"


class Contested(Refused):
    """Another run owns the environment; `details["contested"]` is its owner record."""


class Transaction(StateFolder):
    """One environment with its state folder. Every public method is one action of the module."""

    def __init__(self, options: Options, warn: Callable[[str], None] = lambda text: None) -> None:
        if not os.path.isabs(options.environment):
            raise Refused(f"environment: expected an absolute path, found {options.environment!r}")
        named = os.path.normpath(options.environment)
        environment = os.path.realpath(named) if os.path.islink(named) else named
        if environment != named:
            warn(f"{named} is a link to {environment}; the transaction works there and leaves the link alone")
        super().__init__(environment, os.path.normpath(options.state_dir or journal.state_dir(environment)), warn)
        self.options = options
        self.held: tuple[int, ...] = ()

    def _mine(self) -> dict[str, Any]:
        return {**self.options.owner, "heartbeat": time.time()}

    def describe(self) -> dict[str, Any]:
        """The transaction as the module returns it; also where the journal cannot be read, which `problem` tells."""
        problem = None
        try:
            body = self._load()
        except journal.JournalError as error:
            body, problem = {"transaction": {"state": "unreadable"}}, str(error)
        record: Record = body.get("transaction") or {}
        staged = record.get("strategy") == "staged" and record.get("state") == "open"
        baselines = self._baselines()
        return {
            "id": record.get("id"),
            "state": record.get("state", "none"),
            "problem": problem,
            "strategy": record.get("strategy"),
            "strategy_reason": record.get("strategy_reason"),
            "environment": self.environment,
            "state_dir": self.state_dir,
            "candidate": self._tree(record["id"]) if staged else None,
            "clone": record.get("clone"),
            "baseline_id": record.get("id"),
            "baselines": baselines,
            "way_back": self._way_back(body, [found["id"] for found in baselines]) or None,
            "owner": body.get("owner"),
            "exports": record.get("exports", []),
        }

    # --- lock and owner -----------------------------------------------------------------------------------------------

    def _check_place(self) -> None:
        """Refuse what would fail half-way: an environment or a folder that this user may not exchange."""
        parent = os.path.dirname(self.environment)
        if not os.path.isdir(parent):
            raise Refused(f"{parent}, the folder of the environment, does not exist")
        if os.statvfs(parent).f_flag & os.ST_RDONLY:
            raise Refused(f"the filesystem of {parent} is mounted read-only; expected to write there. Remount it")
        if os.path.lexists(self.environment):
            if not folder_inode(self.environment):
                raise Refused(f"{self.environment} is no folder; expected a Python environment")
            uid = os.stat(self.environment).st_uid
            if os.geteuid() not in (0, uid):
                raise Refused(
                    f"{self.environment} belongs to uid {uid}, this task runs as uid {os.geteuid()}; "
                    "expected its owner or root. Set become_user to the owner, or become to root"
                )
        if not os.access(parent, os.W_OK | os.X_OK):
            raise Refused(
                f"{parent} is not writable for uid {os.geteuid()}; the exchange renames there. "
                "Run this task as root (become: true), or make the folder writable for the environment's owner"
            )

    @contextlib.contextmanager
    def _working(self, create: bool = False, beat: bool = True) -> Iterator[None]:
        """Hold the lock; with `create` the state folder is made first; `beat` where it is a sign of life of a run."""
        if create and not os.path.isdir(self.state_dir):
            os.makedirs(self.state_dir, mode=0o700, exist_ok=True)
            journal.give(self.state_dir, self._owner_ids)
            exchange.sync_folder(os.path.dirname(self.state_dir))
        if not os.path.isdir(self.state_dir):
            yield
            return
        try:
            with journal.lock(self.state_dir, self.options.lock_wait, self._owner_ids, beat) as descriptor:
                self.held = (descriptor,)
                try:
                    yield
                finally:
                    self.held = ()
        except journal.LockBusy as error:
            raise Refused(str(error), held=True) from None

    def claim(self, body: dict[str, Any]) -> None:
        """Refuse when another run owns the environment. Raises Contested."""
        current = body.get("owner")
        if self.options.takeover:
            return
        said = journal.objection(
            current,
            self.options.owner,
            now=time.time(),
            beat=max(float((current or {}).get("heartbeat", 0)), journal.heartbeat(self.state_dir)),
            lease=self.options.lease,
            gone=self.options.gone,
        )
        if said:
            raise Contested(said, contested=current, held=True)

    # --- recover ------------------------------------------------------------------------------------------------------

    def recover(self) -> dict[str, Any]:
        """Finish or undo what an earlier run left. Gives `found`, `done` and `changed`."""
        self._claim_unlocked()
        with self._working():
            self._check_place()
            recovered = self._recover()
            if recovered["changed"]:
                self._write(self._body().get("transaction"), None)
            return recovered

    def _claim_unlocked(self) -> None:
        """Tell a second run at once that it is one, before it waits for the first one's lock."""
        with contextlib.suppress(journal.JournalError):
            self.claim(self._load())

    def _body(self) -> dict[str, Any]:
        """The journal; one that is no journal is made anew from what lies on disk. Raises Refused."""
        try:
            return self._load()
        except journal.JournalError as error:
            if error.newer:
                raise Refused(f"the journal {self.journal_path} is left alone: {error}") from None
            record = self._rebuild(str(error))
            if record and record["state"] == "promoted":
                self._put_meta({**self._known(record), "promoted": True})  # a kill may have come before that was noted
            kept = f"{self.journal_path}.unreadable-{int(time.time())}"
            os.rename(self.journal_path, kept)
            self._write(record, None)
            self.warn(
                f"the journal could not be read ({error}); made anew from the trees on disk, the old one is {kept}"
            )
            return {"transaction": record, "owner": None, "rebuilt": str(error)}

    def _rebuild(self, why: str) -> Record | None:
        """What the last transaction must have been at, by the trees on disk. Raises Refused rather than to guess."""
        # A transaction without one had not ended its freezing, so it had changed nothing.
        metas = [meta for meta in map(self._meta, self._identifiers()) if meta]
        for meta in metas:
            tree = self._tree(meta["id"])
            there = folder_inode(tree)
            record = {
                name: meta.get(name) for name in ("id", "strategy", "strategy_reason", "clone", "exports", *NOTED)
            }
            record["services"] = []
            if is_noted("baseline", self.environment, meta):
                if there and meta.get("promoted"):
                    # Only a restore leads here, and it has not ended.
                    return {**record, "state": "restoring", "services": list(meta.get("services") or [])}
                return {**record, "state": "discarding" if there else "discarded"}
            if is_noted("result", self.environment, meta) and is_noted("baseline", tree, meta):
                if meta["strategy"] == "staged" or meta.get("promoted"):
                    return {**record, "state": "promoted"}
                raise Refused(
                    f"the journal {self.journal_path} cannot be read ({why}), and whether the work on "
                    f"{self.environment} had ended cannot be told. The baseline {meta['id']} is whole at "
                    f"{self._tree(meta['id'])}: put it back with action: restore, baseline: {meta['id']}"
                )
        if not metas:
            return None
        kept = [
            f"{found['id']} (FlashInfer {found['flashinfer'] or 'not installed'}, at {found['path']})"
            for found in self._baselines()
        ]
        raise Refused(
            f"the journal {self.journal_path} cannot be read ({why}), and {self.environment} is neither a baseline nor "
            "a result that is known here. Nothing was touched. Choose what shall be there, newest first: "
            f"{'; '.join(kept) or 'none is kept'}; then action: restore, baseline: ID"
        )

    def _recover(self) -> dict[str, Any]:
        body = self._body()
        self.claim(body)
        record: Record | None = body.get("transaction")
        told: dict[str, Any] = {"found": "nothing", "done": "nothing", "changed": "rebuilt" in body}
        if "rebuilt" in body:
            told["found"] = f"an unreadable journal ({body['rebuilt']})"
            told["done"] = "made the journal anew from the trees on disk"
        owner = body.get("owner")
        # A kill between the end of a restore and its proof leaves what was replaced, too.
        unproven = bool(record and record["state"] in ("restored", "discarded") and self._in(self._trash))
        if record and record["state"] in OPEN_STATES:
            whose = f", left by {journal.told(owner)}" if owner else ""
            told["found"] = f"transaction {record['id']} at {record['state']}{whose}"
            told["done"] = self._end(record, owner)
            told["changed"] = unproven = True
        elif record and record.get("services"):
            told["found"] = f"services still to be restarted after transaction {record['id']}"
            told["done"] = self._restart_again(record, owner)
            told["changed"] = unproven = True
        if record and unproven:
            self._refuse_unproven(record, told)
        for leftover in self._strays(record):
            clone.remove(leftover, self.held)
            told["changed"] = True
            if told["done"] == "nothing":
                told["found"], told["done"] = "trees that nothing needs", "removed them"
        return told

    def _refuse_unproven(self, record: Record, told: dict[str, Any]) -> None:
        """Hold the baseline that an earlier run's end left at the path against what was frozen of it."""
        if record["state"] not in ("restored", "discarded") or not self._meta(record["id"]):
            return
        started = time.monotonic()
        try:
            proof = self._proof(record["id"], started)
        except Refused:
            self._hold_back()
            raise
        said = unequal(proof, changed=False)
        if said:
            self._hold_back()
            raise Refused(f"{told['found']}: {told['done']}. {said}", proof=proof, recovered=told, changed=True)

    def _restart_again(self, record: Record, owner: dict[str, Any] | None) -> str:
        """Restart what an ended transaction still has to; gives what was done."""
        if record["state"] == "promoted":
            return self._finish_promotion(record, owner, self._known(record))
        units = ", ".join(record["services"])
        failed = services.failures(self._restart(record))
        # The run that met this has failed with it; the baseline is in place, and nothing better is to be had.
        record["services"] = []
        self._write(record, owner)
        if failed:
            self.warn(f"the baseline is in place, and not every service came back: {'; '.join(failed)}")
        return f"restarted {units}" + (f", and not every one came back: {'; '.join(failed)}" if failed else "")

    def _strays(self, record: Record | None) -> list[str]:
        """What a killed run left that belongs to no transaction."""
        found = []
        found += self._in(self._trash)
        found += self._unfinished_writes()
        for identifier in self._identifiers():
            if not self._meta(identifier) and (record or {}).get("id") != identifier:
                tree = folder_inode(self._tree(identifier))
                if not tree:
                    found.append(self._folder(identifier))
        return found

    def _end(self, record: Record, owner: dict[str, Any] | None) -> str:
        """Finish or undo an open transaction; gives what was done."""
        state, identifier = record["state"], record["id"]
        meta = self._known(record)
        if state == "freezing":
            clone.remove(self._folder(identifier), self.held)
            self._write(self._before(record), owner)
            return "nothing had been changed; removed the unfinished freeze"
        if state == "restoring":
            self._put_back(record, owner, meta)
            return f"finished the restore of baseline {identifier}"
        if state == "promoting" and self._exchanged(record, meta):
            return self._finish_promotion(record, owner, meta)
        if record["strategy"] == "in_place" and state in ("open", "promoting"):
            record["services"] = self._named_services(identifier)
            self._put_back(record, owner, meta)
            return f"put baseline {identifier} back in place of the environment that was being changed"
        self._drop(record, owner)
        return "dropped the unfinished candidate"

    def _known(self, record: Record) -> dict[str, Any]:
        """What is known of a transaction. The numbers are the journal's: `meta.json` may be spoilt, and while the clone
        of an in_place transaction is made it is a step ahead."""
        return {**self._meta(record["id"]), **{name: record.get(name) for name in ("id", *NOTED)}}

    def _exchanged(self, record: Record, meta: dict[str, Any]) -> bool:
        """Whether the exchange of a staged promotion has happened."""
        if record["strategy"] != "staged":
            return False
        for which in TREES:
            if is_noted(which, self.environment, record):
                return which == "result"
        # After the host was copied file by file the inode numbers tell nothing.
        return self._is_only_baseline(self._tree(record["id"]), meta)

    # --- begin --------------------------------------------------------------------------------------------------------

    def begin(self) -> dict[str, Any]:
        """Freeze the environment and make the other tree. Gives what was recovered before that."""
        self._check_place()
        self._check_environment()
        self._claim_unlocked()
        strategy, reason = self._strategy()
        with self._working(create=True):
            recovered = self._recover()
            try:
                self._begin(strategy, reason)
            except Refused as error:
                error.details.setdefault("recovered", recovered)
                raise
            return recovered

    def _forget_bare(self, current: str) -> None:
        """Remove what is left of transactions whose trees are gone.

        At the last moment, so that a begin that is refused leaves their evidence; and before the environment may be
        changed in place, after which its inode number would lie about whose baseline it is.
        """
        for identifier in self._identifiers():
            if identifier != current and not folder_inode(self._tree(identifier)):
                clone.remove(self._folder(identifier), self.held)

    def _refuse_damaged_source(self, strategy: str) -> None:
        if self._source() == self.environment:
            return
        if strategy == "in_place":
            raise Refused(
                "a candidate made from a kept baseline needs the strategy staged, and this host has in_place; "
                "put the baseline back first (action: restore), then begin without source"
            )
        self._refuse_damaged_baseline(self.options.source)

    def _source(self) -> str:
        """The tree that the candidate is cloned from: the environment, or a kept baseline. Raises Refused."""
        if not self.options.source:
            return self.environment
        kept = {found["id"]: found["path"] for found in self._baselines()}
        if self.options.source not in kept:
            raise Refused(f"no baseline {self.options.source} is kept; kept are: {', '.join(kept) or 'none'}")
        return str(kept[self.options.source])

    def _check_environment(self) -> None:
        tree = self.environment
        if not any(os.path.lexists(os.path.join(tree, mark)) for mark in ("pyvenv.cfg", "conda-meta")):
            raise Refused(f"{tree} is no Python environment: expected pyvenv.cfg or conda-meta in it, found neither")
        if os.path.exists(os.path.join(tree, "condabin")):
            raise Refused(
                f"{tree} is conda's base environment, which holds the package cache and all other environments; "
                "expected an environment of its own. Create one: conda create --name NAME"
            )
        if os.path.ismount(tree):
            raise Refused(
                f"{tree} is a mount point, which cannot be exchanged; put the environment into a folder on it"
            )

    def _strategy(self) -> tuple[str, str]:
        wanted = self.options.strategy
        if wanted == "in_place":
            return wanted, "asked for"
        why = staging.unavailable()
        if why is None:
            return "staged", "asked for" if wanted == "staged" else "a private mount namespace can be had"
        if wanted == "staged":
            raise Refused(
                f"strategy staged needs a private mount namespace, and none can be had here: {why}. Run as root, allow "
                "user namespaces (sysctl user.max_user_namespaces), or use strategy auto or in_place"
            )
        return "in_place", f"no private mount namespace can be had: {why}"

    def _check_exchange(self) -> None:
        """Exchange two empty folders between the places where the trees will lie, which tells more than any flag."""
        here = os.path.join(os.path.dirname(self.environment), f".{os.path.basename(self.environment)}.gpu_stack-trial")
        there = os.path.join(self.state_dir, "trial")
        try:
            for path in (here, there):
                with contextlib.suppress(FileExistsError):
                    os.mkdir(path, 0o700)
            exchange.exchange(here, there)
        except OSError as error:
            if error.errno == errno.EXDEV:
                raise Refused(
                    f"the state folder {self.state_dir} lies on another filesystem or mount than {self.environment}; "
                    "expected the same one, as trees are exchanged by rename. Leave state_dir out, or move it"
                ) from None
            raise Refused(
                f"folders cannot be exchanged atomically on the filesystem of {self.environment}: {error.strerror}; "
                "expected one with renameat2(RENAME_EXCHANGE), as ext4, xfs, btrfs and overlayfs are"
            ) from None
        finally:
            for path in (here, there):
                with contextlib.suppress(OSError):
                    os.rmdir(path)

    def _refuse_damage(self) -> None:
        damage = distributions.damaged(self.environment)
        if damage:
            lines = [f"{found.name} {found.version}: {problem}" for found in damage for problem in found.problems]
            command = repairs.command(self.environment, damage, uv=self.options.uv)
            raise Refused(
                f"{self.environment} is damaged, so it is no baseline: "
                + "; ".join(repairs.capped(lines)[:8])
                + f". Repair it first: {command}",
                damaged=repairs.capped(lines),
                repair=command,
            )

    def _freeze(self) -> tuple[dict[str, inventory.Entry], dict[str, str]]:
        entries = inventory.take(self.environment)
        device = os.stat(self.environment).st_dev
        foreign, mounts = [], []
        owner = entries["."][4]
        for path, entry in entries.items():
            if entry[0] == "d" and os.stat(os.path.join(self.environment, path)).st_dev != device:
                mounts.append(path)
            if entry[4] != owner:
                foreign.append(path)
        if mounts:
            raise Refused(f"something is mounted inside {self.environment} ({mounts[0]}); unmount it first")
        if foreign and os.geteuid() != 0:
            raise Refused(
                f"{len(foreign)} entries of {self.environment} belong to somebody else than its owner, the first is "
                f"{sorted(foreign)[0]}; only root can clone them as they are. Run this task as root, or give them "
                f"to the owner: chown -hR {owner} {shlex.quote(self.environment)}"
            )
        groups = {*os.getgroups(), os.getegid()}
        alien = sorted(path for path, entry in entries.items() if entry[5] not in groups)
        if alien and os.geteuid() != 0:
            raise Refused(
                f"{len(alien)} entries of {self.environment} belong to a group that uid {os.geteuid()} is not in, the "
                f"first is {alien[0]} (gid {entries[alien[0]][5]}); only root can clone them as they are. Run this "
                "task as root, or give them to a group of the owner: "
                f"chgrp -hR {os.getegid()} {shlex.quote(self.environment)}"
            )
        return entries, inventory.recorded(self.environment)

    def _begin(self, strategy: str, reason: str) -> None:
        self._check_exchange()
        self._refuse_damage()
        self._refuse_damaged_source(strategy)
        owner = {**self._mine(), "since": time.time()}
        now = datetime.datetime.now().astimezone()
        identifier = self._new_identifier(now)
        record: Record = {
            "id": identifier,
            "state": "freezing",
            "strategy": strategy,
            "strategy_reason": reason,
            "created": now.isoformat(timespec="seconds"),
            **dict.fromkeys(NOTED),
            "services": [],
            # Where this one comes to nothing, what was known before is known again.
            "before": {**(self._read().get("transaction") or {}), "before": None},
        }
        self._write(record, owner)
        try:
            self._fill(record, owner)
        except (OSError, clone.CloneError, freeze.FreezeError, Refused) as error:
            try:
                self._undo_begin(record, owner)
            except (OSError, clone.CloneError) as trouble:
                raise Refused(
                    f"begin failed: {error}; what it had made could not be removed either: {trouble}"
                ) from None
            if isinstance(error, Refused):
                raise
            raise Refused(f"begin failed and was undone, {self.environment} is as it was: {error}") from None

    def _before(self, record: Record) -> Record | None:
        """The record of the transaction before an unfinished one."""
        before = record.get("before") or {}
        return before if before.get("id") else None

    def _new_identifier(self, now: datetime.datetime) -> str:
        """A name by the time, greater than every earlier one: a clock that was set back must not change their order."""
        moment = now.astimezone(datetime.timezone.utc).replace(tzinfo=None)
        for newest in self._identifiers()[:1]:
            with contextlib.suppress(ValueError):
                last = datetime.datetime.strptime(newest.split("-")[0], STAMP)
                moment = max(moment, last + datetime.timedelta(microseconds=1))
        return f"{moment.strftime(STAMP)}-{secrets.token_hex(2)}"

    def _undo_begin(self, record: Record, owner: dict[str, Any]) -> None:
        clone.remove(self._folder(record["id"]), self.held)
        self._write(self._before(record), None)

    def _fill(self, record: Record, owner: dict[str, Any]) -> None:
        identifier = record["id"]
        # The trash too: when a restore needs it, there may be no inode left.
        for folder in (
            self._trash,
            self._held_back,
            os.path.join(self.state_dir, "transactions"),
            self._folder(identifier),
        ):
            self._make_folder(folder)
        exports = self._export(identifier)
        entries, listed = self._freeze()
        source = self._source()
        wanted = entries if source == self.environment else inventory.take(source)
        copies = clone.must_copy(wanted, listed if source == self.environment else inventory.recorded(source))
        short = clone.shortage(self.state_dir, wanted, copies)
        if short:
            raise Refused(short)
        packages = freeze.packages(self.environment)
        torch = freeze.torch_on_disk(self.environment)
        sample = next((path for path, entry in entries.items() if entry[0] == "f" and entry[1]), None)
        reflink = sample is not None and clone.reflinks(
            os.path.join(self.environment, sample), self._folder(identifier)
        )
        meta = {
            **{name: record[name] for name in ("id", "strategy", "strategy_reason", "created")},
            "environment": self.environment,
            "clone": "reflink" if reflink else "hardlink",
            "exports": exports,
            "packages": len(packages),
            "torch": torch["version"] or torch["metadata"],
            "torch_values": torch,
            "flashinfer": packages.get("flashinfer-python", {}).get("version"),
            "services": self.options.services,
            **dict.fromkeys(NOTED),
            **noted("baseline", self.environment),
        }
        self._put(identifier, "inventory.json", inventory.dump(entries))
        self._put(identifier, "hashes.json", json.dumps(listed).encode())
        self._put(identifier, "packages.json", json.dumps(packages, indent=1).encode())
        # Random bytes, so that no filesystem compresses them away.
        journal.write_file(os.path.join(self.state_dir, "ballast"), os.urandom(BALLAST), self._owner_ids)
        self._put_meta(meta)
        record.update(state="cloning", **{name: meta[name] for name in ("clone", "exports", *NOTED)})
        self._write(record, owner)
        clone.make(source, self._tree(identifier), copies, reflink, self.held)
        changed = inventory.differences(wanted, inventory.take(self._tree(identifier)))
        changed = changed or inventory.differences(entries, inventory.take(self.environment))
        if changed:
            raise Refused(
                f"{self.environment} was changed by something else while it was frozen: " + "; ".join(changed[:5]),
                differences=repairs.capped(changed),
            )
        trees = {**noted("baseline", self._other(record)), **noted("result", self._worked_on(record))}
        self._forget_bare(identifier)
        # A baseline that a power cut takes away would be none, so it is on disk before anybody may change the other.
        exchange.sync_filesystem(self.state_dir)
        self._put_meta({**meta, **trees})
        record.update(state="open", **trees)
        self._write(record, owner)

    def _export_folder(self) -> str:
        folder = self.options.export_dir or freeze.home_of(self.environment)
        if not os.path.isdir(folder):
            raise Refused(f"export_dir: {folder} is no folder")
        return folder

    def _export(self, identifier: str) -> list[dict[str, str]]:
        folder = self._export_folder()
        owner = self._owner_ids
        if owner is None:
            raise Refused(f"{self.environment} is gone; it was there a moment ago")
        now = datetime.datetime.now()
        done = []
        for export in (freeze.pip_freeze(self.environment, self.options.uv), freeze.conda_export(self.environment)):
            if export is not None:
                self._put(identifier, export.name.replace("-{stamp}", ""), export.text.encode())
                path = freeze.place(export, folder, now, owner)
                done.append({"path": path, "made_by": export.made_by})
        return done

    # --- the ends -----------------------------------------------------------------------------------------------------

    def _promotable(self, body: dict[str, Any]) -> Record:
        """The transaction whose candidate this run may promote."""
        record: Record = body.get("transaction") or {}
        if record.get("state") != "open":
            raise Refused(
                f"promote needs an open transaction; found state {record.get('state', 'none')} for "
                f"{self.environment}. Run action: begin first"
            )
        if not self._is_mine(body):
            raise Refused(
                f"the candidate of transaction {record['id']} was made by {journal.told(body.get('owner') or {})}, and "
                "only that run could say whether it was verified; nothing was promoted. Run action: recover, which "
                "drops it, then begin again"
            )
        return record

    def promote(self) -> bool:
        """Make the candidate the environment. Gives whether anything changed."""
        with self._working():
            self._check_place()
            body = self._read()
            self.claim(body)
            record: Record = body.get("transaction") or {}
            if record.get("state") == "promoted" and self._is_mine(body):
                pending = bool(record.get("services"))
                if pending:
                    self._settle_promoted(record, self._mine_since(body), self._known(record))
                return pending
            record = self._promotable(body)
            meta = self._meta(record["id"])
            if not meta:
                raise Refused(
                    f"{self._folder(record['id'])}/meta.json cannot be read, so nothing was promoted; drop the "
                    "candidate (action: discard) and begin again"
                )
            self._refuse_replaced(record)
            self._refuse_incomplete(self._worked_on(record))
            # An installer syncs nothing; what is exchanged in must be on disk before it has the environment's name.
            # That may take long, so production is looked at after it.
            exchange.sync_filesystem(self.state_dir)
            self._refuse_leak(record, self._other(record))
            record.update(state="promoting", services=self._named_services(record["id"]))
            self._write(record, self._mine_since(body))
            if record["strategy"] == "staged":
                self._exchange(self._tree(record["id"]))
            self._settle_promoted(record, self._mine_since(body), meta)
            return True

    def _worked_on(self, record: Record) -> str:
        """The tree that an open transaction changes."""
        return self._tree(record["id"]) if record["strategy"] == "staged" else self.environment

    def _other(self, record: Record) -> str:
        """The tree that an open transaction leaves as it was."""
        return self.environment if record["strategy"] == "staged" else self._tree(record["id"])

    def _refuse_replaced(self, record: Record) -> None:
        result, baseline = self._worked_on(record), self._other(record)
        if not (is_noted("result", result, record) and is_noted("baseline", baseline, record)):
            raise Refused(
                f"{result} or {baseline} was replaced by something else since begin; expected the two trees of this "
                "transaction. Look at both, then run action: recover"
            )

    def _mine_since(self, body: dict[str, Any]) -> dict[str, Any]:
        since = (body.get("owner") or {}).get("since") or time.time()
        return {**self._mine(), "since": since}

    def _refuse_incomplete(self, tree: str) -> None:
        damage = distributions.damaged(tree)
        if damage:
            lines = [f"{found.name} {found.version}: {problem}" for found in damage for problem in found.problems]
            raise Refused(
                "the changed environment is not complete, so it is not promoted: "
                + "; ".join(lines[:8])
                + ". Drop it (action: discard) and begin again",
                damaged=repairs.capped(lines),
            )

    def _refuse_leak(self, record: Record, baseline: str) -> None:
        changed = self._differences(record["id"], baseline)
        if changed:
            names = inventory.owners(baseline, repairs.reparable(changed))
            repair = " Repair: " + self._reinstall(record["id"], [], names) if names else ""
            raise Refused(
                f"the baseline at {baseline} is no longer what was frozen: {'; '.join(changed[:8])}. Either something "
                "changed production meanwhile, or the work wrote into files in place, through their hard links. "
                f"Nothing was promoted.{repair}",
                differences=repairs.capped(changed),
            )

    def _exchange(self, tree: str) -> None:
        """The one step that moves what lies at the environment's path."""
        if os.path.lexists(self.environment):
            exchange.exchange(tree, self.environment)
        else:
            os.rename(tree, self.environment)  # somebody removed the environment; its place is free
        exchange.sync_folder(os.path.dirname(self.environment))
        exchange.sync_folder(os.path.dirname(tree))

    def _settle_promoted(self, record: Record, owner: dict[str, Any] | None, meta: dict[str, Any]) -> None:
        self._put_meta({**meta, "promoted": True})
        record["state"] = "promoted"
        self._write(record, owner)
        told = self._restart(record)
        if told:
            self._write(record, owner)
            self._refuse_missing_services(record, told)

    def _finish_promotion(self, record: Record, owner: dict[str, Any] | None, meta: dict[str, Any]) -> str:
        """End a promotion that a kill cut off, as its own run would have: without its services it is taken back."""
        units = list(record.get("services") or [])
        try:
            self._settle_promoted(record, owner, meta)
        except ServicesMissing as error:
            record["services"] = units
            self._put_back(record, owner, meta)
            return f"the exchange had happened, but {error}; put baseline {record['id']} back"
        restarted = f", restarted {', '.join(units)}" if units else ""
        return f"the exchange had happened; finished the promotion{restarted}"

    def _restart(self, record: Record) -> list[dict[str, Any]]:
        """Restart what waits for it; those that do not come back go on waiting, in the record."""
        told = services.restart(list(record.get("services") or []))
        record["services"] = [unit["name"] for unit in told if unit["error"]]
        return told

    def _refuse_missing_services(self, record: Record, told: list[dict[str, Any]]) -> None:
        failed = services.failures(told)
        if failed:
            raise ServicesMissing(
                f"{self.environment} is in state {record['state']}, but not every service came back: "
                + "; ".join(failed),
                services=told,
                changed=True,
            )

    def _named_services(self, identifier: str) -> list[str]:
        """The services to restart after an exchange: those of this call, else those that `begin` was told.

        On the way back past several transactions: those of each.
        """
        passed = [name for name in reversed(self._identifiers()) if name >= identifier]
        told = [unit for name in passed for unit in self._meta(name).get("services") or []]
        return self.options.services or list(dict.fromkeys(told))

    def discard(self) -> bool:
        """Drop the work of an open transaction. Gives whether anything changed."""
        with self._working():
            self._check_place()
            body = self._body()
            self.claim(body)
            record: Record | None = body.get("transaction")
            if not record or record["state"] in SETTLED:
                return False
            found = f"transaction {record['id']} at {record['state']}"
            self._refuse_unproven(record, {"found": found, "done": self._end(record, self._mine_since(body))})
            return True

    def _drop(self, record: Record, owner: dict[str, Any] | None) -> None:
        """Remove a candidate that never was the environment."""
        tree = self._tree(record["id"])
        if not self._holds_baseline(self.environment, self._known(record)):
            what = "is gone" if not folder_inode(self.environment) else "is not the folder that was frozen"
            raise Refused(
                f"{self.environment} {what}, and {tree} may be all that is left of it; it was not removed. Put the "
                "environment back at its path and run action: recover, or bring the baseline back by action: restore"
            )
        record["services"] = []  # nothing was exchanged
        record["state"] = "discarding"
        self._write(record, owner)
        clone.remove(tree, self.held)
        record["state"] = "discarded"
        self._write(record, owner)

    def restore(self) -> tuple[bool, dict[str, Any]]:
        """Make the environment the baseline again. Gives whether anything changed, and the proof."""
        self._claim_unlocked()
        with self._working():
            self._check_place()
            record, owner, on_demand = self._target()
            meta = self._known(record)
            changed = False
            started = time.monotonic()
            trouble: Refused | None = None
            try:
                if record["state"] in OPEN_STATES:
                    changed = True
                    if on_demand:
                        record["on_demand"] = True  # asked for again it leads no step further
                    if record["state"] != "promoting" or not self._exchanged(record, meta):
                        self._end(record, owner)
                if not self._holds_baseline(self.environment, meta):
                    changed = True
                    record["services"] = self._named_services(record["id"])
                    if on_demand:
                        self._refuse_damaged_baseline(record["id"])
                        record["on_demand"] = True
                    self._put_back(record, owner, meta)
                elif record.get("services"):
                    changed = True  # a kill came between the exchange and the restarts
                    self._put_back(record, owner, meta)
            except ServicesMissing as error:
                trouble = error  # whether the files are back is told all the same
            if record["state"] == "promoted":
                record["state"] = "restored"  # asked for what was there already
            if owner is not None:
                self._write_at_last(record, None)
            for path in self._unfinished_writes():
                clone.remove(path, self.held)
            try:
                proof = self._proof(record["id"], started)
            except Refused:
                self._hold_back()
                raise
            if not proof["equal"]:
                self._hold_back()
            elif self.options.keep_replaced:
                self._hold_back("that was asked for")
            else:
                self._empty(self._trash)
            if trouble is not None:
                said = unequal(proof, changed)
                raise ServicesMissing(f"{trouble}{'; and ' if said else ''}{said}", **trouble.details, proof=proof)
            return changed, proof

    def _target(self) -> tuple[Record, dict[str, Any] | None, bool]:
        """The transaction whose baseline is to come back, as a journal record; its owner; whether it is on demand.

        It is not where this run owns the environment, and so takes back what it changed itself.
        """
        wanted = self.options.baseline
        try:
            body = self._body()
        except Refused:
            # Without a readable journal only the operator can say which baseline is meant.
            if not wanted or self._newer():
                raise
            os.rename(self.journal_path, f"{self.journal_path}.unreadable-{int(time.time())}")
            body = {}
        self.claim(body)
        owner, on_demand = self._mine_since(body), not self._is_mine(body)
        record: Record = body.get("transaction") or {}
        if record.get("state") in OPEN_STATES and (record["state"] == "freezing" or wanted not in ("", record["id"])):
            self._end(record, owner)
            body = self._body()
            record = body.get("transaction") or {}
        wanted = wanted or self._one_before(body)
        if record and wanted in ("", record["id"]):
            return record, owner, on_demand
        known = [found["id"] for found in self._baselines()]
        identifier = wanted or (known[0] if known else "")
        meta = self._meta(identifier) if identifier in known else {}
        if not meta:
            raise Refused(
                f"no baseline {wanted or ''}".rstrip()
                + f" of {self.environment} is kept in {self.state_dir}; kept are: {', '.join(known) or 'none'}"
            )
        names = ("id", "strategy", "strategy_reason", "clone", "exports", "created", *NOTED)
        return {**{name: meta.get(name) for name in names}, "state": "promoted", "services": []}, owner, on_demand

    def _is_mine(self, body: dict[str, Any]) -> bool:
        return journal.key(body.get("owner") or {}) == journal.key(self._mine())

    def _one_before(self, body: dict[str, Any]) -> str:
        """The baseline that nobody named: "" for the last transaction's.

        Where that one failed and was taken back, what is in place is the result of one before it, and the way back
        leads to that one's baseline. Where an operator went back on demand, the environment is where it should be.
        """
        record: Record = body.get("transaction") or {}
        state = record.get("state")
        if state in (None, "promoted") or state in OPEN_STATES or record.get("on_demand") or self._is_mine(body):
            return ""
        kept = [found["id"] for found in self._baselines() if found["path"] != self.environment]
        return next((name for name in kept if is_noted("result", self.environment, self._meta(name))), "")

    def _way_back(self, body: dict[str, Any], known: list[str]) -> str:
        """The baseline that a return leads to which names none, out of those that are kept, newest first."""
        return self._one_before(body) or (body.get("transaction") or {}).get("id") or next(iter(known), "")

    def _refuse_damaged_baseline(self, identifier: str) -> None:
        """Nothing has failed, so what is in place stays rather than give way to a tree that is not what was frozen."""
        tree = self._tree(identifier)
        if not folder_inode(tree):
            return
        changed = self._differences(identifier, tree)
        if changed:
            raise Refused(
                f"the kept baseline {identifier} is no longer what was frozen: {'; '.join(changed[:8])}. Nothing was "
                f"touched. Name another baseline (action: status lists them), or look at {tree}",
                differences=repairs.capped(changed),
            )

    def _newer(self) -> bool:
        try:
            self._load()
        except journal.JournalError as error:
            return error.newer
        return False

    def _put_back(self, record: Record, owner: dict[str, Any] | None, meta: dict[str, Any]) -> None:
        """Exchange the baseline in, and move what it replaces out of the way."""
        identifier = record["id"]
        tree = self._tree(identifier)
        if not self._holds_baseline(self.environment, meta):
            if not self._holds_baseline(tree, meta):
                raise Refused(
                    f"the tree of baseline {identifier} is not at {tree}, and {self.environment} is not it either; "
                    "nothing was touched. Restore another baseline (action: status lists them)"
                )
            record["state"] = "restoring"
            # A full disk must not keep the baseline away: should this write fail, the inode numbers tell recover.
            with contextlib.suppress(OSError):
                self._write(record, owner)
            self._exchange(tree)
        told = self._restart(record)  # before all that a full disk could keep from happening
        if folder_inode(tree):
            self._discard_tree(identifier, meta)
        record["state"] = "restored"
        self._write_at_last(record, owner)
        self._refuse_missing_services(record, told)

    def _discard_tree(self, identifier: str, meta: dict[str, Any]) -> None:
        """Take a tree out of its transaction: to the one that it is the baseline of, else to the trash."""
        tree = self._tree(identifier)
        for other in self._identifiers():
            theirs = self._meta(other)
            if not theirs.get("promoted"):
                continue  # it was dropped, so nothing leads back to its baseline
            if is_noted("baseline", tree, theirs) and not folder_inode(self._tree(other)):
                os.rename(tree, self._tree(other))
                exchange.sync_folder(self._folder(other))
                exchange.sync_folder(self._folder(identifier))
                return
        self._make_folder(self._trash)
        gone = os.path.join(self._trash, f"{identifier}-{secrets.token_hex(4)}")
        known = [meta, *map(self._meta, self._identifiers())]
        unknown = not any(is_noted(which, tree, each) for which in TREES for each in known)
        os.rename(tree, gone)
        exchange.sync_folder(self._folder(identifier))
        if unknown:
            self._hold(gone, f"what lay at {self.environment} was no tree of this collection's")

    def _empty(self, folder: str) -> None:
        for tree in self._in(folder):
            try:
                clone.remove(tree, self.held)
            except clone.CloneError as error:
                self.warn(f"a replaced tree could not be removed yet, action: prune tries again: {error}")

    def _hold_back(self, why: str = "the proof does not hold") -> None:
        """Keep what a baseline replaced that is not what was frozen: it may be all that is left of something."""
        for tree in self._in(self._trash):
            self._hold(tree, why)

    def _hold(self, tree: str, why: str) -> None:
        kept = os.path.join(self._held_back, os.path.basename(tree))
        try:
            self._make_folder(self._held_back)
            os.rename(tree, kept)
        except OSError as error:
            self.warn(f"{why}, and what was replaced could not be held back; copy {tree} away: {error}")
            return
        self.warn(f"{why}, so what was replaced is kept at {kept} until the next prune")

    def prune(self) -> list[str]:
        """Keep the newest baselines and end this run's ownership. Gives what was removed."""
        with self._working():
            self._check_place()
            body = self._body()
            self.claim(body)
            record: Record = body.get("transaction") or {}
            self._refuse_prune(record)
            gone = self._superfluous(record)
            if gone:
                self._make_folder(self._trash)
            for identifier in gone:
                # Whole or not at all: a tree that is half removed must not be listed as a baseline.
                os.rename(self._folder(identifier), os.path.join(self._trash, f"{identifier}-{secrets.token_hex(4)}"))
            gone += self._in(self._held_back)
            for folder in (self._trash, self._held_back):
                self._empty(folder)
            if body.get("owner"):
                self._write(record or None, None)
            return gone

    def _refuse_prune(self, record: Record) -> None:
        if record.get("state") in OPEN_STATES:
            raise Refused(
                f"prune waits for the end of transaction {record['id']}, which is {record['state']}; "
                "promote, restore or discard it first"
            )
        if record.get("services"):
            raise Refused(
                f"prune waits for the services of transaction {record['id']}: {', '.join(record['services'])} did not "
                "come back; see what they say, then run action: recover, or restore"
            )

    def _superfluous(self, record: Record) -> list[str]:
        kept = [name for name in self._identifiers() if self._meta(name) and folder_inode(self._tree(name))]
        bare = [identifier for identifier in self._identifiers() if not folder_inode(self._tree(identifier))]
        superfluous = kept[self.options.keep :]
        if all(self._meta(name).get("flashinfer") for name in kept[: self.options.keep]):
            # The way back to an environment without FlashInfer, and what other versions of it start from.
            plain = next((name for name in superfluous if not self._meta(name).get("flashinfer")), None)
            superfluous = [name for name in superfluous if name != plain]
        superfluous = [name for name in superfluous if name != record.get("id")]
        return superfluous + [identifier for identifier in bare if identifier != record.get("id")]

    # --- proof --------------------------------------------------------------------------------------------------------

    def prove(self) -> dict[str, Any]:
        """Hold the environment against a baseline: inventory, every RECORD, torch's metadata."""
        with self._working(beat=False):
            body = {} if self.options.baseline else self._read()
            known = self._identifiers()
            identifier = self.options.baseline or (body.get("transaction") or {}).get("id") or (known or [""])[0]
            if not self._meta(identifier):
                raise Refused(f"no baseline {identifier or ''} of {self.environment} was frozen in {self.state_dir}")
            return self._proof(identifier, time.monotonic())

    def _proof(self, identifier: str, started: float) -> dict[str, Any]:
        expected = self._inventory(identifier)
        try:
            found = inventory.take(self.environment)
        except OSError as error:
            raise Refused(f"{self.environment} cannot be read: {error}") from None
        changed = inventory.differences(expected, found)
        # With every entry as it was when begin found all RECORDs complete, they are complete.
        damage = distributions.damaged(self.environment) if changed or self.options.deep else []
        if self.options.deep:
            changed = sorted({*changed, *inventory.wrong_contents(self.environment, self._hashes(identifier))})
        torch: dict[str, Any] = {"found": freeze.torch_on_disk(self.environment)}
        torch["baseline"] = self._meta(identifier).get("torch_values", torch["found"])
        family = torch_values.family(self._packages(identifier) or distributions.installed(self.environment))
        # Told in any case: where all files are as they were, only an import says that torch is broken.
        torch["repair"] = self._reinstall(identifier, [], family)
        equal = not changed and not damage and torch["found"] == torch["baseline"]
        names = [] if equal else inventory.owners(self.environment, repairs.reparable(changed))
        if torch["found"] != torch["baseline"]:
            names += family
        return {
            "baseline_id": identifier,
            "equal": equal,
            "deep": self.options.deep,
            "differences": repairs.capped(changed),
            "checked_files": sum(1 for entry in found.values() if entry[0] == "f"),
            "damaged": repairs.capped([f"{bad.name} {bad.version}: {text}" for bad in damage for text in bad.problems]),
            "torch": torch,
            "repair": "" if equal else self._repair(identifier, damage, names),
            "seconds": round(time.monotonic() - started, 3),
        }

    def _repair(self, identifier: str, damage: list[distributions.Damage], names: list[str]) -> str:
        """The command that makes the environment the baseline again: from the kept tree, where there is one."""
        if self._tree(identifier) in [found["path"] for found in self._baselines()]:
            return repairs.way_back(self.options.owner.get("host", ""), self.environment, identifier)
        return self._reinstall(identifier, damage, names)

    def _reinstall(self, identifier: str, damage: list[distributions.Damage], names: list[str]) -> str:
        """The command that installs distributions as they were frozen."""
        return repairs.command(self.environment, damage, names, self.options.uv, self._packages(identifier))

    # --- check mode ---------------------------------------------------------------------------------------------------

    def plan(self, action: str) -> list[str]:
        """What `action` would do, told without doing anything. Raises Refused where it would be refused."""
        try:
            body = self._load()
        except journal.JournalError as error:
            if error.newer:
                raise Refused(f"the journal {self.journal_path} is left alone: {error}") from None
            return [f"the journal cannot be read ({error}); recover would make it anew from the trees on disk"]
        self._check_place()
        self.claim(body)
        record: Record = body.get("transaction") or {}
        open_ = record.get("state") in OPEN_STATES
        steps = self._how_it_ends(record) if open_ else []
        if action == "begin":
            self._check_environment()
            self._export_folder()
            if not (open_ and record["strategy"] == "in_place"):
                self._refuse_damage()  # what is being changed in place is put back first
            entries, listed = self._freeze()
            copies = clone.must_copy(entries, listed)
            parent = os.path.dirname(self.environment)
            short = clone.shortage(parent, entries, copies)
            if short:
                raise Refused(short)
            strategy, reason = self._strategy()
            self._refuse_damaged_source(strategy)
            return [
                *steps,
                f"freeze {self.environment}: {len(entries)} entries",
                f"clone it to {self.state_dir}, {len(copies)} files as real copies; strategy {strategy} ({reason})",
            ]
        if action == "promote":
            self._promotable(body)
            self._refuse_replaced(record)
            self._refuse_incomplete(self._worked_on(record))
            self._refuse_leak(record, self._other(record))
            promised = [f"make the candidate of transaction {record['id']} the environment {self.environment}"]
            return promised + self._restarts(self._named_services(record["id"]))
        if action == "restore":
            known = {found["id"]: found["path"] for found in self._baselines()}
            target = self.options.baseline or self._way_back(body, list(known))
            if target not in known and not (open_ and target == record.get("id")):
                raise Refused(
                    f"no baseline {target} of {self.environment} is kept; kept are: {', '.join(known) or 'none'}"
                )
            if (
                open_
                and target == record["id"]
                and record["state"] == "promoting"
                and self._exchanged(record, self._known(record))
            ):
                steps = []  # taken back at once
            elif known.get(target) == self.environment or (open_ and target == record["id"]):
                return steps or self._restarts(record.get("services") or [])
            if not self._is_mine(body):
                self._refuse_damaged_baseline(target)
            exchanged = f"exchange baseline {target} in at {self.environment}, and prove it"
            return [*steps, exchanged, *self._restarts(self._named_services(target))]
        if action == "prune":
            self._refuse_prune(record)
            baselines = [f"remove baseline {identifier}" for identifier in self._superfluous(record)]
            return baselines + [f"remove {tree}, which was held back" for tree in self._in(self._held_back)]
        if action == "recover":
            if not open_:
                steps += self._restarts(record.get("services") or [])
            steps += [f"remove {leftover}, which nothing needs" for leftover in self._strays(record)]
        return steps

    def _how_it_ends(self, record: Record) -> list[str]:
        """What `_end` would do, told without doing it."""
        found = f"transaction {record['id']}, left at {record['state']}"
        waiting = self._restarts(record.get("services") or [])
        if record["state"] == "restoring":
            return [f"finish the restore of {found}", *waiting]
        if record["state"] == "promoting" and self._exchanged(record, self._known(record)):
            return [f"finish the promotion of {found}", *waiting]
        if record["strategy"] == "in_place" and record["state"] in ("open", "promoting"):
            restarts = self._restarts(self._named_services(record["id"]))
            return [f"exchange the baseline back in at {self.environment}, to end {found}", *restarts]
        return [f"drop the candidate of {found}"]

    def _restarts(self, units: list[str]) -> list[str]:
        return [f"restart {unit}, and see it active" for unit in units]
