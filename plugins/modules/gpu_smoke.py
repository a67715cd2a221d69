#!/usr/bin/python
# Copyright (c) 2026 The ocrfleet.gpu_stack contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

from __future__ import annotations

DOCUMENTATION = r"""
module: gpu_smoke
short_description: Prove with small kernels that PyTorch and FlashInfer compute the right numbers on this GPU
version_added: 0.1.0
description:
  - Runs small kernels at the shapes of OlmOCR's language model in an environment's own Python and compares what they
    compute with a float32 reference that is computed on the CPU.
  - An import proves nothing about FlashInfer. Its kernels are compiled at the first call, so a missing, wrong or slow
    compiler shows only then.
  - The inputs are new random numbers in every run. Outputs are filled with a marked NaN before the kernel runs, so an
    output that was never written is not taken for a result.
  - All kernels share one process. Where one crashes or hangs, it is reported and the others go on in a new process.
  - Run it as the user that runs OlmOCR, for that user's caches, device permissions and limits are what matters.
extends_documentation_fragment:
  - ocrfleet.gpu_stack.environment
options:
  kernels:
    description:
      - What to run. Name only the C(torch_) and C(triton_) kernels to check an environment without FlashInfer.
      - V(torch_matmul) multiplies bfloat16 matrices of the model's hidden size.
      - V(torch_attention) is PyTorch's C(scaled_dot_product_attention), causal, with 28 query and 4 key/value heads.
      - V(triton_kernel) compiles and runs a Triton kernel.
      - V(flashinfer_decode) is FlashInfer's paged decode with tensor cores, 20 requests of 2,048 down to 1,079 tokens.
      - V(flashinfer_prefill) is FlashInfer's paged causal prefill, two requests of 2,048 and 1,535 tokens.
      - V(flashinfer_sampling) draws tokens by top-k and top-p. Each must lie inside the sets that the reference allows.
    type: list
    elements: str
    choices: [torch_matmul, torch_attention, triton_kernel, flashinfer_decode, flashinfer_prefill, flashinfer_sampling]
    default: [torch_matmul, torch_attention, triton_kernel, flashinfer_decode, flashinfer_prefill, flashinfer_sampling]
  mode:
    description:
      - V(gpu) runs the kernels on the first CUDA device that the process sees. Choose another one with
        C(CUDA_VISIBLE_DEVICES) in O(env).
      - V(cpu) puts V(torch_matmul) and V(torch_attention) through the same harness on the CPU, at smaller sizes.
        It tells whether the harness and PyTorch work and nothing about a GPU, so no kernel is ever C(passed) by it.
    type: str
    choices: [gpu, cpu]
    default: gpu
  timeout:
    description:
      - Seconds that each kernel may take, with the compilation at its first call, and that importing PyTorch may take.
      - Compiling took 20 to 80 seconds a kernel with 16 cores. A virtual machine with 4 cores needs several minutes.
    type: int
    default: 900
  capability:
    description: The compute capability that the device must have, for example V(9.0). Left out, any is accepted.
    type: str
  tolerance:
    description:
      - The largest accepted relative error of the worst output row, |output - reference| / |reference|.
      - Left out, it is 0.01, which FlashInfer's own tests accept for bfloat16.
      - It does not apply to V(flashinfer_sampling), which accepts no token outside the sets.
    type: float
  seed:
    description: The seed of the random inputs, to repeat a run that failed. Left out, it is taken from the clock.
    type: int
  env:
    description: Environment variables for the process, for example C(FLASHINFER_WORKSPACE_BASE).
    type: dict
    default: {}
attributes:
  check_mode:
    support: full
    description: Runs nothing, neither on the GPU nor on the CPU, and returns what would run.
  diff_mode:
    support: none
    description: Nothing is changed.
notes:
  - A host without a GPU is no failure. Every kernel is then C(not_run), with the reason, and the caller decides.
  - Compiled modules land in FlashInfer's and Triton's caches, under the home folder of the user or where O(env) says.
    This module reports no change for them.
seealso:
  - module: ocrfleet.gpu_stack.flashinfer_info
author:
  - The ocrfleet.gpu_stack contributors (@ocrfleet)
"""

