# Copyright (c) 2026 The ocrfleet.gpu_stack contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Keep the secrets that a URL may carry (user, password, query) out of every text that leaves the collection."""

from __future__ import annotations

import re
import urllib.parse
from collections.abc import Iterable, Mapping
from typing import Any

# Greedy: a password may hold an @. No URL has a / before its host ends.
_USER = re.compile(r"(?<=://)[^/\s]*@")
_QUERY = re.compile(r"(?<=://)([^\s?'\"`]*)\?[^\s'\"`#]*")


def without_secrets(text: str) -> str:
    """The text with each URL in it less its user, its password and its query."""
    return _QUERY.sub(r"\1", _USER.sub("", text))


def secrets(text: str) -> set[str]:
    """The parts of the URLs in a text that are to be seen nowhere."""
    queries = {found[0].partition("?")[2] for found in _QUERY.finditer(text)}
    return {*_USER.findall(text), *queries} - {"", "@"}


def of_sources(sources: Mapping[str, Any]) -> list[str]:
    """The URLs of a module's option `sources`."""
    indexes = [index["url"] for index in sources.get("indexes") or []]
    return [sources.get("default_index") or "", *indexes, *(sources.get("find_links") or [])]


def hide(module: Any, urls: Iterable[str]) -> None:
    """Have Ansible take what is secret in these URLs out of all that the module returns, its arguments among it.

    The options themselves are no secrets: marked `no_log`, a mirror's plain address would be told nowhere.
    """
    for url in urls:
        module.no_log_values.update(secrets(url))


def plain(url: str) -> tuple[str, str, str]:
    """An http(s) URL less its user and password, and these two decoded; another URL as it is."""
    parts = urllib.parse.urlsplit(url)
    user, at, host = parts.netloc.rpartition("@")
    if not at or parts.scheme not in ("http", "https"):
        return url, "", ""
    name, _colon, password = user.partition(":")
    bare = urllib.parse.urlunsplit(parts._replace(netloc=host))
    return bare, urllib.parse.unquote(name), urllib.parse.unquote(password)
