#!/usr/bin/env python3
# Copyright (c) 2026 The ocrfleet.gpu_stack contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Apply FlashInfer on a real GPU with playbooks/flashinfer.yml, without network, and prove it right.

    python3 tests/gpu/run.py WHEELS OUT [--environment PREFIX] [--method METHOD] [--flashinfer VERSION]
                             [--accept-unmet NAMES] [--only STEP[,STEP]]

WHEELS is a folder with uv, ansible-core and FlashInfer and what each needs beyond the environment. PREFIX, the
environment of the Python that runs this unless named, must have PyTorch; it is cloned, and only the clones are changed.
With --only the named steps run, and those that they build upon. OUT gets results.json, results.md and transcript.txt.
The exit code is 0 when every check passed.
"""

from __future__ import annotations

import argparse
import concurrent.futures
import csv
import datetime
import json
import os
import shutil
import subprocess
import sys
import tempfile
import time
import zipfile
from pathlib import Path

REPOSITORY = Path(__file__).resolve().parents[2]
WORK = Path(os.environ.get("GPU_TEST_WORK", "/tmp/gpu-test"))  # noqa: S108
CONTROL = WORK / "control"
PACKS = WORK / "kernel-packs"
KEYS = WORK / "keys"
DESCRIBED = WORK / "described"
TORCH_KERNELS = ["torch_matmul", "torch_attention", "triton_kernel"]
FLASHINFER_KERNELS = ["flashinfer_decode", "flashinfer_prefill", "flashinfer_sampling"]
# No nvcc, no ninja, and nothing at the place where FlashInfer would look for nvcc next.
NO_COMPILER = {"PATH": "/usr/bin:/bin", "CUDA_HOME": "/nonexistent"}
SABOTAGE = str(REPOSITORY / "tests/unit/fixtures/gpu/sabotage")
# What uses the GPU, by what starts it: the smoke kernels, and OlmOCR's pipeline with its vllm. Compiling is dear, too.
USERS_OF_THE_GPU = ("gpu_kernels.py", "kernel_compile.py", "olmocr.pipeline")
ASK_TORCH = "import json, torch; print(json.dumps([torch.__version__, torch.version.cuda, torch.cuda.is_available()]))"

checks: list[dict] = []
figures: dict = {}
options = argparse.Namespace()


def check(name: str, good: object, seen: object) -> None:
    checks.append({"check": name, "passed": bool(good), "seen": seen})
    print(f"{'ok  ' if good else 'FAIL'} {name}: {seen}", flush=True)


def run(argv: list[str], **more: object) -> subprocess.CompletedProcess:
    return subprocess.run(argv, check=True, text=True, **more)  # type: ignore[call-overload,no-any-return]


# --- the control environment and the clones ---------------------------------------------------------------------------


def make_control() -> None:
    """Ansible in an environment of its own, from the wheels alone."""
    carried = WORK / "uv"
    offline = ["--no-index", f"--find-links={options.wheels}"]
    run([sys.executable, "-m", "pip", "install", "-q", *offline, "--no-deps", "--target", str(carried), "uv"])
    uv = str(carried / "bin" / "uv")
    run([uv, "venv", "-q", "--python", sys.executable, str(CONTROL)])
    needed = ["ansible-core", "jmespath", "packaging", "uv"]
    run([uv, "pip", "install", "-q", "--python", str(CONTROL / "bin" / "python"), *offline, *needed])


def describe_installed() -> None:
    """For each installed package a wheel that holds its metadata and nothing else, in a folder of their own.

    The planner asks its sources about what is installed too. A site without network brings those wheels in its bundle;
    here gigabytes of PyTorch are there already, and as nothing of theirs may move, only their metadata is ever read.
    """
    DESCRIBED.mkdir()
    for metadata in Path(options.environment).glob("lib/python3*/site-packages/*.dist-info/METADATA"):
        label = metadata.parent.name[: -len(".dist-info")]
        with zipfile.ZipFile(DESCRIBED / f"{label}-py3-none-any.whl", "w") as wheel:
            folder = metadata.parent.name
            wheel.writestr(f"{folder}/METADATA", metadata.read_bytes())
            wheel.writestr(f"{folder}/WHEEL", "Wheel-Version: 1.0\nRoot-Is-Purelib: true\nTag: py3-none-any\n")
            wheel.writestr(f"{folder}/RECORD", "")


def accept_local_edits(tree: Path) -> None:
    """Write the clone's RECORDs anew where the image edited a file (a site's certificates, added to certifi's).

    The collection refuses an environment whose files are not those of its packages, and rightly: that is a repair's
    business. Here it is the given environment, and only the clone is told that these files are meant.
    """
    for record in tree.glob("lib/python3*/site-packages/*.dist-info/RECORD"):
        lines, edited = [], False
        for row in csv.reader(record.read_text(encoding="utf-8").splitlines()):
            file = record.parents[1] / row[0]
            if len(row) == 3 and row[2] and file.is_file() and file.stat().st_size != int(row[2]):
                edited, row = True, [row[0], "", str(file.stat().st_size)]
            lines.append(row)
        if edited:
            record.unlink()
            with record.open("w", encoding="utf-8", newline="") as stream:
                csv.writer(stream, lineterminator="\n").writerows(lines)


def make_keys() -> None:
    """Two keys: one that is trusted to sign kernel packs, and another."""
    KEYS.mkdir()
    for name in ("trusted", "other"):
        run(["ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-f", str(KEYS / name)])


def public_key(name: str) -> str:
    return (KEYS / f"{name}.pub").read_text(encoding="utf-8").strip()


def clone(name: str) -> str:
    """A copy of the environment that is under no other's hand: files are links, what is written in place is not."""
    source, target = Path(options.environment), WORK / "envs" / name
    target.parent.mkdir(exist_ok=True)
    started = time.monotonic()
    if subprocess.run(["cp", "-al", str(source), str(target)], stderr=subprocess.DEVNULL).returncode:
        shutil.rmtree(target, ignore_errors=True)
        run(["cp", "-a", str(source), str(target)])
    run(["cp", "--remove-destination", str(source / "pyvenv.cfg"), str(target / "pyvenv.cfg")])
    accept_local_edits(target)
    figures["clone_seconds"] = round(time.monotonic() - started, 1)
    return str(target)


