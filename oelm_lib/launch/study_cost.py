"""What is left of a study, and what it costs."""

from collections import Counter
from itertools import product
from statistics import median

import pandas as pd

from oelm_lib import config
from oelm_lib.data import open_corpus
from oelm_lib.errors import UserError
from oelm_lib.model.cost import step_flops
from oelm_lib.runs.folder import Run
from oelm_lib.study.cell import CONFIRM, TUNE, Cell
from oelm_lib.study.expected import expected_left
from oelm_lib.study.grid import Grid
from oelm_lib.units import counted, format_duration

COLUMNS = ["stage", "corpus", "size", "done", "left", "core-hours left"]


def describe_cost(grid: Grid, workers: int) -> str:
    """Return runs done, runs left and core-hours left, by stage, corpus and size."""
    expected = expected_left(grid)
    seconds = _seconds_by_cell(grid, {cell for _, cell, _ in expected})
    done = Counter((record.stage, record.corpus, record.size) for record in grid.records)
    left: Counter[tuple[str, str, str]] = Counter()
    hours: Counter[tuple[str, str, str]] = Counter()
    for stage, cell, count in expected:
        left[stage, cell.corpus, cell.size] += count
        hours[stage, cell.corpus, cell.size] += count * seconds[cell] / 3600
    rows = []
    for size, corpus, stage in product(grid.plan.sizes, grid.plan.corpora, (TUNE, CONFIRM)):
        key = (stage, corpus, size)
        if done[key] or left[key]:
            rows.append((*key, done[key], left[key], f"{hours[key]:.2f}"))
    table = pd.DataFrame(rows, columns=COLUMNS).to_string(index=False) + "\n" if rows else ""
    return (
        f"{table}{counted(len(grid.records), 'run')} recorded, about {left.total()} left,"
        f" {hours.total():.1f} core-hours,"
        f" {format_duration(3600 * hours.total() / workers)} with {counted(workers, 'worker')}"
    )


def estimate_left(grid: Grid) -> tuple[int, float]:
    """Return the number of runs left, and the seconds that they take one after another."""
    expected = expected_left(grid)
    seconds = _seconds_by_cell(grid, {cell for _, cell, _ in expected})
    runs = sum(count for _, _, count in expected)
    return runs, sum(count * seconds[cell] for _, cell, count in expected)


def _seconds_by_cell(grid: Grid, cells: set[Cell]) -> dict[Cell, float]:
    """Return the seconds of a run of each of these cells.

    The median of the recorded runs of that size and corpus, else that of all runs in proportion to
    the FLOPs, else by a trial of 20 steps.
    """
    alike: dict[tuple[str, str], list[float]] = {}
    for record in grid.records:
        alike.setdefault((record.corpus, record.size), []).append(record.seconds)
    known = [record for record in grid.records if grid.plan.has(record.cell)]
    flops = {cell: _run_flops(grid, cell) for cell in cells.union(run.cell for run in known)}
    speeds = [record.seconds / flops[record.cell] for record in known]
    if not speeds and cells:
        cell = min(cells, key=flops.get)
        speeds = [_trial_seconds(grid, cell) / flops[cell]]
    speed = median(speeds) if speeds else 0.0
    medians = {key: median(seconds) for key, seconds in alike.items()}
    return {cell: medians.get((cell.corpus, cell.size), speed * flops[cell]) for cell in cells}


def _run_flops(grid: Grid, cell: Cell) -> float:
    cfg = grid.plan.config(cell)
    return step_flops(cfg.model, cfg.train.batch_size)["plain"] * cfg.train.max_steps


def _trial_seconds(grid: Grid, cell: Cell) -> float:
    """Estimate the seconds of a run by a trial on one CPU thread; 0 without its corpus."""
    from oelm_lib.training import run_trial

    overrides = grid.plan.overrides(cell)
    overrides |= {"machine.threads": 1, "machine.device": "cpu"}
    cfg, outputs = config.load_config(grid.plan.base, overrides), config.outputs_dir()
    try:
        corpus = open_corpus(cfg.data.corpus, cfg.data.tokenizer, cfg)
    except UserError as error:
        print(f"time unknown: {error}")
        return 0.0
    outputs.mkdir(parents=True, exist_ok=True)
    return run_trial(Run(cfg, 0, corpus, outputs / cfg.folder), outputs)["seconds"][1]
