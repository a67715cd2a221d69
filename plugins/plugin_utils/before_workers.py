# Copyright (c) 2026 The ocrfleet.gpu_stack contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Load once what each worker would load for itself.

ansible-core 2.19 loads filters, tests and lookups where a template first asks for one. That is in the process that
works on one task of one host, which forgets them when it ends: 15 to 55 ms of CPU each time. Action plugins alone are
imported by the process that forks those, so what is loaded while one is imported is there for every later task.
"""

from __future__ import annotations

import contextlib

from ansible.plugins.loader import action_loader, filter_loader, lookup_loader, test_loader


def load() -> None:
    """Load Ansible's filters and tests, this collection's, and the plugins that most tasks of its roles use.

    One name brings all: Ansible imports every file of a collection's filters to find one of them.
    """
    with contextlib.suppress(KeyError):  # imported by something else than Ansible, which has not found the collection
        filter_loader.get("ocrfleet.gpu_stack.junit")
    test_loader.get("ansible.builtin.version")
    for lookup in ("env", "file", "template"):
        lookup_loader.get(f"ansible.builtin.{lookup}", class_only=True)
    action_loader.get("ansible.builtin.normal", class_only=True)  # of every module that has no action plugin