def watch(environment: str) -> Path:
    """Have every Python of a clone write down how it was started and which GPUs it may see; the file where it does."""
    log = WORK / f"started-{Path(environment).name}.txt"
    site = next(Path(environment).glob("lib/python3*/site-packages"))
    # A .pth file, since a sitecustomize.py of the distribution would come first.
    line = "[{os.environ.get('CUDA_VISIBLE_DEVICES', 'all')}] {' '.join(sys.orig_argv)}\\n"
    (site / "watch.pth").write_text(f'import os, sys; open({str(log)!r}, "a").write(f"{line}")\n', encoding="utf-8")
    return log


def visible_to(log: Path, program: str) -> set[str]:
    """What a program of a watched clone was told of the GPUs, at each of its starts: "all", or CUDA_VISIBLE_DEVICES."""
    started = log.read_text(encoding="utf-8").splitlines() if log.exists() else []
    return {line[1 : line.index("]")] for line in started if program in line}


def users_of_the_gpu(log: Path) -> list[str]:
    """Which programs that use the GPU a watched clone has started."""
    started = log.read_text(encoding="utf-8") if log.exists() else ""
    return [name for name in USERS_OF_THE_GPU if name in started]


# --- Ansible ----------------------------------------------------------------------------------------------------------


def control_env(more: dict[str, str]) -> dict[str, str]:
    kept = {name: value for name, value in os.environ.items() if not name.startswith("ANSIBLE_")}
    return {**kept, "LC_ALL": "C.UTF-8", "ANSIBLE_CONFIG": str(REPOSITORY / "ansible.cfg"), **more}


