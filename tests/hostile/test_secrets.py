# Copyright (c) 2026 The ocrfleet.gpu_stack contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""A password or a token in a URL is in nothing that is printed, and in no file that a run leaves."""

from __future__ import annotations

import hashlib
import tarfile
from collections.abc import Callable

import light_stack
from light_hosts import LightHosts
from package_index import served

SECRETS = ("hunter2", "tok3n")


def test_secrets_in_urls_are_told_nowhere(make_hosts: Callable[[], LightHosts]) -> None:
    hosts = make_hosts()
    files = hosts.folder / "files"
    hosts.wheel(files, *light_stack.WHEELS[3])
    source = hosts.sources(hosts.folder / "flashinfer-0.3.1")
    archive = files / "flashinfer.tar.gz"
    with tarfile.open(archive, "w:gz") as made:
        made.add(source, "flashinfer-0.3.1")
    checksum = f"sha256:{hashlib.sha256(archive.read_bytes()).hexdigest()}"
    with served(files, others=True) as index:
        url = f"http://{index}/flashinfer.tar.gz?private_token=tok3n"
        mirror = f"http://ocr:hunter2%40x@{index}/simple"
        fetched = {"fi_method": "source", "flashinfer_source": url}
        hosts.add("by-pypi", stack_default_index=mirror)
        hosts.add("by-source", **fetched, flashinfer_source_checksum=checksum)
        hosts.add("no-checksum", **fetched)
        hosts.add("wrong-checksum", **fetched, flashinfer_source_checksum="sha256:00")
        hosts.add("not-there", fi_method="source", flashinfer_source=f"http://ocr:hunter2@{index}/x.git?key=tok3n")
        hosts.add("no-index", stack_default_index="http://ocr:hunter2@x@127.0.0.1:1/simple")
        said = hosts.run("-vvv")
    print(said)
    for name, result in (("by-pypi", "verified"), ("by-source", "verified"), ("not-there", "failed")):
        assert hosts.evidence(name)["result"] == result, said
    left = [path for folder in ("reports", "on-the-host", "wheelhouse") for path in (hosts.folder / folder).rglob("*")]
    texts = {str(path): path.read_text(errors="replace") for path in left if path.is_file()}
    assert texts
    for secret in SECRETS:
        assert [line for line in said.splitlines() if secret in line] == []
        assert [path for path, text in texts.items() if secret in text] == []
