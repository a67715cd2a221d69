#!/usr/bin/env python3
# Copyright (c) 2026 The ocrfleet.gpu_stack contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Measure which FlashInfer releases fit the stack, and write docs/compatibility.md.

compatibility.py measure ENVIRONMENT WORK [VERSION ...]
    ENVIRONMENT is the stack without FlashInfer, and is only read; each release is installed into a hard-linked copy in
    WORK, on the same file system. WORK/VERSION.json keeps each result, so that a run that was cut short goes on; remove
    it to measure again. At the end docs/compatibility.json holds all of them. Where an nvcc is found, whichever it is,
    one kernel module of each release is compiled with it.
compatibility.py page
    writes docs/compatibility.md from docs/compatibility.json
"""

from __future__ import annotations

import datetime
import json
import os
import re
import shutil
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import compatibility_probe
import jinja2
from packaging.version import Version

ROOT = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(ROOT / "collections"))

from ansible_collections.ocrfleet.gpu_stack.plugins.module_utils import (  # noqa: E402 - found through the path above
    commands,
    cuda_guard,
    distributions,
    flashinfer_install,
    inventory,
    needs,
    package_plan,
    source_tree,
    wheel_build,
)
from ansible_collections.ocrfleet.gpu_stack.plugins.module_utils.staging import Stage  # noqa: E402
from ansible_collections.ocrfleet.gpu_stack.plugins.module_utils.uv import (  # noqa: E402
    Failed,
    Sources,
    Unsatisfiable,
    Uv,
)

DATA = ROOT / "docs/compatibility.json"
PAGE = ROOT / "docs/compatibility.md"
TEMPLATE = ROOT / "tools/compatibility.md.j2"
FETCH = ROOT / "molecule/source/fetch.py"
PACKAGE = "flashinfer-python"
CUDA = 12
NVCC = "12.8"  # the stack's; what another one does not compile says nothing of the release
FITS = "0.3.1"  # beside which a package of another CUDA major version is looked at
UV = shutil.which("uv") or ""
LIMIT = 900.0  # seconds, for one call
VERSIONS = (
    *("0.2.5", "0.2.9", "0.3.0", "0.3.1", "0.4.0", "0.4.1", "0.5.0", "0.5.3", "0.6.0", "0.6.13", "0.6.18.post1"),
    "0.7.2.post1",
)


def added(plan: package_plan.Plan) -> list[str]:
    return sorted(f"{change.name} {change.after}" for change in plan.changes if not change.before)


def tried(uv: Uv, request: package_plan.Request) -> tuple[package_plan.Plan | None, dict[str, Any]]:
    """A plan by the collection's own planner, and what there is to say of it; None with the problem where none is."""
    said: dict[str, Any] = {"problem": "", "adds": [], "moves": [], "kept_out": [], "unmet": []}
    try:
        plan = package_plan.make(uv, request, distributions.installed(uv.stage.tree), [])
    except package_plan.Refused as refused:
        said["problem"] = str(refused).split(" Why: ")[0]
        said["unmet"] = [f"{need.requirement} ({need.status})" for need in refused.needs if need.status in needs.UNMET]
        return None, said
    except Unsatisfiable as reason:
        return None, {**said, "problem": reason.brief}
    except Failed as reason:
        return None, {**said, "problem": " ".join(str(reason).split())[:300]}
    said["adds"] = added(plan)
    said["moves"] = [f"{c.name} {c.before} -> {c.after or 'removed'}" for c in plan.changes if c.before]
    said["kept_out"] = [f"{row['name']} {row['version']}" for row in plan.excluded]
    return plan, said


def nvcc() -> str:
    """The version of the nvcc that FlashInfer would take here, "" where there is none."""
    home, _how = flashinfer_install.cuda_home(os.environ, os.environ.get("PATH", os.defpath))
    return flashinfer_install.nvcc(home, commands.run, 30)["version"]