def without_toolkits(argv: list[str]) -> list[str]:
    """`argv` on a host that has no nvcc: an empty folder lies over the bin of each toolkit, for this command alone."""
    empty = WORK / "no-toolkit"
    empty.mkdir(exist_ok=True)
    places = sorted({str(path.resolve()) for path in Path("/usr/local").glob("cuda*/bin")})
    hide = 'empty="$1"; shift; while [ "$1" != -- ]; do mount --bind "$empty" "$1"; shift; done; shift; exec "$@"'
    return [
        "unshare",
        "--mount",
        "--propagation",
        "private",
        "sh",
        "-euc",
        hide,
        "sh",
        str(empty),
        *places,
        "--",
        *argv,
    ]


def play(name: str, environment: str, variables: dict, env: dict[str, str], *flags: str, toolkits: bool = True) -> dict:
    """Run playbooks/flashinfer.yml against one environment; return the exit code, what was said and the evidence."""
    root = WORK / "stacks" / Path(environment).name
    spoken = {
        "stack_root": str(root),
        "stack_environment": environment,
        "stack_offline": True,
        "stack_find_links": [options.wheels, str(DESCRIBED)],
        "stack_disk_gb": 1,
        # Neither is on a host without network: system packages, and an index for compiled kernels.
        "__stack_platforms": {options.distribution: {"manager": "apt", "packages": []}},
        "flashinfer_jit_cache_index": "",
        "fi_method": options.method,
        "fi_version": options.flashinfer,
        "flashinfer_cuda_major": int(options.cuda.split(".")[0]),
        "flashinfer_accept_unmet": options.accept_unmet,
        "flashinfer_export_dir": str(WORK / "exports"),
        "kernel_pack_store": str(PACKS),
        "kernel_pack_signing_key": str(KEYS / "trusted"),
        "kernel_pack_public_keys": [public_key("trusted")],
        "report_dir": str(WORK / "reports" / name),
        "verify_expected_torch": options.torch,
        "verify_expected_olmocr": "",
        **variables,
    }
    argv = [str(CONTROL / "bin" / "ansible-playbook"), "-i", "inventories/local", "playbooks/flashinfer.yml"]
    argv += ["-e", json.dumps(spoken), *flags]
    evidence = root / "reports" / "evidence.json"
    evidence.unlink(missing_ok=True)
    started = time.monotonic()
    done = subprocess.run(
        argv if toolkits else without_toolkits(argv),
        cwd=REPOSITORY,
        env=control_env(env),
        text=True,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
    )
    seconds = round(time.monotonic() - started, 1)
    with (Path(options.out) / "transcript.txt").open("a", encoding="utf-8") as file:
        file.write(f"==== {name}: rc {done.returncode}, {seconds} s\n$ {' '.join(argv)}\n{done.stdout}\n")
    told = json.loads(evidence.read_text(encoding="utf-8")) if evidence.exists() else {}
    by_name = {entry["name"]: entry for entry in told.get("checks", [])}
    return {"rc": done.returncode, "said": done.stdout, "evidence": told, "checks": by_name, "seconds": seconds}


def module(name: str, arguments: dict, *flags: str) -> dict:
    """Run one module by Ansible itself, and return its result."""
    tree = Path(tempfile.mkdtemp(prefix="tree", dir=WORK))
    argv = [str(CONTROL / "bin" / "ansible"), "localhost", "-i", "inventories/local", "-t", str(tree)]
    argv += ["-m", f"ocrfleet.gpu_stack.{name}", "-a", json.dumps(arguments), *flags]
    done = subprocess.run(argv, cwd=REPOSITORY, env=control_env({}), text=True, capture_output=True)
    result = tree / "localhost"
    if not result.exists():
        raise RuntimeError(f"ansible gave no result for {name}: {done.stdout}\n{done.stderr}")
    # The file does not carry `failed`.
    return {**json.loads(result.read_text(encoding="utf-8")), "failed": done.returncode != 0}


def smoke(environment: str, kernels: list[str], env: dict, *flags: str, timeout: int = 240) -> dict:
    arguments = {"environment": environment, "kernels": kernels, "env": env, "timeout": timeout}
    result = module("gpu_smoke", arguments, *flags)
    result["by_name"] = {entry["name"]: entry for entry in result.get("kernels", [])}
    return result


