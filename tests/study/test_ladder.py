"""The ladder of a study: the slope of the gap over sizes, and sizes that are left out."""

import copy

import numpy as np
import pytest
import study_factory as factory
from test_verdicts import cell

from oelm_lib.errors import UserError
from oelm_lib.study import notes, page, plots, tables
from oelm_lib.study.checks import check_only_adds, check_records
from oelm_lib.study.expected import expected_left
from oelm_lib.study.grid import Grid
from oelm_lib.study.ladder import judge_ladder
from oelm_lib.study.study import Study
from oelm_lib.study.tables import ladder_table
from oelm_lib.view.gaps import interval_text, percent

LADDER = factory.LADDER | {
    "sizes": factory.LADDER["sizes"] | {"large": {"set": {"model.d_model": 128}}}
}


def ladder_grid(gaps, noise=0.0002):
    plan, records = factory.make_plan(ladder=LADDER), []
    for size, nats in gaps.items():
        for arm, shift in (("trained", 0.0), ("frozen", nats)):
            values = [3.0 + 0.01 * n + shift * (1 + noise * n) for n in range(4)]
            records += factory.tuned(plan, cell(arm, size=size))
            records += factory.confirmed(plan, cell(arm, size=size), 0.01, values)
    return Grid(plan, records)


@pytest.mark.parametrize(
    ("gaps", "verdict"),
    [
        ({"small": 0.1, "base": 0.1, "large": 0.1}, "FLAT"),
        ({"small": 0.05, "base": 0.1, "large": 0.15}, "GROWS"),
        ({"small": 0.15, "base": 0.1, "large": 0.05}, "SHRINKS"),
    ],
)
def test_the_slope_of_the_gap_over_sizes_is_judged(gaps, verdict):
    (slope,) = judge_ladder(ladder_grid(gaps))
    assert slope.verdict == verdict
    assert [size for size, _, _ in slope.sizes] == ["small", "base", "large"]


def test_the_slope_is_that_of_least_squares_over_decades_of_parameters():
    gaps = {"small": 0.05, "base": 0.12, "large": 0.15}
    (slope,) = judge_ladder(ladder_grid(gaps, noise=0.0))
    decades = np.log10([parameters for _, parameters, _ in slope.sizes])
    expected = np.polyfit(decades, list(gaps.values()), 1)[0]
    assert slope.interval.mean == pytest.approx(expected)


def test_an_unfinished_ladder_says_so():
    assert judge_ladder(Grid(factory.make_plan(ladder=LADDER), []))[0].verdict == "NOT RUN YET"
    grid = ladder_grid({"small": 0.1, "base": 0.1, "large": 0.1})
    part = Grid(grid.plan, grid.records[:-1])
    assert judge_ladder(part)[0].verdict == "INCOMPLETE"


def test_a_diverged_seed_of_the_ladder_counts_as_ended():
    grid = ladder_grid({"small": 0.1, "base": 0.1, "large": 0.1})
    last = grid.records[-1]
    diverged = factory.make_record(grid.plan, last.cell, last.rate, last.seed, None, "confirm")
    study = Study("test", Grid(grid.plan, [*grid.records[:-1], diverged]), None)
    (row,) = ladder_table(study).to_dict("records")
    assert (row["verdict"], row["seeds"]) == ("UNSTABLE", "4 of 4 seeds")


def test_a_size_without_a_stable_rate_is_unstable_not_waiting():
    grid = ladder_grid({"small": 0.05, "base": 0.1})
    large, trained = (cell(arm, size="large") for arm in ("frozen", "trained"))
    records = grid.records + factory.tuned(grid.plan, trained)
    records += factory.confirmed(grid.plan, trained, 0.01, [3.0, 3.01, 3.02, 3.03])
    records += [
        factory.make_record(grid.plan, large, 0.01 / 2**n, seed, None)
        for n in range(-1, 7)
        for seed in grid.plan.tune.seeds
    ]
    study = Study("test", Grid(grid.plan, records), None)
    assert study.slopes[0].verdict == "UNSTABLE"
    assert page.sentences(study)[-1].endswith(
        "on stories: no verdict, since no learning rate is stable."
    )
    assert not any(cell == large for _, cell, _ in expected_left(study.grid))


def test_an_edge_of_a_size_of_the_ladder_is_named():
    grid = ladder_grid({"small": 0.05, "base": 0.1})
    edge = [
        factory.make_record(grid.plan, cell("frozen", size="large"), 0.01 * 2**n, seed, 3 - 0.1 * n)
        for n in range(-1, 7)
        for seed in (1, 2)
    ]
    study = Study("test", Grid(grid.plan, grid.records + edge), None)
    content = notes.not_shown(study)
    assert "not tuned to an interior minimum: stories, large, frozen." in content