def linkable(tree: Path, scratch: Path) -> str:
    """A folder in which the linker finds what a GPU host has and this machine may lack.

    The environment's CUDA runtime, whose wheel has no name without a version, and an empty stand-in for the driver's
    libcuda, which FlashInfer's modules are linked against from 0.5.0 on.
    """
    folder = scratch / "lib"
    folder.mkdir(exist_ok=True)
    for library in tree.glob("lib/python3*/site-packages/nvidia/cuda_runtime/lib/libcudart.so.*"):
        (folder / "libcudart.so").symlink_to(library)
    empty = ["c++", "-shared", "-nostdlib", "-Wl,-soname,libcuda.so.1", "-x", "c++", "/dev/null"]
    subprocess.run([*empty, "-o", str(folder / "libcuda.so")], check=True)
    return str(folder)


def probe(tree: Path, scratch: str, parts: list[str]) -> dict[str, Any]:
    """What the probe saw, run by the copy's Python. Whatever an import or a compiler writes goes into `scratch`."""
    env = {"HOME": scratch, "FLASHINFER_WORKSPACE_BASE": scratch, "TVM_FFI_CACHE_DIR": scratch, "PYTHONPATH": ""}
    # Without a GPU the architecture must be named; tvm_ffi would compile a torch extension at its import.
    env |= {"TORCH_CUDA_ARCH_LIST": "8.0", "FLASHINFER_CUDA_ARCH_LIST": "8.0", "TVM_FFI_DISABLE_TORCH_C_DLPACK": "1"}
    # A toolkit that was put together from wheels has no headers of these libraries; the environment has.
    headers = [
        next(tree.glob(f"lib/python3*/site-packages/nvidia/{name}/include"), tree) for name in ("curand", "cublas")
    ]
    env["CPATH"] = os.pathsep.join(map(str, headers))
    env["LIBRARY_PATH"] = linkable(tree, Path(scratch))
    stage = Stage(str(tree))
    done = stage.run(
        [stage.python, compatibility_probe.__file__, *parts],
        timeout=LIMIT,
        env={**env, "PYTHONDONTWRITEBYTECODE": "1"},
        cwd=scratch,
    )
    found: dict[str, Any] = {}
    for line in done.stdout.splitlines():
        if line.startswith(compatibility_probe.MARK):
            found.update(json.loads(line.removeprefix(compatibility_probe.MARK)))
    return found if done.ok else {**found, "problem": done.outcome(lines=1)[:300]}


def built(uv: Uv, tree: Path, folder: Path, version: str) -> str:
    """Why the method `source` can make no wheel of the index's source archive here, "" where it can."""
    archives, source, wheel = folder / "archives", folder / "source", folder / "wheel"
    fetched = commands.run([sys.executable, str(FETCH), f"{PACKAGE}=={version}", str(archives)], timeout=LIMIT)
    if not fetched.ok:
        return "the index has no source archive of it" if "'sdist'" in fetched.stderr else fetched.outcome(lines=1)
    try:
        (archive,) = archives.glob("*")
        source_tree.unpack(str(archive), str(source))
        wheel.mkdir()
        wheel_build.build(uv.binary, str(tree), source_tree.root(str(source)), str(wheel), "", LIMIT)
    except source_tree.Refused as reason:
        return " ".join(str(reason).split())[:300]
    return ""


def install(uv: Uv, pins: list[str], constraints: list[str]) -> str:
    """Install the pins by their hashed lock; the problem, or "". FlashInfer comes last: its build may need others."""
    own = [pin for pin in pins if pin.startswith(PACKAGE + "==")]
    try:
        for part in ([pin for pin in pins if pin not in own], own):
            if part:
                uv.install(part, uv.lock(part), [], constraints)
    except (Failed, Unsatisfiable) as problem:
        return " ".join(str(problem).split())[:300]
    return ""


def anyway(uv: Uv, request: package_plan.Request, unmet: list[str]) -> tuple[package_plan.Plan | None, list[str]]:
    """What the role refuses, planned all the same to see whether an import or a compiler would notice.

    Of what is unavailable at the version asked for, another one comes in its place, as somebody would do by hand.
    """
    names = [re.split(r"[^\w.-]", text, maxsplit=1)[0] for text in unmet]
    instead = [name for name, text in zip(names, unmet) if text.endswith(f"({needs.UNAVAILABLE})")]
    request.accept_unmet.extend(names)
    request.requirements.extend(instead)
    plan, _said = tried(uv, request)
    return plan, [row for row in added(plan) if row.split()[0] in instead] if plan else []


