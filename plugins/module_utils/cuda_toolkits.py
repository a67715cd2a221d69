# Copyright (c) 2026 The ocrfleet.gpu_stack contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The CUDA toolkits of a host, and which way leads to the one that is wanted."""

from __future__ import annotations

import glob
import os
from collections.abc import Callable
from dataclasses import asdict, dataclass

from ansible_collections.ocrfleet.gpu_stack.plugins.module_utils import commands, flashinfer_install

USUAL = "usr/local"
LINK = "usr/local/cuda"
NOTE = "usr/local/.ocrfleet-cuda-link"  # where the link led before a run that was killed
# The runfile's installer can be killed half-way; what it left is told apart by this file in the toolkit's folder.
STAMP = ".ocrfleet-runfile"
BEGUN, DONE = "begun", "done"
_NVCC_SECONDS = 20.0


@dataclass(frozen=True)
class Toolkit:
    """`missing` says what is not there of what FlashInfer's kernels need; `problem` why nvcc does not answer."""

    home: str
    version: str
    missing: tuple[str, ...] = ()
    problem: str = ""
    stamp: str = ""

    @property
    def whole(self) -> bool:
        return bool(self.version) and not self.missing and self.stamp != BEGUN

    def as_dict(self) -> dict:
        return {**asdict(self), "missing": list(self.missing), "whole": self.whole}


def look(home: str, run: Callable[..., commands.Result] = commands.run) -> Toolkit:
    """One toolkit as it is; without an nvcc its version is empty."""
    found = flashinfer_install.nvcc(home, run, _NVCC_SECONDS)
    missing = [header for header, path in flashinfer_install.headers(home).items() if not path]
    return Toolkit(home, found["version"], tuple(missing), found["problem"], stamp(home))


def stamp(home: str) -> str:
    """`begun`, `done`, or empty where no runfile was installed by us."""
    try:
        with open(os.path.join(home, STAMP), encoding="utf-8") as file:
            return file.readline().split(" ")[0].strip()
    except OSError:
        return ""


def survey(home: str, root: str = "/", run: Callable[..., commands.Result] = commands.run) -> list[Toolkit]:
    """The wanted home first, then all others in the usual place; links to the same folder are told once."""
    folders = [home, *sorted(glob.glob(os.path.join(root, USUAL, "cuda-[0-9]*"))), os.path.join(root, LINK)]
    seen: dict[str, str] = {}
    for folder in folders:
        # An empty one is what a run left that was killed before it began.
        if os.path.isdir(folder) and os.listdir(folder):
            seen.setdefault(os.path.realpath(folder), folder)
    return [look(folder, run) for folder in seen.values()]


def link_target(root: str = "/") -> str:
    """Where /usr/local/cuda leads, or led before a run that was killed; or an empty text."""
    try:
        with open(os.path.join(root, NOTE), encoding="utf-8") as file:
            return file.readline().strip()
    except OSError:
        pass
    path = os.path.join(root, LINK)
    return os.path.realpath(path) if os.path.lexists(path) else ""


@dataclass(frozen=True)
class Wish:
    """What is asked for, and what the host has besides toolkits."""

    version: str
    home: str
    method: str = "auto"
    gpu: bool = False
    flashinfer: bool = True
    kernel_pack: bool = False
    flashinfer_version: str = ""
    offline: bool = False
    mirror: bool = False
    supported: bool = True
    runfile: str = ""
    checksum: str = ""


@dataclass(frozen=True)
class Way:
    """The method, why it is that one, the toolkit's folder ("" for none), and what stands in the way."""

    method: str
    why: str
    home: str
    problems: tuple[str, ...] = ()


def choose(wish: Wish, found: list[Toolkit]) -> Way:
    """The way to a whole toolkit of the wanted version."""
    fitting = next((toolkit for toolkit in found if toolkit.whole and toolkit.version == wish.version), None)
    if wish.method == "none":
        return Way("none", "asked for; PyTorch's wheels bring their own CUDA runtime", "")
    if fitting and wish.method in ("auto", "existing"):
        return Way("existing", f"CUDA {wish.version} is at {fitting.home}", fitting.home)
    if wish.method == "existing":
        return Way("existing", "asked for", wish.home, (_no_existing(wish, found),))
    if wish.method == "auto":
        return _automatic(wish, found)
    return Way(wish.method, "asked for", wish.home, tuple(_obstacles(wish, found)))


