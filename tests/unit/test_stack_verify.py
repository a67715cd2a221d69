# Copyright (c) 2026 The ocrfleet.gpu_stack contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""stack_verify against a small environment made here, whose torch, olmocr and flashinfer are so by name only."""

from __future__ import annotations

import base64
import json
import sys
import textwrap
import time
from pathlib import Path
from typing import Any

import pytest
from ansible_collections.ocrfleet.gpu_stack.plugins.module_utils import (
    commands,
    document_check,
    flashinfer_install,
    gpu_presence,
    model_weights,
    nvidia,
    show_config,
    stack_checks,
)
from ansible_collections.ocrfleet.gpu_stack.plugins.module_utils.staging import Stage
from ansible_collections.ocrfleet.gpu_stack.plugins.modules import stack_verify
from made_environment import SITE, make_environment
from stand_in_server import serving

GPU = ["/dev/nvidia0"]
TORCH = """
__version__ = "2.8.0+cu128"
class version: cuda = "12.8"
class cuda:
    is_available = staticmethod(lambda: False)
    @staticmethod
    def init(): raise RuntimeError("Found no NVIDIA driver on your system.\\nMore text")
"""
WORKING_CUDA = """
class cuda:
    is_available = staticmethod(lambda: True)
    device_count = staticmethod(lambda: 1)
    get_device_name = staticmethod(lambda index: "NVIDIA L4")
    get_device_capability = staticmethod(lambda index: (8, 9))
    get_arch_list = staticmethod(lambda: ["sm_80", "sm_90"])
"""


class Environment:
    """A prefix whose bin/python is the Python of the tests and whose packages are files written here."""

    def __init__(self, prefix: Path) -> None:
        self.prefix = prefix
        self.site = prefix / "lib" / f"python3.{sys.version_info.minor}" / "site-packages"
        self.site.mkdir(parents=True)
        (prefix / "bin").mkdir()
        python = prefix / "bin" / "python"
        python.write_text(f'#!/bin/sh\nPYTHONPATH="{self.site}" exec "{sys.executable}" "$@"\n')
        python.chmod(0o755)

    def add(self, name: str, version: str, module: str | None = None, source: str = "") -> None:
        info = self.site / f"{name.replace('-', '_')}-{version}.dist-info"
        info.mkdir()
        (info / "METADATA").write_text(f"Metadata-Version: 2.1\nName: {name}\nVersion: {version}\n")
        if module:
            path = self.site / f"{module.replace('.', '/')}.py"
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_text(textwrap.dedent(source))


@pytest.fixture
def environment(tmp_path: Path) -> Environment:
    return Environment(tmp_path / "env")


def check(kind: str, name: str = "", **options: Any) -> dict[str, Any]:
    defaults = {
        option: spec.get("default")
        for option, spec in stack_verify.CHECK_SPEC.items()
        if option not in ("name", "kind")
    }
    item = {**defaults, "name": name or kind, "kind": kind, "timeout": 20, **options}
    return {**item, "title": item["title"] or item["name"]}


def importing(name: str, version: str = "", **options: Any) -> dict[str, Any]:
    return check("import", name, **{"modules": [name], "distribution": name, "version": version, **options})


def run(
    environment: Environment, tmp_path: Path, checks: list[dict[str, Any]], gpu: list[str] | None = None, **edges: Any
) -> dict[str, stack_checks.Verdict]:
    folder = tmp_path / "work"
    folder.mkdir()
    made = stack_checks.Checks(Stage(str(environment.prefix)), checks, str(folder), gpu=lambda: gpu or [], **edges)
    return {verdict.name: verdict for verdict in made.run()}


def test_files_that_a_killed_installer_left_out_are_found_though_all_imports(tmp_path: Path) -> None:
    tree = make_environment(tmp_path / "env")
    verdicts = stack_checks.run(Stage(str(tree)), [check("files")], str(tmp_path))
    assert [(verdict["status"], verdict["seen"]["packages"]) for verdict in verdicts] == [("passed", 2)]
    (tree / SITE / "tool/data.bin").unlink()
    (tree / SITE / "torch/version.py").write_text("short")
    (verdict,) = stack_checks.run(Stage(str(tree)), [check("files")], str(tmp_path))
    assert verdict["status"] == "failed"
    assert verdict["reason"] == "tool 1.0: tool/data.bin: no such file or directory; and 1 more package"
    assert verdict["seen"]["damaged"] == ["tool 1.0", "torch 2.8.0"]


@pytest.mark.parametrize(
    ("metadata", "version", "cuda", "status", "says"),
    [
        ("2.8.0", "2.8.0+cu128", "12.8", "passed", ""),
        ("2.8.0+cu128", "2.8.0+cu128", "12.8", "passed", ""),
        ("2.4.1", "2.4.1+cu121", "12.1", "failed", "torch.__version__ is 2.4.1+cu121, expected 2.8.0+cu128"),
        ("2.8.0", "2.8.0+cpu", None, "failed", "torch.version.cuda is None, expected 12.8"),
        ("2.9.0", "2.8.0+cu128", "12.8", "failed", "the wheel's metadata is 2.9.0"),
    ],
)
def test_torch_is_held_by_three_values(
    environment: Environment, tmp_path: Path, metadata: str, version: str, cuda: str | None, status: str, says: str
) -> None:
    environment.add("torch", metadata, "torch", f"__version__ = {version!r}\nclass version: cuda = {cuda!r}")
    verdict = run(environment, tmp_path, [check("torch", version="2.8.0+cu128")])["torch"]
    assert (verdict.status, says in verdict.reason) == (status, True), verdict.reason
    assert verdict.seen == {"metadata": metadata, "version": version, "cuda": cuda}


@pytest.mark.parametrize(
    ("source", "gpu", "status", "says"),
    [
        (TORCH, [], "not_run", "no NVIDIA GPU"),
        (TORCH, GPU, "failed", "/dev/nvidia0"),
        (TORCH, GPU, "failed", "Found no NVIDIA driver"),
        (TORCH + WORKING_CUDA, GPU, "passed", ""),
        ("raise OSError('libtorch.so')", [], "not_run", "no NVIDIA GPU"),
        ("raise OSError('libtorch.so')", GPU, "failed", "libtorch.so"),
    ],
)
def test_no_gpu_is_not_run_and_a_gpu_out_of_reach_is_failed(
    environment: Environment, tmp_path: Path, source: str, gpu: list[str], status: str, says: str
) -> None:
    environment.add("torch", "2.8.0", "torch", source)
    verdict = run(environment, tmp_path, [check("gpu")], gpu)["gpu"]
    assert (verdict.status, says in verdict.reason) == (status, True), verdict.reason


