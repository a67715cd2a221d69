# Copyright (c) 2026 The ocrfleet.gpu_stack contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""What FlashInfer of an environment is, needs, and is good for: found out from files, and by one bounded import.

After the model of FlashInfer's own `collect_env.py`: standard library only, each question answered by itself, and what
is *loaded* told apart from what is *installed*.
"""

from __future__ import annotations

import glob
import json
import os
import platform
import re
import shutil
from collections.abc import Callable, Mapping
from typing import Any

from ansible_collections.ocrfleet.gpu_stack.plugins.module_utils import (
    commands,
    cuda_guard,
    distributions,
    machine,
    placed_kernels,
    shared_objects,
    torch_values,
)
from ansible_collections.ocrfleet.gpu_stack.plugins.module_utils.distributions import Distribution
from ansible_collections.ocrfleet.gpu_stack.plugins.module_utils.flashinfer_policy import COMPANIONS
from ansible_collections.ocrfleet.gpu_stack.plugins.module_utils.nvidia import version_key
from ansible_collections.ocrfleet.gpu_stack.plugins.module_utils.staging import Stage

try:
    from packaging.specifiers import InvalidSpecifier, SpecifierSet
    from packaging.version import InvalidVersion, Version

    HAS_PACKAGING = True
except ImportError:
    HAS_PACKAGING = False

# One compiler process of FlashInfer's kernels; several at once end a machine that has less for each.
GB_PER_JOB = 3

HEADERS = ("curand.h", "cublasLt.h")
VARIABLES = (
    "CUDA_HOME",
    "CUDA_PATH",
    "CUDA_VISIBLE_DEVICES",
    "FLASHINFER_CUBINS_REPOSITORY",
    "FLASHINFER_CUBIN_DIR",
    "FLASHINFER_CUDA_ARCH_LIST",
    "FLASHINFER_DISABLE_JIT",
    "FLASHINFER_DISABLE_VERSION_CHECK",
    "FLASHINFER_NVCC",
    "FLASHINFER_WORKSPACE_BASE",
    "LD_LIBRARY_PATH",
    "LD_PRELOAD",
    "MAX_JOBS",
    "PYTHONPATH",
    "TORCH_CUDA_ARCH_LIST",
    "TRITON_CACHE_DIR",
    "VLLM_ATTENTION_BACKEND",
    "VLLM_CACHE_ROOT",
    "VLLM_USE_FLASHINFER_SAMPLER",
)

# What was tried, of vllm and FlashInfer together. The first line that fits counts; what fits none is unknown.
# vllm, FlashInfer from (inclusive), to (exclusive), attention, sampler, source
COMPATIBILITY = (
    ("0.11.0", "0.3.1", "0.4", "works", "works", "served requests on an H200 with torch 2.8.0+cu128, 2026-11"),
    ("0.11.0", "0.4", "0.5", "breaks", "breaks", "built and imported, its kernels did not compile, 2026-11"),
    (
        "0.11.0",
        "0.5",
        "99",
        "breaks",
        "works",
        "vllm's fast_plan_decode passes 15 arguments, FlashInfer wants 18 or 19; the sampler is the same, 2026-11",
    ),
)


# What OlmOCR's vllm compiles at its start whatever is asked of it later, unless the sampler is switched off.
START_MODULE = "sampling"

# Before this version FlashInfer asks nvcc for its version also where a compiled module is there: `gen_jit_spec` writes
# the build file first (0.3.1; from 0.5.0 on only `JitSpec.build` does).
PACK_WITHOUT_NVCC = "0.5"


def jobs(cores: int, memory_gb: float | None) -> int:
    """How many compilers may run at once."""
    return max(1, min(cores, int(memory_gb / GB_PER_JOB) if memory_gb else cores))


def max_jobs(cores: int = 0) -> dict[str, str]:
    """The variable by which PyTorch's and FlashInfer's builds bound their compilers, for this machine.

    Without `cores` those count that this process may use.
    """
    return {"MAX_JOBS": str(jobs(cores or len(os.sched_getaffinity(0)), machine.memory_gb()))}


def release(version: str) -> tuple[int, ...]:
    """The numbers of a version's release, without local label, post or pre-release."""
    match = re.match(r"\d+(\.\d+)*", version)
    return version_key(match[0]) if match else ()


