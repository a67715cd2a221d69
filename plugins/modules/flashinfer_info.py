#!/usr/bin/python
# Copyright (c) 2026 The ocrfleet.gpu_stack contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

from __future__ import annotations

DOCUMENTATION = r"""
module: flashinfer_info
short_description: Find out whether FlashInfer of an environment can work, and what would use it
version_added: 0.1.0
description:
  - Gathers in one call what decides whether FlashInfer works in an environment, and names what does not fit together.
  - Importing FlashInfer proves little. Its kernels are compiled at the first call, by whatever C(nvcc) is found then,
    and without one OlmOCR does not start.
  - Each question is answered by itself and within O(timeout). An environment in which an import crashes or hangs is
    described as well as a healthy one.
  - The module does not fail because of what it finds. See RV(problems).
  - Run it as the user that runs OlmOCR, for caches and environment variables are that user's.
extends_documentation_fragment:
  - ocrfleet.gpu_stack.environment
options:
  env:
    description:
      - Environment variables that OlmOCR is started with, for example C(VLLM_USE_FLASHINFER_SAMPLER) or C(CUDA_HOME).
      - They are added to those of this module's own process, and to what the environment's activation sets
        (M(ocrfleet.gpu_stack.activation)).
    type: dict
    default: {}
  timeout:
    description: Seconds after which each of the programs that are asked is ended.
    type: int
    default: 120
attributes:
  check_mode:
    support: full
    description: Nothing is changed in either mode. PyTorch and FlashInfer are imported in both.
  diff_mode:
    support: none
    description: Nothing is changed.
seealso:
  - module: ocrfleet.gpu_stack.gpu_smoke
author:
  - The ocrfleet.gpu_stack contributors (@ocrfleet)
"""

EXAMPLES = r"""
- name: Look at FlashInfer of the OlmOCR environment
  ocrfleet.gpu_stack.flashinfer_info:
    environment: /opt/conda/envs/olmocr-optimized
  become: true
  become_user: olmocr
  register: flashinfer

- name: Stop where something does not fit together
  ansible.builtin.assert:
    that: flashinfer.problems | length == 0
    fail_msg: "{{ flashinfer.problems | join('\n') }}"

- name: See what a service with these variables would use
  ocrfleet.gpu_stack.flashinfer_info:
    environment: /opt/conda/envs/olmocr-optimized
    env:
      CUDA_HOME: /usr/local/cuda-12.8
      FLASHINFER_WORKSPACE_BASE: /var/lib/olmocr
      VLLM_USE_FLASHINFER_SAMPLER: "0"
  register: service

- name: Tell what vllm would take there
  ansible.builtin.debug:
    msg: "{{ service.vllm.uses.sampler | default('no vllm') }}: {{ service.vllm.uses.why | default('') }}"

- name: Look at a candidate before it becomes the environment
  ocrfleet.gpu_stack.flashinfer_info:
    environment: /opt/conda/envs/olmocr-optimized
    candidate: /opt/conda/envs/.olmocr-optimized.candidate
"""

