#!/usr/bin/python
# Copyright (c) 2026 The ocrfleet.gpu_stack contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Find the CUDA toolkits and the driver of a host, and say which way leads to the toolkit that is wanted."""

from __future__ import annotations

DOCUMENTATION = r"""
module: cuda_toolkit
short_description: Find CUDA toolkits and say how to get the wanted one
version_added: 0.2.0
author:
  - The ocrfleet.gpu_stack contributors (@ocrfleet)
description:
  - Looks for CUDA toolkits in the usual place, asks each nvcc for its version, and looks for the headers that
    FlashInfer's kernels include. Looks at the driver as well.
  - Chooses the method, and lists everything that stands in its way. Changes nothing.
options:
  version:
    description:
      - The wanted version, such as V(12.8).
    type: str
    required: true
  home:
    description:
      - The folder that the toolkit is, or will be, in.
    type: path
    required: true
  method:
    description:
      - How the toolkit comes. V(auto) uses what is there; else the repository where a GPU host has to compile kernels;
        else none.
    type: str
    choices: [auto, existing, repository, runfile, none]
    default: auto
  platforms:
    description:
      - The distributions that NVIDIA has a repository for, as C(ID-VERSION_ID) of os-release.
      - Each has C(manager), C(name) in NVIDIA's paths, C(architectures) (the host's name to NVIDIA's), C(packages),
        C(driver) and C(key). In the names of packages C({version}) stands for O(version), with a dash for the point; in
        those of the driver's C({kernel}) stands for the kernel that runs.
    type: dict
    required: true
  package_set:
    description:
      - Which of the platform's C(packages) are wanted.
    type: str
    default: minimal
  repository:
    description:
      - URL of the repository itself, for a mirror. Empty means NVIDIA's.
    type: str
    default: ""
  base_url:
    description:
      - URL that NVIDIA's repositories are below.
    type: str
    default: https://developer.download.nvidia.com/compute/cuda/repos
  runfile:
    description:
      - Where the runfile is; only its presence is checked here.
    type: str
    default: ""
  checksum:
    description:
      - The runfile's checksum; only its presence is checked here.
    type: str
    default: ""
  flashinfer:
    description:
      - Whether FlashInfer is wanted, which compiles kernels.
    type: bool
    default: true
  kernel_pack:
    description:
      - Whether the kernels come compiled.
    type: bool
    default: false
  flashinfer_version:
    description:
      - The release of FlashInfer that is wanted, if it is known. Those before 0.5 ask some C(nvcc) for its version even
        where the kernels come compiled, so with O(method=auto) a toolkit is then brought where none answers.
    type: str
    default: ""
  offline:
    description:
      - Whether the network must not be used.
    type: bool
    default: false
  driver:
    description:
      - V(check) tells what is wrong with the driver of a host with a GPU. V(present) says that it will be installed.
    type: str
    choices: [check, present]
    default: check
  ignore_gpu:
    description:
      - Whether the host is taken for one without a GPU, because OlmOCR works with a server elsewhere. A driver that is
        old or does not answer is no problem then, and none is installed.
    type: bool
    default: false
attributes:
  check_mode:
    description: Can run in check mode; it only reads.
    support: full
  diff_mode:
    description: Returns details on what has changed, in diff mode.
    support: N/A
seealso:
  - module: ocrfleet.gpu_stack.stack_preflight
"""

EXAMPLES = r"""
- name: Look for CUDA 12.8
  ocrfleet.gpu_stack.cuda_toolkit:
    version: "12.8"
    home: /usr/local/cuda-12.8
    method: existing
    platforms: {}
  register: cuda
"""

RETURN = r"""
method:
  description: The way to the toolkit, never C(auto).
  returned: always
  type: str
why:
  description: Why it is that one.
  returned: always
  type: str
home:
  description: The toolkit's folder, there or yet to be; empty where there will be none.
  returned: always
  type: str
whole:
  description: Whether the wanted toolkit is there, with an nvcc that answers and the headers.
  returned: always
  type: bool
toolkits:
  description: All toolkits, with C(home), C(version), C(missing) headers, C(problem) and C(whole).
  returned: always
  type: list
  elements: dict
link:
  description: Where C(/usr/local/cuda) leads; empty where there is none.
  returned: always
  type: str
problems:
  description: What stands in the way, one sentence each.
  returned: always
  type: list
  elements: str
remarks:
  description: What is worth knowing.
  returned: always
  type: list
  elements: str
gpu:
  description: Whether the host has an NVIDIA GPU.
  returned: always
  type: bool
driver:
  description:
    - What is known about the driver. C(version), C(problems), C(install), and in C(unheld) its packages that apt could
      move.
  returned: always
  type: dict
repository:
  description: The repository of this platform. C(manager), C(url), C(key), C(file), C(other_file), C(driver_packages).
  returned: always
  type: dict
missing_packages:
  description: The packages that the method C(repository) has yet to install.
  returned: always
  type: list
  elements: str
installed:
  description: The toolkit's installed packages, by name. C(hold) where apt leaves them at their version.
  returned: always
  type: dict
unheld:
  description: Those that C(apt-get upgrade) could move.
  returned: always
  type: list
  elements: str
"""

