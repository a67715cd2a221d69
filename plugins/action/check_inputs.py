# Copyright (c) 2026 The ocrfleet.gpu_stack contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Hold what the operator set against the roles' argument specs, on the control node, before any host is touched.

Ansible's own validation misses misspelled names, looks at one role at a time and only when that role starts.
"""

from __future__ import annotations

import difflib
import hashlib
import json
import math
import os
import time
from pathlib import Path

import yaml
from ansible.errors import AnsibleError
from ansible.module_utils.common.arg_spec import ArgumentSpecValidator
from ansible.plugins.action import ActionBase
from ansible_collections.ocrfleet.gpu_stack.plugins.module_utils import report_folder
from ansible_collections.ocrfleet.gpu_stack.plugins.plugin_utils import before_workers

ROLES = Path(__file__).resolve().parents[2] / "roles"

# Short public names, which carry no role's prefix.
SHORT_PREFIX = "fi_"

# These say what is measured, where files are kept and how hosts are dealt out; the installed stack is the same.
NOT_PART_OF_THE_STACK = (
    *("report_", "rollout_", "benchmark_", "document_", "stack_recheck"),
    # Their defaults lie where Ansible was started, which is another folder at each worker of a rollout.
    *("kernel_pack_store", "flashinfer_wheelhouse"),
)

# These name a file on the control node. What it holds decides, not where it lies.
BY_CONTENT = ("flashinfer_lock",)


def load_specs(roles: Path) -> dict[str, dict]:
    """The options of every role's entry point `main`, by role."""
    specs = {}
    for path in sorted(roles.glob("*/meta/argument_specs.yml")):
        document = yaml.safe_load(path.read_text(encoding="utf-8"))
        specs[path.parents[1].name] = document["argument_specs"]["main"].get("options", {})
    return specs


def to_argument_spec(options: dict) -> dict:
    """Role argument specs and module argument specs differ only in what documents them."""
    kept = {}
    for name, option in options.items():
        kept[name] = {key: value for key, value in option.items() if key in ("type", "elements", "choices", "required")}
        kept[name].pop("required", None)  # defaults fill in what the operator leaves out
        if "options" in option:
            kept[name]["options"] = {
                key: {k: v for k, v in sub.items() if k in ("type", "elements", "choices", "required", "default")}
                for key, sub in option["options"].items()
            }
    return kept


def unknown_names(names: list[str], specs: dict[str, dict]) -> list[str]:
    """One sentence for each name that carries one of our prefixes and belongs to nothing."""
    known = sorted({name for options in specs.values() for name in options})
    prefixes = tuple([SHORT_PREFIX, *(f"{role}_" for role in specs)])
    sentences = []
    for name in sorted(names):
        if name in known or not name.startswith(prefixes):
            continue
        nearest = difflib.get_close_matches(name, known, n=1, cutoff=0.5)
        hint = f"did you mean {nearest[0]}?" if nearest else "see the roles' documentation for the names there are."
        sentences.append(f"{name} is no variable of this collection; {hint}")
    return sentences


def wrong_values(values: dict, specs: dict[str, dict]) -> list[str]:
    """One sentence for each value that has the wrong type or is none of the choices."""
    sentences = []
    for options in specs.values():
        given = {name: values[name] for name in options if name in values}
        validator = ArgumentSpecValidator(to_argument_spec({name: options[name] for name in given}))
        sentences += validator.validate(given).error_messages
    return sentences


def wrong_releases(values: dict) -> list[str]:
    """One sentence for each version of FlashInfer that is none, or not written as the index writes its releases."""
    from packaging.version import InvalidVersion, Version  # ansible-core needs it too, so it is there

    sentences = []
    for name in ("fi_version", "flashinfer_default_version"):
        given = str(values.get(name, ""))
        if name not in values or (name, given) == ("fi_version", "auto"):
            continue
        try:
            version = Version(given)
        except InvalidVersion:
            hint = "docs/compatibility.md lists those that were tried"
        else:
            # What is installed is compared with it letter by letter.
            numbers = ".".join(map(str, [*version.release, 0, 0][: max(3, len(version.release))]))
            written = str(version).replace(version.base_version.partition("!")[2] or version.base_version, numbers, 1)
            if given == written:
                continue
            hint = f"write {written}"
        sentences.append(f"{name}: expected a release of FlashInfer such as 0.3.1, found {given}; {hint}")
    return sentences


