# Copyright (c) 2026 The ocrfleet.gpu_stack contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Make an environment as years of hands leave it: by_hand.py PREFIX UV CACHE LIST

The real stack, and in it: packages that nobody asks for, one of them older than FlashInfer would take; an editable
install; a wheel from a folder; an edited bin/activate; and files, links, modes and times that no installer knows.
"""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

PREFIX, UV, CACHE, LIST = sys.argv[1:]
PYTHON = f"{PREFIX}/bin/python"
SOURCES = Path(PREFIX).parent / "sources"
MONTH = 30 * 24 * 3600 * 10**9  # nanoseconds


def run(*argv: str) -> None:
    subprocess.run(argv, check=True, env={**os.environ, "UV_CACHE_DIR": CACHE})


def project(name: str, text: str, script: str = "") -> str:
    """The sources of a small package."""
    folder = SOURCES / name
    (folder / name).mkdir(parents=True)
    (folder / name / "__init__.py").write_text(text)
    lines = ["[build-system]", 'requires = ["setuptools"]', 'build-backend = "setuptools.build_meta"', "[project]"]
    lines += [f'name = "{name}"', 'version = "1.0"']
    lines += ["[project.scripts]", f'{script} = "{name}:main"'] if script else []
    (folder / "pyproject.toml").write_text("\n".join([*lines, ""]))
    return str(folder)


def packages() -> None:
    run(UV, "venv", "--quiet", "--seed", "--python", "/usr/bin/python3", PREFIX)
    install = (UV, "pip", "install", "--quiet", "--python", PYTHON)
    run(*install, "--requirement", LIST)
    run(*install, "cowsay==6.1", "tabulate==0.9.0")
    run(*install, "--no-build-isolation", "--editable", project("ours", "ANSWER = 42\n"))
    wheels = str(SOURCES / "wheels")
    source = project("pages", "def main():\n    print('pages of ' + __file__)\n", script="count-pages")
    run(PYTHON, "-m", "pip", "wheel", "--quiet", "--no-build-isolation", "--no-deps", "--wheel-dir", wheels, source)
    run(PYTHON, "-m", "pip", "install", "--quiet", "--no-deps", f"{wheels}/pages-1.0-py3-none-any.whl")


def files() -> None:
    prefix = Path(PREFIX)
    site = next(prefix.glob("lib/python3*/site-packages"))
    with (prefix / "bin/activate").open("a") as file:
        file.write("export PAGES_PER_GROUP=50  # ours\n")
    (prefix / "notes.txt").write_text("Do not touch, ask Ann.\n")
    (prefix / "größe 'x' \n.txt").write_text("a name with all that\n")
    Path(os.fsdecode(os.fsencode(prefix) + b"/latin-\xe9.txt")).write_text("a name that is no UTF-8\n")
    (prefix / "empty").mkdir()
    (prefix / "data").mkdir()
    (prefix / "data/pages.db").write_bytes(bytes(range(256)) * 40)
    os.link(prefix / "data/pages.db", prefix / "data/pages-linked.db")
    os.mkfifo(prefix / "data/queue")
    (site / "patches.py").write_text("PATCHED = True\n")
    (site / "ours-legacy.pth").write_text("# nothing\n")
    (prefix / "current").symlink_to("data")
    (prefix / "models").symlink_to("/srv/models-that-are-not-there")
    (prefix / "bin/see-notes").write_text("#!/bin/sh\ncat " + f"'{PREFIX}/notes.txt'\n")
    (prefix / "bin/see-notes").chmod(0o4755)
    os.setxattr(prefix / "notes.txt", "user.origin", b"by hand")
    os.setxattr(prefix / "data", "user.origin", b"by hand")
    # Times and modes last; a folder's after all that is put into it.
    for path, age in ((prefix / "notes.txt", 300), (site / "patches.py", -12), (prefix / "data/pages.db", 70)):
        moment = 1_700_000_000 * 10**9 - age * MONTH + 123_456_789
        os.utime(path, ns=(moment, moment))
    os.utime(prefix / "models", ns=(1, 1), follow_symlinks=False)
    (prefix / "notes.txt").chmod(0o400)
    (site / "patches.py").chmod(0o666)
    (prefix / "data").chmod(0o2750)
    os.utime(prefix / "data", ns=(5, 5))
    (prefix / "empty").chmod(0o555)


def use() -> None:
    """Import what is imported at work: Python then writes the caches that it finds on every later start."""
    work = "vllm.entrypoints.openai.api_server, olmocr.pipeline, cowsay, tabulate, ours, pages, patches"
    run(PYTHON, "-c", f"import {work}")


packages()
files()
use()
