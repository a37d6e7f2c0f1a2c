import math
import re

import numpy as np
import pytest
import study_factory as factory

from oelm_lib import stats
from oelm_lib.study.cell import BASE_SIZE, Cell
from oelm_lib.study.grid import Grid
from oelm_lib.study.verdicts import family_size, judge

PLAN = factory.make_plan()
NOISE = [0.0, 0.004, -0.004, 0.002]


def cell(arm, corpus="stories", size=BASE_SIZE):
    return Cell(corpus, size, arm)


def make_grid(losses, plan=PLAN, rates=None):
    """A grid of tuned and confirmed arms: arm -> losses seed by seed."""
    records = []
    for arm, values in losses.items():
        records += factory.tuned(plan, cell(arm))
        records += factory.confirmed(plan, cell(arm), (rates or {}).get(arm, 0.01), values)
    return Grid(plan, records)


def with_gap(nats):
    return [3.0 + nats + noise for noise in NOISE]


BASE = [3.0, 3.01, 3.02, 3.03]


def test_a_verdict_is_read_off_the_interval_of_the_declared_seeds():
    grid = make_grid(
        {"trained": BASE, "frozen": [x + 0.2 for x in with_gap(0)], "twin": with_gap(0.2)}
    )
    first, second = judge(grid)
    differences = [a - b for a, b in zip([x + 0.2 for x in with_gap(0)], BASE, strict=True)]
    assert first.interval == stats.paired_interval(differences, k=2)
    assert [limit.verdict for limit in first.limits] == [stats.FAIL, stats.FAIL]
    assert [limit.text for limit in first.limits] == ["at most +5 %", "at most +1 %"]
    assert (second.arm, second.baseline) == ("frozen", "twin")


def test_runs_at_other_rates_never_enter_a_verdict():
    """One more record at another rate used to turn FAIL (n = 5) into INCONCLUSIVE (n = 6)."""
    before = make_grid({"trained": with_gap(0), "frozen": with_gap(0.2), "twin": with_gap(0.2)})
    tuning = [factory.make_record(PLAN, cell("frozen"), 0.04, seed, 9.0) for seed in (1, 2)]
    confirmation = factory.confirmed(PLAN, cell("frozen"), 0.02, [9.0, 9.0, 9.0])
    after = Grid(PLAN, before.records + tuning + confirmation)
    assert judge(after)[0].interval == judge(before)[0].interval
    assert after.replaced(cell("frozen")) == confirmation
    assert before.replaced(cell("frozen")) == []


def test_missing_runs_leave_the_other_claims_as_they_are():
    """One missing loss used to replace the whole headline."""
    grid = make_grid({"trained": with_gap(0), "frozen": with_gap(0.2), "twin": with_gap(0.2)[:2]})
    first, second = judge(grid)
    assert first.limits[0].verdict == stats.FAIL
    assert second.limits[0].verdict == "INCOMPLETE"
    assert (second.interval.n, second.planned) == (2, 4)
    none = judge(Grid(PLAN, []))
    assert {limit.verdict for judgement in none for limit in judgement.limits} == {"NOT RUN YET"}


@pytest.mark.parametrize("arm", ["frozen", "trained"])
def test_a_diverged_seed_of_either_arm_is_unstable(arm):
    """The seeds that survived used to get PASS."""
    losses = {"trained": with_gap(0), "frozen": with_gap(0.001), "twin": with_gap(0)}
    losses[arm] = [*losses[arm][:3], None]
    first = judge(make_grid(losses))[0]
    assert {limit.verdict for limit in first.limits} == {stats.UNSTABLE}
    assert (first.interval.n, first.interval.failed) == (3, 1)


def test_seeds_beyond_the_declared_number_are_left_out():
    losses = {"trained": with_gap(0), "frozen": [*with_gap(0.2), 9.0], "twin": with_gap(0.2)}
    assert judge(make_grid(losses))[0].interval.n == 4


def test_a_family_counts_pairs_not_limits():
    """Intervals are Bonferroni over the comparisons of a family; they used to be unadjusted."""
    assert family_size(PLAN, "main", "stories") == 2
    claims = [
        {"arm": "frozen", "at_most": [0.05, 0.01]},
        {"arm": "frozen", "at_most": 0.1},
        {"arm": "twin", "at_most": 0.05},
        {"equal": ["frozen", "twin"], "within": 0.01, "family": "rows"},
    ]
    plan = factory.make_plan(claims=claims)
    assert family_size(plan, "main", "stories") == 2
    assert family_size(plan, "rows", "stories") == 1
    assert family_size(plan, "rows", "elsewhere") == 0


