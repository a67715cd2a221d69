# Copyright (c) 2026 The ocrfleet.gpu_stack contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Take from a run's evidence what may be written into the operator's documents, or say why nothing may."""

from __future__ import annotations

import json
import re
from pathlib import Path

import yaml
from ansible.errors import AnsibleFilterError
from ansible_collections.ocrfleet.gpu_stack.plugins.module_utils import (
    distributions,
    hopes,
    paired,
    redaction,
    torch_values,
)
from ansible_collections.ocrfleet.gpu_stack.plugins.module_utils.flashinfer_policy import (
    INDEX_OF_JIT_CACHE,
    PACKAGE_INDEX,
)

DOCUMENTATION = r"""
name: documentable
short_description: Take from evidence what may be written into the operator's documents
version_added: 0.1.0
author: The ocrfleet.gpu_stack contributors (@ocrfleet)
description:
  - Refuses evidence that is missing, does not have the form of evidence, is not that of a verified run or is another
    host's; in which a check failed, or those of the files, of PyTorch and of FlashInfer did not pass, or a gate was
    missed; that names no FlashInfer or no known method, or has an added package that no method may touch.
  - What hosts say is data. Texts lose everything that is syntax in Markdown, and a package must look like one.
positional: _input
options:
  _input:
    description: The text of C(evidence.json).
    type: str
    required: true
  path:
    description: Where it comes from, for messages.
    type: str
    required: true
  host:
    description: The host whose evidence it has to be. Empty where the operator named the file.
    type: str
    default: ""
"""

EXAMPLES = r"""
- name: Show the packages
  ansible.builtin.debug:
    msg: "{{ (lookup('file', path) | ocrfleet.gpu_stack.documentable(path)).packages }}"
"""

RETURN = r"""
_value:
  description: The values that the templates of the role document use.
  type: dict
"""

_NAME = re.compile(r"[A-Za-z0-9]([A-Za-z0-9._-]*[A-Za-z0-9])?")
_VERSION = re.compile(r"[A-Za-z0-9][A-Za-z0-9.+!_-]*")
PACKAGES = ("flashinfer-python", "flashinfer-cubin", "flashinfer-jit-cache")
# What every baseline has, so no method can have added it. The patterns of the libraries are left out: FlashInfer itself
# brings some of nvidia-* and cuda-*.
PROTECTED = {"olmocr", "vllm", *(name for name in torch_values.FAMILY if "*" not in name)}
LEVELS = ("documents", "server", "kernels")
# What a block says of every host: its checks must have passed, whatever else was not run.
PROVEN = ("files", "torch", "flashinfer")
_SCHEMA = Path(__file__).parents[2] / "roles/report/files/evidence.schema.json"
_SPECS = Path(__file__).parents[2] / "roles/flashinfer/meta/argument_specs.yml"


def plain(value: object) -> str:
    """One line in which no character is Markdown's or HTML's syntax."""
    return " ".join(re.sub(r"[<>|`*\[\]\\{}#~]", " ", str(value)).split())


def _packages(evidence: dict) -> list[str]:
    added = {str(row.get("name")): str(row.get("version")) for row in evidence.get("plan") or []}
    if "flashinfer-python" not in added:
        added["flashinfer-python"] = str((evidence.get("versions") or {}).get("flashinfer"))
    for name, version in added.items():
        if not _NAME.fullmatch(name) or not _VERSION.fullmatch(version):
            raise AnsibleFilterError(f"expected a package with its version, found {name!r} {version!r} in the evidence")
        if distributions.canonical(name) in PROTECTED:
            raise AnsibleFilterError(
                f"expected packages that came with FlashInfer, found {name} {version} among those of the evidence, "
                "which no method may touch. Nothing was touched"
            )
    own = [name for name in PACKAGES if name in added]
    return [f"{name}=={added[name]}" for name in [*own, *sorted(set(added) - set(own))]]


def _hashes(evidence: dict, packages: list[str]) -> dict[str, list[str]]:
    """What the lock of the run holds each package against; nothing for a wheel that was built on the host."""
    locked = {}
    for line in str(evidence.get("lock") or "").replace("\\\n", " ").splitlines():
        name, _equals, version = line.split(" ")[0].partition("==")
        locked[distributions.canonical(name), version] = re.findall(r"--hash=(\w+:[0-9a-f]+)", line)
    if _method(str(evidence["method"])) == "source":
        locked = {key: found for key, found in locked.items() if key[0] != "flashinfer-python"}
    pins = {package: package.split("==", 1) for package in packages}
    return {
        package: locked.get((distributions.canonical(name), version), []) for package, (name, version) in pins.items()
    }


