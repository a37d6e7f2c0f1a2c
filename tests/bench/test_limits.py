import pytest

from oelm_lib.bench import cpu, limits
from oelm_lib.config import ROOT
from tests.bench.test_cpu import TINY


def result(**ratios):
    """Seconds of every step at size medium; ratios to the baseline are 1 unless given."""
    steps = [*limits.ARMS, *limits.AT_LEAST]
    seconds = {step: [ratios.get(step, 1.0)] * 5 for step in steps}
    return {"size": "medium", "seconds": seconds | {"learned": [1.0] * 5}}


def verdict_of(table, what):
    return table.set_index("what")["verdict"][what]


def test_a_ratio_beyond_its_limit_fails():
    kept = {step: bounds["medium"] for step, (_, bounds) in limits.AT_LEAST.items()}
    assert set(limits.verdicts(result(**kept))["verdict"]) == {"PASS"}
    table = limits.verdicts(result(**kept | {"t5": 1.16, "hf_gpt2_script": 1.38}))
    assert verdict_of(table, "T5 over learned positions") == "FAIL"
    assert verdict_of(table, "HF GPT-2, as a script, over ours") == "FAIL"
    assert list(table["verdict"]).count("FAIL") == 2


def test_a_ratio_may_miss_its_limit_by_two_standard_errors():
    measured = result()
    measured["seconds"]["alibi"] = [1.10, 1.12, 1.16, 1.18, 1.20]
    table = limits.verdicts(measured)
    assert verdict_of(table, "ALiBi over learned positions") == "PASS"
    measured["seconds"]["alibi"] = [1.20, 1.22, 1.26, 1.28, 1.30]
    assert verdict_of(limits.verdicts(measured), "ALiBi over learned positions") == "FAIL"


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
    measured = limits.bench_limits("medium", 5, tmp_path / "limits", threads=1)
    assert (tmp_path / "limits.json").is_file()
    assert {len(seconds) for seconds in measured["seconds"].values()} == {5}
    assert len(limits.verdicts(measured)) == len(limits.limits("medium"))
