# Copyright (c) 2026 The ocrfleet.gpu_stack contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""A baseline that was damaged on purpose is named and refused, and the command that the refusal gives repairs it."""

from __future__ import annotations

import os
import re
import shlex
import shutil
import signal
import subprocess
from collections.abc import Callable
from pathlib import Path
from typing import Any

import oracle
import pytest
import stopping
from harness import STAND_IN, Host


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
    survived = found and repaired and again.rc == 0 and host.is_result() and host.is_safe()
    assert tally.add(survived), [refused.said, again.said, host.wrong()]


def edited_meanwhile(host: Host, name: str, edit: Callable[[Path], object], **changes: Any) -> tuple[int, str]:
    """A run that has a file of its candidate edited in place; gives its exit code, and what it said."""
    run, stopped = host.held("open", **changes)
    (candidate,) = host.kept()
    edit(site(candidate) / name)
    assert (site(host.environment) / name).read_bytes() == (site(candidate) / name).read_bytes(), "no hard link"
    stopping.send(stopped, signal.SIGCONT)
    said = host.end(run)
    return run.returncode, " ".join(said.split())


def overwrite(path: Path) -> None:
    with path.open("r+b") as file:
        file.write(b"#")  # the size stays


def give_another_cuda(path: Path) -> None:
    """An edit that leaves size and time alone: only PyTorch's values tell."""
    status = path.stat()
    text = path.read_text()
    with path.open("r+") as file:
        file.write(text.replace("+cu128", "+cu126").replace("12.8", "12.6"))
    os.utime(path, ns=(status.st_atime_ns, status.st_mtime_ns))
    assert (path.stat().st_size, path.stat().st_mtime_ns) == (status.st_size, status.st_mtime_ns)


@pytest.mark.fault("8 baseline damaged on purpose")
@pytest.mark.parametrize("fail_at", ["never", "before"])
def test_an_edit_through_a_hard_link(make_host: Callable[..., Host], tally: Any, fail_at: str) -> None:
    host = make_host()
    rc, told = edited_meanwhile(host, "six.py", overwrite, fail_at=fail_at)
    found = rc != 0 and "six.py: mtime" in told and "--no-deps six==1.16.0" in told
    repaired = repair(host, told)
    whole = oracle.complete(str(host.environment)) == oracle.wrong_contents(str(host.environment)) == []
    again = host.run()
    survived = found and repaired and whole and again.rc == 0 and host.is_result() and host.is_safe()
    assert tally.add(survived), [told, again.said, host.wrong()]


@pytest.mark.fault("8 baseline damaged on purpose")
def test_an_edit_that_only_torch_tells(make_host: Callable[..., Host], tally: Any) -> None:
    host = make_host()
    rc, told = edited_meanwhile(host, "torch/version.py", give_another_cuda, fail_at="before")
    named = "torch version 2.8.0+cu126, was 2.8.0+cu128" in told and "torch cuda 12.6, was 12.8" in told
    command = f"--reinstall --no-deps {STAND_IN}" in told
    assert tally.add(rc != 0 and named and command), told


@pytest.mark.fault("8 written in place, conda prefix")
@pytest.mark.parametrize(
    ("fail_at", "kind"), [("never", "staged"), ("before", "staged"), ("after", "staged"), ("before", "in_place")]
)
def test_what_conda_writes_in_place(make_host: Callable[..., Host], tally: Any, fail_at: str, kind: str) -> None:
    host = make_host(conda=True)
    done = host.run(fail_at=fail_at, kind=kind)
    # A result has all that conda wrote; a baseline, by one byte of it, would not be what it was.
    good = host.is_result() if fail_at == "never" else host.is_baseline() and f"injected {fail_at}" in done.said
    exported = len(list(host.home.glob("olmocr-env-baseline-*.yml"))) == 1
    assert tally.add(good and exported and host.is_safe()), [done.said, host.wrong()]
