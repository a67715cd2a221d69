# Copyright (c) 2026 The ocrfleet.gpu_stack contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""A pack comes back as it was packed, and one that does not fit is refused with the reason."""

from __future__ import annotations

import io
import json
import os
import re
import subprocess
import tarfile
from pathlib import Path

import pytest
from ansible_collections.ocrfleet.gpu_stack.plugins.module_utils import (
    flashinfer_install,
    kernel_pack,
    placed_kernels,
    shared_objects,
    ssh_signature,
    staging,
    tree_file,
)
from ansible_collections.ocrfleet.gpu_stack.plugins.module_utils.distributions import Distribution
from ansible_collections.ocrfleet.gpu_stack.plugins.modules import kernel_pack as module

HERE = {
    "flashinfer": "0.6.13",
    "torch": "2.8.0+cu128",
    "cuda": "12.8",
    "python": "cp311",
    "architecture": "90",
    "machine": "x86_64",
    "GLIBC": "2.35",
    "GLIBCXX": "3.4.30",
    "CXXABI": "1.3.13",
}
MODULES = {"sampling": b"\x7fELF libcudart.so.12\0GLIBC_2.34\0GLIBCXX_3.4.30\0", "page": b"\x7fELF GLIBC_2.2.5\0"}
# As on Ubuntu 24.04, for all of whose modules that is so.
NEWER = {**MODULES, "page": b"\x7fELF GLIBC_2.38\0GLIBCXX_3.4.32\0CXXABI_1.3.13\0"}
LACKING = [
    "GLIBC: expected at most 2.35, which is here, found a module that needs 2.38",
    "GLIBCXX: expected at most 3.4.30, which is here, found a module that needs 3.4.32",
]


AOT = "flashinfer/data/aot"


def archive(files: dict[str, bytes]) -> bytes:
    stream = io.BytesIO()
    with tarfile.open(fileobj=stream, mode="w") as tar:
        for name, content in files.items():
            entry = tarfile.TarInfo(name)
            entry.size = len(content)
            tar.addfile(entry, io.BytesIO(content))
    return stream.getvalue()


def packed(modules: dict[str, bytes]) -> bytes:
    return kernel_pack.pack(modules, kernel_pack.manifest(modules, HERE, "12.8"))


def listing(**changes: object) -> bytes:
    return json.dumps({**kernel_pack.manifest(MODULES, HERE), **changes}).encode()


def test_there_and_back(tmp_path: Path) -> None:
    content = packed(MODULES)
    assert content == packed(dict(reversed(list(MODULES.items()))))
    path = tmp_path / "pack.tar.xz"
    listed, modules = kernel_pack.unpack(str(path), content)
    assert (modules, listed["nvcc"]) == (MODULES, "12.8")
    assert kernel_pack.mismatches(listed, HERE) == []
    package = str(tmp_path / "flashinfer")
    placing = kernel_pack.to_place(listed, modules, package)
    assert placing == kernel_pack.Placing(("page", "sampling"), (), True)
    kernel_pack.place(listed, modules, placing, package)
    assert not kernel_pack.to_place(listed, modules, package)
    assert (tmp_path / AOT / "sampling" / "sampling.so").read_bytes() == MODULES["sampling"]
    assert not list(tmp_path.rglob("*.new"))


def place(tmp_path: Path) -> str:
    """Place the pack of `MODULES` in a package; its path."""
    package = str(tmp_path / "flashinfer")
    listed = kernel_pack.manifest(MODULES, HERE)
    kernel_pack.place(listed, MODULES, kernel_pack.to_place(listed, MODULES, package), package)
    return package


def lay(tmp_path: Path, name: str, content: bytes) -> Path:
    """A module where FlashInfer loads it, as by hand."""
    path = tmp_path / AOT / name / f"{name}.so"
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(content)
    return path


def test_a_hard_link_keeps_its_content(tmp_path: Path) -> None:
    """In a candidate the file may be the one that services use."""
    live = tmp_path / "live.so"
    live.write_bytes(b"old")
    (tmp_path / AOT / "page").mkdir(parents=True)
    os.link(live, tmp_path / AOT / "page" / "page.so")
    place(tmp_path)
    assert live.read_bytes() == b"old"
    assert (tmp_path / AOT / "page" / "page.so").read_bytes() == MODULES["page"]


