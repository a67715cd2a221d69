#!/usr/bin/python
# Copyright (c) 2026 The ocrfleet.gpu_stack contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Look at a machine once: what it is, what it has, what is wrong, and whether anything is left to do."""

from __future__ import annotations

DOCUMENTATION = r"""
module: stack_preflight
short_description: Look at a machine before anything is changed
version_added: 0.1.0
author:
  - The ocrfleet.gpu_stack contributors (@ocrfleet)
description:
  - Reads what the stack needs to know of a machine, and lists everything that stands in the way in C(problems), all
    at once.
  - Also answers the one question of a machine that may be done already. It is C(converged) when its evidence was
    made for the same
    inputs, no check in it failed, and the environment's packages are whole and the same as then.
  - Changes nothing. Judging is left to the caller, so that a fleet's problems can be shown side by side.
options:
  environment:
    description:
      - Prefix of the Python environment, there or not yet.
    type: path
    required: true
  environment_required:
    description:
      - Whether the environment must be there already.
    type: bool
    default: false
  backend:
    description:
      - What makes the environment when it is not there.
    type: str
    choices: [venv, conda]
    default: venv
  python:
    description:
      - Version of the environment's Python, such as V(3.11), or the path of an interpreter. Without it any will do.
    type: str
    default: ""
  platforms:
    description:
      - The supported distributions, as C(ID-VERSION_ID) of os-release; V(rocky-9) stands for its minor versions too.
      - Each has a C(manager), V(apt) or V(dnf), and the C(packages) that are needed there.
    type: dict
    required: true
  cuda_home:
    description:
      - Folder of the CUDA toolkit, looked at besides those in C(/usr/local).
    type: path
    default: /usr/local/cuda
  driver:
    description:
      - With V(present) a missing driver is no problem, because it will be installed.
    type: str
    choices: [check, present]
    default: check
  disk_gb:
    description:
      - Free space, in 10^9 bytes, that a new environment needs. An environment that is there needs a tenth of it.
    type: float
    default: 30
  uv:
    description:
      - Path of uv on the host. When it is there, the package index is asked for O(probe_requirement).
    type: path
  probe_requirement:
    description:
      - A requirement that the package index must have. It is asked for when the environment is yet to be made.
    type: str
  installs:
    description:
      - Whether anything is to be installed. Without that no package index is asked.
    type: bool
    default: true
  sources:
    description:
      - Where packages come from, as in M(ocrfleet.gpu_stack.uv_packages).
    type: dict
    default: {}
  gpu:
    description:
      - V(auto) accepts a host without an NVIDIA GPU, and lists what is wrong with a GPU that is there.
      - V(required) lists a missing GPU too.
      - V(ignored) turns what is wrong with the GPU and its driver into RV(remarks), for a host that uses a server.
    type: str
    choices: [auto, required, ignored]
    default: auto
  cuda:
    description:
      - CUDA version that PyTorch is built for. Where the environment has a PyTorch, its own counts.
    type: str
    default: "12.8"
  architectures:
    description:
      - What the PyTorch for O(cuda) has machine code for, as C(torch.cuda.get_arch_list()) returns it.
    type: list
    elements: str
    default: []
  flashinfer:
    description:
      - Whether FlashInfer is wanted. It needs compute capability 7.5.
    type: bool
    default: true
  evidence:
    description:
      - Folder that holds C(evidence.json) of an earlier run.
    type: path
  spec_hash:
    description:
      - Hash of the inputs, as M(ocrfleet.gpu_stack.check_inputs) returns it.
    type: str
    default: ""
  verify_user:
    description:
      - User whom the checks are to run as. Empty means the user at work.
    type: str
    default: ""
  recheck:
    description:
      - Whether the machine counts as not converged whatever its evidence says.
    type: bool
    default: false
attributes:
  check_mode:
    description: Can run in check mode; it only reads.
    support: full
  diff_mode:
    description: Returns details on what has changed, in diff mode.
    support: N/A
seealso:
  - module: ocrfleet.gpu_stack.check_inputs
"""

EXAMPLES = r"""
- name: Look at the machine
  ocrfleet.gpu_stack.stack_preflight:
    environment: ~/.local/share/ocrfleet/envs/olmocr-optimized
    python: "3.11"
    platforms:
      debian-12:
        manager: apt
        packages: [poppler-utils]
  register: machine
"""

