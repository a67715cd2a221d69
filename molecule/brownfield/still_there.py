# Copyright (c) 2026 The ocrfleet.gpu_stack contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Say whether all that was made by hand is there and works: still_there.py PREFIX BEFORE AFTER

BEFORE and AFTER are listings of molecule/shared/tree.py. Runs with the environment's own Python.
"""

from __future__ import annotations

import ast
import importlib.metadata
import os
import subprocess
import sys
from pathlib import Path

PREFIX, BEFORE, AFTER = sys.argv[1:]
# What the collection writes to that was there: the lines of its own in bin/activate, and folders that get more entries.
ADDED_TO = {"bin/activate"}


def listing(path: str) -> dict[str, list]:
    with open(path, encoding="ascii") as file:
        entries = [ast.literal_eval(line) for line in file]
    return {entry[0]: entry[1:] for entry in entries}


def check_files() -> None:
    before, after = listing(BEFORE), listing(AFTER)
    assert len(before) > 40_000, f"only {len(before)} entries before"
    assert before.keys() <= after.keys(), f"gone: {sorted(before.keys() - after.keys())[:9]}"
    changed = {path for path, entry in before.items() if after[path] != entry and not os.path.isdir(f"{PREFIX}/{path}")}
    assert changed == ADDED_TO, f"changed: {sorted(changed)[:9]}"
    modes = {path for path, entry in before.items() if after[path][:3] != entry[:3]}
    assert not modes, f"of other mode or owner: {sorted(modes)[:9]}"


def check_packages() -> None:
    import cowsay  # type: ignore[import-not-found]
    import flashinfer  # type: ignore[import-not-found]
    import ours  # type: ignore[import-not-found]
    import patches  # type: ignore[import-not-found]

    versions = {name: importlib.metadata.version(name) for name in ("cowsay", "tabulate", "ours", "pages")}
    assert versions == {"cowsay": "6.1", "tabulate": "0.9.0", "ours": "1.0", "pages": "1.0"}, versions
    assert importlib.metadata.version("flashinfer-python") == "0.3.1" and flashinfer.__file__.startswith(PREFIX)
    assert cowsay.__file__.startswith(PREFIX)
    # An editable install is still its sources.
    assert ours.ANSWER == 42 and not ours.__file__.startswith(PREFIX + "/"), ours.__file__
    assert patches.PATCHED


def check_programs() -> None:
    def said(*argv: str) -> str:
        return subprocess.run(argv, check=True, capture_output=True, text=True).stdout

    assert said(f"{PREFIX}/bin/count-pages").startswith(f"pages of {PREFIX}/lib"), "the local wheel's program"
    assert said(f"{PREFIX}/bin/see-notes") == "Do not touch, ask Ann.\n"
    activated = said("bash", "-c", f". {PREFIX}/bin/activate && echo $PAGES_PER_GROUP $VLLM_USE_FLASHINFER_SAMPLER")
    assert activated == "50 0\n", f"what an activated shell has: {activated}"


def check_frozen_list() -> None:
    lists = sorted(Path.home().glob("olmocr-baseline-*.txt"))
    text = lists[-1].read_text()
    for line in ("cowsay==6.1", "tabulate==0.9.0", "torch==2.8.0", "/sources/ours", "pages-1.0-py3-none-any.whl"):
        assert line in text, f"{lists[-1]} does not have {line}"


check_files()
check_packages()
check_programs()
check_frozen_list()
print("all that was made by hand is there and works")
