#!/usr/bin/python
# Copyright (c) 2026 The ocrfleet.gpu_stack contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

from __future__ import annotations

DOCUMENTATION = r"""
module: kernel_pack
short_description: Compile and pack FlashInfer's kernels on one host and place them on others of the same kind
version_added: 0.1.0
description:
  - FlashInfer compiles its kernels at their first call, which takes minutes. A kernel pack holds them compiled.
  - Compiling takes no GPU, only an nvcc of PyTorch's CUDA version and the name of the architecture. So a builder can
    make packs for every architecture of a fleet.
  - Placed in an environment, the modules load without nvcc and ninja, in a fraction of a second.
  - A pack is bound to FlashInfer, PyTorch, CUDA, Python's binary interface, the GPU architecture and the machine type.
    FlashInfer itself checks none of that, so a pack for something else is refused with the reason.
  - Its modules need the glibc and libstdc++ of the distribution that they were compiled on, or newer ones. A host whose
    libraries are older refuses the pack, and the pack's name has those of its host, so each distribution gets its own.
  - With O(candidate) the modules are placed there, and O(environment) is left as it is.
extends_documentation_fragment:
  - ocrfleet.gpu_stack.environment
options:
  path:
    description: The pack, a file on the host. Needed by O(state=packed) and O(state=placed).
    type: path
  state:
    description:
      - V(named) only says how the pack that fits here is called, and whether this host can compile one.
      - V(compiled) compiles what OlmOCR's model needs (paged decode and prefill, sampling) into FlashInfer's cache. The
        GPU is not used. M(ocrfleet.gpu_stack.gpu_smoke) then proves on a GPU that the numbers are right.
      - V(packed) makes the pack of the modules in the cache.
      - V(placed) places the pack's modules in the environment, with the pack's manifest beside them, and removes every
        other module from that folder. FlashInfer loads what lies there, whoever put it there.
      - V(cleared) takes out the pack that is placed where it must not be used, see RV(objection). Other modules stay.
    type: str
    choices: [named, compiled, packed, placed, cleared]
    required: true
  architecture:
    description:
      - The architecture that the modules are for, as a compute capability without dot, for example V(90) or V(89).
      - Left out, it is that of the GPU that PyTorch sees first, with the C(CUDA_VISIBLE_DEVICES) of O(env). A host
        without GPU must name it.
    type: str
  public_keys:
    description:
      - Keys that are trusted to sign packs, each a line as in the C(.pub) file of C(ssh-keygen). With any,
        O(state=placed) refuses a pack that none of them signed, and one that is placed already counts for
        O(state=named) and O(state=cleared) only if one of them signed it. Without, a pack needs no signature.
      - Sign a pack with C(ssh-keygen -Y sign -n ocrfleet-kernel-pack -f KEY PACK), where the private key is.
    type: list
    elements: str
    default: []
  signature:
    description: The signature, a file on the host. Left out, it is O(path) with C(.sig) appended.
    type: path
  env:
    description:
      - Environment variables that lead to the cache, the compiler and the GPU, for example
        C(FLASHINFER_WORKSPACE_BASE), C(CUDA_HOME), C(MAX_JOBS) and C(CUDA_VISIBLE_DEVICES).
    type: dict
    default: {}
  timeout:
    description: Seconds after which the import of PyTorch and FlashInfer is ended.
    type: int
    default: 120
  compile_timeout:
    description: Seconds after which O(state=compiled) is ended.
    type: int
    default: 3600
attributes:
  check_mode:
    support: full
    description:
      - Nothing is compiled and nothing is written. The pack is read and checked.
      - With O(state=compiled) RV(compiled) has what would be compiled.
  diff_mode:
    support: full
    description: Shows the modules before and after.
notes:
  - FlashInfer older than 0.5 asks nvcc for its version before it takes a module of a pack. There an nvcc must be found,
    although it compiles nothing. See RV(needs_nvcc).
seealso:
  - module: ocrfleet.gpu_stack.gpu_smoke
  - module: ocrfleet.gpu_stack.flashinfer_info
author:
  - The ocrfleet.gpu_stack contributors (@ocrfleet)
"""

