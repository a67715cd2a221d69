# Copyright (c) 2026 The ocrfleet.gpu_stack contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""What the module cuda_toolkit says of repositories and packages."""

from __future__ import annotations

import platform

import ad_hoc
import pytest
from ansible_collections.ocrfleet.gpu_stack.plugins.modules import cuda_toolkit

INSTALLED = {
    "cuda-nvcc-12-8": "install",
    "libcublas-12-8": "hold",
    "libcublas-12-4": "install",
    "nvidia-open": "install",
    "libnvidia-compute-570": "hold",
    "vim": "install",
}
PARAMETERS = {
    "platforms": {
        "debian-12": {
            "manager": "apt",
            "name": "debian12",
            "architectures": {"x86_64": "x86_64"},
            "key": "key.deb",
            "packages": {"minimal": ["cuda-nvcc-{version}"]},
            "driver": ["nvidia-open", "linux-headers-{kernel}"],
        }
    },
    "version": "12.8",
    "repository": "",
    "base_url": "https://mirror.example/repos",
    "package_set": "minimal",
}


def test_the_driver_comes_with_the_headers_of_the_kernel_that_runs():
    found = cuda_toolkit.repository_of(PARAMETERS, "debian-12", "x86_64")
    assert found["driver_packages"] == ["nvidia-open", f"linux-headers-{platform.release()}"]
    assert found["packages"] == ["cuda-nvcc-12-8"]
    assert found["url"] == "https://mirror.example/repos/debian12/x86_64"


def test_what_an_upgrade_could_move():
    theirs = cuda_toolkit.toolkit_packages(INSTALLED, "12.8")
    assert list(theirs) == ["cuda-nvcc-12-8", "libcublas-12-8"]
    assert cuda_toolkit.unheld(theirs) == ["cuda-nvcc-12-8"]
    assert [name for name in INSTALLED if cuda_toolkit.DRIVER.match(name)] == ["nvidia-open", "libnvidia-compute-570"]


@pytest.mark.parametrize("url", ["https://me:word@mirror.example/cuda", "https://mirror.example/cuda?token=word"])
def test_a_password_is_refused_and_not_shown(url):
    [said] = cuda_toolkit.repository_problems(url)
    assert "expected a URL without user, password and query" in said
    assert "https://mirror.example/cuda;" in said
    assert "word@" not in said
    assert "token" not in said
    assert cuda_toolkit.repository_problems("https://mirror.example/cuda") == []


def test_a_repository_that_is_no_url_is_told():
    [said] = cuda_toolkit.repository_problems("mirror.example/cuda")
    assert "expected an http, https or file URL, found mirror.example/cuda" in said
    assert cuda_toolkit.repository_problems("") == cuda_toolkit.repository_problems("file:///srv/cuda") == []


@pytest.mark.parametrize("version", ["banana", "13", "12.8.1"])
def test_a_version_that_is_none_is_told(version):
    found = ad_hoc.run("cuda_toolkit", {"version": version, "home": "/usr/local/cuda", "platforms": {}})
    assert found["msg"].startswith(f"cuda_version: expected MAJOR.MINOR such as 12.8, found {version}; ")
