# Copyright (c) 2026 The ocrfleet.gpu_stack contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Who of a wave builds the pack, who gets it, and what is said where none comes.

ansible-playbook, the role, its modules, ssh-keygen and the store are real; PyTorch, FlashInfer and the toolkit are
stand-ins, whose compiler writes down that it was asked.
"""

from __future__ import annotations

import json
import os
import platform
import re
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import ad_hoc
import pytest
import yaml
from ansible.parsing.dataloader import DataLoader
from ansible.template import Templar, trust_as_template
from made_environment import SITE, add_distribution

ROOT = Path(__file__).resolve().parents[2]
FAKE = ROOT / "tests/unit/fixtures/gpu"
PLAY = [
    {
        "hosts": "all",
        "gather_facts": False,
        "environment": {
            "FAKE": "{{ fake }}",
            "FAKE_COMPILE": "{{ fake_compile | default('') }}",
            "CXX": "{{ cxx | default('c++') }}",
            "CUDA_HOME": "/nonexistent",
        },
        "tasks": [
            {
                "block": [
                    {"ansible.builtin.include_role": {"name": "ocrfleet.gpu_stack.kernel_pack"}},
                    {
                        "ansible.builtin.copy": {
                            "content": "{{ {'due': __kernel_pack_due, 'placed': __kernel_pack_placed} | to_json }}",
                            "dest": "{{ result }}",
                        },
                        "check_mode": False,
                    },
                ],
                "rescue": [
                    {
                        "ansible.builtin.copy": {
                            "content": "{{ {'failed': [ansible_failed_result.msg] | flatten | join(' ')} | to_json }}",
                            "dest": "{{ result }}",
                        },
                        "check_mode": False,
                    }
                ],
            }
        ],
    }
]


class Wave:
    """Hosts of one play. `folder` holds their environments, the store, and one toolkit."""

    def __init__(self, folder: Path) -> None:
        self.folder, self.hosts, self.said = folder, {}, ""
        self.store = folder / "store"
        cuda = folder / "cuda"
        for path in ("bin/nvcc", "include/curand.h", "include/cublasLt.h"):
            (cuda / path).parent.mkdir(parents=True, exist_ok=True)
            (cuda / path).write_text("#!/bin/sh\necho 'release 12.8, V12.8.61'\n")
        (cuda / "bin/nvcc").chmod(0o755)

    def add(self, name: str, gpu: bool = True, **settings: Any) -> None:
        tree = self.folder / name
        for kind in ("torch", "flashinfer"):
            shutil.copytree(FAKE / f"fake_{kind}" / kind, tree / SITE / kind)
        add_distribution(tree, "torch", "2.8.0", {})
        add_distribution(tree, "flashinfer_python", "0.6.13", {})
        programs = {"python": f'PYTHONPATH={tree / SITE} exec {sys.executable} "$@"', "ninja": "", "c++": ""}
        for program, text in programs.items():
            (tree / "bin").mkdir(exist_ok=True)
            (tree / "bin" / program).write_text(f"#!/bin/sh\n{text}\n")
            (tree / "bin" / program).chmod(0o755)
        self.hosts[name] = {
            "stack_environment": str(tree),
            "kernel_pack_host_dir": str(self.folder / f"{name}-packs"),
            "flashinfer_cuda_home": str(self.folder / "cuda"),
            "fake": "" if gpu else "no_gpu",
            "__stack_machine": {"machine": {"gpus": {"devices": ["a stand-in"] if gpu else []}}},
            "result": str(self.folder / f"{name}.json"),
            **settings,
        }

    def run(self, *arguments: str) -> dict[str, dict]:
        """Run the role on all hosts; what it left behind, by host."""
        common = {
            "ansible_connection": "local",
            "ansible_python_interpreter": sys.executable,
            "kernel_pack_store": str(self.store),
            "stack_bundle": "",
            "stack_root": str(self.folder),
            "__kernel_pack_placed": {},  # where nothing was
        }
        inventory, play = self.folder / "hosts.json", self.folder / "play.yml"
        inventory.write_text(json.dumps({"all": {"vars": common, "hosts": self.hosts}}))
        play.write_text(yaml.safe_dump(PLAY))
        _code, self.said = ad_hoc.play(self.folder, "-i", inventory, *arguments, play)
        return {name: self.result(name) for name in self.hosts}

    def result(self, name: str) -> dict:
        path = self.folder / f"{name}.json"
        assert path.exists(), self.said
        found = json.loads(path.read_text())
        path.unlink()
        return found

    def compiled(self) -> list[str]:
        """The hosts whose compiler was asked."""
        return sorted({path.relative_to(self.folder).parts[0] for path in self.folder.rglob("sampling.json")})

    def packs(self) -> list[str]:
        return sorted(path.name for path in self.store.glob("*"))


@pytest.fixture
def wave(tmp_path: Path) -> Wave:
    return Wave(tmp_path)


def has_pack(wave: Wave, name: str) -> bool:
    return (wave.folder / name / SITE / "flashinfer/data/aot/ocrfleet-pack.json").exists()


def test_one_host_of_a_wave_builds_and_the_others_get_its_pack(wave: Wave) -> None:
    wave.add("cannot", cxx="/none", kernel_pack_architecture="9.0")
    wave.add("first", kernel_pack_architecture="9.0")
    wave.add("second", kernel_pack_architecture="9.0")
    found = wave.run()
    assert not any("failed" in result for result in found.values()), found
    assert wave.compiled() == ["first-packs"]
    (pack,) = wave.packs()
    assert f"-{platform.machine()}-glibc{os.confstr('CS_GNU_LIBC_VERSION').split()[1]}-glibcxx3.4." in pack
    assert all(has_pack(wave, name) for name in wave.hosts)


def test_the_pack_is_for_the_gpu_that_vllm_will_be_started_on(wave: Wave) -> None:
    """Of a host with GPUs of two kinds. It is chosen, built, proven and placed before the start file is written.

    The arithmetic of the stand-in is none, so what its smoke kernels say is put right on its way.
    """
    python = wave.folder / "kind-python"
    kinder = 's|"status": "failed"|"status": "passed"|; s|"failed": true|"failed": false|'
    python.write_text(f"#!/bin/sh\n'{sys.executable}' \"$@\" | sed -e '{kinder}'\n")
    python.chmod(0o755)
    second = {"CUDA_VISIBLE_DEVICES": "1"}
    wave.add("one", activation_env=second, ansible_python_interpreter=str(python))
    wave.add("two", activation_env=second)
    found = wave.run()
    assert not any("failed" in result for result in found.values()), found
    assert ["-sm89-" in name for name in wave.packs()] == [True]
    assert {result["placed"]["manifest"]["architecture"] for result in found.values()} == {"89"}
    wave.hosts["two"]["activation_env"] = {}
    assert wave.run("--check")["two"]["due"] is True, "the first GPU is another one"
    assert "two would build flashinfer-0.6.13-torch-2.8.0+cu128" in " ".join(wave.said.split())
    assert "-sm90-" in wave.said


def test_a_builder_that_fails_is_named_by_those_who_waited(wave: Wave) -> None:
    wave.add("first", kernel_pack_architecture="9.0", fake_compile="fail")
    wave.add("second", kernel_pack_architecture="9.0")
    found = wave.run()
    assert "Ninja build failed" in found["first"]["failed"]
    assert re.search("expected flashinfer-0.6.13-.* from first, .* found none", found["second"]["failed"])


HINDRANCES = {
    "compiler": ({"cxx": "/none"}, "expected a toolkit that compiles for this PyTorch, found: C++ compiler: expected"),
    "unsigned": (
        {"kernel_pack_public_keys": ["ssh-ed25519 AAAA x"]},
        "expected a private key in kernel_pack_signing_key",
    ),
    "no-key": ({"kernel_pack_signing_key": "/none"}, "expected the private key /none of kernel_pack_signing_key"),
}


def test_what_keeps_a_pack_from_being_built_is_said_before_anything_is_compiled(wave: Wave) -> None:
    """It fails whoever asked for the pack by naming an architecture; other hosts go on without one, and are told."""
    for name, (settings, _says) in HINDRANCES.items():
        wave.add(name, **settings)
        wave.add(f"{name}-asked", **settings, kernel_pack_architecture="9.0")
    found = wave.run()
    said = " ".join(wave.said.split())
    for name, (_settings, says) in HINDRANCES.items():
        assert says in found[f"{name}-asked"]["failed"]
        assert f"Goes on without a kernel pack: {says}" in said
        assert found[name] == {"due": False, "placed": {}}
    assert wave.compiled() == []


def test_a_signed_pack_is_built_signed_and_placed(wave: Wave) -> None:
    key = wave.folder / "key"
    subprocess.run(["ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-f", str(key)], check=True)
    public = key.with_suffix(".pub").read_text()
    wave.add("one", kernel_pack_signing_key=str(key), kernel_pack_public_keys=[public], kernel_pack_architecture="9.0")
    placed = wave.run()["one"]["placed"]
    assert placed["signed_by"].startswith("SHA256:")
    assert placed["manifest"]["nvcc"] == "12.8"
    assert [name.endswith(".sig") for name in wave.packs()] == [False, True]


def test_a_pack_is_due_where_none_that_fits_is_at_hand(wave: Wave) -> None:
    """What the role flashinfer asks where the packages are as they should be."""
    wave.add("one")
    named = ("-e", "kernel_pack_architecture=9.0")
    assert wave.run("--check")["one"]["due"] is True
    assert wave.compiled() == []
    wave.run(*named)
    assert wave.run("--check")["one"]["due"] is False
    shutil.rmtree(wave.store)
    assert wave.run("--check")["one"]["due"] is False, "it is placed"
    assert wave.run("--check", *named)["one"]["due"] is True, "the builder's store is to get one"


@pytest.mark.parametrize("name", ["../secret", "/etc/passwd", "flashinfer-/../../secret.tar.xz"])
def test_what_a_host_calls_its_pack_leads_to_no_other_file_of_the_control_node(wave: Wave, name: str) -> None:
    """A host answers as it likes. Its answer is part of a path here: of what is sent to it, fetched and signed."""
    (wave.folder / "secret").write_text("of the control node")
    python = wave.folder / "lying-python"
    lie = f's|"name": "flashinfer-[^"]*"|"name": "{name}"|'
    python.write_text(f"#!/bin/sh\n'{sys.executable}' \"$@\" | sed -e '{lie}'\n")
    python.chmod(0o755)
    wave.add("liar", ansible_python_interpreter=str(python), kernel_pack_architecture="9.0")
    assert "expected the name of a kernel pack" in wave.run()["liar"]["failed"]
    assert wave.packs() == [] and wave.compiled() == []
    assert not list(wave.folder.rglob("liar-packs/*"))


def test_a_pack_that_must_not_be_used_is_taken_out_where_none_takes_its_place(wave: Wave) -> None:
    """Once unsigned packs are refused, and after an upgrade, FlashInfer would go on loading the old one."""
    wave.add("one", kernel_pack_architecture="9.0")
    wave.run()
    assert has_pack(wave, "one")
    shutil.rmtree(wave.store)
    wave.hosts["one"].update(kernel_pack_public_keys=["ssh-ed25519 AAAA x"], kernel_pack_architecture="")
    assert wave.run("--check")["one"]["placed"]["differs"] is True
    assert has_pack(wave, "one")
    placed = wave.run()["one"]["placed"]
    assert (placed["removed"], placed["changed"]) == (["prefill_fa2", "prefill_fa3", "sampling"], True)
    assert "expected the signature of a trusted key, found none" in placed["objection"]
    assert not has_pack(wave, "one")
    assert "differs" not in wave.run()["one"]["placed"], "nothing is left to take out"


def test_a_builder_alone_leaves_the_environment_as_it_is(wave: Wave) -> None:
    wave.add("one", gpu=False, kernel_pack_architecture="9.0")
    wave.add("nothing", gpu=False)
    found = wave.run("-e", '{"__kernel_pack_only_builds": true}')
    assert len(wave.packs()) == 1
    assert not has_pack(wave, "one")
    assert "expected a GPU, or kernel_pack_architecture" in found["nothing"]["failed"]


@pytest.mark.parametrize(
    ("facts", "differs"),
    [
        ({}, False),
        ({"__kernel_pack_due": True}, True),
        ({"__kernel_pack_placed": {"differs": True, "written": []}}, True),
        ({"__kernel_pack_placed": {"differs": False, "written": []}, "__kernel_pack_due": False}, False),
        ({"__activation": {"written": ["etc/ocrfleet/flashinfer.env"]}}, True),
    ],
)
def test_what_makes_a_transaction_worth_it_where_the_packages_are_there(facts: dict, differs: bool) -> None:
    variables = yaml.safe_load((ROOT / "roles/flashinfer/vars/main.yml").read_text())
    expression = trust_as_template(variables["__flashinfer_start_differs"])
    asked = {"__activation": {}, "__kernel_pack_placed": {}, **facts}
    assert Templar(loader=DataLoader(), variables=asked).template(expression) is differs
