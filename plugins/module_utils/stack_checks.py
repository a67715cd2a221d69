# Copyright (c) 2026 The ocrfleet.gpu_stack contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The checks of a stack: gather what is to be seen, once, and judge each item on it."""

from __future__ import annotations

import base64
import json
import os
import shutil
import tempfile
import time
from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass, field

from ansible_collections.ocrfleet.gpu_stack.plugins.module_utils import (
    activation,
    commands,
    distributions,
    document_check,
    flashinfer_fit,
    flashinfer_install,
    gpu_kernels,
    gpu_presence,
    kernel_compile,
    kernel_pack,
    nvidia,
    programs,
    service_user,
    show_config,
    smoke,
    stack_probe,
    torch_values,
)
from ansible_collections.ocrfleet.gpu_stack.plugins.module_utils.staging import Stage

PASSED, FAILED, NOT_RUN = "passed", "failed", "not_run"
CHECK_MODE = "check mode: would "  # how the reason begins of an item that only a real run uses the GPU for

# Of the GPU that a kernel is compiled for where only that it compiles is to be seen.
_ANY_ARCHITECTURE = "80"

# Seconds. OlmOCR 0.4.2 waits 300 s for its vllm (pipeline.py, max_attempts), which takes as long again to start.
_SLOW_START = 150

_PROBED = ("torch", "gpu", "import")


@dataclass
class Verdict:
    """One item's outcome. A reason always stands where the status is not `passed`."""

    name: str
    title: str
    status: str
    reason: str = ""
    seen: dict = field(default_factory=dict)
    seconds: float = 0.0


@dataclass
class Probed:
    """What the probe says of one item."""

    seen: dict = field(default_factory=dict)
    problem: str | None = None
    seconds: float = 0.0


def public(version: str) -> str:
    return version.split("+", 1)[0]


def same_version(found: str | None, wanted: str) -> bool:
    """Whether `found` is `wanted`; a label such as +cu128 counts only where `wanted` has one."""
    if found is None:
        return False
    return found == wanted if "+" in wanted else public(found) == wanted


def how_it_died(result: commands.Result, timeout: float) -> str:
    """Why a probe process ended in the middle of an item."""
    if "Timeout (" in result.stderr or result.timed_out:
        return f"did not end within {timeout:.0f} s"
    said = [line.strip() for line in result.stderr.splitlines() if line.startswith("Fatal Python error")]
    how = f"was ended by signal {-result.rc}" if result.rc < 0 else f"ended its process with exit code {result.rc}"
    return how + (f" ({said[-1]})" if said else "")


def _events(path: str) -> list[dict]:
    events = []
    with open(path, encoding="utf-8", errors="replace") as file:
        for line in file:
            try:
                events.append(json.loads(line))
            except ValueError:
                break  # cut short by the crash that the parent is about to report
    return events


def probe(
    stage: Stage, items: list[dict], folder: str, env: dict[str, str]
) -> tuple[dict[str, Probed], list[list[str]]]:
    """Try each item in one process; when an item takes the process down, go on with the rest in a new one.

    Returns what was seen by item, and for each process the CUDA runtime libraries that it had loaded.
    """
    program = programs.written(stack_probe, folder)
    found: dict[str, Probed] = {}
    runtimes: list[list[str]] = []
    waiting = list(items)
    while waiting:
        path = os.path.join(folder, f"events-{len(runtimes)}.jsonl")
        with open(path, "w", encoding="utf-8"):
            pass
        result = stage.run(
            [stage.python, program, json.dumps(waiting), path],
            timeout=sum(item["timeout"] for item in waiting) + 30,
            env=env,
            cwd=folder,
        )
        under_way, loaded = None, []
        for event in _events(path):
            if event["event"] == "start":
                under_way = event["name"]
            else:
                found[event["name"]] = Probed(event["seen"], event["problem"], event["seconds"])
                under_way, loaded = None, event["cuda_runtimes"]
        runtimes.append(loaded)
        remaining = [item for item in waiting if item["name"] not in found]
        if remaining:
            # Nothing announced: the interpreter itself did not come up, and will not for the next item either.
            lost = [item for item in remaining if under_way in (None, item["name"])]
            for item in lost:
                found[item["name"]] = Probed(
                    problem=how_it_died(result, item["timeout"])
                    if under_way
                    else "the environment's Python does not start: " + result.outcome(3),
                    seconds=round(result.seconds, 2),
                )
            remaining = [item for item in remaining if item not in lost]
        waiting = remaining
    return found, runtimes


