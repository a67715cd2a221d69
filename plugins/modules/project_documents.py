#!/usr/bin/python
# Copyright (c) 2026 The ocrfleet.gpu_stack contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

from __future__ import annotations

DOCUMENTATION = r"""
module: project_documents
short_description: Keep a managed block in each of a project's documents, and withdraw a warning
version_added: 0.1.0
description:
  - Writes one block between markers into each file. The rest of a file stays as it is, to the byte.
  - A sentence that begins with the warning not to install FlashInfer, and then ends or gives a plain reason, is taken
    out where it stands, and RV(withdrawn) tells it. It is kept, coded, in a comment there, so that O(state=absent)
    brings it back. No command, requirement or other sentence goes with it. A warning of one release, place, way, kind
    or time stays, and so does what may say more; RV(standing) tells both.
  - Every file but Markdown is taken for a list of requirements. One that pip would refuse with the block in it is
    refused, since a line of its own asks for another version, or since it requires hashes and there are none.
  - O(state=absent) needs nothing but the files themselves.
options:
  project:
    description: The project's folder. It must exist.
    type: path
    required: true
  blocks:
    description: The text of each block, by the path of its file relative to O(project).
    type: dict
    required: true
  hashes:
    description: What a download of each pin of a block is held against, for lists of requirements that require hashes.
    type: dict
    default: {}
  state:
    description: V(present) writes the blocks, V(absent) puts the files back as they were without them.
    type: str
    choices: [present, absent]
    default: present
  create:
    description: Whether missing files are made, with their folders. What was made so goes again with O(state=absent).
    type: bool
    default: false
attributes:
  check_mode:
    support: full
    description: Nothing is written.
  diff_mode:
    support: full
    description: Shows each file before and after.
author:
  - The ocrfleet.gpu_stack contributors (@ocrfleet)
"""

EXAMPLES = r"""
- name: Say in the project what was installed
  ocrfleet.gpu_stack.project_documents:
    project: /srv/ocr-pipeline
    blocks:
      requirements.txt: flashinfer-python==0.3.1
    hashes:
      flashinfer-python==0.3.1: ["sha256:9f86d081884c7d659a2feaa0c55ad015a3bf4f1b2b0b822cd15d6c15b0f00a08"]
  delegate_to: localhost

- name: Undo it
  ocrfleet.gpu_stack.project_documents:
    project: /srv/ocr-pipeline
    blocks:
      requirements.txt: ""
    state: absent
  delegate_to: localhost
"""

RETURN = r"""
written:
  description: Files that were changed, made or removed, or would be.
  returned: success
  type: list
  elements: str
  sample: [requirements.txt]
missing:
  description: Files that are not there and were not asked to be made.
  returned: success
  type: list
  elements: str
  sample: [CONTRIBUTING.md]
withdrawn:
  description: Warnings that were taken out, or would be, each with its file and number of its line before that.
  returned: success
  type: list
  elements: str
  sample: ["docs/guides/VM_SETUP_COMPLETE.md:8: **DO NOT install FlashInfer.**"]
standing:
  description: Lines that may be meant as the warning and stay, each with its file and number.
  returned: success
  type: list
  elements: str
  sample: ["docs/guides/VM_SETUP_COMPLETE.md:12: Do not install FlashInfer 0.2.5"]
"""

import os
import tempfile
from collections.abc import Callable

from ansible.module_utils.basic import AnsibleModule
from ansible_collections.ocrfleet.gpu_stack.plugins.module_utils import (
    document_comments,
    managed_blocks,
    requirement_lists,
    withdrawn_warnings,
)


def read(path: str) -> str | None:
    try:
        with open(path, encoding="utf-8", errors="surrogateescape", newline="") as file:
            return file.read()
    except FileNotFoundError:
        return None


def plan(texts: dict[str, str | None], params: dict) -> dict[str, str | None]:
    """The files that change, with their new text; None removes one."""
    wanted: dict[str, str | None] = {}
    for path, text in texts.items():
        comment = document_comments.comment_of(path)
        if text is None and (params["state"] == "absent" or not params["create"]):
            continue
        try:
            if params["state"] == "present":
                body = str(params["blocks"][path])
                if comment is document_comments.HASH:
                    body = requirement_lists.fit(managed_blocks.around(text or "", comment), body, params["hashes"])
                new: str | None = managed_blocks.documented(
                    text, body, comment, _missing_folders(params["project"], path)
                )
            else:
                new = managed_blocks.undocumented(text or "", comment)
        except (document_comments.Spoilt, requirement_lists.Unfit) as error:
            raise type(error)(f"{path}: {error}") from error
        if new != text:
            wanted[path] = new
    return wanted


