import json
import re
from pathlib import Path

import nbformat
import numpy as np
import papermill
import plotly.graph_objects as go
import pytest
from nbclient.exceptions import DeadKernelError
from nbformat.v4 import new_code_cell, new_markdown_cell, new_notebook, new_output

from oelm_lib.config import ROOT
from oelm_lib.errors import UserError
from oelm_lib.files import read_json, write_json
from oelm_lib.report.keep import publish, write_index
from oelm_lib.report.make import MOST_SLUG, STANDARD, _check_finished, page_slug, report
from oelm_lib.report.notebook import WIDGET
from oelm_lib.report.page import export
from oelm_lib.runs import frames
from oelm_lib.runs.lock import RunLock
from oelm_lib.runs.process import this_process
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
        code(new_output("display_data", data={WIDGET: {"model_id": "1"}})),
        widgets={"application/vnd.jupyter.widget-state+json": {"state": {"big": "x" * 1000}}},
    )
    target = export(source)
    page = target.read_text()
    assert target == tmp_path / "a.html" and target.stat().st_size < 2_500_000
    assert not re.findall(r"<(?:script|img|iframe)[^>]*\bsrc=|<link\b", page)
    assert page.count('id="plotly-gzip"') == 1 and page.count("data-figure=") == 2
    assert "xxxxx" not in page and "secret_input" not in page and "<title>Title</title>" in page


def test_rows_stand_once_in_the_page(demo, tmp_path):
    figure = loss_curves(demo)
    page = export(write(tmp_path / "a.ipynb", code(shown(figure)), code(shown(figure)))).read_text()
    rows = in_page(page, "oelm-rows")
    assert sorted(rows) == sorted(f"{run.parent.name}/{run.name}" for run in demo)
    for figure in in_page(page, "oelm-figures"):
        assert "rows" not in figure["layout"]["meta"]
        assert not any("x" in trace or "y" in trace for trace in figure["data"])


def test_each_figure_has_its_own_rows_of_runs_of_one_name(demo, tmp_path):
    """The first figure showed the curves of the second, whose folder has a run of the same name."""
    other = runs_factory.make_run(tmp_path, "DEMO-01", 42, spike=(500, 25.0))
    figures = [loss_curves(folder) for folder in (demo[0], other, demo[0])]
    page = export(write(tmp_path / "a.ipynb", *(code(shown(one)) for one in figures))).read_text()
    rows = in_page(page, "oelm-rows")
    assert len(rows) == 2 and page.count("(2)</td><td><code>") == 1
    for before, after in zip(figures, in_page(page, "oelm-figures"), strict=True):
        names = {name for trace in after["data"] for name in trace["meta"]["runs"]}
        (series,) = json.loads(before.layout.meta["rows"]).values()
        assert [rows[name] for name in names] == [series | {"origin": None}]


def test_untrusted_text_cannot_leave_its_place(tmp_path):
    bad = "</script><script>alert(1)</script><!--"
    figure = Figure(layout={"title": {"text": bad}})
    cells = [
        new_markdown_cell("# A &lt;b&gt;"),
        code(new_output("stream", text=bad), shown(figure)),
        code(new_output("execute_result", data={"text/plain": bad})),
    ]
    page = export(write(tmp_path / "a.ipynb", *cells)).read_text()
    assert "<script>alert" not in page and bad not in page
    assert in_page(page, "oelm-figures")[0]["layout"]["title"]["text"] == bad


def test_failed_notebook_shows_its_error_first(tmp_path):
    error = new_output(
        "error", ename="UserError", evalue="no experiment 'GPT-99'", traceback=["UserError: no ..."]
    )
    page = export(
        write(tmp_path / "a.ipynb", new_markdown_cell("# T"), code(error, tags=["parameters"]))
    ).read_text()
    assert page.index("Cell 2 failed: UserError: no experiment &#39;GPT-99&#39;") < page.index(
        "<h1>"
    )


@pytest.mark.parametrize("tag", ["no-report", "parameters", "injected-parameters", "live-only"])
def test_tagged_cells_stay_out(tmp_path, tag):
    page = export(
        write(tmp_path / "a.ipynb", code(new_output("stream", text="gone"), tags=[tag]))
    ).read_text()
    assert "gone" not in page


