# Copyright (c) 2026 The ocrfleet.gpu_stack contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Make a FlashInfer whose metadata is whole and whose build raises: broken_sdist.py FOLDER [VERSION]"""

import io
import sys
import tarfile
from pathlib import Path

folder = Path(sys.argv[1])
version = sys.argv[2] if len(sys.argv) > 2 else "9.9.9"  # one that no index has
FILES = {
    "PKG-INFO": f"Metadata-Version: 2.2\nName: flashinfer-python\nVersion: {version}\nRequires-Python: >=3.9\n",
    "pyproject.toml": '[build-system]\nrequires = []\nbuild-backend = "backend"\nbackend-path = ["."]\n'
    f'[project]\nname = "flashinfer-python"\nversion = "{version}"\n',
    "backend.py": "raise RuntimeError('this build breaks on purpose')\n",
}

folder.mkdir(parents=True, exist_ok=True)
with tarfile.open(folder / f"flashinfer_python-{version}.tar.gz", "w:gz") as archive:
    for name, text in FILES.items():
        info = tarfile.TarInfo(f"flashinfer_python-{version}/{name}")
        info.size = len(text)
        archive.addfile(info, io.BytesIO(text.encode()))
