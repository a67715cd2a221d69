# Copyright (c) 2026 The ocrfleet.gpu_stack contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""playbooks/site.yml on a host on which nearly everything is wrong: one run names it all, and changes nothing.

The host is this machine in a mount namespace of its own, with a real os-release of another distribution and a real
filesystem that is full. nvidia-smi is a stand-in: it prints what one with an old driver and an old GPU would.
"""

from __future__ import annotations

import json
import os
import re
import shlex
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
NVIDIA_SMI = (
    "#!/bin/sh\ncase $* in *query-gpu*) echo '0, Tesla P100, GPU-0, 6.0, 470.256.02, 16384, 1, [N/A]' ;; esac\n"
)
IN_NAMESPACE = ["unshare", "--mount", "--map-root-user"]
# What the namespace shows, what is run there, and what lies there before and after.
SCRIPT = """set -eu
mount --bind os-release /etc/os-release
mount -t tmpfs -o size=4m none small
mkdir -p small/envs/olmocr-optimized
echo 'not yours' >small/envs/olmocr-optimized/todo.txt
found() {{ find home small -path home/.ansible -prune -o -printf '%p %y %s %T@ %m\\n'; }}
found >before
{command} >said 2>&1 && echo 0 >rc || echo $? >rc
found >after
"""


@pytest.fixture
def host(tmp_path: Path) -> Path:
    done = subprocess.run([*IN_NAMESPACE, "true"], capture_output=True, text=True, timeout=20, check=False)
    if done.returncode:
        pytest.skip(f"this machine gives no mount namespace: {done.stderr.strip()}")
    for folder in ("home/.ansible", "small", "bin"):
        (tmp_path / folder).mkdir(parents=True)
    (tmp_path / "os-release").write_text('ID=debian\nVERSION_ID="11"\n')
    (tmp_path / "bin/nvidia-smi").write_text(NVIDIA_SMI)
    (tmp_path / "bin/nvidia-smi").chmod(0o755)
    return tmp_path


def run(host: Path, settings: dict[str, object]) -> str:
    """What site.yml says there, in one line. It has to fail, and to leave everything as it is."""
    common = {
        "ansible_connection": "local",
        "ansible_python_interpreter": sys.executable,
        "stack_root": str(host / "small"),
        **settings,
    }
    playbook = Path(sys.executable).with_name("ansible-playbook")
    command = [playbook, "-i", "bad,", "-e", json.dumps(common), ROOT / "playbooks/site.yml"]
    environment = {
        **os.environ,
        "PATH": f"{host / 'bin'}:{os.environ['PATH']}",
        "HOME": str(host / "home"),
        "ANSIBLE_CONFIG": str(ROOT / "ansible.cfg"),
        "ANSIBLE_COLLECTIONS_PATH": str(ROOT / "collections"),
    }
    script = SCRIPT.format(command=shlex.join(map(str, command)))
    subprocess.run(
        [*IN_NAMESPACE, "sh", "-c", script], cwd=host, env=environment, capture_output=True, timeout=300, check=True
    )
    said = (host / "said").read_text()
    assert (host / "rc").read_text().strip() == "2", said
    assert (host / "after").read_text() == (host / "before").read_text()
    assert re.search(r"bad +: ok=\d+ +changed=0 ", said), said
    return " ".join(said.split())


def test_one_run_names_everything_that_is_wrong_and_changes_nothing(host: Path) -> None:
    said = run(
        host,
        {
            "python_env_python": "3.99",
            "stack_default_index": "http://127.0.0.1:9/simple",
            "cuda_method": "runfile",
            "cuda_runfile": "/nowhere/cuda.run",
        },
    )
    told = said.rpartition("Not touched, because:")[2].partition("PLAY RECAP")[0]
    for problem in (
        "distribution: expected one of debian-12,",
        "found debian-11",
        f"environment: expected a conda or venv prefix at {host}/small/envs/olmocr-optimized",
        "python: expected an interpreter 3.99 on PATH",
        "disk: expected 30 GB free",
        "driver: CUDA 12.8 needs 525.60.13 or newer, found 470.256.02",
        "GPU 0 (Tesla P100): its compute capability 6.0",
        "GPU 0 (Tesla P100): FlashInfer needs compute capability 7.5",
        "index: expected an answer from http://127.0.0.1:9/simple",
        "cuda_runfile_checksum",
    ):
        assert problem in told, (problem, said[-6000:])
    assert told.count("driver: CUDA 12.8 needs") == 1  # two roles look at it
