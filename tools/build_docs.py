#!/usr/bin/env python3
# Copyright (c) 2026 The ocrfleet.gpu_stack contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Build the documentation as a static site: build_docs.py FOLDER makes FOLDER/html. Needs no network.

The guides are those of docs/. The reference is made anew each time from what the code says of itself: roles and plugins
by antsibull-docs, playbooks from their YAML, the command from its parser.
"""

from __future__ import annotations

import json
import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import yaml

ROOT = Path(__file__).resolve().parents[1]
COLLECTION = "ocrfleet.gpu_stack"
# Kind of antsibull-docs' page, and the title of the page that lists that kind.
KINDS = {"role": "Roles", "module": "Modules", "filter": "Filters", "callback": "Callbacks"}
TITLE = re.compile(rf"^{re.escape(COLLECTION)}\.(\w+) (\w+) -- (.+)$", re.MULTILINE)

CONTENTS = re.compile(r"^\.\. contents::\n(?:   .*\n)*", re.MULTILINE)


def run(*command: str | Path, **variables: str) -> None:
    """Run a command in the checkout; what it says is shown when it fails."""
    done = subprocess.run(
        command,
        cwd=ROOT,
        env={**os.environ, **variables},
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        check=False,
    )
    if done.returncode:
        raise SystemExit(f"{done.stdout}\nbuild_docs: {' '.join(map(str, command))} ended with {done.returncode}")


def listing(title: str, pages: list[tuple[str, str, str]]) -> str:
    """A page that lists others: their file, name and short description."""
    rows = [f"| [{name}]({page}.rst) | {said} |" for page, name, said in pages]
    tree = [f"{name} <{page}>" for page, name, _ in pages]
    return "\n".join(
        [f"# {title}", "", "| name | what it does |", "|---|---|", *rows, "", "```{toctree}", ":hidden:", "", *tree]
        + ["```", ""]
    )


def plugin_pages(reference: Path) -> None:
    """Roles and plugins, from their argument specs and documentation."""
    told = {
        "collection_install": f"ansible-galaxy collection install {COLLECTION.replace('.', '-')}-VERSION.tar.gz",
        "collection_url": yaml.safe_load((ROOT / "galaxy.yml").read_text(encoding="utf-8"))["repository"],
    }
    settings = reference.parent.parent / "antsibull-docs.cfg"
    settings.write_text(
        "".join(f"{name} = {{\n  {COLLECTION} = {json.dumps(text)}\n}}\n" for name, text in told.items()),
        encoding="utf-8",
    )
    options = ["--use-current", "--squash-hierarchy", "--fail-on-error", "--no-add-antsibull-docs-version"]
    command = ["antsibull-docs", "--config-file", str(settings), "collection", *options]
    run(*command, "--dest-dir", reference, COLLECTION, ANSIBLE_COLLECTIONS_PATH=str(ROOT / "collections"))
    for kind, title in KINDS.items():
        pages = []
        for path in sorted(reference.glob(f"*_{kind}.rst")):
            text = path.read_text(encoding="utf-8")
            # The theme has a table of contents of its own, and says so in red where a page brings one.
            path.write_text(CONTENTS.sub("", text), encoding="utf-8")
            found = TITLE.search(text)
            if found is None:
                raise SystemExit(f"build_docs: expected a title `{COLLECTION}.NAME {kind} -- TEXT` in {path}")
            pages.append((path.stem, found[1], found[3].replace("\\", "")))
        (reference / f"{title.lower()}.md").write_text(listing(title, pages), encoding="utf-8")


COMMAND_PAGE = """\
The command ``ocrfleet``
========================

.. argparse::
   :module: ocrfleet.cli
   :func: parser
   :prog: ocrfleet
"""


def playbook_page() -> str:
    """The playbooks: what each play is called, whom it is for, and which roles it goes through."""
    lines = ["# Playbooks", "", f"In a checkout `playbooks/NAME.yml`, installed `{COLLECTION}.NAME`.", ""]
    for path in sorted((ROOT / "playbooks").glob("*.yml")):
        lines += [f"## {path.stem}", ""]
        for play in yaml.safe_load(path.read_text(encoding="utf-8")):
            lines.append(
                f"{play.get('name', path.stem)}. Hosts: `{play.get('hosts', 'those of the play it imports')}`."
            )
            lines.append("")
            for role in play.get("roles", []):
                name = (role if isinstance(role, str) else role["role"]).rpartition(".")[2]
                lines.append(f"1. [{name}]({name}_role.rst)")
            lines.append("")
    return "\n".join(lines)


def main() -> None:
    if len(sys.argv) != 2:
        raise SystemExit("usage: build_docs.py FOLDER")
    folder = Path(sys.argv[1]).resolve()
    source, html = folder / "docs", folder / "html"
    shutil.rmtree(folder, ignore_errors=True)
    shutil.copytree(ROOT / "docs", source)
    # Pages that live at the top of the checkout, where people look for them, are included from there.
    for name in ("CHANGELOG.md", "CONTRIBUTING.md", "SECURITY.md"):
        shutil.copy(ROOT / name, folder / name)
    reference = source / "reference"
    reference.mkdir()
    plugin_pages(reference)
    (reference / "playbooks.md").write_text(playbook_page(), encoding="utf-8")
    (reference / "command.rst").write_text(COMMAND_PAGE, encoding="utf-8")
    # -W: a link that leads nowhere inside the site is an error.
    options = ["-W", "--keep-going", "-q", "-b", "html", "-d", str(folder / "doctrees")]
    # The command's default folder depends on who runs it; the reader's is told, not the builder's.
    run("sphinx-build", *options, source, html, XDG_STATE_HOME="~/.local/state")
    print(f"build_docs: {len(list(html.rglob('*.html')))} pages, begin with {html / 'index.html'}")


if __name__ == "__main__":
    main()
