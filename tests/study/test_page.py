import re

import pytest
import study_factory as factory
from test_grid import never_stable, tuned_all
from test_ladder import LADDER
from test_verdicts import BASE, cell, make_grid, with_gap

from oelm_lib.arms import COLOURS
from oelm_lib.study import notes, page, plots, records, tables
from oelm_lib.study import plan as plans
from oelm_lib.study.grid import Grid
from oelm_lib.study.records import append_record
from oelm_lib.study.study import Study, load_study
from oelm_lib.study.tables import markdown_table
from oelm_lib.view.gaps import interval_text
from oelm_lib.yaml_text import dump_yaml


def make_study(grid, registered=None):
    return Study("test", grid, registered)


def text(html):
    return re.sub(r"\s+", " ", re.sub(r"<[^>]*>", " ", html))


COMPLETE = {"trained": BASE, "frozen": with_gap(0.2), "twin": with_gap(0.2)}


def test_each_sentence_has_one_number_with_its_interval_and_the_verdict():
    study = make_study(make_grid(COMPLETE))
    first, second = page.sentences(study)
    gap = study.judgements[0].interval
    assert first == (
        f"<b>frozen</b> raises perplexity over <b>trained</b> by"
        f" {interval_text(gap)[1:]} on stories (4 seeds): that is more than +5 % (FAIL)."
    )
    assert "The perplexity of <b>frozen</b> differs from that of <b>twin</b> by" in second
    assert second.endswith("they are equal within ±1 % (YES).")
    assert interval_text(gap).startswith(f"{100 * gap.gap:+.1f} % [{100 * gap.gap_low:+.1f}, ")


def test_an_arm_that_is_better_lowers_perplexity():
    study = make_study(make_grid(COMPLETE | {"frozen": with_gap(-0.2)}))
    size = interval_text(study.judgements[0].interval)
    assert size.startswith("−")
    first = page.sentences(study)[0]
    assert f"lowers perplexity against <b>trained</b> ({size}) on stories" in first
    assert first.endswith("that is at most +1 % (PASS).")


def test_a_corpus_that_says_otherwise_is_named_in_the_sentence():
    plan = factory.make_plan(corpora=["stories", "tinyshakespeare"])
    grid = make_grid(COMPLETE, plan=plan)
    for arm, values in (COMPLETE | {"frozen": BASE}).items():
        there = cell(arm, corpus="tinyshakespeare")
        grid.records.extend(
            factory.tuned(plan, there) + factory.confirmed(plan, there, 0.01, values)
        )
    first = page.sentences(make_study(Grid(plan, grid.records)))[0]
    assert "more than +5 % (FAIL). At most +5 % on tinyshakespeare: PASS." in first


def test_the_first_table_has_a_verdict_for_each_limit():
    table = text(page.first_table(make_study(make_grid(COMPLETE))))
    assert "≤ 5 %: ✗ FAIL" in table
    assert "FAIL ; ≤ 1 %: ✗ FAIL" in table
    assert "equal within ±1 %: ✓ YES" in table
    assert "4 seeds" in table


def test_a_choice_is_shown_by_the_arm_that_tuning_chose():
    choices = {"best": {"among": ["frozen", "twin"], "corpus": "stories"}}
    plan = factory.make_plan(choices=choices, claims=[{"arm": "best", "at_most": 0.05}])
    study = make_study(make_grid(COMPLETE, plan=plan))
    chosen = study.grid.resolve("best")
    assert f"{chosen} best, against trained, 4 seeds" in text(page.first_table(study))
    assert f"| {chosen} against trained |" in markdown_table(study)
    assert "Of 1 question, 1 is answered; all 36 runs done." in markdown_table(study)


def test_a_choice_in_a_claim_of_equality_and_with_a_baseline_of_its_own_is_named():
    choices = {"best": {"among": ["frozen"], "corpus": "stories"}}
    equal = factory.make_plan(choices=choices, claims=[{"equal": ["best", "twin"], "within": 0.01}])
    study = make_study(make_grid(COMPLETE, plan=equal))
    assert "frozen best, against twin, 4 seeds" in text(page.first_table(study))
    against = [{"arm": "best", "against": "twin", "at_most": 0.05}]
    waiting = Grid(factory.make_plan(choices=choices, claims=against), [])
    assert "against <b>twin</b>" in page.open_questions(make_study(waiting))[0]