RETURN = r"""
problems:
  description: What stands in the way, one sentence each with what was expected, what was found and what to do.
  returned: always
  type: list
  elements: str
remarks:
  description: What does not stand in the way and is worth knowing, such as MIG or a GPU that is in use.
  returned: always
  type: list
  elements: str
table:
  description: What was seen, as lines for people.
  returned: always
  type: list
  elements: str
machine:
  description: What was seen. Distribution, kernel, Python, disk, memory, GPUs, the environment and its owner.
  returned: always
  type: dict
missing_packages:
  description: The system packages that are needed and not installed.
  returned: always
  type: list
  elements: str
package_manager:
  description: The platform's C(manager); null on a distribution that is not supported.
  returned: always
  type: str
uv_version:
  description: Version of O(uv); empty when there is none.
  returned: always
  type: str
converged:
  description: Whether the machine already has what is asked for.
  returned: always
  type: bool
not_converged:
  description: Why not, in one sentence.
  returned: always
  type: str
stored_evidence:
  description: The evidence of the earlier run; null where there is none.
  returned: always
  type: dict
"""

import json
import os
import pathlib
import pwd
import shutil
import sys

from ansible.module_utils.basic import AnsibleModule
from ansible_collections.ocrfleet.gpu_stack.plugins.module_utils import (
    conda_engines,
    cuda_toolkits,
    distributions,
    driver,
    flashinfer_policy,
    gpu_presence,
    machine,
    machine_table,
    nvidia,
    package_index,
    redaction,
    service_user,
    torch_values,
)
from ansible_collections.ocrfleet.gpu_stack.plugins.module_utils.staging import Stage
from ansible_collections.ocrfleet.gpu_stack.plugins.module_utils.uv import Sources, Uv

# The share of a new environment's space that adding FlashInfer to one that is there may need (a clone is made of
# links).
EXISTING_SHARE = 0.1


def look(params: dict) -> dict:
    """What the machine is and has."""
    python = machine.find_python(params["python"] or f"{sys.version_info[0]}.{sys.version_info[1]}")
    environment = machine.environment_state(params["environment"])
    there = environment["state"] == "environment"
    torch = distributions.installed(params["environment"]).get("torch") if there else None
    gpus = look_at_gpus()
    return {
        "distribution": machine.distribution(),
        "kernel": os.uname().release,
        "architecture": os.uname().machine,
        "user": pwd.getpwuid(os.geteuid()).pw_name,
        "python": python,
        "python_version": environment["python"] or (machine.python_version(python) if python else None),
        "disk_free_gb": round(machine.free_gb(params["environment"]), 1),
        "memory_gb": round(machine.memory_gb() or 0, 1),
        "gpus": gpus,
        "driver": {"version": gpus["survey"].driver, **driver.kernel_state().as_dict()},
        "toolkits": [kit.as_dict() for kit in cuda_toolkits.survey(params["cuda_home"])],
        "conda": conda_engines.candidates(str(pathlib.Path.home() / "miniforge3")),
        "environment": {
            "path": params["environment"],
            **environment,
            "torch": torch.version if torch else None,
        },
    }


def look_at_gpus() -> dict:
    """`survey`, and of it what reports show: `devices`, `absent`, `problem`; `hardware` is what the kernel shows."""
    survey = nvidia.survey()
    return {
        "survey": survey,
        "devices": survey.devices,
        "absent": survey.absent,
        "problem": survey.problem,
        "hardware": gpu_presence.hardware(),
    }


def gpu_findings(params: dict, seen: dict) -> tuple[list[str], list[str]]:
    """Problems and remarks about the GPU and its driver."""
    gpus, survey = seen["gpus"], seen["gpus"]["survey"]
    cuda = torch_values.cuda_on_disk(params["environment"]) or params["cuda"]
    architectures = params["architectures"] if cuda == params["cuda"] else None
    problems, remarks = nvidia.preflight(survey, cuda, architectures, params["flashinfer"])
    if survey.absent and gpus["hardware"]:
        problems.append(f"GPU: expected an answer from nvidia-smi for {gpus['hardware'][0]}: {survey.absent}")
        kernel = {name: seen["driver"][name] for name in ("loaded", "nouveau", "secure_boot")}
        problems += driver.hindrances(driver.KernelState(**kernel))
    elif survey.problem and not gpus["hardware"]:
        # An nvidia-smi that came with an image, and no GPU behind it.
        problems, remarks = [], [*problems, *remarks]
    if params["gpu"] == "required" and not survey.gpus and not problems:
        why = survey.absent or survey.problem
        problems.append(f"GPU: expected an NVIDIA GPU, found none ({why}); set stack_gpu to auto to do without")
    if params["gpu"] == "ignored" or (params["driver"] == "present" and (survey.absent or survey.problem)):
        return [], [*problems, *remarks]
    return problems, remarks


