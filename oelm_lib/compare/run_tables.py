"""The runs of a comparison as tables: states, corpora, parameters."""

import math

import pandas as pd

from oelm_lib.compare.pairs import METRIC
from oelm_lib.config import Experiment, load_config
from oelm_lib.data.corpus import epochs_read
from oelm_lib.runs.frames import MEASURED, identity
from oelm_lib.runs.names import arm_id, matching_ids
from oelm_lib.runs.reading import frozen_unchanged

RUN_COLUMNS = [
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
    "learning_rate",
    "started",
    "finished",
    "source",
    "reason",
]


def run_states(runs: pd.DataFrame, exps: list[str] | str = "") -> pd.DataFrame:
    """Return every run with its state, and the experiments of `exps` that were never run.

    Args:
        runs: Frame of load_runs.
        exps: Ids or globs, as in load_runs; an empty text means none.
    """
    rates = [
        experiment.optim.learning_rate if isinstance(experiment, Experiment) else None
        for experiment in runs["experiment"]
    ]
    known = runs.assign(id=runs["variant"].map(arm_id), learning_rate=rates)
    have_runs = set(known["id"])
    idle = [
        {
            **identity(experiment),
            "learning_rate": experiment.optim.learning_rate,
            "state": "not run",
            "reason": "",
        }
        for experiment in (load_config(exp) for exp in matching_ids(exps) if exp not in have_runs)
    ]
    return pd.DataFrame([*known[RUN_COLUMNS].to_dict("records"), *idle], columns=RUN_COLUMNS)


def corpora(runs: pd.DataFrame) -> pd.DataFrame:
    """Return documents, tokens and bytes per token of each split, and the epochs of each run."""
    rows = []
    for _, run in runs[runs["experiment"].notna() & (runs["source"] == MEASURED)].iterrows():
        corpus, experiment = run["config"].get("corpus") or {}, run["experiment"]
        kinds = [kind for kind in ("sample", "synthetic") if corpus.get(kind)]
        for split, facts in (corpus.get("splits") or {}).items():
            tokens = facts["tokens"]
            rows.append(
                {
                    "corpus": run["corpus"],
                    "tokenizer": run["tokenizer"],
                    "kind": ", ".join(kinds) or "complete",
                    "split": split,
                    "documents": facts["documents"],
                    "tokens": tokens,
                    "bytes_per_token": facts["bytes"] / tokens if tokens else math.nan,
                    "epochs": epochs_read(experiment, tokens) if split == "train" else None,
                }
            )
    return pd.DataFrame(rows).drop_duplicates(ignore_index=True)


def parameters(runs: pd.DataFrame) -> pd.DataFrame:
    """Return total, trainable and frozen parameters by arm.

    `freeze_proven`: the digests of every run agree.
    """
    counted = [isinstance(counts, dict) and bool(counts) for counts in runs["parameters"]]
    known = runs[pd.Series(counted, index=runs.index, dtype=bool)]
    rows = []
    for _, group in known.groupby(["source", "variant"], sort=False):
        first = group.iloc[0]
        counts = first["parameters"]
        checks = map(frozen_unchanged, group["frozen"])
        proofs = [unchanged for unchanged in checks if unchanged is not None]
        rows.append(
            {
                "corpus": first["corpus"],
                "arm": first["arm"],
                "id": arm_id(first.variant),
                **counts,
                "trainable_share": counts["trainable"] / counts["total"],
                "freeze_proven": all(proofs) if proofs else None,
                "source": first["source"],
            }
        )
    return pd.DataFrame(rows)
