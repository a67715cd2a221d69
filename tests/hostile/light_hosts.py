# Copyright (c) 2026 The ocrfleet.gpu_stack contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Hosts for the role flashinfer, many in one run: each is an environment of its own on this machine.

The stack in them is the stand-ins of tests/stand_ins (PyTorch, vllm and OlmOCR by name and version); uv, git, the
builds, the package index and what else is installed from it are real.
"""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import light_stack
import oracle
from ansible_collections.ocrfleet.gpu_stack.plugins.module_utils import machine

REPOSITORY = Path(__file__).parents[2]
TOOLS = Path(sys.executable).parent
# Of these tests alone: FlashInfer is built against stand-ins here, and a real stack must never meet such a wheel.
CACHE = REPOSITORY / ".cache/hostile/uv"
STACK = ("torch==2.8.0", "vllm==0.11.0", "olmocr==0.4.2")
# Real ones, which a stack has too: the build back end of FlashInfer's releases, and what reads requirements.
WITH_IT = ("setuptools==84.2.1", "packaging==26.3")

# What differs from run to run in what is told, or from day to day on the index.
VARYING = (
    (r"127\.0\.0\.1:\d+", "INDEX"),
    (r"(?<=package in )\d+m?s", "TIME"),
    (r"(?<=Using CPython )\S+", "PYTHON"),
    (r"(?<=Computed:\n           sha256:)\w+", "FOUND"),
    (r"\d{8}T\d{6}\.\d+Z-[0-9a-f]+", "BASELINE"),
    (r"lib/python3\.\d+/site-packages", "SITE"),
    (r"torch<=[\d.]+", "torch<=NEWEST"),
    (r"(?<=proven: )\d+(?= files)", "ALL"),
)

GPU = """#!/bin/sh
# Stands in for nvidia-smi: one GPU and no process on it. The tests that use it end before anything asks the GPU itself.
case "$*" in
*query-gpu*) echo "0, Stand-in, GPU-0, 9.0, 570.86.10, 81559, 0, Disabled" ;;
-L) echo "GPU 0: Stand-in (UUID: GPU-0)" ;;
esac
"""
NVCC = "#!/bin/sh\n# Stands in for nvcc, which is only asked for its version.\necho 'release {version}, V{version}.0'\n"


@dataclass
class LightHosts:
    """`folder` holds everything: wheels, environments, reports."""

    folder: Path
    hosts: dict[str, dict[str, Any]] = field(default_factory=dict)
    before: dict[str, dict[str, list[object]]] = field(default_factory=dict)

    def __post_init__(self) -> None:
        self.wheels = self.folder / "stack"
        self.wheels.mkdir(parents=True)
        (self.folder / "exports").mkdir()
        for row in light_stack.WHEELS[:3]:
            self.wheel(self.wheels, *row)

    @staticmethod
    def wheel(folder: Path, name: str, version: str, metadata: str, files: dict[str, str]) -> None:
        light_stack.wheel(folder, name, version, metadata, {path: text.encode() for path, text in files.items()})

    @staticmethod
    def sources(folder: Path, needs: tuple[str, ...] = ()) -> str:
        """Write a source tree there from which a stand-in for FlashInfer can be built; returns the folder."""
        name, version, _metadata, files = light_stack.WHEELS[3]
        project = f"""[build-system]
