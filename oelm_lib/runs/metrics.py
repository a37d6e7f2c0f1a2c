"""Append-only files of a run: metrics.jsonl and training.log."""

import contextlib
import json
import os
from pathlib import Path
from typing import Any

from oelm_lib.files import Check, nan_to_none
from oelm_lib.units import perplexity


class AppendFile:
    """A text file that only grows; it is cut to a known length when a run resumes.

    Args:
        path: The file; made where missing.
        length: Bytes to keep, or fewer, so that the last line is whole.
        check: Called before each change; if it raises, the file is not changed.
    """

    def __init__(self, path: Path, length: int, check: Check):
        self._check = check
        check()
        # O_NOFOLLOW: the file that is cut must lie in the run folder.
        flags = os.O_RDWR | os.O_CREAT | os.O_APPEND | os.O_NOFOLLOW
        self._file = os.fdopen(os.open(path, flags, 0o666), "ab+")
        self._file.seek(0)
        kept = self._file.read(length).rfind(b"\n") + 1
        self.is_short = kept < length
        self._file.truncate(kept)
        self._file.seek(0, os.SEEK_END)

    def sync(self) -> int:
        """Write the file to the disk (fsync); returns its length in bytes."""
        self._file.flush()
        os.fsync(self._file.fileno())
        return self._file.tell()

    def write(self, line: str) -> None:
        """Append one line; the operating system has it when this returns."""
        self._check()
        self._file.write(line.encode() + b"\n")
        self._file.flush()

    def close(self) -> None:
        """Close the file. A line that a full disk refused stays torn; the next session cuts it."""
        with contextlib.suppress(OSError):
            self._file.close()


class Recorder:
    """Recorder of a run: rows of metrics.jsonl, lines of training.log.

    Args:
        path: Run folder.
        offsets: `offsets()` at the checkpoint that the run resumes from; {} for a new run.
        check: The `check` of the run's lock, called before every line.
    """

    def __init__(self, path: Path, offsets: dict[str, int], check: Check):
        self._files = {
            name: AppendFile(path / name, offsets.get(name, 0), check)
            for name in ("metrics.jsonl", "training.log")
        }

    def train(self, step: int, loss: float, **fields: Any) -> None:
        """Append a train row and its line."""
        self._row("train", step, loss, fields)
        self._files["training.log"].write(
            f"[Step {step}] loss {loss:.4f}  lr {fields['learning_rate']:.2e}"
            f"  grad_norm {fields['grad_norm']:.3f}  {fields['tokens_per_s']:,.0f} tokens/s"
        )

    def evaluation(self, step: int, loss: float, new_best: bool, **fields: Any) -> None:
        """Append an eval row and its line, in the log's form."""
        self._row("eval", step, loss, fields)
        best = "  (new best)" if new_best else ""
        self._files["training.log"].write(
            f"[Step {step}] Validation - Loss: {loss:.4f}, PPL: {perplexity(loss):.2f}{best}"
        )

    def sample(self, step: int, text: str) -> None:
        """Append a line with a text that the model has written."""
        self.note(f"[Step {step}] Sample - {json.dumps(text, ensure_ascii=False)}")

    def note(self, text: str) -> None:
        """Append a line to training.log."""
        self._files["training.log"].write(text)

    def offsets(self) -> dict[str, int]:
        """Return the length of each file in bytes, all of it on the disk."""
        return {name: file.sync() for name, file in self._files.items()}

    def missing_lines(self) -> str | None:
        """Return a warning where files are shorter than at the checkpoint, else None."""
        short = " and ".join(name for name, file in self._files.items() if file.is_short)
        return f"{short}: shorter than at the checkpoint, the lines are lost" if short else None

    def close(self) -> None:
        """Close the files."""
        for file in self._files.values():
            file.close()

    def _row(self, event: str, step: int, loss: float, fields: dict[str, Any]) -> None:
        row = {"event": event, "step": step, "loss": loss, "perplexity": perplexity(loss)} | fields
        self._files["metrics.jsonl"].write(json.dumps(nan_to_none(row)))