@contextmanager
def copied(baseline: Path, work: Path, name: str) -> Iterator[tuple[Path, Path, Uv]]:
    """A hard-linked copy of the baseline, a folder for requests, and uv for the copy; gone afterwards."""
    tree, folder = work / f"tree-{name}", work / f"request-{name}"
    for path in (tree, folder):
        shutil.rmtree(path, ignore_errors=True)
    folder.mkdir()
    subprocess.run(["cp", "-al", "--", str(baseline), str(tree)], check=True)
    stage = Stage(str(tree))
    uv = Uv(UV, stage, Sources(), str(folder), LIMIT, no_build_isolation=(PACKAGE,))
    uv.looking = stage.guarded()
    uv.cache = os.environ.get("UV_CACHE_DIR", "")
    try:
        yield tree, folder, uv
    finally:
        for path in (tree, folder):
            shutil.rmtree(path, ignore_errors=True)


def measure(baseline: Path, work: Path, version: str) -> dict[str, Any]:
    """Everything that is found out about one release."""
    began = time.monotonic()
    with copied(baseline, work, version) as (tree, folder, uv):
        wanted = [f"{PACKAGE}=={version}"]
        before, hurt = distributions.installed(str(tree)), [damage.name for damage in distributions.damaged(str(tree))]
        found: dict[str, Any] = {"unguarded": tried(uv, package_plan.Request(wanted))[1]}
        plan, found["pypi"] = tried(uv, package_plan.Request(wanted, protect=["all"], cuda_major=CUDA))
        found["source"] = {"problem": built(uv, tree, folder, version)}
        request = package_plan.Request(wanted, protect=["all"], cuda_major=CUDA, declared_only=True)
        alone, found["constrained"] = tried(uv, request)
        plan = plan or alone
        if plan is None and found["constrained"]["unmet"]:
            plan, found["instead"] = anyway(uv, request, found["constrained"]["unmet"])
        if plan:
            found["install_problem"] = install(uv, plan.pins, plan.constraints)
            after = distributions.installed(str(tree))
            own = after.get(PACKAGE)
            found["declares"] = [text for text in (own.requires if own else ()) if "extra ==" not in text]
            found["moved"] = sorted(n for n, d in before.items() if n not in after or after[n].version != d.version)
            found["damaged"] = [d.name for d in distributions.damaged(str(tree)) if d.name not in hurt]
            found["nvcc"] = nvcc()
            home = folder / "home"  # its own: 0.3 keeps what it compiled under no version
            home.mkdir()
            found["probe"] = probe(tree, str(home), ["kernels"] if found["nvcc"] else [])
    return {
        **json.loads(json.dumps(found).replace(str(tree), "ENVIRONMENT").replace(str(folder), "FOLDER")),
        "seconds": round(time.monotonic() - began),
    }


def measure_foreign(baseline: Path, work: Path, name: str, version: str) -> dict[str, Any]:
    """What one package of another CUDA major version does to a stack with FlashInfer, put there with nothing else.

    `replaces`: whose files it overwrites; `libraries`: how many shared objects it has; `loaded`: those of them that are
    in a process that has imported torch, FlashInfer and vllm's modules for it; `problem`: why one did not import.
    """
    with copied(baseline, work, name) as (tree, folder, uv):
        request = package_plan.Request([f"{PACKAGE}=={FITS}"], protect=["all"], cuda_major=CUDA)
        plan, said = tried(uv, request)
        problem = install(uv, plan.pins, plan.constraints) if plan else said["problem"]
        if not problem:
            problem = install(uv, [f"{name}=={version}"], [])
        files = {one: recorded(found.path) for one, found in distributions.installed(str(tree)).items()}
        own = files.pop(name, set())
        seen = probe(tree, str(folder), ["loaded"]) if own else {}
        failed = [row for row in (seen.get("flashinfer", {}).get("problem"), *seen.get("vllm", {}).values()) if row]
        site = distributions.site_packages(str(tree))[0]
        loaded = {os.path.relpath(tree / path, site) for path in seen.get("loaded", [])}
    return {
        "version": version,
        "problem": problem or seen.get("problem", "") or next(iter(failed), ""),
        "replaces": sorted(other for other, paths in files.items() if paths & own),
        "libraries": len([path for path in own if re.search(r"\.so(\.|$)", path)]),
        "loaded": sorted(loaded & own),
    }


