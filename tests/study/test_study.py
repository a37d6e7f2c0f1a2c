"""The study's tables from synthetic records whose answers are known; the kept page says what the records say."""

import math
import re
from html import unescape

import numpy as np
import pandas as pd
import pytest

from oelm_lib import config
from oelm_lib.report.journal import study_sentences
from oelm_lib.study import confirmation, exploration, study
from oelm_lib.study import plots as study_plots
from oelm_lib.study.answer import answer
from tests.study.study_factory import make_study

TABLES = {
    exploration: "explored changes rates grid pilot negative probed",
    confirmation: "confirmed losses contrasts best hypotheses",
}
TABLES = [getattr(module, name) for module, names in TABLES.items() for name in names.split()] + [
    study.samples
]
FIGURES = ("pareto", "rate_curves")


@pytest.fixture(scope="module")
def runs(tmp_path_factory):
    folder = tmp_path_factory.mktemp("study")
    return study.load(make_study(folder / "runs.jsonl", folder / "params"))


def test_an_arm_is_judged_at_its_best_rate_against_the_better_baseline(runs):
    table = exploration.explored(runs).set_index("arm")
    mine = runs[(runs["stage"] == "stage1") & (runs["arm"] == "RoPE")]
    loss = mine["final_val_loss"].min()
    plain, own = (table.loc[name, "val_loss"] for name in ("baseline", "baseline + RoPE"))
    row = table.loc["RoPE"]
    assert row["val_loss"] == loss and own < plain
    assert row["gap_to_plain"] == pytest.approx(math.exp(loss - plain) - 1)
    assert row["gap"] == row["gap_to_own"] == pytest.approx(math.exp(loss - own) - 1)
    tied = table.loc["tied"]
    assert (
        tied["gap"] == tied["gap_to_plain"] > tied["gap_to_own"]
    )  # its own baseline is the worse one
    assert table.loc["baseline", ["edge", "rates"]].tolist() == ["", 4]
    assert row["edge"] == "highest" and row["n"] == 1
    assert (
        table.loc["baseline", "trained_here"] == 1 and table.loc["orthogonal", "trained_here"] == 0
    )
    assert table.loc["delta r=4", "trained_at_medium"] == pytest.approx(
        8 * 4 * (512 + 64) * 2 / (2 * 512**2)
    )


def test_what_an_arm_changes_is_told_by_the_keys_of_its_file(runs):
    table = exploration.changes(runs).set_index("arm")["changes"]
    assert table["baseline"] == "" and table["Gaussian, trained"] == "qk_scale: 1.0"
    assert table["K frozen"] == "qk_init: orthogonal, qk_scale: 1.0, freeze_k: true"
    assert set(table.index) == set(exploration.explored(runs)["arm"])


def test_the_grid_holds_what_differs_in_start_and_scale_alone(runs):
    table = exploration.grid(runs).set_index("Q and K")
    assert sorted(table.index) == [
        "frozen, normal",
        "frozen, orthogonal",
        "trained, normal",
        "trained, orthogonal",
    ]
    assert (
        table.loc["frozen, orthogonal", [f"scale {scale}, perplexity" for scale in (0.453, 1, 1.7)]]
        .notna()
        .all()
    )
    first = exploration.explored(runs).set_index("arm")
    assert table.loc["frozen, normal", "scale 1, perplexity"] == pytest.approx(
        first.loc["Gaussian", "perplexity"]
    )


def test_verdicts_are_of_paired_test_losses_against_the_better_baseline_on_validation(runs):
    table = confirmation.confirmed(runs).set_index(["corpus", "arm"])
    assert len(table) == 8 and set(table["n"]) == {5}
    row = table.loc["wikitext2", "RoPE, delta r=4"]
    second = runs[(runs["stage"] == "stage2") & (runs["corpus"] == "wikitext2")].set_index("seed")
    pair = [
        second[second["arm"] == arm]["final_test_loss"]
        for arm in ("RoPE, delta r=4", "baseline + RoPE")
    ]
    assert row["judged_against"] == "baseline + RoPE"
    assert row["nats"] == pytest.approx((pair[0] - pair[1]).mean())
    assert row["gap"] == pytest.approx(row["gap_to_own"]) and row["gap_to_plain"] < 0
    assert row["within_5_%"] == "PASS" and row["document_error"] >= 0
    frozen = table.loc["wikitext2", "orthogonal"]
    assert frozen["within_5_%"] == "FAIL" and frozen["low"] < frozen["gap"] < frozen["high"]
    assert frozen["confidence"] > 0.95  # Holm over four arms


