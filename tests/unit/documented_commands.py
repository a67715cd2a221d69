# Copyright (c) 2026 The ocrfleet.gpu_stack contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The commands that the documentation shows, and what is wrong with one of them.

A word in capitals (HOST, ID, /PATH/…) stands for the reader's own.
"""

from __future__ import annotations

import argparse
import contextlib
import io
import re
import shlex
from collections.abc import Iterator
from functools import lru_cache
from pathlib import Path
from typing import Any

import yaml
from ansible.cli.adhoc import AdHocCLI
from ansible.cli.playbook import PlaybookCLI
from ansible.module_utils.common.arg_spec import ArgumentSpecValidator
from ansible.parsing.splitter import parse_kv
from ansible_collections.ocrfleet.gpu_stack.plugins.action import check_inputs
from documented import COLLECTION, ROOT, module_problems

from ocrfleet import cli

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
    "echo",
    "export",
    "git",
    "journalctl",
    "mv",
    "pip",
    "podman",
    "rm",
}
# Programs whose arguments are held against the code.
OURS = {"make", "ansible", "ansible-playbook", "ocrfleet", "python", "python3"}
PLACEHOLDER = re.compile(r"(?<![a-z])[A-Z]{2,}(?![a-z])|…|<\w+>|^inventory$")
FENCED = re.compile(r"^( *)```([^\n]*)\n(.*?)^\1```", re.M | re.S)


def fences(path: Path) -> Iterator[tuple[str, str]]:
    """Language and text of each fenced block of a page, those in lists too."""
    for match in FENCED.finditer(path.read_text(encoding="utf-8")):
        indent = match[1]
        yield match[2].strip(), "\n".join(line.removeprefix(indent) for line in match[3].splitlines())


def prose(path: Path) -> str:
    """The page without its fenced blocks."""
    return FENCED.sub("", path.read_text(encoding="utf-8"))


def program_of(line: str) -> str:
    """What a command line calls, without what stands before it; empty for what is no command line."""
    try:
        words = shlex.split(line, comments=True)
    except ValueError:
        return ""
    while words and (re.fullmatch(r"[A-Z_]+=.*", words[0]) or words[0] == "sudo"):
        words.pop(0)
    return words[0].removeprefix(".venv/bin/") if words else ""


def is_command(text: str) -> bool:
    """Whether a text calls a known program with arguments. A program's name alone is just that."""
    program = program_of(text)
    ours = program.startswith(("tools/", "tests/")) and not program.endswith("/") and not PLACEHOLDER.search(program)
    return len(text.split()) > 1 and (program in PROGRAMS | OURS or ours)


def commands_of(path: Path) -> list[str]:
    """The command lines of a page: of its shell blocks, continued lines joined, comments gone, and in its sentences."""
    found = []
    for language, text in fences(path):
        if language == "sh":
            found += [line.strip() for line in text.replace("\\\n", " ").splitlines()]
    inline = (" ".join(text.split()) for text in re.findall(r"(?<!`)`([^`]+)`(?!`)", prose(path)))
    # A sentence that names a command of ocrfleet shows none of its arguments.
    found += [re.sub(r"^ocrfleet \w+$", r"\g<0> --help", text) for text in inline if is_command(text)]
    bare = (" ".join(re.sub(r"(^|\s)#\s.*", "", line).split()) for line in found)
    return [line for line in bare if line]


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


def own(value: Any) -> bool:
    """Whether the reader puts a value of theirs in this one's place."""
    return isinstance(value, str) and PLACEHOLDER.search(value) is not None


def extra_variables(values: list[str]) -> dict[str, Any]:
    """What `-e` gives, as Ansible reads it: `a=1` gives a text, JSON and YAML what they say."""
    pairs: dict[str, Any] = {}
    for value in values:
        pairs |= yaml.safe_load(value) if value.startswith(("{", "[")) else parse_kv(value)
    return pairs


def hold_variables(pairs: dict[str, Any]) -> list[str]:
    """What is wrong with variables and values that a page names."""
    wrong = [f"{name} is no variable" for name in pairs if name not in variables()]
    given = {name: value for name, value in pairs.items() if name in variables() and not own(value)}
    spec = check_inputs.to_argument_spec({name: variables()[name] for name in given})
    return wrong + list(ArgumentSpecValidator(spec).validate(given).error_messages)


