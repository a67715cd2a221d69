# Copyright (c) 2026 The ocrfleet.gpu_stack contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Turn what the tasks returned into the evidence that the report shows and the next run compares with."""

from __future__ import annotations

import time

from ansible_collections.ocrfleet.gpu_stack.plugins.module_utils import (
    benchmark_gate,
    flashinfer_policy,
    level_status,
    redaction,
)

DOCUMENTATION = r"""
name: evidence
short_description: Make a host's evidence from what the tasks returned
version_added: 0.1.0
author: The ocrfleet.gpu_stack contributors (@ocrfleet)
description:
  - Takes the registered results of a run and gives the one structure that the report shows and that the next run
    compares with.
  - Holds no values of variables beyond those named here, since values may be secrets.
positional: _input
options:
  _input:
    description: The results by the names that the role flashinfer gives them; each may be missing.
    type: dict
    required: true
"""

EXAMPLES = r"""
- name: Show how the run ended
  ansible.builtin.debug:
    msg: "{{ (results | ocrfleet.gpu_stack.evidence).result }}"
"""

RETURN = r"""
_value:
  description: The evidence, with C(result) V(verified), V(planned), V(restored) or V(failed).
  type: dict
"""

# Why uv_packages and its action end before anything is installed.
NOT_BEGUN = ("refused", "unsatisfiable", "not_planned", "no_environment", "no_namespace", "no_uv", "no_lock")

# The checks whose `seen.version` is worth a line of its own.
VERSIONED = ("torch", "vllm", "olmocr", "flashinfer")


def _notes(method: dict, wheel: dict, attempts: list[dict], remarks: list[str]) -> list[str]:
    notes = [*remarks]
    notes += [f"{row['requirement']} left out: {row['reason']}" for row in method.get("left_out", [])]
    notes += [
        f"{row['name']} {row['version']} kept out: it is for CUDA {row['cuda_major']}"
        for row in method.get("excluded", [])
    ]
    notes += [f"no kernel can be compiled here: {text}" for text in wheel.get("missing", [])]
    if wheel.get("provenance", {}).get("shielded") is False:
        notes.append(
            "the wheel was built where no mount namespace can be had: its build could have written into the environment"
        )
    if method.get("shielded") is False:
        notes.append(
            "planned where no mount namespace can be had: a source distribution that was built for it could have "
            "written into the environment"
        )
    notes += [
        f"{row['method']} did not lead to a verified FlashInfer: {row['task']}: {row['said']}"
        for row in attempts
        if not row["verified"]
    ]
    notes += [
        f"{row['requirement']}, declared by FlashInfer, is {row['status']}: {row['reason']}"
        for row in method.get("needs", [])
        if row["status"] in ("conflicting", "unavailable")
    ]
    return notes


def _moves_notes(moves: dict, result: str) -> list[str]:
    """What a start from the kept baseline takes out, and what it undoes of what was changed since FlashInfer came."""
    happened = result in ("verified", "restored")
    is_, is_not = ("is", "is not") if happened else ("would be", "would not be")
    removed = moves.get("plan", {}).get("removed", [])
    return [f"{row['name']} {row['version']} {is_not} in the result" for row in removed] + [
        f"{row['name']}, changed since FlashInfer came, was {row['before'] or 'not there'} and {is_} "
        f"{row['after'] or 'not there'} in the result"
        for row in moves.get("lost", [])
    ]


def _earlier_notes(status: dict) -> list[str]:
    """What an earlier run, killed as a rule, had left, and what this one did about it."""
    recovered = status.get("recovered") or {}
    if not status.get("changed") or not recovered.get("found"):
        return []
    return [f"an earlier run did not end. Found: {recovered['found']}. Done: {recovered['done']}"]


def _repair_notes(steps: dict, check_mode: bool) -> list[str]:
    """The damaged packages that the baseline's roles install anew, in the environment itself."""
    return [
        f"{row['name']} {row['version']} was damaged ({_first(row['problems'])}) and "
        f"{'would be' if check_mode else 'was'} installed anew in the environment itself, with the step {name}"
        for name, step in steps.items()
        if name != "FlashInfer"
        for row in (step or {}).get("plan", {}).get("repaired", [])
    ]


