#!/usr/bin/python
# Copyright (c) 2026 The ocrfleet.gpu_stack contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Have a model's weights on a host: fetched as OlmOCR fetches them, or held whole where they lie."""

from __future__ import annotations

DOCUMENTATION = r"""
module: model_weights
short_description: Fetch a model's weights before they are needed, or check those at a path
version_added: 0.1.0
author:
  - The ocrfleet.gpu_stack contributors (@ocrfleet)
description:
  - OlmOCR fetches its model at the first start, some 10 GB for the default one. This does it before, into the same
    cache of the same user, by the C(huggingface_hub) of the environment.
  - A model at a path is left where it is.
  - Either is held against what it says of itself. Each file that the index of its weights names must be there, and as
    long as its own header says; a download that was cut short is found so.
options:
  environment:
    description: Prefix of the Python environment that has OlmOCR.
    type: path
    required: true
  model:
    description:
      - The name of a model on the Hugging Face hub, such as V(allenai/olmOCR-2-7B-1025-FP8), or the absolute path of a
        folder on the host.
    type: str
    required: true
  revision:
    description:
      - Commit, tag or branch of a model on the hub. OlmOCR itself asks for the default branch. Not for a path.
    type: str
    default: ""
  offline:
    description: Whether nothing may be fetched. The model must be in the cache then.
    type: bool
    default: false
  timeout:
    description: Seconds that fetching may take.
    type: int
    default: 7200
attributes:
  check_mode:
    description: Tells whether the model would be fetched, and fetches nothing.
    support: full
  diff_mode:
    description: Returns details on what has changed, in diff mode.
    support: none
seealso:
  - module: ocrfleet.gpu_stack.stack_verify
"""

EXAMPLES = r"""
- name: Have the weights before the first request
  ocrfleet.gpu_stack.model_weights:
    environment: /opt/conda/envs/olmocr-optimized
    model: allenai/olmOCR-2-7B-1025-FP8
"""

RETURN = r"""
path:
  description: The folder that holds the model; empty in check mode where it is yet to be fetched.
  returned: success
  type: str
problems:
  description: What the model at the path lacks.
  returned: when it is not whole
  type: list
  elements: str
"""

import json
import os
import re

from ansible.module_utils.basic import AnsibleModule
from ansible_collections.ocrfleet.gpu_stack.plugins.module_utils import model_weights, redaction
from ansible_collections.ocrfleet.gpu_stack.plugins.module_utils.staging import Stage

# As olmocr.pipeline.download_model does it in 0.4.2. The last line is the answer; what comes before is progress.
PROGRAM = """
import json, sys
repository, revision, local = json.loads(sys.argv[1])
try:
    from huggingface_hub import snapshot_download
    answer = {"path": snapshot_download(repo_id=repository, revision=revision or None, local_files_only=local)}
except Exception as error:
    answer = {"problem": f"{type(error).__name__}: {error}"}
print(json.dumps(answer))
"""
LOOK_SECONDS = 120


def ask(stage: Stage, model: str, revision: str, local: bool, timeout: float) -> dict:
    """`path` of the model in the user's cache, or the `problem` with it; with `local` nothing is fetched."""
    argv = [stage.python, "-c", PROGRAM, json.dumps([model, revision, local])]
    result = stage.run(
        argv, timeout=timeout, env={"HF_HUB_DISABLE_TELEMETRY": "1", "HF_HUB_DISABLE_PROGRESS_BARS": "1"}
    )
    if not result.ok:
        return {"problem": result.outcome(3)}
    return dict(json.loads(result.stdout.strip().splitlines()[-1]))


def refuse(module: AnsibleModule, where: str, found: list[str], advice: str) -> None:
    module.fail_json(msg=f"expected a whole model {where}, found {'; '.join(found[:5])}; {advice}", problems=found)


def main() -> None:
    module = AnsibleModule(
        argument_spec={
            "environment": {"type": "path", "required": True},
            "model": {"type": "str", "required": True},
            "revision": {"type": "str", "default": ""},
            "offline": {"type": "bool", "default": False},
            "timeout": {"type": "int", "default": 7200},
        },
        supports_check_mode=True,
    )
    model, revision = module.params["model"], module.params["revision"]
    if os.path.isabs(model):
        found = model_weights.problems(model)
        if found:
            refuse(module, f"at {model}", found, "bring what is missing, or correct the path")
        module.exit_json(changed=False, path=model)
    if not re.fullmatch(r"[\w.-]+/[\w.-]+", model):
        module.fail_json(
            msg=f"model: expected OWNER/NAME of the Hugging Face hub, or an absolute path, found {model}; correct it"
        )
    stage = Stage(module.params["environment"])
    there = ask(stage, model, revision, True, LOOK_SECONDS)
    if there.get("path") and not model_weights.problems(there["path"]):
        module.exit_json(changed=False, path=there["path"])
    if module.params["offline"]:
        lacks = model_weights.problems(there["path"]) if there.get("path") else ["nothing"]
        refuse(
            module, f"{model} in the cache, as nothing may be fetched", lacks, "name a folder on the host by its path"
        )
    if module.check_mode:
        module.exit_json(changed=True, path="")
    fetched = ask(stage, model, revision, False, module.params["timeout"])
    if not fetched.get("path"):
        module.fail_json(
            msg=f"{model} could not be fetched: {redaction.without_secrets(fetched['problem'])}; check the network "
            "(HF_ENDPOINT names a mirror, HF_TOKEN a token), or name a folder on the host by its path"
        )
    found = model_weights.problems(fetched["path"])
    if found:
        refuse(module, f"at {fetched['path']}", found, "remove that folder and run again")
    module.exit_json(changed=True, path=fetched["path"])


if __name__ == "__main__":
    main()