def _automatic(wish: Wish, found: list[Toolkit]) -> Way:
    if not wish.gpu:
        return Way("none", "this host has no NVIDIA GPU, so no kernel is compiled here", "")
    if not wish.flashinfer:
        return Way("none", "FlashInfer is not wanted, and nothing else compiles kernels", "")
    answers = next((toolkit for toolkit in found if toolkit.version), None)
    if wish.kernel_pack and (answers or not _asks_nvcc(wish)):
        told = f", and nvcc {answers.version} at {answers.home} tells its version" if answers else ""
        return Way("none", f"the kernels come compiled, in the pack that kernel_pack_file names{told}", "")
    if wish.offline and not wish.mirror:
        return Way("none", "stack_offline is on and cuda_repository names no mirror", "")
    why = f"FlashInfer compiles its kernels on this GPU host, and there is no whole CUDA {wish.version}"
    if wish.kernel_pack:
        why = (
            f"FlashInfer {wish.flashinfer_version} asks some nvcc for its version before it takes a module of a pack, "
            "and there is none that answers"
        )
    return Way("repository", why, wish.home, tuple(_obstacles(wish, found, method="repository")))


def _asks_nvcc(wish: Wish) -> bool:
    """Whether the release that is wanted, where it is known, needs an nvcc even beside a pack."""
    first = flashinfer_install.release(flashinfer_install.PACK_WITHOUT_NVCC)
    return bool(wish.flashinfer_version) and flashinfer_install.release(wish.flashinfer_version) < first


def _no_existing(wish: Wish, found: list[Toolkit]) -> str:
    seen = "; ".join(describe(toolkit) for toolkit in found) or "none"
    return (
        f"CUDA toolkit: expected a whole {wish.version} at {wish.home} or in /usr/local, found {seen}; "
        "correct cuda_home, or choose cuda_method repository or runfile"
    )


def describe(toolkit: Toolkit) -> str:
    if toolkit.stamp == BEGUN:
        return f"{toolkit.home}, whose installation did not end"
    if not toolkit.version:
        return f"{toolkit.home} without an nvcc that answers"
    without = f" without {', '.join(toolkit.missing)}" if toolkit.missing else ""
    return f"{toolkit.version} at {toolkit.home}{without}"


def _obstacles(wish: Wish, found: list[Toolkit], method: str = "") -> list[str]:
    """What stands in the way of installing at the wanted home."""
    problems = []
    method = method or wish.method
    at_home = next((toolkit for toolkit in found if toolkit.home == wish.home), None)
    if at_home and at_home.version and at_home.version != wish.version:
        problems.append(
            f"CUDA toolkit: expected {wish.version} or nothing at {wish.home}, found {at_home.version}; "
            "correct cuda_home: other versions stay beside it"
        )
    if method == "repository":
        if not wish.supported:
            problems.append(
                "CUDA toolkit: NVIDIA's repository for this distribution and architecture is not known here; choose "
                "cuda_method runfile, existing or none"
            )
        usual = f"/usr/local/cuda-{wish.version}"
        if wish.home != usual:
            problems.append(
                f"CUDA toolkit: expected cuda_home {usual}, found {wish.home}; NVIDIA's packages install nowhere else"
            )
    if method == "runfile":
        if not wish.runfile:
            problems.append(
                "CUDA toolkit: expected cuda_runfile, found none; name a URL, or a file on the control node"
            )
        if not wish.checksum:
            problems.append(
                "CUDA toolkit: expected cuda_runfile_checksum, found none; take it from NVIDIA's page of checksums and "
                "give it as ALGORITHM:DIGEST"
            )
        if at_home and not at_home.whole and not at_home.stamp and at_home.version in ("", wish.version):
            problems.append(
                f"CUDA toolkit: expected nothing at {wish.home}, or a toolkit of this role's, found "
                f"{describe(at_home) if at_home.version else 'something without an nvcc'}; move it away, or name "
                "another folder by cuda_home"
            )
    return problems
