"""The facts of the journal: runs, results, verdicts, and what is left to do."""

import contextlib
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pandas as pd

from oelm_lib import compare, stats
from oelm_lib.arms import arm_name
from oelm_lib.compare.confounds import differences
from oelm_lib.compare.verdict import LIMIT, Verdict
from oelm_lib.config import Experiment, experiment_ids, load_config
from oelm_lib.config.paths import relative_path
from oelm_lib.errors import UserError
from oelm_lib.runs.frames import RECORDED, log_results
from oelm_lib.runs.names import arm_id, run_command
from oelm_lib.runs.schema import ACTIVE
from oelm_lib.study.plan import study_names
from oelm_lib.study.records import records_path
from oelm_lib.study.schema import Claim
from oelm_lib.study.study import load_study
from oelm_lib.study.verdicts import Judgement
from oelm_lib.units import perplexity

SHAPE = (
    "model.d_model",
    "model.num_layers",
    "model.num_heads",
    "model.d_ff",
    "model.max_seq_len",
    "model.vocab_size",
    "train.batch_size",
)
ENOUGH_SEEDS = 3
SEPARATING_ARM = "frozen Gaussian"
"""Arm that differs from OELM-Freeze in orthogonality alone, and from OELM-Random in scale alone."""
ORTHOGONALITY_AND_SCALE = {"model.qk_init", "model.qk_scale"}
"""A step of the ablation that changes both does not separate their effects."""
UNFINISHED = ("stopped", "dead", "failed")


def gather(outputs: Path | str | None, rehearsals: bool) -> dict[str, Any]:
    """Return everything that the journal's template prints."""
    measured, log = compare.load_runs(outputs=outputs, rehearsals=rehearsals), log_results()
    runs = pd.concat([measured, compare.recorded()], ignore_index=True)
    experiments = [load_config(exp) for exp in experiment_ids()]
    kinds = [getattr(experiment, "kind", None) for experiment in runs["experiment"]]
    unchanged = runs[[kind == "experiment" for kind in kinds]]  # no rehearsals, none unreadable
    verdicts = compare.judge(unchanged)
    sections = [
        _section(rows, [verdict for verdict in verdicts if (verdict.source, verdict.corpus) == key])
        for key, rows in unchanged.groupby(["source", "corpus"], sort=False)
    ]
    sections = [section for section in sections if section["arms"]]
    done = unchanged[(unchanged["source"] != RECORDED) & (unchanged["state"] == "done")]
    started = [row | _printed_facts(row) for row in _records(measured)]
    return {
        "log": log,
        "active": ACTIVE,
        "confidence": 1 - stats.ALPHA,
        "criterion": 1 + LIMIT,
        "enough_seeds": ENOUGH_SEEDS,
        "corpora": {
            experiment.data.corpus: experiment.title.split(", ")[0]
            for experiment in reversed(experiments)  # the first experiment of a corpus names it
        },
        "names": {experiment.id: experiment.title for experiment in experiments},
        "known": len(experiments),
        "done": done["id"].nunique(),
        "recorded": list(dict.fromkeys(runs.loc[runs["source"] == RECORDED, "corpus"])),
        "recorded_source": RECORDED,
        "updated": max([log["updated"], *measured["finished"].dropna()])[:10],
        "matrix": _records(compare.run_states(runs, "*")),
        "shape": [key.partition(".")[2] for key in SHAPE],
        "shapes": _shapes(experiments),
        "measured": started,
        "folders": _folders(started, log),
        "sections": sections,
        "printed": _printed(log["printed"]),
        "cross": _cross_corpus(verdicts),
        "studies": dict(_studies()),
        "todo": _todo(experiments, measured, sections),
    }


def _shapes(experiments: list[Experiment]) -> dict[str, tuple]:
    """Return the first and the last experiment of a model shape, `A .. B` -> the shape."""
    members: dict[tuple, list[str]] = {}
    for experiment in experiments:
        shape = tuple(experiment.science[key] for key in SHAPE)
        members.setdefault(shape, []).append(experiment.id)
    return {" .. ".join(dict.fromkeys((ids[0], ids[-1]))): shape for shape, ids in members.items()}


