"""What the parts of the workbench look like: style sheet, columns, states and warnings."""

from html import escape

from oelm_lib.runs.schema import ACTIVE
from oelm_lib.view.tones import toned
from oelm_lib.workbench.rows import STARTING

TABLE = "wb"
"""CSS class of the tables."""
LEFT = "text-align:left"
LONG_TEXT = "text-align:left;white-space:normal;min-width:16em;overflow-wrap:anywhere"
"""CSS of a column of text; in LONG_TEXT it wraps."""
STATE_TONES = {"done": "good", "failed": "bad", "dead?": "bad", "unreadable": "bad"} | {
    state: "unsure" for state in (*ACTIVE, STARTING)
}

STYLE = """<style>
.wb-scroll {max-height:24em; overflow:auto; border:1px solid var(--jp-border-color2,#ccc)}
.wb {border-collapse:collapse; font-size:12px; font-variant-numeric:tabular-nums; line-height:1.5;
 color:var(--jp-ui-font-color1,inherit)}
.wb th {position:sticky; top:0; background:var(--jp-layout-color2,#eee); font-weight:600}
.wb th, .wb td {padding:2px 8px; text-align:right; white-space:nowrap; vertical-align:top}
.wb td {border-top:1px solid var(--jp-border-color3,#e5e5e5)}
.wb .l {text-align:left}
.wb .cut {text-align:left; max-width:28em; overflow:hidden; text-overflow:ellipsis}
.wb .arm {max-width:12em}
.wb + .wb, .wb + p {margin-top:8px}
.wb-scroll .wb {border-collapse:separate; border-spacing:0}
.wb-scroll tr {background:var(--jp-layout-color0,Canvas)}
.wb-scroll td:first-child {position:sticky; left:0; background:inherit}
.wb-scroll th:first-child {left:0; z-index:1}
.wb-table [data-run] {cursor:pointer}
.wb-table [data-run]:hover {background:var(--jp-layout-color2,#eee)}
.wb tr.marked {background:var(--jp-layout-color3,#ccc)}
.wb .group td {font-weight:600; text-align:left; background:var(--jp-layout-color2,#eee)}
[data-jp-theme-light='false'] .oelm-panel {--good:#4fc79a; --bad:#ff8078; --unsure:#e0ab4c}
[data-jp-theme-light='false'] .oelm-panel select {appearance:auto; background-image:none;
 color-scheme:dark}
</style>"""
"""Style sheet; each part of the workbench includes it, so that it can be shown alone."""


def state_html(state: str) -> str:
    """Return the name of a state in its colour."""
    tone = STATE_TONES.get(state)
    return toned(state, tone, "b") if tone else escape(state)


def warnings_html(lines: list[str]) -> str:
    """Return warnings as HTML, a paragraph each."""
    return "".join(toned(line, "unsure", "p") for line in lines)