def test_what_lies_among_the_modules_and_is_of_no_pack_is_removed(tmp_path: Path) -> None:
    """FlashInfer would load it beside the pack, whoever put it there."""
    lay(tmp_path, "norm", b"unsigned")
    outside = tmp_path / "elsewhere"
    lay(tmp_path, "linked", b"").parent.rename(outside)
    (tmp_path / AOT / "linked").symlink_to(outside)
    package = place(tmp_path)
    assert sorted(placed_kernels.origins(package, HERE)) == ["page", "sampling"]
    assert (outside / "linked.so").exists(), "a link is removed, not what it leads to"


@pytest.mark.parametrize("link", ["flashinfer", "flashinfer/data", AOT, f"{AOT}/sampling"])
def test_nothing_is_written_or_removed_through_a_link(tmp_path: Path, link: str) -> None:
    """Root places packs in trees of a service's user, who may lay a link to where root alone may write."""
    outside = tmp_path / "outside"
    (outside / "norm").mkdir(parents=True)
    (outside / "norm/norm.so").touch()
    (tmp_path / link).parent.mkdir(parents=True, exist_ok=True)
    (tmp_path / link).symlink_to(outside)
    with pytest.raises(tree_file.Unsafe, match=f"found {tmp_path / link}, which is a link"):
        place(tmp_path)
    assert [path for path in outside.rglob("*") if path.is_file()] == [outside / "norm/norm.so"]


def test_a_link_that_is_laid_while_a_file_is_written_leads_nowhere(tmp_path: Path) -> None:
    (tmp_path / "outside").mkdir()
    (tmp_path / "etc").symlink_to(tmp_path / "outside")
    with pytest.raises(tree_file.Unsafe, match="found .*/etc, which is a link"):
        tree_file.write(str(tmp_path), "etc/ocrfleet/x", b"")
    assert list((tmp_path / "outside").iterdir()) == []


def test_a_temporary_file_is_a_new_one(tmp_path: Path) -> None:
    """One whose name can be guessed may be a link that another user laid."""
    victim = tmp_path / "victim"
    victim.write_bytes(b"of root")
    lay(tmp_path, "sampling", b"old")
    for name in ("sampling.so.new", ".sampling.so.new"):
        (tmp_path / AOT / "sampling" / name).symlink_to(victim)
    place(tmp_path)
    assert victim.read_bytes() == b"of root"
    assert (tmp_path / AOT / "sampling/sampling.so").read_bytes() == MODULES["sampling"]


@pytest.mark.parametrize(
    ("change", "origins"),
    [
        (lambda _aot: None, {"page": "pack", "sampling": "pack"}),
        (
            lambda aot: (aot / "page/page.so").write_bytes(b"other"),
            {"page": "unlisted", "sampling": "pack"},
        ),
        (lambda aot: (aot / "ocrfleet-pack.json").unlink(), {"page": "unlisted", "sampling": "unlisted"}),
        (lambda aot: (aot / "ocrfleet-pack.json").write_text("["), {"page": "unlisted", "sampling": "unlisted"}),
        (
            lambda aot: (aot / "ocrfleet-pack.json").write_text('{"modules": {"page": 1}}'),
            {"page": "unlisted", "sampling": "unlisted"},
        ),
    ],
)
def test_a_module_is_of_the_pack_only_as_the_manifest_beside_it_says(tmp_path: Path, change, origins) -> None:
    package = place(tmp_path)
    change(tmp_path / AOT)
    assert placed_kernels.origins(package, HERE) == origins
    assert kernel_pack.is_placed(package, HERE) is (set(origins.values()) == {"pack"})


def test_a_pack_is_placed_whole_and_for_this_host_or_it_is_not(tmp_path: Path) -> None:
    package = place(tmp_path)
    assert not kernel_pack.is_placed(package, {**HERE, "torch": "2.9.0"})
    (tmp_path / AOT / "page" / "page.so").unlink()
    assert not kernel_pack.is_placed(package, HERE), "one is missing"
    place(tmp_path)
    lay(tmp_path, "norm", b"")
    assert not kernel_pack.is_placed(package, HERE), "one is too many"


