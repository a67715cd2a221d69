# Copyright (c) 2026 The ocrfleet.gpu_stack contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Hostile and unlucky inputs through the whole role: what the operator is told, word for word, and the baseline after.

One run of the playbook for all rows, a host for each. The index, git, uv and FlashInfer's source archive are real.
"""

from __future__ import annotations

import hashlib
import io
import sys
import tarfile
from collections.abc import Callable
from pathlib import Path

import light_hosts
import light_stack
import pytest
from light_hosts import LightHosts
from package_index import served

UNTOUCHED = "The environment at ENVIRONMENT was not touched."
PROVEN = "The baseline BASELINE is back and proven: ALL files, each RECORD whole, PyTorch 2.8.0+cu128 (CUDA 12.8)."

FETCH = light_hosts.REPOSITORY / "molecule/source/fetch.py"

PLAN = "Ask for FlashInfer, to plan it: "
BUILD = "Build from source, or take the wheel that is built already: "
GO_TOGETHER = (
    " Ask for versions that exist and go together (fi_version), or name a source that has what is missing "
    "(stack_default_index, stack_find_links)."
)
NO_TVM = (
    "No versions satisfy flashinfer-python==0.4.1: Because there is no version of apache-tvm-ffi==0.1.0b15 and "
    "flashinfer-python==0.4.1 depends on apache-tvm-ffi==0.1.0b15, we can conclude that flashinfer-python==0.4.1 "
    "cannot be used. And because the request asks for flashinfer-python==0.4.1, we can conclude that your requirements "
    f"are unsatisfiable.{GO_TOGETHER}"
)
NO_BUILD = (
    "the source's build asks for what the environment does not have: apache-tvm-ffi==0.1.0b15 (found none). It is "
    "built against what is installed; take a release that builds with that, or install it there first"
)
NO_PROOF = (
    "Refused: flashinfer-python==0.4.1 declares that it needs at run time what it would not have here: "
    "apache-tvm-ffi==0.1.0b15 is unavailable (there is no version of apache-tvm-ffi==0.1.0b15). That it imports "
    "without is no proof: FlashInfer needs its declared packages only when a kernel is compiled or called. Take "
    "another version, or name what can be done without in accept_unmet (flashinfer_accept_unmet)."
)
GUEST = (
    "Refused: the lock holds what nothing that was asked for depends on: guest 6.6. Expected a lock of "
    "flashinfer-python==0.3.1 and its dependencies alone; find out how that came into it (a canary tells its own "
    "lock), then make it anew, on a host with the same baseline"
)
NO_KERNELS = (
    BUILD + "FlashInfer's kernels could not be compiled on this host, which has a GPU and no kernel pack. Missing:\n- "
)


def archive_that_climbs(path: Path) -> Path:
    with tarfile.open(path, "w:gz") as archive:
        for name in ("flashinfer/pyproject.toml", "flashinfer/../../../evil"):
            entry = tarfile.TarInfo(name)
            entry.size = 1
            archive.addfile(entry, io.BytesIO(b"x"))
    return path


def archive_with_a_hard_link(hosts: LightHosts, name: str) -> Path:
    """`h` would be a link to the root of the file system, and what lies behind it a file of the environment."""
    path = hosts.folder / "hard.tar.gz"
    deep = "d/" * 10 + "s"
    target = f"h{hosts.environment(name)}/pyvenv.cfg"
    with tarfile.open(path, "w:gz") as archive:
        for member, kind, leads in (
            (deep, tarfile.SYMTYPE, "/".join([".."] * 10)),
            ("h", tarfile.LNKTYPE, deep),
            (target, tarfile.REGTYPE, ""),
        ):
            entry = tarfile.TarInfo(member)
            entry.type, entry.linkname = kind, leads
            entry.size = 1 if kind == tarfile.REGTYPE else 0
            archive.addfile(entry, io.BytesIO(b"x"))
    return path


def gpu_host(hosts: LightHosts, without: str = "", nvcc: str = "12.8") -> dict:
    """A host with a stand-in for a GPU, of whose compilers one is missing or another."""
    tools = hosts.path_without("nvidia-smi", "nvcc", "ninja", r"c\+\+|g\+\+.*")
    gpu = hosts.program("gpu", "nvidia-smi", light_hosts.GPU)
    fitting = [hosts.program(name, name, "#!/bin/sh\n") for name in ("c++", "ninja") if name != without]
    toolkit = hosts.program(f"cuda-{nvcc}/bin", "nvcc", light_hosts.NVCC.format(version=nvcc)).parent
    (toolkit / "include").mkdir(exist_ok=True)
    for header in ("curand.h", "cublasLt.h"):
        (toolkit / "include" / header).touch()
    return {
        "stack_gpu": "auto",
        "fi_method": "source",
        "fi_version": "0.3.1",
        "flashinfer_cuda_home": str(hosts.folder / "no-toolkit" if without == "nvcc" else toolkit),
        "variables": {"PATH": ":".join(map(str, [gpu, *fitting, tools]))},
    }


FLASHINFER = light_stack.WHEELS[3]
NO_HASH = "0" * 64


def release(hosts: LightHosts, folder: str, *wheels: tuple) -> dict:
    """A folder with stand-ins for releases."""
    for row in wheels:
        hosts.wheel(hosts.folder / folder, *row)
    return {"stack_find_links": [str(hosts.folder / folder)]}


def source_0_4_1(hosts: LightHosts) -> dict:
    """The real source archive of the index."""
    (archive,) = (hosts.folder / "source").glob("*0.4.1.tar.gz")
    return {"fi_version": "0.4.1", "flashinfer_source": str(archive)}


def lock_of_one(hosts: LightHosts) -> dict:
    """A lock that holds FlashInfer and not what it declares, which is nowhere to be had."""
    found = release(hosts, "needy", (*FLASHINFER[:2], "Requires-Dist: apache-tvm-ffi==0.1.0b15\n", FLASHINFER[3]))
    (wheel,) = (hosts.folder / "needy").glob("*.whl")
    path = hosts.folder / "of-one.txt"
    digest = hashlib.sha256(wheel.read_bytes()).hexdigest()
    path.write_text(f"flashinfer-python==0.3.1 --hash=sha256:{digest}\n")
    return {"flashinfer_lock": str(path), **found}


def lock_of_more(hosts: LightHosts) -> dict:
    """As a canary would tell it that wants more on all the others than was asked for: each file is there, and whole."""
    guest = ("guest", "6.6", "", {"guest.py": ""})
    found = release(hosts, "more", (*FLASHINFER[:2], "Requires-Dist: host-of-guest\n", FLASHINFER[3]), guest)
    hosts.wheel(
        hosts.folder / "more",
        "host_of_guest",
        "1.0",
        "Provides-Extra: guest\nRequires-Dist: guest; extra == 'guest'\n",
        {},
    )
    path = hosts.folder / "of-more.txt"
    digests = {
        file.name.split("-")[0]: hashlib.sha256(file.read_bytes()).hexdigest()
        for file in (hosts.folder / "more").glob("*.whl")
    }
    pins = (
        ("flashinfer_python", "flashinfer-python==0.3.1"),
        ("host_of_guest", "host-of-guest==1.0"),
        ("guest", "guest==6.6"),
    )
    path.write_text("".join(f"{pin} --hash=sha256:{digests[name]}\n" for name, pin in pins))
    return {"flashinfer_lock": str(path), **found}


def lock(hosts: LightHosts) -> dict:
    path = hosts.folder / "wrong-hash.txt"
    path.write_text(f"flashinfer-python==0.3.1 --hash=sha256:{NO_HASH}\n")
    return {"flashinfer_lock": str(path), **release(hosts, "flashinfer", FLASHINFER)}


# Name, settings of the host (from the hosts and the address of the index), what is told, what becomes of the baseline.
ROWS: list[tuple[str, Callable[[LightHosts, str], dict], str, str]] = [
    (
        "no-such-version",
        lambda hosts, _index: {"fi_version": "99.0.0"},
        PLAN
        + "No versions satisfy flashinfer-python==99.0.0: Because there is no version of flashinfer-python==99.0.0 and "
        "the request asks for flashinfer-python==99.0.0, we can conclude that your requirements are unsatisfiable."
        + GO_TOGETHER,
        UNTOUCHED,
    ),
    (
        "a-release-that-wants-another-torch",
        lambda hosts, _index: {
            "fi_version": "0.2.5",
            **release(hosts, "trap", ("flashinfer_python", "0.2.5", "Requires-Dist: torch==2.7.*\n", {})),
        },
        PLAN
        + "Refused: installing flashinfer-python==0.2.5 would move protected packages: torch 2.8.0 -> 2.7.1 (required "
        "by flashinfer-python). Why: Because flashinfer-python==0.2.5 depends on torch==2.7.* and torch==2.8.0, we can "
        "conclude that flashinfer-python==0.2.5 cannot be used. And because the request asks for "
        "flashinfer-python==0.2.5, we can conclude that your requirements are unsatisfiable. Take a release whose "
        "needs are met here (fi_version: auto), or leave what may move out of protect (flashinfer_protect).",
        UNTOUCHED,
    ),
    ("0.4.1-by-pypi", lambda hosts, _index: {"fi_method": "pypi", **source_0_4_1(hosts)}, PLAN + NO_TVM, UNTOUCHED),
    (
        "0.4.1-by-source",
        lambda hosts, _index: {"fi_method": "source", **source_0_4_1(hosts)},
        BUILD + NO_BUILD,
        UNTOUCHED,
    ),
    (
        "0.4.1-by-constrained",
        lambda hosts, _index: {"fi_method": "constrained", **source_0_4_1(hosts)},
        PLAN + NO_PROOF,
        UNTOUCHED,
    ),
    (
        "0.4.1-by-auto",
        lambda hosts, _index: {"fi_method": "auto", **source_0_4_1(hosts)},
        "Fail where none led to a verified FlashInfer: No method led to a verified FlashInfer 0.4.1.\n"
        f"pypi: {PLAN}{NO_TVM}\nsource: {BUILD}{NO_BUILD}\nconstrained: {PLAN}{NO_PROOF}",
        UNTOUCHED,
    ),
    (
        "a-cubin-of-another-version",
        lambda hosts, _index: {
            "installed": ("flashinfer-cubin==0.6.13",),
            **release(hosts, "cubin", FLASHINFER, ("flashinfer_cubin", "0.6.13", "", {"flashinfer_cubin/x": ""})),
        },
        "Fail when an item failed: The stack at ENVIRONMENT is not in order: FlashInfer imports (flashinfer): "
        "flashinfer-cubin is 0.6.13, it must match flashinfer-python 0.3.1: install that, or none",
        PROVEN,
    ),
    (
        "a-lock-without-what-its-release-declares",
        lambda hosts, _index: lock_of_one(hosts),
        PLAN
        + "Refused: the lock cannot be installed as it is: Because there is no version of apache-tvm-ffi==0.1.0b15 and "
        "flashinfer-python==0.3.1 depends on apache-tvm-ffi==0.1.0b15, we can conclude that flashinfer-python==0.3.1 "
        "cannot be used. And because the request asks for flashinfer-python==0.3.1, we can conclude that your "
        "requirements are unsatisfiable. Expected a lock that holds all that its packages declare and the environment "
        "does not have; make it anew, on a host with the same baseline",
        UNTOUCHED,
    ),
    (
        "a-lock-without-a-declared-need",
        lambda hosts, _index: {"fi_method": "constrained", **lock_of_one(hosts)},
        PLAN + "Refused: flashinfer-python==0.3.1 declares that it needs at run time what it would not have here: "
        "apache-tvm-ffi==0.1.0b15 is unavailable (the lock does not hold it). That it imports without is no proof: "
        "FlashInfer needs its declared packages only when a kernel is compiled or called. Take another version, or "
        "name what can be done without in accept_unmet (flashinfer_accept_unmet).",
        UNTOUCHED,
    ),
    (
        "a-lock-with-a-guest",
        lambda hosts, _index: lock_of_more(hosts),
        PLAN + GUEST,
        UNTOUCHED,
    ),
    (
        "a-lock-with-a-guest-by-constrained",
        lambda hosts, _index: {"fi_method": "constrained", **lock_of_more(hosts)},
        PLAN + GUEST,
        UNTOUCHED,
    ),
    (
        "a-wheel-of-another-hash-than-the-lock-says",
        lambda hosts, _index: lock(hosts),
        "Ask for FlashInfer, to install it: TOOLS/uv ended with exit code 1\nUsing CPython PYTHON interpreter "
        "at: ENVIRONMENT/bin/python\nResolved 1 package in TIME\nerror: Failed to download `flashinfer-python==0.3.1`\n"
        "  cause: Hash mismatch for `flashinfer-python==0.3.1`\n         Expected:\n"
        f"           sha256:{NO_HASH}\n         Computed:\n           sha256:FOUND\n"
        "Expected the file that the lock names, found another of the same name. Find out which of the two is its "
        "maker's before anything else; then correct the source that has the other, or make the lock anew.",
        PROVEN,
    ),
    (
        "a-wheel-that-writes-over-a-file-of-another-package",
        lambda hosts, _index: release(
            hosts,
            "guest",
            (*FLASHINFER[:2], "", {**FLASHINFER[3], "vllm/__init__.py": "x" * len(light_stack.STAND_IN)}),
        ),
        "Ask for FlashInfer, to install it: files of packages that must stay: SITE/vllm/__init__.py of vllm was "
        "written over by flashinfer-python. Expected packages that bring files of their own only; take another release "
        "of the one that did, and look into where it came from",
        PROVEN,
    ),
    (
        "an-index-for-one-package-that-has-a-torch-too",
        lambda hosts, index: {
            "flashinfer_jit_cache_index": f"http://{index}/simple",
            "flashinfer_require_companions": True,
            **release(hosts, "whole", FLASHINFER, ("flashinfer_cubin", "0.3.1", "", {"flashinfer_cubin/x": ""})),
        },
        PLAN + "No versions satisfy flashinfer-python==0.3.1, flashinfer-cubin==0.3.1, flashinfer-jit-cache==0.3.1: "
        "Because only torch<=NEWEST is available and all versions of flashinfer-jit-cache depend on torch>=99, we can "
        "conclude that all versions of flashinfer-jit-cache cannot be used. And because the request asks for "
        "flashinfer-jit-cache==0.3.1, we can conclude that your requirements are unsatisfiable." + GO_TOGETHER,
        UNTOUCHED,
    ),
    (
        "a-repository-that-asks-for-a-password",
        lambda hosts, index: {"fi_method": "source", "flashinfer_source": f"http://ocr:hunter2@{index}/x.git"},
        BUILD
        + "cannot take v0.3.1 from http://INDEX/x.git: git ended with exit code 128\nfatal: Authentication failed for "
        "'http://INDEX/x.git/'. Expected a tag or a commit that can be read without being asked for a password: "
        "correct the URL or the ref, or give the host's user access",
        UNTOUCHED,
    ),
    (
        "a-source-archive-that-climbs-out",
        lambda hosts, _index: {
            "fi_method": "source",
            "flashinfer_source": str(archive_that_climbs(hosts.folder / "climbs.tar.gz")),
        },
        BUILD
        + "climbs.tar.gz is not safe to unpack: flashinfer/../../../evil: its path leads out of the archive. Nothing "
        "was unpacked; take the archive from its maker, with a checksum",
        UNTOUCHED,
    ),
    (
        "a-source-archive-that-writes-through-a-hard-link",
        lambda hosts, _index: {
            "fi_method": "source",
            "flashinfer_source": str(
                archive_with_a_hard_link(hosts, "a-source-archive-that-writes-through-a-hard-link")
            ),
        },
        BUILD
        + "hard.tar.gz is not safe to unpack: h: it is a hard link to d/d/d/d/d/d/d/d/d/d/s, which is a link itself. "
        "Nothing was unpacked; take the archive from its maker, with a checksum",
        UNTOUCHED,
    ),
    (
        "a-checksum-of-a-repository",
        lambda _hosts, index: {
            "fi_method": "source",
            "flashinfer_source": f"http://{index}/x.git",
            "flashinfer_source_checksum": f"sha256:{NO_HASH}",
        },
        BUILD + "expected flashinfer_source_checksum with an archive only, found it with the git repository "
        "http://INDEX/x.git, of which it can hold nothing; name a commit in flashinfer_source_ref instead, which git "
        "holds everything against",
        UNTOUCHED,
    ),
    (
        "a-name-that-protects-nothing",
        lambda hosts, _index: {"flashinfer_protect": ["tourch"], **release(hosts, "flashinfer", FLASHINFER)},
        PLAN + "Refused: expected names or patterns of installed packages to protect, found none installed for tourch; "
        "correct them, or leave them out (flashinfer_protect): they hold nothing in its place.",
        UNTOUCHED,
    ),
    (
        "no-compiler",
        lambda hosts, _index: gpu_host(hosts, without="c++"),
        NO_KERNELS + "C++ compiler: expected c++ on PATH, found none; install g++",
        UNTOUCHED,
    ),
    (
        "no-ninja",
        lambda hosts, _index: gpu_host(hosts, without="ninja"),
        NO_KERNELS + "ninja: expected it on PATH, found none; install the package ninja into the environment",
        UNTOUCHED,
    ),
    (
        "no-nvcc",
        lambda hosts, _index: gpu_host(hosts, without="nvcc"),
        NO_KERNELS + "nvcc: expected one at FOLDER/no-toolkit/bin/nvcc that tells its version, found none; install the "
        "toolkit anew, or set CUDA_HOME\n- curand.h: expected it in FOLDER/no-toolkit/include, found none; install the "
        "CUDA toolkit's headers\n- cublasLt.h: expected it in FOLDER/no-toolkit/include, found none; install the CUDA "
        "toolkit's headers",
        UNTOUCHED,
    ),
    (
        "an-nvcc-of-another-version",
        lambda hosts, _index: gpu_host(hosts, nvcc="13.0"),
        NO_KERNELS + "nvcc 12.8: found 13.0 at FOLDER/cuda-13.0/bin/nvcc; install the CUDA 12.8 toolkit, or set "
        "flashinfer_cuda_home to it",
        UNTOUCHED,
    ),
]


@pytest.fixture(scope="module")
def hosts(make_hosts: Callable[[], LightHosts], request: pytest.FixtureRequest) -> LightHosts:
    """All rows that are asked for, after the run."""
    hosts = make_hosts()
    hosts.call(sys.executable, FETCH, "flashinfer-python==0.4.1", hosts.folder / "source")
    only = hosts.folder / "index"
    hosts.wheel(only, "torch", "99.0.0", "", {})
    hosts.wheel(only, "flashinfer_jit_cache", "0.3.1", "Requires-Dist: torch>=99\n", {})
    chosen = {item.callspec.params["name"] for item in request.session.items if item.fspath == request.fspath}
    with served(only) as index:
        for name, settings, _said, _ending in ROWS:
            if name in chosen:
                hosts.add(name, **settings(hosts, index))
        print(hosts.run())
    return hosts


@pytest.mark.parametrize(
    ("name", "said", "ending"), [pytest.param(name, said, ending, id=name) for name, _settings, said, ending in ROWS]
)
def test_it_is_told_and_the_baseline_is_proven(hosts: LightHosts, name: str, said: str, ending: str) -> None:
    assert hosts.changes(name) == []
    assert [line for line in hosts.failure(name).splitlines() if line] == f"{said}\n{ending}".splitlines()