def test_the_pilot_tells_the_half_width_that_five_seeds_will_have(runs):
    table = exploration.pilot(runs).set_index("arm")
    first = exploration.explored(runs).set_index("arm")
    early = runs[runs["stage"].isin(["stage1", "pilot"])].set_index(
        ["arm", "seed", "learning_rate"]
    )["final_val_loss"]
    rate = {arm: first.loc[arm, "learning_rate"] for arm in ("orthogonal", "baseline")}
    nats = [
        early["orthogonal", n, rate["orthogonal"]] - early["baseline", n, rate["baseline"]]
        for n in (1, 2, 3)
    ]
    assert list(table.index) == ["orthogonal"]
    assert table.loc["orthogonal", "spread"] == pytest.approx(np.std(nats, ddof=1))
    assert table.loc["orthogonal", "half_width_at_5_seeds"] == pytest.approx(
        2.776 * np.std(nats, ddof=1) / 5**0.5
    )


def test_scale_and_orthogonality_are_told_apart(runs):
    table = confirmation.contrasts(runs)
    assert list(table["arm"]) == 2 * ["orthogonal", "Gaussian at the log's scale"]
    orthogonal, scale = table.iloc[0], table.iloc[1]
    assert orthogonal["low"] < 0 < orthogonal["high"] and orthogonal["within_1_%"] == "yes"
    assert scale["low"] > 0.05 and scale["within_1_%"] == "no"
    assert 5 < orthogonal["seeds_for_1_%"] < 20  # five show it here, but would not 95 times in 100
    bias = runs[(runs["arm"] == "Gaussian") & (runs["stage"] == "stage2")]
    both = pd.concat(
        [
            bias.assign(arm="T5 bias"),
            bias[bias["seed"] < 14].assign(arm="T5 bias, scale 0.001", stage="stage2_control"),
        ]
    )
    control = confirmation.contrasts(both)
    assert (
        list(control["arm"]) == 2 * ["T5 bias"]
        and set(control["n"]) == {3}
        and set(control["gap"]) == {0}
    )


def test_runs_set_aside_count_for_nothing(runs):
    aside = runs[runs["stage"] == "stage2"].assign(
        stage="transferred", final_val_loss=0.1, final_test_loss=0.1
    )
    both = pd.concat([runs, aside])
    for table in (
        confirmation.confirmed,
        confirmation.contrasts,
        confirmation.best,
        exploration.explored,
    ):
        assert table(both).equals(table(runs))


def test_the_best_arm_within_each_share_is_named_with_its_verdicts(runs):
    table = confirmation.best(runs)
    assert list(table["within"]) == 3 * [0.01] + 3 * [0.1]
    assert set(table["stage"]) == {"exploratory", "confirmed"}
    other = runs[(runs["stage"] == "stage1") & runs["arm"].isin(["baseline", "orthogonal"])]
    other = other.assign(
        corpus="wikitext2", final_val_loss=[2.0 if a == "orthogonal" else 3.0 for a in other["arm"]]
    )
    assert confirmation.best(pd.concat([runs, other])).equals(
        table
    )  # arms are chosen where all of them were tried
    alone = confirmation.best(runs[runs["stage"] == "stage1"])
    assert (
        list(alone["within"]) == [0.01, 0.1]
        and (alone["trained_at_medium"] <= alone["within"]).all()
    )


