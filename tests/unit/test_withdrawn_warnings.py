# Copyright (c) 2026 The ocrfleet.gpu_stack contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The warning goes, and nothing else: what is taken, what is left standing and told, and the way back to the byte."""

from __future__ import annotations

import random
import re

import pytest
from ansible_collections.ocrfleet.gpu_stack.plugins.module_utils import managed_blocks, withdrawn_warnings
from ansible_collections.ocrfleet.gpu_stack.plugins.module_utils.document_comments import HASH, MARKDOWN, Spoilt
from markdown_it import MarkdownIt

WARNING = "DO NOT install FlashInfer"


def shown(text: str) -> str:
    """The text with an @ for each withdrawn warning."""
    text = re.sub(r"<!-- ocrfleet\.gpu_stack withdrew [^>]*-->", "@", text)
    return re.sub(r"# ocrfleet\.gpu_stack withdrew [^:]*: [A-Za-z0-9+/=]+ [0-9a-f]{8}", "@", text)


def withdrawn(text: str, comment=MARKDOWN) -> str:
    """What is left of the text, after a look that the way there is taken once, and that the way back leads home."""
    done = withdrawn_warnings.withdraw(text, comment)
    assert withdrawn_warnings.withdraw(done, comment) == done
    assert withdrawn_warnings.bring_back(done) == text
    block = managed_blocks.documented(text, "body", comment)
    assert managed_blocks.documented(block, "body", comment) == block
    assert managed_blocks.undocumented(block, comment) == text
    return shown(done)


@pytest.mark.parametrize(
    ("text", "left"),
    [
        (f"torch==2.8.0  # {WARNING}, it downgrades torch\n", "torch==2.8.0  @\n"),
        (f"torch==2.8.0  # {WARNING}", "torch==2.8.0  @"),
        (f"# {WARNING}: it downgrades torch==2.8.0\nolmocr\n", None),
        (f"# {WARNING}!\r\nolmocr\r\n", "@\r\nolmocr\r\n"),
        (f"# CUDA 12.8 first. {WARNING}. Reboot.\n", "# CUDA 12.8 first. @ Reboot.\n"),
        (f"# {WARNING}. Then reboot.\n", "@ Then reboot.\n"),
        (f"# (CUDA first. {WARNING}.)\n", "# (CUDA first. @)\n"),
        (f"{WARNING}\n", None),  # no comment: whatever it is, it is no remark
        ("flashinfer-python==0.3.1  # or do not install flashinfer at all\n", None),
    ],
)
def test_of_a_list_of_requirements_only_a_remark_goes(text, left):
    assert withdrawn(text, HASH) == (text if left is None else left)


