# Copyright (c) 2026 The ocrfleet.gpu_stack contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""What is installed in an environment, read from its files, and whether all of it is really there.

Nothing here starts the environment's Python: a broken environment must be readable too. The format is that of the
packaging specifications "Recording installed projects" and "Core metadata".
"""

from __future__ import annotations

import csv
import glob
import hashlib
import json
import os
import re
from dataclasses import dataclass, field


def canonical(name: str) -> str:
    """The name as indexes compare it (PEP 503)."""
    return re.sub(r"[-_.]+", "-", name).lower()


@dataclass(frozen=True)
class Distribution:
    """One installed distribution, by its `.dist-info` or `.egg-info` folder."""

    name: str
    version: str
    path: str  # the folder of its metadata
    installer: str = ""
    origin: str = ""  # the URL of direct_url.json (PEP 610): a local wheel, an editable install, a git checkout
    requires: tuple[str, ...] = ()
    editable: bool = False

    @property
    def requirement(self) -> str:
        """What an installer takes to put this very distribution there again; an editable one begins with `-e `."""
        if self.editable:
            return f"-e {self.origin}"
        return f"{self.name} @ {self.origin}" if self.origin else f"{canonical(self.name)}=={self.version}"


@dataclass
class Damage:
    """What a distribution's RECORD promises and the disk does not hold."""

    name: str
    version: str
    problems: list[str] = field(default_factory=list)
    path: str = ""  # the folder of its metadata


def site_packages(tree: str) -> list[str]:
    """The site-packages folders of a prefix, `lib64` only where it is no link to `lib`."""
    found: list[str] = []
    for pattern in ("lib/python3*/site-packages", "lib64/python3*/site-packages"):
        for path in sorted(glob.glob(os.path.join(glob.escape(tree), pattern))):
            if os.path.realpath(path) not in [os.path.realpath(other) for other in found]:
                found.append(path)
    return found


def _read(path: str) -> str:
    try:
        with open(path, encoding="utf-8", errors="replace") as file:
            return file.read()
    except OSError:
        return ""


def _headers(text: str) -> dict[str, list[str]]:
    headers: dict[str, list[str]] = {}
    for line in text.split("\n\n", 1)[0].splitlines():
        if line[:1].isspace() or ":" not in line:
            continue
        key, value = line.split(":", 1)
        headers.setdefault(key.strip().lower(), []).append(value.strip())
    return headers


def _origin(text: str) -> tuple[str, bool]:
    """The URL of a direct_url.json as installers take it, and whether it stands for an editable install."""
    try:
        found = json.loads(text)
        url = str(found.get("url", ""))
    except (ValueError, AttributeError):
        return "", False
    source = found.get("vcs_info")
    if source:
        url = f"{source.get('vcs', 'git')}+{url}@{source.get('commit_id', 'HEAD')}"
    return url, bool((found.get("dir_info") or {}).get("editable"))


def in_folder(site: str) -> dict[str, Distribution]:
    """The distributions whose metadata lies directly in `site`, by canonical name."""
    result: dict[str, Distribution] = {}
    for entry in sorted(os.listdir(site)):
        if not entry.endswith((".dist-info", ".egg-info")):
            continue
        path = os.path.join(site, entry)
        metadata = "METADATA" if entry.endswith(".dist-info") else "PKG-INFO"
        headers = _headers(_read(os.path.join(path, metadata) if os.path.isdir(path) else path))
        stem = entry.rsplit(".", 1)[0].split("-")
        name = (headers.get("name") or [stem[0]])[0]
        origin, editable = _origin(_read(os.path.join(path, "direct_url.json")))
        result.setdefault(
            canonical(name),
            Distribution(
                name=name,
                version=(headers.get("version") or stem[1:2] or [""])[0],
                path=path,
                installer=_read(os.path.join(path, "INSTALLER")).strip(),
                origin=origin,
                requires=tuple(headers.get("requires-dist", [])),
                editable=editable,
            ),
        )
    return result


