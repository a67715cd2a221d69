# Copyright (c) 2026 The ocrfleet.gpu_stack contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""A source distribution whose build writes into the environment that it is built against; uv and the build are real."""

from __future__ import annotations

import tarfile
from collections.abc import Callable
from pathlib import Path

import pytest
from light_hosts import LightHosts

# A new file, one that the candidate has a copy of, and one that it shares with the live tree by a hard link.
BACKEND = """import pathlib, sys
from setuptools.build_meta import *
prefix = pathlib.Path(sys.prefix)
for path in (prefix / "spoilt", prefix / "pyvenv.cfg", *prefix.glob("lib/python3*/site-packages/vllm/__init__.py")):
    try:
        path.write_text("# spoilt")
    except OSError:
        pass
"""


def release(hosts: LightHosts) -> Path:
    """A folder with FlashInfer as a source distribution."""
    source = Path(hosts.sources(hosts.folder / "flashinfer_python-0.3.1"))
    (source / "backend.py").write_text(BACKEND)
    project = source / "pyproject.toml"
    text = project.read_text()
    for plain, spoilt in (
        ('build-backend = "setuptools.build_meta"', 'build-backend = "backend"\nbackend-path = ["."]'),
        ('version = "0.3.1"', 'dynamic = ["version"]'),  # so that even its version is only told by its build
        (
            "[tool.setuptools]",
            '[tool.setuptools.dynamic]\nversion = {attr = "flashinfer.__version__"}\n[tool.setuptools]',
        ),
    ):
        assert plain in text
        text = text.replace(plain, spoilt)
    project.write_text(text)
    folder = hosts.folder / "release"
    folder.mkdir()
    with tarfile.open(folder / f"{source.name}.tar.gz", "w:gz") as archive:
        archive.add(source, source.name)
    return folder


@pytest.mark.parametrize("method", ["pypi", "constrained"])
def test_a_build_can_write_nothing_into_the_environment(make_hosts: Callable[[], LightHosts], method: str) -> None:
    hosts = make_hosts()
    tree = hosts.add(method, fi_method=method, stack_find_links=[str(release(hosts))])
    shown = hosts.run("--check")
    assert "flashinfer-python" in shown
    assert hosts.changes(method) == [], shown
    done = hosts.run()
    assert hosts.evidence(method)["result"] == "verified", done
    assert not (tree / "spoilt").exists()
    assert [path for path in tree.rglob("*") if path.is_file() and path.read_bytes() == b"# spoilt"] == []
    kept = list((tree.parent / f".{tree.name}.gpu_stack").rglob("vllm/__init__.py"))
    assert kept and all(b"spoilt" not in path.read_bytes() for path in kept)
