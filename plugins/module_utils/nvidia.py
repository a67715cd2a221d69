# Copyright (c) 2026 The ocrfleet.gpu_stack contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The NVIDIA driver and its GPUs as `nvidia-smi` tells them, and what stands against running this stack on them."""

from __future__ import annotations

import re
from collections.abc import Callable
from dataclasses import asdict, dataclass, field

from ansible_collections.ocrfleet.gpu_stack.plugins.module_utils import commands

FIELDS = ("index", "name", "uuid", "compute_cap", "driver_version", "memory.total", "memory.used", "mig.mode.current")
QUERY = ["nvidia-smi", f"--query-gpu={','.join(FIELDS)}", "--format=csv,noheader,nounits"]
PROCESSES = ["nvidia-smi", "--query-compute-apps=gpu_uuid,pid,process_name", "--format=csv,noheader,nounits"]
LIST = ["nvidia-smi", "-L"]

# The oldest driver of each CUDA major version, from NVIDIA's "CUDA Compatibility" (minor versions).
OLDEST_DRIVER = {11: "450.80.02", 12: "525.60.13", 13: "580.65.06"}
OLDEST_CAPABILITY = "7.5"  # FlashInfer raises "FlashInfer requires GPUs with sm75 or higher" below it
IN_USE_SHARE = 0.1  # vllm takes 90 % of the memory; drivers and displays take a little without being asked
OLMOCR_MEMORY_MIB = 15 * 1024  # OlmOCR's own start-up check, unless a server does the work

# What nvidia-smi prints when it cannot answer, and what that means for the operator.
REFUSALS = (
    (
        r"couldn't communicate with the NVIDIA driver",
        "the NVIDIA driver is not loaded: install it or modprobe nvidia; after a new kernel rebuild it (dkms)",
    ),
    (
        r"Driver/library version mismatch",
        "the loaded driver and its libraries are of different versions, as after an update: reboot the host",
    ),
    (r"No devices were found", "the driver is loaded and finds no GPU: see whether one is passed to this host (lspci)"),
    (
        r"GPU is lost|Unable to determine the device handle",
        "a GPU fell off the bus: see dmesg for Xid, reboot the host",
    ),
    (
        r"GPU access blocked by the operating system",
        "the driver's device files are not what they should be, as in a container without a GPU: see /dev/nvidia*",
    ),
    (r"Insufficient Permissions", "this user may not use the GPU: see the rights of /dev/nvidia*"),
)


@dataclass(frozen=True)
class Gpu:
    """One GPU. Sizes in MiB; empty or 0 where nvidia-smi does not know."""

    index: int
    name: str
    uuid: str
    capability: str
    memory_mib: int
    memory_used_mib: int
    mig: bool
    processes: tuple[str, ...] = ()


@dataclass
class Survey:
    """What the host has. `absent` says why there are no GPUs, `problem` why that cannot be known."""

    driver: str = ""
    gpus: list[Gpu] = field(default_factory=list)
    mig_instances: int = 0
    mig_problem: str = ""  # why the instances cannot be told, where MIG is on
    absent: str = ""
    problem: str = ""

    @property
    def devices(self) -> list[str]:
        """One line for each GPU, for reports. Serial numbers are left out: no report needs them."""
        return [f"{gpu.name}, driver {self.driver}" for gpu in self.gpus]

    def as_dict(self) -> dict:
        found = asdict(self)
        for gpu in found["gpus"]:
            gpu["processes"] = list(gpu["processes"])
        return found


def version_key(version: str) -> tuple[int, ...]:
    """The numbers of a version, for comparing drivers, toolkits and capabilities."""
    return tuple(int(part) for part in re.findall(r"\d+", version))


def refusal(result: commands.Result) -> str:
    """Why nvidia-smi gave no answer, and what to do."""
    if result.timed_out:
        return (
            f"nvidia-smi did not end within {result.seconds:.0f} s: a driver or GPU hangs; see dmesg for Xid errors, "
            "reboot the host"
        )
    said = f"{result.stdout}\n{result.stderr}"
    for pattern, meaning in REFUSALS:
        if re.search(pattern, said):
            return f"{meaning} (nvidia-smi: {' '.join(said.split())[:200]})"
    return result.outcome(lines=3)


