"""Progress lines, logs and commands as HTML: escaped, cut where they are long, with links."""

import time

from oelm_lib.workbench.launches import Launch
from oelm_lib.workbench.run_facts import MOST_NAME, cut_name, launches_html, log_html, progress_html


def test_texts_from_files_are_escaped(tmp_path):
    log = tmp_path / "x.log"
    log.write_text("<script>1</script>\n")
    launch = Launch("oelm run '<b>'", log, True)
    assert "<script>" not in launches_html([launch]) and "<b>" not in launches_html([launch])
    row = {"run": "<i>/seed1", "state": "running", "max_steps": 10, "changed": 1.0}
    assert "<i>" not in progress_html([row])
    assert "no log yet" in log_html([row | {"path": str(tmp_path)}])
    assert launches_html([]) == log_html([]) == ""


def test_a_long_name_keeps_what_tells_two_runs_apart_and_shows_it_all_under_the_pointer():
    slug = "oelm_freeze_num_heads_learning_rate_warmup_steps_max_steps"
    names = [
        f"DEMO-{exp}_{slug}{end}+{overrides}/seed{seed}"
        for exp in ("05", "06")
        for end in ("", "_dropout")
        for overrides in ("0123abcd", "0123abce")
        for seed in (1, 10**17)
    ]
    short = [cut_name(name) for name in names]
    assert len(set(short)) == len(names) and max(map(len, short)) <= MOST_NAME
    assert all(cut.startswith(name[:8]) for cut, name in zip(short, names, strict=True))
    assert cut_name("DEMO-02_oelm_freeze/seed42") == "DEMO-02_oelm_freeze/seed42"
    line = progress_html([{"run": names[0], "state": "running", "max_steps": 10}])
    assert f"<div title='{names[0]}'>" in line and f"{short[0]} · running" in line


def test_a_command_that_made_a_page_has_a_link_to_it(tmp_path, monkeypatch):
    page = tmp_path / "compare.html"
    page.write_text("")
    monkeypatch.chdir(tmp_path)
    log = tmp_path / "x.log"
    log.write_text(f"{page}\n\n")
    html = launches_html([Launch("oelm report", log, False)])
    assert "<a href='compare.html'" in html
    log.write_text(f"DEMO-07_x/seed1 is done: {page}\n")
    html = launches_html([Launch("oelm run DEMO-07", log, False)])
    assert "DEMO-07_x/seed1 is done: <a href='compare.html'" in html


def test_a_command_that_runs_shows_for_how_long(tmp_path):
    launch = Launch("oelm report", tmp_path / "x.log", True, started=time.time() - 33)
    assert "running 30s" in launches_html([launch])
