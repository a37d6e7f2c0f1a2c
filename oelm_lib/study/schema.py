"""Sections of a study's plan: arms, tuning, confirmation, claims, choices, sizes."""

from typing import Annotated, Any, Literal

from pydantic import AfterValidator, BeforeValidator, Field, model_validator

from oelm_lib.config import Flag, Real, Section, Whole

MIN_SEEDS, MOST_SEEDS = 2, 10_000
WORDING = {"about", "headline"}
"""Fields that say how the page reads; they may change at any time."""
OWN_KEYS = {
    "optim.learning_rate": "tuning finds it; start it with tune.start and rate_factor",
    "data.corpus": "the runs of a study read its `corpora`; name it there",
    "machine.device": "it is the CPU, or with `oelm study NAME --gpus` a GPU; leave it out",
    "machine.devices": "each run has one process; leave it out",
    "machine.threads": "each run has one thread; choose the number of runs with --workers",
}
"""Key that the study gives to every run itself -> where its value comes from."""


def _as_list(value: Any) -> Any:
    """Return a single value as a list of one; lists and tuples as they are."""
    return value if isinstance(value, list | tuple) else [value]


def _refuse_own_keys(settings: dict[str, Any]) -> dict[str, Any]:
    """Refuse a setting that the study would replace."""
    for key in settings:
        if key in OWN_KEYS:
            raise ValueError(f"{key} cannot be set: {OWN_KEYS[key]}")
    return settings


def _refuse_repeats(seeds: tuple[int, ...]) -> tuple[int, ...]:
    """Refuse a seed that is named twice: its one run would count as two."""
    for seed in seeds:
        if seeds.count(seed) > 1:
            raise ValueError(f"seed {seed} is named {seeds.count(seed)} times; name each seed once")
    return seeds


def substance(part: Section) -> dict[str, Any]:
    """Return what a part of a plan trains or judges: all of its fields but those of WORDING."""
    return part.model_dump(exclude=WORDING)


Positive = Annotated[Real, Field(gt=0)]
Share = Annotated[Real, Field(gt=0, lt=1)]
Limits = Annotated[tuple[Positive, ...], BeforeValidator(_as_list), Field(min_length=1)]
Names = Annotated[tuple[str, ...], Field(min_length=1)]
SeedCount = Annotated[int, Field(strict=True, ge=MIN_SEEDS, le=MOST_SEEDS)]
Settings = Annotated[dict[str, Any], AfterValidator(_refuse_own_keys)]


class Arm(Section):
    set: Settings = Field(default={})
    """What the arm changes in the base, by dotted key."""
    against: str | None = None
    """The arm that it is judged against: its baseline."""
    about: str = ""
    """What the arm is, in words for a reader who does not know the project."""
    rate_factor: Positive = 1.0
    """Its tuning starts at this multiple of the plan's first rate."""


class Tune(Section):
    seeds: Annotated[
        tuple[Whole, ...], Field(min_length=MIN_SEEDS), AfterValidator(_refuse_repeats)
    ]
    """Seeds of every tuning run; none may be used in confirmation."""
    start: Positive | dict[str, Positive]
    """First learning rate, for all corpora or by corpus; then start / factor and start * factor."""
    factor: Annotated[Real, Field(gt=1)] = 1.414
    """Ratio of neighbouring learning rates."""
    error: Positive = 0.003
    """Largest loss, in nats, that the uncertainty of the fitted rate may cost."""
    most_rates: Annotated[int, Field(strict=True, ge=3)] = 8
    """Rates tried in a cell, at most."""


class ConfirmSeeds(Section):
    first: Annotated[Whole, Field(alias="from")]
    """First seed; the others follow it."""
    count: SeedCount
    """Seeds of a claim that names no number of its own."""


class Confirm(Section):
    seeds: ConfirmSeeds
    split: Literal["test", "val"] = "test"
    """Split that the claims are about."""

    @property
    def text(self) -> str:
        """The split in words."""
        return {"test": "test", "val": "validation"}[self.split]