def test_what_became_of_the_hypotheses_is_told_for_each_corpus(runs):
    told = confirmation.hypotheses(runs)
    verdicts = told.groupby("hypothesis")["verdict"].agg(list)
    # As the tables say: 1 % is missed by a hair on one corpus, 5 % on the other.
    assert verdicts["1, orthogonality"] == ["holds", "not shown"] and verdicts["1, scale"] == [
        "holds",
        "holds",
    ]
    assert verdicts["2, at most 10 %"] == ["not shown", "holds"]
    assert (
        set(verdicts["2, at most 1 %, rotary"])
        == set(verdicts["3, K trained"])
        == {"against it, one seed"}
    )
    table = told[~told["hypothesis"].str.startswith("3")].set_index(["hypothesis", "corpus"])
    starts = confirmation.contrasts(runs).set_index(["arm", "corpus"])
    assert (
        table.loc[("1, orthogonality", "wikitext2"), "gap"]
        == starts.loc[("orthogonal", "wikitext2"), "gap"]
    )
    named = confirmation.best(runs).set_index(["within", "stage", "corpus"])
    assert (
        table.loc[("2, at most 10 %", "wikitext2"), "high"]
        == named.loc[(0.1, "confirmed", "wikitext2"), "high"]
    )
    assert set(told[told["hypothesis"].str.startswith("3")]["arm"]) == {
        "RoPE, Q frozen",
        "Q frozen",
    }
    worse = runs.assign(
        final_test_loss=runs["final_test_loss"] + 0.2 * (runs["arm"] == "orthogonal")
    )
    worse["final_test_loss"] += 0.2 * (worse["arm"] == "RoPE, delta r=4")
    worst = confirmation.hypotheses(worse).groupby("hypothesis")["verdict"].agg(list)
    assert worst["1, orthogonality"] == 2 * ["does not hold"] and worst["2, at most 10 %"] == 2 * [
        "not by this arm"
    ]
    alone = runs[(runs["stage"] == "stage1") & (runs["arm"] != "baseline + RoPE")]
    assert "not known yet" in set(confirmation.hypotheses(alone)["verdict"])
    early = confirmation.hypotheses(runs[runs["stage"] == "stage1"])
    assert {told[0] for told in early["hypothesis"]} == {"2", "3"}


def test_probes_part_the_gap_by_slices(runs):
    table = exploration.probed(runs).set_index("arm")
    assert len(table) == len(exploration.explored(runs))
    assert table.loc["orthogonal", "difference_on_repeats"] == pytest.approx(
        0.2
    )  # both kinds of tokens lose the same
    assert np.isnan(table.loc["baseline", "difference_on_repeats"])
    assert exploration.probed(runs.drop(columns="probes")).empty
    rate = exploration.explored(runs).set_index("arm").loc["baseline", "learning_rate"]
    plain = runs[(runs["arm"] == "baseline") & (runs["learning_rate"] == rate)]["probes"].iloc[0]
    level = runs.assign(probes=runs["probes"].where(runs["arm"] != "orthogonal", None))
    level["probes"] = [probes or plain for probes in level["probes"]]
    assert np.isnan(
        exploration.probed(level).set_index("arm").loc["orthogonal", "difference_on_repeats"]
    )  # there is none to part


def test_the_answer_is_of_stage_2_where_there_is_one(runs):
    assert answer(runs.head(4)) is None
    early, late = answer(runs[runs["stage"] == "stage1"]), answer(runs)
    assert (early["stage"], late["stage"]) == ("exploratory", "confirmed")
    (row,) = early["start"]
    first = exploration.explored(runs).set_index("arm")["val_loss"]
    assert row["gap"] == pytest.approx(math.exp(first["orthogonal"] - first["Gaussian"]) - 1)
    assert [row["corpus"] for row in late["cost"]] == ["tinystories-sample", "wikitext2"]
    assert all(row["low"] < row["gap"] < row["high"] for row in late["cost"] + late["start"])
    assert [arm["limit"] for arm in late["best"]] == [0.01, 0.1]
    plain = runs[(runs["stage"] == "stage1") & (runs["arm"] == "baseline")].assign(
        corpus="wikitext2"
    )
    assert "nan" not in " ".join(
        study_sentences(runs=pd.concat([runs[runs["stage"] == "stage1"], plain]))
    )
    begun = runs[(runs["stage"] == "stage1") | runs["arm"].isin({"baseline", "orthogonal"})]
    one_seed = runs[(runs["stage"] == "stage1") | (runs["seed"] == 11)]
    late = (runs["corpus"] == "wikitext2") & (
        runs["seed"] > 11
    )  # a second corpus that has one seed yet
    # A stage 2 that has just begun says nothing yet.
    for some in (begun, one_seed, runs[~late]):
        assert study_sentences(runs=some) == study_sentences(runs=runs[runs["stage"] == "stage1"])


@pytest.mark.parametrize("language", ["en", "zh"])
def test_the_answer_is_three_sentences_that_name_the_scale_first(runs, language):
    first, *others = study_sentences(language, runs)
    assert len(others) == 2 and "1.1" in first and "3.1" in first
    assert "wikitext2 +" in first and "[" in first
    scale = math.exp(confirmation.contrasts(runs)["nats"].iloc[1]) - 1
    assert f"tinystories-sample {scale:+.1%}" in others[0]
    assert study_sentences(language, runs.head(0)) == []