RETURN = r"""
problems:
  description: What does not fit together or will fail, each in plain words with what to do. Empty is what one wants.
  returned: always
  type: list
  elements: str
  sample:
    - "nvcc 13.0 (/usr/local/cuda/bin/nvcc) does not match PyTorch's CUDA 12.8: kernels compiled with it load a second
      libcudart; install the CUDA 12.8 toolkit or set CUDA_HOME to it"
remarks:
  description: What is no problem by itself and worth knowing.
  returned: always
  type: list
  elements: str
  sample: ["GPU 0 (NVIDIA L4): in use by /opt/olmocr/bin/python3.11 (4711), 18211 of 23034 MiB taken"]
packages:
  description: The installed versions by package name, empty where it is not installed.
  returned: always
  type: dict
  sample: {"flashinfer-python": "0.3.1", "flashinfer-cubin": "", "flashinfer-jit-cache": ""}
packages_match:
  description: Whether the installed ones belong together. V(null) where flashinfer-python is not installed.
  returned: always
  type: bool
  sample: true
vllm:
  description: The installed vllm and what it makes of FlashInfer.
  returned: always
  type: dict
  contains:
    version:
      description: The installed version, empty without one.
      type: str
      sample: 0.11.0
    declares:
      description: What its extra C(flashinfer) asks for, empty where it has none.
      type: str
      sample: flashinfer-python==0.3.1
    satisfied:
      description: Whether the installed FlashInfer is that. V(null) where it cannot be told.
      type: bool
      sample: true
    compatibility:
      description: Whether it works with the installed FlashInfer. Empty without one of the two.
      type: dict
      contains:
        attention:
          description: Its attention path, as V(works), V(breaks) or V(unknown).
          type: str
          sample: works
        sampler:
          description: Its sampler path, as V(works), V(breaks) or V(unknown).
          type: str
          sample: works
        source:
          description: Where that is known from.
          type: str
          sample: served requests on an H200 with torch 2.8.0+cu128, 2026-11
    uses:
      description: What it would take on this GPU with these variables. Empty without vllm.
      type: dict
      contains:
        attention:
          description: The attention backend by vllm's name, or V(unknown).
          type: str
          sample: FLASH_ATTN
        sampler:
          description: V(FLASHINFER), V(PYTORCH) or V(unknown).
          type: str
          sample: FLASHINFER
        why:
          description: The reasons, in words.
          type: str
          sample: vllm takes FlashAttention on compute capability 9.0
torch:
  description: PyTorch as it imports. Its texts are empty where it does not.
  returned: always
  type: dict
  contains:
    version:
      description: What C(torch.__version__) says.
      type: str
      sample: 2.8.0+cu128
    cuda:
      description: The CUDA version that it was built for, empty for a build without.
      type: str
      sample: "12.8"
    architectures:
      description: The GPU architectures that it has code for.
      type: list
      elements: str
      sample: [sm_70, sm_75, sm_80, sm_86, sm_90, sm_100, sm_120]
    capability:
      description: The compute capability of the first device, empty without one.
      type: str
      sample: "9.0"
flashinfer:
  description: FlashInfer as it imports. Both are empty where it does not.
  returned: always
  type: dict
  contains:
    version:
      description: What C(flashinfer.__version__) says.
      type: str
      sample: 0.3.1
    location:
      description: The folder of the package.
      type: str
      sample: /opt/conda/envs/olmocr-optimized/lib/python3.11/site-packages/flashinfer
compiler:
  description: What the kernels would be compiled with, found as FlashInfer finds it.
  returned: always
  type: dict
  contains:
    ready:
      description: Whether all is there and fits PyTorch.
      type: bool
      sample: false
    missing:
      description: What is not there, each with what to do.
      type: list
      elements: str
      sample: ["ninja: expected it on PATH, found none; install the package ninja into the environment"]
    mismatch:
      description: Where C(nvcc) is of another CUDA major version than PyTorch, what to do. Empty where it is not.
      type: str
      sample: ""
    cuda_home:
      description: The folder of the CUDA toolkit, empty where none was found.
      type: str
      sample: /usr/local/cuda-12.8
    found_by:
      description: The variable, or C(PATH), or C(the usual place), that led to the toolkit.
      type: str
      sample: CUDA_HOME
    nvcc:
      description: The path of C(nvcc).
      type: str
      sample: /usr/local/cuda-12.8/bin/nvcc
    nvcc_version:
      description: Its version, empty where it does not tell one.
      type: str
      sample: "12.8"
    nvcc_problem:
      description: Why it does not, empty where it does.
      type: str
      sample: ""
    headers:
      description: The headers that the kernels include, with their paths, empty where they are missing.
      type: dict
      sample: {"curand.h": "/usr/local/cuda-12.8/include/curand.h", "cublasLt.h": ""}
    ninja:
      description: The path of ninja, empty where there is none.
      type: str
      sample: /opt/conda/envs/olmocr-optimized/bin/ninja
    cxx:
      description: The path of the C++ compiler, empty where there is none.
      type: str
      sample: /usr/bin/c++
    python_header:
      description: Where the environment's Python has its C(Python.h), or should have; empty where it does not say.
      type: str
      sample: /opt/conda/envs/olmocr-optimized/include/python3.11/Python.h
compiled_modules:
  description: The kernels that are compiled already.
  returned: always
  type: list
  elements: dict
  contains:
    name:
      description: The module.
      type: str
      sample: sampling
    origin:
      description:
        - V(cache) is FlashInfer's cache, V(pack) a kernel pack whose manifest has this very file, and V(package) the
          wheel of flashinfer-python itself.
        - V(mismatched) is of a pack that was placed for another FlashInfer, PyTorch, CUDA, Python, machine or GPU than
          is here now, as after an upgrade. FlashInfer loads it all the same.
        - V(unlisted) lies where FlashInfer loads it unasked, and nobody vouches for it.
      type: str
      sample: pack
    path:
      description: The file.
      type: str
      sample: /opt/conda/envs/olmocr-optimized/lib/python3.11/site-packages/flashinfer/data/aot/sampling/sampling.so
    flashinfer:
      description: The FlashInfer version that the cache's folder is for. Empty outside the cache, and for 0.3.
      type: str
      sample: ""
    architecture:
      description: The GPU architecture that the cache's folder is for, empty outside the cache.
      type: str
      sample: ""
    cudart:
      description: The major version of the CUDA runtime that it loads, empty where it loads none.
      type: str
      sample: "12"
caches:
  description: The folders in which compiled code is kept.
  returned: always
  type: list
  elements: dict
  contains:
    name:
      description: Whose it is. V(flashinfer), V(triton) or V(vllm).
      type: str
      sample: flashinfer
    path:
      description: The folder.
      type: str
      sample: /home/olmocr/.cache/flashinfer
    exists:
      description: Whether it is there.
      type: bool
      sample: true
    writable:
      description: Whether this user can write there, or make it.
      type: bool
      sample: true
cuda_libraries:
  description: CUDA libraries of the environment. What is installed need not be what is loaded.
  returned: always
  type: dict
  contains:
    installed:
      description: The packages that belong to a CUDA major version, by that version.
      type: dict
      sample: {"12": ["nvidia-cuda-runtime-cu12==12.8.90"]}
    loaded:
      description: The files that importing PyTorch and FlashInfer loads.
      type: list
      elements: str
      sample: [/opt/env/lib/python3.11/site-packages/nvidia/cuda_runtime/lib/libcudart.so.12]
gpu:
  description: The driver and GPUs as C(nvidia-smi) tells them.
  returned: always
  type: dict
  contains:
    driver:
      description: The driver's version, empty where it is not told.
      type: str
      sample: 570.124.06
    gpus:
      description: The GPUs.
      type: list
      elements: dict
      contains:
        index:
          description: The number that C(nvidia-smi) gives it.
          type: int
          sample: 0
        name:
          description: The product's name.
          type: str
          sample: NVIDIA L4
        uuid:
          description: What tells it from any other.
          type: str
          sample: GPU-b1c5a5a0-2c6f-0d5a-7f0e-2a8f6f1f3c44
        capability:
          description: The compute capability, empty where the driver does not tell it.
          type: str
          sample: "8.9"
        memory_mib:
          description: Its memory in MiB, 0 where it is not told.
          type: int
          sample: 23034
        memory_used_mib:
          description: What of it is taken, in MiB.
          type: int
          sample: 18211
        mig:
          description: Whether MIG is on.
          type: bool
          sample: false
        processes:
          description: The processes on it that can be seen from here, each with its id.
          type: list
          elements: str
          sample: ["/opt/olmocr/bin/python3.11 (4711)"]
    mig_instances:
      description: How many MIG instances there are, of all GPUs.
      type: int
      sample: 0
    mig_problem:
      description: Why these cannot be told, where MIG is on.
      type: str
      sample: ""
    absent:
      description: Why there is no GPU, empty where there is one.
      type: str
      sample: ""
    problem:
      description: Why it cannot be known whether there is one, with what to do.
      type: str
      sample: ""
variables:
  description: The environment variables that are set and matter here.
  returned: always
  type: dict
  sample: {"CUDA_HOME": "/usr/local/cuda-12.8"}
"""

