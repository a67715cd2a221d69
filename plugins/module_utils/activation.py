# Copyright (c) 2026 The ocrfleet.gpu_stack contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""What OlmOCR's vllm is started with, as files inside the environment.

They lie in the environment's own tree, so an exchange brings them and a restore takes them away. Each is written anew
and renamed into place, never written into: the clone of a transaction may share its files with the baseline.
"""

from __future__ import annotations

import contextlib
import os
import re
import shlex
import stat
from collections.abc import Mapping
from typing import Any

from ansible_collections.ocrfleet.gpu_stack.plugins.module_utils import flashinfer_install, tree_file

ENVIRONMENT_FILE = "etc/ocrfleet/flashinfer.env"
SCRIPTS = {"activate": "etc/ocrfleet/activate.sh", "deactivate": "etc/ocrfleet/deactivate.sh"}
CONDA = {name: f"etc/conda/{name}.d/ocrfleet-flashinfer.sh" for name in SCRIPTS}
VENV = "bin/activate"
USUAL = "/usr/local"  # where toolkits are installed

SAMPLER = "VLLM_USE_FLASHINFER_SAMPLER"
BACKEND = "VLLM_ATTENTION_BACKEND"
# With this backend the vision encoder of OlmOCR's model raises on these releases of vllm: it reads the variable too.
BREAKS_VISION = ("0.11.0",)

# Where FlashInfer, Triton and vllm keep what they compile.
CACHES = ("FLASHINFER_WORKSPACE_BASE", "TRITON_CACHE_DIR", "VLLM_CACHE_ROOT")

_WRITTEN_BY = "# Written by ocrfleet.gpu_stack. What is changed here is lost at its next run."
_TAG = "# ocrfleet.gpu_stack"
_NAME = re.compile(r"[A-Za-z_][A-Za-z0-9_]*")


class Refused(Exception):
    """Something that must not be written, with the reason."""


def breaks_vision(vllm: str) -> bool:
    return any(flashinfer_install.release(vllm) == flashinfer_install.release(known) for known in BREAKS_VISION)


def toolkits(explicit: str, variables: Mapping[str, str], path: str, cuda: str) -> list[tuple[str, str]]:
    """The CUDA toolkits to try, the wanted ones first, each with what led there."""
    found = [(explicit, "cuda_home")] if explicit else [flashinfer_install.cuda_home(variables, path)]
    if not explicit:
        names = (f"cuda-{cuda}", "cuda")
        found += [(os.path.join(USUAL, name), "the usual place") for name in names]
    known: dict[str, str] = {}
    for home, how in found:
        if home and os.path.isdir(home):
            known.setdefault(home, how)
    return list(known.items()) or [found[0]]


def find_compiler(tree: str, explicit: str, variables: Mapping[str, str], cuda: str) -> dict[str, Any]:
    """The first toolkit that can compile the kernels, or what is wrong with the first that was found."""
    path = flashinfer_install.search_path(tree, variables)
    tried = []
    for home in toolkits(explicit, variables, path, cuda):
        found = flashinfer_install.compiler(home, tree, path, variables, cuda, timeout=30)
        if found["ready"]:
            return found
        tried.append(found)
    return tried[0]


def at_its_place(compiler: Mapping[str, Any], tree: str, prefix: str) -> dict[str, Any]:
    """What `find_compiler` found, by the path that it has when `tree` has become `prefix`: conda's lies in the tree."""
    inside = os.path.relpath(compiler["cuda_home"] or "/", tree)
    if inside == os.pardir or inside.startswith(os.pardir + os.sep):
        return dict(compiler)
    return {**compiler, "cuda_home": os.path.normpath(os.path.join(prefix, inside))}