def test_a_gpu_is_named(environment: Environment, tmp_path: Path) -> None:
    environment.add("torch", "2.8.0", "torch", TORCH + WORKING_CUDA)
    verdict = run(environment, tmp_path, [check("gpu")], GPU)["gpu"]
    assert verdict.seen["devices"] == ["NVIDIA L4, compute capability 8.9"]


@pytest.mark.parametrize(
    ("capability", "architectures", "flashinfer", "says"),
    [
        ("8.9", ["sm_80", "sm_90"], True, ""),
        ("12.0", ["sm_80", "sm_90"], False, "12.0 is not among those of the installed PyTorch (sm_80, sm_90)"),
        ("7.0", ["sm_70", "sm_80"], True, "FlashInfer needs compute capability 7.5, found 7.0"),
        ("7.0", ["sm_70", "sm_80"], False, ""),
    ],
)
def test_a_gpu_is_held_against_what_is_installed(
    environment: Environment,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capability: str,
    architectures: list[str],
    flashinfer: bool,
    says: str,
) -> None:
    gpu = nvidia.Gpu(0, "a GPU", "GPU-1", capability, 81920, 0, False)
    monkeypatch.setattr(nvidia, "survey", lambda **_how: nvidia.Survey("570.124.06", [gpu]))
    working = WORKING_CUDA.replace('["sm_80", "sm_90"]', str(architectures))
    environment.add("torch", "2.8.0", "torch", TORCH + working)
    if flashinfer:
        environment.add("flashinfer-python", "0.3.1", "flashinfer")
    verdict = run(environment, tmp_path, [check("gpu")], GPU)["gpu"]
    assert (verdict.status, says in verdict.reason) == ("failed" if says else "passed", True), verdict.reason


@pytest.mark.parametrize(
    ("source", "says"),
    [
        ("import os; os._exit(7)", "ended its process with exit code 7"),
        ("import os, signal; os.kill(os.getpid(), signal.SIGKILL)", "was ended by signal 9"),
        ("import ctypes; ctypes.string_at(0)", "Fatal Python error: Segmentation fault"),
        ("import time; time.sleep(60)", "did not end within 2 s"),
        ("import ctypes; ctypes.PyDLL(None).sleep(60)", "did not end within 2 s"),  # holds the interpreter's lock
        ("raise SystemExit('no licence')", "SystemExit: no licence"),
        ("import nothing_of_this_name", "No module named 'nothing_of_this_name'"),
    ],
)
def test_an_import_that_goes_down_takes_nothing_with_it(
    environment: Environment, tmp_path: Path, source: str, says: str
) -> None:
    environment.add("first", "1.0", "first", "")
    environment.add("bad", "1.0", "bad", source)
    environment.add("last", "1.0", "last", "__version__ = '1.0'")
    started = time.monotonic()
    verdicts = run(environment, tmp_path, [importing("first"), importing("bad", timeout=2), importing("last")])
    assert verdicts["bad"].status == "failed"
    assert says in verdicts["bad"].reason
    assert (verdicts["first"].status, verdicts["last"].status) == ("passed", "passed")
    assert time.monotonic() - started < 30


def test_an_environment_whose_python_does_not_start(environment: Environment, tmp_path: Path) -> None:
    environment.add("one", "1.0", "one")
    (environment.prefix / "bin" / "python").write_text("#!/bin/sh\necho 'libpython is gone' >&2\nexit 127\n")
    verdict = run(environment, tmp_path, [importing("one")])["one"]
    assert verdict.status == "failed"
    assert "Python does not start" in verdict.reason
    assert "libpython is gone" in verdict.reason


@pytest.mark.parametrize(
    ("installed", "imported", "wanted", "companions", "status", "says"),
    [
        ("0.3.1", "0.3.1", "0.3.1", {}, "passed", ""),
        ("0.3.1", "0.3.1", "", {}, "passed", ""),
        ("0.3.1", "0.0.0+unknown", "0.3.1", {}, "passed", ""),
        ("0.3.1+cu128", "0.3.1", "0.3.1", {}, "passed", ""),
        ("0.3.1", "0.3.1", "0.5.3", {}, "failed", "flashinfer-python is 0.3.1, expected 0.5.3"),
        ("0.5.3", "0.3.1", "", {}, "failed", "files of two versions"),
        ("0.5.3", "0.5.3", "", {"flashinfer-cubin": "0.5.3"}, "passed", ""),
        ("0.5.3", "0.5.3", "", {"flashinfer-jit-cache": "0.5.3+cu128"}, "passed", ""),
        ("0.7.2.post1", "0.7.2.post1", "", {"flashinfer-cubin": "0.6.13"}, "failed", "flashinfer-cubin is 0.6.13"),
        (
            "0.5.3",
            "0.5.3",
            "",
            {"flashinfer-jit-cache": "0.5.30+cu128"},
            "failed",
            "must match flashinfer-python 0.5.3",
        ),
    ],
)
def test_versions_of_an_import(
    environment: Environment,
    tmp_path: Path,
    installed: str,
    imported: str,
    wanted: str,
    companions: dict[str, str],
    status: str,
    says: str,
) -> None:
    environment.add("flashinfer-python", installed, "flashinfer", f"__version__ = {imported!r}")
    for name, version in companions.items():
        environment.add(name, version)
    item = importing(
        "flashinfer",
        wanted,
        distribution="flashinfer-python",
        companions=["flashinfer-cubin", "flashinfer-jit-cache"],
    )
    verdict = run(environment, tmp_path, [item])["flashinfer"]
    assert (verdict.status, says in verdict.reason) == (status, True), verdict.reason


@pytest.mark.parametrize(("wanted", "status"), [("0.3.1", "failed"), ("", "not_run")])
def test_what_is_not_installed(environment: Environment, tmp_path: Path, wanted: str, status: str) -> None:
    checks = [
        importing("flashinfer", wanted, distribution="flashinfer-python"),
        check("show_config", distribution="flashinfer-python", version=wanted),
    ]
    verdicts = run(environment, tmp_path, checks)
    assert {verdict.status for verdict in verdicts.values()} == {status}
    assert "flashinfer-python is not installed" in verdicts["flashinfer"].reason


