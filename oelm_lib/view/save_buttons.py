"""Buttons under a figure in JupyterLab that save it as PNG, SVG or CSV; the page has its own."""

_SCRIPT = """
const format = event.target.dataset.format;
if (!format) return;
const box = this.closest('.jp-OutputArea-child').previousElementSibling;
const plot = box && box.querySelector('.js-plotly-plot .plot-container') &&
  box.querySelector('.js-plotly-plot');
if (!plot) { this.lastElementChild.textContent = 'Run the cell again to save its figure.'; return; }
const name = (plot.layout.title.text || 'figure').replace(/<[^>]*>/g, '').replace(/\\W+/g, '_');
if (format !== 'csv') {
  plot._context.toImageButtonOptions = {format: format, filename: name};
  plot.querySelector('.modebar-btn[data-title^="Download plot"]').click();
  return;
}
const quote = v => '"' + String(v).replace(/"/g, '""') + '"';
const cell = v => v == null ? '' : /[",\\n]/.test(v) ? quote(v) : v;
const lines = ['trace,kind,x,y,minus,plus'];
for (const t of plot._fullData) {
  if (t.visible !== true) continue;
  if (t.type === 'heatmap') {
    t.z.forEach((row, r) => row.forEach((share, c) => share == null || lines.push([t.name, t.type,
      t.text[r][c].replace(/<br>/g, ', '), share, '', ''].map(cell).join(','))));
    continue;
  }
  const bar = t.error_y && t.error_y.visible ? t.error_y : t.error_x || {};
  Array.from(t.x || t.y || []).forEach((_, n) => lines.push([t.name, (t.meta || {}).kind || t.type,
    t.x && t.x[n], t.y && t.y[n], bar.arrayminus && bar.arrayminus[n], bar.array && bar.array[n]]
    .map(cell).join(',')));
}
const link = document.createElement('a');
link.href = window.URL.createObjectURL(new Blob([lines.join('\\n') + '\\n'], {type: 'text/csv'}));
link.download = name + '.csv';
link.click();
"""
_BUTTON = "<button type='button' data-format='{}'>{}</button>"


def _html() -> str:
    buttons = " ".join(_BUTTON.format(name.lower(), name) for name in ("PNG", "SVG", "CSV"))
    script = _SCRIPT.replace("&", "&amp;").replace('"', "&quot;").replace("<", "&lt;")
    style = "font-size:12px;opacity:.8"
    return (
        f'<div class="oelm-save" style="{style}" onclick="{script}">{buttons} <span></span></div>'
    )


SAVE_BUTTONS = _html()
"""HTML whose script reads the figure in the output before it; it needs no kernel."""
