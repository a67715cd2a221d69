// Copyright (c) 2026 The ocrfleet.gpu_stack contributors
// GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
// SPDX-License-Identifier: GPL-3.0-or-later
// Sort the table of hosts by a click on a column's head, and show only the rows that hold the words of the filter.
const table = document.getElementById("hosts");
const body = table.tBodies[0];
const shown = document.getElementById("shown");

function filter() {
  const words = document.getElementById("filter").value.toLowerCase().split(/\s+/).filter(Boolean);
  let count = 0;
  for (const row of body.rows) {
    const text = row.textContent.toLowerCase();
    row.hidden = !words.every((word) => text.includes(word));
    count += row.hidden ? 0 : 1;
  }
  shown.textContent = `${count} of ${body.rows.length} hosts`;
}

function sort(column, head) {
  const down = head.getAttribute("aria-sort") === "ascending";
  for (const other of table.tHead.rows[0].cells) other.removeAttribute("aria-sort");
  head.setAttribute("aria-sort", down ? "descending" : "ascending");
  // A length of time says in data-order how many seconds it is: as text, "45 s" comes after "2 min 3 s".
  const key = (row) => {
    const cell = row.cells[column];
    return cell.querySelector("[data-order]")?.dataset.order ?? cell.textContent;
  };
  const rows = [...body.rows].sort((a, b) => key(a).localeCompare(key(b), undefined, { numeric: true }));
  body.append(...(down ? rows.reverse() : rows));
}

[...table.tHead.rows[0].cells].forEach((head, column) => {
  head.tabIndex = 0;
  head.addEventListener("click", () => sort(column, head));
  head.addEventListener("keydown", (event) => { if (event.key === "Enter") sort(column, head); });
});
document.getElementById("filter").addEventListener("input", filter);
filter();
