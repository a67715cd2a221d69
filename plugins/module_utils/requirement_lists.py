# Copyright (c) 2026 The ocrfleet.gpu_stack contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Keep a list of requirements one that pip installs when pins are added to it.

`packaging` is not asked: Ansible may run its modules with a Python that has none. What only it could tell, such as
whether a marker holds, is taken for what would be refused.
"""

from __future__ import annotations

import re

from ansible_collections.ocrfleet.gpu_stack.plugins.module_utils.distributions import canonical

_REQUIREMENT = re.compile(r"(?P<name>[A-Za-z0-9][\w.-]*)\s*(?:\[[^\]]*\])?\s*(?P<wanted>@\s*\S+|[=<>!~][^;#\\]*)")
_CLAUSE = re.compile(r"(===?|[<>!~]=|[<>])\s*([^\s,]+)")


class Unfit(Exception):
    """A list of requirements that pip would refuse with the pins in it."""


def fit(text: str, body: str, hashes: dict[str, list[str]]) -> str:
    """`body`, a text with lines `name==version`, as the list `text` around it needs it; `hashes` are by such lines."""
    lines = body.splitlines(keepends=True)
    pins = [line.strip() for line in lines if re.match(r"[A-Za-z0-9][\w.-]*==", line)]
    _hold(text, pins)
    if not re.search(r"^[^#\n]*--(?:hash=|require-hashes\b)", text, re.MULTILINE):
        return body
    without = [pin for pin in pins if not hashes.get(pin)]
    if without:
        raise Unfit(
            "it requires hashes, so that pip would install nothing with a pin that has none, and the evidence has none "
            f"of {', '.join(without)}. Name the evidence of the run that installed it (document_evidence), by a method "
            "other than source, or take the hashes out of the list"
        )
    return "".join(
        " \\\n".join([line.rstrip("\n"), *(f"    --hash={found}" for found in hashes[line.strip()])]) + "\n"
        if line.strip() in pins
        else line
        for line in lines
    )


def _hold(text: str, pins: list[str]) -> None:
    """Raise Unfit for the first line of the operator's that contradicts one of the pins."""
    versions = {canonical(name): version for name, version in (pin.split("==", 1) for pin in pins)}
    for number, line in enumerate(text.split("\n"), start=1):
        found = _REQUIREMENT.match(line)
        version = versions.get(canonical(found["name"])) if found else None
        if found and version and not _allows(found["wanted"].strip(), version):
            raise Unfit(
                f"line {number} asks for {found[0].strip()}, and verified is {canonical(found['name'])}=={version}: "
                "pip refuses both together. Take that line out, or have it ask for the version that was verified"
            )


def _allows(wanted: str, version: str) -> bool:
    """Whether the version may be what a requirement wants; a URL never is."""
    return not wanted.startswith("@") and all(_meets(version, *clause) for clause in _CLAUSE.findall(wanted))


def _numbers(version: str) -> list[int]:
    """The numbers of a release, less the zeros at its end: 1.0 is 1."""
    numbers = [int(number) for number in re.findall(r"\d+", version.partition("+")[0])]
    while numbers and not numbers[-1]:
        numbers.pop()
    return numbers


def _meets(version: str, how: str, wanted: str) -> bool:
    label, wanted_label = version.partition("+")[2], wanted.partition("+")[2]
    found, asked = _numbers(version), _numbers(wanted)
    if how in ("==", "===", "!="):
        if wanted.endswith(".*"):
            asked = [int(number) for number in re.findall(r"\d+", wanted)]
            same = [*found, *[0] * len(asked)][: len(asked)] == asked
        else:
            same = found == asked and wanted_label in ("", label)
        return same is (how != "!=")
    if how == "~=":
        series = [int(number) for number in re.findall(r"\d+", wanted)][:-1]
        return found >= asked and [*found, *[0] * len(series)][: len(series)] == series
    # A suffix such as .post1 is a number here, so what is at the border is let pass.
    return found >= asked if how in (">", ">=") else found <= asked