def told(find: Callable[..., list[tuple[int, str]]], texts: dict[str, str | None]) -> list[str]:
    """What `find` finds in the texts beside their blocks, with file and line."""
    found = []
    for path, text in texts.items():
        comment = document_comments.comment_of(path)
        own = managed_blocks.extent(text or "", comment)
        found += [f"{path}:{line}: {words}" for line, words in find(text or "", comment, own)]
    return found


def _missing_folders(project: str, path: str) -> int:
    return sum(not os.path.isdir(folder) for folder in _folders(project, path))


def _folders(project: str, path: str) -> list[str]:
    """The folders between the project and a file of it, the inmost first."""
    found, folder = [], os.path.dirname(os.path.realpath(os.path.join(project, path)))
    while folder != os.path.realpath(project):
        found.append(folder)
        folder = os.path.dirname(folder)
    return found


def write(module: AnsibleModule, path: str, text: str | None) -> None:
    target = os.path.realpath(os.path.join(module.params["project"], path))
    if text is None:
        os.unlink(target)
        return
    os.makedirs(os.path.dirname(target), exist_ok=True)
    descriptor, temporary = tempfile.mkstemp(dir=module.tmpdir)
    with os.fdopen(descriptor, "w", encoding="utf-8", errors="surrogateescape", newline="") as file:
        file.write(text)
    module.atomic_move(temporary, target)


def remove_folders(project: str, gone: dict[str, str]) -> None:
    """Of files that are gone, with the text that they had: the folders made with them, as far as they are empty."""
    made = set()
    for path, text in gone.items():
        count = managed_blocks.folders_made(text, document_comments.comment_of(path))
        made |= set(_folders(project, path)[:count])
    for folder in sorted(made, key=len, reverse=True):
        if not os.listdir(folder):
            os.rmdir(folder)


def main() -> None:
    module = AnsibleModule(
        argument_spec={
            "project": {"type": "path", "required": True},
            "blocks": {"type": "dict", "required": True},
            "hashes": {"type": "dict", "default": {}},
            "state": {"type": "str", "choices": ["present", "absent"], "default": "present"},
            "create": {"type": "bool", "default": False},
        },
        supports_check_mode=True,
    )
    project, blocks = module.params["project"], module.params["blocks"]
    if not os.path.isdir(project):
        module.fail_json(msg=f"expected the folder of your project at {project}, found none")
    inside = os.path.join(os.path.realpath(project), "")
    outside = [path for path in blocks if not os.path.realpath(os.path.join(project, path)).startswith(inside)]
    if outside:
        module.fail_json(msg=f"{', '.join(outside)}: expected a file inside {project}, found a way out of it")
    try:
        texts = {path: read(os.path.join(project, path)) for path in blocks}
        missing = [path for path, text in texts.items() if text is None]
        if len(missing) == len(blocks) and module.params["state"] == "present" and not module.params["create"]:
            module.fail_json(
                msg=f"none of {', '.join(blocks)} is in {project}: name the root of your project, or ask for the files "
                "to be made (document_create: true)"
            )
        changes = plan(texts, module.params)
        if not module.check_mode:
            for path, text in changes.items():
                write(module, path, text)
            remove_folders(project, {path: texts[path] or "" for path, text in changes.items() if text is None})
    except (document_comments.Spoilt, requirement_lists.Unfit) as error:
        module.fail_json(msg=f"{error}. Nothing was written")
    except OSError as error:
        module.fail_json(msg=f"cannot write into {project}: {error.strerror} ({error.filename})")
    present = module.params["state"] == "present"
    module.exit_json(
        changed=bool(changes),
        written=sorted(changes),
        missing=[path for path in missing if path not in changes],
        withdrawn=told(withdrawn_warnings.withdrawn, {path: texts[path] for path in changes}) if present else [],
        standing=told(withdrawn_warnings.standing, {**texts, **changes}) if present else [],
        diff=[
            {"before_header": path, "after_header": path, "before": texts[path] or "", "after": text or ""}
            for path, text in sorted(changes.items())
        ],
    )


if __name__ == "__main__":
    main()
