"""Rows of the tables on the page of one run."""

from typing import Any

from oelm_lib.runs.folder import Run
from oelm_lib.runs.provenance import commit_name, sessions
from oelm_lib.runs.reading import frozen_unchanged, read_config, read_summary
from oelm_lib.units import format_bytes, format_duration, perplexity

Rows = list[tuple[str, str]]
FILES = (
    "config.yaml",
    "training.log",
    "metrics.jsonl",
    "best.pt",
    "latest.pt",
    "summary.json",
    "timing_stats.json",
    "documents.npz",
)


def result_rows(summary: dict[str, Any]) -> Rows:
    """Return losses, tokens and time of a summary.json."""
    seconds = summary.get("wall_seconds")
    duration = "unknown" if seconds is None else format_duration(seconds)
    tokens, epochs = _text(summary.get("tokens"), "{:,}"), _text(summary.get("epochs"), "{:.2f}")
    rows = [
        ("last weights", _loss(summary, "final_val_loss", "steps")),
        ("bits per byte", _text(summary.get("final_bits_per_byte"), "{:.4f}")),
        ("tokens seen", f"{tokens} ({epochs} epochs)"),
        ("time", f"{duration}, {_text(summary.get('mean_step_seconds'), '{:.4f}')} s a step"),
    ]
    if summary["best_val_loss"] is not None:
        rows.insert(0, ("best checkpoint", _loss(summary, "best_val_loss", "best_step")))
    return rows


def parameter_rows(run: Run, summary: dict[str, Any]) -> Rows:
    """Return the numbers of parameters, and the digests of what was frozen."""
    counts = read_config(run)["parameters"]
    rows = [(name, f"{count:,} ({count / counts['total']:.1%})") for name, count in counts.items()]
    for proof in summary.get("frozen") or []:
        unchanged = frozen_unchanged([proof])
        if unchanged is None:
            continue
        start, end = proof["sha256_start"], proof["sha256_end"]
        steps = f"steps {proof['from_step']} to {proof['to_step']}"
        verdict = "equal" if unchanged else "DIFFER"
        rows.append(
            (
                f"{proof['tensors']} frozen tensors, {steps}",
                f"SHA-256 {start[:12]} at start, {end[:12]} at end: {verdict}",
            )
        )
    return rows


def file_rows(run: Run) -> Rows:
    """Return the folder of a run, the code of each session, and the files with their sizes."""
    rows = [("folder", str(run.path))]
    for session in sessions(read_config(run)):
        rows.append((f"code from step {session['step']:,}", commit_name(session["code"])))
    if summary := read_summary(run):
        state = "verified" if summary.get("checksum") else "none (written by an older version)"
        rows.append(("checksum of the result", state))
    files = [run.path / name for name in FILES if (run.path / name).is_file()]
    return rows + [(file.name, format_bytes(file.stat().st_size)) for file in files]


def corpus_rows(run: Run) -> Rows:
    """Return documents, tokens and bytes of each split, and what the run reads of them."""
    corpus, cfg = run.corpus, run.config
    splits = corpus.manifest["splits"]
    rows = [("tokenizer", f"{corpus.tokenizer}, {corpus.vocab_size:,} tokens in the vocabulary")]
    for name, split in splits.items():
        size = f"{split['documents']:,} documents, {split['tokens']:,} tokens"
        rows.append((name, f"{size}, {split['bytes'] / split['tokens']:.2f} bytes a token"))
    tokens = cfg.train.max_steps * cfg.step_tokens
    epochs = tokens / splits["train"]["tokens"]
    return [*rows, ("the run reads", f"{tokens:,} tokens, {epochs:.2f} epochs")]


def _loss(summary: dict[str, Any], loss_key: str, step_key: str) -> str:
    loss, step = summary[loss_key], _text(summary.get(step_key), "{:,}")
    if loss is None:
        return f"val_loss not finite (step {step})"
    return (
        f"val_loss {loss:.4f}, perplexity {perplexity(loss):.3f}"
        f" (step {step}, whole validation split)"
    )


def _text(value: Any, form: str) -> str:
    """Return a number in a format, or "unknown" where an old or failed run has none."""
    return "unknown" if value is None else form.format(value)
