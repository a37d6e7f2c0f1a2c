import json

import pytest

from oelm_lib.bench import cpu_results

KEYS = ("baseline", "oelm_freeze", "naive", "hf_gpt2")


def result(**more):
    """A result of `oelm bench` with round numbers."""
    ours = {"baseline": [2.0, 2.0], "oelm_freeze": [1.9, 1.9]}
    others = {"naive": [2.4], "naive_script": [2.6], "hf_gpt2": [3.0], "hf_gpt2_script": [3.2]}
    rows = [
        {
            "what": what,
            "value": value,
            "seconds": [value / 4, value / 3, value / 8],
            "peak_bytes": 100 * value,
        }
        | {"fast_flops": value, "predicted_bytes": 95 * value}
        for what in cpu_results.GROWS
        for value in (2, 4, 8)
    ]
    return {
        "size": "study",
        "dropout": 0.0,
        "threads": 2,
        "clock": "wall",
        "load_average": 0.5,
        "seconds": ours | others,
        "gemm_limit_seconds": 1.5,
        "share_of_gemm_limit": 0.75,
        "speed_up_over": {key: {"ratio": 1.2, "standard_error": 0.01} for key in others},
        "frozen_over_baseline": {"ratio": 0.95, "standard_error": 0.004},
        "flops_saved_by_freezing": 0.022,
        "parts_seconds": dict.fromkeys(cpu_results.PARTS, 0.5),
        "evaluation_over_training": 4.0,
        "peak_bytes": dict(zip(KEYS, (3 * 2**20, 2 * 2**20, 5 * 2**20, 6 * 2**20), strict=True)),
        "predicted_bytes": {"peak": 2**21},
        "growth": rows,
    } | more


def test_the_summary_states_ratios_with_their_error(tmp_path):
    (tmp_path / "bench_study_dropout0.json").write_text(json.dumps(result()))
    table = cpu_results.summary(cpu_results.load_results(tmp_path)).set_index("what")[
        "study, dropout 0, threads: 2 (wall time)"
    ]
    assert table["faster than Hugging Face GPT-2"] == "1.20 ± 0.01"
    frozen = table["OELM-Freeze over baseline, seconds"]
    assert frozen == "0.950 ± 0.004"
    assert table["OELM-Freeze over baseline, FLOPs"] == "0.978"
    assert table["peak over Hugging Face's"] == "50.0%"
    assert table["peak of OELM-Freeze lower by MiB"] == "1.0"
    assert table["rounds"] == "2"


def test_growth_shows_measured_beside_predicted_where_it_was_measured():
    headings = [note.text for note in cpu_results.growth([result()]).layout.annotations]
    assert headings == list(cpu_results.GROWS)
    figure = cpu_results.growth([result(dropout=0.1, growth=[]), result()])
    assert figure.layout.annotations[0].text.startswith("d_model: study, dropout 0")
    assert len(figure.data) == 4 * len(cpu_results.GROWS)
    assert {tuple(trace.y) for trace in figure.data} == {(0.5, 1.0, 2.0)}
    table = cpu_results.predictions([result(dropout=0.1, growth=[]), result()])
    assert set(table["predicted_bytes_off"]) == {"-5.0%"}
    assert list(table["time_measured"][:3]) == ["0.50", "1.00", "2.00"]


@pytest.mark.parametrize("draw", [cpu_results.step_seconds, cpu_results.parts, cpu_results.growth])
def test_figures_draw_what_there_is(draw):
    assert [note.text for note in draw([]).layout.annotations] == ["Nothing to draw yet."]
    assert len(draw([result(), result(dropout=0.1)]).data) >= 2


def test_steps_draw_every_round():
    figure = cpu_results.step_seconds([result()])
    expected = [[2.0, 2.0], [1.9, 1.9], [2.6], [2.4], [3.2], [3.0]]
    assert [list(box.x) for box in figure.data] == expected