def _folders(started: list[dict[str, Any]], log: dict[str, Any]) -> list[tuple[str, Any]]:
    """Return run and folder of the measured runs, then of the log's."""
    recorded = [
        (exp, entry["output_dir"])
        for exp, entry in log["experiments"].items()
        if "output_dir" in entry
    ]
    return [*((row["run"], row["path"]) for row in started), *recorded]


def _cross_corpus(verdicts: list[Verdict]) -> list[list[dict[str, Any]]]:
    """Return the gaps of each arm that was judged on more than one corpus."""
    table = compare.cross_corpus(verdicts)
    table = table[table["n"] > 0]
    groups = [_records(rows) for _, rows in table.groupby(["source", "arm"], sort=False)]
    return [rows for rows in groups if len(rows) > 1]


def _section(runs: pd.DataFrame, verdicts: list[Verdict]) -> dict[str, Any]:
    """Return the results of one corpus from one source: arms, verdicts, ablation.

    Each row has the `label` of its arm, and the `base_label` of the arm that it is compared to.
    """
    results = compare.results(runs, verdicts)
    arms = {row["id"]: row for row in results[results["n"] > 0].to_dict("records")}
    labels = _labels(list(arms.values()))
    rows = []
    for verdict in verdicts:
        if not verdict.interval.n:
            continue
        pair = verdict.pair
        changes = differences(pair.base.iloc[0], pair.arm.iloc[0]).to_dict("records")
        times = [arms[key]["mean_step_seconds"] for key in (verdict.id, verdict.baseline)]
        rows.append(
            verdict.row()
            | {
                "label": labels[verdict.id],
                "base_label": labels[verdict.baseline],
                "differences": changes,
                "keys": [item["key"] for item in changes],
                "step_time": times[0] / times[1] - 1,
            }
        )
    bases = {row["id"]: row["baseline"] for row in rows}
    return {
        "corpus": runs["corpus"].iloc[0],
        "source": runs["source"].iloc[0],
        "arms": [
            row | {"label": labels[exp], "base_label": labels.get(bases.get(exp))}
            for exp, row in arms.items()
        ],
        "bases": list(dict.fromkeys(labels[base] for base in bases.values())),
        "verdicts": rows,
        "ablation": [
            row
            | {
                "from_label": labels[row["from_id"]],
                "to_label": labels[row["to_id"]],
                "base_label": labels[bases[row["to_id"]]],
                "is_from_base": row["from_id"] == bases[row["to_id"]],
                "is_mixed": ORTHOGONALITY_AND_SCALE <= set(row["differs"].split(", ")),
            }
            for row in compare.ablation(runs).to_dict("records")
        ],
    }


def _labels(arms: list[dict[str, Any]]) -> dict[str, str]:
    """Return id -> name of each arm; the id follows a name that several arms have."""
    names = [row["arm"] for row in arms]
    return {
        row["id"]: row["arm"] if names.count(row["arm"]) == 1 else f"{row['arm']} ({row['id']})"
        for row in arms
    }


