# Copyright (c) 2026 The ocrfleet.gpu_stack contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The inventory of a tree: what every entry is, and what has changed since.

An entry is `[type, size, mtime_ns, mode, uid, gid, link target]`; type is one of `f` (file), `d` (folder), `l` (link),
`o` (anything else). Sizes of folders are left out, since they depend on the filesystem and its past.

Whatever lies in a `__pycache__` folder, and that folder itself, is not compared: Python writes there whenever
production imports something, always by rename, so nothing of it passes through a hard link. For the same reason the
time of a folder is forgiven when a `__pycache__` appeared in it or went away.
"""

from __future__ import annotations

import base64
import contextlib
import csv
import gc
import glob
import hashlib
import json
import os
import stat
from collections.abc import Callable, Iterator

from ansible_collections.ocrfleet.gpu_stack.plugins.module_utils import distributions

Entry = list  # [type, size, mtime_ns, mode, uid, gid, link target]
FIELDS = ("type", "size", "mtime", "mode", "uid", "gid", "link target")
CACHE = "__pycache__"
# So many folders waiting are shared out between two processes. Fewer are walked before a process has started.
SHARED_FROM = 512


@contextlib.contextmanager
def _no_collection() -> Iterator[None]:
    """Keep Python from looking for garbage: with lists by the ten thousand that takes a tenth of the time."""
    was_on = gc.isenabled()
    gc.disable()
    try:
        yield
    finally:
        if was_on:
            gc.enable()


def _entry(path: str, status: os.stat_result) -> Entry:
    mode = status.st_mode
    if stat.S_ISREG(mode):
        return ["f", status.st_size, status.st_mtime_ns, mode & 0o7777, status.st_uid, status.st_gid, ""]
    if stat.S_ISDIR(mode):
        return ["d", 0, status.st_mtime_ns, mode & 0o7777, status.st_uid, status.st_gid, ""]
    if stat.S_ISLNK(mode):
        return ["l", 0, status.st_mtime_ns, 0, status.st_uid, status.st_gid, os.readlink(path)]
    return ["o", 0, status.st_mtime_ns, stat.S_IFMT(mode) | mode & 0o7777, status.st_uid, status.st_gid, ""]


def _walk(tree: str, waiting: list[str], enough: int = 0) -> dict[str, Entry]:
    """The entries below the folders in `waiting`, which are relative and end in a slash.

    Where `enough` is given it ends as soon as that many folders wait, and leaves them in `waiting`.
    """
    entries: dict[str, Entry] = {}
    while waiting and not 0 < enough <= len(waiting):
        prefix = waiting.pop(0) if enough else waiting.pop()
        with os.scandir(os.path.join(tree, prefix)) as found:
            for item in found:
                entry = _entry(item.path, item.stat(follow_symlinks=False))
                entries[prefix + item.name] = entry
                if entry[0] == "d":
                    waiting.append(f"{prefix}{item.name}/")
    return entries


@contextlib.contextmanager
def _walked_beside(tree: str, waiting: list[str]) -> Iterator[Callable[[], dict[str, Entry] | None]]:
    """A process of its own that walks meanwhile. What is given waits for it; None where it came to nothing."""
    read_end, write_end = os.pipe()
    try:
        child = os.fork()
    except OSError:
        os.close(read_end)
        os.close(write_end)
        yield lambda: None
        return
    if child == 0:
        # Whatever happens here the parent walks again and tells: nothing of it may run the parent's cleaning up.
        try:
            os.close(read_end)
            with open(write_end, "wb") as pipe:
                pipe.write(dump(_walk(tree, waiting)))
        except BaseException:
            os._exit(1)
        os._exit(0)
    os.close(write_end)
    done: list[int] = []

    def result() -> dict[str, Entry] | None:
        with open(read_end, "rb", closefd=False) as pipe:
            content = pipe.read()
        done.append(os.waitpid(child, 0)[1])
        return load(content) if done == [0] else None

    try:
        yield result
    finally:
        os.close(read_end)  # ends a child that still writes
        if not done:
            os.waitpid(child, 0)


def take(tree: str) -> dict[str, Entry]:
    """The entries of a tree by relative path, the tree itself as `.`. Raises OSError for what cannot be read.

    A large tree is walked by two processes: the return of production waits for it.
    """
    entries = {".": _entry(tree, os.lstat(tree))}
    with _no_collection():
        waiting = [""]
        entries.update(_walk(tree, waiting, enough=SHARED_FROM))
        if len(waiting) < SHARED_FROM:
            return entries
        # Two of five, since it also writes down what it finds.
        its = waiting[1::5] + waiting[3::5]
        with _walked_beside(tree, its) as result:
            entries.update(_walk(tree, sorted({*waiting} - {*its})))
            entries.update(result() or _walk(tree, its))
    return entries


def fingerprint(tree: str) -> str:
    """A hash over the entries of a tree, as far as `differences` compares them, without the times of folders.

    Left out is the lock that uv (0.13.9) makes, empty, in the top folder of an environment that it only looks at.
    """
    digest = hashlib.sha256()
    for path, entry in sorted(take(tree).items()):
        if CACHE not in path.split("/") and path != ".lock":
            shown = [0 if entry[0] == "d" and field == "mtime" else value for field, value in zip(FIELDS, entry)]
            digest.update(json.dumps([path, shown]).encode("ascii"))
    return digest.hexdigest()


def dump(entries: dict[str, Entry]) -> bytes:
    """As stored on disk. Names that are no UTF-8 survive, as Python's surrogates."""
    return json.dumps(entries, separators=(",", ":")).encode("ascii")


