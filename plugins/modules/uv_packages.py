#!/usr/bin/python
# Copyright (c) 2026 The ocrfleet.gpu_stack contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Bring packages into an environment by uv: plan, guard, lock, install, hold against RECORD."""

from __future__ import annotations

DOCUMENTATION = r"""
module: uv_packages
short_description: Add packages to an environment without moving what must stay
version_added: 0.1.0
author:
  - The ocrfleet.gpu_stack contributors (@ocrfleet)
description:
  - Resolves the requirements against what is installed, with the protected packages as constraints, and refuses with
    the offending
    packages named when one of them, or the CUDA major version, would move.
  - Then installs exactly what was planned, with every downloaded file held against a hash, and at the end holds the
    whole
    environment against every C(RECORD). The installer's exit code is not trusted; uv, killed in the middle of an
    install and run again, exits 0 with files missing.
  - Distributions that are already damaged are installed again at their own version, and returned as C(plan.repaired).
extends_documentation_fragment:
  - ocrfleet.gpu_stack.environment
options:
  uv:
    description:
      - Path of the uv binary on the host. The plan is read from a preview format, so use the version that this
        collection pins.
    type: path
    required: true
  requirements:
    description:
      - Requirements (PEP 508) that the environment must satisfy.
    type: list
    elements: str
    required: true
  optional:
    description:
      - Requirements that are added where they can be had, and left out with the reason in C(left_out) where not.
    type: list
    elements: str
    default: []
  constraints:
    description:
      - Constraints (PEP 508) that every package must respect.
    type: list
    elements: str
    default: []
  lock:
    description:
      - Path, on the control node, of a requirements file with hashes. Versions and hashes are taken from it.
      - A lock that contradicts what is installed already is not used; C(lock_used) says so.
    type: path
  lock_exact:
    description:
      - Install what O(lock) holds, all of it and nothing else, without asking what the requirements depend on. The
        lock of one environment is so carried to others that have the same baseline.
      - Refused when the lock contradicts a protected package or a requirement.
      - Refused too when it holds a package that is not installed and that nothing of O(requirements) and O(optional)
        depends on, by what the packages themselves declare. The text of a lock may be another host's.
    type: bool
    default: false
  protect:
    description:
      - Installed packages that must not move. V(all) means every one, V(torch) the torch family and the CUDA
        libraries. Anything else is a name or a pattern such as V(nvidia-*).
    type: list
    elements: str
    default: []
  cuda_major:
    description:
      - CUDA major version of the environment. Packages that belong to another one are excluded from the resolution,
        and when there
        is no solution without them the request is refused.
    type: int
  allow_cuda:
    description:
      - Names of packages of another CUDA major version that are accepted nonetheless.
    type: list
    elements: str
    default: []
  dependencies:
    description:
      - With V(resolved) the requirements are resolved with all that they depend on, and refused when that cannot be.
      - With V(declared) they are taken by themselves. What they declare is then looked at one by one; what is missing
        and can be had around the protected packages is added, and RV(needs) tells the rest. See O(accept_unmet).
    type: str
    choices: [resolved, declared]
    default: resolved
  accept_unmet:
    description:
      - Names of declared needs that may stay conflicting or unavailable with O(dependencies=declared). Any other one
        refuses the request, for what a package declares it needs at run time, whether or not it imports without.
    type: list
    elements: str
    default: []
  no_build_isolation:
    description:
      - Names of packages that, when they must be built, are built against what the environment holds. With build
        isolation
        a build may fetch the newest torch for itself, and constraints do not reach it.
    type: list
    elements: str
    default: []
  sources:
    description:
      - Where packages come from. Without it uv's own defaults and configuration apply.
    type: dict
    default: {}
    suboptions:
      default_index:
        description: URL of the package index.
        type: str
        default: ""
      indexes:
        description: Indexes that are asked for the named packages only.
        type: list
        elements: dict
        default: []
        suboptions:
          name:
            description: Short name, for messages.
            type: str
            required: true
          url:
            description: URL of the index.
            type: str
            required: true
          packages:
            description: Packages that come from this index and from no other.
            type: list
            elements: str
            required: true
          flat:
            description: Whether the URL is that of a folder, or page, of files instead of an index.
            type: bool
            default: false
      find_links:
        description: Folders or pages with wheels, looked at beside the index.
        type: list
        elements: str
        default: []
      offline:
        description: Use no network; the cache and O(sources.find_links) must hold everything.
        type: bool
        default: false
      ca_bundle:
        description: Path, on the host, of the certificates to trust.
        type: str
        default: ""
  cache:
    description:
      - Folder of uv's cache. On the environment's file system files are linked instead of copied.
    type: path
  progress:
    description:
      - File on the host that uv's messages are added to while it installs. Filled in by the action plugin, which
        shows them.
    type: path
  timeout:
    description:
      - Seconds that one call of uv may take.
    type: float
    default: 3600
requirements:
  - uv
attributes:
  check_mode:
    description: Can run in check mode; resolves, and returns the plan that a run would carry out.
    support: full
  diff_mode:
    description: Shows the packages that come, go and change.
    support: full
seealso:
  - module: ocrfleet.gpu_stack.env_transaction
"""

