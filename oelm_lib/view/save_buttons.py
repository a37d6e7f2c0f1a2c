"""Buttons under a figure in JupyterLab that save it as PNG, SVG or CSV; the page has its own."""

from html import escape
from pathlib import Path

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
const link = document.createElement('a');
link.href = window.URL.createObjectURL(new Blob([csvText(plot)], {type: 'text/csv'}));
link.download = name + '.csv';
link.click();
"""
_BUTTON = "<button type='button' data-format='{}'>{}</button>"


def csv_script() -> str:
    """Return the script that defines csvText, for the page too."""
    return Path(__file__).with_name("figure_csv.js").read_text(encoding="utf-8")


def save_buttons() -> str:
    """Return HTML whose script reads the figure in the output before it; it needs no kernel."""
    buttons = " ".join(_BUTTON.format(name.lower(), name) for name in ("PNG", "SVG", "CSV"))
    script = escape(csv_script() + _SCRIPT)
    style = "font-size:12px;opacity:.8"
    return (
        f'<div class="oelm-save" style="{style}" onclick="{script}">{buttons} <span></span></div>'
    )
