# Copyright (c) 2026 The ocrfleet.gpu_stack contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""uv as we call it, against a script that stands in for the binary: it records its arguments and answers as told."""

from __future__ import annotations

import hashlib
import json
import subprocess
import sys
import tomllib
from pathlib import Path

import pytest
from ansible_collections.ocrfleet.gpu_stack.plugins.action import uv_packages as action
from ansible_collections.ocrfleet.gpu_stack.plugins.module_utils import uv
from ansible_collections.ocrfleet.gpu_stack.plugins.module_utils.staging import Stage

INDEX = {"name": "flashinfer", "url": "https://mirror.example/whl", "packages": ["flashinfer-jit-cache"]}

# As uv 0.13.9 prints them.
NO_SOLUTION = """\
Using Python 3.11.7 environment at: env
error: No solution found when resolving dependencies
  cause: Because there is no version of flashinfer-cubin==0.3.1 and request depends on flashinfer-cubin==0.3.1, we can
         conclude that your requirements are unsatisfiable.
"""
NO_NETWORK = "error: Request failed after 3 retries\n  cause: dns error\n"
BUILD_FAILED = "  x Failed to build `flashinfer-python==0.4.1`\n  cause: no compiler\n"


@pytest.fixture
def tool(tmp_path):
    def make(stdout="", stderr="", rc=0, **settings):
        binary = tmp_path / "uv"
        (tmp_path / "stdout").write_text(stdout)
        (tmp_path / "stderr").write_text(stderr)
        binary.write_text(
            # Nothing of what is asked for is there.
            '#!/bin/sh\ncase "$*" in *" --no-index "*) exit 1 ;; esac\n'
            f'printf "%s\\n" "$@" > {tmp_path}/argv\nenv > {tmp_path}/env\n'
            f"cat {tmp_path}/stdout\ncat {tmp_path}/stderr >&2\nexit {rc}\n"
        )
        binary.chmod(0o755)
        folder = tmp_path / "work"
        folder.mkdir(exist_ok=True)
        return uv.Uv(str(binary), Stage("/srv/env"), settings.pop("sources", uv.Sources()), str(folder), 30, **settings)

    return make


def argv(tmp_path):
    return (tmp_path / "argv").read_text().splitlines()


def test_a_dry_run_gives_the_changes_joined(tool, tmp_path):
    listed = [
        {"name": "torch", "version": "2.8.0", "action": "uninstalled"},
        {"name": "torch", "version": "2.4.1", "action": "installed"},
        {"name": "six", "version": "1.17.0", "action": "installed"},
    ]
    made = tool(json.dumps({"schema": {"version": "preview"}, "changes": listed, "dry_run": True}))
    assert made.changes(["xformers==0.0.28.post1"], ["torch==2.8.0"]) == [
        uv.Change("torch", "2.8.0", "2.4.1"),
        uv.Change("six", None, "1.17.0"),
    ]
    assert argv(tmp_path)[:5] == ["pip", "install", "--dry-run", "--output-format", "json"]
    assert argv(tmp_path)[-4:] == ["--python", "/srv/env/bin/python", "--color", "never"]
    assert (tmp_path / "work/constraints.txt").read_text() == "torch==2.8.0\n"


def test_what_is_installed_needs_no_index(tmp_path):
    """With the real uv, and an index that does not answer."""
    binary, tree, work = str(Path(sys.executable).with_name("uv")), tmp_path / "env", tmp_path / "work"
    work.mkdir()
    subprocess.run([binary, "venv", "--quiet", "--offline", "--python", sys.executable, str(tree)], check=True)
    site = f"lib/python3.{sys.version_info.minor}/site-packages"
    for name, needs in (("torch", ""), ("tool", "Requires-Dist: torch==2.8.0\n")):
        info = tree / site / f"{name}-2.8.0.dist-info"
        info.mkdir()
        (info / "METADATA").write_text(f"Metadata-Version: 2.1\nName: {name}\nVersion: 2.8.0\n{needs}")
    at_once = tmp_path / "uv"
    at_once.write_text(f'#!/bin/sh\nUV_HTTP_RETRIES=0 exec {binary} "$@"\n')  # ten seconds a call would go into retries
    at_once.chmod(0o755)
    made = uv.Uv(str(at_once), Stage(str(tree)), uv.Sources("http://127.0.0.1:9/simple"), str(work), 60)
    assert made.changes(["tool==2.8.0"], ["torch==2.8.0"]) == []
    for requirements, constraints in ((["tool==2.9"], []), (["tool"], ["torch==2.9"]), (["other"], [])):
        with pytest.raises(uv.Failed, match="127.0.0.1:9"):
            made.changes(requirements, constraints)


