"""Records of a study: reports/<name>/runs.jsonl, one line per run; its page needs nothing else.

The file only grows. A line is appended under a lock of the file, after a torn last line was cut, so
several engines may write at once. A run folder may be deleted once its line is there.
"""

import json
import math
import time
from collections.abc import Iterable
from pathlib import Path
from typing import Any, Literal

import numpy as np
from pydantic import ConfigDict, ValidationError

from oelm_lib import config
from oelm_lib.config import Section
from oelm_lib.errors import UserError
from oelm_lib.files import (
    append_line,
    as_user_error,
    checksum,
    json_lines,
    nan_to_none,
    read_json,
    with_checksum,
    write_text,
)
from oelm_lib.model.cost import qk_share
from oelm_lib.runs.documents import read_documents
from oelm_lib.runs.reading import (
    frozen_unchanged,
    read_config,
    read_logit_std,
    read_status,
    read_summary,
    record_file,
    recorded_experiment,
)
from oelm_lib.study.cell import CONFIRM, Cell, PlannedRun
from oelm_lib.study.plan import GUIDE, Plan, parse_plan
from oelm_lib.yaml_text import dump_yaml

DONE, DIVERGED = "done", "diverged"
SPLIT_FACTS = ("documents", "tokens", "bytes", "sha256")


class Record(Section):
    """One line of runs.jsonl.

    Losses are in nats per token, over a whole split, with the last weights.
    """

    model_config = ConfigDict(extra="ignore", frozen=True, allow_inf_nan=False)

    study: str
    plan: str
    """Hash of the plan by which the run was made."""
    stage: Literal["tune", "confirm"]
    corpus: str
    size: str
    arm: str
    rate: float
    seed: int
    status: Literal["done", "diverged"]
    error: str | None
    """Why the run diverged; None for a run that ended."""
    val_loss: float | None
    test_loss: float | None
    test_documents: dict[str, list[float]] | None
    """nats and tokens of each test document; None where not scored or not finite."""
    val_documents: dict[str, list[float]] | None = None
    """The same of the validation split, of a confirmation that is read on it."""
    epochs: float | None
    parameters: dict[str, int]
    trained_share: float
    """Share of the Q/K weights that were trained."""
    frozen_unchanged: bool | None
    """Whether the frozen tensors kept their SHA-256; None: nothing was frozen."""
    logit_std: list[float] | None
    """Spread of each layer's attention scores at the last evaluation."""
    seconds: float
    science: dict[str, Any]
    """Every key that decides the result, with its value."""
    data: dict[str, Any]
    """Tokenizer and, of each split, documents, tokens, bytes and the SHA-256 of the token file."""
    code: dict[str, Any]
    machine: dict[str, Any]
    finished: str
    checksum: str | None = None
    """SHA-256 of all other keys; None in a record of an older version."""

    @property
    def cell(self) -> Cell:
        """The cell that the run belongs to."""
        return Cell(self.corpus, self.size, self.arm)

    @property
    def key(self) -> tuple[Cell, float, int]:
        """Cell, learning rate and seed: no two records share all three."""
        return self.cell, self.rate, self.seed

    def loss(self, split: str) -> float | None:
        """Return the loss on `val` or `test`; None where the run diverged.

        A finite loss above that of a uniform guess, ln(vocabulary), counts as diverged too.
        """
        loss = self.test_loss if split == "test" else self.val_loss
        if self.status != DONE or loss is None:
            return None
        return loss if loss <= math.log(self.science["model.vocab_size"]) else None


def study_folder(name: str) -> Path:
    """Return the folder of a study's records and of its plan when confirmation began."""
    return config.ROOT / "reports" / name


def records_path(name: str) -> Path:
    """Return the file of a study's records."""
    return study_folder(name) / "runs.jsonl"


def make_record(
    path: Path, planned: PlannedRun, name: str, plan_hash: str, machine: dict[str, Any]
) -> dict[str, Any]:
    """Return the record of a run that is done, or that diverged, from its folder.

    Args:
        path: Run folder.
        machine: `describe_machine()` of the process that trained it.
    """
    plain = read_config(path)
    cfg = recorded_experiment(plain, path / "config.yaml")
    summary = read_summary(path)
    result = _done(path, summary, planned.stage) if summary else _diverged(path)
    corpus = plain["corpus"]
    return {
        "study": name,
        "plan": plan_hash,
        "stage": planned.stage,
        "corpus": planned.cell.corpus,
        "size": planned.cell.size,
        "arm": planned.cell.arm,
        "rate": planned.rate,
        "seed": planned.seed,
        **result,
        "parameters": plain["parameters"],
        "trained_share": round(qk_share(cfg.model), 6),
        "logit_std": _last_logit_std(path),
        "science": cfg.science,
        "data": {
            "tokenizer": corpus["tokenizer"],
            "sample": corpus["sample"],
            "synthetic": corpus["synthetic"],
            "splits": {
                split: {key: facts[key] for key in SPLIT_FACTS}
                for split, facts in corpus["splits"].items()
            },
        },
        "code": plain["code"],
        "machine": machine | plain["resolved"] | {"torch": plain["versions"]["torch"]},
        "finished": time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime()),
    }


