# Copyright (c) 2026 The ocrfleet.gpu_stack contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
from __future__ import annotations

import os
import subprocess
import sys

import pytest
from ansible_collections.ocrfleet.gpu_stack.plugins.module_utils import commands, source_tree, staging, wheel_build
from ansible_collections.ocrfleet.gpu_stack.plugins.module_utils.staging import Stage


@pytest.fixture
def toolkit(tmp_path):
    """A machine's tools, made of files; each test takes away or changes one."""
    for name in ("env/bin/ninja", "usr/c++", "cuda/bin/nvcc"):
        path = tmp_path / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text("#!/bin/sh\necho 'Cuda compilation tools, release 12.8, V12.8.93'\n")
        path.chmod(0o755)
    python = tmp_path / "env/bin/python"
    python.write_text(f"#!/bin/sh\necho {tmp_path}/python3.11\n")
    python.chmod(0o755)
    (tmp_path / "python3.11").mkdir()
    (tmp_path / "python3.11/Python.h").touch()
    (tmp_path / "cuda/include").mkdir()
    for header in ("curand.h", "cublasLt.h"):
        (tmp_path / "cuda/include" / header).touch()

    def look():
        variables = {"PATH": str(tmp_path / "usr")}
        return wheel_build.toolchain("12.8", str(tmp_path / "cuda"), str(tmp_path / "env"), variables, commands.run)

    return tmp_path, look


def test_a_whole_toolchain_misses_nothing(toolkit):
    assert toolkit[1]() == []


@pytest.mark.parametrize(
    ("gone", "said"),
    [
        ("usr/c++", "C++ compiler: expected c++ on PATH, found none; install g++"),
        ("env/bin/ninja", "ninja: expected it on PATH, found none"),
        ("cuda/bin/nvcc", "nvcc: "),
        ("cuda/include/curand.h", "curand.h: expected it in"),
        ("python3.11/Python.h", "Python.h: expected it at "),
    ],
)
def test_what_is_missing_is_named(toolkit, gone, said):
    folder, look = toolkit
    (folder / gone).unlink()
    (text,) = look()
    assert text.startswith(said)


def test_everything_that_is_missing_is_named_at_once(toolkit):
    folder, look = toolkit
    for gone in ("usr/c++", "env/bin/ninja", "cuda/bin/nvcc", "cuda/include/curand.h", "python3.11/Python.h"):
        (folder / gone).unlink()
    found = look()
    assert len(found) == 5
    assert found[-1].endswith("install python3.11-dev (EL: python3.11-devel)")


def test_a_python_that_does_not_answer_is_not_a_missing_header(toolkit):
    folder, look = toolkit
    (folder / "env/bin/python").unlink()
    assert look() == []


def test_nvcc_of_another_version_is_told(toolkit):
    folder, look = toolkit
    nvcc = folder / "cuda/bin/nvcc"
    nvcc.write_text(nvcc.read_text().replace("12.8", "13.0"))
    (text,) = look()
    assert text.startswith(f"nvcc 12.8: found 13.0 at {nvcc}; install the CUDA 12.8 toolkit")


@pytest.mark.skipif(staging.unavailable() is not None, reason="no mount namespace can be had here")
def test_a_build_cannot_write_into_the_environment(tmp_path):
    (tmp_path / "env").mkdir()
    stage = Stage(str(tmp_path / "env"), str(tmp_path / "env"), read_only=True)
    result = stage.run(["touch", str(tmp_path / "env/x"), str(tmp_path / "beside")], timeout=30)
    assert "Read-only file system" in result.stderr
    assert os.listdir(tmp_path / "env") == [] and (tmp_path / "beside").exists()


@pytest.fixture
def environment(tmp_path):
    """A real venv that sees this Python's setuptools and packaging."""
    subprocess.run([sys.executable, "-m", "venv", "--without-pip", str(tmp_path / "env")], check=True)
    (site,) = (tmp_path / "env/lib").glob("python3*/site-packages")
    (site / "tools.pth").write_text("\n".join(path for path in sys.path if path.endswith("site-packages")))
    return str(tmp_path / "env")


def project(folder, requires):
    folder.mkdir()
    (folder / "pyproject.toml").write_text(
        f"[build-system]\nrequires = {requires}\nbuild-backend = 'backend'\nbackend-path = ['.']\n"
        "[project]\nname = 'flashinfer-python'\nversion = '9.9'\n"
    )
    (folder / "backend.py").write_text(
        "import os, sys\ndef build_wheel(folder, *_settings, **_more):\n"
        "    name = 'flashinfer_python-9.9-py3-none-any.whl'\n"
        "    said = os.environ['MAX_JOBS'], str(os.access(sys.prefix, os.W_OK))\n"
        "    open(os.path.join(folder, name), 'w').write(' '.join(said))\n    return name\n"
    )
    return str(folder)


def test_what_the_build_asks_for_must_be_installed(tmp_path, environment):
    source = project(tmp_path / "src", ["apache-tvm-ffi==0.1.0b15", "packaging"])
    with pytest.raises(source_tree.Refused, match=r"does not have: apache-tvm-ffi==0.1.0b15 \(found none\)\. It is"):
        wheel_build.build("uv", environment, source, str(tmp_path), "", 60)


def test_a_wheel_is_built_with_the_environments_python(tmp_path, environment):
    (tmp_path / "out").mkdir()
    source = project(tmp_path / "src", [])
    wheel, count, shielded = wheel_build.build("uv", environment, source, str(tmp_path / "out"), "", 120)
    assert os.path.basename(wheel) == "flashinfer_python-9.9-py3-none-any.whl"
    with open(wheel, encoding="utf-8") as file:
        # The environment was read-only meanwhile, where that can be had.
        assert file.read() == f"{count} {not shielded}"
    assert shielded == (staging.unavailable() is None)
