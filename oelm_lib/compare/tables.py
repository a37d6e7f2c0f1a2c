"""The comparison's tables, from the frame of load_runs. A gap always stands beside its base and its n."""

import math
import zipfile
from typing import Any

import numpy as np
import pandas as pd

from oelm_lib import stats as statistics
from oelm_lib.compare.confounds import differences, freeze_proven
from oelm_lib.compare.pairs import Pair, comparable, families, name, pairs
from oelm_lib.config import load_config
from oelm_lib.errors import UserError
from oelm_lib.runs.frames import MEASURED, identity, select
from oelm_lib.runs.frames import load_folders as load_folders
from oelm_lib.runs.frames import load_metrics as load_metrics
from oelm_lib.runs.frames import load_runs as load_runs
from oelm_lib.runs.frames import recorded as recorded
from oelm_lib.runs.metrics import perplexity
from oelm_lib.stats import CRITERION, MARGIN, gap
from oelm_lib.view.tables import BUDGET, percent

METRIC = "final_val_loss"
NO_DATA = "NOT COMPARED"


def matrix(runs: pd.DataFrame, exps: list[str] | str | None = None) -> pd.DataFrame:
    """Every run with its live state, and the experiments of `exps` (ids or globs) that were never run."""
    experiments = [None if isinstance(e, float) else e for e in runs["experiment"]]
    live = runs[
        [
            "id",
            "corpus",
            "arm",
            "seed",
            "max_steps",
            "state",
            "steps",
            "train_loss",
            METRIC,
            "eta_seconds",
        ]
    ]
    live = live.assign(id=[name(run) for run in runs.itertuples()])
    live = live.assign(learning_rate=[e and e.optim.learning_rate for e in experiments])
    live = live.join(runs[["started", "finished", "source", "reason"]])
    absent = [load_config(exp) for exp in select(exps) if exps and exp not in set(live["id"])]
    new = [
        identity(e) | {"learning_rate": e.optim.learning_rate, "state": "not run", "reason": ""}
        for e in absent
    ]
    return pd.DataFrame([*live.to_dict("records"), *new], columns=live.columns)


def verdicts(runs: pd.DataFrame, baseline: str | None = None, metric: str = METRIC) -> pd.DataFrame:
    """Judge every arm against its baseline, one row an arm with its sentence.

    `low` and `high` bound the gap at `confidence`, Holm-adjusted over the arms that share the baseline;
    `document_error` is the bootstrap standard error of `nats` over documents.

    Args:
        baseline: Experiment id or run folder; default each experiment's compare_to.
        metric: final_val_loss, or final_test_loss for studies.
    """
    rows = []
    for members in families(runs, baseline):
        shared = [pair.shared(metric) for pair in members]
        differing = [(arm[metric] - base[metric]).to_numpy(float) for arm, base in shared]
        judged = statistics.holm(
            [statistics.p_value(nats, math.log(CRITERION)) for nats in differing]
        )
        equal = statistics.holm([statistics.equivalence_p(nats) for nats in differing])
        for pair, (arm, base), nats, level, inside in zip(
            members, shared, differing, judged, equal, strict=True
        ):
            interval = statistics.interval_at(nats, level)
            row = _who(pair) | {"perplexity": perplexity(arm[metric].mean())}
            row |= {
                "baseline_perplexity": perplexity(base[metric].mean()),
                **_gap(interval),
                "confidence": level,
            }
            row |= {"arms": sum(len(other) > 1 for other in differing), "seeds": list(arm.index)}
            row |= {
                "document_error": _document_error(
                    arm, base, "test_" if metric == "final_test_loss" else ""
                )
            }
            judgement = statistics.verdict(interval) if len(nats) else NO_DATA
            equivalent = statistics.equivalence(statistics.interval_at(nats, inside))
            row |= {"verdict": judgement, "equivalent": equivalent}
            row |= {"epochs": pair.arm["epochs"].mean(), "variant": pair.arm["variant"].iloc[0]}
            row |= {"reason": pair.reason or ("" if len(nats) else "no seed is done in both")}
            rows.append(row | {"sentence": _sentence(row)})
    return pd.DataFrame(rows)


