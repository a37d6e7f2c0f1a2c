"""Synthetic run folders in the format of docs/design.md, for tests of tables, plots and pages."""

import hashlib
import json
import math
import os
import socket
import time
from datetime import UTC, datetime, timedelta
from pathlib import Path

import numpy as np
import yaml

from oelm_lib.config import Experiment, load_config
from oelm_lib.runs.lock import RunLock
from oelm_lib.runs.process import process_start

START = datetime(2026, 2, 9, 16, 8, tzinfo=UTC)
FINAL_LOSS = {"baseline": 1.30, "oelm_freeze": 1.45, "oelm_random": 1.60, "frozen_gaussian": 1.50}
CORPORA = {  # train, val, test: documents, tokens, bytes
    "stories": ((9000, 2_000_000, 8_000_000), (500, 110_000, 440_000), (500, 110_000, 440_000)),
    "tinystories-phase3": (
        (2_098_521, 470_000_000, 1_900_000_000),
        (21_198, 4_700_000, 19_000_000),
        (0, 0, 0),
    ),
    "openwebtext-phase3": ((88_000, 99_000_000, 435_600_000), (1, 1_000_000, 4_400_000), (0, 0, 0)),
    "wikitext103-phase3": ((28_475, 118_000_000, 519_200_000), (60, 250_000, 1_100_000), (0, 0, 0)),
}
BROKEN = (
    "empty",
    "half_written",
    "newer",
    "nan",
    "torn",
    "no_status",
    "no_config",
    "unreadable_summary",
)