@pytest.mark.parametrize(
    ("text", "left"),
    [
        # code
        (f"```sh\na\n# {WARNING}\nb\n```\n", "```sh\na\n@\nb\n```\n"),
        (f"```sh\npip install olmocr # {WARNING}\n```\n", "```sh\npip install olmocr @\n```\n"),
        (f'```sh\necho "a # {WARNING}"\n```\n', None),
        (f"```text\n{WARNING}\n```\n", None),
        (f"````md\n```\n# {WARNING}\n```\n{WARNING}\n````\n{WARNING}\n", f"````md\n```\n@\n```\n{WARNING}\n````\n@\n"),
        (f"> ```sh\n> pip install olmocr # {WARNING}\n> ```\n", "> ```sh\n> pip install olmocr @\n> ```\n"),
        (f"a\n\n    # {WARNING}\n    pip install olmocr\n", "a\n\n    @\n    pip install olmocr\n"),
        (f"a\n\n    pip install olmocr # {WARNING}\n", None),
        (f"a\n\n    {WARNING}\n", None),
        (f"a\n\n    pip install olmocr\n    {WARNING}\n\n\t{WARNING}\n\nb\n", None),
        (f"    {WARNING}\n", None),
        (f"> a\n>\n>     {WARNING}\n", None),
        (f"a\n\n    | PyTorch | {WARNING} |\n", None),
        (f"a.\n    {WARNING}.\n", "a.\n    <span></span>@\n"),  # behind a line of a paragraph it goes on with it
        (f"```a``` b\n\n{WARNING}\n\n```c``` d\n", "```a``` b\n\n@\n\n```c``` d\n"),  # code in a line, no fence
        (f"> ```\n> a\n\n{WARNING}\n", "> ```\n> a\n\n@\n"),  # the fence ends with its quotation
        # tables
        (f"| PyTorch | 2.8.0+cu128 | {WARNING} |\n", "| PyTorch | 2.8.0+cu128 | @ |\n"),
        (f"PyTorch | 2.8.0 | {WARNING}\n", "PyTorch | 2.8.0 | @\n"),
        # lists
        (f"a\n- {WARNING}\n  because\n- b\n", "a\n@\n- b\n"),
        (f"1. {WARNING}\n2. Reboot\n", "@\n2. Reboot\n"),
        (f"- [ ] {WARNING}\n- b\n", "@\n- b\n"),
        (f"- {WARNING}. Then reboot.\n", "- <span></span>@ Then reboot.\n"),
        (f"- {WARNING}\n  - CUDA 12.8\n- b\n", "- @\n  - CUDA 12.8\n- b\n"),
        # headings
        (f"## {WARNING}\n\nIt breaks.\n\n## Next\n", "@\n\n## Next\n"),
        (f"## {WARNING}\n## Next\n", "@\n## Next\n"),
        (f"# VM setup: {WARNING}\n\n## CUDA\n\nInstall it.\n", None),
        (f"# {WARNING}\n\nIt breaks.\n\n## CUDA\n\nInstall it.\n", None),
        (f"## {WARNING}\n\n```sh\npip install olmocr\n```\n", None),
        (f"## {WARNING}\n\n- Install CUDA 12.8\n", None),
        (f"## {WARNING}\n\nIt moves torch, so always back up first.\n", None),
        (f"## {WARNING}\n\nUntil 1 March.\n", None),
        (f"## {WARNING}\n\nKeep the driver.\n", None),
        (f"## {WARNING}\n\nIt breaks. Reboot then.\n", None),
        (f"{WARNING}  \nuntil 1 March.\n", None),
        (f"## {WARNING}\n\nInstall CUDA 12.8 before.\n", None),
        (f"## {WARNING}\n\nIt breaks.\n\nInstall CUDA 12.8.\n", None),
        (f"{WARNING}\n------\nb\n", None),
        # paragraphs
        (f"Install CUDA first. {WARNING}. Then reboot the VM.\n", "Install CUDA first. @ Then reboot the VM.\n"),
        (f"{WARNING}. Then reboot the **VM**.\n", "<span></span>@ Then reboot the **VM**.\n"),
        (f"{WARNING}; reboot the VM.\n", "<span></span>@ reboot the VM.\n"),
        (f"{WARNING}  \nReboot the VM.\n", "<span></span>@  \nReboot the VM.\n"),
        ("a\n\n**Do not\ninstall `FlashInfer`**, ever.\nReally.\n", "a\n\n<span></span>@\nReally.\n"),
        (f"**{WARNING}. Install CUDA.** b\n", "**@ Install CUDA.** b\n"),
        (f"**Install CUDA. {WARNING}.** b\n", "**Install CUDA. @** b\n"),
        (f"Warning: {WARNING}, e.g. by pip.\n", "@\n"),
        (f"Warning! {WARNING}.\n", "@\n"),
        (f"> [!WARNING]\n> {WARNING}\n> because it breaks\n\nb\n", "@\n\nb\n"),
        (f"> **Warning**\n> {WARNING}. Reboot.\n", "> **Warning**\n> <span></span>@ Reboot.\n"),
        (f"{WARNING}  \n> on gpu-07.\n", None),
        (f"{WARNING}:\n\n- as root\n- on gpu-07\n", None),
        (f"**{WARNING}:**\n\n- as root\n", None),
        (f"{WARNING}, because:\n\n- gpu-07 is frozen\n", None),
        (f"{WARNING}\nInstall CUDA 12.8\n", None),
        (f"{WARNING}, but `pip install olmocr`.\n", None),
        (f"{WARNING} and install CUDA 12.8 first.\n", None),
        (f"{WARNING}, torch==2.8.0 is needed.\n", None),
        (f"Install CUDA 12.8, and {WARNING}.\n", None),
        (f'The guide said "{WARNING}" once.\n', None),
        (f'"{WARNING}" is what the guide said.\n', None),
        (f"`{WARNING}`\n", None),
        (f"<!-- {WARNING} -->\n", None),
        (f"<!--\n\n{WARNING}\n\n-->\n", None),
    ],
)
def test_of_a_document_only_the_warning_goes(text, left):
    assert withdrawn(text) == (text if left is None else left)


