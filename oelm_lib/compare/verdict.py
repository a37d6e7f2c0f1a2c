"""The verdict of each arm: paired interval, criterion, and what they say in words."""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pandas as pd

from oelm_lib import stats
from oelm_lib.arms import frozen_words
from oelm_lib.compare.pairs import METRIC, Pair, families
from oelm_lib.config import extra_changes
from oelm_lib.runs.documents import read_documents
from oelm_lib.runs.frames import RECORDED
from oelm_lib.runs.reading import read_or_none
from oelm_lib.units import perplexity
from oelm_lib.view.tables import gap_text, percent, seeds_text

CRITERION = 0.05
"""Largest gap that an arm may have: the log's criterion."""
MARGIN = 0.01
"""Arms whose gap lies within +-MARGIN are called equal."""
NOT_COMPARED = "NOT COMPARED"
CONFOUNDED = "CONFOUNDED"
"""Replaces PASS where a frozen arm also has an addition that its baseline lacks."""


@dataclass(frozen=True)
class Verdict:
    """One arm judged against its baseline; losses in nats, gaps as perplexity ratios minus 1.

    Attributes:
        low, high: Bounds of the gap at `confidence`, over the `arms` comparisons of the baseline.
        n: Seeds with which both have a loss; `failed`: with which one diverged or failed.
        sd: Standard deviation of the paired differences.
        document_error: Standard error of `nats` over documents; `documents_included`: the interval
            holds it, since it is as large as the error over seeds.
        equal: Claim "equal within +-MARGIN": YES, NO, NOT SHOWN, ...
        power: How many seeds would decide an INCONCLUSIVE verdict.
        frozen: What the arm freezes, in words.
        confounds: Keys that differ beside the freeze and have no counterpart in the baseline.
        pair: The runs that are compared.
    """

    corpus: str
    arm: str
    id: str
    source: str
    baseline: str | None
    verdict: str
    gap: float
    low: float
    high: float
    nats: float
    n: int
    perplexity: float
    baseline_perplexity: float
    equal: str
    power: str
    sd: float
    failed: int
    confidence: float
    arms: int
    document_error: float
    documents_included: bool
    epochs: float
    variant: str
    reason: str
    frozen: str
    confounds: list[str]
    pair: Pair

    @property
    def words(self) -> str:
        """The verdict in words; the arm is their subject."""
        if self.verdict == NOT_COMPARED:
            return f"is not compared: {self.reason}."
        if self.failed:
            total = self.n + self.failed
            seen = f"; the other seeds show a gap of {percent(self.gap, 1)}" if self.n else ""
            return (
                f"is unstable: {self.failed} of {_seeds(total)} diverged or failed, in the arm or"
                f" in its baseline{seen}."
            )
        if self.verdict == stats.UNKNOWN:
            which = " (best of its evaluations)" if self.source == RECORDED else ""
            return (
                f"changes perplexity by {percent(self.gap, 1)} with one seed{which}; one seed has"
                " no interval, so this may be noise."
            )
        head = f"changes perplexity by {gap_text(self.gap, self.low, self.high)}"
        limit = f"{100 * CRITERION:g} %"
        if self.verdict == stats.FAIL:
            return f"{head}; the whole interval is above {limit}."
        if self.verdict == stats.INCONCLUSIVE:
            open_words = f"{_seeds(self.n)} cannot decide whether that is above {limit}"
            return f"{head}; {open_words}; {self.power}."
        equal = f", and within ±{100 * MARGIN:g} %" if self.equal == stats.YES else ""
        if self.verdict == CONFOUNDED:
            return (
                f"{head}; the whole interval is below {limit}, but the arm also differs in"
                f" {', '.join(self.confounds)}: judge it against a baseline that has the same."
            )
        return f"{head}; the whole interval is below {limit}{equal}."

    @property
    def details(self) -> str:
        """How it was reached: interval, nats, documents; "" where nothing is paired."""
        parts = []
        if self.n > 1:
            over = "seeds and documents" if self.documents_included else "seeds"
            joint = f", jointly for the {self.arms} arms of this baseline" if self.arms > 1 else ""
            parts.append(f"95 % interval over {over}{joint}")
        if self.n:
            parts.append(f"difference in loss {self.nats:+.4f} nats per token")
        if math.isfinite(self.document_error):
            parts.append(f"its standard error over documents {self.document_error:.4f} nats")
        return "; ".join(parts)


