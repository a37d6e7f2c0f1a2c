import pytest
import study_factory as factory

from oelm_lib.launch.study_cost import describe_cost
from oelm_lib.study.cell import BASE_SIZE, CONFIRM, TUNE, Cell
from oelm_lib.study.checks import check_records
from oelm_lib.study.expected import expected_left
from oelm_lib.study.grid import Grid
from oelm_lib.study.study import Study
from oelm_lib.study.tables import exploration_table, tuning_table
from oelm_lib.study.verdicts import judge

PLAN = factory.make_plan()


def cell(arm, corpus="stories", size=BASE_SIZE):
    return Cell(corpus, size, arm)


def tuned_all(plan=PLAN, losses=None):
    losses = losses or {"trained": 3.0, "frozen": 3.1, "twin": 3.1}
    return [
        record
        for arm, loss in losses.items()
        for record in factory.tuned(plan, cell(arm), 0.01, loss)
    ]


def test_a_new_study_tunes_the_arms_of_its_first_claim_first():
    needs = Grid(PLAN, []).needs()
    assert [run.cell.arm for run in needs[:12]] == ["frozen"] * 6 + ["trained"] * 6
    assert {run.stage for run in needs} == {TUNE}
    assert sorted({run.rate for run in needs}) == [0.005, 0.01, 0.02]
    assert len(needs) == len(set(needs)) == 18


def test_missing_seeds_of_tried_rates_come_before_new_rates():
    records = factory.tuned(PLAN, cell("frozen"))[:-1]
    needs = Grid(PLAN, records).tuning_needs(cell("frozen"))
    assert [(run.rate, run.seed) for run in needs] == [(0.02, 2)]


def test_confirmation_uses_the_fitted_rate_and_fresh_seeds_pair_by_pair():
    grid = Grid(PLAN, tuned_all())
    needs = [run for run in grid.needs() if run.stage == CONFIRM]
    assert [(run.cell.arm, run.seed) for run in needs[:4]] == [
        ("frozen", 101),
        ("trained", 101),
        ("frozen", 102),
        ("trained", 102),
    ]
    assert {run.rate for run in needs} == {grid.fit(cell(arm)).rate for arm in PLAN.arms}
    assert not {run.seed for run in needs} & set(PLAN.tune.seeds)


@pytest.mark.parametrize(("confirmed", "kept"), [(0.0123, True), (0.02, False)])
def test_a_confirmed_rate_is_kept_while_it_costs_less_than_the_error_allowed(confirmed, kept):
    """Further tuning once moved an optimum away from the rate that had been confirmed."""
    records = tuned_all() + factory.confirmed(PLAN, cell("frozen"), confirmed, [3.1, 3.1])
    grid = Grid(PLAN, records)
    assert (grid.fit(cell("frozen")).cost(confirmed) <= PLAN.tune.error) == kept
    assert grid.rate(cell("frozen")) == (confirmed if kept else grid.fit(cell("frozen")).rate)
    assert len(grid.confirmed_losses(cell("frozen"))) == (2 if kept else 0)
    assert len(grid.replaced(cell("frozen"))) == (0 if kept else 2)
    needs = [run for run in grid.confirmation_needs(grid.comparison(PLAN.claims[0], "stories"))
             if run.cell.arm == "frozen"]  # fmt: skip
    assert {run.rate for run in needs} == {grid.rate(cell("frozen"))}
    assert len(needs) == (2 if kept else 4)


def test_a_tuning_run_is_no_confirmation_and_the_other_way_round():
    records = factory.confirmed(PLAN, cell("frozen"), 0.01, [3.0, 3.1])
    grid = Grid(PLAN, records)
    assert grid.tuning_points(cell("frozen")) == []
    assert len(Grid(PLAN, tuned_all()).confirmed_losses(cell("frozen"))) == 0


def test_a_complete_study_needs_nothing():
    records = tuned_all()
    for arm in PLAN.arms:
        records += factory.confirmed(PLAN, cell(arm), 0.01, [3.0, 3.01, 3.02, 3.03])
    grid = Grid(PLAN, records)
    assert grid.needs() == []
    assert expected_left(grid) == []