def test_nothing_to_do_prints_nothing(tool):
    assert tool("").changes(["six"], []) == []


@pytest.mark.parametrize(
    ("stderr", "rc", "error", "said"),
    [
        (NO_SOLUTION, 1, uv.Unsatisfiable, "there is no version of flashinfer-cubin==0.3.1 and the request asks for"),
        (NO_NETWORK, 2, uv.Failed, "dns error"),
        (BUILD_FAILED, 1, uv.Failed, "no compiler"),
    ],
)
def test_no_solution_is_told_from_a_failure(tool, stderr, rc, error, said):
    with pytest.raises(error, match=said):
        tool(stderr=stderr, rc=rc).changes(["flashinfer-cubin==0.3.1"], [])


def test_a_named_index_is_asked_for_its_packages_only(tool, tmp_path):
    made = tool(sources=uv.Sources(indexes=(INDEX,)))
    made.changes(["flashinfer_jit.cache==0.6.13", "torch==2.8.0"], [])
    request = tomllib.loads((tmp_path / "work/pyproject.toml").read_text())
    assert request["project"]["dependencies"] == ["flashinfer_jit.cache==0.6.13", "torch==2.8.0"]
    assert request["tool"]["uv"]["sources"] == {"flashinfer-jit-cache": {"index": "flashinfer"}}
    assert request["tool"]["uv"]["index"] == [
        {"name": "flashinfer", "url": "https://mirror.example/whl", "explicit": True}
    ]
    assert "--extra-index-url" not in argv(tmp_path)


def test_what_is_installed_is_what_is_locked(tool, tmp_path):
    tool().install(["six==1.17.0"], "six==1.17.0 --hash=sha256:aa\n", ["six"], ["torch==2.8.0"])
    called = argv(tmp_path)
    assert "--require-hashes" in called and "--no-deps" in called
    assert called[called.index("--reinstall-package") + 1] == "six"
    assert (tmp_path / "work/lock.txt").read_text() == "six==1.17.0 --hash=sha256:aa\n"
    # What a build in isolation fetches for itself is held by constraints of its own.
    assert (tmp_path / "work" / called[called.index("--build-constraints") + 1]).read_text() == "torch==2.8.0\n"


def test_settings_reach_uv_and_defaults_do_not(tool, tmp_path):
    tool(
        sources=uv.Sources("https://mirror.example/simple", (), ("/wheels", "/more"), True, "/ca.pem"), cache="/c"
    ).changes([], [])
    env = (tmp_path / "env").read_text().splitlines()
    for line in (
        "UV_DEFAULT_INDEX=https://mirror.example/simple",
        "UV_FIND_LINKS=/wheels,/more",
        "UV_OFFLINE=1",
        "SSL_CERT_FILE=/ca.pem",
        "UV_CACHE_DIR=/c",
        "UV_PYTHON_DOWNLOADS=never",
        "LC_ALL=C",
    ):
        assert line in env
    assert "UV_OFFLINE" not in uv.Sources().environment()


def test_sources_of_leaves_out_what_is_empty():
    assert uv.Sources.of({"default_index": "", "indexes": None, "find_links": ["/w"]}) == uv.Sources(find_links=("/w",))


# As uv 0.13.9 prints them when standard error is no terminal.
MESSAGES = """\
Resolved 25 packages in 120ms
Downloading torch (846.9MiB)
Downloading triton (148.3MiB)
Downloading sympy (6.0MiB)
 Downloaded sympy
 Downloaded triton
"""


