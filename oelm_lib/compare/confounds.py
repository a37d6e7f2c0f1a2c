"""What differs between an arm and its baseline beside what the arm is meant to test."""

from collections.abc import Iterator
from typing import Any

import pandas as pd

from oelm_lib import stats
from oelm_lib.compare.pairs import Pair, comparable, declaration, ended_losses, pairs
from oelm_lib.config import diff_configs, extra_changes
from oelm_lib.model import biases_scores
from oelm_lib.runs.frames import MEASURED, RECORDED
from oelm_lib.runs.names import arm_id
from oelm_lib.runs.reading import frozen_unchanged

MACHINE = ("device_name", "precision", "threads", "compile")
CORPUS = ("manifest_sha256", "sample")
CODE = ("commit", "dirty", "diff_sha256")


def differences(first: pd.Series, second: pd.Series) -> pd.DataFrame:
    """List every key that differs between two runs (rows of load_runs).

    Returns:
        One row per key: key, first, second, declared. Declared means that the experiment files, as
        they are now, list it in `changes`: the file of the one that is compared to the other, or
        either file where both have the same baseline.
    """
    left, right = first["experiment"], second["experiment"]
    (left_base, left_changes), (right_base, right_changes) = declaration(left), declaration(right)
    if left_base == right.id:
        declared = left_changes
    elif right_base == left.id:
        declared = right_changes
    elif left_base == right_base:
        declared = left_changes | right_changes
    else:
        declared = frozenset()
    rows = [(key, *values, key in declared) for key, values in diff_configs(left, right).items()]
    for group, keys in (("resolved", MACHINE), ("corpus", CORPUS), ("code", CODE)):
        first_facts, second_facts = (row["config"].get(group) or {} for row in (first, second))
        rows += [
            (f"{group}.{key}", first_facts.get(key), second_facts.get(key), False)
            for key in keys
            if first_facts.get(key) != second_facts.get(key)
        ]
    if first["state"] == second["state"] == "done" and first["steps"] != second["steps"]:
        rows.append(("steps", first["steps"], second["steps"], "train.max_steps" in declared))
    return pd.DataFrame(rows, columns=["key", "first", "second", "declared"])


def config_diff(runs: pd.DataFrame, baseline: str | None = None) -> pd.DataFrame:
    """Return every key in which an arm differs from its baseline.

    Args:
        runs, baseline: Arguments of judge.

    Returns:
        One row per baseline (`against`) and key, one column per arm: its value, `same` for that of
        the baseline, or nothing where the arm has another baseline.
    """
    rows = []
    for pair in pairs(runs, baseline):
        if pair.base is None:
            continue
        arm = pair.arm.iloc[0]
        table = differences(pair.base.iloc[0], arm)
        for key, old, new, declared in table.itertuples(index=False):
            rows.append(
                {
                    "corpus": arm["corpus"],
                    "against": pair.base_id,
                    "key": key,
                    "baseline": short(old),
                    "arm": f"{arm['arm']} ({pair.arm_id})",
                    "value": short(new) + ("" if declared else " (undeclared)"),
                }
            )
    index = ["corpus", "against", "key", "baseline"]
    table = pd.DataFrame(rows, columns=[*index, "arm", "value"])
    wide = table.pivot_table("value", index, "arm", aggfunc="first", sort=False)
    wide = wide.rename_axis(columns=None).reset_index()
    for arm, base_id in table.groupby("arm")["against"].first().items():
        wide.loc[(wide["against"] == base_id) & wide[arm].isna(), arm] = "same"
    return wide.fillna("")


def dropout_is_paired(first: pd.Series, second: pd.Series) -> bool:
    """Return whether two runs of one seed draw the same dropout masks, as `oelm_lib.seeds` says."""
    models = [row["experiment"].model for row in (first, second)]
    if all(model.dropout == 0 for model in models):
        return True
    machines = [row["config"].get("resolved") or {} for row in (first, second)]
    plain = all(
        machine.get("device") == "cpu"
        and machine.get("precision") == "fp32"
        and not machine.get("compile")
        for machine in machines
    )
    return plain or biases_scores(models[0]) == biases_scores(models[1])


def warnings(runs: pd.DataFrame, baseline: str | None = None) -> list[str]:
    """Return one sentence for each thing that weakens the comparison, and the runs it concerns.

    Args:
        runs, baseline: Arguments of judge.
    """
    compared = pairs(runs, baseline)
    problems = [entry for pair in compared for entry in _pair_warnings(pair)]
    problems += _run_warnings(runs, compared)
    problems += _evidence_warnings(runs, compared)
    subjects: dict[str, list[str]] = {}
    for subject, text in problems:
        subjects.setdefault(text, []).append(subject)
    return [f"{', '.join(dict.fromkeys(names))}: {text}" for text, names in subjects.items()]