def brief(result: dict) -> list[str]:
    keys = ("name", "status", "reason", "error", "first_call_seconds", "median_ms", "origin")
    return [" ".join(str(entry.get(key)) for key in keys) for entry in result.get("kernels", [])] or [
        str(result.get("msg"))
    ]


def last_words(result: dict) -> str:
    """The end of what a play said, for the case that it is not what was expected."""
    return " ".join(result["said"].split())[-700:]


# --- what is shown ----------------------------------------------------------------------------------------------------


def has_flashinfer(environment: str) -> bool:
    return any(Path(environment).glob("lib/python3*/site-packages/flashinfer_python-*.dist-info"))


def check_apply(first: str) -> None:
    started = watch(first)
    dry = play("check-mode", first, {}, {}, "--check", "--diff")
    check("check mode ends well", dry["rc"] == 0, last_words(dry) if dry["rc"] else dry["seconds"])
    check("check mode shows the plan", "flashinfer-python" in dry["said"], options.method)
    check("check mode changes nothing", not has_flashinfer(first), first)
    used = users_of_the_gpu(started)
    check("check mode runs nothing on the GPU", started.exists() and not used, used or "only imports")

    applied = play("apply", first, {}, {})
    figures["apply"] = {"seconds": applied["seconds"], "evidence": applied["evidence"]}
    seen = applied["checks"]
    check("FlashInfer is applied", applied["rc"] == 0, last_words(applied) if applied["rc"] else applied["seconds"])
    check("in a staged transaction", applied["evidence"]["transaction"].get("strategy") == "staged", first)
    check("PyTorch has not moved", seen["torch"]["status"] == "passed", seen["torch"]["seen"])
    check("CUDA is still available", seen["cuda"]["status"] == "passed", seen["cuda"]["seen"])
    check("the smoke kernels are right", seen["smoke"]["status"] == "passed", seen["smoke"])
    # Else the check above would see nothing whatever was run.
    used = users_of_the_gpu(started)
    check("which a real run does, and is seen", set(USERS_OF_THE_GPU[:2]) <= set(used), used)
    built = applied["evidence"]["kernel_pack"]
    check("a pack was built", list(PACKS.glob("*.tar.xz")), [str(path.name) for path in PACKS.glob("*")])
    hidden = visible_to(started, "kernel_compile.py") == {""}
    check("it was compiled without the GPU", hidden and "modules in" in built.get("compiled here", ""), built)
    proven = [text for name, text in built.items() if name.endswith(" proven")]
    check("those are the modules that the GPU runs", proven and all("cache" in text for text in proven), proven)
    again = play("apply-again", first, {}, {})
    idle = again["rc"] == 0 and not again["evidence"]["transaction"]
    check("a second run makes no transaction", idle, last_words(again)[-200:])


