# Copyright (c) 2026 The ocrfleet.gpu_stack contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Send one PDF through OlmOCR's real pipeline and judge what it wrote.

The pipeline exits 0 even when every page failed, does nothing in a workspace it has seen, and writes beside the source
document. So it gets a fresh folder for both, and only its result files count.
"""

from __future__ import annotations

import glob
import json
import os
import re
import shutil
import socket
import urllib.error
from collections.abc import Mapping
from dataclasses import dataclass, field

from ansible.module_utils import urls
from ansible_collections.ocrfleet.gpu_stack.plugins.module_utils import (
    activation,
    commands,
    model_weights,
    vllm_log,
)
from ansible_collections.ocrfleet.gpu_stack.plugins.module_utils.staging import Stage

# What OlmOCR calls to render pages.
_POPPLER = ("pdfinfo", "pdftoppm")


@dataclass
class Outcome:
    """`problem` is None when the document came through."""

    problem: str | None
    seen: dict = field(default_factory=dict)


def models(server: str, timeout: float = 20) -> list[str]:
    """The model names that an OpenAI-compatible server offers. Raises ValueError with what is wrong."""
    url = server.rstrip("/") + "/models"
    if not url.startswith(("http://", "https://")):
        raise ValueError(f"{server!r} is no URL: expected http://HOST:PORT/v1 or https://…")
    try:
        with urls.open_url(url, timeout=timeout) as reply:
            return [str(model["id"]) for model in json.load(reply)["data"]]
    except (OSError, urllib.error.URLError) as error:
        raise ValueError(f"the server does not answer at {url}: {error}") from error
    except (ValueError, KeyError, TypeError) as error:
        raise ValueError(f"{url} is not the model list of an OpenAI-compatible server: {error!r}") from error


def _free_port() -> int:
    """A port that nothing listens at now, on any address: vllm takes all of them."""
    with socket.socket() as listener:
        listener.bind(("", 0))
        return int(listener.getsockname()[1])


def model_options(server: str, model: str) -> list[str]:
    """The pipeline's options for a server, or for a vllm of its own.

    OlmOCR 0.4.2 asks its own vllm at port 30024 where none is given, and takes whoever answers there first: on a host
    in use that may be production's.
    """
    argv = ["--server", server] if server else ["--port", str(_free_port())]
    return [*argv, "--model", model] if model else argv


def letters(text: str) -> str:
    """Letters and digits only: a vision model is free to break lines and to set dashes as it likes."""
    return re.sub(r"[^a-z0-9]", "", text.lower())


def judge(workspace: str, phrase: str) -> Outcome:
    """Read the pipeline's result files."""
    documents = []
    for path in sorted(glob.glob(os.path.join(glob.escape(workspace), "results", "output_*.jsonl"))):
        with open(path, encoding="utf-8") as file:
            documents += [line for line in file if line.strip()]
    if not documents:
        return Outcome("the pipeline wrote no document: no page gave any text")
    try:
        document = json.loads(documents[0])
        metadata, text = document["metadata"], document["text"] or ""
    except (ValueError, KeyError) as error:
        return Outcome(f"the pipeline's result file cannot be read: {error!r}")
    seen = {
        "pages": metadata.get("pdf-total-pages"),
        "fallback_pages": metadata.get("total-fallback-pages"),
        "output_tokens": metadata.get("total-output-tokens"),
        "text": " ".join(text.split())[:200],
    }
    if not text.strip():
        return Outcome("the pipeline's text is empty", seen)
    if seen["fallback_pages"] != 0:
        return Outcome(f"{seen['fallback_pages']} of {seen['pages']} pages were not read by the model", seen)
    if letters(phrase) not in letters(text):
        return Outcome(f"the text does not hold the document's own words {phrase!r}", seen)
    return Outcome(None, seen)


def _complaints(log: str) -> str:
    """Why the last attempt failed, by the pipeline's log: a warning tells the cause, an error only that it gave up."""
    for level in (" - WARNING - ", " - ERROR - "):
        lines = [line.split(level, 1)[1] for line in log.splitlines() if level in line]
        if lines:
            return " ".join(lines[-1].split())[:400]
    return ""


def default_model(site: str) -> str:
    """The model that this OlmOCR takes where none is named, from its `pipeline.py`; "" where it does not say."""
    try:
        with open(os.path.join(site, "olmocr", "pipeline.py"), encoding="utf-8") as file:
            found = re.search(r"""["']--model["'],.*?default=["']([^"']+)["']""", file.read(), re.DOTALL)
    except OSError:
        return ""
    return found[1] if found else ""


def is_cached(model: str, variables: Mapping[str, str]) -> bool:
    """Whether a whole model of the Hugging Face hub lies in its cache, so that nothing has to be fetched.

    https://huggingface.co/docs/huggingface_hub/guides/manage-cache says how that is laid out and found.
    """
    home = variables.get("XDG_CACHE_HOME") or os.path.join(os.path.expanduser("~"), ".cache")
    home = variables.get("HF_HOME") or os.path.join(home, "huggingface")
    cache = variables.get("HF_HUB_CACHE") or os.path.join(home, "hub")
    folder = os.path.join(cache, "models--" + model.replace("/", "--"))
    try:
        with open(os.path.join(folder, "refs", "main"), encoding="utf-8") as file:
            snapshot = os.path.join(folder, "snapshots", file.read().strip())
    except OSError:
        return False
    return not model_weights.problems(snapshot)


def convert(
    stage: Stage,
    folder: str,
    env: dict[str, str],
    *,
    pdf: bytes,
    phrase: str,
    server: str,
    model: str,
    timeout: float,
    uses: Mapping[str, str] | None = None,
) -> Outcome:
    """Run the pipeline on `pdf` in `folder`, against `server` or, where that is empty, a vllm of its own.

    `uses` is what that vllm's log has to prove, see `vllm_log.contradiction`.
    """
    missing = [tool for tool in _POPPLER if shutil.which(tool) is None]
    if missing:
        return Outcome(f"{' and '.join(missing)} not found on PATH: install poppler-utils")
    if server:
        try:
            offered = models(server)
        except ValueError as error:
            return Outcome(str(error), {"server": server})
        model = model or next(iter(offered), "")
        if model not in offered:
            return Outcome(f"the server offers {', '.join(offered) or 'no model'}, not {model!r}", {"server": server})
    document = os.path.join(folder, "document.pdf")
    with open(document, "wb") as file:
        file.write(pdf)
    workspace = os.path.join(folder, "workspace")
    # Three attempts a page, not eight: a check is to say soon that something is wrong.
    argv = [stage.python, "-m", "olmocr.pipeline", workspace, "--markdown", "--pdfs", document, "--workers", "1"]
    argv += ["--max_page_retries", "3"]
    argv += model_options(server, model)
    result: commands.Result = stage.run(argv, timeout=timeout, env=env, cwd=folder)
    how = {"server": server or "vllm on this host", "model": model or "OlmOCR's default"}
    if not server:
        how["vllm's log"] = "; ".join(vllm_log.proof(result.stderr)) or "does not say which backends it used"
    if result.ok:
        outcome = judge(workspace, phrase)
        if not server and not outcome.problem:
            outcome.problem = vllm_log.contradiction(result.stderr, env.get(activation.SAMPLER), uses) or None
    else:
        ended = f"did not end within {timeout:.0f} s" if result.timed_out else f"ended with exit code {result.rc}"
        outcome = Outcome(f"the pipeline {ended}")
    complaints = _complaints(result.stderr)
    if outcome.problem and complaints:
        outcome.problem += f" ({complaints})"
    outcome.seen = {**how, **outcome.seen}
    return outcome
