"""Batches and evaluation windows: order, coverage, targets, and no wait for the host."""

import numpy as np
import pytest
import torch
from torch.overrides import TorchFunctionMode

from oelm_lib.data import Batches, EvalWindows
from oelm_lib.data.batches import IGNORED, scored_targets
from oelm_lib.data.corpus import RecallExamples

CPU = torch.device("cpu")
LENGTH, SIZE = 7, 4
TOKENS = np.arange(1, 1 + LENGTH * 30 + 3).astype(np.uint16)  # 30 windows, 7 batches, 2 left over


@pytest.fixture
def batches():
    return Batches(TOKENS, LENGTH, SIZE, seed=1, device=CPU)


def epoch_numbers(batches, epoch):
    """Window numbers (steps, B) of an epoch."""
    steps = range(epoch * batches.epoch_steps, (epoch + 1) * batches.epoch_steps)
    return np.stack([batches.window_numbers(step) for step in steps])


def test_every_epoch_has_another_order(batches):
    orders = [epoch_numbers(batches, epoch).ravel().tolist() for epoch in range(4)]
    for number, order in enumerate(orders):
        assert len(set(order)) == len(order)
        assert all(order != other for other in orders[:number])
    left_over = [set(range(batches.windows)) - set(order) for order in orders]
    assert len(set(map(frozenset, left_over))) > 1  # not the same windows every time


def test_the_order_depends_on_the_seed_and_on_the_step_alone(batches):
    other = Batches(TOKENS, LENGTH, SIZE, seed=2, device=CPU)
    assert (epoch_numbers(batches, 0) != epoch_numbers(other, 0)).any()
    again = Batches(TOKENS, LENGTH, SIZE, seed=1, device=CPU)
    for step in (20, 3, 0, 13, 7, 6):  # out of order, over epochs
        assert again.window_numbers(step).tolist() == batches.window_numbers(step).tolist()
        assert all(map(torch.equal, again(step), batches(step)))


def test_the_last_partial_batch_is_dropped(batches):
    assert (batches.windows, batches.epoch_steps) == (30, 7)
    assert epoch_numbers(batches, 0).shape == (7, SIZE)
    assert all(batches(step)[0].shape == (SIZE, LENGTH) for step in range(15))


@pytest.mark.parametrize(("count", "windows"), [(210, 29), (211, 30), (217, 30), (218, 31)])
def test_a_window_needs_a_target_for_its_last_token(count, windows):
    assert Batches(TOKENS[:1].repeat(count), LENGTH, SIZE, 1, CPU).windows == windows


def test_windows_do_not_overlap_and_targets_are_the_next_tokens(batches):
    inputs = torch.cat([batches(step)[0] for step in range(batches.epoch_steps)])
    assert len(inputs.unique()) == inputs.numel()
    for step in range(batches.epoch_steps):
        tokens, targets = batches(step)
        assert tokens.dtype == targets.dtype == torch.int64
        assert torch.equal(targets, tokens + 1)
        assert ((tokens[:, 0] - 1) % LENGTH == 0).all()


def test_resident_tokens_give_the_same_batches():
    """Ids of the upper half of uint16 included."""
    recalled = RecallExamples(length=LENGTH, pairs=1, end_of_keys=100)
    for tokens, recall in ((TOKENS, None), (TOKENS, recalled), (TOKENS + 65_300, None)):
        arguments = (tokens, LENGTH, SIZE, 3, CPU, recall)
        resident, read = Batches(*arguments, resident=True), Batches(*arguments, resident=False)
        for step in (0, 1, 6, 7, 15, 2):
            for one, other in zip(resident(step), read(step), strict=True):
                assert torch.equal(one, other) and one.dtype == other.dtype


def test_tokens_are_kept_on_a_gpu_with_room_for_them(monkeypatch):
    """Room: four bytes a token are at most a quarter of the free memory."""
    gpu, needed = torch.device("cuda"), 16 * len(TOKENS)
    batches = Batches(TOKENS, LENGTH, SIZE, seed=1, device=gpu, resident=False)
    for free, fits in ((needed, True), (needed - 4, False)):
        monkeypatch.setattr(torch.cuda, "mem_get_info", lambda device, free=free: (free, 10**9))
        assert batches._fits() == fits


DEVICE_FUNCTIONS = {"__getitem__", "mul", "add", "long", "__mul__", "__add__"}


class _FunctionRecorder(TorchFunctionMode):
    """Records the names of the functions of torch that are called."""

    def __init__(self):
        super().__init__()
        self.names = []

    def __torch_function__(self, func, types, args=(), kwargs=None):
        self.names.append(func.__name__)
        return func(*args, **(kwargs or {}))


def test_a_step_with_resident_tokens_uses_the_device_alone(monkeypatch):
    """After an epoch's first step nothing comes from the host and no value is read there."""
    sizes, from_numpy = [], torch.from_numpy
    batches = Batches(TOKENS, LENGTH, SIZE, seed=1, device=CPU, resident=True)
    monkeypatch.setattr(torch, "from_numpy", lambda a: sizes.append(len(a)) or from_numpy(a))
    with _FunctionRecorder() as recorder:
        for step in range(2 * batches.epoch_steps):
            batches(step)
    assert sizes == [30, 30]  # the order of each epoch
    assert [name for name in recorder.names if name not in DEVICE_FUNCTIONS] == 2 * [
        "randperm",
        "numpy",
    ]


def test_evaluation_windows_score_every_token_but_the_first_once():
    windows = EvalWindows(TOKENS, LENGTH, CPU)
    tokens, targets = windows.batch(np.arange(windows.count))
    assert windows.count == 31
    assert targets[targets != IGNORED].tolist() == TOKENS[1:].tolist()
    assert torch.equal(tokens[targets != IGNORED] + 1, targets[targets != IGNORED])
    assert (targets[:-1] != IGNORED).all() and (targets[-1] == IGNORED).sum() == LENGTH - 2


def test_with_recall_only_targets_of_queries_are_scored():
    """Queries are the keys, ids 1 .. 3, from position 4 on."""
    rows = torch.tensor([[1, 4, 3, 5, 0, 3, 4, 1, 4], [1, 4, 3, 5, 3, 5, 0, 1, 4]])
    skipped = 4 * [IGNORED]
    examples = RecallExamples(length=8, pairs=2, end_of_keys=4)
    assert scored_targets(rows, examples).tolist() == [
        [*skipped, IGNORED, 4, IGNORED, 4],
        [*skipped, 5, IGNORED, IGNORED, 4],
    ]


@pytest.mark.parametrize(("count", "windows"), [(210, 30), (211, 30), (212, 31)])
def test_no_evaluation_window_is_without_a_target(count, windows):
    split = EvalWindows(TOKENS[:1].repeat(count), LENGTH, CPU)
    assert split.count == windows
    assert (split.batch(np.arange(windows))[1] != IGNORED).any(1).all()


def test_evaluation_windows_are_fixed_and_spread_evenly():
    windows = EvalWindows(TOKENS, LENGTH, CPU)
    subset = windows.subset(5 * LENGTH)
    assert subset.tolist() == [0, 8, 15, 22, 30]
    assert windows.subset(5 * LENGTH).tolist() == subset.tolist()
    assert windows.subset(1).tolist() == [0]
    assert windows.subset(10**9).tolist() == list(range(31))
    first, second = windows.batch(subset), windows.batch(subset)
    assert all(map(torch.equal, first, second))