def never_stable(plan, arm):
    """Records of a cell whose tuning has ended without a rate at which training is stable."""
    return [
        factory.make_record(plan, cell(arm), 0.01 / 2**n, seed, None)
        for n in range(-1, 7)
        for seed in plan.tune.seeds
    ]


def test_an_arm_that_diverges_at_all_rates_is_not_confirmed_and_stops_nothing():
    records = never_stable(PLAN, "frozen") + tuned_all(losses={"trained": 3.0, "twin": 3.1})
    grid = Grid(PLAN, records)
    assert grid.is_tuned(cell("frozen"))
    assert {run.cell.arm for run in grid.needs()} == {"trained", "twin"}
    assert judge(grid)[0].limits[0].verdict == "UNSTABLE"


CHOICE = {"choices": {"best": {"among": ["frozen", "twin"], "corpus": "stories"}}}
CHOICE["claims"] = [{"arm": "best", "at_most": 0.05}]


def test_a_choice_is_the_candidate_with_the_smallest_tuned_gap():
    plan = factory.make_plan(**CHOICE)
    grid = Grid(plan, tuned_all(plan, {"trained": 3.0, "frozen": 3.2, "twin": 3.1}))
    assert grid.resolve("best") == "twin"
    assert {run.cell.arm for run in grid.needs()} == {"twin", "trained"}


@pytest.mark.parametrize("among", [["frozen", "twin"], ["twin", "frozen"]])
def test_a_choice_takes_no_candidate_that_no_learning_rate_trains(among):
    """The gap of such a candidate is nan; if it was listed first, it used to be chosen."""
    plan = factory.make_plan(
        choices={"best": {"among": among, "corpus": "stories"}}, claims=CHOICE["claims"]
    )
    records = never_stable(plan, "frozen") + tuned_all(plan, {"trained": 3.0, "twin": 3.1})
    grid = Grid(plan, records)
    assert grid.resolve("best") == "twin"
    table = exploration_table(Study("test", grid, None)).set_index("arm")["tuned gap (validation)"]
    assert list(table.index) == ["twin", "frozen"]
    assert table["frozen"] == "no stable rate"
    none = (
        never_stable(plan, "frozen") + never_stable(plan, "twin") + tuned_all(plan, {"trained": 3})
    )
    assert Grid(plan, none).resolve("best") == among[0]


def test_a_choice_waits_until_all_candidates_are_tuned():
    plan = factory.make_plan(**CHOICE)
    grid = Grid(plan, tuned_all(plan, {"trained": 3.0, "frozen": 3.2}))
    assert grid.resolve("best") is None
    assert {run.cell.arm for run in grid.needs()} == {"twin"}
    assert judge(grid)[0].limits[0].verdict == "NOT RUN YET"


def test_a_choice_that_is_a_baseline_is_tuned_and_expected_too():
    claims = [{"arm": "trained", "against": "best", "at_most": 0.05}]
    grid = Grid(factory.make_plan(**CHOICE | {"claims": claims}), [])
    assert grid.needs()[0].cell == cell("frozen")
    confirmed = {cell.arm: count for stage, cell, count in expected_left(grid) if stage == CONFIRM}
    assert confirmed == {"trained": 4, "frozen": 4}


def test_a_choice_that_only_the_ladder_names_is_tuned_on_its_own_corpus():
    plan = factory.make_plan(
        corpora=["stories", "tinyshakespeare"],
        choices={"best": {"among": ["frozen", "twin"], "corpus": "tinyshakespeare"}},
        claims=[{"arm": "frozen", "at_most": 0.05, "corpora": ["stories"]}],
        ladder=factory.LADDER | {"arms": ["best"]},
    )
    needed = {(run.cell.corpus, run.cell.arm) for run in Grid(plan, []).needs()}
    assert {("tinyshakespeare", arm) for arm in ("trained", "frozen", "twin")} <= needed