def test_more_seeds_for_an_old_question_widen_the_intervals_of_its_family():
    """A second look is one more chance of an error: both looks hold together with 95 %."""
    claims = [
        {"arm": "frozen", "at_most": 0.05},
        {"arm": "frozen", "at_most": 0.05, "seeds": 6},
        {"arm": "frozen", "at_most": 0.01, "seeds": 6},
    ]
    assert family_size(factory.make_plan(claims=claims[:1]), "main", "stories") == 1
    assert family_size(factory.make_plan(claims=claims), "main", "stories") == 2


def test_a_family_has_its_size_before_its_runs_are_there():
    assert {judgement.interval.k for judgement in judge(Grid(PLAN, []))} == {2}


def test_an_open_claim_says_how_many_seeds_would_decide_it():
    """The number used to be that for a difference of 0, whatever the difference was."""
    frozen = [3.0 + math.log(1.04) + 5 * noise for noise in NOISE]
    first = judge(make_grid({"trained": [3.0] * 4, "frozen": frozen, "twin": frozen}))[0]
    assert first.limits[0].verdict == stats.INCONCLUSIVE
    assert re.fullmatch(r"about \d+ to .* seeds would decide it", first.limits[0].to_decide)


@pytest.mark.parametrize("split", ["test", "val"])
def test_an_interval_holds_the_error_over_documents_where_that_is_as_large(split):
    """An interval over seeds alone used to be read as one over texts."""
    confirm = factory.plain_plan()["confirm"] | {"split": split}
    plan = factory.make_plan(confirm=confirm)
    draw = np.random.default_rng(0)
    common = draw.normal(0, 40, 30)
    records = []
    for arm, shift in (("trained", 0.0), ("frozen", 1.0), ("twin", 1.0)):
        records += factory.tuned(PLAN, cell(arm))
        for n in range(4):
            nats = 300 + shift * common + 0.1 * n
            documents = {f"{split}_documents": {"nats": nats.tolist(), "tokens": [100] * 30}}
            loss = float(nats.sum() / 3000)
            records.append(
                factory.make_record(
                    plan, cell(arm), 0.01, 101 + n, loss, stage="confirm", **documents
                )
            )
    interval = judge(Grid(plan, records))[0].interval
    assert interval.document_error == pytest.approx(0.4 / math.sqrt(30), rel=0.4)
    assert interval.includes_documents
    assert interval.high - interval.low > 2 * interval.document_error


def test_a_claim_added_after_confirmation_began_is_marked():
    """A claim that was added late used to look like one that was declared before."""
    plain = factory.plain_plan()
    plain["claims"].append({"arm": "twin", "at_most": 0.05})
    plan = factory.make_plan(claims=plain["claims"])
    judgements = judge(Grid(plan, []), registered=PLAN)
    assert [judgement.declared for judgement in judgements] == [True, True, False]


def test_a_corpus_added_after_confirmation_began_is_marked():
    """Where its results are known, a corpus can be picked for them like a claim."""
    plan = factory.make_plan(corpora=["stories", "wikitext2"])
    judgements = judge(Grid(plan, []), registered=PLAN)
    assert {judgement.corpus: judgement.declared for judgement in judgements} == {
        "stories": True,
        "wikitext2": False,
    }
    assert all(judgement.declared for judgement in judge(Grid(plan, [])))


def test_two_gaps_are_compared_seed_by_seed():
    arms = {
        "trained": {},
        "frozen": {"set": factory.FROZEN, "against": "trained"},
        "trained, wide": {"set": {"model.d_ff": 64}},
        "frozen, wide": {"set": factory.FROZEN | {"model.d_ff": 64}, "against": "trained, wide"},
    }
    claims = [{"equal": ["frozen", "frozen, wide"], "gaps": True, "within": 0.01}]
    plan = factory.make_plan(arms=arms, claims=claims)
    losses = {
        "trained": [3.0, 3.1, 3.2, 3.3],
        "frozen": [3.11, 3.20, 3.31, 3.40],
        "trained, wide": [2.5, 2.7, 2.6, 2.9],
        "frozen, wide": [2.60, 2.80, 2.70, 3.00],
    }
    (judgement,) = judge(make_grid(losses, plan=plan))
    assert judgement.interval.mean == pytest.approx(0.005)
    assert judgement.limits[0].text == "equal gaps within ±1 %"
    assert len(Grid(plan, []).comparison(plan.claims[0], "stories").cells) == 4
    losses["trained, wide"][1] = None
    (judgement,) = judge(make_grid(losses, plan=plan))
    assert judgement.limits[0].verdict == stats.UNSTABLE