def find_problems(params: dict, seen: dict) -> list[str]:
    """Everything that stands in the way, one sentence each."""
    problems = []
    if machine.platform_of(seen["distribution"], params["platforms"]) is None:
        problems.append(
            f"distribution: expected one of {', '.join(params['platforms'])}, found {seen['distribution']}; "
            "use a supported one"
        )
    environment = seen["environment"]
    path = environment["path"]
    there = environment["state"] == "environment"
    above = os.path.dirname(path)
    while not os.path.lexists(above):
        above = os.path.dirname(above)
    if not os.path.isdir(above):
        problems.append(
            f"environment: expected folders or nothing on the way to {path}, found a file at {above}; move it away, or "
            "correct stack_root"
        )
    elif environment["state"] == "foreign":
        problems.append(
            f"environment: expected a conda or venv prefix at {path}, or nothing, found something else; "
            "move it away, or correct stack_environment"
        )
    elif params["environment_required"] and not there:
        problems.append(
            f"environment: expected one with OlmOCR at {path}, found it {environment['state']}; "
            "correct stack_environment, or let site.yml make it"
        )
    if there and environment["owner"] != seen["user"] and os.geteuid() != 0:
        problems.append(
            f"environment: {path} belongs to {environment['owner']}, this run is {seen['user']}; "
            f"connect as {environment['owner']}, who owns what services use"
        )
    wanted = params["python"]
    if there and wanted and os.sep not in wanted and environment["python"] != wanted:
        problems.append(
            f"python: expected {wanted} in {path}, found {environment['python']}; "
            "set python_env_python to what the environment has, if OlmOCR supports it, or name another prefix"
        )
    if not there and params["backend"] == "venv" and seen["python"] is None:
        problems.append(
            f"python: expected an interpreter {wanted}{'' if os.sep in wanted else ' on PATH'}, found none; set "
            "python_env_python to one of the host's that OlmOCR supports (3.11, 3.12) or to its path, or set "
            "python_env_backend to conda, which brings one"
        )
    needed = params["disk_gb"] * (EXISTING_SHARE if there else 1)
    if seen["disk_free_gb"] < needed:
        problems.append(
            f"disk: expected {needed:.0f} GB free at {machine.existing_parent(path)}, "
            f"found {seen['disk_free_gb']:.1f}; free some, or move stack_root"
        )
    return problems


def privilege_problems(missing: list[str]) -> list[str]:
    """System packages are missing and there is no sudo. (A password for a sudo that is there may come from Ansible.)"""
    if not missing or os.geteuid() == 0 or shutil.which("sudo"):
        return []
    return [
        f"system packages: expected {', '.join(missing)} to be installed, found them missing, and no sudo to install "
        "them with; have root install them"
    ]


def index_problem(params: dict, python: str, folder: str) -> str | None:
    """Why the package index does not answer as it should, asked by uv itself with the run's own settings."""
    stage = Stage(params["environment"])
    uv = Uv(params["uv"], stage, Sources.of(params["sources"]), folder, timeout=60, python=python)
    reason = uv.obtainable(params["probe_requirement"])
    if reason is None:
        return None
    return (
        f"index: expected to find {params['probe_requirement']} in the package index, uv says: "
        f"{redaction.without_secrets(reason)}; check the network, or point stack_default_index to a mirror"
    )


def index_problems(params: dict, seen: dict, index: package_index.Index, folder: str) -> list[str]:
    """Where the index does not answer; with a `folder` for uv's files also where it has not got the stack."""
    sources = params["sources"]
    found = "" if sources.get("offline") else package_index.unreachable(index, sources.get("ca_bundle") or "")
    # An environment that is there has a plan made for it, which tells.
    if folder and not found and params["probe_requirement"] and seen["environment"]["state"] != "environment":
        found = index_problem(params, seen["python"], folder) or ""
    return [found] if found else []


def asks_index(params: dict, not_converged: str, state: str) -> bool:
    """Whether anything is to be had from an index, as far as can be told without a plan."""
    if not not_converged or not params["installs"]:
        return False
    if state != "environment":
        return bool(params["probe_requirement"])
    installed = distributions.installed(params["environment"])
    wanted = [params["probe_requirement"].partition("==")[0]] if params["probe_requirement"] else []
    wanted += [flashinfer_policy.PACKAGE] if params["flashinfer"] else []
    if any(name not in installed for name in wanted):
        return True
    # Where the baseline's roles run, they install what is damaged anew.
    return bool(params["probe_requirement"]) and bool(distributions.damaged(params["environment"]))