@pytest.mark.parametrize(
    "wording",
    [
        "do not install flashinfer-python",
        "Don't install FlashInfer",
        "Don\u2019t install FlashInfer",
        "NEVER install FlashInfer",
        "**DO NOT** install FlashInfer",
        "DO NOT install the FlashInfer wheel",
        "DO NOT pip install flashinfer",
        "Never ever `pip install flashinfer`",
        "Please do not install FlashInfer. It breaks the pipeline",
        "Do not install FlashInfer: it downgrades PyTorch",
        "**Do not install FlashInfer:** it downgrades PyTorch.",
        "Do not install FlashInfer: **it downgrades PyTorch**.",
        "Do not install FlashInfer: as it downgrades PyTorch.",
        "Do not install FlashInfer - it downgrades PyTorch.",
        "Do not install FlashInfer \u2014 the pipeline breaks.",
        "Do not install FlashInfer, it downgrades PyTorch.",
        "Do not install FlashInfer, it downgrades PyTorch, which breaks the pipeline.",
        "Do not install FlashInfer, since it downgrades PyTorch to 2.4.1 and breaks the pipeline.",
        "Do not install FlashInfer - breaks PyTorch.",
        "Do not install FlashInfer: PyTorch is downgraded.",
        "Do not install FlashInfer, as it downgrades PyTorch.",
        "Do not install FlashInfer as it downgrades PyTorch.",
        "Do not install FlashInfer because it downgrades PyTorch.",
        "**Do not install FlashInfer** because nobody has found a way.",
        "Do not install FlashInfer here, ever!",
        "Do not install FlashInfer yet",
        "Do not install FlashInfer at all: it downgrades PyTorch.",
        "\u26a0\ufe0f **DO NOT install FlashInfer** \u26a0\ufe0f",
    ],
)
def test_each_wording_of_the_warning_is_known(wording):
    assert withdrawn(f"{wording}\n").startswith(("@", "<span></span>@"))


@pytest.mark.parametrize(
    ("text", "told"),
    [
        (f"a\n\n- {WARNING}.\n\n{WARNING}, it breaks. b\n", [(3, f"- {WARNING}."), (5, f"{WARNING}, it breaks.")]),
        (f"## {WARNING}\n\nIt\nbreaks.\n", [(1, f"## {WARNING} It breaks.")]),
        (f"> {WARNING}\n> as it breaks.\n", [(1, f"> {WARNING} as it breaks.")]),
        ("Do not install FlashInfer as root.\n", []),
    ],
)
def test_what_goes_is_told_with_its_line_and_told_once(text, told):
    assert withdrawn_warnings.withdrawn(text, MARKDOWN) == told
    done = withdrawn_warnings.withdraw(text, MARKDOWN)
    assert withdrawn_warnings.withdrawn(done, MARKDOWN) == []