EXAMPLES = r"""
- name: Compile for an L4, on a builder without GPU
  ocrfleet.gpu_stack.kernel_pack:
    environment: /opt/conda/envs/olmocr-optimized
    state: compiled
    architecture: "89"
    env:
      FLASHINFER_WORKSPACE_BASE: /var/lib/ocrfleet/build

- name: Pack what was compiled
  ocrfleet.gpu_stack.kernel_pack:
    environment: /opt/conda/envs/olmocr-optimized
    path: /var/lib/ocrfleet/kernels-sm89.tar.xz
    state: packed
    architecture: "89"
    env:
      FLASHINFER_WORKSPACE_BASE: /var/lib/ocrfleet/build

- name: Place the pack in the candidate, if the release team signed it
  ocrfleet.gpu_stack.kernel_pack:
    environment: /opt/conda/envs/olmocr-optimized
    candidate: /opt/conda/envs/.olmocr-optimized.candidate
    path: /var/lib/ocrfleet/kernels-sm89.tar.xz
    state: placed
    public_keys: "{{ lookup('ansible.builtin.file', 'release-team.pub') }}"
"""

RETURN = r"""
name:
  description: The name of the pack's file that fits here.
  returned: success
  type: str
  sample: flashinfer-0.6.13-torch-2.8.0+cu128-cp311-sm90-x86_64-glibc2.36-glibcxx3.4.30.tar.xz
can_compile:
  description: Whether a compiler for this PyTorch is here, so that a pack can be made.
  returned: O(state=named)
  type: bool
wanted:
  description: Whether a pack would be used here. With a matching flashinfer-jit-cache, or on another GPU, it is not.
  returned: O(state=named)
  type: bool
placed:
  description:
    - Whether a pack that fits is placed already, with its manifest beside its modules, each of them as the manifest
      says, and no other module there.
  returned: O(state=named)
  type: bool
  sample: false
objection:
  description: Why the pack that is placed must not be used here. Empty where it may, or none is placed.
  returned: O(state=named) or O(state=cleared)
  type: str
  sample: "flashinfer: expected 0.6.13, the pack has 0.3.1"
lacks:
  description: What keeps a pack from being made here, with what to do. Empty where RV(can_compile).
  returned: O(state=named)
  type: str
  sample: "ninja: expected it on PATH, found none; install the package ninja into the environment"
why_not:
  description: Why no pack can be made here, or why none is wanted.
  returned: O(state=named)
  type: str
cuda_home:
  description: The CUDA toolkit that compiles here. One that fits PyTorch's CUDA is taken before one that does not.
  returned: O(state=named) or O(state=compiled)
  type: str
  sample: /usr/local/cuda-12.8
compiled:
  description: The modules that are compiled now, or in check mode those that would be.
  returned: O(state=compiled)
  type: list
  elements: str
  sample: [sampling]
compile_seconds:
  description: How long compiling took.
  returned: O(state=compiled)
  type: float
  sample: 71.3
path:
  description: The option O(path).
  returned: success
  type: str
manifest:
  description:
    - What the pack is bound to, and the checksums of its C(modules).
    - C(nvcc) is the version of the compiler that was found where it was packed.
    - C(needs) are the highest versions of glibc's and libstdc++'s symbols that its modules ask for.
  returned: O(state=packed) or O(state=placed)
  type: dict
  sample:
    architecture: "90"
    cuda: "12.8"
    flashinfer: 0.6.13
    format: 1
    machine: x86_64
    nvcc: "12.8"
    needs: {"GLIBC": "2.34", "GLIBCXX": "3.4.30", "CXXABI": "1.3.13"}
    modules:
      sampling: {"sha256": "0263829989b6fd954f72baaf2fc64bc2e2f01d692d4de72986ea808f6e99813f", "size": 1048576}
    python: cp311
    torch: 2.8.0+cu128
sha256:
  description: The checksum of the pack. With O(state=packed) in check mode, of the pack that would be made.
  returned: O(state=packed) or O(state=placed)
  type: str
signed_by:
  description: The fingerprint of the key that signed the pack. Empty without O(public_keys).
  returned: O(state=placed)
  type: str
  sample: SHA256:9Yvb7Z5oRduRtUR9vj1zzqkGVuKqNdt4kRlcMJqnXjE
written:
  description: The modules that were written, or would be.
  returned: O(state=packed) or O(state=placed)
  type: list
  elements: str
  sample: [sampling]
removed:
  description: The modules that were removed, or would be. FlashInfer would have loaded them.
  returned: O(state=placed) or O(state=cleared)
  type: list
  elements: str
  sample: []
differs:
  description: Whether anything in the environment was, or would be, written or removed.
  returned: O(state=placed) or O(state=cleared)
  type: bool
  sample: true
needs_nvcc:
  description: Whether this FlashInfer wants an nvcc that tells its version, even with a pack.
  returned: success
  type: bool
  sample: false
"""