class Checks:
    """One run of a checklist. `gpu` and `free_memory` ask the hardware; tests answer in its place.

    `variables` are what OlmOCR is started with, where they were read already.
    With `check_mode` no kernel is run and no vllm is started; what would be is told as the reason.
    """

    def __init__(
        self,
        stage: Stage,
        checklist: list[dict],
        folder: str,
        gpu: Callable[[], list[str]] = gpu_presence.evidence,
        free_memory: Callable[[str | None], tuple[int, int] | None] = gpu_presence.free_memory,
        check_mode: bool = False,
        variables: dict[str, str] | None = None,
    ) -> None:
        self.check_mode = check_mode
        self.stage = stage
        self.checklist = checklist
        self.folder = folder
        self.free_memory = free_memory
        self.gpu = gpu()
        self.installed = distributions.installed(stage.tree)
        self.verdicts: dict[str, Verdict] = {}
        # The checks see what is installed and nothing of the caller's own.
        self.env = {
            "PYTHONPATH": "",
            "PYTHONNOUSERSITE": "1",
            "VLLM_NO_USAGE_STATS": "1",
            "DO_NOT_TRACK": "1",
            # What OlmOCR is started with here.
            **(activation.read(stage.tree) if variables is None else variables),
            # What check mode imports leaves nothing behind, and so not what Python compiles.
            **({"PYTHONDONTWRITEBYTECODE": "1"} if check_mode else {}),
        }
        # What runs here compiles, too. FlashInfer makes folders when it is imported.
        self.run_env = activation.with_own_caches(self.env, folder)
        self.probe_env = {**self.run_env, "FLASHINFER_WORKSPACE_BASE": folder}
        self._config: show_config.ShowConfig | None = None
        self.probed: dict[str, Probed] = {}
        self.runtimes: list[list[str]] = []

    def run(self) -> list[Verdict]:
        items = [item for item in self.checklist if item["kind"] in _PROBED and not self._absent(item)]
        self.probed, self.runtimes = probe(self.stage, items, self.folder, self.probe_env)
        for item in self.checklist:
            started = time.monotonic()
            status, reason, seen = self._absent(item) or getattr(self, "_" + item["kind"])(item)
            probed = self.probed.get(item["name"])
            seconds = probed.seconds if probed else round(time.monotonic() - started, 2)
            self.verdicts[item["name"]] = Verdict(item["name"], item["title"], status, reason, seen, seconds)
        return list(self.verdicts.values())

    def _version(self, distribution: str | None) -> str | None:
        found = self.installed.get(distributions.canonical(distribution or ""))
        return found.version if found else None

    def _absent(self, item: dict) -> tuple[str, str, dict] | None:
        """The verdict on an item whose distribution is not installed."""
        name = item["distribution"]
        if not name or self._version(name) is not None:
            return None
        if item["version"]:
            return FAILED, f"{name} is not installed, expected {item['version']}", {"version": None}
        return NOT_RUN, f"{name} is not installed, and no version of it is asked for", {"version": None}

    def _files(self, item: dict) -> tuple[str, str, dict]:
        """An installer that was killed leaves packages that import all the same; only their RECORDs tell."""
        if not self.installed:
            return FAILED, f"found no package in {self.stage.environment}", {"packages": 0, "damaged": []}
        damaged = distributions.damaged(self.stage.tree)
        seen = {"packages": len(self.installed), "damaged": [f"{found.name} {found.version}" for found in damaged]}
        if not damaged:
            return PASSED, "", seen
        first, more = damaged[0], len(damaged) - 1
        reason = f"{first.name} {first.version}: {'; '.join(first.problems[:2])}"
        return FAILED, reason + (f"; and {more} more package{'s' * (more > 1)}" if more else ""), seen

    def _torch(self, item: dict) -> tuple[str, str, dict]:
        probed = self.probed[item["name"]]
        values = {
            "metadata": self._version("torch"),
            "version": probed.seen.get("version"),
            "cuda": probed.seen.get("cuda"),
        }
        problem = None if probed.problem is None else f"importing torch {self._lead(probed.problem)}"
        wrong = torch_values.mismatches({**values, "problem": problem}, item["version"])
        return (FAILED, "; ".join(wrong), values) if wrong else (PASSED, "", values)

    @staticmethod
    def _lead(problem: str) -> str:
        """A problem as the end of a sentence: a raised error needs a verb, the death of a process brings its own."""
        return problem if problem.startswith(("did ", "was ", "ended ")) else f"failed: {problem}"

    def _gpu(self, item: dict) -> tuple[str, str, dict]:
        probed = self.probed[item["name"]]
        seen = {"devices": probed.seen.get("devices", []), "host": self.gpu}
        if probed.seen.get("available"):
            wrong, seen["remarks"] = nvidia.preflight(
                nvidia.survey(timeout=30),
                self._torch_cuda() or "",
                probed.seen.get("architectures"),
                flashinfer="flashinfer-python" in self.installed,
            )
            return (FAILED, "; ".join(wrong), seen) if wrong else (PASSED, "", seen)
        what = probed.problem or probed.seen.get("problem") or "torch.cuda.is_available() is False"
        if not self.gpu:
            return NOT_RUN, "this host has no NVIDIA GPU", seen
        return FAILED, f"the host has a GPU ({self.gpu[0]}), but PyTorch cannot use it: {what}", seen

    def _import(self, item: dict) -> tuple[str, str, dict]:
        probed = self.probed[item["name"]]
        name = item["distribution"]
        installed = self._version(name)
        seen = {"version": installed, "imported": probed.seen.get("version"), "file": probed.seen.get("file")}
        wrong = []
        if probed.problem is not None:
            wrong.append(f"importing {' and '.join(item['modules'])} {self._lead(probed.problem)}")
        if item["version"] and not same_version(installed, item["version"]):
            wrong.append(f"{name} is {installed}, expected {item['version']}")
        imported = probed.seen.get("version")
        if probed.problem is None and installed and probed.seen.get("file") is None:
            wrong.append(f"what is imported has no file: a folder of {name} is there and cannot be read")
        # A build from a plain source tree has no version of its own to tell.
        if installed and imported and public(imported) not in (public(installed), "0.0.0"):
            wrong.append(
                f"what is imported calls itself {imported}, {name}'s metadata says {installed}: files of two versions"
            )
        for companion in item["companions"]:
            found = self._version(companion)
            seen[companion] = found
            if found is not None and public(found) != public(installed or ""):
                wrong.append(f"{companion} is {found}, it must match {name} {installed}: install that, or none")
        return (FAILED, "; ".join(wrong), seen) if wrong else (PASSED, "", seen)

    def _ask_flashinfer(self, item: dict) -> show_config.ShowConfig:
        if self._config is None:
            self._config = show_config.ask(self.stage, self.folder, self.probe_env, item["timeout"])
        return self._config

    def _show_config(self, item: dict) -> tuple[str, str, dict]:
        config = self._ask_flashinfer(item)
        torch = config.values.get("torch version")
        flashinfer = config.values.get("flashinfer version")
        seen = {"torch": torch, "flashinfer": flashinfer, "cuda": config.values.get("cuda_version")}
        if torch is None:
            lacks_nvcc = show_config.lacks_nvcc(config.outcome)
            if lacks_nvcc and not self.gpu:
                return NOT_RUN, "show-config needs nvcc, and there is none here (no GPU either)", seen
            if lacks_nvcc and (self._flashinfer_is_off() or self._compiled_already(None)):
                return NOT_RUN, "show-config needs nvcc, and there is none here; OlmOCR starts without one", seen
            return FAILED, f"show-config {config.outcome}", seen
        wrong = []
        if item["torch"] and not same_version(torch, item["torch"]):
            wrong.append(f"show-config says torch {torch}, expected {item['torch']}")
        installed = self._version(item["distribution"])
        if flashinfer and installed and public(flashinfer) != public(installed):
            wrong.append(f"show-config says FlashInfer {flashinfer}, installed is {installed}")
        return (FAILED, "; ".join(wrong), seen) if wrong else (PASSED, "", seen)

    def _torch_cuda(self) -> str | None:
        return next((probed.seen["cuda"] for probed in self.probed.values() if probed.seen.get("cuda")), None)

    def _cuda_compiler(self, item: dict) -> tuple[str, str, dict]:
        values = self._ask_flashinfer(item).values
        wanted = self._torch_cuda()
        version = values.get("cuda_version")
        if values.get("nvcc found", "").lower() == "no":
            version = None
        seen = {"version": version, "home": values.get("cuda_home"), "torch": wanted}
        if wanted is None:
            return NOT_RUN, "PyTorch does not say which CUDA it was built for", seen
        if version and version.split(".")[0] == wanted.split(".")[0]:
            return PASSED, "", seen
        wrong = f"FlashInfer would compile with nvcc {version}" if version else "FlashInfer finds no nvcc"
        if not self.gpu:
            return NOT_RUN, f"no GPU here, so nothing is compiled ({wrong}; a GPU host needs CUDA {wanted})", seen
        if self._flashinfer_is_off():
            return NOT_RUN, f"{wrong}; vllm's FlashInfer sampler is switched off, so that OlmOCR starts", seen
        already = self._compiled_already(version)
        if already:
            return NOT_RUN, f"{wrong}; {already}", seen
        return FAILED, f"{wrong}, expected CUDA {wanted}: OlmOCR's vllm compiles kernels when it starts", seen

    def _capability(self) -> str:
        """Of the first GPU that PyTorch sees; "" where it sees none."""
        found = [one for probed in self.probed.values() for one in probed.seen.get("capabilities", [])]
        return found[0] if found else ""

    def _flashinfer_is_off(self) -> bool:
        """Whether vllm starts without FlashInfer: its sampler is off, and its attention is not taken, as on 10.0."""
        uses = self._vllm_use(self.env)
        return self.env.get(activation.SAMPLER) == "0" and uses["attention"] != "FLASHINFER"

    def _vllm_use(self, variables: Mapping[str, str]) -> dict[str, str]:
        vllm, own = self._version("vllm") or "", self._version("flashinfer-python") or ""
        return flashinfer_install.vllm_use(vllm, own, self._capability(), variables)

    def _to_be_proven(self) -> dict[str, str] | None:
        """What vllm's log has to say that it used; None without FlashInfer, or for a vllm whose lines are not known."""
        uses = self._vllm_use({**os.environ, **self.env})
        return uses if "flashinfer-python" in self.installed and uses["sampler"] != "unknown" else None

    def _compiled_already(self, nvcc: str | None) -> str:
        """Where the kernels come from if not from a compiler, in words; "" where they have to be compiled."""
        versions, wrong = flashinfer_install.packages(self.installed)
        compiler = {"nvcc_problem": "" if nvcc else "none", "missing": ["nvcc"], "mismatch": ""}
        source, why = flashinfer_install.kernel_source(versions, not wrong, self._placed_kernels(), compiler)
        return why if source in ("pack", "jit_cache") else ""

    def _placed_kernels(self) -> list[dict]:
        return flashinfer_install.modules_of(self.stage.tree, self.installed, self._capability(), "/nonexistent")

    def _flashinfer_fit(self, item: dict) -> tuple[str, str, dict]:
        """What no import shows: a pair of versions that breaks at a request, a variable that stops OlmOCR's start."""
        variables = {**os.environ, **self.env}
        found = flashinfer_fit.look_at_files(self.stage.tree, self.installed, self._capability(), variables)
        found["probe"] = {"torch_cuda": self._torch_cuda() or ""}
        problems, remarks = flashinfer_fit.judge_use(found)
        problems += flashinfer_fit.judge_modules(found)[0]
        uses = {name: found["vllm"]["uses"].get(name, "") for name in ("attention", "sampler", "why")}
        seen = {**uses, "compiled modules": len(found["compiled_modules"]), "remarks": remarks}
        return (FAILED, "; ".join(problems), seen) if problems else (PASSED, "", seen)

    def _smoke(self, item: dict) -> tuple[str, str, dict]:
        """The smoke kernels: PyTorch's, and FlashInfer's where it is installed and not switched off."""
        if not self.gpu:
            return NOT_RUN, "this host has no NVIDIA GPU", {}
        failed = [name for name in item["needs"] if name in self.verdicts and self.verdicts[name].status == FAILED]
        if failed:
            return NOT_RUN, f"needs {failed[0]}, which failed", {}
        kernels = [name for name in gpu_kernels.KERNELS if not name.startswith("flashinfer_")]
        left_out = ""
        if "flashinfer-python" in self.installed:
            if self._flashinfer_is_off():
                left_out = "FlashInfer's are left out, as vllm's FlashInfer sampler is switched off in its start file"
            else:
                kernels = list(gpu_kernels.KERNELS)
        if self.check_mode:
            return NOT_RUN, f"{CHECK_MODE}run {', '.join(kernels)} on {self.gpu[0]}", {"left out": left_out}
        folder = os.path.join(self.folder, "smoke")
        os.mkdir(folder)
        env = {**self.run_env, **{name: str(value) for name, value in item["env"].items()}}
        request = {
            "kernels": kernels,
            "mode": "gpu",
            "seed": time.time_ns() % 2**32,
            "capability": None,
            "tolerance": None,
        }
        entries, device, _processes, _argvs = smoke.run_all(
            lambda asked: smoke.attempt(self.stage, asked, folder, int(item["timeout"]), env), request, item["timeout"]
        )
        seen = {
            "device": device.get("device", ""),
            "left out": left_out,
            **{
                entry["name"]: f"{entry['origin']}, first call {entry['first_call_seconds']} s, "
                f"then {entry['median_ms']} ms, error {entry['error']}"
                for entry in entries
                if entry["status"] == PASSED
            },
        }
        slow = self._slow_start(entries)
        if slow:
            return FAILED, slow, seen
        status = smoke.overall(entries)
        return (status, left_out, seen) if status == PASSED else (status, smoke.summary(entries), seen)

    def _slow_start(self, entries: list[dict]) -> str:
        """Why OlmOCR may give up waiting for its vllm; "" where what was compiled here is there when it starts."""
        seconds = [
            entry["first_call_seconds"] or 0
            for entry in entries
            if entry["name"] == "flashinfer_sampling" and entry["origin"] == "compiled"
        ]
        if not seconds or max(seconds) <= _SLOW_START or self.run_env == self.env:
            return ""
        return (
            f"compiling the module that vllm needs at its start took {max(seconds):.0f} s here, and is done anew by "
            f"whoever serves; expected at most {_SLOW_START}, as OlmOCR waits for 300 in all: let a kernel pack be "
            "made (kernel_pack_build)"
        )

    def _kernel(self, item: dict) -> tuple[str, str, dict]:
        """One kernel of FlashInfer, compiled and loaded: that takes nvcc, and no GPU."""
        smoke_seen = [verdict for verdict in self.verdicts.values() if verdict.name in item["proven_by"]]
        if any(verdict.status == PASSED and not verdict.reason for verdict in smoke_seen):
            return PASSED, "", {"proven by": smoke_seen[0].name}
        failed = [name for name in item["needs"] if name in self.verdicts and self.verdicts[name].status == FAILED]
        if failed:
            return NOT_RUN, f"needs {failed[0]}, which failed", {}
        compiler = activation.find_compiler(self.stage.tree, "", {**os.environ, **self.env}, self._torch_cuda() or "")
        unmet = ", ".join(item["unmet"])
        # With another nvcc a failure could be nvcc's; where a need is unmet, any answer is better than none.
        if compiler["missing"] or (compiler["mismatch"] and not unmet):
            lacks = "; ".join(compiler["missing"]) or compiler["mismatch"]
            unproven = f"whether FlashInfer works without {unmet} is NOT known: " if unmet else ""
            return NOT_RUN, f"{unproven}no kernel can be compiled here: {lacks}", {}
        seen = {"nvcc": compiler["nvcc"], "version": compiler["nvcc_version"]}
        if self.check_mode:
            return NOT_RUN, f"{CHECK_MODE}compile a kernel with {compiler['nvcc']}", seen
        program = programs.written(kernel_compile, self.folder)
        target = kernel_pack.compile_for(_ANY_ARCHITECTURE, self._version("flashinfer-python") or "")
        path = flashinfer_install.search_path(self.stage.environment, {**os.environ, **self.env})
        env = {**self.probe_env, **flashinfer_install.max_jobs(), **target}
        env |= {"CUDA_HOME": compiler["cuda_home"], "PATH": path}
        argv = [self.stage.python, program, _ANY_ARCHITECTURE[:-1], "one"]
        result = self.stage.run(argv, timeout=item["timeout"], env=env, cwd=self.folder)
        if not result.ok:
            return FAILED, f"compiling and loading one failed: {kernel_pack.compile_complaint(result)}", seen
        return PASSED, "", {**seen, "module": ", ".join(kernel_pack.compiled_names(result.stdout))}

    def _cuda_runtime(self, item: dict) -> tuple[str, str, dict]:
        seen = {"libraries": sorted({path for loaded in self.runtimes for path in loaded})}
        for runtimes in map(flashinfer_install.runtimes, self.runtimes):
            if len(runtimes) > 1:
                return FAILED, f"one process has loaded more than one CUDA runtime: {' and '.join(runtimes)}", seen
        if not seen["libraries"]:
            return NOT_RUN, "no CUDA runtime was loaded by what was imported", seen
        return PASSED, "", seen

    def _document(self, item: dict) -> tuple[str, str, dict]:
        cause = self._no_document(item)
        if cause:
            return NOT_RUN, cause, {}
        folder = os.path.join(self.folder, "document")
        os.mkdir(folder)
        # A vllm of its own uses the user's caches: that is how OlmOCR will run, and compiling takes minutes. Where no
        # model is named one is cached whole, and the hub is not to be asked for another.
        cached = {} if item["model"] else {"HF_HUB_OFFLINE": "1"}
        outcome = document_check.convert(
            self.stage,
            folder,
            self.probe_env if item["server"] else {**self.run_env, **cached},
            pdf=base64.b64decode(item["pdf"]),
            phrase=item["phrase"],
            server=item["server"],
            model=item["model"],
            timeout=item["timeout"],
            uses=self._to_be_proven(),
        )
        return (FAILED, outcome.problem, outcome.seen) if outcome.problem else (PASSED, "", outcome.seen)

    def _no_document(self, item: dict) -> str | None:
        for verdict in self.verdicts.values():
            if verdict.status == FAILED and verdict.name in item["needs"]:
                return f"needs {verdict.name}, which failed"
        if "olmocr" not in self.installed:
            return "OlmOCR is not installed here"
        if item["server"] and self.check_mode:
            return f"{CHECK_MODE}send a page to {item['server']}"
        if item["server"]:
            return None
        if not self.gpu:
            return "no NVIDIA GPU here, and no OpenAI-compatible server is named"
        memory = self.free_memory({**os.environ, **self.env}.get("CUDA_VISIBLE_DEVICES"))
        if memory and memory[0] < 0.9 * memory[1]:
            free = f"{memory[0]} of {memory[1]} MiB free"
            return f"the GPU is in use ({free}), and vllm takes 90 %: stop its users or name a server"
        model = item["model"] or document_check.default_model(os.path.dirname(self.installed["olmocr"].path))
        if not item["model"] and not document_check.is_cached(model, {**os.environ, **self.env}):
            return (
                f"no model in the cache: OlmOCR would fetch {model or 'its model'}, which is gigabytes; have it there "
                "(olmocr_model), or name a model or a server (verify_model, verify_server)"
            )
        if self.check_mode:
            return f"{CHECK_MODE}start vllm with {model} on {self.gpu[0]}"
        return None


