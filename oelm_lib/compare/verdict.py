"""The verdict of each arm: paired interval, limit, and what they say in words."""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from operator import attrgetter
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
from oelm_lib.stats import Interval
from oelm_lib.units import counted, perplexity
from oelm_lib.view.gaps import interval_text, percent, seeds_text

LIMIT = 0.05
"""Largest gap that an arm may have: the limit of the log."""
MARGIN = 0.01
"""Arms whose gap lies within +-MARGIN are called equal."""
NOT_COMPARED = "NOT COMPARED"
CONFOUNDED = "CONFOUNDED"
"""Replaces PASS where a frozen arm also has an addition that its baseline lacks."""


@dataclass(frozen=True)
class Verdict:
    """One arm judged against its baseline.

    Attributes:
        pair: The runs that are compared.
        interval: Over the seeds that both share, at 95 % jointly for the `k` arms of the baseline.
        reason: Why the arm is not compared.
        confounds: Differences beside the freeze that have no counterpart in the baseline, one text
            for each key.
    """

    pair: Pair
    interval: Interval
    corpus: str
    arm: str
    id: str
    source: str
    variant: str
    baseline: str | None
    verdict: str
    reason: str
    confounds: list[str]

    @property
    def equal(self) -> str:
        """Verdict on "equal within +-MARGIN": YES, NO, NOT SHOWN, ..."""
        is_compared = self.verdict != NOT_COMPARED
        return stats.equal_within(self.interval, MARGIN) if is_compared else ""

    @property
    def perplexity(self) -> float:
        """Of the arm, at its mean loss over the shared seeds."""
        return perplexity(self.pair.shared()[0][METRIC].mean())

    @property
    def baseline_perplexity(self) -> float:
        """The same of the baseline."""
        return perplexity(self.pair.shared()[1][METRIC].mean())

    @property
    def epochs(self) -> float:
        """How often the arm saw its corpus, mean over its runs."""
        return self.pair.arm["epochs"].mean()

    @cached_property
    def to_decide(self) -> str:
        """What would decide an INCONCLUSIVE verdict: how many seeds, or more documents."""
        return seeds_text(self.interval, stats.bounds_at_most(LIMIT))

    @property
    def frozen(self) -> str:
        """What the arm freezes, in words."""
        return frozen_words(self.pair.arm.iloc[0]["experiment"].model)

    @property
    def words(self) -> str:
        """The verdict in words; the arm is their subject."""
        interval, gap = self.interval, percent(self.interval.gap, 1)
        if self.verdict == NOT_COMPARED:
            return f"is not compared: {self.reason}."
        if interval.failed:
            seen = f"; the other seeds show a gap of {gap}" if interval.n else ""
            seeds = counted(interval.pairs, "seed")
            return (
                f"is unstable: {interval.failed} of {seeds} diverged or failed, in the arm or in"
                f" its baseline{seen}."
            )
        if self.verdict == stats.UNKNOWN:
            which = " (best of its evaluations)" if self.source == RECORDED else ""
            return (
                f"changes perplexity by {gap} with one seed{which}; one seed has no interval, so"
                " this may be noise."
            )
        head = f"changes perplexity by {interval_text(interval)}"
        limit = f"{100 * LIMIT:g} %"
        if self.verdict == stats.FAIL:
            return f"{head}; the whole interval is above {limit}."
        if self.verdict == stats.INCONCLUSIVE:
            open_words = f"cannot decide whether that is above {limit}; {self.to_decide}."
            return f"{head}; {counted(interval.n, 'seed')} {open_words}"
        below = f"{head}; the whole interval is below {limit}"
        if self.verdict == CONFOUNDED:
            return (
                f"{below}, but the arm also differs in {', '.join(self.confounds)}:"
                " judge it against a baseline that has the same."
            )
        return f"{below}{f', and within ±{100 * MARGIN:g} %' if self.equal == stats.YES else ''}."

    @property
    def details(self) -> str:
        """How it was reached: interval, nats, documents; "" where nothing is paired."""
        parts, interval = [], self.interval
        if interval.n > 1:
            over = "seeds and documents" if interval.includes_documents else "seeds"
            joint = f", jointly for the {interval.k} arms of this baseline"
            parts.append(f"95 % interval over {over}{joint if interval.k > 1 else ''}")
        if interval.n:
            parts.append(f"difference in loss {interval.mean:+.4f} nats per token")
        if math.isfinite(interval.document_error):
            parts.append(f"its standard error over documents {interval.document_error:.4f} nats")
        return "; ".join(parts)

    def row(self) -> dict[str, Any]:
        """Return the verdict as a row of `verdicts`."""
        return {column: attrgetter(name)(self) for column, name in COLUMNS.items()}


