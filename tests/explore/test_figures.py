"""The explore notebook's figures and live choices, on arms of tiny runs and in a real JupyterLab."""

import dataclasses
import json

import pytest

from oelm_lib import training
from oelm_lib.data.tokenizer import Ids
from oelm_lib.errors import UserError
from oelm_lib.explore import figures as explore
from oelm_lib.explore.live import HeadExplorer
from oelm_lib.view.figure import MIMETYPE
from tests.conftest import TINY_RUN
from tests.lab import open_lab, run_all

PROMPT = "The owl saw a cat."


@pytest.fixture
def outputs(tiny_run, monkeypatch):
    """Folder with a baseline and an OELM-Freeze of a few steps, under the names of the demo's own runs."""
    for exp in ("DEMO-01", "DEMO-02"):
        run = tiny_run(exp, seed=42, train__max_steps=12, model__max_seq_len=64)
        training.train(run.config, run)
        run.path.parent.rename(run.path.parents[1] / f"{exp}_{run.config.slug}")
    monkeypatch.setenv("OELM_OUTPUTS", str(run.path.parents[1]))
    return run.path.parents[1]


def test_every_figure_holds_every_arm(outputs):
    from oelm_lib.explore import probes

    arms = probes.open_arms("DEMO-*/seed42")
    shape = [TINY_RUN["model.num_layers"], TINY_RUN["model.num_heads"]]
    for draw in (
        explore.head_scores,
        explore.depth,
        explore.spectra,
        explore.loss_by_position,
        explore.logit_spread,
    ):
        figure = draw(arms)
        named = [trace.name for trace in figure.data if trace.showlegend is not False]
        assert sorted(named) == sorted(map(probes.label, arms)), draw
        assert all(len(trace.x) == len(trace.y) > 0 for trace in figure.data)
    grid = explore.attention_grid(arms, PROMPT)
    assert [trace.type for trace in grid.data] == ["heatmap", "heatmap"]
    tokens = len(arms[0].encode(PROMPT)[0])
    assert [len(grid.data[0].z), len(grid.data[0].z[0])] == [n * (tokens + 1) - 1 for n in shape]
    assert grid.data[0].z[0][0] == 1.0  # the first query has one key
    assert grid.data[0].text[tokens + 1][0].startswith("layer 1, head 0<br>")
    assert explore.slices(arms).iloc[0, 3].endswith("100%)")
    assert list(explore.summary(arms)) == ["measure", *map(probes.label, arms)]
    assert explore.texts(arms, PROMPT)["text"].str.startswith(PROMPT).all()
    assert len(explore.next_tokens(arms, PROMPT, 5)) == 5
    other = dataclasses.replace(arms[1], tokenizer=Ids())
    with pytest.raises(UserError, match="other tokens"):
        explore.attention_pair([arms[0], other], "3 7", 0, 0)


def shown(explorer):
    return explorer.map.outputs[0]["data"][MIMETYPE]


def test_every_choice_changes_the_map_and_a_mistake_is_one_line(outputs):
    explorer = HeadExplorer("DEMO-*/seed42", PROMPT)
    changes = [
        (explorer.layer, 1),
        (explorer.head, 1),
        (explorer.prompt, "A dog ran."),
        (explorer.checkpoint, "best"),
    ]
    changes += [(explorer.left, explorer.right.value), (explorer.seed, 3)]
    for widget, value in changes:
        before = json.dumps(shown(explorer)) + explorer.words.value + explorer.checkpoint.value
        widget.value = value
        assert (
            json.dumps(shown(explorer)) + explorer.words.value + explorer.checkpoint.value != before
        ), widget
        assert explorer.problem.value == ""
    assert (explorer.layer.value, explorer.head.value) == (1, 1)
    for prompt, words in (("", "the prompt is empty"), ("owl " * 60, "leave out")):
        explorer.prompt.value = prompt
        assert words in explorer.problem.value
    with pytest.raises(UserError, match="no run is called 'DEMO-99'"):
        HeadExplorer("DEMO-99", PROMPT)


@pytest.mark.slow
def test_the_exported_page_holds_every_figure_and_no_live_control(outputs, tmp_path):
    papermill = pytest.importorskip("papermill")
    from oelm_lib.config import ROOT
    from oelm_lib.report.page import export

    done = tmp_path / "explore.ipynb"
    papermill.execute_notebook(
        ROOT / "notebooks" / "explore.ipynb", done, progress_bar=False, cwd=ROOT
    )
    page = export(done).read_text()
    for title in (
        "Attention",
        "Roles of heads",
        "Over depth",
        "Spectra of the Q/K forms",
        "Loss by position",
    ):
        assert f"<b>{title}</b>" in page.replace("\\u003c", "<").replace("\\u003e", ">"), title
    assert page.count('class="figure"') == 6
    assert "Live controls" not in page
    assert "orthogonality error" in page


MAP = "JSON.stringify([...document.querySelectorAll('.jupyter-widgets .js-plotly-plot')].pop()?.data?.[0]?.z ?? 0)"


@pytest.mark.slow
def test_explore_runs_in_jupyterlab_and_layer_head_and_prompt_change_the_map(
    outputs, stories, tmp_path
):
    folder = tmp_path / "lab"
    folder.mkdir()
    with open_lab(folder, "explore", OELM_OUTPUTS=str(outputs), OELM_DATA=str(stories)) as page:
        page.set_viewport_size({"width": 1400, "height": 12000})
        run_all(page)
        page.wait_for_function(f"{MAP} !== '0'", timeout=60_000)
        assert page.locator("[data-mime-type='application/vnd.jupyter.stderr']").count() == 0
        for choose in (
            lambda: page.get_by_label("layer", exact=True).select_option("1"),
            lambda: page.get_by_label("head", exact=True).select_option("1"),
            lambda: write(page, "A dog ran."),
        ):
            before = page.evaluate(MAP)
            choose()
            page.wait_for_function(f"before => {MAP} !== before", arg=before, timeout=30_000)
        page.screenshot(path=tmp_path / "lab.png", full_page=True)


def write(page, prompt):
    box = page.get_by_label("prompt", exact=True)
    box.fill(prompt)
    box.blur()