def _first(problems: list[str]) -> str:
    """The first of several, and how many more there are."""
    return "; ".join(problems[:1] + ([f"and {len(problems) - 1} more"] if len(problems) > 1 else []))


def _start_notes(start: dict) -> list[str]:
    """Where OlmOCR starts without FlashInfer's sampler, and why."""
    if start.get("sampler") != "off":
        return []
    return [f"vllm's FlashInfer sampler is switched off, so that OlmOCR starts. The reason: {start.get('why', '')}"]


def _kernel_pack(found: dict) -> dict:
    """Which pack fits here, what was placed of it and who signed it, why none was made, and what compiling it took."""
    told = {name: found.get("wanted", {}).get(name) for name in ("name", "why_not")}
    told["modules"] = ", ".join(sorted(found.get("placed", {}).get("manifest", {}).get("modules", {})))
    told["signed_by"] = found.get("placed", {}).get("signed_by")
    if found.get("compiled", {}).get("compiled"):
        told["compiled here"] = (
            f"{len(found['compiled']['compiled'])} modules in {found['compiled']['compile_seconds']} s"
        )
    for kernel in found.get("smoke", {}).get("kernels", []):
        told[f"{kernel['name']} proven"] = f"{kernel['origin']}, first call {kernel['first_call_seconds']} s"
    return {name: value for name, value in told.items() if value}


def _own(results: dict) -> set[str]:
    """The transactions that this run began, by their baselines, which have their names."""
    found = [results.get(name, {}).get("transaction", {}).get("id") for name in ("begun", "promoted")]
    return {str(name) for name in (*found, *(entry.get("baseline") for entry in results.get("attempts", []))) if name}


def _transaction(results: dict) -> dict:
    """Where this run's transaction stands, and what the proof says where there is one."""
    last: dict = {}
    for name in ("begun", "promoted", "restored"):
        told = results.get(name, {}).get("transaction") or {}
        # A run that began nothing is told of the last transaction that there was, which an earlier run has settled. A
        # return (role rollback) begins none, and is about one that there was.
        if told.get("id") and ("begun" not in results or told["id"] in _own(results)):
            last = told
    kept = ("id", "state", "strategy", "strategy_reason", "baseline_id", "exports")
    transaction = {name: last[name] for name in kept if last.get(name)}
    proof = results.get("proof", {}).get("proof")
    if proof:
        transaction["proof"] = {name: proof[name] for name in ("equal", "checked_files", "damaged", "differences")}
    return transaction


def _outside(results: dict) -> list[str]:
    """What changed the environment itself: where no transaction was begun either, it is as it was without any of it."""
    steps = {
        **{name: step for name, step in results.get("steps", {}).items() if name != "FlashInfer"},
        "what an earlier run left": results.get("earlier"),
        "return to a kept baseline": results.get("returned"),
        "what was begun, and undone": {} if _own(results) or "begun" not in results else results.get("restored"),
    }
    begun = [name for name, step in steps.items() if _may_have_changed(step or {})]
    changed = [] if results.get("check_mode") else begun
    before, now = (results.get(name, {}).get("files_fingerprint") for name in ("version", "now_installed"))
    if before and now and before != now and not changed and not _transaction(results):
        changed.append("files, by something else")
    return changed


def _may_have_changed(step: dict) -> bool:
    return bool(step.get("changed") or (step.get("failed") and step.get("reason") not in NOT_BEGUN))


def _environment(machine: dict, checked_as: str) -> dict:
    """What was seen of the machine, and as which user; what was not looked at is left out."""
    seen = {
        "path": machine.get("environment", {}).get("path"),
        "python": machine.get("python_version"),
        "GPUs": (", ".join(machine["gpus"]["devices"]) or "none") if "gpus" in machine else None,
        **{name: machine.get(name) for name in ("distribution", "kernel", "architecture")},
        "checks ran as": checked_as or None,
    }
    return {name: value for name, value in seen.items() if value is not None}


