# Copyright (c) 2026 The ocrfleet.gpu_stack contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
from __future__ import annotations

from pathlib import Path

import pytest
from ansible_collections.ocrfleet.gpu_stack.plugins.module_utils import openpgp
from ansible_collections.ocrfleet.gpu_stack.plugins.modules import pinned_key

# Made with gpg for this test; the fingerprints are what gpg --list-keys says.
KEYS = (Path(__file__).parent / "fixtures/two_keys.asc").read_bytes()
FIRST = "DAC5E702AEF71B8950CA999D17A58E68BA307490"
SECOND = "B8092916ED5A58880F23CD7ACABA7BD4D538F36F"


@pytest.mark.parametrize(
    ("keyring", "found"),
    [
        (KEYS, [FIRST, SECOND]),
        (openpgp.dearmored(KEYS), [FIRST, SECOND]),
        (KEYS.replace(b"\n", b"\r\n"), [FIRST, SECOND]),
        # New packet headers, as other tools write them: the same body, the same fingerprint.
        (b"\xc6\x33" + openpgp.dearmored(KEYS)[2:53], [FIRST]),
        (b"\xc6\xff\x00\x00\x00\x33" + openpgp.dearmored(KEYS)[2:53], [FIRST]),
    ],
)
def test_fingerprints_are_those_that_gpg_says(keyring, found):
    assert openpgp.fingerprints(keyring) == found


@pytest.mark.parametrize(
    ("keyring", "said"),
    [
        (b"<html>not found</html>", "no OpenPGP packets"),
        (b"", "no public key"),
        (openpgp.dearmored(KEYS)[:40], "cut short"),
        (openpgp.dearmored(KEYS)[:1], "cut short"),
        (b"\x98\x01\x03", "version 3"),
        (b"\x9b", "without a length"),
        (b"-----BEGIN PGP PUBLIC KEY BLOCK-----\n\n!!!!\n-----END PGP PUBLIC KEY BLOCK-----\n", "armor"),
    ],
)
def test_what_is_no_keyring_is_told(keyring, said):
    with pytest.raises(openpgp.NoKeyring, match=said):
        openpgp.fingerprints(keyring)


@pytest.mark.parametrize(
    ("pinned", "refused"),
    [
        ([FIRST, SECOND], False),
        ([f"{FIRST[:4].lower()} {FIRST[4:]}", SECOND], False),
        ([FIRST], True),  # a second key in the ring would be trusted as much as the first
        ([FIRST[-16:], SECOND], True),  # a short id is no fingerprint
    ],
)
def test_every_key_of_a_ring_must_be_pinned(pinned, refused):
    text = pinned_key.refusal(openpgp.fingerprints(KEYS), [pinned_key.normal(fingerprint) for fingerprint in pinned])
    assert bool(text) is refused
