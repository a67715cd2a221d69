# Copyright (c) 2026 The ocrfleet.gpu_stack contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The three values that say which PyTorch an environment has, and whether they are the expected one.

The package index's own `torch==2.8.0` wheel *is* the CUDA 12.8 build: its metadata says `2.8.0`, `torch.__version__`
says
`2.8.0+cu128` and `torch.version.cuda` says `12.8`. PyTorch's own index labels the metadata as well. Each value alone
can therefore be right while the build is wrong.
"""

from __future__ import annotations

import fnmatch
import json
import os
import re
from collections.abc import Iterable

from ansible_collections.ocrfleet.gpu_stack.plugins.module_utils import distributions
from ansible_collections.ocrfleet.gpu_stack.plugins.module_utils.staging import Stage

try:
    from packaging.specifiers import InvalidSpecifier, SpecifierSet
    from packaging.version import InvalidVersion, Version

    HAS_PACKAGING = True
except ImportError:
    HAS_PACKAGING = False

# PyTorch, what is built for one release of it, and the CUDA libraries that it is linked to; patterns.
FAMILY = ("torch", "torchvision", "torchaudio", "triton", "pytorch-triton", "xformers", "nvidia-*", "cuda-*")

# torch may print warnings of its own to stdout; the marker tells our line from them.
_MARKER = "torch-values:"
_PROBE = f"""
import json, torch
print({_MARKER!r} + json.dumps({{"version": str(torch.__version__), "cuda": torch.version.cuda}}))
"""


def read(stage: Stage, timeout: float) -> dict:
    """Ask the environment: `metadata`, `version`, `cuda` (each None when unknown) and `problem` (None when it imports).

    The metadata is read from the files, the other two by an import in a process of its own, ended after `timeout`
    seconds: a broken torch may raise, crash the interpreter or hang, and each is an answer.
    """
    distribution = distributions.installed(stage.tree).get("torch")
    values: dict = {"metadata": distribution.version if distribution else None, "version": None, "cuda": None}
    result = stage.run([stage.python, "-I", "-c", _PROBE], timeout=timeout)
    line = next((text for text in reversed(result.stdout.splitlines()) if text.startswith(_MARKER)), None)
    if line is not None:
        values.update(json.loads(line[len(_MARKER) :]))
        values["problem"] = None
    elif distribution is None and "No module named 'torch'" in result.stderr:
        values["problem"] = "torch is not installed"
    else:
        values["problem"] = "importing torch failed: " + result.outcome(lines=3)
    return values


def family(names: Iterable[str]) -> list[str]:
    """Those of the canonical names that belong to PyTorch's family."""
    return [name for name in names if any(fnmatch.fnmatchcase(name, pattern) for pattern in FAMILY)]


def cuda_on_disk(tree: str) -> str:
    """The CUDA version that torch was built for, from its file `torch/version.py`; "" where there is none."""
    for site in distributions.site_packages(tree):
        try:
            with open(os.path.join(site, "torch", "version.py"), encoding="utf-8") as file:
                found = re.search(r"^cuda\b[^=]*= *['\"](\d+\.\d+)", file.read(), re.MULTILINE)
        except OSError:
            continue
        if found:
            return found[1]
    return ""


def cuda_of_label(local: str | None) -> str | None:
    """The CUDA version that a local version label stands for: `cu128` is 12.8, `cpu` and no label are None."""
    match = re.fullmatch(r"cu(\d+)(\d)", local or "")
    return f"{match[1]}.{match[2]}" if match else None


def check_expected(expected: str) -> str | None:
    """What is wrong with the text of an expected version, or None."""
    try:
        Version(expected)
    except InvalidVersion:
        try:
            SpecifierSet(expected)
        except InvalidSpecifier:
            return (
                f"expected version {expected!r} is neither a version such as 2.8.0+cu128 "
                "nor a specifier such as >=2.8,<2.9 (PEP 440)"
            )
    return None


def mismatches(values: dict, expected: str) -> list[str]:
    """How the values differ from `expected`, one sentence each; an empty list means that all three agree.

    A version with a local label (`2.8.0+cu128`) must be matched exactly by `torch.__version__`, by the metadata as
    far as
    that has a label at all, and by `torch.version.cuda`. A version without label leaves the label open. A specifier is
    matched as PEP 440 says.
    """
    if values["problem"]:
        return [values["problem"]]
    try:
        wanted: Version | None = Version(expected)
    except InvalidVersion:
        wanted = None
    found = []
    for what, text in (("torch.__version__", values["version"]), ("the wheel's metadata", values["metadata"])):
        if text is None:
            found.append(f"{what} is missing, expected {expected}")
            continue
        version = Version(text)
        if wanted is None:
            fits = SpecifierSet(expected).contains(version, prereleases=True)
        else:
            fits = version.public == wanted.public
            if wanted.local and (version.local or what == "torch.__version__"):
                fits = fits and version.local == wanted.local
        if not fits:
            found.append(f"{what} is {text}, expected {expected}")
    label = wanted.local if wanted else None
    cuda = cuda_of_label(label)
    if label and (cuda or label == "cpu") and values["cuda"] != cuda:
        found.append(f"torch.version.cuda is {values['cuda']}, expected {cuda}")
    return found