def test_a_comparison_of_two_gaps_is_called_so_wherever_it_is_named():
    """`--table` printed "frozen against frozen, wide"."""
    wide = {"model.d_ff": 64}
    arms = {
        "trained": {},
        "frozen": {"set": factory.FROZEN, "against": "trained"},
        "trained, wide": {"set": wide},
        "frozen, wide": {"set": factory.FROZEN | wide, "against": "trained, wide"},
    }
    claims = [{"equal": ["frozen", "frozen, wide"], "gaps": True, "within": 0.01}]
    plan = factory.make_plan(arms=arms, claims=claims)
    study = make_study(make_grid(dict.fromkeys(arms, BASE), plan=plan))
    assert "| frozen against the gap of frozen, wide |" in markdown_table(study)
    assert "against the gap of frozen, wide, 4 seeds" in text(page.first_table(study))
    assert "against the gap of frozen, wide, stories" in plots.gaps(study).data[0].name
    (question,) = page.open_questions(make_study(Grid(plan, [])))
    words = "<b>frozen</b> against <b>the gap of frozen, wide</b>: are they equal within ±1 %?"
    assert question.startswith(words)


def test_partial_records_say_what_is_missing():
    """One missing loss used to replace the whole answer."""
    grid = make_grid(COMPLETE | {"twin": with_gap(0.2)[:1]})
    study = make_study(grid)
    assert "≤ 5 %: ✗ FAIL" in text(page.first_table(study))
    assert "1 of 4 seeds so far" in text(page.first_table(study))
    assert len(page.sentences(study)) == 1
    assert page.open_questions(study) == [
        "<b>frozen</b> against <b>twin</b>: are they equal within ±1 %? On stories.",
    ]
    assert "Of 3 questions, 2 are answered, 1 waits for runs;" in text(page.answer(study))
    assert "more, in the table of all claims" not in page.answer(study)


def test_questions_beside_the_headline_that_wait_for_runs_are_counted():
    claims = factory.plain_plan()["claims"]
    claims[1]["headline"] = True
    plan = factory.make_plan(claims=claims, about="+5 % is the limit of <nobody>.")
    content = page.answer(make_study(Grid(plan, [])))
    assert "<li>2 more, in the table of all claims.</li>" in content.replace("\u00a0", " ")
    assert "is the limit of &lt;nobody&gt;." in content


def test_questions_that_wait_are_named_where_the_headline_is_complete():
    claims = factory.plain_plan()["claims"]
    claims[0]["headline"] = True
    plan = factory.make_plan(claims=claims)
    complete = {arm: COMPLETE[arm] for arm in ("trained", "frozen")}
    content = text(page.answer(make_study(make_grid(complete, plan=plan))))
    assert "1 waits for runs;" in content
    assert "Waiting for runs: 1 question on frozen, in the table of all claims." in content


def test_the_questions_that_wait_add_up():
    """The first claim is complete on one corpus of two, so no line asks it: it is counted."""
    plan = factory.make_plan(corpora=["stories", "wikitext2"], ladder=LADDER)
    content = text(page.answer(make_study(make_grid(COMPLETE, plan=plan))))
    total = int(re.search(r"(\d+) wait for runs", content).group(1))
    more = int(re.search(r"(\d+) more, in the table of all claims", content).group(1))
    assert total == content.count("does the gap grow") + more


def test_a_study_without_any_record_has_a_page():
    study = make_study(Grid(factory.make_plan(ladder=LADDER), []))
    content = text(page.answer(study))
    assert "<h1>What does it cost?</h1>" in page.answer(study)
    assert "No answer yet: 0 of about 98 runs done." in content
    assert "NOT RUN YET" not in content and "<table" not in page.answer(study)
    assert "frozen against trained : is the gap at most +5 %, or even at most +1 %?" in content
    assert "does the gap grow or shrink? On stories" in content
    assert "Not run yet." in tables.details(make_file(study))
    assert plots.gaps(study).layout.title.text and plots.behind(study) == []


def test_corpora_without_a_run_are_one_line():
    plan = factory.make_plan(corpora=["stories", "tinyshakespeare", "wikitext2"])
    table = page.first_table(make_study(make_grid(COMPLETE, plan=plan)))
    assert table.count("<th ") == 2
    assert "Not run yet: tinyshakespeare, wikitext2." in text(table)


def test_an_answered_study_says_what_stays_open():
    study = make_study(make_grid(COMPLETE))
    assert "Of 3 questions, 3 are answered; all 36 runs done." in text(page.answer(study))
    twin = [3.2 + 0.05 * (-1) ** n for n in range(4)]
    study = make_study(make_grid(COMPLETE | {"twin": twin}))
    assert "Of 3 questions, 2 are answered, 1 undecided; all 36 runs done." in text(
        page.answer(study)
    )
    assert "whether they are equal within ±1 % stays open (" in page.sentences(study)[1]


