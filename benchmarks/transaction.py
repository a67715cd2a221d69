# Copyright (c) 2026 The ocrfleet.gpu_stack contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Measure the transaction on a copy of a real environment, beside the ways back that people use by hand.

Prints one table, with the command or the module action behind each figure. The environment itself is only read. The
figures are of one run: repeat it, on an idle machine, before leaning on a difference.
"""

from __future__ import annotations

import argparse
import os
import re
import shlex
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

REPOSITORY = Path(__file__).parents[1]
sys.path.insert(0, str(REPOSITORY / "collections"))

from ansible_collections.ocrfleet.gpu_stack.plugins.module_utils import (  # noqa: E402 - found through the path above
    clone,
    commands,
    exchange,
    transaction,
)

WATCH = """
import os, sys
path, samples, missing = sys.argv[1], 0, 0
os.nice(19)  # what is measured has the processors first
print("watching", flush=True)
os.set_blocking(0, False)
while True:
    try:
        os.stat(path)
    except OSError:
        missing += 1
    samples += 1
    if samples % 100 == 0:
        try:
            if os.read(0, 1) == b"":
                break
        except BlockingIOError:
            pass
print(samples, missing)
"""


class Table:
    """Rows of what, seconds, and how; printed as they come, for runs that are cut short."""

    def __init__(self) -> None:
        print(f"{'what':44} {'seconds':>9}  how")

    def add(self, what: str, seconds: float | None, how: str) -> None:
        print(f"{what:44} {'-' if seconds is None else format(seconds, '9.3f'):>9}  {how}", flush=True)

    def command(self, what: str, argv: list[str], env: dict[str, str] | None = None) -> None:
        result = commands.run(argv, timeout=3600, env=env)
        self.add(what, result.seconds, shlex.join(argv) if result.ok else f"FAILED: {result.outcome(lines=2)}")


def timed(work: Callable[[], Any]) -> tuple[float, Any]:
    started = time.monotonic()
    result = work()
    return time.monotonic() - started, result


def timer(module: Any, name: str, spent: dict[str, float]) -> None:
    """Count the seconds that a function of the product takes."""
    original = getattr(module, name)

    def measured(*arguments: Any, **named: Any) -> Any:
        seconds, result = timed(lambda: original(*arguments, **named))
        spent[name] = spent.get(name, 0.0) + seconds
        return result

    setattr(module, name, measured)


def by_hand(table: Table, tree: Path, uv: str, limit: str, cache: str, index_env: dict[str, str]) -> None:
    """The ways back without a kept tree: reinstall what the frozen list names."""
    python = str(tree / "bin" / "python")
    frozen = commands.run([uv, "pip", "freeze", "--python", python], timeout=120).stdout.splitlines()
    lists = {"all": [line for line in frozen if "==" in line]}
    lists["part"] = [line for line in lists["all"] if re.match(limit, line)]
    for name, lines in lists.items():
        (tree.parent / f"{name}.txt").write_text("\n".join([*lines, ""]))
    part = str(tree.parent / "part.txt")
    whole = str(tree.parent / "all.txt")
    reinstall = ["install", "--force-reinstall", "--no-deps", "--quiet", "--requirement"]
    table.command(
        f"pip --force-reinstall, {len(lists['part'])} of {len(lists['all'])} packages",
        [sys.executable, "-m", "pip", "--disable-pip-version-check", "--python", python, *reinstall, part],
        index_env,
    )
    offline = [uv, "pip", "install", "--quiet", "--python", python, "--no-deps", "--reinstall", "--offline"]
    table.command(
        f"uv --reinstall --offline, {len(lists['all'])} packages",
        [*offline, "--requirement", whole],
        {"UV_CACHE_DIR": cache} if cache else None,
    )


def measure(environment: Path, folder: Path, uv: str, limit: str, cache: str) -> None:
    tree = folder / "environment"
    table = Table()
    table.command("cp -a of the environment", ["cp", "-a", "--", str(environment), str(tree)])
    seconds, _ = timed(lambda: exchange.sync_filesystem(str(folder)))
    table.add("  the same, on disk", seconds, "syncfs")

    spent: dict[str, float] = {}
    timer(clone, "make", spent)
    timer(exchange, "exchange", spent)
    owner = {"controller": "benchmark", "boot": "", "pid": os.getpid(), "started": "", "host": "benchmark"}

    def act(deep: bool = False) -> transaction.Transaction:
        settings: dict[str, Any] = {
            "environment": str(tree),
            "owner": owner,
            "export_dir": str(folder),
            "uv": uv,
            "deep": deep,
        }
        return transaction.Transaction(transaction.Options(**settings), print)

    seconds, _ = timed(act().begin)
    table.add("freeze", seconds - spent["make"], "action: begin, without the clone")
    table.add(f"clone ({act().describe()['clone']})", spent["make"], "action: begin, the clone")
    spent.clear()
    argv = [sys.executable, "-c", WATCH, str(tree / "pyvenv.cfg" if (tree / "pyvenv.cfg").exists() else tree / "bin")]
    watcher = subprocess.Popen(argv, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
    assert watcher.stdout is not None
    watcher.stdout.readline()
    seconds, _ = timed(act().promote)
    table.add("promote", seconds, "action: promote, with RECORD, leak check, syncfs")
    table.add("  the exchange in it", spent["exchange"], "renameat2(RENAME_EXCHANGE)")
    seconds, (_, proof) = timed(act().restore)
    said, _ = watcher.communicate()
    samples, missing = said.split()
    told = f"{proof['checked_files']} files, equal: {proof['equal']}"
    table.add("restore with its proof", proof["seconds"], f"action: restore, up to the verdict; {told}")
    table.add("  and until the replaced tree is removed", seconds, "action: restore, the whole call")
    table.add("path missing during promote and restore", None, f"{missing} of {samples} samples of a watcher")
    seconds, proof = timed(act().prove)
    table.add("prove, by sizes and times", seconds, f"action: prove; equal: {proof['equal']}")
    seconds, proof = timed(act(deep=True).prove)
    table.add("prove, every recorded hash", seconds, f"action: prove, deep: true; equal: {proof['equal']}")
    by_hand(table, tree, uv, limit, cache, {"PYTHONDONTWRITEBYTECODE": "1"})


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("environment", type=Path)
    parser.add_argument("--work", type=Path, help="folder for the copy, on the environment's filesystem; removed after")
    parser.add_argument("--uv", default=str(Path(sys.executable).parent / "uv"))
    parser.add_argument(
        "--limit",
        default=r"(torch|torchvision|torchaudio|triton|nvidia-[\w-]+)==",
        help="pattern of the packages that pip reinstalls; all of them take tens of minutes",
    )
    parser.add_argument("--cache", default="", help="uv's cache, where the packages are; without it uv's own")
    asked = parser.parse_args()
    folder = Path(tempfile.mkdtemp(prefix="transaction-benchmark-", dir=asked.work or asked.environment.parent))
    try:
        measure(asked.environment, folder, asked.uv, asked.limit, asked.cache)
    finally:
        shutil.rmtree(folder)
    return 0


if __name__ == "__main__":
    sys.exit(main())
