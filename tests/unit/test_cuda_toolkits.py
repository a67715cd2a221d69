# Copyright (c) 2026 The ocrfleet.gpu_stack contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
from __future__ import annotations

import os

import pytest
from ansible_collections.ocrfleet.gpu_stack.plugins.module_utils import cuda_toolkits, driver, nvidia
from ansible_collections.ocrfleet.gpu_stack.plugins.module_utils.cuda_toolkits import Toolkit, Wish
from ansible_collections.ocrfleet.gpu_stack.plugins.modules import cuda_link, cuda_toolkit

HOME = "/usr/local/cuda-12.8"
WHOLE = Toolkit(HOME, "12.8")
ELSEWHERE = Toolkit("/opt/cuda", "12.8")
OLDER = Toolkit("/usr/local/cuda-12.4", "12.4")
BARE = Toolkit(HOME, "12.8", missing=("curand.h",))
KILLED = Toolkit(HOME, "12.8", stamp="begun")
BROKEN = Toolkit(HOME, "", problem="nvcc ended with exit code 1")


def make_toolkit(home, version="12.8", headers=("curand.h", "cublasLt.h")):
    for folder in ("bin", "include"):
        (home / folder).mkdir(parents=True)
    nvcc = home / "bin/nvcc"
    nvcc.write_text(f"#!/bin/sh\necho 'Cuda compilation tools, release {version}, V{version}.61'\n")
    nvcc.chmod(0o755)
    for header in headers:
        (home / "include" / header).touch()
    return home


@pytest.mark.parametrize(
    ("wish", "found", "method", "home", "said"),
    [
        # auto
        ({}, [], "none", "", []),
        ({}, [WHOLE], "existing", HOME, []),
        ({}, [OLDER, ELSEWHERE], "existing", "/opt/cuda", []),
        ({"gpu": True}, [], "repository", HOME, []),
        ({"gpu": True}, [OLDER], "repository", HOME, []),
        ({"gpu": True}, [BARE], "repository", HOME, []),
        ({"gpu": True}, [KILLED], "repository", HOME, []),
        ({"gpu": True, "flashinfer": False}, [], "none", "", []),
        ({"gpu": True, "kernel_pack": True}, [], "none", "", []),
        ({"gpu": True, "kernel_pack": True, "flashinfer_version": "0.5.3"}, [], "none", "", []),
        # Releases before 0.5 ask some nvcc for its version before they take a module of a pack.
        ({"gpu": True, "kernel_pack": True, "flashinfer_version": "0.3.1"}, [], "repository", HOME, []),
        ({"gpu": True, "kernel_pack": True, "flashinfer_version": "0.3.1"}, [BROKEN], "repository", HOME, []),
        ({"gpu": True, "kernel_pack": True, "flashinfer_version": "0.3.1"}, [OLDER], "none", "", []),
        ({"gpu": True, "offline": True}, [], "none", "", []),
        ({"gpu": True, "offline": True, "mirror": True}, [], "repository", HOME, []),
        ({"gpu": True, "supported": False}, [], "repository", HOME, ["NVIDIA's repository for this distribution"]),
        # asked for
        ({"method": "none", "gpu": True}, [WHOLE], "none", "", []),
        ({"method": "existing"}, [WHOLE], "existing", HOME, []),
        ({"method": "existing"}, [OLDER], "existing", HOME, ["found 12.4 at /usr/local/cuda-12.4"]),
        ({"method": "existing"}, [], "existing", HOME, ["or in /usr/local, found none"]),
        ({"method": "existing"}, [BARE], "existing", HOME, ["found 12.8 at /usr/local/cuda-12.8 without curand.h"]),
        ({"method": "existing"}, [KILLED], "existing", HOME, ["whose installation did not end"]),
        ({"method": "existing"}, [BROKEN], "existing", HOME, ["without an nvcc that answers"]),
        ({"method": "repository"}, [WHOLE], "repository", HOME, []),
        ({"method": "repository", "home": "/opt/cuda"}, [], "repository", "/opt/cuda", ["install nowhere else"]),
        ({"method": "runfile"}, [], "runfile", HOME, ["expected cuda_runfile,", "expected cuda_runfile_checksum"]),
        ({"method": "runfile", "runfile": "u", "checksum": "c"}, [KILLED], "runfile", HOME, []),
        ({"method": "runfile", "runfile": "u", "checksum": "c"}, [BROKEN], "runfile", HOME, ["move it away"]),
        # One that somebody else installed, and that lacks a header: ours over it would be removed with it later.
        ({"method": "runfile", "runfile": "u", "checksum": "c"}, [BARE], "runfile", HOME, ["without curand.h; move"]),
        (
            {"method": "runfile", "runfile": "u", "checksum": "c", "version": "12.9"},
            [WHOLE],
            "runfile",
            HOME,
            ["expected 12.9 or nothing at /usr/local/cuda-12.8, found 12.8"],
        ),
    ],
)
def test_the_way_to_the_toolkit(wish, found, method, home, said):
    way = cuda_toolkits.choose(Wish(**{"version": "12.8", "home": HOME, **wish}), found)
    assert (way.method, way.home) == (method, home)
    assert way.why
    assert len(way.problems) == len(said)
    for problem, text in zip(way.problems, said):
        assert text in problem


