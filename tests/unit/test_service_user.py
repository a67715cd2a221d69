# Copyright (c) 2026 The ocrfleet.gpu_stack contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Checks as another user of this host: a real account, real rights, and a candidate in a real mount namespace."""

from __future__ import annotations

import os
import pwd
import shutil
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from ansible_collections.ocrfleet.gpu_stack.plugins.module_utils import (
    activation,
    service_user,
    stack_checks,
    staging,
)
from ansible_collections.ocrfleet.gpu_stack.plugins.module_utils.staging import Stage
from made_environment import make_environment

USER = "nobody"
as_root = pytest.mark.skipif(os.geteuid() != 0, reason="only root can become another user")
staged = pytest.mark.skipif(staging.unavailable() is not None, reason="no mount namespace can be had here")


@pytest.fixture
def shared() -> Iterator[Path]:
    """A folder that every user can reach; pytest's own are the user's alone."""
    folder = Path(tempfile.mkdtemp(prefix="service-user-"))
    folder.chmod(0o755)
    yield folder
    shutil.rmtree(folder)


def told(stage: Stage) -> dict[str, Any]:
    made = Path(tempfile.mkdtemp())
    seen = {
        "uid": [os.getuid(), os.geteuid()],
        "groups": sorted({os.getgid(), *os.getgroups()}),
        "home": os.environ["HOME"],
        "path": os.environ["PATH"],
        "surroundings": sorted(name for name in os.environ if name.startswith("XDG_") or name == "TMPDIR"),
        "owner": made.stat().st_uid,
        "candidate": stage.candidate,
        "note": Path(stage.environment, "notes.txt").read_text(),
        "child": stage.run(["/bin/sh", "-c", "id -un; cat notes.txt"], timeout=30, cwd=stage.environment).stdout,
    }
    shutil.rmtree(made)
    return seen


@as_root
@staged
def test_the_work_is_done_as_the_user_with_the_candidate_in_place(
    shared: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("TMPDIR", "/root")
    monkeypatch.setenv("PATH", f"/root/bin:{os.environ['PATH']}")
    monkeypatch.setenv("XDG_CACHE_HOME", "/root/.cache")
    environment, candidate = make_environment(shared / "env"), make_environment(shared / "candidate")
    (candidate / "notes.txt").write_text("of the candidate\n")
    candidate.chmod(0o755)
    account = pwd.getpwnam(USER)

    seen = service_user.call(USER, Stage(str(environment), str(candidate)), told)

    assert seen["uid"] == [account.pw_uid, account.pw_uid]
    assert seen["groups"] == sorted({account.pw_gid, *os.getgrouplist(USER, account.pw_gid)})
    assert seen["home"] == account.pw_dir
    assert "/root" not in seen["path"]
    assert seen["surroundings"] == []
    assert seen["owner"] == account.pw_uid
    assert seen["candidate"] is None
    assert seen["note"] == "of the candidate\n"
    assert seen["child"] == f"{USER}\nof the candidate\n"
    # Neither for this process nor on this host has anything moved.
    assert os.geteuid() == 0
    assert (environment / "notes.txt").read_text() == "by hand\n"


@as_root
def test_what_the_user_cannot_read_is_found_and_told(shared: Path) -> None:
    environment = make_environment(shared / "env")
    environment.chmod(0o700)
    with pytest.raises(
        RuntimeError,
        match=rf"{environment}.* as the user {USER}: .*Permission denied: .*notes.txt.*; give that user the right",
    ):
        service_user.call(USER, Stage(str(environment)), told)


@as_root
def test_a_process_that_says_nothing_is_an_error(shared: Path) -> None:
    with pytest.raises(RuntimeError, match="ended with 3"):
        service_user.call(USER, Stage(str(shared)), lambda _stage: os._exit(3))


@as_root
def test_a_package_that_only_root_can_read_fails_the_checks_of_the_service(shared: Path) -> None:
    environment = make_environment(shared / "env")
    stage = Stage(str(environment))
    checklist = [{"name": "files", "title": "Files", "kind": "files", "distribution": ""}]
    assert [verdict["status"] for verdict in stack_checks.run_as(USER, stage, checklist)] == ["passed"]
    (environment / "lib/python3.11/site-packages/tool").chmod(0o700)
    assert [verdict["status"] for verdict in stack_checks.run(stage, checklist, None)] == ["passed"]
    (verdict,) = stack_checks.run_as(USER, stage, checklist)
    assert (verdict["status"], "tool 1.0" in verdict["reason"]) == ("failed", True)


@pytest.mark.parametrize(
    ("user", "uid", "expected"),
    [
        ("", 0, ("", "")),
        (USER, 0, (USER, "")),
        (USER, pwd.getpwnam(USER).pw_uid, ("", "")),
        ("no-such", 0, ("", "expected a user of this host, found no account 'no-such': correct the name")),
        (USER, 4711, ("", f"only root can check as {USER}, and this is 4711: set become, or leave it out")),
    ],
)
def test_the_user_is_the_one_that_is_named(
    monkeypatch: pytest.MonkeyPatch, user: str, uid: int, expected: tuple[str, str]
) -> None:
    monkeypatch.setattr(os, "geteuid", lambda: uid)
    assert service_user.chosen(user) == expected


@as_root
def test_the_start_file_is_read_as_systemd_reads_it(shared: Path) -> None:
    """By root: a folder that is closed to the user does not make another start of it."""
    environment = make_environment(shared / "env")
    file = environment / "etc/ocrfleet/flashinfer.env"
    file.parent.mkdir(parents=True)
    file.write_text("VLLM_USE_FLASHINFER_SAMPLER=0\n")
    file.parent.chmod(0o700)
    seen = activation.read(str(environment))
    assert seen["VLLM_USE_FLASHINFER_SAMPLER"] == "0"
    told = service_user.call(
        USER, Stage(str(environment)), lambda stage: stack_checks.Checks(stage, [], str(shared), variables=seen).env
    )
    assert told["VLLM_USE_FLASHINFER_SAMPLER"] == "0"


@as_root
@pytest.mark.parametrize(
    ("closed", "told"),
    [
        ("", "env/bin/python cannot be read, as {env} is closed to nobody"),
        ("lib", "env/lib cannot be read by nobody"),
        ("lib/python3.11", "found no package"),
        ("lib/python3.11/site-packages", "env/lib/python3.11/site-packages cannot be read by nobody"),
    ],
)
def test_what_is_closed_to_the_user_is_named_and_nothing_passes(shared: Path, closed: str, told: str) -> None:
    """A check that finds no package finds none that is damaged."""
    environment = make_environment(shared / "env")
    (environment / closed).chmod(0o700)
    checklist = [{"name": "files", "title": "Files", "kind": "files", "distribution": ""}]
    try:
        (verdict,) = stack_checks.run_as(USER, Stage(str(environment)), checklist)
        assert verdict["status"] == "failed"
        found = verdict["reason"]
    except RuntimeError as error:
        found = str(error)
    assert told.format(env=environment) in found
