"""What train() returns and a notebook shows: result, parameters, freeze proof, artefacts."""

import html
from pathlib import Path
from typing import Any

from oelm_lib.runs.reading import folder, read_config, read_status, read_summary
from oelm_lib.runs.status import format_duration

ARTEFACTS = "config.yaml training.log metrics.jsonl best.pt latest.pt summary.json timing_stats.json documents.npz".split()


class Tables:
    """Two-column tables for a notebook; a subclass says what stands in them."""

    def tables(self) -> dict[str, list[tuple[str, str]]]:
        """Heading -> rows of name and text."""
        raise NotImplementedError

    def __repr__(self) -> str:
        return "\n".join(
            f"{name}: {text}" for rows in self.tables().values() for name, text in rows
        )

    def _repr_html_(self) -> str:
        parts = []
        for heading, rows in self.tables().items():
            cells = "".join(
                f"<tr><td>{html.escape(n)}</td><td>{html.escape(t)}</td></tr>" for n, t in rows
            )
            head = f"<thead><tr><th colspan=2>{html.escape(heading)}</th></tr></thead>"
            parts.append(f"<table class='oelm-table'>{head}<tbody>{cells}</tbody></table>")
        return "".join(parts)


class CorpusFacts(Tables):
    """What a run reads: documents, tokens, bytes per token, and the epochs it will see."""

    def __init__(self, run: Any):
        self.run = run

    def tables(self) -> dict[str, list[tuple[str, str]]]:
        """One table."""
        corpus, cfg = self.run.corpus, self.run.config
        kinds = [kind for kind in ("sample", "synthetic") if corpus.manifest[kind]]
        rows = [
            ("tokenizer", f"{corpus.tokenizer}, {corpus.vocab_size:,} tokens in the vocabulary")
        ]
        for name, split in corpus.manifest["splits"].items():
            size = f"{split['documents']:,} documents, {split['tokens']:,} tokens"
            rows.append((name, f"{size}, {split['bytes'] / split['tokens']:.2f} bytes a token"))
        tokens = cfg.train.max_steps * cfg.train.batch_size * cfg.model.max_seq_len
        epochs = tokens / corpus.manifest["splits"]["train"]["tokens"]
        rows.append(("the run will see", f"{tokens:,} tokens, {epochs:.2f} epochs"))
        return {", ".join([f"Corpus {corpus.name}", *kinds]): rows}


class Summary(Tables):
    """The result of a run as tables; `values` is summary.json, or {} while the run is not done."""

    def __init__(self, run: Any):
        self.path: Path = folder(run)
        self.config = read_config(run)
        self.status = read_status(run) or {}
        self.values = read_summary(run) or {}

    def tables(self) -> dict[str, list[tuple[str, str]]]:
        """Heading -> rows of name and text."""
        return {
            "Result": self._result(),
            "Parameters": self._parameters(),
            "Artefacts": self._artefacts(),
        }

    def _result(self) -> list[tuple[str, str]]:
        values = self.values
        rows = [("run", f"{self.config['label']}, seed {self.config['seed']}")]
        if not values:
            return [
                *rows,
                ("state", f"{self.status.get('state')} at step {self.status.get('step')}"),
            ]
        if values["best_val_loss"] is not None:
            rows.append(
                (
                    "best checkpoint",
                    self._loss(values["best_val_loss"], f"step {values['best_step']:,}"),
                )
            )
        return [
            *rows,
            ("last weights", self._loss(values["final_val_loss"], f"step {values['steps']:,}")),
            ("bits per byte", f"{values['final_bits_per_byte']:.4f}"),
            ("tokens seen", f"{values['tokens']:,} ({values['epochs']:.2f} epochs)"),
            (
                "time",
                f"{format_duration(values['wall_seconds'])}, {values['mean_step_seconds']:.4f} s a step",
            ),
        ]

    @staticmethod
    def _loss(loss: float, at: str) -> str:
        from oelm_lib.runs.metrics import perplexity

        return (
            f"val_loss {loss:.4f}, perplexity {perplexity(loss):.3f} ({at}, whole validation split)"
        )

    def _parameters(self) -> list[tuple[str, str]]:
        counts = self.config["parameters"]
        rows = [
            (name, f"{count:,} ({count / counts['total']:.1%})") for name, count in counts.items()
        ]
        for proof in self.values.get("frozen", []):
            start, end = proof["sha256_start"], proof["sha256_end"]
            told = f"SHA-256 {start[:12]} at start, {end[:12]} at end: {'equal' if start == end else 'DIFFER'}"
            rows.append(
                (
                    f"{proof['tensors']} frozen tensors, steps {proof['from_step']} to {proof['to_step']}",
                    told,
                )
            )
        return rows

    def _artefacts(self) -> list[tuple[str, str]]:
        files = [self.path / name for name in ARTEFACTS if (self.path / name).is_file()]
        return [
            ("folder", str(self.path)),
            *((file.name, _size(file.stat().st_size)) for file in files),
        ]


def _size(count: int) -> str:
    """Bytes as MiB, or KiB where that is little."""
    return f"{count / 2**20:,.1f} MiB" if count >= 2**20 else f"{count / 2**10:,.1f} KiB"
