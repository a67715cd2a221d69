#!/usr/bin/python
# Copyright (c) 2026 The ocrfleet.gpu_stack contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Make one folder that holds everything a site without a network installs from."""

from __future__ import annotations

DOCUMENTATION = r"""
module: bundle_make
short_description: Make the folder that a site without a network installs from
version_added: 0.1.0
author:
  - The ocrfleet.gpu_stack contributors (@ocrfleet)
description:
  - Downloads every file that the baseline's lock and FlashInfer need, by its SHA-256, and adds uv, the locks,
    FlashInfer's source archive and the kernel packs. FlashInfer is resolved around the baseline's lock as it would be
    on a host; no host is asked.
  - The manifest is written last. A run that was killed is carried on by the next one, which takes what is whole.
  - Runs on the control node.
options:
  path:
    description: The folder.
    type: path
    required: true
  python:
    description: Version of the environments' Python, such as V(3.11).
    type: str
    required: true
  architecture:
    description: The hosts' machine type, as C(uname -m) says it.
    type: str
    default: x86_64
  uv:
    description: Path of uv, which resolves here and is brought to the hosts.
    type: path
    required: true
  baseline_lock:
    description: Path of the hashed lock of OlmOCR with everything that it needs.
    type: path
    required: true
  torch:
    description: Version of PyTorch that the lock holds, as PyTorch itself says it.
    type: str
    required: true
  olmocr:
    description: Version of OlmOCR that the lock holds.
    type: str
    required: true
  flashinfer:
    description: Version of FlashInfer; V(auto) means what the lock's vllm declares.
    type: str
    default: auto
  flashinfer_default:
    description: Version that V(auto) means where vllm declares none.
    type: str
    required: true
  cuda_major:
    description: CUDA major version of the environments. Packages of another one are kept out.
    type: int
    default: 12
  protect:
    description: Packages of the baseline that must not move, as in M(ocrfleet.gpu_stack.uv_packages).
    type: list
    elements: str
    default: [all]
  allow_cuda:
    description: Names of packages of another CUDA major version that are accepted nonetheless.
    type: list
    elements: str
    default: []
  require_companions:
    description: Whether it is an error when a companion of FlashInfer has no release that matches; else it is left out.
    type: bool
    default: false
  kernel_packs:
    description: Folder with kernel packs, all of which are added. It need not exist.
    type: path
  sources:
    description: Where packages come from, as in M(ocrfleet.gpu_stack.uv_packages).
    type: dict
    default: {}
  conda_installer:
    description: URL of conda's installer. Left out with the reason where it cannot be had.
    type: str
    default: ""
  conda_installer_sha256:
    description: Its SHA-256.
    type: str
    default: ""
attributes:
  check_mode:
    description: Can run in check mode; nothing is downloaded.
    support: partial
    details: C(changed) tells whether a finished bundle is missing. Whether a finished one is whole is not looked into.
  diff_mode:
    description: Returns details on what has changed, in diff mode.
    support: none
"""

EXAMPLES = r"""
- name: Make the bundle
  ocrfleet.gpu_stack.bundle_make:
    path: ./bundle
    python: "3.11"
    uv: .venv/bin/uv
    baseline_lock: roles/olmocr/files/locks/olmocr-0.4.2-gpu-py311-x86_64.txt
    torch: 2.8.0+cu128
    olmocr: 0.4.2
    flashinfer_default: 0.3.1
  delegate_to: localhost
"""

RETURN = r"""
manifest:
  description: What the bundle holds, without the list of files.
  returned: success
  type: dict
files:
  description: How many files it holds.
  returned: success
  type: int
size_gb:
  description: Their size in 10^9 bytes.
  returned: success
  type: float
downloaded:
  description: Files that this run downloaded.
  returned: success
  type: list
  elements: str
left_out:
  description: What is not in it, with C(what) and C(reason).
  returned: success
  type: list
  elements: dict
"""

import concurrent.futures
import functools
import json
import os
import platform
import shutil
import tempfile
import zipfile
from urllib.error import URLError

from ansible.module_utils.basic import AnsibleModule
from ansible.module_utils.urls import open_url
from ansible_collections.ocrfleet.gpu_stack.plugins.module_utils import (
    bundle,
    bundle_make,
    commands,
    digests,
    distributions,
    flashinfer_policy,
    machine,
    package_plan,
    redaction,
)
from ansible_collections.ocrfleet.gpu_stack.plugins.module_utils.staging import Stage
from ansible_collections.ocrfleet.gpu_stack.plugins.module_utils.uv import Failed, Sources, Unsatisfiable

