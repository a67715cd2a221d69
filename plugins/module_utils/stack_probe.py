# Copyright (c) 2026 The ocrfleet.gpu_stack contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Import the parts of a stack in one process and write down what happened to each, line by line.

The environment's own Python runs this file as a program: it imports nothing but the standard library and what it is
told to. Each item is announced in the events file before it is tried, so whoever started this process knows what was
under way when an import took the whole process down.
"""

from __future__ import annotations

import faulthandler
import importlib
import json
import re
import sys
import time
import traceback

_CUDART = re.compile(r"/[^ ]*/libcudart[^/ ]*\.so[.0-9]*$", re.MULTILINE)


def _torch(item: dict) -> dict:
    import torch

    return {"version": str(torch.__version__), "cuda": torch.version.cuda, "file": torch.__file__}


def _gpu(item: dict) -> dict:
    import torch

    seen: dict = {"available": torch.cuda.is_available(), "devices": [], "capabilities": [], "architectures": []}
    if not seen["available"]:
        try:
            torch.cuda.init()
        except Exception as error:
            seen["problem"] = str(error).strip().splitlines()[0]
        return seen
    seen["architectures"] = torch.cuda.get_arch_list()
    for index in range(torch.cuda.device_count()):
        major, minor = torch.cuda.get_device_capability(index)
        seen["capabilities"].append(f"{major}.{minor}")
        seen["devices"].append(f"{torch.cuda.get_device_name(index)}, compute capability {major}.{minor}")
    return seen


def _import(item: dict) -> dict:
    for name in item["modules"]:
        importlib.import_module(name)
    first = sys.modules[item["modules"][0]]
    version = getattr(first, "__version__", None)
    return {"version": None if version is None else str(version), "file": getattr(first, "__file__", None)}


_KINDS = {"torch": _torch, "gpu": _gpu, "import": _import}


def _cuda_runtimes() -> list:
    """The CUDA runtime libraries that this process has loaded so far."""
    try:
        with open("/proc/self/maps", encoding="utf-8", errors="replace") as maps:
            return sorted(set(_CUDART.findall(maps.read())))
    except OSError:
        return []


def _where(error: BaseException) -> str:
    """The innermost place of an error outside this file."""
    for frame in reversed(traceback.extract_tb(error.__traceback__)):
        if frame.filename != __file__ and not frame.filename.startswith("<frozen"):
            return f" ({frame.filename}, line {frame.lineno})"
    return ""


def main(items: list, events_path: str) -> None:
    with open(events_path, "a", encoding="utf-8") as events:

        def tell(**event: object) -> None:
            events.write(json.dumps(event) + "\n")
            events.flush()

        for item in items:
            tell(event="start", name=item["name"])
            started = time.monotonic()
            seen: dict = {}
            problem = None
            # A thread of C ends the process at the limit, even while an extension module holds the interpreter's lock.
            faulthandler.dump_traceback_later(item["timeout"], exit=True)
            try:
                seen = _KINDS[item["kind"]](item)
            except BaseException as error:  # SystemExit too: a module that calls sys.exit() on import does not import
                message = " ".join(str(error).split())
                problem = f"{type(error).__name__}: {message[:600]}{_where(error)}"
            faulthandler.cancel_dump_traceback_later()
            tell(
                event="end",
                name=item["name"],
                seen=seen,
                problem=problem,
                seconds=round(time.monotonic() - started, 2),
                cuda_runtimes=_cuda_runtimes(),
            )


if __name__ == "__main__":
    faulthandler.enable()
    main(json.loads(sys.argv[1]), sys.argv[2])
