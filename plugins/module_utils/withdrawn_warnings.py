# Copyright (c) 2026 The ocrfleet.gpu_stack contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Withdraw the warning not to install FlashInfer from a text, and bring it back to the byte.

What goes is a sentence that begins with the warning, and nothing that stands beside it: no command, no requirement, no
other sentence. It is kept, base64-coded and with a checksum, in a comment where it stood. The mark of a list item or of
a quotation goes with a sentence that was all of it; a heading goes with its one paragraph, or stays. Whatever could be
more than the warning stays, and `standing` tells it.
"""

from __future__ import annotations

import base64
import binascii
import itertools
import re
import zlib
from collections.abc import Iterator
from dataclasses import dataclass

from ansible_collections.ocrfleet.gpu_stack.plugins.module_utils.document_comments import (
    HASH,
    MARKDOWN,
    NAME,
    Comment,
    Spoilt,
)

_GAP = r"[\s>*_`'\"]+"
_CLOSED = r"[*_)\]\"'\u201d\u2019`]*"
_STOP = rf"(?<!\be\.g)(?<!\bi\.e)[.!?;]+{_CLOSED}(?=\s|\Z)"
_BREAK = r"(?: {2}|\\)(?=\r?\n)"
_NEXT = r"[\s>]+"
_MARK = r"[\s>*_`'\"(\[)\]]"
# A warning of one release, place, way, kind or time ("do not install FlashInfer on gpu-07") stays true, and stays. So
# the sentence goes only where behind the name it ends, or goes on with nothing but a reason.
_ALWAYS = rf"(?:{_CLOSED},?{_NEXT}(?:here|ever|yet|now|again|any\s?more|at{_NEXT}all))*"
_REASON = (
    rf"(?:(?:because|since|as{_NEXT}(?:it|this|that|they|the))\b"
    r"|(?:it|its|it['\u2019]s|this|that|which|they|the|there|pytorch|torch|breaks|downgrades|moves|pulls|e\.g\.)(?!\S))"
)
_ONLY_SOME = (
    r"(?:in|into|on|onto|at|as|with|without|within|from|for|by|via|while|when|where|if|unless|until|till|before|after"
    r"|during|under|only|except|not|and|or|but|so)\b|v?\d"
)
_NAME_ENDS = rf"(?:-python|{_NEXT}wheel)?{_ALWAYS}"
_BEHIND = (
    rf"{_NAME_ENDS}{_CLOSED}"
    rf"(?:{_STOP}(?!(?<=;){_NEXT}{_ONLY_SOME})|{_BREAK}(?!\s+{_MARK}*{_ONLY_SOME})|[^\w(\[`\n:,\u2013\u2014-]*\Z"
    # Behind a colon at the end stands a list, or a block.
    rf"|{_NEXT}(?=because|since|as){_REASON}|(?:[,:](?={_GAP})|\s-+(?=\s)|\s*[\u2013\u2014]){_MARK}*{_REASON})"
)
# A reason goes with the warning; not what tells to do something, or until when or where. Those words, names and numbers
# of places and times, and a part of the sentence that does not go on with the reason.
_MORE = re.compile(
    r"\b(?:so|but|or|must|should|shall|needs?|ha(?:s|ve)\s+to|always|never|keeps?|stays?|remains?|do\s+not|don['\u2019]t"
    r"|until|till|unless|except|only|while|when\w*|where\w*|if|before|after|during|instead|first|please"
    r"|on|in|at|into|onto|under|within|inside|outside|for|from|every|each"
    r"|today|tonight|tomorrow|days?|weeks?|months?|years?|quarters?|(?:mon|tues|wednes|thurs|fri|satur|sun)day"
    r"|january|february|(?-i:March|May)|april|june|july|august|september|october|november|december"
    r"|production|prod|staging|servers?|hosts?|nodes?|machines?|clusters?|vms?)\b"
    r"|[(\[]|\d|:[*_]*\s*\Z"
    rf"|(?:[,:]|\s[-\u2013\u2014]){_MARK}+(?!{_MARK}|(?:and|because|since|as)\b|{_REASON})"
    rf"|\band\s+(?!\w+s\b|it\b|the\b)",
    re.IGNORECASE,
)
# "2.4.1" is no date.
_VERSION = re.compile(r"(?<![\w.-])\d{1,2}(?:\.\d{1,3}){1,2}(?:\+\w+)?(?![\w-]|\.\d)")
_WARNING = re.compile(
    rf"(?<![a-z0-9])(?:do{_GAP}not|don['\u2019]t|never)(?:{_GAP}ever)?(?:{_GAP}pip)?{_GAP}install(?:{_GAP}the)?{_GAP}flashinfer"
    rf"(?={_BEHIND})",
    re.IGNORECASE,
)
_NAME_END = re.compile(rf"\A{_NAME_ENDS}", re.IGNORECASE)
_WHY = re.compile(_REASON, re.IGNORECASE)
# Whatever may be meant as one.
_ANY = re.compile(
    r"(?:\bnot|n['\u2019]t|\bnever|\bavoid)\b[^.!?;]{0,60}\binstall\w*\b[^.!?;]{0,40}flashinfer", re.IGNORECASE
)
# What may stand before the warning in its sentence: marks and labels, but no quotation mark.
_MARKS = r"(?:[^\w\"'\u201c\u2018«`]|_)*"
_LABELS = re.compile(
    rf"{_MARKS}(?:(?:warning|important|caution|note|danger|attention|please)\b{_MARKS})*", re.IGNORECASE
)
# What may not stand behind it: a command, a requirement, or a line that could be a sentence of its own.
_COMMAND = re.compile(r"\binstall|==|`[^`]+`", re.IGNORECASE)
_OTHER_LINE = re.compile(r"\n[\s>]*[A-Z]")
_SENTENCE_END = re.compile(f"{_STOP}|{_BREAK}")
_CLOSING = re.compile(r"[*_)\]]+\Z")

_KEPT = f"{NAME} withdrew a warning here, and keeps it, with a checksum, for the way back: "
# How earlier releases began it, which kept no checksum.
_KEPT_BARE = f"{NAME} withdrew a warning here, and keeps it for the way back: "
_KEPT_CODED = (
    rf"(?:{re.escape(_KEPT)}(?P<coded>[A-Za-z0-9+/=]*) (?P<checksum>[0-9a-f]{{8}})"
    rf"|{re.escape(_KEPT_BARE)}(?P<bare>[A-Za-z0-9+/=]*))"
)
# What is left of one that is not as it was written, wrapped over lines as well.
_EDITED = re.compile(rf"{re.escape(NAME)}[\s>#*-]+withdrew[^\n]{{0,40}}")
# A comment that begins a line makes HTML of all that line. Behind an empty tag it is a part of its paragraph.
_INLINE = "<span></span>"

_QUOTED = r"[ \t]*(?:>[ \t]*)*"
_FENCE = re.compile(r"[\s>]*(?:(?:[-*+]|\d+[.)])[ \t]+)?(`{3,}(?!.*`)|~{3,})")
_INDENTED = re.compile(r"(?: {0,3}> ?)*(?: {4}|\t)")
_HEADING = re.compile(r"(#{1,6})[ \t]+(?=\S)")
_UNDERLINE = re.compile(r"[ ]{0,3}(=+|-+)\s*\Z")
_ITEM = re.compile(rf"{_QUOTED}(?P<mark>(?:[-*+]|\d+[.)])[ \t]+(?:\[[ xX]\][ \t]+)?)")
_CELL_END = re.compile(r"(?<!\\)\|")


@dataclass(frozen=True)
class _Piece:
    """A stretch of a text that is read by itself, by its offsets."""

    start: int
    end: int
    whole: int  # where its mark begins, which goes when nothing is left of it
    fixed: bool = False  # nothing is taken out of it
    code: bool = False
    section: int = 0  # of a heading: where that ends which goes with it


@dataclass(frozen=True)
class _Lines:
    """A text by lines, and what each of them is."""

    text: str
    lines: list[str]
    starts: list[int]
    code: list[bool]
    indented: list[bool]  # as code, which may be a paragraph of a list as well
    own: range

    def is_own(self, at: int) -> bool:
        return self.starts[at] in self.own

    def is_blank(self, at: int) -> bool:
        return not self.lines[at].strip(" \t\r\n>")

    def end(self, at: int) -> int:
        """Where the line's text ends, before its line end."""
        return self.starts[at] + len(self.lines[at].rstrip("\r\n"))

    def continues(self, at: int) -> bool:
        """Whether the line belongs to the paragraph before it."""
        return at < len(self.lines) and not (
            self.is_own(at)
            or self.is_blank(at)
            or self.code[at]
            or self.indented[at]
            or _HEADING.match(self.lines[at])
            or _ITEM.match(self.lines[at])
            or _CELL_END.search(self.lines[at])
        )


