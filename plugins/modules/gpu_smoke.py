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
      - V(flashinfer_decode) is FlashInfer's paged decode with tensor cores, 20 requests of 2,048 tokens.
      - V(flashinfer_prefill) is FlashInfer's paged causal prefill of 2,048 tokens.
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
- name: Run all kernels
  ocrfleet.gpu_stack.gpu_smoke:
    environment: /opt/conda/envs/olmocr-optimized
  become: true
  become_user: olmocr

- name: Check PyTorch alone before anything is installed
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

- name: Try the harness on a machine without a GPU
  ocrfleet.gpu_stack.gpu_smoke:
    environment: /opt/conda/envs/olmocr-optimized
    mode: cpu
    kernels: [torch_matmul, torch_attention]
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
  description: The device as PyTorch sees it. Empty without one, and in check mode.
  returned: always
  type: dict
  sample:
    architectures: [sm_75, sm_80, sm_86, sm_90, sm_100, sm_120]
    capability: "9.0"
    device: NVIDIA H200
    memory_free_mib: 142700
    memory_total_mib: 143156
    torch: 2.8.0+cu128
    torch_cuda: "12.8"
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
      description: The same in words, with what was expected and found.
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
      sample: {"query": [20, 28, 128], "tokens": 2048, "kv_heads": 4, "page_size": 16, "dtype": "bfloat16"}
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
      description: Wall time of the first call, with planning, compiling and loading.
      type: float
      sample: 0.17
    median_ms:
      description: The median of single warm calls, by CUDA events on a GPU.
      type: float
      sample: 0.0479
    origin:
      description:
        - Where the kernel's code came from.
        - V(compiled) is now, V(cache) an earlier run's cache, V(pack) a kernel pack or flashinfer-jit-cache, V(builtin)
          PyTorch itself, and V(unknown) where it did not come so far.
      type: str
      sample: pack
    modules:
      description: The compiled FlashInfer modules that the kernel used, each with C(name), C(path) and C(origin).
      type: list
      elements: dict
commands:
  description: The command lines that ran, or that would run in check mode.
  returned: always
  type: list
  elements: list
  sample: [["/opt/conda/envs/olmocr-optimized/bin/python", "gpu_kernels.py", "request.json"]]