def make_file(study):
    """The study with a plan file where the page looks for it."""
    return Study("example", study.grid, study.registered)


def test_the_details_fold_every_table():
    details = tables.details(make_file(make_study(make_grid(COMPLETE))))
    assert details.count("<details>") == 6
    assert "✗ FAIL</span>" in details and "&lt;span" not in details
    for words in ("main (2)", "interior", "frozen tensors unchanged", "SHA-256", "c" * 10):
        assert words in details


@pytest.mark.parametrize(
    ("gaps", "words"),
    [
        ([0.029, 0.03, 0.03, 0.031], "that is at most +5 % (PASS), but more than +1 %."),
        ([0.0, 0.001, 0.0, 0.001], "that is at most +1 % (PASS)."),
        (
            [0.001, 0.012, 0.012, 0.02],
            "that is at most +5 % (PASS), and whether that is at most +1 % stays",
        ),
        ([0.2, 0.2, 0.21, 0.2], "that is more than +5 % (FAIL)."),
    ],
)
def test_a_sentence_names_the_stricter_limit_that_does_not_hold(gaps, words):
    losses = [loss + more for loss, more in zip(COMPLETE["trained"], gaps, strict=True)]
    study = make_study(make_grid(COMPLETE | {"frozen": losses}))
    assert words in page.sentences(study)[0]


def test_the_tuning_table_says_what_was_left_out_and_how_well_the_fit_predicted():
    grid = make_grid(COMPLETE)
    unstable = [
        factory.make_record(grid.plan, cell("frozen"), 0.04, seed, 3.0 + seed) for seed in (1, 2)
    ]
    study = make_study(Grid(grid.plan, grid.records + unstable))
    table = tables.tuning_table(study).set_index("arm")
    assert table.loc["frozen", "not stable"] == "0.04"
    assert table.loc["trained", "not stable"] == ""
    fitted = grid.fit(cell("frozen")).loss
    mean = sum(COMPLETE["frozen"]) / 4
    assert float(table.loc["frozen", "confirmed minus fitted loss"]) == pytest.approx(
        mean - fitted, abs=1e-4
    )


def test_diverged_seeds_and_arms_are_shown_not_dropped():
    """Only the seeds that survived used to count; an arm without a stable rate stopped the page."""
    study = make_study(make_grid(COMPLETE | {"frozen": [3.2, 3.2, None, 3.2]}))
    assert "UNSTABLE (1 of 4 seeds)" in text(page.first_table(study))
    study = make_study(Grid(study.plan, never_stable(study.plan, "frozen")))
    assert tables.tuning_table(study)["state"].tolist() == ["no stable rate"]
    plots.tuning(study)


def test_perplexity_is_shown_with_the_seeds_that_it_is_the_mean_of():
    study = make_study(make_grid(COMPLETE | {"frozen": [3.2, 3.2, None, 3.2]}))
    seeds = tables.measured_table(study).set_index("arm")["seeds"]
    assert seeds.to_dict() == {"trained": "4", "frozen": "3 of 4", "twin": "4"}


def without_stable_rate(plan=None):
    """The study in which no learning rate trains `frozen`; all other runs are done."""
    plan = plan or factory.make_plan()
    others = make_grid({arm: COMPLETE[arm] for arm in ("trained", "twin")}, plan=plan)
    return make_study(Grid(plan, never_stable(plan, "frozen") + others.records))


def test_an_arm_without_a_stable_rate_is_unstable_not_waiting():
    """Such an arm used to be shown as "not run yet", with runs left that could never be made."""
    study = without_stable_rate()
    assert study.grid.needs() == []
    assert (
        page.status_line(study) == "Of 3 questions, 0 are answered, 3 undecided; all 40 runs done."
    )
    table = text(page.first_table(study))
    assert table.count("UNSTABLE (no learning rate is stable)") == 3 and "not run yet" not in table
    assert "| –, no learning rate is stable; ≤ 5 %: UNSTABLE; ≤" in markdown_table(study)
    first = page.sentences(study)[0]
    assert first == (
        "<b>frozen</b> against <b>trained</b> on stories (0 seeds): no verdict on 'at most +5 %',"
        " since no learning rate is stable.".replace("'", "&#x27;")
    )
    assert "No learning rate that was tried is stable: stories, frozen." in notes.not_shown(study)
    assert not plots.gaps(study).data


