# Copyright (c) 2026 The ocrfleet.gpu_stack contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Whether FlashInfer, vllm, the compiler and the machine fit together: first looked at whole, then judged in parts."""

from __future__ import annotations

import os
from collections.abc import Mapping

from ansible_collections.ocrfleet.gpu_stack.plugins.module_utils import (
    activation,
    distributions,
    flashinfer_install,
    flashinfer_policy,
    gpu_presence,
    nvidia,
    staging,
)
from ansible_collections.ocrfleet.gpu_stack.plugins.module_utils.distributions import Distribution

# Attention backends of vllm that leave FlashInfer alone.
UNUSED = ("FLASH_ATTN", "FLEX_ATTENTION")


def look(stage: staging.Stage, env: dict[str, str], timeout: float, scratch: str) -> dict:
    """Everything that can be found out, without any judgement."""
    installed = distributions.installed(stage.tree)
    started_with = {**activation.read(stage.tree), **env}
    variables = {**os.environ, **started_with}
    gpu = nvidia.survey(timeout=min(timeout, 30))
    probe = flashinfer_install.probe(stage, scratch, timeout, started_with)
    capability = probe["capability"] or gpu_presence.capability(gpu.gpus, variables)
    path = flashinfer_install.search_path(stage.tree, variables)
    home = flashinfer_install.cuda_home(variables, path)
    return {
        **look_at_files(stage.tree, installed, capability, variables),
        "probe": probe,
        "compiler": flashinfer_install.compiler(
            home, stage.tree, path, variables, probe["torch_cuda"], min(timeout, 30)
        ),
        "cuda_libraries": {
            "installed": flashinfer_install.cuda_distributions(installed),
            "loaded": probe["loaded"],
        },
        "gpu": gpu,
    }


def look_at_files(
    tree: str, installed: Mapping[str, Distribution], capability: str, variables: Mapping[str, str]
) -> dict:
    """What needs no import: packages, what vllm makes of them, compiled modules, caches, variables.

    `capability` is the compute capability of the GPU, "" where it is not known.
    """
    packages, mismatches = flashinfer_install.packages(installed)
    own = packages["flashinfer-python"]
    vllm = installed["vllm"].version if "vllm" in installed else ""
    pinned = flashinfer_policy.declared_by_vllm(installed)
    declares = f"{flashinfer_policy.PACKAGE}=={pinned}" if pinned else ""
    cache = flashinfer_install.workspace(variables)
    return {
        "packages": packages,
        "packages_match": not mismatches if own else None,
        "mismatches": mismatches,
        "vllm": {
            "version": vllm,
            "declares": declares,
            "satisfied": flashinfer_install.satisfies(own, declares),
            "compatibility": flashinfer_install.compatibility(vllm, own) if vllm and own else {},
            "uses": flashinfer_install.vllm_use(vllm, own, capability, variables) if vllm else {},
        },
        "compiled_modules": flashinfer_install.modules_of(tree, installed, capability, cache),
        "caches": flashinfer_install.caches(variables),
        "variables": {name: variables[name] for name in flashinfer_install.VARIABLES if variables.get(name)},
    }


def judge_packages(found: dict) -> tuple[list[str], list[str]]:
    """Problems and remarks about which packages meet, and whether they import."""
    problems, remarks = list(found["mismatches"]), []
    own, vllm, probe = found["packages"]["flashinfer-python"], found["vllm"], found["probe"]
    problems += [text for text in (probe["problem"],) if text]
    if probe["torch_problem"]:
        problems.append(f"PyTorch does not import: {probe['torch_problem']}")
    if own and probe["flashinfer_problem"]:
        problems.append(f"FlashInfer {own} does not import: {probe['flashinfer_problem']}")
    if own and vllm["satisfied"] is False:
        remarks.append(f"vllm {vllm['version']} asks for {vllm['declares']}, found {own}")
    return problems, remarks


def judge_use(found: dict) -> tuple[list[str], list[str]]:
    """Problems and remarks about what vllm takes of FlashInfer, and by which variables."""
    problems: list[str] = []
    remarks: list[str] = []
    own, vllm = found["packages"]["flashinfer-python"], found["vllm"]
    compatibility, uses = vllm["compatibility"], vllm["uses"]
    for path, used in (("attention", uses.get("attention")), ("sampler", uses.get("sampler"))):
        if compatibility.get(path) == "breaks":
            text = (
                f"vllm {vllm['version']}'s {path} path breaks with FlashInfer {own} ({compatibility['source']}); "
                f"install {vllm['declares'] or 'the version that vllm asks for'}"
            )
            (problems if used == "FLASHINFER" else remarks).append(text)
    variables = found["variables"]
    if variables.get(activation.BACKEND) == "FLASHINFER" and activation.breaks_vision(vllm["version"]):
        problems.append(
            "VLLM_ATTENTION_BACKEND=FLASHINFER: the vision encoder reads it too and raises on vllm 0.11.0; unset it"
        )
    if variables.get("FLASHINFER_DISABLE_VERSION_CHECK"):
        problems.append("FLASHINFER_DISABLE_VERSION_CHECK hides packages that do not match; unset it")
    return problems, remarks


