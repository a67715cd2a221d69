#!/usr/bin/python
# Copyright (c) 2026 The ocrfleet.gpu_stack contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

from __future__ import annotations

DOCUMENTATION = r"""
module: source_wheel
short_description: Build FlashInfer from source once, and give every host of its kind the same wheel
version_added: 0.1.0
author:
  - The ocrfleet.gpu_stack contributors (@ocrfleet)
description:
  - Looks in a wheelhouse on the control node for a wheel of this source, PyTorch, CUDA, Python and machine. Where there
    is none, the source is brought to the host and built there against what the environment holds, without build
    isolation and with the environment read-only. The wheel goes to the wheelhouse, with its provenance.
  - Then brings the wheel to the host. Hosts of one kind wait for each other, so that it is built once.
  - The compiler is looked at first, and all that is missing is told at once.
options:
  environment:
    description: Prefix of the environment that the wheel is for.
    type: path
    required: true
  uv:
    description: Path of the uv binary on the host.
    type: path
    required: true
  source:
    description:
      - URL of a git repository, URL of an archive, or path on the control node of an archive or a folder.
    type: str
    required: true
  ref:
    description: Tag or commit of a git repository. A branch is built as it was at the first time.
    type: str
    default: ""
  checksum:
    description: Checksum of an archive, as C(sha256:) and 64 digits. Required for a URL.
    type: str
    default: ""
  version:
    description: The version of C(flashinfer-python) that must come out.
    type: str
    required: true
  cuda:
    description: Version that nvcc must have to compile kernels.
    type: str
    required: true
  cuda_home:
    description: Folder of the CUDA toolkit. Empty means that it is looked for.
    type: str
    default: ""
  require_compiler:
    description: Whether it is an error when kernels cannot be compiled on this host. Otherwise RV(missing) tells it.
    type: bool
    default: true
  wheelhouse:
    description: Folder on the control node that keeps the wheels.
    type: str
    required: true
  dest:
    description: Folder on the host that the wheel is brought to, in a folder of its own.
    type: path
    required: true
  ca_bundle:
    description: Path, on the host, of the certificates to trust.
    type: str
    default: ""
  timeout:
    description: Seconds that fetching and building may take each.
    type: float
    default: 1800
  kind:
    description: What O(source) is. Filled in by the action plugin.
    type: str
    choices: [look, git, url, archive]
    default: look
attributes:
  check_mode:
    description: A plan needs the wheel. Give the task C(check_mode=false) where one is to be made.
    support: none
  diff_mode:
    description: There is no text to compare.
    support: none
"""

EXAMPLES = r"""
- name: Have a wheel of FlashInfer from its repository
  ocrfleet.gpu_stack.source_wheel:
    environment: /opt/conda/envs/olmocr-optimized
    uv: /opt/ocrfleet/bin/uv
    source: https://github.com/flashinfer-ai/flashinfer.git
    ref: v0.3.1
    version: 0.3.1
    cuda: "12.8"
    wheelhouse: ~/wheelhouse
    dest: /opt/ocrfleet/wheelhouse
"""

RETURN = r"""
folder:
  description: The folder on the host that holds the wheel and nothing else.
  returned: success
  type: str
provenance:
  description:
    - What the wheel was made of, by what, and its checksum.
    - C(shielded) is false where no mount namespace could be had, so that the build could write into the environment.
  returned: success
  type: dict
missing:
  description: What compiling kernels misses on this host.
  returned: always
  type: list
  elements: str
"""

import os
import platform
import shutil
import tempfile
import time

from ansible.module_utils.basic import AnsibleModule
from ansible.module_utils.urls import open_url
from ansible_collections.ocrfleet.gpu_stack.plugins.module_utils import (
    distributions,
    machine,
    needs,
    redaction,
    source_tree,
    torch_values,
    wheel_build,
)