def judge(runs: pd.DataFrame, baseline: str | None = None) -> list[Verdict]:
    """Judge every arm against its baseline.

    The claim is "the gap is at most CRITERION". Intervals are Student's t over paired seeds, at
    95 % jointly for the arms of one baseline (Bonferroni); see `stats`.

    Args:
        runs: Frame of load_runs.
        baseline: Experiment id or run folder; default each experiment's compare_to.
    """
    judged = []
    for family in families(runs, baseline):
        differences = [pair.differences() for pair in family]
        arms = max(sum(len(nats) > 1 for nats in differences), 1)
        judged += [_judge(*both, arms) for both in zip(family, differences, strict=True)]
    return judged


def verdicts(runs: pd.DataFrame, baseline: str | None = None) -> pd.DataFrame:
    """Return `judge` as a frame, one row an arm.

    Args:
        runs, baseline: Arguments of judge.

    Returns:
        A frame. Among its columns: `arm id baseline corpus n verdict`; `gap` and its bounds `low`
        and `high` as perplexity ratios minus 1 (0.05 is +5 %); `perplexity`,
        `baseline_perplexity`; `nats`, the difference in loss; `words`, the verdict as a sentence.
    """
    return _frame(judge(runs, baseline))


def cross_corpus(judged: Sequence[Verdict]) -> pd.DataFrame:
    """Return each arm's gap on every corpus; `epochs` says how often the corpus was seen.

    Args:
        judged: What judge returns.
    """
    columns = ["arm", "corpus", "id", "epochs", "baseline_perplexity", "perplexity", "nats", "gap"]
    table = _frame(judged)[[*columns, "low", "high", "n", "verdict", "source"]]
    return table.sort_values(["source", "arm"], kind="stable", ignore_index=True)


def _frame(judged: Sequence[Verdict]) -> pd.DataFrame:
    rows = [vars(one) | {"words": one.words} for one in judged]
    fields = [name for name in Verdict.__annotations__ if name != "pair"]
    return pd.DataFrame(rows, columns=[*fields, "words"])


def _judge(pair: Pair, differences: list[float], arms: int) -> Verdict:
    arm, base = pair.shared()
    documents = [[_documents(path) for path in runs["path"]] for runs in (arm, base)]
    error = stats.document_error(list(zip(*documents, strict=True)))
    interval = stats.with_document_error(stats.paired_interval(differences, arms), error)
    confounds = (
        []
        if pair.base is None
        else extra_changes(pair.arm.iloc[0]["experiment"], pair.base.iloc[0]["experiment"])
    )
    judged = stats.at_most(interval, CRITERION) if differences else NOT_COMPARED
    first = pair.arm.iloc[0]
    return Verdict(
        corpus=first["corpus"],
        arm=first["arm"],
        id=pair.arm_name,
        source=first["source"],
        baseline=pair.base_name,
        verdict=CONFOUNDED if judged == stats.PASS and confounds else judged,
        gap=interval.gap,
        low=interval.gap_low,
        high=interval.gap_high,
        nats=interval.mean,
        n=interval.n,
        perplexity=perplexity(arm[METRIC].mean()),
        baseline_perplexity=perplexity(base[METRIC].mean()),
        equal=stats.equal_within(interval, MARGIN) if differences else "",
        power=seeds_text(interval, stats.bounds_at_most(CRITERION)),
        sd=interval.sd,
        failed=interval.failed,
        confidence=interval.confidence,
        arms=arms,
        document_error=interval.document_error,
        documents_included=interval.includes_documents,
        epochs=pair.arm["epochs"].mean(),
        variant=first["variant"],
        reason=pair.reason or ("" if differences else "no seed has ended in both arms"),
        frozen=frozen_words(first["experiment"].model),
        confounds=confounds,
        pair=pair,
    )


def _documents(path: Any) -> dict[str, Any]:
    """Return read_documents of a run; {} where there are none, as of a recorded run."""
    documents = read_or_none(read_documents, path) if isinstance(path, Path) else None
    return documents or {}


def _seeds(count: int) -> str:
    words = ("no seeds", "one seed", "two seeds", "three seeds", "four seeds", "five seeds")
    return words[count] if count < len(words) else f"{count} seeds"
