"""Summary of a run for notebooks: result, parameters, freeze proof, code, files."""

from pathlib import Path
from typing import Any

from oelm_lib.markup import html_table
from oelm_lib.runs.metrics import perplexity
from oelm_lib.runs.provenance import commit_name, sessions
from oelm_lib.runs.reading import (
    folder,
    frozen_unchanged,
    read_config,
    read_status,
    read_summary,
)
from oelm_lib.runs.status import format_duration

Rows = list[tuple[str, str]]
ARTEFACTS = (
    "config.yaml",
    "training.log",
    "metrics.jsonl",
    "best.pt",
    "latest.pt",
    "summary.json",
    "timing_stats.json",
    "documents.npz",
)


class Tables:
    """Tables of names and texts that a notebook shows; a subclass fills them."""

    def tables(self) -> dict[str, Rows]:
        """Return heading -> rows of name and text."""
        raise NotImplementedError

    def __repr__(self) -> str:
        rows = [row for rows in self.tables().values() for row in rows]
        return "\n".join(f"{name}: {text}" for name, text in rows)

    def _repr_html_(self) -> str:
        return "".join(html_table([heading, ""], rows) for heading, rows in self.tables().items())


class CorpusFacts(Tables):
    """Facts of a run's corpus: documents, tokens, bytes per token, epochs of the run.

    Args:
        run: A Run.
    """

    def __init__(self, run: Any):
        self.run = run

    def tables(self) -> dict[str, Rows]:
        """Return one table."""
        corpus, cfg = self.run.corpus, self.run.config
        splits = corpus.manifest["splits"]
        vocabulary = f"{corpus.tokenizer}, {corpus.vocab_size:,} tokens in the vocabulary"
        rows = [("tokenizer", vocabulary)]
        for name, split in splits.items():
            size = f"{split['documents']:,} documents, {split['tokens']:,} tokens"
            rows.append((name, f"{size}, {split['bytes'] / split['tokens']:.2f} bytes a token"))
        tokens = cfg.train.max_steps * cfg.step_tokens
        epochs = tokens / splits["train"]["tokens"]
        rows.append(("the run will see", f"{tokens:,} tokens, {epochs:.2f} epochs"))
        kinds = [kind for kind in ("sample", "synthetic") if corpus.manifest[kind]]
        return {", ".join([f"Corpus {corpus.name}", *kinds]): rows}


class Summary(Tables):
    """Result of a run as tables; `values` is summary.json, or {} while the run is not done.

    Args:
        run: A Run or a run folder.
    """

    def __init__(self, run: Any):
        self.path: Path = folder(run)
        self.config = read_config(run)
        self.status = read_status(run) or {}
        self.values = read_summary(run) or {}

    def tables(self) -> dict[str, Rows]:
        """Return heading -> rows of name and text."""
        return {
            "Result": self._result(),
            "Parameters": self._parameters(),
            "Artefacts": self._artefacts(),
        }

    def _result(self) -> Rows:
        values = self.values
        rows = [("run", f"{self.config['label']}, seed {self.config['seed']}")]
        if not values:
            state = f"{self.status.get('state')} at step {self.status.get('step')}"
            return [*rows, ("state", state)]
        if values["best_val_loss"] is not None:
            rows.append(("best checkpoint", self._loss("best_val_loss", "best_step")))
        seconds = values.get("wall_seconds")
        duration = _text(seconds, "{}") if seconds is None else format_duration(seconds)
        return [
            *rows,
            ("last weights", self._loss("final_val_loss", "steps")),
            ("bits per byte", _text(values.get("final_bits_per_byte"), "{:.4f}")),
            (
                "tokens seen",
                f"{_text(values.get('tokens'), '{:,}')}"
                f" ({_text(values.get('epochs'), '{:.2f}')} epochs)",
            ),
            ("time", f"{duration}, {_text(values.get('mean_step_seconds'), '{:.4f}')} s a step"),
        ]

    def _loss(self, loss_key: str, step_key: str) -> str:
        loss, step = self.values[loss_key], _text(self.values.get(step_key), "{:,}")
        if loss is None:
            return f"val_loss not finite (step {step})"
        return (
            f"val_loss {loss:.4f}, perplexity {perplexity(loss):.3f}"
            f" (step {step}, whole validation split)"
        )

    def _parameters(self) -> Rows:
        counts = self.config["parameters"]
        rows = [
            (name, f"{count:,} ({count / counts['total']:.1%})") for name, count in counts.items()
        ]
        for proof in self.values.get("frozen") or []:
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

    def _artefacts(self) -> Rows:
        rows = [("folder", str(self.path))]
        for session in sessions(self.config):
            rows.append((f"code from step {session['step']:,}", commit_name(session["code"])))
        if self.values:
            is_verified = bool(self.values.get("checksum"))
            rows.append(
                (
                    "checksum of the result",
                    "verified" if is_verified else "none (written by an older version)",
                )
            )
        files = [self.path / name for name in ARTEFACTS if (self.path / name).is_file()]
        return rows + [(file.name, _size(file.stat().st_size)) for file in files]


def _text(value: Any, form: str) -> str:
    """Return a number in a format, or "unknown" where an old or failed run has none."""
    return "unknown" if value is None else form.format(value)


def _size(count: int) -> str:
    """Return bytes in MiB, or in KiB below one MiB."""
    return f"{count / 2**20:,.1f} MiB" if count >= 2**20 else f"{count / 2**10:,.1f} KiB"
