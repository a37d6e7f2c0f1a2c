"""The bench of `make gpu`, on the CPU: the same code with a small model."""

import json

import pytest

from oelm_lib.bench import gpu_results
from oelm_lib.files import with_checksum
from tests.bench.test_cpu import TINY

CHANGES = TINY | {"model.dropout": 0.0, "data.corpus": "stories"}


@pytest.fixture
def cpu():
    import torch

    return torch.device("cpu")


def case(**changes):
    from oelm_lib.bench.gpu import Case

    plain = {"code": "workbook", "mode": "eager", "precision": "bf16"}
    return Case(**plain | {"position": "learned", "arm": "baseline"} | changes)


@pytest.mark.parametrize(
    "changes",
    [{}, {"position": "t5", "arm": "OELM-Freeze"}, {"position": "rope"}, {"code": "naive"}],
    ids=str,
)
def test_a_case_is_timed(cpu, changes):
    from oelm_lib.bench.gpu import measure

    row = measure(case(**changes), cpu, CHANGES)
    assert 0 < row["seconds_low"] <= row["seconds"] <= row["seconds_high"]
    assert row["tokens_per_s"] == pytest.approx(2 * 16 / row["seconds"])
    assert row["flops"] > 0 and row["bytes"] > 0 and row["memory_bytes"] is None


def test_the_cases_are_a_full_grid_with_the_most_telling_first():
    from oelm_lib.bench.gpu import ARMS, MODES, all_cases

    cases = all_cases()
    ours = [one for one in cases if one.code == "workbook"]
    assert len(ours) == len(set(ours)) == len(MODES) * 2 * 3 * len(ARMS)
    assert [one.position for one in cases[:6]] == ["learned"] * 6
    assert {(one.code, one.mode) for one in cases} >= {
        ("naive", "eager"),
        ("hf_gpt2", "eager"),
        ("hf_gpt2", "compiled"),
    }


def test_cases_beyond_the_time_are_named_and_the_tables_show_both(cpu, tmp_path):
    from oelm_lib.bench.gpu import bench_gpu

    out = tmp_path / "card.json"
    measured = bench_gpu(out, 1000, cpu, [case()], CHANGES)
    late = bench_gpu(out, -1, cpu, [case(position="t5")], CHANGES)
    assert json.loads(out.read_text()) == with_checksum(late)
    assert late["rows"] == [] and late["left_out"][0]["reason"] == "out of time"
    (row,) = measured["rows"]
    assert row["share_of_peak"] > 0 and row["floor_seconds"] > 0
    bench = measured | {"left_out": late["left_out"], "summary": "1 case", "seconds": 1.0}
    result = {"card": "none", "versions": {"torch": "2"}, "bench": bench}
    out.write_text(json.dumps(result))
    results = gpu_results.load_results(tmp_path)
    assert list(gpu_results.cases(results)["position"]) == ["learned"]
    assert list(gpu_results.left_out(results)["reason"]) == ["out of time"]
    assert list(gpu_results.checks(results)["result"]) == ["1 case"]


def test_a_case_that_fails_is_named_and_the_others_are_measured(cpu, tmp_path, monkeypatch):
    from oelm_lib.bench import gpu

    def fails(*args):
        raise RuntimeError("no C compiler\nand more lines")

    monkeypatch.setitem(gpu.CODES, "naive", fails)
    cases = [case(code="naive"), case()]
    measured = gpu.bench_gpu(tmp_path / "card.json", 1000, cpu, cases, CHANGES)
    (failed,) = measured["left_out"]
    assert (failed["code"], failed["reason"]) == ("naive", "RuntimeError: no C compiler")
    assert [row["code"] for row in measured["rows"]] == ["workbook"]


def test_without_results_the_tables_say_so(tmp_path):
    checks = gpu_results.checks(gpu_results.load_results(tmp_path))
    assert "not measured" in checks.iloc[0]["result"]
    assert len(gpu_results.cases([])) == len(gpu_results.left_out([])) == 1