"""

import json
import os
import shutil
import tempfile
import time

from ansible.module_utils.basic import AnsibleModule
from ansible_collections.ocrfleet.gpu_stack.plugins.module_utils import commands, gpu_kernels, staging

ENTRY: dict = {
    "reason": "",
    "message": "",
    "cpu_status": None,
    "shapes": {},
    "error": None,
    "tolerance": None,
    "tolerance_source": None,
    "first_call_seconds": None,
    "median_ms": None,
    "origin": "unknown",
    "modules": [],
}


def program() -> str:
    """The text of the program for the environment's Python; on a host it lies inside Ansible's zip archive."""
    return gpu_kernels.__loader__.get_source(gpu_kernels.__name__)  # type: ignore[union-attr,no-any-return]


def read_events(path: str) -> list[dict]:
    """The events that were written whole; a process that was killed may have left half a line."""
    events = []
    try:
        with open(path, encoding="utf-8") as file:
            for line in file:
                try:
                    events.append(json.loads(line))
                except ValueError:
                    continue
    except OSError:
        pass
    return events


def attempt(
    stage: staging.Stage, request: dict, folder: str, timeout: int, env: dict[str, str]
) -> tuple[list[dict], commands.Result]:
    """Run the kernels of `request` in one process."""
    events, asked, script = (os.path.join(folder, name) for name in ("events.jsonl", "request.json", "gpu_kernels.py"))
    if os.path.exists(events):
        os.unlink(events)
    with open(script, "w", encoding="utf-8") as file:
        file.write(program())
    with open(asked, "w", encoding="utf-8") as file:
        json.dump({**request, "timeout": timeout, "events": events}, file)
    # The program keeps each step's time limit itself; this one is for the case that it cannot.
    limit = timeout * (len(request["kernels"]) + 1) + 60
    result = stage.run([stage.python, script, asked], timeout=limit, env=env, cwd=folder)
    return read_events(events), result


def how_it_ended(events: list[dict], result: commands.Result, timeout: int) -> dict:
    """The finding for a kernel, or a start, that the process did not outlive."""
    if result.timed_out or any(event["event"] == "timeout" for event in events):
        message = f"expected an end within {timeout} s, found it still running; raise timeout if it was compiling"
        return {"status": "failed", "reason": "timeout", "message": message}
    message = result.outcome()
    if result.rc == -9:
        message += "\nThe kernel's out-of-memory killer sends this signal: see the host's kernel log"
    return {"status": "failed", "reason": "crash", "message": message}


def read_attempt(
    kernels: list[str], events: list[dict], result: commands.Result, timeout: int
) -> tuple[dict[str, dict], dict, bool]:
    """The findings by kernel, the device, and whether the kernels without a finding are worth a new process."""
    found: dict[str, dict] = {}
    device: dict = {}
    begun = []
    for event in events:
        data = {key: value for key, value in event.items() if key not in ("event", "kernel")}
        if event["event"] == "device":
            device = data
        elif event["event"] == "start_failed":
            return {kernel: {"status": "failed", **data} for kernel in kernels}, device, False
        elif event["event"] == "begin":
            begun.append(event["kernel"])
        elif event["event"] == "result":
            found[event["kernel"]] = data
    no_gpu = device.get("no_gpu")
    if no_gpu:
        return (
            {kernel: {"status": "not_run", "reason": "no_gpu", "message": no_gpu} for kernel in kernels},
            device,
            False,
        )
    lost = [kernel for kernel in begun if kernel not in found]
    if lost:
        found[lost[0]] = how_it_ended(events, result, timeout)
        return found, device, True
    if not begun:
        return {kernel: how_it_ended(events, result, timeout) for kernel in kernels}, device, False
    return found, device, True


def as_cpu(entry: dict) -> dict:
    """What ran on a CPU is never passed: it says nothing about a GPU."""
    if entry["status"] == "passed":
        message = "right on the CPU; not run on a GPU"
        return {**entry, "status": "not_run", "reason": "cpu_mode", "message": message, "cpu_status": "passed"}
    return {**entry, "cpu_status": entry["status"]}


def run_all(run, request: dict, timeout: int) -> tuple[list[dict], dict, int, list[list[str]]]:  # type: ignore[no-untyped-def]
    """Run every kernel, in as many processes as it takes.

    `run(request)` runs one process and returns its events and result.
    """
    mode = request["mode"]
    found: dict[str, dict] = {}
    if mode == "cpu":
        message = "has no CPU form; not run on a GPU"
        gpu_only = [kernel for kernel in request["kernels"] if kernel not in gpu_kernels.ON_CPU]
        found = {kernel: {"status": "not_run", "reason": "cpu_mode", "message": message} for kernel in gpu_only}
    device: dict = {}
    argvs: list[list[str]] = []
    again = True
    while again:
        pending = [kernel for kernel in request["kernels"] if kernel not in found]
        if not pending:
            break
        events, result = run({**request, "kernels": pending})
        argvs.append(result.argv)
        findings, device, again = read_attempt(pending, events, result, timeout)
        if mode == "cpu":
            findings = {kernel: as_cpu(finding) for kernel, finding in findings.items()}
        found.update(findings)
    about = {"mode": mode, "device": device.get("device", ""), "capability": device.get("capability", "")}
    entries = [{"name": kernel, **ENTRY, **about, **found[kernel]} for kernel in request["kernels"]]
    return entries, device, len(argvs), argvs


def overall(entries: list[dict]) -> str:
    statuses = {entry["status"] for entry in entries}
    if "failed" in statuses:
        return "failed"
    return "passed" if statuses == {"passed"} else "not_run"


def summary(entries: list[dict]) -> str:
    """One line for the operator: the failures where there are any, else how many passed, and why others did not run."""
    failed = [
        f"{entry['name']}: {entry['reason']}, {entry['message']}" for entry in entries if entry["status"] == "failed"
    ]
    if failed:
        return f"{len(failed)} of {len(entries)} kernels failed. " + "; ".join(failed)
    not_run = sorted({entry["message"] for entry in entries if entry["status"] == "not_run"})
    passed = sum(entry["status"] == "passed" for entry in entries)
    return "; ".join([f"{passed} of {len(entries)} kernels passed on a GPU", *not_run])


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
        module.fail_json(msg=f"timeout: expected a number of seconds above 0, found {options['timeout']}")
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
        entries = [{"name": kernel, **ENTRY, **about, **waiting} for kernel in kernels]
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
        entries, device, processes, argvs = run_all(
            lambda asked: attempt(stage, asked, folder, options["timeout"], env), request, options["timeout"]
        )
    finally:
        shutil.rmtree(folder, ignore_errors=True)
    result.update(
        msg=summary(entries),
        status=overall(entries),
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
