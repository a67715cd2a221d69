# Copyright (c) 2026 The ocrfleet.gpu_stack contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The wheelhouse on the control node: look, have it built by the host that asks first, and bring it to the host."""

from __future__ import annotations

import fcntl
import gzip
import hashlib
import json
import os
import re
import shutil
import tarfile
import tempfile
from pathlib import Path

from ansible.errors import AnsibleActionFail
from ansible.plugins.action import ActionBase
from ansible_collections.ocrfleet.gpu_stack.plugins.module_utils import redaction, source_tree
from ansible_collections.ocrfleet.gpu_stack.plugins.plugin_utils import placing

PROVENANCE = "provenance.json"
_ARCHIVE = re.compile(r"\.(tar(\.\w+)?|tgz|zip)$")
_GIT = re.compile(r"[a-z+]+://|[\w.-]+@[\w.-]+:")


def kind_of(source: str) -> str:
    """git, url (an archive's), archive or folder (on the control node)."""
    path = os.path.expanduser(source)
    if source_tree.is_url(source) and _ARCHIVE.search(source.split("?")[0]):
        return "url"
    if os.path.isdir(path):
        return "folder"
    if os.path.isfile(path):
        return "archive"
    if _GIT.match(source):
        return "git"
    raise AnsibleActionFail(
        "expected the URL of a git repository or an archive, or a path on the control node, found nothing at "
        f"{redaction.without_secrets(source)}; correct flashinfer_source"
    )


def pack(folder: str, path: str) -> None:
    """The same files give the same bytes, so that a wheel of them is found again."""

    def plain(entry: tarfile.TarInfo) -> tarfile.TarInfo | None:
        if os.path.basename(entry.name) in (".git", "__pycache__"):
            return None
        entry.uid = entry.gid = entry.mtime = 0
        entry.uname = entry.gname = ""
        return entry

    with (
        open(path, "wb") as file,
        gzip.GzipFile("", "wb", 1, file, mtime=0) as stream,
        tarfile.open(fileobj=stream, mode="w") as archive,  # type: ignore[arg-type]
    ):
        archive.add(folder, "source", filter=plain)


def entry_name(version: str, source: dict, bound_to: dict) -> str:
    """The folder of a wheel in the wheelhouse: another source or another kind of host is another wheel."""
    key = hashlib.sha256(json.dumps([source, bound_to], sort_keys=True).encode()).hexdigest()
    return f"flashinfer-python-{version}-{key[:16]}"


def read_entry(folder: Path) -> dict | None:
    """The provenance of a finished wheel; None where there is none. Raises where the wheel is not the one built."""
    if not (folder / PROVENANCE).is_file():
        return None
    made = json.loads((folder / PROVENANCE).read_text(encoding="utf-8"))
    try:
        source_tree.check_sum(str(folder / made["wheel"]), f"sha256:{made['sha256']}")
    except (OSError, source_tree.Refused) as reason:
        raise AnsibleActionFail(f"{folder} is damaged ({reason}); remove the folder, and it is built again") from reason
    return made


class ActionModule(ActionBase):
    """See the module of this name for its documentation."""

    TRANSFERS_FILES = True
    _supports_check_mode = True

    def run(self, tmp: str | None = None, task_vars: dict | None = None) -> dict:
        result = super().run(tmp, task_vars)
        args = dict(self._task.args)
        kind = kind_of(args["source"])
        if kind == "url" and not args.get("checksum"):
            raise AnsibleActionFail(
                f"expected a checksum (flashinfer_source_checksum) for {redaction.without_secrets(args['source'])}, "
                "found none: an archive from the network is only used when its SHA-256 is known; give it"
            )
        if kind == "git" and args.get("checksum"):
            raise AnsibleActionFail(
                "expected flashinfer_source_checksum with an archive only, found it with the git repository "
                f"{redaction.without_secrets(args['source'])}, of which it can hold nothing; name a commit in "
                "flashinfer_source_ref instead, which git holds everything against"
            )
        looked = self._execute_module(module_args=args, task_vars=task_vars)
        if looked.get("failed") or looked.get("skipped"):
            return {**result, **looked}
        with tempfile.TemporaryDirectory() as scratch:
            local, named = self._local(kind, args, scratch)
            house = Path(os.path.expanduser(args["wheelhouse"]))
            entry = house / entry_name(args["version"], named, looked["bound_to"])
            house.mkdir(parents=True, exist_ok=True)
            # Another host of the same kind, in this run or another one, waits here and then finds the wheel.
            with open(f"{entry}.lock", "w", encoding="utf-8") as lock:
                fcntl.flock(lock, fcntl.LOCK_EX)
                made = read_entry(entry)
                built = made is None
                if made is None:
                    answer = self._build(kind, local, args, entry, looked["bound_to"], task_vars)
                    if answer.get("failed"):
                        return {**result, **answer}
                    made = answer
        folder = self._bring(entry, made, args["dest"])
        result.update(changed=built, folder=folder, provenance=made, missing=looked["missing"])
        return result

    def _local(self, kind: str, args: dict, scratch: str) -> tuple[str, dict]:
        """The file on the control node that the host needs, if any, and what names the source."""
        path = os.path.expanduser(args["source"])
        if kind == "folder":
            path = os.path.join(scratch, "source.tar.gz")
            pack(os.path.expanduser(args["source"]), path)
        if kind in ("folder", "archive"):
            try:
                return path, {"sha256": source_tree.check_sum(path, args.get("checksum") or "")}
            except source_tree.Refused as reason:
                raise AnsibleActionFail(str(reason)) from reason
        name = "checksum" if kind == "url" else "ref"
        return "", {"source": redaction.without_secrets(args["source"]), name: args.get(name)}

    def _build(self, kind: str, local: str, args: dict, entry: Path, bound_to: dict, task_vars: dict | None) -> dict:
        remote = self._make_tmp_path()
        join = self._connection._shell.join_path
        try:
            given = {**args, "kind": "archive" if local else kind, "dest": join(remote, "wheel")}
            if local:
                # By its own name, for messages.
                given["source"] = join(remote, os.path.basename(local))
                self._transfer_file(local, given["source"])
                self._fixup_perms2((remote, given["source"]))
            answer = self._execute_module(module_args=given, task_vars=task_vars)
            if answer.get("failed"):
                return answer
            made = {**answer["made"], "kind": kind, "source": redaction.without_secrets(args["source"]), **bound_to}
            fetched = Path(tempfile.mkdtemp(dir=entry.parent))
            self._connection.fetch_file(join(given["dest"], made["wheel"]), str(fetched / made["wheel"]))
            source_tree.check_sum(str(fetched / made["wheel"]), f"sha256:{made['sha256']}")
            (fetched / PROVENANCE).write_text(json.dumps(made, indent=1, sort_keys=True) + "\n", encoding="utf-8")
            fetched.chmod(0o755)
            if entry.exists():
                shutil.rmtree(entry)
            fetched.rename(entry)
            return made
        finally:
            self._remove_tmp_path(remote)

    def _bring(self, entry: Path, made: dict, dest: str) -> str:
        folder = self._connection._shell.join_path(self._remote_expand_user(dest), entry.name)
        wheel = self._connection._shell.join_path(folder, made["wheel"])
        placing.place(self, [(str(entry / made["wheel"]), wheel)])
        return folder
