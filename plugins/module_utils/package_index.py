# Copyright (c) 2026 The ocrfleet.gpu_stack contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Which package index uv will ask, and whether it answers. What it has is for uv to say."""

from __future__ import annotations

import os
import ssl
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any
from urllib.error import HTTPError

from ansible.module_utils.urls import open_url
from ansible_collections.ocrfleet.gpu_stack.plugins.module_utils import redaction

# That uv takes one from: https://docs.astral.sh/uv/reference/environment/
VARIABLES = ("UV_DEFAULT_INDEX", "UV_INDEX_URL")

_SECONDS = 15


@dataclass(frozen=True)
class Index:
    """`url` is empty where uv's default or a configuration file of uv's decides, which is not read here."""

    url: str
    named_by: str

    def told(self) -> str:
        """For people, without secrets."""
        if not self.url:
            return self.named_by
        url = redaction.without_secrets(self.url)
        return url if self.named_by == "stack_default_index" else f"{url} ({self.named_by})"


def in_effect(sources: Mapping[str, Any], environ: Mapping[str, str], etc: str = "/etc") -> Index:
    """The index of a run with these sources, as uv chooses it on the host. pip's settings are none of uv's."""
    if sources.get("default_index"):
        return Index(str(sources["default_index"]), "stack_default_index")
    for name in VARIABLES:
        if environ.get(name):
            return Index(environ[name], name)
    own = environ.get("XDG_CONFIG_HOME") or os.path.join(environ.get("HOME", "/nonexistent"), ".config")
    for path in (environ.get("UV_CONFIG_FILE", ""), os.path.join(own, "uv/uv.toml"), os.path.join(etc, "uv/uv.toml")):
        if path and os.path.exists(path):
            return Index("", f"what {path} says")
    return Index("", "uv's default")


def unreachable(index: Index, ca_bundle: str = "") -> str:
    """Why an index does not answer at all, as a problem of the preflight; "" where it does, or cannot be asked here."""
    if not index.url.startswith(("http://", "https://")):
        return ""
    # A package's page: the root of an index has a line for each package that there is.
    try:
        open_url(f"{index.url.rstrip('/')}/packaging/", timeout=_SECONDS, ca_path=ca_bundle or None).close()
    except HTTPError:
        return ""  # it answers; uv will say what is wrong with that
    except (OSError, ValueError) as error:
        reason = getattr(error, "reason", error)
        if isinstance(reason, ssl.SSLError) and index.named_by != "stack_default_index":
            return ""  # uv has certificates, and settings for them, of its own
        correct = "correct stack_default_index"
        if index.named_by != "stack_default_index":
            correct = "name a mirror by stack_default_index (uv does not read pip's settings)"
        return (
            f"index: expected an answer from {index.told()}, found none ({reason}); check the network, or {correct}; "
            "where the cache has everything, set stack_offline"
        )
    return ""
