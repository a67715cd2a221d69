# Copyright (c) 2026 The ocrfleet.gpu_stack contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""What a command that is killed leaves of the operator's environment and the policy's variables."""

from __future__ import annotations

import signal
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any

import pytest

from ocrfleet import cli, planning, temporary
from ocrfleet.rollout import Driver
from ocrfleet.survey import Survey

# Makes a temporary file as the survey does, says so, and then is killed or waits for it.
KEEPS = """
import sys, tempfile, time
from pathlib import Path
from ocrfleet import temporary

with temporary.files_below(Path(sys.argv[1])):
    Path(tempfile.mkdtemp(), "command").write_text("secret")
    print("written", flush=True)
    time.sleep(60)
"""


def test_what_a_killed_command_left_goes_with_the_next_and_that_of_others_at_work_stays(tmp_path: Path) -> None:
    kept = [subprocess.Popen([sys.executable, "-c", KEEPS, tmp_path], stdout=subprocess.PIPE) for _ in range(2)]
    try:
        assert [process.stdout.readline() for process in kept if process.stdout] == [b"written\n"] * 2
        assert len(list(tmp_path.rglob("command"))) == 2
        kept[0].send_signal(signal.SIGKILL)
        kept[0].wait()
        with temporary.files_below(tmp_path):
            assert len(list(tmp_path.rglob("command"))) == 1
    finally:
        for process in kept:
            process.kill()
            process.communicate()
    with temporary.files_below(tmp_path):
        assert not list(tmp_path.rglob("command"))


def test_it_ends_with_the_command(tmp_path: Path) -> None:
    before = tempfile.gettempdir()
    with pytest.raises(KeyError), temporary.files_below(tmp_path):
        Path(tempfile.mkdtemp(), "command").touch()
        raise KeyError
    assert tempfile.gettempdir() == before
    assert not list(tmp_path.rglob("command"))


@pytest.mark.parametrize("command", ["plan", "rollout"])
def test_commands_that_run_ansible_have_theirs_in_the_private_folder(
    tmp_path: Path, fake: Any, monkeypatch: pytest.MonkeyPatch, command: str
) -> None:
    used = []

    def survey(_inventory: Any, hosts: list[str], *_: Any) -> Survey:
        used.append(tempfile.gettempdir())
        return Survey(dict.fromkeys(hosts, "f1"), {}, {})

    monkeypatch.setattr(cli, "survey", survey)
    monkeypatch.setattr(cli, "read_inventory", lambda *_: planning.Fleet(["h1"], {"h1": ["all"]}))
    monkeypatch.setattr(cli, "Driver", lambda *given, **more: Driver(*given, **more, make_ansible=fake))
    state = tmp_path / "state"
    assert cli.main(["--state-dir", str(state), command, "-i", "inv"]) == 0
    (place,) = used
    assert Path(place).is_relative_to(state)
    assert not Path(place).exists()
