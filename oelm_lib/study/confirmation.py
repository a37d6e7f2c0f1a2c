"""Stage 2 of the study in tables: fresh seeds, test text, intervals and verdicts; losses in nats."""

import math

import numpy as np
import pandas as pd

from oelm_lib import stats as statistics
from oelm_lib.stats import CRITERION, gap
from oelm_lib.study import exploration, study

STRICT = 1 + statistics.MARGIN
"""The second criterion: perplexity within 1 % of the baseline's."""
LIMITS = (0.01, 0.10)
"""Trained shares of the Q/K path within which the best arm is named."""
ORTHOGONAL, GAUSSIAN, LOG_SCALE = "orthogonal", "Gaussian", "Gaussian at the log's scale"
PAIRS = ((ORTHOGONAL, GAUSSIAN), (LOG_SCALE, GAUSSIAN), ("T5 bias", "T5 bias, scale 0.001"))
"""Frozen arms that differ in one thing: the rows' orthogonality, their scale, the content beside a bias."""
NOT_SHOWN = "not shown"


def confirmed(runs: pd.DataFrame) -> pd.DataFrame:
    """Stage 2, one row an arm and corpus: paired differences of test loss, intervals adjusted by Holm.

    Each arm is judged against the better, on validation, of the plain baseline and the baseline with its addition, by
    one interval: the widest that Holm asks for over its verdicts (5 %, 1 %, equivalence).
    """
    rows = []
    for _, found in study.of_stage(runs, "stage2").groupby("corpus", sort=False):
        bases = {study.PLAIN, *found["baseline"]}
        pairs = [
            (mine, _judge(found, mine))
            for arm, mine in found.groupby("arm", sort=False)
            if arm not in bases
        ]
        nats = [study.nats(*pair) for pair in pairs]
        p_values = [
            [statistics.p_value(d, math.log(limit)) for d in nats] for limit in (CRITERION, STRICT)
        ]
        p_values.append([statistics.equivalence_p(d) for d in nats])
        levels = zip(*(statistics.holm(values) for values in p_values), strict=True)
        for (mine, judge), differences, level in zip(pairs, nats, levels, strict=True):
            interval = statistics.interval_at(differences, max(level))
            row = dict(mine.iloc[0][["corpus", "arm"]]) | study.shares(mine.iloc[0]["model"])
            row |= {
                "gap": gap(interval.mean),
                "low": gap(interval.low),
                "high": gap(interval.high),
                "n": interval.n,
            }
            row |= {
                "within_5_%": statistics.verdict(interval),
                "within_1_%": statistics.verdict(interval, STRICT),
            }
            row["judged_against"] = judge["arm"].iloc[0] if len(judge) else "none yet"
            row |= {
                "equivalent": _within(interval),
                "confidence": interval.confidence,
                "nats": interval.mean,
            }
            row["document_error"] = _document_error(mine, judge)
            for column, name in (
                ("gap_to_plain", study.PLAIN),
                ("gap_to_own", mine.iloc[0]["baseline"]),
            ):
                row[column] = gap(study.nats(mine, found[found["arm"] == name]).mean())
            rows.append(row)
    return pd.DataFrame(rows)


def contrasts(runs: pd.DataFrame) -> pd.DataFrame:
    """Stage 2, one row for each of PAIRS and corpus; unadjusted 95 % intervals, exploratory.

    `within_1_%` is yes only where the whole interval lies within it, and no only where all of it lies outside;
    `seeds_for_1_%`: with how many the difference, were it 0, would lie within it 95 times in 100.
    """
    rows = []
    for corpus, found in study.of_stage(runs, "stage2").groupby("corpus", sort=False):
        for pair in PAIRS:
            if set(pair) <= set(found["arm"]):
                sides = [found[found["arm"] == name] for name in pair]
                nats = study.nats(*sides)
                interval = statistics.paired_interval(nats)
                row = {
                    "corpus": corpus,
                    "arm": pair[0],
                    "against": pair[1],
                    "gap": gap(interval.mean),
                }
                row |= {
                    "low": gap(interval.low),
                    "high": gap(interval.high),
                    "n": interval.n,
                    "nats": interval.mean,
                }
                row |= {"within_1_%": _within(interval), "document_error": _document_error(*sides)}
                row |= {"p": statistics.p_value(nats)}
                rows.append(
                    row
                    | {
                        "seeds_for_1_%": statistics.seeds_for(
                            nats, math.log1p(statistics.MARGIN) / 2
                        )
                    }
                )
    return pd.DataFrame(rows)


def best(runs: pd.DataFrame) -> pd.DataFrame:
    """The arm with the least gap among those that train at most 1 % and at most 10 % of the Q/K path (at Medium-512).

    Chosen by stage 1 on its first corpus, where all arms were tried; its verdicts are those of stage 2 where it was
    confirmed. A wider FFN is a control.
    """
    first, second = exploration.explored(runs), confirmed(runs)
    if len(first):
        begun, widths = runs.iloc[0], {run.arm: run.model.d_ff for run in runs.itertuples()}
        first = first[
            (first["corpus"] == begun["corpus"]) & (first["arm"].map(widths) == begun["model"].d_ff)
        ]
    rows = []
    for limit in LIMITS if len(first) else ():
        arms = [arm for arm in first["arm"] if len(second) and arm in set(second["arm"])]
        fits = first[
            (first["trained_at_medium"] <= limit) & (first["arm"].isin(arms) if arms else True)
        ]
        for row in fits.nsmallest(1, "gap").to_dict("records"):
            kept = {
                key: row[key] for key in ("arm", "trained_at_medium", "trained_here", "gap", "n")
            }
            rows.append({"within": limit, "stage": "exploratory", "corpus": row["corpus"]} | kept)
            for judged in (
                second[second["arm"] == row["arm"]].to_dict("records") if len(second) else ()
            ):
                keys = "corpus arm trained_at_medium trained_here gap low high n within_5_% within_1_%".split()
                rows.append(
                    {"within": limit, "stage": "confirmed"} | {key: judged[key] for key in keys}
                )
    return pd.DataFrame(rows)


