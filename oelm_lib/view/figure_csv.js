// A drawn figure as CSV, for the page and for the buttons in JupyterLab: a line for each point that
// is shown.

function csvText(plot) {
  const state = plot.layout.meta?.state;
  const shown = plot._fullData.filter(trace => trace.visible === true);
  const rows = shown.flatMap(trace => {
    const name = plainText(trace._input.name); // plotly would name it after its number
    return trace.type === "heatmap" ? heatmapRows(trace, name) : pointRows(trace, name, state);
  });
  const header = ["trace", "kind", "x", "y", "minus", "plus"];
  return [header, ...rows].map(row => row.map(csvCell).join(",") + "\n").join("");
}

function pointRows(trace, name, state) {
  const {x, y} = trace;
  const kind = kindOf(trace, state);
  const bar = trace.error_y?.visible ? trace.error_y : trace.error_x;
  const points = x ?? y ?? []; // a box plot has one of the two
  return Array.from(points, (_, n) =>
    [name, kind, x?.[n], y?.[n], bar?.arrayminus?.[n], bar?.array?.[n]]);
}

// Says which line of its name a computed one is, e.g. "train grad_norm mean smoothed".
function kindOf({meta, type}, state) {
  if (!state || !meta?.column) return type;

  const column = meta.column === "loss" ? state.y : meta.column;
  const parts = [meta.kind, meta.base ? "gap" : column, meta.stat, meta.smooth && "smoothed"];
  return parts.filter(Boolean).join(" ");
}

// Returns a row for each cell with a value: its text, or row and column, stands as x.
function heatmapRows({type, text, x, y, z}, name) {
  const nameOf = (r, c) => plainText(text?.[r]?.[c]).replaceAll("\n", ", ");
  const placeOf = (r, c) => `${y?.[r] ?? r}, ${x?.[c] ?? c}`;
  const cells = Array.from(z, (row, r) =>
    Array.from(row, (value, c) => [name, type, nameOf(r, c) || placeOf(r, c), value, "", ""]));
  return cells.flat().filter(([, , , value]) => Number.isFinite(value));
}

function csvCell(value) {
  const text = String(value ?? "");
  return /[",\n]/.test(text) ? `"${text.replaceAll('"', '""')}"` : text;
}

function plainText(html) {
  const text = (html ?? "").replaceAll("<br>", "\n");
  return new DOMParser().parseFromString(text, "text/html").body.textContent;
}
