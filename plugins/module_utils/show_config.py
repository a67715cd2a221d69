# Copyright (c) 2026 The ocrfleet.gpu_stack contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""What `flashinfer show-config` says about an installation.

It prints the installation's versions first and then asks NVIDIA's file server, which without internet takes 40 to 65
seconds of retries and may end in a traceback. So its output is read while it runs, and it is ended once the versions
are out.
"""

from __future__ import annotations

import contextlib
import os
import re
import signal
import subprocess
import time
from dataclasses import dataclass, field

from ansible_collections.ocrfleet.gpu_stack.plugins.module_utils.staging import Stage

_COLOURS = re.compile(r"\x1b\[[0-9;]*m")
# The section that follows the versions, in FlashInfer 0.3.1 to 0.7.2.
_NEXT_SECTION = "=== Artifact Path"


@dataclass
class ShowConfig:
    """The lines of interest, by lower-case key, and how the command ended."""

    values: dict[str, str] = field(default_factory=dict)
    outcome: str = ""
    seconds: float = 0.0


def parse(text: str) -> dict[str, str]:
    """The `key: value` lines of the output, keys in lower case."""
    values = {}
    for line in _COLOURS.sub("", text).split(_NEXT_SECTION, 1)[0].splitlines():
        key, colon, value = line.partition(": ")
        if colon and value.strip():
            values[key.strip().lower()] = value.strip()
    return values


def lacks_nvcc(outcome: str) -> bool:
    """Whether the command ended for want of an nvcc: 0.3.1 says nothing without one, newer ones go on."""
    return bool(re.search(r"Could not find nvcc|No such file or directory: '[^']*/bin/nvcc'", outcome))


def _read(path: str) -> str:
    with open(path, encoding="utf-8", errors="replace") as file:
        return file.read()


def ask(stage: Stage, folder: str, env: dict[str, str], timeout: float, argv: list[str] | None = None) -> ShowConfig:
    """Run `show-config` for at most `timeout` seconds, its output under `folder`.

    FlashInfer 0.3.1 has no console script; `python -m flashinfer` works for every version.
    """
    stdout, stderr = os.path.join(folder, "show-config.out"), os.path.join(folder, "show-config.err")
    path = os.pathsep.join([os.path.join(stage.environment, "bin"), os.environ.get("PATH", os.defpath)])
    started = time.monotonic()
    with open(stdout, "wb") as out, open(stderr, "wb") as err:
        process = subprocess.Popen(
            stage.argv(argv or [stage.python, "-m", "flashinfer", "show-config"]),
            stdin=subprocess.DEVNULL,
            stdout=out,
            stderr=err,
            cwd=folder,
            env={**os.environ, "LC_ALL": "C", "PATH": path, "PYTHONUNBUFFERED": "1", **env},
            start_new_session=True,
        )
    outcome = ""
    try:
        while process.poll() is None:
            if _NEXT_SECTION in _read(stdout):
                outcome = "answered"
                break
            if time.monotonic() - started > timeout:
                outcome = f"did not answer within {timeout:.0f} s"
                break
            time.sleep(0.1)
    finally:
        if process.poll() is None:
            os.killpg(process.pid, signal.SIGKILL)
        with contextlib.suppress(subprocess.TimeoutExpired):
            process.wait(timeout=5)  # what hangs in a driver does not end
    if not outcome:
        said = [line for line in _COLOURS.sub("", _read(stderr)).splitlines() if line.strip()]
        outcome = f"ended with exit code {process.returncode}" + (f": {said[-1].strip()}" if said else "")
    return ShowConfig(parse(_read(stdout)), outcome, round(time.monotonic() - started, 2))