def _index(evidence: dict, packages: list[str]) -> str:
    """The index to name for flashinfer-jit-cache, which the package index does not have."""
    if not any(package.startswith("flashinfer-jit-cache==") for package in packages):
        return ""
    # Evidence of earlier releases does not tell it.
    said = (evidence.get("spec") or {}).get(INDEX_OF_JIT_CACHE, _options()["flashinfer_jit_cache_index"]["default"])
    if said == PACKAGE_INDEX:
        return ""
    index = redaction.without_secrets(str(said))
    if not re.fullmatch(r"(?:https?|file)://[^\s\"'`<>|\\#]+", index):
        raise AnsibleFilterError(
            f"expected the address of an index under {INDEX_OF_JIT_CACHE!r} of the evidence, found {plain(said)!r}. "
            "Nothing was touched"
        )
    return index


def _options() -> dict:
    """The options of the role flashinfer."""
    return yaml.safe_load(_SPECS.read_text(encoding="utf-8"))["argument_specs"]["main"]["options"]


def _method(said: str) -> str:
    """The method that led to what is there; one that the role flashinfer has."""
    choices = _options()["fi_method"]["choices"]
    method = said.removeprefix("auto: ")
    if method not in choices:
        raise AnsibleFilterError(
            f"expected a method ({', '.join(choices)}), found {plain(said)!r} in the evidence. Nothing was touched"
        )
    return method


def _without_figures(found: dict) -> str:
    """Why a comparison, or a level, has none."""
    how = "failed" if found.get("status") == "failed" else "not run"
    return f"{how}: {plain(found.get('reason') or 'no reason was told')}"


def _row(name: str, entry: dict) -> dict:
    row = {"level": name, "what": plain(entry["name"])}
    if entry.get("verdict") is None:
        return {**row, "text": _without_figures(entry)}
    before, after = (f"{entry[side]['median']:.4g} {plain(entry['unit'])}" for side in ("baseline", "candidate"))
    figures = f"{entry['speedup']:.2f}x"
    if entry.get("low") is not None:
        figures += f" ({entry['low']:.2f} to {entry['high']:.2f})"
    return {**row, "before": before, "after": after, "speedup": figures, "verdict": plain(entry["verdict"])}


def _of_level(name: str, level: dict) -> list[dict]:
    rows = [_row(name, entry) for entry in level.get("comparisons") or []]
    # What failed beside the comparisons, such as a wrong result, is told as well.
    if not rows or (level.get("status") == "failed" and not any("text" in row for row in rows)):
        rows.append({"level": name, "what": "all of it", "text": _without_figures(level)})
    return rows


def _measured(evidence: dict) -> dict:
    """What the benchmark found, as rows; without one, the reason."""
    benchmark = evidence.get("benchmark") or {}
    waiting = {"status": "not_run", "reason": "playbooks/benchmark.yml has not been run"}
    levels: dict[str, dict] = {name: benchmark.get(name) or waiting for name in LEVELS}
    rows = {name: _of_level(name, level) for name, level in levels.items()}
    documents = levels["documents"]
    # Read by a server, pages say nothing of this environment's FlashInfer.
    telling = [name for name, level in levels.items() if not level.get("stand_in") and not level.get("server")]
    return {
        "rows": [row for name in LEVELS for row in rows[name]],
        "scaling": [
            {
                "set": plain(row["set"]),
                "workers": int(row["workers"]),
                **{side: float(row[side]) for side in ("baseline", "candidate")},
                "note": "; ".join(plain(row[name]) for name in ("hoped", "note") if row.get(name)),
            }
            for row in documents.get("scaling") or []
        ],
        "hopes": [{name: plain(text) for name, text in row.items()} for row in hopes.beside(documents)],
        "remarks": hopes.REMARKS,
        "stand_in": plain(documents.get("stand_in") or ""),
        "by_a_server": bool(documents.get("server")),
        "when": ", ".join(
            f"{name} on {plain(level['finished'])[:10]}"
            for name, level in levels.items()
            if level.get("finished") and level.get("status") != "not_run"
        ),
        "measured": any(row.get("verdict", paired.TOO_FEW) != paired.TOO_FEW for name in telling for row in rows[name]),
    }