def test_toolkits_are_found_and_told_once(tmp_path):
    local = tmp_path / "usr/local"
    make_toolkit(local / "cuda-12.8")
    make_toolkit(local / "cuda-12.4", "12.4", headers=())
    (local / "cuda").symlink_to("cuda-12.4")
    found = cuda_toolkits.survey(str(local / "cuda-12.8"), str(tmp_path))
    assert [(kit.version, kit.missing, kit.whole) for kit in found] == [
        ("12.8", (), True),
        ("12.4", ("curand.h", "cublasLt.h"), False),
    ]
    assert cuda_toolkits.link_target(str(tmp_path)) == str(local / "cuda-12.4")


def test_an_installation_that_did_not_end_is_not_whole(tmp_path):
    home = make_toolkit(tmp_path / "cuda-12.8")
    assert cuda_toolkits.look(str(home)).whole
    (home / cuda_toolkits.STAMP).write_text("begun sha256:0\n")
    assert not cuda_toolkits.look(str(home)).whole
    (home / cuda_toolkits.STAMP).write_text("done sha256:0\n")
    assert cuda_toolkits.look(str(home)).whole


@pytest.mark.parametrize(
    ("files", "state", "said"),
    [
        ({}, driver.KernelState(False, False, None), []),
        ({"proc/driver/nvidia/version": b"570"}, driver.KernelState(True, False, None), []),
        ({"sys/module/nouveau/refcnt": b"1"}, driver.KernelState(False, True, None), ["nouveau:"]),
        ({driver.SECURE_BOOT: b"\x06\0\0\0\x01"}, driver.KernelState(False, False, True), ["Secure Boot:"]),
        ({driver.SECURE_BOOT: b"\x06\0\0\0\x00"}, driver.KernelState(False, False, False), []),
        (
            {driver.SECURE_BOOT: b"\x06\0\0\0\x01", "sys/module/nouveau/refcnt": b"1"},
            driver.KernelState(False, True, True),
            ["nouveau:", "Secure Boot:"],
        ),
        # A driver that is loaded was signed well enough.
        (
            {driver.SECURE_BOOT: b"\x06\0\0\0\x01", "proc/driver/nvidia/version": b"570"},
            driver.KernelState(True, False, True),
            [],
        ),
    ],
)
def test_what_keeps_the_driver_from_loading(tmp_path, files, state, said):
    for name, content in files.items():
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).write_bytes(content)
    assert driver.kernel_state(str(tmp_path)) == state
    found = driver.hindrances(state)
    assert len(found) == len(said)
    for text, start in zip(found, said):
        assert text.startswith(start)


ABSENT = nvidia.Survey(absent="nvidia-smi is not on PATH")
OLD = nvidia.Survey(driver="470.256.02", gpus=[])
GOOD = nvidia.Survey(driver="570.124.06", gpus=[])


@pytest.mark.parametrize(
    ("survey", "hardware", "wanted", "problems", "install"),
    [
        (ABSENT, [], "present", 0, False),
        (ABSENT, ["/dev/nvidia0"], "check", 2, False),
        (ABSENT, ["/dev/nvidia0"], "present", 2, True),
        (OLD, ["/dev/nvidia0"], "check", 1, False),
        (OLD, ["/dev/nvidia0"], "present", 1, True),
        (GOOD, ["/dev/nvidia0"], "present", 0, False),
    ],
)
def test_the_driver_is_installed_only_when_asked_and_needed(survey, hardware, wanted, problems, install):
    state = driver.KernelState(loaded=False, nouveau=True, secure_boot=None)
    found = cuda_toolkit.driver_report({"version": "12.8", "driver": wanted}, survey, hardware, state)
    assert (len(found["problems"]), found["install"]) == (problems, install)


