# Copyright (c) 2026 The ocrfleet.gpu_stack contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Hosts that are refused before anything of the stack is begun: what is told of them, here and on the host."""

from __future__ import annotations

from collections.abc import Callable

import pytest
from light_hosts import LightHosts

from ocrfleet import evidence

CHECK = "Hold every variable against its specification: "
STOP = "Stop on everything that is wrong with the machine: Not touched, because: "
LEFT = "No change of the environment at ENVIRONMENT was begun."
# Name, what is wrong, how what is told begins.
ROWS = [
    ("too-full", {"stack_disk_gb": 10**6}, STOP + "disk: expected "),
    ("misspelt", {"flashinfer_keep_baseline": 3}, CHECK),
    ("of-another-type", {"report_host_dir": ["a"], "fi_method": ["pypi"]}, CHECK),
    ("no-folder-for-the-stack", {"stack_root": "/dev/null/x"}, "Make the stack's folder: "),
]


@pytest.fixture(scope="module")
def printed(make_hosts: Callable[[], LightHosts]) -> tuple[LightHosts, str]:
    hosts = make_hosts()
    for name, settings, _said in ROWS:
        hosts.add(name, **settings)
    return hosts, hosts.run()


@pytest.mark.parametrize(("name", "said"), [pytest.param(name, said, id=name) for name, _settings, said in ROWS])
def test_it_is_told_and_the_environment_is_as_it_was(printed: tuple[LightHosts, str], name: str, said: str) -> None:
    hosts, output = printed
    assert hosts.changes(name) == [], output
    found = evidence.read(hosts.folder / "reports", name)
    assert (found["result"], found["transaction"]) == ("failed", {}), output
    assert evidence.is_untouched(found)
    failure = " ".join(hosts.failure(name).split())
    assert failure.startswith(said)
    assert failure.endswith(LEFT)
    assert (hosts.folder / "reports" / name / "report.html").is_file()


def test_nothing_is_written_on_the_host(printed: tuple[LightHosts, str]) -> None:
    hosts, output = printed
    assert not (hosts.folder / "on-the-host").exists(), output


def test_the_play_fails_with_the_reason(printed: tuple[LightHosts, str]) -> None:
    _hosts, output = printed
    recap = output.partition("PLAY RECAP")[2]
    assert recap.count("failed=1") == len(ROWS), output
    assert "reports/too-full/report.html" in output
