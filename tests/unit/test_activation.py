# Copyright (c) 2026 The ocrfleet.gpu_stack contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""What OlmOCR's vllm is started with: what is decided, and what shells make of the files."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from pathlib import Path

import ad_hoc
import pytest
from ansible_collections.ocrfleet.gpu_stack.plugins.module_utils import (
    activation,
    flashinfer_install,
    kernel_pack,
    tree_file,
)
from ansible_collections.ocrfleet.gpu_stack.plugins.module_utils.distributions import installed
from made_environment import SITE, add_distribution, make_environment

GOOD = {"cuda_home": "/usr/local/cuda-12.8", "nvcc_version": "12.8", "nvcc_problem": "", "missing": [], "mismatch": ""}
WRONG = {**GOOD, "cuda_home": "/usr/local/cuda", "nvcc_version": "13.0", "mismatch": "nvcc 13.0 does not match"}
NONE = {**GOOD, "cuda_home": "", "nvcc_version": "", "nvcc_problem": "none", "missing": ["nvcc: no CUDA toolkit"]}
PACK = [{"name": "sampling", "origin": "pack", "path": "/e/sampling.so", "cudart": "12"}]


def decide(flashinfer: str = "0.3.1", **more):
    asked = {
        "packages": {"flashinfer-python": flashinfer, "flashinfer-cubin": "", "flashinfer-jit-cache": ""},
        "match": True,
        "vllm": "0.11.0",
        "torch": "2.8.0",
        "capability": "8.9",
        "modules": [],
        "compiler": GOOD,
        "sampler": "auto",
        "cache": "",
        "more": {},
    }
    return activation.decide(**{**asked, **more})


@pytest.mark.parametrize(
    ("asked", "sampler", "kernels", "why"),
    [
        ({}, "on", "compiler", "nvcc 12.8 compiles the kernels"),
        ({"compiler": NONE}, "off", "nowhere", "nvcc: no CUDA toolkit"),
        ({"compiler": WRONG}, "off", "nowhere", "nvcc 13.0 does not match"),
        ({"compiler": NONE, "sampler": "on"}, "on", "nowhere", "no CUDA toolkit"),
        ({"sampler": "off"}, "off", "compiler", "switched off by the option"),
        ({"flashinfer": "0.6.13", "compiler": NONE, "modules": PACK}, "on", "pack", "a kernel pack"),
        # 0.3.1 asks nvcc for its version even where a pack is; any will do.
        ({"compiler": NONE, "modules": PACK}, "off", "nowhere", "no CUDA toolkit"),
        ({"compiler": WRONG, "modules": PACK}, "on", "pack", "a kernel pack"),
        ({"flashinfer": ""}, "absent", "nowhere", "not installed"),
    ],
)
def test_the_sampler_is_on_where_its_kernels_can_be_had(asked, sampler, kernels, why):
    found = decide(**asked)
    assert (found["sampler"], found["kernels"]) == (sampler, kernels)
    assert why in found["why"]
    assert found["variables"].get("VLLM_USE_FLASHINFER_SAMPLER") == {"on": "1", "off": "0", "absent": None}[sampler]
    # A compiler of another CUDA is recommended to nobody but a FlashInfer that wants to know its version alone.
    told = "/usr/local/cuda" if asks_for_the_version(asked) else "/usr/local/cuda-12.8"
    assert found["variables"].get("CUDA_HOME") in (None, told)
    assert ("CUDA_HOME" in found["variables"]) >= asks_for_the_version(asked)
    assert ("MAX_JOBS" in found["variables"]) == (kernels == "compiler"), "ninja starts one for each core otherwise"


def asks_for_the_version(asked: dict) -> bool:
    return asked == {"compiler": WRONG, "modules": PACK}


@pytest.mark.parametrize(
    ("asked", "backend"),
    [
        ({"compiler": NONE}, "FLASH_ATTN"),
        ({"compiler": WRONG, "modules": PACK}, "FLASH_ATTN"),  # a pack has the sampler's module
        ({}, None),
        ({"compiler": NONE, "vllm": "0.12.0"}, None),
        ({"compiler": NONE, "capability": "9.0"}, None),
        ({"compiler": NONE, "more": {"VLLM_ATTENTION_BACKEND": "XFORMERS"}}, "XFORMERS"),
    ],
)
def test_where_vllm_prefers_flashinfers_attention_it_has_to_be_there(asked, backend):
    """On compute capability 10.0 vllm 0.11.0 compiles FlashInfer's attention when it starts, sampler or not."""
    assert decide(**{"capability": "10.0", **asked})["variables"].get("VLLM_ATTENTION_BACKEND") == backend