@pytest.mark.parametrize(
    "text",
    [
        "Do not install FlashInfer 0.2.5, it wants PyTorch 2.7.",
        "Do not install the FlashInfer wheel 0.2.5.",
        "do not install flashinfer-python==0.2.5",
        "Do not install FlashInfer without --no-deps.",
        # of a place, a way, a kind, a time
        "Never install FlashInfer into the base environment.",
        "Do not install FlashInfer on gpu-07: its driver is too old.",
        "Never install FlashInfer as root.",
        "Do not install FlashInfer with plain pip.",
        "Do not install FlashInfer on machines with CUDA 11.",
        "Do not install the FlashInfer nightly.",
        "Do not install FlashInfer while the service runs.",
        "Do not install FlashInfer from the index that the README names.",
        "Don't install flashinfer-cubin, its version does not match.",
        "Do not install FlashInfer (cu130 build).",
        "Do not install flashinfer-jit-cache.",
        "**Do not install FlashInfer** as root.",
        "Never install FlashInfer here as root.",
        "Do not install FlashInfer: on gpu-07 the driver is too old.",
        "Do not install FlashInfer \u2014 only where CUDA 11 is.",
        "**Do not install FlashInfer:** on gpu-07 the driver is too old.",
        "Do not install FlashInfer: **only** where CUDA 11 is.",
        "Do not install flashinfer:latest.",
        "Do not install FlashInfer: 0.2.5 pulls PyTorch down.",
        "Do not install FlashInfer, TheRock or apex.",
        "Do not install FlashInfer, unless the driver is new.",
        "Do not install FlashInfer, xformers or apex.",
        "Do not install FlashInfer and xformers.",
        "Do not install FlashInfer, 0.2.5 pulls PyTorch down.",
        # of a time, or with more to it than a reason
        "DO NOT install FlashInfer until 1 March.",
        "**Do not install FlashInfer** until somebody has found a way.",
        "DO NOT install FlashInfer, until it fits.",
        "DO NOT install FlashInfer until the audit of gpu-07 is over.",
        "DO NOT install FlashInfer because production (gpu-07) must stay on the frozen baseline until the audit ends.",
        "DO NOT install FlashInfer because production is frozen.",
        "DO NOT install FlashInfer because gpu-07 is frozen.",
        "DO NOT install FlashInfer since Monday.",
        "DO NOT install FlashInfer, it breaks till March.",
        "DO NOT install FlashInfer; only root may.",
        "Do not install FlashInfer, or the pipeline breaks.",
        "DO NOT install FlashInfer, or you must run conda env remove -n olmocr and start from baseline-20261101.txt.",
        "DO NOT install FlashInfer: it moves torch, so always back up /opt/conda first.",
        "DO NOT install FlashInfer: it breaks torch, it costs a day, but keep CUDA 12.8 and never upgrade the driver.",
        "DO NOT install FlashInfer: back up the environment.",
        "DO NOT install FlashInfer, it breaks torch, reboot then.",
        "DO NOT install FlashInfer, it breaks torch and reboot.",
        "DO NOT install FlashInfer as it is on the A100s; the others are free.",
        "DO NOT install FlashInfer because it breaks the H100.",
        "You should avoid installing FlashInfer.",
        f"The guide said \u201c{WARNING}\u201d.",
        f"Install CUDA, and {WARNING}.",
    ],
)
def test_what_stays_is_told_with_its_line(text):
    assert withdrawn(f"a\n\n{text}\n") == f"a\n\n{text}\n"
    assert withdrawn(f"# {text}\n", HASH) == f"# {text}\n"
    assert withdrawn_warnings.standing(f"a\n\n{text}\n", MARKDOWN) == [(3, text)]
    assert withdrawn_warnings.standing(f"a\n{text}\n", HASH) == [(2, text)]


PLACES = ["in", "into", "on", "onto", "at", "as", "with", "without", "within", "from", "for", "by", "via", "under"]
CONDITIONS = ["while", "when", "where", "if", "unless", "before", "after", "only", "except", "not", "and", "or"]


@pytest.mark.parametrize("word", [*PLACES, "during", *CONDITIONS])
@pytest.mark.parametrize("behind", ["", ":", ",", " -", "\u2014"])
def test_a_warning_of_some_cases_stays_however_it_goes_on(word, behind):
    text = f"{WARNING}{behind} {word} such.\n"
    assert withdrawn(text) == text


@pytest.mark.parametrize("text", ["Install FlashInfer.\n\nDo not install xformers.\n", f"{WARNING}\n", "", "a\n"])
def test_nothing_is_told_where_no_warning_is_left(text):
    done = managed_blocks.documented(text, "Do not install FlashInfer with plain pip.", MARKDOWN)
    assert withdrawn_warnings.standing(done, MARKDOWN, managed_blocks.extent(done, MARKDOWN)) == []