# --- packages ---------------------------------------------------------------------------------------------------------


def packages(installed: Mapping[str, Distribution]) -> tuple[dict[str, str], list[str]]:
    """The versions of FlashInfer's packages ("" where not installed), and where they do not belong together.

    FlashInfer from 0.5 on raises at import where flashinfer-cubin's version is not its own, or where that of
    flashinfer-jit-cache does not begin with its own (`flashinfer/jit/env.py`); earlier ones ignore the former.
    """
    versions = {
        name: found.version if (found := installed.get(name)) else "" for name in ("flashinfer-python", *COMPANIONS)
    }
    own, cubin, cache = versions.values()
    problems = []
    if not own:
        problems += [
            f"{name} is installed, flashinfer-python is not: remove it" for name in COMPANIONS if versions[name]
        ]
        return versions, problems
    if cubin and cubin != own:
        problems.append(
            f"flashinfer-cubin {cubin} does not match flashinfer-python {own}: install flashinfer-cubin=={own}, or none"
        )
    if cache and not cache.startswith(own):
        problems.append(
            f"flashinfer-jit-cache {cache} does not match flashinfer-python {own}: "
            f"install one whose version begins with {own}, or none"
        )
    return versions, problems


def satisfies(version: str, requirement: str) -> bool | None:
    """Whether a version is among those that a requirement allows; None when that cannot be told."""
    specifier = requirement[len("flashinfer-python") :].strip()
    if not version or not specifier or not HAS_PACKAGING:
        return None
    try:
        return Version(version) in SpecifierSet(specifier, prereleases=True)
    except (InvalidSpecifier, InvalidVersion):
        return None


def compatibility(vllm: str, flashinfer: str) -> dict[str, str]:
    """Whether vllm's attention and sampler paths work with this FlashInfer (works, breaks, unknown), and the source."""
    for known, first, end, attention, sampler, source in COMPATIBILITY:
        if release(vllm) == release(known) and release(first) <= release(flashinfer) < release(end):
            return {"attention": attention, "sampler": sampler, "source": source}
    return {"attention": "unknown", "sampler": "unknown", "source": "this pair of versions was not tried"}


def remark(vllm: str, flashinfer: str) -> str:
    """What whoever chose this FlashInfer should know of it and vllm; "" where both paths are known to work."""
    known = compatibility(vllm, flashinfer)
    if (known["attention"], known["sampler"]) == ("works", "works"):
        return ""
    if known["attention"] == "unknown":
        return f"whether FlashInfer {flashinfer} works with vllm {vllm} is not known: {known['source']}"
    return (
        f"with FlashInfer {flashinfer}, vllm {vllm}'s attention path {known['attention']} and its sampler path "
        f"{known['sampler']} ({known['source']}); fi_version: auto takes the release that vllm declares"
    )


# --- what vllm would use ----------------------------------------------------------------------------------------------


def vllm_use(vllm: str, flashinfer: str, capability: str, variables: Mapping[str, str]) -> dict[str, str]:
    """Which attention and sampler vllm would take on a GPU of this compute capability, and why.

    For vllm 0.11.0, from its `platforms/cuda.py` and `v1/sample/ops/topk_topp_sampler.py`.
    """
    if release(vllm) != (0, 11, 0):
        return {
            "attention": "unknown",
            "sampler": "unknown",
            "why": f"known for vllm 0.11.0 only, found {vllm or 'none'}",
        }
    why = []
    backend = variables.get("VLLM_ATTENTION_BACKEND", "")
    if backend:
        attention = backend
        why.append(f"VLLM_ATTENTION_BACKEND={backend}")
    elif not capability:
        attention = "unknown"
        why.append("no GPU was found")
    elif version_key(capability) == (10, 0) and flashinfer:
        attention = "FLASHINFER"
        why.append("vllm prefers FlashInfer on compute capability 10.0 alone")
    elif version_key(capability) >= (8, 0):
        attention = "FLASH_ATTN"
        why.append(f"vllm takes FlashAttention on compute capability {capability}")
    else:
        attention = "FLEX_ATTENTION"
        why.append(f"FlashAttention needs compute capability 8.0, found {capability}")
    switch = variables.get("VLLM_USE_FLASHINFER_SAMPLER", "")
    if not flashinfer or release(flashinfer) < (0, 2, 3):
        sampler = "PYTORCH"
        why.append("the sampler needs FlashInfer 0.2.3")
    elif switch == "0":
        sampler = "PYTORCH"
        why.append("VLLM_USE_FLASHINFER_SAMPLER=0")
    else:
        sampler = "FLASHINFER"
        why.append("its sampler serves requests with top_k or top_p, and is compiled at the start in any case")
    return {"attention": attention, "sampler": sampler, "why": "; ".join(why)}


