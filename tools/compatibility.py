#!/usr/bin/env python3
# Copyright (c) The ocrfleet.gpu_stack contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Find out which FlashInfer releases fit the stack, by real resolutions and installations, and write it down.

compatibility.py try ENVIRONMENT --work FOLDER [--compile VERSION …] [--versions VERSION …]
    ENVIRONMENT is one that site.yml made; it is only read. Each case is installed into a hard-linked copy under FOLDER,
    on the same filesystem. Results go into docs/compatibility.json, beside those of releases that are not named.
compatibility.py page
    writes docs/compatibility.md from docs/compatibility.json
"""

from __future__ import annotations

import argparse
import datetime
import json
import os
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import jinja2

ROOT = Path(__file__).resolve().parents[1]
DATA = ROOT / "docs/compatibility.json"
PAGE = ROOT / "docs/compatibility.md"

VERSIONS = (
    *("0.2.5", "0.2.8", "0.2.14.post1", "0.3.0", "0.3.1", "0.4.0", "0.4.1", "0.5.0", "0.5.3"),
    *("0.6.0", "0.6.6", "0.6.13", "0.6.18.post1", "0.7.2.post1"),
)
# What vllm 0.11.0's decode path passes to FlashInfer's compiled `plan`: `fast_plan_decode` says "exactly 15 arguments".
PASSED_BY_VLLM = 15
LIMIT = 1200  # seconds for one call

# Runs in the copy. Every probe says what it saw, or the error in one line.
PROBE = """
import importlib, json, re, sys
from pathlib import Path

def tried(work):
    try:
        return {"ok": True, "seen": work()}
    except BaseException as error:
        return {"ok": False, "seen": f"{type(error).__name__}: {error}".split("\\n")[0][:200]}

def version():
    return importlib.import_module("flashinfer").__version__

def modules(*names):
    return lambda: ", ".join(importlib.import_module(name).__name__ for name in names)

def arguments():
    source = Path(importlib.util.find_spec("flashinfer").origin).parent / "data/csrc/batch_prefill.cu"
    found = re.search(r"BatchPrefillWithKVCachePlan\\(([^{;]*?)\\)\\s*\\{", source.read_text())
    return len(found[1].split(","))

def torch():
    found = importlib.import_module("torch")
    return f"{found.__version__} (CUDA {found.version.cuda})"

