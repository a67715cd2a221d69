# Copyright (c) 2026 The ocrfleet.gpu_stack contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The rules of test_supply_chain.py: what in a file fetches, or runs, what nothing vouches for.

Python is read as its syntax tree, tasks as parsed YAML, shell scripts, make and templates line by line.
"""

from __future__ import annotations

import ast
import re
from collections.abc import Iterator
from pathlib import Path

import yaml

RUNS_IT = re.compile(
    r"\b(?:curl|wget|fetch)\b[^\n|;]*\|\s*(?:sudo\s+)?(?:\S*/)?(?:ba|z|da|k)?sh\b|<\(\s*(?:curl|wget)\b"
)
RUNS_IT_PYTHON = re.compile(r"\b(?:curl|wget|fetch)\b[^\n|;]*\|\s*(?:sudo\s+)?python")
MIXED_INDEX = re.compile(r"(?:--|UV_|PIP_|\b)extra[-_]index[-_]url", re.IGNORECASE)
UNCHECKED = re.compile(
    r"--(?:no-check-certificate|insecure|allow-unauthenticated|nogpgcheck|no-gpg-check|trusted-host|allow-insecure-host)\b"
    r"|\bcurl\s(?:[^|;\n]*\s)?-[a-zA-Z]*k\b|APT::Get::AllowUnauthenticated|GIT_SSL_NO_VERIFY"
    r"|\bssl_?verify\s*[=:]\s*(?:0|false|no|off)\b|\bproxy_ssl_verify\s+off\b",
    re.IGNORECASE,
)
UNVERIFIED = re.compile(
    r"\bapt-key\b|\brpm\s+--import\s+https?:|trusted\.gpg(?:\.d)?\b"
    r"|\[[^\]\n]*\b(?:trusted|allow-insecure)\s*=\s*yes\b|^\s*(?:trusted|allow-insecure):\s*yes\b"
    r"|\bgpgcheck\s*[=:]\s*(?:0|false|no|off)\b",
    re.IGNORECASE | re.MULTILINE,
)
# A package by its name and, at best, its version: whoever has the index chooses the file, and what is in it.
PIP = re.compile(
    r"\bpip3?(?:\s+(?:-\S+|\{\{)(?:\s+(?!(?:install|sync|download|wheel)\s)[^-\s{]\S*)?)*"
    r"\s+(?:install|sync|download|wheel)\s+[^\s|;&][^|;&\n]*"
)
HELD = re.compile(r"--(?:require-hashes|no-index|offline|dry-run)\b")
OTHER_INSTALLERS = re.compile(
    r"\b(?:uv\s+tool\s+(?:install|run)|uvx|pipx\s+(?:install|run)|uv\s+run\b[^|;&\n]*\s--with|npx|npm\s+(?:install|ci)|gem\s+install"
    r"|cargo\s+install|go\s+install|(?:conda|mamba|micromamba)\s+(?:install|create))\s+\S"
    r"|\bansible-galaxy\s+(?:collection\s+|role\s+)?install\b(?![^|;&\n]*--offline)"
)
DOWNLOADS = re.compile(r"(?:^|[\s;&|(`])(?:curl|wget)\s+\S")
CLONES = re.compile(r"\bgit\s+(?:(?:-\S+|\{\{)\s+(?:[^-\s{]\S*\s+)?)*(?:clone|fetch|pull|submodule)\b")
QUOTED = re.compile(r"\|\s*(?:ansible\.builtin\.)?quote\b")


class Loader(yaml.SafeLoader):
    """YAML as Ansible writes it: a text may be marked as no template, or as encrypted."""


Loader.add_multi_constructor("!", lambda loader, tag, node: node.value)


# --- Texts -----------------------------------------------------------------------------------------------------------
def in_text(text: str) -> Iterator[tuple[str, str]]:
    """Rules that hold for a command line wherever it stands."""
    if RUNS_IT.search(text) or RUNS_IT_PYTHON.search(text):
        yield "fetch-and-execute", text
    if MIXED_INDEX.search(text):
        yield "mixed-index", text
    if UNCHECKED.search(text):
        yield "unchecked-transport", text
    if UNVERIFIED.search(text):
        yield "unverified-key", text
    unheld = any(not HELD.search(found[0]) for found in PIP.finditer(text))
    if unheld or OTHER_INSTALLERS.search(text):
        yield "unlocked-install", text
    if DOWNLOADS.search(text):
        yield "unpinned-download", text
    if CLONES.search(text):
        yield "unpinned-clone", text


# --- Tasks -----------------------------------------------------------------------------------------------------------
def tasks_in(value: object) -> Iterator[dict]:
    """Every task of a parsed file: of plays, blocks, rescues and handlers."""
    if isinstance(value, list):
        for entry in value:
            yield from tasks_in(entry)
    elif isinstance(value, dict):
        yield value
        for key in ("block", "rescue", "always", "tasks", "pre_tasks", "post_tasks", "handlers"):
            yield from tasks_in(value.get(key, []))


def strings_in(value: object) -> Iterator[str]:
    if isinstance(value, str):
        yield value
    elif isinstance(value, dict):
        for key, inner in value.items():
            yield str(key)
            yield from strings_in(inner)
    elif isinstance(value, list):
        if value and all(isinstance(inner, (str, int)) for inner in value):
            yield " ".join(map(str, value))  # it may be a command
        for inner in value:
            yield from strings_in(inner)


def action_of(task: dict, name: str) -> dict | None:
    """The arguments of a task's module `name`, however it is written; None for a task of another module."""
    for key in (name, f"ansible.builtin.{name}", f"ansible.legacy.{name}"):
        if key in task:
            given = task[key]
            return given if isinstance(given, dict) else {"_raw_params": str(given)}
    return None