import glob
import os
import platform
import re
import shutil

from ansible.module_utils.basic import AnsibleModule
from ansible_collections.ocrfleet.gpu_stack.plugins.module_utils import (
    commands,
    cuda_toolkits,
    driver,
    gpu_presence,
    machine,
    nvidia,
    redaction,
)

# How a file of the package manager's begins that this collection wrote.
HEADER = "# Written by ocrfleet.gpu_stack."
# A driver's packages, by NVIDIA's and Debian's names; the same as in the role's template preferences.j2.
DRIVER = re.compile("(nvidia|libnvidia|xserver-xorg-video-nvidia|cuda-drivers|libxnvctrl)")
SOURCES = {"apt": "/etc/apt/sources.list.d", "dnf": "/etc/yum.repos.d"}


def repository_of(params: dict, distribution: str, architecture: str) -> dict:
    """Where this platform's packages come from; empty where NVIDIA has no repository for it."""
    entry = params["platforms"].get(machine.platform_of(distribution, params["platforms"]) or "")
    theirs = (entry or {}).get("architectures", {}).get(architecture)
    if not theirs:
        return {}
    version = params["version"].replace(".", "-")
    url = params["repository"].rstrip("/") or f"{params['base_url']}/{entry['name']}/{theirs}"
    # The names that NVIDIA's own cuda-keyring and cuda-rhel9.repo use: the two then never stand side by side.
    suffix = f"{entry['name']}-{theirs}.list" if entry["manager"] == "apt" else f"{entry['name']}.repo"
    file = os.path.join(SOURCES[entry["manager"]], f"cuda-{suffix}")
    return {
        "manager": entry["manager"],
        "url": url,
        "key": f"{url}/{entry['key']}",
        "file": file,
        "other_file": source_file(SOURCES[entry["manager"]], url, file),
        "ours": is_ours(file),
        "packages": [name.replace("{version}", version) for name in entry["packages"][params["package_set"]]],
        "driver_packages": [name.replace("{kernel}", platform.release()) for name in entry["driver"]],
    }


def repository_problems(url: str) -> list[str]:
    """A password would stand in a file that everybody reads, in diffs and in messages."""
    if url and not re.match(r"(https?|file)://", url):
        return [f"cuda_repository: expected an http, https or file URL, found {url}; correct it"]
    if not redaction.secrets(url):
        return []
    return [
        f"cuda_repository: expected a URL without user, password and query, found one with them at "
        f"{redaction.without_secrets(url)}; put them in a file of /etc/apt/auth.conf.d, or make the repository known "
        f"to dnf in a file of your own, name the URL without them, and the key's file with cuda_key"
    ]


def is_ours(path: str) -> bool:
    """Whether this collection wrote a file; NVIDIA's own package uses the same name."""
    try:
        with open(path, encoding="utf-8", errors="replace") as file:
            return file.readline().startswith(HEADER)
    except OSError:
        return False


def source_file(folder: str, url: str, ours: str) -> str:
    """The file of somebody else that names this repository already, or has the name of ours; or an empty text."""
    if os.path.lexists(ours) and not is_ours(ours):
        return ours
    for path in sorted(glob.glob(os.path.join(folder, "*"))):
        if path == ours or not path.endswith((".list", ".sources", ".repo")):
            continue
        try:
            with open(path, encoding="utf-8", errors="replace") as file:
                lines = [line for line in file if not line.lstrip().startswith("#")]
        except OSError:
            continue
        if any(re.search(re.escape(url) + r"/?(\s|$)", line) for line in lines):
            return path
    return ""


def installed_packages() -> dict[str, str]:
    """The host's installed packages, with `hold` where dpkg holds one."""
    if shutil.which("dpkg-query"):
        command = ["dpkg-query", "--show", "--showformat", "${Package} ${db:Status-Status} ${db:Status-Want}\n"]
    else:
        command = ["rpm", "--query", "--all", "--queryformat", "%{NAME} installed -\n"]
    rows = [line.split() for line in commands.run(command, timeout=machine.PROBE_SECONDS).stdout.splitlines()]
    return {row[0]: row[2] for row in rows if len(row) == 3 and row[1] == "installed"}