def test_what_follows_is_priced_by_the_log_s_own_speed():
    table = study.follow_ups().set_index("id")
    assert table.loc["GPT-09", "hours_on_an_A5000"] == pytest.approx(
        100_000 * 0.083659 / 3600
    )  # GPT-01's own
    assert table.loc["GPT-08", "hours_on_an_A5000"] < table.loc["GPT-09", "hours_on_an_A5000"]
    assert table.loc["GPT-08", "trained_at_medium"] == 0


def test_a_gap_waits_for_its_own_baseline_and_a_control_is_no_choice(runs):
    early = runs[(runs["stage"] == "stage1") & (runs["arm"] != "baseline + RoPE")]
    table = exploration.explored(early).set_index("arm")
    assert np.isnan(table.loc["RoPE", "gap"]) and table.loc["RoPE", "gap_to_plain"] < 0
    cheap = early[early["arm"].isin(["baseline", "orthogonal", "orthogonal, wider FFN"])]
    cheap = cheap.assign(
        final_val_loss=cheap["final_val_loss"] - 0.1 * (cheap["arm"] == "orthogonal, wider FFN")
    )
    assert set(confirmation.best(cheap)["arm"]) == {"orthogonal"}


def test_an_arm_far_off_does_not_flatten_the_others(runs):
    astray = runs.assign(final_val_loss=runs["final_val_loss"] + 0.5 * (runs["arm"] == "core"))
    far = [
        trace
        for trace in study_plots.pareto(astray).data
        if trace.marker.symbol == "triangle-up-open"
    ]
    assert [(trace.name, trace.y[0]) for trace in far] == [("core", study_plots.FAR)]
    gap = exploration.explored(astray).set_index("arm").loc["core", "gap"]
    assert f"gap {100 * gap:+.2f} %" in far[0].hovertemplate
    confirmed = runs.assign(
        final_test_loss=runs["final_test_loss"] + 0.5 * (runs["arm"] == "orthogonal")
    )
    far = [
        trace
        for trace in study_plots.pareto(confirmed).data
        if trace.marker.symbol == "triangle-up"
    ]
    assert {trace.name for trace in far} == {"orthogonal"}
    assert all(
        trace.error_y.array is None for trace in far
    )  # it would stand where the interval is not


def test_an_arm_is_judged_only_where_both_of_its_baselines_have_been_run(runs):
    early = runs[(runs["stage"] != "stage2") | (runs["arm"] != "baseline + RoPE")]
    row = (
        confirmation.confirmed(early)
        .set_index(["corpus", "arm"])
        .loc["wikitext2", "RoPE, delta r=4"]
    )
    assert (
        row["judged_against"] == "none yet"
        and np.isnan(row["gap"])
        and row["within_5_%"] == "UNKNOWN INTERVAL"
    )
    late = runs[
        (runs["stage"] != "stage2") | (runs["arm"] != "baseline + RoPE") | (runs["seed"] > 12)
    ]
    row = (
        confirmation.confirmed(late)
        .set_index(["corpus", "arm"])
        .loc["wikitext2", "RoPE, delta r=4"]
    )
    assert (row["judged_against"], row["n"]) == ("baseline + RoPE", 3)


def test_stage_2_tells_each_arm_s_perplexity_and_how_steady_its_seeds_are(runs):
    table = confirmation.losses(runs).set_index(["corpus", "arm"])
    second = runs[
        (runs["stage"] == "stage2")
        & (runs["corpus"] == "wikitext2")
        & (runs["arm"] == "baseline + RoPE")
    ]
    row = table.loc["wikitext2", "baseline + RoPE"]
    assert row["perplexity"] == pytest.approx(math.exp(second["final_test_loss"].mean()))
    assert row["spread"] == pytest.approx(second["final_test_loss"].std()) and row["n"] == 5
    astray = second.iloc[0]["probes"] | {"logit_std": 40.0}
    odd = runs.assign(
        probes=[astray if i == second.index[0] else p for i, p in runs["probes"].items()]
    )
    spreads = confirmation.losses(odd).set_index(["corpus", "arm"])["largest_logit_std"]
    assert spreads["wikitext2", "baseline + RoPE"] == 40 and spreads["wikitext2", "baseline"] == 0.5