def in_task(task: dict) -> Iterator[tuple[str, str]]:
    """Rules for one task."""
    shell = action_of(task, "shell")
    if shell is not None:
        text = str(shell.get("cmd", shell.get("_raw_params", "")))
        expressions = re.findall(r"\{\{.*?\}\}", text, re.DOTALL)
        if any(not QUOTED.search(expression) for expression in expressions):
            yield "shell-with-input", text
    get_url = action_of(task, "get_url")
    if get_url is not None:
        if not get_url.get("checksum"):
            yield "unpinned-download", str(get_url.get("url"))
        if str(get_url.get("validate_certs", True)).lower() in ("false", "no"):
            yield "unchecked-transport", str(get_url)
    for name in ("uri", "unarchive"):
        given = action_of(task, name) or {}
        if name == "uri" and given.get("dest"):
            yield "unpinned-download", str(given.get("url"))
        if name == "unarchive" and "://" in str(given.get("src", "")):
            yield "unpinned-download", str(given["src"])
        if str(given.get("validate_certs", True)).lower() in ("false", "no"):
            yield "unchecked-transport", str(given)
    git = action_of(task, "git")
    if git is not None and str(git.get("version", "HEAD")) in ("HEAD", "main", "master"):
        yield "unpinned-clone", str(git.get("repo"))
    for name in ("apt", "dnf", "yum", "package"):
        given = action_of(task, name) or {}
        if "://" in str(given.get("deb", "")) or "://" in str(given.get("name", "")):
            yield "unpinned-download", str(given)
        if any(
            str(given.get(option, False)).lower() in ("true", "yes")
            for option in ("allow_unauthenticated", "disable_gpg_check")
        ):
            yield "unverified-key", str(given)
    for name in ("apt_key", "rpm_key"):
        given = action_of(task, name)
        if given is not None and not given.get("fingerprint"):
            yield "unverified-key", str(given)
    for name in ("yum_repository", "deb822_repository", "apt_repository"):
        given = action_of(task, name)
        if given is None:
            continue
        if name == "yum_repository" and str(given.get("gpgcheck", False)).lower() not in ("true", "yes", "1"):
            yield "unverified-key", str(given)
        if name == "deb822_repository" and not given.get("signed_by"):
            yield "unverified-key", str(given)
        if name == "apt_repository" and "signed-by" not in str(given.get("repo", "")):
            yield "unverified-key", str(given)
    pip = action_of(task, "pip")
    if pip is not None and not (pip.get("requirements") and "--require-hashes" in str(pip.get("extra_args", ""))):
        yield "unlocked-install", str(pip)


