"""Plans and records of small invented studies."""

import json

from oelm_lib import config
from oelm_lib.study.plan import parse_plan
from oelm_lib.study.records import Record

FROZEN = {"model.freeze_q": True, "model.freeze_k": True, "model.qk_scale": 1.0}
LADDER = {
    "sizes": {"small": {"set": {"model.d_model": 32}}},
    "arms": ["frozen"],
    "corpora": ["stories"],
    "seeds": 4,
    "flat": 0.005,
}
"""A ladder for `plain_plan`, with one size beside the base."""


def plain_plan(**changes):
    """A plan's mapping: two arms and a twin on one corpus."""
    plain = {
        "question": "What does it cost?",
        "base": "DEMO-01",
        "set": {"train.max_steps": 20},
        "corpora": ["stories"],
        "arms": {
            "trained": {"about": "Every weight is trained."},
            "frozen": {"set": FROZEN | {"model.qk_init": "orthogonal"}, "against": "trained"},
            "twin": {"set": FROZEN, "against": "trained"},
        },
        "tune": {"seeds": [1, 2], "start": 0.01, "factor": 2.0},
        "confirm": {"seeds": {"from": 101, "count": 4}, "split": "test"},
        "claims": [
            {"arm": "frozen", "at_most": [0.05, 0.01]},
            {"equal": ["frozen", "twin"], "within": 0.01},
        ],
    }
    return plain | changes


def make_plan(**changes):
    """The plan of `plain_plan`."""
    return parse_plan(plain_plan(**changes), "plan.yaml")


def make_line(plan, cell, rate, seed, loss, stage="tune", **changes):
    """A record as it stands in the file; loss None: the run diverged."""
    science = json.loads(json.dumps(plan.config(cell, rate).science))
    return {
        "study": "test",
        "plan": plan.hash,
        "stage": stage,
        "corpus": cell.corpus,
        "size": cell.size,
        "arm": cell.arm,
        "rate": rate,
        "seed": seed,
        "status": "diverged" if loss is None else "done",
        "error": "loss is nan" if loss is None else None,
        "val_loss": loss,
        "test_loss": loss if stage == "confirm" else None,
        "test_documents": None,
        "epochs": 0.1,
        "parameters": {"total": 100, "trainable": 90, "frozen": 10},
        "trained_share": 0.0,
        "frozen_unchanged": True,
        "logit_std": [0.5, 1.0],
        "seconds": 10.0,
        "science": science,
        "data": {
            "tokenizer": "bpe-1024",
            "sample": False,
            "synthetic": True,
            "splits": {"train": {"documents": 1, "tokens": 9, "bytes": 9, "sha256": "ab" * 32}},
        },
        "code": {"commit": "c" * 40, "dirty": False, "version": "0"},
        "machine": {"cpu": "test", "torch": "2", "device_name": "cpu", "instructions": "AVX2"},
        "finished": "2026-01-01T00:00:00Z",
        **changes,
    }


def make_record(*args, **changes):
    """The record of `make_line`."""
    return Record.model_validate(make_line(*args, **changes))


def tuned(plan, cell, best=0.01, loss=3.0, curvature=0.02):
    """Records of a cell whose tuning has ended at `best`, almost without noise."""
    import math

    return [
        make_record(
            plan,
            cell,
            rate,
            seed,
            loss + curvature * math.log2(rate / best) ** 2 + 0.0001 * seed * (rate > best),
        )
        for rate in (best / 4, best / 2, best, best * 2)
        for seed in plan.tune.seeds
    ]


def confirmed(plan, cell, rate, losses, first=101):
    """Confirmation records with these losses, seed by seed."""
    return [
        make_record(plan, cell, rate, first + n, loss, stage="confirm")
        for n, loss in enumerate(losses)
    ]


def corpus_names():
    """Names of the corpora that the project declares."""
    return {path.stem for path in (config.PARAMS / "corpora").glob("*.yaml")}
