#!/usr/bin/python
# Copyright (c) 2026 The ocrfleet.gpu_stack contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Run a checklist over an environment: what passed, what failed, and what could not be tried, with the reason."""

from __future__ import annotations

DOCUMENTATION = r"""
module: stack_verify
short_description: Verify that an OlmOCR stack works
version_added: 0.1.0
author:
  - The ocrfleet.gpu_stack contributors (@ocrfleet)
description:
  - Runs a checklist, given as data, over a Python environment. Each item ends as V(passed), V(failed) or V(not_run),
    with the
    reason, what was seen and the seconds it took.
  - An item that cannot be tried on this host, for want of a GPU for example, is V(not_run) and never V(passed).
  - All imports happen in one process of the environment's own Python. When an import takes that process down, by a
    crash, an exit or a
    time limit, its item has failed and the rest goes on in a new process.
  - The module reports and does not judge. It fails only when its options are wrong, also when items failed.
notes:
  - Nothing of the environment is changed, but for byte code that Python caches on any import. FlashInfer's cache
    folders, OlmOCR's
    log and all results lie in a temporary folder that is removed.
  - The document check with a vllm of its own compiles kernels into the user's caches, as any run of OlmOCR does. A
    model that is named may be downloaded into them; without one it runs only where OlmOCR's own lies there whole.
  - The module uses vllm's and FlashInfer's own switches to send no usage statistics.
extends_documentation_fragment:
  - ocrfleet.gpu_stack.environment
options:
  user:
    description:
      - User to check as, such as the one whom the service of OlmOCR runs as. Takes root, unless it is the user at work.
      - Root can read every file and write into every cache; a check as root says nothing about that.
    type: str
    default: ""
  checks:
    description:
      - The items, in order.
    type: list
    elements: dict
    required: true
    suboptions:
      name:
        description: Short name of the item, unique in the list.
        type: str
        required: true
      title:
        description: The item as a reader of the report should see it. Without it the name is shown.
        type: str
      kind:
        description:
          - V(files) holds the file of every package against its C(RECORD), by presence and size.
          - V(torch) holds the wheel's metadata, C(torch.__version__) and C(torch.version.cuda) against
            O(checks[].version).
          - V(gpu) asks PyTorch for CUDA. It is V(not_run) where the host has no NVIDIA GPU at all.
          - V(import) imports O(checks[].modules) and compares versions.
          - V(show_config) reads what C(flashinfer show-config) prints about the installation, and ends it then.
            Without internet it would retry for a minute.
          - V(cuda_compiler) holds the nvcc that FlashInfer finds against the CUDA version of PyTorch's build; the major
            versions must be the same. Without a GPU nothing is compiled, and a wrong one is V(not_run).
          - V(flashinfer_fit) asks what no import shows. Whether the paths of FlashInfer that vllm takes work with its
            version, whether a variable of the start file stops vllm, whether compiled modules are those of a pack and
            of PyTorch's CUDA, and whether the caches can be written. See M(ocrfleet.gpu_stack.flashinfer_info).
          - V(cuda_runtime) looks for a second CUDA runtime library in one process after the imports. A copy of the same
            major version that a wheel brings under a name of its own does not count.
          - V(document) sends O(checks[].pdf) through OlmOCR's pipeline, on a GPU of this host or on O(checks[].server).
          - V(smoke) runs the kernels of M(ocrfleet.gpu_stack.gpu_smoke) on the GPU. Those of FlashInfer are left out
            where M(ocrfleet.gpu_stack.activation) has switched vllm's FlashInfer sampler off.
          - V(kernel) compiles one kernel of FlashInfer and loads it, which takes the CUDA toolkit and no GPU. It is
            V(not_run) without a toolkit, and with one of another CUDA unless O(checks[].unmet) names something.
        type: str
        required: true
        choices:
          [files, torch, gpu, import, show_config, cuda_compiler, flashinfer_fit, cuda_runtime, smoke, document, kernel]
      timeout:
        description: Seconds that the item may take.
        type: float
        default: 300
      distribution:
        description:
          - Name of the installed distribution that the item is about.
          - When it is not installed, the item has failed if O(checks[].version) is given and is V(not_run) otherwise.
        type: str
      version:
        description: Version that the distribution must have. A local label counts only where this one has a label.
        type: str
        default: ""
      modules:
        description: Modules that an item of kind V(import) imports.
        type: list
        elements: str
        default: []
      companions:
        description:
          - Distributions that must have the same version as O(checks[].distribution) where they are installed at all.
        type: list
        elements: str
        default: []
      torch:
        description: Version of PyTorch that C(show-config) must print. Without it any will do.
        type: str
        default: ""
      pdf:
        description: The PDF for kind V(document), Base64-encoded.
        type: str
      phrase:
        description:
          - Words that the document holds and that the resulting text must hold. Only letters and digits are compared.
        type: str
        default: ""
      server:
        description:
          - URL of an OpenAI-compatible server, such as V(http://ocr:8000/v1). Without it a GPU of this host is used.
        type: str
        default: ""
      model:
        description: Model to use. Without it the first that the server offers, or OlmOCR's own default on a GPU.
        type: str
        default: ""
      required:
        description: Whether the item must have passed. V(not_run) is then one of the RV(problems) too.
        type: bool
        default: false
      needs:
        description:
          - Names of earlier items without which an item of kind V(document), V(smoke) or V(kernel) makes no sense. When
            one failed it is V(not_run).
        type: list
        elements: str
        default: []
      proven_by:
        description: Names of earlier items that, passed, prove an item of kind V(kernel) too.
        type: list
        elements: str
        default: []
      unmet:
        description: Requirements that FlashInfer declares and is to do without, for kind V(kernel).
        type: list
        elements: str
        default: []
      env:
        description: Environment variables for kind V(smoke).
        type: dict
        default: {}
requirements:
  - packaging
attributes:
  check_mode:
    description:
      - Nothing is run on the GPU. The smoke kernels and a document check with a vllm of its own are C(not_run), with
        what would be run. The other checks are the same.
    support: full
  diff_mode:
    description: Returns details on what has changed, in diff mode.
    support: N/A
seealso:
  - module: ocrfleet.gpu_stack.torch_version
"""

