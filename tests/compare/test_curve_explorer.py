import json

from oelm_lib.compare.curve_explorer import CurveExplorer
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
        (explorer.log_scale, False),
        (explorer.figure, "gap"),
        (explorer.baseline, "DEMO-03"),
        (explorer.baseline, ""),
    ]
    for widget, value in changes:
        before = json.dumps(shown(explorer))
        widget.value = value
        assert json.dumps(shown(explorer)) != before, widget.description
        assert shown(explorer)["layout"]["legend"]["yref"] == "container"  # below, not beside
    assert {name.split(" · ")[0] for name in visible(shown(explorer))} == {
        "OELM-Freeze",
        "OELM-Random",
        "frozen Gaussian",
    }


def test_the_list_of_baselines_follows_the_runs(tmp_path):
    runs_factory.make_run(tmp_path, "DEMO-02")
    explorer = CurveExplorer("DEMO-*", "DEMO-01", str(tmp_path))
    assert explorer.baseline.value == ""
    runs_factory.make_run(tmp_path, "DEMO-01")
    explorer.refresh()
    assert list(explorer.baseline.options.values()) == ["", "DEMO-01", "DEMO-02"]
    assert explorer.baseline.value == "DEMO-01"
    explorer.baseline.value = ""
    runs_factory.make_run(tmp_path, "DEMO-03")
    explorer.refresh()
    assert explorer.baseline.value == ""


def test_rehearsals_are_left_out_unless_a_plus_sign_asks_for_them(tmp_path):
    runs_factory.make_run(tmp_path, "DEMO-01")
    runs_factory.make_run(tmp_path, "DEMO-01", overrides={"train.max_steps": 130})
    names = [str(run) for run in CurveExplorer("DEMO-*", "", str(tmp_path)).runs.options]
    asked = [str(run) for run in CurveExplorer("DEMO-01 *+*", "", str(tmp_path)).runs.options]
    assert (len(names), len(asked)) == (1, 2)


def test_a_baseline_with_an_addition_is_drawn_and_named(tmp_path):
    for exp in ("GPT-09", "GPT-13", "GPT-14"):
        runs_factory.make_run(tmp_path, exp, train_every=10_000)
    explorer = CurveExplorer("GPT-*", "", str(tmp_path))
    explorer.figure.value = "gap"
    assert visible(shown(explorer)) == [
        "baseline + T5 bias against GPT-09",
        "T5 bias against GPT-13",
    ]


def test_refresh_follows_new_rows_and_new_runs(tmp_path):
    runs_factory.make_run(tmp_path, "DEMO-01", state="running", done=0.5)
    explorer = CurveExplorer("DEMO-*", "DEMO-01", str(tmp_path))
    before = shown(explorer)
    explorer.refresh()
    assert shown(explorer) == before
    runs_factory.make_run(tmp_path, "DEMO-02")
    drawn = []
    explorer.output.observe(lambda change: drawn.append(visible(shown(explorer))), "outputs")
    explorer.refresh()
    assert drawn == [["baseline", "OELM-Freeze"]]  # and not an empty figure before


def test_opens_where_nothing_has_run(tmp_path):
    assert "Nothing to draw yet." in json.dumps(
        shown(CurveExplorer("DEMO-*", "DEMO-01", str(tmp_path)))
    )
