# Copyright (c) 2026 The ocrfleet.gpu_stack contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Build a wheel against what an environment holds, with the machine's memory in mind."""

from __future__ import annotations

import glob
import os
from collections.abc import Callable, Mapping

from ansible_collections.ocrfleet.gpu_stack.plugins.module_utils import (
    commands,
    flashinfer_install,
    needs,
)
from ansible_collections.ocrfleet.gpu_stack.plugins.module_utils.source_tree import Refused
from ansible_collections.ocrfleet.gpu_stack.plugins.module_utils.staging import Stage


def toolchain(
    cuda: str,
    home: str,
    tree: str,
    variables: Mapping[str, str],
    run: Callable[..., commands.Result] = commands.run,
) -> list[str]:
    """What compiling FlashInfer's kernels would miss here, all of it; nvcc must be of the version `cuda`."""
    path = flashinfer_install.search_path(tree, variables)
    where = (home, "cuda_home") if home else flashinfer_install.cuda_home(variables, path)
    found = flashinfer_install.compiler(where, tree, path, variables, cuda, 30, run)
    missing = list(found["missing"])
    if found["nvcc_version"] and found["nvcc_version"] != cuda:
        missing.append(
            f"nvcc {cuda}: found {found['nvcc_version']} at {found['nvcc']}; install the CUDA {cuda} toolkit, or set "
            "flashinfer_cuda_home to it"
        )
    return missing


def build(uv: str, environment: str, source: str, dest: str, home: str, timeout: float) -> tuple[str, int, bool]:
    """Build the tree at `source` without build isolation; returns the wheel, the number of jobs, and `shielded`.

    A build runs the source's own code. Shielded, the environment is read-only meanwhile; where no mount namespace can
    be had it is not.
    """
    stage = Stage(environment).guarded()
    lacking = [need for need in needs.read(stage, os.path.join(source, "pyproject.toml")) if not need.status]
    if lacking:
        listed = ", ".join(f"{need.requirement} (found {need.installed or 'none'})" for need in lacking)
        raise Refused(
            f"the source's build asks for what the environment does not have: {listed}. It is built against what is "
            "installed; take a release that builds with that, or install it there first"
        )
    bound = flashinfer_install.max_jobs()
    env = {**bound, "PYTHONDONTWRITEBYTECODE": "1"}
    if home:
        env["CUDA_HOME"] = home
    command = [uv, "build", "--wheel", "--no-build-isolation", "--python", stage.python, "--out-dir", dest, source]
    result = stage.run(command, timeout=timeout, env=env, cwd=dest)
    wheels = glob.glob(os.path.join(glob.escape(dest), "*.whl"))
    if not result.ok or len(wheels) != 1:
        raise Refused(f"the source does not build: {result.outcome()}")
    return wheels[0], int(bound["MAX_JOBS"]), stage.read_only