def decide(
    *,
    packages: Mapping[str, str],
    match: bool,
    vllm: str,
    torch: str,
    capability: str,
    modules: list[dict],
    compiler: Mapping[str, Any],
    sampler: str,
    cache: str,
    more: Mapping[str, str],
) -> dict[str, Any]:
    """The variables, whether vllm's FlashInfer sampler is on, where the kernels come from, and why.

    vllm compiles FlashInfer's sampling module at every start, whatever is asked of it later. Where nothing can compile
    it and no pack holds it, OlmOCR would not start; so there the sampler is off. On compute capability 10.0 vllm takes
    FlashInfer's attention, too, whose modules no pack of ours holds; there it takes what it takes without FlashInfer.
    """
    if more.get(BACKEND) == "FLASHINFER" and breaks_vision(vllm):
        raise Refused(
            f"expected another backend or none, found {BACKEND}=FLASHINFER: the vision encoder of OlmOCR's model reads "
            f"it too and raises on vllm {vllm}; leave it out of env (activation_env)"
        )
    own = packages["flashinfer-python"]
    if not own:
        why = "FlashInfer is not installed"
        return {"variables": {}, "sampler": "absent", "kernels": "nowhere", "why": why}
    source, why = flashinfer_install.kernel_source(packages, match, modules, compiler)
    on = source != "nowhere" if sampler == "auto" else sampler == "on"
    variables = {SAMPLER: "1" if on else "0"}
    if compiler["nvcc_version"] and (not compiler["mismatch"] or flashinfer_install.asks_for_any_nvcc(own, source)):
        variables["CUDA_HOME"] = compiler["cuda_home"]
    if source == "compiler":
        # ninja would start a compiler for each core, of 3 GB each, while OlmOCR's service starts.
        # All cores: those that this process may use are not those of the service.
        variables.update(flashinfer_install.max_jobs(os.cpu_count() or 1))
    elif source in ("nowhere", "pack"):
        uses = flashinfer_install.vllm_use(vllm, own, capability, {})
        variables.update({BACKEND: "FLASH_ATTN"} if uses["attention"] == "FLASHINFER" else {})
    if cache:
        # FlashInfer 0.3 has no version in its cache's paths: one folder for each pair, or it loads what does not fit.
        pair = f"flashinfer-{own}-torch-{torch or 'unknown'}"
        variables["FLASHINFER_WORKSPACE_BASE"] = os.path.join(cache, pair)
        variables["TRITON_CACHE_DIR"] = os.path.join(cache, "triton")
        variables["VLLM_CACHE_ROOT"] = os.path.join(cache, "vllm")
    variables.update(more)
    for name, value in variables.items():
        if not _NAME.fullmatch(name) or re.search(r"['\n\r\\]", value):
            raise Refused(
                f"{name}: expected a variable's name, and a value without quotes, backslashes and line ends, which "
                "systemd and shells read in one way, found another; correct it in env (activation_env)"
            )
    if sampler == "off":
        why = "switched off by the option sampler"
    return {
        "variables": dict(sorted(variables.items())),
        "sampler": "on" if on else "off",
        "kernels": source,
        "why": why,
    }


def _environment_file(decision: Mapping[str, Any]) -> str:
    lines = [_WRITTEN_BY, f"# Sampler {decision['sampler']}: {' '.join(decision['why'].split())}"]
    return "".join(f"{line}\n" for line in lines) + "".join(
        f"{name}={shlex.quote(value)}\n" for name, value in decision["variables"].items()
    )


def _scripts(variables: Mapping[str, str], vllm: str) -> dict[str, str]:
    """What a shell sources, for sh: setting the variables, and putting back what was there before."""
    take, back = [], []
    for name, value in variables.items():
        take += [f'if [ -n "${{{name}+x}}" ]; then _OCRFLEET_{name}="${name}"; fi']
        take += [f"export {name}={shlex.quote(value)}"]
        back += [f'if [ -n "${{_OCRFLEET_{name}+x}}" ]']
        back += [f'then export {name}="$_OCRFLEET_{name}"; unset _OCRFLEET_{name}', f"else unset {name}", "fi"]
    if breaks_vision(vllm):
        take += [
            f'if [ "${{{BACKEND}-}}" = FLASHINFER ]; then',
            f"    unset {BACKEND}; _OCRFLEET_{BACKEND}=FLASHINFER",
            f'    echo "{BACKEND}=FLASHINFER is left out: OlmOCR\'s vision encoder raises with it on vllm {vllm}" >&2',
            "fi",
        ]
        back += [f'if [ -n "${{_OCRFLEET_{BACKEND}-}}" ]']
        back += [f'then export {BACKEND}="$_OCRFLEET_{BACKEND}"; unset _OCRFLEET_{BACKEND}', "fi"]
    take = ['if [ -z "${_OCRFLEET_ACTIVE-}" ]; then', *take, "_OCRFLEET_ACTIVE=1", "fi"]
    back = ['if [ -n "${_OCRFLEET_ACTIVE-}" ]; then', *back, "unset _OCRFLEET_ACTIVE", "fi"]
    return {
        "activate": "\n".join([_WRITTEN_BY, *take, ""]),
        "deactivate": "\n".join([_WRITTEN_BY, *back, ""]),
    }


