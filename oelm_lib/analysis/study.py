"""The study's tables, from runs.jsonl alone. Losses in nats, gaps as perplexity ratios minus 1."""

import fnmatch
import math
import re
from collections import Counter
from html import escape
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import yaml

from oelm_lib import config
from oelm_lib.analysis import cards, statistics, tables
from oelm_lib.analysis.arms import LOG_QK_SCALE
from oelm_lib.analysis.cost import medium, qk_share, step_flops, training_hours
from oelm_lib.analysis.frames import phase3
from oelm_lib.analysis.statistics import CRITERION, gap
from oelm_lib.config import ModelConfig
from oelm_lib.runs.records import RECORDS, read_records

PLAIN = "baseline"
STRICT = 1 + statistics.MARGIN
"""The second criterion: perplexity within 1 % of the baseline's."""
LIMITS = (0.01, 0.10)
"""Trained shares of the Q/K path within which the best arm is named."""
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
SMALL_GAP = 0.05
START = {"qk_init", "qk_scale", "freeze_q", "freeze_k"}


def load(path: Path | str = "", lines: int | None = None) -> pd.DataFrame:
    """One row a run: the record's fields, `model`, `corpus`, `learning_rate`, `stage` (stage1, stage2, ...).

    Args:
        path: Default: reports/study/runs.jsonl.
        lines: Only so many records, the oldest.
    """
    rows = []
    for record in read_records(Path(path) if path else RECORDS)[:lines]:
        science = record["science"]
        model = {key.removeprefix("model."): value for key, value in science.items() if key.startswith("model.")}
        row = record | {"model": ModelConfig.model_validate(model), "learning_rate": science["optim.learning_rate"]}
        row |= {"corpus": record["corpus"]["name"], "read": record["corpus"], "stage": record["plan"]}
        rows.append(row)
    columns = "stage corpus arm baseline learning_rate seed final_val_loss final_test_loss model read".split()
    return pd.DataFrame(rows, columns=None if rows else columns)


def of_stage(runs: pd.DataFrame, name: str) -> pd.DataFrame:
    """Runs of the plans whose name begins so."""
    return runs[runs["stage"].astype(str).str.startswith(name)]


def explored(runs: pd.DataFrame) -> pd.DataFrame:
    """Stage 1, one row an arm: its tuned rate, its gaps to the tuned baselines, and what of the Q/K path it trains.

    `gap` is that to the better baseline of `gap_to_plain` and `gap_to_own` (the baseline with the same addition); it is
    unknown until both have been run.
    `edge` says where the best rate is the lowest or highest of those tried.
    """
    rows = []
    for (corpus, arm), mine in of_stage(runs, "stage1").groupby(["corpus", "arm"], sort=False):
        losses = mine.groupby("learning_rate")["final_val_loss"].mean()
        best, at = losses.idxmin(), list(losses.index).index(losses.idxmin())
        edge = "only one rate" if len(losses) == 1 else {0: "lowest", len(losses) - 1: "highest"}.get(at, "")
        row = {"corpus": corpus, "arm": arm, "learning_rate": best, "rates": len(losses), "edge": edge}
        row |= {"val_loss": losses[best], "perplexity": math.exp(losses[best])} | _shares(mine.iloc[0]["model"])
        rows.append(row | {"n": int((mine["learning_rate"] == best).sum()), "own": mine.iloc[0]["baseline"]})
    table = pd.DataFrame(rows)
    if table.empty:
        return table
    tuned = {(row["corpus"], row["arm"]): row["val_loss"] for row in rows}
    for column, name in (("gap_to_plain", lambda row: PLAIN), ("gap_to_own", lambda row: row["own"])):
        bases = [tuned.get((row["corpus"], name(row)), math.nan) for row in rows]
        table[column] = np.expm1(table["val_loss"] - bases)
    table["gap"] = table[["gap_to_plain", "gap_to_own"]].max(axis=1, skipna=False)
    order = "corpus arm learning_rate rates edge val_loss perplexity gap_to_plain gap_to_own gap trained_at_medium"
    table = table[[*order.split(), "trained_here", "n", "own"]]
    return table.sort_values(["corpus", "val_loss"], kind="stable", ignore_index=True)


