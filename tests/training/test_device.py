import contextlib
import itertools

import pytest
import torch

from oelm_lib import runs
from oelm_lib.config import MachineConfig
from oelm_lib.errors import UserError
from oelm_lib.training import device, optim
from oelm_lib.training.device import THREAD_LIMIT, prepare_device, resolve_device, set_threads
from oelm_lib.training.precision import Precision, resolve_precision
from tests.training.helpers import train


@pytest.fixture
def gpus(monkeypatch):
    """A function that pretends that torch has GPUs of these compute capabilities."""

    def pretend(*capabilities):
        def capability(gpu=None):
            assert gpu is not None, "asks the current device, not the run's"
            return capabilities[torch.device(gpu).index]

        made_current = []
        monkeypatch.setattr(torch.cuda, "is_available", lambda: bool(capabilities))
        monkeypatch.setattr(torch.cuda, "device_count", lambda: len(capabilities))
        monkeypatch.setattr(torch.cuda, "get_device_capability", capability)
        monkeypatch.setattr(torch.cuda, "is_bf16_supported", lambda *args, **kwargs: True)
        monkeypatch.setattr(torch.cuda, "set_device", made_current.append)
        return made_current

    return pretend


@pytest.mark.parametrize(
    ("name", "index", "precision"),
    [("cuda:0", 0, "fp32"), ("cuda:1", 1, "bf16"), ("auto", 0, "fp32"), ("cuda:2", 2, "fp32")],
)
def test_auto_precision_asks_the_device_of_the_run_and_not_for_emulation(
    gpus, name, index, precision
):
    """V100, H100, T4: torch says of all three that bf16 is supported."""
    made_current = gpus((7, 0), (9, 0), (7, 5))
    found = prepare_device(MachineConfig(device=name, threads=1))
    assert found == torch.device("cuda", index)
    assert made_current == [found]
    assert resolve_precision("auto", found)[0].name == precision


@pytest.mark.parametrize("name", ["fp32", "bf16", "fp16"])
def test_a_precision_that_is_named_is_taken(gpus, name):
    gpus((7, 0))
    precision, warning = resolve_precision(name, torch.device("cuda:0"))
    assert (precision.name, warning) == (name, None)


def test_without_a_gpu_auto_is_the_cpu_in_fp32_and_a_named_gpu_is_refused(gpus):
    gpus()
    assert resolve_device("auto") == torch.device("cpu")
    assert resolve_precision("auto", torch.device("cpu"))[0].name == "fp32"
    words = (
        r"machine.device = cuda:1: found no GPU that torch can use; allowed here: cpu, auto;"
        r" check nvidia-smi and CUDA_VISIBLE_DEVICES$"
    )
    with pytest.raises(UserError, match=words):
        resolve_device("cuda:1")


def test_a_gpu_beyond_the_last_is_refused(gpus):
    gpus((9, 0), (9, 0))
    assert resolve_device("cuda") == torch.device("cuda:0")
    with pytest.raises(UserError, match=r"machine.device = cuda:2: found cuda:0, cuda:1; allowed"):
        resolve_device("cuda:2")


def test_what_a_process_did_before_leaves_a_gpu_its_fp32_and_its_deterministic_products(
    gpus, monkeypatch
):
    """cuBLAS reads its workspace at the first product; an environment variable may ask for TF32."""
    gpus((9, 0))
    monkeypatch.delenv("CUBLAS_WORKSPACE_CONFIG", raising=False)
    torch.set_float32_matmul_precision("high")
    try:
        prepare_device(MachineConfig(device="cuda", threads=1))
        assert device.os.environ["CUBLAS_WORKSPACE_CONFIG"] == device.CUBLAS_WORKSPACE
        assert torch.get_float32_matmul_precision() == "highest"
    finally:
        torch.set_float32_matmul_precision("highest")


@pytest.mark.parametrize("name", ["fp32", "bf16"])
def test_the_loss_scale_is_1_and_stays_so_where_the_scaler_only_skips(monkeypatch, name):
    from oelm_lib.training import precision

    monkeypatch.setattr(precision, "is_asynchronous", lambda device: True)
    made = Precision(name, torch.device("cpu"))
    assert made.scaler.is_enabled()
    assert made.loss_scale() == 1.0
    assert made.scaler.get_growth_interval() > 1e9


