"""Records of a study that was never run: losses from a formula over the arm, the rate and the seed."""

import math
from pathlib import Path

import numpy as np

from oelm_lib.launch import sweep
from oelm_lib.study.exploration import PROBES
from oelm_lib.study.records import append_record

EFFECTS = {
    "freeze_q": 0.06,
    "freeze_k": 0.06,
    "delta_rank": -0.02,
    "qk_core": -0.03,
    "key_conv": -0.08,
    "qk_tied": 0.08,
}
DOCUMENTS = 60
CONFIRMED = (
    "baseline",
    "orthogonal",
    "Gaussian",
    "Gaussian at the log's scale",
    "RoPE, delta r=4",
    "baseline + RoPE",
)


def loss_of(cfg, seed, noise=0.004):
    """Nats: each field's effect, a parabola over the logarithm of the rate, and noise that seeds share."""
    model = cfg.model
    loss = 2.7 + sum(value * float(getattr(model, key)) for key, value in EFFECTS.items())
    loss -= 0.15 * (model.position == "rope") + 0.1 * (model.position == "t5")
    loss += (
        0.1 * (model.freeze_q and model.qk_scale < 0.9)
        + 0.05 * math.log(cfg.optim.learning_rate / 3e-3) ** 2
    )
    own = np.random.default_rng([seed, int(cfg.id[-4:])]).normal()
    return loss + 0.02 * np.random.default_rng(seed).normal() + noise * own


def make_records(path, plan, stage, folder, losses=loss_of):
    """Append a record of every run of a plan."""
    tokens = np.random.default_rng(0).integers(50, 400, DOCUMENTS)
    for cell in sweep.make_cells(plan, folder):
        cfg, seed = cell.config, cell.job.seed
        loss = losses(cfg, seed)
        split = {
            "documents": DOCUMENTS,
            "tokens": int(tokens.sum()),
            "bytes": 4 * int(tokens.sum()),
            "sha256": "0f" * 32,
        }
        record = {
            "plan": stage,
            "arm": cell.arm,
            "baseline": plan.arms[cell.arm].baseline,
            "id": cfg.id,
            "seed": seed,
        }
        record |= {
            "science": cfg.science,
            "commit": "0123456789",
            "dirty": False,
            "steps": cfg.train.max_steps,
        }
        record |= {"tokens": 3_072_000, "parameters": {"total": 1_069_824}}
        record |= {
            "final_val_loss": loss,
            "final_test_loss": loss + 0.01 if plan.test else None,
            "wall_seconds": 300.0,
        }
        record |= {
            "frozen": [
                {
                    "from_step": 0,
                    "to_step": 1500,
                    "sha256_start": "a",
                    "sha256_end": "a",
                    "tensors": 8,
                }
            ]
        }
        facts = {
            "name": cfg.data.corpus,
            "tokenizer": cfg.data.tokenizer,
            "manifest_sha256": "ab" * 32,
            "sample": True,
        }
        record["corpus"] = facts | {"splits": dict.fromkeys(("train", "val", "test"), split)}
        parts = {"loss_on_repeated_bigrams": loss - 0.8, "loss_on_other_tokens": loss + 0.2}
        record["probes"] = dict.fromkeys(PROBES, 0.5) | parts
        record["probes"] |= {"share_of_repeated_bigrams": 0.2, "share_of_other_tokens": 0.8}
        if plan.test:
            record["test_documents"] = {
                "nats": (tokens * (loss + 0.01)).round(3).tolist(),
                "tokens": tokens.tolist(),
            }
        append_record(record, path)


def make_study(path, folder, second=True):
    """Stage 1 as the plan beside this file declares it and, if asked for, a pilot and a stage 2 of some of its arms."""
    first = sweep.read_plan(Path(__file__).with_name("stage1.yaml"))
    make_records(path, first, "stage1", folder)
    if second:
        more = {"arms": {arm: first.arms[arm] for arm in ("baseline", "orthogonal")}}
        more |= {"corpora": {"tinystories-sample": (2, 3)}}
        make_records(path, sweep.Plan.model_validate(first.model_dump() | more), "pilot", folder)
        arms = {
            arm: first.arms[arm].model_copy(update={"learning_rates": None}) for arm in CONFIRMED
        }
        more = {
            "arms": arms,
            "corpora": dict.fromkeys(("tinystories-sample", "wikitext2"), (11, 12, 13, 14, 15)),
        }
        more |= {"learning_rates": [4e-3], "test": True}
        make_records(path, sweep.Plan.model_validate(first.model_dump() | more), "stage2", folder)
    return path
