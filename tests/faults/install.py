# Copyright (c) 2026 The ocrfleet.gpu_stack contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Install a requirement as the collection does: in the stage, by uv, holding the lock that uv inherits."""

from __future__ import annotations

import argparse
import os
import sys
import time

import conda_shape
from ansible_collections.ocrfleet.gpu_stack.plugins.module_utils import journal, staging


def main() -> int:
    parser = argparse.ArgumentParser()
    for name in ("environment", "candidate", "state-dir", "uv"):
        parser.add_argument(f"--{name}", required=True)
    parser.add_argument("--pause", type=float, default=0.0)
    parser.add_argument("requirement")
    asked = parser.parse_args()
    stage = staging.Stage(asked.environment, asked.candidate or None)
    index = os.environ.get("FAULTS_INDEX")
    source = ["--index-url", index, "--no-cache"] if index else ["--offline"]
    argv = [asked.uv, "pip", "install", "--python", stage.python, "--no-deps", *source, asked.requirement]
    with journal.work_lock(asked.state_dir) as descriptors:
        time.sleep(asked.pause)
        result = stage.run(argv, timeout=120, pass_fds=descriptors)
        if conda_shape.is_conda(stage.tree):
            writes = ["sh", "-eu", "-c", conda_shape.WRITES, "conda", asked.environment]
            result = result if not result.ok else stage.run(writes, timeout=120, pass_fds=descriptors)
    sys.stderr.write(result.stderr)
    return 0 if result.ok else 1


if __name__ == "__main__":
    sys.exit(main())