requires = ["setuptools"]
build-backend = "setuptools.build_meta"
[project]
name = {json.dumps(name.replace("_", "-"))}
version = {json.dumps(version)}
dependencies = {json.dumps(needs)}
[tool.setuptools]
packages = ["flashinfer"]
"""
        for path, text in {**files, "pyproject.toml": project}.items():
            (folder / path).parent.mkdir(parents=True, exist_ok=True)
            (folder / path).write_text(text)
        return str(folder)

    def add(self, name: str, installed: tuple[str, ...] = (), **settings: Any) -> Path:
        """Make a host. `installed` is there besides the stack; `settings` are its variables."""
        tree = self.environment(name)
        python = str(tree / "bin/python")
        self.call("uv", "venv", "--quiet", "--python", sys.executable, str(tree))
        links = [flag for folder in (self.wheels, *settings.get("stack_find_links", ())) for flag in ("-f", folder)]
        install = ["uv", "pip", "install", "--quiet", "--no-deps", "--python", python]
        self.call(*install, *WITH_IT)
        self.call(*install, "--no-index", *links, *STACK, *installed)  # the index has the real ones, all gigabytes
        self.hosts[name] = {"stack_environment": str(tree), **settings}
        self.before[name] = oracle.tree(str(tree))
        return tree

    def remove(self, name: str, package: str) -> None:
        """Take a package out of a host, which is as it was before without it."""
        tree = self.environment(name)
        self.call("uv", "pip", "uninstall", "--quiet", "--python", str(tree / "bin/python"), package)
        self.before[name] = oracle.tree(str(tree))

    def environment(self, name: str) -> Path:
        return self.folder / "environments" / name

    def path_without(self, *names: str) -> Path:
        """A folder for PATH with all programs of this machine less those that match a name."""
        chosen = self.folder / ("without-" + "-".join(re.sub(r"\W", "", name) for name in names))
        if not chosen.exists():
            chosen.mkdir()
            for folder in os.environ["PATH"].split(os.pathsep):
                for program in Path(folder).glob("*"):
                    target = chosen / program.name
                    if not any(re.fullmatch(name, program.name) for name in names) and not target.is_symlink():
                        target.symlink_to(program)
        return chosen

    def program(self, folder: str, name: str, text: str) -> Path:
        """Put a stand-in there; returns its folder."""
        path = self.folder / folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)
        path.chmod(0o755)
        return path.parent

    def environ(self) -> dict[str, str]:
        home = self.folder / "home"
        home.mkdir(exist_ok=True)
        return {
            **os.environ,
            "PATH": f"{TOOLS}:{os.environ['PATH']}",
            "HOME": str(home),
            "UV_CACHE_DIR": str(CACHE),
            "UV_LINK_MODE": "copy",
            "ANSIBLE_CONFIG": str(REPOSITORY / "ansible.cfg"),
            "ANSIBLE_COLLECTIONS_PATH": str(REPOSITORY / "collections"),
        }

    def call(self, *argv: str | Path) -> None:
        subprocess.run([*map(str, argv)], check=True, env=self.environ(), timeout=300)

    def inventory(self) -> Path:
        """Write the inventory of all hosts; they are the group gpu_vms, as in inventories/."""
        inventory = self.folder / "hosts.json"
        common = {
            "ansible_connection": "local",
            "ansible_python_interpreter": sys.executable,
            "stack_cache": str(CACHE),
            "stack_root": str(self.folder / "root"),
            "stack_uv": str(TOOLS / "uv"),
            "stack_disk_gb": 1,
            "stack_gpu": "ignored",
            "report_dir": str(self.folder / "reports"),
            "flashinfer_jit_cache_index": "",
            "flashinfer_wheelhouse": str(self.folder / "wheelhouse"),
            # Not into the home of whoever runs the tests.
            "flashinfer_export_dir": str(self.folder / "exports"),
        }
        hosts = {
            name: {"report_host_dir": str(self.folder / "on-the-host" / name), **settings}
            for name, settings in self.hosts.items()
        }
        groups = {"gpu_vms": {"hosts": {name: {} for name in hosts}}}
        inventory.write_text(json.dumps({"all": {"vars": common, "hosts": hosts, "children": groups}}))
        return inventory

    @staticmethod
    def platforms() -> str:
        """Extra variables: Poppler and fonts play no part here."""
        return json.dumps({"__stack_platforms": {machine.distribution(): {"manager": "apt", "packages": []}}})

    def run(self, *arguments: str, playbook: str = "tests/hostile/flashinfer.yml", within: tuple[str, ...] = ()) -> str:
        """Run the role on all hosts; returns what was printed. How each ended is in its evidence.

        `within` is a command that runs the command which follows it somewhere else.
        """
        argv = [*within, "ansible-playbook", f"--inventory={self.inventory()}", "--forks=6", *arguments]
        argv += ["--extra-vars", self.platforms()]
        done = subprocess.run(
            [*argv, str(REPOSITORY / playbook)],
            env=self.environ(),
            cwd=self.folder,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            timeout=600,
            check=False,
        )
        return done.stdout

    def evidence(self, name: str) -> dict[str, Any]:
        return dict(json.loads((self.folder / "reports" / name / "evidence.json").read_text()))

    def failure(self, name: str) -> str:
        """What the play failed with, word for word; what differs from run to run is named instead."""
        text = str(self.evidence(name)["failure"])
        for path, told in ((self.environment(name), "ENVIRONMENT"), (self.folder, "FOLDER"), (TOOLS, "TOOLS")):
            text = text.replace(str(path), told)
        for pattern, told in VARYING:
            text = re.sub(pattern, told, text)
        return text.strip()

    def changes(self, name: str) -> list[str]:
        """What is not as before, and what a RECORD promises and is not there: judged without the collection's code."""
        tree = self.environment(name)
        before, after = self.before[name], oracle.tree(str(tree))

        def compiled_into(path: str) -> bool:
            same = before.get(path, [])[:5] == after.get(path, [])[:5]  # all but the time
            return same and (tree / path / "__pycache__").is_dir()

        changed = {path for path in before.keys() | after.keys() if before.get(path) != after.get(path)}
        return sorted(path for path in changed if not compiled_into(path)) + oracle.complete(str(tree))