def venv_script(text: str, prefix: str, wanted: bool) -> str:
    """`bin/activate` with lines of ours that source the scripts, or without them. Each carries our tag."""
    lines = [line for line in text.splitlines(keepends=True) if not line.rstrip("\n").endswith(_TAG)]
    if not wanted:
        return "".join(lines)
    source = {name: f". {shlex.quote(os.path.join(prefix, path))}" for name, path in SCRIPTS.items()}
    result = []
    for line in lines:
        result.append(line)
        if re.match(r"deactivate *\(\) *\{", line):
            result.append(f'    if [ -n "${{_OCRFLEET_ACTIVE-}}" ]; then {source["deactivate"]}; fi {_TAG}\n')
    if result and not result[-1].endswith("\n"):
        result[-1] += "\n"
    # A baseline without the scripts never has this line: they come and go with it.
    return "".join([*result, f"{source['activate']} {_TAG}\n"])


def files(tree: str, prefix: str, decision: Mapping[str, Any], vllm: str) -> dict[str, str | None]:
    """What is to lie in `tree`, which is or becomes `prefix`: the text by relative path, None where nothing is to."""
    wanted = bool(decision["variables"])
    texts = _scripts(decision["variables"], vllm)
    result: dict[str, str | None] = {ENVIRONMENT_FILE: _environment_file(decision) if wanted else None}
    for name, path in SCRIPTS.items():
        result[path] = texts[name] if wanted else None
    is_conda = os.path.isdir(os.path.join(tree, "conda-meta"))
    for name, path in CONDA.items():
        result[path] = texts[name] if wanted and is_conda else None
    before = _read(os.path.join(tree, VENV))
    if before is not None and os.path.exists(os.path.join(tree, "pyvenv.cfg")):
        result[VENV] = venv_script(before, prefix, wanted)
    return result


def _read(path: str) -> str | None:
    content = tree_file.read(path)
    return None if content is None else content.decode("utf-8", "surrogateescape")


def differing(tree: str, wanted: Mapping[str, str | None]) -> dict[str, tuple[str, str]]:
    """What is there and what is to be there, "" for nothing, of the files that are not as wanted.

    Raises `tree_file.Unsafe` where a link leads one of them out of the tree.
    """
    found = {path: _read(os.path.join(tree, path)) for path in wanted}
    differ = {path: (found[path] or "", text or "") for path, text in wanted.items() if found[path] != text}
    for path in differ:
        tree_file.check(tree, path)
    return differ


def write(tree: str, wanted: Mapping[str, str | None]) -> None:
    for path, text in wanted.items():
        target = os.path.join(tree, path)
        if text is None:
            with contextlib.suppress(FileNotFoundError, NotADirectoryError):
                os.unlink(target)
            continue
        known = os.lstat(target).st_mode if os.path.lexists(target) else 0
        mode = stat.S_IMODE(known) & 0o777 if stat.S_ISREG(known) else 0o644
        tree_file.write(tree, path, text.encode("utf-8", "surrogateescape"), mode)


def read(tree: str) -> dict[str, str]:
    """The variables that an environment's OlmOCR is started with; none where this collection wrote none."""
    variables = {}
    for line in (_read(os.path.join(tree, ENVIRONMENT_FILE)) or "").splitlines():
        name, equals, value = line.partition("=")
        if equals and _NAME.fullmatch(name):
            with contextlib.suppress(ValueError):
                variables[name] = "".join(shlex.split(value))
    return variables


def drop_in(prefix: str, vllm: str) -> str:
    """A systemd drop-in. It names the file and holds no value, so it stays right when the environment is exchanged.

    The dash lets the unit start without the file, as with a baseline that has no FlashInfer.
    """
    lines = [_WRITTEN_BY, "[Service]", f"EnvironmentFile=-{prefix}/{ENVIRONMENT_FILE}"]
    if breaks_vision(vllm):
        lines.append(f"UnsetEnvironment={BACKEND}=FLASHINFER")
    return "".join(f"{line}\n" for line in lines)


def with_own_caches(variables: Mapping[str, str], folder: str) -> dict[str, str]:
    """`variables`, with folders below `folder` in place of caches that another user owns.

    Root can write there, and what it leaves stops the owner: FlashInfer opens its lock and its build files for writing
    at every start.
    """
    return {
        name: os.path.join(folder, name.lower()) if name in CACHES and _owner(value) != os.geteuid() else value
        for name, value in variables.items()
    }


def _owner(path: str) -> int:
    """Who owns a folder, or the nearest one above it that is there."""
    return os.stat(flashinfer_install.nearest(path) or ".").st_uid