def changes(runs: pd.DataFrame) -> pd.DataFrame:
    """Stage 1: what each arm changes in the plain baseline, beside the learning rate of all its weights."""
    firsts = of_stage(runs, "stage1").drop_duplicates("arm")
    plain = firsts["science"].iloc[0] if len(firsts) else {}
    told = [key for key in plain if key != "optim.learning_rate"]
    rows = []
    for arm, science in zip(firsts["arm"], firsts.get("science", []), strict=True):
        differs = {key.partition(".")[2]: science[key] for key in told if science.get(key, plain[key]) != plain[key]}
        text = yaml.safe_dump(differs, default_flow_style=True, sort_keys=False, width=10**6)
        rows.append({"arm": arm, "changes": text.strip("{}\n")})
    return pd.DataFrame(rows)


def rates(runs: pd.DataFrame) -> pd.DataFrame:
    """Stage 1: validation loss of every arm (row) at every learning rate (column); mean over seeds."""
    first = of_stage(runs, "stage1").assign(learning_rate=lambda frame: frame["learning_rate"].map("{:g}".format))
    table = first.pivot_table("final_val_loss", ["corpus", "arm"], "learning_rate", sort=False)
    return table[sorted(table.columns, key=float)].reset_index().rename_axis(columns=None)


def grid(runs: pd.DataFrame) -> pd.DataFrame:
    """Scale x orthogonality: perplexity at the tuned rate of what differs in the start of W_q and W_k alone."""
    first = of_stage(runs, "stage1")
    rows = []
    for (corpus, _), mine in first.groupby(["corpus", "arm"], sort=False):
        model = mine.iloc[0]["model"]
        if model.freeze_q == model.freeze_k and not _additions(mine.iloc[0], runs):
            loss = mine.groupby("learning_rate")["final_val_loss"].mean().min()
            kind = f"{'frozen' if model.freeze_q else 'trained'}, {model.qk_init}"
            rows.append({"corpus": corpus, "Q and K": kind, "scale": f"scale {model.qk_scale:.3g}, perplexity"})
            rows[-1]["perplexity"] = math.exp(loss)
    table = pd.DataFrame(rows, columns=["corpus", "Q and K", "scale", "perplexity"])
    return table.pivot_table("perplexity", ["corpus", "Q and K"], "scale").reset_index().rename_axis(columns=None)


def pilot(runs: pd.DataFrame) -> pd.DataFrame:
    """Spread of paired differences to the baseline at tuned rates, and the half-width that five seeds will have."""
    table, rows = explored(runs), []
    for corpus, arm in dict.fromkeys(of_stage(runs, "pilot")[["corpus", "arm"]].itertuples(index=False, name=None)):
        tuned = {row["arm"]: row["learning_rate"] for row in table.to_dict("records") if row["corpus"] == corpus}
        both = runs[(runs["corpus"] == corpus) & ~runs["stage"].str.startswith("stage2")]
        sides = [both[(both["arm"] == name) & (both["learning_rate"] == tuned.get(name))] for name in (arm, PLAIN)]
        one, two = _paired(*sides)
        nats = (one["final_val_loss"] - two["final_val_loss"]).to_numpy(float)
        if arm != PLAIN and len(nats) > 1:
            half = float(nats.std(ddof=1)) * 2.776 / math.sqrt(5)  # t of 4 degrees of freedom
            row = {"corpus": corpus, "arm": arm, "n": len(nats), "nats": nats.mean(), "spread": nats.std(ddof=1)}
            rows.append(row | {"half_width_at_5_seeds": half, "wanted": math.log(CRITERION) / 3})
    return pd.DataFrame(rows)


