#!/usr/bin/python
# Copyright (c) 2026 The ocrfleet.gpu_stack contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Documentation of the action plugin of the same name, which does all the work on the control node."""

from __future__ import annotations

DOCUMENTATION = r"""
module: rollout_gate
short_description: Hold a wave back when hosts of earlier waves were not converted
version_added: 0.1.0
author:
  - The ocrfleet.gpu_stack contributors (@ocrfleet)
description:
  - Judges the hosts of all batches before this one, in a play with C(serial). A host is converted when its evidence of
    this run says that it is verified, or when the first look found nothing to do, and it has not failed since.
  - A host that failed, was rescued without being verified, was unreachable, or never answered is not.
  - Fails on every host of the batch, so that the play ends. No host is asked.
  - Refuses every strategy but C(linear), because the others begin a batch's first tasks while another is at work.
options:
  hosts:
    description: The hosts to judge. The default is those of the batches before.
    type: list
    elements: str
  allowed_failures:
    description: How many hosts may be not converted.
    type: int
    default: 0
attributes:
  check_mode:
    description: Says what it would do, and holds nothing back, since nothing is converted in check mode.
    support: full
  diff_mode:
    description: Nothing is changed.
    support: N/A
"""

EXAMPLES = r"""
- name: Hold this wave back when earlier hosts were not converted
  ocrfleet.gpu_stack.rollout_gate:
    allowed_failures: 0
"""

RETURN = r"""
not_converted:
  description: The hosts that were not converted, each with why.
  returned: always
  type: dict
  sample: {"ocr-gpu-01": "failed or was unreachable"}
"""
