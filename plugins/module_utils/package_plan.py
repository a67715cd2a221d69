# Copyright (c) 2026 The ocrfleet.gpu_stack contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Plan a change to an environment's packages, and refuse it before anything moves.

The resolver does the work: what must not move is handed to it as constraints, so it looks for a solution *around* the
baseline, older releases of the new packages included, and when there is none its own explanation names the chain.
"""

from __future__ import annotations

import fnmatch
import re
from dataclasses import dataclass, field

from ansible_collections.ocrfleet.gpu_stack.plugins.module_utils import cuda_guard, needs, torch_values
from ansible_collections.ocrfleet.gpu_stack.plugins.module_utils.distributions import Damage, Distribution, canonical
from ansible_collections.ocrfleet.gpu_stack.plugins.module_utils.needs import Need
from ansible_collections.ocrfleet.gpu_stack.plugins.module_utils.uv import Change, Failed, Unsatisfiable, Uv

# Each round excludes at least one more package; real requests settle in two.
_GUARD_ROUNDS = 8

# A pin's name, with extras or without, up to its version.
PINNED = r"([A-Za-z0-9][\w.-]*)(?:\[[^\]\n]*\])?=="

_WHOLE = (
    "Expected a lock that holds all that its packages declare and the environment does not have; make it anew, on a "
    "host with the same baseline"
)


class Refused(Exception):
    """The request would move what must stay, or would not work. `offending` lists the packages, the text explains."""

    def __init__(self, text: str, offending: list[dict], found: list[Need] | None = None) -> None:
        super().__init__(text)
        self.offending = offending
        self.needs = found or []


@dataclass(frozen=True)
class Request:
    """What is wanted, and what must not happen on the way."""

    requirements: list[str]
    optional: list[str] = field(default_factory=list)
    constraints: list[str] = field(default_factory=list)
    lock: str = ""
    lock_exact: bool = False  # what the lock holds, all of it and nothing else
    protect: list[str] = field(default_factory=list)  # `all`, `torch`, or names and patterns
    cuda_major: int | None = None
    allow: list[str] = field(default_factory=list)  # packages of another CUDA major version that the operator accepts
    accept_unmet: list[str] = field(default_factory=list)  # declared needs that the operator does without
    declared_only: bool = False  # take the requirements without their dependencies, then what they declare one by one


@dataclass
class Plan:
    """What would be done."""

    changes: list[Change]
    damaged: list[Damage]
    left_out: list[dict]
    excluded: list[dict]  # packages of another CUDA major version that the resolver was told to do without
    lock_used: bool
    constraints: list[str] = field(default_factory=list)  # what was resolved under, for builds as well
    required_by: dict[str, list[str]] = field(default_factory=dict)  # for each package that comes or moves
    needs: list[Need] = field(default_factory=list)  # what the requirements declare, with `declared_only`

    @property
    def pins(self) -> list[str]:
        repaired = [f"{damage.name}=={damage.version}" for damage in self.damaged]
        return [f"{change.name}=={change.after}" for change in self.changes if change.after] + repaired


def describe(plan: Plan) -> dict:
    """The plan as modules return it."""
    by = plan.required_by
    return {
        "added": [
            {"name": c.name, "version": c.after, "required_by": by.get(c.name, [])}
            for c in plan.changes
            if c.before is None
        ],
        "changed": [
            {"name": c.name, "before": c.before, "after": c.after, "required_by": by.get(c.name, [])}
            for c in plan.changes
            if c.before and c.after
        ],
        "removed": [{"name": c.name, "version": c.before} for c in plan.changes if c.after is None],
        "repaired": [vars(damage) for damage in plan.damaged],
    }


def diff(plan: Plan) -> dict:
    """The packages before and after, as `--diff` shows them."""

    def listing(versions: list[tuple[str, str | None]]) -> str:
        return "".join(f"{name}=={version}\n" for name, version in sorted(versions) if version)

    return {
        "before_header": "packages",
        "after_header": "packages",
        "before": listing([(c.name, c.before) for c in plan.changes]),
        "after": listing([(c.name, c.after) for c in plan.changes]),
    }


def protected(installed: dict[str, Distribution], protect: list[str]) -> dict[str, str]:
    """Name and version of each installed distribution that may not move."""
    patterns = [
        pattern for entry in protect for pattern in (torch_values.FAMILY if entry == "torch" else [canonical(entry)])
    ]
    return {
        name: distribution.version
        for name, distribution in installed.items()
        if distribution.version and any(p == "all" or fnmatch.fnmatchcase(name, p) for p in patterns)
    }


def locked_versions(lock: str) -> dict[str, str]:
    """Name and version of each pin of a requirements text; what an extra brings has a pin of its own there."""
    pins = re.findall(rf"^{PINNED}([^\s;\\]+)", lock, re.MULTILINE)
    return {canonical(name): version for name, version in pins}


def _marked(lock: str) -> set[str]:
    """The names of those pins that an environment marker makes a condition of."""
    return {canonical(name) for name in re.findall(rf"^{PINNED}[^\s;\\]+[ \t]*;", lock, re.MULTILINE)}


def make(uv: Uv, request: Request, installed: dict[str, Distribution], damaged: list[Damage]) -> Plan:
    """Resolve `request` against what is installed. Raises Refused, uv.Unsatisfiable or uv.Failed; changes nothing."""
    idle = [name for name in request.protect if name not in ("all", "torch") and not protected(installed, [name])]
    if idle:
        raise Refused(
            f"Refused: expected names or patterns of installed packages to protect, found none installed for "
            f"{', '.join(idle)}; correct them, or leave them out (flashinfer_protect): they hold nothing in its place.",
            [{"name": name, "before": None, "after": None} for name in idle],
        )
    kept = protected(installed, request.protect)
    constraints = [*request.constraints, *(f"{name}=={version}" for name, version in kept.items())]
    if request.lock_exact:
        return _exactly(uv, request, constraints, kept, installed, damaged)
    left_out = []
    optional = []
    for requirement in request.optional:
        reason = uv.obtainable(requirement)
        if reason is None:
            optional.append(requirement)
        else:
            left_out.append({"requirement": requirement, "reason": reason})

    def planned(chosen: list[str]) -> Plan:
        plan = _around(uv, request, [*request.requirements, *chosen], constraints, kept, installed)
        plan.damaged, plan.left_out = damaged, left_out
        return plan

    try:
        return planned(optional)
    except (Refused, Unsatisfiable):
        if not optional:
            raise
    # One of them does not fit around what is protected. What can be done without must not keep the rest away.
    fitting: list[str] = []
    plan = None
    for requirement in optional:
        try:
            plan = planned([*fitting, requirement])
            fitting.append(requirement)
        except (Refused, Unsatisfiable) as error:
            left_out.append({"requirement": requirement, "reason": f"it does not fit: {error}"})
    return plan or planned([])


def _around(
    uv: Uv,
    request: Request,
    requirements: list[str],
    constraints: list[str],
    kept: dict[str, str],
    installed: dict[str, Distribution],
) -> Plan:
    """The requirements resolved around what is protected."""
    pins = locked_versions(request.lock)
    # A lock made for a fresh environment must not move what an existing one holds: then the index is asked instead.
    lock_used = bool(pins) and all(installed[name].version == pins[name] for name in pins if name in installed)
    lock = request.lock if lock_used else ""

    found: list[Need] = []
    if request.declared_only:
        changes, excluded, found = _declared(uv, request, requirements, constraints, kept)
    else:
        changes, excluded = _resolve(uv, request, requirements, constraints, lock, kept)
    moved = [change for change in changes if change.name in kept]
    if moved:
        raise Refused(_moved_text(moved, requirements, ""), _as_rows(moved))
    plan = Plan(changes, [], [], excluded, lock_used, [*constraints, *_exclusions(excluded)], needs=found)
    plan.required_by = _required_by(uv, request, plan, requirements, installed)
    return plan


def _exactly(
    uv: Uv,
    request: Request,
    constraints: list[str],
    kept: dict[str, str],
    installed: dict[str, Distribution],
    damaged: list[Damage],
) -> Plan:
    """What the lock holds, where that contradicts nothing that is protected, and is what is asked for and no more."""
    pins = locked_versions(request.lock)
    rows: list[dict] = [
        {"name": name, "before": kept[name], "after": version}
        for name, version in pins.items()
        if kept.get(name, version) != version
    ]
    wrong = [f"it holds {row['name']} {row['after']}, installed and protected is {row['before']}" for row in rows]
    for requirement in request.requirements:
        name, _equals, version = requirement.partition("==")
        held = pins.get(canonical(name))
        if held is None or held.split("+")[0] != version.split("+")[0]:
            wrong.append(f"asked for is {requirement}, it holds {f'{name} {held}' if held else f'no {name}'}")
            rows.append({"name": canonical(name), "before": held, "after": version})
    if wrong:
        raise Refused(
            f"Refused: the lock does not fit this environment: {'; '.join(wrong)}. Expected the lock of an environment "
            "with the same baseline; make one on such a host, or leave the lock away.",
            rows,
        )
    changes, found = _locked(uv, request, constraints, kept, pins)
    # It is text of whoever made it, a rollout's canary say, and so are its hashes.
    there = {name for name, version in pins.items() if name in installed and installed[name].version == version}
    unneeded = sorted(pins.keys() - there - {change.name for change in changes})
    surplus = [Change(name, None, pins[name]) for name in unneeded]
    marked = _marked(request.lock)
    of_others = [change for change in surplus if change.name in marked]
    if of_others:
        raise Refused(_marked_text(of_others), _as_rows(of_others))
    if surplus:
        raise Refused(_surplus_text(surplus, request.requirements), _as_rows(surplus))
    foreign = _foreign(changes, request)
    if foreign:
        raise Refused(_foreign_text(foreign, request.requirements, request, "the lock holds them"), foreign)
    left_out = [
        {"requirement": text, "reason": "the lock does not hold it"}
        for text in request.optional
        if _name(text) not in pins
    ]
    return Plan(changes, damaged, left_out, [], True, constraints, {change.name: [] for change in changes}, found)


def _locked(
    uv: Uv, request: Request, constraints: list[str], kept: dict[str, str], pins: dict[str, str]
) -> tuple[list[Change], list[Need]]:
    """What the requirements change by the lock, once it and what is installed satisfy all that is declared."""
    asked = [*request.requirements, *(text for text in request.optional if _name(text) in pins)]
    held = [*constraints, *(f"{name}=={version}" for name, version in pins.items())]
    if not request.declared_only:
        return _whole(uv, request, asked, held, pins), []
    changes = uv.changes(asked, held, request.lock, True)
    found = needs.read(uv.stage, uv.declared(request.requirements, request.lock))
    coming = needs.read(uv.stage, [need.requirement for need in found], pins)
    for need, with_lock in zip(found, coming):
        if need.status:
            need.reason = f"{need.installed} is installed"
        elif canonical(need.name) in kept:
            need.status, need.reason = needs.CONFLICTING, f"{need.installed} is installed and protected"
        elif with_lock.status:
            need.status, need.reason = needs.INSTALLED, f"{with_lock.installed} is added"
        else:
            need.status, need.reason = needs.UNAVAILABLE, "the lock does not hold it"
    _refuse_unmet(request, found, request.requirements)
    added = [need.requirement for need in found if need.status == needs.INSTALLED]
    more = _whole(uv, request, added, held, pins) if added else []
    known = {change.name for change in changes}
    return changes + [change for change in more if change.name not in known], found


def _whole(
    uv: Uv, request: Request, requirements: list[str], constraints: list[str], pins: dict[str, str]
) -> list[Change]:
    """What the requirements change by the lock, which must hold all that they depend on."""
    try:
        changes = uv.changes(requirements, constraints, request.lock)
    except Unsatisfiable as explanation:
        raise Refused(
            f"Refused: the lock cannot be installed as it is: {explanation} {_WHOLE}",
            [],
        ) from explanation
    missing = [change for change in changes if change.name not in pins]
    if missing:
        listed = ", ".join(f"{change.name} {change.after}" for change in missing)
        raise Refused(
            f"Refused: the lock does not hold what its packages depend on: {listed}. {_WHOLE}",
            _as_rows(missing),
        )
    return changes


def _required_by(
    uv: Uv, request: Request, plan: Plan, requirements: list[str], installed: dict[str, Distribution]
) -> dict[str, list[str]]:
    """Who requires each package that comes or moves. Asked only for what the requests do not name themselves."""
    coming = {change.name: change.after for change in plan.changes if change.after}
    named = {_name(text) for text in requirements}
    if plan.lock_used or not coming.keys() - named:
        return {name: [] for name in coming}
    versions = {name: found.version for name, found in installed.items() if found.version} | coming
    asked = requirements
    if request.declared_only:
        # Their own dependencies cannot be resolved, or nobody would go this way: who declares a need is known.
        asked = [need.requirement for need in plan.needs if need.status == needs.INSTALLED]
    told = _parents(uv, asked, versions, coming)
    declared = {_name(need.requirement) for need in plan.needs}
    return {name: sorted({*told.get(name, []), *(named - {name} if name in declared else ())}) for name in coming}


def _parents(uv: Uv, asked: list[str], versions: dict[str, str], coming: dict[str, str]) -> dict[str, list[str]]:
    """Which packages require each of those that `asked` bring; {} where it cannot be told, which keeps no plan away.

    uv is asked as for an environment that is yet to be made, so it must find in the sources even what is installed.
    Those may not have it: PyTorch of its own index (2.8.0+cu128), or a build of the site's. Its public version then
    stands for it, or else any does.
    """
    public = {name: version.partition("+")[0] for name, version in versions.items()}
    for known in ({**public, **coming}, coming) if asked else ():
        try:
            return uv.required_by(asked, known)
        except (Unsatisfiable, Failed):
            continue
    return {}


def _name(requirement: str) -> str:
    return canonical(re.split(r"[^\w.-]", requirement, maxsplit=1)[0])


def _exclusions(excluded: list[dict]) -> list[str]:
    return [row["constraint"] for row in excluded]


def _declared(
    uv: Uv, request: Request, requirements: list[str], constraints: list[str], kept: dict[str, str]
) -> tuple[list[Change], list[dict], list[Need]]:
    """The requirements by themselves, and as much of what they declare as can be had around what is protected."""
    changes, excluded = _resolve(uv, request, requirements, constraints, "", kept, no_deps=True)
    found = needs.read(uv.stage, uv.declared(requirements))
    wanted = []
    for need in found:
        if need.status:
            need.reason = f"{need.installed} is installed"
        elif canonical(need.name) in kept:
            need.status, need.reason = needs.CONFLICTING, f"{need.installed} is installed and protected"
        else:
            wanted.append(need)
    more, kept_out = _obtain(uv, request, wanted, constraints, kept)
    _refuse_unmet(request, found, requirements)
    known = {change.name for change in changes}
    return changes + [change for change in more if change.name not in known], excluded + kept_out, found


def _refuse_unmet(request: Request, found: list[Need], requirements: list[str]) -> None:
    accepted = [canonical(name) for name in request.accept_unmet]
    unmet = [need for need in found if need.status in needs.UNMET and canonical(need.name) not in accepted]
    if unmet:
        raise Refused(_unmet_text(unmet, requirements), [vars(need) for need in unmet], found)


def _obtain(
    uv: Uv, request: Request, wanted: list[Need], constraints: list[str], kept: dict[str, str]
) -> tuple[list[Change], list[dict]]:
    """Resolve the needs together; where that cannot be, find the ones that stand in the way and go on without them."""

    def resolve(some: list[Need]) -> tuple[list[Change], list[dict]]:
        return _resolve(uv, request, [need.requirement for need in some], constraints, "", kept) if some else ([], [])

    try:
        changes, excluded = resolve(wanted)
    except (Unsatisfiable, Refused):
        for need in wanted:
            try:
                resolve([need])
            except Unsatisfiable as reason:
                need.status, need.reason = needs.UNAVAILABLE, reason.brief
            except Refused as reason:
                need.status, need.reason = needs.CONFLICTING, str(reason)
        changes, excluded = resolve([need for need in wanted if not need.status])
    versions = {change.name: change.after for change in changes}
    for need in wanted:
        if not need.status:
            need.status, need.reason = needs.INSTALLED, f"{versions.get(canonical(need.name))} is added"
    return changes, excluded


def _resolve(
    uv: Uv,
    request: Request,
    requirements: list[str],
    constraints: list[str],
    lock: str,
    kept: dict[str, str],
    no_deps: bool = False,
) -> tuple[list[Change], list[dict]]:
    excluded: list[dict] = []
    for _round in range(_GUARD_ROUNDS):
        try:
            changes = uv.changes(requirements, [*constraints, *_exclusions(excluded)], lock, no_deps)
        except Unsatisfiable as explanation:
            if excluded:
                raise Refused(
                    _foreign_text(excluded, requirements, request, str(explanation)), excluded
                ) from explanation
            raise _explain_conflict(uv, requirements, request.constraints, kept, explanation) from explanation
        foreign = _foreign(changes, request)
        if not foreign:
            return changes, excluded
        excluded += foreign
    raise Refused(_foreign_text(excluded, requirements, request, "no set without them was found"), excluded)


def _foreign(changes: list[Change], request: Request) -> list[dict]:
    """The packages of the plan that belong to another CUDA major version and are not allowed by name."""
    if request.cuda_major is None:
        return []
    rows = []
    for change in changes:
        if change.after is None or change.name in map(canonical, request.allow):
            continue
        major = cuda_guard.major(change.name, change.after)
        if major is not None and major != request.cuda_major:
            rows.append(
                {
                    "name": change.name,
                    "version": change.after,
                    "cuda_major": major,
                    "constraint": cuda_guard.exclusion(change.name, request.cuda_major),
                }
            )
    return rows


def _explain_conflict(
    uv: Uv, requirements: list[str], constraints: list[str], kept: dict[str, str], explanation: Unsatisfiable
) -> Exception:
    """Say which protected packages would have to move, by resolving once more without protecting them."""
    if not kept:
        return explanation
    try:
        changes = uv.changes(requirements, constraints)
    except Unsatisfiable as reason:
        return reason  # it cannot be had at all, protected packages or not
    moved = [change for change in changes if change.name in kept]
    coming = {change.name: change.after for change in changes if change.after}
    by = _parents(uv, requirements, coming, coming) if coming else {}
    return Refused(_moved_text(moved, requirements, str(explanation), by), _as_rows(moved))


def _as_rows(changes: list[Change]) -> list[dict]:
    return [{"name": change.name, "before": change.before, "after": change.after} for change in changes]


def _moved_text(moved: list[Change], requirements: list[str], why: str, by: dict[str, list[str]] | None = None) -> str:
    """`by` tells which packages require each that moves."""

    def row(change: Change) -> str:
        parents = ", ".join((by or {}).get(change.name, []))
        chain = f" (required by {parents})" if parents else ""
        return f"{change.name} {change.before} -> {change.after or 'removed'}{chain}"

    listed = ", ".join(map(row, moved))
    text = f"Refused: installing {', '.join(requirements)} would move protected packages: {listed or 'see below'}."
    return (
        f"{text}{f' Why: {why}' if why else ''} Take a release whose needs are met here (fi_version: auto), or leave "
        "what may move out of protect (flashinfer_protect)."
    )


def _marked_text(surplus: list[Change]) -> str:
    listed = ", ".join(f"{change.name} {change.after}" for change in surplus)
    return (
        f"Refused: the lock holds, by environment markers, what is for hosts of another kind: {listed}. Expected a "
        "lock for this kind alone, all of which is installed; make it without --universal, or take those lines out"
    )


def _surplus_text(surplus: list[Change], requirements: list[str]) -> str:
    listed = ", ".join(f"{change.name} {change.after}" for change in surplus)
    wanted = ", ".join(requirements)
    return (
        f"Refused: the lock holds what nothing that was asked for depends on: {listed}. Expected a lock of {wanted} "
        "and its dependencies alone; find out how that came into it (a canary tells its own lock), then make it anew, "
        "on a host with the same baseline"
    )


def _unmet_text(unmet: list[Need], requirements: list[str]) -> str:
    listed = "; ".join(f"{need.requirement} is {need.status} ({need.reason})" for need in unmet)
    return (
        f"Refused: {', '.join(requirements)} declares that it needs at run time what it would not have here: {listed}. "
        "That it imports without is no proof: FlashInfer needs its declared packages only when a kernel is compiled or "
        "called. Take another version, or name what can be done without in accept_unmet "
        "(flashinfer_accept_unmet)."
    )


def _foreign_text(excluded: list[dict], requirements: list[str], request: Request, why: str) -> str:
    listed = ", ".join(f"{row['name']} {row['version']} (CUDA {row['cuda_major']})" for row in excluded)
    return (
        f"Refused: {', '.join(requirements)} cannot be installed without packages of another CUDA major version than "
        f"{request.cuda_major}: {listed}. Why: {why.rstrip('.')}. Take another release (fi_version: auto), or accept "
        "by name what does no harm, in allow_cuda (flashinfer_allow_cuda)."
    )
