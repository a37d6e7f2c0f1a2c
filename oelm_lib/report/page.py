"""One offline page from an executed notebook: no kernel, no network, controls that work."""

import base64
import fnmatch
import gzip
import hashlib
import json
import re
from datetime import UTC, datetime
from functools import cache
from importlib import metadata
from pathlib import Path
from typing import Any

from oelm_lib import config
from oelm_lib.errors import UserError
from oelm_lib.files import write_text
from oelm_lib.report.execute import execute
from oelm_lib.runs.provenance import code_version
from oelm_lib.runs.reading import find_runs

TEMPLATES = Path(__file__).parent / "templates"
PLOTLY = "application/vnd.plotly.v1+json"
WIDGET = "application/vnd.jupyter.widget-view+json"
HIDDEN_TAGS = {
    "no-report",
    "parameters",
    "injected-parameters",
    "live-only",
    "papermill-error-cell-tag",
}
PACKAGES = ("torch", "numpy", "pandas", "plotly", "papermill", "nbconvert")
ANSI = re.compile(r"\x1b\[[0-9;]*[A-Za-z]")


def export(notebook_path: Path | str) -> Path:
    """Write the page of an executed notebook, failed ones included, beside it.

    Args:
        notebook_path: Any executed .ipynb, papermill's own copies too.

    Raises:
        UserError: No such file, not a notebook, or never executed.
    """
    source = Path(notebook_path)
    notebook = _read(source)
    target = source.with_suffix(".html")
    error = _error(notebook)
    figures, rows = _prepare(notebook)
    body, contents = _number_headings(_body(notebook, source))
    heading = re.search(r"<h1>(.*?)</h1>", body, re.DOTALL)
    start = body.find("<h2 ") if contents else len(body)
    shown = [
        figure | {"data": [_without_values(trace) for trace in figure["data"]]}
        for figure in figures
    ]
    page = (
        templates(autoescape=True)
        .get_template("page.html.j2")
        .render(
            title=_text(heading.group(1)) if heading else source.stem,
            error=error,
            intro=body[:start],
            body=body[start:],
            contents=contents,
            figures=_script_json(shown),
            rows=_script_json({key: series | {"origin": None} for key, series in rows.items()}),
            plotly=_plotly_js() if figures else None,
            css=(TEMPLATES / "page.css").read_text(encoding="utf-8"),
            js=(TEMPLATES / "page.js").read_text(encoding="utf-8"),
            nonce=hashlib.sha256(source.read_bytes()).hexdigest()[:32],
            provenance=_provenance(source, notebook),
            runs={key: series["origin"] for key, series in rows.items() if "origin" in series},
        )
    )
    try:
        write_text(target, page)
    except OSError as problem:
        raise UserError(
            f"{target}: cannot be written: {problem.strerror}; give another path"
        ) from None
    return target


def report(target: str | Path) -> Path:
    """Make the page of what a user names.

    Args:
        target: An executed notebook, a run folder, `study`, `bench`, `compare` (all that compare.ipynb's defaults ask
            for), or experiment ids or globs to compare, each with its own compare_to. All but the first two are
            executed first, and land in the outputs folder.

    Raises:
        UserError: Nothing of that name.
    """
    path, ids = Path(target), config.experiment_ids()
    if path.suffix == ".ipynb":
        return export(path)
    if (path / "config.yaml").is_file():
        if not (path / "train.ipynb").is_file():
            raise UserError(
                f"{path}: no train.ipynb, since this run was not made by `oelm run`; compare it: oelm report ID"
            )
        return export(path / "train.ipynb")
    if target in ("compare", "study", "bench"):
        return _execute(target, {}, target)
    patterns = str(target).replace(",", " ").split()
    known = {*ids, *(run.parent.name.split("_")[0] for run in find_runs())}
    if not any(fnmatch.fnmatch(exp, pattern) for exp in known for pattern in patterns):
        raise UserError(
            f"{target}: not an executed notebook, a run folder or an experiment; use X.ipynb,"
            f" outputs/<ID>_<slug>/seed42, compare, or a glob of {', '.join(ids)}"
        )
    return _execute(
        "compare",
        {"exps": " ".join(patterns), "baseline": ""},
        "compare_" + re.sub(r"[^A-Za-z0-9-]+", "_", "_".join(patterns)).strip("_"),
    )


def _execute(notebook: str, parameters: dict[str, str], name: str) -> Path:
    """Execute a notebook into the outputs folder and make its page."""
    from papermill.exceptions import PapermillExecutionError

    target = config.outputs_dir() / f"{name}.ipynb"
    target.parent.mkdir(parents=True, exist_ok=True)
    try:
        execute(notebook, target, parameters)
    except PapermillExecutionError as error:
        page = export(target)
        raise UserError(
            f"{page}: the notebook {notebook} failed: {error.ename}: {error.evalue}; the page shows where"
        ) from None
    return export(target)