import importlib.util
print("PROBE" + json.dumps({
    "torch": tried(torch),
    "imports": tried(version),
    "vllm_attention": tried(modules("vllm.v1.attention.backends.flashinfer")),
    "vllm_sampler": tried(modules("vllm.v1.sample.ops.topk_topp_sampler")),
    "plan_arguments": tried(arguments),
}))
"""

# The smallest module that 0.3.1 and its successors all have: packs boolean masks.
COMPILE = """
import flashinfer.quantization as q
import flashinfer.jit.quantization as j
make = getattr(j, "gen_quantization_module", None) or q.gen_quantization_module
make().build(verbose=False)
print("COMPILED")
"""


def module(name: str, arguments: dict[str, Any], folder: Path, check: bool = False) -> dict[str, Any]:
    """Run one module of the collection here. Its result, with `failed`."""
    out = Path(tempfile.mkdtemp(dir=folder))
    argv = [str(Path(sys.executable).parent / "ansible"), "localhost", "--inventory=localhost,", "--connection=local"]
    argv += ["--module-name", f"ocrfleet.gpu_stack.{name}", "--args", json.dumps(arguments), "--tree", str(out)]
    argv += ["--extra-vars", json.dumps({"ansible_python_interpreter": sys.executable})]
    environ = {**os.environ, "ANSIBLE_CONFIG": str(ROOT / "ansible.cfg")}
    done = subprocess.run(
        argv + (["--check"] if check else []), cwd=ROOT, env=environ, capture_output=True, text=True, timeout=LIMIT
    )
    files = list(out.iterdir())
    if not files:
        raise SystemExit(f"compatibility: {name} gave no result:\n{done.stdout}{done.stderr}")
    return {**json.loads(files[0].read_text()), "failed": done.returncode != 0}


class Copies:
    """Hard-linked copies of the plain baseline. uv replaces files and never writes into them."""

    def __init__(self, plain: Path, folder: Path) -> None:
        self.plain, self.folder = plain, folder

    def make(self) -> Path:
        path = self.folder / "environment"
        shutil.rmtree(path, ignore_errors=True)
        subprocess.run(["cp", "-al", str(self.plain), str(path)], check=True, timeout=LIMIT)
        return path


def asked(environment: Path, version: str, cache: str, **more: Any) -> dict[str, Any]:
    """What a method asks of uv_packages; see roles/flashinfer/tasks/methods/."""
    return {
        "environment": str(environment),
        "uv": str(Path(sys.executable).parent / "uv"),
        "cache": cache,
        "requirements": [f"flashinfer-python=={version}"],
        "protect": ["all"],
        "cuda_major": 12,
        "no_build_isolation": ["flashinfer-python"],
        **more,
    }


def summary(result: dict[str, Any]) -> dict[str, Any]:
    """What a call of uv_packages came to."""
    plan = result.get("plan", {})
    told: dict[str, Any] = {
        "ok": not result["failed"],
        "added": [f"{row['name']} {row['version']}" for row in plan.get("added", [])],
        "moved": [f"{row['name']} {row['before']} -> {row['after']}" for row in plan.get("changed", [])],
        "kept_out": [f"{row['name']} {row['version']}" for row in result.get("excluded", [])],
    }
    if result["failed"]:
        told["reason"] = " ".join(str(result.get("msg", "no message")).split())[:600]
    needs = [row for row in result.get("needs", []) if row["status"] in ("conflicting", "unavailable")]
    if needs:
        told["unmet"] = [f"{row['requirement']}: {row['status']}" for row in needs]
    return told


def probe(environment: Path, folder: Path) -> dict[str, Any]:
    environ = {**os.environ, "FLASHINFER_WORKSPACE_BASE": str(folder), "PYTHONDONTWRITEBYTECODE": "1"}
    argv = [str(environment / "bin/python"), "-c", PROBE]
    done = subprocess.run(argv, env=environ, capture_output=True, text=True, timeout=LIMIT, check=False)
    lines = [line for line in done.stdout.splitlines() if line.startswith("PROBE")]
    if not lines:
        return {"imports": {"ok": False, "seen": (done.stderr.strip().splitlines() or ["no output"])[-1][:200]}}
    return json.loads(lines[-1][5:])


def compiles(environment: Path, folder: Path) -> dict[str, Any]:
    """Compile one small module for compute capability 8.0 with the nvcc that is there, whatever its version."""
    nvcc = shutil.which("nvcc")
    if not nvcc:
        return {"ok": None, "seen": "no nvcc here"}
    workspace = folder / "compiled"
    shutil.rmtree(workspace, ignore_errors=True)
    environ = {
        **os.environ,
        "PATH": f"{environment}/bin:{os.environ['PATH']}",
        "CUDA_HOME": str(Path(nvcc).resolve().parents[1]),
        "FLASHINFER_WORKSPACE_BASE": str(workspace),
        "FLASHINFER_CUDA_ARCH_LIST": "8.0",
        "MAX_JOBS": "2",
    }
    said = subprocess.run([nvcc, "--version"], capture_output=True, text=True, timeout=60, check=False).stdout
    release = next(
        (word.rstrip(",") for line in said.splitlines() if "release" in line for word in line.split()[4:5]), ""
    )
    argv = [str(environment / "bin/python"), "-c", COMPILE]
    try:
        done = subprocess.run(argv, env=environ, capture_output=True, text=True, timeout=LIMIT, check=False)
    except subprocess.TimeoutExpired:
        return {"ok": None, "seen": f"not ready after {LIMIT} s"}
    errors = [line for line in (done.stdout + done.stderr).splitlines() if "rror" in line]
    ok = "COMPILED" in done.stdout
    return {"ok": ok, "seen": f"nvcc {release}: " + ("compiled" if ok else (errors or ["no reason"])[0].strip()[:240])}


def source(environment: Path, version: str, cache: str) -> dict[str, Any]:
    """Build the source distribution against the PyTorch that is there, without looking at dependencies."""
    argv = [str(Path(sys.executable).parent / "uv"), "pip", "install", "--python", str(environment / "bin/python")]
    argv += ["--cache-dir", cache, "--no-deps", "--no-build-isolation", "--no-binary", "flashinfer-python"]
    done = subprocess.run(
        [*argv, f"flashinfer-python=={version}"], capture_output=True, text=True, timeout=LIMIT, check=False
    )
    if done.returncode == 0:
        return {"ok": True}
    lines = [" ".join(line.split()) for line in done.stderr.splitlines() if line.strip()]
    wanted = [line for line in lines if "Error" in line or "No module" in line or "no version" in line]
    return {"ok": False, "reason": (wanted or lines or ["no reason"])[-1][:300]}


def plain_baseline(environment: Path, folder: Path) -> Path:
    """The environment without FlashInfer: itself, or the baseline that is kept of it."""
    if not list(environment.glob("lib/python3*/site-packages/flashinfer_python-*.dist-info")):
        return environment
    status = module("env_transaction", {"environment": str(environment), "action": "status"}, folder)
    for baseline in status["transaction"]["baselines"]:
        if baseline["flashinfer"] is None:
            return Path(baseline["path"])
    raise SystemExit(
        f"compatibility: expected {environment} without FlashInfer, or a kept baseline without it; found neither"
    )


def attempt(version: str, copies: Copies, cache: str, compile_it: bool) -> dict[str, Any]:
    """Everything that is found out about one release."""
    folder, environment = copies.folder, copies.make()
    found: dict[str, Any] = {
        "unprotected": summary(
            module("uv_packages", asked(environment, version, cache, protect=[], cuda_major=None), folder, check=True)
        ),
        "pypi": summary(module("uv_packages", asked(environment, version, cache), folder)),
    }
    probed: dict[str, dict[str, Any]] = {}

    def look(method: str, said: dict[str, Any]) -> None:
        # The same packages behave in the same way, and an import of vllm takes long.
        key = " ".join(said.get("added", [method]))
        if said["ok"]:
            probed.setdefault(key, probe(environment, folder))
            said["probe"] = probed[key]

    look("pypi", found["pypi"])
    if compile_it and found["pypi"]["ok"]:
        found["compiles"] = compiles(environment, folder)
    environment = copies.make()
    found["constrained"] = summary(
        module("uv_packages", asked(environment, version, cache, dependencies="declared"), folder)
    )
    look("constrained", found["constrained"])
    if compile_it and "compiles" not in found and found["constrained"]["ok"]:
        found["compiles"] = compiles(environment, folder)
    environment = copies.make()
    found["source"] = source(environment, version, cache)
    look("source", found["source"])
    if compile_it and "compiles" not in found and found["source"]["ok"]:
        found["compiles"] = compiles(environment, folder)
    return found


def verdict(found: dict[str, Any]) -> tuple[str, str]:
    """One word on a release, and why: works, sampler only, refused, false success, broken."""
    for method in ("pypi", "constrained", "source"):
        seen = found[method].get("probe", {})
        if not found[method]["ok"] or not seen.get("imports", {}).get("ok"):
            continue
        compiled = found.get("compiles", {}).get("ok")
        if compiled is False:
            return "false success", f"installs by {method} and imports, but its kernels do not compile"
        if not seen["vllm_attention"]["ok"]:
            return "broken", f"vllm's FlashInfer attention does not import: {seen['vllm_attention']['seen']}"
        arguments = seen["plan_arguments"]["seen"]
        if method != "pypi" and found[method].get("unmet"):
            return "not sound", "imports, but what it declares cannot be had: " + "; ".join(found[method]["unmet"])
        if arguments == PASSED_BY_VLLM:
            return "fits", f"by {method}; its plan takes the {PASSED_BY_VLLM} arguments that vllm passes"
        return "sampler only", f"by {method}; its plan takes {arguments} arguments, vllm passes {PASSED_BY_VLLM}"
    reasons = [f"{method}: {found[method].get('reason') or 'does not import'}" for method in ("pypi", "constrained")]
    return "no", " ".join(reasons)[:300]


def cell(text: str) -> str:
    return text.replace("|", "\\|").replace("<", "&lt;").replace("\n", " ")


def yes(said: dict[str, Any]) -> str:
    if not said["ok"]:
        return "no"
    seen = said.get("probe", {}).get("imports", {})
    return "installs, imports" if seen.get("ok") else "installs, **does not import**"


def foreign(said: dict[str, Any]) -> list[str]:
    """What a plan brings that belongs to CUDA 13, as the guard of the collection sees it."""
    sys.path.insert(0, str(ROOT / "collections"))
    from ansible_collections.ocrfleet.gpu_stack.plugins.module_utils import cuda_guard

    return [row for row in said["added"] if (cuda_guard.major(*row.split(" ", 1)) or 12) != 12]


def render(data: dict[str, Any]) -> str:
    rows = ["| FlashInfer | verdict | why |", "|---|---|---|"]
    details = [
        "| FlashInfer | pypi | constrained | source | torch unprotected | CUDA 13 unguarded | kernels |",
        "|" + "---|" * 7,
    ]
    reasons = []
    for version, found in data["releases"].items():
        word, why = verdict(found)
        rows.append(f"| {version} | **{word}** | {cell(why)} |")
        free = found["unprotected"]
        moved = [row for row in free["moved"] if row.startswith("torch ")]
        compiled = found.get("compiles", {"seen": "not run"})["seen"]
        cells = [version, yes(found["pypi"]), yes(found["constrained"]), yes(found["source"])]
        cells += [
            ", ".join(moved) or ("stays" if free["ok"] else "no solution"),
            ", ".join(foreign(free)) or "none",
            compiled,
        ]
        details.append("| " + " | ".join(cell(text) for text in cells) + " |")
        for method in ("pypi", "constrained", "source"):
            said = found[method]
            if said["ok"]:
                extra = [f"kept out: {', '.join(said['kept_out'])}"] if said.get("kept_out") else []
                extra += [f"unmet: {'; '.join(said['unmet'])}"] if said.get("unmet") else []
                text = (
                    f"adds {', '.join(said['added'])}"
                    if said.get("added")
                    else "builds without looking at dependencies"
                )
                reasons.append(f"- {version}, {method}: {cell('; '.join([text, *extra]))}")
            else:
                reasons.append(f"- {version}, {method}: refused or failed. {cell(said['reason'])}")
    words = {version: verdict(found)[0] for version, found in data["releases"].items()}
    environment = jinja2.Environment(keep_trailing_newline=True, undefined=jinja2.StrictUndefined)  # noqa: S701 - Markdown
    template = environment.from_string((ROOT / "tools/compatibility.md.j2").read_text(encoding="utf-8"))
    return template.render(
        data=data,
        fits=[version for version, word in words.items() if word == "fits"],
        four=[f"{version} {word}" for version, word in words.items() if version.startswith("0.4.")],
        tables={"verdicts": "\n".join(rows), "methods": "\n".join(details), "reasons": "\n".join(reasons)},
    )


def try_all(options: argparse.Namespace, write: Callable[[dict[str, Any]], None]) -> None:
    folder = options.work.absolute()
    folder.mkdir(parents=True, exist_ok=True)
    environment = options.environment.absolute()
    copies = Copies(plain_baseline(environment, folder), folder)
    data = json.loads(DATA.read_text()) if DATA.exists() else {"releases": {}}
    cache = str(options.cache or environment.parents[1] / "cache/uv")
    for version in options.versions or VERSIONS:
        print(f"compatibility: {version}", flush=True)
        data["releases"][version] = attempt(version, copies, cache, version in options.compile)
        order = sorted(data["releases"], key=lambda text: [int(part.removeprefix("post")) for part in text.split(".")])
        data["releases"] = {name: data["releases"][name] for name in order}
        data["date"] = datetime.date.today().isoformat()
        argv = [str(environment / "bin/python"), "-c", "import sys; print(sys.version.split()[0])"]
        data["python"] = subprocess.run(argv, capture_output=True, text=True, timeout=60, check=True).stdout.strip()
        argv = [str(Path(sys.executable).parent / "uv"), "--version"]
        data["uv"] = subprocess.run(argv, capture_output=True, text=True, timeout=60, check=True).stdout.split()[1]
        write(data)


def write_data(data: dict[str, Any]) -> None:
    # Paths of the copies are of no use to a reader.
    DATA.write_text(json.dumps(data, indent=1, ensure_ascii=False) + "\n", encoding="utf-8")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    commands = parser.add_subparsers(dest="command", required=True)
    trying = commands.add_parser("try")
    trying.add_argument("environment", type=Path)
    trying.add_argument("--work", type=Path, required=True)
    trying.add_argument("--cache", help="uv's cache; without it that of the environment's stack")
    trying.add_argument("--compile", nargs="*", default=[], metavar="VERSION", help="releases to compile a kernel of")
    trying.add_argument("--versions", nargs="*", default=[], metavar="VERSION", help="instead of all")
    commands.add_parser("page")
    options = parser.parse_args()
    if options.command == "try":
        try_all(options, write_data)
    else:
        PAGE.write_text(render(json.loads(DATA.read_text(encoding="utf-8"))), encoding="utf-8")


if __name__ == "__main__":
    main()
