"""The explore notebook's figures, sentences and live choices, and a real JupyterLab."""

import dataclasses
import json
import re
import shutil

import pytest

from oelm_lib.data.tokenizer import Ids
from oelm_lib.errors import UserError
from oelm_lib.explore import figures, maps, probes, sentences, tables
from oelm_lib.explore.arms import open_arms
from oelm_lib.explore.head_explorer import OVER_TIME, HeadExplorer
from oelm_lib.view.figure import MIMETYPE
from tests.conftest import TINY_RUN
from tests.explore.conftest import train_as_demo
from tests.lab import make_checkout, open_lab, run_all

PROMPT = "The owl saw a cat."


@pytest.fixture(scope="session")
def trained(tmp_path_factory, stories):
    """Folder with a baseline and an OELM-Freeze, made once."""
    changes = {"train.max_steps": 12, "model.max_seq_len": 64}
    return train_as_demo(
        tmp_path_factory.mktemp("figures"), stories, ("DEMO-01", "DEMO-02"), **changes
    )


@pytest.fixture
def outputs(trained, stories, tmp_path, monkeypatch):
    """A copy of `trained` for one test."""
    folder = shutil.copytree(trained, tmp_path / "outputs")
    monkeypatch.setenv("OELM_OUTPUTS", str(folder))
    monkeypatch.setenv("OELM_DATA", str(stories))
    return folder


@pytest.fixture
def arms(outputs):
    return open_arms("DEMO-*/seed42")


def test_every_figure_holds_every_arm(arms):
    names = ["baseline", "OELM-Freeze"]
    for draw in (
        figures.head_scores,
        figures.depth,
        figures.spectra,
        figures.loss_by_position,
        figures.logit_spread,
    ):
        figure = draw(arms)
        named = [trace.name for trace in figure.data if trace.showlegend is not False]
        assert sorted(named) == sorted(names), draw
        assert all(len(trace.x) == len(trace.y) > 0 for trace in figure.data)


def test_every_measure_has_a_picture_and_says_which_way_is_good(arms):
    from oelm_lib.explore.probes import PROBES, probe_values

    drawn = figures.probe_panels(arms)
    shown = [probe for key, probe in PROBES.items() if key in probe_values(arms)]
    assert len(drawn) == len(shown)
    for figure, probe in zip(drawn, shown, strict=True):
        assert probe.title in figure.layout.title.text.replace(" <br>", " ")
        assert list(figure.layout.yaxis.ticktext) == ["baseline", "OELM-Freeze"]
        subtitle = figure.layout.title.subtitle.text.replace(" <br>", " ")
        assert probe.meaning in subtitle
        assert [trace.name for trace in figure.data] == ["baseline", "OELM-Freeze"]
        assert re.search("[Ll]ower|[Hh]igher|[Nn]either|tells|Directions", probe.meaning)


def test_a_long_name_of_an_arm_leaves_room_for_the_dots():
    from oelm_lib.explore.figures import NAME_LINE, _name_lines

    lines = _name_lines("OELM-Freeze, freeze_k=False, max_steps=60").split("<br>")
    assert lines == ["OELM-Freeze,", "freeze_k=False,..."] and max(map(len, lines)) <= NAME_LINE


def test_the_attention_grid_is_a_square_a_head(arms):
    shape = [TINY_RUN["model.num_layers"], TINY_RUN["model.num_heads"]]
    grid = maps.attention_grid(arms, PROMPT)
    assert [trace.type for trace in grid.data] == ["heatmap", "heatmap"]
    tokens = len(arms[0].encode(PROMPT)[0])
    assert [len(grid.data[0].z), len(grid.data[0].z[0])] == [n * (tokens + 1) - 1 for n in shape]
    assert grid.data[0].z[0][0] == 1.0  # the first query has one key
    assert grid.data[0].text[tokens + 1][0].startswith("layer 1, head 0<br>")
    other = dataclasses.replace(arms[1], tokenizer=Ids())
    with pytest.raises(UserError, match="tokenize the prompt differently"):
        maps.layer_grid([arms[0], other], "3 7", 0)


def test_runs_with_other_numbers_of_heads_stand_side_by_side(arms, outputs, stories):
    changes = {"train.max_steps": 12, "model.max_seq_len": 64, "model.num_heads": 4}
    train_as_demo(outputs, stories, ["DEMO-03"], **changes)
    arms = [arms[0], *open_arms("DEMO-03/seed42")]
    squares = maps.layer_grid(arms, PROMPT, 0).data[0].z
    size = len(arms[0].encode(PROMPT)[0])
    first, second = squares[:size], squares[size + 1 :]
    drawn = [sum(value is not None for value in line) for line in (first[-1], second[-1])]
    assert drawn == [2 * size, 4 * size] and len(squares[0]) == 4 * (size + 1) - 1

    figure = figures.head_scores(arms)
    axis = dict(zip(figure.layout.xaxis.tickvals, figure.layout.xaxis.ticktext, strict=True))
    assert list(axis.values()) == [f"{layer}.{head}" for layer in (0, 1) for head in range(4)]
    for trace in figure.data:
        assert [axis[round(x)] for x in trace.x] == list(trace.text)
    assert "Directions.</b> The heads" in sentences.findings(arms)._repr_html_()