# What FlashInfer 0.3.1 and 0.5.3 print, up to where they go and ask a server.
SHOW_CONFIG_0_3 = """=== Torch Version Info ===
Torch version: 2.8.0+cu128

=== Environment Variables ===
FLASHINFER_CACHE_DIR: /tmp/ws/.cache/flashinfer
CUDA_HOME: /usr/local/cuda
CUDA_VERSION: {nvcc}

=== Artifact Path ===
CUDNN_SDPA: 4c623163877c8fef5751c9c7a59940cd2baae02e/fmha/cudnn/
"""
SHOW_CONFIG_0_5 = """\x1b[33m=== Version Info ===\x1b[0m
\x1b[35mFlashInfer version:\x1b[0m\x1b[36m 0.5.3\x1b[0m
flashinfer-cubin: Not installed

""" + SHOW_CONFIG_0_3.replace("\n\n=== Artifact", "\nNVCC found: No\n\n=== Artifact")


@pytest.mark.parametrize(
    ("text", "key", "value"),
    [
        (SHOW_CONFIG_0_3, "torch version", "2.8.0+cu128"),
        (SHOW_CONFIG_0_3, "cuda_version", "{nvcc}"),
        (SHOW_CONFIG_0_3, "cudnn_sdpa", None),
        (SHOW_CONFIG_0_5, "flashinfer version", "0.5.3"),
        (SHOW_CONFIG_0_5, "nvcc found", "No"),
        ("", "torch version", None),
    ],
)
def test_show_config_is_read(text: str, key: str, value: str | None) -> None:
    assert show_config.parse(text).get(key) == value


def with_show_config(environment: Environment, prints: str, then: str, version: str = "0.3.1") -> list[dict[str, Any]]:
    environment.add("torch", "2.8.0", "torch", TORCH)
    environment.add("flashinfer-python", version, "flashinfer.__main__", f"print({prints!r}, flush=True)\n{then}")
    (environment.site / "flashinfer" / "__init__.py").touch()
    return [
        check("torch", version="2.8.0+cu128"),
        check("show_config", distribution="flashinfer-python", torch="2.8.0+cu128"),
        check("cuda_compiler", distribution="flashinfer-python"),
    ]


SLEEPS, FAILS = "import time; time.sleep(60)", "raise RuntimeError('no route to the file server')"


@pytest.mark.parametrize(
    ("nvcc", "gpu", "then", "config", "compiler", "says"),
    [
        ("12.8", GPU, SLEEPS, "passed", "passed", ""),
        ("12.6", GPU, FAILS, "passed", "passed", ""),
        ("13.0", GPU, SLEEPS, "passed", "failed", "nvcc 13.0, expected CUDA 12.8"),
        ("13.0", [], SLEEPS, "passed", "not_run", "nvcc 13.0; a GPU host needs CUDA 12.8"),
    ],
)
def test_show_config_is_judged_by_what_it_printed_and_not_waited_for(
    environment: Environment,
    tmp_path: Path,
    nvcc: str,
    gpu: list[str],
    then: str,
    config: str,
    compiler: str,
    says: str,
) -> None:
    checks = with_show_config(environment, SHOW_CONFIG_0_3.format(nvcc=nvcc), then)
    started = time.monotonic()
    verdicts = run(environment, tmp_path, checks, gpu)
    assert (verdicts["show_config"].status, verdicts["cuda_compiler"].status) == (config, compiler)
    assert says in verdicts["cuda_compiler"].reason
    assert time.monotonic() - started < 30


NO_NVCC = "raise RuntimeError('Could not find nvcc')"
DEAD_CUDA_HOME = "raise FileNotFoundError(2, 'No such file or directory', '/nonexistent/bin/nvcc')"


@pytest.mark.parametrize(
    ("prints", "then", "gpu", "status", "says"),
    [
        ("", NO_NVCC, [], "not_run", "needs nvcc"),
        ("", DEAD_CUDA_HOME, [], "not_run", "needs nvcc"),
        ("", NO_NVCC, GPU, "failed", "Could not find nvcc"),
        ("", FAILS, [], "failed", "no route to the file server"),
        ("", SLEEPS, [], "failed", "did not answer within 1 s"),
        (
            SHOW_CONFIG_0_3.replace("2.8.0+cu128", "2.7.1+cu128"),
            FAILS,
            [],
            "failed",
            "says torch 2.7.1+cu128, expected 2.8.0",
        ),
        (SHOW_CONFIG_0_5, FAILS, [], "failed", "says FlashInfer 0.5.3, installed is 0.3.1"),
    ],
)
def test_show_config_that_does_not_answer_or_says_something_else(
    environment: Environment, tmp_path: Path, prints: str, then: str, gpu: list[str], status: str, says: str
) -> None:
    checks = with_show_config(environment, prints, then)
    checks[1]["timeout"] = 1 if then == SLEEPS else 20
    verdict = run(environment, tmp_path, checks, gpu)["show_config"]
    assert (verdict.status, says in verdict.reason) == (status, True), verdict.reason


@pytest.mark.parametrize(
    ("other", "status"),
    [
        ("other/libcudart.so.13", "failed"),
        ("other/libcudart.so.12", "failed"),
        ("other/libcudart.so.12.8.90", "failed"),
        ("other/libcudart.1a2b3c4d.so.13", "failed"),
        # As torchvision 0.23.0 brings one for its image decoder, under a name that nothing else asks for.
        ("other/libcudart.e8e8b82a.so.12", "passed"),
        ("torch/link.so.12", "passed"),
    ],
)
def test_two_cuda_runtimes_in_one_process(environment: Environment, tmp_path: Path, other: str, status: str) -> None:
    # The dynamic loader cares for neither names nor contents here: any mapped file of that name will do.
    own, second = environment.prefix / "torch/libcudart.so.12", environment.prefix / other
    for path in (own, second):
        path.parent.mkdir(exist_ok=True)
        path.write_bytes(b"\0" * 4096)
    if "link" in other:
        second.unlink()
        second.symlink_to(own)
    source = "import mmap\nfile = open(%r, 'rb')\nkept = mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ)\n"
    environment.add("torch-part", "1", "torch_part", source % str(own))
    environment.add("other-part", "1", "other_part", source % str(second))
    one = importing("torch_part", distribution="torch-part")
    two = importing("other_part", distribution="other-part")
    verdict = run(environment, tmp_path, [one, two, check("cuda_runtime")])["cuda_runtime"]
    assert verdict.status == status, verdict.reason
    assert all(str(path) in verdict.reason for path in (own, second)) or status == "passed"


