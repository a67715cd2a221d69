# Copyright (c) 2026 The ocrfleet.gpu_stack contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Which FlashInfer works on the baseline, by which method: measured and kept as data.

    compatibility.py plan BASELINE WORK [VERSION ...]   resolve and install; BASELINE is the stack without FlashInfer
    compatibility.py probe WORK                         import, and hold vllm's calls against FlashInfer's signatures

Each version and method is planned by the collection's own code, installed into a clone of the baseline (hard links;
the baseline is only read) and looked at by tools/compatibility_probe.py. Results are kept after each step, and what is
there already is not measured again, so a run that was stopped goes on.
"""

from __future__ import annotations

import datetime
import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(ROOT / "collections"))

from ansible_collections.ocrfleet.gpu_stack.plugins.module_utils import (  # noqa: E402 - found through the path above
    distributions,
    needs,
    package_plan,
)
from ansible_collections.ocrfleet.gpu_stack.plugins.module_utils.staging import Stage  # noqa: E402
from ansible_collections.ocrfleet.gpu_stack.plugins.module_utils.uv import (  # noqa: E402
    Failed,
    Sources,
    Unsatisfiable,
    Uv,
)

DATA = ROOT / "tools/compatibility.json"
PAGE = ROOT / "docs/compatibility.md"
PROBE = ROOT / "tools/compatibility_probe.py"
METHODS = ("pypi", "source", "constrained")
VERSIONS = (
    *("0.3.1", "0.4.1", "0.5.3", "0.7.2.post1", "0.6.13", "0.2.5", "0.2.14.post1", "0.4.0", "0.5.0", "0.6.0"),
    *("0.3.0", "0.6.18.post1", "0.7.0", "0.2.9"),
)
PACKAGE = "flashinfer-python"


def clone(baseline: Path, tree: Path) -> None:
    shutil.rmtree(tree, ignore_errors=True)
    subprocess.run(["cp", "-al", "--", str(baseline), str(tree)], check=True)


def environment(work: Path, source: bool) -> dict[str, str]:
    """Of every uv and probe: nothing is written outside of `work`."""
    kept = {"FLASHINFER_WORKSPACE_BASE": str(work / "jit"), "PYTHONDONTWRITEBYTECODE": "1", "HOME": str(work / "home")}
    # Without a GPU the architecture must be named.
    kept |= {"TORCH_CUDA_ARCH_LIST": "8.0", "FLASHINFER_CUDA_ARCH_LIST": "8.0", "CUDA_VISIBLE_DEVICES": ""}
    return kept | ({"UV_NO_BINARY_PACKAGE": PACKAGE} if source else {})


def pins(changes: list) -> dict[str, str]:
    return {change.name: change.after for change in changes if change.after}


def install(uv: Uv, baseline: Path, version: str, method: str) -> dict:
    """Plan and install one version by one method, as the role does. Problems are findings, not errors."""
    tree = Path(uv.stage.environment)
    clone(baseline, tree)
    before = distributions.installed(str(tree))
    row: dict = {"resolves": False, "installs": False, "problem": "", "added": {}, "kept_out": [], "needs": []}
    request = package_plan.Request(
        requirements=[f"{PACKAGE}=={version}"],
        protect=["all"],
        cuda_major=12,
        declared_only=method == "constrained",
    )
    try:
        plan = package_plan.make(uv, request, before, [])
        row |= {"resolves": True, "added": pins(plan.changes)}
        row["kept_out"] = [f"{entry['name']} {entry['version']}" for entry in plan.excluded]
        row["needs"] = [
            f"{n.requirement}: {n.status}, {n.reason}" for n in plan.needs if n.status not in ("satisfied", "installed")
        ]
        # The requirements of a build without isolation must be there before it.
        own = [pin for pin in plan.pins if pin.startswith(PACKAGE + "==")]
        for part in ([pin for pin in plan.pins if pin not in own], own):
            if part:
                uv.install(part, uv.lock(part), [], plan.constraints)
        row["installs"] = True
    except package_plan.Refused as refused:
        row["problem"] = str(refused)
        row["kept_out"] = [
            f"{entry['name']} {entry.get('version') or entry.get('after')}" for entry in refused.offending
        ]
    except (Unsatisfiable, Failed, needs.Unreadable) as problem:
        row["problem"] = str(problem)
    after = distributions.installed(str(tree))
    row["moved"] = sorted(n for n, d in before.items() if n not in after or after[n].version != d.version)
    found = {name: [damage.name for damage in distributions.damaged(str(name))] for name in (baseline, tree)}
    row["damaged"] = sorted(set(found[tree]) - set(found[baseline]))
    row["problem"] = " ".join(row["problem"].replace(str(tree), "ENVIRONMENT").split())[:600]
    return row


def ask(tree: Path, part: str) -> dict | list:
    command = [str(tree / "bin/python"), str(PROBE), part]
    try:
        done = subprocess.run(command, capture_output=True, text=True, timeout=1800, check=False)
    except subprocess.TimeoutExpired:
        return {"problem": "did not end within 1800 s"}
    try:
        return json.loads(done.stdout.strip().splitlines()[-1])
    except (ValueError, IndexError):
        return {"problem": f"ended with {done.returncode}: {done.stderr.strip()[-200:]}"}


def keep(data: dict) -> None:
    data["measured"] = datetime.datetime.now(datetime.timezone.utc).date().isoformat()
    data["versions"] = {version: data["versions"][version] for version in sorted(data["versions"], key=order)}
    DATA.write_text(json.dumps(data, indent=1) + "\n", encoding="utf-8")


def load() -> dict:
    return json.loads(DATA.read_text(encoding="utf-8")) if DATA.exists() else {"versions": {}}


def plan(baseline: Path, work: Path, versions: list[str], uv_binary: str) -> None:
    """Resolve and install, each version by each method; the trees that are to be looked at stay in `work`."""
    data = load()
    installed = distributions.installed(str(baseline))
    if PACKAGE in installed:
        raise SystemExit(f"expected a baseline without FlashInfer at {baseline}, found {installed[PACKAGE].version}")
    data["baseline"] = {name: installed[name].version for name in ("torch", "vllm", "olmocr")}
    data["baseline"]["packages"] = len(installed)
    (work / "home").mkdir(parents=True, exist_ok=True)
    inherited = dict(os.environ)
    for version in versions:
        rows = data["versions"].setdefault(version, {})
        for method in METHODS:
            if method in rows:
                continue
            os.environ.clear()
            os.environ.update(inherited | environment(work, method == "source"))
            tree, folder = work / f"{version}-{method}", work / "requests"
            shutil.rmtree(folder, ignore_errors=True)
            folder.mkdir()
            uv = Uv(uv_binary, Stage(str(tree)), Sources(), str(folder), 1200, no_build_isolation=(PACKAGE,))
            uv.cache = inherited.get("UV_CACHE_DIR", "")
            row = install(uv, baseline, version, method)
            same = [name for name in rows if rows[name]["installs"] and rows[name]["added"] == row["added"]]
            if row["installs"] and same:
                row["same_as"] = rows[same[0]].get("same_as", same[0])
            if not row["installs"] or "same_as" in row:
                shutil.rmtree(tree, ignore_errors=True)
            rows[method] = row
            sys.stdout.write(f"{version} {method}: {'installed' if row['installs'] else row['problem'][:100]}\n")
            sys.stdout.flush()
            keep(data)


def probe(work: Path) -> None:
    """Look at what `plan` installed and nobody looked at yet."""
    data = load()
    os.environ.update(environment(work, source=False))
    for version in sorted(data["versions"], key=lambda v: VERSIONS.index(v) if v in VERSIONS else len(VERSIONS)):
        for method, row in data["versions"][version].items():
            tree = work / f"{version}-{method}"
            if "imports" not in row and tree.exists():
                sys.stdout.write(f"{version} {method}\n")
                sys.stdout.flush()
                row |= {"calls": ask(tree, "calls"), "imports": ask(tree, "imports")}
                keep(data)


def order(version: str) -> list[int]:
    return [int(part) for part in version.replace("post", "").split(".")]


def main(arguments: list[str]) -> None:
    if arguments[:1] == ["plan"] and len(arguments) > 2:
        uv = shutil.which("uv") or str(Path(sys.executable).parent / "uv")
        plan(Path(arguments[1]).resolve(), Path(arguments[2]).resolve(), arguments[3:] or list(VERSIONS), uv)
    elif arguments[:1] == ["probe"] and len(arguments) == 2:
        probe(Path(arguments[1]).resolve())
    else:
        raise SystemExit(__doc__)


if __name__ == "__main__":
    main(sys.argv[1:])