EXAMPLES = r"""
- name: Add FlashInfer, and nothing that moves the baseline
  ocrfleet.gpu_stack.uv_packages:
    environment: /opt/conda/envs/olmocr-optimized
    uv: /opt/ocrfleet/bin/uv
    requirements:
      - flashinfer-python==0.3.1
    optional:
      - flashinfer-cubin==0.3.1
    protect:
      - all
    cuda_major: 12
    no_build_isolation:
      - flashinfer-python
"""

RETURN = r"""
plan:
  description: What was changed, or would be in check mode.
  returned: when the request could be resolved
  type: dict
  contains:
    added:
      description: Packages that come, with C(name), C(version), and in C(required_by) the packages that ask for it.
      type: list
      elements: dict
    changed:
      description: Packages that move, with C(name), C(before), C(after) and C(required_by).
      type: list
      elements: dict
    removed:
      description: Packages that go, with C(name) and C(version).
      type: list
      elements: dict
    repaired:
      description: Damaged packages that are installed again, with C(name), C(version) and C(problems).
      type: list
      elements: dict
left_out:
  description: Entries of O(optional) that cannot be had, with C(requirement) and C(reason).
  returned: when the request could be resolved
  type: list
  elements: dict
excluded:
  description: Packages of another CUDA major version that the resolver did without, with C(name), C(version),
    C(cuda_major).
  returned: when the request could be resolved
  type: list
  elements: dict
needs:
  description:
    - What the requirements declare, with O(dependencies=declared), each with C(requirement), C(status) and C(reason).
    - The status is V(satisfied) by what is installed, V(installed) now, V(conflicting) with a protected package, which
      wins, or V(unavailable).
  returned: when the request could be resolved, and when it was refused for them
  type: list
  elements: dict
lock:
  description: The requirements text, with hashes, that was installed. Empty when there was nothing to install or in
    check mode.
  returned: when the request could be resolved
  type: str
seconds:
  description: How long planning and installing took.
  returned: when the request could be resolved
  type: float
lock_used:
  description: Whether O(lock) was used.
  returned: when the request could be resolved
  type: bool
shielded:
  description:
    - Whether the environment was read-only while it was planned, and while what O(no_build_isolation) names was built.
      A build runs the package's own code; V(false) where no mount namespace can be had.
  returned: when the request could be resolved
  type: bool
reason:
  description:
    - Why the module failed. With V(refused), V(unsatisfiable), V(not_planned), V(no_environment), V(no_namespace) and
      V(no_uv) nothing was begun; with V(failed) the environment may be changed.
  returned: failure
  type: str
  sample: refused
offending:
  description: The packages that the request was refused for.
  returned: when the request was refused
  type: list
  elements: dict
"""

import dataclasses
import os
import time

from ansible.module_utils.basic import AnsibleModule
from ansible_collections.ocrfleet.gpu_stack.plugins.module_utils import (
    distributions,
    journal,
    needs,
    overwritten,
    package_plan,
    redaction,
    staging,
)
from ansible_collections.ocrfleet.gpu_stack.plugins.module_utils.staging import Stage
from ansible_collections.ocrfleet.gpu_stack.plugins.module_utils.uv import Failed, Sources, Unsatisfiable, Uv

