"""The declaration of a study, params/studies/<name>.yaml: validated and turned into configs."""

from pathlib import Path
from typing import Annotated, Any

from pydantic import Field, model_validator

from oelm_lib import config
from oelm_lib.config import Experiment, Section
from oelm_lib.errors import UserError
from oelm_lib.files import sha256_json
from oelm_lib.model.cost import parameter_counts, qk_share
from oelm_lib.study.cell import BASE_SIZE, Cell, rounded_rate
from oelm_lib.study.schema import Arm, Choice, Claim, Confirm, Ladder, Names, Settings, Size, Tune

GUIDE = "docs/studies.md"
"""File that shows every key of a plan."""


class Plan(Section):
    """A file of params/studies/: what is trained, tuned, confirmed and claimed."""

    question: str
    about: str = ""
    """Words for the page: what the limits of the claims mean and where they come from."""
    base: str
    """Experiment that every run is made from."""
    set: Settings = Field(default={})
    """What every run changes in it, by dotted key."""
    corpora: Names
    """Corpora, in the order in which they are run."""
    arms: dict[str, Arm]
    tune: Tune
    confirm: Confirm
    choices: dict[str, Choice] = Field(default={})
    claims: Annotated[tuple[Claim, ...], Field(min_length=1)]
    """Claims, in the order in which they are run."""
    ladder: Ladder | None = None
    notes: tuple[str, ...] = ()
    """Sentences for the page: what is dropped first, what the plan does not ask."""

    @model_validator(mode="after")
    def _check(self):
        _check_names(self)
        counts = [claim.seeds or 0 for claim in self.claims]
        counts += [self.confirm.seeds.count, self.ladder.seeds if self.ladder else 0]
        if seeds := sorted(set(self.tune.seeds).intersection(self.confirm_seeds(max(counts)))):
            raise ValueError(
                f"confirm.seeds: seed {seeds[0]} is one of tune.seeds; choose fresh seeds,"
                f" e.g. from: {max(self.tune.seeds) + 100}"
            )
        return self

    def has(self, cell: Cell) -> bool:
        """Return whether corpus, size and arm of a cell are all in the plan."""
        return cell.corpus in self.corpora and cell.size in self.sizes and cell.arm in self.arms

    @property
    def hash(self) -> str:
        """First 12 digits of the SHA-256 of all that the plan says."""
        content = self.model_dump(mode="json", by_alias=True, exclude_defaults=True)
        return sha256_json(content)[:12]

    @property
    def sizes(self) -> dict[str, Size]:
        """Size name -> size that is run, the base first."""
        return {BASE_SIZE: Size(set={})} | (self.ladder.run_sizes if self.ladder else {})

    @property
    def left_out(self) -> dict[str, str]:
        """Size name -> why it is not run."""
        sizes = self.ladder.sizes if self.ladder else {}
        return {name: size.left_out for name, size in sizes.items() if size.left_out}

    def confirm_seeds(self, count: int | None) -> list[int]:
        """Return the first `count` seeds of confirmation; None: the plan's number."""
        first = self.confirm.seeds.first
        return list(range(first, first + (count or self.confirm.seeds.count)))

    def claim_corpora(self, claim: Claim) -> list[str]:
        """Return the corpora of a claim, in the plan's order."""
        return [name for name in self.corpora if name in (claim.corpora or self.corpora)]

    def claims_by_corpus(self) -> list[tuple[Claim, str]]:
        """Return each claim with each of its corpora, in the plan's order."""
        return [(claim, corpus) for claim in self.claims for corpus in self.claim_corpora(claim)]

    def start_rate(self, cell: Cell) -> float:
        """Return the first learning rate of a cell's tuning."""
        start = self.tune.start
        start = start[cell.corpus] if isinstance(start, dict) else start
        factor = self.sizes[cell.size].rate_factor * self.arms[cell.arm].rate_factor
        return rounded_rate(start * factor)

    def lowest_rate(self, cell: Cell) -> float:
        """Return the lowest learning rate that a cell's tuning may try.

        Of its rates, three are around the first one, and all others may be below them.
        """
        rate = self.start_rate(cell)
        for _ in range(self.tune.most_rates - 2):
            rate = rounded_rate(rate / self.tune.factor)
        return rate

    def overrides(self, cell: Cell, rate: float | None = None) -> Settings:
        """Return what a run of a cell changes in the base experiment, by dotted key.

        Args:
            rate: Learning rate; default the first one of the cell's tuning.
        """
        changes = self.set | self.sizes[cell.size].set | self.arms[cell.arm].set
        rate = self.start_rate(cell) if rate is None else rate
        return changes | {"data.corpus": cell.corpus, "optim.learning_rate": rate}

    def config(self, cell: Cell, rate: float | None = None) -> Experiment:
        """Return the config of a run; arguments of overrides. Raises UserError for a wrong key."""
        return config.load_config(self.base, self.overrides(cell, rate))

    def trained_share(self, arm: str) -> float:
        """Return the share of the Q/K weights that an arm trains, at the base size."""
        return qk_share(self.config(Cell(self.corpora[0], BASE_SIZE, arm)).model)

    def candidates(self, name: str) -> list[str]:
        """Return the arms that a name may mean: of a choice, those within its trained share."""
        choice = self.choices.get(name)
        if choice is None:
            return [name]
        if choice.trained_share is None:
            return list(choice.among)
        return [arm for arm in choice.among if self.trained_share(arm) <= choice.trained_share]