def _read(text: str, path: str) -> dict:
    """The evidence, which has the form that the report gives it."""
    # Here, since it takes most of a second and only this filter needs it.
    try:
        import jsonschema
    except ImportError as error:
        raise AnsibleFilterError(
            "expected the Python package jsonschema beside Ansible on the control node, found none; install it, or all "
            "of requirements.lock. Nothing was touched"
        ) from error
    try:
        evidence = json.loads(text)
    except ValueError as error:
        raise AnsibleFilterError(f"{path} is no evidence of this collection: {error}. Nothing was touched") from error
    rules = json.loads(_SCHEMA.read_text(encoding="utf-8"))
    wrong = next(jsonschema.Draft202012Validator(rules).iter_errors(evidence), None)
    if wrong:
        where = ".".join(str(part) for part in wrong.absolute_path)
        raise AnsibleFilterError(
            f"{path} is no evidence of this collection: {where and where + ': '}{plain(wrong.message)[:200]}. "
            "Nothing was touched"
        )
    return evidence


def _unproven(checks: list[dict]) -> str:
    """What of PROVEN did not pass."""
    found = {check["name"]: check["status"] for check in checks}
    if not found.keys() & set(PROVEN):
        return "none of them checked"
    wrong = {name: found.get(name, "not checked") for name in PROVEN if found.get(name) != "passed"}
    return ", ".join(f"{name} {status}" for name, status in wrong.items())


def documentable(text: str, path: str, host: str = "") -> dict:
    """See DOCUMENTATION."""
    if not text:
        raise AnsibleFilterError(
            f"no evidence at {path}: expected evidence.json of a verified run. Run site.yml or playbooks/flashinfer.yml"
            " first, or name it with document_evidence"
        )
    evidence = _read(text, path)
    method = str(evidence.get("method"))
    if evidence["result"] != "verified":
        raise AnsibleFilterError(
            f"{path} is evidence of a run with the result {plain(evidence['result'])!r}, expected 'verified': only "
            "what was verified is written into documents. Nothing was touched"
        )
    if not evidence["host"]:
        raise AnsibleFilterError(f"{path} names no host, expected evidence of one. Nothing was touched")
    if host and evidence["host"] != host:
        raise AnsibleFilterError(
            f"{path} is evidence of the host {plain(evidence['host'])!r}, expected {plain(host)!r}. Name the file with "
            "document_evidence if it is the right one all the same. Nothing was touched"
        )
    failed = [check.get("title") for check in evidence.get("checks") or [] if check.get("status") == "failed"]
    if failed:
        raise AnsibleFilterError(f"{path} holds failed checks ({', '.join(map(plain, failed))}); nothing was touched")
    unproven = _unproven(evidence.get("checks") or [])
    if unproven:
        raise AnsibleFilterError(
            f"{path} bears nothing out: expected {', '.join(PROVEN)} to have passed, found {unproven}. "
            "Nothing was touched"
        )
    missed = (evidence.get("gate") or {}).get("problems")
    if missed:
        raise AnsibleFilterError(
            f"{path} is evidence of a FlashInfer that missed the gate: {'; '.join(map(plain, missed))}; measure again "
            "with playbooks/benchmark.yml and the flashinfer_min_speedup or flashinfer_max_slowdown that you accept "
            "(0.99 accepts nearly any). Nothing was touched"
        )
    if method == "none" or not (evidence.get("versions") or {}).get("flashinfer"):
        raise AnsibleFilterError(f"{path} is evidence of a run without FlashInfer: there is nothing to document")
    try:
        return _values(evidence, method)
    except (KeyError, TypeError, ValueError, AttributeError) as error:
        raise AnsibleFilterError(f"{path} is no evidence of this collection: {error!r}. Nothing was touched") from error


def _values(evidence: dict, method: str) -> dict:
    checks = [
        {name: plain(check.get(name) or "") for name in ("title", "status", "reason")}
        for check in evidence.get("checks") or []
    ]
    packages = _packages(evidence)
    return {
        "host": plain(evidence["host"]),
        "method": _method(method),
        "date": plain(evidence.get("finished") or "")[:10],
        "environment": plain((evidence.get("environment") or {}).get("path") or ""),
        "gpus": plain((evidence.get("environment") or {}).get("GPUs") or "none"),
        "versions": {plain(name): plain(version) for name, version in sorted(evidence["versions"].items())},
        "packages": packages,
        "hashes": _hashes(evidence, packages),
        "index": _index(evidence, packages),
        "passed": [check for check in checks if check["status"] == "passed"],
        "not_run": [check for check in checks if check["status"] == "not_run"],
        "sampler": plain((evidence.get("activation") or {}).get("sampler") or ""),
        "kernels": plain((evidence.get("activation") or {}).get("kernels") or ""),
        **_measured(evidence),
    }


class FilterModule:
    def filters(self) -> dict:
        return {"documentable": documentable}
