# Copyright (c) 2026 The ocrfleet.gpu_stack contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The view at the foot of a terminal: what it shows, that it loses nothing that is printed, and where it is not."""

from __future__ import annotations

import io
import os
import pty
import subprocess
import sys
import threading
from pathlib import Path

import pytest
from ansible.utils.display import _synchronize_textiowrapper
from ansible_collections.ocrfleet.gpu_stack.plugins.plugin_utils import live_view, progress
from rich.console import Console

ROOT = Path(__file__).resolve().parents[2]
PLAYBOOK = """
- name: Work
  hosts: all
  gather_facts: false
  tasks:
    - name: Sleep for a second
      ansible.builtin.command: sleep 1
      changed_when: false
    - name: Say something
      ansible.builtin.debug:
        msg: the end of {{ inventory_hostname }}
"""


class Terminal(io.StringIO):
    def isatty(self) -> bool:
        return True


def drawn(view: live_view.View) -> list[str]:
    console = Console(file=io.StringIO(), width=100)
    console.print(view)
    return [" ".join(line.split()) for line in console.file.getvalue().splitlines()]


def test_the_task_its_hosts_and_their_time_are_drawn() -> None:
    now = [100.0]
    view = live_view.View(clock=lambda: now[0])
    view.start_task("flashinfer", "Ask for FlashInfer, to install it")
    for host in ("vm-1", "vm-2"):
        view.start_host(host)
    now[0] = 175.0
    view.end_host("vm-2")
    assert view.hears(progress.line("vm-1", "3 of 5 large files, 0.9 of 2.5 GiB", 75.4) + "\n")
    assert drawn(view) == [
        "flashinfer Ask for FlashInfer, to install it 1 min 15 s in all",
        "vm-1 3 of 5 large files, 0.9 of 2.5 GiB 1 min 15 s",
    ]


def test_nothing_that_a_host_says_steers_the_terminal() -> None:
    evil = "\x1b]0;title\x07\x1b[2J\x9b1m\r\N{RIGHT-TO-LEFT OVERRIDE}"
    told = progress.line("vm-1", f"1 of 2 large files, largest under way: {evil}torch", 3)
    view = live_view.View(clock=lambda: 0.0)
    view.start_task(evil, f"Install{evil}")
    view.start_host("vm-1")
    view.start_host(f"vm-2{evil}")
    assert view.hears("  vm-1: " + evil.replace("\r", "") + "torch (3 s)\n")
    console = Console(file=io.StringIO(), width=200)
    console.print(view)
    for text in (told, console.file.getvalue().replace("\n", "")):
        assert "torch" in text
        assert text.isprintable(), ascii(text)


def test_a_fleet_is_counted() -> None:
    view = live_view.View(clock=lambda: 0.0)
    for number in range(30):
        view.start_host(f"vm-{number}")
    assert drawn(view)[-1] == "and 22 hosts more"


@pytest.mark.parametrize(
    "line",
    ["changed: [vm-1]\n", "  vm-2: everything is downloaded, installing (9 s)\n", "  vm-1: said something\n", "\n"],
)
def test_what_is_no_progress_of_a_host_under_way_is_printed(tmp_path: Path, line: str) -> None:
    view = live_view.View()
    view.start_host("vm-1")
    with open(tmp_path / "terminal", "w", encoding="utf-8") as terminal:
        screen = live_view.Screen(view, terminal)
        screen.write(line)
    assert (tmp_path / "terminal").read_text(encoding="utf-8") == line


@pytest.mark.parametrize(
    ("stream", "environment", "expected"),
    [
        (Terminal(), {"TERM": "xterm"}, True),
        (Terminal(), {"TERM": "dumb"}, False),
        (Terminal(), {}, False),
        (Terminal(), {"TERM": "xterm", "CI": "true"}, False),
        (Terminal(), {"TERM": "xterm", "AWX_ISOLATED_DATA_DIR": "/runner/artifacts/1"}, False),
        (io.StringIO(), {"TERM": "xterm"}, False),
    ],
)
def test_it_is_drawn_on_a_terminal_only(stream: io.StringIO, environment: dict[str, str], expected: bool) -> None:
    assert live_view.wanted(stream, environment) is expected


def test_drawing_waits_for_no_lock_of_ansibles() -> None:
    """Ansible prints under a lock that its standard output takes too; who draws under another must not wait for it."""
    ours, theirs = pty.openpty()
    lock = threading.RLock()
    with open(theirs, "w", encoding="utf-8") as stream:
        _synchronize_textiowrapper(stream, lock)
        screen = live_view.Screen(live_view.View(), stream)
        with lock:
            drawing = threading.Thread(target=screen.live.refresh, daemon=True)
            drawing.start()
            drawing.join(timeout=30)
            assert not drawing.is_alive()
    os.close(ours)


@pytest.fixture
def playbook(tmp_path: Path) -> list[str]:
    path = tmp_path / "work.yml"
    path.write_text(PLAYBOOK)
    return [
        str(Path(sys.executable).with_name("ansible-playbook")),
        *("--inventory", "vm-1,vm-2,", "--connection", "local", "--extra-vars"),
        f"ansible_python_interpreter={sys.executable}",
        str(path),
    ]


def environment(**changes: str) -> dict[str, str]:
    kept = {
        name: value
        for name, value in os.environ.items()
        if name not in live_view.KEEPERS and not name.startswith("ANSIBLE_")
    }
    return {**kept, "TERM": "xterm", **changes}


def test_a_real_play_on_a_terminal_shows_both(playbook: list[str]) -> None:
    ours, theirs = pty.openpty()
    with subprocess.Popen(
        playbook, cwd=ROOT, stdin=subprocess.DEVNULL, stdout=theirs, stderr=theirs, env=environment()
    ) as run:
        os.close(theirs)
        said = b""
        while True:
            try:
                part = os.read(ours, 65536)
            except OSError:  # the other end is closed
                break
            said += part
        assert run.wait() == 0
    os.close(ours)
    text = said.decode()
    assert "in all" in text
    assert text.count("the end of vm-") == 2
    after = text[text.rindex("in all") :]
    assert "\x1b[2K" in after, "its last lines are erased"
    assert "\x1b[?25h" in after, "the cursor is shown again"


def test_a_log_is_what_it_is_without_it(playbook: list[str]) -> None:
    def said(**changes: str) -> bytes:
        alone = [*playbook, "--limit", "vm-1"]  # two hosts end in any order
        return subprocess.run(alone, cwd=ROOT, capture_output=True, env=environment(**changes), check=True).stdout

    assert said() == said(ANSIBLE_CALLBACKS_ENABLED="none_at_all")