DOWNLOADS_AT_ONCE = 4


def download(url: str, path: str, ca_bundle: str) -> None:
    answer = open_url(url, timeout=120, ca_path=ca_bundle or None, follow_redirects="all")
    with open(path, "wb") as file:
        shutil.copyfileobj(answer, file, 1 << 20)


def target_tags(python: str, architecture: str) -> list[str]:
    """The wheel tags of the target, best first."""
    from packaging import tags

    version = tuple(int(part) for part in python.split("."))
    newest = int(bundle_make.PLATFORM.rpartition("_")[2])
    platforms = [f"manylinux_2_{minor}_{architecture}" for minor in range(newest, 4, -1)]
    platforms += [f"manylinux{old}_{architecture}" for old in ("2014", "2010", "1")] + [f"linux_{architecture}"]
    found = [*tags.cpython_tags(version, platforms=platforms), *tags.compatible_tags(version, platforms=platforms)]
    found += [*tags.compatible_tags(version, f"cp{version[0]}{version[1]}", platforms)]
    return [str(tag) for tag in found]


def wheel_requires(path: str) -> tuple[str, ...]:
    """What a wheel declares that it needs."""
    with zipfile.ZipFile(path) as wheel:
        name = next(name for name in wheel.namelist() if name.endswith(".dist-info/METADATA"))
        text = wheel.read(name).decode("utf-8", "replace").split("\n\n", 1)[0]
    return tuple(line.split(":", 1)[1].strip() for line in text.splitlines() if line.startswith("Requires-Dist:"))


