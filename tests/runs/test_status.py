import itertools
import math
import shutil

import pandas as pd
import pytest

from oelm_lib import config
from oelm_lib.runs import status as status_module
from oelm_lib.runs import timing
from oelm_lib.runs.reading import read_status
from oelm_lib.runs.status import Status
from oelm_lib.runs.timing import Budget, timing_stats
from tests.launch.conftest import wait_for
from tests.runs.test_metrics import unlocked


def test_the_budget_closes_to_the_wall_time_and_goes_on_after_a_resume(monkeypatch):
    clock = itertools.count(100.0)  # each look at it takes a second
    monkeypatch.setattr(timing.time, "perf_counter", lambda: next(clock))
    budget = Budget()
    budget.resume({"step": 5.0}, elapsed=10.0)
    with budget("step"):
        pass
    spent = budget.to_dict()
    assert (spent["step"], spent["other"]) == (6.0, 7.0)
    assert sum(spent.values()) == 13.0


def test_status_is_rewritten_whole_and_its_thread_ends(tmp_path):
    status = Status(tmp_path, unlocked, step=0, max_steps=5)
    assert read_status(tmp_path)["state"] == "running"
    status.update(write=False, step=3, train_loss=float("nan"))
    assert read_status(tmp_path)["step"] == 0
    status.close(state="done")
    final = read_status(tmp_path)
    assert (final["state"], final["step"], final["train_loss"]) == ("done", 3, None)
    assert not status._thread.is_alive()


def test_timing_statistics_leave_out_the_warm_up_but_no_outlier():
    cfg = config.load_config("GPT-02", "train.max_steps=400")
    steps = range(10, 401, 10)
    rows = [
        {
            "event": "train",
            "step": step,
            "tokens_per_s": 4096 / (5.0 if step == 200 else 0.1),
            "seconds": step * 0.2,
        }
        for step in steps
    ]
    rows.append({"event": "eval", "step": 400, "eval_seconds": 30.0, "seconds": 90.0})
    frame = pd.DataFrame(rows)
    stats = timing_stats(cfg, frame, {"step": 1.0}, 100.0, 1.5, epoch_steps=150)
    assert (stats["num_steps_measured"], stats["warmup_steps"]) == (300, 100)
    assert stats["mean_step_time"] == pytest.approx((290 * 0.1 + 10 * 5) / 300)
    assert stats["max_step_time"] == pytest.approx(5.0)
    assert stats["median_step_time"] == pytest.approx(0.1)
    assert (stats["num_validations"], stats["total_validation_time"]) == (1, 30.0)
    assert stats["epoch_times"] == pytest.approx([30.0, 30.0])
    assert stats["final_perplexity"] == pytest.approx(4.4817, rel=1e-4)
    assert (
        timing_stats(cfg, frame, {}, 1.0, 1000.0, epoch_steps=150)["final_perplexity"] == math.inf
    )
    short = timing_stats(cfg, frame[:1], {}, 1.0, None, epoch_steps=150)
    assert short["final_perplexity"] is None


@pytest.mark.parametrize(
    ("overrides", "model_type", "init_method"),
    [
        ("", "oelm_v2", "orthogonal"),
        ("model.frozen_layers=[]", "OELM-Freeze, frozen_layers=[]", "n/a"),
        ("model.freeze_k=false", "OELM-Freeze, freeze_k=False", "orthogonal"),
        ("model.frozen_layers=[0]", "OELM-Freeze, frozen_layers=[0]", "orthogonal"),
        ("model.qk_init=normal model.qk_scale=0.45254834", "oelm_random", "normal"),
        (
            "model.freeze_q=false model.freeze_k=false model.qk_init=normal"
            " model.qk_scale=0.45254834",
            "baseline",
            "n/a",
        ),
    ],
)
def test_only_the_arms_of_the_log_bear_its_names(overrides, model_type, init_method):
    cfg = config.load_config("GPT-02", f"train.max_steps=400 {overrides}")
    row = {"event": "train", "step": 400, "tokens_per_s": 10.0, "seconds": 1.0, "eval_seconds": 1.0}
    stats = timing_stats(cfg, pd.DataFrame([row]), {}, 1.0, None, epoch_steps=400)
    assert (stats["model_type"], stats["init_method"]) == (model_type, init_method)


def test_the_heartbeat_writes_what_was_updated_without_writing(tmp_path, monkeypatch):
    monkeypatch.setattr(status_module, "BEAT_SECONDS", 0.01)
    status = Status(tmp_path, unlocked, step=0)
    first = read_status(tmp_path)["heartbeat"]
    status.update(write=False, step=3)
    wait_for(lambda: read_status(tmp_path)["step"] == 3, "the heartbeat")
    assert read_status(tmp_path)["heartbeat"] > first
    status.close(state="stopped")
    assert read_status(tmp_path)["eta_seconds"] is None


def test_a_status_that_cannot_be_written_does_not_end_the_run(tmp_path):
    folder = tmp_path / "gone"
    folder.mkdir()
    status = Status(folder, unlocked, step=0)
    shutil.rmtree(folder)
    status.update(state="saving")
    status.close(state="done")
