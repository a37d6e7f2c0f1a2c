"""The page of a comparison holds the baselines that it judges against, named or not."""

import pytest

from oelm_lib import compare
from oelm_lib.errors import UserError
from oelm_lib.report.make import _unnamed_baselines, report
from oelm_lib.runs.names import parse_patterns
from tests.runs_factory import make_run

SHORT = {"train.max_steps": 130}


@pytest.fixture
def outputs(tmp_path, monkeypatch):
    monkeypatch.setenv("OELM_OUTPUTS", str(tmp_path))
    return tmp_path


def compared(target, baseline=None):
    """Return arm -> baseline (None: not compared) of a page."""
    patterns = parse_patterns(target)
    patterns += _unnamed_baselines(patterns, baseline)
    runs = compare.load_runs(patterns, rehearsals=False)
    return {one.id: one.baseline for one in compare.judge(runs, baseline)}


def test_a_finished_baseline_is_compared_though_no_one_names_it(outputs):
    """The page used to say that the baseline had no run."""
    for exp in ("DEMO-01", "DEMO-02", "DEMO-04"):
        make_run(outputs, exp)
    assert compared("DEMO-02") == {"DEMO-02": "DEMO-01"}
    assert compared("DEMO-0[24]") == dict.fromkeys(("DEMO-02", "DEMO-04"), "DEMO-01")
    assert _unnamed_baselines(["DEMO-*"], None) == []
    assert _unnamed_baselines(["DEMO-01"], None) == []


def test_the_baseline_that_is_asked_for_is_compared_though_no_pattern_names_it(outputs):
    """The page judged against compare_to, as if none had been asked for."""
    for exp in ("DEMO-01", "DEMO-02", "DEMO-03"):
        make_run(outputs, exp)
    assert compared("DEMO-01 DEMO-02", "DEMO-03") == dict.fromkeys(
        ("DEMO-01", "DEMO-02"), "DEMO-03"
    )


def test_a_baseline_without_a_finished_run_is_refused_if_it_is_asked_for(outputs):
    make_run(outputs, "DEMO-02")
    make_run(outputs, "DEMO-03", state="running", done=0.5)
    make_run(outputs, "DEMO-04", overrides=SHORT)
    for exp in ("DEMO-01", "DEMO-03", "DEMO-04"):
        words = f"no finished run of the baseline {exp}; train: oelm run {exp}"
        with pytest.raises(UserError, match=words):
            report("DEMO-02", exp)
    assert compared("DEMO-02") == {"DEMO-02": None}


def test_a_rehearsal_is_compared_with_the_rehearsal_of_its_overrides(outputs):
    arm = make_run(outputs, "DEMO-02", overrides=SHORT).parent.name
    make_run(outputs, "DEMO-01")
    assert compared(arm) == {arm: "DEMO-01"}
    base = make_run(outputs, "DEMO-01", overrides=SHORT).parent.name
    assert compared(arm) == compared(arm, "DEMO-01") == {arm: base}
    make_run(outputs, "DEMO-02")
    assert compared("DEMO-02", base) == {"DEMO-02": base}