def test_a_toolkit_of_the_environment_is_told_by_the_path_that_it_will_have():
    """conda's nvcc lies in the candidate, whose own path is the baseline's after the exchange."""
    for home, told in {
        "/envs/.new": "/envs/env",
        "/envs/.new/cuda": "/envs/env/cuda",
        "/envs/.newer": "/envs/.newer",
    }.items():
        assert activation.at_its_place({**GOOD, "cuda_home": home}, "/envs/.new", "/envs/env")["cuda_home"] == told
    assert activation.at_its_place(NONE, "/envs/.new", "/envs/env") == NONE


def test_caches_are_kept_apart_by_what_compiled_kernels_depend_on():
    variables = decide(cache="/srv/cache")["variables"]
    assert variables["FLASHINFER_WORKSPACE_BASE"] == "/srv/cache/flashinfer-0.3.1-torch-2.8.0"
    assert variables["VLLM_CACHE_ROOT"] == "/srv/cache/vllm"


@pytest.mark.parametrize(
    ("more", "says"),
    [
        (
            {"VLLM_ATTENTION_BACKEND": "FLASHINFER"},
            "expected another backend or none, found .*raises on vllm 0.11.0.*leave",
        ),
        ({"A": "it's"}, "A: expected .*, found another; correct"),
        ({"A": "two\nlines"}, "A: expected .*, found another; correct"),
        ({"A B": "1"}, "A B: expected .*, found another; correct"),
    ],
)
def test_what_would_break_is_refused(more, says):
    with pytest.raises(activation.Refused, match=says):
        decide(more=more)


def test_another_vllm_may_have_the_backend():
    more = {"VLLM_ATTENTION_BACKEND": "FLASHINFER"}
    assert decide(vllm="0.12.0", more=more)["variables"]["VLLM_ATTENTION_BACKEND"] == "FLASHINFER"
    assert "UnsetEnvironment" not in activation.drop_in("/srv/env", "0.12.0")
    assert "UnsetEnvironment=VLLM_ATTENTION_BACKEND=FLASHINFER\n" in activation.drop_in("/srv/env", "0.11.0")


def write(tree: Path, decision: dict) -> list[str]:
    wanted = activation.files(str(tree), str(tree), decision, "0.11.0")
    changes = activation.differing(str(tree), wanted)
    activation.write(str(tree), {path: wanted[path] for path in changes})
    return sorted(changes)


SHOW = 'echo "${VLLM_USE_FLASHINFER_SAMPLER-none} ${NOTE-none} ${VLLM_ATTENTION_BACKEND-none}"'
BEFORE = {"PATH": os.environ["PATH"], "NOTE": "mine", "VLLM_ATTENTION_BACKEND": "FLASHINFER"}


def shell(name: str, script: str) -> list[str]:
    done = subprocess.run([name, "-euc", script], env=BEFORE, text=True, capture_output=True, check=True)
    return done.stdout.splitlines()


@pytest.mark.parametrize("name", ["sh", "bash"])
def test_a_shell_gets_the_variables_and_gives_them_back(tmp_path, name):
    tree = make_environment(tmp_path / "env")
    (tree / "conda-meta").mkdir()
    write(tree, decide(compiler=NONE, more={"NOTE": "a b $HOME"}))
    scripts = [tree / "etc/conda" / f"{which}.d/ocrfleet-flashinfer.sh" for which in ("activate", "deactivate")]
    # Twice, as conda does when an active environment is activated again.
    told = shell(name, f". {scripts[0]}; . {scripts[0]}; {SHOW}; . {scripts[1]}; {SHOW}; . {scripts[1]}")
    assert told == ["0 a b $HOME none", "none mine FLASHINFER"]


def test_a_venvs_own_script_activates_and_deactivates(tmp_path):
    tree = tmp_path / "a venv"
    subprocess.run([sys.executable, "-m", "venv", "--without-pip", tree], check=True)
    script = (tree / "bin/activate").read_bytes()
    assert "bin/activate" in write(tree, decide(compiler=NONE))
    assert write(tree, decide(compiler=NONE)) == []
    told = shell("bash", f"set +u; . '{tree}/bin/activate'; {SHOW}; deactivate; {SHOW}")
    assert told == ["0 mine none", "none mine FLASHINFER"]
    write(tree, decide(flashinfer=""))
    assert (tree / "bin/activate").read_bytes() == script
    assert not list((tree / "etc/ocrfleet").iterdir())


def test_a_file_shared_with_the_baseline_is_replaced_not_written_into(tmp_path):
    tree = make_environment(tmp_path / "env")
    write(tree, decide())
    baseline = tmp_path / "baseline.env"
    os.link(tree / activation.ENVIRONMENT_FILE, baseline)
    os.link(tree / "bin/activate", tmp_path / "activate")
    before = [baseline.read_text(), (tmp_path / "activate").read_text()]
    assert write(tree, decide(sampler="off"))
    assert write(tree, decide(flashinfer=""))
    assert [baseline.read_text(), (tmp_path / "activate").read_text()] == before