def recorded(metadata: str) -> set[str]:
    """The files of a distribution, relative to its site-packages."""
    record = os.path.join(metadata, "RECORD")
    return {path for path, _digest in inventory.record_rows(record)} if os.path.isfile(record) else set()


def foreign_packages(releases: dict[str, Any]) -> dict[str, str]:
    """What the releases would bring of another CUDA major version, each at the newest version seen."""
    found: dict[str, str] = {}
    for release in releases.values():
        for row in foreign(release["unguarded"]["adds"]):
            name, version = row.split(" ", 1)
            found[name] = max(version, found.get(name, version), key=Version)
    return dict(sorted(found.items()))


def once(kept: Path, measured: Callable[..., dict[str, Any]], *arguments: Any) -> dict[str, Any]:
    """What was measured and is kept there; measured and kept when it is not."""
    if not kept.exists():
        sys.stdout.write(f"compatibility: {kept.stem}\n")
        sys.stdout.flush()
        kept.parent.mkdir(exist_ok=True)
        kept.with_suffix(".new").write_text(json.dumps(measured(*arguments), indent=1), encoding="utf-8")
        kept.with_suffix(".new").rename(kept)
    found: dict[str, Any] = json.loads(kept.read_text(encoding="utf-8"))
    return found


def measure_all(baseline: Path, work: Path, versions: list[str]) -> None:
    installed = distributions.installed(str(baseline))
    if "vllm" not in installed or PACKAGE in installed:
        raise SystemExit(
            f"compatibility: expected the stack without {PACKAGE} at {baseline}, found another environment"
        )
    if not UV:
        raise SystemExit("compatibility: expected uv on PATH, found none; `make compatibility` has it there")
    work.mkdir(parents=True, exist_ok=True)
    for version in versions:
        once(work / f"{version}.json", measure, baseline, work, version)
    results = {path.stem: json.loads(path.read_text(encoding="utf-8")) for path in work.glob("*.json")}
    packages = {
        name: once(work / "foreign" / f"{name}.json", measure_foreign, baseline, work, name, version)
        for name, version in foreign_packages(results).items()
    }
    data = {
        "date": datetime.datetime.now(datetime.timezone.utc).date().isoformat(),
        "baseline": {name: installed[name].version for name in ("torch", "vllm", "olmocr")},
        "packages": len(installed),
        "releases": {version: results[version] for version in sorted(results, key=Version)},
        "foreign": packages,
    }
    DATA.write_text(json.dumps(data, indent=1) + "\n", encoding="utf-8")


def misfits(found: dict[str, Any], path: str) -> list[str]:
    """Why vllm's path (attention or sample) does not fit: an import that fails, calls that do not fit."""
    seen = found.get("probe", {})
    imports = [problem for module, problem in seen.get("vllm", {}).items() if path in module and problem]
    calls = [
        f"{row['call']}: {row['problem']}" for row in seen.get("calls", []) if path in row["module"] and row["problem"]
    ]
    return imports + calls


def verdict(found: dict[str, Any]) -> tuple[str, str]:
    """One word on a release, and why."""
    if found["pypi"]["problem"] and found["constrained"]["problem"]:
        unmet = found["constrained"]["unmet"]
        why = "it needs " + ", ".join(unmet) if unmet else found["constrained"]["problem"]
        return "refused", why + without(found)
    seen = found["probe"]
    if found["install_problem"]:
        return "does not install", found["install_problem"]
    if seen["flashinfer"]["problem"]:
        return "does not import", seen["flashinfer"]["problem"]
    if found["nvcc"] == NVCC and compiles(found).startswith("no:"):
        return "does not compile", seen["kernels"]["problem"]
    attention, sampler = misfits(found, "attention"), misfits(found, "sample")
    if attention and sampler:
        return "breaks", attention[0]
    if attention:
        return "sampler only", attention[0]
    return ("attention only", sampler[0]) if sampler else ("fits", "every call of vllm's attention and sampler fits")


