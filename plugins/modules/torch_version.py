#!/usr/bin/python
# Copyright (c) 2026 The ocrfleet.gpu_stack contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Read an environment's PyTorch version, and fail when it is not the expected one."""

from __future__ import annotations

DOCUMENTATION = r"""
module: torch_version
short_description: Check which PyTorch an environment really has
version_added: 0.1.0
author:
  - The ocrfleet.gpu_stack contributors (@ocrfleet)
description:
  - Reads three values, because each alone can be right while the build is wrong. These are the version in the wheel's
    metadata, C(torch.__version__) and C(torch.version.cuda). The package index's own wheel of PyTorch 2.8.0 is the
    CUDA 12.8 build,
    yet its metadata says C(2.8.0) without a label.
  - Works when torch is missing, raises, crashes the interpreter or hangs. Each of these is an answer, within
    O(timeout).
  - Needs no GPU and changes nothing.
extends_documentation_fragment:
  - ocrfleet.gpu_stack.environment
options:
  expected:
    description:
      - Version that the environment must have. With a local label, such as V(2.8.0+cu128), the label and the CUDA
        version it
        stands for must agree too. Without a label any build of that version will do.
      - A specifier such as V(>=2.8,<2.9) is matched as PEP 440 says.
      - Without this option the module reports and does not judge.
    type: str
  timeout:
    description:
      - Seconds that importing torch may take.
    type: float
    default: 120
requirements:
  - packaging
attributes:
  check_mode:
    description: Can run in check mode; it only reads.
    support: full
  diff_mode:
    description: Returns details on what has changed, in diff mode.
    support: N/A
seealso:
  - module: ocrfleet.gpu_stack.stack_verify
"""

EXAMPLES = r"""
- name: Read the values
  ocrfleet.gpu_stack.torch_version:
    environment: /opt/conda/envs/olmocr-optimized
  register: torch

- name: Make sure that PyTorch did not move
  ocrfleet.gpu_stack.torch_version:
    environment: /opt/conda/envs/olmocr-optimized
    expected: 2.8.0+cu128
"""

RETURN = r"""
metadata:
  description: Version in the installed wheel's metadata; null when torch is not installed.
  returned: always
  type: str
  sample: 2.8.0
version:
  description: C(torch.__version__); null when torch cannot be imported.
  returned: always
  type: str
  sample: 2.8.0+cu128
cuda:
  description: C(torch.version.cuda), the CUDA version that torch was built for; null for a CPU build.
  returned: always
  type: str
  sample: "12.8"
problem:
  description: Why torch cannot be imported; null when it can.
  returned: always
  type: str
matches:
  description: Whether all three values agree with O(expected).
  returned: when O(expected) is given
  type: bool
"""

import os

from ansible.module_utils.basic import AnsibleModule, missing_required_lib
from ansible_collections.ocrfleet.gpu_stack.plugins.module_utils import torch_values
from ansible_collections.ocrfleet.gpu_stack.plugins.module_utils.staging import Stage


def main() -> None:
    module = AnsibleModule(
        argument_spec={
            "environment": {"type": "path", "required": True},
            "candidate": {"type": "path"},
            "expected": {"type": "str"},
            "timeout": {"type": "float", "default": 120},
        },
        supports_check_mode=True,
    )
    stage = Stage(module.params["environment"], module.params["candidate"])
    expected = module.params["expected"]
    if expected and not torch_values.HAS_PACKAGING:
        module.fail_json(msg=missing_required_lib("packaging"))
    wrong = torch_values.check_expected(expected) if expected else None
    if wrong:
        module.fail_json(msg=wrong)
    python = os.path.join(stage.tree, "bin", "python")
    if not os.path.exists(python):
        module.fail_json(
            msg=f"{stage.environment} is no Python environment: expected an interpreter at {python}, found none. "
            "Give the prefix of a conda or venv environment."
        )
    values = torch_values.read(stage, module.params["timeout"])
    if not expected:
        module.exit_json(changed=False, **values)
    differences = torch_values.mismatches(values, expected)
    if differences:
        module.fail_json(
            msg=f"PyTorch in {stage.environment} is not {expected}: " + "; ".join(differences), matches=False, **values
        )
    module.exit_json(changed=False, matches=True, **values)


if __name__ == "__main__":
    main()