def _number(text: str) -> int:
    return int(text) if text.isdigit() else 0  # "[N/A]", "[Not Supported]", "[Insufficient Permissions]"


def parse_query(text: str) -> tuple[str, list[Gpu]]:
    """The driver's version and the GPUs of `QUERY`'s output; lines of another form are left out."""
    driver, gpus = "", []
    for line in text.splitlines():
        values = [value.strip() for value in line.split(",")]
        if len(values) != len(FIELDS) or not values[0].isdigit():
            continue
        row = dict(zip(FIELDS, values))
        driver = row["driver_version"]
        gpus.append(
            Gpu(
                index=int(row["index"]),
                name=row["name"],
                uuid=row["uuid"],
                capability=row["compute_cap"] if re.fullmatch(r"\d+\.\d+", row["compute_cap"]) else "",
                memory_mib=_number(row["memory.total"]),
                memory_used_mib=_number(row["memory.used"]),
                mig=row["mig.mode.current"] == "Enabled",
            )
        )
    return driver, gpus


def parse_processes(text: str) -> dict[str, list[str]]:
    """The processes of `PROCESSES`' output by the GPU's UUID, each as "name (pid)"."""
    found: dict[str, list[str]] = {}
    for line in text.splitlines():
        values = [value.strip() for value in line.split(",", 2)]
        if len(values) == 3 and values[1].isdigit():
            found.setdefault(values[0], []).append(f"{values[2]} ({values[1]})")
    return found


def survey(run: Callable[..., commands.Result] = commands.run, timeout: float = 20) -> Survey:
    """Ask nvidia-smi. It is found on PATH; every question ends after `timeout` seconds."""
    result = run(QUERY, timeout=timeout)
    if result.rc == 127 and not result.timed_out:
        return Survey(absent="nvidia-smi is not on PATH: no NVIDIA driver is installed here")
    if not result.ok:
        if "is not a valid field to query" in result.stdout + result.stderr:
            # compute_cap came with driver 510: older ones are too old for CUDA 12 anyway, the version says so.
            older = run(["nvidia-smi", "--query-gpu=driver_version", "--format=csv,noheader"], timeout=timeout)
            driver = older.stdout.strip().splitlines()[0] if older.ok and older.stdout.strip() else ""
            return Survey(driver=driver, problem="the driver is too old to tell a GPU's compute capability: update it")
        reason = refusal(result)
        if "No devices were found" in result.stdout + result.stderr:
            return Survey(absent=reason)
        return Survey(problem=reason)
    driver, gpus = parse_query(result.stdout)
    if not gpus:
        return Survey(problem=f"nvidia-smi answered in an unknown form: {' '.join(result.stdout.split())[:200]}")
    busy = run(PROCESSES, timeout=timeout)
    users = parse_processes(busy.stdout) if busy.ok else {}
    gpus = [Gpu(**{**asdict(gpu), "processes": tuple(users.get(gpu.uuid, ()))}) for gpu in gpus]
    found = Survey(driver=driver, gpus=gpus)
    if any(gpu.mig for gpu in gpus):
        listed = run(LIST, timeout=timeout)
        found.mig_instances = len(re.findall(r"^\s+MIG .*UUID: MIG-", listed.stdout, re.MULTILINE))
        found.mig_problem = "" if listed.ok else refusal(listed)
    return found


def runs_on(capability: str, architectures: list[str]) -> bool:
    """Whether code built for `architectures` (torch.cuda.get_arch_list()) runs on a GPU of this compute capability.

    Machine code (sm_86) runs on later minor versions of its major version, PTX (compute_86) on everything later, and
    code with a letter (sm_90a) on nothing else: CUDA C++ Programming Guide, "Application Compatibility".
    """
    have = version_key(capability)
    for architecture in architectures:
        match = re.fullmatch(r"(sm|compute)_(\d+)(\d)([a-z]?)", architecture)
        if not match:
            continue
        built = (int(match[2]), int(match[3]))
        if match[4]:
            if have == built:
                return True
        elif (match[1] == "compute" or have[0] == built[0]) and have >= built:
            return True
    return False


