"""Tables behind a study's answer, folded on its page; its first table as Markdown, for a README."""

import math
from html import escape

import pandas as pd

from oelm_lib import stats
from oelm_lib.markup import Html, fold
from oelm_lib.study.cell import Cell
from oelm_lib.study.grid import Grid
from oelm_lib.study.page import status_line
from oelm_lib.study.plan import plans_folder
from oelm_lib.study.study import Study
from oelm_lib.study.tuning import NO_STABLE_RATE, stable_means
from oelm_lib.study.verdicts import Judgement, unstable_reason
from oelm_lib.units import format_millions
from oelm_lib.view.gaps import interval_text, percent
from oelm_lib.view.tables import plain_table


def claims_table(study: Study) -> pd.DataFrame:
    """Tabulate every claim on every corpus, one row per limit."""
    rows = []
    for judgement in study.judgements:
        for limit in judgement.limits:
            interval = judgement.interval
            rows.append(
                {
                    "corpus": judgement.corpus,
                    "arm": judgement.name,
                    "against": judgement.other,
                    "claim": limit.text,
                    "gap [interval]": interval_text(interval),
                    "verdict": limit.verdict,
                    "seeds": f"{judgement.ended} of {judgement.planned_text}",
                    "to decide": limit.to_decide,
                    "family (k)": f"{judgement.claim.family} ({interval.k})",
                    "trained share": judgement.trained_share,
                    "sd, nats": interval.sd,
                    "document error, nats": interval.document_error,
                }
            )
    return pd.DataFrame(rows)


def tuning_table(study: Study) -> pd.DataFrame:
    """Tabulate the fitted learning rate of each cell with tuning runs, and what was confirmed."""
    rows = []
    for cell in sorted(study.grid.cells, key=str):
        points = study.grid.tuning_points(cell)
        tried, stable = {rate for rate, _, _ in points}, stable_means(points)
        fit = study.grid.fit(cell)
        runs = study.grid.confirmation_records(cell)
        interval = f"[{fit.low:.2e}, {fit.high:.2e}]" if math.isfinite(fit.low) else "unbounded"
        rows.append(
            {
                "corpus": cell.corpus,
                "size": cell.size,
                "arm": cell.arm,
                "state": _tuning_state(study.grid, cell),
                "rate": fit.rate and f"{fit.rate:.2e}",
                "95 % interval": interval,
                "its error costs, nats": fit.error,
                "loss at the minimum": fit.loss,
                "confirmed minus fitted loss": _confirmed_minus_fitted(study.grid, cell),
                "rates tried": len(tried),
                "not stable": ", ".join(f"{rate:g}" for rate in sorted(tried - set(stable))),
                "confirmed at": f"{runs[0].rate:.2e}" if runs else "",
            }
        )
    return pd.DataFrame(rows)


def _tuning_state(grid: Grid, cell: Cell) -> str:
    if not grid.is_tuned(cell):
        return "not ended"
    return f"{grid.fit(cell).state}, imprecise" if grid.is_imprecise(cell) else grid.fit(cell).state


def _confirmed_minus_fitted(grid: Grid, cell: Cell) -> float:
    """Return the mean validation loss of a cell's confirmation runs minus its fitted loss."""
    records = grid.confirmation_records(cell)
    losses = [loss for record in records if (loss := record.loss("val")) is not None]
    return sum(losses) / len(losses) - grid.fit(cell).loss if losses else math.nan


def ladder_table(study: Study) -> pd.DataFrame:
    """Tabulate the gap at each size, and the slope's verdict."""
    return pd.DataFrame(
        {
            "corpus": slope.corpus,
            "arm": slope.arm,
            "against": slope.baseline,
            "million parameters": ", ".join(
                format_millions(size_gap.parameters) for size_gap in slope.sizes
            ),
            **{
                f"gap, {size_gap.size}": interval_text(size_gap.interval)
                for size_gap in slope.sizes
            },
            "change per decade": interval_text(slope.interval),
            "verdict": slope.verdict,
            "seeds": f"{slope.interval.pairs} of {slope.planned} seeds{slope.late_mark}",
            "to decide": slope.to_decide,
        }
        for slope in study.slopes
    )


def exploration_table(study: Study) -> pd.DataFrame:
    """Tabulate tuned gaps on validation, the smallest first: no interval, no claim.

    Of all arms with a baseline, on the first corpus, at the fitted minima; those without a gap are
    last.
    """
    plan = study.plan
    arms = {name: arm for name, arm in plan.arms.items() if arm.against}
    nats = {name: study.grid.tuned_gap(name, plan.corpora[0]) for name in arms}
    order = sorted(nats, key=lambda name: nats[name] if _is_finite(nats[name]) else math.inf)
    return pd.DataFrame(
        {
            "arm": name,
            "against": arms[name].against,
            "tuned gap (validation)": _tuned_gap_text(nats[name]),
            "trained share": plan.trained_share(name),
            "what it is": arms[name].about,
        }
        for name in order
    )


def _is_finite(nats: float | None) -> bool:
    return nats is not None and math.isfinite(nats)


def _tuned_gap_text(nats: float | None) -> str:
    """Return the gap of Grid.tuned_gap, or why there is none."""
    if nats is None:
        return "not run yet"
    return percent(stats.gap(nats)) if math.isfinite(nats) else NO_STABLE_RATE