def confirmed(runs: pd.DataFrame) -> pd.DataFrame:
    """Stage 2, one row an arm and corpus: paired differences of test loss, intervals adjusted by Holm.

    Each arm is judged against the better, on validation, of the plain baseline and the baseline with its addition.
    """
    rows = []
    for _, found in of_stage(runs, "stage2").groupby("corpus", sort=False):
        bases = {PLAIN, *found["baseline"]}
        arms = [(arm, mine) for arm, mine in found.groupby("arm", sort=False) if arm not in bases]
        judged = [_judge(found, mine) for _, mine in arms]
        pairs = [_paired(mine, judge) for (_, mine), judge in zip(arms, judged, strict=True)]
        nats = [(arm["final_test_loss"] - other["final_test_loss"]).to_numpy(float) for arm, other in pairs]
        levels = {
            limit: statistics.holm([statistics.p_value(d, math.log(limit)) for d in nats])
            for limit in (CRITERION, STRICT)
        }
        same = statistics.holm([statistics.equivalence_p(d) for d in nats])
        for n, (arm, mine) in enumerate(arms):
            interval = statistics.paired_interval(nats[n], levels[CRITERION][n])
            strict = statistics.paired_interval(nats[n], levels[STRICT][n])
            equal = statistics.paired_interval(nats[n], same[n])
            row = {"corpus": mine.iloc[0]["corpus"], "arm": arm} | _shares(mine.iloc[0]["model"])
            row |= {"gap": gap(interval.mean), "low": gap(interval.low), "high": gap(interval.high), "n": interval.n}
            row |= {"within_5_%": statistics.verdict(interval), "within_1_%": statistics.verdict(strict, STRICT)}
            row["judged_against"] = judged[n]["arm"].iloc[0] if len(judged[n]) else "none yet"
            row |= {"equivalent": _within(equal), "confidence": interval.confidence, "nats": interval.mean}
            row["document_error"] = _document_error(*pairs[n])
            for column, name in (("gap_to_plain", PLAIN), ("gap_to_own", mine.iloc[0]["baseline"])):
                arm_side, base_side = _paired(mine, found[found["arm"] == name])
                row[column] = gap((arm_side["final_test_loss"] - base_side["final_test_loss"]).mean())
            rows.append(row)
    return pd.DataFrame(rows)


def contrasts(runs: pd.DataFrame) -> pd.DataFrame:
    """Stage 2: orthogonal against Gaussian at one scale, and the log's scale against 1, all frozen; 95 % intervals.

    `within_1_%` is yes only where the whole interval lies within it, and no only where all of it lies outside;
    `seeds_for_1_%`: how many would make such an interval that narrow, were the difference 0.
    """
    rows = []
    for corpus, found in of_stage(runs, "stage2").groupby("corpus", sort=False):
        starts = {}
        for arm, mine in found.groupby("arm", sort=False):
            model = mine.iloc[0]["model"]
            if model.freeze_q and model.freeze_k and not _additions(mine.iloc[0], runs):
                starts[model.qk_init, round(model.qk_scale, 3)] = arm
        matched = starts.get(("normal", 1.0))
        for one in (("orthogonal", 1.0), ("normal", round(LOG_QK_SCALE, 3))):
            if one in starts and matched:
                arm, other = _paired(*(found[found["arm"] == name] for name in (starts[one], matched)))
                nats = (arm["final_test_loss"] - other["final_test_loss"]).to_numpy(float)
                interval = statistics.paired_interval(nats)
                row = {"corpus": corpus, "arm": starts[one], "against": matched, "gap": gap(interval.mean)}
                row |= {"low": gap(interval.low), "high": gap(interval.high), "n": interval.n, "nats": interval.mean}
                row |= {"within_1_%": _within(interval), "p": statistics.p_value(nats)}
                rows.append(row | {"seeds_for_1_%": statistics.seeds_for(nats, math.log1p(statistics.MARGIN))})
    return pd.DataFrame(rows)


