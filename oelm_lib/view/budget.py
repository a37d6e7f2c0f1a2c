"""Where the wall time of runs went: table and figure."""

import math

import numpy as np
import pandas as pd
import plotly.graph_objects as go

from oelm_lib.runs.names import arm_id
from oelm_lib.view.figure import Figure, add_trace, new_figure

PARTS = {
    "step": "#5a6b7d",
    "evaluation": "#cfa640",
    "final_evaluation": "#e4cf93",
    "data": "#8a5a83",
    "saving": "#79aea6",
    "setup": "#a9b0b7",
    "compile": "#b5658a",
    "other": "#d3d7db",
    "page": "#b98f6d",
}
"""Part of the time -> colour; no colour of an arm among them."""
COUNTED = tuple(part for part in PARTS if part not in ("other", "page"))
"""Parts that are measured within the run's wall time; `other` is the rest, `page` comes after."""
UNITS = (("hours", 3600), ("minutes", 60), ("seconds", 1))


def time_budget_table(runs: pd.DataFrame) -> pd.DataFrame:
    """Return the seconds of each run that has `wall_seconds` by what they went to.

    The parts sum to `wall_seconds`, the time of the run; `page`, the time of its page, is apart.

    Args:
        runs: Frame of load_runs, in which done runs have them.
    """
    rows = []
    for run in runs[runs["wall_seconds"].notna()].itertuples():
        spent = run.timing.get("budget") or _recorded_parts(run)
        parts = {part: spent.get(part, math.nan) for part in PARTS}
        counted = np.nansum([parts[part] for part in COUNTED])
        rows.append(
            {
                "id": arm_id(run.variant),
                "arm": run.arm,
                "corpus": run.corpus,
                "seed": run.seed,
                "run": run.run,
                "source": run.source,
                "wall_seconds": run.wall_seconds,
                **parts,
                "other": max(run.wall_seconds - counted, 0.0),
            }
        )
    return pd.DataFrame(rows)


def time_budget(runs: pd.DataFrame) -> Figure:
    """Draw where the wall time of each run of time_budget_table went.

    Args:
        runs: Frame of load_runs.
    """
    table = time_budget_table(runs)
    longest = table["wall_seconds"].max() if len(table) else 0
    unit, seconds = next((entry for entry in UNITS if longest > 2 * entry[1]), UNITS[-1])
    notes = [
        "a bar is the wall time of a run; the time of its page, afterwards, is added at its end"
    ]
    panels = [] if table.empty else ["all"]
    figure = new_figure("Where the time went", notes, panels, height=40 + 24 * max(len(table), 6))
    figure.update_layout(barmode="stack", bargap=0.3, legend_traceorder="normal")
    figure.update_xaxes(title_text=unit)
    figure.update_yaxes(autorange="reversed", showgrid=False)
    if table.empty:
        return figure
    names = [f"{row.id} · {row.seed:.0f}" for row in table.itertuples()]
    for part, colour in PARTS.items():
        bar = go.Bar(
            x=(table[part].fillna(0) / seconds).round(5).tolist(),
            y=names,
            name=part.replace("_", " "),
            orientation="h",
            marker_color=colour,
        )
        add_trace(figure, 1, bar)
    return figure


def _recorded_parts(run: object) -> dict[str, float]:
    """Return the parts that the log's results tell."""
    return {
        "step": run.mean_step_seconds * run.steps,
        "evaluation": run.timing.get("total_validation_time", math.nan),
    }
