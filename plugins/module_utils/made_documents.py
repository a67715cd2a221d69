# Copyright (c) 2026 The ocrfleet.gpu_stack contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Make PDFs to measure with: digital ones, scanned ones (each page a picture), and mixed ones.

The same bytes on every run of one poppler. Standard library and poppler's `pdftoppm`, which OlmOCR needs anyway.
"""

from __future__ import annotations

import os
import subprocess
import tempfile

KINDS = ("scanned", "digital", "mixed")
_WORDS = ["heron", "lake", "dawn", "miller", "clock", "shadow", "ledger", "orchard", "bridge", "winter", "letter"]


def _lines(document: int, page: int) -> list[str]:
    """Forty lines that differ from page to page."""
    number = document * 31 + page * 7
    return [
        " ".join(_WORDS[(number + line * 3 + word * (word + 1)) % len(_WORDS)] for word in range(10)) + f" {line}"
        for line in range(40)
    ]


def _written(objects: list[bytes]) -> bytes:
    out, offsets = b"%PDF-1.4\n", []
    for number, body in enumerate(objects, start=1):
        offsets.append(len(out))
        out += b"%d 0 obj\n%s\nendobj\n" % (number, body)
    start = len(out)
    out += b"xref\n0 %d\n0000000000 65535 f \n" % (len(objects) + 1)
    out += b"".join(b"%010d 00000 n \n" % offset for offset in offsets)
    return out + b"trailer\n<< /Size %d /Root 1 0 R >>\nstartxref\n%d\n%%%%EOF\n" % (len(objects) + 1, start)


def _stream(head: bytes, data: bytes) -> bytes:
    return b"<< %s /Length %d >>\nstream\n%s\nendstream" % (head, len(data), data)


def pdf(pages: list[list[str] | tuple[bytes, int, int]]) -> bytes:
    """A PDF whose pages are lines of text, or a JPEG with its width and height."""
    kids = b" ".join(b"%d 0 R" % (4 + 3 * at) for at in range(len(pages)))
    objects = [
        b"<< /Type /Catalog /Pages 2 0 R >>",
        b"<< /Type /Pages /Kids [%s] /Count %d >>" % (kids, len(pages)),
        b"<< /Type /Font /Subtype /Type1 /BaseFont /Helvetica >>",
    ]
    for at, page in enumerate(pages):
        content, extra = 5 + 3 * at, 6 + 3 * at
        if isinstance(page, tuple):
            picture, width, height = page
            about = b"/Type /XObject /Subtype /Image /ColorSpace /DeviceRGB /BitsPerComponent 8 /Filter /DCTDecode"
            more = _stream(about + b" /Width %d /Height %d" % (width, height), picture)
            resources, drawn = b"/XObject << /I %d 0 R >>" % extra, b"612 0 0 792 0 0 cm /I Do"
        else:
            more, resources = b"null", b"/Font << /F1 3 0 R >>"
            drawn = ("BT /F1 11 Tf 60 740 Td 16 TL " + " ".join(f"({line}) '" for line in page) + " ET").encode("ascii")
        objects += [
            b"<< /Type /Page /Parent 2 0 R /MediaBox [0 0 612 792] /Contents %d 0 R /Resources << %s >> >>"
            % (content, resources),
            _stream(b"", drawn),
            more,
        ]
    return _written(objects)


def _scanned(lines: list[str]) -> tuple[bytes, int, int]:
    """A page as a picture of 100 dots per inch."""
    with tempfile.TemporaryDirectory() as folder:
        source, target = os.path.join(folder, "page.pdf"), os.path.join(folder, "page")
        with open(source, "wb") as file:
            file.write(pdf([lines]))
        subprocess.run(["pdftoppm", "-jpeg", "-r", "100", "-singlefile", source, target], check=True, timeout=60)
        with open(target + ".jpg", "rb") as file:
            return file.read(), 850, 1100


def words(documents: int, pages: int) -> list[list[list[str]]]:
    """What stands on the pages of the PDFs of any kind: lines by page by document."""
    return [[_lines(document, page) for page in range(pages)] for document in range(documents)]


def make(folder: str, kind: str, documents: int, pages: int) -> list[str]:
    """Write the PDFs of one kind into `folder`; returns their paths."""
    paths = []
    for document, contents in enumerate(words(documents, pages)):
        made: list = []
        for page, lines in enumerate(contents):
            scanned = kind == "scanned" or (kind == "mixed" and page % 2 == 1)
            made.append(_scanned(lines) if scanned else lines)
        paths.append(os.path.join(folder, f"{kind}-{document}.pdf"))
        with open(paths[-1], "wb") as file:
            file.write(pdf(made))
    return paths
