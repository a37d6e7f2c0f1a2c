import os
import types

import pytest

from oelm_lib.errors import UserError
from oelm_lib.launch.devices import IDLE_SECONDS, IdleWatch, choose_gpus


class Nvml:
    """The part of NVML's functions that is used, over GPUs described by lists."""

    def __init__(self, count):
        self.pids = [[] for _ in range(count)]
        self.used = [0.3] * count

    def nvmlDeviceGetCount(self):  # noqa: N802
        return len(self.pids)

    def nvmlDeviceGetHandleByIndex(self, index):  # noqa: N802
        return index

    def nvmlDeviceGetComputeRunningProcesses(self, device):  # noqa: N802
        return [types.SimpleNamespace(pid=pid) for pid in self.pids[device]]

    def nvmlDeviceGetMemoryInfo(self, device):  # noqa: N802
        return types.SimpleNamespace(used=int(self.used[device] * 2**30), total=24 * 2**30)


@pytest.fixture
def nvml():
    return Nvml(4)


def test_gpus_are_chosen_by_number_or_all_that_are_allowed(nvml, monkeypatch):
    monkeypatch.delenv("CUDA_VISIBLE_DEVICES", raising=False)
    assert choose_gpus("2, 3", nvml) == ["2", "3"]
    assert choose_gpus("auto", nvml) == ["0", "1", "2", "3"]
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "1,2")
    assert choose_gpus("auto", nvml) == ["1", "2"]


@pytest.mark.parametrize(
    ("text", "found"),
    [("7", "GPU '7' isn't there"), ("a", "GPU 'a' isn't there"), (",", "no GPU named")],
)
def test_a_gpu_that_is_not_there_is_refused_with_those_that_are(nvml, text, found):
    with pytest.raises(UserError, match=f"{found}; allowed here: 0, 1, 2, 3 or auto"):
        choose_gpus(text, nvml)


def test_a_gpu_is_taken_only_after_a_sustained_time_without_others(nvml):
    now = 0.0
    watch = IdleWatch(nvml, clock=lambda: now)
    nvml.pids[2] = [os.getpid()]
    assert f"GPU 2: used by process {os.getpid()} (" in watch.reason("2")
    nvml.pids[2] = []
    assert "free, watched for 60 s" in watch.reason("2")
    now = IDLE_SECONDS - 1
    assert watch.reason("2")
    nvml.used[2] = 9.0  # another user comes back, unseen but for the memory
    now += 2
    assert watch.reason("2") == "GPU 2: 9.0 of 24.0 GiB in use"
    nvml.used[2] = 0.3
    assert watch.reason("2")
    now += IDLE_SECONDS
    assert watch.reason("2") is None
    watch.taken("2")
    assert watch.reason("2")  # released: watched anew
    assert watch.reason("3")
