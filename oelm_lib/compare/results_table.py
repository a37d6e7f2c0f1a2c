"""The results table: one row per arm. A new column is one line of COLUMNS."""

import math
from collections.abc import Callable, Sequence
from operator import attrgetter
from typing import Any, NamedTuple

import pandas as pd

from oelm_lib.compare.first_screen import verdict_cards, warning_list
from oelm_lib.compare.pairs import METRIC, comparable
from oelm_lib.compare.verdict import Verdict, judge
from oelm_lib.config import load_config
from oelm_lib.markup import Html, fold
from oelm_lib.runs.frames import RECORDED, recorded
from oelm_lib.runs.names import arm_id
from oelm_lib.units import perplexity
from oelm_lib.view.gaps import gap_text
from oelm_lib.view.tables import table

LOG = (
    "The log is an earlier experiment log (GPT-01..07), made by other code on other machines with"
    " one seed each. Gaps are computed from its perplexities."
)


class ArmRuns(NamedTuple):
    """An arm, from which its row of the table is computed.

    Attributes:
        runs: All its runs, rows of load_runs.
        done: Those of them that have a loss.
        verdict: None for a baseline.
    """

    runs: pd.DataFrame
    done: pd.DataFrame
    verdict: Verdict | None

    def text(self, column: str) -> Any:
        """Return the first text in a column; None where no run has one."""
        return next((value for value in self.runs[column] if isinstance(value, str)), None)

    def mean(self, column: str) -> float:
        """Return the mean of a column over the done runs."""
        return self.done[column].mean()

    def verdict_value(self, name: str) -> Any:
        """Return an attribute of the verdict, e.g. `interval.gap`; nan without one."""
        return attrgetter(name)(self.verdict) if self.verdict else math.nan

    def rates(self) -> float | str:
        """Return the peak learning rate; all of them where the runs have several."""
        known = self.runs["experiment"].dropna()
        rates = sorted({experiment.optim.learning_rate for experiment in known})
        return rates[0] if len(rates) == 1 else ", ".join(f"{rate:g}" for rate in rates)


COLUMNS: dict[str, Callable[[ArmRuns], Any]] = {
    "corpus": lambda arm: arm.text("corpus"),
    "tokenizer": lambda arm: arm.text("tokenizer"),
    "arm": lambda arm: arm.text("arm"),
    "id": lambda arm: arm_id(arm.runs.iloc[0].variant),
    "n": lambda arm: len(arm.done),
    "final_val_perplexity": lambda arm: perplexity(arm.mean(METRIC)),
    "gap": lambda arm: arm.verdict_value("interval.gap"),
    "low": lambda arm: arm.verdict_value("interval.gap_low"),
    "high": lambda arm: arm.verdict_value("interval.gap_high"),
    "gap_n": lambda arm: arm.verdict_value("interval.n"),
    "verdict": lambda arm: arm.verdict_value("verdict"),
    "baseline": lambda arm: arm.verdict_value("baseline"),
    "learning_rate": ArmRuns.rates,
    "wall_seconds": lambda arm: arm.mean("wall_seconds"),
    "mean_step_seconds": lambda arm: arm.mean("mean_step_seconds"),
    "best_val_perplexity": lambda arm: perplexity(arm.mean("best_val_loss")),
    "best_val_loss": lambda arm: arm.mean("best_val_loss"),
    "final_val_loss": lambda arm: arm.mean("final_val_loss"),
    "final_bits_per_byte": lambda arm: arm.mean("final_bits_per_byte"),
    "source": lambda arm: arm.text("source"),
    "reason": lambda arm: "; ".join(dict.fromkeys(filter(None, arm.runs["reason"]))),
}


def results(runs: pd.DataFrame, verdicts: Sequence[Verdict]) -> pd.DataFrame:
    """Return the final numbers of each arm: means over its done runs, and its verdict.

    `gap`, `low` and `high` are those of the verdict, over the `gap_n` seeds shared with `baseline`.
    Where a corpus was read with two tokenizers, only bits per byte can be compared, and losses and
    perplexities are left empty.

    Args:
        runs: Frame of load_runs.
        verdicts: What judge returns of them.
    """
    verdict_of = {(verdict.source, verdict.variant): verdict for verdict in verdicts}
    rows = []
    for key, group in runs.groupby(["source", "variant"], sort=False):
        arm = ArmRuns(group, comparable(group), verdict_of.get(key))
        rows.append({column: value(arm) for column, value in COLUMNS.items()})
    frame = pd.DataFrame(rows, columns=list(COLUMNS))
    mixed = frame.groupby("corpus")["tokenizer"].transform("nunique") > 1
    losses = [column for column in frame if column.endswith(("_loss", "_perplexity"))]
    frame.loc[mixed, losses] = math.nan
    return frame.sort_values(["source", "corpus"], kind="stable", ignore_index=True)


def show_results(runs: pd.DataFrame, verdicts: Sequence[Verdict]) -> Html:
    """Return the results as a page shows them: the main ones, and below them all columns, folded.

    Args:
        runs, verdicts: Arguments of results.
    """
    frame = results(runs, verdicts)
    main = pd.DataFrame([_main_row(row) for row in frame.to_dict("records")])
    baselines = set(frame["baseline"].dropna())
    if len(baselines) == 1:
        main = main.drop(columns="baseline").rename(columns={"gap": f"gap to {baselines.pop()}"})
    everything = fold("All columns", table(frame.drop(columns="reason")))
    return Html(table(main) + everything)


def show_recorded(exps: str | None = None) -> Html:
    """Return the section on what the log recorded of these experiments; "" where it has none.

    Args:
        exps: Ids or globs; their baselines are added.
    """
    ids = set(recorded(exps)["id"])
    if not ids:
        return Html("")
    log = recorded([*ids, *filter(None, (load_config(exp).compare_to for exp in ids))])
    verdicts = judge(log)
    parts = [verdict_cards(verdicts), warning_list(log), show_results(log, verdicts)]
    return Html(f"<h2>Recorded in the log</h2><p>{LOG}</p>{''.join(parts)}")


def _count(row: dict[str, Any]) -> Any:
    """Return the number of done runs, and beside it that of the paired ones where it is less."""
    paired = row["gap_n"]
    return f"{row['n']} ({paired:.0f} paired)" if paired and paired < row["n"] else row["n"]


def _main_row(row: dict[str, Any]) -> dict[str, Any]:
    """Return a row of results in the few columns that fit a page.

    The perplexity of a recorded run is called what it is: the best of many evaluations.
    """
    return {
        "corpus": row["corpus"],
        "arm": f"{row['arm']} ({row['id']})",
        "n": _count(row),
        "perplexity": row["final_val_perplexity"],
        "perplexity_of": (
            "best of its evaluations" if row["source"] == RECORDED else "last weights"
        ),
        "gap": gap_text(row["gap"], row["low"], row["high"]) if pd.notna(row["gap"]) else "",
        "verdict": row["verdict"],
        "baseline": row["baseline"],
        "time": row["wall_seconds"],
    }