def is_unused(vllm: dict) -> bool:
    """Whether it is known that vllm takes nothing of FlashInfer, so that nothing is compiled."""
    return (
        bool(vllm["version"]) and vllm["uses"].get("sampler") == "PYTORCH" and vllm["uses"].get("attention") in UNUSED
    )


def judge_compiling(found: dict) -> tuple[list[str], list[str]]:
    """Problems and remarks about where compiled kernels come from."""
    problems: list[str] = []
    remarks: list[str] = []
    own = found["packages"]["flashinfer-python"]
    missing, mismatch = found["compiler"]["missing"], found["compiler"]["mismatch"]
    source, _why = flashinfer_install.kernel_source(
        found["packages"], found["packages_match"], found["compiled_modules"], found["compiler"]
    )
    packed = source in ("pack", "jit_cache")
    unused = is_unused(found["vllm"])
    if mismatch:
        (remarks if packed or unused or found["gpu"].absent else problems).append(mismatch)
    if missing and packed:
        remarks += [f"only packed kernels can be used: {text}" for text in missing]
    elif missing and found["gpu"].absent:
        remarks += [f"no kernel can be compiled here: {text}" for text in missing]
    elif missing and unused:
        remarks += [f"no kernel can be compiled, and vllm asks for none ({found['vllm']['uses']['why']}): {missing[0]}"]
    elif missing:
        problems += missing
        if flashinfer_install.is_packed(found["compiled_modules"]):
            problems.append(
                f"FlashInfer {own} asks nvcc for its version before it takes a packed kernel: put an nvcc on PATH, or "
                f"take {flashinfer_install.PACK_WITHOUT_NVCC} or newer"
            )
        if found["vllm"]["uses"].get("sampler") == "FLASHINFER":
            problems.append(
                "OlmOCR would not start: vllm compiles FlashInfer's sampling module at every start; mend the above, "
                "install a kernel pack, or set VLLM_USE_FLASHINFER_SAMPLER=0"
            )
    return problems, remarks


def judge_modules(found: dict) -> tuple[list[str], list[str]]:
    """Problems about compiled kernels that are there, and the folders they are kept in."""
    cuda = found["probe"]["torch_cuda"]
    problems = [text for text in (flashinfer_install.foreign(found["compiled_modules"]),) if text]
    for module in found["compiled_modules"]:
        if cuda and module["cudart"] and module["cudart"] != cuda.split(".")[0]:
            problems.append(
                f"{module['path']} loads libcudart.so.{module['cudart']} beside PyTorch's CUDA {cuda}: it was compiled "
                "with another nvcc; remove its folder and compile again"
            )
    for cache in found["caches"]:
        if not cache["writable"]:
            where = "set FLASHINFER_WORKSPACE_BASE" if cache["name"] == "flashinfer" else "correct its rights"
            problems.append(f"the cache of {cache['name']}, {cache['path']}, cannot be written by this user; {where}")
    return problems, []


def judge_libraries(found: dict) -> tuple[list[str], list[str]]:
    """Problems and remarks about CUDA libraries of different major versions."""
    problems, remarks = [], []
    runtimes = flashinfer_install.runtimes(found["cuda_libraries"]["loaded"])
    if len(runtimes) > 1:
        problems.append(
            f"importing PyTorch and FlashInfer loads more than one CUDA runtime, {' and '.join(runtimes)}: expected "
            "one; remove what brings the other, or unset the LD_LIBRARY_PATH or LD_PRELOAD that leads to it"
        )
    cuda = found["probe"]["torch_cuda"].split(".")[0]
    for major, names in found["cuda_libraries"]["installed"].items():
        if cuda and major != cuda:
            remarks.append(f"packages for CUDA {major} beside PyTorch's CUDA {cuda}: {', '.join(names)}")
    return problems, remarks


def judge(found: dict) -> tuple[list[str], list[str]]:
    """All problems and remarks. Without FlashInfer only the machine and the packages are judged."""
    parts = [judge_packages(found), judge_use(found), judge_libraries(found)]
    if found["packages"]["flashinfer-python"]:
        parts += [judge_compiling(found), judge_modules(found)]
    else:
        parts.append(([], ["flashinfer-python is not installed"]))
    if found["probe"]["torch_cuda"]:
        own = bool(found["packages"]["flashinfer-python"])
        parts.append(nvidia.preflight(found["gpu"], found["probe"]["torch_cuda"], found["probe"]["architectures"], own))
    if found["gpu"].absent:
        parts.append(([], [found["gpu"].absent]))
    return [text for problems, _remarks in parts for text in problems], [
        text for _problems, remarks in parts for text in remarks
    ]
