"""A run's record in one line of reports/study/runs.jsonl: kept in git, it outlives the run folder."""

import contextlib
import json
import sys
from pathlib import Path
from typing import Any

import numpy as np

from oelm_lib import config
from oelm_lib.errors import UserError
from oelm_lib.files import sha256_json
from oelm_lib.runs.metrics import AppendFile
from oelm_lib.runs.reading import read_config, read_metrics, read_summary

RECORDS = config.ROOT / "reports" / "study" / "runs.jsonl"
COPIED = "id seed title steps tokens epochs best_val_loss final_val_loss final_bits_per_byte final_test_loss".split()
COPIED += ["parameters", "frozen", "wall_seconds", "mean_step_seconds", "finished"]
SPLIT_FACTS = ("documents", "tokens", "bytes", "sha256")


def make_record(path: Path) -> dict[str, Any]:
    """What the record says of a finished run; losses in nats, rounded to 5 digits for each document."""
    plain, summary, metrics = read_config(path), read_summary(path), read_metrics(path)
    cfg = config.parse_experiment(plain["experiment"], f"{path}/config.yaml", plain["overrides"])
    evals = metrics[metrics["event"] == "eval"]
    corpus = plain["corpus"]
    splits = {
        name: {key: split[key] for key in SPLIT_FACTS} for name, split in corpus["splits"].items()
    }
    record = {key: summary[key] for key in COPIED}
    record |= {
        "science": cfg.science,
        "config_sha256": sha256_json(cfg.science),
        "commit": plain["code"]["commit"],
    }
    record |= {
        "dirty": plain["code"]["dirty"],
        "versions": plain["versions"],
        "resolved": plain["resolved"],
    }
    record["corpus"] = {
        key: corpus[key] for key in ("name", "tokenizer", "manifest_sha256", "sample")
    }
    record["corpus"]["splits"] = splits
    record["evals"] = [
        [int(step), round(loss, 5)] for step, loss in zip(evals["step"], evals["loss"], strict=True)
    ]
    with np.load(path / "documents.npz") as documents:
        if "test_nats" in documents:
            nats = [float(f"{value:.5g}") for value in documents["test_nats"]]
            record["test_documents"] = {"nats": nats, "tokens": documents["test_tokens"].tolist()}
    return record


def append_record(record: dict[str, Any], path: Path = RECORDS) -> None:
    """Add a line durably; what a crash left of a torn one goes first."""
    path.parent.mkdir(parents=True, exist_ok=True)
    file = AppendFile(path, sys.maxsize)
    file.write(json.dumps(record, separators=(",", ":"), allow_nan=False))
    file.sync()
    file.close()


def read_records(path: Path = RECORDS, lines: int | None = None) -> list[dict[str, Any]]:
    """The last record of each (id, seed); a torn last line is dropped. Raises UserError where another is broken.

    Args:
        lines: Only so many lines, the oldest.
    """
    data = b""
    with contextlib.suppress(FileNotFoundError):
        data = path.read_bytes()
    found = {}
    for number, line in enumerate(data[: data.rfind(b"\n") + 1].splitlines()[:lines], 1):
        try:
            record = json.loads(line)
            found[record["id"], record["seed"]] = record
        except (ValueError, KeyError, TypeError):
            raise UserError(
                f"{path}: line {number} is not a record; restore it from git or delete it"
            ) from None
    return list(found.values())
