"""Tables of a run's page, whatever the result of the run lacks."""

import json

import pytest

from oelm_lib import run_page, runs
from oelm_lib.config import load_config
from oelm_lib.run_page import run as parts
from tests.runs_factory import make_run


@pytest.fixture
def run(tmp_path):
    return runs.Run(load_config("DEMO-02"), 42, None, make_run(tmp_path, "DEMO-02"))


def rewrite(run, **changes):
    values = runs.read_summary(run) | changes
    (run.path / "summary.json").write_text(json.dumps(values))


def test_a_done_run_shows_result_parameters_proof_and_files(run):
    summary = runs.read_summary(run)
    result = dict(parts.result_rows(summary))
    assert result["last weights"].startswith("val_loss 1.4")
    assert "whole validation split" in result["best checkpoint"]
    assert result["tokens seen"].endswith("epochs)")
    parameters = dict(parts.parameter_rows(run, summary))
    assert parameters["total"].endswith("(100.0%)")
    (proof,) = [text for name, text in parameters.items() if "frozen tensors" in name]
    assert proof.endswith("equal")
    files = dict(parts.file_rows(run))
    assert files["folder"] == str(run.path)
    assert files["code from step 0"] == "0123456789"
    assert files["checksum of the result"] == "none (written by an older version)"
    assert files["metrics.jsonl"].endswith("KiB")
    assert "best.pt" not in files


def test_a_digest_that_changed_is_shown(run):
    proof = runs.read_summary(run)["frozen"][0] | {"sha256_end": "f" * 64}
    rewrite(run, frozen=[proof])
    page = run_page.freeze_proof(run)
    assert "Not frozen" in page and "DIFFER" in page


def test_a_result_without_numbers_is_shown_without_them(run):
    lost = ("final_bits_per_byte", "tokens", "epochs", "wall_seconds", "mean_step_seconds")
    rewrite(run, **dict.fromkeys(("best_val_loss", "final_val_loss", "frozen", *lost)))
    result = dict(parts.result_rows(runs.read_summary(run)))
    assert "best checkpoint" not in result
    assert result["last weights"].startswith("val_loss not finite (step 650")
    assert result["bits per byte"] == "unknown"
    assert result["time"] == "unknown, unknown s a step"
    assert "A loss that is not finite on the whole validation split" in run_page.result(run)
    assert "Nothing was frozen" in run_page.freeze_proof(run)


def test_the_corpus_of_a_run_is_a_few_rows(tiny_run):
    run = tiny_run(train__max_steps=12)
    rows = parts.corpus_rows(run)
    assert len(rows) == 2 + len(run.corpus.manifest["splits"])
    seen = 12 * run.config.train.batch_size * run.config.model.max_seq_len
    assert rows[-1][1].startswith(f"{seen:,} tokens, ")
    assert f"Corpus {run.corpus.name}, synthetic" in run_page.corpus(run)
