import pytest
from click.testing import CliRunner

from oelm_lib.bench import cpu, limits
from oelm_lib.cli import main
from oelm_lib.config import ROOT
from tests.bench.test_cpu import TINY


def result(**ratios):
    """Seconds of every step at size medium; ratios to the baseline are 1 unless given."""
    steps = [*limits.STEP_CHANGES, *limits.AT_LEAST]
    seconds = {step: [ratios.get(step, 1.0)] * 5 for step in steps}
    return {"size": "medium", "seconds": seconds | {"learned": [1.0] * 5}}


def verdict_of(table, what):
    return table.set_index("what")["verdict"][what]


def test_a_ratio_beyond_its_limit_fails():
    kept = {step: bounds["medium"] for step, (_, bounds) in limits.AT_LEAST.items()}
    assert set(limits.limits_table(result(**kept))["verdict"]) == {"met"}
    table = limits.limits_table(result(**kept | {"t5": 1.16, "hf_gpt2_script": 1.38}))
    assert verdict_of(table, "T5 over learned positions") == "missed"
    assert verdict_of(table, "HF GPT-2, as a script, over ours") == "missed"
    assert list(table["verdict"]).count("missed") == 2


def test_the_table_says_by_how_much_a_limit_is_met_or_missed():
    measured = result()
    for excess, verdict in (
        (-0.01, "met"),
        (0.0, "met"),
        (0.01, "missed within 2 standard errors"),
        (0.1, "missed"),
    ):
        measured["seconds"]["alibi"] = [1.15 + excess + noise for noise in (-0.06, -0.04, 0, 0.02)]
        measured["seconds"]["alibi"].append(1.15 + excess + 0.04)
        row = limits.limits_table(measured).set_index("what").loc["ALiBi over learned positions"]
        assert row["limit"] == "at most 1.15"
        assert row["ratio"] == f"{1.15 + excess:.3f}"
        assert 0.01 < float(row["standard error"]) < 0.05
        assert row["verdict"] == verdict


def test_the_least_ratios_are_those_of_the_page():
    page = (ROOT / "docs" / "speed.md").read_text()
    hf, naive = limits.AT_LEAST["hf_gpt2_script"][1], limits.AT_LEAST["naive_script"][1]
    assert f"speed over HF GPT-2, each as a script | {hf['medium']:.2f} ±" in page
    assert f"speed over naive attention, each as a script | {naive['medium']:.2f} ±" in page
    for script, kept in (("hf_gpt2_script", "hf_gpt2"), ("naive_script", "naive")):
        pair = [limits.AT_LEAST[step][1]["study"] for step in (script, kept)]
        assert "as a script / memory kept | {:.2f} / {:.2f} |".format(*pair) in page


@pytest.mark.slow
def test_every_step_with_a_limit_is_timed(tmp_path, monkeypatch):
    pytest.importorskip("transformers", reason="the extra `bench` is not installed")
    monkeypatch.setitem(cpu.SIZES, "medium", ("GPT-01", "GPT-02", TINY))
    measured = limits.bench_limits("medium", 5, tmp_path / "limits.json", threads=1)
    assert (tmp_path / "limits.json").is_file()
    assert {len(seconds) for seconds in measured["seconds"].values()} == {5}
    assert len(limits.limits_table(measured)) == len(limits.limits("medium"))


def test_limits_take_no_dropout_of_their_own():
    done = CliRunner().invoke(main, ["bench", "--limits", "--dropout", "0.2"])
    assert done.exit_code == 2
    assert "--limits measures dropout 0 and 0.1; leave --dropout out" in done.output
