# Copyright (c) 2026 The ocrfleet.gpu_stack contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The pages in a real browser, at the width of a phone and of a desktop: success, failure with restore, a fleet of 30.

Each page is shown in a frame of that width. A probe in it (the page's own policy is taken out, or the probe could
not run) reports what the browser laid out. Screenshots land in tests/browser/screenshots.
"""

from __future__ import annotations

import hashlib
import html
import json
import re
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

ROOT = Path(__file__).parents[2]
sys.path.insert(0, str(ROOT / "tests/unit"))

import test_report  # noqa: E402

from ocrfleet import report as fleet_report  # noqa: E402

WIDTHS = {"phone": 390, "desktop": 1280}
# Nothing in it is a place to break a line.
TOKEN = "_ZN5torch3jit17parseSchemaOrNameERKSs" * 2 + hashlib.sha256(b"").hexdigest()
# Words of the role's and the rollout's own.
FIXED = ("result", "status", "state", "verdict")
PROBE = """{
const cut = (element) => getComputedStyle(element).overflowX === "hidden" && element.scrollWidth > element.clientWidth;
const seen = {width: innerWidth, content: document.documentElement.scrollWidth, text: document.body.innerText,
  sideways: [...document.querySelectorAll(".wide")].filter((box) => box.scrollWidth > box.clientWidth).length,
  cut: [...document.querySelectorAll("body *")].filter(cut).map((element) => element.innerText.slice(0, 80)),
  plots: [...document.querySelectorAll("svg")].map((svg) => svg.getBoundingClientRect().width)};
const table = document.getElementById("hosts");
if (table) {
  const visible = () => [...table.tBodies[0].rows].filter((row) => row.getClientRects().length);
  seen.rows = visible().length;
  seen.first = visible().slice(0, 2).map((row) => row.cells[2].textContent);
  const field = document.getElementById("filter");
  field.value = "FAILED"; field.dispatchEvent(new Event("input"));
  seen.filtered = visible().map((row) => row.cells[0].textContent);
  seen.counted = document.getElementById("shown").textContent;
  field.value = ""; field.dispatchEvent(new Event("input"));
  table.tHead.rows[0].cells[0].click(); seen.up = visible()[0].cells[0].textContent;
  table.tHead.rows[0].cells[0].click(); seen.down = visible()[0].cells[0].textContent;
  table.tHead.rows[0].cells[3].click(); seen.fastest = visible()[0].cells[3].textContent;
  const name = document.createRange();
  seen.lines = Math.max(...visible().map((row) => {
    name.selectNodeContents(row.cells[0]);
    return new Set([...name.getClientRects()].map((box) => Math.round(box.top))).size;
  }));
}
parent.postMessage(JSON.stringify(seen), "*");
}"""
HARNESS = """<!doctype html><style>body {{ margin: 0 }} iframe {{ border: 0; display: block }}</style>
<script>
addEventListener("message", (event) => {{ document.getElementById("seen").textContent = event.data; }});
</script>
<iframe src="{page}" width="{width}" height="{height}"></iframe><pre id="seen" hidden></pre>"""


def browse(page: str, name: str, width: str, folder: Path) -> dict:
    """What the browser makes of a page; leaves a screenshot."""
    probed = re.sub(r'<meta http-equiv="Content-Security-Policy"[^>]*>', "", page)
    (folder / "page.html").write_text(probed + f"<script>{PROBE}</script>", encoding="utf-8")
    harness = folder / "harness.html"
    harness.write_text(HARNESS.format(page="page.html", width=WIDTHS[width], height=1600), encoding="utf-8")
    shots = Path(__file__).parent / "screenshots"
    shots.mkdir(exist_ok=True)
    common = ["chromium", "--headless", "--no-sandbox", "--disable-gpu", f"--user-data-dir={folder}/profile"]
    common += [f"--window-size={max(WIDTHS[width], 500)},1600", "--hide-scrollbars", "--virtual-time-budget=2000"]
    subprocess.run(
        [*common, f"--screenshot={shots}/{name}-{width}.png", harness.as_uri()],
        check=True,
        timeout=90,
        capture_output=True,
    )
    done = subprocess.run(
        [*common, "--dump-dom", harness.as_uri()], check=True, timeout=90, capture_output=True, text=True
    )
    found = re.search(r'<pre id="seen"[^>]*>(.*?)</pre>', done.stdout, re.DOTALL)
    assert found and found[1], done.stdout + done.stderr
    return json.loads(html.unescape(found[1]))


def with_tokens(value: Any) -> Any:
    """The same with a long token behind each text that a host can say."""
    if isinstance(value, dict):
        return {key: item if key in FIXED else with_tokens(item) for key, item in value.items()}
    if isinstance(value, list):
        return [with_tokens(item) for item in value]
    return f"{value} {TOKEN}" if isinstance(value, str) else value


def fleet(hosts: int) -> dict:
    states = ["converted"] * (hosts - 2) + ["failed", "unreachable"]
    return {
        "id": "20261125-1",
        "state": "stopped",
        "note": "a host failed",
        "created": "2026-11-25T10:00:00Z",
        "history": [{"at": "2026-11-25T11:00:00Z", "what": "stopped"}],
        "states": {"converted": hosts - 2, "failed": 1, "unreachable": 1},
        "waves": [
            {"number": 1, "canary": True, "cohort": "abc", "state": "passed", "hosts": 1, "seconds": 90, "states": {}},
        ],
        "hosts": [
            {
                "name": f"ocr-gpu-{number:02}.example",
                "wave": 1 + number // 10,
                "state": states[number],
                "seconds": 45 if number == 7 else 90 + number,
                "message": f"FlashInfer imports: {'expected 0.3.1; ' * 20}" if states[number] == "failed" else "",
                "figures": "",
                "drained": states[number] == "failed",
                "measured": "documents: 9 no difference found; mean speed-up 1.01",
                "report": f"runs/1/reports/ocr-gpu-{number:02}.example/report.html"
                if states[number] == "converted"
                else None,
                "evidence": {"versions": {"torch": "2.8.0+cu128", "flashinfer": "0.3.1"}},
            }
            for number in range(hosts)
        ],
        "checks": [
            {
                "title": "A test PDF goes through the pipeline",
                "passed": hosts - 1,
                "not_run": 1,
                "reasons": [{"status": "not_run", "reason": "this host has no NVIDIA GPU", "hosts": 1}],
            }
        ],
    }


@pytest.fixture(scope="module", params=["success", "failure"])
def host_page(request, tmp_path_factory):
    evidence = json.loads(json.dumps(test_report.EVIDENCE))
    if request.param == "success":
        evidence.update(result="verified", failure="", changed=[])
        evidence["checks"] = [check for check in evidence["checks"] if check["status"] != "failed"]
    folder = tmp_path_factory.mktemp(request.param)
    test_report.report(folder, evidence)
    return request.param, (folder / "control/localhost/report.html").read_text(encoding="utf-8")


@pytest.mark.parametrize("width", WIDTHS)
def test_a_hosts_page(host_page, width, tmp_path):
    name, page = host_page
    seen = browse(page, name, width, tmp_path)
    assert seen["width"] == WIDTHS[width]
    assert seen["content"] <= seen["width"], "the page scrolls sideways"
    assert [250 < plot <= seen["width"] for plot in seen["plots"]] == [True, True]
    assert "this host has no NVIDIA GPU" in seen["text"]
    assert ("expected 0.3.2" in seen["text"]) == (name == "failure")


@pytest.mark.parametrize("width", WIDTHS)
def test_long_tokens_are_broken_and_nothing_is_cut_off(width, tmp_path):
    evidence = with_tokens(json.loads(json.dumps(test_report.EVIDENCE)))
    for table in ("versions", "environment", "timings"):
        evidence[table] = {f"{name}{TOKEN}": value for name, value in evidence[table].items()}
    del evidence["benchmark"]["documents"]["stand_in"]
    evidence["benchmark"]["documents"]["note"] = TOKEN
    test_report.report(tmp_path, evidence)
    page = (tmp_path / "control/localhost/report.html").read_text(encoding="utf-8")
    seen = browse(page, "tokens", width, tmp_path)
    assert seen["text"].count(TOKEN) > 50
    assert seen["content"] <= seen["width"], "the page scrolls sideways"
    assert seen["cut"] == []


@pytest.mark.parametrize("width", WIDTHS)
def test_long_tokens_on_the_page_of_a_fleet(width, tmp_path):
    data = fleet(4)
    for key in ("note", "hosts", "checks"):
        data[key] = with_tokens(data[key])
    seen = browse(fleet_report.page(data), "fleet-tokens", width, tmp_path)
    assert seen["text"].count(TOKEN) > 5
    assert seen["content"] <= seen["width"], "the page scrolls sideways"
    assert seen["cut"] == []


@pytest.mark.parametrize("width", WIDTHS)
@pytest.mark.parametrize("hosts", [30, 300])
def test_the_page_of_a_fleet(hosts, width, tmp_path):
    seen = browse(fleet_report.page(fleet(hosts)), f"fleet-{hosts}", width, tmp_path)
    assert seen["content"] <= seen["width"], "the page scrolls sideways"
    assert width == "desktop" or seen["sideways"] == 0, "a table scrolls sideways on a phone"
    assert seen["rows"] == hosts
    assert seen["first"] == ["failed", "unreachable"], "who needs somebody comes first"
    assert seen["lines"] == 1, "the name of a host is broken over lines"
    assert seen["fastest"] == "45 s"
    assert seen["filtered"] == [f"ocr-gpu-{hosts - 2:02}.example"]
    assert seen["counted"] == f"1 of {hosts} hosts"
    assert (seen["up"], seen["down"]) == ("ocr-gpu-00.example", f"ocr-gpu-{hosts - 1:02}.example")
    assert "not run: this host has no NVIDIA GPU (1)" in seen["text"]
    assert seen["text"].count("documents: 9 no difference found") == hosts