import os
import platform
import shutil
import tempfile
from collections.abc import Callable
from dataclasses import dataclass

from ansible.module_utils.basic import AnsibleModule
from ansible_collections.ocrfleet.gpu_stack.plugins.module_utils import (
    activation,
    distributions,
    flashinfer_install,
    kernel_compile,
    kernel_pack,
    placed_kernels,
    programs,
    shared_objects,
    ssh_signature,
    staging,
    tree_file,
)

_AFTER_COMPILING = (
    "Mend what the compiler names (MAX_JOBS in env bounds its memory, compile_timeout its time), or place a pack that "
    "another host compiled"
)


@dataclass
class Host:
    """The environment, and what a pack that fits it is bound to.

    `env` is what the task gave, `gpu` the architecture of the first GPU, empty without one.
    """

    stage: staging.Stage
    installed: dict
    env: dict[str, str]
    bound_to: dict[str, str]
    gpu: str
    scratch: str

    @property
    def variables(self) -> dict[str, str]:
        return {**os.environ, **self.env}

    @property
    def package(self) -> str:
        return os.path.join(os.path.dirname(self.installed["flashinfer-python"].path), "flashinfer")

    def compiler(self) -> dict:
        return activation.find_compiler(self.stage.tree, "", self.variables, self.bound_to["cuda"])


def in_cache(found: list[dict], bound_to: dict[str, str]) -> dict[str, str]:
    """The paths of the cached modules of this architecture and version. Up to 0.3.1 the folder has no version."""
    return {
        module["name"]: module["path"]
        for module in found
        if module["origin"] == "cache"
        and module["flashinfer"] in ("", bound_to["flashinfer"])
        and flashinfer_install.digits(module["architecture"]) == bound_to["architecture"]
    }


def cached(host: Host) -> dict[str, str]:
    cache = flashinfer_install.workspace(host.variables)
    return in_cache(flashinfer_install.compiled_modules(cache, host.package, host.bound_to), host.bound_to)


def named(host: Host, keys: list[str]) -> dict:
    """Whether a pack can be made here, and whether FlashInfer would use one."""
    compiler = host.compiler()
    lacks = "; ".join(flashinfer_install.lacking(compiler))
    unwanted = ""
    _versions, wrong = flashinfer_install.packages(host.installed)
    if "flashinfer-jit-cache" in host.installed and not wrong:
        unwanted = "flashinfer-jit-cache is installed and holds the kernels compiled"
    elif placed_kernels.of_package(host.package):
        unwanted = "the installed wheel of flashinfer-python has kernels compiled in it"
    elif host.gpu not in ("", host.bound_to["architecture"]):
        unwanted = f"the GPU here is of architecture {host.gpu}"
    return {
        "changed": False,
        "can_compile": compiler["ready"],
        "wanted": not unwanted,
        "placed": kernel_pack.is_placed(host.package, host.bound_to, keys),
        "objection": kernel_pack.objection(host.package, host.bound_to, keys),
        "lacks": lacks,
        "why_not": unwanted or lacks,
        "cuda_home": compiler["cuda_home"],
    }