def installed(tree: str) -> dict[str, Distribution]:
    """All distributions of a prefix by canonical name. Of two with one name the first found wins, as in Python."""
    result: dict[str, Distribution] = {}
    for site in site_packages(tree):
        result = {**in_folder(site), **result}
    return result


def versions(tree: str) -> dict[str, str]:
    """The version of each distribution of a prefix, by canonical name."""
    return {name: distribution.version for name, distribution in installed(tree).items()}


def _check_record(site: str, record: str, conda: bool) -> list[str]:
    problems = []
    try:
        with open(record, encoding="utf-8", newline="") as file:
            rows = [row for row in csv.reader(file) if row]
    except (OSError, UnicodeDecodeError, csv.Error) as error:
        return [f"{os.path.relpath(record, site)}: cannot be read ({error})"]
    if not any(row[0].endswith("/METADATA") for row in rows):
        # A RECORD always lists the metadata beside it; one that does not was cut short.
        problems.append(f"{os.path.relpath(record, site)}: cut short, it does not list METADATA")
    for row in rows:
        relative = row[0]
        if relative.endswith(".pyc"):
            continue  # Python writes and drops these at will
        path = os.path.join(site, relative)
        try:
            size = os.stat(path).st_size
        except OSError as error:
            problems.append(f"{relative}: {(error.strerror or 'unreadable').lower()}")
            continue
        if conda and relative.startswith(".."):
            continue  # conda writes console scripts anew for each prefix, so their size is not the recorded one
        if len(row) > 2 and row[2].isdigit() and int(row[2]) != size:
            problems.append(f"{relative}: {size} bytes, its RECORD says {row[2]}")
    return problems


def damaged(tree: str) -> list[Damage]:
    """The distributions whose files are not those of their RECORD, by existence and size.


    An installer's exit code proves nothing: uv, killed in the middle and run again, exits 0 with files missing.
    Distributions without a RECORD that something else than pip or uv put there (conda, Debian) cannot be judged.
    """
    result = []
    for site in site_packages(tree):
        for entry in sorted(os.listdir(site)):
            path = os.path.join(site, entry)
            if not entry.endswith(".dist-info") or not os.path.isdir(path):
                continue
            headers = _headers(_read(os.path.join(path, "METADATA")))
            name, _dash, version = entry[: -len(".dist-info")].partition("-")
            damage = Damage((headers.get("name") or [name])[0], (headers.get("version") or [version])[0], path=path)
            record = os.path.join(path, "RECORD")
            installer = _read(os.path.join(path, "INSTALLER")).strip()
            if not headers:
                closed = not os.access(path, os.R_OK | os.X_OK)
                damage.problems.append(
                    f"{entry}: permission denied" if closed else f"{entry}/METADATA: missing or empty"
                )
                if closed:
                    result.append(damage)
                    continue
            if os.path.exists(record):
                damage.problems += _check_record(site, record, installer == "conda")
            elif not installer:
                damage.problems.append(f"{entry}: neither RECORD nor INSTALLER, an installer was stopped here")
            if damage.problems:
                result.append(damage)
    return result


def versions_fingerprint(tree: str) -> str:
    """A hash over every distribution's name and version.

    Unlike `fingerprint` it is equal on two hosts that got the same packages in other ways: a RECORD depends on the
    installer, on the prefix (in console scripts), and for local wheels even on their time.
    """
    lines = [f"{name}=={version}\n" for name, version in sorted(versions(tree).items())]
    return hashlib.sha256("".join(lines).encode()).hexdigest()


def fingerprint(tree: str) -> str:
    """A hash over every distribution's name, version and RECORD: equal fingerprints mean equal installed sets.

    Left out is uv_cache.json, in which uv (0.13.9) notes the time of a local wheel's file.
    """
    digest = hashlib.sha256()
    for name, distribution in sorted(installed(tree).items()):
        record = re.sub(
            r"^.*/uv_cache\.json,.*\n", "", _read(os.path.join(distribution.path, "RECORD")), flags=re.MULTILINE
        )
        content = hashlib.sha256(record.encode()).hexdigest()
        digest.update(f"{name}=={distribution.version} {content}\n".encode())
    return digest.hexdigest()