@pytest.mark.parametrize(
    ("messages", "line"),
    [
        ("Resolved 25 packages in 120ms\n", ""),
        (MESSAGES, "2 of 3 large files, 0.2 of 1.0 GiB, largest under way: torch"),
        (MESSAGES + " Downloaded torch\n", "3 of 3 large files, 1.0 of 1.0 GiB"),
        (MESSAGES + "Prepared 25 packages in 40s\n", "everything is downloaded, installing"),
        (
            "   Building flashinfer-python==0.3.1\n",
            "0 of 1 large files, 0.0 of 0.0 GiB, largest under way: flashinfer-python",
        ),
    ],
)
def test_progress_is_one_line_of_uvs_messages(messages, line):
    assert action.describe(messages) == line


def test_files_in_local_folders_get_the_hashes_that_uv_leaves_out(tmp_path):
    (tmp_path / "Flash_Infer-1.0-py3-none-any.whl").write_bytes(b"wheel")
    (tmp_path / "flash_infer-1.0.tar.gz").write_bytes(b"archive")
    (tmp_path / "flash_infer-1.0.1.tar.gz").write_bytes(b"another release")
    lock = "flash-infer==1.0\nsix==1.17.0 \\\n    --hash=sha256:aa\n"
    made = uv.add_local_hashes(lock, lambda name: (str(tmp_path),))
    hashes = [hashlib.sha256(data).hexdigest() for data in (b"wheel", b"archive")]
    assert made == (
        f"flash-infer==1.0 \\\n    --hash=sha256:{hashes[0]} \\\n    --hash=sha256:{hashes[1]}\n"
        "six==1.17.0 \\\n    --hash=sha256:aa\n"
    )


def test_what_has_no_hash_at_all_is_not_installed(tmp_path):
    with pytest.raises(uv.Failed, match="six==1.17.0: its source gives no hash"):
        uv.add_local_hashes("six==1.17.0\n", lambda name: (str(tmp_path),))


@pytest.mark.parametrize(
    ("answer", "reason"),
    [
        ("six==1.17.0 \\\n    --hash=sha256:aa\n", None),
        ("six==1.17.0\n", "six==1.17.0: its source gives no hash"),
    ],
)
def test_what_has_no_hash_cannot_be_had(tool, answer, reason):
    found = tool(answer).obtainable("six==1.17.0")
    assert found is reason or found.startswith(reason)


def test_constraints_reach_builds_too_and_dependencies_can_be_left_out(tool, tmp_path):
    tool().changes(["six"], ["torch==2.8.0"], no_deps=True)
    called = argv(tmp_path)
    assert "--no-deps" in called
    assert called[called.index("--constraints") + 1] == called[called.index("--build-constraints") + 1]


def test_a_folder_of_wheels_can_serve_one_package_alone(tool, tmp_path):
    wheels = tmp_path / "wheels"
    wheels.mkdir()
    (wheels / "six-1.17.0-py3-none-any.whl").write_bytes(b"wheel")
    others = tmp_path / "others"
    others.mkdir()
    (others / "six-1.17.0.tar.gz").write_bytes(b"another six, which the lock must not allow")
    index = {"name": "wheelhouse", "url": str(wheels), "packages": ["Six"], "flat": True}
    made = tool("six==1.17.0\n", sources=uv.Sources(indexes=(index,), find_links=(str(others),)))
    assert made.lock(["six==1.17.0"]).split("sha256:")[1].strip() == hashlib.sha256(b"wheel").hexdigest()
    request = tomllib.loads((tmp_path / "work/pyproject.toml").read_text())
    assert request["tool"]["uv"]["index"] == [
        {"name": "wheelhouse", "url": str(wheels), "explicit": True, "format": "flat"}
    ]


# As uv 0.13.9 prints it with `--annotation-style line`.
ANNOTATED = """\
flashinfer-python==0.3.1  # via request (work/pyproject.toml)
nvidia-ml-py==13.615.71   # via pynvml, -c constraints.txt
pynvml==13.0.1            # via flashinfer-python, vllm
six==1.17.0
"""


def test_who_requires_what_is_read_from_the_annotations(tool):
    assert tool(ANNOTATED).required_by(["flashinfer-python"], {"six": "1.17.0"}) == {
        "flashinfer-python": [],
        "nvidia-ml-py": ["pynvml"],
        "pynvml": ["flashinfer-python", "vllm"],
        "six": [],
    }
