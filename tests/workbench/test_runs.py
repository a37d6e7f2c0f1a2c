"""Progress lines, logs and commands as HTML: escaped, with short names and links."""

from oelm_lib.workbench import runs
from oelm_lib.workbench.launches import Launch
from oelm_lib.workbench.runs import launches_html, list_label, log_html, progress_html


def test_texts_from_files_are_escaped(tmp_path):
    log = tmp_path / "x.log"
    log.write_text("<script>1</script>\n")
    launch = Launch("oelm run '<b>'", log, True)
    assert "<script>" not in launches_html([launch]) and "<b>" not in launches_html([launch])
    row = {"run": "<i>/seed1", "state": "running", "max_steps": 10, "changed": 1.0}
    assert "<i>" not in progress_html([row])
    assert "no log yet" in log_html([row | {"path": str(tmp_path)}])
    assert launches_html([]) == log_html([]) == ""


def test_a_list_and_a_bar_name_runs_as_tables_do_so_that_a_narrow_one_tells_them_apart():
    slug = "oelm_freeze_num_heads_learning_rate_warmup_steps"
    name = f"DEMO-05_{slug}+0123abcd/seed42"
    assert list_label(name) == f"DEMO-05+0123abcd/42 {slug}"
    assert list_label("DEMO-02_oelm_freeze/seed42") == "DEMO-02/42 oelm_freeze"
    line = progress_html([{"run": name, "state": "running", "max_steps": 10}])
    assert f"<div title='{name}'>" in line and "DEMO-05+0123abcd/42 · running" in line


def launched_html(log, line, command="oelm report"):
    """The HTML of a command that has ended with this line."""
    log.write_text(line)
    return launches_html([Launch(command, log, False)])


def test_a_command_that_made_a_page_has_a_link_to_it(tmp_path, monkeypatch):
    page = tmp_path / "compare.html"
    page.write_text("")
    monkeypatch.chdir(tmp_path)
    log = tmp_path / "x.log"
    assert "<a href='compare.html'" in launched_html(log, f"{page}\n\n")
    html = launched_html(log, f"DEMO-07_x/seed1 is done: {page}\n", "oelm run DEMO-07")
    assert "DEMO-07_x/seed1 is done: <a href='compare.html'" in html


def test_a_link_leads_to_a_folder_of_any_name(tmp_path, monkeypatch):
    """JupyterLab took what follows a # for a place in the page, and failed on a %."""
    page = tmp_path / "50% #1's" / "compare.html"
    page.parent.mkdir()
    page.write_text("")
    monkeypatch.chdir(tmp_path)
    html = launched_html(tmp_path / "x.log", f"{page}\n")
    assert "<a href='50%25%20%231%27s/compare.html'" in html


def test_a_command_that_failed_says_so_in_red(tmp_path):
    log = tmp_path / "x.log"
    log.write_text("oelm: a/seed1: no metrics yet; see <oelm status>\n")
    html = launches_html([Launch("oelm export a/seed1", log, False)])
    assert "<span style='color:var(--bad," in html and "see &lt;oelm status&gt;</span>" in html


def test_a_command_that_runs_shows_for_how_long(tmp_path, monkeypatch):
    monkeypatch.setattr(runs.time, "time", lambda: 1033.0)
    launch = Launch("oelm report", tmp_path / "x.log", True, started=1000.0)
    assert "running 30s" in launches_html([launch])
