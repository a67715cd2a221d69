# Copyright (c) 2026 The ocrfleet.gpu_stack contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The fingerprints of the public keys in a keyring, without gpg, which a bare host does not have.

RFC 4880: packet headers in section 4.2, armor in 6.2, fingerprints of version 4 keys in 12.2. Only reading: whether a
signature is right is for apt and rpm to say.
"""

from __future__ import annotations

import base64
import hashlib
import re

PUBLIC_KEY = 6
_ARMOR = re.compile(rb"-----BEGIN PGP PUBLIC KEY BLOCK-----\r?\n(.*?)-----END PGP PUBLIC KEY BLOCK-----", re.DOTALL)


class NoKeyring(ValueError):
    """What was given is no keyring."""


def dearmored(data: bytes) -> bytes:
    """The packets of a keyring, whether it is armored text or binary."""
    blocks = _ARMOR.findall(data)
    if not blocks:
        return data
    packets = b""
    for block in blocks:
        # Armor headers end with an empty line; the line that begins with = is a checksum.
        body = re.split(rb"\r?\n[ \t]*\r?\n", b"\n" + block, maxsplit=1)[-1]
        lines = [line for line in body.split() if not line.startswith(b"=")]
        try:
            packets += base64.b64decode(b"".join(lines), validate=True)
        except ValueError as error:
            raise NoKeyring(f"its armor cannot be read: {error}") from error
    return packets


def _packets(data: bytes) -> list[tuple[int, bytes]]:
    """Tag and body of each packet."""
    found, at = [], 0
    try:
        while at < len(data):
            header = data[at]
            if not header & 0x80:
                raise NoKeyring("it holds no OpenPGP packets")
            if header & 0x40:
                tag, first, at = header & 0x3F, data[at + 1], at + 2
                if first < 192:
                    size = first
                elif first < 224:
                    size, at = ((first - 192) << 8) + data[at] + 192, at + 1
                elif first == 255:
                    size, at = int.from_bytes(data[at : at + 4], "big"), at + 4
                else:
                    raise NoKeyring("it holds a packet in parts, which keys never are")
            else:
                tag, kind = (header >> 2) & 0x0F, header & 0x03
                if kind == 3:
                    raise NoKeyring("it holds a packet without a length")
                width = (1, 2, 4)[kind]
                size, at = int.from_bytes(data[at + 1 : at + 1 + width], "big"), at + 1 + width
            if at + size > len(data):
                raise NoKeyring("it is cut short")
            found.append((tag, data[at : at + size]))
            at += size
    except IndexError:
        raise NoKeyring("it is cut short") from None
    return found


def fingerprints(data: bytes) -> list[str]:
    """The fingerprint of each primary key, in capital hexadecimal digits."""
    found = []
    for tag, body in _packets(dearmored(data)):
        if tag != PUBLIC_KEY:
            continue
        if body[:1] != b"\x04":
            raise NoKeyring(f"it holds a key of version {body[0] if body else 'unknown'}; version 4 is read here")
        # The algorithm that the format prescribes for fingerprints; nothing else is hashed with it here.
        found.append(hashlib.sha1(b"\x99" + len(body).to_bytes(2, "big") + body).hexdigest().upper())  # noqa: S324
    if not found:
        raise NoKeyring("it holds no public key")
    return found