COLUMNS = {
    "corpus": "corpus",
    "arm": "arm",
    "id": "id",
    "source": "source",
    "baseline": "baseline",
    "verdict": "verdict",
    "gap": "interval.gap",
    "low": "interval.gap_low",
    "high": "interval.gap_high",
    "nats": "interval.mean",
    "n": "interval.n",
    "perplexity": "perplexity",
    "baseline_perplexity": "baseline_perplexity",
    "equal": "equal",
    "to_decide": "to_decide",
    "sd": "interval.sd",
    "failed": "interval.failed",
    "confidence": "interval.confidence",
    "arms": "interval.k",
    "document_error": "interval.document_error",
    "documents_included": "interval.includes_documents",
    "epochs": "epochs",
    "variant": "variant",
    "reason": "reason",
    "frozen": "frozen",
    "confounds": "confounds",
    "words": "words",
}
"""Column of `verdicts` -> attribute of a Verdict."""


def judge(runs: pd.DataFrame, baseline: str | None = None) -> list[Verdict]:
    """Judge every arm against its baseline.

    The claim is "the gap is at most LIMIT". Intervals are Student's t over paired seeds, at
    95 % jointly for the arms of one baseline (Bonferroni); see `stats`.

    Args:
        runs: Frame of load_runs.
        baseline: Experiment id or run folder; default each experiment's compare_to.
    """
    verdicts = []
    for family in families(runs, baseline):
        # An arm with one pair has no interval, so it does not widen those of the others.
        k = max(sum(len(pair.differences()) > 1 for pair in family), 1)
        verdicts += [_judge(pair, k) for pair in family]
    return verdicts


def verdicts(runs: pd.DataFrame, baseline: str | None = None) -> pd.DataFrame:
    """Return `judge` as a frame, one row per arm.

    Args:
        runs, baseline: Arguments of judge.

    Returns:
        A frame. Among its columns: `arm id baseline corpus n verdict`; `gap` and its bounds `low`
        and `high` as perplexity ratios minus 1 (0.05 is +5 %); `perplexity`,
        `baseline_perplexity`; `nats`, the difference in loss; `words`, the verdict as a sentence.
    """
    return pd.DataFrame([verdict.row() for verdict in judge(runs, baseline)], columns=list(COLUMNS))


def cross_corpus(verdicts: Sequence[Verdict]) -> pd.DataFrame:
    """Return each arm's gap on every corpus; `epochs` says how often the corpus was seen.

    Args:
        verdicts: What judge returns.
    """
    columns = ["arm", "corpus", "id", "epochs", "baseline_perplexity", "perplexity", "nats", "gap"]
    columns += ["low", "high", "n", "verdict", "source"]
    table = pd.DataFrame([verdict.row() for verdict in verdicts], columns=columns)
    return table.sort_values(["source", "arm"], kind="stable", ignore_index=True)


def _judge(pair: Pair, k: int) -> Verdict:
    """Judge an arm against its baseline; `k`: comparisons in its family."""
    differences = pair.differences()
    documents = [[_documents(path) for path in runs["path"]] for runs in pair.shared()]
    error = stats.document_error(list(zip(*documents, strict=True)))
    interval = stats.with_document_error(stats.paired_interval(differences, k), error)
    first, confounds = pair.arm.iloc[0], []
    if pair.base is not None:
        confounds = extra_changes(first["experiment"], pair.base.iloc[0]["experiment"])
    verdict = stats.at_most(interval, LIMIT) if differences else NOT_COMPARED
    return Verdict(
        pair=pair,
        interval=interval,
        corpus=first["corpus"],
        arm=first["arm"],
        id=pair.arm_id,
        source=first["source"],
        variant=first["variant"],
        baseline=pair.base_id,
        verdict=CONFOUNDED if verdict == stats.PASS and confounds else verdict,
        reason=pair.reason or ("" if differences else "no seed has ended in both arms"),
        confounds=confounds,
    )


def _documents(path: Any) -> dict[str, Any]:
    """Return read_documents of a run; {} where there are none, as of a recorded run."""
    documents = read_or_none(read_documents, path) if isinstance(path, Path) else None
    return documents or {}
