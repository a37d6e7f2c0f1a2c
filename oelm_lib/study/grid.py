"""What a study has done and what it needs next, from its plan and records alone."""

import math
from collections.abc import Iterable
from dataclasses import dataclass

from oelm_lib.study.cell import BASE_SIZE, CONFIRM, TUNE, Cell, PlannedRun
from oelm_lib.study.plan import Plan
from oelm_lib.study.records import Record
from oelm_lib.study.schema import Claim
from oelm_lib.study.tuning import (
    INTERIOR,
    NO_STABLE_RATE,
    Fit,
    Point,
    first_rates,
    fit_rates,
    is_precise,
    next_rates,
    stable_means,
)

Losses = dict[int, float | None]
"""Seed -> loss in nats; None: the run diverged."""


@dataclass(frozen=True)
class Comparison:
    """Two arms on one corpus at one size, with the seeds that they are compared on."""

    first: Cell
    second: Cell
    seeds: tuple[int, ...]
    own_baselines: tuple[Cell, ...] = ()
    """Where two gaps are compared: the baseline of `first` and that of `second`."""

    @property
    def cells(self) -> tuple[Cell, ...]:
        """All cells whose losses are needed."""
        return tuple(dict.fromkeys((self.first, self.second, *self.own_baselines)))


class Grid:
    """The plan and the records of a study, with queries for each cell."""

    def __init__(self, plan: Plan, records: list[Record]):
        self.plan, self.records = plan, records
        self._cells: dict[Cell, list[Record]] = {}
        for record in records:
            self._cells.setdefault(record.cell, []).append(record)
        self._fits: dict[Cell, Fit] = {}

    @property
    def cells(self) -> list[Cell]:
        """The cells of the plan that have records, in the order of their first one."""
        return list(filter(self.plan.has, self._cells))

    # Tuning

    def tuning_points(self, cell: Cell) -> list[Point]:
        """Return the validation losses of a cell's tuning runs."""
        return [
            (record.rate, record.seed, record.loss("val"))
            for record in self._cells.get(cell, [])
            if record.stage == TUNE
        ]

    def fit(self, cell: Cell) -> Fit:
        """Return the parabola through the tuning runs that a cell has so far."""
        if cell not in self._fits:
            self._fits[cell] = fit_rates(self.tuning_points(cell))
        return self._fits[cell]

    def tuning_needs(self, cell: Cell) -> list[PlannedRun]:
        """Return the runs that tuning needs next; none where it has ended."""
        points, seeds = self.tuning_points(cell), self.plan.tune.seeds
        start = self.plan.start_rate(cell)
        done = {(rate, seed) for rate, seed, _ in points}
        rates = sorted({rate for rate, _ in done} | set(first_rates(self.plan.tune, start)))
        missing = [(rate, seed) for rate in rates for seed in seeds if (rate, seed) not in done]
        if not missing:
            new = next_rates(points, self.plan.tune, start)
            missing = [(rate, seed) for rate in new for seed in seeds]
        return [PlannedRun(cell, rate, seed, TUNE) for rate, seed in missing]

    def is_tuned(self, cell: Cell) -> bool:
        """Return whether tuning has ended, with or without a stable rate."""
        return bool(self.tuning_points(cell)) and not self.tuning_needs(cell)

    def has_no_rate(self, cell: Cell) -> bool:
        """Return whether tuning has ended without a stable learning rate: nothing is confirmed."""
        return self.fit(cell).state == NO_STABLE_RATE and self.is_tuned(cell)

    def is_imprecise(self, cell: Cell) -> bool:
        """Return whether the minimum is less precise than `tune` asks for.

        It is asked of cells whose tuning has ended, or whose runs were confirmed nevertheless.
        """
        is_used = self.is_tuned(cell) or bool(self.confirmation_records(cell))
        if not is_used or self.fit(cell).state != INTERIOR:
            return False
        stable = stable_means(self.tuning_points(cell))
        return not is_precise(self.fit(cell), stable, self.plan.tune)

    def rate(self, cell: Cell) -> float | None:
        """Return the learning rate of a cell's confirmation runs.

        A rate that was confirmed is kept while the fit says that it costs at most `tune.error`;
        else, and before the first confirmation, it is the fitted rate.
        """
        fit = self.fit(cell)
        confirmed = {record.rate for record in self._all_confirmations(cell)}
        kept = [rate for rate in confirmed if fit.cost(rate) <= self.plan.tune.error]
        return min(kept, key=lambda rate: (fit.cost(rate), rate)) if kept else fit.rate

    def replaced(self, cell: Cell) -> list[Record]:
        """Return the confirmation runs at a rate that later tuning has replaced: not judged."""
        rate = self.rate(cell)
        return [record for record in self._all_confirmations(cell) if record.rate != rate]

    # Choices

    def resolve(self, name: str) -> str | None:
        """Return the arm that a name stands for: itself, or the arm that a choice selected.

        None while the choice is not made. A candidate has no gap if its tuning, or that of its
        baseline, found no stable learning rate; it is selected only if no candidate has a gap.
        """
        choice = self.plan.choices.get(name)
        if choice is None:
            return name
        gaps = {arm: self.tuned_gap(arm, choice.corpus) for arm in self.plan.candidates(name)}
        if None in gaps.values():
            return None
        trained = {arm: gap for arm, gap in gaps.items() if math.isfinite(gap)}
        return min(trained or gaps, key=gaps.get)

    def tuned_gap(self, arm: str, corpus: str) -> float | None:
        """Return the difference of the fitted minima of an arm and its baseline, in nats.

        None where one of them is not tuned, nan where no learning rate of one is stable.
        """
        pair = (arm, self.plan.arms[arm].against)
        cells = [Cell(corpus, BASE_SIZE, name) for name in pair]
        if not all(self.is_tuned(cell) for cell in cells):
            return None
        own, baseline = (self.fit(cell).loss for cell in cells)
        return own - baseline

    # Confirmation

    def comparison(self, claim: Claim, corpus: str) -> Comparison | None:
        """Return the cells that a claim compares; None where a choice is not made yet.

        An arm and its baseline, the two arms of `equal`, or with `gaps` these two and the baseline
        of each.
        """
        first = self.resolve(claim.first)
        if first is None:
            return None
        second = self.resolve(claim.second or self.plan.arms[first].against)
        if second is None:
            return None
        baselines = [self.plan.arms[arm].against for arm in (first, second)] if claim.gaps else []
        return Comparison(
            Cell(corpus, BASE_SIZE, first),
            Cell(corpus, BASE_SIZE, second),
            tuple(self.plan.confirm_seeds(claim.seeds)),
            tuple(Cell(corpus, BASE_SIZE, arm) for arm in baselines),
        )

    def ladder_comparisons(self) -> list[Comparison]:
        """Return the pairs of cells of the ladder whose arms are known, size by size."""
        ladder = self.plan.ladder
        if ladder is None:
            return []
        arms = [arm for arm in map(self.resolve, ladder.arms) if arm is not None]
        return [
            Comparison(
                Cell(corpus, size, arm),
                Cell(corpus, size, self.plan.arms[arm].against),
                tuple(self.plan.confirm_seeds(ladder.seeds)),
            )
            for corpus in ladder.corpora
            for size in self.plan.sizes
            for arm in dict.fromkeys(arms)
        ]

    def confirmed_losses(self, cell: Cell) -> Losses:
        """Return seed -> loss of confirmation; None where the run diverged."""
        split = self.plan.confirm.split
        return {record.seed: record.loss(split) for record in self.confirmation_records(cell)}

    def compared_losses(self, comparison: Comparison) -> list[Losses]:
        """Return the losses of both sides, each by declared seed.

        Where gaps are compared, those of their baselines are subtracted.
        """
        sides = [self.confirmed_losses(cell) for cell in (comparison.first, comparison.second)]
        if comparison.own_baselines:
            bases = map(self.confirmed_losses, comparison.own_baselines)
            sides = [_minus(losses, base) for losses, base in zip(sides, bases, strict=True)]
        return [
            {seed: losses[seed] for seed in comparison.seeds if seed in losses} for losses in sides
        ]

    def confirmation_records(self, cell: Cell) -> list[Record]:
        """Return the runs that confirm a cell, all at its rate."""
        rate = self.rate(cell)
        return [record for record in self._all_confirmations(cell) if record.rate == rate]

    def _all_confirmations(self, cell: Cell) -> list[Record]:
        return [record for record in self._cells.get(cell, []) if record.stage == CONFIRM]

    def confirmation_needs(self, comparison: Comparison) -> list[PlannedRun]:
        """Return the runs that a comparison needs next: tuning, then its seeds, pair by pair."""
        cells = comparison.cells
        needs = [run for cell in cells for run in self.tuning_needs(cell)]
        for seed in comparison.seeds:
            for cell in cells:
                rate = self.rate(cell) if self.is_tuned(cell) else None
                if rate is not None and seed not in self.confirmed_losses(cell):
                    needs.append(PlannedRun(cell, rate, seed, CONFIRM))
        return needs

    # All runs

    def needs(self) -> list[PlannedRun]:
        """Return every run that can start now, the most urgent first.

        The claims in the plan's order, each tuned and then confirmed on all of its corpora; then
        the ladder; then the arms that no claim names, on the first corpus.
        """
        runs: list[PlannedRun] = []
        for claim in self.plan.claims:
            runs += self._choice_needs(claim.names)
            for corpus in self.plan.claim_corpora(claim):
                if (comparison := self.comparison(claim, corpus)) is not None:
                    runs += self.confirmation_needs(comparison)
        runs += self._choice_needs(self.plan.choices)  # also those that only the ladder names
        for comparison in self.ladder_comparisons():
            runs += self.confirmation_needs(comparison)
        for cell in self.exploratory_cells():
            runs += self.tuning_needs(cell)
        return list(dict.fromkeys(runs))

    def exploratory_cells(self) -> list[Cell]:
        """Return a cell of each arm on the first corpus: all are tuned there, claimed or not."""
        return [Cell(self.plan.corpora[0], BASE_SIZE, arm) for arm in self.plan.arms]

    def _choice_needs(self, names: Iterable[str]) -> list[PlannedRun]:
        """Return the tuning that the choices among these names need, baselines included."""
        runs = []
        for name in [name for name in names if name in self.plan.choices]:
            corpus = self.plan.choices[name].corpus
            for arm in self.plan.candidates(name):
                for each in (arm, self.plan.arms[arm].against):
                    runs += self.tuning_needs(Cell(corpus, BASE_SIZE, each))
        return runs


def _minus(losses: Losses, base: Losses) -> Losses:
    """Return the differences of the shared seeds; None where either run diverged."""
    return {
        seed: None if loss is None or base[seed] is None else loss - base[seed]
        for seed, loss in losses.items()
        if seed in base
    }
