# Copyright (c) 2026 The ocrfleet.gpu_stack contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""What the documentation tells people to type exists, and takes what they are told to give it.

A word in capitals (HOST, ID, /PATH/…) stands for the reader's own.
"""

from __future__ import annotations

import ast
import re
import shlex
import subprocess
import sys
from collections.abc import Iterator
from functools import lru_cache
from pathlib import Path

import pytest
import yaml
from ansible_collections.ocrfleet.gpu_stack.plugins.action import check_inputs
from documented import module_options, module_problems

ROOT = Path(__file__).resolve().parents[2]
COLLECTION = "ocrfleet.gpu_stack"
# CHANGELOG.md is made, and speaks of what was.
PAGES = sorted(
    [ROOT / "README.md", ROOT / "CONTRIBUTING.md", ROOT / "SECURITY.md"]
    + [path for folder in ("docs", "roles", "awx") for path in (ROOT / folder).rglob("*.md")]
)
# Programs of the system or of .venv that pages may name, and that have no names of ours for arguments.
PROGRAMS = {
    "awx",
    "ansible-doc",
    "ansible-galaxy",
    "apt-get",
    "antsibull-changelog",
    "cd",
    "cp",
    "export",
    "git",
    "journalctl",
    "mv",
}
PLACEHOLDER = re.compile(r"(?<![a-z])[A-Z]{2,}(?![a-z])|…|<\w+>|^inventory$")
# Folders whose files pages may name, in backquotes.
ROOMS = "roles|plugins|playbooks|docs|tests|tools|molecule|inventories|benchmarks|library|src|awx|meta|changelogs"


def test_each_test_that_the_guarantee_names_exists() -> None:
    sources = {path.name: path.read_text(encoding="utf-8") for path in (ROOT / "tests").rglob("test_*.py")}
    named = set(re.findall(r"\btest_\w+(?:\.py)?\b", (ROOT / "docs/guarantee.md").read_text(encoding="utf-8")))
    assert len(named) > 50
    assert (
        sorted(
            name
            for name in named
            if name not in sources and not any(f"def {name}(" in text for text in sources.values())
        )
        == []
    )


def fences(path: Path) -> Iterator[tuple[str, str]]:
    """Language and text of each fenced block of a page, those in lists too."""
    for match in re.finditer(r"^( *)```([^\n]*)\n(.*?)^\1```", path.read_text(encoding="utf-8"), re.M | re.S):
        indent = match[1]
        yield match[2].strip(), "\n".join(line.removeprefix(indent) for line in match[3].splitlines())


def commands_of(path: Path) -> list[str]:
    """The command lines of a page's shell blocks, continued lines joined, comments gone."""
    found = []
    for language, text in fences(path):
        if language == "sh":
            found += [line.strip() for line in text.replace("\\\n", " ").splitlines()]
    return [line for line in found if line and not line.startswith("#")]


COMMANDS = sorted({(str(page.relative_to(ROOT)), line) for page in PAGES for line in commands_of(page)})


@lru_cache
def make_targets() -> set[str]:
    return set(re.findall(r"^([a-z][a-z-]*):", (ROOT / "Makefile").read_text(encoding="utf-8"), re.M))


@lru_cache
def variables() -> dict[str, dict]:
    """Every variable of the roles, with its specification."""
    found: dict[str, dict] = {}
    for path in (ROOT / "roles").glob("*/meta/argument_specs.yml"):
        specs = yaml.safe_load(path.read_text(encoding="utf-8"))["argument_specs"]
        for spec in specs.values():
            found |= spec.get("options", {})
    return found


def given(argument: str) -> dict[str, str]:
    """`a=1 b=2` as a dictionary."""
    return dict(part.split("=", 1) for part in shlex.split(argument))


def hold_variables(pairs: dict[str, str], known: dict[str, dict]) -> list[str]:
    """What is wrong with variables and values that a page names."""
    wrong = []
    for name, value in pairs.items():
        if name not in known:
            wrong.append(f"{name} is no variable")
        elif (
            "choices" in known[name] and value not in map(str, known[name]["choices"]) and not PLACEHOLDER.search(value)
        ):
            wrong.append(f"{name}={value}: expected one of {known[name]['choices']}")
    return wrong