def _done(path: Path, summary: dict[str, Any], stage: str) -> dict[str, Any]:
    documents = read_documents(path)
    is_scored = "test_nats" in documents
    is_read_on_val = stage == CONFIRM and not is_scored
    return {
        "status": DONE,
        "error": None,
        "val_loss": nan_to_none(summary["final_val_loss"]),
        "test_loss": nan_to_none(summary["final_test_loss"]),
        "test_documents": _documents(documents, "test_") if is_scored else None,
        "val_documents": _documents(documents, "") if is_read_on_val else None,
        "epochs": summary["epochs"],
        "frozen_unchanged": frozen_unchanged(summary["frozen"]),
        "seconds": round(summary["wall_seconds"], 1),
    }


def _diverged(path: Path) -> dict[str, Any]:
    status = read_status(path)
    if status is None or status.get("state") != "failed":
        raise UserError(f"{path}: neither a result nor a failure is recorded; start the run again")
    reason = (read_json(record_file(path, "bad_step.json")) or {}).get("reason")
    if not isinstance(reason, str):
        raise UserError(f"{path}: bad_step.json is missing or broken; start the run again")
    return {
        "status": DIVERGED,
        "error": reason,
        "val_loss": None,
        "test_loss": None,
        "test_documents": None,
        "val_documents": None,
        "epochs": None,
        "frozen_unchanged": None,
        "seconds": round(status.get("seconds") or 0.0, 1),
    }


def _documents(documents: dict[str, np.ndarray], prefix: str) -> dict[str, list[float]] | None:
    """Return nats and tokens of each document of a split; None where one is not finite."""
    nats = documents[f"{prefix}nats"]
    if not np.isfinite(nats).all():
        return None
    return {
        "nats": [float(f"{value:.6g}") for value in nats],
        "tokens": documents[f"{prefix}tokens"].tolist(),
    }


def _last_logit_std(path: Path) -> list[float] | None:
    spreads = read_logit_std(path)
    last = spreads.loc[spreads["step"] == spreads["step"].max(), "logit_std"]
    return last.round(3).tolist() or None


def append_record(path: Path, record: dict[str, Any]) -> bool:
    """Append a record durably, unless one of the same run is there; return whether it was added.

    Raises:
        UserError: The file cannot be written, or holds a line that is no record.
    """
    key = Record.model_validate(record).key

    def is_recorded(text: bytes) -> bool:
        return any(entry.key == key for entry in _parse(text, path))

    line = json.dumps(with_checksum(record), separators=(",", ":"))
    with as_user_error(path, "cannot be written", ", then the same command goes on"):
        return append_line(path, line, is_recorded)


def read_records(path: Path) -> list[Record]:
    """Read all records; a torn last line is left out, not one that lacks only its newline.

    Raises:
        UserError: A line is not a record.
    """
    try:
        text = path.read_bytes()
    except FileNotFoundError:
        return []
    return list(_parse(text, path))


def _parse(text: bytes, path: Path) -> Iterable[Record]:
    for number, line in enumerate(json_lines(text), 1):
        try:
            record = Record.model_validate_json(line)
        except ValidationError:
            raise UserError(
                f"{path}: line {number} is not a record; restore it from git or delete that line"
            ) from None
        if record.checksum and record.checksum != checksum(json.loads(line)):
            raise UserError(
                f"{path}: line {number} fails its checksum: it was damaged or edited; restore it"
                " from git or delete that line"
            )
        yield record


def registered_plan(name: str) -> Plan | None:
    """Return the plan as it stood when confirmation began; None: it has not begun."""
    path = study_folder(name) / "plan.yaml"
    if not path.is_file():
        return None
    return parse_plan(config.read_yaml(path, GUIDE), f"reports/{name}/plan.yaml")


def register_plan(name: str, plan: Plan) -> None:
    """Save the plan before the first confirmation run; a plan that is saved already stays."""
    path = study_folder(name) / "plan.yaml"
    if not path.exists():
        path.parent.mkdir(parents=True, exist_ok=True)
        plain = plan.model_dump(mode="json", by_alias=True)
        write_text(path, dump_yaml(plain))
