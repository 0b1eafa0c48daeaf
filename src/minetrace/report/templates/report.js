"use strict";
(() => {
  const table = document.getElementById("site-table");
  const body = table.tBodies[0];
  const rows = Array.from(body.rows);
  const headings = Array.from(table.tHead.rows[0].cells);

  const valueOf = (row, column) => {
    const cell = row.cells[column];
    return cell.dataset.v ?? cell.textContent.trim();
  };

  // empty values stay last in both directions
  const compare = (a, b, numeric, direction) => {
    if (a === "" || b === "") return (a === "") - (b === "");
    return direction * (numeric ? a - b : a.localeCompare(b, "en", { numeric: true }));
  };

  const sortBy = (column) => {
    const heading = headings[column];
    const direction = heading.getAttribute("aria-sort") === "ascending" ? -1 : 1;
    headings.forEach((h) => h.removeAttribute("aria-sort"));
    heading.setAttribute("aria-sort", direction === 1 ? "ascending" : "descending");
    const numeric = heading.classList.contains("num");
    rows.sort((a, b) => compare(valueOf(a, column), valueOf(b, column), numeric, direction));
    body.append(...rows);
  };

  headings.forEach((heading, column) => {
    heading.querySelector("button").addEventListener("click", () => sortBy(column));
  });

  const filter = document.getElementById("filter");
  const shown = document.getElementById("shown");
  filter.addEventListener("input", () => {
    const wanted = filter.value.trim().toLowerCase();
    let n = 0;
    for (const row of rows) {
      row.hidden = !row.textContent.toLowerCase().includes(wanted);
      if (!row.hidden) n += 1;
    }
    shown.textContent = `${n} of ${rows.length} rows`;
  });
})();
