"""What `oelm bench` measured, as a table and figures: speed and memory of the training step."""

import json
from itertools import product
from pathlib import Path
from statistics import median
from typing import Any

import pandas as pd
import plotly.graph_objects as go

from oelm_lib import config
from oelm_lib.arms import COLOURS, OTHERS
from oelm_lib.view import figure as base

STEPS = {
    "baseline": ("baseline", COLOURS["baseline"]),
    "oelm_freeze": ("OELM-Freeze", COLOURS["OELM-Freeze"]),
    "naive_script": ("naive attention", OTHERS[1]),
    "naive": ("naive attention, memory kept", OTHERS[1]),
    "hf_gpt2_script": ("Hugging Face GPT-2", OTHERS[2]),
    "hf_gpt2": ("Hugging Face GPT-2, memory kept", OTHERS[2]),
}
"""What a bench times; `memory kept`: with our setting of glibc, which keeps what is freed."""
PARTS = ("data", "forward", "backward", "optimizer", "evaluation")
GROWS = ("d_model", "num_layers", "max_seq_len", "vocab_size", "batch_size")
"""Sizes that a bench halves and doubles; heads and d_ff go with d_model."""
RATIOS = {"seconds": "time_measured", "fast_flops": "time_predicted"}
RATIOS |= {"peak_bytes": "memory_measured", "predicted_bytes": "memory_predicted"}


def load(folder: Path | str = "") -> list[dict[str, Any]]:
    """Results of `oelm bench` in a folder (default: the outputs folder), in the order of their names."""
    path = Path(folder) if folder else config.outputs_dir()
    return [json.loads(file.read_text()) for file in sorted(path.glob("bench_*.json"))]


def name(result: dict[str, Any]) -> str:
    """Size, dropout and threads of a result."""
    return f"{result['size']}, dropout {result['dropout']:g}, threads: {result['threads']} ({result['clock']} time)"


def summary(results: list[dict[str, Any]]) -> pd.DataFrame:
    """One column a result: ratios as median over rounds +- its standard error, and how they were measured."""
    columns = {}
    for result in results:
        faster, saves, peaks = (
            result["speed_up_over"],
            result["freezing_saves"],
            result["peak_bytes"],
        )
        close, apart = (result["seconds"][key] for key in ("close", "apart"))
        row = {"step seconds": f"{median(close['baseline']):.3f}"}
        for key in ("hf_gpt2_script", "hf_gpt2", "naive_script", "naive"):
            row[f"faster than {STEPS[key][0]}"] = (
                f"{faster[key]['ratio']:.3f} +- {faster[key]['standard_error']:.3f}"
            )
        row["share of the GEMM limit"] = f"{result['share_of_gemm_limit']:.1%}"
        row["freezing saves"] = f"{saves['measured']:.2%} +- {saves['standard_error']:.2%}"
        row["of the FLOPs"] = f"{saves['of_flops']:.2%}"
        row["evaluation over training tokens/s"] = f"{result['evaluation_over_training']:.2f}"
        row["peak MiB"] = f"{peaks['baseline'] / 2**20:,.1f}"
        row["predicted MiB"] = f"{result['predicted_bytes']['peak'] / 2**20:,.1f}"
        row["peak over Hugging Face"] = f"{peaks['baseline'] / peaks['hf_gpt2']:.1%}"
        row["freezing lowers the peak MiB"] = (
            f"{(peaks['baseline'] - peaks['oelm_freeze']) / 2**20:,.1f}"
        )
        row["rounds"] = f"{len(close['baseline'])}, others {len(apart['baseline'])}"
        columns[name(result)] = row | {"load average": f"{result['load_average']:.1f}"}
    return pd.DataFrame(columns).rename_axis("what").reset_index()