def _fenced(lines: list[str]) -> tuple[list[bool], int]:
    """Which lines are code between fences, and the number of the line whose fence is not closed, or 0."""
    fence, quoted, opened, result = "", False, 0, []
    for number, line in enumerate(lines, start=1):
        if quoted and not line.lstrip().startswith(">"):
            fence, quoted = "", False
        found = _FENCE.match(line)
        result.append(bool(fence or found))
        if found and not fence:
            fence, quoted, opened = found[1], line.lstrip().startswith(">"), number
        elif found and found[1].startswith(fence) and not line[found.end() :].strip():
            fence, quoted = "", False
    return result, opened if fence else 0


def _indented(lines: list[str], fenced: list[bool]) -> list[bool]:
    """Which lines are indented as code, and are no line of a paragraph that goes on."""
    result: list[bool] = []
    for at, line in enumerate(lines):
        follows = at == 0 or result[-1] or fenced[at - 1] or not lines[at - 1].strip(" \t\r\n>")
        result.append(follows and not fenced[at] and _INDENTED.match(line) is not None)
    return result


def open_fence(text: str) -> int:
    """The number of the line with a code fence that is not closed in the text, or 0."""
    return _fenced(_split(text))[1]


def _split(text: str) -> list[str]:
    return re.findall(r"[^\n]*\n|[^\n]+", text)