def best(runs: pd.DataFrame) -> pd.DataFrame:
    """The arm with the least gap among those that train at most 1 % and at most 10 % of the Q/K path (at Medium-512).

    Chosen by stage 1; its verdicts are those of stage 2 where it was confirmed. A wider FFN is a control.
    """
    first, second = explored(runs), confirmed(runs)
    if len(first):
        widths = {run.arm: run.model.d_ff for run in runs.itertuples()}
        first = first[first["arm"].map(widths) == widths.get(PLAIN)]
    rows = []
    for limit in LIMITS if len(first) else ():
        arms = [arm for arm in first["arm"] if len(second) and arm in set(second["arm"])]
        fits = first[(first["trained_at_medium"] <= limit) & (first["arm"].isin(arms) if arms else True)]
        for row in fits.nsmallest(1, "gap").to_dict("records"):
            kept = {key: row[key] for key in ("arm", "trained_at_medium", "gap", "n")}
            rows.append({"within": limit, "stage": "exploratory", "corpus": row["corpus"]} | kept)
            for judged in second[second["arm"] == row["arm"]].to_dict("records") if len(second) else ():
                keys = "corpus arm trained_at_medium gap low high n within_5_% within_1_%".split()
                rows.append({"within": limit, "stage": "confirmed"} | {key: judged[key] for key in keys})
    return pd.DataFrame(rows)


def probed(runs: pd.DataFrame) -> pd.DataFrame:
    """Stage 1: what the probes say of each arm at its tuned rate; means over heads, losses in nats.

    `gap_on_repeats` is the part of the gap to the plain baseline that lies on tokens that end a bigram which stood
    earlier in the window, where attention can copy; these are `repeats` of all tokens. Of a gap of less than SMALL_GAP
    nats no parts are told.
    """
    table = explored(runs)
    if table.empty or "probes" not in runs:
        return pd.DataFrame()
    found = of_stage(runs, "stage1").dropna(subset="probes")
    found = table[["corpus", "arm", "learning_rate"]].merge(found, on=["corpus", "arm", "learning_rate"])
    plain = {run.corpus: run.probes for run in found.itertuples() if run.arm == PLAIN}
    rows = []
    for run in found.itertuples():
        here, there = run.probes, plain.get(run.corpus)
        row = {"corpus": run.corpus, "arm": run.arm} | {words: here[key] for key, words in PROBES.items()}
        if there and run.arm != PLAIN:
            parts = [here[f"share_of_{k}"] * (here[f"loss_on_{k}"] - there[f"loss_on_{k}"]) for k in SLICES]
            part = parts[0] / sum(parts) if abs(sum(parts)) > SMALL_GAP else math.nan
            row |= {"gap_on_repeats": part, "repeats": here[f"share_of_{SLICES[0]}"]}
        rows.append(row)
    return pd.DataFrame(rows)


def negative(runs: pd.DataFrame) -> pd.DataFrame:
    """Stage 1: arms that train or add something, and are no nearer to their baseline than the same Q/K, all frozen."""
    table = explored(runs)
    if table.empty:
        return table
    starts = {run.arm: (run.model.qk_init, run.model.qk_scale) for run in runs.itertuples()}
    keys = list(zip(table["corpus"], table["arm"].map(starts), strict=True))
    plain = table["arm"].isin(_frozen(runs))
    gaps = dict(zip([key for key, own in zip(keys, plain, strict=True) if own], table.loc[plain, "gap"], strict=True))
    others = ~plain & ~table["arm"].isin({PLAIN, *table["own"]})
    worse = table[others & (table["gap"] >= [gaps.get(key, math.nan) for key in keys])]
    return worse[["corpus", "arm", "gap_to_plain", "gap_to_own", "gap", "trained_at_medium", "n"]]


def follow_ups() -> pd.DataFrame:
    """The experiments at the log's size that follow those of the log, with the hours of training that each would take
    on one A5000 as busy as that of the log's GPT-01."""
    first = config.load_config("GPT-01")
    seconds = tables.recorded(first.id)["mean_step_seconds"].iloc[0]
    speed = step_flops(first.model, first.train.batch_size)["plain"] / seconds
    rows = []
    for exp in sorted(set(fnmatch.filter(config.experiment_ids(), "GPT-*")) - set(phase3()["experiments"])):
        cfg = config.load_config(exp)
        row = {"id": exp, "title": cfg.title, "question": cfg.question, "compared_to": cfg.compare_to}
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