EXAMPLES = r"""
- name: See whether PyTorch and OlmOCR are in order
  ocrfleet.gpu_stack.stack_verify:
    environment: /opt/conda/envs/olmocr-optimized
    checks:
      - name: torch
        title: PyTorch is still 2.8.0+cu128
        kind: torch
        version: 2.8.0+cu128
      - name: olmocr
        title: OlmOCR imports
        kind: import
        modules: [olmocr, olmocr.pipeline]
        distribution: olmocr
        version: 0.4.2
  register: verified

- name: Judge
  ansible.builtin.assert:
    that: verified.problems | length == 0
    fail_msg: "{{ verified.problems }}"
"""

RETURN = r"""
checks:
  description: One entry for each item, in order.
  returned: success
  type: list
  elements: dict
  contains:
    name:
      description: Name of the item.
      type: str
    title:
      description: The item as a reader should see it.
      type: str
    status:
      description: V(passed), V(failed) or V(not_run).
      type: str
    reason:
      description: Why the item failed or was not run; empty when it passed.
      type: str
    seen:
      description: Values that were found; their keys depend on the kind.
      type: dict
    seconds:
      description: Seconds that the item took.
      type: float
  sample:
    - name: torch
      title: PyTorch is still 2.8.0+cu128
      status: passed
      reason: ""
      seen: {metadata: 2.8.0, version: 2.8.0+cu128, cuda: "12.8"}
      seconds: 3.1
user:
  description: The user whom the checks ran as.
  returned: success
  type: str
  sample: olmocr
problems:
  description: One sentence for each item that failed, or that was required and was not run.
  returned: success
  type: list
  elements: str
  sample: []
summary:
  description: How many items ended in each status.
  returned: success
  type: dict
  sample: {passed: 7, failed: 0, not_run: 2}
"""

import os