def load(data: bytes) -> dict[str, Entry]:
    """What `dump` made. Raises ValueError."""
    with _no_collection():
        entries = json.loads(data)
    if not isinstance(entries, dict) or not all(
        isinstance(entry, list) and len(entry) == 7 for entry in entries.values()
    ):
        raise ValueError("no inventory")
    return entries


def _in_cache(path: str) -> bool:
    return path.startswith(CACHE + "/") or path == CACHE or f"/{CACHE}/" in path or path.endswith("/" + CACHE)


def _told(field: str, value: object) -> str:
    if field == "mode" and isinstance(value, int):
        return f"{value:04o}"
    if field == "type":
        return {"f": "file", "d": "folder", "l": "link"}.get(str(value), "special file")
    return f"{value} ns" if field == "mtime" else f"{value}"


def differences(expected: dict[str, Entry], found: dict[str, Entry]) -> list[str]:
    """What is not as it was, one text per path, sorted by path."""
    if expected == found:
        return []
    told = []
    for path, before in expected.items():
        now = found.get(path)
        if now == before or _in_cache(path):
            continue
        if now is None:
            told.append(f"{path}: missing")
            continue
        changed = [index for index in range(len(FIELDS)) if before[index] != now[index]]
        if changed == [2] and before[0] == "d":
            cache = CACHE if path == "." else f"{path}/{CACHE}"
            if (cache in expected) != (cache in found):
                continue
        said = [f"{FIELDS[i]} {_told(FIELDS[i], now[i])}, was {_told(FIELDS[i], before[i])}" for i in changed]
        told.append(f"{path}: {'; '.join(said)}")
    told += [f"{path}: was not there" for path in found if path not in expected and not _in_cache(path)]
    return sorted(told, key=lambda line: line.split(": ", 1)[0])


def record_rows(record: str) -> Iterator[tuple[str, str]]:
    """The files that a RECORD lists, as it names them, each with its hash or "".

    What is no CSV ends the list; `distributions.damaged` tells that.
    """
    with contextlib.suppress(csv.Error), open(record, encoding="utf-8", errors="surrogateescape", newline="") as file:
        for row in csv.reader(file):
            if row:
                yield row[0], row[1] if len(row) > 1 else ""


def recorded(tree: str) -> dict[str, str]:
    """The files that installers list, each with its recorded hash or "".

    Read from every RECORD and, in a conda environment, from `conda-meta/*.json`. Paths are relative to the tree.
    """
    hashes: dict[str, str] = {}
    for site in distributions.site_packages(tree):
        base = os.path.relpath(site, tree)
        for record in glob.glob(os.path.join(glob.escape(site), "*.dist-info", "RECORD")):
            for name, value in record_rows(record):
                path = os.path.join(base, name)
                if ".." in name:
                    path = os.path.normpath(path)
                hashes[path] = value
    for manifest in glob.glob(os.path.join(glob.escape(tree), "conda-meta", "*.json")):
        with open(manifest, encoding="utf-8", errors="surrogateescape") as file:
            try:
                files = json.load(file).get("files", [])
            except (ValueError, AttributeError):
                continue
        for path in files:
            hashes.setdefault(str(path), "")
    return hashes


def owners(tree: str, paths: list[str]) -> list[str]:
    """The distributions, by canonical name, whose RECORD lists one of the paths."""
    wanted, found = set(paths), set()
    for site in distributions.site_packages(tree):
        base = os.path.relpath(site, tree)
        for record in glob.glob(os.path.join(glob.escape(site), "*.dist-info", "RECORD")):
            names = {os.path.normpath(os.path.join(base, name)) for name, _digest in record_rows(record)}
            names.add(os.path.relpath(record, tree))
            if names & wanted:
                folder = os.path.basename(os.path.dirname(record))
                found.add(distributions.canonical(folder[: -len(".dist-info")].partition("-")[0]))
    return sorted(found)


def wrong_contents(tree: str, hashes: dict[str, str]) -> list[str]:
    """The files whose contents are not those of their recorded hash; the slow part of a deep proof."""
    told = []
    for path, value in sorted(hashes.items()):
        algorithm, _equals, expected = value.partition("=")
        if not expected or algorithm not in hashlib.algorithms_guaranteed or _in_cache(path):
            continue
        digest = hashlib.new(algorithm)
        try:
            with open(os.path.join(tree, path), "rb") as file:
                while block := file.read(1 << 20):
                    digest.update(block)
        except OSError as error:
            told.append(f"{path}: {(error.strerror or 'unreadable').lower()}")
            continue
        if base64.urlsafe_b64encode(digest.digest()).rstrip(b"=").decode() != expected:
            told.append(f"{path}: its contents are not those of its RECORD")
    return told