ARGUMENT_SPEC = {
    "environment": {"type": "path", "required": True},
    "candidate": {"type": "path"},
    "uv": {"type": "path", "required": True},
    "requirements": {"type": "list", "elements": "str", "required": True},
    "optional": {"type": "list", "elements": "str", "default": []},
    "constraints": {"type": "list", "elements": "str", "default": []},
    "lock": {"type": "path"},
    "lock_exact": {"type": "bool", "default": False},
    "protect": {"type": "list", "elements": "str", "default": []},
    "cuda_major": {"type": "int"},
    "allow_cuda": {"type": "list", "elements": "str", "default": []},
    "dependencies": {"type": "str", "choices": ["resolved", "declared"], "default": "resolved"},
    "accept_unmet": {"type": "list", "elements": "str", "default": []},
    "no_build_isolation": {"type": "list", "elements": "str", "default": []},
    "sources": {
        "type": "dict",
        "default": {},
        "options": {
            "default_index": {"type": "str", "default": ""},
            "indexes": {
                "type": "list",
                "elements": "dict",
                "default": [],
                "options": {
                    "name": {"type": "str", "required": True},
                    "url": {"type": "str", "required": True},
                    "packages": {"type": "list", "elements": "str", "required": True},
                    "flat": {"type": "bool", "default": False},
                },
            },
            "find_links": {"type": "list", "elements": "str", "default": []},
            "offline": {"type": "bool", "default": False},
            "ca_bundle": {"type": "str", "default": ""},
        },
    },
    "cache": {"type": "path"},
    "progress": {"type": "path"},
    "timeout": {"type": "float", "default": 3600},
}


def make_uv(params: dict, folder: str) -> Uv:
    stage = Stage(params["environment"], params["candidate"])
    return Uv(
        binary=params["uv"],
        stage=stage,
        looking=stage.guarded(),
        sources=Sources.of(params["sources"]),
        folder=folder,
        timeout=params["timeout"],
        cache=params["cache"] or "",
        progress=params["progress"] or "",
        no_build_isolation=tuple(params["no_build_isolation"]),
    )


def read_lock(path: str | None) -> str:
    if not path:
        return ""
    with open(path, encoding="utf-8") as file:
        return file.read()


class NotBegun(Failed):
    """The installation ended before it wrote anything into the environment."""


def transaction_of(environment: str) -> str:
    """The transaction that an environment is in, or was in last, as it is told."""
    record = journal.last(environment)
    # One that cannot be read is mended by the next transaction.
    return (
        f"transaction {record.get('id')} ({record.get('problem') or record.get('state')})"
        if record
        else "no transaction"
    )


def apply(uv: Uv, plan: package_plan.Plan, lock: str, began: str) -> str:
    """Install the plan; returns the lock that was installed. Raises uv.Failed when the result is not whole.

    Nothing is installed where the transaction is no longer what it was when the plan was begun.
    """
    pins = plan.pins
    wanted = package_plan.locked_versions("\n".join(pins))
    if not plan.lock_used or not wanted.items() <= package_plan.locked_versions(lock).items():
        try:
            lock = uv.lock(pins)
        except Failed as failure:
            raise NotBegun(str(failure)) from None
    # What the plan neither moves nor repairs has to stay as it is, file by file.
    planned = {*wanted, *(change.name for change in plan.changes)}
    before = overwritten.take(uv.stage.tree, distributions.installed(uv.stage.tree).keys() - planned)
    try:
        # Inherited by uv, the lock keeps the next run waiting should this one be killed and uv live on.
        with journal.work_lock(journal.state_dir(uv.stage.environment)) as descriptors:
            # Whoever gave this task up, a control node that went away or its time limit, has not ended it: it goes on
            # here, and by now the environment may be the baseline again.
            now = transaction_of(uv.stage.environment)
            if now != began:
                raise NotBegun(
                    f"nothing was installed: this began in {began}, now it is {now.removeprefix('transaction ')}. "
                    "Expected no other run meanwhile; that one tells what became of the environment"
                )
            locked = dataclasses.replace(uv, pass_fds=descriptors)
            locked.install(pins, lock, [damage.name for damage in plan.damaged], plan.constraints)
    except journal.LockBusy as busy:
        raise NotBegun(str(busy)) from None
    still = distributions.damaged(uv.stage.tree)
    if still:
        listed = "; ".join(f"{damage.name}: {damage.problems[0]}" for damage in still[:5])
        raise Failed(f"{len(still)} distributions are not whole after the installation: {listed}")
    installed = distributions.installed(uv.stage.tree)
    written_over = overwritten.told(uv.stage.tree, before, planned & installed.keys())
    if written_over:
        raise Failed(
            f"files of packages that must stay: {'; '.join(written_over[:5])}. Expected packages that bring "
            "files of their own only; take another release of the one that did, and look into where it came from"
        )
    for change in plan.changes:
        found = installed.get(change.name)
        if (found.version if found else None) != change.after:
            raise Failed(
                f"{change.name} should be {change.after} after the installation, found {found and found.version}"
            )
    return lock


