# Copyright (c) 2026 The ocrfleet.gpu_stack contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""What conda has in a prefix, put into an environment that uv made: no conda is needed, and no index of one.

It stands in for a conda environment as far as files go. conda appends to `history`, and rewrites `state` and manifests
where they lie; `WRITES` does the same, as a part of a change.
"""

from __future__ import annotations

import json
from pathlib import Path

COMMAND = "# cmd: conda install click=8.1.8"
FILES = {
    "conda-meta/history": "==> 2026-01-02 03:04:05 <==\n# cmd: conda create --name environment\n+demo::xz-5.4.6-h0\n",
    "conda-meta/state": '{"version": 1, "env_vars": {"OCR": "1"}}\n',
    "conda-meta/xz-5.4.6-h0.json": json.dumps(
        {
            "name": "xz",
            "version": "5.4.6",
            "build": "h0",
            "channel": "https://conda.example.org/demo/linux-64",
            "files": ["lib/liblzma.so.5.4.6", "share/doc/xz/README"],
        }
    ),
    "etc/conda/activate.d/xz.sh": "export XZ_DEFAULTS=--threads=2\n",
    "lib/liblzma.so.5.4.6": "no library, only its name\n" * 100,
    "share/doc/xz/README": "what conda lists in a manifest and no RECORD knows\n",
}
# Run by `sh` with the prefix as its first argument. Each of them writes into the file that is there.
WRITES = f"""
echo '{COMMAND}' >>"$1/conda-meta/history"
echo '{{"version": 1, "env_vars": {{}}}}' >"$1/conda-meta/state"
printf ' ' >>"$1/conda-meta/xz-5.4.6-h0.json"
echo '# edited by hand' >>"$1/etc/conda/activate.d/xz.sh"
"""
WRITTEN = ("conda-meta/history", "conda-meta/state", "conda-meta/xz-5.4.6-h0.json", "etc/conda/activate.d/xz.sh")


def is_conda(tree: str | Path) -> bool:
    return Path(tree, "conda-meta").is_dir()


def put_into(tree: Path) -> None:
    """Give an environment the files of a conda prefix."""
    for name, text in FILES.items():
        path = tree / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)
    (tree / "lib/liblzma.so.5").symlink_to("liblzma.so.5.4.6")


def was_written(tree: Path) -> bool:
    """Whether all of a change's writes are there."""
    return (tree / "conda-meta/history").read_text().endswith(f"{COMMAND}\n") and all(
        (tree / name).read_text() != FILES[name] for name in WRITTEN
    )