@pytest.mark.parametrize("key", kernel_pack.KEYS)
def test_a_pack_is_placed_for_what_was_here_then(tmp_path: Path, key: str) -> None:
    """FlashInfer loads it unasked also after an upgrade, or in another GPU's host."""
    package = place(tmp_path)
    now = {**HERE, key: "9.9"}
    assert placed_kernels.origins(package, {**HERE, key: ""}) == {"page": "pack", "sampling": "pack"}, "not known"
    assert placed_kernels.origins(package, now) == {"page": "mismatched", "sampling": "mismatched"}
    from_source = {**kernel_pack.manifest(MODULES, HERE), "flashinfer": "0.0.0+unknown"}
    assert placed_kernels.fits(from_source, HERE), "what it calls itself says nothing"
    modules = flashinfer_install.compiled_modules("/nonexistent", package, now)
    assert not flashinfer_install.is_packed(modules)
    assert f"{AOT}/page/page.so" in flashinfer_install.foreign(modules)
    assert "a pack brought that was built for another FlashInfer" in flashinfer_install.foreign(modules)
    assert f"{key}: expected 9.9, the pack has {HERE[key]}" == kernel_pack.objection(package, now, [])


def test_a_placed_pack_is_taken_out_and_nothing_else(tmp_path: Path) -> None:
    package = place(tmp_path)
    by_hand = lay(tmp_path, "norm", b"")
    assert kernel_pack.clear(package, check_mode=True) == ["page", "sampling"]
    assert kernel_pack.is_placed(package, HERE) is False
    assert (tmp_path / AOT / "page/page.so").exists()
    assert kernel_pack.clear(package, check_mode=False) == ["page", "sampling"]
    assert list((tmp_path / AOT).rglob("*.*")) == [by_hand]
    assert kernel_pack.objection(package, HERE, []) == ""


def test_kernels_of_flashinfers_own_wheel_are_told_and_left_alone(tmp_path: Path) -> None:
    lay(tmp_path, "norm", b"built in")
    record = tmp_path / "flashinfer_python-0.3.1.dist-info" / "RECORD"
    record.parent.mkdir()
    record.write_text("flashinfer/__init__.py,sha256=x,1\nflashinfer/data/aot/norm/norm.so,sha256=x,8\n")
    lay(tmp_path, "page", b"by hand")
    package = str(tmp_path / "flashinfer")
    assert placed_kernels.origins(package, HERE) == {"norm": "package", "page": "unlisted"}
    with pytest.raises(
        kernel_pack.Refused, match="expected a FlashInfer without compiled modules of its own, found norm"
    ):
        place(tmp_path)
    assert (tmp_path / AOT / "norm" / "norm.so").exists()


def test_hosts_of_another_glibc_or_libstdcxx_have_a_pack_of_another_name() -> None:
    """The store keeps one for each name: what one distribution's compiler made does not load on an older one."""
    name = kernel_pack.file_name(HERE)
    assert name == "flashinfer-0.6.13-torch-2.8.0+cu128-cp311-sm90-x86_64-glibc2.35-glibcxx3.4.30.tar.xz"
    assert kernel_pack.file_name({**HERE, "GLIBC": "2.39"}) != name
    assert kernel_pack.file_name({**HERE, "GLIBCXX": "3.4.33"}) != name


def test_a_pack_that_needs_newer_libraries_than_the_hosts_does_not_fit() -> None:
    """The loader would say so at the first call, as an import error."""
    listed, _modules = kernel_pack.unpack("pack", packed(NEWER))
    assert listed["needs"] == {"GLIBC": "2.38", "GLIBCXX": "3.4.32", "CXXABI": "1.3.13"}
    assert kernel_pack.mismatches(listed, HERE) == LACKING
    assert kernel_pack.mismatches(listed, {**HERE, "GLIBC": "2.39", "GLIBCXX": "3.4.33"}) == []
    listed, _modules = kernel_pack.unpack("pack", packed(MODULES))
    assert kernel_pack.mismatches(listed, {**HERE, "GLIBC": "2.34"}) == []


@pytest.mark.parametrize("claim", [None, {}, [], {"GLIBC": "2.17"}, {"GLIBC": 2}])
def test_what_a_pack_needs_is_read_from_its_modules(claim: object) -> None:
    """Packs of before have no such entry in their manifest, and another's is a claim."""
    manifest = {**kernel_pack.manifest(NEWER, HERE), "needs": claim}
    if claim is None:
        del manifest["needs"]
    listed, _modules = kernel_pack.unpack("pack", kernel_pack.pack(NEWER, manifest))
    assert kernel_pack.mismatches(listed, HERE) == LACKING