def in_yaml(text: str) -> Iterator[tuple[str, str]]:
    for document in yaml.load_all(text, Loader):
        for task in tasks_in(document):
            yield from in_task(task)
        for string in strings_in(document):
            yield from in_text(string)


# --- Python ----------------------------------------------------------------------------------------------------------
# Calls that open a URL; whoever makes one has to hold the bytes against a hash, and says so in ALLOWED.
FETCHES = {"urlretrieve", "urlopen", "open_url", "fetch_url", "fetch_file", "HTTPConnection", "HTTPSConnection"}
FETCHING_PACKAGES = {"requests", "httpx", "aiohttp", "urllib3"}
# A function of this name is taken for the program: git("fetch", url).
PROGRAMS = {"git", "curl", "wget", "pip", "uv"}


def dotted(node: ast.AST) -> str:
    if isinstance(node, ast.Attribute):
        return f"{dotted(node.value)}.{node.attr}"
    return node.id if isinstance(node, ast.Name) else ""


def text_of(node: ast.AST) -> str:
    """A string, … for what is filled in."""
    if isinstance(node, ast.Constant) and isinstance(node.value, str):
        return node.value
    if isinstance(node, ast.JoinedStr):
        return "".join(text_of(part) if isinstance(part, ast.Constant) else "{{" for part in node.values)
    return ""


def documentation(tree: ast.Module) -> set[int]:
    """The strings that are read by people: docstrings, and a module's DOCUMENTATION, EXAMPLES and RETURN."""
    found = set()
    for node in ast.walk(tree):
        if isinstance(node, ast.Expr) and isinstance(node.value, ast.Constant):
            found.add(id(node.value))
        if isinstance(node, ast.Assign) and any(
            isinstance(name, ast.Name) and name.id in ("DOCUMENTATION", "RETURN") for name in node.targets
        ):
            found.add(id(node.value))
    return found


def is_constant(node: ast.AST) -> bool:
    return isinstance(node, ast.Constant) or (
        isinstance(node, ast.JoinedStr) and all(isinstance(part, ast.Constant) for part in node.values)
    )


def in_call(call: ast.Call) -> Iterator[tuple[str, str]]:
    """Rules for one call."""
    name, seen = dotted(call.func), ast.unparse(call)
    keywords = {keyword.arg: keyword.value for keyword in call.keywords}
    first, last = name.split(".")[0], name.split(".")[-1]
    # A connection plugin's fetch_file takes a file from the host.
    if (last in FETCHES and "_connection" not in name) or (first in FETCHING_PACKAGES and first != last):
        yield "unpinned-download", seen
    yield from in_command([last] * (last in PROGRAMS) + [text_of(argument) for argument in call.args])
    shell = keywords.get("shell") or keywords.get("use_unsafe_shell")
    through_a_shell = isinstance(shell, ast.Constant) and shell.value is True
    if name in ("os.system", "os.popen", "subprocess.getoutput", "subprocess.getstatusoutput"):
        through_a_shell = True
    if through_a_shell and not (call.args and is_constant(call.args[0])):
        yield "shell-with-input", seen
    # ["sh", "-c", f"… {value}"]: a constant script that takes values as arguments is the safe way.
    for argument in call.args:
        if isinstance(argument, ast.List):
            yield from in_argv(argument)
    if name in ("ssl._create_unverified_context", "ssl.CERT_NONE") or (
        isinstance(keywords.get("verify"), ast.Constant) and keywords["verify"].value is False  # type: ignore[attr-defined]
    ):
        yield "unchecked-transport", seen
    if name in ("eval", "exec") or name.endswith((".loads", ".load")) and name.split(".")[0] in ("pickle", "marshal"):
        yield "fetch-and-execute", seen