def test_one_cuda_runtime_or_none(environment: Environment, tmp_path: Path) -> None:
    environment.add("one", "1", "one")
    assert run(environment, tmp_path, [importing("one"), check("cuda_runtime")])["cuda_runtime"].status == "not_run"


# --- the document ---

PIPELINE = """
import json, pathlib, sys, urllib.request
options = sys.argv
workspace, server, model = options[1], options[options.index("--server") + 1], options[options.index("--model") + 1]
body = json.dumps({"model": model, "messages": []}).encode()
request = urllib.request.Request(server + "/chat/completions", body)
try:
    reply = json.load(urllib.request.urlopen(request))["choices"][0]
except OSError as error:
    print(f"2026-01-01 - olmocr - ERROR - {error}", file=sys.stderr)
    sys.exit(0)
fallback = reply["finish_reason"] != "stop" or not reply["message"]["content"].startswith("---")
text = reply["message"]["content"].split("---\\n")[-1]
results = pathlib.Path(workspace, "results")
results.mkdir(parents=True)
metadata = {"pdf-total-pages": 1, "total-fallback-pages": int(fallback), "total-output-tokens": 9}
(results / "output_1.jsonl").write_text(json.dumps({"text": text, "metadata": metadata}))
"""
PHRASE = "Seventeen blue herons crossed the frozen lake"


def document(**options: Any) -> dict[str, Any]:
    path = Path(__file__).parents[2] / "roles" / "verify" / "files" / "test-document.pdf"
    pdf = base64.b64encode(path.read_bytes()).decode()
    return check("document", **{"pdf": pdf, "phrase": PHRASE, **options})


