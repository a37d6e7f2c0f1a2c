"""The decisions of a queue, without processes."""

from pathlib import Path

import pytest

from oelm_lib.errors import UserError
from oelm_lib.launch.jobs import Job, Writer
from oelm_lib.launch.slots import IDLE_SECONDS, IdleWatch, Slots, check_room, decide, make_slots
from oelm_lib.runs.process import this_process
from tests.launch.fake_nvml import FakeNvml

HERE = this_process()["host"]


def job(number, devices=1, device="auto"):
    return Job(f"DEMO-{number:02d}", 1, Path(f"run{number}"), 10, devices, device)


JOBS = [job(1), job(2), job(3)]


def placed(decision):
    return [(start.exp, gpus) for start, gpus in decision[0]]


def test_the_cpu_has_as_many_runs_as_workers():
    slots = Slots(workers=2)
    assert placed(decide(JOBS, {}, [], slots)) == [("DEMO-01", ()), ("DEMO-02", ())]
    assert placed(decide(JOBS, {}, [()], slots)) == [("DEMO-01", ())]
    assert placed(decide(JOBS, {}, [(), ()], slots)) == []


def test_each_run_has_a_gpu_of_its_own_and_needs_as_many_as_devices():
    slots = Slots(gpus=("0", "1", "2"))
    assert placed(decide(JOBS, {}, [("1",)], slots)) == [("DEMO-01", ("0",)), ("DEMO-02", ("2",))]
    wide = [job(1, devices=2), job(2)]
    assert placed(decide(wide, {}, [], slots)) == [("DEMO-01", ("0", "1")), ("DEMO-02", ("2",))]
    # The order holds: a small run does not overtake one that waits for two GPUs.
    assert placed(decide(wide, {}, [("0",), ("1",)], slots)) == []
    with pytest.raises(
        UserError, match=r"DEMO-01 seed 1: machine\.devices = 4, but --gpus names 3"
    ):
        check_room([job(1, devices=4)], slots)
    with pytest.raises(
        UserError, match=r"machine\.device = cuda:2, but a queue gives each run its"
    ):
        check_room([job(1, device="cuda:2")], slots)


def test_workers_on_a_gpu_machine_are_spread_over_the_gpus(monkeypatch):
    monkeypatch.delenv("CUDA_VISIBLE_DEVICES", raising=False)
    slots = make_slots(3, None, open_driver=lambda: FakeNvml(2))
    assert (slots.gpus, slots.shared, slots.width) == (("0", "1"), True, 3)
    starts = placed(decide(JOBS, {}, [], slots))
    assert starts == [("DEMO-01", ("0",)), ("DEMO-02", ("1",)), ("DEMO-03", ("0",))]
    assert placed(decide([job(4)], {}, [("0",), ("0",)], slots)) == [("DEMO-04", ("1",))]
    assert placed(decide([job(4, device="cpu")], {}, [], slots)) == [("DEMO-04", ())]


def test_without_a_driver_workers_share_the_cpu():
    def no_driver():
        raise UserError("no GPU: the driver is not loaded; check nvidia-smi")

    assert make_slots(2, None, open_driver=no_driver) == Slots(workers=2)
    with pytest.raises(UserError, match=r"--gpus auto: no GPU: .*or use --workers N on the CPU"):
        make_slots(2, "auto", open_driver=no_driver)
    with pytest.raises(UserError, match="--wait-idle is about GPUs"):
        make_slots(2, None, wait_idle=True, open_driver=no_driver)


def test_runs_of_another_process_are_waited_for_and_keep_their_slots():
    writer = Writer(4711, HERE, ("0",))
    decision = decide(JOBS, {JOBS[0]: writer}, [], Slots(gpus=("0", "1")))
    assert placed(decision) == [("DEMO-02", ("1",))]
    assert decision[1] == [f"DEMO-01 seed 1 runs as process 4711 on {HERE}"]
    elsewhere = Writer(None, None, ("0",))  # a status file without its process
    decision = decide(JOBS, {JOBS[0]: elsewhere}, [], Slots(gpus=("0", "1")))
    assert placed(decision) == [("DEMO-02", ("0",)), ("DEMO-03", ("1",))]
    assert placed(decide(JOBS, {JOBS[0]: writer}, [], Slots(workers=2))) == [("DEMO-02", ())]


def test_a_gpu_that_others_use_is_blocked_and_the_reason_is_given():
    now, nvml = 0.0, FakeNvml(2)
    watch = IdleWatch(nvml, clock=lambda: now)
    nvml.used[0] = 20.0
    slots = Slots(gpus=("0", "1"), watch=watch)
    assert placed(decide(JOBS, {}, [], slots)) == []
    now = IDLE_SECONDS + 1
    decision = decide(JOBS, {}, [], slots)
    assert placed(decision) == [("DEMO-01", ("1",))]
    assert decision[1] == ["GPU 0: 20.0 of 24.0 GiB in use"]