def _pair_warnings(pair: Pair) -> Iterator[tuple[str, str]]:
    """Yield (run or arm, what is wrong with it) for the differences of a pair."""
    subject = pair.arm_id
    if pair.base is None:
        yield subject, f"{pair.reason}, so there is no gap"
        return
    arm, base = pair.arm.iloc[0], pair.base.iloc[0]
    shared = _shared_runs(pair)
    for text in _key_warnings(shared or [(arm, base)]):
        yield subject, text
    if not all(dropout_is_paired(*both) for both in shared):
        yield subject, "dropout masks are not paired with those of its baseline (oelm_lib/seeds.py)"
    for text in extra_changes(arm["experiment"], base["experiment"]):
        yield subject, f"{text}: a baseline with the same addition is needed for a PASS"
    for run in (arm, base):
        overrides = run["experiment"].science_overrides
        if overrides:
            given = ", ".join(f"{key}={short(value)}" for key, value in overrides.items())
            rehearsal = f"a rehearsal of {run['id']} with {given}, not {run['id']} itself"
            yield arm_id(run["variant"]), rehearsal
    arm_seeds, base_seeds = set(ended_losses(pair.arm)), set(ended_losses(pair.base))
    missing = {subject: base_seeds - arm_seeds, pair.base_id: arm_seeds - base_seeds}
    for name, seeds in missing.items():
        if seeds:
            listed = ", ".join(map(str, sorted(seeds)))
            yield name, f"no loss with seed {listed}; only shared seeds are compared"


def _key_warnings(shared: list[tuple[pd.Series, pd.Series]]) -> Iterator[str]:
    """Yield each difference, beside the declared ones of the model, that the gap shows too.

    Repeats of one arm can differ (a run on another machine), so every shared seed is looked at.

    Args:
        shared: Pairs (run of the arm, run of its baseline).
    """
    science = shared[0][0]["experiment"].science
    table = pd.concat([differences(base, arm) for arm, base in shared]).drop_duplicates("key")
    for key, old, new, declared in table.itertuples(index=False):
        values = f"{key} is {short(new)}, but {short(old)} in its baseline"
        if not declared:
            yield f"{values}; `changes` does not declare it" if key in science else values
        elif not key.startswith("model."):
            yield f"{values}, so the gap shows the effect of both"


def _shared_runs(pair: Pair) -> list[tuple[pd.Series, pd.Series]]:
    """Return (run of the arm, run of its baseline) of each shared seed."""
    arm, base = pair.shared()
    return [(arm.loc[seed], base.loc[seed]) for seed in arm.index]


def _run_warnings(runs: pd.DataFrame, compared: list[Pair]) -> Iterator[tuple[str, str]]:
    """Yield (run, what is wrong with it)."""
    used = set(comparable(runs)["run"])
    failed = set().union(*(pair.failed_runs() for pair in compared))
    for _, run in runs.iterrows():
        if run["reason"]:
            if run["run"] in failed:
                effect = "; its pair counts as failed"
            else:
                effect = "" if run["run"] in used else "; not compared"
            yield run["run"], run["reason"] + effect
        if frozen_unchanged(run["frozen"]) is False:
            yield run["run"], "the frozen parameters changed"


def _evidence_warnings(runs: pd.DataFrame, compared: list[Pair]) -> Iterator[tuple[str, str]]:
    """Yield (subject, how little the data can show): seeds, corpora, rates, recorded results."""
    for pair in compared:
        count = len(pair.differences())
        if count == 1:
            yield pair.arm_id, "one shared seed: noise and effect cannot be told apart"
        elif 1 < count < stats.FEW_SEEDS:
            words = f"only {count} seeds: a wide interval, whose width is partly luck"
            yield pair.arm_id, words
    sides = [side for pair in compared for side in (pair.arm, pair.base) if side is not None]
    arms = {arm for side in sides for arm in side["arm"]}
    measured = runs[runs["experiment"].notna() & (runs["source"] == MEASURED)]
    for corpus, rows in measured.groupby("corpus", sort=False):
        kinds = rows["config"].map(lambda config: config.get("corpus") or {})
        if any(kind.get("synthetic") for kind in kinds):
            yield corpus, "synthetic text; a gap on it says little about natural language"
        if any(kind.get("sample") for kind in kinds):
            yield corpus, "a sample of the corpus, not the corpus"
        for arm, repeats in rows.groupby("arm", sort=False):
            rates = {experiment.optim.learning_rate for experiment in repeats["experiment"]}
            if len(rates) == 1 and arm in arms:
                yield arm, "one learning rate only; another rate may change the gap"
    for exp in runs.loc[runs["experiment"].notna() & (runs["source"] == RECORDED), "id"]:
        yield exp, "recorded by other code; the loss is the best of its evaluations"


def short(value: Any) -> str:
    """Return a value as text; a long one, such as a hash, is cut."""
    text = f"{value:g}" if isinstance(value, float) else str(value)
    return text if len(text) <= 32 else f"{text[:8]}..."