def test_a_killed_kernel_leaves_no_notebook_and_one_line_says_why(tmp_path, monkeypatch):
    monkeypatch.setenv("OELM_OUTPUTS", str(tmp_path))

    def execute_notebook(source, target, **options):
        Path(target).write_text('{"metadata": {}}')  # papermill writes what there is, in place
        raise DeadKernelError("Kernel died")

    monkeypatch.setattr(papermill, "execute_notebook", execute_notebook)
    with pytest.raises(UserError, match=r"gpu.ipynb: its kernel died .* then: oelm report gpu$"):
        report("gpu")
    assert not list(tmp_path.iterdir())


def test_progress_lines_leave_their_last_state(tmp_path):
    page = export(
        write(tmp_path / "a.ipynb", code(new_output("stream", text="step 1\rstep 2\rdone\nnext\n")))
    ).read_text()
    assert "done\nnext" in page and "step 1" not in page


def test_contents_name_the_sections(tmp_path):
    source = write(
        tmp_path / "a.ipynb", new_markdown_cell("# T\n## A & B\n### Detail\n## Two"), code()
    )
    page = export(source).read_text()
    assert re.findall(r'<li><a href="#(.*?)">(.*?)</a>', page) == [
        ("section-1", "A &amp; B"),
        ("section-2", "Two"),
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
        export(path)
    assert not path.with_suffix(".html").exists()


def test_a_figure_from_elsewhere_keeps_its_numbers(tmp_path):
    figure = Figure(go.Scatter(x=[1, 2], y=np.array([3.0, 4.0])), layout={"meta": "words"})
    page = export(write(tmp_path / "a.ipynb", code(shown(figure)))).read_text()
    (kept,) = in_page(page, "oelm-figures")
    assert kept["data"][0]["x"] == [1, 2] and kept["data"][0]["y"]["dtype"] == "f8"
    assert in_page(page, "oelm-rows") == {}


@pytest.mark.parametrize(
    ("target", "words"),
    [
        ("GPT-99", "not an executed notebook, a run folder or an experiment"),
        ("compar", r"experiment \(did you mean compare\?\); use X.ipynb"),
        ("missing.ipynb", "no such notebook"),
        ("run", "no train.ipynb, since this run was not made by `oelm run`"),
    ],
)
def test_report_of_nothing_is_one_line(demo, target, words):
    with pytest.raises(UserError, match=words):
        report(str(demo[0]) if target == "run" else target)


@pytest.mark.parametrize("state", ["queued", "stopped"])
def test_report_of_a_run_without_a_result_says_when_its_page_is_made(tmp_path, monkeypatch, state):
    monkeypatch.setenv("OELM_OUTPUTS", str(tmp_path))
    run = runs_factory.make_run(tmp_path, state=state, done=0.5)
    status = read_json(run / "status.json") | this_process()
    write_json(run / "status.json", status)
    if state == "queued":
        (run / "config.yaml").unlink()
    with pytest.raises(UserError, match=f"{state}; its page is made .* `oelm run`"):
        report("DEMO-01/seed42")


def test_report_of_a_run_that_trains_says_when_its_page_is_made(tmp_path):
    run = runs_factory.make_run(tmp_path, state="running", done=0.5)
    lock = RunLock(run)
    lock.acquire()
    with pytest.raises(UserError, match="running; its page is made when it ends"):
        report(run)
    lock.release()


def test_report_of_a_run_is_the_page_of_its_notebook(tmp_path, monkeypatch):
    run = runs_factory.make_run(tmp_path)
    write(run / "train.ipynb", new_markdown_cell("# Run"), code())
    assert report(run) == run / "train.html"
    monkeypatch.setenv("OELM_OUTPUTS", str(tmp_path))
    exp, seed = run.parent.name.split("_")[0], run.name
    assert report(f"{exp}/{seed}") == run / "train.html"
    with pytest.raises(UserError, match=f"{exp}/seed99"):
        report(f"{exp}/seed99")


def test_a_hostile_notebook_cannot_load_run_or_lead_away(tmp_path):
    (tmp_path / "secret.png").write_bytes(b"\x89PNG secret")
    text = (
        "# T\n\n![words](secret.png) <img src='secret.png'> ![far](http://far.example/a.png)\n"
        "<meta http-equiv='refresh' content='0;url=http://far.example/'>"
        "<base href='http://far.example'> <a href='javascript:alert(1)'>link</a>"
    )
    html = (
        "<script>alert(1)</script><svg onload='alert(2)'></svg><iframe src='secret.png'></iframe>"
        "<form action='http://far.example'><input></form><object data='secret.png'></object>"
        "<p id='oelm-rows' onclick='alert(3)' style='position:fixed;color:red'>words</p>"
        "<style>body{display:none}</style><style>@import 'http://far.example';"
        "#T_1 td{position:fixed;color:red} #T_1, body{color:blue}</style>"
        "<link rel='stylesheet' href='http://far.example/a.css'>"
    )
    outputs = [
        {"text/html": html},
        {"application/javascript": "alert(4)"},
        {"text/markdown": text},
        {"text/html": "<div class='figure' data-figure='99'></div>"},
    ]
    cell = code(*(new_output("display_data", data=data) for data in outputs))
    source = write(tmp_path / "a.ipynb", new_markdown_cell(text), cell, papermill="no record")
    page = export(source).read_text()
    body = page[page.index("<body>") :]
    assert "secret" not in body and "far.example" not in body and "alert" not in body
    assert not re.search(r"<(script|svg|iframe|form|input|object|meta|base|link|img)\b", body)
    assert not re.search(r"\bon\w+=|position|oelm-rows|display:none|blue|javascript", body)
    assert "#T_1 td {color:red;}" in body
    assert '<p style="color:red;">words</p>' in body and "[picture left out] words" in body


def test_embedded_pictures_links_and_styled_tables_stay(tmp_path, demo):
    table = frames.load_folders(demo)[["run", "final_val_loss"]].style.set_table_styles(
        [{"selector": "td", "props": "text-align:right"}]
    )
    markdown = "# T\n[site](https://site.example) ![dot](data:image/png;base64,iVBORw0=)"
    output = new_output("display_data", data={"text/html": table.to_html()})
    page = export(write(tmp_path / "a.ipynb", new_markdown_cell(markdown), code(output)))
    text = page.read_text()
    assert 'href="https://site.example"' in text and 'src="data:image/png;base64,iVBORw0="' in text
    assert re.search(r"<style>#T_(\w+) td \{text-align: right;\}</style>", text)
    assert re.search(r'<table id="T_\w+"', text)


def test_a_folded_cell_stands_last(tmp_path):
    log = code(new_output("stream", text="line <1>\n"), tags=["fold:Training log"])
    source = write(tmp_path / "a.ipynb", new_markdown_cell("# T"), log, new_markdown_cell("## B"))
    page = export(source).read_text()
    assert "<details><summary>Training log</summary><pre>line &lt;1&gt;" in page
    assert page.index("Training log") > page.index(">B</h2>")


def test_a_page_names_its_subject_and_its_command(tmp_path):
    record = {"parameters": {"exps": "CPU-*", "baseline": ""}, "input_path": "x/compare.ipynb"}
    cells = [new_markdown_cell("# Compare"), code()]
    page = export(write(tmp_path / "a.ipynb", *cells, papermill=record)).read_text()
    assert "<title>Compare: CPU-*</title>" in page
    assert (
        "papermill notebooks/compare.ipynb a.ipynb -p baseline" in page
        and "-p exps &#39;CPU-*&#39;" in page
    )
    own = {"command": "oelm report 'CPU-*'"}
    page = export(write(tmp_path / "a.ipynb", *cells, papermill=record, oelm=own)).read_text()
    assert "<dd>oelm report &#39;CPU-*&#39;</dd>" in page


def test_the_index_lists_what_made_a_page_and_no_other_term(tmp_path):
    """The terms that a study's page explains stood in the index."""
    terms = code(new_output("display_data", data={"text/html": "<dl><dt>gap</dt><dd>x</dd></dl>"}))
    own = {"command": "oelm report example"}
    export(write(tmp_path / "a.ipynb", new_markdown_cell("# T"), terms, oelm=own))
    (tmp_path / "b.html").write_text("<p>of another program</p>")  # which raised ValueError
    write_index(tmp_path)
    index = (tmp_path / "index.md").read_text()
    assert "- command: `oelm report example`" in index
    assert re.search(r"- page made: [-\d]+ [:\d]+ UTC on .+, \d+ threads", index)
    assert "gap" not in index and "b.html" not in index


def browser(folder, script):
    """A command `chromium` in a folder of its own."""
    folder.mkdir()
    (folder / "chromium").write_text(f"#!/bin/sh\n{script}\n")
    (folder / "chromium").chmod(0o755)
    return str(folder)


def test_published_pages_of_two_runs_have_two_names(tmp_path, monkeypatch):
    script = 'for word; do case $word in --screenshot=*) : > "${word#*=}";; esac; done'
    monkeypatch.setenv("PATH", browser(tmp_path / "bin", script))
    for seed in (1, 2):
        run = runs_factory.make_run(tmp_path / "outputs", "DEMO-02", seed)
        publish(export(write(run / "train.ipynb", new_markdown_cell("# T"))), tmp_path / "reports")
    names = [path.name for path in (tmp_path / "reports").glob("*.html")]
    assert sorted(names) == [f"DEMO-02_oelm_freeze_seed{seed}.html" for seed in (1, 2)]


@pytest.mark.parametrize(
    ("script", "words"),
    [
        (None, "no browser for a.png"),
        ("exit 3", "exit code 3; open the page"),
        ("exit 0", "made no picture, and no error; .* set TMPDIR"),
    ],
)
def test_without_a_picture_nothing_is_published(tmp_path, monkeypatch, script, words):
    page = export(write(tmp_path / "a.ipynb", new_markdown_cell("# T")))
    monkeypatch.setenv("PATH", browser(tmp_path / "bin", script) if script else str(tmp_path))
    with pytest.raises(UserError, match=words):
        publish(page, tmp_path / "reports")
    assert list((tmp_path / "reports").iterdir()) == []


@pytest.mark.parametrize("name", STANDARD)
def test_standard_pages_pass_every_parameter_of_their_notebook(name):
    notebook = nbformat.read(ROOT / "notebooks" / f"{name}.ipynb", as_version=4)
    (cell,) = [cell for cell in notebook.cells if "parameters" in cell.metadata.get("tags", [])]
    values = {}
    exec(cell.source, values)
    values.pop("__builtins__")
    values.pop("__annotations__", None)
    assert STANDARD[name] == values


@pytest.mark.parametrize("target", ["example", "bench", "explore", "run", "a.ipynb"])
def test_a_baseline_is_for_comparisons_only(demo, target):
    with pytest.raises(UserError, match="--baseline belongs to comparisons"):
        report(str(demo[0]) if target == "run" else target, "DEMO-01")


@pytest.mark.parametrize("target", ["DEMO-*", "DEMO-01*+*", "compare"])
def test_an_unknown_baseline_is_one_line(tmp_path, monkeypatch, target):
    """Rehearsals alone were refused as if there were none."""
    monkeypatch.setenv("OELM_OUTPUTS", str(tmp_path))
    runs_factory.make_run(tmp_path, "DEMO-01", overrides={"train.max_steps": 100})
    with pytest.raises(UserError, match=r"no experiment 'DEMO-99' \(did you mean DEMO-0"):
        report(target, "DEMO-99")


def test_a_run_killed_after_its_result_was_written_is_finished(tmp_path, monkeypatch):
    monkeypatch.setenv("OELM_OUTPUTS", str(tmp_path))
    path = runs_factory.make_run(tmp_path, "DEMO-01")
    status = read_json(path / "status.json")
    write_json(path / "status.json", status | {"state": "evaluating"})
    _check_finished(["DEMO-01"])
    (path / "summary.json").unlink()
    with pytest.raises(UserError, match="no finished run of DEMO-01; train: oelm run DEMO-01"):
        _check_finished(["DEMO-01"])


def test_the_name_of_a_page_is_one_that_file_systems_take():
    """The name for seven rehearsals used to have more than 255 characters."""
    many = " ".join(f"DEMO-02_oelm_freeze+{number:08x}" for number in range(9))
    names = {page_slug(text) for text in ("DEMO-02", "DEMO-02*+*", many, many[:-1])}
    assert len(names) == 4 and max(map(len, names)) == MOST_SLUG
    assert page_slug("DEMO-01 DEMO-*") == "DEMO-01_DEMO-"


def test_different_patterns_have_pages_of_their_own():
    texts = ("DEMO-*", "DEMO-?", "DEMO-??", "*DEMO-*", "DEMO-0*", "DEMO-0?", "DEMO-0[12]")
    texts += ("DEMO-02", "DEMO-02*", "DEMO-02*+*", "DEMO-02?+*", "DEMO-[!12]", "DEMO-[12]")
    assert len({page_slug(text) for text in texts}) == len(texts)
    for text, name in {
        "DEMO-*": "DEMO-",
        "DEMO-*_CPU-*": "DEMO-_CPU-",
        "DEMO-02_vs_DEMO-01": "DEMO-02_vs_DEMO-01",
        "DEMO-*/seed42": "DEMO-_seed42",
        "DEMO-02_oelm_v2+1a2b3c4d/seed42": "DEMO-02_oelm_v2+1a2b3c4d_seed42",
    }.items():
        assert page_slug(text) == name
