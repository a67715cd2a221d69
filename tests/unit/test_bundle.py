# Copyright (c) 2026 The ocrfleet.gpu_stack contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The offline bundle: what is taken, what is wrong with one, and that a killed run leaves no half."""

from __future__ import annotations

import hashlib
import json
import shutil
import subprocess
import tempfile
from pathlib import Path

import jsonschema
import pytest
from ansible_collections.ocrfleet.gpu_stack.plugins.action import bundle_use as action_plugin
from ansible_collections.ocrfleet.gpu_stack.plugins.module_utils import bundle, bundle_make
from ansible_collections.ocrfleet.gpu_stack.plugins.modules import bundle_make as module

ROOT = Path(__file__).resolve().parents[2]
SCHEMA = json.loads((ROOT / "roles/bundle/files/manifest.schema.json").read_text())
FILES = {"wheels/a-1-py3-none-any.whl": b"wheel", "bin/uv": b"uv", "locks/flashinfer-0.3.1.txt": b"lock"}
FILES |= {"source/flashinfer_python-0.3.1.tar.gz": b"source"}


def finished(folder: Path) -> Path:
    """A small bundle, as the module finishes it."""
    for name, content in FILES.items():
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_bytes(content)
    manifest = {
        "format": 1,
        "python": "3.11",
        "architecture": "x86_64",
        "uv": "0.13.9",
        "torch": "2.8.0+cu128",
        "olmocr": "0.4.2",
        "flashinfer": "0.3.1",
        "flashinfer_lock": "locks/flashinfer-0.3.1.txt",
        "flashinfer_source": "source/flashinfer_python-0.3.1.tar.gz",
        "conda_installer": "",
        "left_out": [{"what": "conda's installer", "reason": "no URL is given"}],
        "files": {
            name: {"size": len(content), "sha256": hashlib.sha256(content).hexdigest()}
            for name, content in FILES.items()
        },
    }
    (folder / bundle.MANIFEST).write_text(json.dumps(manifest))
    return folder


@pytest.fixture
def made(tmp_path: Path) -> Path:
    return finished(tmp_path)


def problems(folder: Path, **expected: str) -> list[str]:
    return bundle.problems(str(folder), bundle.parse(bundle.read(str(folder))), expected)


def test_a_whole_bundle_has_no_problem_and_fits_its_schema(made: Path) -> None:
    assert problems(made, python="3.11", architecture="x86_64", flashinfer="") == []
    jsonschema.validate(json.loads((made / bundle.MANIFEST).read_text()), SCHEMA)


def test_everything_that_is_wrong_is_listed_at_once(made: Path) -> None:
    (made / "bin/uv").write_bytes(b"uw")
    (made / "locks/flashinfer-0.3.1.txt").write_bytes(b"longer than it was")
    (made / "wheels/a-1-py3-none-any.whl").unlink()
    (made / "wheels/torch-9-py3-none-any.whl").write_bytes(b"planted")
    assert problems(made, python="3.12", architecture="aarch64") == [
        "made for python 3.11, expected 3.12; make one for that",
        "made for architecture x86_64, expected aarch64; make one for that",
        "wheels/a-1-py3-none-any.whl: missing",
        "bin/uv: damaged: its SHA-256 is another one",
        "locks/flashinfer-0.3.1.txt: damaged: 18 bytes, expected 4",
        "wheels/torch-9-py3-none-any.whl: not named in manifest.json, and does not belong there",
    ]


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("{", "expected JSON, found none"),
        ('{"format": 2}', "expected format 1, found 2"),
        ('{"format": 1, "files": {}}', "expected what its schema says"),
        ("[]", "expected format 1, found None"),
    ],
)
def test_a_manifest_that_is_none_is_refused(text: str, said: str) -> None:
    with pytest.raises(bundle.Unusable, match=said):
        bundle.parse(text)
    with pytest.raises((jsonschema.ValidationError, ValueError)):
        jsonschema.validate(json.loads(text), SCHEMA)