def _read(text: str, comment: Comment, own: range) -> _Lines:
    lines = _split(text)
    if comment is MARKDOWN:
        fenced, _opened = _fenced(lines)
        indented = _indented(lines, fenced)
        # A remark in code is one, however the code is marked.
        code = [inside or bool(re.match(r"(?: {4}|\t)\s*#", line)) for inside, line in zip(fenced, lines)]
    else:
        code, indented = [True] * len(lines), [False] * len(lines)
    return _Lines(text, lines, [0, *itertools.accumulate(map(len, lines))], code, indented, own)


def _of_code(read: _Lines, at: int) -> Iterator[_Piece]:
    """The code of a line, and its remark."""
    start, line = read.starts[at], read.lines[at]
    for found in re.finditer(r"(?:(?<=\s)|^)#+[ \t]*", line):
        before = line[: found.start()]
        if before.count('"') % 2 == 0 and before.count("'") % 2 == 0:
            yield _Piece(start, start + found.start(), start, fixed=True)
            yield _Piece(start + found.end(), read.end(at), start + found.start(), code=True)
            return
    yield _Piece(start, read.end(at), start, fixed=True)


def _cells(read: _Lines, at: int) -> Iterator[_Piece]:
    start = read.starts[at]
    for border in [*(read.starts[at] + found.start() for found in _CELL_END.finditer(read.lines[at])), read.end(at)]:
        content = read.text[start:border]
        inner = start + len(content) - len(content.lstrip())
        yield _Piece(inner, inner + len(content.strip()), inner)
        start = border + 1


def _heading(read: _Lines, at: int, heading: re.Match) -> _Piece:
    """A heading and the end of its one paragraph. One that has more below it is fixed."""
    last, following = at, _after_blanks(read, at + 1)
    while read.continues(following):
        last, following = following, following + 1
    following = _after_blanks(read, following)
    start, ends = read.starts[at], following == len(read.lines) or read.is_own(following)
    if not ends and not read.code[following]:
        other = _HEADING.match(read.lines[following])
        ends = other is not None and len(other[1]) <= len(heading[1])
    return _Piece(start + heading.end(), read.end(at), start, fixed=not ends, section=read.end(last))