import os
import shutil
import tempfile

from ansible.module_utils.basic import AnsibleModule
from ansible_collections.ocrfleet.gpu_stack.plugins.module_utils import flashinfer_fit, staging


def main() -> None:
    module = AnsibleModule(
        argument_spec={
            "environment": {"type": "path", "required": True},
            "candidate": {"type": "path"},
            "env": {"type": "dict", "default": {}},
            "timeout": {"type": "int", "default": 120},
        },
        supports_check_mode=True,
    )
    options = module.params
    stage = staging.Stage(options["environment"], options["candidate"])
    python = os.path.join(stage.tree, "bin", "python")
    if not os.path.exists(python):
        module.fail_json(msg=f"expected a Python at {python}, found none; name the folder that holds bin/python")
    scratch = tempfile.mkdtemp(prefix="flashinfer_info", dir=module.tmpdir)
    try:
        env = {name: str(value) for name, value in options["env"].items()}
        found = flashinfer_fit.look(stage, env, options["timeout"], scratch)
    finally:
        shutil.rmtree(scratch, ignore_errors=True)
    problems, remarks = flashinfer_fit.judge(found)
    probe = found.pop("probe")
    del found["mismatches"]
    found["torch"] = {
        "version": probe["torch"],
        "cuda": probe["torch_cuda"],
        "architectures": probe["architectures"],
        "capability": probe["capability"],
    }
    found["flashinfer"] = {"version": probe["flashinfer"], "location": probe["location"]}
    found["gpu"] = found["gpu"].as_dict()
    module.exit_json(changed=False, problems=problems, remarks=remarks, **found)


if __name__ == "__main__":
    main()
