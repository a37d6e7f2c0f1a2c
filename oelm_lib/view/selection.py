"""Choose the runs that a figure draws: their rows, names and looks."""

from pathlib import Path
from typing import Any

import pandas as pd

from oelm_lib.arms import DASHES, ArmStyle, arm_styles
from oelm_lib.config import Experiment
from oelm_lib.errors import UserError
from oelm_lib.runs import frames
from oelm_lib.runs.names import arm_id
from oelm_lib.view.series import run_series


def select(runs: Any) -> tuple[pd.DataFrame, list[str]]:
    """Return the runs that can be drawn, and a line for each that cannot, or not whole.

    Args:
        runs: A run or its folder, a list of runs, or a frame of load_runs.

    Returns:
        Rows of load_runs with the columns `series` (of run_series), `panel` (corpus and tokenizer:
        losses over different ones share no axis), `name` (the arm; its folder too, where a panel
        has the arm twice) and `style` (an ArmStyle).
    """
    if not isinstance(runs, pd.DataFrame):
        listed = runs if isinstance(runs, list) else [runs]
        runs = frames.load_folders([Path(run) for run in listed])
    runs = runs[runs["source"] == frames.MEASURED]
    series, problems = [], []
    for _, run in runs.iterrows():
        rows, problem = _read_series(run)
        series.append(rows)
        problems += [f"{run['run']}: {problem}"] if problem else []
    runs = runs.assign(series=series)
    runs = runs[runs["series"].notna()]
    looks = _looks(runs)
    drawn = runs.assign(
        panel=[f"{run.corpus}, {run.tokenizer}" for run in runs.itertuples()],
        name=[looks[variant][0] for variant in runs["variant"]],
        style=[looks[variant][1] for variant in runs["variant"]],
    )
    return drawn, problems


def _looks(runs: pd.DataFrame) -> dict[str, tuple[str, ArmStyle]]:
    """Return the name and the style of each variant.

    Variants of one arm share its colour. The experiment has the arm's own dash and symbol; its
    rehearsals, and other experiments of that arm, have another dash and an open symbol.
    """
    styles = arm_styles(runs["arm"])
    looks = {}
    for (_, _, arm), rows in runs.groupby(["corpus", "tokenizer", "arm"], sort=False):
        variants = sorted(rows["variant"].unique(), key=lambda variant: "+" in variant)
        offset = int("+" in variants[0])
        for number, variant in enumerate(variants, offset):
            name = f"{arm} · {arm_id(variant)}" if len(variants) > 1 else arm
            style = styles[arm]
            if number:
                dash = DASHES[(DASHES.index(style.dash) + number) % len(DASHES)]
                symbol = f"{style.symbol.removesuffix('-open')}-open"
                style = style._replace(dash=dash, symbol=symbol)
            looks[variant] = (name, style)
    return looks


def _read_series(run: pd.Series) -> tuple[dict[str, Any] | None, str]:
    """Return the rows of a run or None, and what is wrong with them or ""."""
    if not isinstance(run["experiment"], Experiment):
        return None, run["reason"]
    try:
        series = run_series(run["path"])
    except UserError as error:
        return None, str(error).replace(f"{run['path']}/", "")
    steps, losses = series["train"]["step"], series["train"]["loss"]
    if not steps and not series["eval"]["step"]:
        return None, "no rows yet"
    missing = [step for step, loss in zip(steps, losses, strict=True) if loss is None]
    if not missing:
        return series, ""
    more = len(missing) - 1
    later = f" and {more} later {'point' if more == 1 else 'points'}" if more else ""
    return series, f"loss is not a number at step {missing[0]:,}{later}"