ARGUMENT_SPEC = {
    "environment": {"type": "path", "required": True},
    "uv": {"type": "path", "required": True},
    "source": {"type": "str", "required": True},
    "ref": {"type": "str", "default": ""},
    "checksum": {"type": "str", "default": ""},
    "version": {"type": "str", "required": True},
    "cuda": {"type": "str", "required": True},
    "cuda_home": {"type": "str", "default": ""},
    "require_compiler": {"type": "bool", "default": True},
    "wheelhouse": {"type": "str", "required": True},
    "dest": {"type": "path", "required": True},
    "ca_bundle": {"type": "str", "default": ""},
    "timeout": {"type": "float", "default": 1800},
    "kind": {"type": "str", "choices": ["look", "git", "url", "archive"], "default": "look"},
}


def look(params: dict) -> dict:
    """What the wheel is bound to on this host."""
    tree = params["environment"]
    torch = distributions.installed(tree).get("torch")
    python = machine.python_version(os.path.join(tree, "bin", "python"))
    if not torch or not python:
        raise source_tree.Refused(f"expected an environment with PyTorch at {tree}, found none; run site.yml first")
    return {
        "torch": torch.version,
        "cuda": torch_values.cuda_on_disk(tree),
        "python": python,
        "machine": platform.machine(),
    }


def download(url: str, path: str, params: dict) -> None:
    try:
        with open_url(url, timeout=60, ca_path=params["ca_bundle"] or None) as answer, open(path, "wb") as file:
            shutil.copyfileobj(answer, file)
    except OSError as error:
        raise source_tree.Refused(
            f"cannot fetch {redaction.without_secrets(url)}: {redaction.without_secrets(str(error))}; "
            "correct the URL, or give a file"
        ) from error


def build(params: dict, scratch: str) -> dict:
    source, folder = params["source"], os.path.join(scratch, "source")
    made = {"kind": params["kind"], "source": redaction.without_secrets(source), "ref": params["ref"]}
    if params["kind"] == "git":
        made["commit"] = source_tree.checkout(source, params["ref"], folder, params["timeout"])
    else:
        archive = source
        if params["kind"] == "url":
            archive = os.path.join(scratch, os.path.basename(source.split("?")[0]))
            download(source, archive, params)
        made["archive_sha256"] = source_tree.check_sum(archive, params["checksum"])
        source_tree.unpack(archive, folder)
    os.makedirs(params["dest"], exist_ok=True)
    wheel, count, shielded = wheel_build.build(
        params["uv"],
        params["environment"],
        source_tree.root(folder),
        params["dest"],
        params["cuda_home"],
        params["timeout"],
    )
    name, version = os.path.basename(wheel).split("-")[:2]
    if distributions.canonical(name) != "flashinfer-python" or version.split("+")[0] != params["version"]:
        raise source_tree.Refused(
            f"expected flashinfer-python {params['version']}, the source makes {name} {version}; "
            "correct fi_version, or the source"
        )
    return {
        **made,
        "version": version,
        "wheel": os.path.basename(wheel),
        "sha256": source_tree.check_sum(wheel, ""),
        "jobs": count,
        "shielded": shielded,
        "built_on": platform.node(),
        "built": time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime()),
    }


def main() -> None:
    module = AnsibleModule(argument_spec=ARGUMENT_SPEC, supports_check_mode=False)
    params = module.params
    redaction.hide(module, [params["source"]])
    missing = wheel_build.toolchain(params["cuda"], params["cuda_home"], params["environment"], os.environ)
    if missing and params["require_compiler"]:
        listed = "\n- ".join(missing)
        module.fail_json(
            missing=missing,
            msg="FlashInfer's kernels could not be compiled on this host, which has a GPU and no kernel pack. "
            f"Missing:\n- {listed}",
        )
    scratch = tempfile.mkdtemp(dir=module.tmpdir)
    try:
        result = {"bound_to": look(params)} if params["kind"] == "look" else {"made": build(params, scratch)}
    except (source_tree.Refused, needs.Unreadable) as reason:
        module.fail_json(msg=str(reason), missing=missing)
    finally:
        shutil.rmtree(scratch, ignore_errors=True)
    module.exit_json(changed=params["kind"] != "look", missing=missing, **result)


if __name__ == "__main__":
    main()
