"""What differs between two arms beside what they are meant to test."""

from typing import Any

import pandas as pd

from oelm_lib.compare.pairs import Pair, comparable, pairs
from oelm_lib.config import diff_configs
from oelm_lib.runs.frames import RECORDED

MACHINE = ("device_name", "precision", "threads", "compile")
CORPUS = ("manifest_sha256", "sample")


def differences(first: pd.Series, second: pd.Series) -> pd.DataFrame:
    """List every key that differs between two runs (rows of load_runs).

    Returns:
        One row a key: key, first, second, declared. Declared means that the experiment files say so in `changes`
        and that one is compared to the other, or both to the same baseline.
    """
    left, right = first["experiment"], second["experiment"]
    related = left.compare_to == right.id or right.compare_to in (left.id, left.compare_to)
    declared = {*left.changes, *right.changes} if related else set()
    rows = [(key, *values, key in declared) for key, values in diff_configs(left, right).items()]
    for group, names in (("resolved", MACHINE), ("corpus", CORPUS), ("code", ("commit", "dirty"))):
        one, two = (row["config"].get(group) or {} for row in (first, second))
        rows += [
            (f"{group}.{name}", one.get(name), two.get(name), False)
            for name in names
            if one.get(name) != two.get(name)
        ]
    if first["state"] == second["state"] == "done" and first["steps"] != second["steps"]:
        rows.append(("steps", first["steps"], second["steps"], "train.max_steps" in declared))
    return pd.DataFrame(rows, columns=["key", "first", "second", "declared"])


def warnings(
    runs: pd.DataFrame, baseline: str | None = None, metric: str = "final_val_loss"
) -> list[str]:
    """Say in short sentences what weakens the comparison of `runs`; to be shown above the tables it affects."""
    found = [text for pair in pairs(runs, baseline) for text in _pair_warnings(pair, metric)]
    used = set(comparable(runs, metric)["run"])
    for row in runs[runs["reason"] != ""].itertuples():
        found.append(f"{row.run}: {row.reason}{'.' if row.run in used else '; not compared.'}")
    found += [
        f"{row['run']}: the frozen parameters changed."
        for _, row in runs.iterrows()
        if freeze_proven(row) is False
    ]
    measured = runs[runs["experiment"].notna()]
    samples = {
        corpus
        for corpus, config in zip(measured["corpus"], measured["config"], strict=True)
        if _sample(config)
    }
    complete = set(measured["corpus"]) - samples
    if samples and complete:
        found.append(
            f"Samples ({_names(samples)}) stand beside complete corpora ({_names(complete)})."
        )
    recorded = measured.loc[measured["source"] == RECORDED, "id"]
    if len(recorded):
        found.append(
            f"{_names(recorded)}: recorded by other code; the best of many evaluations, not the last weights."
        )
    return list(dict.fromkeys(found))


def _pair_warnings(pair: Pair, metric: str) -> list[str]:
    arm = pair.arm.iloc[0]
    if pair.base is None:
        return [f"{arm['variant']}: {pair.reason}; no gap."]
    base = pair.base.iloc[0]
    names = f"{arm['variant']} and {base['variant']}"
    found = []
    first, second = pair.shared(metric)
    # Repeats of one arm can differ too (a run on another machine), so every shared seed is looked at.
    tables = [
        differences(two, one)
        for (_, one), (_, two) in zip(first.iterrows(), second.iterrows(), strict=True)
    ]
    table = pd.concat(tables or [differences(base, arm)]).drop_duplicates("key")
    for key, old, new, declared in table.itertuples(index=False):
        values = f"{short(old)} in {base['variant']}, {short(new)} in {arm['variant']}"
        if not declared:
            found.append(
                f"{key} differs{', undeclared' if key in arm['experiment'].science else ''}: {values}."
            )
        elif not key.startswith("model."):
            found.append(
                f"{_words(key)} differs between the arms ({values}): the gap mixes it with the arm."
            )
    for row in (arm, base):
        overrides = row["experiment"].science_overrides
        if overrides:
            given = ", ".join(f"{key}={short(value)}" for key, value in overrides.items())
            found.append(f"{row['variant']} is a rehearsal, not {row['id']}: {given}.")
    done = [set(comparable(rows, metric)["seed"]) for rows in (pair.arm, pair.base)]
    for rows, own, other in ((arm, *done), (base, *reversed(done))):
        if other - own:
            found.append(
                f"{rows['variant']} lacks seed {_names(sorted(other - own))}; only shared seeds are compared."
            )
    if len(first) == 1:
        found.append(f"{names} share one seed: the interval is unknown.")
    return found


def freeze_proven(run: pd.Series) -> bool | None:
    """Whether the frozen tensors' digests at start and end are equal; None where there are none."""
    proofs = run["frozen"] if isinstance(run["frozen"], list) else []
    return all(proof["sha256_start"] == proof["sha256_end"] for proof in proofs) if proofs else None


def _sample(config: dict[str, Any]) -> bool:
    return bool((config.get("corpus") or {}).get("sample"))


def _names(values: Any) -> str:
    return ", ".join(str(value) for value in sorted(set(values)))


def _words(key: str) -> str:
    return key.rpartition(".")[2].replace("_", " ")


def short(value: Any) -> str:
    """A value as text; a hash, a long list, is cut."""
    text = f"{value:g}" if isinstance(value, float) else str(value)
    return text if len(text) <= 32 else f"{text[:8]}..."