def test_all_seeds_diverged_is_said_without_a_gap():
    study = make_study(make_grid(COMPLETE | {"frozen": [None] * 4}))
    assert page.sentences(study)[0] == (
        "<b>frozen</b> against <b>trained</b> on stories (4 seeds): no verdict on"
        " &#x27;at most +5 %&#x27;, since seeds diverged."
    )


def test_a_single_seed_is_one_seed_in_the_sentence():
    study = make_study(make_grid(COMPLETE | {"frozen": [3.1, None, None, None]}))
    assert "(1 seed):" in page.sentences(study)[0]


def test_one_sided_and_two_sided_claims_have_words_of_their_own():
    """The words "within 1 %" used to mean both kinds."""
    table = tables.claims_table(make_study(make_grid(COMPLETE)))
    assert table["claim"].tolist() == ["at most +5 %", "at most +1 %", "equal within ±1 %"]
    assert "at most" in notes.reading(make_study(make_grid(COMPLETE)))


def with_more_seeds(losses):
    """The study with its first claim repeated for six seeds; `losses` are those of frozen."""
    plain = factory.plain_plan()
    plain["claims"].append({"arm": "frozen", "at_most": [0.05, 0.01], "seeds": 6})
    plan = factory.make_plan(claims=plain["claims"])
    grid = make_grid({"trained": BASE * 2, "frozen": losses, "twin": with_gap(0.2)}, plan=plan)
    return make_study(grid, registered=factory.make_plan())


def test_a_claim_with_more_seeds_takes_the_place_of_the_one_it_extends():
    study = with_more_seeds((with_gap(0.2) * 2)[:6])
    assert len(study.headline()) == 2
    first = page.sentences(study)[0]
    assert "on stories (6 seeds, claimed late): that is more than +5 % (FAIL)." in first
    table = text(page.first_table(study))
    assert table.count("against trained") == 1
    assert "against trained, 6 seeds, claimed late +20.8 % [+18.7, +23.0] ≤ 5 %: ✗ FAIL" in table
    assert "6 seeds, claimed late; ≤ 5 %: **FAIL**" in markdown_table(study)
    assert "Of 3 questions, 3 are answered" in text(page.answer(study))
    assert list(tables.claims_table(study)["seeds"])[::2] == [
        "4 of 4 seeds",
        "4 of 4 seeds",
        "6 of 6 seeds, claimed late",
    ]


def test_the_claim_with_fewer_seeds_stays_until_the_other_is_complete():
    study = with_more_seeds((with_gap(0.2) * 2)[:5])
    assert "on stories (4 seeds): that is more than +5 % (FAIL)." in page.sentences(study)[0]
    assert "late" not in text(page.first_table(study))
    assert "Of 3 questions, 3 are answered" in text(page.answer(study))


def test_names_of_arms_are_escaped():
    arms = {"trained": {}, "<b>x": {"set": factory.FROZEN, "against": "trained", "about": "<i>"}}
    plan = factory.make_plan(arms=arms, claims=[{"arm": "<b>x", "at_most": 0.05}])
    study = make_study(Grid(plan, []))
    html = page.answer(study) + tables.details(make_file(study))
    assert "<b>x" not in html.replace("<b>&lt;b&gt;x", "")
    assert "<i>" not in html


def test_a_study_is_read_from_its_files(monkeypatch, tmp_path):
    monkeypatch.setattr(plans, "plans_folder", lambda: tmp_path)
    monkeypatch.setattr(records, "study_folder", lambda name: tmp_path / name)
    (tmp_path / "test.yaml").write_text(dump_yaml(factory.plain_plan()))
    plan = factory.make_plan()
    for record in tuned_all(plan)[:2]:
        append_record(tmp_path / "test" / "runs.jsonl", record.model_dump(mode="json"))
    assert len(load_study("test").grid.records) == 2
    records.register_plan("test", plan)
    assert records.registered_plan("test") == plan
    changed = factory.make_plan(set={"train.max_steps": 30})
    records.register_plan("test", changed)
    assert records.registered_plan("test") == plan


def test_an_arm_of_the_log_has_its_look_under_any_name():
    grid = make_grid(COMPLETE)
    colours = {trace.name: trace.marker.color for trace in plots.tuning(make_study(grid)).data}
    assert colours["trained"] == COLOURS["baseline"]
    assert colours["frozen"] == COLOURS["OELM-Freeze"]
    assert colours["twin"] == COLOURS["frozen Gaussian"]