@pytest.mark.parametrize("name", ["../outside", "/etc/passwd", "wheels/../../outside"])
def test_a_manifest_that_leads_out_of_the_folder_is_refused(made: Path, name: str) -> None:
    manifest = json.loads((made / bundle.MANIFEST).read_text())
    manifest["files"][name] = {"size": 1, "sha256": "0" * 64}
    with pytest.raises(bundle.Unusable, match="schema"):
        bundle.parse(json.dumps(manifest))


@pytest.mark.parametrize("key", ["flashinfer_lock", "flashinfer_source", "conda_installer"])
@pytest.mark.parametrize("path", ["../../../../etc/passwd", "/etc/passwd", "locks/other.txt"])
def test_what_the_manifest_points_at_is_one_of_its_files(made: Path, key: str, path: str) -> None:
    manifest = {**json.loads((made / bundle.MANIFEST).read_text()), key: path}
    with pytest.raises(bundle.Unusable, match=f"expected in {key} one of its files, found {path}"):
        bundle.parse(json.dumps(manifest))


def test_the_bundle_is_planned_under_the_operators_guards(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    asked: list = []

    def plan(_planner: object, request: object, *_rest: object) -> object:
        asked.append(request)
        raise bundle.Unusable("far enough")

    monkeypatch.setattr(module.package_plan, "make", plan)
    (tmp_path / "lock.txt").write_text("torch==2.8.0\n")
    settings = {"protect": ["torch"], "allow_cuda": ["cuda-tile"], "require_companions": True, "cuda_major": 12}
    params = {"path": str(tmp_path), "baseline_lock": str(tmp_path / "lock.txt"), "sources": {}, **settings}
    maker = module.Maker({**params, "flashinfer": "0.6.13", "flashinfer_default": "0.3.1"}, str(tmp_path))
    with pytest.raises(bundle.Unusable, match="far enough"):
        maker.flashinfer(None)
    (request,) = asked
    assert (request.protect, request.allow, request.optional) == (["torch"], ["cuda-tile"], [])
    assert "flashinfer-cubin==0.6.13" in request.requirements


def test_what_is_secret_in_the_sources_is_told_nowhere(tmp_path: Path) -> None:
    options = {
        "path": str(tmp_path / "bundle"),
        "python": "3.11",
        "uv": "/usr/bin/uv",
        "baseline_lock": str(tmp_path / "no-lock"),
        "torch": "2.8.0",
        "olmocr": "0.4.2",
        "flashinfer_default": "0.3.1",
        "sources": {"default_index": "https://ocr:hunter2@mirror.example/simple"},
        "conda_installer": "https://mirror.example/installer.sh?token=tok3n",
    }
    run = ["-vvv", "localhost", "-m", "ocrfleet.gpu_stack.bundle_make", "-a", json.dumps(options)]
    said = subprocess.run(["ansible", *run], capture_output=True, text=True, cwd=ROOT, check=False).stdout
    assert "expected the baseline's lock" in said
    assert "mirror.example" in said
    assert [secret for secret in ("hunter2", "tok3n") if secret in said] == []


def test_a_folder_without_manifest_is_not_finished(tmp_path: Path) -> None:
    with pytest.raises(bundle.Unusable, match="expected a finished bundle"):
        bundle.read(str(tmp_path))


def test_only_what_is_not_whole_is_downloaded_and_a_wrong_file_is_not_kept(tmp_path: Path) -> None:
    path, right = tmp_path / "a.whl", hashlib.sha256(b"right").hexdigest()
    assert bundle_make.fetch(str(path), right, lambda part: Path(part).write_bytes(b"right") and None)
    assert not bundle_make.fetch(str(path), right, lambda part: pytest.fail("downloaded again"))
    path.write_bytes(b"torn")
    with pytest.raises(bundle.Unusable, match=f"a.whl: expected SHA-256 {right}"):
        bundle_make.fetch(str(path), right, lambda part: Path(part).write_bytes(b"wrong") and None)
    assert sorted(file.name for file in tmp_path.iterdir()) == ["a.whl"]


def test_what_a_killed_run_or_an_earlier_release_left_is_removed(made: Path) -> None:
    (made / "wheels/torch-2.whl.part").write_bytes(b"half")
    (made / "wheels/old-1-py3-none-any.whl").write_bytes(b"old")
    removed = bundle_make.clear(str(made), set(FILES))
    assert removed == ["wheels/old-1-py3-none-any.whl", "wheels/torch-2.whl.part"]
    assert problems(made) == []


def entry(name: str, sha256: str = "a") -> dict:
    return {"url": f"https://index.invalid/{name}", "hashes": {"sha256": sha256}}


@pytest.mark.parametrize(
    ("wheels", "sdist", "allowed", "chosen"),
    [
        pytest.param(
            ["p-1-cp311-cp311-manylinux_2_17_x86_64.whl", "p-1-cp311-cp311-manylinux_2_28_x86_64.whl"],
            None,
            {"a"},
            "p-1-cp311-cp311-manylinux_2_28_x86_64.whl",
            id="the newest C library that the target has",
        ),
        pytest.param(
            ["p-1-cp312-cp312-manylinux_2_17_x86_64.whl", "p-1-cp38-abi3-manylinux1_x86_64.manylinux2014_x86_64.whl"],
            None,
            {"a"},
            "p-1-cp38-abi3-manylinux1_x86_64.manylinux2014_x86_64.whl",
            id="the stable interface, not another Python's",
        ),
        pytest.param(
            ["p-1-cp311-cp311-manylinux_2_39_x86_64.whl", "p-1-cp311-cp311-macosx_11_0_arm64.whl"],
            "p-1.tar.gz",
            {"a"},
            "p-1.tar.gz",
            id="the source where no wheel fits",
        ),
        pytest.param(["p-1-py3-none-any.whl"], None, {"b"}, None, id="a file that the lock does not allow"),
    ],
)
def test_the_file_that_fits_the_target(wheels: list, sdist: str | None, allowed: set, chosen: str | None) -> None:
    package = {"name": "p", "wheels": [entry(name) for name in wheels], **({"sdist": entry(sdist)} if sdist else {})}
    found = bundle_make.choose(package, module.target_tags("3.11", "x86_64"), allowed)
    assert (found and found["name"]) == chosen


def test_hashes_belong_to_the_pin_above_them() -> None:
    sums = [f"    --hash=sha256:{digit * 64}" for digit in "123"]
    lock = "\n".join(["a==1 \\", f"{sums[0]} \\", sums[1], "B_b==2 \\", sums[2]])
    assert bundle_make.locked_hashes(lock) == {"a": {"1" * 64, "2" * 64}, "b-b": {"3" * 64}}


class FakeHost(action_plugin.ActionModule):
    """The plugin on a host that is a folder of this machine; `in_place` is decided by the module, as ever."""

    def __init__(self, source: Path, host: Path, check_mode: bool = False) -> None:
        self.sent: list[str] = []
        self.host = host
        args = {"source": str(source), "folder": str(host), "expected": {"python": "3.11"}}
        self._task = type("Task", (), {"args": args, "check_mode": check_mode, "async_val": 0})()

    def _execute_module(self, module_args: dict, task_vars: dict | None = None, **_named: object) -> dict:  # type: ignore[override]
        manifest = bundle.parse(module_args["manifest"])
        return {
            "folder": str(self.host),
            "in_place": False,
            "wrong": bundle.damaged(str(self.host), manifest),
            "unlisted": bundle.unlisted(str(self.host), manifest),
            "problems": bundle.problems(str(self.host), manifest, module_args["expected"]),
        }

    def _low_level_execute_command(self, command: str, **_named: object) -> dict:  # type: ignore[override]
        import subprocess

        subprocess.run(["sh", "-c", command], check=True)
        return {}

    def _transfer_file(self, source: str, path: str) -> None:  # type: ignore[override]
        self.sent.append(Path(source).name)
        Path(path).write_bytes(Path(source).read_bytes())

    def _make_tmp_path(self, remote_user: str | None = None) -> str:
        return tempfile.mkdtemp(dir=self.host.parent)

    def _fixup_perms2(self, *_named: object, **_more: object) -> None:
        pass

    def _remove_tmp_path(self, tmp_path: str, force: bool = False) -> None:
        shutil.rmtree(tmp_path)


@pytest.fixture(autouse=True)
def no_base_run(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(action_plugin.ActionBase, "run", lambda self, tmp, task_vars: {})


def test_a_host_gets_what_it_has_not_got_once(made: Path, tmp_path_factory: pytest.TempPathFactory) -> None:
    host = tmp_path_factory.mktemp("host")
    first = FakeHost(made, host)
    assert first.run(task_vars={})["changed"]
    assert sorted(first.sent) == [
        "a-1-py3-none-any.whl",
        "flashinfer-0.3.1.txt",
        "flashinfer_python-0.3.1.tar.gz",
        "uv",
    ]
    (host / "bin/uv").write_bytes(b"torn")
    (host / "wheels/old.whl").write_bytes(b"of an earlier bundle")
    second = FakeHost(made, host)
    assert (second.run(task_vars={})["changed"], second.sent) == (True, ["uv"])
    third = FakeHost(made, host)
    result = third.run(task_vars={})
    assert (result["changed"], result["present"], third.sent) == (False, True, [])
    assert result["locks"] == {"flashinfer": str(made / "locks/flashinfer-0.3.1.txt")}
    assert (result["conda_installer"], result["conda_installer_checksum"]) == ("", "")
    assert result["flashinfer_source"] == str(made / "source/flashinfer_python-0.3.1.tar.gz")


def test_nothing_is_sent_of_a_damaged_bundle(made: Path, tmp_path_factory: pytest.TempPathFactory) -> None:
    (made / "bin/uv").write_bytes(b"uw")
    plugin = FakeHost(made, tmp_path_factory.mktemp("host"))
    result = plugin.run(task_vars={})
    assert (result["failed"], plugin.sent) == (True, [])
    assert result["problems"] == ["bin/uv: damaged: its SHA-256 is another one"]


def test_check_mode_sends_nothing_and_says_so(made: Path, tmp_path_factory: pytest.TempPathFactory) -> None:
    plugin = FakeHost(made, tmp_path_factory.mktemp("host"), check_mode=True)
    result = plugin.run(task_vars={})
    assert (result["present"], len(result["copied"]), plugin.sent) == (False, 4, [])


def test_a_path_that_uv_would_take_for_two_is_refused(made: Path) -> None:
    spaced = made.parent / f"{made.name} two"
    made.rename(spaced)
    assert "without spaces" in FakeHost(spaced, spaced).run(task_vars={})["msg"]


def test_condas_installer_is_told_with_its_checksum(made: Path) -> None:
    manifest = json.loads((made / bundle.MANIFEST).read_text())
    manifest["files"]["conda/m.sh"] = {"size": 1, "sha256": hashlib.sha256(b"x").hexdigest()}
    (made / "conda").mkdir()
    (made / "conda/m.sh").write_bytes(b"x")
    (made / bundle.MANIFEST).write_text(json.dumps({**manifest, "conda_installer": "conda/m.sh"}))
    result = FakeHost(made, made).run(task_vars={})
    assert result["conda_installer"] == str(made / "conda/m.sh")
    assert result["conda_installer_checksum"] == f"sha256:{hashlib.sha256(b'x').hexdigest()}"
