# Copyright (c) The ocrfleet.gpu_stack contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Make a FlashInfer whose metadata is whole and whose build raises: broken_sdist.py FOLDER"""

import io
import sys
import tarfile
from pathlib import Path

FILES = {
    "PKG-INFO": "Metadata-Version: 2.2\nName: flashinfer-python\nVersion: 9.9.9\nRequires-Python: >=3.9\n",
    "pyproject.toml": '[build-system]\nrequires = []\nbuild-backend = "backend"\nbackend-path = ["."]\n'
    '[project]\nname = "flashinfer-python"\nversion = "9.9.9"\n',
    "backend.py": "raise RuntimeError('this build breaks on purpose')\n",
}

folder = Path(sys.argv[1])
folder.mkdir(parents=True, exist_ok=True)
with tarfile.open(folder / "flashinfer_python-9.9.9.tar.gz", "w:gz") as archive:
    for name, text in FILES.items():
        info = tarfile.TarInfo(f"flashinfer_python-9.9.9/{name}")
        info.size = len(text)
        archive.addfile(info, io.BytesIO(text.encode()))