def problems(verdicts: list[dict], checklist: list[dict]) -> list[str]:
    """One sentence for each item that failed, or that was required and has not passed."""
    required = [item["name"] for item in checklist if item["required"]]
    found = []
    for verdict in verdicts:
        if verdict["status"] == FAILED:
            found.append(f"{verdict['title']} ({verdict['name']}): {verdict['reason']}")
        elif verdict["reason"].startswith(CHECK_MODE):
            continue
        elif verdict["status"] != PASSED and verdict["name"] in required:
            found.append(f"{verdict['title']} ({verdict['name']}) is required and was not run: {verdict['reason']}")
    return found


def summary(verdicts: list[dict]) -> dict[str, int]:
    return {status: sum(verdict["status"] == status for verdict in verdicts) for status in (PASSED, FAILED, NOT_RUN)}


def run_as(user: str, stage: Stage, checklist: list[dict], check_mode: bool = False) -> list[dict]:
    """`run` as another user of this host, with temporary files of theirs. Raises RuntimeError where that cannot be."""
    for module in (stack_probe, gpu_kernels, kernel_compile):
        programs.text(module)
    # systemd reads it as root, too.
    variables = activation.read(stage.tree)

    def work(seen: Stage) -> list[dict]:
        # What cannot be read looks as if it were not there, and a check that finds nothing finds nothing wrong.
        for path in (seen.python, os.path.join(seen.tree, "lib")):
            service_user.require(user, path)
        for path in distributions.site_packages(seen.tree):
            service_user.require(user, path)
        return run(seen, checklist, None, check_mode, variables)

    return service_user.call(user, stage, work)


def run(
    stage: Stage,
    checklist: list[dict],
    parent: str | None,
    check_mode: bool = False,
    variables: dict[str, str] | None = None,
) -> list[dict]:
    """Run a checklist with its temporary files under `parent`, and leave none of them."""
    folder = tempfile.mkdtemp(prefix="stack-verify-", dir=parent)
    try:
        return [
            asdict(verdict)
            for verdict in Checks(stage, checklist, folder, check_mode=check_mode, variables=variables).run()
        ]
    finally:
        shutil.rmtree(folder, ignore_errors=True)