def test_no_link_of_the_environments_owner_leads_root_elsewhere(tmp_path):
    tree, outside = make_environment(tmp_path / "env"), tmp_path / "outside"
    (outside / "ocrfleet").mkdir(parents=True)
    secret = outside / "shadow"
    secret.write_text("root:hash\n")
    (tree / "pyvenv.cfg").touch()
    (tree / "bin/activate").unlink()
    (tree / "bin/activate").symlink_to(secret)
    write(tree, decide())
    assert (tree / "bin/activate").is_symlink(), "what it leads to is not read into a file that all may read"
    shutil.rmtree(tree / "etc")
    (tree / "etc").symlink_to(outside)
    with pytest.raises(tree_file.Unsafe, match="found .*/env/etc, which is a link"):
        write(tree, decide())
    assert sorted(outside.rglob("*")) == [outside / "ocrfleet", secret]


@pytest.mark.parametrize(("visible", "kernels"), [("0", "pack"), ("1", "nowhere")])
def test_a_pack_counts_for_the_gpu_that_vllm_is_started_on(tmp_path, visible, kernels):
    """On a host whose GPUs are of two kinds. nvidia-smi stands in, with what it said of two, the second as another."""
    said = (Path(__file__).parent / "fixtures/recorded/nvidia-smi-query-two.txt").read_text().splitlines()
    said[1] = said[1].replace(", 9.0,", ", 8.9,")
    programs, tree = tmp_path / "programs", tmp_path / "env"
    programs.mkdir()
    (programs / "nvidia-smi").write_text("#!/bin/sh\ncat <<'END'\n" + "\n".join(said) + "\nEND\n")
    (programs / "nvidia-smi").chmod(0o755)
    make_environment(tree)
    add_distribution(tree, "flashinfer_python", "0.6.13", {"flashinfer/__init__.py": ""})
    package = str(tree / SITE / "flashinfer")
    modules = {"sampling": b"\x7fELF"}
    listed = kernel_pack.manifest(modules, flashinfer_install.installed_for(str(tree), installed(str(tree)), "9.0"))
    kernel_pack.place(listed, modules, kernel_pack.to_place(listed, modules, package), package)
    env = {"CUDA_DEVICE_ORDER": "PCI_BUS_ID", "CUDA_VISIBLE_DEVICES": visible}
    found = ad_hoc.run(
        "activation",
        {"environment": str(tree), "cuda_home": "/nonexistent", "env": env},
        variables={"PATH": f"{programs}:{os.environ['PATH']}"},
    )
    assert (found["kernels"], found["sampler"]) == (kernels, "on" if kernels == "pack" else "off"), found["why"]


def test_what_is_written_is_read_back(tmp_path):
    tree = make_environment(tmp_path / "env")
    assert activation.read(str(tree)) == {}
    decision = decide(more={"NOTE": "a b"})
    write(tree, decision)
    assert activation.read(str(tree)) == decision["variables"]
    # systemd reads the same file.
    assert "NOTE='a b'\n" in (tree / activation.ENVIRONMENT_FILE).read_text()


def test_the_toolkit_of_torchs_cuda_is_tried_before_the_usual_one(tmp_path, monkeypatch):
    for name in ("cuda", "cuda-12.8"):
        (tmp_path / name).mkdir()
    monkeypatch.setattr(activation, "USUAL", str(tmp_path))
    found = activation.toolkits("", {"CUDA_HOME": str(tmp_path / "cuda")}, "", "12.8")
    assert found == [(str(tmp_path / "cuda"), "CUDA_HOME"), (str(tmp_path / "cuda-12.8"), "the usual place")]
    assert activation.toolkits("/opt/cuda", {}, "", "12.8") == [("/opt/cuda", "cuda_home")]


@pytest.mark.parametrize(("owner", "own"), [(os.geteuid(), False), (os.geteuid() + 1, True)])
def test_nothing_is_compiled_into_another_users_cache(tmp_path, monkeypatch, owner, own):
    """What root leaves there would stop OlmOCR, which runs as its owner."""
    cache = tmp_path / "cache"
    cache.mkdir()
    real = os.stat

    def told(path, *rest, **more):
        found = real(path, *rest, **more)
        return os.stat_result([*found[:4], owner, *found[5:10]]) if str(path) == str(cache) else found

    monkeypatch.setattr(activation.os, "stat", told)
    variables = {
        "FLASHINFER_WORKSPACE_BASE": f"{cache}/0.3.1-cu128",  # not there yet
        "TRITON_CACHE_DIR": str(cache),
        "VLLM_USE_FLASHINFER_SAMPLER": "0",
    }
    found = activation.with_own_caches(variables, "/own")
    moved = {"FLASHINFER_WORKSPACE_BASE": "/own/flashinfer_workspace_base", "TRITON_CACHE_DIR": "/own/triton_cache_dir"}
    assert found == {**variables, **(moved if own else {})}