def test_a_token_shows_where_it_looks(arms):
    line = maps.token_line(arms[0], PROMPT + " <b>", 1, head=0)
    words = maps.words_of(arms[0], PROMPT + " <b>")
    assert line.count("class='token q") == len(words) and "<b>" not in line
    assert re.search(r":has\(\.q0:hover\) \.q0\{background-color:rgba\(27,127,196,1\.00\)\}", line)
    assert line.count("head 0: ") == line.count("head 1: ") == len(words)
    assert not re.search(r"q2:hover\) \.q3", line)  # no later key


def test_tables_have_a_column_an_arm_and_digits_that_mean_something(arms):
    assert list(tables.summary(arms)) == ["measure", "baseline", "OELM-Freeze"]
    slices = tables.slices(arms)
    assert slices["OELM-Freeze: share of its gap"][0] == "100%"
    assert tables.texts(arms, PROMPT)["text"].str.startswith(PROMPT).all()
    assert len(tables.next_tokens(arms, PROMPT)) == tables.NEXT_TOKENS
    assert [tables.number(value) for value in (5.12345, 9.996, 0.05678, 1234.5, 15.68, 1e-7)] == [
        "5.12",
        "10.0",
        "0.057",
        "1,230",
        "15.7",
        "0",
    ]
    assert tables.mean_and_range([1.0, 2.0]) == "1.50 (1.00 to 2.00)"


def test_findings_follow_from_the_numbers_by_rule(arms, monkeypatch, capsys):
    text = sentences.findings(arms)
    shown = re.findall(r"looking into (\S+)/seed42, (\d) of 2", capsys.readouterr().out)
    assert shown == [("DEMO-01_baseline", "1"), ("DEMO-02_oelm_freeze", "2")]
    assert "No arm has such a head. The nearest is layer" in text
    assert "Gap of OELM-Freeze." in text and "One seed per arm" in text
    for line in re.findall("<li>(.*?)</li>", text):
        numbers = re.findall(
            r"(?<![\w.])\d+(?:\.\d+)?(?!\d)", re.sub(r"layer \d+, head \d+", "", line)
        )
        assert len(numbers) <= 3, line
    assert sentences._place(2.0) == "It is concentrated on tokens that could be copied."
    assert sentences._place(1.0) == "It is spread over all tokens."
    assert sentences._place(0.5).startswith("It lies mostly on tokens that could not")
    monkeypatch.setattr(sentences, "STRONG", 0.0)
    assert re.search(
        r"Induction heads\.</b> baseline has \d of 4; OELM-Freeze has", sentences.findings(arms)
    )


def test_a_checkpoint_before_the_end_of_its_run_is_named(arms):
    assert "Not trained to the end" not in sentences.findings(arms)
    early = [arms[0], dataclasses.replace(arms[1], step=3)]
    assert re.search(
        r"Not trained to the end\.</b> OELM-Freeze \(DEMO-02, seed 42\) at step 3 of \d+\.",
        sentences.findings(early),
    )


def test_the_sentences_and_the_table_agree_on_which_heads_have_a_role(arms, monkeypatch):
    """The sentences compared a share of two decimals."""
    share = probes.roles(arms)["share"].max() - 1e-6
    for module in (probes, sentences):
        monkeypatch.setattr(module, "STRONG", share)
    assert "has 1 of 4." in sentences.findings(arms)
    assert "1 of 4" in set(probes.roles(arms)["heads_with_the_role"])


def test_a_token_with_an_apostrophe_is_shown_under_the_mouse(arms):
    """Its double quotes were `&quot;`, which plotly does not read."""
    rows = maps.attention_grid(arms, "It's a cat.").data[0].text
    texts = "".join(text for row in rows for text in row)
    assert '"' in texts and "&quot;" not in texts


def shown(explorer):
    return explorer.map.outputs[0]["data"][MIMETYPE]


