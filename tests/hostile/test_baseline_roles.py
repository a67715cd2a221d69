# Copyright (c) 2026 The ocrfleet.gpu_stack contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Hosts where the roles pytorch or olmocr fail, which have no transaction: what is told of the environment."""

from __future__ import annotations

from collections.abc import Callable

import pytest
from light_hosts import LightHosts

from ocrfleet import evidence

PYTORCH = "Install PyTorch (about 3 GB to download when nothing is cached): "
OLMOCR = "Install OlmOCR (about 2 GB more to download when nothing is cached): "
LEFT = "No change of the environment at ENVIRONMENT was begun."
# Name, what is wrong, how what is told begins.
NOT_BEGUN = [
    ("another-pytorch", {"pytorch_version": "2.4.1+cu124"}, PYTORCH + "No versions satisfy torch==2.4.1"),
    ("another-olmocr", {"olmocr_version": "0.3.0"}, OLMOCR + "No versions satisfy olmocr==0.3.0"),
    ("no-such-olmocr", {"olmocr_version": "9.9"}, OLMOCR + "No versions satisfy olmocr==9.9"),
    ("no-lock", {"pytorch_lock": "/dev/null/x"}, PYTORCH + "expected a lock on the control node"),
]
# What lies there has the wrong hash: uv is at work in the environment when it finds that out.
BEGUN = ("wrong-hash", ["OlmOCR"], OLMOCR)
ADDED = ("pytorch-added", ["PyTorch"], OLMOCR + "No versions satisfy olmocr==0.3.0")


@pytest.fixture(scope="module")
def printed(make_hosts: Callable[[], LightHosts]) -> tuple[LightHosts, str]:
    hosts = make_hosts()
    empty = hosts.wheels / "index"
    empty.mkdir()
    common = {
        "stack_default_index": empty.as_uri(),
        "stack_find_links": [str(hosts.wheels)],
        "pytorch_lock": "",
        "olmocr_lock": "",
        "olmocr_extras": [],
    }
    for name, settings, _said in NOT_BEGUN:
        hosts.add(name, **{**common, **settings})
    hosts.remove("no-such-olmocr", "olmocr")
    lock = hosts.folder / "lock.txt"
    lock.write_text(f"olmocr==0.4.2 \\\n    --hash=sha256:{'0' * 64}\n")
    hosts.add(BEGUN[0], **{**common, "olmocr_lock": str(lock)})
    hosts.remove(BEGUN[0], "olmocr")
    hosts.add(ADDED[0], **{**common, "olmocr_version": "0.3.0"})
    hosts.remove(ADDED[0], "torch")
    return hosts, hosts.run(playbook="site.yml")


@pytest.mark.parametrize(("name", "said"), [pytest.param(name, said, id=name) for name, _settings, said in NOT_BEGUN])
def test_a_refusal_tells_that_nothing_was_begun(printed: tuple[LightHosts, str], name: str, said: str) -> None:
    hosts, output = printed
    assert hosts.changes(name) == [], output
    found = evidence.read(hosts.folder / "reports", name)
    assert found["result"] == "failed" and evidence.is_untouched(found), output
    failure = " ".join(hosts.failure(name).split())
    assert failure.startswith(said)
    assert failure.endswith(LEFT)


@pytest.mark.parametrize(("name", "steps", "said"), [pytest.param(*row, id=row[0]) for row in (BEGUN, ADDED)])
def test_what_may_have_been_changed_is_told(
    printed: tuple[LightHosts, str], name: str, steps: list[str], said: str
) -> None:
    hosts, output = printed
    found = evidence.read(hosts.folder / "reports", name)
    assert found["outside_transaction"] == steps, output
    assert not evidence.is_untouched(found)
    failure = " ".join(hosts.failure(name).split())
    assert failure.startswith(said)
    assert failure.endswith(f"The environment at ENVIRONMENT was changed, or may have been, by {steps[0]}.")