def _check_names(plan: Plan) -> None:
    """Raise ValueError where a name of the plan names nothing, or two things."""
    arms, choices = set(plan.arms), set(plan.choices)
    if names := arms & choices:
        raise ValueError(f"{names.pop()!r} names an arm and a choice; rename one")
    if len(set(plan.corpora)) < len(plan.corpora):
        raise ValueError("corpora names one corpus twice")
    if isinstance(plan.tune.start, dict) and set(plan.tune.start) != set(plan.corpora):
        raise ValueError(f"tune.start names {', '.join(plan.tune.start)}; name each corpus once")
    if plan.ladder and BASE_SIZE in plan.ladder.sizes:
        raise ValueError(f"ladder.sizes: {BASE_SIZE!r} is the name of the plan's own size")
    for name, arm in plan.arms.items():
        _check_known(f"arms: {name}: against", arm.against, arms - {name})
    for name, choice in plan.choices.items():
        for candidate in choice.among:
            _check_known(f"choices: {name}: among", candidate, arms)
            _check_baseline(plan, candidate)
        _check_known(f"choices: {name}: corpus", choice.corpus, set(plan.corpora))
    for claim in plan.claims:
        if claim.first == claim.second:
            raise ValueError(f"claims: {claim.first!r} is compared with itself; name two arms")
        for name in claim.names:
            _check_known("claims", name, arms | choices)
            if claim.gaps or claim.second is None:
                _check_baseline(plan, name)
        for corpus in claim.corpora or ():
            _check_known("claims: corpora", corpus, set(plan.corpora))
    for name in plan.ladder.arms if plan.ladder else ():
        _check_known("ladder: arms", name, arms | choices)
        _check_baseline(plan, name)
    for name in plan.ladder.corpora if plan.ladder else ():
        _check_known("ladder: corpora", name, set(plan.corpora))


def _check_known(where: str, name: str | None, names: set[str]) -> None:
    if name is not None and name not in names:
        raise ValueError(f"{where}: {name!r} is not declared; known: {', '.join(sorted(names))}")


def _check_baseline(plan: Plan, name: str) -> None:
    """Raise ValueError for an arm without a baseline; the candidates of a choice have one."""
    if name in plan.arms and plan.arms[name].against is None:
        raise ValueError(f"arm {name!r} is judged but has no baseline; add `against: <arm>`")