PLATFORMS = {
    "debian-12": {
        "manager": "apt",
        "name": "debian12",
        "architectures": {"x86_64": "x86_64"},
        "key": "cuda-keyring_1.1-1_all.deb",
        "driver": [],
        "packages": {"minimal": ["cuda-nvcc-12-8"]},
    },
    "rocky-9": {
        "manager": "dnf",
        "name": "rhel9",
        "architectures": {"x86_64": "x86_64", "aarch64": "sbsa"},
        "key": "D42D0685.pub",
        "driver": [],
        "packages": {"minimal": ["cuda-nvcc-12-8"]},
    },
}


@pytest.mark.parametrize(
    ("mirror", "distribution", "architecture", "url", "file"),
    [
        ("", "debian-12", "x86_64", "https://n/repos/debian12/x86_64", "sources.list.d/cuda-debian12-x86_64.list"),
        ("", "rocky-9.4", "aarch64", "https://n/repos/rhel9/sbsa", "yum.repos.d/cuda-rhel9.repo"),
        ("http://m/cuda/", "debian-12", "x86_64", "http://m/cuda", "sources.list.d/cuda-debian12-x86_64.list"),
        ("", "debian-12", "aarch64", None, None),
        ("", "arch", "x86_64", None, None),
    ],
)
def test_the_repository_of_a_platform(mirror, distribution, architecture, url, file):
    params = {"platforms": PLATFORMS, "package_set": "minimal", "version": "12.8", "repository": mirror}
    params["base_url"] = "https://n/repos"
    found = cuda_toolkit.repository_of(params, distribution, architecture)
    assert found.get("url") == url
    if url:
        assert found["file"].endswith(file)
        assert found["key"].startswith(url + "/")


def test_somebody_elses_source_of_the_same_repository_is_found(tmp_path):
    url = "https://n/repos/debian12/x86_64"
    ours = tmp_path / "cuda-debian12-x86_64.list"
    ours.write_text(f"{cuda_toolkit.HEADER}\ndeb {url}/ /\n")
    (tmp_path / "commented.list").write_text(f"# deb {url}/ /\n")
    (tmp_path / "longer.list").write_text(f"deb {url}-other/ /\n")
    assert cuda_toolkit.source_file(str(tmp_path), url, str(ours)) == ""
    theirs = tmp_path / "nvidia.sources"
    theirs.write_text(f"Types: deb\nURIs: {url}\nSuites: /\n")
    assert cuda_toolkit.source_file(str(tmp_path), url, str(ours)) == str(theirs)


def test_a_file_of_nvidias_own_package_is_somebody_elses(tmp_path):
    """cuda-keyring writes the very name, with whatever address."""
    path = tmp_path / "cuda-debian12-x86_64.list"
    assert not cuda_toolkit.is_ours(str(path))
    path.write_text("deb [signed-by=/usr/share/keyrings/cuda-archive-keyring.gpg] https://n/ /\n")
    assert cuda_toolkit.source_file(str(tmp_path), "http://mirror/cuda", str(path)) == str(path)
    path.write_text(f"{cuda_toolkit.HEADER}\ndeb http://mirror/cuda/ /\n")
    assert cuda_toolkit.is_ours(str(path))


def test_where_the_link_led_is_known_after_a_kill(tmp_path):
    (tmp_path / "usr/local/cuda-12.8").mkdir(parents=True)
    link = tmp_path / cuda_toolkits.LINK
    link.symlink_to(tmp_path / "usr/local/cuda-12.8")
    assert cuda_toolkits.link_target(str(tmp_path)) == str(tmp_path / "usr/local/cuda-12.8")
    (tmp_path / cuda_toolkits.NOTE).write_text("/usr/local/cuda-12.4\n")
    assert cuda_toolkits.link_target(str(tmp_path)) == "/usr/local/cuda-12.4"


def test_a_link_is_turned_by_itself_where_no_alternatives_keep_it(tmp_path):
    for name in ("cuda-12.4", "cuda-12.8"):
        (tmp_path / name).mkdir()
    link = tmp_path / "cuda"
    link.symlink_to(tmp_path / "cuda-12.8")
    assert cuda_link.turn(str(link), str(tmp_path / "cuda-12.4")) == ""
    assert os.readlink(link) == str(tmp_path / "cuda-12.4")
    assert "cannot make" in cuda_link.turn(str(tmp_path / "nowhere/cuda"), "/tmp")  # noqa: S108 (a target, never written)
