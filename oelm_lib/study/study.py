"""The study's records as a frame, and the parts of its page that are no results; gaps as perplexity ratios minus 1."""

import fnmatch
import re
from collections import Counter
from html import escape
from pathlib import Path
from typing import Any

import pandas as pd

from oelm_lib import config
from oelm_lib.config import ModelConfig
from oelm_lib.model.cost import medium, qk_share, step_flops, training_hours
from oelm_lib.runs import frames
from oelm_lib.runs.frames import phase3
from oelm_lib.study.records import RECORDS, read_records
from oelm_lib.view.tables import Html, table

PLAIN = "baseline"
START = {"qk_init", "qk_scale", "freeze_q", "freeze_k"}


def load(path: Path | str = "", lines: int | None = None) -> pd.DataFrame:
    """One row a run: the record's fields, `model`, `corpus`, `learning_rate`, `stage` (stage1, stage2, ...).

    Args:
        path: Default: reports/study/runs.jsonl.
        lines: Only so many of the file's lines, the oldest.
    """
    rows, path = [], Path(path) if path else RECORDS
    for record in read_records(path, lines):
        science = record["science"]
        model = {
            key.removeprefix("model."): value
            for key, value in science.items()
            if key.startswith("model.")
        }
        row = record | {
            "model": ModelConfig.model_validate(model),
            "learning_rate": science["optim.learning_rate"],
        }
        row |= {
            "corpus": record["corpus"]["name"],
            "read": record["corpus"],
            "stage": record["plan"],
        }
        rows.append(row)
    columns = "stage corpus arm baseline learning_rate seed final_val_loss final_test_loss model read".split()
    runs = pd.DataFrame(rows, columns=None if rows else columns)
    runs.attrs["lines"] = lines or (path.read_bytes().count(b"\n") if rows else 0)
    return runs


def of_stage(runs: pd.DataFrame, name: str) -> pd.DataFrame:
    """Runs of the plans whose name begins so."""
    return runs[runs["stage"].astype(str).str.startswith(name)]


def follow_ups() -> pd.DataFrame:
    """The experiments at the log's size that follow those of the log, with the hours of training that each would take
    on one A5000 as busy as that of the log's GPT-01."""
    first = config.load_config("GPT-01")
    seconds = frames.recorded(first.id)["mean_step_seconds"].iloc[0]
    speed = step_flops(first.model, first.train.batch_size)["plain"] / seconds
    rows = []
    for exp in sorted(
        set(fnmatch.filter(config.experiment_ids(), "GPT-*")) - set(phase3()["experiments"])
    ):
        cfg = config.load_config(exp)
        row = {
            "id": exp,
            "title": cfg.title,
            "question": cfg.question,
            "compared_to": cfg.compare_to,
        }
        row |= {"trained_at_medium": qk_share(cfg.model), "steps": cfg.train.max_steps}
        row["GFLOP_per_step"] = step_flops(cfg.model, cfg.train.batch_size)["plain"] / 1e9
        rows.append(row | {"hours_on_an_A5000": training_hours(cfg, speed)})
    return pd.DataFrame(rows)


def samples(runs: pd.DataFrame) -> pd.DataFrame:
    """What the runs read: every split's documents, tokens and SHA-256 (of the token file)."""
    found = {str(read): read for read in runs["read"]}
    rows = [
        {"corpus": read["name"], "tokenizer": read["tokenizer"], "split": split}
        | {key: facts[key] for key in ("documents", "tokens", "sha256")}
        for read in found.values()
        for split, facts in read["splits"].items()
    ]
    return pd.DataFrame(rows)


def made_from(runs: pd.DataFrame) -> Html:
    """How many records the page is made from, what code made them and what they cost."""
    if runs.empty:
        return Html("<p>Made from 0 records: nothing has been run yet.</p>")
    counts = ", ".join(f"{name}: {count}" for name, count in Counter(runs["stage"]).items())
    commits = ", ".join(
        f"{commit[:7]} ({count})"
        for commit, count in Counter(runs["commit"].fillna("none")).items()
    )
    dirty = int(runs["dirty"].fillna(True).astype(bool).sum())
    text = f"Made from {len(runs)} records ({counts}), which are the first {runs.attrs['lines']} lines of runs.jsonl;"
    text += f" {runs['wall_seconds'].sum() / 3600:.1f} core-hours. Commits: "
    text += commits + (f"; {dirty} with uncommitted changes." if dirty else ".")
    proofs = [
        proof["sha256_start"] == proof["sha256_end"]
        for run in runs["frozen"]
        for proof in run
        if proof["tensors"]
    ]
    return Html(
        f"<p>{escape(text)} Frozen tensors unchanged in {sum(proofs)} of {len(proofs)} intervals.</p>"
    )


def show(found: pd.DataFrame | list[str]) -> Any:
    """A table, or sentences, as the page shows them; or that there is nothing yet."""
    if not len(found):
        return Html("<p>Not run yet.</p>")
    if isinstance(found, list):
        return Html("".join(f"<p>{escape(sentence)}</p>" for sentence in found))
    return table(found.drop(columns="own", errors="ignore"))


def plan() -> Any:
    """reports/study/plan.md as it stands below its title, its headings below those of the page."""
    from IPython.display import Markdown

    text = (RECORDS.parent / "plan.md").read_text(encoding="utf-8").partition("\n")[2]
    return Markdown(re.sub(r"^#", "###", text, flags=re.MULTILINE))


def shares(model: ModelConfig) -> dict[str, float]:
    return {"trained_at_medium": qk_share(medium(model)), "trained_here": qk_share(model)}


def additions(run: pd.Series, runs: pd.DataFrame) -> set[str]:
    """Model keys, beside those of the start of W_q and W_k, in which an arm differs from the plain baseline."""
    plain = runs[runs["arm"] == PLAIN]
    if plain.empty:
        return {"unknown"}
    theirs = plain.iloc[0]["model"]
    return {key for key, value in run["model"] if value != getattr(theirs, key)} - START


def paired(mine: pd.DataFrame, other: pd.DataFrame) -> tuple[pd.DataFrame, pd.DataFrame]:
    """Both arms' runs by the seeds they share."""
    one, two = mine.set_index("seed"), other.set_index("seed")
    shared = one.index.intersection(two.index)
    return one.loc[shared], two.loc[shared]


def nats(mine: pd.DataFrame, other: pd.DataFrame, loss: str = "final_test_loss") -> pd.Series:
    """Differences of a loss by the seeds that both arms' runs share."""
    one, two = paired(mine, other)
    return (one[loss] - two[loss]).astype(float)
