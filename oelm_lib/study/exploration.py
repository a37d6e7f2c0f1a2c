"""Stage 1 of the study in tables: one seed, validation text; it chooses, and claims nothing."""

import math

import numpy as np
import pandas as pd
import yaml

from oelm_lib import config
from oelm_lib.stats import CRITERION
from oelm_lib.study import study

PROBES = {
    "entropy": "attention_entropy",
    "logit_std": "logit_spread",
    "effective_rank": "effective_rank",
    "best_previous_token": "best_previous_token",
    "best_induction": "best_induction",
    "copy_gain": "copy_gain",
    "in_context": "late_minus_early_loss",
}
"""Numbers of a record's probes that the page shows, and what it calls them."""
SLICES = ("repeated_bigrams", "other_tokens")
SMALL_DIFFERENCE = 0.05


def explored(runs: pd.DataFrame) -> pd.DataFrame:
    """Stage 1, one row an arm: its tuned rate, its gaps to the tuned baselines, and what of the Q/K path it trains.

    `gap` is that to the better baseline of `gap_to_plain` and `gap_to_own` (the baseline with the same addition); it is
    unknown until both have been run.
    `edge` says where the best rate is the lowest or highest of those tried.
    """
    rows = []
    for (corpus, arm), mine in study.of_stage(runs, "stage1").groupby(
        ["corpus", "arm"], sort=False
    ):
        losses = mine.groupby("learning_rate")["final_val_loss"].mean()
        best, at = losses.idxmin(), list(losses.index).index(losses.idxmin())
        edge = (
            "only one rate"
            if len(losses) == 1
            else {0: "lowest", len(losses) - 1: "highest"}.get(at, "")
        )
        row = {
            "corpus": corpus,
            "arm": arm,
            "learning_rate": best,
            "rates": len(losses),
            "edge": edge,
        }
        row |= {"val_loss": losses[best], "perplexity": math.exp(losses[best])} | study.shares(
            mine.iloc[0]["model"]
        )
        rows.append(
            row | {"n": int((mine["learning_rate"] == best).sum()), "own": mine.iloc[0]["baseline"]}
        )
    table = pd.DataFrame(rows)
    if table.empty:
        return table
    tuned = {(row["corpus"], row["arm"]): row["val_loss"] for row in rows}
    for column, name in (
        ("gap_to_plain", lambda row: study.PLAIN),
        ("gap_to_own", lambda row: row["own"]),
    ):
        bases = [tuned.get((row["corpus"], name(row)), math.nan) for row in rows]
        table[column] = np.expm1(table["val_loss"] - bases)
    table["gap"] = table[["gap_to_plain", "gap_to_own"]].max(axis=1, skipna=False)
    order = "corpus arm learning_rate rates edge val_loss perplexity gap_to_plain gap_to_own gap trained_at_medium"
    table = table[[*order.split(), "trained_here", "n", "own"]]
    return table.sort_values(["corpus", "val_loss"], kind="stable", ignore_index=True)


def changes(runs: pd.DataFrame) -> pd.DataFrame:
    """Stage 1: what each arm changes in the plain baseline, beside the learning rate of all its weights."""
    firsts = study.of_stage(runs, "stage1").drop_duplicates("arm")
    plain = firsts["science"].iloc[0] if len(firsts) else {}
    told = [key for key in plain if key != "optim.learning_rate"]
    rows = []
    for arm, science in zip(firsts["arm"], firsts.get("science", []), strict=True):
        differs = {
            key.partition(".")[2]: science[key]
            for key in told
            if science.get(key, plain[key]) != plain[key]
        }
        text = yaml.safe_dump(differs, default_flow_style=True, sort_keys=False, width=10**6)
        rows.append({"arm": arm, "changes": text.strip("{}\n")})
    return pd.DataFrame(rows)


def not_run(runs: pd.DataFrame) -> list[str]:
    """A sentence on the arms of params/study/stage1.yaml that have no record."""
    declared = config.read_yaml(config.PARAMS / "study" / "stage1.yaml")["arms"]
    missing = [arm for arm in declared if arm not in set(runs["arm"])]
    return [
        f"Declared but not run ({len(missing)} arms): {'; '.join(missing)}."
        if missing
        else "All declared arms ran."
    ]


def rates(runs: pd.DataFrame) -> pd.DataFrame:
    """Stage 1: validation loss of every arm (row) at every learning rate (column); mean over seeds."""
    first = study.of_stage(runs, "stage1").assign(
        learning_rate=lambda frame: frame["learning_rate"].map("{:g}".format)
    )
    table = first.pivot_table("final_val_loss", ["corpus", "arm"], "learning_rate", sort=False)
    return table[sorted(table.columns, key=float)].reset_index().rename_axis(columns=None)