def check_pack(first: str, second: str) -> None:
    """The second environment has no FlashInfer and an empty cache; nvcc is out of reach, for the timing ninja too."""
    packed = play("apply-with-pack", second, {"kernel_pack_build": False}, NO_COMPILER, toolkits=False)
    figures["second"] = {"seconds": packed["seconds"], "evidence": packed["evidence"]}
    check("the pack is applied", packed["rc"] == 0, last_words(packed) if packed["rc"] else packed["seconds"])
    seen = packed["checks"]["smoke"]
    check("the smoke kernels are right there", seen["status"] == "passed", seen)
    compiler = packed["checks"]["cuda_compiler"]
    bare = compiler["status"] == "not_run" and "finds no nvcc" in compiler["reason"]
    check("and there is no nvcc", bare, compiler)
    # Only now: an environment with a file missing is rightly refused as a baseline.
    (Path(second) / "bin" / "ninja").unlink(missing_ok=True)
    alone = {**NO_COMPILER, "FLASHINFER_WORKSPACE_BASE": str(WORK / "empty")}
    result = smoke(second, FLASHINFER_KERNELS, alone)
    figures["packed"] = result["kernels"]
    check("they come from the pack", {e["origin"] for e in result["kernels"]} == {"pack"}, brief(result))
    slowest = max((entry["first_call_seconds"] or 999) for entry in result["kernels"])
    check("first call under 2 s", slowest < 2, slowest)
    told = module("flashinfer_info", {"environment": second, "env": alone})
    check("flashinfer_info knows that the pack is enough", not told["problems"], told["problems"] or told["remarks"])
    path = str(next(PACKS.glob("*.tar.xz")))
    figures["pack_bytes"] = Path(path).stat().st_size
    placing = {"environment": first, "path": path, "state": "placed"}
    for name, changes, reason in (
        ("of another architecture", {"architecture": "75"}, "architecture: expected 75"),
        ("signed by another key", {"public_keys": [public_key("other")]}, "signature by one of the trusted keys"),
        ("without a signature", {"public_keys": [public_key("trusted")], "signature": "/nonexistent"}, "found none"),
    ):
        refused = module("kernel_pack", {**placing, **changes})
        told = refused.get("msg", "")
        check(f"a pack {name} is refused", refused["failed"] and reason in told, told)


def check_wrong_result(third: str) -> None:
    variables = {"verify_smoke_env": {"PYTHONPATH": SABOTAGE, "SABOTAGE": "one_row"}}
    wrong = play("wrong-result", third, variables, {})
    figures["wrong_result"] = {"seconds": wrong["seconds"], "evidence": wrong["evidence"]}
    check("an injected wrong result makes the play fail", wrong["rc"] == 2, last_words(wrong))
    check("and is named", "relative error" in wrong["evidence"]["failure"], wrong["evidence"]["failure"])
    proof = wrong["evidence"]["transaction"].get("proof", {})
    check("the baseline is proven", proof.get("equal"), proof)
    check("the environment has no FlashInfer", not has_flashinfer(third), third)


def check_torch(first: str) -> None:
    cache = {"TRITON_CACHE_DIR": str(WORK / "triton")}
    info = module("flashinfer_info", {"environment": first})
    figures["info"] = {key: info.get(key) for key in ("problems", "remarks", "torch", "flashinfer", "gpu", "compiler")}
    check("flashinfer_info sees the GPU", info["gpu"]["gpus"] and info["torch"]["capability"], info["gpu"])
    check("flashinfer_info has no problem to tell", not info["problems"], info["problems"] or info["remarks"])
    dry = smoke(first, TORCH_KERNELS, {}, "--check")
    check("gpu_smoke runs nothing in check mode", {e["reason"] for e in dry["kernels"]} == {"check_mode"}, dry["msg"])
    result = smoke(first, TORCH_KERNELS, cache)
    figures["torch"] = result["kernels"]
    check("the PyTorch kernels pass", result["status"] == "passed", brief(result))
    again = smoke(first, ["triton_kernel"], cache)
    origins = [result["by_name"]["triton_kernel"]["origin"], again["by_name"]["triton_kernel"]["origin"]]
    check("Triton compiles once", origins == ["compiled", "cache"], origins)
    check("the inputs were other ones", result["seed"] != again["seed"], [result["seed"], again["seed"]])
    cpu = module("gpu_smoke", {"environment": first, "mode": "cpu", "kernels": TORCH_KERNELS})
    check("the CPU mode passes nothing", {e["status"] for e in cpu["kernels"]} == {"not_run"}, cpu["status"])
    other = module("gpu_smoke", {"environment": first, "kernels": ["torch_matmul"], "capability": "1.0"})
    check("another capability is refused", other["kernels"][0]["reason"] == "wrong_device", other["msg"])
    hidden = smoke(first, ["torch_matmul"], {"CUDA_VISIBLE_DEVICES": ""})
    check("no visible GPU is not_run", hidden["kernels"][0]["reason"] == "no_gpu", hidden["msg"])