def make_run(
    outputs: Path,
    exp: str = "DEMO-01",
    seed: int = 42,
    *,
    overrides: dict | str | None = None,
    final_loss: float | None = None,
    state: str = "done",
    done: float = 1.0,
    train_every: int = 10,
    step_seconds: float = 0.02,
    spike: tuple[int, float] | None = None,
    documents: int = 200,
    test: bool = False,
    corpus: dict | None = None,
    resolved: dict | None = None,
    experiment: dict | None = None,
) -> Path:
    """Write one run folder and return its path.

    Args:
        final_loss: `final_val_loss` to come out; default by the slug, plus a seed effect shared by the arms.
        state: Any state of status.json, or `dead` (says running, its process is gone); only `done` leaves a summary.
        done: Share of the steps done, for states other than `done`.
        spike: (step, loss) of one train row that stands out.
        documents: Rows of documents.npz; 0 writes none.
        test: Also record a confirmation on the test split.
        corpus, resolved, experiment: Entries of config.yaml to replace (experiment by dotted key, unvalidated).
    """
    cfg = load_config(exp, overrides)
    path = outputs / cfg.folder / f"seed{seed}"
    path.mkdir(parents=True)
    draw = np.random.default_rng(
        int(hashlib.sha256(f"{cfg.id}{seed}".encode()).hexdigest()[:8], 16)
    )
    if final_loss is None:
        base = FINAL_LOSS[cfg.slug] if cfg.slug in FINAL_LOSS else 1.4
        shared = 0.02 * np.random.default_rng(seed).standard_normal()
        final_loss = base + shared + 0.01 * draw.standard_normal()
    steps = cfg.train.max_steps if state == "done" else int(cfg.train.max_steps * done)
    plain = _config(cfg, seed, corpus or {}, resolved or {}, experiment or {})
    _dump(path / "config.yaml", plain)

    per_step = cfg.train.batch_size * cfg.model.max_seq_len
    train_steps = np.arange(train_every, steps + 1, train_every)
    eval_steps = np.arange(cfg.train.eval_interval, steps + 1, cfg.train.eval_interval)
    if state == "done" and (not len(eval_steps) or eval_steps[-1] != steps):
        eval_steps = np.append(eval_steps, steps)
    eval_seconds = step_seconds * 5

    def clock(step):
        return 2.0 + step * step_seconds * 1.02 + (step // cfg.train.eval_interval) * eval_seconds

    def curve(step):
        return final_loss + (math.log(cfg.model.vocab_size) - final_loss) * np.exp(
            -8 * np.sqrt(step / cfg.train.max_steps)
        )

    train_loss = curve(train_steps) + 0.05 * draw.standard_normal(len(train_steps))
    if spike:
        train_loss[np.argmin(abs(train_steps - spike[0]))] = spike[1]
    # The subset of validation differs from the whole split by a constant of the corpus.
    eval_loss = curve(eval_steps) + 0.01 + 0.002 * draw.standard_normal(len(eval_steps))
    rate = per_step / step_seconds
    warm = max(cfg.optim.warmup_steps, 1)
    rows = []
    for step, loss, noise in zip(
        train_steps.tolist(),
        train_loss.tolist(),
        draw.random(len(train_steps)).tolist(),
        strict=True,
    ):
        share = min(step / warm, 0.5 + 0.5 * math.cos(math.pi * step / cfg.train.max_steps))
        lr = cfg.optim.learning_rate * share
        rows.append(
            (
                step,
                0,
                f'{{"event": "train", "step": {step}, "tokens": {step * per_step}, "loss": {loss:.6f}, '
                f'"perplexity": {math.exp(min(loss, 50)):.6f}, "learning_rate": {lr:.8g}, '
                f'"grad_norm": {0.5 + noise:.4f}, '
                f'"tokens_per_s": {rate * (0.95 + 0.1 * noise):.1f}, "seconds": {clock(step):.3f}}}',
            )
        )
    for step, loss in zip(eval_steps.tolist(), eval_loss.tolist(), strict=True):
        rows.append(
            (
                step,
                1,
                f'{{"event": "eval", "step": {step}, "tokens": {step * per_step}, "loss": {loss:.6f}, '
                f'"perplexity": {math.exp(min(loss, 50)):.6f}, "eval_tokens": {cfg.train.eval_tokens}, '
                f'"eval_seconds": {eval_seconds:.3f}, "seconds": {clock(step) + 0.001:.3f}}}',
            )
        )
    rows.sort(key=lambda row: row[:2])
    (path / "metrics.jsonl").write_text("".join(row[2] + "\n" for row in rows), encoding="utf-8")
    (path / "training.log").write_text(f"step {steps} loss {final_loss:.4f}\n", encoding="utf-8")

    wall = float(clock(steps)) + 3.0
    evals = [[int(s), round(float(v), 6)] for s, v in zip(eval_steps, eval_loss, strict=True)]
    best = min(evals, key=lambda item: item[1]) if evals else [0, final_loss]
    alive = state in ("running", "evaluating", "saving", "queued")
    if alive and state != "queued":
        RunLock(path).acquire()
    status = {
        "state": "running" if state == "dead" else state,
        "step": steps,
        "max_steps": cfg.train.max_steps,
        "tokens": steps * per_step,
        "seconds": wall,
        "heartbeat": time.time() if alive else (START + timedelta(seconds=wall)).timestamp(),
        "started": START.timestamp(),
        "pid": os.getpid() if alive else 4_000_000,
        "process_start": process_start(os.getpid()) if alive else 0.0,
        "host": socket.gethostname(),
        "device": "cpu",
        "train_loss": float(train_loss[-1]) if len(train_loss) else None,
        "learning_rate": cfg.optim.learning_rate,
        "steps_per_s": 1 / step_seconds,
        "tokens_per_s": rate,
        "eta_seconds": [10.0, 20.0] if alive else None,
        "evals": evals,
        "best": {"step": best[0], "loss": best[1]} if evals else None,
        "error": "step 30: loss is nan; last finite 3.41 at step 20" if state == "failed" else None,
        "warnings": [],
    }
    _json(path / "status.json", status)
    if state == "done":
        _finish(
            path,
            cfg,
            plain,
            final_loss,
            best,
            evals[-1][1],
            steps,
            wall,
            step_seconds,
            eval_seconds,
            test,
            draw,
        )
        if documents:
            _documents(path, cfg, final_loss, seed, documents, test, draw)
    return path


def make_demo(outputs: Path, seeds: tuple[int, ...] = (42, 43, 44), **options) -> list[Path]:
    """DEMO-01..04, each with `seeds`."""
    return [make_run(outputs, f"DEMO-0{n}", seed, **options) for n in range(1, 5) for seed in seeds]


def make_large(outputs: Path, steps: int = 200_000, train_every: int = 10) -> list[Path]:
    """Seven runs of `steps` steps: 20,000 train rows and 200 evaluations each by default."""
    ids = ["DEMO-01", "DEMO-01", "DEMO-02", "DEMO-02", "DEMO-03", "DEMO-03", "DEMO-04"]
    overrides = {"train.max_steps": steps, "train.eval_interval": max(steps // 200, 1)}
    return [
        make_run(
            outputs,
            exp,
            42 + n % 2,
            overrides=overrides,
            train_every=train_every,
            spike=(steps // 2, 25.0),
        )
        for n, exp in enumerate(ids)
    ]


def break_run(path: Path, how: str) -> Path:
    """Damage a run folder in one of the ways of BROKEN."""
    if how == "empty":
        for file in path.iterdir():
            file.unlink()
    elif how == "half_written":
        text = (path / "config.yaml").read_text()
        (path / "config.yaml").write_text(text[: len(text) // 2] + "\n  [")
        (path / "summary.json").unlink()
        (path / "timing_stats.json").write_text("")
    elif how == "newer":
        plain = yaml.safe_load((path / "config.yaml").read_text())
        _dump(path / "config.yaml", plain | {"format": 99})
    elif how == "nan":
        lines = (path / "metrics.jsonl").read_text().splitlines()
        rows = [
            json.loads(line) | {"loss": None, "perplexity": None}
            for line in lines[len(lines) // 2 :]
        ]
        (path / "metrics.jsonl").write_text(
            "\n".join(lines[: len(lines) // 2] + [json.dumps(r) for r in rows]) + "\n"
        )
        summary = json.loads((path / "summary.json").read_text())
        gone = dict.fromkeys(("final_val_loss", "final_val_perplexity", "final_bits_per_byte"))
        _json(path / "summary.json", summary | gone)
    elif how == "torn":
        text = (path / "metrics.jsonl").read_text()
        (path / "metrics.jsonl").write_text(text[:-20])
    elif how == "no_status":
        (path / "status.json").unlink()
    elif how == "no_config":
        (path / "config.yaml").unlink()
    elif how == "unreadable_summary":
        (path / "summary.json").write_text('{"id": "DEMO-01", "final_val')
    else:
        raise AssertionError(f"unknown damage {how}")
    return path


def parameters(model: dict) -> dict[str, int]:
    """Parameter counts of the GPT of docs/design.md."""
    D, F, L = model["d_model"], model["d_ff"], model["num_layers"]
    layer = 4 * D * D + 2 * D * F + F + D + 4 * D
    total = (model["vocab_size"] + model["max_seq_len"]) * D + L * layer + 2 * D
    layers = L if model["frozen_layers"] == "all" else len(model["frozen_layers"])
    frozen = layers * D * D * (model["freeze_q"] + model["freeze_k"])
    return {"total": total, "trainable": total - frozen, "frozen": frozen}


def _config(cfg: Experiment, seed: int, corpus: dict, resolved: dict, experiment: dict) -> dict:
    plain = cfg.to_dict()
    for key, value in experiment.items():
        section, _, name = key.rpartition(".")
        (plain[section] if section else plain)[name] = value
    names = ("documents", "tokens", "bytes")
    splits = {
        split: dict(zip(names, sizes, strict=True))
        | {"literal_eot": 0, "sha256": _sha(cfg.data.corpus + split)}
        for split, sizes in zip(("train", "val", "test"), CORPORA[cfg.data.corpus], strict=True)
    }
    return {
        "format": 1,
        "kind": cfg.kind,
        "label": cfg.label,
        "seed": seed,
        "experiment": plain,
        "overrides": dict(cfg.overrides),
        "code": {
            "commit": "0123456789abcdef0123456789abcdef01234567",
            "dirty": False,
            "version": "0.1.0",
        },
        "versions": {"python": "3.11.7", "torch": "2.13.0", "numpy": "2.4.0"},
        "resolved": {
            "device": "cpu",
            "device_name": "CPU",
            "precision": "fp32",
            "threads": 1,
            "compile": False,
        }
        | resolved,
        "corpus": {
            "name": cfg.data.corpus,
            "tokenizer": cfg.data.tokenizer,
            "manifest_sha256": _sha(cfg.data.corpus + cfg.data.tokenizer),
            "sample": cfg.data.corpus.endswith("-sample"),
            "synthetic": cfg.data.corpus == "stories",
            "splits": splits,
        }
        | corpus,
        "parameters": parameters(plain["model"]),
        "created": START.isoformat().replace("+00:00", "Z"),
    }


def _finish(
    path,
    cfg,
    plain,
    final_loss,
    best,
    last_subset,
    steps,
    wall,
    step_seconds,
    eval_seconds,
    test,
    draw,
):
    val = plain["corpus"]["splits"]["val"]
    tokens = steps * cfg.train.batch_size * cfg.model.max_seq_len
    evals = max(steps // cfg.train.eval_interval, 1)
    best_loss = final_loss - 0.001
    minutes, seconds = divmod(round(wall), 60)
    frozen = plain["parameters"]["frozen"]
    digest = _sha(f"{cfg.id}{plain['seed']}")
    names = [
        f"blocks.{layer}.attention.{name}.weight"
        for layer in (
            range(cfg.model.num_layers)
            if cfg.model.frozen_layers == "all"
            else cfg.model.frozen_layers
        )
        for name, off in (("query", cfg.model.freeze_q), ("key", cfg.model.freeze_k))
        if off
    ]
    proof = {
        "from_step": 0,
        "to_step": steps,
        "sha256_start": digest,
        "sha256_end": digest,
        "tensors": names,
    }
    _json(
        path / "summary.json",
        {
            "run": f"{cfg.folder}/{path.name}",
            "id": cfg.id,
            "slug": cfg.slug,
            "title": cfg.title,
            "kind": cfg.kind,
            "seed": plain["seed"],
            "steps": steps,
            "tokens": tokens,
            "epochs": tokens / plain["corpus"]["splits"]["train"]["tokens"],
            "best_step": best[0],
            "best_subset_loss": best[1],
            "best_val_loss": best_loss,
            "final_val_loss": final_loss,
            "final_test_loss": final_loss + 0.005 if test else None,
            "best_val_perplexity": math.exp(min(best_loss, 700)),
            "final_val_perplexity": math.exp(min(final_loss, 700)),
            "final_bits_per_byte": final_loss / math.log(2) * val["tokens"] / val["bytes"],
            "subset_error": last_subset - final_loss,
            "parameters": plain["parameters"],
            "frozen": [proof] if frozen else [],
            "wall_seconds": wall,
            "mean_step_seconds": step_seconds,
            "finished": (START + timedelta(seconds=wall))
            .isoformat(timespec="seconds")
            .replace("+00:00", "Z"),
        },
    )
    budget = {
        "setup": 1.5,
        "data": 0.01 * steps * step_seconds,
        "step": steps * step_seconds,
        "evaluation": evals * eval_seconds,
    }
    budget |= {"saving": 0.3, "final_evaluation": 1.0}
    budget["other"] = wall - sum(budget.values())
    sample = step_seconds * (1 + 0.02 * draw.standard_normal(1000))
    _json(
        path / "timing_stats.json",
        {
            "model_type": cfg.slug,
            "init_method": cfg.model.qk_init,
            "dataset": cfg.data.corpus,
            "total_wall_time": wall,
            "total_formatted": f"{minutes // 60}h {minutes % 60}m {seconds}s",
            "num_steps_measured": max(steps - 100, 1),
            "warmup_steps": 100,
            "mean_step_time": step_seconds,
            "std_step_time": float(sample.std()),
            "median_step_time": float(np.median(sample)),
            "min_step_time": float(sample.min()),
            "max_step_time": float(sample.max()),
            "p95_step_time": float(np.quantile(sample, 0.95)),
            "p99_step_time": float(np.quantile(sample, 0.99)),
            "total_validation_time": evals * eval_seconds,
            "mean_validation_time": eval_seconds,
            "num_validations": evals,
            "epoch_times": [],
            "final_perplexity": math.exp(min(best_loss, 700)),
            "best_val_loss": best_loss,
            "budget": budget,
        },
    )


def _documents(path, cfg, final_loss, seed, count, test, draw):
    """Per-document nats with a difficulty that the arms share, scaled to the whole split's loss."""
    shared = np.random.default_rng(1000)
    tokens = shared.integers(50, 400, count)
    hard = np.exp(0.3 * shared.standard_normal(count))
    nats = tokens * final_loss * hard * np.exp(0.02 * draw.standard_normal(count))
    nats *= final_loss * tokens.sum() / nats.sum()
    arrays = {"nats": nats.astype(np.float64), "tokens": tokens.astype(np.int64)}
    if test:
        arrays |= {"test_nats": arrays["nats"] + 0.005 * tokens, "test_tokens": arrays["tokens"]}
    np.savez(path / "documents.npz", **arrays)


def _sha(text: str) -> str:
    return hashlib.sha256(text.encode()).hexdigest()


def _dump(path: Path, plain: dict) -> None:
    path.write_text(yaml.safe_dump(plain, sort_keys=False, allow_unicode=True), encoding="utf-8")


def _json(path: Path, plain: dict) -> None:
    path.write_text(json.dumps(plain, indent=1), encoding="utf-8")
