"""Synthetic run folders in the format of docs/file-formats.md, for tests of tables and pages."""

from pathlib import Path

import numpy as np

from oelm_lib.config import Experiment, load_config
from oelm_lib.model.cost import parameter_counts
from tests.synthetic_run import (
    START,
    SyntheticRun,
    sha256,
    write_documents,
    write_metrics,
    write_status,
    write_summary,
    write_timing,
    write_yaml,
)

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
        final_loss: `final_val_loss` of the summary; by default that of the slug, plus an effect of
            the seed that the arms share.
        state: Any state of status.json, or `dead` (running, by a process that is gone); only a
            `done` run has a summary.
        done: Share of the steps done, for states other than `done`.
        spike: (step, loss) of one train row that stands out.
        documents: Rows of documents.npz; 0 writes none.
        test: Also record a confirmation on the test split.
        corpus, resolved, experiment: Entries of config.yaml to replace (experiment by dotted key,
            unvalidated).
    """
    cfg = load_config(exp, overrides)
    path = outputs / cfg.folder / f"seed{seed}"
    path.mkdir(parents=True)
    draw = np.random.default_rng(int(sha256(f"{cfg.id}{seed}")[:8], 16))
    if final_loss is None:
        shared = 0.02 * np.random.default_rng(seed).standard_normal()
        final_loss = FINAL_LOSS.get(cfg.slug, 1.4) + shared + 0.01 * draw.standard_normal()
    steps = cfg.train.max_steps if state == "done" else int(cfg.train.max_steps * done)
    run = SyntheticRun(path, cfg, seed, steps, final_loss, step_seconds, draw)
    run.plain = _config(cfg, seed, corpus or {}, resolved or {}, experiment or {})
    write_yaml(path / "config.yaml", run.plain)
    write_metrics(run, state, train_every, spike)
    write_status(run, state)
    if state == "done":
        write_summary(run, test)
        write_timing(run)
        if documents:
            write_documents(run, documents, test)
    return path


def make_demo(outputs: Path, seeds: tuple[int, ...] = (42, 43, 44), **options) -> list[Path]:
    """DEMO-01..04, each with `seeds`."""
    return [make_run(outputs, f"DEMO-0{n}", seed, **options) for n in range(1, 5) for seed in seeds]


def _config(cfg: Experiment, seed: int, corpus: dict, resolved: dict, experiment: dict) -> dict:
    plain = cfg.to_dict()
    for key, value in experiment.items():
        section, _, name = key.rpartition(".")
        (plain[section] if section else plain)[name] = value
    machine = {"device": "cpu", "device_name": "CPU", "precision": "fp32", "threads": 1}
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
        "resolved": machine | {"compile": False} | resolved,
        "corpus": _corpus(cfg) | corpus,
        "parameters": parameter_counts(cfg.model),
        "created": START.isoformat().replace("+00:00", "Z"),
    }


def _corpus(cfg: Experiment) -> dict:
    name = cfg.data.corpus
    splits = {
        split: {
            "documents": documents,
            "tokens": tokens,
            "bytes": size,
            "literal_eot": 0,
            "sha256": sha256(name + split),
        }
        for split, (documents, tokens, size) in zip(
            ("train", "val", "test"), CORPORA[name], strict=True
        )
    }
    return {
        "name": name,
        "tokenizer": cfg.data.tokenizer,
        "manifest_sha256": sha256(name + cfg.data.tokenizer),
        "sample": name.endswith("-sample"),
        "synthetic": name == "stories",
        "splits": splits,
    }
