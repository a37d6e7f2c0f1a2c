"""Estimate how many runs a study still needs, including tuning that has not begun."""

from oelm_lib.study.cell import BASE_SIZE, CONFIRM, TUNE, Cell
from oelm_lib.study.grid import Grid

EXPECTED_RATES = 5
"""Rates that a cell is expected to need."""


class _ExpectedGrid(Grid):
    """A grid in which a choice that is not made means its first candidate."""

    def resolve(self, name: str) -> str:
        """Return the arm that a name means, or will mean."""
        return super().resolve(name) or self.plan.candidates(name)[0]


def expected_left(grid: Grid) -> list[tuple[str, Cell, int]]:
    """Estimate the runs that are left: stage, cell and number, for every cell of the plan.

    A cell whose tuning has not ended is expected to need EXPECTED_RATES rates; where it has them
    already, the runs that it needs next are counted. A choice that is not made counts as its first
    candidate. A cell without a stable rate is not confirmed.
    """
    confirmed: dict[Cell, set[int]] = {}
    expected = _ExpectedGrid(grid.plan, grid.records)
    claims = [expected.comparison(claim, corpus) for claim, corpus in grid.plan.claims_by_corpus()]
    for comparison in claims + expected.ladder_comparisons():
        for cell in comparison.cells:
            confirmed.setdefault(cell, set()).update(comparison.seeds)
    candidates = [
        Cell(choice.corpus, BASE_SIZE, arm)
        for name, choice in grid.plan.choices.items()
        for arm in grid.plan.candidates(name)
    ]
    tuned = dict.fromkeys([*confirmed, *candidates, *grid.exploratory_cells()])
    left = [(TUNE, cell, _expected_tuning(grid, cell)) for cell in tuned]
    for cell, seeds in confirmed.items():
        if not grid.has_no_rate(cell):
            left.append((CONFIRM, cell, len(seeds - set(grid.confirmed_losses(cell)))))
    return [(stage, cell, count) for stage, cell, count in left if count]


def runs_left(grid: Grid) -> int:
    """Estimate the number of runs that are left."""
    return sum(count for _, _, count in expected_left(grid))


def _expected_tuning(grid: Grid, cell: Cell) -> int:
    if grid.is_tuned(cell):
        return 0
    done = len(grid.tuning_points(cell))
    tune = grid.plan.tune
    expected = min(EXPECTED_RATES, tune.most_rates) * len(tune.seeds)
    return max(expected - done, len(grid.tuning_needs(cell)))