# --- compiler, headers, caches ----------------------------------------------------------------------------------------


def cuda_home(variables: Mapping[str, str], path: str) -> tuple[str, str]:
    """The CUDA toolkit's folder as FlashInfer and PyTorch look for it, and what led there; "" where there is none."""
    for name in ("CUDA_HOME", "CUDA_PATH"):
        if variables.get(name):
            return variables[name], name
    nvcc = shutil.which("nvcc", path=path)
    if nvcc:
        return os.path.dirname(os.path.dirname(nvcc)), "PATH"
    return ("/usr/local/cuda", "the usual place") if os.path.isdir("/usr/local/cuda") else ("", "")


def nvcc(home: str, run: Callable[..., commands.Result], timeout: float) -> dict[str, str]:
    """The compiler's path and version; `problem` says why it is none that works."""
    if not home:
        return {
            "path": "",
            "version": "",
            "problem": "expected a CUDA toolkit in CUDA_HOME, by nvcc on PATH or at /usr/local/cuda, found none; "
            "install the toolkit of PyTorch's CUDA, or set CUDA_HOME to it",
        }
    path = os.path.join(home, "bin", "nvcc")
    result = run([path, "--version"], timeout=timeout)
    release_line = re.search(r"release (\d+\.\d+)", result.stdout)
    if not result.ok or not release_line:
        told = f"its answer ({result.outcome(lines=2)})" if result.ok or os.path.exists(path) else "none"
        problem = (
            f"expected one at {path} that tells its version, found {told}; install the toolkit anew, or set CUDA_HOME"
        )
        return {"path": path, "version": "", "problem": problem}
    return {"path": path, "version": release_line[1], "problem": ""}


def headers(home: str) -> dict[str, str]:
    """Where the headers are that FlashInfer's kernels include; "" where they are missing."""
    folders = [os.path.join(home, part) for part in ("include", "targets/x86_64-linux/include")] if home else []
    return {
        header: next((file for folder in folders if os.path.isfile(file := os.path.join(folder, header))), "")
        for header in HEADERS
    }


def search_path(tree: str, variables: Mapping[str, str]) -> str:
    """PATH as after an activation of the environment."""
    return os.pathsep.join([os.path.join(tree, "bin"), variables.get("PATH", os.defpath)])


def python_header(tree: str, timeout: float, run: Callable[..., commands.Result] = commands.run) -> str:
    """Where the environment's Python looks for Python.h, which PyTorch's extensions include; "" where it is silent."""
    python = os.path.join(tree, "bin", "python")
    if not os.path.exists(python):
        return ""
    said = run([python, "-I", "-c", "import sysconfig; print(sysconfig.get_path('include'))"], timeout=timeout)
    folder = said.stdout.strip()
    return os.path.join(folder, "Python.h") if said.ok and os.path.isabs(folder) else ""


def compiler(
    home_and_how: tuple[str, str],
    tree: str,
    path: str,
    variables: Mapping[str, str],
    cuda: str,
    timeout: float,
    run: Callable[..., commands.Result] = commands.run,
) -> dict[str, Any]:
    """All that compiling a kernel with the toolkit at `home` takes; `missing` and `mismatch` say what does not do."""
    home, how = home_and_how
    found = nvcc(home, run, timeout)
    result: dict[str, Any] = {
        "cuda_home": home,
        "found_by": how,
        "nvcc": found["path"],
        "nvcc_version": found["version"],
        "nvcc_problem": found["problem"],
        "headers": headers(home),
        "ninja": shutil.which("ninja", path=path) or "",
        "cxx": shutil.which(variables.get("CXX") or "c++", path=path) or "",
        "python_header": python_header(tree, timeout, run),
    }
    result["missing"] = missing_for_compiling(result)
    result["mismatch"] = compiler_mismatch(result, cuda)
    result["ready"] = not result["missing"] and not result["mismatch"]
    return result