EXAMPLES = r"""
- name: Run all kernels, and fail on a host where they did not run
  ocrfleet.gpu_stack.gpu_smoke:
    environment: /opt/conda/envs/olmocr-optimized
  become: true
  become_user: olmocr
  register: smoke
  failed_when: smoke is failed or (smoke.status != 'passed' and not ansible_check_mode)

- name: Tell how long each kernel took, and where its code came from
  ansible.builtin.debug:
    msg: "{{ item.name }}: {{ item.origin }}, first call {{ item.first_call_seconds }} s, then {{ item.median_ms }} ms"
  loop: "{{ smoke.kernels | selectattr('status', 'eq', 'passed') }}"
  loop_control:
    label: "{{ item.name }}"

- name: Check PyTorch alone before anything is installed, on hosts with and without a GPU
  ocrfleet.gpu_stack.gpu_smoke:
    environment: /opt/conda/envs/olmocr-optimized
    kernels: [torch_matmul, torch_attention, triton_kernel]

- name: Check a candidate on the second GPU, with a FlashInfer cache of its own
  ocrfleet.gpu_stack.gpu_smoke:
    environment: /opt/conda/envs/olmocr-optimized
    candidate: /opt/conda/envs/.olmocr-optimized.candidate
    capability: "8.9"
    env:
      CUDA_VISIBLE_DEVICES: "1"
      FLASHINFER_WORKSPACE_BASE: /var/lib/olmocr

- name: Repeat a run that failed, with the same numbers
  ocrfleet.gpu_stack.gpu_smoke:
    environment: /opt/conda/envs/olmocr-optimized
    kernels: [flashinfer_decode]
    seed: 1794351623

- name: Try the harness on a machine without a GPU
  ocrfleet.gpu_stack.gpu_smoke:
    environment: /opt/conda/envs/olmocr-optimized
    mode: cpu
    kernels: [torch_matmul, torch_attention]
  register: tried

- name: Hold its numbers against the reference there, which says nothing about a GPU
  ansible.builtin.assert:
    that: tried.kernels | map(attribute='cpu_status') | unique == ['passed']
  when: not ansible_check_mode
"""

RETURN = r"""
status:
  description: V(failed) when a kernel failed, V(passed) when all of them passed on a GPU, V(not_run) otherwise.
  returned: always
  type: str
  sample: passed
mode:
  description: The option O(mode).
  returned: always
  type: str
  sample: gpu
device:
  description: The device as PyTorch sees it. Empty in check mode, and where PyTorch does not import.
  returned: always
  type: dict
  contains:
    device:
      description: Its name, V(cpu) with O(mode=cpu), empty without one.
      type: str
      sample: NVIDIA H200
    no_gpu:
      description: Why there is none, empty where there is one.
      type: str
      sample: ""
    capability:
      description: The compute capability. Only on a GPU, as all that follow but the two versions.
      type: str
      sample: "9.0"
    architectures:
      description: The GPU architectures that PyTorch has code for.
      type: list
      elements: str
      sample: [sm_75, sm_80, sm_86, sm_90, sm_100, sm_120]
    memory_free_mib:
      description: The free memory in MiB before the first kernel.
      type: int
      sample: 142700
    memory_total_mib:
      description: All of its memory in MiB.
      type: int
      sample: 143156
    torch:
      description: The version of PyTorch.
      type: str
      sample: 2.8.0+cu128
    torch_cuda:
      description: The CUDA version that PyTorch was built for, V(null) for a build without.
      type: str
      sample: "12.8"
seed:
  description: The seed of the random inputs.
  returned: always
  type: int
  sample: 1794351623
processes:
  description: How many processes it took. More than one means that a kernel ended the process before.
  returned: always
  type: int
  sample: 1
kernels:
  description: One entry for each kernel that was asked for, in that order.
  returned: always
  type: list
  elements: dict
  contains:
    name:
      description: The kernel.
      type: str
      sample: flashinfer_decode
    status:
      description: V(passed), V(failed) or V(not_run).
      type: str
      sample: passed
    reason:
      description:
        - Why it did not pass, empty where it did.
        - Failures are V(wrong_result), V(nan), V(unwritten), V(wrong_device), V(timeout), V(out_of_memory),
          V(compile_error), V(import_error), V(crash) and V(error).
        - V(crash) means that the process ended or the CUDA context is lost, V(error) is any other exception.
        - V(not_run) has V(no_gpu), V(cpu_mode) or V(check_mode).
      type: str
      sample: ""
    message:
      description: The same in words, with what was expected, what was found, and what to do.
      type: str
      sample: ""
    mode:
      description: Where it ran.
      type: str
      sample: gpu
    cpu_status:
      description: How it ended on the CPU, with O(mode=cpu) only. It says nothing about a GPU.
      type: str
      sample: passed
    device:
      description: The name of the device.
      type: str
      sample: NVIDIA H200
    capability:
      description: The compute capability of the device.
      type: str
      sample: "9.0"
    shapes:
      description: The shapes and types of the inputs.
      type: dict
      sample: {"query": [3583, 28, 128], "tokens": [2048, 1535], "kv_heads": 4, "page_size": 16, "dtype": "bfloat16"}
    error:
      description:
        - The relative error of the worst output row.
        - For V(flashinfer_sampling) the share of tokens outside the sets.
      type: float
      sample: 0.0028
    tolerance:
      description: The largest accepted error.
      type: float
      sample: 0.01
    tolerance_source:
      description: Where the tolerance comes from.
      type: str
      sample: the task's option tolerance
    first_call_seconds:
      description: Wall time of the first call in seconds, with planning, compiling and loading.
      type: float
      sample: 0.17
    median_ms:
      description: The median of single warm calls in milliseconds, by CUDA events on a GPU.
      type: float
      sample: 0.0479
    origin:
      description:
        - Where the kernel's code came from.
        - V(compiled) is now, V(cache) an earlier run's cache, V(pack) a kernel pack or flashinfer-jit-cache, V(builtin)
          PyTorch itself, and V(unknown) where it did not come so far.
        - V(unlisted) is a module that lies where FlashInfer loads it unasked, and is in no pack's manifest.
      type: str
      sample: pack
    modules:
      description: The compiled FlashInfer modules that the kernel used.
      type: list
      elements: dict
      contains:
        name:
          description: The module.
          type: str
          sample: sampling
        path:
          description: The file that was loaded.
          type: str
          sample: /home/olmocr/.cache/flashinfer/90/cached_ops/sampling/sampling.so
        origin:
          description: V(compiled), V(cache), V(pack) or V(unlisted), as for the kernel.
          type: str
          sample: cache
commands:
  description: The command lines that ran, or that would run in check mode.
  returned: always
  type: list
  elements: list
  sample: [["/opt/conda/envs/olmocr-optimized/bin/python", "gpu_kernels.py", "request.json"]]
"""