def test_on_a_cpu_only_fp16_has_a_loss_scale():
    cpu = torch.device("cpu")
    assert [Precision(name, cpu).scaler.is_enabled() for name in ("fp32", "bf16", "fp16")] == [
        False,
        False,
        True,
    ]
    assert Precision("fp16", cpu).loss_scale() == 65536.0
    assert Precision("fp32", cpu).loss_scale() == 1.0


def test_fp16_on_a_cpu_means_fp32_and_says_so(tiny_run, capsys):
    run = tiny_run(train__precision="fp16")
    train(run)
    assert "on a CPU that means fp32" in capsys.readouterr().out
    assert runs.read_config(run)["resolved"]["precision"] == "fp32"


def test_bf16_trains_on_a_cpu(tiny_run):
    bf16, fp32 = tiny_run(train__precision="bf16", folder="a"), tiny_run(folder="b")
    losses = [train(run)["final_val_loss"] for run in (bf16, fp32)]
    assert losses[0] == pytest.approx(losses[1], rel=0.02)
    assert losses[0] != losses[1]


def test_more_threads_than_a_process_can_start_are_refused(tiny_run, monkeypatch):
    run = tiny_run(machine__threads=1000)
    words = r"machine.threads = 1000: this machine has \d+ cores; allowed: 1 .. \d+, or 0"
    with pytest.raises(UserError, match=words):
        train(run)
    assert runs.state(run) == "failed"
    monkeypatch.setattr(device.os, "cpu_count", lambda: 200)
    with pytest.raises(UserError, match=r"allowed: 1 .. 200"):
        set_threads(201)


def test_threads_within_the_limit_are_set_and_zero_keeps_them():
    before = torch.get_num_threads()
    try:
        set_threads(THREAD_LIMIT // 32)
        assert torch.get_num_threads() == THREAD_LIMIT // 32
        set_threads(0)
        assert torch.get_num_threads() == THREAD_LIMIT // 32
    finally:
        torch.set_num_threads(before)


def test_a_full_gpu_ends_a_run_in_one_line_that_says_what_is_free(tiny_run, monkeypatch):
    found = "CUDA out of memory. Tried to allocate 20.00 MiB. GPU 0 has a total capacity of 9.50"
    found += " GiB of which 17.25 MiB is free"

    def full(*args):
        raise torch.OutOfMemoryError(f"{found}. Process 7 has 9.40 GiB memory in use. Of the ...")

    monkeypatch.setattr(optim, "backward", full)
    run = tiny_run()
    with pytest.raises(UserError) as raised:
        train(run)
    assert str(raised.value) == (
        f"{run.path}: {found}; lower train.batch_size, or use a GPU that nobody else uses:"
        " oelm run ID --gpus auto --wait-idle"
    )
    status = runs.read_status(run)
    assert (status["state"], status["error"]) == ("failed", str(raised.value))


@contextlib.contextmanager
def restored_determinism():
    try:
        yield
    finally:
        torch.use_deterministic_algorithms(False)


@pytest.mark.slow  # torch imports its compiler to set the flag
def test_deterministic_algorithms_are_a_choice_that_changes_no_bit_on_a_cpu(tiny_run, monkeypatch):
    monkeypatch.delenv("CUBLAS_WORKSPACE_CONFIG", raising=False)
    plain, chosen = tiny_run(folder="a"), tiny_run(folder="b", machine__deterministic=True)
    losses = [train(plain)["final_val_loss"]]
    assert not torch.are_deterministic_algorithms_enabled()
    with restored_determinism():
        losses.append(train(chosen)["final_val_loss"])
        assert torch.are_deterministic_algorithms_enabled()
        assert device.os.environ["CUBLAS_WORKSPACE_CONFIG"] == device.CUBLAS_WORKSPACE
        train(tiny_run(folder="c", train__max_steps=1))
        assert not torch.are_deterministic_algorithms_enabled()
    assert losses[0] == losses[1]
    assert runs.read_config(chosen)["resolved"]["deterministic"] is True


def test_the_speed_of_a_machine_is_that_of_its_fastest_product(monkeypatch):
    """2 x 2048 x 128 x 512 operations in a millisecond."""
    clock = itertools.accumulate([0.0, *[0.5, 0.25] * 18, 0.001, *[0.5] * 3])
    monkeypatch.setattr(device.time, "perf_counter", lambda: next(clock))
    threads = torch.get_num_threads()
    facts = device.describe_machine()
    torch.set_num_threads(threads)
    assert facts["gflops"] == 268
    assert facts["cpu"] and facts["instructions"]