@pytest.mark.parametrize(
    ("needs", "origin"),
    [
        ({"GLIBC": "2.34"}, "pack"),
        ({"GLIBC": "2.38"}, "mismatched"),
        ({"GLIBCXX": "3.4.32"}, "mismatched"),
        (None, "pack"),  # placed by a release that did not write it down
        ([], "pack"),
        ({"GLIBC": 2}, "pack"),
    ],
)
def test_a_placed_pack_is_held_against_the_hosts_libraries(tmp_path: Path, needs: object, origin: str) -> None:
    """An environment may have been copied to a host of another distribution."""
    package = place(tmp_path)
    beside = tmp_path / AOT / "ocrfleet-pack.json"
    beside.write_text(json.dumps({**json.loads(beside.read_text()), "needs": needs}))
    assert set(placed_kernels.origins(package, HERE).values()) == {origin}
    assert kernel_pack.is_placed(package, HERE) is (origin == "pack")
    assert bool(kernel_pack.objection(package, HERE, [])) is (origin == "mismatched")
    if origin == "mismatched":
        said = flashinfer_install.foreign(flashinfer_install.compiled_modules("/nonexistent", package, HERE))
        assert "or for newer system libraries" in said


def test_the_libraries_here_are_known_without_an_import(tmp_path: Path) -> None:
    here = flashinfer_install.installed_for(str(tmp_path), {}, "9.0")
    assert {family: here[family] for family in shared_objects.FAMILIES} == shared_objects.offered(str(tmp_path))


def test_what_would_not_load_where_it_was_compiled_is_not_packed(tmp_path: Path) -> None:
    """It would take the place in the store of one that does, for every host of this kind."""
    path = tmp_path / "page.so"
    path.write_bytes(NEWER["page"])
    with pytest.raises(
        kernel_pack.Refused, match="page: GLIBC: expected at most 2.35, .*; GLIBCXX: .*; remove the cache"
    ):
        kernel_pack.collect({"page": str(path)}, HERE)


@pytest.mark.parametrize("key", kernel_pack.KEYS)
def test_what_a_pack_is_bound_to(key: str) -> None:
    listed = json.loads(listing(**{key: "other"}))
    assert kernel_pack.mismatches(listed, HERE) == [f"{key}: expected {HERE[key]}, the pack has other"]


SO = {"sampling/sampling.so": MODULES["sampling"], "page/page.so": MODULES["page"]}


@pytest.mark.parametrize(
    ("files", "says"),
    [
        ({}, "expected a kernel pack's manifest.json, found none"),
        ({"manifest.json": b"{"}, "expected a kernel pack's manifest.json, found one that is no JSON"),
        ({"manifest.json": b"[" * 100_000}, "found one that is no JSON"),
        ({"manifest.json": b"[]"}, "expected a kernel pack of format 1, found list"),
        ({"manifest.json": b"null"}, "expected a kernel pack of format 1, found NoneType"),
        ({"manifest.json": listing(format=2), **SO}, "expected a kernel pack of format 1, found 2"),
        ({"manifest.json": listing(format=[1]), **SO}, "expected a kernel pack of format 1, found [1]"),
        ({"manifest.json": listing(), "page/page.so": MODULES["page"]}, "expected sampling with the checksum"),
        ({"manifest.json": listing(), **SO, "page/page.so": b"changed"}, "expected page with the checksum"),
        ({"manifest.json": listing(modules={"../../evil": {"sha256": ""}})}, "found '../../evil'"),
        ({"manifest.json": listing(modules=["page"]), **SO}, "expected modules by name in its manifest.json"),
        ({"manifest.json": listing(modules=None), **SO}, "expected modules by name in its manifest.json"),
        ({"manifest.json": listing(modules={}), **SO}, "expected modules by name in its manifest.json"),
        ({"manifest.json": listing(modules={"page": "x"}), **SO}, "expected the checksum sha256 of page, found 'x'"),
        ({"manifest.json": listing(modules={"page": {"sha256": 1}}), **SO}, "expected the checksum sha256 of page"),
        ({"manifest.json": listing(), **SO, "../evil": b""}, "found also ../evil"),
    ],
)
def test_refused(files: dict[str, bytes], says: str) -> None:
    with pytest.raises(kernel_pack.Refused, match=re.escape(says)) as refused:
        kernel_pack.unpack("pack.tar", archive(files))
    assert "build the pack anew" in str(refused.value)


