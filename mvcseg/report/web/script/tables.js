// Tables that sort by any heading: once, the other way round, and back to the order given.

function makeSortable() {
  for (const table of document.querySelectorAll("table[data-sortable]")) {
    const body = table.tBodies[0], original = [...body.rows];
    if (original.length < 2) continue;
    [...table.tHead.rows[0].cells].forEach((head, column) => {
      const button = make("button", { type: "button" }, ...head.childNodes);
      head.append(button);
      const isNumber = original.some((row) => "value" in row.cells[column].dataset);
      button.addEventListener("click", () => {
        const now = head.getAttribute("aria-sort"), first = isNumber && head.dataset.first !== "ascending" ? "descending" : "ascending";
        const second = first === "ascending" ? "descending" : "ascending";
        const next = now === null ? first : now === first ? second : null;
        table.querySelectorAll("[aria-sort]").forEach((each) => each.removeAttribute("aria-sort"));
        if (next) head.setAttribute("aria-sort", next);
        body.append(...(next ? sorted(original, column, isNumber, next === "ascending" ? 1 : -1) : original));
      });
    });
  }
  for (const button of document.querySelectorAll("button.more")) {
    button.hidden = false;
    const table = byId(button.getAttribute("aria-controls"));
    table.classList.add("short");
    button.addEventListener("click", () => {
      const isShort = table.classList.toggle("short");
      button.setAttribute("aria-expanded", String(!isShort));
      button.textContent = isShort ? button.dataset.more : button.dataset.less;
    });
  }
}

function sorted(rows, column, isNumber, sign) {
  const value = (row) => isNumber ? parseFloat(row.cells[column].dataset.value) : row.cells[column].textContent.trim();
  return [...rows].sort((a, b) => {
    const x = value(a), y = value(b);
    if (!isNumber) return sign * x.localeCompare(y);
    return Number.isNaN(x) - Number.isNaN(y) || sign * (x - y); // rows without a score stay last
  });
}
