"""Table and figures of what `oelm bench` measured on a CPU."""

from itertools import product
from pathlib import Path
from statistics import median
from typing import Any

import pandas as pd
import plotly.graph_objects as go

from oelm_lib import config
from oelm_lib.arms import COLOURS, FAMILY_COLOURS
from oelm_lib.files import read_json
from oelm_lib.view.figure import INK, Figure, add_trace, new_figure, title_x

NAIVE, HUGGING_FACE = FAMILY_COLOURS[1:3]
STEPS = {
    "baseline": ("baseline", COLOURS["baseline"]),
    "oelm_freeze": ("OELM-Freeze", COLOURS["OELM-Freeze"]),
    "naive_script": ("naive attention", NAIVE),
    "naive": ("naive attention, memory kept", NAIVE),
    "hf_gpt2_script": ("Hugging Face GPT-2", HUGGING_FACE),
    "hf_gpt2": ("Hugging Face GPT-2, memory kept", HUGGING_FACE),
}
"""Step -> label, colour. "memory kept": in our process, whose allocator keeps freed memory."""
PARTS = ("data", "forward", "backward", "optimizer", "evaluation")
GROWS = ("d_model", "num_layers", "max_seq_len", "vocab_size", "batch_size")
"""Sizes that a bench halves and doubles; heads and d_ff follow d_model."""
MIB = 2**20


def load_results(folder: Path | str = "", pattern: str = "bench_*.json") -> list[dict[str, Any]]:
    """Read the results in a folder, by name; default: those of `oelm bench` in the outputs."""
    path = Path(folder or config.outputs_dir())
    return [read_json(file) for file in sorted(path.glob(pattern))]


def setting(result: dict[str, Any]) -> str:
    """Return the size, dropout, threads and clock of a result."""
    threads = f"threads: {result['threads']} ({result['clock']} time)"
    return f"{result['size']}, dropout {result['dropout']:g}, {threads}"


def summary(results: list[dict[str, Any]]) -> pd.DataFrame:
    """Tabulate the measurements: one row per quantity, one column per result."""
    columns = {setting(result): _summary(result) for result in results}
    return pd.DataFrame(columns).rename_axis("what").reset_index()


def _summary(result: dict[str, Any]) -> dict[str, str]:
    faster, peaks = result["speed_up_over"], result["peak_bytes"]
    frozen = result["frozen_over_baseline"]
    lower = peaks["baseline"] - peaks["oelm_freeze"]
    others = ("hf_gpt2_script", "hf_gpt2", "naive_script", "naive")
    return {
        "seconds of a step": f"{median(result['seconds']['baseline']):.3f}",
        **{f"faster than {STEPS[key][0]}": _ratio(faster[key]) for key in others},
        "share of the limit of its matrix products": f"{result['share_of_gemm_limit']:.1%}",
        "OELM-Freeze over baseline, seconds": _ratio(frozen),
        "OELM-Freeze over baseline, FLOPs": f"{1 - result['flops_saved_by_freezing']:.3f}",
        "evaluation over training, tokens/s": f"{result['evaluation_over_training']:.2f}",
        "peak MiB": f"{peaks['baseline'] / MIB:,.1f}",
        "peak MiB, predicted": f"{result['predicted_bytes']['peak'] / MIB:,.1f}",
        "peak over Hugging Face's": f"{peaks['baseline'] / peaks['hf_gpt2']:.1%}",
        "peak of OELM-Freeze lower by MiB": f"{lower / MIB:,.1f}",
        "rounds": str(len(result["seconds"]["baseline"])),
        "load average": f"{result['load_average']:.1f}",
    }


def _ratio(measured: dict[str, float]) -> str:
    """Return the ratio with its standard error, to the digits that the error leaves."""
    error = measured["standard_error"]
    digits = 3 if error < 0.005 else 2
    return f"{measured['ratio']:.{digits}f} ± {error:.{digits}f}"


def step_seconds(results: list[dict[str, Any]]) -> Figure:
    """Draw the seconds of every round, and the time of the matrix products alone."""
    names = [setting(result) for result in results]
    notes = ["one point per round; dashed: the matrix products alone"]
    figure = new_figure("Seconds of a step", notes, names, height=300)
    for row, result in enumerate(results, 1):
        for key, (label, colour) in STEPS.items():
            box = go.Box(
                x=[round(seconds, 4) for seconds in result["seconds"][key]],
                name=label,
                orientation="h",
                boxpoints="all",
                jitter=0.5,
                pointpos=0,
                marker={"size": 4, "color": colour},
                line={"color": colour, "width": 1.2},
                fillcolor="rgba(0,0,0,0)",
                showlegend=False,
            )
            add_trace(figure, row, box)
        figure.add_vline(
            x=result["gemm_limit_seconds"],
            row=row,
            col=1,
            line={"dash": "dash", "width": 1.2, "color": INK},
        )
    return title_x(figure, "seconds").update_yaxes(autorange="reversed")