def _todo(
    experiments: list[Experiment], measured: pd.DataFrame, sections: list[dict[str, Any]]
) -> dict[str, list[str]]:
    """Return kind of work -> ids or runs; only experiments that this code can run are named."""
    own = [section for section in sections if section["source"] != RECORDED]
    rows = [row for section in own for row in section["verdicts"]]
    started = {arm_id(variant) for variant in measured["variant"]}
    recorded = set(log_results()["experiments"])
    open_verdicts = (stats.INCONCLUSIVE, stats.UNSTABLE)
    return {
        "never": [exp.id for exp in experiments if exp.id not in started | recorded],
        "resume": measured.loc[measured["state"].isin(UNFINISHED), "run"].tolist(),
        "seeds": [row["id"] for row in rows if row["n"] < ENOUGH_SEEDS],
        "inconclusive": [
            row["id"]
            for row in rows
            if row["verdict"] in open_verdicts and row["n"] >= ENOUGH_SEEDS
        ],
        # Of an arm whose one change is the rate, the rate is the question.
        "rate": [
            row["id"]
            for row in rows
            if "optim.learning_rate" in row["keys"] and len(row["keys"]) > 1
        ],
        "mixed": [
            exp for section in sections for exp in _separating(experiments, started, section)
        ],
        "fail": [row["id"] for row in rows if row["verdict"] == stats.FAIL and row["frozen"]],
    }


def _separating(
    experiments: list[Experiment], started: set[str], section: dict[str, Any]
) -> list[str]:
    """Return the experiments that would tell orthogonality from scale where both are mixed.

    None where the arm that separates them was measured, or no experiment has it on this corpus.
    """
    mixed = any(row["is_mixed"] for row in section["ablation"])
    if not mixed or SEPARATING_ARM in [row["arm"] for row in section["arms"]]:
        return []
    return [
        experiment.id
        for experiment in experiments
        if experiment.data.corpus == section["corpus"]
        and arm_name(experiment) == SEPARATING_ARM
        and experiment.id not in started
    ]


def _printed(claims: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """Return the gaps as the log printed them beside what its numbers give.

    A gap between unequal steps is recomputed at a step that both runs reached.
    """
    runs = compare.recorded()
    losses, metrics = runs.set_index("id")["final_val_loss"], compare.load_metrics(runs)
    rows = []
    for claim in claims:
        first, second = claim["first"], claim["second"]
        gap, step = stats.gap(losses[second] - losses[first]), None
        if "steps" in claim:
            pair = runs[runs["id"].isin([first, second])]
            table = compare.matched(pair, metrics, at=claim["steps"])
            gap, step = table[table["n"] > 0].iloc[0][["gap", "step"]]
        rows.append(claim | {"gap": gap, "step": step})
    return rows


def _studies() -> Iterator[tuple[str, list[dict[str, Any]]]]:
    """Yield name and verdicts of each study that has one: a row per limit of a headline claim."""
    for name in study_names():
        if not records_path(name).is_file():
            continue
        with contextlib.suppress(UserError):  # a damaged plan must not take the journal away
            study = load_study(name)
            rows = [row for judgements in study.headline() for row in _study_rows(judgements)]
            if rows:
                yield name, rows


def _study_rows(judgements: list[Judgement]) -> list[dict[str, Any]]:
    """Return the limits of one claim on each corpus on which it is complete."""
    return [
        {
            "arm": judgement.name,
            "against": judgement.other,
            "corpus": judgement.corpus,
            "kind": _kind(judgement.claim),
            "bound": limit.bound,
            "interval": judgement.interval,
            "n": judgement.ended,
            "late": not judgement.declared,
            "verdict": limit.verdict,
        }
        for judgement in judgements
        if judgement.is_complete
        for limit in judgement.limits
    ]


def _kind(claim: Claim) -> str:
    """Return the phrase of what a claim says."""
    if claim.gaps:
        return "equal_gaps"
    return "equal" if claim.equal else "at_most"


def _printed_facts(run: dict[str, Any]) -> dict[str, Any]:
    """Return the command that makes a run, its day, folder and perplexity."""
    overrides = run["experiment"].overrides if run["experiment"] else {}
    loss = run["final_val_loss"]
    return {
        "command": run_command(run["id"], run["seed"], overrides),
        "date": (run["started"] or "")[:10],
        "path": relative_path(run["path"]),
        "perplexity": loss and perplexity(loss),
    }


def _records(table: pd.DataFrame) -> list[dict[str, Any]]:
    """Return the rows as dicts, None for what is missing."""
    return table.astype(object).where(table.notna(), None).to_dict("records")