def _after_blanks(read: _Lines, at: int) -> int:
    while at < len(read.lines) and read.is_blank(at) and not read.is_own(at):
        at += 1
    return at


def _paragraph(read: _Lines, at: int, end: int) -> _Piece:
    start, line = read.starts[at], read.lines[at]
    item = _ITEM.match(line)
    quoted = re.match(_QUOTED, line)
    mark = start + (item.end() if item else quoted.end() if quoted else 0)
    whole = start + item.start("mark") if item else start + len(line) - len(line.lstrip())
    below = next((read.lines[number] for number in range(end, len(read.lines)) if not read.is_blank(number)), "")
    if item and len(below) - len(below.lstrip()) > item.start("mark"):
        whole = mark  # what is below the item needs its mark
    # A line underlined is a heading.
    fixed = any(_UNDERLINE.match(read.lines[number]) for number in range(at + 1, end))
    return _Piece(mark, read.end(end - 1), whole, fixed=fixed)


def _pieces(read: _Lines) -> Iterator[_Piece]:
    at = 0
    while at < len(read.lines):
        following = at + 1
        if read.is_own(at) or read.is_blank(at):
            pass
        elif read.code[at]:
            yield from _of_code(read, at)
        elif read.indented[at]:
            yield _Piece(read.starts[at], read.end(at), read.starts[at], fixed=True)
        elif heading := _HEADING.match(read.lines[at]):
            yield _heading(read, at, heading)
        elif _CELL_END.search(read.lines[at]):
            yield from _cells(read, at)
        else:
            while read.continues(following):
                following += 1
            yield _paragraph(read, at, following)
        at = following


def _sentence(content: str, warning: re.Match) -> tuple[int, int] | None:
    """The sentence that begins with the warning; None where it may say more than that."""
    before = [found.end() for found in _SENTENCE_END.finditer(content, 0, warning.start())]
    start = before[-1] if before else 0
    start += len(content[start:]) - len(content[start:].lstrip())
    if not _LABELS.fullmatch(content, start, warning.start()):
        return None
    # A label on a line of its own may belong to more than this sentence.
    start = max([start, *(found.end() for found in re.finditer(r"\n[\s>]*", content[: warning.start()]))])
    ending = _SENTENCE_END.search(content, warning.end())
    end = ending.end() if ending else len(content)
    if ending and not ending[0].strip("\\ "):
        end = ending.start()  # a break of the line stays with the line
    if _COMMAND.search(content, warning.end(), end) or _OTHER_LINE.search(content, warning.end(), end):
        return None
    if _says_more(_NAME_END.sub("", content[warning.end() : end])):
        return None
    if not _balanced(content[start:end]):
        word = re.search(r"[^\W_]", content[start:end])
        start += word.start() if word else 0
        end -= len(content[start:end]) - len(_CLOSING.sub("", content[start:end]))
    return (start, end) if _balanced(content[start:end]) else None


def _says_more(reason: str) -> bool:
    """Whether behind the warning stands more than why."""
    return bool(_MORE.search(_VERSION.sub("", reason)))


def _explains(paragraph: str) -> bool:
    """Whether the paragraph under a heading is one sentence that says why, or nothing."""
    said = paragraph.strip("\r\n\t >*_")
    ending = _SENTENCE_END.search(said)
    alone = ending is None or ending.end() == len(said)
    return not said or (alone and _WHY.match(said) is not None and not _says_more(said))


def _balanced(text: str) -> bool:
    """Whether emphasis and brackets that are opened in the text are closed in it."""
    marks = all(text.count(mark) % 2 == 0 for mark in ("**", "*", "_"))
    return marks and text.count("(") == text.count(")") and text.count("[") == text.count("]")


def _hidden(text: str, start: int, end: int) -> bool:
    """Whether the stretch is, or has to do with, a comment in Markdown."""
    return text.rfind("<!--", 0, end) > text.rfind("-->", 0, start) or "-->" in text[start:end]