def parts(results: list[dict[str, Any]]) -> Figure:
    """Draw the median seconds of a step's parts, and of evaluating as many tokens."""
    notes = ["medians; evaluation: of as many tokens as a step trains on"]
    names = [setting(result) for result in results]
    figure = new_figure("Parts of a step", notes, names, height=220)
    for row, result in enumerate(results, 1):
        seconds = [result["parts_seconds"][part] for part in PARTS]
        bar = go.Bar(
            x=seconds,
            y=list(PARTS),
            orientation="h",
            marker_color=COLOURS["baseline"],
            showlegend=False,
            text=[f"{value:.3g} s" for value in seconds],
            textposition="outside",
            cliponaxis=False,
        )
        add_trace(figure, row, bar)
        room = 1.25 * max(seconds)  # for the numbers beside the bars
        figure.update_xaxes(range=[0, room], row=row, col=1)
    return title_x(figure, "seconds").update_yaxes(autorange="reversed")


def growth(results: list[dict[str, Any]]) -> Figure:
    """Draw time and memory of a step over each size: measured, and predicted by the cost model."""
    grown = [result for result in results if result["growth"]]
    notes = ["relative to the bench's size; bars: all rounds; predicted time: FLOPs"]
    panels = [  # the first table of the page names the setting of a single result
        what if len(results) == 1 else f"{what}: {setting(result)}"
        for result in grown
        for what in GROWS
    ]
    figure = new_figure("Growth, measured and predicted", notes, panels, height=210)
    for row, (result, what) in enumerate(product(grown, GROWS), 1):
        rows = pd.DataFrame([entry for entry in result["growth"] if entry["what"] == what])
        for trace in _growth_traces(rows, legend=row == 1):
            add_trace(figure, row, trace)
        values = rows["value"].tolist()
        labels = [f"{value:,}" for value in values]
        figure.update_xaxes(row=row, col=1, type="log", tickvals=values, ticktext=labels)
    return figure.update_yaxes(type="log", tickvals=[0.25, 0.5, 1, 2, 4], title_text="times")


def _growth_traces(rows: pd.DataFrame, legend: bool) -> list[go.Scatter]:
    """Draw what was measured and predicted of one size, relative to its middle row."""
    time, memory = COLOURS["OELM-Freeze"], COLOURS["OELM-Random"]
    seconds = rows["seconds"].map(median)
    low, high = rows["seconds"].map(min), rows["seconds"].map(max)
    spread = {
        "type": "data",
        "array": ((high - seconds) / seconds.iloc[1]).tolist(),
        "arrayminus": ((seconds - low) / seconds.iloc[1]).tolist(),
        "thickness": 1,
    }
    curves = [
        ("time, measured", seconds, time, "markers", spread),
        ("time, predicted", rows["fast_flops"], time, "lines", None),
        ("memory, measured", rows["peak_bytes"], memory, "markers", None),
        ("memory, predicted", rows["predicted_bytes"], memory, "lines", None),
    ]
    return [
        go.Scatter(
            x=rows["value"].tolist(),
            y=(values / values.iloc[1]).round(4).tolist(),
            name=label,
            mode=mode,
            marker={"size": 8, "color": colour},
            line={"color": colour, "dash": "dash"},
            error_y=error,
            showlegend=legend,
        )
        for label, values, colour, mode, error in curves
    ]


def predictions(results: list[dict[str, Any]]) -> pd.DataFrame:
    """Tabulate the figure of growth: time and memory relative to the size of the bench."""
    rows = []
    for result in results:
        # cpu.growth writes three rows per size, in ascending order
        middle = {entry["what"]: entry for entry in result["growth"][1::3]}
        for entry in result["growth"]:
            reference = middle[entry["what"]]
            timings, reference_timings = entry["seconds"], reference["seconds"]
            off = entry["predicted_bytes"] / entry["peak_bytes"] - 1
            rows.append(
                {
                    "what": entry["what"],
                    "value": entry["value"],
                    "bench": setting(result),
                    "time_measured": f"{median(timings) / median(reference_timings):.2f}",
                    "time_predicted": f"{entry['fast_flops'] / reference['fast_flops']:.2f}",
                    "memory_measured": f"{entry['peak_bytes'] / reference['peak_bytes']:.2f}",
                    "memory_predicted": (
                        f"{entry['predicted_bytes'] / reference['predicted_bytes']:.2f}"
                    ),
                    "predicted_bytes_off": f"{off:+.1%}",
                    "timings": str(len(timings)),
                }
            )
    return pd.DataFrame(rows)