def grid(runs: pd.DataFrame) -> pd.DataFrame:
    """Scale x orthogonality: perplexity at the tuned rate of what differs in the start of W_q and W_k alone."""
    first = study.of_stage(runs, "stage1")
    rows = []
    for (corpus, _), mine in first.groupby(["corpus", "arm"], sort=False):
        model = mine.iloc[0]["model"]
        if model.freeze_q == model.freeze_k and not study.additions(mine.iloc[0], runs):
            loss = mine.groupby("learning_rate")["final_val_loss"].mean().min()
            kind = f"{'frozen' if model.freeze_q else 'trained'}, {model.qk_init}"
            rows.append(
                {
                    "corpus": corpus,
                    "Q and K": kind,
                    "scale": f"scale {model.qk_scale:.3g}, perplexity",
                }
            )
            rows[-1]["perplexity"] = math.exp(loss)
    table = pd.DataFrame(rows, columns=["corpus", "Q and K", "scale", "perplexity"])
    return (
        table.pivot_table("perplexity", ["corpus", "Q and K"], "scale")
        .reset_index()
        .rename_axis(columns=None)
    )


def pilot(runs: pd.DataFrame) -> pd.DataFrame:
    """Spread of paired differences to the baseline at tuned rates, and the half-width that five seeds will have."""
    table, rows = explored(runs), []
    for (corpus, arm), _ in study.of_stage(runs, "pilot").groupby(["corpus", "arm"], sort=False):
        rate = {
            row["arm"]: row["learning_rate"]
            for row in table.to_dict("records")
            if row["corpus"] == corpus
        }
        both = runs[(runs["corpus"] == corpus) & runs["stage"].str.startswith(("stage1", "pilot"))]
        tuned = both[both["learning_rate"] == both["arm"].map(rate)]
        nats = study.nats(
            *(tuned[tuned["arm"] == name] for name in (arm, study.PLAIN)), "final_val_loss"
        )
        if arm != study.PLAIN and len(nats) > 1:
            half = float(nats.std(ddof=1)) * 2.776 / math.sqrt(5)  # t of 4 degrees of freedom
            row = {
                "corpus": corpus,
                "arm": arm,
                "n": len(nats),
                "nats": nats.mean(),
                "spread": nats.std(ddof=1),
            }
            rows.append(row | {"half_width_at_5_seeds": half, "wanted": math.log(CRITERION) / 3})
    return pd.DataFrame(rows)


def probed(runs: pd.DataFrame) -> pd.DataFrame:
    """Stage 1: what the probes say of each arm at its tuned rate; means over heads, losses in nats.

    `difference_on_repeats` is the part of the difference to the plain baseline, a loss or a gain, that lies on tokens
    that end a bigram which stood earlier in the window, where attention can copy; these are `repeats` of all tokens.
    Of a difference of less than SMALL_DIFFERENCE nats no parts are told.
    """
    table = explored(runs)
    if table.empty or "probes" not in runs:
        return pd.DataFrame()
    found = study.of_stage(runs, "stage1").dropna(subset="probes")
    found = table[["corpus", "arm", "learning_rate"]].merge(
        found, on=["corpus", "arm", "learning_rate"]
    )
    plain = {run.corpus: run.probes for run in found.itertuples() if run.arm == study.PLAIN}
    rows = []
    for run in found.itertuples():
        here, there = run.probes, plain.get(run.corpus)
        row = {"corpus": run.corpus, "arm": run.arm} | {
            words: here[key] for key, words in PROBES.items()
        }
        if there and run.arm != study.PLAIN:
            parts = [
                here[f"share_of_{k}"] * (here[f"loss_on_{k}"] - there[f"loss_on_{k}"])
                for k in SLICES
            ]
            part = parts[0] / sum(parts) if abs(sum(parts)) > SMALL_DIFFERENCE else math.nan
            row |= {"difference_on_repeats": part, "repeats": here[f"share_of_{SLICES[0]}"]}
        rows.append(row)
    return pd.DataFrame(rows)


def negative(runs: pd.DataFrame) -> pd.DataFrame:
    """Stage 1: arms that train or add something, and are no nearer to their baseline than the same Q/K, all frozen."""
    table = explored(runs)
    if table.empty:
        return table
    starts = {run.arm: (run.model.qk_init, run.model.qk_scale) for run in runs.itertuples()}
    table["start"] = list(zip(table["corpus"], table["arm"].map(starts), strict=True))
    plain = table["arm"].isin(_frozen(runs))
    frozen = dict(table.loc[plain, ["start", "gap"]].itertuples(index=False, name=None))
    others = ~plain & ~table["arm"].isin({study.PLAIN, *table["own"]})
    worse = table[
        others & (table["gap"] >= table["start"].map(lambda start: frozen.get(start, math.nan)))
    ]
    return worse[["corpus", "arm", "gap_to_plain", "gap_to_own", "gap", "trained_at_medium", "n"]]


def _frozen(runs: pd.DataFrame) -> set[str]:
    """Names of the arms that freeze all of Q and K, and add nothing."""
    firsts = [mine.iloc[0] for _, mine in runs.groupby("arm")]
    return {
        r["arm"]
        for r in firsts
        if r["model"].freeze_q and r["model"].freeze_k and not study.additions(r, runs)
    }