def _jit_cache(results: dict) -> dict:
    """Which index flashinfer-jit-cache came from, where it came: a list of requirements has to name it."""
    added = results.get("method_result", {}).get("plan", {}).get("added", [])
    if not any(row["name"] == "flashinfer-jit-cache" for row in added):
        return {}
    index = redaction.without_secrets(results.get("jit_cache_index") or flashinfer_policy.PACKAGE_INDEX)
    return {flashinfer_policy.INDEX_OF_JIT_CACHE: index}


def _kept(results: dict) -> dict:
    """Where a run had nothing to change, the baselines that are kept, so that a killed run's is known after all."""
    if results.get("begun", {}).get("transaction"):
        return {}
    known = results.get("earlier", {}).get("transaction") or {}
    return {entry["id"]: entry["created"] for entry in known.get("baselines") or [] if entry.get("created")}


def evidence(results: dict) -> dict:
    """See DOCUMENTATION."""
    results = {name: value for name, value in results.items() if value is not None}
    method = results.get("method_result", {})
    version = results.get("version", {})
    machine = results.get("machine", {})
    start = results.get("activation", {})
    checks = results.get("checks", [])
    failure = results.get("failure", "")
    result = "failed" if failure else "planned" if results.get("check_mode") else results.get("result", "verified")
    finished = float(results.get("now") or time.time())
    fingerprint = results.get("now_installed", {}).get("fingerprint", "")
    benchmark = results.get("benchmark", {})
    levels = level_status.renewed(results.get("earlier_benchmark"), benchmark, fingerprint)
    gate = benchmark_gate.renewed(
        results.get("earlier_gate"), results.get("gate", {}), fingerprint, measured=benchmark, levels=levels
    )
    timings = {name: step["seconds"] for name, step in results.get("steps", {}).items() if step and "seconds" in step}
    timings["verify"] = round(sum(check.get("seconds") or 0 for check in checks), 1)
    timings["all together"] = round(finished - float(results.get("started") or finished), 1)
    return {
        "host": results.get("host"),
        "result": result,
        "failure": failure,
        "method": results.get("method"),
        "finished": time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime(finished)),
        "spec_hash": results.get("spec_hash", ""),
        "fingerprint": fingerprint,
        "spec": {
            "method": results.get("method"),
            "FlashInfer": f"{version.get('version', 'unknown')}: {version.get('reason', 'not asked')}",
            **_jit_cache(results),
            **results.get("spec", {}),
        },
        "environment": _environment(machine, results.get("checked_as", "")),
        "versions": {
            check["name"]: check["seen"]["version"]
            for check in checks
            if check["name"] in VERSIONED and (check.get("seen") or {}).get("version")
        },
        "plan": method.get("plan", {}).get("added", []),
        "changed": method.get("plan", {}).get("changed", []),
        "moves": results.get("moves", {}).get("plan", {}),
        "lock": method.get("lock", ""),
        "wheel": results.get("wheel", {}).get("provenance", {}),
        "attempts": results.get("attempts", []),
        "needs": method.get("needs", []),
        "transaction": _transaction(results),
        "kept_baselines": _kept(results),
        "outside_transaction": _outside(results),
        "checks": checks,
        "activation": {name: start[name] for name in ("sampler", "kernels", "why", "variables") if start.get(name)},
        "kernel_pack": _kernel_pack(results.get("kernel_pack", {})),
        "benchmark": levels,
        "gate": gate,
        "notes": _notes(
            method,
            results.get("wheel", {}),
            results.get("attempts", []),
            [
                *_earlier_notes(results.get("earlier", {})),
                *_repair_notes(results.get("steps", {}), bool(results.get("check_mode"))),
                *([version["remark"]] if version.get("remark") else []),
                *results.get("remarks", []),
                *_moves_notes(results.get("moves", {}), result),
                *_start_notes(start),
            ],
        ),
        "timings": timings,
    }


class FilterModule:
    def filters(self) -> dict:
        return {"evidence": evidence}
