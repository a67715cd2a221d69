# Copyright (c) 2026 The ocrfleet.gpu_stack contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The tools around the collection where a wrong turn costs something."""

from __future__ import annotations

import importlib.util
import os
import re
import subprocess
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
MARKER = ".ocrfleet-stack-root"

spec = importlib.util.spec_from_file_location("index_environment", ROOT / "tools/index_environment.py")
assert spec and spec.loader
index_environment = importlib.util.module_from_spec(spec)
spec.loader.exec_module(index_environment)


@pytest.mark.parametrize(
    ("given", "said"),
    [
        (["FI_METHD=pypi"], "out of FI_METHOD .*found FI_METHD"),
        (["FI_METHOD=pypi", "stack_root=/x", "EXTRA=1"], "found (stack_root EXTRA|EXTRA stack_root)"),
        (["FI_METHOD=pypi", "STACK_ROOT=/x", "SCENARIO=cuda", "PYTHON=python3", "HOSTS=1 2"], ""),
    ],
)
def test_a_misspelt_variable_of_make_is_refused(given: list[str], said: str) -> None:
    done = subprocess.run(["make", "help", *given], cwd=ROOT, capture_output=True, text=True, timeout=60, check=False)
    assert bool(done.returncode) == bool(said)
    assert re.search(said, done.stderr)


def test_make_knows_every_variable_that_its_targets_read() -> None:
    text = (ROOT / "Makefile").read_text(encoding="utf-8")
    known = re.search(r"^VARIABLES = (.*)$", text, re.M)
    assert known
    # make's own, and what is made of the others
    derived = {"CURDIR", "HOME", "MAKE", "MAKEFILE_LIST", "PATH", "SITE_ARGS", "VARIABLES", "UNKNOWN"}
    assert set(re.findall(r"\$\(([A-Z_]+)\)", text)) - derived <= set(known[1].split())


def clean_stack(folder: Path, home: Path) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [ROOT / "tools/clean_stack", folder],
        env={**os.environ, "HOME": str(home)},
        cwd=home,
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )


@pytest.fixture
def stack(tmp_path: Path) -> Path:
    """A stack root as the role leaves it, in a home folder of its own."""
    root = tmp_path / "home/.local/share/ocrfleet"
    (root / "env/lib").mkdir(parents=True)
    (root / "env/lib/module.py").write_text("")
    (root / ".hidden").write_text("")
    (root / MARKER).write_text("")
    return root


@pytest.fixture
def home(stack: Path) -> Path:
    return stack.parents[2]


def test_clean_stack_removes_the_marked_folder_and_only_it(stack: Path, home: Path) -> None:
    done = clean_stack(stack, home)
    assert (done.returncode, stack.exists(), stack.parent.exists()) == (0, False, True)


def test_clean_stack_has_nothing_to_do_where_nothing_is(stack: Path, home: Path) -> None:
    done = clean_stack(stack / "nowhere", home)
    assert (done.returncode, "nothing to remove" in done.stdout) == (0, True)


def test_clean_stack_does_not_follow_links_out_of_the_stack(stack: Path, home: Path) -> None:
    (home / "thesis.txt").write_text("years of work")
    (stack / "link").symlink_to(home)
    assert clean_stack(stack, home).returncode == 0
    assert (home / "thesis.txt").exists()


@pytest.mark.parametrize("case", ["no marker", "marker is a link", "a file", "a link", "holds the home", "is the home"])
def test_clean_stack_refuses_what_is_not_ours(stack: Path, home: Path, case: str) -> None:
    folder = stack
    if case == "no marker":
        (stack / MARKER).unlink()
    elif case == "marker is a link":
        (stack / MARKER).unlink()
        (stack / MARKER).symlink_to(stack / ".hidden")
    elif case == "a file":
        folder = stack / "env/lib/module.py"
    elif case == "a link":
        folder = home / "link"
        folder.symlink_to(stack)
    else:
        folder = home if case == "is the home" else home.parent
        (folder / MARKER).write_text("")
    done = clean_stack(folder, home)
    assert done.returncode == 1
    assert "not removing" in done.stderr
    assert (stack / "env/lib/module.py").exists()


@pytest.mark.skipif(os.geteuid() != 0, reason="only root can mount")
def test_clean_stack_refuses_while_something_is_mounted_in_the_stack(stack: Path, home: Path) -> None:
    (stack / "mount").mkdir()
    command = 'mount --bind "$1" "$1" && exec "$2" "$3"'
    done = subprocess.run(
        ["unshare", "-m", "sh", "-c", command, "sh", stack / "mount", ROOT / "tools/clean_stack", stack],
        cwd=home,
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    assert (done.returncode, "is mounted there" in done.stderr) == (1, True)


@pytest.mark.parametrize(
    ("environ", "listing", "expected"),
    [
        pytest.param({}, "", {}, id="nothing set, nothing said"),
        pytest.param(
            {},
            "global.index-url='https://mirror/simple'\nglobal.cert='/ca.pem'\nglobal.extra-index-url='https://other'\n",
            {"UV_DEFAULT_INDEX": "https://mirror/simple", "SSL_CERT_FILE": "/ca.pem"},
            id="pip's mirror and certificate reach uv, its extra index does not",
        ),
        pytest.param(
            {},
            ":env:.index-url='https://env'\nglobal.index-url='https://global'\ninstall.index-url='https://install'\n",
            {"UV_DEFAULT_INDEX": "https://env"},
            id="pip's own order: environment over section over global",
        ),
        pytest.param(
            {"UV_INDEX_URL": "https://uv", "SSL_CERT_FILE": "/uv.pem", "HTTPS_PROXY": "http://proxy"},
            "global.index-url='https://mirror'\nglobal.cert='/ca.pem'\nglobal.proxy='http://other'\n",
            {"UV_INDEX_URL": "https://uv", "SSL_CERT_FILE": "/uv.pem", "HTTPS_PROXY": "http://proxy"},
            id="what uv was told itself wins",
        ),
        pytest.param(
            {"UV_DEFAULT_INDEX": "", "HOME": "/root"}, "", {}, id="empty and unrelated variables are left out"
        ),
    ],
)
def test_index_environment(environ: dict[str, str], listing: str, expected: dict[str, str]) -> None:
    found = index_environment.index_environment(environ, index_environment.pip_settings(listing))
    assert found == expected


def test_site_and_clean_stack_mean_the_same_folder() -> None:
    shown = subprocess.run(
        ["make", "--no-print-directory", "-n", "site", "clean-stack", "STACK_ROOT=/srv/stack"],
        cwd=ROOT,
        capture_output=True,
        text=True,
        timeout=60,
        check=True,
    ).stdout
    assert "-e stack_root=/srv/stack" in shown
    assert 'tools/clean_stack "/srv/stack"' in shown
