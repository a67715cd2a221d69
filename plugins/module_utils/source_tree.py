# Copyright (c) 2026 The ocrfleet.gpu_stack contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Bring a source tree to this host: from git, or from an archive that may be hostile."""

from __future__ import annotations

import os
import posixpath
import stat
import tarfile
import urllib.parse
import zipfile
from typing import Any

from ansible_collections.ocrfleet.gpu_stack.plugins.module_utils import commands, digests, redaction

# git asks nobody: without a terminal it would wait for an answer that never comes.
ASK_NOBODY = {
    "GIT_TERMINAL_PROMPT": "0",
    "GIT_ASKPASS": "",
    "SSH_ASKPASS": "",
    "GIT_SSH_COMMAND": "ssh -o BatchMode=yes",
}

# What git asks for a user and a password: those of the URL, which stand in no command line, where all users see them.
_USER, _PASSWORD = "OCRFLEET_GIT_USER", "OCRFLEET_GIT_PASSWORD"
_HELPER = f'!f() {{ printf "username=%s\\npassword=%s\\n" "${_USER}" "${_PASSWORD}"; }}; f'


class Refused(Exception):
    """The source is not what was asked for, or not safe; the text says what to do."""


def checkout(url: str, ref: str, folder: str, timeout: float) -> str:
    """Fetch one tag or commit with its submodules into `folder`; returns the commit."""
    bare, user, password = redaction.plain(url)
    # An empty core.askPass is none, whatever the user's configuration says.
    options, env = ["-c", "core.askPass="], dict(ASK_NOBODY)
    if user or password:
        # For this host alone, and the only helper there.
        key = f"credential.{'/'.join(bare.split('/')[:3])}.helper"
        options += ["-c", f"{key}=", "-c", f"{key}={_HELPER}"]
        env.update({_USER: user, _PASSWORD: password})

    def git(*arguments: str) -> str:
        result = commands.run(["git", *options, "-C", folder, *arguments], timeout=timeout, env=env)
        if result.rc == 127:
            raise Refused("expected git on the host, found none; install git, or give a source archive instead")
        if not result.ok:
            raise Refused(
                f"cannot take {ref} from {redaction.without_secrets(url)}: "
                f"{redaction.without_secrets(result.outcome(lines=4))}. Expected a tag or a commit that can be read "
                "without being asked for a password: correct the URL or the ref, or give the host's user access"
            )
        return result.stdout.strip()

    os.makedirs(folder, exist_ok=True)
    git("init", "--quiet")
    git("fetch", "--quiet", "--depth", "1", "--end-of-options", bare, ref)
    git("checkout", "--quiet", "--detach", "FETCH_HEAD")
    # Submodules by a relative URL are looked for beside the remote's.
    git("remote", "add", "origin", bare)
    git("submodule", "--quiet", "update", "--init", "--recursive", "--depth", "1")
    return git("rev-parse", "HEAD")


def check_sum(path: str, expected: str) -> str:
    """The file's SHA-256. Raises Refused where it is not `expected` (`sha256:` and 64 digits; "" accepts any)."""
    found = digests.sha256(path)
    if expected and expected.lower() != f"sha256:{found}":
        raise Refused(
            f"{os.path.basename(path)}: expected {expected}, found sha256:{found}; "
            "take the archive again, or correct the checksum"
        )
    return found


def unpack(path: str, folder: str) -> None:
    """Unpack a tar or zip archive. Nothing is written where one member is unsafe."""
    name = os.path.basename(path)
    try:
        if zipfile.is_zipfile(path):
            with zipfile.ZipFile(path) as archive:
                for info in archive.infolist():
                    special = stat.S_IFMT(info.external_attr >> 16) not in (0, stat.S_IFREG, stat.S_IFDIR)
                    _refuse(name, info.filename, _wrong(info.filename, "", special, set()))
                archive.extractall(folder)  # noqa: S202 (every name was looked at above)
            return
        with tarfile.open(path) as tape:
            members = tape.getmembers()
            links = {posixpath.normpath(member.name) for member in members if member.issym()}
            for member in members:
                _refuse(name, member.name, _wrong_in_tar(member, links))
                member.mode = 0o755 if member.isdir() or member.mode & 0o100 else 0o644
            # Python's own guard besides, where this version has it.
            guard: dict[str, Any] = {"filter": "data"} if hasattr(tarfile, "data_filter") else {}
            tape.extractall(folder, members=members, **guard)  # noqa: S202 (every member was looked at above)
    # A KeyError is a hard link to what the archive has not got.
    except (tarfile.TarError, zipfile.BadZipFile, EOFError, OSError, KeyError) as error:
        raise Refused(
            f"{name} is no readable tar or zip archive: {error}; expected a source archive; "
            "take it again from its maker"
        ) from error


def _wrong_in_tar(member: tarfile.TarInfo, links: set[str]) -> str:
    if member.islnk() and posixpath.normpath(member.linkname) in links:
        # Python links without following, so that this would be the same relative link at another depth.
        return f"it is a hard link to {member.linkname}, which is a link itself"
    target = ""
    if member.issym():  # a path from where the link lies; a hard link's is from the top
        target = posixpath.join(posixpath.dirname(member.name), member.linkname)
    elif member.islnk():
        target = member.linkname
    special = not (member.isreg() or member.isdir() or member.issym() or member.islnk())
    return _wrong(member.name, target, special, links)


def _outside(name: str, links: set[str]) -> bool:
    """Whether a path is absolute, climbs out, or passes through a link, behind which `..` means something else."""
    parts = name.split("/")
    passed = {posixpath.normpath("/".join(parts[:count])) for count in range(1, len(parts))}
    climbs = any(step == ".." or step.startswith("../") for step in (*passed, posixpath.normpath(name)))
    return posixpath.isabs(name) or "\\" in name or climbs or bool(passed & links)


def _wrong(name: str, target: str, special: bool, links: set[str]) -> str:
    if special:
        return "it is neither a file, a folder nor a link"
    if _outside(name, links):
        return "its path leads out of the archive"
    return f"it is a link that leads out of the archive, to {target}" if target and _outside(target, links) else ""


def _refuse(archive: str, name: str, wrong: str) -> None:
    if wrong:
        raise Refused(
            f"{archive} is not safe to unpack: {name}: {wrong}. Nothing was unpacked; take the archive "
            "from its maker, with a checksum"
        )


def root(folder: str) -> str:
    """The folder that holds pyproject.toml: the one given, or the only one in it."""
    names = sorted(os.listdir(folder))
    inner = os.path.join(folder, names[0]) if len(names) == 1 else folder
    for candidate in (folder, inner):
        if os.path.isfile(os.path.join(candidate, "pyproject.toml")):
            return candidate
    raise Refused(f"expected pyproject.toml at the top of the source, found {', '.join(names[:5]) or 'nothing'}")


def is_url(source: str) -> bool:
    return urllib.parse.urlsplit(source).scheme in ("http", "https")
