# Copyright (c) 2026 The ocrfleet.gpu_stack contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Write each role's table of variables into its README, from meta/argument_specs.yml: role_tables.py [--check]"""

from __future__ import annotations

import re
import sys
from pathlib import Path

import yaml

ROLES = Path(__file__).resolve().parents[1] / "roles"
BEGIN = "<!-- variables -->"
END = "<!-- end of variables -->"


def plain(text: str) -> str:
    """Ansible's markup as Markdown, in one line, fit for a table's cell."""
    text = re.sub(r"\b[COVMPE]\(([^()]*(?:\([^()]*\))?[^()]*)\)", r"`\1`", text)
    return " ".join(text.split()).replace("|", "\\|")


def cell(value: object) -> str:
    text = "[" + ", ".join(map(str, value)) + "]" if isinstance(value, list) else str(value)
    text = {"True": "true", "False": "false"}.get(text, text)
    return f"`{text}`".replace("|", "\\|") if text else "empty"


def table(role: Path) -> str:
    """The Markdown table of a role's variables."""
    spec = yaml.safe_load((role / "meta/argument_specs.yml").read_text(encoding="utf-8"))["argument_specs"]["main"]
    lines = ["| variable | type | default | meaning |", "|---|---|---|---|"]
    for name, option in spec.get("options", {}).items():
        said = option["description"]
        meaning = plain(" ".join(said) if isinstance(said, list) else said)
        kind = option["type"] + (f" of {option['elements']}" if "elements" in option else "")
        if "choices" in option:
            kind += ": " + ", ".join(map(str, option["choices"]))
        lines.append(f"| `{name}` | {kind} | {cell(option.get('default', ''))} | {meaning} |")
    return "\n".join(lines)


def with_table(readme: str, text: str) -> str:
    """The README with its table renewed; the table stands between the two markers, or at the end."""
    block = f"{BEGIN}\n\n{text}\n\n{END}"
    if END in readme:
        return re.sub(re.escape(BEGIN) + ".*?" + re.escape(END), lambda match: block, readme, flags=re.DOTALL)
    return readme.replace(BEGIN, block) if BEGIN in readme else readme.rstrip() + f"\n\n{block}\n"


def main() -> int:
    stale = []
    for role in sorted(path for path in ROLES.iterdir() if (path / "meta/argument_specs.yml").exists()):
        path = role / "README.md"
        before = path.read_text(encoding="utf-8")
        after = with_table(before, table(role))
        if before != after:
            stale.append(role.name)
            if "--check" not in sys.argv:
                path.write_text(after, encoding="utf-8")
    if stale and "--check" in sys.argv:
        print("run `make tables`, these READMEs are not what their argument_specs say:", ", ".join(stale))
        return 1
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
