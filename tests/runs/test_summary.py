"""The summary of a run, whatever its result lacks."""

import json

import pytest

from oelm_lib import runs
from tests.runs_factory import make_run


@pytest.fixture
def path(tmp_path):
    return make_run(tmp_path, "DEMO-02")


def rewrite(path, **changes):
    values = json.loads((path / "summary.json").read_text()) | changes
    (path / "summary.json").write_text(json.dumps(values))


def test_a_done_run_shows_result_parameters_proof_and_files(path):
    tables = runs.Summary(path).tables()
    result, parameters, artefacts = (dict(rows) for rows in tables.values())
    assert result["last weights"].startswith("val_loss 1.4")
    assert "whole validation split" in result["best checkpoint"]
    assert result["tokens seen"].endswith("epochs)")
    assert parameters["total"].endswith("(100.0%)")
    (proof,) = [text for name, text in parameters.items() if "frozen tensors" in name]
    assert proof.endswith("equal")
    assert artefacts["folder"] == str(path)
    assert artefacts["code from step 0"] == "0123456789"
    assert artefacts["checksum of the result"] == "none (written by an older version)"
    assert artefacts["metrics.jsonl"].endswith("KiB")
    assert "best.pt" not in artefacts


def test_a_digest_that_changed_is_shown(path):
    values = json.loads((path / "summary.json").read_text())
    values["frozen"][0]["sha256_end"] = "f" * 64
    rewrite(path, **values)
    assert "DIFFER" in repr(runs.Summary(path))


def test_a_baseline_has_no_proof(tmp_path):
    assert "frozen tensors" not in repr(runs.Summary(make_run(tmp_path, "DEMO-01")))


def test_a_result_without_numbers_is_shown_without_them(path):
    gone = dict.fromkeys(
        (
            "best_val_loss",
            "final_val_loss",
            "final_bits_per_byte",
            "tokens",
            "epochs",
            "wall_seconds",
            "mean_step_seconds",
            "frozen",
        )
    )
    rewrite(path, **gone)
    result = dict(runs.Summary(path).tables()["Result"])
    assert "best checkpoint" not in result
    assert result["last weights"].startswith("val_loss not finite (step 650")
    assert result["bits per byte"] == "unknown"
    assert result["time"] == "unknown, unknown s a step"
    assert "unknown" in runs.Summary(path)._repr_html_()


def test_a_stopped_run_shows_its_state(tmp_path):
    path = make_run(tmp_path, "DEMO-02", state="stopped", done=0.5)
    result = dict(runs.Summary(path).tables()["Result"])
    assert result["state"].startswith("stopped at step ")


def test_what_a_table_shows_is_escaped(path):
    text = (path / "config.yaml").read_text()
    (path / "config.yaml").write_text(text.replace("label: ", "label: <script> & ", 1))
    html = runs.Summary(path)._repr_html_()
    assert "&lt;script&gt; &amp;" in html
    assert "<script>" not in html