def main() -> None:
    started = time.monotonic()
    module = AnsibleModule(
        argument_spec=ARGUMENT_SPEC, required_if=[("lock_exact", True, ["lock"])], supports_check_mode=True
    )
    params = module.params
    redaction.hide(module, redaction.of_sources(params["sources"]))
    uv = make_uv(params, module.tmpdir)
    if not os.path.exists(os.path.join(uv.stage.tree, "bin", "python")):
        module.fail_json(
            reason="no_environment",
            msg=f"{params['environment']} is no Python environment: expected an interpreter at "
            f"{uv.stage.tree}/bin/python, found none. Create it with the role python_env, or correct the path.",
        )
    unavailable = staging.unavailable() if params["candidate"] else None
    if unavailable:
        module.fail_json(
            reason="no_namespace",
            msg=f"{params['candidate']} can only be worked on in a private mount namespace, and none can be had here: "
            f"{unavailable}. Return to the baseline first (fi_method=none), or allow user namespaces.",
        )
    if not os.access(uv.binary, os.X_OK):
        module.fail_json(reason="no_uv", msg=f"Expected uv at {uv.binary}, found nothing that can be run there.")
    lock = read_lock(params["lock"])
    began = transaction_of(params["environment"])
    request = package_plan.Request(
        requirements=params["requirements"],
        optional=params["optional"],
        constraints=params["constraints"],
        lock=lock,
        lock_exact=params["lock_exact"],
        protect=params["protect"],
        cuda_major=params["cuda_major"],
        allow=params["allow_cuda"],
        accept_unmet=params["accept_unmet"],
        declared_only=params["dependencies"] == "declared",
    )
    try:
        plan = package_plan.make(
            uv, request, distributions.installed(uv.stage.tree), distributions.damaged(uv.stage.tree)
        )
    except package_plan.Refused as refusal:
        found = [vars(need) for need in refusal.needs]
        module.fail_json(reason="refused", msg=str(refusal), offending=refusal.offending, needs=found)
    except Unsatisfiable as explanation:
        module.fail_json(
            reason="unsatisfiable",
            msg=f"No versions satisfy {', '.join(params['requirements'])}: {explanation} Ask for versions that exist "
            "and go together (fi_version), or name a source that has what is missing (stack_default_index, "
            "stack_find_links).",
        )
    except (Failed, needs.Unreadable) as failure:
        module.fail_json(reason="not_planned", msg=str(failure))
    changed = bool(plan.pins or plan.changes)
    try:
        installed_lock = apply(uv, plan, lock, began) if changed and not module.check_mode else ""
    except NotBegun as failure:
        module.fail_json(reason="not_planned", msg=str(failure))
    except (Failed, Unsatisfiable) as failure:
        module.fail_json(reason="failed", msg=str(failure))
    module.exit_json(
        changed=changed,
        plan=package_plan.describe(plan),
        left_out=plan.left_out,
        excluded=plan.excluded,
        needs=[vars(need) for need in plan.needs],
        lock=installed_lock,
        seconds=round(time.monotonic() - started, 1),
        lock_used=plan.lock_used,
        shielded=bool(uv.looking and uv.looking.read_only),
        **({"diff": package_plan.diff(plan)} if module._diff else {}),
    )


if __name__ == "__main__":
    main()
