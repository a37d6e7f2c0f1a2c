import json
import re

import nbformat
import numpy as np
import plotly.graph_objects as go
import pytest
from nbformat.v4 import new_code_cell, new_markdown_cell, new_notebook, new_output

from oelm_lib.errors import UserError
from oelm_lib.report import page as html
from oelm_lib.view.curves import loss_curves
from oelm_lib.view.figure import Figure
from tests import runs_factory


@pytest.fixture(scope="module")
def demo(tmp_path_factory):
    return runs_factory.make_demo(tmp_path_factory.mktemp("outputs"), seeds=(42, 43))


def shown(figure):
    return new_output("display_data", data=figure._repr_mimebundle_())


def code(*outputs, tags=()):
    return new_code_cell(
        "secret_input()", execution_count=1, outputs=list(outputs), metadata={"tags": list(tags)}
    )


def write(path, *cells, **metadata):
    nbformat.write(new_notebook(cells=list(cells), metadata=metadata), path)
    return path


def in_page(page, name):
    return json.loads(re.search(rf'id="{name}">(.*?)</script>', page, re.DOTALL).group(1))


def test_page_is_one_file_without_external_requests(demo, tmp_path):
    source = write(
        tmp_path / "a.ipynb",
        new_markdown_cell("# Title"),
        code(shown(loss_curves(demo))),
        code(shown(loss_curves(demo[:2]))),
        code(new_output("display_data", data={html.WIDGET: {"model_id": "1"}})),
        widgets={"application/vnd.jupyter.widget-state+json": {"state": {"big": "x" * 1000}}},
    )
    target = html.export(source)
    page = target.read_text()
    assert target == tmp_path / "a.html" and target.stat().st_size < 2_500_000
    assert not re.findall(r"<(?:script|img|iframe)[^>]*\bsrc=|<link\b", page)
    assert page.count('id="plotly-gzip"') == 1 and page.count("data-figure=") == 2
    assert "xxxxx" not in page and "secret_input" not in page and "<title>Title</title>" in page


def test_rows_stand_once_in_the_page(demo, tmp_path):
    figure = loss_curves(demo)
    page = html.export(
        write(tmp_path / "a.ipynb", code(shown(figure)), code(shown(figure)))
    ).read_text()
    rows = in_page(page, "oelm-rows")
    assert sorted(rows) == sorted(f"{run.parent.name}/{run.name}" for run in demo)
    for figure in in_page(page, "oelm-figures"):
        assert "rows" not in figure["layout"]["meta"]
        assert not any("x" in trace or "y" in trace for trace in figure["data"])


def test_untrusted_text_cannot_leave_its_place(tmp_path):
    bad = "</script><script>alert(1)</script><!--"
    figure = Figure(layout={"title": {"text": bad}})
    cells = [
        new_markdown_cell("# A &lt;b&gt;"),
        code(new_output("stream", text=bad), shown(figure)),
        code(new_output("execute_result", data={"text/plain": bad})),
    ]
    page = html.export(write(tmp_path / "a.ipynb", *cells)).read_text()
    assert "<script>alert" not in page and bad not in page
    assert in_page(page, "oelm-figures")[0]["layout"]["title"]["text"] == bad


def test_failed_notebook_shows_its_error_first(tmp_path):
    error = new_output(
        "error", ename="UserError", evalue="no experiment 'GPT-99'", traceback=["UserError: no ..."]
    )
    page = html.export(
        write(tmp_path / "a.ipynb", new_markdown_cell("# T"), code(error, tags=["parameters"]))
    ).read_text()
    assert page.index("Cell 2 failed: UserError: no experiment &#39;GPT-99&#39;") < page.index(
        "<h1>"
    )


@pytest.mark.parametrize("tag", ["no-report", "parameters", "injected-parameters", "live-only"])
def test_tagged_cells_stay_out(tmp_path, tag):
    page = html.export(
        write(tmp_path / "a.ipynb", code(new_output("stream", text="gone"), tags=[tag]))
    ).read_text()
    assert "gone" not in page


def test_progress_lines_leave_their_last_state(tmp_path):
    page = html.export(
        write(tmp_path / "a.ipynb", code(new_output("stream", text="step 1\rstep 2\rdone\nnext\n")))
    ).read_text()
    assert "done\nnext" in page and "step 1" not in page


def test_contents_name_the_sections(tmp_path):
    source = write(
        tmp_path / "a.ipynb", new_markdown_cell("# T\n## One\n### A & B\n## Two"), code()
    )
    page = html.export(source).read_text()
    assert re.findall(r'<li class="level(\d)"><a href="#(.*?)">(.*?)</a>', page) == [
        ("2", "section-1", "One"),
        ("3", "section-2", "A &amp; B"),
        ("2", "section-3", "Two"),
    ]


@pytest.mark.parametrize(
    ("text", "words"),
    [(None, "no such notebook"), ("{", "not a readable notebook"), ("fresh", "was never executed")],
)
def test_mistakes_are_one_line(tmp_path, text, words):
    path = tmp_path / "a.ipynb"
    if text == "fresh":
        write(path, new_code_cell("1"))
    elif text:
        path.write_text(text)
    with pytest.raises(UserError, match=words):
        html.export(path)
    assert not path.with_suffix(".html").exists()


def test_a_figure_from_elsewhere_keeps_its_numbers(tmp_path):
    figure = Figure(go.Scatter(x=[1, 2], y=np.array([3.0, 4.0])), layout={"meta": "words"})
    page = html.export(write(tmp_path / "a.ipynb", code(shown(figure)))).read_text()
    (kept,) = in_page(page, "oelm-figures")
    assert kept["data"][0]["x"] == [1, 2] and kept["data"][0]["y"]["dtype"] == "f8"
    assert in_page(page, "oelm-rows") == {}


@pytest.mark.parametrize(
    ("target", "words"),
    [
        ("GPT-99", "not an executed notebook, a run folder or an experiment"),
        ("missing.ipynb", "no such notebook"),
        ("run", "no train.ipynb, since this run was not made by `oelm run`"),
    ],
)
def test_report_of_nothing_is_one_line(demo, target, words):
    with pytest.raises(UserError, match=words):
        html.report(str(demo[0]) if target == "run" else target)


@pytest.mark.slow
def test_runs_of_the_study_are_compared_too(tmp_path, monkeypatch):
    monkeypatch.setenv("OELM_OUTPUTS", str(tmp_path))
    with pytest.raises(UserError, match="not an executed notebook"):
        html.report("STUDY-0001")
    runs_factory.make_run(tmp_path, "STUDY-0001", overrides="data.corpus=stories")
    assert "STUDY-0001_baseline+" in html.report("STUDY-0001").read_text()


def test_report_of_a_run_is_the_page_of_its_notebook(tmp_path):
    run = runs_factory.make_run(tmp_path)
    write(run / "train.ipynb", new_markdown_cell("# Run"), code())
    assert html.report(run) == run / "train.html"
