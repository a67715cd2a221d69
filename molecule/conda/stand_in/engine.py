# Copyright (c) 2026 The ocrfleet.gpu_stack contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""A stand-in for the program conda: a small part of its command line. py-rattler does the real work."""

from __future__ import annotations

import argparse
import asyncio
import json
import os
import re
import shutil
import sys
from pathlib import Path

import rattler

ROOT = Path(sys.prefix)


def settings() -> dict[str, list[str]]:
    """Lists out of .condarc: the installation's, then the user's, then the active environment's."""
    found: dict[str, list[str]] = {"channels": [], "envs_dirs": []}
    for folder in (ROOT, Path.home(), Path(os.environ.get("CONDA_PREFIX", "/nonexistent"))):
        try:
            lines = (folder / ".condarc").read_text().splitlines()
        except OSError:
            continue
        key = ""
        for line in lines:
            if match := re.match(r"(\w+):\s*(?:\[(.*)\])?$", line):
                key = match[1]
                found[key] = [part.strip() for part in (match[2] or "").split(",") if part.strip()]
            elif match := re.match(r"\s+-\s+(.*)$", line):
                found[key].append(match[1].strip('"'))
    return found


def envs_dirs() -> list[str]:
    own = [str(ROOT / "envs"), str(Path.home() / ".conda/envs")]
    named = settings()["envs_dirs"]
    return [*named, *(folder for folder in own if folder not in named)]


def locate(name: str) -> Path:
    if name == "base":
        return ROOT
    if "/" in name:
        return Path(name)
    for folder in envs_dirs():
        if (Path(folder) / name / "conda-meta").is_dir():
            return Path(folder) / name
    raise SystemExit(f"EnvironmentNameNotFound: Could not find conda environment: {name}")


def prefix_of(options: argparse.Namespace) -> Path:
    return Path(options.prefix) if options.prefix else Path(envs_dirs()[0]) / options.name


def installed(prefix: Path) -> list[rattler.PrefixRecord]:
    return [rattler.PrefixRecord.from_path(path) for path in sorted((prefix / "conda-meta").glob("*.json"))]


async def create(prefix: Path, channels: list[str], specs: list[str]) -> None:
    records = await rattler.solve(channels, specs, platforms=["linux-64", "noarch"])
    if prefix.exists():
        shutil.rmtree(prefix)
    cache = ROOT / "pkgs" if os.access(ROOT / "pkgs", os.W_OK) else Path.home() / ".conda/pkgs"
    await rattler.install(records, prefix, cache_dir=cache, show_progress=False)
    with open(prefix / "conda-meta/history", "a", encoding="utf-8") as history:
        history.write(f"==> now <==\n# cmd: {' '.join(sys.argv)}\n# conda version: 26.3.2\n")


def export(prefix: Path) -> str:
    records = installed(prefix)
    channels = sorted({str(record.channel) for record in records})
    lines = [f"name: {prefix.name}", "channels:", *(f"  - {channel}" for channel in channels), "dependencies:"]
    lines += [f"  - {record.name.normalized}={record.version}={record.build}" for record in records]
    return "\n".join([*lines, f"prefix: {prefix}", ""])


def listed(text: str, key: str) -> list[str]:
    block = re.search(rf"^{key}:\n((?:  - .*\n)*)", text, re.MULTILINE)
    return re.findall(r"  - (.*)", block[1]) if block else []


def main() -> None:
    parser = argparse.ArgumentParser(prog="conda")
    parser.add_argument("--version", action="version", version="conda 26.3.2")
    commands = parser.add_subparsers(dest="command", required=True)
    commands.add_parser("info").add_argument("--json", action="store_true")
    commands.add_parser("locate").add_argument("which")
    made = commands.add_parser("create")
    made.add_argument("--yes", action="store_true")
    made.add_argument("--override-channels", action="store_true")
    made.add_argument("--channel", action="append", default=[])
    made.add_argument("specs", nargs="*")
    env = commands.add_parser("env").add_subparsers(dest="action", required=True)
    exported, again = env.add_parser("export"), env.add_parser("create")
    again.add_argument("--file", required=True)
    for one in (made, exported, again):
        one.add_argument("--prefix", "-p")
        one.add_argument("--name", "-n")
    options = parser.parse_args()
    if options.command == "info":
        json.dump({"conda_version": "26.3.2", "root_prefix": str(ROOT), "envs_dirs": envs_dirs()}, sys.stdout)
    elif options.command == "locate":
        print(locate(options.which))
    elif options.command == "create":
        known = [] if options.override_channels else settings()["channels"]
        asyncio.run(create(prefix_of(options), [*options.channel, *known], options.specs))
    elif options.action == "export":
        print(export(Path(options.prefix) if options.prefix else locate(options.name)), end="")
    else:
        text = Path(options.file).read_text()
        # conda writes NAME=VERSION=BUILD, py-rattler reads NAME ==VERSION BUILD.
        pins = ["{} =={} {}".format(*line.split("=")) for line in listed(text, "dependencies")]
        asyncio.run(create(prefix_of(options), listed(text, "channels"), pins))


main()
# py-rattler's threads may still run when the interpreter takes itself apart, and then it crashes: 11 times of 40.
sys.stdout.flush()
os._exit(0)
