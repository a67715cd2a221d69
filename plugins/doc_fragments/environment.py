# Copyright (c) 2026 The ocrfleet.gpu_stack contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Options that say which environment is meant."""

from __future__ import annotations


class ModuleDocFragment:
    DOCUMENTATION = r"""
options:
  environment:
    description:
      - Prefix of the Python environment, made by conda or by venv.
    type: path
    required: true
  candidate:
    description:
      - A tree that stands in for O(environment) while a transaction is under way, as
        M(ocrfleet.gpu_stack.env_transaction)
        returns it.
      - Commands then run in a private mount namespace in which this tree lies at the environment's own path. The live
        environment is not touched.
    type: path
"""