def _who(pair: Pair) -> dict[str, Any]:
    first = pair.arm.iloc[0]
    row = {
        "corpus": first["corpus"],
        "arm": first["arm"],
        "id": name(first),
        "source": first["source"],
    }
    return row | {"baseline": None if pair.base is None else name(pair.base.iloc[0])}


def _gap(interval: statistics.Interval) -> dict[str, float]:
    row = {"n": interval.n, "nats": interval.mean, "gap": gap(interval.mean)}
    return row | {"low": gap(interval.low), "high": gap(interval.high)}


def _sentence(row: dict[str, Any]) -> str:
    """The verdict card's line."""
    head = f"{row['arm']} ({row['id']}) on {row['corpus']}: "
    if not row["n"]:
        return f"{head}not compared, {row['reason']}"
    holm = f" (Holm over {row['arms']} arms)" if row["arms"] > 1 else ""
    interval = (
        "no interval"
        if row["n"] < 2
        else f"95 % CI {percent(row['low'])} to {percent(row['high'])}{holm}"
    )
    documents = (
        f", SE over documents {row['document_error']:.4f} nats"
        if math.isfinite(row["document_error"])
        else ""
    )
    equivalent = f"; equivalent within {100 * MARGIN:g} %" if row["equivalent"] else ""
    return (
        f"{head}{percent(row['gap'])} perplexity vs {row['baseline']} ({row['nats']:+.4f} nats), {interval}{documents},"
        f" n = {row['n']}, criterion <= {100 * (CRITERION - 1):+g} %: {row['verdict']}{equivalent}"
    )


def _document_error(arm: pd.DataFrame, base: pd.DataFrame, prefix: str) -> float:
    """Bootstrap standard error over documents of the difference averaged over seeds; nan without documents."""
    differing = []
    for first, second in zip(arm["path"], base["path"], strict=True):
        try:
            with np.load(first / "documents.npz") as one, np.load(second / "documents.npz") as two:
                if not np.array_equal(one[f"{prefix}tokens"], two[f"{prefix}tokens"]):
                    return math.nan
                tokens = one[f"{prefix}tokens"]
                differing.append(one[f"{prefix}nats"] - two[f"{prefix}nats"])
        except (OSError, KeyError, ValueError, TypeError, EOFError, zipfile.BadZipFile):
            return math.nan
    return (
        statistics.bootstrap_documents(np.mean(differing, axis=0), tokens)
        if differing
        else math.nan
    )


def results(runs: pd.DataFrame, baseline: str | None = None) -> pd.DataFrame:
    """Final numbers by corpus and arm: means over done runs; `gap` over the `gap_n` seeds shared with `baseline`.

    Where a corpus was read with two tokenizers only bits per byte can be compared, and the rest is left empty.
    """
    judged = {row["variant"]: row for row in verdicts(runs, baseline).to_dict("records")}
    rows = []
    for variant, group in runs.groupby("variant", sort=False):
        done, verdict = comparable(group), judged.get(variant, {})
        mean = done[
            ["best_val_loss", METRIC, "final_bits_per_byte", "wall_seconds", "mean_step_seconds"]
        ].mean()
        row = group[["corpus", "tokenizer", "arm"]].bfill().iloc[0].to_dict() | {
            "id": name(group.iloc[0])
        }
        row |= {
            "n": len(done),
            "final_val_perplexity": perplexity(mean[METRIC]),
            "gap": verdict.get("gap", math.nan),
        }
        row |= {
            "baseline": verdict.get("baseline"),
            "gap_n": verdict.get("n"),
            "verdict": verdict.get("verdict"),
        }
        row |= {"best_val_perplexity": perplexity(mean["best_val_loss"]), **mean.to_dict()}
        row |= {"source": group["source"].iloc[0]}
        rows.append(
            row
            | {"reason": "; ".join(dict.fromkeys(reason for reason in group["reason"] if reason))}
        )
    table = pd.DataFrame(rows, columns=None if rows else ["corpus", "arm", "id", "n", "reason"])
    if rows:
        mixed = table.groupby("corpus")["tokenizer"].transform("nunique") > 1
        table.loc[mixed, [key for key in table if key.endswith(("_loss", "_perplexity"))]] = (
            math.nan
        )
        table = table.sort_values(["source", "corpus"], kind="stable", ignore_index=True)
    return table


