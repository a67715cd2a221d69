#!/usr/bin/python
# Copyright (c) 2026 The ocrfleet.gpu_stack contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

from __future__ import annotations

DOCUMENTATION = r"""
module: kernel_pack
short_description: Pack FlashInfer's compiled kernels on one host and place them on others of the same kind
version_added: 0.1.0
description:
  - FlashInfer compiles its kernels at their first call, which takes minutes. A kernel pack holds them compiled.
  - A pack is made of the modules that lie in FlashInfer's cache. M(ocrfleet.gpu_stack.gpu_smoke) compiles them.
  - Placed in an environment, the modules load without nvcc and ninja, in a fraction of a second.
  - A pack is bound to FlashInfer, PyTorch, CUDA, Python's binary interface, the GPU architecture and the machine type.
    FlashInfer itself checks none of that, so a pack for something else is refused with the reason.
  - With O(candidate) the modules are placed there, and O(environment) is left as it is.
extends_documentation_fragment:
  - ocrfleet.gpu_stack.environment
options:
  path:
    description: The pack, a file on the host. Needed by O(state=packed) and O(state=placed).
    type: path
  state:
    description:
      - V(packed) makes the pack of the modules in the cache.
      - V(placed) places the pack's modules in the environment.
      - V(named) only says how the pack that fits here is called, and whether this host can compile one.
    type: str
    choices: [named, packed, placed]
    required: true
  architecture:
    description:
      - The architecture that the modules are for, as a compute capability without dot, for example V(90) or V(89).
      - Left out, it is that of the first GPU. A host without GPU must name it.
    type: str
  env:
    description: Environment variables that lead to the cache, for example C(FLASHINFER_WORKSPACE_BASE).
    type: dict
    default: {}
  timeout:
    description: Seconds after which the import of PyTorch and FlashInfer is ended.
    type: int
    default: 120
attributes:
  check_mode:
    support: full
    description: The pack is read and checked, nothing is written.
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
- name: Pack what the smoke kernels compiled
  ocrfleet.gpu_stack.kernel_pack:
    environment: /opt/conda/envs/olmocr-optimized
    path: /var/lib/ocrfleet/kernels-sm90.tar.xz
    state: packed

- name: Place the pack in the candidate
  ocrfleet.gpu_stack.kernel_pack:
    environment: /opt/conda/envs/olmocr-optimized
    candidate: /opt/conda/envs/.olmocr-optimized.candidate
    path: /var/lib/ocrfleet/kernels-sm90.tar.xz
    state: placed
"""

