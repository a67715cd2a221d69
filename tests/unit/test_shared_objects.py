# Copyright (c) 2026 The ocrfleet.gpu_stack contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Which glibc and libstdc++ a compiled module needs, and which of them a host has."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
from pathlib import Path

import pytest
from ansible_collections.ocrfleet.gpu_stack.plugins.module_utils import shared_objects

JAMMY = {"GLIBC": "2.35", "GLIBCXX": "3.4.30", "CXXABI": "1.3.13"}


@pytest.mark.parametrize(
    ("content", "versions"),
    [
        (b"\x7fELF\0GLIBC_2.2.5\0GLIBC_2.14\0GLIBC_2.4\0", {"GLIBC": "2.14"}),
        (b"\0GLIBCXX_3.4\0GLIBCXX_3.4.9\0GLIBCXX_3.4.32\0GLIBCXX_3.4.29\0", {"GLIBCXX": "3.4.32"}),
        (b"\0CXXABI_1.3\0CXXABI_1.3.15\0CXXABI_1.3.9\0CXXABI_FLOAT128\0", {"CXXABI": "1.3.15"}),
        (b"memcpy@GLIBC_2.14\0stat@@GLIBC_2.33\0", {"GLIBC": "2.33"}),
        (b"\0GLIBCXX_DEBUG_MESSAGE_LENGTH\0GLIBC_PRIVATE\0MYGLIBC_2.99\0_GLIBC_2.98", {}),
        (b"", {}),
    ],
)
def test_the_highest_versions_that_a_shared_object_names(content: bytes, versions: dict[str, str]) -> None:
    assert shared_objects.symbol_versions(content) == versions


@pytest.mark.skipif(not (shutil.which("c++") and shutil.which("readelf")), reason="needs a compiler and readelf")
def test_they_are_those_that_readelf_tells(tmp_path: Path) -> None:
    source, module = tmp_path / "module.cpp", tmp_path / "module.so"
    source.write_text(
        '#include <iostream>\nextern "C" void say(int x) { std::cout << std::to_string(x) << std::endl; }\n'
    )
    subprocess.run(["c++", "-shared", "-fPIC", "-g", "-o", str(module), str(source)], check=True)
    told = subprocess.run(["readelf", "-VW", str(module)], check=True, capture_output=True, text=True).stdout
    needs = told[told.index("Version needs section") :]
    expected: dict[str, str] = {}
    for family, version in re.findall(r"Name: (GLIBC|GLIBCXX|CXXABI)_([\d.]+)", needs):
        numbers = [int(part) for part in version.split(".")]
        if numbers > [int(part) for part in expected.get(family, "0").split(".")]:
            expected[family] = version
    assert set(expected) == {"GLIBC", "GLIBCXX", "CXXABI"}
    assert shared_objects.symbol_versions(module.read_bytes()) == expected
    assert shared_objects.lacking(expected, shared_objects.offered(str(tmp_path))) == [], "it loads where it was made"


def libstdcxx(folder: Path, version: str) -> None:
    """A library of this version, as far as is read of it. It needs a glibc of its own, which the host may not have."""
    folder.mkdir(parents=True)
    (folder / "libstdc++.so.6").write_bytes(b"\0GLIBCXX_3.4\0GLIBCXX_%s\0CXXABI_1.3.9\0GLIBC_2.99\0" % version.encode())


def test_what_a_host_has_is_its_glibc_and_the_libstdcxx_that_its_python_loads(tmp_path: Path) -> None:
    """Conda's Python has one beside it, which it loads before that of the system."""
    glibc = os.confstr("CS_GNU_LIBC_VERSION")
    assert glibc is not None
    libstdcxx(tmp_path / "usr/lib64", "3.4.29")
    assert shared_objects.offered(str(tmp_path / "venv"), str(tmp_path)) == {
        "GLIBC": glibc.split()[1],
        "GLIBCXX": "3.4.29",
        "CXXABI": "1.3.9",
    }
    libstdcxx(tmp_path / "conda/lib", "3.4.33")
    assert shared_objects.offered(str(tmp_path / "conda"), str(tmp_path))["GLIBCXX"] == "3.4.33"
    (tmp_path / "conda/bin").mkdir()
    (tmp_path / "conda/bin/python3").touch()
    (tmp_path / "venv/bin").mkdir(parents=True)
    (tmp_path / "venv/bin/python").symlink_to(tmp_path / "conda/bin/python3")
    assert shared_objects.offered(str(tmp_path / "venv"), str(tmp_path))["GLIBCXX"] == "3.4.33", "a venv of conda's"


def test_a_host_whose_libraries_cannot_be_told_has_no_version_of_them(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def unknown(_name: str) -> str:
        raise ValueError("unrecognized configuration name")

    monkeypatch.setattr(os, "confstr", unknown)
    assert shared_objects.offered(str(tmp_path), str(tmp_path)) == {"GLIBC": "", "GLIBCXX": "", "CXXABI": ""}


@pytest.mark.parametrize(
    ("needs", "says"),
    [
        ({"GLIBC": "2.35", "GLIBCXX": "3.4.30", "CXXABI": "1.3.13"}, []),
        ({"GLIBC": "2.4", "GLIBCXX": "3.4.9", "CXXABI": "1.3"}, []),
        ({}, []),
        ({"GLIBC": "2.38"}, ["GLIBC: expected at most 2.35, which is here, found a module that needs 2.38"]),
        (
            {"GLIBC": "2.2.5", "GLIBCXX": "3.4.32", "CXXABI": "1.3.15"},
            [
                "GLIBCXX: expected at most 3.4.30, which is here, found a module that needs 3.4.32",
                "CXXABI: expected at most 1.3.13, which is here, found a module that needs 1.3.15",
            ],
        ),
    ],
)
def test_what_a_module_needs_and_a_host_has_not(needs: dict[str, str], says: list[str]) -> None:
    assert shared_objects.lacking(needs, JAMMY) == says
    assert shared_objects.lacking(needs, {}) == [], "what the host has is not known"