def read_evidence(folder: str | None) -> dict | None:
    if not folder:
        return None
    try:
        with open(os.path.join(folder, "evidence.json"), encoding="utf-8") as file:
            evidence = json.load(file)
    except (OSError, ValueError):
        return None
    return evidence if isinstance(evidence, dict) else None


def why_not_converged(evidence: dict | None, spec_hash: str, prefix: str) -> str:
    """The first reason why there is something to do, or an empty text."""
    if not evidence:
        return "no evidence of an earlier run"
    if evidence.get("result") == "restored":
        return "it was returned to a baseline since the last run"
    if evidence.get("spec_hash") != spec_hash:
        return "the inputs are not those of the earlier run"
    if evidence.get("result") != "verified":
        return "the earlier run did not end verified"
    if evidence.get("fingerprint") != distributions.fingerprint(prefix):
        return "the environment's packages are not those of the earlier run"
    if (evidence.get("gate") or {}).get("problems"):
        return "FlashInfer did not meet flashinfer_min_speedup or flashinfer_max_slowdown when it was measured last"
    # Another method may bring the very same packages, and a return leaves the later run's evidence.
    method = flashinfer_policy.method(prefix)
    earlier = str(evidence.get("method")).removeprefix("auto: ")
    if method and method != earlier:
        return f"FlashInfer is there by {method}, in the earlier run it came by {earlier}"
    damaged = distributions.damaged(prefix)
    if damaged:
        return f"damaged: {damaged[0].name}, {damaged[0].problems[0]}"
    return ""


def main() -> None:
    module = AnsibleModule(
        argument_spec={
            "environment": {"type": "path", "required": True},
            "environment_required": {"type": "bool", "default": False},
            "backend": {"type": "str", "choices": ["venv", "conda"], "default": "venv"},
            "python": {"type": "str", "default": ""},
            "platforms": {"type": "dict", "required": True},
            "cuda_home": {"type": "path", "default": "/usr/local/cuda"},
            "driver": {"type": "str", "choices": ["check", "present"], "default": "check"},
            "disk_gb": {"type": "float", "default": 30},
            "uv": {"type": "path"},
            "probe_requirement": {"type": "str"},
            "installs": {"type": "bool", "default": True},
            "sources": {"type": "dict", "default": {}},
            "gpu": {"type": "str", "choices": ["auto", "required", "ignored"], "default": "auto"},
            "cuda": {"type": "str", "default": "12.8"},
            "architectures": {"type": "list", "elements": "str", "default": []},
            "flashinfer": {"type": "bool", "default": True},
            "evidence": {"type": "path"},
            "spec_hash": {"type": "str", "default": ""},
            "verify_user": {"type": "str", "default": ""},
            "recheck": {"type": "bool", "default": False},
        },
        supports_check_mode=True,
    )
    params = module.params
    if not os.path.isabs(params["environment"]):
        module.fail_json(
            msg=f"stack_environment: expected an absolute path, found {params['environment']}; name it, or stack_root, "
            "from / on. Nothing was touched"
        )
    index, offline = package_index.in_effect(params["sources"], os.environ), params["sources"].get("offline")
    redaction.hide(module, redaction.of_sources({**params["sources"], "default_index": index.url}))
    evidence = read_evidence(params["evidence"])
    asked = "it is asked to be looked at again (stack_recheck)" if params["recheck"] else ""
    not_converged = asked or why_not_converged(evidence, params["spec_hash"], params["environment"])
    seen = look(params)
    platform = params["platforms"].get(machine.platform_of(seen["distribution"], params["platforms"]), {})
    missing = machine.missing_packages(platform.get("packages", []))
    gpu_problems, remarks = gpu_findings(params, seen)
    seen["gpus"]["survey"] = seen["gpus"]["survey"].as_dict()
    if seen["architecture"] == "aarch64":
        remarks.append(machine_table.AARCH64)
    problems = find_problems(params, seen) + gpu_problems + privilege_problems(missing)
    _user, wrong = service_user.chosen(params["verify_user"])
    problems += [f"verify_user: {wrong}"] if wrong else []
    uv_version = machine.uv_version(params["uv"]) if params["uv"] else ""
    if asks_index(params, not_converged, seen["environment"]["state"]):
        problems += index_problems(params, seen, index, module.tmpdir if uv_version and not problems else "")
    module.exit_json(
        changed=False,
        problems=problems,
        remarks=remarks,
        table=machine_table.lines(seen, "the cache and local folders only" if offline else index.told()),
        machine=seen,
        missing_packages=missing,
        package_manager=platform.get("manager"),
        uv_version=uv_version,
        converged=not not_converged,
        not_converged=not_converged,
        stored_evidence=evidence,
    )


if __name__ == "__main__":
    main()