def compiler_mismatch(compiler: Mapping[str, Any], cuda: str) -> str:
    """Whether nvcc is of another major version than PyTorch's CUDA; FlashInfer compiles with it all the same."""
    if not cuda or not compiler["nvcc_version"] or compiler["nvcc_version"].split(".")[0] == cuda.split(".")[0]:
        return ""
    return (
        f"nvcc {compiler['nvcc_version']} ({compiler['nvcc']}) does not match PyTorch's CUDA {cuda}: kernels compiled "
        f"with it load a second libcudart; install the CUDA {cuda} toolkit or set CUDA_HOME to it"
    )


def missing_for_compiling(compiler: Mapping[str, Any]) -> list[str]:
    """Without which of its needs FlashInfer cannot compile a kernel at all."""
    missing = [f"nvcc: {compiler['nvcc_problem']}"] if compiler["nvcc_problem"] else []
    missing += [
        f"{header}: expected it in {compiler['cuda_home']}/include, found none; install the CUDA toolkit's headers"
        for header, path in compiler["headers"].items()
        if compiler["cuda_home"] and not path
    ]
    if not compiler["ninja"]:
        missing.append("ninja: expected it on PATH, found none; install the package ninja into the environment")
    if not compiler["cxx"]:
        missing.append("C++ compiler: expected c++ on PATH, found none; install g++")
    header = compiler["python_header"]
    if header and not os.path.exists(header):
        version = os.path.basename(os.path.dirname(header))
        missing.append(f"Python.h: expected it at {header}, found none; install {version}-dev (EL: {version}-devel)")
    return missing


def is_packed(modules: list[dict]) -> bool:
    """Whether the module that vllm needs at its start is there compiled, of a kernel pack or FlashInfer's own wheel."""
    known = (placed_kernels.PACK, placed_kernels.PACKAGE)
    return any(module["origin"] in known and module["name"] == START_MODULE for module in modules)


_FOREIGN = {
    placed_kernels.UNLISTED: "which the manifest of no placed pack lists with this checksum",
    placed_kernels.MISMATCHED: "which a pack brought that was built for another FlashInfer, PyTorch, CUDA, Python, "
    f"machine or GPU, or for newer system libraries ({placed_kernels.MANIFEST} beside them says for which)",
}


def foreign(modules: list[dict]) -> str:
    """What is wrong with modules that FlashInfer loads although no pack for what is here has them; "" without any."""
    said = []
    for origin, what in _FOREIGN.items():
        paths = [module["path"] for module in modules if module["origin"] == origin]
        if paths:
            said.append(f"{', '.join(paths)}, {what}")
    if not said:
        return ""
    return (
        f"expected only modules of a kernel pack, found {'; and '.join(said)}; FlashInfer loads them all the same: "
        "place a pack that fits, or remove them"
    )


def python_tag(tree: str) -> str:
    """The binary interface, by the folder of the standard library: `lib/python3.11` is cp311."""
    sites = distributions.site_packages(tree)
    return "cp" + os.path.basename(os.path.dirname(sites[0]))[len("python") :].replace(".", "") if sites else ""


def digits(architecture: str) -> str:
    """An architecture without the letter that FlashInfer gives to some: 90 of 9.0, 90a and 90."""
    return architecture.replace(".", "").rstrip("abcdef")


def installed_for(tree: str, installed: Mapping[str, Distribution], capability: str) -> dict[str, str]:
    """What a pack must have been built for here, by the keys of its manifest, from files; "" where it is not known.

    With it what the host has for its modules, see `shared_objects.offered`.
    """
    own, torch = installed.get("flashinfer-python"), installed.get("torch")
    return {
        "flashinfer": own.version if own else "",
        "torch": torch.version if torch else "",
        "cuda": torch_values.cuda_on_disk(tree),
        "python": python_tag(tree),
        "architecture": digits(capability),
        "machine": platform.machine(),
        **shared_objects.offered(tree),
    }


def asks_for_any_nvcc(version: str, source: str) -> bool:
    """Whether this FlashInfer asks an nvcc for its version, of whatever CUDA, before it takes kernels from a pack."""
    return source == "pack" and release(version) < release(PACK_WITHOUT_NVCC)


