"""The files of a synthetic run folder, one function a file."""

import hashlib
import json
import math
import os
import socket
import time
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from pathlib import Path

import numpy as np
import yaml

from oelm_lib.config import Experiment
from oelm_lib.runs.lock import RunLock
from oelm_lib.runs.process import process_start

START = datetime(2026, 2, 9, 16, 8, tzinfo=UTC)
ALIVE = ("running", "evaluating", "saving", "queued")


@dataclass
class SyntheticRun:
    """A run whose losses follow a curve; its properties are what the files of a run are made of."""

    path: Path
    cfg: Experiment
    seed: int
    steps: int
    final_loss: float
    step_seconds: float
    draw: np.random.Generator
    plain: dict = field(default_factory=dict)
    """The content of config.yaml."""
    train_rows: list[dict] = field(default_factory=list)
    eval_rows: list[dict] = field(default_factory=list)

    @property
    def eval_seconds(self) -> float:
        return self.step_seconds * 5

    @property
    def wall(self) -> float:
        return float(self.clock(self.steps)) + 3.0

    @property
    def evals(self) -> list[list[float]]:
        return [[row["step"], round(row["loss"], 6)] for row in self.eval_rows]

    @property
    def best(self) -> list[float]:
        return min(self.evals, key=lambda item: item[1]) if self.evals else [0, self.final_loss]

    def clock(self, step):
        """Seconds since the start."""
        passed = step // self.cfg.train.eval_interval
        return 2.0 + step * self.step_seconds * 1.02 + passed * self.eval_seconds

    def curve(self, step):
        """Loss without noise."""
        start = math.log(self.cfg.model.vocab_size)
        fall = np.exp(-8 * np.sqrt(step / self.cfg.train.max_steps))
        return self.final_loss + (start - self.final_loss) * fall


def write_metrics(
    run: SyntheticRun, state: str, train_every: int, spike: tuple[int, float] | None
) -> None:
    """metrics.jsonl and training.log."""
    cfg = run.cfg
    train_steps = np.arange(train_every, run.steps + 1, train_every)
    eval_steps = np.arange(cfg.train.eval_interval, run.steps + 1, cfg.train.eval_interval)
    if state == "done" and (not len(eval_steps) or eval_steps[-1] != run.steps):
        eval_steps = np.append(eval_steps, run.steps)
    train_loss = run.curve(train_steps) + 0.05 * run.draw.standard_normal(len(train_steps))
    if spike:
        train_loss[np.argmin(abs(train_steps - spike[0]))] = spike[1]
    # The subset of validation differs from the whole split by a constant of the corpus.
    eval_loss = run.curve(eval_steps) + 0.01 + 0.002 * run.draw.standard_normal(len(eval_steps))
    noise = run.draw.random(len(train_steps))
    run.train_rows = [
        _train_row(run, *values)
        for values in zip(train_steps.tolist(), train_loss.tolist(), noise.tolist(), strict=True)
    ]
    run.eval_rows = [
        _eval_row(run, *values)
        for values in zip(eval_steps.tolist(), eval_loss.tolist(), strict=True)
    ]
    rows = sorted(
        run.train_rows + run.eval_rows, key=lambda row: (row["step"], row["event"] != "train")
    )
    text = "".join(json.dumps(row) + "\n" for row in rows)
    (run.path / "metrics.jsonl").write_text(text, encoding="utf-8")
    log = f"step {run.steps} loss {run.final_loss:.4f}\n"
    (run.path / "training.log").write_text(log, encoding="utf-8")


def _train_row(run: SyntheticRun, step: int, loss: float, noise: float) -> dict:
    cfg = run.cfg
    warm = max(cfg.optim.warmup_steps, 1)
    share = min(step / warm, 0.5 + 0.5 * math.cos(math.pi * step / cfg.train.max_steps))
    rate = run.cfg.step_tokens / run.step_seconds
    return {
        "event": "train",
        "step": step,
        "tokens": step * run.cfg.step_tokens,
        "loss": round(loss, 6),
        "perplexity": round(math.exp(min(loss, 50)), 6),
        "learning_rate": float(f"{cfg.optim.learning_rate * share:.8g}"),
        "grad_norm": round(0.5 + noise, 4),
        "tokens_per_s": round(rate * (0.95 + 0.1 * noise), 1),
        "seconds": round(run.clock(step), 3),
    }


def _eval_row(run: SyntheticRun, step: int, loss: float) -> dict:
    return {
        "event": "eval",
        "step": step,
        "tokens": step * run.cfg.step_tokens,
        "loss": round(loss, 6),
        "perplexity": round(math.exp(min(loss, 50)), 6),
        "eval_tokens": run.cfg.train.eval_tokens,
        "eval_seconds": round(run.eval_seconds, 3),
        "seconds": round(run.clock(step) + 0.001, 3),
    }


def write_status(run: SyntheticRun, state: str) -> None:
    """status.json, and a lock where the run is alive."""
    alive = state in ALIVE
    if alive and state != "queued":
        RunLock(run.path).acquire()
    ended = (START + timedelta(seconds=run.wall)).timestamp()
    status = {
        "state": "running" if state == "dead" else state,
        "step": run.steps,
        "max_steps": run.cfg.train.max_steps,
        "tokens": run.steps * run.cfg.step_tokens,
        "seconds": run.wall,
        "heartbeat": time.time() if alive else ended,
        "started": START.timestamp(),
        "pid": os.getpid() if alive else 4_000_000,
        "process_start": process_start(os.getpid()) if alive else 0.0,
        "host": socket.gethostname(),
        "device": "cpu",
        "train_loss": run.train_rows[-1]["loss"] if run.train_rows else None,
        "learning_rate": run.cfg.optim.learning_rate,
        "steps_per_s": 1 / run.step_seconds,
        "tokens_per_s": run.cfg.step_tokens / run.step_seconds,
        "eta_seconds": [10.0, 20.0] if alive else None,
        "evals": run.evals,
        "best": {"step": run.best[0], "loss": run.best[1]} if run.evals else None,
        "error": "step 30: loss is nan; last finite 3.41 at step 20" if state == "failed" else None,
        "warnings": [],
    }
    write_json(run.path / "status.json", status)


