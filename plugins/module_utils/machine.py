# Copyright (c) 2026 The ocrfleet.gpu_stack contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""What a machine is and has, as far as the stack needs to know. Standard library only; nothing is changed."""

from __future__ import annotations

import os
import pwd
import re
import shutil
import sys

from ansible_collections.ocrfleet.gpu_stack.plugins.module_utils import commands

PROBE_SECONDS = 20.0
# Beside a prefix that is being made, not in it: the tools that make one want to make the folder themselves.
BEGUN = ".ocrfleet-begun"

# An interpreter that answers at all answers at once.
_PYTHON_SECONDS = 10.0


def os_release(path: str = "/etc/os-release") -> dict[str, str]:
    """The fields of os-release(5), without quotes."""
    fields = {}
    try:
        with open(path, encoding="utf-8") as file:
            for line in file:
                key, separator, value = line.strip().partition("=")
                if separator:
                    fields[key] = value.strip("\"'")
    except OSError:
        pass
    return fields


def distribution() -> str:
    """`ID-VERSION_ID` of os-release, such as `debian-12`."""
    release = os_release()
    return f"{release.get('ID', 'unknown')}-{release.get('VERSION_ID', '')}".rstrip("-")


def platform_of(distribution: str, platforms: dict) -> str | None:
    """The key of `platforms` that a distribution belongs to: `rocky-9.4` is `rocky-9`."""
    return next((name for name in platforms if distribution == name or distribution.startswith(name + ".")), None)


def existing_parent(path: str) -> str:
    """The nearest folder at or above `path` that exists."""
    while not os.path.isdir(path) and path != os.path.dirname(path):
        path = os.path.dirname(path)
    return path


def free_gb(path: str) -> float:
    """Free space for ordinary users, in 10^9 bytes, where `path` is or would be."""
    return shutil.disk_usage(existing_parent(path)).free / 1e9


def memory_gb(meminfo: str = "/proc/meminfo") -> float | None:
    """Total memory in 10^9 bytes."""
    try:
        with open(meminfo, encoding="ascii") as file:
            kib = re.search(r"^MemTotal:\s+(\d+) kB", file.read(), re.MULTILINE)
    except OSError:
        return None
    return int(kib[1]) * 1024 / 1e9 if kib else None


def missing_packages(names: list[str]) -> list[str]:
    """Those of the system's packages `names` that are not installed, asked of dpkg or rpm."""
    if not names:
        return []
    if shutil.which("dpkg-query"):
        command = ["dpkg-query", "--show", "--showformat", "${Package} ${db:Status-Status}\n", *names]
        lines = commands.run(command, timeout=PROBE_SECONDS).stdout.splitlines()
        present = {line.split()[0] for line in lines if line.endswith(" installed")}
        return [name for name in names if name not in present]
    return [name for name in names if not commands.run(["rpm", "--query", name], timeout=PROBE_SECONDS).ok]


def python_version(python: str) -> str | None:
    """`major.minor` of an interpreter, or None when it does not run."""
    code = "import sys; print('%d.%d' % sys.version_info[:2])"
    result = commands.run([python, "-I", "-S", "-c", code], timeout=_PYTHON_SECONDS)
    return result.stdout.strip() if result.ok else None


def find_python(wanted: str) -> str | None:
    """A path of an interpreter of version `wanted` (`3.11`), or `wanted` itself when it is a path that runs."""
    if os.sep in wanted:
        return wanted if python_version(wanted) else None
    for name in (f"python{wanted}", "python3", sys.executable):
        found = shutil.which(name)
        if found and python_version(found) == wanted:
            return found
    return None


def uv_version(binary: str) -> str:
    """The version that a uv binary says, or an empty text when it does not run."""
    result = commands.run([binary, "--version"], timeout=_PYTHON_SECONDS)
    return result.stdout.split()[1] if result.ok and len(result.stdout.split()) > 1 else ""


def environment_state(prefix: str) -> dict:
    """`state` (absent, empty, partial, environment or foreign), `kind`, `python` and `owner` of a prefix."""
    if not os.path.lexists(prefix):
        return {"state": "absent", "kind": None, "python": None, "owner": None}
    owner = _owner(prefix)
    if not os.path.isdir(prefix):
        return {"state": "foreign", "kind": None, "python": None, "owner": owner}
    entries = os.listdir(prefix)
    kind = "conda" if "conda-meta" in entries else "venv" if "pyvenv.cfg" in entries else None
    python = os.path.join(prefix, "bin", "python")
    version = python_version(python) if os.path.exists(python) else None
    if os.path.exists(f"{prefix}{BEGUN}") and kind:
        state = "partial"  # what a killed run left may answer
    elif version:
        state = "environment"
    elif not entries:
        state = "empty"
    elif kind:
        state = "partial"
    else:
        state = "foreign"
    return {"state": state, "kind": kind, "python": version, "owner": owner}


def _owner(path: str) -> str:
    uid = os.lstat(path).st_uid
    try:
        return pwd.getpwuid(uid).pw_name
    except KeyError:
        return str(uid)
