# Copyright (c) 2026 The ocrfleet.gpu_stack contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Say of each requirement whether it applies to the Python that runs this file, and whether what is installed meets it.

The environment's own Python runs this file as a program: markers such as `python_version < "3.12"` are about that
Python, and `packaging`, which reads them, is there (PyTorch's and vllm's dependencies bring it) or comes with pip.

The arguments are JSON: a list of requirements, or the path of a `pyproject.toml` whose build requirements are meant;
and the versions, by canonical name, of packages that will be there besides.
Prints JSON: a list with `requirement`, `name`, `applies`, `installed` (a version or null) and `satisfied`.
"""

from __future__ import annotations

import contextlib
import importlib.metadata
import json
import re
import sys
from typing import Any

# Neither need be there where this file is only read, to be run elsewhere.
Requirement: Any = None
with contextlib.suppress(ImportError):
    from pip._vendor.packaging.requirements import Requirement
with contextlib.suppress(ImportError):
    from packaging.requirements import Requirement


def _build_requirements(path: str) -> list[str]:
    try:
        import tomllib
    except ImportError:  # before Python 3.11
        from pip._vendor import tomli as tomllib  # type: ignore[no-redef]
    with open(path, "rb") as file:
        # What is meant by no [build-system] table: PEP 517.
        return tomllib.load(file).get("build-system", {}).get("requires", ["setuptools", "wheel"])


def judge(text: str, coming: dict) -> dict:
    requirement = Requirement(text)
    installed = coming.get(re.sub(r"[-_.]+", "-", requirement.name).lower())
    if installed is None:
        with contextlib.suppress(importlib.metadata.PackageNotFoundError):
            installed = importlib.metadata.version(requirement.name)
    return {
        "requirement": text,
        "name": requirement.name,
        "applies": requirement.marker is None or requirement.marker.evaluate({"extra": ""}),
        "installed": installed,
        "satisfied": installed is not None and requirement.specifier.contains(installed, prereleases=True),
    }


if __name__ == "__main__":
    if Requirement is None:
        raise SystemExit(f"expected packaging or pip in {sys.prefix}, found neither; install packaging there")
    given = json.loads(sys.argv[1])
    requirements = _build_requirements(given) if isinstance(given, str) else given
    json.dump([judge(text, json.loads(sys.argv[2])) for text in requirements], sys.stdout)
