#!/usr/bin/python
# Copyright (c) 2026 The ocrfleet.gpu_stack contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

from __future__ import annotations

DOCUMENTATION = r"""
module: activation
short_description: Write what OlmOCR's vllm is started with, so that it starts with what is there
version_added: 0.1.0
description:
  - Decides with which environment variables vllm starts, from what is installed, the compiler that is found, and a
    kernel pack that is placed; and writes them into files inside the environment.
  - vllm compiles FlashInfer's sampling kernels at every start. Where no fitting C(nvcc) and no pack is, it would not
    come up, so the sampler is switched off there and RV(why) says so.
  - C(etc/ocrfleet/flashinfer.env) is for systemd's C(EnvironmentFile) and for containers. It holds all of it.
  - A conda environment also gets scripts in C(etc/conda/activate.d) and C(deactivate.d). A venv gets two lines in
    C(bin/activate), marked as this collection's; the shells that source other scripts are not served.
  - All of these files belong to the environment's tree. An exchange of trees brings them, a restore takes them away.
  - Without FlashInfer the files are removed.
extends_documentation_fragment:
  - ocrfleet.gpu_stack.environment
options:
  sampler:
    description:
      - V(auto) switches vllm's FlashInfer sampler on where its kernels can be compiled or are there compiled.
      - V(on) and V(off) say it outright.
    type: str
    choices: [auto, "on", "off"]
    default: auto
  cuda_home:
    description:
      - The CUDA toolkit to compile with. Left out, it is looked for in C(CUDA_HOME), C(PATH), and below C(/usr/local).
        One of PyTorch's CUDA major version is taken before any other.
    type: path
  cache:
    description:
      - Folder for what FlashInfer, Triton and vllm compile at run time. The user who starts OlmOCR must be able to
        write there. Left out, each uses the home of that user.
    type: path
  env:
    description:
      - More variables. C(CUDA_VISIBLE_DEVICES) among them says for which GPU is decided; where those of a host are of
        different kinds name one by its UUID, or add C(CUDA_DEVICE_ORDER=PCI_BUS_ID); CUDA counts the fastest first.
      - C(VLLM_ATTENTION_BACKEND=FLASHINFER) is refused with vllm 0.11.0, whose vision encoder breaks.
    type: dict
    default: {}
attributes:
  check_mode:
    support: full
    description: Nothing is written.
  diff_mode:
    support: full
    description: Shows each file before and after.
seealso:
  - module: ocrfleet.gpu_stack.kernel_pack
  - module: ocrfleet.gpu_stack.flashinfer_info
author:
  - The ocrfleet.gpu_stack contributors (@ocrfleet)
"""

EXAMPLES = r"""
- name: Write what OlmOCR starts with into the candidate
  ocrfleet.gpu_stack.activation:
    environment: /opt/conda/envs/olmocr-optimized
    candidate: /opt/conda/envs/.olmocr-optimized.candidate

- name: Do without FlashInfer's sampler
  ocrfleet.gpu_stack.activation:
    environment: /opt/conda/envs/olmocr-optimized
    sampler: "off"
"""

RETURN = r"""
variables:
  description: The variables, as they stand in the files. Empty without FlashInfer.
  returned: success
  type: dict
  sample: {"CUDA_HOME": "/usr/local/cuda-12.8", "VLLM_USE_FLASHINFER_SAMPLER": "1"}
sampler:
  description: Whether vllm uses FlashInfer's sampler. V(on), V(off), or V(absent) without FlashInfer.
  returned: success
  type: str
  sample: "off"
kernels:
  description: Where FlashInfer's kernels come from. V(pack), V(jit_cache), V(compiler) or V(nowhere).
  returned: success
  type: str
  sample: nowhere
why:
  description: The reason, in words.
  returned: success
  type: str
  sample: >-
    nvcc: expected a CUDA toolkit in CUDA_HOME, by nvcc on PATH or at /usr/local/cuda, found none; install the toolkit
    of PyTorch's CUDA, or set CUDA_HOME to it
written:
  description: The files that were written or removed, or would be, relative to the environment.
  returned: success
  type: list
  elements: str
drop_in:
  description: The text of a systemd drop-in that makes a unit read the variables. It holds no value itself.
  returned: success
  type: str
systemd:
  description: Whether this host was started by systemd.
  returned: success
  type: bool
"""

import os

from ansible.module_utils.basic import AnsibleModule
from ansible_collections.ocrfleet.gpu_stack.plugins.module_utils import (
    activation,
    distributions,
    flashinfer_install,
    gpu_presence,
    nvidia,
    staging,
    torch_values,
    tree_file,
)


def main() -> None:
    module = AnsibleModule(
        argument_spec={
            "environment": {"type": "path", "required": True},
            "candidate": {"type": "path"},
            "sampler": {"type": "str", "choices": ["auto", "on", "off"], "default": "auto"},
            "cuda_home": {"type": "path"},
            "cache": {"type": "path"},
            "env": {"type": "dict", "default": {}},
        },
        supports_check_mode=True,
    )
    options = module.params
    stage = staging.Stage(options["environment"], options["candidate"])
    installed = distributions.installed(stage.tree)
    if not installed:
        module.fail_json(
            msg=f"expected a Python environment at {stage.tree}, found no package there; name the folder that holds "
            "bin/python and lib/python3*/site-packages"
        )
    packages, wrong = flashinfer_install.packages(installed)
    vllm = installed["vllm"].version if "vllm" in installed else ""
    own = installed.get("flashinfer-python")
    more = {name: str(value) for name, value in options["env"].items()}
    gpus = nvidia.survey(timeout=30).gpus if own else []
    capability = gpu_presence.capability(gpus, {**os.environ, **more})
    # What is in the cache does not count: FlashInfer asks ninja about it.
    modules = (
        flashinfer_install.compiled_modules(
            "/nonexistent",
            os.path.join(os.path.dirname(own.path), "flashinfer"),
            flashinfer_install.installed_for(stage.tree, installed, capability),
        )
        if own
        else []
    )
    compiler = activation.find_compiler(
        stage.tree, options["cuda_home"] or "", dict(os.environ), torch_values.cuda_on_disk(stage.tree)
    )
    try:
        decision = activation.decide(
            packages=packages,
            match=not wrong,
            vllm=vllm,
            torch=installed["torch"].version if "torch" in installed else "",
            capability=capability,
            modules=modules,
            compiler=activation.at_its_place(compiler, stage.tree, stage.environment),
            sampler=options["sampler"],
            cache=options["cache"] or "",
            more=more,
        )
    except activation.Refused as refused:
        module.fail_json(msg=str(refused))
    wanted = activation.files(stage.tree, stage.environment, decision, vllm)
    try:
        changes = activation.differing(stage.tree, wanted)
        if changes and not module.check_mode:
            activation.write(stage.tree, {path: wanted[path] for path in changes})
    except tree_file.Unsafe as unsafe:
        module.fail_json(msg=str(unsafe))
    module.exit_json(
        changed=bool(changes),
        written=sorted(changes),
        drop_in=activation.drop_in(stage.environment, vllm),
        systemd=os.path.isdir("/run/systemd/system"),
        diff=[
            {"before": before, "after": after, "before_header": path, "after_header": path}
            for path, (before, after) in sorted(changes.items())
        ],
        **decision,
    )


if __name__ == "__main__":
    main()
