#!/usr/bin/python
# Copyright (c) 2026 The ocrfleet.gpu_stack contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Place a repository's signing key, after its fingerprint was held against the pinned one."""

from __future__ import annotations

DOCUMENTATION = r"""
module: pinned_key
short_description: Place a repository's signing key whose fingerprint is pinned
version_added: 0.2.0
author:
  - The ocrfleet.gpu_stack contributors (@ocrfleet)
description:
  - Gets a keyring, reads the fingerprints of all keys in it, and writes it only when each is one of O(fingerprints).
    Needs no gpg.
  - A Debian package, such as NVIDIA's C(cuda-keyring), is opened and only its keyring is taken. The package is not
    installed, so nothing of it runs as root.
options:
  source:
    description:
      - URL or path on the host of a keyring, armored or binary, or of a Debian package with one.
    type: str
    required: true
  dest:
    description:
      - Where the keyring is written. A name that ends in C(.gpg) gets it in binary, as apt wants it; any other gets
        what was found.
    type: path
    required: true
  fingerprints:
    description:
      - The fingerprints that are accepted, in hexadecimal digits. Blanks do not matter.
    type: list
    elements: str
    required: true
  ca_path:
    description:
      - File of certificates that O(source) is trusted by, in place of the host's. For sites whose proxy signs anew.
    type: path
attributes:
  check_mode:
    description: Can run in check mode. The key is fetched and checked, and not written.
    support: full
  diff_mode:
    description: Returns details on what has changed, in diff mode.
    support: full
seealso:
  - module: ocrfleet.gpu_stack.cuda_toolkit
"""

EXAMPLES = r"""
- name: Place NVIDIA's key
  ocrfleet.gpu_stack.pinned_key:
    source: https://developer.download.nvidia.com/compute/cuda/repos/debian12/x86_64/cuda-keyring_1.1-1_all.deb
    dest: /usr/share/keyrings/cuda-archive-keyring.gpg
    fingerprints:
      - EB69 3B30 35CD 5710 E231 E123 A4B4 6996 3BF8 63CC
"""

RETURN = r"""
fingerprints:
  description: The fingerprints that were found.
  returned: success
  type: list
  elements: str
dest:
  description: Where the keyring is.
  returned: success
  type: str
"""

import io
import os
import re
import tarfile
import tempfile

from ansible.module_utils.basic import AnsibleModule
from ansible.module_utils.urls import fetch_file
from ansible_collections.ocrfleet.gpu_stack.plugins.module_utils import openpgp


class NoKey(Exception):
    """There is no keyring where one was expected."""


def get(module: AnsibleModule, source: str) -> bytes:
    """The bytes of a keyring, out of its package where it is in one."""
    path = fetch_file(module, source, timeout=60, ca_path=module.params["ca_path"]) if "://" in source else source
    if source.endswith(".deb"):
        return keyring_of_package(module, path)
    try:
        with open(path, "rb") as file:
            return file.read()
    except OSError as error:
        raise NoKey(str(error.strerror)) from error


def keyring_of_package(module: AnsibleModule, path: str) -> bytes:
    """The keyring that a Debian package would install."""
    # In bytes, therefore not through commands.run.
    rc, archive, said = module.run_command(["dpkg-deb", "--fsys-tarfile", path], encoding=None)
    if rc != 0:
        raise NoKey(f"it is no Debian package: {said.decode(errors='replace').strip()}")
    with tarfile.open(fileobj=io.BytesIO(archive)) as files:
        for member in files:
            if member.isfile() and re.search(r"/keyrings/[^/]+\.gpg$", member.name):
                content = files.extractfile(member)
                if content:
                    return content.read()
    raise NoKey("the package holds no keyring")


def normal(fingerprint: str) -> str:
    return re.sub(r"\s", "", fingerprint).upper()


def refusal(found: list[str], pinned: list[str]) -> str:
    """Which key is none of the pinned ones, or an empty text."""
    strange = [fingerprint for fingerprint in found if fingerprint not in pinned]
    if not strange:
        return ""
    return f"expected a key with the fingerprint {' or '.join(pinned)}, found {', '.join(strange)}"


def main() -> None:
    module = AnsibleModule(
        argument_spec={
            "source": {"type": "str", "required": True},
            "dest": {"type": "path", "required": True},
            "fingerprints": {"type": "list", "elements": "str", "required": True},
            "ca_path": {"type": "path"},
        },
        supports_check_mode=True,
    )
    source, dest = module.params["source"], module.params["dest"]
    try:
        keyring = get(module, source)
        found = openpgp.fingerprints(keyring)
    except (NoKey, openpgp.NoKeyring) as error:
        module.fail_json(msg=f"expected a keyring at {source}, found none: {error}; name another source")
    refused = refusal(found, [normal(fingerprint) for fingerprint in module.params["fingerprints"]])
    if refused:
        module.fail_json(
            msg=f"{source}: {refused}. Nothing was written. Where the owner of the repository has changed the key and "
            "says so, pin the new fingerprint; otherwise somebody else has signed it"
        )
    if dest.endswith(".gpg"):
        keyring = openpgp.dearmored(keyring)
    before = b""
    if os.path.isfile(dest):
        with open(dest, "rb") as file:
            before = file.read()
    changed = before != keyring
    if changed and not module.check_mode:
        descriptor, temporary = tempfile.mkstemp(dir=module.tmpdir)
        with os.fdopen(descriptor, "wb") as file:
            file.write(keyring)
        os.makedirs(os.path.dirname(dest), exist_ok=True)
        module.atomic_move(temporary, dest)
    if os.path.exists(dest):
        changed = module.set_mode_if_different(dest, "0644", changed)
    old = ", ".join(openpgp.fingerprints(before)) if before else "none"
    module.exit_json(
        changed=changed,
        fingerprints=found,
        dest=dest,
        diff={"before": f"{dest}: {old}\n", "after": f"{dest}: {', '.join(found)}\n"},
    )


if __name__ == "__main__":
    main()