class Claim(Section):
    """A claim about one pair of arms: `arm` against its baseline, or two arms that are `equal`."""

    arm: str | None = None
    """An arm or a choice, judged against its baseline."""
    against: str | None = None
    """Another baseline than the arm's own."""
    at_most: Limits | None = None
    """Gaps, e.g. 0.05: the arm's perplexity is at most 1.05 x its baseline's.

    Several limits are judged by the same interval.
    """
    equal: tuple[str, str] | None = None
    """Two arms whose perplexities are claimed to be equal."""
    within: Share | None = None
    """Margin of `equal`, e.g. 0.01."""
    gaps: Flag = False
    """Whether `equal` compares the arms' gaps, each to its own baseline, and not their losses."""
    seeds: SeedCount | None = None
    """Number of seeds, in place of the plan's."""
    corpora: Names | None = None
    """Corpora, in place of the plan's."""
    family: str = "main"
    """Comparisons of one family on one corpus share the error rate."""
    trained_share: Share | None = None
    """Largest share of the Q/K weights that a judged arm may train, in the models that are run."""
    headline: Flag = False
    """Whether the page's sentences and first table are about it (no claim has it: about all)."""

    @model_validator(mode="after")
    def _check(self):
        if (self.arm is None) == (self.equal is None):
            raise ValueError("a claim names either `arm` or `equal`")
        if self.arm is not None and self.at_most is None:
            raise ValueError(f"the claim about {self.arm!r} has no `at_most`, e.g. at_most: 0.05")
        if self.gaps and self.equal is None:
            raise ValueError("`gaps` belongs to `equal`, e.g. equal: [a, b], gaps: true")
        if self.equal is not None and (self.within is None or self.at_most):
            raise ValueError("a claim `equal` has `within`, e.g. within: 0.01, and no `at_most`")
        if self.equal is not None and self.against is not None:
            raise ValueError("`against` belongs to `arm`; a claim `equal` names both of its arms")
        if self.arm is not None and self.within is not None:
            raise ValueError("`within` belongs to `equal`, e.g. equal: [a, b], within: 0.01")
        return self

    @property
    def first(self) -> str:
        """The arm or choice whose perplexity or gap is judged."""
        return self.equal[0] if self.equal else self.arm

    @property
    def second(self) -> str | None:
        """The arm or choice that the first is compared with; None: the first one's baseline."""
        return self.equal[1] if self.equal else self.against

    @property
    def names(self) -> tuple[str, ...]:
        """The arms and choices that the claim names."""
        return tuple(name for name in (self.first, self.second) if name is not None)

    @property
    def subjects(self) -> tuple[str, ...]:
        """The arms or choices that the claim is about: `arm`, or both of `equal`."""
        return self.equal or (self.arm,)

    @property
    def bounds(self) -> tuple[float, ...]:
        """The limits of `at_most`, or the margin of `equal`."""
        return (self.within,) if self.equal else self.at_most

    @property
    def question(self) -> "Claim":
        """The claim without its seeds and corpora, which claims of one question may differ in."""
        return self.model_copy(update={"seeds": None, "corpora": None, "headline": False})


class Choice(Section):
    """An arm that tuning chooses: the one with the smallest tuned gap to its own baseline."""

    among: Names
    """Candidates; each needs `against`."""
    corpus: str
    """Corpus on which it is chosen."""
    trained_share: Share | None = None
    """Candidates that train a larger share of the Q/K weights are left out."""
    about: str = ""


class Size(Section):
    set: Settings
    """What the size changes in the base, by dotted key."""
    rate_factor: Positive = 1.0
    """Its tuning starts at this multiple of the plan's first rate."""
    left_out: str = ""
    """Why the size is not run, for the page; allowed while no run has confirmed it."""


class Ladder(Section):
    sizes: dict[str, Size]
    """Sizes beside that of the base, by name."""
    arms: Names
    """Arms or choices, each with its baseline."""
    corpora: Names
    seeds: SeedCount
    flat: Share
    """Change of the gap per decade of parameters that counts as none."""

    @model_validator(mode="after")
    def _check(self):
        if not self.run_sizes:
            raise ValueError("every size is left out; run one, or delete the ladder")
        return self

    @property
    def run_sizes(self) -> dict[str, Size]:
        """The sizes that are not left out."""
        return {name: size for name, size in self.sizes.items() if not size.left_out}
