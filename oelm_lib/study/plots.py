"""The study's figures, from runs.jsonl alone."""

import itertools
import math
from collections import Counter
from html import escape

import pandas as pd
import plotly.graph_objects as go

from oelm_lib.arms import arm_colours
from oelm_lib.study import confirmation, exploration, study
from oelm_lib.view import figure as base

NO_SHARE = 1e-4
"""Where an arm that trains nothing is drawn on the logarithmic axis."""
FAR = 30
"""Percent: larger gaps are drawn there, so that one arm that went astray does not flatten the others."""


def pareto(runs: pd.DataFrame) -> base.Figure:
    """Draw each arm's gap against the share of the Q/K path that it trains: grey stage 1, coloured stage 2."""
    first, second = exploration.explored(runs), confirmation.confirmed(runs)
    first = first[~first["arm"].isin({study.PLAIN, *first["own"]})] if len(first) else first
    panels = list(dict.fromkeys([*first.get("corpus", []), *second.get("corpus", [])]))
    notes = [
        "gap in perplexity to the better tuned baseline; share at Medium-512, 0 at the left edge"
    ]
    notes += ["grey: stage 1, one seed, validation; in colour: stage 2, test, with its interval"]
    notes += [f"a triangle at {FAR} %: a larger gap, told where the mouse is"]
    figure = base.new_figure("What is trained, and what it wins back", notes, panels, height=430)
    colours = arm_colours(second.get("arm", []))
    stages = ((first, False), (second, True))
    for (panel, corpus), (table, filled) in itertools.product(enumerate(panels, 1), stages):
        front, label, beside = math.inf, itertools.cycle(("top", "bottom")), Counter()
        mine = table[table["corpus"] == corpus] if len(table) else table
        order = ["trained_at_medium", "arm" if filled else "gap"]
        for row in mine.sort_values(order).to_dict("records") if len(mine) else ():
            front, named = min(front, row["gap"]), row["gap"] < front and not filled
            marker = {
                "size": 10,
                "color": colours.get(row["arm"], base.INK) if filled else base.INK,
            }
            y, bar = 100 * row["gap"], None
            marker["symbol"] = ("triangle-up" if y > FAR else "circle") + (
                "" if filled else "-open"
            )
            if filled and math.isfinite(row["low"]) and y <= FAR:
                bar = {
                    "array": [100 * row["high"] - y],
                    "arrayminus": [y - 100 * row["low"]],
                    "symmetric": False,
                }
            look = {
                "mode": "markers+text" if named else "markers",
                "text": [escape(row["arm"])],
                "showlegend": filled,
            }
            side = "left" if row["trained_at_medium"] > 0.3 else "right"
            look |= {
                "textposition": f"{next(label) if named else 'top'} {side}",
                "textfont_size": 11,
            }
            look["name"] = escape(row["arm"])
            share = max(row["trained_at_medium"], NO_SHARE)
            x = [share * 1.15 ** beside[share]]  # intervals of one share stand side by side
            beside[share] += filled
            hover = f"{escape(row['arm'])}<br>{row['trained_at_medium']:.2%} trained, gap {y:+.2f} %<extra></extra>"
            trace = go.Scatter(
                x=x,
                y=[round(min(y, FAR), 3)],
                error_y=bar,
                marker=marker,
                hovertemplate=hover,
                **look,
            )
            base.add(figure, panel, trace)
    for limit in (5, 1) if panels else ():
        text = {"annotation_text": f"{limit} %", "annotation_position": "bottom right"}
        figure.add_hline(y=limit, line={"dash": "dash", "width": 1.2, "color": base.INK}, **text)
    ticks = {
        "tickvals": [NO_SHARE, 1e-3, 1e-2, 1e-1, 1],
        "ticktext": ["0", "0.1 %", "1 %", "10 %", "100 %"],
    }
    figure.update_xaxes(
        type="log", range=[math.log10(NO_SHARE) - 0.15, 0.6], rangemode="normal", **ticks
    )
    figure.update_yaxes(title_text="gap in perplexity (%)")
    return base.title_x(figure, "trained share of the Q/K path")


def rate_curves(runs: pd.DataFrame) -> base.Figure:
    """Draw validation loss over the peak learning rate; in colour the arms tried at four or more rates on a corpus."""
    first = study.of_stage(runs, "stage1")
    panels = list(first["corpus"].unique())
    notes = [
        "in colour: arms tried at four or more rates on a corpus; grey: the others, named where the mouse is"
    ]
    figure = base.new_figure("Learning rates", notes, panels, height=400)
    lines = {
        key: mine.groupby("learning_rate")["final_val_loss"].mean()
        for key, mine in first.groupby(["corpus", "arm"], sort=False)
    }
    colours = arm_colours(shown := {arm for (_, arm), losses in lines.items() if len(losses) > 3})
    for (corpus, arm), losses in sorted(lines.items(), key=lambda item: item[0][1] in shown):
        many = arm in shown
        line = {"color": colours[arm] if many else base.INK, "width": 2.2 if many else 1}
        look = {
            "mode": "lines+markers",
            "name": escape(arm),
            "showlegend": many,
            "opacity": 1 if many else 0.45,
        }
        points = {
            "x": list(losses.index),
            "y": losses.round(5).tolist(),
            "marker_size": 7 if many else 4,
        }
        hover = f"{escape(arm)}<br>%{{y:.4f}} at %{{x:.3g}}<extra></extra>"
        trace = go.Scatter(**points, **look, line=line, hovertemplate=hover)
        base.add(figure, panels.index(corpus) + 1, trace)
    tried = sorted(set(first["learning_rate"]))
    figure.update_xaxes(
        type="log", rangemode="normal", tickvals=tried, ticktext=[f"{rate:g}" for rate in tried]
    )
    figure.update_yaxes(title_text="val_loss (nats per token)")
    return base.title_x(figure, "peak learning rate")