def playbook_file(name: str) -> Path:
    if name.startswith(f"{COLLECTION}."):
        return ROOT / "playbooks" / f"{name.removeprefix(f'{COLLECTION}.')}.yml"
    return ROOT / name


def options_of(words: list[str], names: dict[str, str]) -> tuple[list[str], dict[str, list[str]]]:
    """Positional arguments, and the values of the options in `names` (option: the name it is kept under)."""
    rest, kept = [], {name: [] for name in names.values()}
    words = list(words)
    while words:
        word = words.pop(0)
        option, equals, value = word.partition("=")
        if option in names:
            kept[names[option]].append(value if equals else words.pop(0))
        elif not word.startswith("-"):
            rest.append(word)
    return rest, kept


ANSIBLE_OPTIONS = {
    "-i": "inventory",
    "--inventory": "inventory",
    "-e": "extra",
    "--extra-vars": "extra",
    "-m": "module",
    "-a": "arguments",
    "--limit": "limit",
    "-l": "limit",
    "--forks": "forks",
    "-f": "forks",
}


def hold_inventory(names: list[str]) -> list[str]:
    return [
        f"there is no inventory {name}" for name in names if not PLACEHOLDER.search(name) and not (ROOT / name).exists()
    ]


def extra_variables(values: list[str]) -> dict[str, str]:
    pairs: dict[str, str] = {}
    for value in values:
        pairs |= given(value) if "=" in value else {}
    return pairs


@lru_cache
def help_of(*command: str) -> subprocess.CompletedProcess[str]:
    """What `ocrfleet COMMAND --help` answers."""
    argv = [sys.executable, "-m", "ocrfleet", *command, "--help"]
    return subprocess.run(argv, capture_output=True, text=True, timeout=60, check=False, cwd=ROOT / "src")


def problems_of(line: str) -> list[str]:
    """What is wrong with a command line, in sentences."""
    words = shlex.split(line, comments=True)
    if "&&" in words:
        first = words.index("&&")
        return problems_of(shlex.join(words[:first])) + problems_of(shlex.join(words[first + 1 :]))
    while words and re.fullmatch(r"[A-Z_]+=.*", words[0]):
        words.pop(0)  # a variable for the command
    if words[0] == "sudo":
        words.pop(0)
    program, arguments = words[0].removeprefix(".venv/bin/"), words[1:]
    if program == "make":
        targets, assigned = options_of(arguments, {})[0], []
        for word in list(targets):
            if "=" in word:
                targets.remove(word)
                assigned.append(word.partition("=")[0])
        text = (ROOT / "Makefile").read_text(encoding="utf-8")
        wrong = [f"make {target}: no such target" for target in targets if target not in make_targets()]
        return wrong + [f"{name}: the Makefile reads no such variable" for name in assigned if f"$({name})" not in text]
    if program == "ansible-playbook":
        playbooks, kept = options_of(arguments, ANSIBLE_OPTIONS)
        wrong = [f"there is no playbook {name}" for name in playbooks if not playbook_file(name).is_file()]
        return wrong + hold_inventory(kept["inventory"]) + hold_variables(extra_variables(kept["extra"]), variables())
    if program == "ansible":
        _, kept = options_of(arguments, ANSIBLE_OPTIONS)
        module = kept["module"][0].removeprefix(f"{COLLECTION}.")
        if not (ROOT / "plugins/modules" / f"{module}.py").is_file():
            return [f"there is no module {kept['module'][0]}"]
        return hold_inventory(kept["inventory"]) + hold_variables(given(kept["arguments"][0]), module_options(module))
    if program in ("python", "python3"):
        if arguments[:1] == ["-m"]:
            return (
                []
                if arguments[1] == "pytest" and (ROOT / arguments[2].partition("::")[0]).exists()
                else [f"unknown: {line}"]
            )
        return [] if (ROOT / arguments[0]).is_file() else [f"there is no {arguments[0]}"]
    if program == "ocrfleet":
        done = help_of(*arguments[:1])
        flags = [word.partition("=")[0] for word in arguments if word.startswith("--")]
        return [done.stderr] if done.returncode else [f"{flag}: unknown" for flag in flags if flag not in done.stdout]
    if (ROOT / program).is_file():
        return []
    return [] if program in PROGRAMS else [f"{program} is not known here; is it ours, or a program of the system?"]


