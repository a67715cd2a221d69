# Copyright (c) 2026 The ocrfleet.gpu_stack contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Run a command with a time limit and the C locale."""

from __future__ import annotations

import os
import signal
import subprocess
import time
from dataclasses import dataclass


@dataclass(frozen=True)
class Result:
    """What a command did. `rc` is negative when a signal ended it, 127 when it could not be started."""

    argv: list[str]
    rc: int
    stdout: str
    stderr: str
    seconds: float
    timed_out: bool = False

    @property
    def ok(self) -> bool:
        return self.rc == 0 and not self.timed_out

    def outcome(self, lines: int = 15) -> str:
        """One text for an error message: how it ended, and the last lines of what it said."""
        if self.timed_out:
            how = f"did not end within {self.seconds:.0f} s"
        elif self.rc < 0:
            how = f"was ended by signal {-self.rc}"
        else:
            how = f"ended with exit code {self.rc}"
        said = [line for line in (self.stderr.strip() or self.stdout.strip()).splitlines() if line.strip()]
        return "\n".join([f"{self.argv[0]} {how}", *said[-lines:]])


def run(
    argv: list[str],
    *,
    timeout: float,
    env: dict[str, str] | None = None,
    cwd: str | None = None,
    stdin: str = "",
    stdin_path: str = "",
    pass_fds: tuple[int, ...] = (),
    stderr_log: str = "",
) -> Result:
    """Run `argv` for at most `timeout` seconds, `env` added to this process's environment.

    With `stdin_path` that file, of any bytes, is standard input. With `stderr_log` standard error goes to that file, so
    that others can follow it, and is read back at the end.

    The command leads a process group of its own, which is killed whole at the time limit: installers start children,
    and a child left behind would go on changing the environment.
    """
    started = time.monotonic()
    log = open(stderr_log, "a+", encoding="utf-8", errors="replace") if stderr_log else None  # noqa: SIM115
    source = None
    try:
        source = open(stdin_path, "rb") if stdin_path else None  # noqa: SIM115
        process = subprocess.Popen(
            argv,
            stdin=source or subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=log or subprocess.PIPE,
            env={**os.environ, "LC_ALL": "C", **(env or {})},
            cwd=cwd,
            text=True,
            errors="replace",
            start_new_session=True,
            pass_fds=pass_fds,
        )
        timed_out, stdout, stderr = _wait(process, stdin, timeout)
        if log:
            log.seek(0)
            stderr = log.read()
    except OSError as error:
        return Result(argv, 127, "", f"cannot start {argv[0]}: {error.strerror}", time.monotonic() - started)
    finally:
        for file in (log, source):
            if file:
                file.close()
    rc = -signal.SIGKILL if process.returncode is None else process.returncode
    return Result(argv, rc, stdout, stderr, time.monotonic() - started, timed_out)


# What is killed may not end: a call into a driver that hangs, or a child in a session of its own that holds the pipe.
_LAST_SECONDS = 5


def _wait(process: subprocess.Popen, stdin: str, timeout: float) -> tuple[bool, str, str]:
    """Whether the time limit was hit, and what the process said."""
    try:
        return False, *process.communicate(stdin, timeout=timeout)
    except subprocess.TimeoutExpired:
        os.killpg(process.pid, signal.SIGKILL)
        try:
            return True, *process.communicate(timeout=_LAST_SECONDS)
        except subprocess.TimeoutExpired:
            return True, "", ""
    except BaseException:
        os.killpg(process.pid, signal.SIGKILL)
        process.wait()
        raise
