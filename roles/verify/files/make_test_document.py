# Copyright (c) 2026 The ocrfleet.gpu_stack contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Write test-document.pdf: one page with a few lines of text, the same bytes on every run. Needs no tools."""

from __future__ import annotations

from pathlib import Path

LINES = [
    (24, "Test document"),
    (14, "Seventeen blue herons crossed the frozen lake at dawn."),
    (14, "Their shadows were counted twice, once by the miller and once by the clock."),
    (14, "Nothing else was written down that day."),
]


def page_content() -> bytes:
    text = ["BT", "72 720 Td"]
    for size, line in LINES:
        text += [f"/F1 {size} Tf", f"({line}) Tj", f"0 -{size + 14} Td"]
    return "\n".join([*text, "ET"]).encode("ascii")


def pdf() -> bytes:
    content = page_content()
    objects = [
        b"<< /Type /Catalog /Pages 2 0 R >>",
        b"<< /Type /Pages /Kids [3 0 R] /Count 1 >>",
        b"<< /Type /Page /Parent 2 0 R /MediaBox [0 0 612 792] /Contents 4 0 R"
        b" /Resources << /Font << /F1 5 0 R >> >> >>",
        b"<< /Length %d >>\nstream\n%s\nendstream" % (len(content), content),
        b"<< /Type /Font /Subtype /Type1 /BaseFont /Helvetica >>",
    ]
    out = b"%PDF-1.4\n"
    offsets = []
    for number, body in enumerate(objects, start=1):
        offsets.append(len(out))
        out += b"%d 0 obj\n%s\nendobj\n" % (number, body)
    start = len(out)
    out += b"xref\n0 %d\n0000000000 65535 f \n" % (len(objects) + 1)
    out += b"".join(b"%010d 00000 n \n" % offset for offset in offsets)
    out += b"trailer\n<< /Size %d /Root 1 0 R >>\nstartxref\n%d\n%%%%EOF\n" % (len(objects) + 1, start)
    return out


if __name__ == "__main__":
    Path(__file__).with_name("test-document.pdf").write_bytes(pdf())
