# Copyright (c) The ocrfleet.gpu_stack contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""One line that is the same for the same tree: tree.py PREFIX [deep]. Shares no code with the collection on purpose.

Every entry's type, mode, owner, size, time of change of content and link target go into it; with `deep` every byte too.
Left out is only what docs/guarantee.md names: compiled files, which Python writes whenever it imports.
"""

from __future__ import annotations

import hashlib
import os
import stat
import sys


def main() -> None:
    prefix, deep = sys.argv[1], sys.argv[2:] == ["deep"]
    whole = hashlib.sha256()
    entries = 0
    for folder, folders, files in os.walk(prefix):
        folders[:] = sorted(name for name in folders if name != "__pycache__")
        for name in sorted([*folders, *files]):
            path = os.path.join(folder, name)
            found = os.lstat(path)
            line = [os.path.relpath(path, prefix), found.st_mode, found.st_uid, found.st_gid]
            if stat.S_ISLNK(found.st_mode):
                line.append(os.readlink(path))
            elif stat.S_ISREG(found.st_mode):
                line += [found.st_size, found.st_mtime_ns]
                if deep:
                    with open(path, "rb") as file:
                        line.append(hashlib.file_digest(file, "sha256").hexdigest())
            whole.update(f"{line}\n".encode())
            entries += 1
    print(f"{entries} entries {whole.hexdigest()}")


main()