@pytest.mark.parametrize("content", [b"", b"not an archive", packed(MODULES)[:200]])
def test_no_pack_at_all(content: bytes) -> None:
    with pytest.raises(kernel_pack.Refused, match="/store/pack: expected a kernel pack, found no archive"):
        kernel_pack.unpack("/store/pack", content)


def test_modules_of_another_cuda_are_not_packed(tmp_path: Path) -> None:
    path = tmp_path / "sampling.so"
    path.write_bytes(b"\x7fELF libcudart.so.13\0")
    with pytest.raises(kernel_pack.Refused, match="sampling: expected a module for CUDA 12.8, found .*libcudart.so.13"):
        kernel_pack.collect({"sampling": str(path)}, HERE)
    with pytest.raises(kernel_pack.Refused, match="expected compiled modules of FlashInfer 0.6.13 .* found none"):
        kernel_pack.collect({}, HERE)


def test_only_modules_of_this_version_and_architecture_are_packed() -> None:
    def one(name: str, **changes: str) -> dict:
        return {
            "name": name,
            "path": f"/{name}",
            "origin": "cache",
            "flashinfer": "0.6.13",
            "architecture": "90a",
            **changes,
        }

    found = [
        one("a"),
        one("b", flashinfer=""),
        one("c", flashinfer="0.5.3"),
        one("d", architecture="89"),
        one("e", origin="pack"),
    ]
    assert module.in_cache(found, HERE) == {"a": "/a", "b": "/b"}


@pytest.mark.parametrize(("text", "expected"), [("9.0", "90"), ("90a", "90"), ("12.0f", "120"), ("89", "89"), ("", "")])
def test_digits(text: str, expected: str) -> None:
    assert flashinfer_install.digits(text) == expected


# --- signatures, by the real ssh-keygen ---