def check_failures(first: str) -> None:
    """A kernel that is wrong fails the task and says how; the next one is run all the same."""
    faults = {
        "one_row": "wrong_result",
        "nan": "nan",
        "unwritten": "unwritten",
        "wrong_device": "wrong_device",
        "hang": "timeout",
        "crash": "crash",
        "lost_context": "crash",
        "allocate": "out_of_memory",
    }
    check_faults(first, {how: ("torch_matmul", reason) for how, reason in faults.items()})


def check_flashinfer_failures(first: str) -> None:
    """FlashInfer's own kernels, wrong: what runs is the compiled module, and what it gives is changed after it."""
    faults = {
        "decode_row": ("flashinfer_decode", "wrong_result"),
        "decode_unwritten": ("flashinfer_decode", "unwritten"),
        "sampling_outside": ("flashinfer_sampling", "wrong_result"),
        "sampling_constant": ("flashinfer_sampling", "wrong_result"),
    }
    check_faults(first, faults)


def check_faults(environment: str, faults: dict[str, tuple[str, str]]) -> None:
    """Each fault, by name: the kernel that it breaks, and the reason that is to be told."""

    def sabotaged(how: str) -> dict:
        env = {"PYTHONPATH": SABOTAGE, "SABOTAGE": how}
        return smoke(environment, [faults[how][0], "torch_attention"], env, timeout=60)

    # Three at a time: each waits for the import of PyTorch most of the time.
    with concurrent.futures.ThreadPoolExecutor(3) as pool:
        results = dict(zip(faults, pool.map(sabotaged, faults)))
    for how, (kernel, reason) in faults.items():
        found = [results[how]["by_name"][name] for name in (kernel, "torch_attention")]
        good = results[how]["failed"] and found[0]["reason"] == reason and found[1]["status"] == "passed"
        seen = [found[0]["reason"], found[1]["status"], found[0]["message"][:150]]
        check(f"{how} is told as {reason}", good, seen)


# --- the report -------------------------------------------------------------------------------------------------------


def table() -> list[str]:
    keys = ("name", "origin", "first_call_seconds", "median_ms", "error", "tolerance")
    lines = ["| kernel | where from | first call, s | median, ms | error | tolerance |", "|---|---|---|---|---|---|"]
    for entry in [*figures.get("torch", []), *figures.get("packed", [])]:
        values = [f"{entry.get(k):.4g}" if isinstance(entry.get(k), float) else str(entry.get(k, "")) for k in keys]
        lines.append(f"| {' | '.join(values)} |")
    return lines


def report(seconds: float) -> None:
    info = figures.get("info", {})
    gpus = (info.get("gpu") or {}).get("gpus") or [{}]
    passed = sum(one["passed"] for one in checks)
    plays = [f"{name} {figures[name]['seconds']} s" for name in ("apply", "second", "wrong_result") if name in figures]
    built = figures.get("apply", {}).get("evidence", {}).get("kernel_pack", {})
    lines = [
        f"{datetime.date.today().isoformat()}, {gpus[0].get('name')}, driver {(info.get('gpu') or {}).get('driver')}, "
        f"PyTorch {options.torch}, nvcc {(info.get('compiler') or {}).get('nvcc_version')}, FlashInfer "
        f"{options.flashinfer} by {options.method}, {os.cpu_count()} cores.",
        "",
        *table(),
        "",
        *[f"- {name}: {seen}" for name, seen in built.items()],
        "",
        f"Plays: {', '.join(plays)}. The pack: "
        f"{figures.get('pack_bytes')} bytes. Checks: {passed} of {len(checks)} passed in {seconds:.0f} s.",
        "",
        *[f"- {'passed' if one['passed'] else 'FAILED'}: {one['check']}" for one in checks],
        "",
    ]
    out = Path(options.out)
    (out / "results.md").write_text("\n".join(lines), encoding="utf-8")
    content = {"figures": figures, "checks": checks, "seconds": round(seconds)}
    (out / "results.json").write_text(json.dumps(content, indent=1, default=str), encoding="utf-8")
    print("\n".join(lines))
    print(f"{passed} passed, {len(checks) - passed} failed", flush=True)