def test_what_was_declared_but_not_run_is_named(runs):
    (sentence,) = exploration.not_run(runs[runs["arm"] != "K frozen"])
    assert "K frozen" in sentence and "Gaussian;" not in sentence


def test_what_did_not_help_is_listed(runs):
    arms = set(exploration.negative(runs)["arm"])
    assert "tied" in arms
    assert not arms & {"core", "K frozen", "orthogonal", "baseline"}


@pytest.mark.parametrize("part", ["nothing", "six", "stage1"])
def test_a_study_in_progress_shows_what_there_is(runs, part, tmp_path):
    some = {"six": runs.head(6), "stage1": runs[runs["stage"] == "stage1"]}
    some = some[part] if part in some else study.load(tmp_path / "none.jsonl")
    for table in TABLES:
        shown = study.show(table(some))
        if part == "nothing":
            assert "Not run yet" in shown and "Not run yet" in study.show(
                study_sentences(runs=some)
            )
        else:
            shown._repr_html_()
    for name in FIGURES:
        figure = getattr(study_plots, name)(some)
        assert bool(figure.data) == (part != "nothing")
    assert f"Made from {len(some)} records" in study.made_from(some)


def test_figures_draw_every_arm_once_a_stage(runs):
    figure = study_plots.pareto(runs)
    first = exploration.explored(runs)
    arms = set(first["arm"]) - {"baseline", *first["own"]}
    hollow = [trace.name for trace in figure.data if trace.marker.symbol == "circle-open"]
    assert sorted(hollow) == sorted(arm.replace("'", "&#x27;") for arm in arms)
    bars = [trace for trace in figure.data if trace.error_y.array is not None]
    assert len(bars) == 8
    assert len({trace.x[0] for trace in bars}) == 4  # arms of one share stand side by side
    curve = next(
        trace for trace in study_plots.rate_curves(runs).data if trace.name == "orthogonal"
    )
    assert len(curve.x) == 4 and np.isfinite(curve.y).all()
    few = runs[(runs["stage"] == "stage1") & (runs["learning_rate"] == 4e-3)].assign(
        corpus="wikitext2"
    )
    twice = study_plots.pareto(pd.concat([runs[runs["stage"] == "stage1"], few])).data
    assert (
        len({trace.xaxis for trace in twice if trace.mode == "markers+text"}) == 2
    )  # each panel names its own front
    drawn = study_plots.rate_curves(pd.concat([runs, few])).data
    assert [trace.showlegend for trace in drawn if trace.name == "orthogonal"] == [True, True]


@pytest.fixture(scope="module")
def kept():
    """The kept page, and the records that it was made from."""
    text = (config.ROOT / "reports" / "study.html").read_text(encoding="utf-8")
    records, lines = re.search(r"Made from (\d+) records.*? first (\d+) lines", text).groups()
    runs = study.load(lines=int(lines))
    assert len(runs) == int(records), "runs.jsonl is append-only; make the page again"
    return text, runs


def test_the_kept_page_s_tables_are_those_of_the_records(kept):
    text, runs = kept

    def cells(html):
        found = re.findall(r"<t[dh][^>]*>(.*?)</t[dh]>", html, re.DOTALL)
        return [unescape(re.sub(r"<[^>]*>|\s+", " ", cell)).strip() for cell in found]

    shown = "\n".join(cells(text))
    for table in TABLES:
        made = table(runs)
        if len(made):
            assert "\n".join(cells(study.show(made).to_html())) in shown, table.__name__


def test_the_readme_says_what_the_kept_page_found(kept):
    readme = " ".join((config.ROOT / "README.md").read_text(encoding="utf-8").split())
    for sentence in study_sentences(runs=kept[1]):
        assert sentence in readme


def test_the_verdicts_on_wikitext2_do_not_hang_on_the_seed_that_was_seen_before(kept):
    """As the page's limits say."""
    whole, without = (
        confirmation.confirmed(runs[runs["corpus"] == "wikitext2"]).set_index("arm")[
            ["within_5_%", "within_1_%"]
        ]
        for runs in (kept[1], kept[1][kept[1]["seed"] != 11])
    )
    tested = whole.index.difference(["T5 bias, scale 0.001"])  # the control has few seeds
    assert whole.loc[tested].equals(without.loc[tested])