def compiled(host: Host, timeout: int, check_mode: bool) -> dict:
    """Compile what the model needs; what is compiled already stays as it is."""
    compiler = host.compiler()
    if not compiler["ready"]:
        raise kernel_pack.Refused(
            f"expected a toolkit that compiles for CUDA {host.bound_to['cuda']}, found none that does: "
            f"{'; '.join(flashinfer_install.lacking(compiler))}; "
            "or compile on a builder that has one, and place its pack here"
        )
    program = programs.written(kernel_compile, host.scratch)
    architecture = host.bound_to["architecture"]
    target = kernel_pack.compile_for(architecture, host.bound_to["flashinfer"])
    env = {**flashinfer_install.max_jobs(), **host.env, **target, "CUDA_HOME": compiler["cuda_home"]}
    argv = [host.stage.python, program, architecture[:-1]]
    if check_mode:
        # FlashInfer writes its build files when it is asked for the names.
        env["FLASHINFER_WORKSPACE_BASE"] = host.scratch
        argv.append("list")
    before = cached(host)
    result = host.stage.run(argv, timeout=timeout, env=env, cwd=host.scratch)
    if not result.ok:
        raise kernel_pack.Refused(
            f"expected the kernels to compile with {compiler['nvcc']} within {timeout} s, found: "
            f"{kernel_pack.compile_complaint(result)}\n{_AFTER_COMPILING}"
        )
    new = sorted(set(kernel_pack.compiled_names(result.stdout)) - set(before))
    return {
        "changed": bool(new),
        "compiled": new,
        "compile_seconds": round(result.seconds, 1),
        "cuda_home": compiler["cuda_home"],
    }


def packed(host: Host, path: str, move: Callable[[str, str], None], check_mode: bool) -> dict:
    modules = kernel_pack.collect(cached(host), host.bound_to)
    listed = kernel_pack.manifest(modules, host.bound_to, host.compiler()["nvcc_version"])
    content = kernel_pack.pack(modules, listed)
    changed = read(path) != content
    if changed and not check_mode:
        staged = os.path.join(host.scratch, "packed")
        with open(staged, "wb") as file:
            file.write(content)
        move(staged, path)
    return outcome(listed, content, sorted(modules), sorted(modules) if changed else [])


def signer(content: bytes, path: str, signature: str, keys: list[str], scratch: str) -> str:
    """The fingerprint of the key that signed the pack. What is held against the signature is what will be placed."""
    if not keys:
        return ""
    copy = os.path.join(scratch, "pack")
    with open(copy, "wb") as file:
        file.write(content)
    try:
        return ssh_signature.verify(
            copy, signature or path + ssh_signature.SUFFIX, keys, kernel_pack.NAMESPACE, scratch
        )
    except ssh_signature.Unsigned as error:
        raise kernel_pack.Refused(
            f"{path}: {error}; have it signed with ssh-keygen -Y sign -n {kernel_pack.NAMESPACE} -f KEY PACK by a "
            "key of public_keys, or trust the key that signed it"
        ) from None


def placed(host: Host, path: str, signature: str, keys: list[str], check_mode: bool) -> dict:
    content = read(path)
    if not content:
        raise kernel_pack.Refused(
            f"expected the kernel pack {kernel_pack.file_name(host.bound_to)} at {path}, found no file with "
            "content that this user can read; bring it there first (state=packed makes it)"
        )
    signed_by = signer(content, path, signature, keys, host.scratch)
    listed, modules = kernel_pack.unpack(path, content)
    differs = kernel_pack.mismatches(listed, host.bound_to)
    if host.gpu not in ("", host.bound_to["architecture"]):
        differs.append(f"architecture: the GPU here has {host.gpu}")
    if differs:
        raise kernel_pack.Refused(
            f"{path} was built for something else: {'; '.join(differs)}; build "
            f"{kernel_pack.file_name(host.bound_to)} and place that one"
        )
    if "flashinfer-jit-cache" in host.installed:
        raise kernel_pack.Refused(
            "expected no flashinfer-jit-cache, found it installed: FlashInfer then looks for compiled modules there "
            "and nowhere else; remove it or do without a pack"
        )
    tree_file.inside(host.stage.tree, os.path.dirname(host.package))
    # Who signed it is part of what is placed, so that a signature that came later is a change.
    beside = {**listed, "signed_by": signed_by}
    placing = kernel_pack.to_place(beside, modules, host.package)
    if not check_mode:
        kernel_pack.place(beside, modules, placing, host.package)
    return {
        "signed_by": signed_by,
        **outcome(listed, content, sorted(modules), list(placing.written)),
        "changed": bool(placing),
        "removed": list(placing.removed),
        "differs": bool(placing),
    }


