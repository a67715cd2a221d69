#!/usr/bin/env python3
# Copyright (c) 2026 The ocrfleet.gpu_stack contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Print, as shell assignments, the settings uv needs to reach the package index that pip is set up for.

uv does not read pip's configuration. A machine behind a mirror often has nothing else. What uv was told itself wins.
pip's extra indexes and local folders are left out: mixing indexes is what a locked install must not do.
"""

from __future__ import annotations

import ast
import os
import shlex
import subprocess
import sys
from collections.abc import Mapping

PROXIES = ("http_proxy", "https_proxy", "all_proxy", "no_proxy")


def pip_settings(listing: str) -> dict[str, str]:
    """The effective options out of `pip config list`, where later sources override earlier ones."""
    sources = {"global": 0, "install": 1, ":env:": 2}
    chosen: dict[str, tuple[int, str]] = {}
    for line in listing.splitlines():
        key, equals, value = line.partition("=")
        source, _, option = key.rpartition(".")
        if equals and source in sources and sources[source] >= chosen.get(option, (0, ""))[0]:
            chosen[option] = (sources[source], str(ast.literal_eval(value)))
    return {option: value for option, (_, value) in chosen.items()}


def index_environment(environ: Mapping[str, str], pip: Mapping[str, str]) -> dict[str, str]:
    """The variables, by name, that make uv use what pip or uv itself was set up with."""
    kept = {
        name: value
        for name, value in environ.items()
        if value
        and (
            name in ("UV_DEFAULT_INDEX", "UV_INDEX_URL", "UV_NATIVE_TLS", "UV_SYSTEM_CERTS", "UV_INSECURE_HOST")
            or name in ("SSL_CERT_FILE", "SSL_CERT_DIR")
            or name.lower() in PROXIES
        )
    }
    if not {"UV_DEFAULT_INDEX", "UV_INDEX_URL"} & kept.keys() and pip.get("index-url"):
        kept["UV_DEFAULT_INDEX"] = pip["index-url"]
    if "SSL_CERT_FILE" not in kept and pip.get("cert"):
        kept["SSL_CERT_FILE"] = pip["cert"]
    if pip.get("proxy"):
        kept.setdefault("HTTPS_PROXY", pip["proxy"])
    return kept


def pip_config() -> str:
    """What pip itself says of its settings; nothing where there is no pip."""
    command = [sys.executable, "-m", "pip", "config", "list"]
    return subprocess.run(command, capture_output=True, text=True, timeout=60, check=False).stdout


def main() -> None:
    for name, value in sorted(index_environment(os.environ, pip_settings(pip_config())).items()):
        print(f"export {name}={shlex.quote(value)}")


if __name__ == "__main__":
    main()
