# Copyright (c) 2026 The ocrfleet.gpu_stack contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Take from a run's evidence what may be written into the operator's documents, or say why nothing may."""

from __future__ import annotations

import json
import re

from ansible.errors import AnsibleFilterError

DOCUMENTATION = r"""
name: documentable
short_description: Take from evidence what may be written into the operator's documents
version_added: 0.1.0
author: The ocrfleet.gpu_stack contributors (@ocrfleet)
description:
  - Refuses evidence that is missing, is not that of a verified run, or names no FlashInfer.
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
    own = [name for name in PACKAGES if name in added]
    return [f"{name}=={added[name]}" for name in [*own, *sorted(set(added) - set(own))]]


def _measured(evidence: dict) -> dict:
    """What the benchmark found, as rows; without one, the reason."""
    benchmark = evidence.get("benchmark") or {}
    rows = []
    for name in ("documents", "server", "kernels"):
        level = benchmark.get(name) or {"status": "not_run", "reason": "playbooks/benchmark.yml has not been run"}
        for entry in level.get("comparisons") or []:
            if entry.get("verdict") is None:
                rows.append({"level": name, "what": plain(entry["name"]), "text": f"not run: {plain(entry['reason'])}"})
                continue
            sides = [f"{entry[side]['median']:.4g} {plain(entry['unit'])}" for side in ("baseline", "candidate")]
            figures = f"{entry['speedup']:.2f}x"
            if entry.get("low") is not None:
                figures += f" ({entry['low']:.2f} to {entry['high']:.2f})"
            row = {
                "level": name,
                "what": plain(entry["name"]),
                "before": sides[0],
                "after": sides[1],
                "speedup": figures,
            }
            rows.append({**row, "verdict": plain(entry["verdict"])})
        if not level.get("comparisons"):
            rows.append({"level": name, "what": "all of it", "text": f"not run: {plain(level.get('reason', ''))}"})
    scaling = (benchmark.get("documents") or {}).get("scaling") or []
    return {
        "rows": rows,
        "scaling": [{**row, "hoped": plain(row.get("hoped", ""))} for row in scaling],
        "stand_in": plain((benchmark.get("documents") or {}).get("stand_in") or ""),
        "measured": any("verdict" in row for row in rows),
    }


def documentable(text: str, path: str) -> dict:
    """See DOCUMENTATION."""
    if not text:
        raise AnsibleFilterError(
            f"no evidence at {path}: expected evidence.json of a verified run. Run site.yml or playbooks/flashinfer.yml"
            " first, or name it with document_evidence"
        )
    try:
        evidence = json.loads(text)
        result, method = str(evidence.get("result")), str(evidence.get("method"))
    except (ValueError, AttributeError) as error:
        raise AnsibleFilterError(f"{path} is no evidence of this collection: {error}") from error
    if result != "verified":
        raise AnsibleFilterError(
            f"{path} is evidence of a run with the result {plain(result)!r}, expected 'verified': only what was "
            "verified is written into documents. Nothing was touched"
        )
    failed = [check.get("title") for check in evidence.get("checks") or [] if check.get("status") == "failed"]
    if failed:
        raise AnsibleFilterError(f"{path} holds failed checks ({', '.join(map(plain, failed))}); nothing was touched")
    if method == "none" or not (evidence.get("versions") or {}).get("flashinfer"):
        raise AnsibleFilterError(f"{path} is evidence of a run without FlashInfer: there is nothing to document")
    checks = [
        {name: plain(check.get(name) or "") for name in ("title", "status", "reason")}
        for check in evidence.get("checks") or []
    ]
    return {
        "host": plain(evidence.get("host") or "unknown"),
        "method": plain(method),
        "date": plain(evidence.get("finished") or "")[:10],
        "environment": plain((evidence.get("environment") or {}).get("path") or ""),
        "gpus": plain((evidence.get("environment") or {}).get("GPUs") or "none"),
        "versions": {plain(name): plain(version) for name, version in sorted(evidence["versions"].items())},
        "packages": _packages(evidence),
        "passed": [check for check in checks if check["status"] == "passed"],
        "not_run": [check for check in checks if check["status"] == "not_run"],
        "sampler": plain((evidence.get("activation") or {}).get("sampler") or ""),
        "kernels": plain((evidence.get("activation") or {}).get("kernels") or ""),
        **_measured(evidence),
    }


class FilterModule:
    def filters(self) -> dict:
        return {"documentable": documentable}