def lacking(found: Mapping[str, Any]) -> list[str]:
    """Why what `compiler` found makes no module for this PyTorch; of one of another CUDA nothing else matters."""
    return [found["mismatch"]] if found["mismatch"] else [*found["missing"]]


def kernel_source(
    versions: Mapping[str, str], match: bool | None, modules: list[dict], found: Mapping[str, Any]
) -> tuple[str, str]:
    """Where FlashInfer's kernels come from (pack, jit_cache, compiler or nowhere), and why.

    `versions` and `match` are of `packages`, `modules` of `compiled_modules`, `found` is what `compiler` says.
    """
    own, cache = versions["flashinfer-python"], versions["flashinfer-jit-cache"]
    if cache and match:
        return "jit_cache", f"flashinfer-jit-cache {cache} holds the kernels compiled"
    asks_nvcc = asks_for_any_nvcc(own, "pack")
    if is_packed(modules) and not (asks_nvcc and found["nvcc_problem"]):
        return "pack", "a kernel pack holds the kernels compiled"
    lacks = lacking(found)
    if not lacks:
        return "compiler", f"nvcc {found['nvcc_version']} compiles the kernels at their first call"
    if is_packed(modules) and asks_nvcc:
        lacks.append(
            f"a kernel pack is placed, but FlashInfer {own} asks nvcc for its version before it takes one: put any "
            f"nvcc on PATH, or take {PACK_WITHOUT_NVCC} or newer"
        )
    return "nowhere", "; ".join(lacks)


def nearest(path: str) -> str:
    """A path, or the nearest folder above it that is there."""
    while not os.path.exists(path) and path != os.path.dirname(path):
        path = os.path.dirname(path)
    return path


def writable(path: str) -> bool:
    """Whether this user can write in a folder, or make it."""
    path = nearest(path)
    return os.path.isdir(path) and os.access(path, os.W_OK | os.X_OK)


def workspace(variables: Mapping[str, str]) -> str:
    return os.path.join(variables.get("FLASHINFER_WORKSPACE_BASE") or os.path.expanduser("~"), ".cache", "flashinfer")


def caches(variables: Mapping[str, str]) -> list[dict]:
    """The folders in which FlashInfer, Triton and vllm keep what they compile."""
    home = os.path.expanduser("~")
    folders = {
        "flashinfer": workspace(variables),
        "triton": variables.get("TRITON_CACHE_DIR") or os.path.join(home, ".triton", "cache"),
        "vllm": variables.get("VLLM_CACHE_ROOT")
        or os.path.join(variables.get("XDG_CACHE_HOME") or os.path.join(home, ".cache"), "vllm"),
    }
    return [
        {"name": name, "path": path, "exists": os.path.isdir(path), "writable": writable(path)}
        for name, path in folders.items()
    ]


def compiled_modules(cache: str, package: str, here: Mapping[str, str]) -> list[dict]:
    """The compiled kernels of the cache and of the package, by name; see `placed_kernels` for the origin of the latter.

    `here` is of `installed_for`.
    Caches are laid out as `<architecture>/cached_ops/<uri>/<uri>.so` in FlashInfer 0.3, later below the version.
    """
    found = []
    for pattern in ("*/cached_ops/*/*.so", "*/*/cached_ops/*/*.so"):
        for path in sorted(glob.glob(os.path.join(glob.escape(cache), pattern))):
            name = os.path.basename(path)[: -len(".so")]
            if os.path.basename(os.path.dirname(path)) != name:
                continue
            above = os.path.relpath(path, cache).split(os.sep)
            found.append(_module(name, "cache", path, above[0] if len(above) == 5 else "", above[-4]))
    paths = placed_kernels.modules(package)
    return found + [
        _module(name, origin, paths[name]) for name, origin in placed_kernels.origins(package, here).items()
    ]


def modules_of(tree: str, installed: Mapping[str, Distribution], capability: str, cache: str) -> list[dict]:
    """`compiled_modules` of the FlashInfer of an environment; none without one. `cache` is of `workspace`."""
    own = installed.get("flashinfer-python")
    if not own:
        return []
    package = os.path.join(os.path.dirname(own.path), "flashinfer")
    return compiled_modules(cache, package, installed_for(tree, installed, capability))


