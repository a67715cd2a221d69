# Copyright (c) 2026 The ocrfleet.gpu_stack contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""A pack comes back as it was packed, and one that does not fit is refused with the reason."""

from __future__ import annotations

import io
import json
import os
import tarfile
from pathlib import Path

import pytest
from ansible_collections.ocrfleet.gpu_stack.plugins.module_utils import kernel_pack
from ansible_collections.ocrfleet.gpu_stack.plugins.modules import kernel_pack as module

HERE = {
    "flashinfer": "0.6.13",
    "torch": "2.8.0+cu128",
    "cuda": "12.8",
    "python": "cp311",
    "architecture": "90",
    "machine": "x86_64",
}
MODULES = {"sampling": b"\x7fELF libcudart.so.12\0", "page": b"\x7fELF"}


def archive(path: Path, files: dict[str, bytes]) -> str:
    with tarfile.open(path, "w") as tar:
        for name, content in files.items():
            entry = tarfile.TarInfo(name)
            entry.size = len(content)
            tar.addfile(entry, io.BytesIO(content))
    return str(path)


def listing(**changes: object) -> bytes:
    return json.dumps({**kernel_pack.manifest(MODULES, HERE), **changes}).encode()


def test_there_and_back(tmp_path: Path) -> None:
    content = kernel_pack.pack(MODULES, HERE)
    assert content == kernel_pack.pack(dict(reversed(list(MODULES.items()))), HERE)
    path = tmp_path / "pack.tar.xz"
    path.write_bytes(content)
    listed, modules = kernel_pack.unpack(str(path))
    assert modules == MODULES
    assert kernel_pack.mismatches(listed, HERE) == []
    folder = str(tmp_path / "aot")
    assert kernel_pack.to_place(modules, folder) == ["page", "sampling"]
    kernel_pack.place(modules, ["page", "sampling"], folder)
    assert kernel_pack.to_place(modules, folder) == []
    assert (tmp_path / "aot" / "sampling" / "sampling.so").read_bytes() == MODULES["sampling"]
    assert not list(tmp_path.rglob("*.new"))


def test_a_hard_link_keeps_its_content(tmp_path: Path) -> None:
    """In a candidate the file may be the one that services use."""
    live = tmp_path / "live.so"
    live.write_bytes(b"old")
    (tmp_path / "aot" / "page").mkdir(parents=True)
    os.link(live, tmp_path / "aot" / "page" / "page.so")
    kernel_pack.place(MODULES, ["page"], str(tmp_path / "aot"))
    assert live.read_bytes() == b"old"
    assert (tmp_path / "aot" / "page" / "page.so").read_bytes() == MODULES["page"]


@pytest.mark.parametrize("key", kernel_pack.KEYS)
def test_what_a_pack_is_bound_to(key: str) -> None:
    listed = json.loads(listing(**{key: "other"}))
    assert kernel_pack.mismatches(listed, HERE) == [f"{key}: expected {HERE[key]}, the pack has other"]


SO = {"sampling/sampling.so": MODULES["sampling"], "page/page.so": MODULES["page"]}


@pytest.mark.parametrize(
    ("files", "says"),
    [
        ({}, "expected manifest.json"),
        ({"manifest.json": b"{"}, "expected manifest.json"),
        ({"manifest.json": b"[]"}, "expected manifest.json"),
        ({"manifest.json": listing(format=2), **SO}, "expected a kernel pack of format 1, found 2"),
        ({"manifest.json": listing(), "page/page.so": MODULES["page"]}, "sampling is missing"),
        ({"manifest.json": listing(), **SO, "page/page.so": b"changed"}, "page is not what its checksum says"),
        ({"manifest.json": listing(modules={"../../evil": {"sha256": ""}})}, "'../../evil' is no module's name"),
        ({"manifest.json": listing(), **SO, "../evil": b""}, "found also ../evil"),
    ],
)
def test_refused(tmp_path: Path, files: dict[str, bytes], says: str) -> None:
    with pytest.raises(kernel_pack.Refused, match=says.replace("[", r"\[")):
        kernel_pack.unpack(archive(tmp_path / "pack.tar", files))


@pytest.mark.parametrize("content", [None, b"", b"not an archive", kernel_pack.pack(MODULES, HERE)[:200]])
def test_no_pack_at_all(tmp_path: Path, content: bytes | None) -> None:
    path = tmp_path / "pack"
    if content is not None:
        path.write_bytes(content)
    with pytest.raises(kernel_pack.Refused, match="no kernel pack"):
        kernel_pack.unpack(str(path))


def test_modules_of_another_cuda_are_not_packed(tmp_path: Path) -> None:
    path = tmp_path / "sampling.so"
    path.write_bytes(b"\x7fELF libcudart.so.13\0")
    with pytest.raises(kernel_pack.Refused, match="sampling: expected a module for CUDA 12.8, found .*libcudart.so.13"):
        kernel_pack.collect({"sampling": str(path)}, HERE)
    with pytest.raises(kernel_pack.Refused, match="expected compiled modules, found none"):
        kernel_pack.collect({}, HERE)


def test_only_modules_of_this_version_and_architecture_are_packed() -> None:
    def one(name: str, **changes: str) -> dict:
        return {
            "name": name,
            "path": f"/{name}",
            "origin": "cache",
            "flashinfer": "0.6.13",
            "architecture": "90a",
            **changes,
        }

    found = [
        one("a"),
        one("b", flashinfer=""),
        one("c", flashinfer="0.5.3"),
        one("d", architecture="89"),
        one("e", origin="pack"),
    ]
    assert module.in_cache(found, HERE) == {"a": "/a", "b": "/b"}


@pytest.mark.parametrize(("text", "expected"), [("9.0", "90"), ("90a", "90"), ("12.0f", "120"), ("89", "89"), ("", "")])
def test_digits(text: str, expected: str) -> None:
    assert module.digits(text) == expected