# In their order, each with what it builds upon.
STEPS = {
    "apply": (),
    "flashinfer_failures": ("apply",),
    "pack": ("apply",),
    "wrong_result": (),
    "torch": (),
    "failures": (),
}


def chosen(only: str) -> list[str]:
    """The steps to run: all, or those named with what they build upon."""
    named = [name for name in only.split(",") if name]
    unknown = sorted(set(named) - set(STEPS))
    if unknown:
        raise SystemExit(f"expected --only to name steps of {', '.join(STEPS)}, found {', '.join(unknown)}; correct it")
    wanted = {step for name in named or STEPS for step in (name, *STEPS[name])}
    return [name for name in STEPS if name in wanted]


def look_before() -> tuple[str, str]:
    """PyTorch's version and its CUDA; ends with all that is missing, before anything is made."""
    lacks = [
        f"expected {name} in WHEELS, found none in {options.wheels}"
        for name in ("uv", "ansible_core")
        if not any(Path(options.wheels).glob(f"{name}-*.whl"))
    ]
    python, found = os.path.join(options.environment, "bin", "python"), ""
    try:
        asked = subprocess.run([python, "-c", ASK_TORCH], capture_output=True, text=True)
        found = (asked.stderr.strip().splitlines() or ["nothing"])[-1] if asked.returncode else ""
    except OSError as error:
        found = error.strerror or str(error)
    torch, cuda, gpu = ("", "", True) if found else json.loads(asked.stdout)
    if found:
        lacks.append(
            f"expected a Python with PyTorch at {python}, found: {found}; name its prefix (make: ENVIRONMENT=)"
        )
    if not gpu:
        lacks.append("expected a GPU that PyTorch can use, found none")
    if lacks:
        raise SystemExit("nothing was made.\n- " + "\n- ".join(lacks))
    return torch, cuda


def read_arguments() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("wheels")
    parser.add_argument("out")
    parser.add_argument("--environment", default=sys.prefix)
    parser.add_argument("--method", default="constrained")
    parser.add_argument("--flashinfer", default="0.6.13")
    # For kernels in CuTe and cuTile, which OlmOCR's model does not use; together they are larger than all the rest.
    parser.add_argument("--accept-unmet", default="cuda-tile,nvidia-cudnn-frontend,nvidia-cutlass-dsl")
    parser.add_argument("--only", default="")
    parser.parse_args(namespace=options)
    options.steps = chosen(options.only)
    options.accept_unmet = [name for name in options.accept_unmet.split(",") if name]
    options.wheels, options.out = os.path.abspath(options.wheels), os.path.abspath(options.out)
    options.torch, options.cuda = look_before()
    with open("/etc/os-release", encoding="utf-8") as file:
        release = dict(line.rstrip("\n").replace('"', "").split("=", 1) for line in file if "=" in line)
    options.distribution = f"{release['ID']}-{release['VERSION_ID']}"


def main() -> int:
    read_arguments()
    started = time.monotonic()
    shutil.rmtree(WORK, ignore_errors=True)
    WORK.mkdir(parents=True)
    (WORK / "exports").mkdir()
    Path(options.out).mkdir(parents=True, exist_ok=True)
    make_control()
    make_keys()
    describe_installed()
    first, second, third = (clone(name) for name in ("first", "second", "third"))
    steps = {
        "apply": lambda: check_apply(first),
        "flashinfer_failures": lambda: check_flashinfer_failures(first),
        "pack": lambda: check_pack(first, second),
        "wrong_result": lambda: check_wrong_result(third),
        "torch": lambda: check_torch(first),
        "failures": lambda: check_failures(first),
    }
    for name in options.steps:
        try:
            steps[name]()
        except Exception as error:
            check("the step came to its end", False, f"{type(error).__name__}: {error}")
        report(time.monotonic() - started)  # what is known so far outlives a time limit on the whole call
    return 0 if all(one["passed"] for one in checks) else 1


if __name__ == "__main__":
    sys.exit(main())
