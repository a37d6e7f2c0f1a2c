"""Two gloo processes against one."""

import os
import socket
import traceback

import numpy as np
import pytest
import torch

from oelm_lib import runs
from oelm_lib.config import overrides_text
from oelm_lib.errors import UserError
from oelm_lib.files import write_json
from oelm_lib.launch.shared_run import train_in_processes
from oelm_lib.runs.lock import RunInUse
from oelm_lib.runs.reading import read_metrics, read_summary
from oelm_lib.training import distributed
from tests.runs.test_lock import Writer

LOSS_TOLERANCE = 1e-5
NORM_TOLERANCE = 1e-3
"""Sums over a batch are taken in another order; a relative difference of the norm shows it most."""


def test_one_process_refuses_a_run_of_several(tiny_run):
    from oelm_lib import training

    run = tiny_run(machine__devices=2)
    with pytest.raises(
        UserError, match=r"machine.devices = 2, but this is one process; use oelm run"
    ):
        training.train(run)
    assert runs.state(run) == "failed"


def in_two_forks(run):
    """Train a run in two processes that start with this one's patches; both must end well."""
    import torch._dynamo  # noqa: F401  torch's DDP imports it: here once, not in every process

    from oelm_lib.training import shared_process

    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = str(free.getsockname()[1])
    children = []
    for rank in "01":
        children.append(os.fork())
        if children[-1] == 0:
            code = 1
            try:
                os.environ |= {"RANK": rank, "LOCAL_RANK": rank, "WORLD_SIZE": "2"}
                os.environ |= {"MASTER_ADDR": "127.0.0.1", "MASTER_PORT": port}
                shared_process.main(run.config.id, run.seed, overrides_text(run.config.overrides))
                code = 0
            except BaseException:
                traceback.print_exc()
            finally:
                os._exit(code)
    assert [os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) for child in children] == [0, 0]


@pytest.fixture
def shared_run(tiny_run, monkeypatch, tmp_path):
    """A run of two processes that find it in the outputs folder, its lock free for them."""
    monkeypatch.setenv("OELM_OUTPUTS", str(tmp_path / "outputs"))
    run = tiny_run("DEMO-02", machine__devices=2)
    run.lock.release()
    return run


@pytest.mark.slow
def test_a_stop_in_the_final_evaluation_of_two_processes_ends_both_and_goes_on(
    shared_run, monkeypatch
):
    """Rank 0 alone evaluates and hears of the stop; the other left after the last step."""
    from oelm_lib.runs import stop
    from oelm_lib.training import result

    run = shared_run
    whole_split_losses = result.whole_split_losses

    def stopped(session):
        (run.path / "STOP").touch()
        return whole_split_losses(session)

    with monkeypatch.context() as patch:
        patch.setattr(stop, "FILE_SECONDS", 0.0)
        patch.setattr(result, "whole_split_losses", stopped)
        in_two_forks(run)
    assert (runs.state(run), runs.read_status(run)["step"]) == (
        "stopped",
        run.config.train.max_steps,
    )
    in_two_forks(run)
    assert (runs.state(run), read_summary(run)["steps"]) == ("done", run.config.train.max_steps)


@pytest.mark.slow
def test_two_processes_keep_the_curve_and_a_stopped_run_goes_on_bit_equal(
    tiny_run, monkeypatch, tmp_path
):
    from oelm_lib import training

    changes = {"train__max_steps": 50, "machine__log_interval": 1, "model__dropout": 0.0}
    alone = tiny_run(folder="alone", **changes)
    training.train(alone)

    def of_two(folder, **more):
        """Open a run of two processes, its lock free for them."""
        run = tiny_run(folder=folder, machine__devices=2, **changes | more)
        run.lock.release()
        monkeypatch.setenv("OELM_OUTPUTS", str(tmp_path / folder))
        return run

    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "")
    both = of_two("both")
    in_two_forks(both)
    one, two = (read_metrics(run).query("event == 'train'") for run in (alone, both))
    assert one["step"].tolist() == two["step"].tolist() == list(range(1, 51))
    assert np.abs(one["loss"] - two["loss"]).max() < LOSS_TOLERANCE
    assert np.abs(one["grad_norm"] / two["grad_norm"] - 1).max() < NORM_TOLERANCE
    assert (
        abs(read_summary(alone)["final_val_loss"] - read_summary(both)["final_val_loss"])
        < LOSS_TOLERANCE
    )
    (proof,) = read_summary(both)["frozen"]
    assert proof["sha256_start"] == proof["sha256_end"]
    assert not [name for name in os.listdir(both.path) if "rank" in name]

    # With dropout: stopped (after no or few steps) and continued, it equals the undisturbed run.
    whole = of_two("whole", model__dropout=0.2)
    in_two_forks(whole)
    parted = of_two("parted", model__dropout=0.2)
    (parted.path / "STOP").touch()
    in_two_forks(parted)
    assert (runs.state(parted), runs.state(whole)) == ("stopped", "done")
    again = of_two("parted", model__dropout=0.2, machine__device="auto")
    train_in_processes(again, overrides_text(again.config.overrides))
    assert read_metrics(parted)["loss"].tolist() == read_metrics(whole)["loss"].tolist()


@pytest.mark.slow
def test_the_error_of_a_process_is_reported_whatever_state_an_earlier_session_left(shared_run):
    run = shared_run
    status = {"state": "stopped", "step": 3, "max_steps": run.config.train.max_steps}
    write_json(run.path / "status.json", status)
    writer = Writer(run.path)
    try:
        assert writer("acquire") == "held"
        with pytest.raises(RunInUse, match=f"in use by process {writer.process.pid}"):
            train_in_processes(run, overrides_text(run.config.overrides))
    finally:
        writer.die()


def test_several_processes_ask_each_other_at_log_points_only(monkeypatch):
    """Asking makes the host wait for the device."""
    cpu, asked = torch.device("cpu"), []
    assert distributed.agree(True, 3, 10, cpu)  # one process asks nobody
    assert not distributed.agree(False, 10, 10, cpu)
    monkeypatch.setattr(distributed, "size", lambda: 2)
    monkeypatch.setattr(
        distributed.distributed, "broadcast", lambda answer, source: asked.append(source)
    )
    answers = [distributed.agree(True, step, 10, cpu) for step in range(21)]
    assert answers == [step in (0, 10, 20) for step in range(21)]
    assert asked == [0, 0, 0]