from ansible.module_utils.basic import AnsibleModule, missing_required_lib
from ansible_collections.ocrfleet.gpu_stack.plugins.module_utils import service_user, stack_checks, torch_values
from ansible_collections.ocrfleet.gpu_stack.plugins.module_utils.staging import Stage

# What a kind cannot do without.
REQUIRED = {
    "torch": ["version"],
    "import": ["modules", "distribution"],
    "show_config": ["distribution"],
    "cuda_compiler": ["distribution"],
    "flashinfer_fit": ["distribution"],
    "kernel": ["distribution"],
    "document": ["pdf", "phrase"],
}

CHECK_SPEC = {
    "name": {"type": "str", "required": True},
    "title": {"type": "str"},
    "kind": {
        "type": "str",
        "required": True,
        "choices": [
            "files",
            "torch",
            "gpu",
            "import",
            "show_config",
            "cuda_compiler",
            "flashinfer_fit",
            "cuda_runtime",
            "smoke",
            "document",
            "kernel",
        ],
    },
    "timeout": {"type": "float", "default": 300},
    "distribution": {"type": "str"},
    "version": {"type": "str", "default": ""},
    "modules": {"type": "list", "elements": "str", "default": []},
    "companions": {"type": "list", "elements": "str", "default": []},
    "torch": {"type": "str", "default": ""},
    "pdf": {"type": "str"},
    "phrase": {"type": "str", "default": ""},
    "server": {"type": "str", "default": ""},
    "model": {"type": "str", "default": ""},
    "required": {"type": "bool", "default": False},
    "needs": {"type": "list", "elements": "str", "default": []},
    "proven_by": {"type": "list", "elements": "str", "default": []},
    "unmet": {"type": "list", "elements": "str", "default": []},
    "env": {"type": "dict", "default": {}},
}


def wrong_checks(checks: list[dict]) -> str | None:
    """What is wrong with a checklist, or None."""
    names = [check["name"] for check in checks]
    for name in names:
        if names.count(name) > 1:
            return f"the name {name!r} stands twice in checks; give each item a name of its own"
    for check in checks:
        missing = [option for option in REQUIRED.get(check["kind"], []) if not check[option]]
        if missing:
            return f"the check {check['name']!r} is of kind {check['kind']} and needs {' and '.join(missing)}"
        if check["kind"] == "torch":
            wrong = torch_values.check_expected(check["version"])
            if wrong:
                return f"the check {check['name']!r}: {wrong}"
    return None


def main() -> None:
    module = AnsibleModule(
        argument_spec={
            "environment": {"type": "path", "required": True},
            "candidate": {"type": "path"},
            "checks": {"type": "list", "elements": "dict", "required": True, "options": CHECK_SPEC},
            "user": {"type": "str", "default": ""},
        },
        supports_check_mode=True,
    )
    if not torch_values.HAS_PACKAGING:
        module.fail_json(msg=missing_required_lib("packaging"))
    stage = Stage(module.params["environment"], module.params["candidate"])
    checks = [{**check, "title": check["title"] or check["name"]} for check in module.params["checks"]]
    wrong = wrong_checks(checks)
    if wrong:
        module.fail_json(msg=wrong)
    python = os.path.join(stage.tree, "bin", "python")
    if not os.path.exists(python):
        module.fail_json(
            msg=f"{stage.environment} is no Python environment: expected an interpreter at {python}, found none. "
            "Give the prefix of a conda or venv environment."
        )
    user, wrong = service_user.chosen(module.params["user"])
    if wrong:
        module.fail_json(msg=f"user: {wrong}")
    if user:
        try:
            verdicts = stack_checks.run_as(user, stage, checks, module.check_mode)
        except RuntimeError as error:
            module.fail_json(msg=str(error))
    else:
        verdicts = stack_checks.run(stage, checks, module.tmpdir, module.check_mode)
    module.exit_json(
        changed=False,
        checks=verdicts,
        user=user or service_user.name(),
        problems=stack_checks.problems(verdicts, checks),
        summary=stack_checks.summary(verdicts),
    )


if __name__ == "__main__":
    main()
