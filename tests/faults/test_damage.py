# Copyright (c) 2026 The ocrfleet.gpu_stack contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""A baseline that was damaged on purpose is named and refused, and the command that the refusal gives repairs it."""

from __future__ import annotations

import os
import re
import shlex
import shutil
import subprocess
from collections.abc import Callable
from pathlib import Path
from typing import Any

import oracle
import pytest
from harness import Host, wait_for


def site(tree: Path) -> Path:
    return next(tree.glob("lib/python3*/site-packages"))


def repair(host: Host, said: str) -> bool:
    """Run the command that the refusal names."""
    found = re.search(
        r"(?:rm -r -- (\S+) && )?(\S*uv pip install --python .*? --reinstall --no-deps six==1.16.0)", said
    )
    if not found:
        return False
    if found.group(1):
        shutil.rmtree(found.group(1))
    argv = [host.uv, *shlex.split(found.group(2))[1:], "--offline"]
    return subprocess.run(argv, env=host.environ(), capture_output=True, timeout=120).returncode == 0


@pytest.mark.fault("8 baseline damaged on purpose")
@pytest.mark.parametrize(
    ("harm", "named"),
    [
        (lambda root: (root / "six.py").unlink(), "six.py: no such file"),
        (lambda root: os.truncate(root / "six.py", 100), "six.py: 100 bytes"),
        (lambda root: os.truncate(root / "six-1.16.0.dist-info/RECORD", 30), "cut short"),
        (lambda root: (root / "six-1.16.0.dist-info/METADATA").unlink(), "METADATA"),
    ],
)
def test_damage_before(make_host: Callable[..., Host], tally: Any, harm: Callable[[Path], object], named: str) -> None:
    host = make_host()
    harm(site(host.environment))
    refused = host.run()
    found = refused.rc != 0 and named in refused.said.replace("\n", " ")
    repaired = repair(host, " ".join(refused.said.split()))
    again = host.run()
    assert tally.add(found and repaired and again.rc == 0 and host.is_result()), refused.said + again.said


@pytest.mark.fault("8 baseline damaged on purpose")
@pytest.mark.parametrize("fail_at", ["never", "before"])
def test_an_edit_through_a_hard_link(make_host: Callable[..., Host], tally: Any, fail_at: str) -> None:
    host = make_host()
    run = host.start(pause=4, fail_at=fail_at)
    assert wait_for(host, ("open",), run)
    candidate = next(host.state_dir.glob("transactions/*/tree"))
    edited = site(candidate) / "six.py"
    with edited.open("r+b") as file:
        file.write(b"#")  # the size stays
    said, _ = run.communicate(timeout=300)
    told = " ".join(said.split())
    found = run.returncode != 0 and "six.py: mtime" in told and "--no-deps six==1.16.0" in told
    repaired = repair(host, told)
    whole = oracle.complete(str(host.environment)) == [] and not (
        site(host.environment) / "six.py"
    ).read_bytes().startswith(b"##")
    again = host.run()
    assert tally.add(found and repaired and whole and again.rc == 0 and host.is_result()), said + again.said
