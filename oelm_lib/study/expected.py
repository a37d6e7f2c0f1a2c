"""How many runs a study is still expected to need, tuning that has not begun included."""

from oelm_lib.study.cell import BASE_SIZE, CONFIRM, TUNE, Cell
from oelm_lib.study.grid import Comparison, Grid
from oelm_lib.study.plan import Plan

EXPECTED_RATES = 5
"""Rates that a cell is expected to need."""


def expected_left(grid: Grid) -> list[tuple[str, Cell, int]]:
    """Return stage, cell and number of runs that are still expected, of every cell of the plan.

    A cell that is not tuned counts EXPECTED_RATES rates, and one more where it has those; a choice
    that is not made counts as its first candidate.
    """
    tuned: dict[Cell, int] = {}
    confirmed: dict[Cell, set[int]] = {}
    for comparison in _expected_comparisons(grid):
        for cell in comparison.cells:
            tuned[cell] = _expected_tuning(grid, cell)
            confirmed.setdefault(cell, set()).update(comparison.seeds)
    for name, choice in grid.plan.choices.items():
        for arm in grid.candidates(name):
            cell = Cell(choice.corpus, BASE_SIZE, arm)
            tuned[cell] = _expected_tuning(grid, cell)
    for cell in grid.exploratory_cells():
        tuned[cell] = _expected_tuning(grid, cell)
    left = [(TUNE, cell, count) for cell, count in tuned.items()]
    for cell, seeds in confirmed.items():
        left.append((CONFIRM, cell, len(seeds - set(grid.confirmed_losses(cell)))))
    return [(stage, cell, count) for stage, cell, count in left if count]


def _expected_comparisons(grid: Grid) -> list[Comparison]:
    known = Grid(_with_first_candidates(grid.plan, grid), grid.records)
    found = [
        known.comparison(claim, corpus)
        for claim in known.plan.claims
        for corpus in known.plan.claim_corpora(claim)
    ]
    return [comparison for comparison in found if comparison] + known.ladder_comparisons()


def _expected_tuning(grid: Grid, cell: Cell) -> int:
    if grid.is_tuned(cell):
        return 0
    done = len(grid.tuning_points(cell))
    tune = grid.plan.tune
    expected = min(EXPECTED_RATES, tune.most_rates) * len(tune.seeds)
    return max(expected - done, len(grid.tuning_needs(cell)))


def _with_first_candidates(plan: Plan, grid: Grid) -> Plan:
    """The plan with every choice that is not made replaced by its first candidate."""
    names = {
        name: grid.resolve(name) or (grid.candidates(name) or [plan.choices[name].among[0]])[0]
        for name in plan.choices
    }

    def arm(name: str | None) -> str | None:
        return names.get(name, name)

    claims = tuple(
        claim.model_copy(
            update={
                "arm": arm(claim.arm),
                "equal": claim.equal and (arm(claim.equal[0]), arm(claim.equal[1])),
            }
        )
        for claim in plan.claims
    )
    ladder = plan.ladder and plan.ladder.model_copy(
        update={"arms": tuple(arm(name) for name in plan.ladder.arms)}
    )
    return plan.model_copy(update={"claims": claims, "ladder": ladder})