def _module(name: str, origin: str, path: str, flashinfer: str = "", architecture: str = "") -> dict:
    return {
        "name": name,
        "origin": origin,
        "path": path,
        "flashinfer": flashinfer,
        "architecture": architecture,
        "cudart": shared_objects.linked_cudart(path),
    }


# --- CUDA libraries ---------------------------------------------------------------------------------------------------


def cuda_distributions(installed: Mapping[str, Distribution]) -> dict[str, list[str]]:
    """The installed packages that belong to a certain CUDA major version, by that version."""
    found: dict[str, list[str]] = {}
    for name, distribution in sorted(installed.items()):
        major = cuda_guard.major(name, distribution.version)
        if major:
            found.setdefault(str(major), []).append(f"{name}=={distribution.version}")
    return found


_MARKER = "flashinfer-info:"
_PROBE = f"""
import json, re, sys

def say(**what):
    sys.stdout.write({_MARKER!r} + json.dumps(what) + "\\n")
    sys.stdout.flush()

def tried(step):
    try:
        say(**step())
    except BaseException as error:
        say(**{{step.__name__ + "_problem": type(error).__name__ + ": " + str(error)[:1500]}})

def torch():
    import torch
    usable = torch.cuda.is_available()
    return {{
        "torch": str(torch.__version__),
        "torch_cuda": torch.version.cuda or "",
        "architectures": torch.cuda.get_arch_list() if usable else torch._C._cuda_getArchFlags().split(),
        "capability": ".".join(map(str, torch.cuda.get_device_capability(0))) if usable else "",
    }}

def flashinfer():
    import flashinfer
    return {{"flashinfer": str(flashinfer.__version__), "location": list(flashinfer.__path__)[0]}}

def loaded():
    with open("/proc/self/maps", errors="replace") as file:
        paths = {{line.rstrip("\\n").split(None, 5)[-1] for line in file if ".so" in line}}
    library = re.compile(r"/lib(cu[a-zA-Z]+|nv[a-zA-Z]+|nccl)[-._a-zA-Z0-9]*\\.so")
    return {{"loaded": sorted(path for path in paths if library.search(path))}}

for step in (torch, flashinfer, loaded):
    tried(step)
say(end=True)
"""


def probe(stage: Stage, scratch: str, timeout: float, env: Mapping[str, str]) -> dict[str, Any]:
    """Import torch and flashinfer in a process of their own, and see which CUDA libraries that loads.

    A crash or a hang loses only what comes after it. Folders that an import makes are made in `scratch`.
    """
    quiet = {
        "FLASHINFER_WORKSPACE_BASE": scratch,
        "TVM_FFI_CACHE_DIR": scratch,
        "TVM_FFI_DISABLE_TORCH_C_DLPACK": "1",  # else tvm_ffi compiles a torch extension at import
        "PYTHONDONTWRITEBYTECODE": "1",
    }
    result = stage.run([stage.python, "-c", _PROBE], timeout=timeout, env={**env, **quiet}, cwd=scratch)
    found: dict[str, Any] = {
        "torch": "",
        "torch_cuda": "",
        "architectures": [],
        "capability": "",
        "flashinfer": "",
        "location": "",
        "loaded": [],
        "torch_problem": "",
        "flashinfer_problem": "",
        "problem": "",
    }
    for line in result.stdout.splitlines():
        if line.startswith(_MARKER):
            found.update(json.loads(line[len(_MARKER) :]))
    if not found.pop("end", False):
        found["problem"] = f"importing torch and flashinfer: {result.outcome(lines=4)}"
    return found


def runtimes(libraries: list[str]) -> list[str]:
    """The CUDA runtime libraries among the loaded files of one process, by their real paths; one is as it should be.

    A wheel may bring a copy under a name of its own, which nothing else asks for, as torchvision 0.23.0 does with
    `libcudart.e8e8b82a.so.12`. It counts only where it is of another major version.
    """
    shared: set[str] = set()
    copies: dict[str, str] = {}
    for path in sorted({os.path.realpath(path) for path in libraries}):
        match = re.search(r"/libcudart(?P<own>[^/]*)\.so\.(?P<major>\d+)[.\d]*$", path)
        if match and match["own"]:
            copies[match["major"]] = path
        elif match:
            shared.add(path)
    majors = {path.rpartition(".so.")[2].split(".")[0] for path in shared}
    return sorted(shared | {path for major, path in copies.items() if major not in majors})