def idle_values(values: dict) -> list[str]:
    """One sentence for each value that would do nothing."""
    if values.get("flashinfer_protect", ["all"]):
        return []
    return [
        "flashinfer_protect: expected all, torch, or names of packages, found an empty list, which holds nothing in "
        "its place; leave the variable away for all"
    ]


# What a gate can mean; a percentage in its place would be none.
GATES = {
    "flashinfer_min_speedup": (
        lambda given: given == 0 or 0.5 <= given < math.inf,
        "0 for none, or a ratio of at least 0.5",
        "write 1.05 where at least 5 % faster is asked for",
    ),
    "flashinfer_max_slowdown": (
        lambda given: 0 <= given <= 1,
        "a share from 0 to 1",
        "write 0.05 where up to 5 % slower is accepted, and 1 for none",
    ),
}


def idle_gates(values: dict) -> list[str]:
    """One sentence for each gate that is none, or that nothing can meet."""
    sentences = []
    for name, (means, expected, hint) in GATES.items():
        try:
            given = float(values[name])
        except (KeyError, TypeError, ValueError):  # what is no number is told by its type
            continue
        if not means(given):
            sentences.append(f"{name}: expected {expected}, found {values[name]}; {hint}")
    return sentences


def own_version(root: Path) -> str:
    """The version of this collection, from a checkout or as `ansible-galaxy` installs it."""
    manifest = root / "MANIFEST.json"
    if manifest.is_file():
        return str(json.loads(manifest.read_text(encoding="utf-8"))["collection_info"]["version"])
    return str(yaml.safe_load((root / "galaxy.yml").read_text(encoding="utf-8"))["version"])


def other_version(wanted: object, root: Path = ROLES.parent) -> str:
    """Why this collection is not the one whose driver, `ocrfleet`, sent the run here; "" where it is, or none did."""
    found = own_version(root) if wanted else ""
    if found == (wanted or ""):
        return ""
    return (
        f"expected version {wanted} of this collection, as where the rollout is driven, found {found}; install the "
        "same version at both"
    )


def spec_hash(values: dict) -> str:
    """A hash over everything that decides what is installed. Values themselves may hold secrets and are not kept."""
    deciding = {name: value for name, value in values.items() if not name.startswith(NOT_PART_OF_THE_STACK)}
    for name in BY_CONTENT:
        path = os.path.expanduser(deciding.get(name) or "")
        if os.path.isfile(path):
            deciding[name] = hashlib.sha256(Path(path).read_bytes()).hexdigest()
    return hashlib.sha256(json.dumps(deciding, sort_keys=True, default=str).encode()).hexdigest()


# Once for all hosts: every play of this collection begins with this action, and Ansible imports it before it forks.
SPECS = load_specs(ROLES)
before_workers.load()


class ActionModule(ActionBase):
    """Runs on the control node only; see the module of this name for its documentation."""

    _requires_connection = False
    _VALID_ARGS = frozenset(("uv_source",))

    def run(self, tmp: str | None = None, task_vars: dict | None = None) -> dict:
        result = super().run(tmp, task_vars)
        task_vars = task_vars or {}
        problems = unknown_names(list(task_vars), SPECS)
        values = {}
        for name in (name for options in SPECS.values() for name in options if name in task_vars):
            try:
                values[name] = json.loads(json.dumps(self._templar.template(task_vars[name]), default=str))
            except AnsibleError as error:
                problems.append(f"{name} cannot be evaluated: {error}")
        problems += [
            sentence
            for told in (wrong_values(values, SPECS), wrong_releases(values), idle_values(values), idle_gates(values))
            for sentence in told
        ]
        try:
            report_folder.name(str(task_vars.get("inventory_hostname", "")))
        except report_folder.FolderError as error:
            problems.append(str(error))
        uv_source = self._task.args.get("uv_source")
        if uv_source and not os.access(os.path.expanduser(uv_source), os.X_OK):
            problems.append(
                f"expected uv on the control node at {uv_source}, found none; "
                "install the tools with `make env`, or set stack_uv_source to a uv of the pinned version"
            )
        other = other_version(task_vars.get("ocrfleet_version"))
        if other:
            # What else is wrong may be right by the other version.
            problems, result["other_version"] = [other], other
        if problems:
            result.update(
                failed=True, problems=problems, msg="Wrong inputs; nothing was touched.\n- " + "\n- ".join(problems)
            )
            return result
        result.update(changed=False, spec_hash=spec_hash(values), started=time.time())
        return result