class Maker:
    """One bundle in the making."""

    def __init__(self, params: dict, scratch: str) -> None:
        import tomllib

        self.read_toml = tomllib.loads
        self.params = params
        self.path = params["path"]
        self.sources = Sources.of(params["sources"])
        self.scratch = scratch
        self.downloaded: list[str] = []
        self.left_out: list[dict] = []
        self.files: list[str] = []
        with open(params["baseline_lock"], encoding="utf-8") as file:
            self.lock = file.read()

    def planner(self) -> bundle_make.Planner:
        """uv, with a Python that can read what a source distribution of FlashInfer declares: setuptools, no torch."""
        place = os.path.join(self.scratch, "python")
        pins = package_plan.locked_versions(self.lock)
        tools = [f"{name}=={pins[name]}" for name in ("setuptools", "packaging")]
        env = self.sources.environment()
        lock = os.path.abspath(self.params["baseline_lock"])
        for arguments in (
            ["venv", "--no-project", "--no-config", place],
            ["pip", "install", "--python", place, "--require-hashes", "--no-deps", "--constraints", lock, *tools],
        ):
            result = commands.run([self.params["uv"], *arguments], timeout=600, env=env, cwd=self.scratch)
            if not result.ok:
                raise Failed(result.outcome())
        return bundle_make.Planner(
            binary=self.params["uv"],
            stage=Stage(place),
            sources=self.sources,
            folder=self.scratch,
            timeout=1800,
            no_build_isolation=(flashinfer_policy.PACKAGE,),
            version=self.params["python"],
            platform=f"{self.params['architecture']}-{bundle_make.PLATFORM}",
            baseline=tuple(pins.items()),
        )

    def get(self, planner: bundle_make.Planner, lock: str) -> None:
        """Download one file for each pin of a lock."""
        pins = [f"{name}=={version}" for name, version in package_plan.locked_versions(lock).items()]
        allowed = bundle_make.locked_hashes(lock)
        tags = target_tags(self.params["python"], self.params["architecture"])
        chosen, lacking = [], []
        for package in self.read_toml(planner.files(pins))["packages"]:
            entry = bundle_make.choose(package, tags, allowed.get(distributions.canonical(package["name"]), set()))
            chosen.append(entry) if entry else lacking.append(f"{package['name']} {package['version']}")
        if lacking:
            raise bundle.Unusable(
                f"expected a file with a locked hash for Python {self.params['python']} on {planner.platform} for each "
                f"package, found none for: {', '.join(lacking)}; renew the locks, or use the index they were made from"
            )

        def one(entry: dict) -> None:
            name = os.path.join(bundle.WHEELS, entry["name"])
            path = os.path.join(self.path, name)
            if bundle_make.fetch(
                path, entry["sha256"], lambda part: download(entry["url"], part, self.sources.ca_bundle)
            ):
                self.downloaded.append(entry["name"])
            self.files.append(name)

        with concurrent.futures.ThreadPoolExecutor(DOWNLOADS_AT_ONCE) as pool:
            list(pool.map(one, chosen))

    def copy(self, source: str, name: str, mode: int = 0o644) -> None:
        path = os.path.join(self.path, name)
        os.makedirs(os.path.dirname(path), exist_ok=True)
        if not os.path.exists(path) or digests.sha256(path) != digests.sha256(source):
            shutil.copyfile(source, path + bundle.PART)
            os.replace(path + bundle.PART, path)
        os.chmod(path, mode)
        self.files.append(name)

    def text(self, content: str, name: str) -> None:
        written = os.path.join(self.scratch, "text")
        with open(written, "w", encoding="utf-8") as file:
            file.write(content)
        self.copy(written, name)

    def flashinfer(self, planner: bundle_make.Planner) -> tuple[str, str]:
        """The version, and the lock of what it adds to the baseline."""
        installed = bundle_make.installed(self.lock)
        vllm = next((name for name in self.files if os.path.basename(name).startswith("vllm-")), None)
        if vllm:
            requires = wheel_requires(os.path.join(self.path, vllm))
            installed["vllm"] = distributions.Distribution("vllm", installed["vllm"].version, "", requires=requires)
        choice = flashinfer_policy.select(self.params["flashinfer"], installed, self.params["flashinfer_default"])
        required = self.params["require_companions"]
        request = package_plan.Request(
            requirements=[choice.requirement, *(choice.companions if required else [])],
            optional=[] if required else choice.companions,
            protect=self.params["protect"],
            cuda_major=self.params["cuda_major"],
            allow=self.params["allow_cuda"],
        )
        plan = package_plan.make(planner, request, installed, [])
        self.left_out += [{"what": row["requirement"], "reason": row["reason"]} for row in plan.left_out]
        return choice.version, planner.lock(plan.pins)

    def source(self, planner: bundle_make.Planner, version: str) -> str:
        """FlashInfer's source archive, for the method `source`: among the wheels where the release is nothing else."""
        package = self.read_toml(planner.files([f"{flashinfer_policy.PACKAGE}=={version}"]))["packages"][0]
        entry = package.get("sdist")
        if not entry:
            reason = "the index has no source archive of it"
            self.left_out.append({"what": f"the source of FlashInfer {version}", "reason": reason})
            return ""
        file = bundle_make.file_name(entry)
        name = os.path.join(bundle.WHEELS, file)
        if name not in self.files:
            name = f"source/{file}"
            path = os.path.join(self.path, name)
            os.makedirs(os.path.dirname(path), exist_ok=True)
            get = functools.partial(download, entry["url"], ca_bundle=self.sources.ca_bundle)
            if bundle_make.fetch(path, entry["hashes"]["sha256"], get):
                self.downloaded.append(file)
            self.files.append(name)
        return name

    def conda(self) -> str:
        url, sha256 = self.params["conda_installer"], self.params["conda_installer_sha256"]
        name = "conda/" + os.path.basename(url)
        reason = "" if url else "no URL is given"
        if url and not sha256:
            reason = "no SHA-256 is given to hold it against"
        if not reason:
            path = os.path.join(self.path, name)
            os.makedirs(os.path.dirname(path), exist_ok=True)
            try:
                if bundle_make.fetch(path, sha256, lambda part: download(url, part, self.sources.ca_bundle)):
                    self.downloaded.append(name)
                self.files.append(name)
                return name
            except (OSError, URLError) as error:
                reason = f"{url} cannot be had: {getattr(error, 'reason', error)}"
        self.left_out.append({"what": "conda's installer", "reason": reason})
        return ""

    def make(self) -> dict:
        os.makedirs(os.path.join(self.path, bundle.WHEELS), exist_ok=True)
        planner = self.planner()
        self.get(planner, self.lock)
        version, added = self.flashinfer(planner)
        self.get(planner, added)
        self.copy(self.params["uv"], bundle.UV, 0o755)
        self.copy(self.params["baseline_lock"], f"locks/{os.path.basename(self.params['baseline_lock'])}")
        lock_name = f"locks/flashinfer-{version}.txt"
        self.text(added, lock_name)
        packs = self.params["kernel_packs"] or ""
        for name in sorted(os.listdir(packs)) if os.path.isdir(packs) else []:
            self.copy(os.path.join(packs, name), f"kernel-packs/{name}")
        return {
            "format": bundle.FORMAT,
            "python": self.params["python"],
            "architecture": self.params["architecture"],
            "uv": machine.uv_version(self.params["uv"]),
            "torch": self.params["torch"],
            "olmocr": self.params["olmocr"],
            "flashinfer": version,
            "flashinfer_lock": lock_name,
            "flashinfer_source": self.source(planner, version),
            "conda_installer": self.conda(),
            "left_out": self.left_out,
        }

    def finish(self, manifest: dict) -> bool:
        """Write the manifest, when everything that it names is there. Whether it differs from the one before."""
        path = os.path.join(self.path, bundle.MANIFEST)
        wanted = set(self.files)
        stale = bundle_make.clear(self.path, wanted)
        files = {}
        for name in sorted(wanted):
            there = os.path.join(self.path, name)
            files[name] = {"size": os.path.getsize(there), "sha256": digests.sha256(there)}
        text = json.dumps({**manifest, "files": files}, indent=1) + "\n"
        bundle.parse(text)
        if os.path.exists(path) and bundle.read(self.path) == text:
            return bool(stale)
        with open(path + bundle.PART, "w", encoding="utf-8") as file:
            file.write(text)
            file.flush()
            os.fsync(file.fileno())
        os.replace(path + bundle.PART, path)
        return True


