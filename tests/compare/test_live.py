import json

from oelm_lib.compare.live import CurveExplorer
from oelm_lib.view.figure import MIMETYPE
from tests import runs_factory


def shown(explorer):
    return explorer.output.outputs[0]["data"][MIMETYPE]


def visible(figure):
    return [
        trace["name"]
        for trace in figure["data"]
        if trace["visible"] and trace.get("showlegend") is not False
    ]


def test_every_choice_changes_the_figure(tmp_path):
    runs_factory.make_demo(tmp_path, seeds=(42, 43))
    explorer = CurveExplorer("DEMO-*", "DEMO-01", str(tmp_path))
    assert visible(shown(explorer))[0] == "baseline (mean of 2)"
    changes = [
        (explorer.runs, [run for run in explorer.runs.options if "DEMO-01" not in run]),
        (explorer.group, "seed"),
        (explorer.y, "perplexity"),
        (explorer.x, "epochs"),
        (explorer.smoothing, 0.5),
        (explorer.log_scale, True),
        (explorer.figure, "rate"),
        (explorer.figure, "gap"),
        (explorer.baseline, "DEMO-03"),
    ]
    for widget, value in changes:
        before = json.dumps(shown(explorer))
        widget.value = value
        assert json.dumps(shown(explorer)) != before, widget.description
    assert {name.split(" · ")[0] for name in visible(shown(explorer))} == {
        "OELM-Freeze",
        "frozen Gaussian",
    }


def test_refresh_follows_new_rows_and_new_runs(tmp_path):
    runs_factory.make_run(tmp_path, "DEMO-01", state="running", done=0.5)
    explorer = CurveExplorer("DEMO-*", "DEMO-01", str(tmp_path))
    before = shown(explorer)
    explorer.refresh()
    assert shown(explorer) == before
    runs_factory.make_run(tmp_path, "DEMO-02")
    explorer.refresh()
    assert visible(shown(explorer)) == ["baseline", "OELM-Freeze"]


def test_opens_where_nothing_has_run(tmp_path):
    assert "Nothing to draw yet." in json.dumps(
        shown(CurveExplorer("DEMO-*", "DEMO-01", str(tmp_path)))
    )
