import os

import pytest

from oelm_lib import hardware
from oelm_lib.errors import UserError
from oelm_lib.hardware import (
    TorchBuild,
    gpu_handle,
    largest_gpu_memory,
    torch_problem,
    visible_gpus,
)
from oelm_lib.launch.doctor import check_gpus
from oelm_lib.launch.processes import child_environment
from oelm_lib.launch.slots import IDLE_SECONDS, IdleWatch, choose_gpus, make_slots
from tests.launch.fake_nvml import FakeNvml

CPU_BUILD = TorchBuild("2.13.0+cpu", None, 0, "Torch not compiled with CUDA enabled")
OLD_DRIVER = TorchBuild(
    "2.13.0+cu130", "13.0", 0, "The NVIDIA driver on your system is too old (found version 11040)."
)
WORKING = TorchBuild("2.13.0+cu130", "13.0", 4)


@pytest.fixture
def nvml():
    return FakeNvml(4)


def test_gpus_are_chosen_by_number_or_all_that_are_visible(nvml, monkeypatch):
    monkeypatch.delenv("CUDA_VISIBLE_DEVICES", raising=False)
    assert choose_gpus("2, 3", nvml) == ["2", "3"]
    assert choose_gpus("auto", nvml) == ["0", "1", "2", "3"]
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "1,2")
    assert choose_gpus("auto", nvml) == ["1", "2"]


@pytest.mark.parametrize(
    ("value", "expected"),
    [
        (None, ["0", "1", "2", "3"]),
        ("", []),
        ("-1", []),
        ("NoDevFiles", []),
        ("1,-1,2", ["1"]),
        ("3,9,2", ["3"]),
        (" 2 , 1", ["2", "1"]),
        ("GPU-2a0e-77f1", ["GPU-2a0e-77f1"]),
        ("MIG-GPU-0000/1/0,MIG-GPU-0000/2/0", ["MIG-GPU-0000/1/0", "MIG-GPU-0000/2/0"]),
    ],
)
def test_visible_gpus_follow_the_rules_of_cuda(nvml, monkeypatch, value, expected):
    monkeypatch.delenv("CUDA_VISIBLE_DEVICES", raising=False)
    if value is not None:
        monkeypatch.setenv("CUDA_VISIBLE_DEVICES", value)
    assert visible_gpus(nvml) == expected


@pytest.mark.parametrize("value", ["", "-1"])
def test_auto_is_refused_where_no_gpu_is_visible(nvml, monkeypatch, value):
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", value)
    with pytest.raises(UserError, match="CUDA_VISIBLE_DEVICES allows no GPU of this machine"):
        choose_gpus("auto", nvml)


def test_handles_are_found_by_number_uuid_and_mig_name(nvml):
    assert gpu_handle(nvml, "3") == 3
    assert gpu_handle(nvml, "GPU-2a0e-77f1") == gpu_handle(nvml, "GPU-2") == 2
    assert gpu_handle(nvml, "MIG-GPU-0000/1/0") == 0
    for name in ("4", "-1", "GPU-9", "MIG-GPU-1111/1/0", "²"):
        with pytest.raises(UserError, match="does not exist; allowed here: 0, 1, 2, 3"):
            gpu_handle(nvml, name)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("7", "GPU '7' does not exist; allowed here: 0, 1, 2, 3, a UUID or auto"),
        ("a", "GPU 'a' does not exist"),
        (",", "no GPU named"),
        ("", "no GPU named"),
    ],
)
def test_an_unknown_gpu_is_refused_with_the_known_ones(nvml, text, message):
    with pytest.raises(UserError, match=message):
        choose_gpus(text, nvml)


@pytest.mark.parametrize("gpu", ["2", "GPU-2a0e-77f1"])
def test_a_gpu_is_used_only_after_it_was_idle_for_a_while(nvml, gpu):
    now = 0.0
    watch = IdleWatch(nvml, clock=lambda: now)
    nvml.pids[2] = [os.getpid()]
    assert f"GPU {gpu}: used by process {os.getpid()} (" in watch.reason(gpu)
    nvml.pids[2] = []
    assert "idle, watched for 60 s" in watch.reason(gpu)
    now = IDLE_SECONDS - 1
    assert watch.reason(gpu)
    nvml.used[2] = 9.0  # another user comes back; only the memory shows it
    now += 2
    assert watch.reason(gpu) == f"GPU {gpu}: 9.0 of 24.0 GiB in use"
    nvml.used[2] = 0.3
    assert watch.reason(gpu)
    now += IDLE_SECONDS
    assert watch.reason(gpu) is None
    watch.forget(gpu)
    assert watch.reason(gpu)
    assert watch.reason("3")


