#!/usr/bin/python
# Copyright (c) 2026 The ocrfleet.gpu_stack contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Choose the FlashInfer release that fits an environment."""

from __future__ import annotations

DOCUMENTATION = r"""
module: flashinfer_version
short_description: Choose the FlashInfer release that fits an environment
version_added: 0.1.0
author:
  - The ocrfleet.gpu_stack contributors (@ocrfleet)
description:
  - The installed vllm decides. Its attention path calls FlashInfer with a fixed number of arguments, so a newer
    FlashInfer
    imports well and fails at the first request. vllm says what it was built against in its extra C(flashinfer).
  - Reads files only; no Python of the environment is started, and nothing is changed.
extends_documentation_fragment:
  - ocrfleet.gpu_stack.environment
options:
  wanted:
    description:
      - A version, or V(auto) for what the installed vllm declares.
    type: str
    default: auto
  default_version:
    description:
      - What V(auto) means where no vllm is installed or it declares none.
    type: str
    required: true
  look_at_files:
    description: Whether to take RV(files_fingerprint); takes half a second for 40,000 files.
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
  - module: ocrfleet.gpu_stack.flashinfer_info
"""

EXAMPLES = r"""
- name: Choose the version
  ocrfleet.gpu_stack.flashinfer_version:
    environment: /opt/conda/envs/olmocr-optimized
    default_version: 0.3.1
  register: flashinfer
"""

RETURN = r"""
version:
  description: The release to install.
  returned: always
  type: str
  sample: 0.3.1
reason:
  description: Where it comes from.
  returned: always
  type: str
  sample: the installed vllm 0.11.0 declares it in its flashinfer extra
remark:
  description:
    - What is to be known of this release and the installed vllm, such as that it works with its sampler only. Empty
      where both of vllm's paths are known to work with it, and without vllm.
  returned: always
  type: str
requirement:
  description: The requirement for FlashInfer itself.
  returned: always
  type: str
  sample: flashinfer-python==0.3.1
companions:
  description: Requirements for C(flashinfer-cubin) and C(flashinfer-jit-cache) at exactly the matching version.
  returned: always
  type: list
  elements: str
  sample: [flashinfer-cubin==0.3.1, flashinfer-jit-cache==0.3.1]
installed:
  description: The FlashInfer that is there; null when there is none.
  returned: always
  type: str
installed_by:
  description:
    - The method by which it came, as this collection wrote it into the environment; empty where it did not.
  returned: always
  type: dict
  sample: {method: pypi, version: 0.3.1}
brought:
  description:
    - The packages that came or moved with it, by version (null for one that went), as this collection wrote them into
      the environment; empty where it did not, and without FlashInfer.
  returned: always
  type: dict
  sample: {flashinfer-python: 0.3.1, tabulate: 0.9.0}
fingerprint:
  description: A hash over every installed distribution's name, version and C(RECORD).
  returned: always
  type: str
files_fingerprint:
  description: A hash over type, size, time, mode and owner of every entry but compiled files.
  returned: with O(look_at_files)
  type: str
versions_fingerprint:
  description: A hash over every installed distribution's name and version, to compare hosts with each other.
  returned: always
  type: str
transaction:
  description:
    - C(id) and C(state) of the transaction that the environment is in, or was in last, and in C(services) the units
      that are still to be restarted after it; empty where there was none. The state is V(unreadable) where the journal
      is.
  returned: always
  type: dict
  sample: {id: 20261127T120000.000000Z-1a2b, state: promoted, services: []}
"""

from ansible.module_utils.basic import AnsibleModule
from ansible_collections.ocrfleet.gpu_stack.plugins.module_utils import (
    distributions,
    flashinfer_install,
    flashinfer_policy,
    inventory,
    journal,
)
from ansible_collections.ocrfleet.gpu_stack.plugins.module_utils.staging import Stage


def main() -> None:
    module = AnsibleModule(
        argument_spec={
            "environment": {"type": "path", "required": True},
            "candidate": {"type": "path"},
            "wanted": {"type": "str", "default": "auto"},
            "default_version": {"type": "str", "required": True},
            "look_at_files": {"type": "bool", "default": False},
        },
        supports_check_mode=True,
    )
    last = journal.last(module.params["environment"])
    tree = Stage(module.params["environment"], module.params["candidate"]).tree
    installed = distributions.installed(tree)
    selected = flashinfer_policy.select(module.params["wanted"], installed, module.params["default_version"])
    present, vllm = installed.get(flashinfer_policy.PACKAGE), installed.get("vllm")
    module.exit_json(
        changed=False,
        version=selected.version,
        reason=selected.reason,
        remark=flashinfer_install.remark(vllm.version, selected.version) if vllm else "",
        requirement=selected.requirement,
        companions=selected.companions,
        installed=present.version if present else None,
        installed_by=flashinfer_policy.installed_by(tree, present.version) if present else {},
        brought=flashinfer_policy.brought(tree) if present else {},
        fingerprint=distributions.fingerprint(tree),
        versions_fingerprint=distributions.versions_fingerprint(tree),
        transaction={name: last[name] for name in ("id", "state", "services") if name in last},
        **({"files_fingerprint": inventory.fingerprint(tree)} if module.params["look_at_files"] else {}),
    )


if __name__ == "__main__":
    main()