def main() -> None:
    module = AnsibleModule(
        argument_spec={
            "path": {"type": "path", "required": True},
            "python": {"type": "str", "required": True},
            "architecture": {"type": "str", "default": "x86_64"},
            "uv": {"type": "path", "required": True},
            "baseline_lock": {"type": "path", "required": True},
            "torch": {"type": "str", "required": True},
            "olmocr": {"type": "str", "required": True},
            "flashinfer": {"type": "str", "default": "auto"},
            "flashinfer_default": {"type": "str", "required": True},
            "cuda_major": {"type": "int", "default": 12},
            "protect": {"type": "list", "elements": "str", "default": ["all"]},
            "allow_cuda": {"type": "list", "elements": "str", "default": []},
            "require_companions": {"type": "bool", "default": False},
            "kernel_packs": {"type": "path"},
            "sources": {"type": "dict", "default": {}},
            "conda_installer": {"type": "str", "default": ""},
            "conda_installer_sha256": {"type": "str", "default": ""},
        },
        supports_check_mode=True,
    )
    params = module.params
    redaction.hide(module, [*redaction.of_sources(params["sources"]), params["conda_installer"]])
    if not os.path.isfile(params["baseline_lock"]):
        module.fail_json(
            msg=f"expected the baseline's lock at {params['baseline_lock']}, found none; choose a Python and an "
            "OlmOCR that the collection has a lock for, or name a lock of your own in olmocr_lock"
        )
    if platform.machine() != params["architecture"]:
        module.fail_json(
            msg=f"expected a control node of the hosts' architecture {params['architecture']}, found "
            f"{platform.machine()}: uv and the resolution are this machine's; make the bundle on such a machine"
        )
    if module.check_mode:
        module.exit_json(changed=not os.path.exists(os.path.join(params["path"], bundle.MANIFEST)))
    scratch = tempfile.mkdtemp(prefix="bundle", dir=module.tmpdir)
    try:
        maker = Maker(params, scratch)
        manifest = maker.make()
        changed = maker.finish(manifest)
    except package_plan.Refused as refused:
        module.fail_json(msg=str(refused))
    except (bundle.Unusable, Unsatisfiable, Failed, URLError, OSError) as problem:
        module.fail_json(msg=f"The bundle is not finished; run this again to go on. {problem}")
    finally:
        shutil.rmtree(scratch, ignore_errors=True)
    size = sum(os.path.getsize(os.path.join(params["path"], name)) for name in set(maker.files))
    module.exit_json(
        changed=changed or bool(maker.downloaded),
        manifest=manifest,
        files=len(set(maker.files)),
        size_gb=round(size / 1e9, 2),
        downloaded=sorted(maker.downloaded),
        left_out=maker.left_out,
    )


if __name__ == "__main__":
    main()
