# Copyright (c) 2026 The ocrfleet.gpu_stack contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Real git over loopback, and real archives, hostile ones among them."""

from __future__ import annotations

import base64
import hashlib
import http.server
import io
import re
import subprocess
import tarfile
import threading
import zipfile

import pytest
from ansible_collections.ocrfleet.gpu_stack.plugins.module_utils import source_tree

GIT = ["git", "-c", "user.name=t", "-c", "user.email=t@example.invalid", "-c", "protocol.file.allow=always"]


def repository(folder, name):
    folder.mkdir()
    (folder / name).write_text("x")
    for command in (["init", "-q"], ["add", "-A"], ["commit", "-qm", "x"], ["tag", "v1"]):
        subprocess.run([*GIT, "-C", str(folder), *command], check=True)
    return subprocess.run(
        ["git", "-C", str(folder), "rev-parse", "HEAD"], check=True, capture_output=True, text=True
    ).stdout.strip()


@pytest.mark.parametrize("by", ["tag", "commit"])
def test_a_tag_or_a_commit_is_taken(tmp_path, by):
    commit = repository(tmp_path / "origin", "pyproject.toml")
    ref = "v1" if by == "tag" else commit
    assert source_tree.checkout(f"file://{tmp_path}/origin", ref, str(tmp_path / "tree"), 60) == commit
    assert source_tree.root(str(tmp_path / "tree")) == str(tmp_path / "tree")


def test_submodules_come_along(tmp_path, monkeypatch):
    repository(tmp_path / "part", "inner.h")
    repository(tmp_path / "origin", "pyproject.toml")
    add = ["submodule", "--quiet", "add", f"file://{tmp_path}/part", "3rdparty"]
    for command in (add, ["commit", "-qm", "with it"], ["tag", "v2"]):
        subprocess.run([*GIT, "-C", str(tmp_path / "origin"), *command], check=True)
    # git refuses file URLs of submodules by itself; those of the real project are https.
    monkeypatch.setenv("GIT_CONFIG_COUNT", "1")
    monkeypatch.setenv("GIT_CONFIG_KEY_0", "protocol.file.allow")
    monkeypatch.setenv("GIT_CONFIG_VALUE_0", "always")
    source_tree.checkout(f"file://{tmp_path}/origin", "v2", str(tmp_path / "tree"), 60)
    assert (tmp_path / "tree/3rdparty/inner.h").is_file()


def test_a_ref_that_is_not_there_is_told(tmp_path):
    repository(tmp_path / "origin", "pyproject.toml")
    with pytest.raises(source_tree.Refused, match=r"(?s)cannot take v9 from file://.*find remote ref v9.*correct"):
        source_tree.checkout(f"file://{tmp_path}/origin", "v9", str(tmp_path / "tree"), 60)


@pytest.fixture
def locked():
    """A server that asks for a password, whatever it gets: its port, and what it was given each time."""
    asked = []

    class Locked(http.server.BaseHTTPRequestHandler):
        def do_GET(self):
            asked.append(self.headers["Authorization"])
            self.send_response(401)
            self.send_header("WWW-Authenticate", 'Basic realm="x"')
            self.end_headers()

        def log_message(self, *_arguments):
            pass

    server = http.server.HTTPServer(("127.0.0.1", 0), Locked)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    try:
        yield server.server_port, asked
    finally:
        server.shutdown()
        server.server_close()


def test_a_repository_that_asks_for_a_password_fails_at_once_and_names_no_secret(tmp_path, monkeypatch, locked):
    # Would be asked, and wait, where the user has one.
    (tmp_path / "ask").write_text(f"#!/bin/sh\ntouch {tmp_path}/asked\n")
    (tmp_path / "ask").chmod(0o755)
    monkeypatch.setenv("GIT_ASKPASS", str(tmp_path / "ask"))
    url = f"http://ocr:hunter2@127.0.0.1:{locked[0]}/x.git"
    with pytest.raises(source_tree.Refused, match="without being asked for a password") as refusal:
        source_tree.checkout(url.replace("ocr:hunter2@", ""), "v1", str(tmp_path / "tree"), 20)
    assert "did not end" not in str(refusal.value)
    with pytest.raises(source_tree.Refused) as refusal:
        source_tree.checkout(url, "v1", str(tmp_path / "other"), 20)
    assert "hunter2" not in str(refusal.value) and "did not end" not in str(refusal.value)
    assert not (tmp_path / "asked").exists()


def test_a_password_reaches_the_host_and_no_command_line(tmp_path, monkeypatch, locked):
    port, asked = locked
    monkeypatch.setenv("GIT_TRACE", str(tmp_path / "trace"))  # every command that git runs
    with pytest.raises(source_tree.Refused, match="Authentication failed"):
        source_tree.checkout(f"http://ocr:hunter2@x@127.0.0.1:{port}/x.git", "v1", str(tmp_path / "tree"), 20)
    assert base64.b64encode(b"ocr:hunter2@x").decode() in str(asked)
    trace = (tmp_path / "trace").read_text()
    assert "remote-http" in trace and "hunter2" not in trace


