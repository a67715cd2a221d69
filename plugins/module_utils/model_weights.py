# Copyright (c) 2026 The ocrfleet.gpu_stack contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Whether a folder holds a whole model, as vllm loads it: configuration, tokenizer, and every byte of the weights.

A download that was cut short leaves files that are there and too small; vllm says so after minutes, or not at all.
"""

from __future__ import annotations

import json
import os

INDEX = "model.safetensors.index.json"
NEEDED = ("config.json", "tokenizer_config.json")

# What the format allows: https://github.com/huggingface/safetensors, "Format".
_LONGEST_HEADER = 100_000_000


def _read(path: str) -> dict:
    with open(path, encoding="utf-8") as file:
        found = json.load(file)
    if not isinstance(found, dict):
        raise ValueError("no JSON object")
    return found


def incomplete(path: str) -> str:
    """What a safetensors file lacks of what its own header promises; "" where it is whole."""
    size = os.path.getsize(path)
    with open(path, "rb") as file:
        length = int.from_bytes(file.read(8), "little")
        if not 2 <= length <= min(_LONGEST_HEADER, size - 8):
            return "its header is cut short"
        header = json.loads(file.read(length))
    ends = [entry["data_offsets"][1] for name, entry in header.items() if name != "__metadata__"]
    promised = 8 + length + max(ends, default=0)
    return "" if size == promised else f"{size} bytes, its header says {promised}"


def shards(folder: str) -> list[str]:
    """The names of the files with weights: those of the index, or all that there are."""
    if os.path.exists(os.path.join(folder, INDEX)):
        return sorted(set(_read(os.path.join(folder, INDEX))["weight_map"].values()))
    return sorted(name for name in os.listdir(folder) if name.endswith(".safetensors"))


def problems(folder: str) -> list[str]:
    """What is not as it should be, a file each; nothing where the model is whole."""
    if not os.path.isdir(folder):
        return ["there is no such folder"]
    found = [f"{name}: not there" for name in NEEDED if not os.path.exists(os.path.join(folder, name))]
    try:
        names = shards(folder)
    except (OSError, ValueError, KeyError, AttributeError) as error:
        return [*found, f"{INDEX}: cannot be read ({error})"]
    if not names:
        found.append("no *.safetensors")
    for name in names:
        path = os.path.join(folder, name)
        try:
            wrong = incomplete(path) if os.path.exists(path) else "not there"
        except (OSError, ValueError, KeyError, TypeError, IndexError, AttributeError):
            wrong = "its header cannot be read"
        found += [f"{name}: {wrong}"] if wrong else []
    return found