def measured_table(study: Study) -> pd.DataFrame:
    """Tabulate what else confirmed runs show: perplexity, logit std, freeze proofs."""
    rows = []
    for cell in sorted(study.grid.cells, key=str):
        runs = study.grid.confirmation_records(cell)
        losses = [loss for loss in study.grid.confirmed_losses(cell).values() if loss is not None]
        if not losses:
            continue
        spreads = [max(run.logit_std) for run in runs if run.logit_std]
        proofs = [run.frozen_unchanged for run in runs if run.frozen_unchanged is not None]
        rows.append(
            {
                "corpus": cell.corpus,
                "size": cell.size,
                "arm": cell.arm,
                "seeds": _of(len(losses), len(runs)),
                "perplexity": f"{math.exp(sum(losses) / len(losses)):.2f}",
                "sd of loss, nats": pd.Series(losses).std(),
                "largest logit std": f"{max(spreads):.2f}" if spreads else "",
                "frozen tensors unchanged": f"{sum(proofs)} of {len(proofs)}" if proofs else "",
            }
        )
    return pd.DataFrame(rows)


def _of(count: int, whole: int) -> str:
    """Return a count, and the whole where that is more: `7 of 8`."""
    return f"{count}" if count == whole else f"{count} of {whole}"


def provenance_table(study: Study) -> pd.DataFrame:
    """Tabulate what the records were made with: code, plan, machine, hours."""
    rows = []
    for record in study.grid.records:
        machine = record.machine
        commit = str(record.code.get("commit"))[:10]
        rows.append(
            {
                "commit": f"{commit} (changed)" if record.code.get("dirty") else commit,
                "plan": record.plan,
                "torch": machine.get("torch"),
                "CPU": machine.get("cpu"),
                "device": machine.get("device_name"),
                "precision": machine.get("precision"),
                "instructions": machine.get("instructions"),
                "preload": machine.get("preload") or None,
                "hours": record.seconds / 3600,
            }
        )
    if not rows:
        return pd.DataFrame()
    keys = [key for key in rows[0] if key != "hours"]
    grouped = pd.DataFrame(rows).groupby(keys, sort=False, dropna=False)["hours"]
    table = grouped.agg(["count", "sum"]).reset_index()
    table["sum"] = table["sum"].map("{:.2f}".format)
    return table.rename(columns={"count": "runs", "sum": "hours, wall time"})


def corpora_table(study: Study) -> pd.DataFrame:
    """Tabulate the token files that were read."""
    rows = {}
    for record in study.grid.records:
        for split, facts in record.data["splits"].items():
            rows[record.corpus, split] = {
                "corpus": record.corpus,
                "tokenizer": record.data["tokenizer"],
                "split": split,
                "documents": facts["documents"],
                "tokens": facts["tokens"],
                "SHA-256 of the token file": facts["sha256"][:16],
            }
    return pd.DataFrame(list(rows.values()))


def plan_text(study: Study) -> Html:
    """Return the text of the plan's file."""
    text = (plans_folder() / f"{study.name}.yaml").read_text(encoding="utf-8")
    return Html(f"<pre>{escape(text)}</pre>")


def details(study: Study) -> Html:
    """Return everything behind the answer, folded."""
    size = "Size of the model; the interval of one size is a 95 % interval"
    explored = "Exploration: tuned gaps on validation, one corpus, no claim"
    parts = (
        fold("All claims", _html(claims_table(study))),
        fold("Tuned learning rates", _html(tuning_table(study))),
        fold(size, _html(ladder_table(study))) if study.plan.ladder else "",
        fold(explored, _html(exploration_table(study))),
        fold("Measured beside the loss", _html(measured_table(study))),
        fold("The plan", plan_text(study)),
        fold("Code and corpora", _html(provenance_table(study)), _html(corpora_table(study))),
    )
    return Html("".join(parts))


def _html(frame: pd.DataFrame) -> Html:
    """Return a frame as a table, or a line where it is empty."""
    if frame.empty:
        return Html("<p>Not run yet.</p>")
    return Html(f"<div style='overflow-x:auto'>{plain_table(frame)}</div>")


def markdown_table(study: Study) -> str:
    """Return the main comparisons down, corpora across, and below how much is answered.

    Comparisons and corpora without a confirmation run are left out. `oelm study NAME --table`
    prints it; a test fails where README holds another one.
    """
    corpora, table = study.main_table()
    if not table:
        return "No claim has a confirmation run yet."
    rows = [["comparison", *corpora], ["---"] * (1 + len(corpora))]
    for row in table:
        first = next(judgement for judgement in row if judgement)
        rows.append([f"{first.arm} against {first.against}", *map(_cell, row)])
    return "\n".join([*(f"| {' | '.join(row)} |" for row in rows), "", status_line(study)])


def _cell(judgement: Judgement | None) -> str:
    """Return the gap, interval, seeds so far and verdicts of a claim on one corpus."""
    if judgement is None:
        return "–"
    if not judgement.is_begun:
        return "not run yet"
    interval, seeds = judgement.interval, f"{_of(judgement.ended, judgement.planned)} seeds"
    count = seeds if judgement.ended else unstable_reason(interval)
    words = {verdict: f"**{verdict}**" for verdict in (stats.PASS, stats.FAIL, stats.YES, stats.NO)}
    verdicts = [
        f"{limit.short_text}: {words.get(limit.verdict, limit.verdict)}"
        for limit in judgement.limits
    ]
    return f"{interval_text(interval)}, {count}{judgement.late_mark}; {'; '.join(verdicts)}"