def in_command(words: list[str]) -> Iterator[tuple[str, str]]:
    """Rules for what is a command, if it is one: in a list, a tuple, or the arguments of a call."""
    text = " ".join(word or "{{" for word in words)
    yield from in_text(text)
    # Without its program, which is added where it is run.
    if words[:1] == ["install"] and not HELD.search(text):
        yield "unlocked-install", text


def in_argv(argv: ast.List) -> Iterator[tuple[str, str]]:
    parts = argv.elts
    for index, part in enumerate(parts[:-2]):
        a_shell = text_of(part).rsplit("/", 1)[-1] in ("sh", "bash") and re.fullmatch(
            r"-\w*c", text_of(parts[index + 1])
        )
        if a_shell and not is_constant(parts[index + 2]) and not isinstance(parts[index + 2], ast.Name):
            yield "shell-with-input", ast.unparse(argv)


def in_python(text: str) -> Iterator[tuple[str, str]]:
    tree = ast.parse(text)
    for_people = documentation(tree)
    for node in ast.walk(tree):
        if isinstance(node, ast.Call):
            yield from in_call(node)
        if isinstance(node, (ast.List, ast.Tuple)):
            yield from in_command([text_of(part) for part in node.elts])
        if isinstance(node, (ast.Constant, ast.JoinedStr)) and id(node) not in for_people:
            yield from in_text(text_of(node))
    for node in ast.walk(tree):
        if isinstance(node, ast.Assign) and any(dotted(name) == "EXAMPLES" for name in node.targets):
            yield from in_yaml(text_of(node.value))


# --- Requirements ----------------------------------------------------------------------------------------------------
def in_requirements(text: str) -> Iterator[tuple[str, str]]:
    """A lock names versions, and a hash for each."""
    for entry in re.split(r"\n(?=\S)", text):
        line = entry.strip()
        if line and not line.startswith("#") and ("==" not in line.split("\n")[0] or "--hash=sha256:" not in line):
            yield "unpinned-download", line.split("\n")[0]


# --- Templates -------------------------------------------------------------------------------------------------------
def in_repository(name: str, text: str) -> Iterator[tuple[str, str]]:
    """The file of a package repository says who signs it."""
    if ".repo" in name:
        for section in re.split(r"(?m)^(?=\[)", text)[1:]:
            if not re.search(r"(?m)^gpgcheck\s*=\s*1\s*$", section) or not re.search(r"(?m)^gpgkey\s*=\s*\S", section):
                yield "unverified-key", section.split("\n")[0]
    if re.search(r"\.(list|sources)\b", name) and not re.search(r"(?i)signed-by", text):
        yield "unverified-key", name


def lines_of(text: str) -> list[str]:
    """The lines that are no comment, each with those that continue it."""
    whole = re.sub(r"\\\n\s*", " ", text)
    return [line for line in whole.splitlines() if not line.lstrip().startswith("#")]


def findings(path: Path) -> list[tuple[str, str]]:
    text = path.read_text(encoding="utf-8")
    if path.suffix == ".py" or text.startswith("#!/usr/bin/env python3"):
        return sorted(set(in_python(text)))
    if path.suffix in (".yml", ".yaml"):
        return sorted(set(in_yaml(text)))
    if path.suffix == ".lock" or "locks" in path.parts:
        return sorted(set(in_requirements(text)))
    return sorted({found for line in lines_of(text) for found in in_text(line)} | set(in_repository(path.name, text)))