def plans_folder() -> Path:
    """Return the folder of the plans."""
    return config.PARAMS / "studies"


def study_names() -> list[str]:
    """Return the names of all plans."""
    return sorted(path.stem for path in plans_folder().glob("*.yaml"))


def read_plan(name: str) -> Plan:
    """Read and check params/studies/<name>.yaml.

    Raises:
        UserError: No such plan, a mistake in it, or arms whose settings do not make an experiment.
    """
    path = plans_folder() / f"{name}.yaml"
    if name not in study_names():
        raise UserError(
            f"no study {name!r}; known: {', '.join(study_names()) or 'none'}; declare one as"
            f" params/studies/{name}.yaml ({GUIDE})"
        )
    return parse_plan(config.read_yaml(path, GUIDE), f"params/studies/{name}.yaml")


def parse_plan(plain: dict[str, Any], where: str) -> Plan:
    """Validate the mapping of a plan; `where` names its source in errors. Raises UserError."""
    plan = config.validated(Plan, plain, where, GUIDE)
    try:
        _check_arms(plan)
    except UserError as error:
        raise UserError(f"{where}: {error}") from None
    return plan


def _check_arms(plan: Plan) -> None:
    """Raise UserError for an arm that is no experiment, or equal arms, or a share too large."""
    runs: dict[str, str] = {}
    for size in plan.sizes:
        for name in plan.arms:
            cell = Cell(plan.corpora[0], size, name)
            cfg = plan.config(cell)
            other = runs.setdefault(sha256_json(cfg.science), f"{name} ({size})")
            if other != f"{name} ({size})":
                raise UserError(f"{other} and {name} ({size}) are the same runs; delete one")
            if cfg.freeze_problem:
                raise UserError(f"{name} ({size}): {cfg.freeze_problem}; lower it")
            _check_lowest_rate(plan, size, name, cfg.optim.min_learning_rate)
    _check_shares(plan)
    _check_ladder(plan)


def _check_lowest_rate(plan: Plan, size: str, arm: str, end: float) -> None:
    """Raise UserError where the cosine of a tuning run would end above the rate it begins at."""
    lowest = min(plan.lowest_rate(Cell(corpus, size, arm)) for corpus in plan.corpora)
    if end > lowest:
        raise UserError(
            f"{arm} ({size}): optim.min_learning_rate = {end:g} is above {lowest:g}, the lowest"
            " learning rate that its tuning may try; lower it, or tune.most_rates"
        )


def _check_ladder(plan: Plan) -> None:
    """Raise UserError where all sizes of the ladder have equally many parameters."""
    if plan.ladder is None:
        return
    arm = next(iter(plan.arms))
    cells = [Cell(plan.corpora[0], size, arm) for size in plan.sizes]
    counts = {parameter_counts(plan.config(cell).model)["total"] for cell in cells}
    if len(counts) == 1:
        raise UserError(
            f"ladder.sizes: all models have {counts.pop():,} parameters; change model.d_model or"
            " model.num_layers of one"
        )


def _check_shares(plan: Plan) -> None:
    """Raise UserError for a choice without a candidate, and for a claim's arm with a large share.

    A choice may mean each of its candidates.
    """
    for name, choice in plan.choices.items():
        if not plan.candidates(name):
            raise UserError(
                f"choices: {name}: every candidate trains a larger share of the Q/K weights than"
                f" trained_share = {choice.trained_share:.2%}; raise it or leave it out"
            )
    for claim in [claim for claim in plan.claims if claim.trained_share is not None]:
        for arm in [arm for name in claim.subjects for arm in plan.candidates(name)]:
            share = plan.trained_share(arm)
            if share > claim.trained_share:
                raise UserError(
                    f"{arm!r} trains {share:.2%} of the Q/K weights of the models of this study,"
                    f" more than trained_share = {claim.trained_share:.2%} of a claim about"
                    f" {claim.first!r}; train less or raise it"
                )
