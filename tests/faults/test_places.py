# Copyright (c) 2026 The ocrfleet.gpu_stack contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Places that are not as expected: refused before anything is touched, or handled."""

from __future__ import annotations

import os
import shutil
import subprocess
from collections.abc import Callable
from pathlib import Path
from typing import Any

import oracle
import pytest
from harness import TOOLS, Host

NOBODY = 65534
PYTHON = "/usr/bin/python3"  # one that every user may start


def run_as_nobody(host: Host, folder: Path) -> None:
    """Let the runs of a host be those of a user who owns nothing there but a home."""
    as_nobody = ["setpriv", f"--reuid={NOBODY}", f"--regid={NOBODY}", "--clear-groups", "--"]
    if subprocess.run([*as_nobody, "test", "-r", str(TOOLS / "ansible-playbook")]).returncode:
        pytest.skip(f"needs a checkout that other users can read, and {TOOLS} is closed to them")
    home = folder / "nobody"
    home.mkdir()
    os.chown(home, NOBODY, NOBODY)
    for path in host.folder.parents:
        if path.stat().st_uid == 0 and path.name.startswith(("pytest", "popen", "test")):
            path.chmod(0o755)
    for name in ("HOME", "ANSIBLE_HOME", "ANSIBLE_LOCAL_TEMP", "ANSIBLE_REMOTE_TEMP", "TMPDIR"):
        host.env[name] = str(home)
    host.settings.update(home=str(home), python=PYTHON, ansible_python_interpreter=PYTHON)
    host.prefix = as_nobody


@pytest.mark.fault("9 read-only, wrong owner, link, odd path")
def test_read_only_filesystem(make_host: Callable[..., Host], tmpfs: Any, tally: Any) -> None:
    folder = tmpfs("size=320m")
    host = make_host(folder=str(folder / "host"))
    elsewhere = folder.parent / "writable"
    elsewhere.mkdir()
    subprocess.run(["mount", "-o", "remount,ro", str(folder)], check=True)
    host.env = {"ANSIBLE_LOCAL_TEMP": str(elsewhere), "ANSIBLE_REMOTE_TEMP": str(elsewhere)}
    refused = host.run()
    told = " ".join(refused.said.split())
    assert tally.add(refused.rc != 0 and "mounted read-only" in told and host.is_baseline()), refused.said


@pytest.mark.fault("9 read-only, wrong owner, link, odd path")
@pytest.mark.parametrize(
    ("owner", "told"), [("environment", "become_user"), ("parent", "is not writable"), ("file", "chown")]
)
def test_wrong_owner(make_host: Callable[..., Host], tmp_path: Path, tally: Any, owner: str, told: str) -> None:
    if os.geteuid() != 0:
        pytest.skip("needs root, to run as somebody else")
    host = make_host(env={"UV_PYTHON": PYTHON})
    run_as_nobody(host, tmp_path)
    if owner != "environment":
        subprocess.run(["chown", "-hR", f"{NOBODY}:{NOBODY}", str(host.environment)], check=True)
    if owner == "file":
        os.chown(host.folder, NOBODY, NOBODY)
        os.chown(host.environment / "notes by hand.txt", 0, 0)
    before = sorted(str(path) for path in host.folder.rglob("*"))
    refused = host.run()
    after = sorted(str(path) for path in host.folder.rglob("*") if ".gpu_stack" not in str(path))
    survived = refused.rc != 0 and told in " ".join(refused.said.split()) and before == after
    assert tally.add(survived), refused.said


@pytest.mark.fault("9 read-only, wrong owner, link, odd path")
def test_an_ordinary_user(make_host: Callable[..., Host], tmp_path: Path, tally: Any) -> None:
    if os.geteuid() != 0:
        pytest.skip("needs root, to run as somebody else")
    host = make_host(env={"UV_PYTHON": PYTHON})
    cache = host.folder / "cache"
    shutil.copytree(host.cache, cache, symlinks=True)
    host.cache = cache
    subprocess.run(["chown", "-hR", f"{NOBODY}:{NOBODY}", str(host.folder)], check=True)
    host.before = oracle.tree(str(host.environment))
    run_as_nobody(host, tmp_path)
    done = host.run(fail_at="never", kind="auto")
    assert tally.add(done.rc == 0 and host.is_result() and host.is_safe()), done.said


@pytest.mark.fault("9 read-only, wrong owner, link, odd path")
@pytest.mark.parametrize("fail_at", ["never", "before", "after"])
def test_spaces_and_letters(make_host: Callable[..., Host], tally: Any, fail_at: str) -> None:
    host = make_host(name="ocr  größe 'x' \"日本\"")
    done = host.run(fail_at=fail_at)
    good = host.is_result() if fail_at == "never" else host.is_baseline() and f"injected {fail_at}" in done.said
    assert tally.add((done.rc == 0) == (fail_at == "never") and good and host.is_safe()), done.said


@pytest.mark.fault("9 read-only, wrong owner, link, odd path")
def test_a_link_to_the_environment(make_host: Callable[..., Host], tally: Any) -> None:
    host = make_host()
    link = host.folder / "current"
    link.symlink_to(host.environment)
    done = host.run(environment_path=str(link))
    told = "is a link to" in " ".join(done.said.split())
    assert tally.add(done.rc == 0 and told and link.is_symlink() and host.is_result() and host.is_safe()), done.said


@pytest.mark.fault("9 read-only, wrong owner, link, odd path")
def test_another_filesystem(make_host: Callable[..., Host], tmpfs: Any, tally: Any) -> None:
    host = make_host()
    mounted = tmpfs("size=64m")
    host.environment.joinpath("data").mkdir()
    subprocess.run(["mount", "--bind", str(mounted), str(host.environment / "data")], check=True)
    try:
        refused = host.run()
    finally:
        subprocess.run(["umount", str(host.environment / "data")], check=True)
    assert tally.add(refused.rc != 0 and "something is mounted inside" in " ".join(refused.said.split())), refused.said
