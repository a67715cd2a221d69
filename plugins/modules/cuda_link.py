#!/usr/bin/python
# Copyright (c) 2026 The ocrfleet.gpu_stack contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Have /usr/local/cuda lead where it should."""

from __future__ import annotations

DOCUMENTATION = r"""
module: cuda_link
short_description: Have /usr/local/cuda lead where it should
version_added: 0.2.0
author:
  - The ocrfleet.gpu_stack contributors (@ocrfleet)
description:
  - NVIDIA's packages and installers turn C(/usr/local/cuda) to the toolkit that came last, and with it everything
    on the host that names that path. This module turns it to O(target).
  - Where the alternatives system keeps the link, it is asked to set it, and then no longer turns it by itself.
options:
  target:
    description:
      - The toolkit's folder.
    type: path
    required: true
  path:
    description:
      - The link.
    type: path
    default: /usr/local/cuda
attributes:
  check_mode:
    description: Can run in check mode and return changed status without modifying target.
    support: full
  diff_mode:
    description: Returns details on what has changed, in diff mode.
    support: full
seealso:
  - module: ocrfleet.gpu_stack.cuda_toolkit
"""

EXAMPLES = r"""
- name: Keep the older toolkit the default
  ocrfleet.gpu_stack.cuda_link:
    target: /usr/local/cuda-12.4
"""

RETURN = r"""
before:
  description: Where the link led; empty where there was none.
  returned: always
  type: str
"""

import os

from ansible.module_utils.basic import AnsibleModule
from ansible_collections.ocrfleet.gpu_stack.plugins.module_utils import commands

ALTERNATIVES = "/etc/alternatives/"


def turn(path: str, target: str) -> str:
    """Make `path` lead to `target`; why that failed, or an empty text."""
    if os.path.islink(path) and os.readlink(path).startswith(ALTERNATIVES):
        tool = next(
            (t for t in ("update-alternatives", "alternatives") if commands.run([t, "--version"], timeout=20).ok), ""
        )
        name = os.path.basename(os.readlink(path))
        if tool:
            result = commands.run([tool, "--set", name, target], timeout=20)
            if result.ok:
                return ""
            # A link that was there before the alternatives came is no choice of theirs. Then it becomes one of its own.
    temporary = f"{path}.ocrfleet"
    try:
        os.symlink(target, temporary)
        os.replace(temporary, path)
    except OSError as error:
        return f"cannot make {path} a link to {target}: {error.strerror}"
    return ""


def main() -> None:
    module = AnsibleModule(
        argument_spec={
            "target": {"type": "path", "required": True},
            "path": {"type": "path", "default": "/usr/local/cuda"},
        },
        supports_check_mode=True,
    )
    path, target = module.params["path"], module.params["target"]
    if os.path.lexists(path) and not os.path.islink(path):
        if os.path.realpath(path) == os.path.realpath(target):
            module.exit_json(changed=False, before=path)
        module.fail_json(msg=f"expected a link or nothing at {path}, found a folder or file; move it away")
    before = os.path.realpath(path) if os.path.islink(path) else ""
    changed = before != os.path.realpath(target)
    if changed and not module.check_mode:
        problem = turn(path, target)
        if problem:
            module.fail_json(msg=problem)
    module.exit_json(
        changed=changed,
        before=before,
        diff={"before": f"{path} -> {before or 'nothing'}\n", "after": f"{path} -> {target}\n"},
    )


if __name__ == "__main__":
    main()