def _read(path: Path) -> Any:
    import nbformat

    try:
        notebook = nbformat.read(path, as_version=4)
    except FileNotFoundError:
        raise UserError(
            f"{path}: no such notebook; run it first: papermill notebooks/train.ipynb {path}"
        ) from None
    except Exception as problem:  # nbformat raises its own, jsonschema's and json's errors
        reason = str(problem).splitlines()[0] if str(problem) else type(problem).__name__
        raise UserError(
            f"{path}: not a readable notebook ({reason}); give an executed .ipynb"
        ) from None
    code = [cell for cell in notebook.cells if cell.cell_type == "code"]
    if code and not any(cell.outputs or cell.execution_count for cell in code):
        raise UserError(f"{path}: was never executed; run it first: papermill {path} out.ipynb")
    return notebook


def _error(notebook: Any) -> str | None:
    """The line a failed notebook ends with, or None."""
    for number, cell in enumerate(notebook.cells, 1):
        for output in cell.get("outputs", []):
            if output.output_type == "error":
                return f"Cell {number} failed: {output.ename}: {ANSI.sub('', output.evalue)}"
    return None


def _prepare(notebook: Any) -> tuple[list[dict], dict[str, dict]]:
    """Leave in the notebook what a page shows; return its figures and the rows they share."""
    figures: list[dict] = []
    rows: dict[str, dict] = {}
    notebook.metadata.pop("widgets", None)
    notebook.cells = [
        cell for cell in notebook.cells if not HIDDEN_TAGS & set(cell.metadata.get("tags", []))
    ]
    for cell in notebook.cells:
        for output in cell.get("outputs", []):
            if output.output_type == "stream":
                # A progress line rewrites itself; only its last state is news.
                output.text = re.sub(r"[^\n]*\r(?!\n)", "", output.text)
            data = output.get("data", {})
            if PLOTLY in data:
                figure = data[PLOTLY]
                meta = figure.get("layout", {}).get("meta")
                rows |= json.loads(meta.pop("rows", "{}")) if isinstance(meta, dict) else {}
                output.data = {
                    "text/html": f'<div class="figure" data-figure="{len(figures)}"></div>'
                }
                figures.append(figure)
            elif WIDGET in data:
                output.data = {
                    "text/html": '<p class="note">Live controls: open the notebook in JupyterLab.</p>'
                }
    return figures, rows


def _body(notebook: Any, source: Path) -> str:
    from nbconvert import HTMLExporter

    exporter = HTMLExporter(
        template_name="basic",
        exclude_input=True,
        exclude_input_prompt=True,
        exclude_output_prompt=True,
        exclude_anchor_links=True,
        embed_images=True,
    )
    return exporter.from_notebook_node(
        notebook, resources={"metadata": {"path": str(source.parent)}}
    )[0]


def _number_headings(body: str) -> tuple[str, list[tuple[int, str, str]]]:
    """Give second and third level headings an id; return the body and (level, id, words) of each."""
    contents: list[tuple[int, str, str]] = []

    def mark(match: re.Match) -> str:
        level, words = match.groups()
        contents.append((int(level), f"section-{len(contents) + 1}", _text(words)))
        return f'<h{level} id="{contents[-1][1]}">{words}</h{level}>'

    return re.sub(r"<h([23])>(.*?)</h\1>", mark, body, flags=re.DOTALL), contents


def _text(fragment: str) -> str:
    from html import unescape

    return unescape(re.sub(r"<[^>]*>", "", fragment)).strip()


def _without_values(trace: dict) -> dict:
    """A trace that the page computes from the rows carries no numbers of its own."""
    computed = isinstance(trace.get("meta"), dict) and "runs" in trace["meta"]
    return {key: value for key, value in trace.items() if not (computed and key in ("x", "y"))}


def _script_json(value: Any) -> str:
    """JSON that no text inside can end or comment out."""
    return json.dumps(value, separators=(",", ":"), ensure_ascii=False).replace("<", "\\u003c")


@cache
def _plotly_js() -> str:
    """plotly.js, gzip and base64: about 2 MB in place of 4.8."""
    from plotly.offline import get_plotlyjs

    return base64.b64encode(gzip.compress(get_plotlyjs().encode(), 9, mtime=0)).decode()


def templates(**options: Any) -> Any:
    """The environment of templates/."""
    import jinja2

    options |= {"trim_blocks": True, "lstrip_blocks": True, "undefined": jinja2.StrictUndefined}
    return jinja2.Environment(loader=jinja2.FileSystemLoader(TEMPLATES), **options)


def _provenance(source: Path, notebook: Any) -> list[tuple[str, str]]:
    record = notebook.metadata.get("papermill", {})
    rows = []
    if record:
        name = Path(record.get("input_path") or source).name
        options = "".join(
            f' -p {key} "{value}"' for key, value in record.get("parameters", {}).items()
        )
        rows.append(("command", f"papermill notebooks/{name} {source.name}{options}"))
        start = str(record.get("start_time", ""))[:16].replace("T", " ")
        rows.append(("executed", f"{start} UTC, {record.get('duration') or 0:.0f} s"))
    code = code_version()
    changed = " with uncommitted changes" if code["dirty"] else ""
    rows.append(("code", f"{code['version']}, commit {code['commit']}{changed}"))
    python = notebook.metadata.get("language_info", {}).get("version", "unknown")
    rows.append(
        (
            "versions",
            ", ".join(
                [f"Python {python}", *(f"{name} {metadata.version(name)}" for name in PACKAGES)]
            ),
        )
    )
    return [*rows, ("page made", datetime.now(UTC).strftime("%Y-%m-%d %H:%M UTC"))]
