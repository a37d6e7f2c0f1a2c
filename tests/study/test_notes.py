"""The notes under a study's answer: how to read it, and what it does not show."""

import re

import pytest
import study_factory as factory
from test_page import COMPLETE, make_study, text
from test_verdicts import BASE, cell, make_grid, with_gap

from oelm_lib.study import notes, page, tables
from oelm_lib.study.grid import Grid


def test_runs_at_a_rate_that_tuning_has_replaced_are_named():
    """An optimum that further tuning moves is confirmed again; the earlier runs stay visible."""
    grid = make_grid(COMPLETE)
    assert "are not judged" not in notes.not_shown(make_study(grid))
    old = factory.confirmed(grid.plan, cell("frozen"), 0.02, [3.3, 3.3])
    study = make_study(Grid(grid.plan, grid.records + old))
    assert (
        "stories, frozen: 2 confirmation runs at learning rate 0.02 are not judged, since further"
        f" tuning moved the optimum to {study.grid.rate(cell('frozen')):g}."
    ) in notes.not_shown(study)


def test_an_imprecise_learning_rate_is_named():
    """A cell whose tuning ended with an unbounded interval stood there as "interior" only."""
    records = [run for run in make_grid(COMPLETE).records if run.cell != cell("frozen")]
    losses = {
        (n, seed): 3.2 + 0.005 * n**2 + 0.01 * ((7 * n + 3 * seed) % 5 - 2)
        for n in range(-4, 4)
        for seed in (1, 2)
    }
    noisy = [
        factory.make_record(factory.make_plan(), cell("frozen"), 0.01 * 2**n, seed, loss)
        for (n, seed), loss in losses.items()
    ]
    study = make_study(Grid(factory.make_plan(), records + noisy))
    assert study.grid.is_tuned(cell("frozen"))
    table = tables.tuning_table(study).set_index("arm")
    assert table.loc["frozen", "state"] == "interior, imprecise"
    assert table.loc["trained", "state"] == "interior"
    assert "0.003 nats): stories, frozen." in notes.not_shown(study)
    rate = study.grid.rate(cell("frozen"))
    confirmed = factory.confirmed(factory.make_plan(), cell("frozen"), rate, COMPLETE["frozen"])
    study = make_study(Grid(factory.make_plan(), records + noisy + confirmed))
    assert text(page.first_table(study)).count("rates imprecise") == 2  # frozen is in both claims
    assert "rates imprecise" not in text(page.first_table(make_study(make_grid(COMPLETE))))


def test_confirmed_runs_whose_tuning_needs_another_rate_are_named_as_imprecise():
    """Tuning that a stricter rule opens again took the mark off the results that stood on it."""
    grid = make_grid(COMPLETE)
    assert not grid.is_imprecise(cell("frozen"))
    lowest = min(rate for rate, _, _ in grid.tuning_points(cell("frozen")))
    records = [run for run in grid.records if run.cell != cell("frozen") or run.rate > lowest]
    study = make_study(Grid(grid.plan, records))
    assert not study.grid.is_tuned(cell("frozen"))
    assert "stories, frozen" in notes.not_shown(study).partition("imprecise")[2]


@pytest.mark.parametrize(("count", "is_few"), [(7, True), (8, False)])
def test_few_seeds_are_those_of_the_questions_as_they_stand(count, is_few):
    """A first look of few seeds is no weakness once more seeds have answered its question."""
    claims = [{"arm": "frozen", "at_most": 0.05, "seeds": seeds} for seeds in (4, count)]
    plan = factory.make_plan(claims=claims)
    study = make_study(make_grid({"trained": BASE * 2, "frozen": with_gap(0.2) * 2}, plan=plan))
    assert (f"{count} seeds: intervals are wide" in notes.not_shown(study)) == is_few
    assert "4 seeds: intervals are wide" not in notes.not_shown(study)


def test_runs_with_another_instruction_set_are_named():
    grid = make_grid(COMPLETE)
    for run in grid.confirmation_records(cell("twin")):
        run.machine.update(instructions="AVX512")
    assert "stories (cpu, AVX2 and cpu, AVX512)." in text(notes.not_shown(make_study(grid)))


def test_runs_of_another_device_or_precision_are_named():
    grid = make_grid(COMPLETE)
    assert "more than one device" not in notes.not_shown(make_study(grid))
    for run in grid.confirmation_records(cell("twin")):
        run.machine.update(device_name="A5000", precision="bf16")
    assert "gap may hold their difference too: stories (A5000, bf16, AVX2 and cpu, AVX2)." in text(
        notes.not_shown(make_study(grid))
    )
    assert set(tables.provenance_table(make_study(grid))["precision"].dropna()) == {"bf16"}


def test_a_study_of_the_validation_split_never_speaks_of_test_text():
    plan = factory.make_plan(confirm={"seeds": {"from": 101, "count": 4}, "split": "val"})
    far = [*with_gap(0.2)[:3], with_gap(0.2)[3] + 0.3]
    study = make_study(make_grid(COMPLETE | {"frozen": far}, plan=plan))
    content = text(page.answer(study) + notes.reading(study) + notes.not_shown(study))
    assert "validation text" in content and "of validation loss between" in content
    assert not re.search(r"\btest\b", content)


def test_what_weakens_the_study_is_said():
    """The page used to say "nothing found" of three seeds of generated text."""
    content = text(notes.not_shown(make_study(make_grid(COMPLETE))))
    assert "stories: generated text, which says nothing about real text." in content
    assert "4 seeds: intervals are wide" in content
    edge = [
        factory.make_record(factory.make_plan(), cell("frozen"), 0.01 * 2**n, seed, 3 - 0.1 * n)
        for n in range(-1, 7)
        for seed in (1, 2)
    ]
    study = make_study(Grid(factory.make_plan(), edge))
    assert "not tuned to an interior minimum: stories, frozen." in text(notes.not_shown(study))


def test_claims_added_later_are_named():
    plain = factory.plain_plan()
    plain["claims"].append({"arm": "twin", "at_most": 0.05})
    plan = factory.make_plan(claims=plain["claims"])
    study = make_study(Grid(plan, []), registered=factory.make_plan())
    assert "Claimed late: 1 of 3 comparisons" in text(notes.not_shown(study))
    assert "intervals are wider, and their level of 95 % is approx" in text(notes.reading(study))
    assert list(tables.claims_table(study)["seeds"])[-1] == "0 of 4 seeds, claimed late"


def test_a_cell_whose_seeds_lie_far_apart_is_named():
    far = [*with_gap(0.2)[:3], with_gap(0.2)[3] + 0.3]
    content = text(notes.not_shown(make_study(make_grid(COMPLETE | {"frozen": far}))))
    words = "Seeds that lie far apart, so that one of them moves a gap: stories, frozen, 0.3"
    assert words in content
    assert "far apart" not in notes.not_shown(make_study(make_grid(COMPLETE)))