def test_a_choice_counts_the_share_in_the_models_that_are_run():
    """An arm that trains 16 % of this model used to count as one of 7 % at another size."""
    arms = factory.plain_plan()["arms"]
    arms["delta"] = {"set": factory.FROZEN | {"model.delta_rank": 4}, "against": "trained"}
    choices = {"cheap": {"among": ["frozen", "delta"], "corpus": "stories", "trained_share": 0.1}}
    claims = [{"arm": "cheap", "at_most": 0.05}]
    plan = factory.make_plan(arms=arms, choices=choices, claims=claims)
    losses = {"trained": 3.0, "frozen": 3.2, "delta": 2.9}
    grid = Grid(plan, tuned_all(plan, losses))
    assert grid.plan.trained_share("delta") > 0.1
    assert grid.resolve("cheap") == "frozen"


def test_a_claim_is_run_on_all_of_its_corpora_before_the_next_claim():
    plan = factory.make_plan(corpora=["stories", "tinyshakespeare"])
    needs = Grid(plan, []).needs()
    cells = list(dict.fromkeys((run.cell.corpus, run.cell.arm) for run in needs))
    assert cells[:4] == [(corpus, arm) for corpus in plan.corpora for arm in ("frozen", "trained")]
    assert [arm for _, arm in cells[4:]] == ["twin", "twin"]
    assert len(needs) == 36


def test_the_ladder_comes_after_the_claims_with_its_own_tuning():
    plan = factory.make_plan(ladder=factory.LADDER | {"seeds": 6})
    records = tuned_all(plan)
    for arm in plan.arms:
        records += factory.confirmed(plan, cell(arm), 0.01, [3.0] * 4)
    needs = Grid(plan, records).needs()
    assert {run.cell.size for run in needs if run.stage == TUNE} == {"small"}
    more = {(run.cell.arm, run.seed) for run in needs if run.stage == CONFIRM}
    assert more == {(arm, seed) for arm in ("frozen", "trained") for seed in (105, 106)}


def test_records_of_a_corpus_that_was_taken_out_are_left_aside():
    """The page and the dry run ended with a KeyError: the start rate is given by corpus."""
    tune = {"seeds": [1, 2], "start": {"stories": 0.01, "wikitext2": 0.01}, "factor": 2.0}
    wide = factory.make_plan(corpora=["stories", "wikitext2"], tune=tune)
    gone = factory.tuned(wide, cell("frozen", "wikitext2"))
    records = [*factory.tuned(wide, cell("frozen")), *gone]
    narrow = factory.make_plan(tune=tune | {"start": {"stories": 0.01}})
    check_records(records, "test", narrow)
    grid = Grid(narrow, records)
    assert grid.cells == [cell("frozen")]
    assert tuning_table(Study("test", grid, None))["arm"].tolist() == ["frozen"]
    assert "wikitext2" not in describe_cost(grid, workers=2)


def test_the_columns_of_what_is_left_are_apart():
    """A name of 22 or more characters ran into the size."""
    plan = factory.make_plan(corpora=["tinystories-phase3-sample"])
    header, row, *_ = describe_cost(Grid(plan, factory.tuned(plan, cell("frozen"))), 1).splitlines()
    assert header.split() == ["stage", "corpus", "size", "done", "left", "core-hours", "left"]
    assert row.split()[:3] == ["tune", "tinystories-phase3-sample", "base"]


def test_expected_runs_count_what_is_not_known_yet():
    left = expected_left(Grid(PLAN, []))
    assert sum(count for stage, _, count in left if stage == TUNE) == 3 * 5 * 2
    assert sum(count for stage, _, count in left if stage == CONFIRM) == 3 * 4


def test_rates_do_not_depend_on_the_order_in_which_runs_end():
    records = [run for run in factory.tuned(PLAN, cell("frozen")) if run.rate >= 0.005]
    for ended in range(1, 6):
        for part in (records[:ended], records[-ended:]):
            needs = Grid(PLAN, part).tuning_needs(cell("frozen"))
            assert len(needs) == 6 - ended
            assert {run.rate for run in needs} <= {0.005, 0.01, 0.02}
