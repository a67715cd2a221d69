# Copyright (c) 2026 The ocrfleet.gpu_stack contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The commands of the documentation run as they stand there, in a copy of the checkout; for each other one is said why.

Where a page has a reader's hosts, this has an environment on this machine: PyTorch, vllm, OlmOCR and FlashInfer in it
are stand-ins. The fleet of the `ocrfleet` lines has hosts on which nothing is installed. All else is real.
"""

from __future__ import annotations

import os
import re
import shutil
import subprocess
from pathlib import Path

import light_stack
import pytest
from documented_commands import COMMANDS, ROOT, make_targets
from fleet.test_real_runs import small_fleet
from light_hosts import TOOLS, LightHosts

INVENTORY = "-i inventories/gpu_vms"
# In this order, each line as it is shown.
ON_THE_CHECKOUT = [
    "make env && export PATH=$PWD/.venv/bin:$PATH",
    "make env",
    "make help",
    "make tables",
    "make build",
    "make sbom",
    "make clean-stack",
    ".venv/bin/ansible-doc -t role ocrfleet.gpu_stack.flashinfer",
    ".venv/bin/ansible-doc ocrfleet.gpu_stack.gpu_smoke",
    ".venv/bin/ocrfleet --help",
    "ocrfleet abort --help",
    "ocrfleet pause --help",
    "ocrfleet plan --help",
    "ocrfleet report --help",
    "ocrfleet rollback --help",
    "ocrfleet rollout --help",
    "antsibull-changelog release",
]
ON_A_HOST = [
    f".venv/bin/ansible-playbook {INVENTORY} site.yml --check --diff",
    f".venv/bin/ansible-playbook {INVENTORY} site.yml -e fi_method=pypi",
    "ansible-playbook site.yml",
    f"ansible-playbook {INVENTORY} playbooks/rollout.yml",
    f'ansible-playbook {INVENTORY} playbooks/rollout.yml -e \'{{"rollout_waves": [1, "25%", "100%"]}}\'',
    f".venv/bin/ansible-playbook {INVENTORY} playbooks/flashinfer.yml --check --diff",
    f".venv/bin/ansible-playbook {INVENTORY} playbooks/flashinfer.yml",
    f".venv/bin/ansible-playbook {INVENTORY} playbooks/verify.yml",
    f".venv/bin/ansible-playbook {INVENTORY} playbooks/benchmark.yml",
    f".venv/bin/ansible-playbook {INVENTORY} playbooks/document.yml -e document_project=FOLDER",
    f".venv/bin/ansible-playbook {INVENTORY} playbooks/rollback.yml -e rollback_list_only=true",
    "ansible-playbook ocrfleet.gpu_stack.rollback -e rollback_list_only=true",
    f"ansible-playbook {INVENTORY} ocrfleet.gpu_stack.rollback -l HOST -e rollback_list_only=true",
    "ansible-playbook ocrfleet.gpu_stack.survey -v",
    'ansible-playbook ocrfleet.gpu_stack.benchmark -e \'{"benchmark_pdfs": ["/srv/scans/a.pdf", "/srv/scans/b.pdf"]}\'',
    "ansible-playbook ocrfleet.gpu_stack.document -e document_project=/srv/ocr-pipeline --check --diff",
    "ansible-playbook ocrfleet.gpu_stack.document -e document_project=/srv/ocr-pipeline",
    "ansible-playbook ocrfleet.gpu_stack.document -e document_project=/srv/ocr-pipeline -e document_state=absent",
    "ocrfleet compare reports/gpu-1 reports/gpu-2",
    "ocrfleet compare last-month/evidence.json reports/gpu-1 --query 'speedups[].[what, moved]'",
    f".venv/bin/ansible gpu_vms {INVENTORY} -m ocrfleet.gpu_stack.env_transaction"
    ' -a "environment=/srv/miniforge3/envs/olmocr-optimized action=status"',
    f".venv/bin/ansible gpu_vms {INVENTORY} -m ocrfleet.gpu_stack.env_transaction"
    ' -a "environment=/srv/miniforge3/envs/olmocr-optimized action=recover"',
    f".venv/bin/ansible gpu_vms {INVENTORY} -m ocrfleet.gpu_stack.flashinfer_info"
    ' -a "environment=/srv/ocrfleet/envs/olmocr-optimized"',
    f".venv/bin/ansible gpu_vms {INVENTORY} -m ocrfleet.gpu_stack.gpu_smoke"
    ' -a "environment=/srv/ocrfleet/envs/olmocr-optimized"',
    'ansible HOST -m ocrfleet.gpu_stack.env_transaction -a "environment=PATH action=status"',
    'ansible HOST -m ocrfleet.gpu_stack.env_transaction -a "environment=PATH action=recover"',
    f".venv/bin/ansible-playbook {INVENTORY} playbooks/rollback.yml",
    'ansible HOST -m ocrfleet.gpu_stack.env_transaction -a "environment=PATH action=restore baseline=ID"',
    "ansible-playbook ocrfleet.gpu_stack.rollback -e rollback_baseline=ID",
]
# What ends otherwise than well, on purpose: one host of the fleet fails until it is repaired.
ON_A_FLEET = {
    f"ocrfleet plan {INVENTORY} -p policy.yml": 0,
    f"ocrfleet rollout {INVENTORY} -p policy.yml": 3,
    "ocrfleet status --query \"hosts[?state=='failed'].[name, message]\"": 0,
    'ocrfleet status --query "waves[].{wave: number, state: state, hosts: hosts, seconds: seconds}"': 0,
    "ocrfleet resume": 0,
    'ocrfleet status --query "states" --output json': 0,
    'ocrfleet status --query "max_by(hosts[?seconds], &seconds).{slowest: name, seconds: seconds}"': 0,
    "ocrfleet report --query \"hosts[?evidence.result=='verified'].[name, evidence.transaction.baseline_id]\""
    " --output json": 0,
    "ocrfleet rollback": 0,
    "ocrfleet rollback --ignore-limits": 0,
    "ocrfleet report": 0,
}
# Lines that do not run here, by pattern, and why. A file that is named is there.
EXCEPTED = {
    r"(apt-get|awx|cd|cp|git|journalctl|mv|pip) .*": (
        "a program of the system or of another product; those that recover by hand are run by "
        "tests/unit/test_recover_by_hand.py"
    ),
    r"make (check|test|lint|unit|sanity|docs|browser|test-roles|test-faults|molecule|test-hostile)( SCENARIO=\w+)?": (
        "a part of `make test`, which runs this file too"
    ),
    r"(\S+=\S+ )?\.venv/bin/python -m pytest .*": "tests that `make test` has; of these, this is one",
    r"make site( .*)?": "installs gigabytes; molecule/site does it",
    r"make (bench-\S+|compatibility|coverage|mutation|simulate-rollout)( .*)?|tools/mutation .*": "measures for long",
    r"make (test-offline|lock)": "downloads from the index, gigabytes or what is newest",
    r"export ANSIBLE_STRATEGY.*": "mitogen does not work, as the page says",
    r"make clean": "removes test hosts of this machine that others may use",
    r"(make test-gpu|python3 tests/gpu/run.py|(BENCHMARK_\w+=\w+ )*tests/gpu/\S+)( .*)?": "needs a GPU host",
    r"ansible-galaxy collection install .*": "tests/sanity/run installs it and uses it from elsewhere",
    r".*/bundle\.yml .*|.*bundle_dir=.*|.* stack_bundle=.*": "tests/hostile/test_offline.py makes a bundle and uses it",
    r".* flashinfer_(max_slowdown|min_speedup)=.*": "needs a GPU to be measured on; tests/hostile/test_gate.py",
    r"tests/hosts/.*|podman .*|echo .*|.* DESK=.*|ocrfleet rollout .*DESK.*": (
        "hosts in containers, which molecule/fleet/test_fleet.py takes through the same"
    ),
    r".*/kernel_pack\.yml.*": "needs a GPU or an nvcc; tests/roles/test_kernel_pack.py has stand-ins for both",
    r".*/package_cache\.yml .*": "installs nginx as root; benchmarks/fleet.py does on a test host",
    r".*verify_user=olmocr": "no account of that name; tests/unit/test_service_user.py checks as another user",
    r".*stand_in_server.*": "measures for minutes; tests/unit/test_server_level.py has the server",
    r".* verify_server=.*": "needs a server that reads; tests/unit/test_stack_verify.py",
}
# What a page leaves to the reader, and what it is here; FOLDER is that of the test, ID the kept baseline.
OWN = {
    "-l HOST": "-l one",
    "ansible HOST": "ansible one",
    "environment=PATH": "environment=FOLDER/environments/one",
    "/srv/miniforge3/envs/olmocr-optimized": "FOLDER/environments/one",
    "/srv/ocrfleet/envs/olmocr-optimized": "FOLDER/environments/one",
    "document_project=FOLDER": "document_project=FOLDER/project",
    "/srv/ocr-pipeline": "FOLDER/project",
    "/srv/scans": "FOLDER/scans",
}


# What a developer, or the make that runs this, may have set, and a reader has not: each leads to another place.
FORGOTTEN = {
    *("ANSIBLE_CONFIG", "ANSIBLE_COLLECTIONS_PATH", "XDG_STATE_HOME"),
    *("MAKEFLAGS", "MFLAGS", "MAKEOVERRIDES", "STACK_ROOT", "ANSIBLE_ARGS", "FI_METHOD"),
}
MARKER = ".ocrfleet-stack-root"


class Reader:
    """Types lines in a folder, in the environment of a reader."""

    def __init__(self, hosts: LightHosts, folder: Path, **variables: str) -> None:
        self.hosts, self.folder = hosts, folder
        environ = {name: value for name, value in hosts.environ().items() if name not in FORGOTTEN}
        self.environ = {**environ, **variables}

    def types(self, line: str) -> tuple[int, str]:
        """What a line ended with and said."""
        for own, here in OWN.items():
            line = line.replace(own, here.replace("FOLDER", str(self.hosts.folder)))
        if re.search("[ =]ID\\b", line):
            line = re.sub(r"=ID\b", f"={self.baseline()}", line)
        if "ansible-playbook" in line:
            line += f" -e '{self.hosts.platforms()}'"
        done = subprocess.run(
            ["bash", "-c", line],
            cwd=self.folder,
            env=self.environ,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            timeout=300,
            check=False,
        )
        return done.returncode, f"{line}\n{done.stdout}"

    def baseline(self) -> str:
        (kept,) = (self.hosts.folder / "environments/.one.gpu_stack/transactions").iterdir()
        return kept.name


def checkout(folder: Path) -> Path:
    """A copy of this checkout, with a .venv of its own as far as `make env` looks."""
    made = re.sub(r"^/|/$", "", (ROOT / ".gitignore").read_text(encoding="utf-8"), flags=re.M).split()
    shutil.copytree(ROOT, folder, symlinks=True, ignore=shutil.ignore_patterns(".git", *made))
    (folder / ".venv").mkdir()
    for path in TOOLS.parent.iterdir():
        (folder / ".venv" / path.name).symlink_to(path)
    stamp = folder / ".venv/.lock-in-place"
    found = stamp.read_text()
    stamp.unlink()
    stamp.write_text(found.replace(str(ROOT), str(folder.resolve())))
    return folder


@pytest.fixture(scope="module")
def hosts(tmp_path_factory: pytest.TempPathFactory) -> LightHosts:
    made = LightHosts(tmp_path_factory.mktemp("documented"))
    made.wheel(made.wheels, *light_stack.WHEELS[3])
    empty = made.wheels / "index"
    empty.mkdir()
    # Wheels from a folder, and an index that has nothing: the locks that are shipped hold the real ones.
    index = {"stack_default_index": empty.as_uri(), "stack_find_links": [str(made.wheels)]}
    made.add("one", **index, pytorch_lock="", olmocr_lock="", olmocr_extras=[])
    return made


@pytest.fixture(scope="module")
def reader(hosts: LightHosts) -> Reader:
    folder = checkout(hosts.folder / "checkout")
    shutil.rmtree(folder / "inventories/gpu_vms")
    (folder / "inventories/gpu_vms").symlink_to(hosts.inventory())
    for name in ("project", "scans", "reports/one"):
        (hosts.folder / name).mkdir(parents=True)
    shutil.copytree(ROOT / "tests/unit/fixtures/project", hosts.folder / "project", dirs_exist_ok=True)
    for name in ("a", "b"):
        (hosts.folder / f"scans/{name}.pdf").write_bytes(b"%PDF-1.4\n")
    for path in ("reports/gpu-1", "reports/gpu-2", "last-month"):
        (folder / path).parent.mkdir(exist_ok=True)
        (folder / path).symlink_to(hosts.folder / "reports/one")
    path = f"{folder}/.venv/bin:{os.environ['PATH']}"
    return Reader(hosts, folder, PATH=path, ANSIBLE_INVENTORY="inventories/gpu_vms")


@pytest.mark.parametrize("line", ON_THE_CHECKOUT, ids=str)
def test_a_line_runs_on_the_checkout(hosts: LightHosts, reader: Reader, line: str) -> None:
    stack = hosts.folder / "home/.local/share/ocrfleet"
    stack.mkdir(parents=True, exist_ok=True)
    (stack / MARKER).touch()
    code, said = reader.types(line)
    assert code == 0, said
    assert stack.exists() is (line != "make clean-stack")


@pytest.mark.parametrize("line", ON_A_HOST, ids=str)
def test_a_line_runs_on_a_host(reader: Reader, line: str) -> None:
    code, said = reader.types(line)
    assert code == 0, said


def test_the_lines_run_on_a_fleet(hosts: LightHosts, tmp_path: Path) -> None:
    folder = small_fleet(tmp_path, waves=["100%"], shards=1)
    (folder / "inventories").mkdir()
    (folder / "inventories/gpu_vms").symlink_to(folder / "inventory.yml")
    reader = Reader(hosts, folder, HOME=str(tmp_path / "home"), ANSIBLE_COLLECTIONS_PATH=str(ROOT / "collections"))
    bad = folder / "bad-h2"
    bad.touch()
    for line, expected in ON_A_FLEET.items():
        if "resume" in line:
            bad.unlink()
        code, said = reader.types(line)
        assert code == expected, said


def test_each_documented_line_is_run_or_is_excepted_with_a_reason() -> None:
    lines = {line for _page, line in COMMANDS}
    run = {*ON_THE_CHECKOUT, *ON_A_HOST, *ON_A_FLEET}
    assert run - lines == set(), "these are shown no more"
    left = lines - run
    assert {line for line in left if not any(re.fullmatch(pattern, line) for pattern in EXCEPTED)} == set()
    idle = [pattern for pattern in EXCEPTED if not any(re.fullmatch(pattern, line) for line in left)]
    assert idle == [], "these except nothing"
    assert not [line for line in run if any(re.fullmatch(pattern, line) for pattern in EXCEPTED)], "excepted, and run"
    assert [own for own in OWN if not any(own in line for line in run)] == []
    named = re.findall(r"(?:tests|benchmarks|molecule)/[\w/.]*\w", " ".join(EXCEPTED.values()))
    assert [name for name in named if not (ROOT / name).exists()] == []


def test_what_is_called_a_part_of_make_test_is_one() -> None:
    text = (ROOT / "Makefile").read_text(encoding="utf-8")
    parts = {"check", "test", "lint", "unit", "sanity", *re.findall(r"^TEST_PARTS = (.*)", text, re.M)[0].split()}
    (pattern,) = (pattern for pattern, why in EXCEPTED.items() if why.startswith("a part of `make test`"))
    named = {target for target in make_targets() if re.fullmatch(pattern, f"make {target}")}
    assert named == parts