@pytest.fixture(scope="module")
def keys(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("keys")
    for name in ("release", "other"):
        subprocess.run(["ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-f", str(folder / name)], check=True)
    return folder


def public(keys: Path, *names: str) -> list[str]:
    return [(keys / f"{name}.pub").read_text() for name in names]


def sign(keys: Path, pack: Path, name: str = "release", namespace: str = kernel_pack.NAMESPACE) -> None:
    argv = ["ssh-keygen", "-q", "-Y", "sign", "-n", namespace, "-f", str(keys / name), str(pack)]
    subprocess.run(argv, check=True, capture_output=True)


def signer(pack: Path, trusted: list[str]) -> str:
    scratch = pack.parent / "scratch"
    scratch.mkdir(exist_ok=True)
    return module.signer(pack.read_bytes(), str(pack), "", trusted, str(scratch))


def test_a_trusted_signature_is_named_by_its_key(tmp_path: Path, keys: Path) -> None:
    pack = tmp_path / "pack.tar.xz"
    pack.write_bytes(packed(MODULES))
    assert signer(pack, []) == "", "without keys no signature is asked for"
    sign(keys, pack)
    told = subprocess.run(["ssh-keygen", "-lf", str(keys / "release.pub")], check=True, capture_output=True, text=True)
    assert signer(pack, public(keys, "other", "release")) == told.stdout.split()[1]


def test_a_pack_that_is_placed_counts_only_if_a_trusted_key_signed_it(tmp_path: Path, keys: Path) -> None:
    """Keys may be trusted later than it was placed."""
    pack = tmp_path / "pack.tar.xz"
    pack.write_bytes(packed(MODULES))
    sign(keys, pack)
    release, other = public(keys, "release"), public(keys, "other")
    assert ssh_signature.fingerprint(release[0]) == signer(pack, release)
    assert ssh_signature.fingerprint("ssh-ed25519 A x") == ssh_signature.fingerprint("hello") == ""
    package = place(tmp_path)
    assert kernel_pack.is_placed(package, HERE, [])
    assert not kernel_pack.is_placed(package, HERE, release)
    assert kernel_pack.objection(package, HERE, release) == "expected the signature of a trusted key, found none"
    listed = {**kernel_pack.manifest(MODULES, HERE), "signed_by": signer(pack, release)}
    kernel_pack.place(listed, MODULES, kernel_pack.to_place(listed, MODULES, package), package)
    assert kernel_pack.is_placed(package, HERE, release)
    assert not kernel_pack.is_placed(package, HERE, other)


@pytest.mark.parametrize(
    ("how", "says"),
    [
        ("unsigned", "expected a signature at .*pack.tar.xz.sig, found none; have it signed with ssh-keygen -Y sign"),
        ("by another key", "expected a signature by one of the trusted keys"),
        ("for something else", "expected a signature by one of the trusted keys"),
        ("changed after", "expected a signature by one of the trusted keys"),
        ("garbage", "expected a signature by one of the trusted keys"),
        ("no key", "expected a public key as in a .pub file of ssh-keygen, found 'hello'"),
        ("a key with options", "expected a public key as in a .pub file"),
        ("two lines in one", "expected a public key as in a .pub file"),
    ],
)
def test_a_signature_that_does_not_count(tmp_path: Path, keys: Path, how: str, says: str) -> None:
    pack = tmp_path / "pack.tar.xz"
    pack.write_bytes(packed(MODULES))
    trusted = public(keys, "release")
    if how != "unsigned":
        name = "other" if how == "by another key" else "release"
        sign(keys, pack, name, "file" if how == "for something else" else kernel_pack.NAMESPACE)
    if how == "changed after":
        pack.write_bytes(pack.read_bytes() + b"\0")
    if how == "garbage":
        pack.with_name("pack.tar.xz.sig").write_text("garbage")
    if how == "no key":
        trusted = ["hello"]
    if how == "a key with options":
        trusted = ["cert-authority " + trusted[0]]
    if how == "two lines in one":
        trusted = [trusted[0] + public(keys, "other")[0]]
    with pytest.raises(kernel_pack.Refused, match=says):
        signer(pack, trusted)


def test_a_host_without_ssh_keygen_says_so(tmp_path: Path, keys: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    pack = tmp_path / "pack.tar.xz"
    pack.write_bytes(b"")
    sign(keys, pack)
    monkeypatch.setenv("PATH", "/nonexistent")
    with pytest.raises(kernel_pack.Refused, match="expected ssh-keygen on PATH, found none"):
        signer(pack, public(keys, "release"))


@pytest.mark.parametrize(
    ("gpu", "architecture", "says"),
    [
        ("", "90", ""),
        ("90", "90", ""),
        ("", "89", "architecture: expected 89, the pack has 90"),
        ("89", "90", "architecture: the GPU here has 89"),
    ],
)
def test_a_pack_is_placed_only_where_it_runs(tmp_path: Path, gpu: str, architecture: str, says: str) -> None:
    (tmp_path / "site").mkdir()
    pack = tmp_path / "pack.tar.xz"
    pack.write_bytes(packed(MODULES))
    installed = {"flashinfer-python": Distribution("flashinfer-python", "0.6.13", str(tmp_path / "site" / "x"))}
    bound_to = {**HERE, "architecture": architecture}
    host = module.Host(staging.Stage(str(tmp_path)), installed, {}, bound_to, gpu, str(tmp_path))
    if says:
        with pytest.raises(kernel_pack.Refused, match=says):
            module.placed(host, str(pack), "", [], False)
        return
    assert module.placed(host, str(pack), "", [], False)["written"] == ["page", "sampling"]
    again = module.placed(host, str(pack), "", [], False)
    assert (again["changed"], again["differs"]) == (False, False)


def test_what_placing_removes_is_told_before_it_is_done(tmp_path: Path) -> None:
    pack = tmp_path / "pack.tar.xz"
    pack.write_bytes(packed(MODULES))
    installed = {"flashinfer-python": Distribution("flashinfer-python", "0.6.13", str(tmp_path / "x"))}
    host = module.Host(staging.Stage(str(tmp_path)), installed, {}, HERE, "", str(tmp_path))
    left = lay(tmp_path, "norm", b"unsigned")
    told = module.placed(host, str(pack), "", [], True)
    assert (told["removed"], told["differs"], left.exists()) == (["norm"], True, True)
    done = module.placed(host, str(pack), "", [], False)
    assert (done["removed"], done["changed"], left.exists()) == (["norm"], True, False)
    (tmp_path / AOT / "ocrfleet-pack.json").unlink()
    assert module.placed(host, str(pack), "", [], False)["changed"], "modules of before, whose manifest is missing"


def test_a_pack_that_is_not_there_is_told_by_the_name_it_should_have(tmp_path: Path) -> None:
    host = module.Host(staging.Stage(str(tmp_path)), {}, {}, HERE, "", str(tmp_path))
    with pytest.raises(
        kernel_pack.Refused, match="expected the kernel pack flashinfer-0.6.13-.* at /none, found no file"
    ):
        module.placed(host, "/none", "", [], False)