@pytest.fixture
def with_pipeline(environment: Environment, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Environment:
    environment.add("olmocr", "0.4.2", "olmocr.pipeline", PIPELINE)
    tools = tmp_path / "tools"
    tools.mkdir()
    for tool in ("pdfinfo", "pdftoppm"):
        (tools / tool).touch(mode=0o755)
    monkeypatch.setenv("PATH", str(tools), prepend=":")
    return environment


@pytest.mark.parametrize(
    ("mode", "status", "says"),
    [
        ("ok", "passed", ""),
        ("other-text", "failed", "does not hold the document's own words"),
        ("no-text", "failed", "text is empty"),
        ("no-front-matter", "failed", "1 of 1 pages were not read"),
        ("cut-short", "failed", "1 of 1 pages were not read"),
        ("error", "failed", "HTTP Error 500"),
        ("no-models", "failed", "/v1/models: HTTP Error 404"),
        ("silent", "failed", "did not end within 3 s"),
    ],
)
def test_document_over_a_server(with_pipeline: Environment, tmp_path: Path, mode: str, status: str, says: str) -> None:
    with serving(mode) as server:
        item = document(server=server.url, timeout=3 if mode == "silent" else 20)
        verdict = run(with_pipeline, tmp_path, [item])["document"]
    assert (verdict.status, says in verdict.reason) == (status, True), verdict.reason


@pytest.mark.parametrize(
    ("options", "says"),
    [
        ({"server": "http://127.0.0.1:9/v1"}, "does not answer at http://127.0.0.1:9/v1/models"),
        ({"server": "ocr.example:8000"}, "is no URL"),
    ],
)
def test_a_server_that_is_not_there(
    with_pipeline: Environment, tmp_path: Path, options: dict[str, Any], says: str
) -> None:
    verdict = run(with_pipeline, tmp_path, [document(**options)])["document"]
    assert (verdict.status, says in verdict.reason) == ("failed", True), verdict.reason


def test_a_model_that_the_server_does_not_offer(with_pipeline: Environment, tmp_path: Path) -> None:
    with serving() as server:
        verdict = run(with_pipeline, tmp_path, [document(server=server.url, model="other")])["document"]
    assert verdict.reason == "the server offers stand-in, not 'other'"


# OlmOCR's pipeline with a vllm of its own: what is written comes from the stand-in, the log of vllm is a recorded one.
OWN_VLLM = """
import json, pathlib, sys
results = pathlib.Path(sys.argv[1], "results")
results.mkdir(parents=True)
metadata = {{"pdf-total-pages": 1, "total-fallback-pages": 0, "total-output-tokens": 9}}
(results / "output_1.jsonl").write_text(json.dumps({{"text": {phrase!r}, "metadata": metadata}}))
sys.stderr.write(pathlib.Path({log!r}).read_text())
assert sys.argv[sys.argv.index("--model") + 1] == "/models/olmocr"
"""


@pytest.mark.parametrize(
    ("log", "switch", "status", "says"),
    [
        ("sampler-on", "1", "passed", "Using Flash Attention backend on V1 engine.; Using FlashInfer for top-p"),
        ("sampler-off", "0", "passed", "FlashInfer is available, but it is not enabled.; Using Flash Attention"),
        ("sampler-off", "1", "failed", "FlashInfer is available, but it is not enabled."),
        (None, "1", "passed", "does not say which backends it used"),
    ],
)
def test_vllms_log_is_told_and_held_against_its_start(
    with_pipeline: Environment, tmp_path: Path, log: str | None, switch: str, status: str, says: str
) -> None:
    recorded = Path(__file__).parent / "fixtures" / "recorded" / f"vllm-0.11.0-{log}.txt" if log else "/dev/null"
    pipeline = with_pipeline.site / "olmocr" / "pipeline.py"
    pipeline.write_text(OWN_VLLM.format(phrase=PHRASE, log=str(recorded)))
    started_with = with_pipeline.prefix / "etc/ocrfleet/flashinfer.env"
    started_with.parent.mkdir(parents=True)
    started_with.write_text(f"VLLM_USE_FLASHINFER_SAMPLER={switch}\n")
    item = document(model="/models/olmocr")
    verdict = run(with_pipeline, tmp_path, [item], GPU, free_memory=lambda _visible: (99, 100))["document"]
    assert verdict.status == status, verdict.reason
    assert says in verdict.seen["vllm's log"]
    assert ("expected vllm to sample with FlashInfer" in verdict.reason) == (status == "failed")


@pytest.mark.parametrize(
    ("log", "vllm", "flashinfer", "capability", "says"),
    [
        ("sampler-on", "0.11.0", "0.3.1", "9, 0", ""),
        ("turing", "0.11.0", "0.3.1", "9, 0", "expected vllm to attend with Flash Attention"),
        ("sampler-on", "0.11.0", "0.3.1", "10, 0", "expected vllm to attend with FlashInfer"),
        (None, "0.11.0", "0.3.1", "9, 0", "expected lines in vllm's log that say which sampler and which attention"),
        # Nothing of FlashInfer is to be proven, or another release may word it in another way.
        (None, "0.11.0", "", "9, 0", ""),
        (None, "0.12.0", "0.3.1", "9, 0", ""),
    ],
)
def test_vllms_log_has_to_prove_what_it_used(
    with_pipeline: Environment,
    tmp_path: Path,
    log: str | None,
    vllm: str,
    flashinfer: str,
    capability: str,
    says: str,
) -> None:
    recorded = Path(__file__).parent / "fixtures" / "recorded" / f"vllm-0.11.0-{log}.txt" if log else "/dev/null"
    (with_pipeline.site / "olmocr" / "pipeline.py").write_text(OWN_VLLM.format(phrase=PHRASE, log=str(recorded)))
    (with_pipeline.site / "torch.py").write_text(TORCH + WORKING_CUDA.replace("8, 9", capability))
    with_pipeline.add("torch", "2.8.0+cu128")
    with_pipeline.add("vllm", vllm, "vllm")
    if flashinfer:
        with_pipeline.add("flashinfer-python", flashinfer, "flashinfer")
    items = [check("gpu", "cuda"), document(model="/models/olmocr")]
    verdict = run(with_pipeline, tmp_path, items, GPU, free_memory=lambda _visible: (99, 100))["document"]
    assert (verdict.status, says in verdict.reason) == ("failed" if says else "passed", True), verdict.reason


# Ends well only where nothing of the hub would be asked for.
OFFLINE = """
import json, os, pathlib, sys
argv = ["--model", "x", dict(default="allenai/olmOCR-2-7B-1025-FP8")]
assert "--model" not in sys.argv and os.environ["HF_HUB_OFFLINE"] == "1"
results = pathlib.Path(sys.argv[1], "results")
results.mkdir(parents=True)
metadata = {{"pdf-total-pages": 1, "total-fallback-pages": 0, "total-output-tokens": 9}}
(results / "output_1.jsonl").write_text(json.dumps({{"text": {phrase!r}, "metadata": metadata}}))
"""


@pytest.mark.parametrize(
    ("weights", "variable", "status"),
    [
        (None, "HF_HOME", "not_run"),
        (16, "HF_HOME", "passed"),
        (16, "HF_HUB_CACHE", "passed"),
        (5, "HF_HOME", "not_run"),
    ],
)
def test_a_vllm_of_its_own_is_started_only_with_a_model_that_is_there(
    with_pipeline: Environment,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    weights: int | None,
    variable: str,
    status: str,
) -> None:
    """Offline it would fail and undo a healthy transaction; online it would fetch gigabytes."""
    (with_pipeline.site / "olmocr" / "pipeline.py").write_text(OFFLINE.format(phrase=PHRASE))
    hub = tmp_path / "cache/hub"
    monkeypatch.setenv(variable, str(hub if variable == "HF_HUB_CACHE" else hub.parent))
    if weights is not None:
        model = hub / "models--allenai--olmOCR-2-7B-1025-FP8"
        snapshot = model / "snapshots/abc"
        snapshot.mkdir(parents=True)
        (model / "refs").mkdir()
        (model / "refs/main").write_text("abc")
        for name in model_weights.NEEDED:
            (snapshot / name).write_text("{}")
        header = json.dumps({"a": {"dtype": "U8", "shape": [16], "data_offsets": [0, 16]}}).encode()
        content = len(header).to_bytes(8, "little") + header + bytes(weights)
        (snapshot / "model.safetensors").write_bytes(content)
    verdict = run(with_pipeline, tmp_path, [document()], GPU, free_memory=lambda _visible: (99, 100))["document"]
    assert verdict.status == status, verdict.reason
    if status == "not_run":
        assert "no model in the cache: OlmOCR would fetch allenai/olmOCR-2-7B-1025-FP8" in verdict.reason


@pytest.mark.parametrize(
    ("gpu", "free", "says"),
    [
        ([], None, "no NVIDIA GPU here, and no OpenAI-compatible server is named"),
        (GPU, (3000, 15000), "the GPU is in use (3000 of 15000 MiB free)"),
    ],
)
def test_document_that_cannot_be_tried(
    with_pipeline: Environment, tmp_path: Path, gpu: list[str], free: tuple[int, int] | None, says: str
) -> None:
    verdict = run(with_pipeline, tmp_path, [document()], gpu, free_memory=lambda _visible: free)["document"]
    assert (verdict.status, says in verdict.reason) == ("not_run", True), verdict.reason


def test_document_waits_for_what_it_needs(with_pipeline: Environment, tmp_path: Path) -> None:
    with_pipeline.add("torch", "2.4.1", "torch", "raise ImportError('broken')")
    checks = [check("torch", version="2.8.0"), document(needs=["torch"], server="http://127.0.0.1:9/v1")]
    verdict = run(with_pipeline, tmp_path, checks)["document"]
    assert (verdict.status, verdict.reason) == ("not_run", "needs torch, which failed")


def test_document_without_olmocr_is_not_run(environment: Environment, tmp_path: Path) -> None:
    verdict = run(environment, tmp_path, [document(server="http://127.0.0.1:9/v1")], ["a GPU"])["document"]
    assert (verdict.status, verdict.reason) == ("not_run", "OlmOCR is not installed here")


def test_document_without_poppler(environment: Environment, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(document_check.shutil, "which", lambda tool: None)
    environment.add("olmocr", "0.4.2")
    verdict = run(environment, tmp_path, [document(server="http://127.0.0.1:9/v1")])["document"]
    assert verdict.reason == "pdfinfo and pdftoppm not found on PATH: install poppler-utils"


# --- FlashInfer and vllm ---

FIT = check("flashinfer_fit", distribution="flashinfer-python")


def switched_off(environment: Environment) -> None:
    file = Path(environment.prefix) / "etc/ocrfleet/flashinfer.env"
    file.parent.mkdir(parents=True)
    file.write_text("VLLM_USE_FLASHINFER_SAMPLER=0\n")


@pytest.mark.parametrize(
    ("packages", "off", "capability", "status", "says"),
    [
        ({}, False, "8, 9", "failed", "OlmOCR's vllm compiles kernels when it starts"),
        ({}, True, "8, 9", "not_run", "sampler is switched off, so that OlmOCR starts"),
        # There vllm 0.11.0 takes FlashInfer's attention, whatever the sampler does.
        ({}, True, "10, 0", "failed", "OlmOCR's vllm compiles kernels when it starts"),
        ({"flashinfer-jit-cache": "0.5.3+cu128"}, False, "8, 9", "not_run", "holds the kernels compiled"),
        ({"flashinfer-jit-cache": "0.5.2+cu128"}, False, "8, 9", "failed", "finds no nvcc"),
    ],
)
def test_no_nvcc_is_a_failure_where_something_has_to_be_compiled(
    environment: Environment,
    tmp_path: Path,
    packages: dict[str, str],
    off: bool,
    capability: str,
    status: str,
    says: str,
) -> None:
    checks = with_show_config(environment, SHOW_CONFIG_0_5.format(nvcc="12.8"), "", version="0.5.3")
    (environment.site / "torch.py").write_text(TORCH + WORKING_CUDA.replace("8, 9", capability))
    environment.add("vllm", "0.11.0", "vllm")
    for name, version in packages.items():
        environment.add(name, version, name.replace("-", "_"))
    if off:
        switched_off(environment)
    cuda = check("gpu", "cuda")
    verdict = run(environment, tmp_path, [checks[0], cuda, *checks[1:]], GPU)["cuda_compiler"]
    assert (verdict.status, says in verdict.reason) == (status, True), verdict.reason


@pytest.mark.parametrize(
    ("version", "capability", "start_file", "says"),
    [
        ("0.3.1", "9, 0", "", ""),
        # FlashAttention is taken on 9.0, so that a broken attention path hurts nobody there.
        ("0.6.13", "9, 0", "", ""),
        ("0.6.13", "10, 0", "", "attention path breaks with FlashInfer 0.6.13"),
        ("0.4.1", "9, 0", "", "sampler path breaks with FlashInfer 0.4.1"),
        ("0.4.1", "9, 0", "VLLM_USE_FLASHINFER_SAMPLER=0", ""),
        ("0.3.1", "9, 0", "VLLM_ATTENTION_BACKEND=FLASHINFER", "the vision encoder reads it too"),
    ],
)
def test_what_no_import_shows_fails_the_checklist(
    environment: Environment, tmp_path: Path, version: str, capability: str, start_file: str, says: str
) -> None:
    (environment.site / "torch.py").write_text(TORCH + WORKING_CUDA.replace("8, 9", capability))
    environment.add("torch", "2.8.0+cu128")
    environment.add("vllm", "0.11.0", "vllm")
    environment.add("flashinfer-python", version, "flashinfer", f"__version__ = {version!r}")
    file = environment.prefix / "etc/ocrfleet/flashinfer.env"
    file.parent.mkdir(parents=True)
    file.write_text(start_file + "\n")
    checks = [check("torch", version="2.8.0+cu128"), check("gpu", "cuda"), importing("vllm")]
    verdict = run(environment, tmp_path, [*checks, FIT], GPU)["flashinfer_fit"]
    assert (verdict.status, says in verdict.reason) == ("failed" if says else "passed", True), verdict.reason


def test_modules_of_no_pack_fail_the_checklist(environment: Environment, tmp_path: Path) -> None:
    """FlashInfer loads them unasked, on hosts with and without a compiler."""
    checks = [*with_show_config(environment, SHOW_CONFIG_0_3.format(nvcc="12.8"), ""), FIT]
    (tmp_path / "before").mkdir()
    assert run(environment, tmp_path / "before", checks, GPU)["flashinfer_fit"].status == "passed"
    module = environment.site / "flashinfer/data/aot/sampling/sampling.so"
    module.parent.mkdir(parents=True)
    module.touch()
    verdict = run(environment, tmp_path, checks)["flashinfer_fit"]
    assert (verdict.status, "expected only modules of a kernel pack" in verdict.reason) == ("failed", True)


def test_caches_that_cannot_be_written_fail_the_checklist(
    environment: Environment, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(flashinfer_install, "writable", lambda path: ".triton" not in path)
    environment.add("flashinfer-python", "0.3.1")
    verdict = run(environment, tmp_path, [FIT])["flashinfer_fit"]
    assert verdict.reason.startswith("the cache of triton, ")


# --- the smoke kernels ---


def test_a_smoke_that_left_kernels_out_says_so(
    environment: Environment, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    environment.add("flashinfer-python", "0.3.1", "flashinfer")
    switched_off(environment)

    def attempt(stage: Any, request: dict, folder: str, timeout: int, env: dict) -> Any:
        events = [{"event": "device", "device": "NVIDIA L4", "capability": "8.9"}]
        for kernel in request["kernels"]:
            good = {"status": "passed", "origin": "builtin", "first_call_seconds": 0, "median_ms": 0, "error": 0}
            events += [{"event": "begin", "kernel": kernel}, {"event": "result", "kernel": kernel, **good}]
        return events, commands.Result(["python"], 0, "", "", 1.0)

    monkeypatch.setattr(stack_checks.smoke, "attempt", attempt)
    verdict = run(environment, tmp_path, [check("smoke", env={})], GPU)["smoke"]
    assert (verdict.status, "FlashInfer's are left out" in verdict.reason) == ("passed", True)


@pytest.mark.parametrize(
    ("origin", "seconds", "own_cache", "status"),
    [
        ("compiled", 151, False, "failed"),
        ("compiled", 149, False, "passed"),
        ("compiled", 151, True, "passed"),  # what was compiled is there when OlmOCR starts
        ("pack", 151, False, "passed"),
    ],
)
def test_a_start_that_compiles_for_longer_than_olmocr_waits_is_told(
    environment: Environment,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    origin: str,
    seconds: int,
    own_cache: bool,
    status: str,
) -> None:
    environment.add("flashinfer-python", "0.3.1", "flashinfer")

    def attempt(stage: Any, request: dict, folder: str, timeout: int, env: dict) -> Any:
        events = [{"event": "device", "device": "NVIDIA L4", "capability": "8.9"}]
        for kernel in request["kernels"]:
            good = {"status": "passed", "origin": origin, "first_call_seconds": seconds, "median_ms": 0, "error": 0}
            events += [{"event": "begin", "kernel": kernel}, {"event": "result", "kernel": kernel, **good}]
        return events, commands.Result(["python"], 0, "", "", 1.0)

    monkeypatch.setattr(stack_checks.smoke, "attempt", attempt)
    moved = {} if own_cache else {"FLASHINFER_WORKSPACE_BASE": "/elsewhere"}
    monkeypatch.setattr(stack_checks.activation, "with_own_caches", lambda variables, _folder: {**variables, **moved})
    verdict = run(environment, tmp_path, [check("smoke", env={})], GPU)["smoke"]
    assert (verdict.status, "took 151 s here" in verdict.reason) == (status, status == "failed")


@pytest.mark.parametrize(
    ("sampler", "kernels"), [("", 6), ("VLLM_USE_FLASHINFER_SAMPLER=1\n", 6), ("VLLM_USE_FLASHINFER_SAMPLER=0\n", 3)]
)
def test_kernels_of_a_flashinfer_that_vllm_does_not_use_are_left_out(
    environment: Environment, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, sampler: str, kernels: int
) -> None:
    environment.add("flashinfer-python", "0.3.1", "flashinfer")
    file = Path(environment.prefix) / "etc/ocrfleet/flashinfer.env"
    file.parent.mkdir(parents=True)
    file.write_text(f"# a comment\n{sampler}NOTE='a b'\n")
    seen = []

    def attempt(stage: Any, request: dict, folder: str, timeout: int, env: dict) -> Any:
        seen.append((request["kernels"], env["NOTE"], env["SABOTAGE"]))
        events = [{"event": "device", "device": "NVIDIA L4", "capability": "8.9"}]
        for kernel in request["kernels"]:
            events += [{"event": "begin", "kernel": kernel}]
            bad = {"status": "failed", "reason": "wrong_result", "message": "far off"}
            good = {"status": "passed", "origin": "pack", "first_call_seconds": 0.1, "median_ms": 0.01, "error": 0.002}
            events += [{"event": "result", "kernel": kernel, **(bad if kernel == "torch_matmul" else good)}]
        return events, commands.Result(["python"], 0, "", "", 1.0)

    monkeypatch.setattr(stack_checks.smoke, "attempt", attempt)
    item = check("smoke", env={"SABOTAGE": 1})
    verdict = run(environment, tmp_path, [item], ["GPU 0: NVIDIA L4"])["smoke"]
    assert verdict.status == "failed"
    assert verdict.reason.startswith(f"1 of {kernels} kernels failed. torch_matmul: wrong_result, far off; ")
    assert len(seen[0][0]) == kernels
    assert seen[0][1:] == ("a b", "1")
    assert verdict.seen["torch_attention"] == "pack, first call 0.1 s, then 0.01 ms, error 0.002"


def test_check_mode_runs_nothing_on_the_gpu_and_says_what_it_would(
    with_pipeline: Environment, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def never(*_arguments: Any, **_options: Any) -> Any:
        raise AssertionError("run in check mode")

    monkeypatch.setattr(stack_checks.smoke, "run_all", never)
    monkeypatch.setattr(stack_checks.document_check, "convert", never)
    items = [check("smoke", required=True), document(model="/models/olmocr", required=True)]
    verdicts = run(with_pipeline, tmp_path, items, GPU, free_memory=lambda _visible: (99, 100), check_mode=True)
    told = {name: (verdict.status, verdict.reason) for name, verdict in verdicts.items()}
    assert told == {
        "smoke": ("not_run", f"check mode: would run torch_matmul, torch_attention, triton_kernel on {GPU[0]}"),
        "document": ("not_run", f"check mode: would start vllm with /models/olmocr on {GPU[0]}"),
    }
    assert stack_checks.problems([vars(verdict) for verdict in verdicts.values()], items) == []


def test_smoke_kernels_without_a_gpu(environment: Environment, tmp_path: Path) -> None:
    verdict = run(environment, tmp_path, [check("smoke")])["smoke"]
    assert (verdict.status, verdict.reason) == ("not_run", "this host has no NVIDIA GPU")


def test_smoke_kernels_after_a_failure(environment: Environment, tmp_path: Path) -> None:
    environment.add("torch", "2.4.1", "torch", "raise ImportError('broken')")
    checks = [check("torch", version="2.8.0"), check("smoke", needs=["torch"])]
    verdict = run(environment, tmp_path, checks, ["GPU 0: NVIDIA L4"])["smoke"]
    assert (verdict.status, verdict.reason) == ("not_run", "needs torch, which failed")


# --- is there a GPU ---


L4 = "0, NVIDIA L4, GPU-b1c5a5a0-2c6f-0d5a-7f0e-2a8f6f1f3c44, 8.9, 550.54.15, 23034, 20731, [N/A]\n"


def answer(stdout: str = "", rc: int = 0) -> Any:
    return lambda argv, timeout: commands.Result(argv, rc, stdout, "", 0.1)


@pytest.mark.parametrize("check_mode", [True, False])
def test_check_mode_leaves_nothing_that_python_compiled(
    environment: Environment, tmp_path: Path, check_mode: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("PYTHONDONTWRITEBYTECODE", raising=False)
    environment.add("vllm", "0.11.0", "vllm", "")
    verdict = run(environment, tmp_path, [importing("vllm", "0.11.0")], check_mode=check_mode)["vllm"]
    assert verdict.status == "passed"
    assert bool(list(environment.site.rglob("__pycache__"))) is not check_mode


def test_gpu_evidence(tmp_path: Path) -> None:
    (tmp_path / "dev").mkdir()
    (tmp_path / "dev" / "nvidia0").touch()
    (tmp_path / "dev" / "nvidiactl").touch()
    for address, vendor, kind in (("0000:01:00.0", "0x10de", "0x030200"), ("0000:02:00.0", "0x10de", "0x020000")):
        device = tmp_path / "sys" / "bus" / "pci" / "devices" / address
        device.mkdir(parents=True)
        (device / "vendor").write_text(vendor)
        (device / "class").write_text(kind)
    found = gpu_presence.evidence(answer(L4), str(tmp_path))
    assert [Path(line).name for line in found] == ["GPU 0: NVIDIA L4", "nvidia0", "PCI device 0000:01:00.0"]
    (tmp_path / ".dockerenv").touch()
    assert len(gpu_presence.evidence(answer(rc=127), str(tmp_path))) == 1
    assert gpu_presence.evidence(answer("No devices found\n", rc=6), str(tmp_path / "none")) == []


SILENT = L4.replace("23034, 20731", "[N/A], [N/A]")


@pytest.mark.parametrize(("stdout", "share"), [(L4, 0.1), ("", None), (SILENT, None)])
def test_free_memory(stdout: str, share: float | None) -> None:
    found = gpu_presence.free_memory(None, answer(stdout))
    assert (found and round(found[0] / found[1], 2)) == share


TWO = L4 + "1, NVIDIA L4, GPU-c2d6a5a0-2c6f-0d5a-7f0e-2a8f6f1f3c44, 8.9, 550.54.15, 23034, 0, [N/A]\n"


@pytest.mark.parametrize(
    ("visible", "share"),
    [(None, 0.1), ("0,1", 0.1), ("1,0", 1.0), ("GPU-c2d6", 1.0), ("MIG-1", None), ("", None), ("7", None)],
)
def test_the_free_memory_is_that_of_the_gpu_that_is_visible(visible: str | None, share: float | None) -> None:
    found = gpu_presence.free_memory(visible, answer(TWO))
    assert (found and round(found[0] / found[1], 2)) == share


# --- the module's own ---


@pytest.mark.parametrize(
    ("checks", "says"),
    [
        ([check("gpu", "a"), check("gpu", "a")], "'a' stands twice"),
        ([check("import", "a")], "needs modules and distribution"),
        ([check("document", "a")], "needs pdf and phrase"),
        ([check("torch", version="two")], "neither a version"),
        ([check("gpu"), check("cuda_runtime")], None),
    ],
)
def test_wrong_checks(checks: list[dict[str, Any]], says: str | None) -> None:
    wrong = stack_verify.wrong_checks(checks)
    assert wrong is None if says is None else says in str(wrong)


def test_problems_are_what_failed_and_what_was_required() -> None:
    checks = [check("gpu", "a", required=True), check("gpu", "b"), check("gpu", "c", title="C is there")]
    verdicts = [
        {"name": "a", "title": "a", "status": "not_run", "reason": "no GPU"},
        {"name": "b", "title": "b", "status": "not_run", "reason": "no GPU"},
        {"name": "c", "title": "C is there", "status": "failed", "reason": "it is not"},
    ]
    assert stack_checks.problems(verdicts, checks) == [
        "a (a) is required and was not run: no GPU",
        "C is there (c): it is not",
    ]
    assert stack_checks.summary(verdicts) == {"passed": 0, "failed": 1, "not_run": 2}


def test_nothing_is_left_behind(environment: Environment, tmp_path: Path) -> None:
    environment.add("one", "1", "one", "open('left-over', 'w').write('x')")
    parent = tmp_path / "parent"
    parent.mkdir()
    stack_checks.run(Stage(str(environment.prefix)), [importing("one")], str(parent))
    assert list(parent.iterdir()) == []


COMPILER = {"missing": [], "mismatch": "", "nvcc": "/cuda/bin/nvcc", "nvcc_version": "12.8", "cuda_home": "/cuda"}
COMPILES = """
import json, os
class gen_sampling_module:
    name = "sampling"
    def build_and_load(self):
        assert os.environ["CUDA_HOME"] == "/cuda" and os.environ["FLASHINFER_CUDA_ARCH_LIST"] == "8.0"
"""
NO_NVCC = {**COMPILER, "missing": ["nvcc: none"]}
OTHER = {**COMPILER, "mismatch": "nvcc 13.0 does not match"}
UNMET = {"unmet": ["tvm==1b15"]}


@pytest.mark.parametrize(
    ("source", "compiler", "options", "status", "says"),
    [
        pytest.param(COMPILES, COMPILER, {}, "passed", "", id="it compiles"),
        pytest.param(
            COMPILES + "        raise ImportError('tvm_ffi')", COMPILER, {}, "failed", "tvm_ffi", id="a false success"
        ),
        pytest.param(COMPILES, NO_NVCC, {}, "not_run", "no kernel can be compiled here: nvcc: none", id="no nvcc"),
        pytest.param(
            COMPILES, NO_NVCC, UNMET, "not_run", "without tvm==1b15 is NOT known", id="no nvcc, and a need unmet"
        ),
        pytest.param(COMPILES, OTHER, {}, "not_run", "nvcc 13.0 does not match", id="another nvcc"),
        pytest.param(COMPILES, OTHER, UNMET, "passed", "", id="another nvcc, and a need unmet"),
    ],
)
def test_whether_a_kernel_compiles_is_found_out_where_that_can_be(
    environment: Environment,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    source: str,
    compiler: dict[str, Any],
    options: dict[str, Any],
    status: str,
    says: str,
) -> None:
    monkeypatch.setattr(stack_checks.activation, "find_compiler", lambda *_arguments: compiler)
    environment.add("torch", "2.8.0", "torch", TORCH)
    environment.add("flashinfer-python", "0.4.1", "flashinfer.__init__", "")
    (environment.site / "flashinfer/sampling.py").write_text(source)
    verdict = run(environment, tmp_path, [check("kernel", distribution="flashinfer-python", **options)])["kernel"]
    assert (verdict.status, says in verdict.reason) == (status, True), verdict.reason


def test_smoke_kernels_that_passed_prove_that_they_compile(environment: Environment, tmp_path: Path) -> None:
    environment.add("flashinfer-python", "0.4.1")
    made = stack_checks.Checks(Stage(str(environment.prefix)), [], str(tmp_path), gpu=list)
    made.verdicts["smoke"] = stack_checks.Verdict("smoke", "", "passed")
    assert made._kernel(check("kernel", proven_by=["smoke"]))[0] == "passed"
