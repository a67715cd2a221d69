# Copyright (c) 2026 The ocrfleet.gpu_stack contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""A small environment made of files, for tests that need no interpreter in it."""

from __future__ import annotations

import base64
import hashlib
from pathlib import Path

SITE = "lib/python3.11/site-packages"
TORCH = "from typing import Optional\n__version__ = '2.8.0+cu128'\ncuda: Optional[str] = '12.8'\nhip = None\n"


def add_distribution(tree: Path, name: str, version: str, files: dict[str, str]) -> None:
    """Put a distribution into a tree as an installer does, with its RECORD."""
    site = tree / SITE
    info = f"{name}-{version}.dist-info"
    contents = {
        **files,
        f"{info}/METADATA": f"Metadata-Version: 2.1\nName: {name}\nVersion: {version}\n",
        f"{info}/INSTALLER": "uv\n",
    }
    rows = []
    for path, text in contents.items():
        target = site / path
        target.parent.mkdir(parents=True, exist_ok=True)
        target.unlink(missing_ok=True)  # installers replace, they do not write into files
        target.write_text(text)
        digest = base64.urlsafe_b64encode(hashlib.sha256(text.encode()).digest()).rstrip(b"=").decode()
        rows.append(f"{path},sha256={digest},{len(text.encode())}")
    (site / info / "RECORD").write_text("\n".join([*rows, f"{info}/RECORD,,", ""]))


def make_environment(tree: Path) -> Path:
    """An environment with torch's metadata, a package, a link, a note that nobody lists, and a compiled file."""
    (tree / "bin").mkdir(parents=True)
    (tree / "bin" / "python").symlink_to("/usr/bin/python3")
    (tree / "bin" / "activate").write_text("# activate\n")
    (tree / "pyvenv.cfg").write_text("home = /usr/bin\n")
    add_distribution(tree, "torch", "2.8.0", {"torch/version.py": TORCH})
    add_distribution(tree, "tool", "1.0", {"tool/__init__.py": "one = 1\n", "tool/data.bin": "data\n"})
    (tree / SITE / "extra.pth").write_text("# a path\n")
    (tree / "notes.txt").write_text("by hand\n")
    (tree / SITE / "tool" / "__pycache__").mkdir()
    (tree / SITE / "tool" / "__pycache__" / "__init__.cpython-311.pyc").write_bytes(b"cache")
    return tree
