#!/usr/bin/python
# Copyright (c) 2026 The ocrfleet.gpu_stack contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

from __future__ import annotations

DOCUMENTATION = r"""
module: env_transaction
short_description: Change a Python environment so that its baseline is provably back when that fails
version_added: 0.1.0
description:
  - Freezes a Python environment, gives a candidate to work on, and exchanges the two trees in one atomic step.
  - The environment at its path is at every moment the baseline or the promoted result; with the strategy V(in_place)
    it is changed where it lies, and the baseline is the copy.
  - Every action but V(status) and V(prove) first finds out what an earlier run left, and refuses while another run
    owns the environment. V(begin), V(restore) and V(recover) finish or undo it.
options:
  environment:
    description: Absolute path of the environment. A link to it is resolved, with a warning.
    type: path
    required: true
  action:
    description:
      - V(status) tells the state and the kept baselines.
      - V(recover) finishes or undoes what an earlier run left.
      - V(begin) freezes the environment and makes the candidate.
      - V(promote) makes the candidate the environment, once its files are complete and the baseline is still intact.
      - V(restore) makes the environment the baseline again at whatever state, and fails when the proof does not hold.
      - V(discard) drops the candidate and goes on owning the environment.
      - V(prove) compares the environment with a baseline.
      - V(prune) removes all but the newest baselines and ends the ownership of this run. The newest one without
        FlashInfer is always kept.
    type: str
    required: true
    choices: [status, recover, begin, promote, restore, discard, prove, prune]
  strategy:
    description:
      - How V(begin) separates work from production. V(staged) works on a candidate that commands see at the
        environment's path in a private mount namespace. V(in_place) changes the environment itself.
      - V(auto) takes V(staged) where a mount namespace can be had, else V(in_place), and says why.
    type: str
    choices: [auto, staged, in_place]
    default: auto
  state_dir:
    description:
      - Where journal, lock, and kept trees lie, on the filesystem of the environment.
      - The default is C(.<name>.gpu_stack) beside the environment.
    type: path
  keep:
    description: How many baselines V(prune) keeps, at least one.
    type: int
    default: 3
  baseline:
    description: The baseline for V(restore) and V(prove). The default is that of the last transaction, else the newest.
    type: str
  source:
    description:
      - A kept baseline that V(begin) makes the candidate from, instead of the environment as it is.
      - So another release of FlashInfer starts from the environment without any, and not from what an earlier one left.
        The environment as it is stays the baseline of the transaction.
    type: str
  export_dir:
    description:
      - Folder for the dated C(olmocr-baseline-YYYYMMDD.txt) and, for conda, C(olmocr-env-baseline-YYYYMMDD.yml).
      - The default is the home of the environment's owner. An earlier file of the same day is never overwritten.
    type: path
  services:
    description:
      - systemd units to restart after an exchange of trees, and to see active again.
      - Those given to V(begin) are remembered for whatever ends its transaction, also when a later run does.
    type: list
    elements: str
    default: []
  uv:
    description: Path of uv on the host, for the package list of environments without pip, and for commands that repair.
    type: path
  lease:
    description: Seconds without a sign of life after which a run of another control node gives way.
    type: int
    default: 3600
  takeover:
    description: Whether to take the environment over from a run that is believed alive.
    type: bool
    default: false
  deep:
    description: Whether the proof also reads every file that has a hash in its RECORD; takes as long as the disk needs.
    type: bool
    default: false
  keep_replaced:
    description:
      - Whether V(restore) keeps the tree that the baseline replaces, in the state folder, until the next V(prune).
    type: bool
    default: false
  owner:
    description: The run that this call works for. Filled in by the action plugin of the same name; never set it.
    type: dict
  owner_gone:
    description: The earlier owner that the control node has seen dead. Filled in by the action plugin; never set it.
    type: str
attributes:
  check_mode:
    description: Tells the steps in RV(plan) and changes nothing.
    support: full
  diff_mode:
    description: There is no text to compare.
    support: none
requirements:
  - Linux with renameat2 on the host (kernel 3.15), GNU coreutils, util-linux
author:
  - The ocrfleet.gpu_stack contributors (@ocrfleet)
"""

EXAMPLES = r"""
- name: Freeze the environment and make a candidate
  ocrfleet.gpu_stack.env_transaction:
    environment: /home/ocr/miniforge3/envs/olmocr-optimized
    action: begin
  register: begun

- name: Make the verified candidate the environment
  ocrfleet.gpu_stack.env_transaction:
    environment: /home/ocr/miniforge3/envs/olmocr-optimized
    action: promote
    services: [olmocr.service]

- name: Put the baseline back, and prove that it is back
  ocrfleet.gpu_stack.env_transaction:
    environment: /home/ocr/miniforge3/envs/olmocr-optimized
    action: restore
"""

