# Copyright (c) 2026 The ocrfleet.gpu_stack contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Stand in for conda-forge and for Miniforge's installer: make.py FOLDER

FOLDER gets a real conda channel with a real, relocatable Python, this machine's Debian's, and an installer with
Miniforge's name, options and outcome. The engine that it installs solves and installs with py-rattler; engine.py is its
command line. Runs on the control node, with the Python that has py-rattler and conda-package-handling.
"""

from __future__ import annotations

import hashlib
import io
import json
import re
import shutil
import subprocess
import sys
import tarfile
import tempfile
from pathlib import Path

import rattler
from conda_package_handling import api

HERE = Path(__file__).parent
PYTHON = "/usr/bin/python3.11"
LEFT_OUT = ("test", "idlelib", "lib2to3", "tkinter", "turtledemo", "ensurepip", "__pycache__", "EXTERNALLY-MANAGED")
INSTALLER = "Miniforge3-{version}-Linux-x86_64.sh"


def python_tree(tree: Path) -> str:
    """Debian's Python as one prefix; its version. Where Debian looks in dist-packages, this looks in site-packages."""
    version = subprocess.run([PYTHON, "-V"], check=True, capture_output=True, text=True).stdout.split()[1]
    library = tree / "lib/python3.11"
    ignore = shutil.ignore_patterns(*LEFT_OUT, "config-3.11-*", "sitecustomize.py")
    shutil.copytree("/usr/lib/python3.11", library, ignore=ignore)
    (library / "site-packages").mkdir()
    (library / "site-packages/README.txt").write_text("packages go here\n")
    # The module site is frozen into Debian's python, so it cannot be edited.
    (library / "sitecustomize.py").write_text(
        "import os, site, sys\nsite.addsitedir(os.path.join(sys.prefix, 'lib', 'python3.11', 'site-packages'))\n"
    )
    scheme = library / "sysconfig.py"
    text, changes = re.subn(r"prefix_scheme = 'posix_local'", "prefix_scheme = 'posix_prefix'", scheme.read_text())
    if changes != 1:
        raise SystemExit(
            f"{scheme}: expected one prefix_scheme = 'posix_local', found {changes}; this is not Debian 12's Python"
        )
    scheme.write_text(text)
    (tree / "bin").mkdir()
    shutil.copy(PYTHON, tree / "bin/python3.11")
    for name in ("python", "python3"):
        (tree / "bin" / name).symlink_to("python3.11")
    return version


def package(channel: Path, name: str, version: str, tree: Path, depends: list[str]) -> None:
    """Add one package to the channel, with its line in repodata.json."""
    folder = channel / "linux-64"
    folder.mkdir(parents=True, exist_ok=True)
    index = {
        "name": name,
        "version": version,
        "build": "0",
        "build_number": 0,
        "subdir": "linux-64",
        "depends": depends,
        "timestamp": 1700000000000,
    }
    files = sorted(path for path in tree.rglob("*") if path.is_symlink() or path.is_file())
    paths = [
        {
            "_path": str(path.relative_to(tree)),
            "path_type": "softlink" if path.is_symlink() else "hardlink",
            "sha256": hashlib.sha256(path.read_bytes()).hexdigest(),
            "size_in_bytes": path.stat().st_size,
        }
        for path in files
    ]
    (tree / "info").mkdir()
    (tree / "info/index.json").write_text(json.dumps(index))
    (tree / "info/paths.json").write_text(json.dumps({"paths": paths, "paths_version": 1}))
    (tree / "info/files").write_text("".join(f"{entry['_path']}\n" for entry in paths))
    file = f"{name}-{version}-0.conda"
    api.create(str(tree), None, file, str(folder), compression_tuple=(".tar.zst", "zstd", "zstd:compression-level=1"))
    data = (folder / file).read_bytes()
    repodata = folder / "repodata.json"
    known = json.loads(repodata.read_text()) if repodata.exists() else {"info": {"subdir": "linux-64"}}
    known.setdefault("packages", {})
    known.setdefault("packages.conda", {})[file] = {
        **index,
        "size": len(data),
        "sha256": hashlib.sha256(data).hexdigest(),
        "md5": hashlib.md5(data, usedforsecurity=False).hexdigest(),
    }
    repodata.write_text(json.dumps(known))


def channel(folder: Path) -> None:
    with tempfile.TemporaryDirectory() as work:
        version = python_tree(Path(work) / "python")
        package(folder, "python", version, Path(work) / "python", ["tzdata"])
        (Path(work) / "tzdata/share").mkdir(parents=True)
        (Path(work) / "tzdata/share/tzdata.txt").write_text("a package that python depends on\n")
        package(folder, "tzdata", "2025b", Path(work) / "tzdata", [])
    (folder / "noarch").mkdir()
    (folder / "noarch/repodata.json").write_text('{"info": {"subdir": "noarch"}, "packages": {}, "packages.conda": {}}')


def installer(folder: Path, version: str) -> None:
    """One shell script with an archive at its end, as Miniforge's is, and the .sha256 beside it."""
    folder.mkdir(parents=True)
    payload = io.BytesIO()
    with tarfile.open(fileobj=payload, mode="w:gz", compresslevel=1) as archive:
        archive.add(
            Path(rattler.__file__).parent, "rattler", filter=lambda one: None if "__pycache__" in one.name else one
        )
        archive.add(HERE / "engine.py", "engine.py")
        archive.add(HERE / "conda.sh", "conda.sh")
    name = INSTALLER.format(version=version)
    script = (HERE / "installer.sh").read_bytes()
    (folder / name).write_bytes(script + payload.getvalue())
    digest = hashlib.sha256((folder / name).read_bytes()).hexdigest()
    (folder / f"{name}.sha256").write_text(f"{digest}  {name}\n")


def main() -> None:
    folder = Path(sys.argv[1])
    shutil.rmtree(folder, ignore_errors=True)
    channel(folder / "conda-forge")
    installer(folder / "miniforge", "26.3.2-3")


main()