@pytest.mark.parametrize(("page", "line"), COMMANDS, ids=lambda text: text[:80])
def test_a_documented_command_is_one_that_there_is(page, line):
    assert problems_of(line) == [], page


@pytest.mark.parametrize(
    ("line", "expected"),
    [
        ("make nonsense", "make nonsense: no such target"),
        ("make site FLASHINFER=pypi", "FLASHINFER: the Makefile reads no such variable"),
        ("ansible-playbook playbooks/nowhere.yml", "there is no playbook playbooks/nowhere.yml"),
        ("ansible-playbook ocrfleet.gpu_stack.nowhere", "there is no playbook ocrfleet.gpu_stack.nowhere"),
        ("ansible-playbook -i inventories/nowhere site.yml", "there is no inventory inventories/nowhere"),
        ("ansible-playbook site.yml -e fi_methode=pypi", "fi_methode is no variable"),
        ("ansible-playbook site.yml -e fi_method=magic", "fi_method=magic: expected one of"),
        ("ansible all -m ocrfleet.gpu_stack.nothing -a x=1", "there is no module ocrfleet.gpu_stack.nothing"),
        (
            "ansible all -m ocrfleet.gpu_stack.env_transaction -a 'environment=/e action=undo'",
            "action=undo: expected one of",
        ),
        ("python3 tools/nothing.py", "there is no tools/nothing.py"),
        ("curl https://example.com", "curl is not known here"),
    ],
)
def test_a_wrong_command_would_be_found(line, expected):
    assert any(expected in problem for problem in problems_of(line))


def test_the_documented_playbooks_pass_the_syntax_check():
    named = {
        name
        for _, line in COMMANDS
        if "ansible-playbook" in line
        for name in re.findall(r"\S+\.yml|ocrfleet\.\S+", line)
    }
    assert len(named) > 10
    # One call for all: most of what one takes is Ansible's start. It names the playbook that it stumbles over.
    command = [Path(sys.executable).with_name("ansible-playbook"), "--syntax-check", "-i", "localhost,", *sorted(named)]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=120, check=False)
    assert done.returncode == 0, done.stderr


@pytest.mark.parametrize("page", PAGES, ids=lambda path: str(path.relative_to(ROOT)))
def test_every_block_says_what_it_is(page):
    unmarked = [text.splitlines()[0] for language, text in fences(page) if not language]
    assert unmarked == [], "give the fence a language: sh is held against the code, text is not"


@pytest.mark.parametrize("page", PAGES, ids=lambda path: str(path.relative_to(ROOT)))
def test_yaml_examples_name_variables_that_there_are(page):
    prefixes = tuple(
        ["fi_", *(f"{path.parents[1].name}_" for path in (ROOT / "roles").glob("*/meta/argument_specs.yml"))]
    )

    def keys(value: object) -> Iterator[str]:
        if isinstance(value, dict):
            for key, inner in value.items():
                yield str(key)
                yield from keys(inner)
        elif isinstance(value, list):
            for inner in value:
                yield from keys(inner)

    for language, text in fences(page):
        if language == "yaml":
            named = {key for key in keys(yaml.safe_load(text)) if key.startswith(prefixes)}
            assert named <= variables().keys()


def misfits(block: object) -> list[str]:
    """Where a YAML block does not fit the argument specs of the roles, or the options of the modules, that it uses."""
    specs = check_inputs.load_specs(ROOT / "roles")
    if isinstance(block, list):
        return [wrong for entry in block for wrong in misfits(entry)]
    if not isinstance(block, dict):
        return []
    wrong = check_inputs.wrong_values(block, specs) + module_problems(block)
    role = str(block.get("role", "")).removeprefix(f"{COLLECTION}.")
    if block.get("role") and role not in specs:
        wrong.append(f"there is no role {block['role']}")
    elif role:
        # Ansible takes whatever stands beside `role` for a parameter, and refuses what its specification has not got.
        known = {*specs[role], "role", "name", "vars", "when", "tags", "become", "become_user", "delegate_to"}
        wrong += [f"{role} has no parameter {name}; it belongs under vars" for name in block if name not in known]
    return wrong + [text for value in block.values() for text in misfits(value)]


