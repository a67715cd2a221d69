#!/usr/bin/python
# Copyright (c) 2026 The ocrfleet.gpu_stack contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Make a conda environment with a pinned Python, whole or not at all."""

from __future__ import annotations

DOCUMENTATION = r"""
module: conda_environment
short_description: Make a conda environment
version_added: 0.2.0
author:
  - The ocrfleet.gpu_stack contributors (@ocrfleet)
description:
  - Makes the environment with conda, mamba or micromamba when it is not there, with Python pinned in it. One that is
    there is left as it is.
  - What a killed run left is removed and made anew. A folder that something else left is refused.
  - Channels are written into the environment's own C(.condarc), which conda reads while the environment is active. The
    user's file is not touched.
options:
  prefix:
    description:
      - The environment's folder.
    type: path
    required: true
  executable:
    description:
      - Name or path of the conda, mamba or micromamba to use.
    type: path
    required: true
  python:
    description:
      - Version of Python, such as V(3.11). Later changes of the environment keep it.
    type: str
    required: true
  channels:
    description:
      - Names or URLs of channels, the first with the highest priority. Empty means what the engine is set up for.
    type: list
    elements: str
    default: []
attributes:
  check_mode:
    description: Can run in check mode and return changed status without modifying target.
    support: full
  diff_mode:
    description: Returns details on what has changed, in diff mode.
    support: none
seealso:
  - module: ocrfleet.gpu_stack.conda_info
"""

EXAMPLES = r"""
- name: Make the environment
  ocrfleet.gpu_stack.conda_environment:
    prefix: /opt/miniforge3/envs/olmocr-optimized
    executable: /opt/miniforge3/bin/conda
    python: "3.11"
"""

RETURN = r"""
command:
  description: The command that was, or would be, run; empty when the environment is there.
  returned: success
  type: list
  elements: str
"""

import json
import os
import shutil

from ansible.module_utils.basic import AnsibleModule
from ansible_collections.ocrfleet.gpu_stack.plugins.module_utils import commands, conda_engines, machine

# A slow mirror and a slow disk included; conda itself takes a minute.
_SECONDS = 1800.0


def create_command(params: dict) -> list[str]:
    command = [params["executable"], "create", "--yes", "--prefix", params["prefix"]]
    if params["channels"]:
        command += ["--override-channels"]
        for channel in params["channels"]:
            command += ["--channel", channel]
    return [*command, f"python={params['python']}"]


def condarc(channels: list[str]) -> str:
    """The environment's own settings. JSON strings are YAML strings."""
    return "".join(["channels:\n", *(f"  - {json.dumps(channel)}\n" for channel in channels)])


def write(path: str, text: str) -> None:
    os.makedirs(os.path.dirname(path), exist_ok=True)
    with open(path, "w", encoding="utf-8") as file:
        file.write(text)


def main() -> None:
    module = AnsibleModule(
        argument_spec={
            "prefix": {"type": "path", "required": True},
            "executable": {"type": "path", "required": True},
            "python": {"type": "str", "required": True},
            "channels": {"type": "list", "elements": "str", "default": []},
        },
        supports_check_mode=True,
    )
    params = module.params
    prefix, begun = params["prefix"], params["prefix"] + conda_engines.BEGUN
    state = machine.environment_state(prefix)["state"]
    if state == "environment" and not os.path.exists(begun):
        module.exit_json(changed=False, command=[])
    if state in ("partial", "foreign") and not os.path.exists(begun):
        module.fail_json(
            msg=f"expected an environment or nothing at {prefix}, found "
            f"{'part of one' if state == 'partial' else 'something else'}; move it away, or correct stack_environment"
        )
    command = create_command(params)
    # In check mode a path may be where the role conda would install it.
    foreseen = module.check_mode and os.sep in params["executable"]
    if not foreseen and not shutil.which(params["executable"]):
        module.fail_json(
            msg=f"expected conda, mamba or micromamba at {params['executable']}, found none; apply the role conda "
            "before, or name one with python_env_conda"
        )
    if module.check_mode:
        module.exit_json(changed=True, command=command)
    try:
        write(begun, "an environment is being made here by ocrfleet.gpu_stack\n")
        if os.path.lexists(prefix):
            shutil.rmtree(prefix)
    except OSError as error:
        module.fail_json(
            msg=f"expected a place for an environment at {prefix} that this user may write to, found {error.filename}: "
            f"{error.strerror}; make its folder, run as its owner, or name another prefix"
        )
    result = commands.run(command, timeout=_SECONDS)
    made = machine.environment_state(prefix)
    if not result.ok or made["python"] != params["python"]:
        shutil.rmtree(prefix, ignore_errors=True)
        os.remove(begun)
        found = result.outcome() if not result.ok else f"expected Python {params['python']}, found {made['python']}"
        module.fail_json(msg=f"{' '.join(command)}: {found}. Nothing was left behind", command=command)
    write(os.path.join(prefix, "conda-meta", "pinned"), f"python {params['python']}.*\n")
    if params["channels"]:
        write(os.path.join(prefix, ".condarc"), condarc(params["channels"]))
    os.remove(begun)
    module.exit_json(changed=True, command=command)


if __name__ == "__main__":
    main()
