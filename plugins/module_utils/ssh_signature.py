# Copyright (c) 2026 The ocrfleet.gpu_stack contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Whether a file carries the signature of a trusted key, by `ssh-keygen -Y`: every host that SSH reaches has it.

The signature lies beside the file, as `ssh-keygen -Y sign -n NAMESPACE -f KEY FILE` writes it (OpenSSH 8.1 and newer).
"""

from __future__ import annotations

import base64
import hashlib
import os
import re
from collections.abc import Callable, Sequence

from ansible_collections.ocrfleet.gpu_stack.plugins.module_utils import commands

SUFFIX = ".sig"
_SIGNER = "signer"
# A line of authorized_keys without options: options would change what the key is trusted for.
_KEY = re.compile(r"(ssh|ecdsa|sk-ssh|sk-ecdsa)-[\w@.-]+ [A-Za-z0-9+/]+=*( [^\n\r]*)?")


class Unsigned(Exception):
    """A file that is not signed by a key that is trusted, with the reason."""


def fingerprint(key: str) -> str:
    """How `ssh-keygen -l` names a public key, a line as in a `.pub` file; "" where it is none."""
    if not _KEY.fullmatch(key.strip()):
        return ""
    try:
        blob = base64.b64decode(key.split()[1], validate=True)
    except ValueError:
        return ""
    return "SHA256:" + base64.b64encode(hashlib.sha256(blob).digest()).decode().rstrip("=")


def verify(
    path: str,
    signature: str,
    keys: Sequence[str],
    namespace: str,
    scratch: str,
    run: Callable[..., commands.Result] = commands.run,
) -> str:
    """The fingerprint of the key that signed `path`; `Unsigned` where none of `keys` did.

    `keys` are lines as in a `.pub` file. `scratch` is a folder of this user's own.
    """
    for key in keys:
        if not _KEY.fullmatch(key.strip()):
            raise Unsigned(
                f"expected a public key as in a .pub file of ssh-keygen, found {key.strip()[:60]!r}; copy its line"
            )
    if not os.path.isfile(signature):
        raise Unsigned(f"expected a signature at {signature}, found none")
    allowed = os.path.join(scratch, "allowed_signers")
    with open(allowed, "w", encoding="utf-8") as file:
        file.write("".join(f"{_SIGNER} {key.strip()}\n" for key in keys))
    argv = ["ssh-keygen", "-Y", "verify", "-f", allowed, "-I", _SIGNER, "-n", namespace, "-s", signature]
    result = run(argv, timeout=60, stdin_path=path)
    if result.rc == 127:
        raise Unsigned("expected ssh-keygen on PATH, found none; install the OpenSSH client")
    if not result.ok:
        said = " ".join((result.stderr or result.stdout).split())[:300]
        raise Unsigned(f"expected a signature by one of the trusted keys, found another or a changed file: {said}")
    found = re.search(r"SHA256:\S+", result.stdout)
    return found[0] if found else ""