def test_the_page_has_a_sentence_a_table_and_a_figure():
    study = Study("test", ladder_grid({"small": 0.05, "base": 0.1, "large": 0.15}), None)
    (slope,) = study.slopes
    small, _, large = (size_gap.interval.gap for size_gap in slope.sizes)
    assert page.sentences(study)[-1] == (
        f"The gap of <b>frozen</b> is {percent(small, 1)} at 0.077 million parameters and"
        f" {percent(large, 1)} at 0.4 million on stories: it grows. For each factor of ten,"
        f" perplexity relative to the baseline changes by {interval_text(slope.interval)}."
    )
    assert tables.ladder_table(study)["verdict"].tolist() == ["GROWS"]
    assert len(plots.ladder(study).data) == 1


def test_a_ladder_added_after_confirmation_began_is_marked_wherever_its_slope_is_shown():
    grid = ladder_grid({"small": 0.05, "base": 0.1, "large": 0.15})
    late = Study("test", grid, factory.make_plan())
    assert "on stories, claimed late: it grows." in page.sentences(late)[-1]
    assert tables.ladder_table(late)["seeds"].tolist() == ["4 of 4 seeds, claimed late"]
    assert plots.ladder(late).data[0].name == "frozen: GROWS, claimed late"
    assert "Claimed late: the change of the gap with the size" in notes.not_shown(late)
    for registered in (None, grid.plan):
        early = Study("test", grid, registered)
        assert "late" not in page.sentences(early)[-1] + str(tables.ladder_table(early))
        assert "Claimed late" not in notes.not_shown(early)


WHY = "the budget was spent."


def plan_without_large():
    ladder = copy.deepcopy(LADDER)
    ladder["sizes"]["large"]["left_out"] = WHY
    return factory.make_plan(ladder=ladder)


def test_a_size_that_is_left_out_is_not_run_or_judged_and_the_page_says_why():
    plan = plan_without_large()
    grid = Grid(plan, ladder_grid({"small": 0.05, "base": 0.1}).records)
    (slope,) = judge_ladder(grid)
    assert slope.verdict == "GROWS"
    assert [size for size, _, _ in slope.sizes] == ["small", "base"]
    assert {run.cell.size for run in grid.needs()} <= {"small", "base"}
    assert {cell.size for _, cell, _ in expected_left(grid)} <= {"small", "base"}
    assert f"Size 'large' of the ladder was left out: {WHY}" in notes.not_shown(
        Study("test", grid, None)
    ).replace("&#x27;", "'")


def test_a_size_may_be_left_out_after_confirmation_began_but_not_changed():
    old, new = factory.make_plan(ladder=LADDER), plan_without_large()
    check_only_adds(old, new)
    check_only_adds(new, old)
    ladder = copy.deepcopy(LADDER)
    del ladder["sizes"]["large"]
    with pytest.raises(UserError, match="the plan changed after its confirmation began: ladder"):
        check_only_adds(old, factory.make_plan(ladder=ladder))
    with pytest.raises(UserError, match="the plan changed after its confirmation began: ladder"):
        check_only_adds(old, factory.make_plan())


def test_a_size_whose_results_are_known_can_not_be_left_out():
    plan, large = plan_without_large(), cell("frozen", size="large")
    tuned = factory.tuned(factory.make_plan(ladder=LADDER), large)
    check_records(tuned, "test", plan)
    confirmed = factory.confirmed(factory.make_plan(ladder=LADDER), large, 0.01, [3.0])
    with pytest.raises(UserError, match=r"delete ladder\.sizes\.large\.left_out"):
        check_records(confirmed, "test", plan)


def test_a_ladder_keeps_a_size_beside_the_base():
    ladder = copy.deepcopy(LADDER)
    for size in ladder["sizes"].values():
        size["left_out"] = WHY
    with pytest.raises(UserError, match="every size is left out; run one, or delete the ladder"):
        factory.make_plan(ladder=ladder)


def test_records_of_a_size_or_an_arm_that_the_plan_lacks_are_kept_and_not_shown():
    full = ladder_grid({"small": 0.05, "base": 0.1})
    gone = factory.tuned(factory.make_plan(ladder=LADDER), cell("frozen", size="large"))
    gone += [record.model_copy(update={"arm": "gone"}) for record in gone]
    grid = Grid(plan_without_large(), full.records + gone)
    study = Study("test", grid, None)
    assert set(tables.tuning_table(study)["size"]) == {"small", "base"}
    assert set(tables.tuning_table(study)["arm"]) == {"trained", "frozen"}
    assert len(tables.measured_table(study)) == 4
    assert "gone" not in notes.not_shown(study)
