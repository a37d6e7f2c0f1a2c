"""Data of curves: the thinned rows of a run, and how a trace is computed from them.

The page's script (report/templates/curves.js) computes the same from the same rows;
tests/report/test_controls.py compares the two.
"""

import math
from functools import lru_cache
from pathlib import Path
from typing import Any

import numpy as np

from oelm_lib.data.corpus import epoch_steps
from oelm_lib.files import sha256_file
from oelm_lib.runs import reading

BUCKETS = 500
"""Largest number of points of each kind that a run keeps: about one for two pixels."""
COLUMNS = {"train": ("loss", "learning_rate", "grad_norm"), "eval": ("loss",)}
SPIKY = ("loss", "grad_norm")
STATE = {"x": "step", "y": "loss", "smoothing": 0.95, "log": False, "group": "arm"}
"""The reader's choices. x: step, tokens, hours, epochs; y: loss, perplexity; group: arm, seed."""


def run_series(path: Path) -> dict[str, Any]:
    """Return the rows of a run for figures: at most BUCKETS train and BUCKETS eval points.

    A point is the mean of its bucket. A train point also has the smallest and the largest value of
    its bucket (`loss_low`, `loss_high`), so that no spike is lost. Numbers that are not finite are
    None.

    Raises:
        UserError: The run cannot be read.
    """
    files = [path / name for name in ("config.yaml", "metrics.jsonl")]
    stats = [file.stat() for file in files if file.exists()]
    return _read(path, tuple((stat.st_size, stat.st_mtime_ns) for stat in stats))


@lru_cache(maxsize=256)
def _read(path: Path, stamp: tuple) -> dict[str, Any]:
    """Read and cache the rows; `stamp` (size and time of the files) changes when they do.

    A comparison draws all its runs four times; each takes about 0.1 MB here.
    """
    plain, metrics = reading.read_config(path), reading.read_metrics(path)
    thinned = {
        event: _thin(metrics[metrics["event"] == event], columns)
        for event, columns in COLUMNS.items()
    }
    experiment, train = plain["experiment"], plain["corpus"]["splits"]["train"]
    batch_size, length = experiment["train"]["batch_size"], experiment["model"]["max_seq_len"]
    step_tokens = batch_size * length
    epoch_tokens = step_tokens * epoch_steps(train["tokens"], length, batch_size)
    origin = {"commit": plain["code"]["commit"], "config_sha256": sha256_file(path / "config.yaml")}
    return thinned | {"step_tokens": step_tokens, "epoch_tokens": epoch_tokens, "origin": origin}


def _thin(frame: Any, columns: tuple[str, ...]) -> dict[str, list]:
    """Return the mean of each bucket of rows, and the extremes of spiky columns."""
    size = max(math.ceil(len(frame) / BUCKETS), 1)
    groups = frame.groupby(np.arange(len(frame)) // size)
    thinned = {
        "step": groups["step"].last().tolist(),
        "seconds": _short(groups["seconds"].last(), 7),
    }
    for name in columns:
        thinned[name] = _short(groups[name].mean())
        if name in SPIKY and size > 1:
            thinned |= {
                f"{name}_low": _short(groups[name].min()),
                f"{name}_high": _short(groups[name].max()),
            }
    return thinned


def _short(values: Any, digits: int = 5) -> list[float | None]:
    """Round to significant digits; None where a value is not finite."""
    return [
        float(f"{value:.{digits}g}") if np.isfinite(value) else None
        for value in values.astype(float)
    ]


def ema(step: np.ndarray, values: np.ndarray, smoothing: float) -> np.ndarray:
    """Return the debiased exponential moving average, whatever the spacing of the log.

    The weight of a value falls by the factor `smoothing` over each thousandth of the run. NaN has
    no weight and stays NaN.
    """
    unit = max(step[-1] / 1000, 1e-9) if len(step) else 1.0
    total = weight = 0.0
    out = np.full(len(values), np.nan)
    for n, value in enumerate(values):
        decay = smoothing ** ((step[n] - step[n - 1]) / unit) if n else 0.0
        total, weight = total * decay, weight * decay
        if np.isfinite(value):
            total, weight = total + value, weight + 1.0
            out[n] = total / weight
    return out


def trace_values(
    spec: dict[str, Any], rows: dict[str, Any], state: dict[str, Any]
) -> tuple[np.ndarray, np.ndarray]:
    """Compute the x and y of a trace.

    Args:
        spec: `runs` (keys of rows), `base` (as many keys, or absent: y becomes the gap to them in
            percent), `kind` (train or eval), `column`, `smooth` (bool), `stat` (mean, min, max over
            the runs; envelope of one run).
        rows: Run key -> run_series.
        state: As STATE.
    """
    curves = [_curve(spec, rows[key], state) for key in spec["runs"]]
    if "base" in spec:
        bases = [_curve(spec, rows[key], state) for key in spec["base"]]
        curves = [
            (x, y - _interpolate(x, *base)) for (x, y), base in zip(curves, bases, strict=True)
        ]
    x, y = curves[0]
    if len(curves) > 1:
        reduce = {"mean": np.mean, "min": np.min, "max": np.max}[spec["stat"]]
        y = reduce([_interpolate(x, *curve) for curve in curves], axis=0)
    with np.errstate(over="ignore"):  # the perplexity of an arm that diverged is infinite
        if "base" in spec:
            y = 100 * np.expm1(y)
        elif spec["column"] == "loss" and state["y"] == "perplexity":
            y = np.exp(y)
    return x, y


def _curve(spec: dict, series: dict, state: dict) -> tuple[np.ndarray, np.ndarray]:
    """Return the x and y of one run."""
    part = {name: np.array(values, dtype=float) for name, values in series[spec["kind"]].items()}
    scale = {
        "step": 1,
        "tokens": series["step_tokens"],
        "epochs": series["step_tokens"] / series["epoch_tokens"],
    }
    x = part["seconds"] / 3600 if state["x"] == "hours" else part["step"] * scale[state["x"]]
    y = part[spec["column"]]
    if spec["stat"] == "envelope" and f"{spec['column']}_low" in part:
        pair = np.column_stack([part[f"{spec['column']}_low"], part[f"{spec['column']}_high"]])
        return np.repeat(x, 2), pair.ravel()
    return x, ema(part["step"], y, state["smoothing"]) if spec["smooth"] else y


def _interpolate(x: np.ndarray, known_x: np.ndarray, known_y: np.ndarray) -> np.ndarray:
    """Interpolate linearly; NaN outside the known range."""
    known = np.isfinite(known_y)
    if not known.any():
        return np.full(len(x), np.nan)
    return np.interp(x, known_x[known], known_y[known], left=np.nan, right=np.nan)