def without(found: dict[str, Any]) -> str:
    """What becomes of a refused release that is installed all the same, which an import alone would call a success."""
    if not found.get("probe"):
        return ""
    if found["install_problem"]:
        return f"; all the same, it does not install: {found['install_problem']}"
    how = f"with {', '.join(found['instead'])} in its place" if found["instead"] else "without it"
    if imports(found) != "yes":
        return f"; {how}, it does not import: {found['probe']['flashinfer']['problem']}"
    kernels = compiles(found)
    if kernels.startswith("no:"):
        return f"; {how}, it imports, and `sampling` does not compile: {found['probe']['kernels']['problem']}"
    more = "; nor does `sampling`, which compiles" if kernels.startswith("yes") else ""
    return f"; {how}, it imports, which proves nothing{more}"


def imports(found: dict[str, Any]) -> str:
    seen = found.get("probe")
    return "not_run" if not seen else "no" if seen.get("flashinfer", {"problem": "x"})["problem"] else "yes"


def vllm_imports(found: dict[str, Any]) -> str:
    """Whether vllm's own modules for FlashInfer import; those that do not."""
    seen = found.get("probe", {}).get("vllm")
    failed = [module.rpartition(".")[2] for module, problem in (seen or {}).items() if problem]
    return "not_run" if not seen else f"no: {', '.join(failed)}" if failed else "yes"


def compiles(found: dict[str, Any]) -> str:
    """Whether the kernel module compiled and loaded."""
    seen = found.get("probe", {}).get("kernels")
    if seen is None:
        return "not_run"
    if seen["problem"]:
        return f"no: {seen['problem']}"
    return f"yes, {seen['seconds']} s" + ("" if seen["loads"] else "; its loading wants the driver")


def by_method(found: dict[str, Any], method: str) -> str:
    """Whether the method's plan, or build, stands, and why not."""
    said = found[method]
    if said.get("unmet"):
        return "refused: it needs " + ", ".join(said["unmet"])
    if said["problem"]:
        return f"no: {said['problem']}"
    if method == "source":
        return "builds" + (", and has no plan, as `pypi`" if found["pypi"]["problem"] else "")
    return f"plans, {len(said['adds'])} packages"


def foreign(rows: list[str]) -> list[str]:
    """Those of `name version` that belong to another CUDA major version."""
    return [row for row in rows if cuda_guard.major(*row.split(" ", 1)) not in (None, CUDA)]


def harmless(found: dict[str, Any]) -> str:
    """One word on what a package of another CUDA major version does, as far as imports show it."""
    if found["problem"]:
        return "**not harmless**"
    if found["replaces"] or found["loaded"]:
        return "**not harmless**: " + ("it overwrites" if found["replaces"] else "it is loaded")
    return "harmless at import"


def cell(text: str) -> str:
    return text.replace("|", "\\|").replace("<", "&lt;").replace("\n", " ")


def render(data: dict[str, Any]) -> str:
    environment = jinja2.Environment(  # noqa: S701 - Markdown, not HTML
        keep_trailing_newline=True, trim_blocks=True, lstrip_blocks=True, undefined=jinja2.StrictUndefined
    )
    environment.filters["cell"] = cell
    rows = {version: (*verdict(found), found) for version, found in data["releases"].items()}
    return environment.from_string(TEMPLATE.read_text(encoding="utf-8")).render(
        data={"foreign": {}, **data},
        rows=rows,
        nvcc=sorted({found["nvcc"] for found in data["releases"].values() if found.get("nvcc")}),
        stack_nvcc=NVCC,
        imports=imports,
        vllm_imports=vllm_imports,
        compiles=compiles,
        by_method=by_method,
        foreign=foreign,
        fits=FITS,
        harmless=harmless,
        hurt=[version for version, row in data["releases"].items() if row.get("moved") or row.get("damaged")],
    )


def main(arguments: list[str]) -> None:
    if arguments[:1] == ["measure"] and len(arguments) > 2:
        versions = arguments[3:] or list(VERSIONS)
        measure_all(Path(arguments[1]).resolve(), Path(arguments[2]).resolve(), versions)
    elif arguments == ["page"]:
        PAGE.write_text(render(json.loads(DATA.read_text(encoding="utf-8"))), encoding="utf-8")
    else:
        raise SystemExit(__doc__)


if __name__ == "__main__":
    main(sys.argv[1:])
