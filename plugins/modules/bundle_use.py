#!/usr/bin/python
# Copyright (c) 2026 The ocrfleet.gpu_stack contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Bring an offline bundle to a host and hold it against its manifest."""

from __future__ import annotations

DOCUMENTATION = r"""
module: bundle_use
short_description: Bring an offline bundle to a host and hold it against its manifest
version_added: 0.1.0
author:
  - The ocrfleet.gpu_stack contributors (@ocrfleet)
description:
  - A bundle is a folder on the control node, made by the role C(bundle). It is used where it lies when the host has it
    at the same path; otherwise the files that the host does not have yet are copied into O(folder).
  - Then every file is held against the SHA-256 in the manifest, and what the bundle was made for against O(expected).
    Everything that is wrong is listed at once.
options:
  source:
    description:
      - The bundle's folder on the control node.
    type: path
    required: true
  folder:
    description:
      - Folder on the host that the bundle is copied into.
    type: path
    required: true
  expected:
    description:
      - What the bundle must have been made for. Keys are those of the manifest, such as C(python); an empty value is
        not compared.
    type: dict
    default: {}
  manifest:
    description:
      - Text of the manifest on the control node. Filled in by the action plugin.
    type: str
attributes:
  check_mode:
    description: Nothing is copied in check mode. A host that has no bundle yet gives C(present) false.
    support: full
  diff_mode:
    description: Returns details on what has changed, in diff mode.
    support: none
"""

EXAMPLES = r"""
- name: Bring the bundle
  ocrfleet.gpu_stack.bundle_use:
    source: /media/usb/bundle
    folder: /opt/ocrfleet/bundle
    expected:
      python: "3.11"
      architecture: x86_64
"""

RETURN = r"""
folder:
  description: Where the bundle lies on the host, or will.
  returned: success
  type: str
present:
  description: Whether all of it is there and whole.
  returned: success
  type: bool
copied:
  description: Files that were copied, or would be in check mode.
  returned: success
  type: list
  elements: str
locks:
  description: Paths of the locks on the control node, by what they are for.
  returned: success
  type: dict
flashinfer_source:
  description: Path of FlashInfer's source archive on the control node. Empty where the bundle has none.
  returned: success
  type: str
conda_installer:
  description: Path of conda's installer on the control node. Empty where the bundle has none.
  returned: success
  type: str
conda_installer_checksum:
  description: Its checksum, as C(sha256:) and 64 digits.
  returned: success
  type: str
problems:
  description: What is wrong with the bundle, one sentence each.
  returned: failure
  type: list
  elements: str
"""

from ansible.module_utils.basic import AnsibleModule
from ansible_collections.ocrfleet.gpu_stack.plugins.module_utils import bundle


def same_there(folder: str, text: str) -> bool:
    """Whether the host has this very bundle at the control node's path: the same machine, or a shared folder."""
    try:
        return bundle.read(folder) == text
    except bundle.Unusable:
        return False


def main() -> None:
    module = AnsibleModule(
        argument_spec={
            "source": {"type": "path", "required": True},
            "folder": {"type": "path", "required": True},
            "expected": {"type": "dict", "default": {}},
            "manifest": {"type": "str"},
        },
        supports_check_mode=True,
    )
    params = module.params
    if params["manifest"] is None:
        module.fail_json(msg="expected the manifest's text, which the action plugin of this name reads; found none")
    in_place = same_there(params["source"], params["manifest"])
    folder = params["source"] if in_place else params["folder"]
    manifest = bundle.parse(params["manifest"])
    module.exit_json(
        changed=False,
        folder=folder,
        in_place=in_place,
        wrong=bundle.damaged(folder, manifest),
        unlisted=bundle.unlisted(folder, manifest),
        problems=bundle.problems(folder, manifest, params["expected"]),
    )


if __name__ == "__main__":
    main()