def playbook_file(name: str) -> Path:
    if name.startswith(f"{COLLECTION}."):
        return ROOT / "playbooks" / f"{name.removeprefix(f'{COLLECTION}.')}.yml"
    return ROOT / name


def hold_inventory(names: list[str] | None) -> list[str]:
    return [f"there is no inventory {name}" for name in names or [] if not own(name) and not (ROOT / name).exists()]


def parsed(parser: argparse.ArgumentParser, arguments: list[str]) -> argparse.Namespace | str | None:
    """What a program's own parser makes of arguments: nothing where it only tells, a text where it refuses them."""
    commands = [action for action in parser._actions if isinstance(action, argparse._SubParsersAction)]
    for each in (parser, *(inner for action in commands for inner in action.choices.values())):
        each.allow_abbrev = False  # a page shows the name that there is, no part of one
    said = io.StringIO()
    with contextlib.redirect_stderr(said), contextlib.redirect_stdout(io.StringIO()):
        try:
            return parser.parse_args(arguments)
        except SystemExit as end:
            return said.getvalue() if end.code else None


def ansible_parser(program: type[PlaybookCLI | AdHocCLI]) -> argparse.ArgumentParser:
    command = program(["ansible"])
    command.init_parser()
    return command.parser


def make_problems(arguments: list[str]) -> list[str]:
    assigned = [word.partition("=")[0] for word in arguments if "=" in word]
    targets = [word for word in arguments if "=" not in word and not word.startswith("-")]
    text = (ROOT / "Makefile").read_text(encoding="utf-8")
    wrong = [f"make {target}: no such target" for target in targets if target not in make_targets()]
    return wrong + [f"{name}: the Makefile reads no such variable" for name in assigned if f"$({name})" not in text]


def playbook_problems(arguments: list[str]) -> list[str]:
    args = parsed(ansible_parser(PlaybookCLI), arguments)
    if not isinstance(args, argparse.Namespace):
        return [args] if args else []
    wrong = [f"there is no playbook {name}" for name in args.args if not playbook_file(name).is_file()]
    return wrong + hold_inventory(args.inventory) + hold_variables(extra_variables(args.extra_vars))


def module_call_problems(arguments: list[str]) -> list[str]:
    args = parsed(ansible_parser(AdHocCLI), arguments)
    if not isinstance(args, argparse.Namespace):
        return [args] if args else []
    module = args.module_name.removeprefix(f"{COLLECTION}.")
    if not (ROOT / "plugins/modules" / f"{module}.py").is_file():
        return [f"there is no module {args.module_name}"]
    return hold_inventory(args.inventory) + module_problems({args.module_name: parse_kv(args.module_args)})


def python_problems(arguments: list[str]) -> list[str]:
    path = arguments[2].partition("::")[0] if arguments[:2] == ["-m", "pytest"] else arguments[0]
    return [] if (ROOT / path).exists() else [f"there is no {path}"]


def fleet_problems(arguments: list[str]) -> list[str]:
    refused = parsed(cli.parser(), arguments)
    return [refused] if isinstance(refused, str) else []


HELD = {
    "make": make_problems,
    "ansible-playbook": playbook_problems,
    "ansible": module_call_problems,
    "python": python_problems,
    "python3": python_problems,
    "ocrfleet": fleet_problems,
}


def problems_of(line: str) -> list[str]:
    """What is wrong with a command line, in sentences."""
    words = shlex.split(line, comments=True)
    if "&&" in words:
        first = words.index("&&")
        return problems_of(shlex.join(words[:first])) + problems_of(shlex.join(words[first + 1 :]))
    program = program_of(line)
    arguments = words[[word.removeprefix(".venv/bin/") for word in words].index(program) + 1 :]
    if program in HELD:
        return HELD[program]([word for word in arguments if word != "&"])
    if (ROOT / program).is_file():
        return []
    return [] if program in PROGRAMS else [f"{program} is not known here; is it ours, or a program of the system?"]
