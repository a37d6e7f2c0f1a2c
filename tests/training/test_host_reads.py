"""The training loop of a GPU: the host reads the device at log points only, once."""

import itertools

import pytest
import torch

from oelm_lib.training import session
from tests.training.helpers import HostReads, force_gpu_path, take_literally, train


def reads_by_step(run, monkeypatch):
    """Train the run; host reads in each iteration of its loop."""
    reads, by_step = HostReads(), []
    stopping = session.Session.stopping

    def count(self):
        by_step.append(reads.count)
        return stopping(self)

    monkeypatch.setattr(session.Session, "stopping", count)
    with reads.counting():
        train(run)
    return [after - before for before, after in itertools.pairwise(by_step)]


def test_the_counter_sees_every_kind_of_read():
    reads, number = HostReads(), torch.ones(())
    with reads.counting():
        for read in (
            lambda: number.item(),
            lambda: float(number),
            lambda: bool(number),
            lambda: int(number),
            lambda: number[None].tolist(),
            lambda: number.cpu(),
            lambda: number.to("cpu", copy=True),
            lambda: torch.equal(number, number),
            lambda: number.isnan().any().item(),
        ):
            before = reads.count
            read()
            assert reads.count == before + 1
        number + number
        number.double()
    assert reads.count == before + 1


@pytest.mark.parametrize("name", ["fp32", "bf16", "fp16"])
def test_fifty_steps_read_the_device_once_at_each_log_point(tiny_run, monkeypatch, name):
    force_gpu_path(monkeypatch)
    take_literally(monkeypatch)
    # epochs are longer than the run: the order of a new epoch is drawn on the host
    schedule = {"train__max_steps": 51, "train__eval_interval": 51, "train__save_interval": 51}
    run = tiny_run(train__precision=name, **schedule)
    counts = reads_by_step(run, monkeypatch)
    assert counts[1:50] == [int(step % 10 == 0) for step in range(2, 51)]


def test_an_evaluation_reads_the_losses_once_and_the_spreads_once(tiny_run, monkeypatch):
    from oelm_lib.training.evaluation import logit_std, token_losses

    with session.open_session(tiny_run(train__eval_tokens=100_000)) as opened:
        model, windows, subset = opened.state.model, opened.windows, opened.subset
        monkeypatch.setattr("oelm_lib.training.evaluation.BATCH_TOKENS", 16 * 16)
        assert len(subset) > 32  # at least three batches
        tokens = windows.batch(subset[:2])[0]
        for evaluate in (
            lambda: token_losses(model, windows, subset),
            lambda: logit_std(model, tokens),
        ):
            reads = HostReads()
            with reads.counting():
                evaluate()
            assert reads.count == 1


def test_the_gpu_path_trains_the_same_weights(tiny_run, monkeypatch):
    from oelm_lib.training import checkpoint
    from tests.training.helpers import same_tensors

    first, second = tiny_run(folder="a"), tiny_run(folder="b")
    train(first)
    force_gpu_path(monkeypatch)
    train(second)
    assert same_tensors(
        *(checkpoint.load(run.path / "latest.pt")["model"] for run in (first, second))
    )