def test_a_driver_that_does_not_tell_its_usage_is_reported():
    watch = IdleWatch(FakeNvml(1, unsupported=("processes",)))
    assert "idle, watched" in watch.reason("0")  # memory still tells
    watch = IdleWatch(FakeNvml(1, unsupported=("processes", "memory")))
    with pytest.raises(UserError, match="neither processes nor memory; leave out --wait-idle"):
        watch.check("0")


LOST = "the driver says GPU is lost; check nvidia-smi"


def test_a_gpu_that_the_driver_loses_is_a_reason_to_wait_and_not_the_end_of_a_queue(nvml):
    now = 0.0
    watch = IdleWatch(nvml, clock=lambda: now)
    watch.reason("1")
    nvml.lost = {1}
    now += IDLE_SECONDS
    assert watch.reason("1") == f"GPU 1: {LOST}"
    assert watch.reason("GPU-1a0e").startswith("GPU 'GPU-1a0e' does not exist")
    nvml.lost = set()
    assert "idle, watched" in watch.reason("1")  # watched again
    nvml.lost = {0}
    assert gpu_handle(nvml, "GPU-2a0e") == 2


def test_a_lost_gpu_is_refused_before_anything_starts_and_named_by_doctor(nvml, monkeypatch):
    monkeypatch.delenv("CUDA_VISIBLE_DEVICES", raising=False)
    nvml.lost = {3}
    with pytest.raises(UserError, match=f"^--gpus 2,3: GPU 3: {LOST}$"):
        choose_gpus("2,3", nvml)
    with pytest.raises(UserError, match=f"^GPU 3: {LOST}$"):
        make_slots(1, "auto", wait_idle=True, open_driver=lambda: nvml)
    with pytest.raises(UserError, match=f"^GPU 3: {LOST}$"):
        check_gpus(lambda: nvml, lambda: WORKING)
    monkeypatch.setattr(hardware, "open_nvml", lambda: nvml)
    largest_gpu_memory.cache_clear()
    assert largest_gpu_memory() == 24 * 2**30
    largest_gpu_memory.cache_clear()
    monkeypatch.setattr(nvml, "nvmlDeviceGetCount", unknown_error)
    assert largest_gpu_memory() == 0
    largest_gpu_memory.cache_clear()
    with pytest.raises(UserError, match=r"^GPU: the driver says Unknown Error; check nvidia-smi$"):
        check_gpus(lambda: nvml, lambda: WORKING)


def unknown_error():
    raise FakeNvml.NVMLError("Unknown Error")


@pytest.mark.parametrize(
    ("build", "message"),
    [
        (CPU_BUILD, "torch 2.13.0.cpu is a CPU build; install a CUDA build"),
        (OLD_DRIVER, "needs a newer driver than this one; update the driver, or install a torch"),
        (TorchBuild("2.13.0", "13.0", 0, "CUDA unknown error"), "cannot use it .CUDA unknown err"),
    ],
)
def test_doctor_fails_where_torch_cannot_use_the_gpu(nvml, monkeypatch, build, message):
    monkeypatch.delenv("CUDA_VISIBLE_DEVICES", raising=False)
    with pytest.raises(UserError, match=f"GPU: the driver shows 4 GPUs, but .*{message}"):
        check_gpus(lambda: nvml, lambda: build)


def test_doctor_describes_usable_hidden_and_silent_gpus(nvml, monkeypatch):
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "1,2")
    assert check_gpus(lambda: nvml, lambda: WORKING).count("Fake A100 23.7 GiB free") == 2
    silent = FakeNvml(2, unsupported=("memory",))
    assert "memory not reported" in check_gpus(lambda: silent, lambda: WORKING)
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "")
    assert (
        check_gpus(lambda: nvml, lambda: CPU_BUILD) == "GPU: none visible (CUDA_VISIBLE_DEVICES=)"
    )
    assert torch_problem([], CPU_BUILD) is None


def test_a_run_warns_of_a_gpu_that_torch_cannot_use(nvml, monkeypatch):
    from oelm_lib.training.device import gpu_problem

    monkeypatch.delenv("CUDA_VISIBLE_DEVICES", raising=False)
    assert "is a CPU build" in gpu_problem(lambda: nvml, lambda: CPU_BUILD)
    assert gpu_problem(lambda: nvml, lambda: WORKING) is None

    def no_driver():
        raise UserError("no GPU: the driver is not loaded")

    assert gpu_problem(no_driver, lambda: CPU_BUILD) is None


def test_a_child_sees_its_gpus_as_the_driver_numbers_them():
    limits = {"OMP_NUM_THREADS": "2", "MKL_NUM_THREADS": "2"}
    assert child_environment(2) == limits
    seen = {"CUDA_VISIBLE_DEVICES": "3,1", "CUDA_DEVICE_ORDER": "PCI_BUS_ID"}
    assert child_environment(2, ("3", "1")) == limits | seen
