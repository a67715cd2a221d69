# Copyright (c) 2026 The ocrfleet.gpu_stack contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Time `fi_method=pypi` on a prepared environment beside the same by hand with pip, in turns, from warm caches.

ENVIRONMENT is the stack without FlashInfer, and is only read: each run gets a hard-linked copy of it. The first turn
warms the caches and is not counted. By hand means what an operator types: the list of packages saved, pip's two
installations, and the checks one by one; nothing of it is staged, proven, or taken back. Printed are all times, and
what either way did to the packages.
"""

from __future__ import annotations

import argparse
import importlib.metadata
import os
import shlex
import shutil
import statistics
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path

REPOSITORY = Path(__file__).parents[1]
sys.path[:0] = [str(REPOSITORY / "collections"), str(REPOSITORY / "tools")]

import index_environment  # noqa: E402 - found through the path above
from ansible_collections.ocrfleet.gpu_stack.plugins.module_utils import commands, cuda_guard  # noqa: E402

LIMIT = 1800.0  # seconds, for one command
JIT_CACHE = "https://flashinfer.ai/whl/cu128"
CHECKS = {
    "check torch": "import torch; print(torch.__version__, torch.version.cuda, torch.cuda.is_available())",
    "check OlmOCR": "import olmocr.pipeline",
    "check FlashInfer": "import flashinfer; print(flashinfer.__version__)",
}


@dataclass
class Turn:
    """One way, gone once: the seconds of each step, what it said where it failed, and the packages after it."""

    seconds: dict[str, float] = field(default_factory=dict)
    failed: dict[str, str] = field(default_factory=dict)
    packages: dict[str, str] = field(default_factory=dict)

    def step(self, name: str, argv: list[str], env: dict[str, str], cwd: Path) -> None:
        result = commands.run(argv, timeout=LIMIT, env=env, cwd=str(cwd))
        self.seconds[name] = result.seconds
        if not result.ok:
            self.failed[name] = result.outcome(lines=1).replace("\n", ": ")


def packages(tree: Path) -> dict[str, str]:
    """Name and version of what is installed."""
    found = importlib.metadata.distributions(path=[str(path) for path in tree.glob("lib/python3*/site-packages")])
    return {distribution.metadata["Name"].lower(): distribution.version for distribution in found}


@contextmanager
def copy_of(environment: Path, work: Path) -> Iterator[Path]:
    """A prepared environment in a folder of its own. uv and pip replace files, so what is linked stays as it is."""
    folder = Path(tempfile.mkdtemp(prefix="methods-benchmark-", dir=work))
    tree = folder / "envs" / "olmocr-optimized"
    tree.parent.mkdir()
    try:
        subprocess.run(["cp", "-al", "--", str(environment), str(tree)], check=True)
        # Written in place by nobody here, and never through a link.
        subprocess.run(["cp", "--remove-destination", "--", str(environment / "pyvenv.cfg"), str(tree)], check=True)
        yield tree
    finally:
        shutil.rmtree(folder)


def by_playbook(tree: Path, cache: str) -> Turn:
    """playbooks/flashinfer.yml: plan, freeze, candidate, installation, checks, exchange, proof, report."""
    folder = tree.parents[1]
    settings = {
        "stack_root": folder,
        "stack_environment": tree,
        "stack_uv": Path(sys.executable).parent / "uv",
        "stack_cache": cache or folder / "cache",
        "flashinfer_export_dir": folder,
        "report_dir": folder / "reports",
    }
    argv = ["ansible-playbook", "playbooks/flashinfer.yml", "-e", "fi_method=pypi"]
    for name, value in settings.items():
        argv += ["-e", f"{name}={value}"]
    turn = Turn()
    turn.step("all of it", argv, {"LC_ALL": "C.UTF-8"}, REPOSITORY)  # Ansible takes no other encoding
    turn.packages = packages(tree)
    return turn


def pip_environment() -> dict[str, str]:
    """pip with this machine's index and certificates, and no constraints or further indexes of its own."""
    listing = commands.run([sys.executable, "-m", "pip", "config", "list"], timeout=60).stdout
    given = index_environment.pip_settings(listing)
    known = {"index-url": "PIP_INDEX_URL", "cert": "PIP_CERT", "proxy": "PIP_PROXY"}
    env = {name: "" for name in os.environ if name.startswith("PIP_")}
    env |= {variable: given[option] for option, variable in known.items() if option in given}
    return {**env, "PIP_CONFIG_FILE": os.devnull, "PIP_DISABLE_PIP_VERSION_CHECK": "1"}


