# Copyright (c) 2026 The ocrfleet.gpu_stack contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""When packages are installed, and when not any more; a script that notes its calls stands in for uv."""

from __future__ import annotations

from pathlib import Path

import pytest
from ansible_collections.ocrfleet.gpu_stack.plugins.module_utils import journal, package_plan
from ansible_collections.ocrfleet.gpu_stack.plugins.module_utils.staging import Stage
from ansible_collections.ocrfleet.gpu_stack.plugins.module_utils.uv import Failed, Sources, Uv
from ansible_collections.ocrfleet.gpu_stack.plugins.modules import uv_packages

LOCK = "six==1.17.0 \\\n    --hash=sha256:aa\n"


class Host:
    """An environment with a journal, beside a script in uv's place that only notes that it was called."""

    def __init__(self, folder: Path) -> None:
        self.environment = folder / "env"
        (self.environment / "lib/python3.11/site-packages").mkdir(parents=True)
        self.called = folder / "called"
        self.uv = folder / "uv"
        self.uv.write_text(f'#!/bin/sh\necho "$@" >>"{self.called}"\n')
        self.uv.chmod(0o755)
        self.work = folder / "work"
        self.work.mkdir()

    def at(self, **transaction: str) -> None:
        folder = Path(journal.state_dir(str(self.environment)))
        folder.mkdir(exist_ok=True)
        journal.write_file(str(folder / "journal.json"), journal.encode({"transaction": transaction}))

    def install(self, began: object, named: Path | None = None) -> None:
        uv = Uv(str(self.uv), Stage(str(named or self.environment)), Sources(), str(self.work), 30)
        plan = package_plan.Plan([package_plan.Change("six", None, "1.17.0")], [], [], [], True)
        uv_packages.apply(uv, plan, LOCK, began)


@pytest.fixture
def host(tmp_path: Path) -> Host:
    return Host(tmp_path)


@pytest.mark.parametrize(
    "ended",
    [
        {"id": "one", "state": "restored"},  # the task was given up, the baseline came back, the job in the background
        {"id": "two", "state": "open"},  # went on; and the same where another run has begun since
    ],
)
def test_nothing_is_installed_once_the_transaction_is_another_one(host: Host, ended: dict[str, str]) -> None:
    host.at(id="one", state="open")
    began = uv_packages.transaction_of(str(host.environment))
    host.at(**ended)
    with pytest.raises(Failed, match=rf"began in transaction one \(open\), now it is {ended['id']} \({ended['state']}"):
        host.install(began)
    assert not host.called.exists()


def test_packages_are_installed_in_the_transaction_that_they_were_planned_in(host: Host) -> None:
    host.at(id="one", state="open")
    # The stand-in installs nothing, which is told after it was called.
    with pytest.raises(Failed, match="six should be 1.17.0 after the installation, found None"):
        host.install(uv_packages.transaction_of(str(host.environment)))
    assert "--require-hashes" in host.called.read_text()


def test_the_lock_of_a_linked_environment_is_that_of_its_transaction(host: Host, tmp_path: Path) -> None:
    """The transaction works where the link leads; an installer with another lock would work beside a restore."""
    host.at(id="one", state="open")
    link = tmp_path / "elsewhere" / "env"
    link.parent.mkdir()
    link.symlink_to(host.environment)
    assert uv_packages.transaction_of(str(link)) == uv_packages.transaction_of(str(host.environment))
    assert journal.state_dir(f"{link}/") == journal.state_dir(str(host.environment))