def cleared(host: Host, keys: list[str], check_mode: bool) -> dict:
    """Take out a pack that must not be used here."""
    objection = kernel_pack.objection(host.package, host.bound_to, keys)
    removed = kernel_pack.clear(host.package, check_mode) if objection else []
    return {
        "changed": bool(objection),
        "differs": bool(objection),
        "objection": objection,
        "removed": removed,
        "diff": {"before": "".join(f"{name}\n" for name in removed), "after": ""},
    }


def outcome(listed: dict, content: bytes, modules: list[str], written: list[str]) -> dict:
    return {
        "changed": bool(written),
        "manifest": listed,
        "sha256": kernel_pack.sha256(content),
        "written": written,
        "diff": {
            "before": "".join(f"{name}\n" for name in modules if name not in written),
            "after": "".join(f"{name}\n" for name in modules),
        },
    }


def read(path: str) -> bytes:
    try:
        with open(path, "rb") as file:
            return file.read()
    except OSError:
        return b""


def find_host(module: AnsibleModule, scratch: str) -> Host:
    """Look at the environment; fail where it cannot be told what a pack would be bound to."""
    options = module.params
    stage = staging.Stage(options["environment"], options["candidate"])
    env = {name: str(value) for name, value in options["env"].items()}
    probe = flashinfer_install.probe(stage, scratch, options["timeout"], {**activation.read(stage.tree), **env})
    if not probe["flashinfer"] or not probe["torch"]:
        why = probe["problem"] or probe["torch_problem"] or probe["flashinfer_problem"]
        module.fail_json(
            msg=f"expected PyTorch and FlashInfer to import in {stage.tree}, found: {why}; install them first (a "
            "pack is bound to their versions), or mend the import"
        )
    architecture = flashinfer_install.digits(options["architecture"] or probe["capability"])
    if not architecture.isdigit() or len(architecture) < 2:
        module.fail_json(
            msg="expected a GPU that PyTorch can use, or its compute capability in the option architecture, as in "
            "90, found "
            + (repr(options["architecture"]) if options["architecture"] else "neither")
            + "; name the architecture of the hosts that the pack is for (nvidia-smi --query-gpu=compute_cap)"
        )
    bound_to = kernel_pack.kind(
        probe,
        flashinfer_install.python_tag(stage.tree),
        architecture,
        platform.machine(),
        shared_objects.offered(stage.tree),
    )
    return Host(
        stage,
        distributions.installed(stage.tree),
        env,
        bound_to,
        flashinfer_install.digits(probe["capability"]),
        scratch,
    )


def main() -> None:
    module = AnsibleModule(
        argument_spec={
            "environment": {"type": "path", "required": True},
            "candidate": {"type": "path"},
            "path": {"type": "path"},
            "state": {"type": "str", "choices": ["named", "compiled", "packed", "placed", "cleared"], "required": True},
            "architecture": {"type": "str"},
            "public_keys": {"type": "list", "elements": "str", "default": []},
            "signature": {"type": "path"},
            "env": {"type": "dict", "default": {}},
            "timeout": {"type": "int", "default": 120},
            "compile_timeout": {"type": "int", "default": 3600},
        },
        required_if=[("state", "packed", ["path"]), ("state", "placed", ["path"])],
        supports_check_mode=True,
    )
    options, checking = module.params, module.check_mode
    path = options["path"] or ""
    scratch = tempfile.mkdtemp(prefix="kernel_pack", dir=module.tmpdir)
    try:
        host = find_host(module, scratch)
        found = {
            "named": lambda: named(host, options["public_keys"]),
            "compiled": lambda: compiled(host, options["compile_timeout"], checking),
            "packed": lambda: packed(host, path, module.atomic_move, checking),
            "placed": lambda: placed(host, path, options["signature"] or "", options["public_keys"], checking),
            "cleared": lambda: cleared(host, options["public_keys"], checking),
        }[options["state"]]()
    except (kernel_pack.Refused, tree_file.Unsafe) as refused:
        module.fail_json(msg=str(refused))
    finally:
        shutil.rmtree(scratch, ignore_errors=True)
    own = flashinfer_install.release(host.bound_to["flashinfer"])
    module.exit_json(
        name=kernel_pack.file_name(host.bound_to),
        needs_nvcc=own < flashinfer_install.release(flashinfer_install.PACK_WITHOUT_NVCC),
        path=options["path"],
        **found,
    )


if __name__ == "__main__":
    main()
