"use strict";
// A table that does not fit shows each row as a list of its cells.
(() => {
  // Parts of a heading stand in lines of their own.
  const words = cell => [...cell.childNodes].map(part => part.textContent).join(" ").trim();

  function label(cell, heading) {
    if (!("label" in cell.dataset)) {
      const content = document.createElement("div");
      content.append(...cell.childNodes);
      cell.append(content);
    }
    cell.dataset.label = heading;
  }

  function stack() {
    for (const table of document.querySelectorAll("main table")) {
      const heads = [...table.querySelectorAll("thead th")].map(words);
      table.classList.remove("stacked");
      if (heads.length < 2 || table.scrollWidth <= table.parentElement.clientWidth + 1) continue;
      for (const row of table.tBodies[0]?.rows ?? [])
        [...row.cells].forEach((cell, n) => label(cell, heads[n] ?? ""));
      table.classList.add("stacked");
    }
  }

  addEventListener("DOMContentLoaded", () => {
    stack();
    for (const fold of document.querySelectorAll("details")) fold.addEventListener("toggle", stack);
    addEventListener("resize", stack);
  });
})();