def _edits(read: _Lines, piece: _Piece) -> Iterator[tuple[int, int, str]]:
    """What is to be replaced in a piece: from, to, by what."""
    content = read.text[piece.start : piece.end]
    found = [_sentence(content, warning) for warning in _WARNING.finditer(content)] if not piece.fixed else []
    taken = sorted({span for span in found if span})
    if not taken:
        return
    left = content
    for start, end in reversed(taken):
        left = left[:start] + left[end:]
    whole = _LABELS.fullmatch(left)
    if whole:
        taken = [(0, piece.section - piece.start if piece.section else len(content.rstrip()))]
    below = read.text[piece.end : piece.section]
    if piece.section and (not whole or _COMMAND.search(below) or not _explains(below)):
        return
    for start, end in taken:
        begin, finish = piece.start + start, piece.start + end
        if start == 0 and (whole or piece.code):
            begin = piece.whole
        if _hidden(read.text, begin, finish):
            continue
        keep = (HASH if piece.code else MARKDOWN)(_KEPT + _coded(read.text[begin:finish]))
        line = read.text[read.text.rfind("\n", 0, begin) + 1 : begin]
        begins = re.fullmatch(_QUOTED, line) or _ITEM.fullmatch(line)
        yield begin, finish, (_INLINE if begins and not whole and not piece.code else "") + keep


def _coded(text: str) -> str:
    coded = base64.b64encode(text.encode("utf-8", "surrogateescape")).decode()
    return f"{coded} {_checksum(coded)}"


def _checksum(coded: str) -> str:
    return f"{zlib.crc32(coded.encode()):08x}"


def _taken(read: _Lines) -> Iterator[tuple[int, int, str]]:
    """The edits of a text, in its order."""
    done = 0
    for start, end, keep in (edit for piece in _pieces(read) for edit in _edits(read, piece)):
        if start >= done:  # else it went with its heading
            yield start, end, keep
            done = end


def withdraw(text: str, comment: Comment, own: range = range(0)) -> str:
    """The text with each warning replaced by a comment that keeps it; `own` are offsets that are left alone."""
    made, done = "", 0
    for start, end, keep in _taken(_read(text, comment, own)):
        made, done = made + text[done:start] + keep, end
    return made + text[done:]


def withdrawn(text: str, comment: Comment, own: range = range(0)) -> list[tuple[int, str]]:
    """What `withdraw` takes out: the number of the line where it begins, and its words."""
    return [
        (text.count("\n", 0, start) + 1, " ".join(re.sub(r"\n[\s>]*", " ", text[start:end]).split()))
        for start, end, _keep in _taken(_read(text, comment, own))
    ]


def standing(text: str, comment: Comment, own: range = range(0)) -> list[tuple[int, str]]:
    """What may be meant as a warning and stays: the number of its line, and its words."""
    read = _read(text, comment, own)
    found = []
    for piece in _pieces(read):
        for warning in _ANY.finditer(text, piece.start, piece.end):
            at = text.count("\n", 0, warning.start())
            found.append((at + 1, read.lines[at].strip()))
    return found


def bring_back(text: str) -> str:
    """The text with every withdrawn warning where it stood. Raises Spoilt where one was edited."""
    notes = [
        re.compile(before + comment.find(_KEPT_CODED))
        for comment, before in ((MARKDOWN, f"(?:{_INLINE})?"), (HASH, ""))
    ]
    rest = text
    for note in notes:
        rest = note.sub("", rest)
    edited = _EDITED.search(rest)
    if edited:
        raise _spoilt(edited)
    for note in notes:
        text = note.sub(_decoded, text)
    return text


def _decoded(found: re.Match) -> str:
    coded = found["coded"] if found["bare"] is None else found["bare"]
    if found["checksum"] not in (None, _checksum(coded)):
        raise _spoilt(found)
    try:
        return base64.b64decode(coded, validate=True).decode("utf-8", "surrogateescape")
    except binascii.Error as error:
        raise _spoilt(found) from error


def _spoilt(found: re.Match) -> Spoilt:
    return Spoilt(
        f"a withdrawn warning cannot be read, somebody edited its comment: {' '.join(found[0][:80].split())}… Put the "
        "comment right, from your version control, or take it out by hand"
    )
