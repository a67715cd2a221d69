# Copyright (c) 2026 The ocrfleet.gpu_stack contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Run commands with a candidate tree lying at the environment's own path.

Console scripts, compiled paths and `pyvenv.cfg` hold the prefix they were installed under. A candidate that is to take
the environment's place must therefore be changed and checked *at that place*, while services go on with the live tree.
A private mount namespace gives just that: inside it the candidate is bound over the environment; outside nothing moves.
"""

from __future__ import annotations

import os
from dataclasses import dataclass, replace

from ansible_collections.ocrfleet.gpu_stack.plugins.module_utils import commands

# The positional parameters are: candidate, environment, then the command. No path is ever part of the program text.
_BIND = 'mount --bind -- "$1" "$2" && shift 2 && exec "$@"'
_BIND_READ_ONLY = 'mount --bind -- "$1" "$2" && mount -o remount,bind,ro -- "$2" && shift 2 && exec "$@"'


@dataclass(frozen=True)
class Stage:
    """An environment, and the candidate that stands in for it (None: commands see the live tree)."""

    environment: str
    candidate: str | None = None
    read_only: bool = False  # with a candidate: commands can read the environment, and write nothing into it

    @property
    def tree(self) -> str:
        """Where the files that commands see really are, for reading them from outside the namespace."""
        return self.candidate or self.environment

    def guarded(self) -> Stage:
        """The same for commands that must write nothing into it: `read_only`, where a mount namespace can be had."""
        return replace(self, candidate=self.tree, read_only=True) if unavailable() is None else self

    @property
    def python(self) -> str:
        """The environment's interpreter, by the path that is right inside the stage."""
        return os.path.join(self.environment, "bin", "python")

    def argv(self, argv: list[str]) -> list[str]:
        """The command line that runs `argv` inside the stage."""
        if self.candidate is None:
            return argv
        namespace = ["--mount", "--propagation", "private"]
        if os.geteuid() != 0:
            namespace = ["--user", "--map-root-user", *namespace]
        bind = _BIND_READ_ONLY if self.read_only else _BIND
        return ["unshare", *namespace, "--", "sh", "-c", bind, "stage", self.candidate, self.environment, *argv]

    def run(
        self,
        argv: list[str],
        *,
        timeout: float,
        env: dict[str, str] | None = None,
        cwd: str | None = None,
        stdin: str = "",
        pass_fds: tuple[int, ...] = (),
        stderr_log: str = "",
    ) -> commands.Result:
        """Run `argv` inside the stage; the environment's `bin` is first on PATH, as after an activation."""
        path = os.pathsep.join([os.path.join(self.environment, "bin"), os.environ.get("PATH", os.defpath)])
        result = commands.run(
            self.argv(argv),
            timeout=timeout,
            env={"PATH": path, **(env or {})},
            cwd=cwd,
            stdin=stdin,
            pass_fds=pass_fds,
            stderr_log=stderr_log,
        )
        # The command is what failed, not what brought it to its place; that one says so itself.
        return replace(result, argv=argv) if result.rc != 127 else result


def unavailable(timeout: float = 20) -> str | None:
    """Why no mount namespace can be had here, or None when one can (tried for real: kernels and sandboxes differ)."""
    # Any two folders will do, and these are on every Linux.
    result = Stage("/mnt", "/usr").run(["true"], timeout=timeout)
    return None if result.ok else result.outcome(lines=3)
