"""Export an executed notebook as one offline page: no kernel, no network, controls that work."""

import base64
import gzip
import hashlib
import json
import os
import re
import shlex
from datetime import UTC, datetime
from functools import cache
from importlib import metadata
from pathlib import Path
from typing import Any

from oelm_lib.files import as_user_error, write_text
from oelm_lib.markup import plain_text
from oelm_lib.report.notebook import KEY, first_error, prepare, read_notebook
from oelm_lib.report.render import TEMPLATES, environment
from oelm_lib.report.sanitise import sanitise
from oelm_lib.runs.provenance import code_version, cpu_name
from oelm_lib.view.save_buttons import csv_script

SUBJECTS = ("exps", "runs")
"""Parameters that say what a page is about; its title names them."""
PACKAGES = ("torch", "numpy", "pandas", "plotly", "papermill", "nbconvert")
"""Packages whose versions a page states."""
SCRIPTS = ("curves.js", "layout.js", "page.js")
"""Files of templates/ that make, after csv_script, the script of a page with figures."""


def export(notebook_path: Path | str) -> Path:
    """Write the page of an executed notebook, failed ones included, beside it.

    Args:
        notebook_path: Any executed .ipynb, papermill's own copies too.

    Raises:
        UserError: No such file, not a notebook, never executed, or the page cannot be written.
    """
    source = Path(notebook_path)
    target = source.with_suffix(".html")
    page = _page(source, read_notebook(source))
    with as_user_error(target, "cannot be written"):
        write_text(target, page)
    return target


def _page(source: Path, notebook: Any) -> str:
    """Return the page of a notebook as text."""
    error = first_error(notebook)
    subject = _subject(notebook)
    figures, rows = prepare(notebook)
    body, contents = _number_headings(sanitise(_notebook_html(notebook)))
    heading = re.search(r"<h1[^>]*>(.*?)</h1>", body, re.DOTALL)
    title = ": ".join(
        filter(None, [plain_text(heading.group(1)) if heading else source.stem, subject])
    )
    start = body.find("<h2 ") if contents else len(body)
    template = environment(autoescape=True).get_template("page.html.j2")
    return template.render(
        title=title,
        error=error,
        intro=body[:start],
        body=body[start:],
        contents=contents,
        figures=_script_json([_without_computed_values(figure) for figure in figures]),
        rows=_script_json({key: series | {"origin": None} for key, series in rows.items()}),
        plotly=_plotly_js() if figures else None,
        css=_text("page.css"),
        js="\n".join([csv_script(), *map(_text, SCRIPTS)]),
        tables_js=_text("tables.js"),
        nonce=hashlib.sha256(source.read_bytes()).hexdigest()[:32],
        provenance=_provenance(source, notebook),
        runs=_origins(rows),
    )


def _text(name: str) -> str:
    """Return the text of a file of templates/."""
    return (TEMPLATES / name).read_text(encoding="utf-8")


def _notebook_html(notebook: Any) -> str:
    """Return the notebook's text and outputs as HTML, not yet safe."""
    from nbconvert import HTMLExporter

    exporter = HTMLExporter(
        template_name="basic",
        exclude_input=True,
        exclude_input_prompt=True,
        exclude_output_prompt=True,
        exclude_anchor_links=True,
        embed_images=False,  # a notebook must not name local files to embed
    )
    return exporter.from_notebook_node(notebook)[0]


def _number_headings(body: str) -> tuple[str, list[tuple[str, str]]]:
    """Give each second level heading an id; return the body and the contents: ids and texts."""
    contents: list[tuple[str, str]] = []

    def number(match: re.Match) -> str:
        contents.append((f"section-{len(contents) + 1}", plain_text(match.group(1))))
        return f'<h2 id="{contents[-1][0]}">{match.group(1)}</h2>'

    return re.sub(r"<h2>(.*?)</h2>", number, body, flags=re.DOTALL), contents


def _subject(notebook: Any) -> str:
    """Return the experiments or runs that the parameters name; "" where they name none."""
    parameters = _papermill_record(notebook).get("parameters", {})
    return next((str(parameters[key]) for key in SUBJECTS if parameters.get(key)), "")


def _origins(rows: dict[str, dict]) -> dict[str, tuple[str, str]]:
    """Return run -> short commit and digest of its config.yaml."""
    origins = {}
    for key, series in rows.items():
        if isinstance(origin := series.get("origin"), dict):
            commit, digest = origin.get("commit") or "unknown", origin.get("config_sha256", "")
            origins[key] = (str(commit)[:12], str(digest)[:16])
    return origins


def _without_computed_values(figure: dict) -> dict:
    """Return the figure without the numbers of traces that the page computes from the rows."""
    meta = figure["layout"].get("meta")
    if not isinstance(meta, dict) or not meta.get("controls"):
        return figure  # of a user, whose traces may have any metadata
    traces = []
    for trace in figure.get("data", []):
        computed = isinstance(trace.get("meta"), dict) and "runs" in trace["meta"]
        dropped = ("x", "y") if computed else ()
        traces.append({key: value for key, value in trace.items() if key not in dropped})
    return figure | {"data": traces}


def _script_json(value: Any) -> str:
    """Return JSON for a <script>: with < escaped, no text in it can end the element."""
    return json.dumps(value, separators=(",", ":"), ensure_ascii=False).replace("<", "\\u003c")


@cache
def _plotly_js() -> str:
    """Return plotly.js as gzip and base64: about 2 MB in place of 4.8."""
    from plotly.offline import get_plotlyjs

    return base64.b64encode(gzip.compress(get_plotlyjs().encode(), 9, mtime=0)).decode()


def _provenance(source: Path, notebook: Any) -> list[tuple[str, str]]:
    """Return name and text of each fact about an executed notebook and the page made of it."""
    rows = []
    if command := _command(source, notebook):
        rows.append(("command", command))
    record = _papermill_record(notebook)
    if start := str(record.get("start_time") or "")[:16].replace("T", " "):
        rows.append(("executed", f"{start} UTC, {float(record.get('duration') or 0):.0f} s"))
    code = code_version()
    changed = " with uncommitted changes" if code["dirty"] else ""
    made = datetime.now(UTC).strftime("%Y-%m-%d %H:%M")
    python = notebook.metadata.get("language_info", {}).get("version", "unknown")
    versions = [f"Python {python}", *(f"{name} {metadata.version(name)}" for name in PACKAGES)]
    return [
        *rows,
        ("code", f"{code['version']}, commit {code['commit']}{changed}"),
        ("versions", ", ".join(versions)),
        ("page made", f"{made} UTC on {cpu_name()}, {os.cpu_count()} threads"),
    ]


def _command(source: Path, notebook: Any) -> str | None:
    """Return the command that executed a notebook; None where nothing recorded it."""
    own = notebook.metadata.get(KEY)
    if isinstance(own, dict) and own.get("command"):
        return str(own["command"])
    record = _papermill_record(notebook)
    if not record:
        return None
    name = Path(record.get("input_path") or source).name
    parts = ["papermill", f"notebooks/{name}", source.name]
    for key, value in record.get("parameters", {}).items():
        parts += ["-p", str(key), str(value)]
    return shlex.join(parts)


def _papermill_record(notebook: Any) -> dict[str, Any]:
    """Return what papermill recorded of an execution; {} where it did not execute the notebook."""
    record = notebook.metadata.get("papermill")
    return record if isinstance(record, dict) else {}
