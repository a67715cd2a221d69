# Copyright (c) 2026 The ocrfleet.gpu_stack contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""What the pages of the documentation show and name is there: files, links, variables, examples, texts of the code.

Their commands are held in test_documented_commands.py.
"""

from __future__ import annotations

import ast
import re
from collections.abc import Iterator
from functools import lru_cache

import pytest
import yaml
from ansible_collections.ocrfleet.gpu_stack.plugins.action import check_inputs
from documented import COLLECTION, ROOT, module_problems
from documented_commands import PAGES, PLACEHOLDER, fences, is_command, prose, variables

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


@pytest.mark.parametrize("page", PAGES, ids=lambda path: str(path.relative_to(ROOT)))
def test_every_block_says_what_it_is(page):
    unmarked = [text.splitlines()[0] for language, text in fences(page) if not language]
    assert unmarked == [], "give the fence a language: sh is held against the code, text is not"
    hidden = [line for language, text in fences(page) if language == "text" for line in text.splitlines()]
    assert [line for line in hidden if is_command(line)] == [], "a command belongs into a fence of the language sh"


@pytest.mark.parametrize("page", PAGES, ids=lambda path: str(path.relative_to(ROOT)))
def test_links_to_files_lead_to_one(page):
    targets = re.findall(r"\]\(([^)\s]+)\)", prose(page)) + re.findall(r'(?:src|href)="([^"]+)"', prose(page))
    files = [target.partition("#")[0] for target in targets if not re.match(r"[a-z]+:", target)]
    # The site has its reference made when it is built, and holds links into it by itself.
    here = [name for name in files if name and not name.startswith("reference/")]
    assert [name for name in here if not (page.parent / name).exists()] == []


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
        (
            "[{ocrfleet.gpu_stack.gpu_smoke: {environment: /e, kernel: [torch_matmul]}}]",
            "kernel. Supported parameters include",
        ),
    ],
)
def test_a_misfit_would_be_found(block, expected):
    assert any(expected in wrong for wrong in misfits(yaml.safe_load(block)))


@pytest.mark.parametrize("page", PAGES, ids=lambda path: str(path.relative_to(ROOT)))
def test_files_that_pages_name_are_there(page):
    # A new file's place is told with its NAME; patterns are taken as such.
    named = re.findall(rf"`((?:{ROOMS})/[^`\s]*)`", prose(page))
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


# Symptoms that no line of a run shows.
IN_OTHER_WORDS = {
    "OlmOCR gives up on vllm after 300 s, at its first start",
    "The play fails and names the baseline",
}


def symptoms() -> list[str]:
    """What the page on troubleshooting explains, as it stands there."""
    return re.findall(r"^(\S.*)\n: ", (ROOT / "docs/troubleshooting.md").read_text(encoding="utf-8"), re.M)


@pytest.mark.parametrize("symptom", [symptom for symptom in symptoms() if symptom not in IN_OTHER_WORDS])
def test_a_symptom_is_a_text_of_the_code(symptom):
    assert re.fullmatch("`.+`", symptom), "a text of the code stands in backquotes; see IN_OTHER_WORDS"
    pattern = "[^\n]*?".join(re.escape(" ".join(part.split())) for part in symptom.strip("`").split("…"))
    assert re.search(pattern, texts_of_the_code())


def test_each_symptom_in_other_words_is_explained():
    assert set(symptoms()) >= IN_OTHER_WORDS
