#!/usr/bin/env python3
# Copyright (c) 2026 The ocrfleet.gpu_stack contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Make wheels that stand in for PyTorch, vllm, OlmOCR and FlashInfer: light_stack.py FOLDER [MEGABYTES]

They carry the names and versions of the real ones, so that the roles take a host through everything in seconds instead
of gigabytes. Nothing in them computes anything. MEGABYTES puts that much ballast into FlashInfer, for counting bytes.
On a host, the file ~/stand-in-fault decides how FlashInfer imports: `broken` raises; a number is seconds of sleep, and
the file ~/stand-in-sleeps tells that they have begun.
"""

from __future__ import annotations

import base64
import hashlib
import random
import sys
import zipfile
from pathlib import Path

STAND_IN = '"""A stand-in for tests; it computes nothing."""\n'
FLASHINFER = (
    STAND_IN
    + """
import pathlib
import time

__version__ = "0.3.1"
_fault = pathlib.Path.home() / "stand-in-fault"
if _fault.exists():
    _told = _fault.read_text().strip()
    if _told == "broken":
        raise RuntimeError("this host is broken on purpose")
    (_fault.parent / "stand-in-sleeps").touch()
    time.sleep(float(_told))
"""
)
SHOW_CONFIG = (
    STAND_IN
    + """
print("=== Version Info ===\\nFlashInfer version: 0.3.1\\n=== Torch Version Info ===\\nTorch version: 2.8.0+cu128")
print("=== Artifact Path ===")
"""
)
TORCH = (
    STAND_IN
    + """
from types import SimpleNamespace

from .version import __version__, cuda as _cuda

version = SimpleNamespace(cuda=_cuda)


def _no_gpu():
    raise RuntimeError("the stand-in for PyTorch has no CUDA")


cuda = SimpleNamespace(is_available=lambda: False, init=_no_gpu, device_count=lambda: 0)
"""
)
VLLM_EXTRA = "Provides-Extra: flashinfer\nRequires-Dist: flashinfer-python==0.3.1 ; extra == 'flashinfer'\n"

# Name, version, further metadata, files.
WHEELS: list[tuple[str, str, str, dict[str, str]]] = [
    (
        "torch",
        "2.8.0",
        "",
        {"torch/__init__.py": TORCH, "torch/version.py": "__version__ = '2.8.0+cu128'\ncuda = '12.8'\n"},
    ),
    (
        "vllm",
        "0.11.0",
        VLLM_EXTRA,
        {
            f"vllm/{name}": STAND_IN
            for name in (
                "__init__.py",
                "entrypoints/__init__.py",
                "entrypoints/openai/__init__.py",
                "entrypoints/openai/api_server.py",
            )
        },
    ),
    ("olmocr", "0.4.2", "", {"olmocr/__init__.py": STAND_IN, "olmocr/pipeline.py": STAND_IN}),
    (
        "flashinfer_python",
        "0.3.1",
        "",
        {"flashinfer/__init__.py": FLASHINFER, "flashinfer/__main__.py": SHOW_CONFIG},
    ),
]


def wheel(folder: Path, name: str, version: str, metadata: str, files: dict[str, bytes]) -> None:
    info = f"{name}-{version}.dist-info"
    head = f"Metadata-Version: 2.1\nName: {name.replace('_', '-')}\nVersion: {version}\n{metadata}"
    contents = {
        **files,
        f"{info}/METADATA": head.encode(),
        f"{info}/WHEEL": b"Wheel-Version: 1.0\nGenerator: stand-in\nRoot-Is-Purelib: true\nTag: py3-none-any\n",
    }
    record = ""
    for path, content in contents.items():
        digest = base64.urlsafe_b64encode(hashlib.sha256(content).digest()).decode().rstrip("=")
        record += f"{path},sha256={digest},{len(content)}\n"
    contents[f"{info}/RECORD"] = f"{record}{info}/RECORD,,\n".encode()
    folder.mkdir(parents=True, exist_ok=True)
    with zipfile.ZipFile(folder / f"{name}-{version}-py3-none-any.whl", "w") as archive:
        for path, content in contents.items():
            # A fixed time: the same wheel has the same hash wherever it is made.
            archive.writestr(zipfile.ZipInfo(path, (2026, 1, 1, 0, 0, 0)), content)


def main() -> None:
    folder = Path(sys.argv[1])
    megabytes = int(sys.argv[2]) if len(sys.argv) > 2 else 0
    for name, version, metadata, files in WHEELS:
        contents = {path: text.encode() for path, text in files.items()}
        if megabytes and name == "flashinfer_python":
            contents["flashinfer/ballast.bin"] = random.Random(1).randbytes(megabytes * 1024**2)  # noqa: S311
        wheel(folder, name, version, metadata, contents)


if __name__ == "__main__":
    main()