def test_a_submodule_that_cannot_be_had_is_told_without_its_password(tmp_path):
    repository(tmp_path / "part", "inner.h")
    repository(tmp_path / "origin", "pyproject.toml")
    git = [*GIT, "-C", str(tmp_path / "origin")]
    subprocess.run([*git, "submodule", "--quiet", "add", f"file://{tmp_path}/part", "3rdparty"], check=True)
    url = "http://ocr:hunter2@127.0.0.1:1/x.git"
    for command in (
        ["config", "-f", ".gitmodules", "submodule.3rdparty.url", url],
        ["commit", "-qam", "x"],
        ["tag", "v2"],
    ):
        subprocess.run([*git, *command], check=True)
    with pytest.raises(source_tree.Refused, match="127.0.0.1:1/x.git") as refusal:
        source_tree.checkout(f"file://{tmp_path}/origin", "v2", str(tmp_path / "tree"), 20)
    assert "hunter2" not in str(refusal.value)


def archive(path, *entries):
    with tarfile.open(path, "w:gz") as made:
        for name, kind, target in entries:
            entry = tarfile.TarInfo(name)
            entry.type, entry.linkname = kind, target
            entry.size = 1 if kind == tarfile.REGTYPE else 0
            made.addfile(entry, io.BytesIO(b"x"))
    return str(path)


FILE, LINK, HARD, DEVICE = tarfile.REGTYPE, tarfile.SYMTYPE, tarfile.LNKTYPE, tarfile.CHRTYPE


@pytest.mark.parametrize(
    ("entries", "said"),
    [
        ([("../evil", FILE, "")], "../evil: its path leads out of the archive"),
        ([("a/../../evil", FILE, "")], "a/../../evil: its path leads out"),
        ([("/etc/evil", FILE, "")], "/etc/evil: its path leads out"),
        ([("a", LINK, "/etc")], "a: it is a link that leads out of the archive, to /etc"),
        ([("d/a", LINK, "../../x")], "d/a: it is a link that leads out"),
        ([("a", HARD, "../x")], "a: it is a link that leads out"),
        ([("a", LINK, "."), ("a/b", FILE, "")], "a/b: its path leads out"),
        ([("d/up", LINK, ".."), ("x", LINK, "d/up/..")], "x: it is a link that leads out"),
        # A hard link to a link is that link, at another depth: what is written behind it lands outside.
        (
            [("d/d/s", LINK, "../../good"), ("h", HARD, "d/d/s")],
            "h: it is a hard link to d/d/s, which is a link itself",
        ),
        ([("h", HARD, "./d//s"), ("d/s", LINK, "../good")], "h: it is a hard link to ./d//s, which is a link"),
        ([("dev", DEVICE, "")], "dev: it is neither a file, a folder nor a link"),
    ],
)
def test_an_archive_that_is_not_safe_is_refused_whole(tmp_path, entries, said):
    path = archive(tmp_path / "x.tar.gz", ("good", FILE, ""), *entries)
    with pytest.raises(source_tree.Refused, match="x.tar.gz is not safe to unpack: " + re.escape(said)):
        source_tree.unpack(path, str(tmp_path / "out"))
    assert not (tmp_path / "out").exists()


def test_nothing_is_written_through_a_hard_link_to_a_link(tmp_path):
    (tmp_path / "a/b").mkdir(parents=True)
    (tmp_path / "evil").write_text("mine")
    entries = [("d/d/d/s", LINK, "../../.."), ("h", HARD, "d/d/d/s"), ("h/evil", FILE, "")]
    with pytest.raises(source_tree.Refused, match="which is a link itself"):
        source_tree.unpack(archive(tmp_path / "x.tar.gz", *entries), str(tmp_path / "a/b/out"))
    assert (tmp_path / "evil").read_text() == "mine"


def test_a_hard_link_to_a_file_is_unpacked(tmp_path):
    path = archive(tmp_path / "x.tgz", ("p/pyproject.toml", FILE, ""), ("p/same", HARD, "p/pyproject.toml"))
    source_tree.unpack(path, str(tmp_path / "out"))
    assert (tmp_path / "out/p/same").read_text() == "x"


def test_a_zip_that_climbs_is_refused(tmp_path):
    with zipfile.ZipFile(tmp_path / "x.zip", "w") as made:
        made.writestr("../evil", "x")
    with pytest.raises(source_tree.Refused, match="its path leads out"):
        source_tree.unpack(str(tmp_path / "x.zip"), str(tmp_path / "out"))


def test_a_sound_archive_is_unpacked(tmp_path):
    path = archive(tmp_path / "x.tgz", ("p-1/pyproject.toml", FILE, ""), ("p-1/d/link", LINK, "../pyproject.toml"))
    source_tree.unpack(path, str(tmp_path / "out"))
    assert source_tree.root(str(tmp_path / "out")) == str(tmp_path / "out/p-1")
    assert (tmp_path / "out/p-1/d/link").read_text() == "x"


def test_what_is_no_archive_or_no_project_is_told(tmp_path):
    (tmp_path / "x.tar.gz").write_text("<html>")
    with pytest.raises(source_tree.Refused, match="is no readable tar or zip archive"):
        source_tree.unpack(str(tmp_path / "x.tar.gz"), str(tmp_path / "out"))
    with pytest.raises(source_tree.Refused, match=r"expected pyproject.toml at the top of the source, found x.tar.gz"):
        source_tree.root(str(tmp_path))


def test_a_checksum_that_differs_says_both(tmp_path):
    (tmp_path / "x").write_bytes(b"x")
    digest = hashlib.sha256(b"x").hexdigest()
    assert source_tree.check_sum(str(tmp_path / "x"), f"sha256:{digest.upper()}") == digest
    with pytest.raises(source_tree.Refused, match=f"x: expected sha256:00, found sha256:{digest}"):
        source_tree.check_sum(str(tmp_path / "x"), "sha256:00")