def hypotheses(runs: pd.DataFrame) -> pd.DataFrame:
    """What became of the plan's hypotheses, one row for each part, arm and corpus, with the gap that speaks to it.

    The first is told by `contrasts`, the second by `best`, at the levels there. What stage 1 alone has tried is for or
    against it, by one seed.
    """
    starts, named, first = contrasts(runs), best(runs), exploration.explored(runs)
    models, told = {run.arm: run.model for run in runs.itertuples()}, []
    for row in starts.to_dict("records") if len(starts) else ():
        if row["arm"] == ORTHOGONAL:
            told.append(
                (
                    "1, orthogonality",
                    row,
                    {"yes": "holds", "no": "does not hold"}.get(row["within_1_%"]),
                )
            )
        elif row["arm"] == LOG_SCALE:
            told.append(
                ("1, scale", row, {"no": "holds", "yes": "does not hold"}.get(row["within_1_%"]))
            )
    for row in named.to_dict("records") if len(named) else ():
        if (row["within"], row["stage"]) == (LIMITS[1], "confirmed"):
            words = {statistics.PASS: "holds", statistics.FAIL: "not by this arm"}
            told.append(("2, at most 10 %", row, words.get(row["within_5_%"])))
    for row in first.to_dict("records") if len(first) else ():
        model = models[row["arm"]]
        if model.position == "rope" and row["trained_at_medium"] <= LIMITS[0]:
            told.append(("2, at most 1 %, rotary", row, _one_seed(row["gap"], CRITERION)))
        elif model.freeze_q and not model.freeze_k:
            told.append(("3, K trained", row, _one_seed(row["gap"], STRICT)))
    rows = [
        {"against": "its baseline"} | row | {"hypothesis": name, "verdict": verdict or NOT_SHOWN}
        for name, row, verdict in sorted(told, key=lambda item: item[0])
    ]
    columns = "hypothesis verdict corpus arm against gap low high n trained_at_medium trained_here".split()
    return pd.DataFrame(rows, columns=columns)


def _one_seed(found: float, criterion: float) -> str:
    if math.isnan(found):
        return "not known yet"
    return f"{'for' if found <= criterion - 1 else 'against'} it, one seed"


def losses(runs: pd.DataFrame) -> pd.DataFrame:
    """Stage 2, one row an arm and corpus, baselines too: rate, perplexity on test text and how steady the seeds are.

    `spread` is the standard deviation of test loss over seeds, `largest_logit_std` the largest of any seed's last
    weights (mean over heads): one far above the others' tells of a run near the edge of stability.
    """
    rows = []
    for (corpus, arm), mine in study.of_stage(runs, "stage2").groupby(
        ["corpus", "arm"], sort=False
    ):
        loss, probes = (
            mine["final_test_loss"].astype(float),
            mine.get("probes", pd.Series(dtype=object)).dropna(),
        )
        row = {
            "corpus": corpus,
            "arm": arm,
            "learning_rate": mine["learning_rate"].iloc[0],
            "n": len(mine),
        }
        row |= {"perplexity": math.exp(loss.mean()), "spread": loss.std(ddof=1)}
        row |= {
            "largest_logit_std": max((found["logit_std"] for found in probes), default=math.nan)
        }
        rows.append(row | {"trainable_parameters": mine["parameters"].iloc[0].get("trainable")})
    return (
        pd.DataFrame(rows).sort_values(["corpus", "perplexity"], ignore_index=True)
        if rows
        else pd.DataFrame()
    )


def _within(interval: statistics.Interval) -> str:
    """Whether perplexity is the same within 1 %: yes, no, or not shown where the interval crosses a bound."""
    if statistics.equivalence(interval):
        return "yes"
    outside = interval.low > math.log1p(statistics.MARGIN) or interval.high < math.log1p(
        -statistics.MARGIN
    )
    return "no" if outside else NOT_SHOWN


def _judge(found: pd.DataFrame, mine: pd.DataFrame) -> pd.DataFrame:
    """The runs of the better baseline on validation, by the arm's seeds; none until both have been run."""
    shared = found[found["seed"].isin(mine["seed"])]
    bases = [
        shared[shared["arm"] == name]
        for name in dict.fromkeys((study.PLAIN, mine.iloc[0]["baseline"]))
    ]
    if not all(map(len, bases)):
        return mine[:0]
    return min(bases, key=lambda runs: runs["final_val_loss"].mean())


def _document_error(mine: pd.DataFrame, other: pd.DataFrame) -> float:
    """Bootstrap standard error of the difference over test documents, in nats per token."""
    sides = study.paired(mine, other)
    documents = [[run["nats"] for run in side.get("test_documents", [])] for side in sides]
    if not documents[0]:
        return math.nan
    nats = np.mean(documents[0], axis=0) - np.mean(documents[1], axis=0)
    return statistics.bootstrap_documents(
        nats, np.array(sides[0]["test_documents"].iloc[0]["tokens"])
    )