def ablation(runs: pd.DataFrame, baseline: str | None = None, metric: str = METRIC) -> pd.DataFrame:
    """What each arm adds to the one before: the baseline, then the arms from the lowest loss to the highest.

    `gap` has `from` as its base, `gap_back` has `to`; `total_nats` counts from the baseline. The intervals are
    unadjusted 95 %, so exploratory. `differs` lists what sets the two apart: several keys mean mixed causes.
    """
    rows = []
    for members in families(runs, baseline):
        before = members[0].base
        judged = [pair for pair in members if len(pair.shared(metric)[0])]
        for pair in sorted(judged, key=lambda pair: comparable(pair.arm, metric)[metric].mean()):
            (arm, first), (own, base) = Pair(pair.arm, before).shared(metric), pair.shared(metric)
            interval = statistics.paired_interval((arm[metric] - first[metric]).to_numpy(float))
            last, row = before.iloc[0], pair.arm.iloc[0]
            keys = [
                key for key in differences(last, row)["key"] if key in row["experiment"].science
            ]
            ends = {
                "from": last["arm"],
                "to": row["arm"],
                "from_id": name(last),
                "to_id": name(row),
            }
            total = (own[metric] - base[metric]).mean()
            found = _gap(interval) | {"gap_back": gap(-interval.mean), "total_nats": total}
            rows.append(
                {"corpus": row["corpus"]}
                | ends
                | found
                | {"differs": ", ".join(keys), "source": row["source"]}
            )
            before = pair.arm
    return pd.DataFrame(rows)


def cross_corpus(runs: pd.DataFrame, baseline: str | None = None) -> pd.DataFrame:
    """Each arm's gap on every corpus; `epochs` says how often the corpus was seen, which differs too."""
    keys = ["arm", "corpus", "id", "epochs", "baseline_perplexity", "perplexity"]
    table = verdicts(runs, baseline)
    table = table.reindex(columns=[*keys, "nats", "gap", "low", "high", "n", "verdict", "source"])
    return table.sort_values(["source", "arm"], kind="stable", ignore_index=True)


def matched(
    runs: pd.DataFrame,
    metrics: pd.DataFrame,
    by: str = "step",
    at: list[float] | None = None,
    baseline: str | None = None,
) -> pd.DataFrame:
    """Compare arms at equal step, tokens or seconds: interpolated between evaluations, never extrapolated.

    Evaluations during training score a fixed subset, so these losses are not those of `results`.

    Args:
        metrics: Frame of load_metrics.
        by: step, tokens or seconds (of the run's own clock).
        at: Where to compare; default the four quarters of what all runs of the two arms have reached.
    """
    if by not in ("step", "tokens", "seconds"):
        raise UserError(f"by = {by!r} is not an axis; use step, tokens or seconds")
    evals = metrics[(metrics["event"] == "eval") & metrics["loss"].notna() & metrics[by].gt(0)]
    curves = {
        run: rows.sort_values(by)[[by, "loss"]].to_numpy(float)
        for run, rows in evals.groupby("run")
    }
    rows = []
    for pair in pairs(runs, baseline):
        bases = (
            {} if pair.base is None else dict(zip(pair.base["seed"], pair.base["run"], strict=True))
        )
        both = [
            (curves.get(row.run), curves.get(bases.get(row.seed))) for row in pair.arm.itertuples()
        ]
        both = [couple for couple in both if couple[0] is not None and couple[1] is not None]
        reach = min((curve[-1, 0] for couple in both for curve in couple), default=math.nan)
        for point in at or (
            [reach * quarter / 4 for quarter in (1, 2, 3, 4)] if both else [math.nan]
        ):
            losses = np.array([[_at(curve, point) for curve in couple] for couple in both]).reshape(
                -1, 2
            )
            losses = losses[~np.isnan(losses).any(axis=1)]
            arm, base = losses.mean(axis=0) if len(losses) else (math.nan, math.nan)
            row = _who(pair) | {
                by: point,
                "perplexity": perplexity(arm),
                "baseline_perplexity": perplexity(base),
            }
            rows.append(row | _gap(statistics.paired_interval(losses[:, 0] - losses[:, 1])))
    return pd.DataFrame(rows)


