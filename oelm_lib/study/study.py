"""A study as a whole: its plan, its records and its verdicts."""

from dataclasses import dataclass
from functools import cached_property

from oelm_lib.study import verdicts
from oelm_lib.study.checks import check_only_adds, read_grid
from oelm_lib.study.grid import Grid
from oelm_lib.study.ladder import Slope, judge_ladder
from oelm_lib.study.plan import Plan, read_plan
from oelm_lib.study.records import registered_plan
from oelm_lib.study.schema import Claim
from oelm_lib.study.verdicts import Judgement


@dataclass(frozen=True)
class Study:
    """Plan and records of a study, and the verdicts that follow from them."""

    name: str
    grid: Grid
    registered: Plan | None
    """The plan as it stood when confirmation began; None: it has not begun."""

    @cached_property
    def judgements(self) -> list[Judgement]:
        """Judgement of every claim on every corpus."""
        return verdicts.judge(self.grid, self.registered)

    @cached_property
    def slopes(self) -> list[Slope]:
        """Slope of every arm of the ladder, on each of its corpora."""
        return judge_ladder(self.grid, self.registered)

    @property
    def plan(self) -> Plan:
        """The plan."""
        return self.grid.plan

    def latest(self) -> list[Judgement]:
        """Return one judgement for each question and corpus.

        Where a later claim added seeds: the complete one with the most seeds, else the first.
        """
        groups: dict[tuple[Claim, str], list[Judgement]] = {}
        for judgement in self.judgements:
            groups.setdefault((judgement.claim.question, judgement.corpus), []).append(judgement)
        return [_latest(group) for group in groups.values()]

    def headline(self) -> list[list[Judgement]]:
        """Return the latest judgements, corpus by corpus, of each question of the first screen."""
        claims = [claim for claim in self.plan.claims if claim.headline] or self.plan.claims
        latest = self.latest()
        return [
            [judgement for judgement in latest if judgement.claim.question == question]
            for question in dict.fromkeys(claim.question for claim in claims)
        ]

    def main_table(self) -> tuple[list[str], list[list[Judgement | None]]]:
        """Return corpora, and for each main comparison its judgement on each of them.

        Comparisons and corpora for which no seed has ended are left out.
        """
        rows = [
            {judgement.corpus: judgement for judgement in judgements}
            for judgements in self.headline()
        ]
        begun = [row for row in rows if any(judgement.is_begun for judgement in row.values())]
        corpora = [
            corpus
            for corpus in self.plan.corpora
            if any(corpus in row and row[corpus].is_begun for row in begun)
        ]
        return corpora, [[row.get(corpus) for corpus in corpora] for row in begun]


def _latest(group: list[Judgement]) -> Judgement:
    """Return the complete judgement with the most seeds, else the first."""
    complete = [judgement for judgement in group if judgement.is_complete]
    return max(complete, key=lambda judgement: judgement.planned, default=group[0])


def load_study(name: str) -> Study:
    """Read a study's plan and records.

    Raises:
        UserError: A mistake in the plan, a change of it after confirmation began, or a record of
            another plan.
    """
    plan, registered = read_plan(name), registered_plan(name)
    grid = read_grid(name, plan)
    if registered is not None:
        check_only_adds(registered, plan)
    return Study(name, grid, registered)