@pytest.mark.parametrize("page", PAGES, ids=lambda path: str(path.relative_to(ROOT)))
def test_yaml_examples_fit_the_argument_specs(page):
    blocks = [yaml.safe_load(text) for language, text in fences(page) if language == "yaml"]
    assert [wrong for block in blocks for wrong in misfits(block)] == []


@pytest.mark.parametrize(
    ("block", "expected"),
    [
        ("stack_gpu: maybe", "value of stack_gpu must be one of"),
        ("verify_required: [cuda, smokes]", "smokes"),
        ("kernel_pack_timeout: long", "kernel_pack_timeout"),
        ("[{hosts: all, roles: [{role: ocrfleet.gpu_stack.conda, vars: {conda_scope: world}}]}]", "conda_scope"),
        (
            "[{hosts: all, roles: [{role: ocrfleet.gpu_stack.verify, stack_root: /srv}]}]",
            "verify has no parameter stack_root",
        ),
        ("[{hosts: all, roles: [{role: ocrfleet.gpu_stack.condo}]}]", "there is no role ocrfleet.gpu_stack.condo"),
        ("[{ocrfleet.gpu_stack.gpu_smoke: {environment: /e, kernel: [torch_matmul]}}]", "has no option kernel"),
    ],
)
def test_a_misfit_would_be_found(block, expected):
    assert any(expected in wrong for wrong in misfits(yaml.safe_load(block)))


@pytest.mark.parametrize("page", PAGES, ids=lambda path: str(path.relative_to(ROOT)))
def test_files_that_pages_name_are_there(page):
    # A new file's place is told with its NAME; patterns are taken as such.
    text = re.sub(r"^( *)```.*?^\1```", "", page.read_text(encoding="utf-8"), flags=re.M | re.S)
    named = re.findall(rf"`((?:{ROOMS})/[^`\s]*)`", text)
    gone = [
        name
        for name in named
        if not PLACEHOLDER.search(name) and not list(ROOT.glob(name.partition("::")[0].rstrip("/")))
    ]
    # Folders that fill up by use.
    assert [name for name in gone if name != "changelogs/fragments/"] == []


@pytest.mark.parametrize("page", sorted((ROOT / "roles").glob("*/README.md")), ids=lambda path: path.parent.name)
def test_each_role_says_its_way_back(page):
    assert re.search(r"\bway\s+back\b", page.read_text(encoding="utf-8"))


@lru_cache
def texts_of_the_code() -> str:
    """Every text that the code can show, one a line, … for what is filled in."""
    found = []
    for folder in ("plugins", "src"):
        for path in (ROOT / folder).rglob("*.py"):
            for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
                if isinstance(node, ast.JoinedStr):
                    found.append("".join(part.value if isinstance(part, ast.Constant) else "…" for part in node.values))
                elif isinstance(node, ast.Constant) and isinstance(node.value, str):
                    found.append(node.value)
    for path in (ROOT / "roles").rglob("*"):
        if path.suffix in (".yml", ".j2"):
            # What is filled in, between two texts of one expression or around all of it.
            text = re.sub(r"' ~ \S+ ~ '", "…", path.read_text(encoding="utf-8"))
            found += [re.sub(r"\{\{.*?\}\}", "…", text), *re.findall(r"'([^'\n]+)'", text)]
    return "\n".join(" ".join(text.split()) + " " for text in found)


def symptoms() -> list[str]:
    text = (ROOT / "docs/troubleshooting.md").read_text(encoding="utf-8")
    return re.findall(r"^`(.+)`\n: ", text, re.M)


@pytest.mark.parametrize("symptom", symptoms())
def test_a_symptom_is_a_text_of_the_code(symptom):
    pattern = "[^\n]*?".join(re.escape(" ".join(part.split())) for part in symptom.split("…"))
    assert re.search(pattern, texts_of_the_code())