import os
import shutil
import tempfile
import time

from ansible.module_utils.basic import AnsibleModule
from ansible_collections.ocrfleet.gpu_stack.plugins.module_utils import gpu_kernels, smoke, staging


def main() -> None:
    names = list(gpu_kernels.KERNELS)
    module = AnsibleModule(
        argument_spec={
            "environment": {"type": "path", "required": True},
            "candidate": {"type": "path"},
            "kernels": {"type": "list", "elements": "str", "choices": names, "default": names},
            "mode": {"type": "str", "choices": ["gpu", "cpu"], "default": "gpu"},
            "timeout": {"type": "int", "default": 900},
            "capability": {"type": "str"},
            "tolerance": {"type": "float"},
            "seed": {"type": "int"},
            "env": {"type": "dict", "default": {}},
        },
        supports_check_mode=True,
    )
    options = module.params
    if options["timeout"] < 1:
        module.fail_json(
            msg=f"timeout: expected a number of seconds above 0, found {options['timeout']}; leave it out for 900"
        )
    stage = staging.Stage(options["environment"], options["candidate"])
    python = os.path.join(stage.tree, "bin", "python")
    if not os.path.exists(python):
        module.fail_json(msg=f"expected a Python at {python}, found none; name the folder that holds bin/python")
    kernels = list(dict.fromkeys(options["kernels"]))
    seed = options["seed"] if options["seed"] is not None else time.time_ns() % 2**32
    request = {
        "kernels": kernels,
        "mode": options["mode"],
        "seed": seed,
        "capability": options["capability"],
        "tolerance": options["tolerance"],
    }
    result = {"changed": False, "mode": options["mode"], "seed": seed}
    if module.check_mode:
        waiting = {"status": "not_run", "reason": "check_mode", "message": f"check mode: would run in {python}"}
        about = {"mode": options["mode"], "device": "", "capability": ""}
        entries = [{"name": kernel, **smoke.ENTRY, **about, **waiting} for kernel in kernels]
        argv = stage.argv([stage.python, "gpu_kernels.py", "request.json"])
        module.exit_json(
            msg=f"would run {', '.join(kernels)} in {python}",
            status="not_run",
            kernels=entries,
            device={},
            processes=0,
            commands=[argv],
            **result,
        )
    env = {name: str(value) for name, value in options["env"].items()}
    folder = tempfile.mkdtemp(prefix="gpu_smoke", dir=module.tmpdir)
    try:
        entries, device, processes, argvs = smoke.run_all(
            lambda asked: smoke.attempt(stage, asked, folder, options["timeout"], env), request, options["timeout"]
        )
    finally:
        shutil.rmtree(folder, ignore_errors=True)
    result.update(
        msg=smoke.summary(entries),
        status=smoke.overall(entries),
        kernels=entries,
        device=device,
        processes=processes,
        commands=argvs,
    )
    if result["status"] == "failed":
        module.fail_json(**result)
    module.exit_json(**result)


if __name__ == "__main__":
    main()