def write_summary(run: SyntheticRun, test: bool) -> None:
    """summary.json."""
    cfg, splits, loss = run.cfg, run.plain["corpus"]["splits"], run.final_loss
    tokens = run.steps * run.cfg.step_tokens
    finished = (START + timedelta(seconds=run.wall)).isoformat(timespec="seconds")
    summary = {
        "run": f"{cfg.folder}/{run.path.name}",
        "id": cfg.id,
        "slug": cfg.slug,
        "title": cfg.title,
        "kind": cfg.kind,
        "seed": run.seed,
        "steps": run.steps,
        "tokens": tokens,
        "epochs": tokens / splits["train"]["tokens"],
        "best_step": run.best[0],
        "best_subset_loss": run.best[1],
        "best_val_loss": loss - 0.001,
        "final_val_loss": loss,
        "final_test_loss": loss + 0.005 if test else None,
        "best_val_perplexity": math.exp(min(loss - 0.001, 700)),
        "final_val_perplexity": math.exp(min(loss, 700)),
        "final_bits_per_byte": loss
        / math.log(2)
        * splits["val"]["tokens"]
        / splits["val"]["bytes"],
        "subset_error": run.evals[-1][1] - loss,
        "parameters": run.plain["parameters"],
        "frozen": _freeze_proof(run),
        "wall_seconds": run.wall,
        "mean_step_seconds": run.step_seconds,
        "finished": finished.replace("+00:00", "Z"),
    }
    write_json(run.path / "summary.json", summary)


def _freeze_proof(run: SyntheticRun) -> list[dict]:
    model = run.cfg.model
    digest = sha256(f"{run.cfg.id}{run.seed}")
    proof = {
        "from_step": 0,
        "to_step": run.steps,
        "sha256_start": digest,
        "sha256_end": digest,
        "tensors": len(model.freezable_layers) * (model.freeze_q + model.freeze_k),
    }
    return [proof]


def write_timing(run: SyntheticRun) -> None:
    """timing_stats.json."""
    evals = max(run.steps // run.cfg.train.eval_interval, 1)
    budget = {
        "setup": 1.5,
        "data": 0.01 * run.steps * run.step_seconds,
        "step": run.steps * run.step_seconds,
        "evaluation": evals * run.eval_seconds,
        "saving": 0.3,
        "final_evaluation": 1.0,
    }
    budget["other"] = run.wall - sum(budget.values())
    sample = run.step_seconds * (1 + 0.02 * run.draw.standard_normal(1000))
    minutes, seconds = divmod(round(run.wall), 60)
    timing = {
        "model_type": run.cfg.slug,
        "init_method": run.cfg.model.qk_init,
        "dataset": run.cfg.data.corpus,
        "total_wall_time": run.wall,
        "total_formatted": f"{minutes // 60}h {minutes % 60}m {seconds}s",
        "num_steps_measured": max(run.steps - 100, 1),
        "warmup_steps": 100,
        "mean_step_time": run.step_seconds,
        "std_step_time": float(sample.std()),
        "median_step_time": float(np.median(sample)),
        "min_step_time": float(sample.min()),
        "max_step_time": float(sample.max()),
        "p95_step_time": float(np.quantile(sample, 0.95)),
        "p99_step_time": float(np.quantile(sample, 0.99)),
        "total_validation_time": evals * run.eval_seconds,
        "mean_validation_time": run.eval_seconds,
        "num_validations": evals,
        "epoch_times": [],
        "final_perplexity": math.exp(min(run.final_loss - 0.001, 700)),
        "best_val_loss": run.final_loss - 0.001,
        "budget": budget,
    }
    write_json(run.path / "timing_stats.json", timing)


def write_documents(run: SyntheticRun, count: int, test: bool) -> None:
    """Per-document nats with a difficulty that the arms share, scaled to the whole split's loss."""
    shared = np.random.default_rng(1000)
    tokens = shared.integers(50, 400, count)
    hard = np.exp(0.3 * shared.standard_normal(count))
    nats = tokens * run.final_loss * hard * np.exp(0.02 * run.draw.standard_normal(count))
    nats *= run.final_loss * tokens.sum() / nats.sum()
    arrays = {"nats": nats.astype(np.float64), "tokens": tokens.astype(np.int64)}
    if test:
        arrays |= {"test_nats": arrays["nats"] + 0.005 * tokens, "test_tokens": arrays["tokens"]}
    np.savez(run.path / "documents.npz", **arrays)


def write_yaml(path: Path, plain: dict) -> None:
    """Write a YAML file of a run folder."""
    path.write_text(yaml.safe_dump(plain, sort_keys=False, allow_unicode=True), encoding="utf-8")


def write_json(path: Path, plain: dict) -> None:
    """Write a JSON file of a run folder, without a checksum."""
    path.write_text(json.dumps(plain, indent=1), encoding="utf-8")


def sha256(text: str) -> str:
    """Hex SHA-256 of a text."""
    return hashlib.sha256(text.encode()).hexdigest()