def _at(curve: np.ndarray, point: float) -> float:
    """Loss at `point`, linear in the logarithm of the axis, as loss curves nearly are; nan outside."""
    return float(np.interp(math.log(point), np.log(curve[:, 0]), curve[:, 1], math.nan, math.nan))


def corpora(runs: pd.DataFrame) -> pd.DataFrame:
    """What the runs read: documents, tokens and bytes per token by split, and the epochs of train that a run sees."""
    rows = []
    for _, run in runs[runs["experiment"].notna() & (runs["source"] == MEASURED)].iterrows():
        corpus, experiment = run["config"].get("corpus") or {}, run["experiment"]
        seen = (
            experiment.train.max_steps * experiment.train.batch_size * experiment.model.max_seq_len
        )
        for split, facts in (corpus.get("splits") or {}).items():
            row = {"corpus": run["corpus"], "tokenizer": run["tokenizer"]}
            row["kind"] = (
                ", ".join(kind for kind in ("sample", "synthetic") if corpus.get(kind))
                or "complete"
            )
            row |= {"split": split, "documents": facts["documents"], "tokens": facts["tokens"]}
            row["bytes_per_token"] = facts["bytes"] / facts["tokens"]
            rows.append(row | {"epochs": seen / facts["tokens"] if split == "train" else None})
    return pd.DataFrame(rows).drop_duplicates(ignore_index=True)


def parameters(runs: pd.DataFrame) -> pd.DataFrame:
    """Total, trainable and frozen parameters by arm; `freeze_proven` where every run's digests agree."""
    rows = []
    for _, group in runs[runs["parameters"].map(bool) & runs["parameters"].notna()].groupby(
        "variant", sort=False
    ):
        proofs = [proof for _, run in group.iterrows() if (proof := freeze_proven(run)) is not None]
        row = {key: group.iloc[0][key] for key in ("corpus", "arm")} | {"id": name(group.iloc[0])}
        row |= group.iloc[0]["parameters"]
        row |= {
            "trainable_share": row["trainable"] / row["total"],
            "freeze_proven": all(proofs) if proofs else None,
        }
        rows.append(row | {"source": group.iloc[0]["source"]})
    return pd.DataFrame(rows)


def time_budget(runs: pd.DataFrame) -> pd.DataFrame:
    """Seconds of each done run by what they went to; `other` closes the sum to `wall_seconds`, `page` comes after."""
    rows = []
    for run in runs[(runs["state"] == "done") & runs["wall_seconds"].notna()].itertuples():
        spent = run.timing.get("budget")
        if not spent:
            evaluation = run.timing.get("total_validation_time", math.nan)
            known = {"step": run.mean_step_seconds * run.steps, "evaluation": evaluation}
            spent = known | {"other": run.wall_seconds - sum(known.values())}
        row = {
            key: getattr(run, key)
            for key in ("arm", "corpus", "seed", "run", "source", "wall_seconds")
        }
        rows.append({"id": name(run)} | row | {key: spent.get(key, math.nan) for key in BUDGET})
    return pd.DataFrame(rows)