def made_from(runs: pd.DataFrame) -> cards.Html:
    """How many records the page is made from, what code made them and what they cost."""
    if runs.empty:
        return cards.Html("<p>Made from 0 records: nothing has been run yet.</p>")
    counts = ", ".join(f"{name}: {count}" for name, count in Counter(runs["stage"]).items())
    commits = ", ".join(f"{commit[:7]} ({count})" for commit, count in Counter(runs["commit"].fillna("none")).items())
    hours = runs["wall_seconds"].sum() / 3600
    dirty = int(runs["dirty"].fillna(True).astype(bool).sum())
    text = f"Made from {len(runs)} records ({counts}), {hours:.1f} core-hours. Commits: {commits}"
    text += f"; {dirty} with uncommitted changes." if dirty else "."
    proofs = [proof["sha256_start"] == proof["sha256_end"] for run in runs["frozen"] for proof in run]
    return cards.Html(f"<p>{escape(text)} Frozen tensors unchanged in {sum(proofs)} of {len(proofs)} intervals.</p>")


def show(found: pd.DataFrame | list[str]) -> Any:
    """A table, or sentences, as the page shows them; or that there is nothing yet."""
    if not len(found):
        return cards.Html("<p>Not run yet.</p>")
    if isinstance(found, list):
        return cards.Html("".join(f"<p>{escape(sentence)}</p>" for sentence in found))
    return cards.table(found.drop(columns="own", errors="ignore"))


def plan() -> Any:
    """reports/study/plan.md as it stands below its title, its headings below those of the page."""
    from IPython.display import Markdown

    path = config.ROOT / "reports" / "study" / "plan.md"
    text = path.read_text(encoding="utf-8").partition("\n")[2] if path.is_file() else "Not written yet."
    return Markdown(re.sub(r"^#", "###", text, flags=re.MULTILINE))


def _shares(model: ModelConfig) -> dict[str, float]:
    return {"trained_at_medium": qk_share(medium(model)), "trained_here": qk_share(model)}


def _additions(run: pd.Series, runs: pd.DataFrame) -> set[str]:
    """Model keys, beside those of the start of W_q and W_k, in which an arm differs from the plain baseline."""
    plain = runs[runs["arm"] == PLAIN]
    if plain.empty:
        return {"unknown"}
    theirs = plain.iloc[0]["model"]
    return {key for key, value in run["model"] if value != getattr(theirs, key)} - START


def _frozen(runs: pd.DataFrame) -> set[str]:
    """Names of the arms that freeze all of Q and K, and add nothing."""
    firsts = [mine.iloc[0] for _, mine in runs.groupby("arm")]
    return {r["arm"] for r in firsts if r["model"].freeze_q and r["model"].freeze_k and not _additions(r, runs)}


def _within(interval: statistics.Interval) -> str:
    """Whether perplexity is the same within 1 %: yes, no, or not shown where the interval crosses a bound."""
    if statistics.equivalence(interval):
        return "yes"
    outside = interval.low > math.log1p(statistics.MARGIN) or interval.high < math.log1p(-statistics.MARGIN)
    return "no" if outside else "not shown"


def _judge(found: pd.DataFrame, mine: pd.DataFrame) -> pd.DataFrame:
    """The runs of the better baseline on validation."""
    bases = [found[found["arm"] == name] for name in dict.fromkeys((PLAIN, mine.iloc[0]["baseline"]))]
    return min((runs for runs in bases if len(runs)), key=lambda runs: runs["final_val_loss"].mean(), default=mine[:0])


def _paired(mine: pd.DataFrame, other: pd.DataFrame) -> tuple[pd.DataFrame, pd.DataFrame]:
    """Both arms' runs by the seeds they share."""
    one, two = mine.set_index("seed"), other.set_index("seed")
    shared = one.index.intersection(two.index)
    return one.loc[shared], two.loc[shared]


def _document_error(mine: pd.DataFrame, other: pd.DataFrame) -> float:
    """Bootstrap standard error of the difference over test documents, in nats per token."""
    documents = [[run["nats"] for run in side.get("test_documents", [])] for side in (mine, other)]
    if not documents[0]:
        return math.nan
    nats = np.mean(documents[0], axis=0) - np.mean(documents[1], axis=0)
    return statistics.bootstrap_documents(nats, np.array(mine["test_documents"].iloc[0]["tokens"]))