RETURN = r"""
transaction:
  description: Where the transaction stands after the action.
  returned: always
  type: dict
  contains:
    id:
      description: The transaction.
      type: str
      returned: always
    state:
      description: V(none), V(freezing), V(cloning), V(open), V(promoting), V(promoted), V(restoring), V(restored),
        V(discarding), V(discarded), or V(unreadable).
      type: str
      returned: always
    problem:
      description: Why the journal cannot be read; null when it can.
      type: str
      returned: always
    strategy:
      description: V(staged) or V(in_place).
      type: str
      returned: always
    strategy_reason:
      description: Why this strategy.
      type: str
      returned: always
    environment:
      description: The real path of the environment.
      type: str
      returned: always
    state_dir:
      description: Where journal, lock, and trees lie.
      type: str
      returned: always
    candidate:
      description: The tree to work on, none under V(in_place) and outside of an open transaction.
      type: str
      returned: always
    clone:
      description: V(hardlink) or V(reflink).
      type: str
      returned: always
    baseline_id:
      description: The baseline of this transaction.
      type: str
      returned: always
    baselines:
      description: The baselines that can be had, newest first, each with C(id), C(created), C(torch), C(packages),
        C(flashinfer) (null without), C(path).
      type: list
      elements: dict
      returned: always
    way_back:
      description: The baseline that V(restore) leads to where O(baseline) names none; null where none is kept.
      type: str
      returned: always
    owner:
      description: The run that owns the environment, if any.
      type: dict
      returned: always
    exports:
      description: The frozen lists, each with C(path) and C(made_by).
      type: list
      elements: dict
      returned: always
recovered:
  description: What an earlier run had left (C(found)), and what was done about it (C(done)).
  returned: for recover and begin
  type: dict
proof:
  description:
    - The comparison with the baseline. C(equal) is the verdict; C(differences) and C(damaged) name files, capped;
      C(repair) is the command that makes the environment the baseline again, from the kept tree or, where that is the
      environment itself, from where its packages came; C(torch) has PyTorch's three values as their files say them
      (C(found)), as they were frozen (C(baseline)), and the command that installs PyTorch and its libraries as they
      were frozen (C(repair)), for one whose files are as they were and that does not import.
  returned: for prove and restore
  type: dict
plan:
  description: What the action would do.
  returned: in check mode
  type: list
  elements: str
removed:
  description: The baselines, and the trees held back, that were removed.
  returned: for prune
  type: list
  elements: str
contested:
  description: The run that owns the environment.
  returned: when another run owns it
  type: dict
held:
  description: That the environment is another run's, or that its lock is held by a process that outlived one.
  returned: when it was refused for that
  type: bool
"""

import os
from typing import Any

from ansible.module_utils.basic import AnsibleModule
from ansible_collections.ocrfleet.gpu_stack.plugins.module_utils import clone, transaction

ACTIONS = ("status", "recover", "begin", "promote", "restore", "discard", "prove", "prune")


def options(params: dict[str, Any]) -> transaction.Options:
    """The module's parameters as the transaction wants them."""
    return transaction.Options(
        environment=params["environment"],
        state_dir=params["state_dir"] or "",
        owner=params["owner"] or {},
        gone=params["owner_gone"] or "",
        takeover=params["takeover"],
        lease=params["lease"],
        strategy=params["strategy"],
        keep=params["keep"],
        baseline=params["baseline"] or "",
        source=params["source"] or "",
        export_dir=params["export_dir"] or "",
        services=params["services"],
        uv=params["uv"] or "",
        deep=params["deep"],
        keep_replaced=params["keep_replaced"],
    )


def refuse_unequal(result: dict[str, Any]) -> None:
    """A restore whose proof does not hold is a failure."""
    said = transaction.unequal(result["proof"], bool(result.get("changed")))
    if said:
        raise transaction.Refused(said, **result)


def act(work: transaction.Transaction, action: str) -> dict[str, Any]:
    """Do one action; gives what it returns beside `transaction`."""
    if action == "recover":
        recovered = work.recover()
        return {"changed": recovered.pop("changed"), "recovered": recovered}
    if action == "begin":
        recovered = work.begin()
        recovered.pop("changed")
        return {"changed": True, "recovered": recovered}
    if action == "promote":
        return {"changed": work.promote()}
    if action == "discard":
        return {"changed": work.discard()}
    if action == "prune":
        removed = work.prune()
        return {"changed": bool(removed), "removed": removed}
    if action == "prove":
        return {"changed": False, "proof": work.prove()}
    if action == "restore":
        changed, proof = work.restore()
        result = {"changed": changed, "proof": proof}
        refuse_unequal(result)
        return result
    return {"changed": False}


def main() -> None:
    module = AnsibleModule(
        argument_spec={
            "environment": {"type": "path", "required": True},
            "action": {"type": "str", "required": True, "choices": list(ACTIONS)},
            "strategy": {"type": "str", "choices": ["auto", "staged", "in_place"], "default": "auto"},
            "state_dir": {"type": "path"},
            "keep": {"type": "int", "default": 3},
            "baseline": {"type": "str"},
            "source": {"type": "str"},
            "export_dir": {"type": "path"},
            "services": {"type": "list", "elements": "str", "default": []},
            "uv": {"type": "path"},
            "lease": {"type": "int", "default": 3600},
            "takeover": {"type": "bool", "default": False},
            "deep": {"type": "bool", "default": False},
            "keep_replaced": {"type": "bool", "default": False},
            "owner": {"type": "dict"},
            "owner_gone": {"type": "str"},
        },
        supports_check_mode=True,
    )
    action = module.params["action"]
    if module.params["keep"] < 1:
        module.fail_json(msg=f"keep: expected at least 1, found {module.params['keep']}")
    if action not in ("status", "prove") and not module.params["owner"]:
        module.fail_json(
            msg="the run that this task belongs to is not known; expected its action plugin to tell. "
            "Call the module by its full name, ocrfleet.gpu_stack.env_transaction"
        )
    os.umask(0o077)
    try:
        work = transaction.Transaction(options(module.params), module.warn)
        if module.check_mode and action not in ("status", "prove"):
            plan = work.plan(action)
            result = {"changed": bool(plan), "plan": plan}
        else:
            result = act(work, action)
        module.exit_json(**result, transaction=work.describe())
    except transaction.Refused as error:
        module.fail_json(msg=str(error), **error.details)
    except (OSError, clone.CloneError) as error:
        module.fail_json(msg=f"{action} of {module.params['environment']} failed: {error}. Run action: recover")


if __name__ == "__main__":
    main()