def by_hand(tree: Path, pip_cache: Path, env: dict[str, str]) -> Turn:
    """The mission's commands, as they are typed."""
    turn, python, here = Turn(), str(tree / "bin/python"), tree.parents[1]  # OlmOCR writes a log where it is started
    pip = [sys.executable, "-m", "pip", "--python", python]
    install = [*pip, "install", "--quiet", "--cache-dir", str(pip_cache)]
    turn.step("save the list", [*pip, "freeze"], env, here)
    turn.step("pip install", [*install, "flashinfer-python", "flashinfer-cubin"], env, here)
    turn.step("pip install jit-cache", [*install, "flashinfer-jit-cache", "--index-url", JIT_CACHE], env, here)
    home = {"HOME": str(here), "PATH": f"{tree / 'bin'}:{os.environ['PATH']}"}
    for name, program in CHECKS.items():
        turn.step(name, [python, "-c", program], home, here)
    turn.step("check show-config", [python, "-m", "flashinfer", "show-config"], home, here)
    turn.packages = packages(tree)
    return turn


def told(before: dict[str, str], after: dict[str, str]) -> list[str]:
    """What became of the packages."""
    added = [f"{name} {version}" for name, version in sorted(after.items()) if name not in before]
    moved = [f"{name} {old} -> {after.get(name, 'removed')}" for name, old in before.items() if after.get(name) != old]
    foreign = [row for row in added if cuda_guard.major(*row.split(" ", 1)) not in (None, 12)]
    return [
        f"added {len(added)}: {', '.join(added) or 'nothing'}",
        f"changed of the baseline's {len(before)}: {', '.join(sorted(moved)) or 'nothing'}",
        f"for another CUDA than 12: {', '.join(foreign) or 'nothing'}",
    ]


def show(title: str, turns: list[Turn], before: dict[str, str]) -> None:
    print(f"\n{title}")
    steps = list(turns[0].seconds)
    rows = {name: [turn.seconds[name] for turn in turns] for name in steps}
    if len(steps) > 1:
        rows["all of it"] = [sum(turn.seconds.values()) for turn in turns]
    for name, seconds in rows.items():
        each = " ".join(f"{value:7.1f}" for value in seconds)
        failed = turns[-1].failed.get(name)
        print(
            f"  {name:24} median {statistics.median(seconds):7.1f} s  ({each}){'  FAILED: ' + failed if failed else ''}"
        )
    for line in told(before, turns[-1].packages):
        print(f"  {line}")


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("environment", type=Path)
    parser.add_argument("--work", type=Path, help="folder for the copies, on the environment's filesystem")
    parser.add_argument("--cache", default="", help="uv's cache")
    parser.add_argument("--repeat", type=int, default=3)
    asked = parser.parse_args()
    environment = asked.environment.resolve()
    before = packages(environment)
    if "vllm" not in before or "flashinfer-python" in before:
        raise SystemExit(f"expected the stack without FlashInfer at {environment}, found another environment")
    work = asked.work or environment.parent
    turns: dict[str, list[Turn]] = {"by playbook": [], "by hand": []}
    env = pip_environment()
    with tempfile.TemporaryDirectory(prefix="methods-benchmark-pip-", dir=work) as pip_cache:
        for turn in range(asked.repeat + 1):
            with copy_of(environment, work) as tree:
                ours = by_playbook(tree, asked.cache)
            with copy_of(environment, work) as tree:
                hand = by_hand(tree, Path(pip_cache), env)
            if turn:
                turns["by playbook"].append(ours)
                turns["by hand"].append(hand)
            elif ours.failed:
                raise SystemExit(f"the playbook failed: {shlex.join(ours.failed.values())}")
            print(f"turn {turn}: {sum(ours.seconds.values()):.1f} s, {sum(hand.seconds.values()):.1f} s", flush=True)
    show("playbooks/flashinfer.yml, fi_method=pypi", turns["by playbook"], before)
    show("the same by hand, with pip", turns["by hand"], before)
    return 0


if __name__ == "__main__":
    sys.exit(main())