def test_every_choice_changes_the_picture(outputs):
    explorer = HeadExplorer("DEMO-*/seed42", PROMPT)
    for widget, value in (
        (explorer.layer, 1),
        (explorer.head, "head 1"),
        (explorer.prompt, "A dog ran."),
        (explorer.checkpoint, "best"),
        (explorer.compare, OVER_TIME),
        (explorer.left, explorer.right.value),
    ):
        before = json.dumps(shown(explorer)) + explorer.tokens.value
        widget.value = value
        assert json.dumps(shown(explorer)) + explorer.tokens.value != before or (
            widget is explorer.checkpoint  # the tiny run's best step may be its last
        )
        assert explorer.problem.value == ""
    assert (explorer.layer.value, explorer.head.value) == (1, "head 1")
    with pytest.raises(UserError, match="no run is called 'DEMO-99'"):
        HeadExplorer("DEMO-99", PROMPT)


def test_a_run_outside_the_outputs_folder_can_be_chosen(outputs, tmp_path, monkeypatch):
    """It was looked for by its name among the runs of the outputs folder."""
    monkeypatch.setenv("OELM_OUTPUTS", str(tmp_path / "empty"))
    explorer = HeadExplorer(str(outputs / "DEMO-02_oelm_freeze" / "seed42"), PROMPT)
    assert explorer.problem.value == "" and shown(explorer)


def test_texts_are_written_on_demand_and_disappear_at_the_next_choice(outputs):
    explorer = HeadExplorer("DEMO-*/seed42", PROMPT)
    assert explorer.words.value == ""
    explorer.write_texts()
    assert "OELM-Freeze" in explorer.words.value
    explorer.layer.value = 1
    assert explorer.words.value == ""


@pytest.mark.parametrize(
    ("prompt", "words"), [("", "the prompt is empty"), ("owl " * 60, "leave out")]
)
def test_a_mistake_is_one_line_and_leaves_no_stale_picture(outputs, prompt, words):
    explorer = HeadExplorer("DEMO-*/seed42", PROMPT)
    explorer.write_texts()
    explorer.prompt.value = prompt
    assert words in explorer.problem.value
    assert explorer.map.outputs == () and explorer.tokens.value == explorer.words.value == ""
    explorer.prompt.value = PROMPT
    assert explorer.problem.value == "" and shown(explorer) and explorer.tokens.value


def test_the_checkpoints_of_a_run_are_shown_in_the_order_of_their_steps(outputs):
    explorer = HeadExplorer("DEMO-*/seed42", PROMPT)
    explorer.compare.value = OVER_TIME
    steps = re.findall(r"step (\d+)", shown(explorer)["layout"]["title"]["subtitle"]["text"])
    assert steps == ["10", "12"]


def test_a_run_without_a_checkpoint_is_one_line_in_both_comparisons(outputs):
    """Its checkpoints over time raised in the callback, and the old picture stayed."""
    explorer = HeadExplorer("DEMO-*/seed42", PROMPT)
    for file in (outputs / explorer.right.value).glob("*.pt"):
        file.unlink()
    explorer = HeadExplorer("DEMO-01/seed42", PROMPT)
    explorer.left.value = "DEMO-02_oelm_freeze/seed42"
    both = explorer.problem.value
    explorer.compare.value = OVER_TIME
    assert explorer.problem.value == both != "" and explorer.map.outputs == ()


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
        "entropy of attention",
        "Roles of heads",
        "Over depth",
        "Spectra of the Q/K forms",
        "Loss by position",
    ):
        assert f"<b>{title}</b>" in page.replace("\\u003c", "<").replace("\\u003e", ">"), title
    assert page.count('class="figure"') == 6 + 14
    assert "Live controls" not in page
    assert "orthogonality error" in page and "What the probes see" in page


PLOTS = "[...document.querySelectorAll('.jupyter-widgets .js-plotly-plot')]"
MAP = f"JSON.stringify({PLOTS}.pop()?.data?.[0]?.z ?? 0)"


@pytest.mark.slow
def test_explore_runs_in_jupyterlab_and_layer_head_and_prompt_change_the_map(
    outputs, stories, tmp_path
):
    checkout = make_checkout(tmp_path, {})
    with open_lab(checkout, OELM_OUTPUTS=str(outputs), OELM_DATA=str(stories)) as lab:
        page = lab.open("explore", height=12000)
        run_all(page)
        page.wait_for_function(f"{MAP} !== '0'")
        assert page.locator("[data-mime-type='application/vnd.jupyter.stderr']").count() == 0
        for choose in (
            lambda: page.get_by_label("layer", exact=True).select_option("1"),
            lambda: page.get_by_label("right", exact=True).select_option(index=0),
            lambda: write(page, "A dog ran."),
        ):
            before = page.evaluate(MAP)
            choose()
            page.wait_for_function(f"before => {MAP} !== before", arg=before)
        page.screenshot(path=tmp_path / "lab.png", full_page=True)


def write(page, prompt):
    box = page.get_by_label("prompt", exact=True)
    box.fill(prompt)
    box.blur()
