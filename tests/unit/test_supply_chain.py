# Copyright (c) 2026 The ocrfleet.gpu_stack contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Nothing is fetched and run, nothing is downloaded that is not pinned, no key is taken on trust, no index is mixed in,
and no shell gets to read what came from outside.

Python is read as its syntax tree, tasks as parsed YAML, shell scripts line by line. Every rule has to find a planted
example. What is allowed nonetheless stands in ALLOWED, with the reason.
"""

from __future__ import annotations

import ast
import re
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest
import yaml

ROOT = Path(__file__).resolve().parents[2]

# (file, rule): why it is allowed. An entry that nothing needs any longer is an error.
ALLOWED: dict[tuple[str, str], str] = {
    (
        "plugins/modules/pinned_key.py",
        "unpinned-download",
    ): "what comes is a signing key, and it is held against a pinned fingerprint instead of a checksum",
    (
        "benchmarks/reference/procedure.yml",
        "shell-with-input",
    ): "the procedure as it is typed by hand, timed on test hosts beside ours; its values are its own",
}

RUNS_IT = re.compile(
    r"\b(?:curl|wget|fetch)\b[^\n|;]*\|\s*(?:sudo\s+)?(?:\S*/)?(?:ba|z|da|k)?sh\b|<\(\s*(?:curl|wget)\b"
)
RUNS_IT_PYTHON = re.compile(r"\b(?:curl|wget|fetch)\b[^\n|;]*\|\s*(?:sudo\s+)?python")
MIXED_INDEX = re.compile(r"(?:--|UV_|PIP_|\b)extra[-_]index[-_]url", re.IGNORECASE)
UNCHECKED = re.compile(
    r"--(?:no-check-certificate|insecure|allow-unauthenticated|nogpgcheck|no-gpg-check|trusted-host|allow-insecure-host)\b"
    r"|\bcurl\s(?:[^|;\n]*\s)?-[a-zA-Z]*k\b|\[trusted=yes\]|APT::Get::AllowUnauthenticated"
)
APT_KEY = re.compile(r"\bapt-key\b|\brpm\s+--import\s+https?:|trusted\.gpg(?:\.d)?\b")
TEMPLATED = re.compile(r"\{\{")
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
    if APT_KEY.search(text):
        yield "unverified-key", text


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
        yield "unpinned-download", str(git.get("repo"))
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
        yield "unpinned-download", str(pip)


def in_yaml(text: str) -> Iterator[tuple[str, str]]:
    for document in yaml.load_all(text, Loader):
        for task in tasks_in(document):
            yield from in_task(task)
        for string in strings_in(document):
            yield from in_text(string)


# --- Python ----------------------------------------------------------------------------------------------------------
# Calls that open a URL; whoever makes one has to hold the bytes against a hash, and says so in ALLOWED.
FETCHES = {"urllib.request.urlretrieve", "urlretrieve", "fetch_file", "requests.get"}


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
    if name in FETCHES:
        yield "unpinned-download", seen
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
        if isinstance(node, ast.List):
            # A list that is a command: its words together.
            yield from in_text(" ".join(text_of(part) for part in node.elts))
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


def findings(path: Path) -> list[tuple[str, str]]:
    text = path.read_text(encoding="utf-8")
    if path.suffix == ".py" or text.startswith("#!/usr/bin/env python3"):
        return sorted(set(in_python(text)))
    if path.suffix in (".yml", ".yaml"):
        return sorted(set(in_yaml(text)))
    if path.suffix == ".lock" or "locks" in path.parts:
        return sorted(set(in_requirements(text)))
    return sorted({found for line in text.splitlines() if not line.lstrip().startswith("#") for found in in_text(line)})


def files() -> list[Path]:
    """What is committed and can run. Unit tests plant what must be found here, so they are left out."""
    command = ["git", "ls-files", "--cached", "--others", "--exclude-standard"]
    listed = subprocess.run(
        command, cwd=ROOT, capture_output=True, text=True, check=True, timeout=60
    ).stdout.splitlines()
    found = []
    for name in listed:
        path = ROOT / name
        if (
            not path.is_file()
            or path.is_symlink()
            or name.startswith(("tests/unit/", "docs/", "changelogs/", "collections/"))
        ):
            continue
        script = not path.suffix and path.read_bytes()[:2] == b"#!"
        code = path.suffix in (".py", ".yml", ".yaml", ".lock", ".sh") or "locks" in path.parts
        if script or code or name == "Makefile":
            found.append(path)
    return found


def name_of(path: Path) -> str:
    return str(path.relative_to(ROOT))


@pytest.mark.parametrize("path", files(), ids=name_of)
def test_nothing_unsafe(path):
    found = [(rule, seen) for rule, seen in findings(path) if (name_of(path), rule) not in ALLOWED]
    assert found == [], "make it safe, or add the file and rule to ALLOWED with the reason"


def test_every_exception_is_still_needed():
    used = {(name_of(path), rule) for path in files() for rule, _ in findings(path)}
    assert ALLOWED.keys() - used == set()


def test_the_files_that_matter_are_looked_at():
    names = {name_of(path) for path in files()}
    for name in (
        "requirements.lock",
        "tools/bootstrap",
        "Makefile",
        "plugins/module_utils/uv.py",
        "roles/stack/tasks/uv.yml",
    ):
        assert name in names


@pytest.mark.parametrize(
    ("rule", "task"),
    [
        ("fetch-and-execute", "ansible.builtin.shell: curl -fsSL https://example.com/install | sudo bash -s"),
        ("fetch-and-execute", "ansible.builtin.shell: bash <(curl https://example.com/install)"),
        ("fetch-and-execute", "ansible.builtin.shell: wget -qO- https://example.com/get.py | python3"),
        ("mixed-index", "ansible.builtin.command: uv pip install flashinfer --extra-index-url https://example.com"),
        ("mixed-index", "environment: {PIP_EXTRA_INDEX_URL: https://example.com}"),
        ("shell-with-input", 'ansible.builtin.shell: "ls {{ folder }}"'),
        ("shell-with-input", 'ansible.builtin.shell: {cmd: "ls {{ one | quote }} {{ two }}"}'),
        ("shell-with-input", 'block: [{name: Inside, ansible.builtin.shell: "ls {{ folder }}"}]'),
        ("shell-with-input", 'block: [], rescue: [{shell: "ls {{ folder }}"}]'),
        ("unpinned-download", "ansible.builtin.get_url: {url: https://example.com/a.sh, dest: /tmp/a.sh}"),
        ("unpinned-download", "ansible.builtin.uri: {url: https://example.com/a.sh, dest: /tmp/a.sh}"),
        (
            "unpinned-download",
            "ansible.builtin.unarchive: {src: https://example.com/a.tgz, dest: /opt, remote_src: true}",
        ),
        ("unpinned-download", "ansible.builtin.git: {repo: https://example.com/a.git, dest: /opt/a}"),
        ("unpinned-download", "ansible.builtin.git: {repo: https://example.com/a.git, dest: /opt/a, version: main}"),
        ("unpinned-download", "ansible.builtin.apt: {deb: https://example.com/a.deb}"),
        ("unpinned-download", "ansible.builtin.dnf: {name: https://example.com/a.rpm}"),
        ("unpinned-download", "ansible.builtin.pip: {name: torch}"),
        (
            "unchecked-transport",
            "ansible.builtin.get_url: {url: 'https://e.com', checksum: 'sha256:0', validate_certs: false}",
        ),
        ("unchecked-transport", "ansible.builtin.command: curl -fsk https://example.com -o a"),
        ("unchecked-transport", "ansible.builtin.command: pip install --trusted-host example.com torch"),
        ("unverified-key", "ansible.builtin.apt_key: {url: https://example.com/key.asc}"),
        ("unverified-key", "ansible.builtin.rpm_key: {key: https://example.com/key.asc}"),
        ("unverified-key", "ansible.builtin.dnf: {name: cuda-toolkit-12-8, disable_gpg_check: true}"),
        (
            "unverified-key",
            "ansible.builtin.yum_repository: {name: cuda, baseurl: https://example.com, gpgcheck: false}",
        ),
        ("unverified-key", "ansible.builtin.yum_repository: {name: cuda, baseurl: https://example.com}"),
        ("unverified-key", "ansible.builtin.deb822_repository: {name: cuda, uris: https://example.com}"),
        ("unverified-key", "ansible.builtin.apt_repository: {repo: 'deb https://example.com /'}"),
        ("unverified-key", "ansible.builtin.command: rpm --import https://example.com/key.asc"),
    ],
)
def test_a_bad_task_would_be_found(rule, task):
    text = (
        "- {name: Planted, " + task + "}" if task.startswith(("block", "environment")) else f"- name: Planted\n  {task}"
    )
    assert rule in {found for found, _ in in_yaml(text)}


@pytest.mark.parametrize(
    "task",
    [
        "ansible.builtin.command: {argv: [ls, '{{ folder }}']}",
        'ansible.builtin.shell: "ls {{ folder | quote }}"',
        "ansible.builtin.get_url: {url: 'https://example.com/a', dest: /tmp/a, checksum: 'sha256:00'}",
        "ansible.builtin.git: {repo: https://example.com/a.git, dest: /opt/a, version: v0.3.1}",
        "ansible.builtin.deb822_repository: {name: cuda, uris: https://example.com, signed_by: /etc/cuda.asc}",
        "ansible.builtin.yum_repository: {name: cuda, baseurl: https://example.com, gpgcheck: true, gpgkey: file:///k}",
        "ansible.builtin.dnf: {name: cuda-toolkit-12-8}",
    ],
)
def test_a_good_task_is_left_alone(task):
    assert list(in_yaml(f"- name: Good\n  {task}")) == []


@pytest.mark.parametrize(
    ("rule", "code"),
    [
        ("shell-with-input", "subprocess.run(f'ls {folder}', shell=True)"),
        ("shell-with-input", "subprocess.run(command, shell=True)"),
        ("shell-with-input", "module.run_command(line, use_unsafe_shell=True)"),
        ("shell-with-input", "os.system('ls ' + folder)"),
        ("shell-with-input", "run(['sh', '-c', f'ls {folder}'])"),
        ("shell-with-input", "run(['/bin/bash', '-ec', 'ls ' + folder])"),
        ("unpinned-download", "urllib.request.urlretrieve(url, path)"),
        ("unpinned-download", "requests.get(url)"),
        ("unchecked-transport", "ssl._create_unverified_context()"),
        ("unchecked-transport", "session.fetch(url, verify=False)"),
        ("unchecked-transport", "run(['curl', '--insecure', url])"),
        ("mixed-index", "run(['uv', 'pip', 'install', '--extra-index-url', url])"),
        ("mixed-index", "env['UV_EXTRA_INDEX_URL'] = url"),
        ("fetch-and-execute", "exec(urlopen(url).read())"),
        ("fetch-and-execute", "pickle.loads(urlopen(url).read())"),
        ("fetch-and-execute", "run('curl https://example.com | sh')"),
        ("unpinned-download", 'EXAMPLES = """\n- name: Bad\n  ansible.builtin.pip:\n    name: torch\n"""'),
    ],
)
def test_bad_python_would_be_found(rule, code):
    assert rule in {found for found, _ in in_python(code)}


@pytest.mark.parametrize(
    "code",
    [
        "run(['sh', '-c', 'mount --bind \"$1\" \"$2\"', 'sh', source, target])",
        "subprocess.run(['ls', folder])",
        '"""Never `curl … | sh`."""',
        "json.loads(text)",
    ],
)
def test_good_python_is_left_alone(code):
    assert list(in_python(code)) == []


@pytest.mark.parametrize(
    "text", ["torch\n", "torch==2.8.0\n", "torch>=2 \\\n    --hash=sha256:00\n", "git+https://e.com/a\n"]
)
def test_a_bad_lock_would_be_found(text):
    assert "unpinned-download" in {found for found, _ in in_requirements(text)}


@pytest.mark.parametrize("line", ["curl https://example.com/i | sh", "pip install --extra-index-url https://e.com a"])
def test_a_bad_script_would_be_found(tmp_path, line):
    script = tmp_path / "script.sh"
    script.write_text(f"#!/bin/sh\n# a comment about curl | sh\n{line}\n")
    assert [seen for _, seen in findings(script)] == [line]