RETURN = r"""
name:
  description: The name of the pack's file that fits here.
  returned: success
  type: str
  sample: flashinfer-0.6.13-torch-2.8.0+cu128-cp311-sm90-x86_64.tar.xz
can_compile:
  description: Whether a compiler for this PyTorch is here, so that a pack can be made.
  returned: O(state=named)
  type: bool
wanted:
  description: Whether FlashInfer would look at a pack. With a matching flashinfer-jit-cache it does not.
  returned: O(state=named)
  type: bool
why_not:
  description: Why no pack can be made here, or why none is wanted.
  returned: O(state=named)
  type: str
path:
  description: The option O(path).
  returned: success
  type: str
manifest:
  description: What the pack is bound to, and the checksums of its C(modules).
  returned: success
  type: dict
  sample:
    architecture: "90"
    cuda: "12.8"
    flashinfer: 0.6.13
    format: 1
    machine: x86_64
    modules:
      sampling: {"sha256": "0263829989b6fd954f72baaf2fc64bc2e2f01d692d4de72986ea808f6e99813f", "size": 1048576}
    python: cp311
    torch: 2.8.0+cu128
sha256:
  description: The checksum of the pack. With O(state=packed) in check mode, of the pack that would be made.
  returned: success
  type: str
written:
  description: The modules that were written, or would be.
  returned: success
  type: list
  elements: str
  sample: [sampling]
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

from ansible.module_utils.basic import AnsibleModule
from ansible_collections.ocrfleet.gpu_stack.plugins.module_utils import (
    distributions,
    flashinfer_install,
    kernel_pack,
    staging,
)


def digits(architecture: str) -> str:
    """An architecture without the letter that FlashInfer gives to some: 90 of 9.0, 90a and 90."""
    return architecture.replace(".", "").rstrip("abcdef")


def python_tag(tree: str) -> str:
    """The binary interface, by the folder of the standard library: `lib/python3.11` is cp311."""
    sites = distributions.site_packages(tree)
    return "cp" + os.path.basename(os.path.dirname(sites[0]))[len("python") :].replace(".", "") if sites else ""


def in_cache(found: list[dict], bound_to: dict[str, str]) -> dict[str, str]:
    """The paths of the cached modules of this architecture and version. Up to 0.3.1 the folder has no version."""
    return {
        module["name"]: module["path"]
        for module in found
        if module["origin"] == "cache"
        and module["flashinfer"] in ("", bound_to["flashinfer"])
        and digits(module["architecture"]) == bound_to["architecture"]
    }


def prospects(tree: str, installed: dict, variables: dict[str, str], bound_to: dict[str, str]) -> dict:
    """Whether a pack can be made here, and whether FlashInfer would use one."""
    path = flashinfer_install.search_path(tree, variables)
    home = flashinfer_install.cuda_home(variables, path)
    compiler = flashinfer_install.compiler(home, path, variables, bound_to["cuda"], timeout=30)
    _versions, wrong = flashinfer_install.packages(installed)
    wanted = "flashinfer-jit-cache" not in installed or bool(wrong)
    why = [*compiler["missing"], *([compiler["mismatch"]] if compiler["mismatch"] else [])]
    if not wanted:
        why = ["flashinfer-jit-cache is installed and holds the kernels compiled"]
    return {"can_compile": compiler["ready"], "wanted": wanted, "why_not": "; ".join(why)}


def read(path: str) -> bytes:
    try:
        with open(path, "rb") as file:
            return file.read()
    except OSError:
        return b""


def main() -> None:
    module = AnsibleModule(
        argument_spec={
            "environment": {"type": "path", "required": True},
            "candidate": {"type": "path"},
            "path": {"type": "path"},
            "state": {"type": "str", "choices": ["named", "packed", "placed"], "required": True},
            "architecture": {"type": "str"},
            "env": {"type": "dict", "default": {}},
            "timeout": {"type": "int", "default": 120},
        },
        required_if=[("state", "packed", ["path"]), ("state", "placed", ["path"])],
        supports_check_mode=True,
    )
    options = module.params
    stage = staging.Stage(options["environment"], options["candidate"])
    env = {name: str(value) for name, value in options["env"].items()}
    scratch = tempfile.mkdtemp(prefix="kernel_pack", dir=module.tmpdir)
    try:
        probe = flashinfer_install.probe(stage, scratch, options["timeout"], env)
    finally:
        shutil.rmtree(scratch, ignore_errors=True)
    if not probe["flashinfer"] or not probe["torch"]:
        why = probe["problem"] or probe["torch_problem"] or probe["flashinfer_problem"]
        module.fail_json(msg=f"expected PyTorch and FlashInfer to import in {options['environment']}: {why}")
    architecture = digits(options["architecture"] or probe["capability"])
    if not architecture:
        module.fail_json(
            msg="expected a GPU or the option architecture, found neither; name the architecture, as in 90"
        )
    bound_to = kernel_pack.kind(probe, python_tag(stage.tree), architecture, platform.machine())
    installed = distributions.installed(stage.tree)
    site = os.path.dirname(installed["flashinfer-python"].path)
    package = os.path.join(site, "flashinfer")
    before = flashinfer_install.release(flashinfer_install.PACK_WITHOUT_NVCC)
    result: dict = {
        "needs_nvcc": flashinfer_install.release(probe["flashinfer"]) < before,
        "name": kernel_pack.file_name(bound_to),
        "path": options["path"],
    }
    if options["state"] == "named":
        module.exit_json(changed=False, **prospects(stage.tree, installed, {**os.environ, **env}, bound_to), **result)
    try:
        if options["state"] == "packed":
            cache = flashinfer_install.workspace({**os.environ, **env})
            paths = in_cache(flashinfer_install.compiled_modules(cache, package), bound_to)
            modules = kernel_pack.collect(paths, bound_to)
            content = kernel_pack.pack(modules, bound_to)
            listed, written = kernel_pack.manifest(modules, bound_to), sorted(modules)
            changed = read(options["path"]) != content
            if changed and not module.check_mode:
                staged = os.path.join(module.tmpdir, "pack")
                with open(staged, "wb") as file:
                    file.write(content)
                module.atomic_move(staged, options["path"])
            written = written if changed else []
        else:
            content = read(options["path"])
            listed, modules = kernel_pack.unpack(options["path"])
            differs = kernel_pack.mismatches(listed, bound_to)
            if differs:
                raise kernel_pack.Refused(f"{options['path']} was built for something else: {'; '.join(differs)}")
            if "flashinfer-jit-cache" in installed:
                raise kernel_pack.Refused(
                    "expected no flashinfer-jit-cache, found it installed: FlashInfer then looks for compiled modules "
                    "there and nowhere else; remove it or do without a pack"
                )
            folder = os.path.join(package, "data", "aot")
            written = kernel_pack.to_place(modules, folder)
            changed = bool(written)
            if not module.check_mode:
                kernel_pack.place(modules, written, folder)
    except kernel_pack.Refused as refused:
        module.fail_json(msg=str(refused))
    result.update(
        changed=changed,
        manifest=listed,
        sha256=kernel_pack.sha256(content),
        written=written,
        diff={
            "before": "".join(f"{name}\n" for name in sorted(modules) if name not in written),
            "after": "".join(f"{name}\n" for name in sorted(modules)),
        },
    )
    module.exit_json(**result)


if __name__ == "__main__":
    main()
