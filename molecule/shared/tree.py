# Copyright (c) 2026 The ocrfleet.gpu_stack contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""One line that is the same for the same tree: tree.py PREFIX [deep] [LISTING]. Shares no code with the collection on
purpose.

Every entry's type, mode, owner, size, time of change of content and link target go into it; with `deep` every byte and
every extended attribute too. LISTING is a file that gets them entry by entry. Left out is only what docs/guarantee.md
names: compiled files, which Python writes whenever it imports, and the times of the folders that it writes them into.
"""

from __future__ import annotations

import hashlib
import os
import stat
import sys
from concurrent.futures import ThreadPoolExecutor


def digest(path: str) -> str:
    with open(path, "rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def main() -> None:
    prefix, words = sys.argv[1], sys.argv[2:]
    deep = "deep" in words
    listing = [word for word in words if word != "deep"]
    paths = [prefix]
    for folder, folders, files in os.walk(prefix):
        folders[:] = sorted(name for name in folders if name != "__pycache__")
        paths += [os.path.join(folder, name) for name in sorted([*folders, *files])]
    regular = [path for path in paths if deep and stat.S_ISREG(os.lstat(path).st_mode)]
    with ThreadPoolExecutor() as pool:
        digests = dict(zip(regular, pool.map(digest, regular)))
    lines = []
    for path in paths:
        found = os.lstat(path)
        line = [os.path.relpath(path, prefix), found.st_mode, found.st_uid, found.st_gid]
        if stat.S_ISLNK(found.st_mode):
            line += [found.st_mtime_ns, os.readlink(path)]
        elif stat.S_ISREG(found.st_mode):
            line += [found.st_size, found.st_mtime_ns]
            if deep:
                line.append(digests[path])
        elif not os.path.exists(os.path.join(path, "__pycache__")):
            line.append(found.st_mtime_ns)
        if deep and not stat.S_ISLNK(found.st_mode):
            line.append(sorted((name, os.getxattr(path, name)) for name in os.listxattr(path)))
        lines.append(ascii(line))
    text = "\n".join([*lines, ""])
    for file_name in listing:
        with open(file_name, "w", encoding="ascii") as file:
            file.write(text)
    print(f"{len(lines)} entries {hashlib.sha256(text.encode()).hexdigest()}")


main()