def driver_problem(driver: str, cuda: str) -> str:
    """What is wrong with this driver for this CUDA version, or an empty text."""
    major = version_key(cuda)[0] if cuda else 0
    oldest = OLDEST_DRIVER.get(major)
    if not driver or not oldest or version_key(driver) >= version_key(oldest):
        return ""
    came_with = " (CUDA 12.8 came with 570)" if cuda == "12.8" else ""
    return f"driver: CUDA {cuda} needs {oldest} or newer, found {driver}; install a newer driver{came_with}"


def preflight(
    found: Survey, cuda: str, architectures: list[str] | None = None, flashinfer: bool = True
) -> tuple[list[str], list[str]]:
    """What stands against running PyTorch built for `cuda` here, and what the operator should know besides.

    A host without any GPU has no problem: it is a builder, or it uses a server, and the caller decides about that.
    Without `flashinfer` nothing is said about what only FlashInfer needs.
    """
    problems, remarks = [], []
    if found.problem:
        problems.append(f"GPU: {found.problem}")
    old = driver_problem(found.driver, cuda)
    if old:
        problems.append(old)
    for gpu in found.gpus:
        label = f"GPU {gpu.index} ({gpu.name})"
        if gpu.capability and architectures and not runs_on(gpu.capability, architectures):
            problems.append(
                f"{label}: its compute capability {gpu.capability} is not among those of the installed PyTorch "
                f"({', '.join(architectures)}); use another GPU or another build of PyTorch"
            )
        if flashinfer and gpu.capability and version_key(gpu.capability) < version_key(OLDEST_CAPABILITY):
            problems.append(
                f"{label}: FlashInfer needs compute capability {OLDEST_CAPABILITY}, found {gpu.capability}; "
                "leave FlashInfer out on this host"
            )
        if gpu.mig:
            remarks.append(
                f"{label}: MIG is on. CUDA sees one instance only, with its share of the memory; name it by "
                "CUDA_VISIBLE_DEVICES=MIG-<uuid> (nvidia-smi -L)"
            )
        elif 0 < gpu.memory_mib < OLMOCR_MEMORY_MIB:
            remarks.append(
                f"{label}: OlmOCR wants {OLMOCR_MEMORY_MIB} MiB, found {gpu.memory_mib} MiB; let a server do the work"
            )
        if gpu.processes or gpu.memory_used_mib > IN_USE_SHARE * gpu.memory_mib:
            # In a container the processes of others cannot be seen, the memory that they took can.
            users = ", ".join(gpu.processes) or "processes that cannot be seen from here"
            remarks.append(
                f"{label}: in use by {users}, {gpu.memory_used_mib} of {gpu.memory_mib} MiB taken; vllm wants 90 % for "
                "itself"
            )
    if found.mig_problem:
        problems.append(f"MIG: expected its instances from nvidia-smi -L, found: {found.mig_problem}")
    elif any(gpu.mig for gpu in found.gpus) and not found.mig_instances:
        problems.append(
            "MIG: expected an instance, since MIG is on, found none; make one (nvidia-smi mig -cgi PROFILE -C) or turn "
            "MIG off (nvidia-smi -mig 0)"
        )
    if len(found.gpus) > 1:
        kinds = sorted({gpu.capability for gpu in found.gpus})
        remarks.append(
            f"{len(found.gpus)} GPUs: the first visible one is used; choose by CUDA_VISIBLE_DEVICES"
            + (
                f"; they are of different kinds ({', '.join(kinds)}), of which CUDA counts the fastest first: name one "
                "by its UUID, or set CUDA_DEVICE_ORDER=PCI_BUS_ID besides"
                if len(kinds) > 1
                else ""
            )
        )
    return problems, remarks
