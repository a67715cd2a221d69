# Copyright (c) 2026 The ocrfleet.gpu_stack contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""One module or one play run by Ansible on this machine: `ad_hoc.run("cuda_link", {"target": "/x"})`."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

ROOT = Path(__file__).parents[2]


def _ended(
    command: list[str | Path], variables: dict[str, str] | None, folder: Path | None = None
) -> subprocess.CompletedProcess[str]:
    environment = {
        **os.environ,
        **(variables or {}),
        "ANSIBLE_CONFIG": str(ROOT / "ansible.cfg"),
        "ANSIBLE_COLLECTIONS_PATH": str(ROOT / "collections"),
    }
    return subprocess.run(
        command, cwd=folder, env=environment, capture_output=True, text=True, timeout=300, check=False
    )


def play(folder: Path, *arguments: str | Path, variables: dict[str, str] | None = None) -> tuple[int, str]:
    """What `ansible-playbook` with these arguments, started in `folder`, ended with and said."""
    done = _ended([Path(sys.executable).with_name("ansible-playbook"), *arguments], variables, folder)
    return done.returncode, done.stdout + done.stderr


def run(
    module: str, arguments: dict[str, Any], *options: str, variables: dict[str, str] | None = None
) -> dict[str, Any]:
    """What the module returned. Options are of the command `ansible`."""
    command: list[str | Path] = [Path(sys.executable).with_name("ansible"), "vm", "-i", "vm,", "-c", "local", "-o"]
    command += ["-e", json.dumps({"ansible_python_interpreter": sys.executable}), *options]
    command += ["-m", f"ocrfleet.gpu_stack.{module}", "-a", json.dumps(arguments)]
    done = _ended(command, variables)
    assert "=> {" in done.stdout, done.stdout + done.stderr
    return dict(json.loads("{" + done.stdout.partition("=> {")[2]))