@pytest.mark.parametrize(
    ("text", "left"),
    [
        (f"{WARNING}. Then *reboot*.\nNext.", "<p> Then <em>reboot</em>.\nNext.</p>"),
        (f"a.\n{WARNING}.\n*b*", "<p>a.\n\n<em>b</em></p>"),
        (f"1. a\n2. {WARNING}. *b*\n3. c", "<ol>\n<li>a</li>\n<li> <em>b</em></li>\n<li>c</li>\n</ol>"),
    ],
)
def test_what_is_left_of_a_paragraph_is_still_markdown(text, left):
    """A comment that begins a line would make the rest of that line HTML."""
    page = MarkdownIt().render(withdrawn_warnings.withdraw(text, MARKDOWN))
    assert re.sub(r"<!--.*?-->|</?span>", "", page).strip() == left


def cut_short(text: str) -> str:
    return re.sub(r"[A-Za-z0-9+/]{8}(=* [0-9a-f]{8})", r"\1", text)


@pytest.mark.parametrize(
    "edit",
    [
        cut_short,
        lambda text: re.sub(r" [0-9a-f]{8}(?= -->|\s)", "", text),
        lambda text: text.replace("withdrew a warning", "withdrew\na warning"),
        lambda text: re.sub(r"(?<=: )(.{20})", r"\1\n", text),
        lambda text: text.replace("for the way back", "for the way home"),
        lambda text: text.replace("ocrfleet.gpu_stack withdrew", "ocrfleet.gpu_stack\n> # withdrew"),
        lambda text: text[: len(text) // 2],
    ],
)
@pytest.mark.parametrize(
    ("text", "comment"), [(f"{WARNING}, it breaks PyTorch.\n", MARKDOWN), (f"# {WARNING}\n", HASH)]
)
def test_a_comment_that_somebody_edited_is_refused(edit, text, comment):
    done = withdrawn_warnings.withdraw(text, comment)
    assert edit(done) != done
    with pytest.raises(Spoilt, match="cannot be read, somebody edited"):
        withdrawn_warnings.bring_back(edit(done))
    with pytest.raises(Spoilt, match="cannot be read, somebody edited|expected one block"):
        managed_blocks.undocumented(edit(managed_blocks.documented(text, "body", comment)), comment)


@pytest.mark.parametrize("comment", [MARKDOWN, HASH])
def test_a_comment_of_an_earlier_release_comes_back(comment):
    """Until now none had a checksum."""
    kept = "ocrfleet.gpu_stack withdrew a warning here, and keeps it for the way back: RE8gTk9U"
    assert withdrawn_warnings.bring_back(f"a {comment(kept)}\n") == "a DO NOT\n"


def test_whatever_the_text_every_byte_comes_back():
    chance = random.Random(1)  # noqa: S311 - made texts
    made_of = [
        WARNING,
        "Don't install flashinfer",
        "Install CUDA.",
        "torch==2.8.0  ",
        "a. ",
        "Warning: ",
        "! ",
        "---\n",
    ]
    made_of += [
        "- ",
        "1. ",
        "> ",
        "# ",
        "## ",
        "```\n",
        "```sh\n",
        "| ",
        " | ",
        "<!--",
        "-->",
        "    ",
        "\\\n",
        "\udcff",
    ]
    made_of += [*"\n\n*_ `.;()=\x0c\u2028", "\n\n", "\r\n", "\r"]
    went = 0
    for _text in range(4000):
        text = "".join(chance.choice(made_of) for _part in range(chance.randint(1, 14)))
        for comment in (MARKDOWN, HASH):
            if comment is MARKDOWN and withdrawn_warnings.open_fence(text):
                continue  # refused
            done = managed_blocks.documented(text, "body", comment)
            assert managed_blocks.documented(done, "body", comment) == done, text
            assert managed_blocks.undocumented(done, comment) == text
            assert [done.count(other) for other in ("CUDA", "torch")] == [text.count("CUDA"), text.count("torch")], text
            went += "withdrew" in done
    assert went > 300
