#!/usr/bin/python
# Copyright (c) 2026 The ocrfleet.gpu_stack contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Documentation of the action plugin of the same name, which does all the work on the control node."""

from __future__ import annotations

DOCUMENTATION = r"""
module: check_inputs
short_description: Hold the collection's variables against its argument specs
version_added: 0.1.0
author:
  - The ocrfleet.gpu_stack contributors (@ocrfleet)
description:
  - Looks at every variable that begins with C(fi_) or with the name of one of this collection's roles. One that no
    role knows is an
    error that names the nearest right name; one with a wrong type or choice is an error too. All are listed at once.
  - Runs on the control node. No host is asked and nothing is touched.
options:
  uv_source:
    description:
      - Path of uv on the control node, checked to be there.
    type: str
attributes:
  check_mode:
    description: Can run in check mode; it only reads.
    support: full
  diff_mode:
    description: Returns details on what has changed, in diff mode.
    support: N/A
"""

EXAMPLES = r"""
- name: Check the inputs
  ocrfleet.gpu_stack.check_inputs:
"""

RETURN = r"""
spec_hash:
  description: A hash over all values that decide what is installed.
  returned: success
  type: str
started:
  description: When the run began for this host, in seconds since 1970.
  returned: success
  type: float
problems:
  description: What is wrong, one sentence each.
  returned: failure
  type: list
  elements: str
other_version:
  description: That a rollout's driver sent the run here from another version of this collection, with both versions.
  returned: failure, where it did
  type: str
"""
