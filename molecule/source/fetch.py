#!/usr/bin/env python3
# Copyright (c) 2026 The ocrfleet.gpu_stack contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Take the source archive of a release from the package index that uv is set up for: fetch.py NAME==VERSION FOLDER"""

import hashlib
import subprocess
import sys
import tomllib
import urllib.request
from pathlib import Path

COMPILE = ["uv", "pip", "compile", "--quiet", "--no-deps", "--no-build-isolation", "--format", "pylock.toml", "-"]

# uv knows the index; pip would build the archive's metadata only to fetch it.
listed = subprocess.run(COMPILE, input=sys.argv[1], stdout=subprocess.PIPE, text=True, check=True).stdout
archive = tomllib.loads(listed)["packages"][0]["sdist"]
with urllib.request.urlopen(archive["url"], timeout=120) as answer:  # noqa: S310 (of the index that is set up)
    content = answer.read()
if hashlib.sha256(content).hexdigest() != archive["hashes"]["sha256"]:
    raise SystemExit(f"{archive['url']} is not the file that the index names")
folder = Path(sys.argv[2])
folder.mkdir(parents=True, exist_ok=True)
(folder / archive["url"].rpartition("/")[2]).write_bytes(content)
