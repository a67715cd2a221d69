# Copyright (c) 2026 The ocrfleet.gpu_stack contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""A model's weights: whole or not, fetched or not. The hub is a stand-in; the module, run by Ansible, is real."""

from __future__ import annotations

import json
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import ad_hoc
import pytest
from ansible_collections.ocrfleet.gpu_stack.plugins.module_utils import model_weights

ROOT = Path(__file__).resolve().parents[2]
NAME = "owner/model"
# huggingface_hub as far as the module uses it: its cache is the folder HUB, which lies in the environment.
HUB = """
import os, pathlib, shutil
HUB = pathlib.Path(os.environ["STAND_IN_HUB"])
def snapshot_download(repo_id, revision=None, local_files_only=False):
    cache = HUB / "cache" / repo_id
    with open(HUB / "asked", "a") as file:
        file.write(f"{repo_id} {revision} {local_files_only}\\n")
    if not local_files_only:
        if not (HUB / "remote" / repo_id).exists():
            raise OSError("404 for https://ann:secret@hub.invalid/x")
        print("some progress")
        shutil.copytree(HUB / "remote" / repo_id, cache, dirs_exist_ok=True)
    elif not cache.exists():
        raise FileNotFoundError("not in the cache")
    return str(cache)
"""


def write_shard(path: Path, size: int = 16) -> None:
    """A safetensors file with one tensor of `size` bytes."""
    header = json.dumps({"__metadata__": {}, "w": {"dtype": "U8", "shape": [size], "data_offsets": [0, size]}}).encode()
    path.write_bytes(len(header).to_bytes(8, "little") + header + bytes(size))


def make_model(folder: Path) -> Path:
    folder.mkdir(parents=True)
    for name in model_weights.NEEDED:
        (folder / name).write_text("{}")
    for name in ("one.safetensors", "two.safetensors"):
        write_shard(folder / name)
    weights = {"a": "one.safetensors", "b": "two.safetensors", "c": "one.safetensors"}
    (folder / model_weights.INDEX).write_text(json.dumps({"weight_map": weights}))
    return folder


def cut(path: Path, size: int) -> None:
    path.write_bytes(path.read_bytes()[:size])


def only_one_shard(folder: Path) -> None:
    (folder / model_weights.INDEX).unlink()


@pytest.mark.parametrize(
    ("harm", "said"),
    [
        (lambda folder: None, []),
        (only_one_shard, []),
        (lambda folder: (folder / "two.safetensors").unlink(), ["two.safetensors: not there"]),
        (lambda folder: cut(folder / "two.safetensors", 90), ["two.safetensors: 90 bytes, its header says"]),
        (lambda folder: cut(folder / "two.safetensors", 20), ["two.safetensors: its header is cut short"]),
        (lambda folder: cut(folder / "two.safetensors", 3), ["two.safetensors: its header is cut short"]),
        (
            lambda folder: (folder / "one.safetensors").write_bytes(b"\2" + bytes(7) + b"[]"),
            ["one.safetensors: its he"],
        ),
        (lambda folder: (folder / "config.json").unlink(), ["config.json: not there"]),
        (
            lambda folder: (folder / model_weights.INDEX).write_text('{"weight'),
            ["model.safetensors.index.json: cannot"],
        ),
        (lambda folder: (folder / model_weights.INDEX).write_text("[]"), ["model.safetensors.index.json: cannot"]),
    ],
)
def test_what_a_model_lacks(tmp_path: Path, harm: Callable[[Path], Any], said: list[str]) -> None:
    folder = make_model(tmp_path / "model")
    harm(folder)
    found = model_weights.problems(str(folder))
    assert len(found) == len(said)
    assert all(text.startswith(start) for text, start in zip(found, said, strict=True)), found


def test_no_folder_and_no_weights(tmp_path: Path) -> None:
    assert model_weights.problems(str(tmp_path / "none")) == ["there is no such folder"]
    assert model_weights.problems(str(tmp_path))[-1] == "no *.safetensors"


class Host:
    def __init__(self, folder: Path) -> None:
        self.folder = folder
        (folder / "env/bin").mkdir(parents=True)
        (folder / "env/huggingface_hub.py").write_text(HUB)
        python = folder / "env/bin/python"
        python.write_text(f'#!/bin/sh\nPYTHONPATH="{folder}/env" exec {sys.executable} "$@"\n')
        python.chmod(0o755)

    def run(self, *options: str, **arguments: Any) -> dict[str, Any]:
        given = {"environment": str(self.folder / "env"), "model": NAME, **arguments}
        return ad_hoc.run("model_weights", given, *options, variables={"STAND_IN_HUB": str(self.folder)})

    def asked(self) -> list[str]:
        path = self.folder / "asked"
        lines = path.read_text().splitlines() if path.exists() else []
        path.unlink(missing_ok=True)
        return lines


@pytest.fixture
def host(tmp_path: Path) -> Host:
    return Host(tmp_path)


def test_a_model_is_fetched_once(host: Host) -> None:
    make_model(host.folder / "remote" / NAME)
    foretold = host.run("--check")
    assert (foretold["changed"], foretold["path"], host.asked()) == (True, "", [f"{NAME} None True"])
    fetched = host.run(revision="abc")
    assert (fetched["changed"], fetched["path"]) == (True, str(host.folder / "cache" / NAME))
    assert host.asked() == [f"{NAME} abc True", f"{NAME} abc False"]
    assert host.run()["changed"] is False
    # A download that was cut short is in the cache, and is no model.
    cut(host.folder / "cache" / NAME / "two.safetensors", 90)
    assert "two.safetensors: 90 bytes" in host.run(offline=True)["msg"]
    assert host.run()["changed"] is True
    assert host.run()["changed"] is False


def test_what_cannot_be_had_is_told(host: Host) -> None:
    said = host.run()["msg"]
    assert "could not be fetched: OSError: 404 for https://hub.invalid/x" in said and "secret" not in said
    host.asked()
    assert "nothing may be fetched, found nothing" in host.run(offline=True)["msg"]
    assert host.asked() == [f"{NAME} None True"]
    assert "expected OWNER/NAME" in host.run(model="olmocr")["msg"]


def test_a_model_at_a_path_is_only_looked_at(host: Host) -> None:
    folder = make_model(host.folder / "own")
    found = host.run(model=str(folder))
    assert (found["changed"], found["path"], host.asked()) == (False, str(folder), [])
    (folder / "one.safetensors").unlink()
    failed = host.run(model=str(folder))
    assert failed["problems"] == ["one.safetensors: not there"]
    assert f"expected a whole model at {folder}" in failed["msg"]
