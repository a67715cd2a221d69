# Copyright (c) 2026 The ocrfleet.gpu_stack contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The build context of the execution environment: nothing of the package index gets in but by a hash.

The context is made by ansible-builder itself, which adds steps of its own; no image is built.
"""

from __future__ import annotations

import re
import subprocess
import sys
import tomllib
from pathlib import Path

import pytest
from supply_chain import findings

ROOT = Path(__file__).resolve().parents[2]
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))


def hashes(lock: str) -> dict[str, set[str]]:
    """The hashes that a lock has for each package, by `NAME==VERSION`."""
    found = re.split(r"\n(?=\S)", (ROOT / lock).read_text(encoding="utf-8").strip())
    return {re.split(r"[ ;\\]", entry)[0]: set(re.findall(r"--hash=(\S+)", entry)) for entry in found}


LOCKED = hashes("execution-environment.lock")
NAMES = {pin.split("==")[0] for pin in LOCKED}


@pytest.fixture(scope="module")
def context(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("ee")
    builder = str(Path(sys.executable).with_name("ansible-builder"))
    command = [builder, "create", "--file", str(ROOT / "execution-environment.yml"), "--context", str(folder)]
    subprocess.run(command, capture_output=True, text=True, check=True, timeout=120)
    assert (folder / "_build/lock/execution-environment.lock").is_file()
    return folder


@pytest.fixture
def containerfile(context: Path) -> str:
    return (context / "Containerfile").read_text(encoding="utf-8")


def unlocked(text: str) -> list[str]:
    """The steps in which pip could fetch something that no lock names."""
    environments: dict[str, dict[str, str]] = {}
    stage, wrong = "", []
    for line in text.splitlines():
        begins, sets = re.match(r"FROM (\S+) AS (\S+)", line), re.match(r"ENV (\w+)=(.*)", line)
        if begins:
            stage = begins[2]
            environments[stage] = dict(environments.get(begins[1], {}))
        if sets:
            environments[stage][sets[1]] = sets[2]
        installs = re.search(r"\bpip3? install (.*)", line)
        if installs and "--require-hashes" not in line:
            asked = {word for word in installs[1].split() if not word.startswith("-")}
            there = environments[stage].get("PIP_NO_INDEX") == "1" and asked <= NAMES
            wrong += [] if there else [line]
    return wrong


def test_pip_installs_by_hash_or_finds_what_was_installed_so(containerfile: str) -> None:
    assert len(re.findall("pip install", containerfile)) == 2, (
        "ansible-builder's own steps are others by now; read them"
    )
    assert unlocked(containerfile) == []


def test_no_other_step_fetches_what_nothing_holds(context: Path) -> None:
    """By the rules for everything else here; the one that is found is the one above, which finds what is installed."""
    assert findings(context / "Containerfile") == [
        ("unlocked-install", "RUN $PYCMD -m pip install --no-cache-dir bindep pyyaml packaging")
    ]


@pytest.mark.parametrize(
    "planted",
    [
        pytest.param(("ENV PIP_NO_INDEX=1\n", ""), id="an index that may be asked"),
        pytest.param((" --require-hashes", ""), id="no hashes"),
        pytest.param(("bindep pyyaml", "bindep pyyaml wheel"), id="what no lock names"),
        pytest.param(("WORKDIR /runner\n", "ENV PIP_NO_INDEX=\nRUN pip install 'dumb-init==1.2.5'\n"), id="dumb-init"),
    ],
)
def test_an_unlocked_step_would_be_found(containerfile: str, planted: tuple[str, str]) -> None:
    assert planted[0] in containerfile
    assert len(unlocked(containerfile.replace(*planted))) == 1


def test_pip_is_as_it_was_in_images_that_are_made_of_this_one(containerfile: str) -> None:
    assert re.findall(r"^ENV PIP_NO_INDEX=(.*)$", containerfile, re.M) == ["1", ""]


def test_the_lock_is_what_requirements_lock_says_of_the_same_packages() -> None:
    all_of_them = hashes("requirements.lock")
    assert {pin for pin, expected in LOCKED.items() if all_of_them.get(pin) != expected} == set(), "run: make lock"


def test_the_lock_holds_what_runs_and_no_tool_of_development() -> None:
    asked = {*PROJECT["project"]["dependencies"], *PROJECT["dependency-groups"]["image"]}
    assert asked <= LOCKED.keys(), "run: make lock"
    tools = {re.split(r"[=<>]", text)[0].lower() for text in PROJECT["dependency-groups"]["dev"]}
    assert tools & NAMES == set()


@pytest.mark.parametrize("lock", ["requirements.lock", "execution-environment.lock"])
def test_a_lock_names_no_index(lock: str) -> None:
    assert not re.search(r"://|--(index|find|extra)", (ROOT / lock).read_text(encoding="utf-8"))
