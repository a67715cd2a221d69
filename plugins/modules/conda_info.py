#!/usr/bin/python
# Copyright (c) 2026 The ocrfleet.gpu_stack contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Find conda, mamba or micromamba, and say whether one has to be installed."""

from __future__ import annotations

DOCUMENTATION = r"""
module: conda_info
short_description: Find conda, mamba or micromamba
version_added: 0.2.0
author:
  - The ocrfleet.gpu_stack contributors (@ocrfleet)
description:
  - Looks on PATH and in the usual places, and asks what it finds for its version and its folders of environments.
  - Chooses one, or says that one has to be installed. Changes nothing.
options:
  home:
    description:
      - Folder where one is, or would be, installed.
    type: path
    required: true
  method:
    description:
      - V(auto) takes what is there. V(installer) takes only what is at O(home).
    type: str
    choices: [auto, existing, installer]
    default: auto
  executable:
    description:
      - Path of the one to use. Empty means that it is looked for.
    type: path
    default: ""
  checksums:
    description:
      - The installer's checksum by architecture; only its presence is checked here.
    type: dict
    default: {}
attributes:
  check_mode:
    description: Can run in check mode; it only reads.
    support: full
  diff_mode:
    description: Returns details on what has changed, in diff mode.
    support: N/A
seealso:
  - module: ocrfleet.gpu_stack.conda_environment
"""

EXAMPLES = r"""
- name: Look for conda
  ocrfleet.gpu_stack.conda_info:
    home: /opt/miniforge3
    method: existing
  register: conda
"""

RETURN = r"""
home:
  description: O(home) with C(~) resolved on the host.
  returned: always
  type: str
method:
  description: V(existing) or V(installer).
  returned: always
  type: str
why:
  description: Why it is that one.
  returned: always
  type: str
executable:
  description: The one to use, there or yet to be.
  returned: always
  type: str
engines:
  description: All that were found. C(executable), C(kind), C(version), C(root), C(environments).
  returned: always
  type: list
  elements: dict
begun:
  description: Whether an earlier installation at O(home) did not end.
  returned: always
  type: bool
ours:
  description: Whether what is at O(home) was installed by this collection.
  returned: always
  type: bool
architecture:
  description: The host's, as installers name it.
  returned: always
  type: str
checksum:
  description: That of O(checksums) for this architecture; empty when there is none.
  returned: always
  type: str
problems:
  description: What stands in the way, one sentence each.
  returned: always
  type: list
  elements: str
"""

import os
import platform

from ansible.module_utils.basic import AnsibleModule
from ansible_collections.ocrfleet.gpu_stack.plugins.module_utils import conda_engines


def main() -> None:
    module = AnsibleModule(
        argument_spec={
            "home": {"type": "path", "required": True},
            "method": {"type": "str", "choices": ["auto", "existing", "installer"], "default": "auto"},
            "executable": {"type": "path", "default": ""},
            "checksums": {"type": "dict", "default": {}},
        },
        supports_check_mode=True,
    )
    home, executable = module.params["home"], module.params["executable"]
    found = conda_engines.survey(home)
    named = conda_engines.look(executable) if executable else None
    if named and named.executable not in [engine.executable for engine in found]:
        found.insert(0, named)
    begun = os.path.exists(home + conda_engines.BEGUN)
    checksum = str(module.params["checksums"].get(platform.machine(), ""))
    way = conda_engines.choose(module.params["method"], home, executable, found, begun, checksum)
    module.exit_json(
        changed=False,
        home=home,
        method=way.method,
        why=way.why,
        executable=way.executable,
        engines=[engine.as_dict() for engine in found],
        begun=begun,
        ours=os.path.exists(os.path.join(home, conda_engines.OURS)),
        architecture=platform.machine(),
        checksum=checksum,
        problems=list(way.problems),
    )


if __name__ == "__main__":
    main()