def steps(results: list[dict[str, Any]]) -> base.Figure:
    """Draw the seconds of every round of every step, and the time of its matrix products alone."""
    figure = base.new_figure(
        "Seconds of a step", ["a point a round"], [name(r) for r in results], height=300
    )
    for row, result in enumerate(results, 1):
        rounds = result["seconds"]["apart"] | result["seconds"]["close"]
        for key, (label, colour) in STEPS.items():
            look = {
                "boxpoints": "all",
                "jitter": 0.5,
                "pointpos": 0,
                "marker": {"size": 4, "color": colour},
            }
            look |= {
                "line": {"color": colour, "width": 1.2},
                "fillcolor": "rgba(0,0,0,0)",
                "showlegend": False,
            }
            base.add(
                figure,
                row,
                go.Box(x=[round(x, 4) for x in rounds[key]], name=label, orientation="h", **look),
            )
        text = {"annotation_text": "matrix products alone", "annotation_position": "bottom left"}
        line = {"dash": "dash", "width": 1.2, "color": base.INK}
        figure.add_vline(x=result["gemm_limit_seconds"], row=row, col=1, line=line, **text)
    return base.title_x(figure, "seconds").update_yaxes(autorange="reversed")


def parts(results: list[dict[str, Any]]) -> base.Figure:
    """Draw where a step's seconds go, and what evaluating as many tokens takes."""
    notes = ["medians; evaluation: of as many tokens as a step trains on"]
    figure = base.new_figure("Parts of a step", notes, [name(r) for r in results], height=220)
    for row, result in enumerate(results, 1):
        seconds = [result["parts_seconds"][part] for part in PARTS]
        bar = go.Bar(
            x=seconds,
            y=list(PARTS),
            orientation="h",
            marker_color=COLOURS["baseline"],
            showlegend=False,
        )
        base.add(
            figure,
            row,
            bar.update(
                text=[f"{value:.3g} s" for value in seconds],
                textposition="outside",
                cliponaxis=False,
            ),
        )
    return base.title_x(figure, "seconds").update_yaxes(autorange="reversed")


def growth(results: list[dict[str, Any]]) -> base.Figure:
    """Draw how time and memory of a step grow with each size: measured, and predicted from FLOPs and bytes."""
    grown = [result for result in results if result["growth"]]
    notes = [
        "over the bench's size, d_ff and heads as d_model; time is predicted by the FLOPs of the fast path"
    ]
    panels = [f"{what}: {name(result)}" for result in grown for what in GROWS]
    figure = base.new_figure("Growth, measured and predicted", notes, panels, height=210)
    kinds = (
        ("time", "seconds", "fast_flops", COLOURS["OELM-Freeze"]),
        ("memory", "peak_bytes", "predicted_bytes", COLOURS["OELM-Random"]),
    )
    for row, (result, what) in enumerate(product(grown, GROWS), 1):
        rows = pd.DataFrame(result["growth"])
        mine = rows[rows["what"] == what]
        for label, measured, predicted, colour in kinds:
            for column, text, look in (
                (
                    measured,
                    f"{label}, measured",
                    {"mode": "markers", "marker": {"size": 9, "color": colour}},
                ),
                (
                    predicted,
                    f"{label}, predicted",
                    {"mode": "lines", "line": {"color": colour, "dash": "dash"}},
                ),
            ):
                y = (mine[column] / mine[column].iloc[1]).round(4).tolist()
                base.add(
                    figure,
                    row,
                    go.Scatter(
                        x=mine["value"].tolist(), y=y, name=text, showlegend=row == 1, **look
                    ),
                )
        ticks = {
            "tickvals": mine["value"].tolist(),
            "ticktext": [f"{value:,}" for value in mine["value"]],
        }
        figure.update_xaxes(row=row, col=1, type="log", rangemode="normal", **ticks)
    return figure.update_yaxes(type="log", tickvals=[0.25, 0.5, 1, 2, 4], title_text="times")


def predictions(results: list[dict[str, Any]]) -> pd.DataFrame:
    """The figure of growth as a table: each value's time and memory over those at the bench's size."""
    tables = []
    for result in results:
        rows = pd.DataFrame(result["growth"], columns=["what", "value", *RATIOS])
        middle = rows.groupby("what", sort=False).nth(1).set_index("what")
        shown = {
            new: (rows[old] / rows["what"].map(middle[old])).map("{:.3f}".format)
            for old, new in RATIOS.items()
        }
        error = (rows["predicted_bytes"] / rows["peak_bytes"] - 1).map("{:+.1%}".format)
        tables.append(
            rows[["what", "value"]].assign(bench=name(result), **shown, predicted_bytes_off=error)
        )
    return pd.concat(tables) if tables else pd.DataFrame()