def toolkit_packages(installed: dict[str, str], version: str) -> dict[str, str]:
    """Those of the toolkit: NVIDIA's names have the version."""
    theirs = re.compile(rf"-{version.replace('.', '-')}(-|$)")
    return {name: want for name, want in installed.items() if theirs.search(name)}


def unheld(packages: dict[str, str]) -> list[str]:
    return [name for name, want in packages.items() if want == "install"]


def driver_report(params: dict, survey: nvidia.Survey, hardware: list[str], state: driver.KernelState) -> dict:
    """What is wrong with the driver of a host with a GPU, and whether it is to be installed."""
    problems = []
    old = nvidia.driver_problem(survey.driver, params["version"])
    if hardware and (survey.absent or survey.problem):
        problems.append(
            f"driver: expected an answer from nvidia-smi for {hardware[0]}: {survey.absent or survey.problem}"
        )
        problems += driver.hindrances(state)
    if old:
        problems.append(old)
    return {
        "version": survey.driver,
        **state.as_dict(),
        "problems": problems,
        "install": bool(problems) and params["driver"] == "present",
    }


def main() -> None:
    module = AnsibleModule(
        argument_spec={
            "version": {"type": "str", "required": True},
            "home": {"type": "path", "required": True},
            "method": {
                "type": "str",
                "choices": ["auto", "existing", "repository", "runfile", "none"],
                "default": "auto",
            },
            "platforms": {"type": "dict", "required": True},
            "package_set": {"type": "str", "default": "minimal"},
            "repository": {"type": "str", "default": ""},
            "base_url": {"type": "str", "default": "https://developer.download.nvidia.com/compute/cuda/repos"},
            "runfile": {"type": "str", "default": ""},
            "checksum": {"type": "str", "default": ""},
            "flashinfer": {"type": "bool", "default": True},
            "kernel_pack": {"type": "bool", "default": False},
            "flashinfer_version": {"type": "str", "default": ""},
            "offline": {"type": "bool", "default": False},
            "driver": {"type": "str", "choices": ["check", "present"], "default": "check"},
            "ignore_gpu": {"type": "bool", "default": False},
        },
        supports_check_mode=True,
    )
    params = module.params
    redaction.hide(module, [params["repository"], params["runfile"]])
    if not re.fullmatch(r"\d+\.\d+", params["version"]):
        module.fail_json(
            msg=f"cuda_version: expected MAJOR.MINOR such as 12.8, found {params['version']}; correct it. Nothing was "
            "touched"
        )
    survey, hardware = nvidia.survey(), gpu_presence.hardware()
    gpu = bool(survey.gpus or hardware) and not params["ignore_gpu"]
    repository = repository_of(params, machine.distribution(), platform.machine())
    found = cuda_toolkits.survey(params["home"])
    way = cuda_toolkits.choose(
        cuda_toolkits.Wish(
            version=params["version"],
            home=params["home"],
            method=params["method"],
            gpu=gpu,
            flashinfer=params["flashinfer"],
            kernel_pack=params["kernel_pack"],
            flashinfer_version=params["flashinfer_version"],
            offline=params["offline"],
            mirror=bool(params["repository"]),
            supported=bool(repository),
            runfile=params["runfile"],
            checksum=params["checksum"],
        ),
        found,
    )
    reported = driver_report(params, survey, hardware, driver.kernel_state())
    if params["ignore_gpu"]:
        reported.update(problems=[], install=False)
    missing = machine.missing_packages(repository.get("packages", [])) if way.method == "repository" else []
    packages = installed_packages()
    installed = toolkit_packages(packages, params["version"])
    reported["unheld"] = unheld({name: want for name, want in packages.items() if DRIVER.match(name)})
    remarks = []
    if repository.get("other_file") and (missing or reported["install"]):
        remarks.append(f"{repository['other_file']} names NVIDIA's repository already; it is used as it is")
    if params["driver"] == "present" and not gpu:
        remarks.append("cuda_driver is present, and this host shows no NVIDIA GPU: no driver is installed")
    module.exit_json(
        changed=False,
        method=way.method,
        why=way.why,
        home=way.home,
        whole=any(kit.whole and kit.version == params["version"] and kit.home == way.home for kit in found),
        toolkits=[toolkit.as_dict() for toolkit in found],
        link=cuda_toolkits.link_target(),
        problems=[
            *repository_problems(params["repository"]),
            *way.problems,
            *([] if reported["install"] else reported["problems"]),
        ],
        remarks=remarks,
        gpu=gpu,
        driver=reported,
        repository=repository,
        missing_packages=missing,
        installed=installed,
        unheld=unheld(installed),
    )


if __name__ == "__main__":
    main()
