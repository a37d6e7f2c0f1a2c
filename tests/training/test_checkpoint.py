import errno
import os
import pickle
import random

import pytest
import torch

from oelm_lib.errors import UserError
from oelm_lib.training import checkpoint


def state(step):
    return {
        "step": step,
        "model": {"w": torch.full((40, 10), float(step))},
        "best": None,
        "evals": [[1, 2.5]],
    }


def test_what_is_saved_is_loaded_and_plain_torch_reads_it(tmp_path):
    path = tmp_path / "latest.pt"
    checkpoint.save(path, state(3))
    loaded = checkpoint.load(path)
    assert (loaded["step"], loaded["evals"]) == (3, [[1, 2.5]])
    assert torch.equal(torch.load(path, weights_only=True)["model"]["w"], loaded["model"]["w"])
    assert os.listdir(tmp_path) == ["latest.pt"]


@pytest.mark.parametrize("damage", ["empty", "one byte", "truncated", "torn", "longer"])
def test_a_damaged_file_is_detected_and_the_one_before_is_used(tmp_path, damage):
    for step in (1, 2, 3):
        checkpoint.save(tmp_path / "latest.pt", state(step), keep_previous=True)
    path = tmp_path / "latest.pt"
    data = path.read_bytes()
    damaged = {
        "empty": b"",
        "one byte": data[:1],
        "truncated": data[:-7],
        "torn": data[: len(data) // 2] + bytes(len(data) - len(data) // 2),
        "longer": data + b"x",
    }
    path.write_bytes(damaged[damage])
    latest = checkpoint.load_latest(tmp_path)
    assert (latest.path.name, latest.state["step"]) == ("latest.prev.pt", 2)
    assert "latest.pt" in latest.warning
    assert "continuing from latest.prev.pt at step 2" in latest.warning


@pytest.mark.parametrize("code", [errno.EPERM, errno.ENOTSUP, errno.EMLINK])
def test_the_one_before_is_kept_without_hard_links(tmp_path, monkeypatch, code):
    def refuse(source, target):
        raise OSError(code, os.strerror(code))

    monkeypatch.setattr(os, "link", refuse)
    for step in (1, 2, 3):
        checkpoint.save(tmp_path / "latest.pt", state(step), keep_previous=True)
    assert checkpoint.load(tmp_path / "latest.pt")["step"] == 3
    assert checkpoint.load(tmp_path / "latest.prev.pt")["step"] == 2
    assert sorted(os.listdir(tmp_path)) == ["latest.prev.pt", "latest.pt"]


def test_any_flipped_bit_is_detected(tmp_path):
    path = tmp_path / "latest.pt"
    checkpoint.save(path, state(1))
    data = path.read_bytes()
    chosen = random.Random(0)
    places = [*chosen.sample(range(len(data)), 150), *range(len(data) - 70, len(data))]
    for place in places:
        flipped = bytearray(data)
        flipped[place] ^= 1 << chosen.randrange(8)
        path.write_bytes(flipped)
        with pytest.raises(checkpoint.DamagedError):
            checkpoint.load(path)


def test_with_no_whole_checkpoint_the_run_starts_anew_and_says_so(tmp_path):
    assert checkpoint.load_latest(tmp_path) == (tmp_path / "latest.pt", None, None)
    (tmp_path / "latest.pt").write_bytes(b"torn")
    latest = checkpoint.load_latest(tmp_path)
    assert latest.state is None
    assert "starting at step 0" in latest.warning


def test_a_pickle_that_tries_to_execute_is_refused(tmp_path):
    class Bomb:
        def __reduce__(self):
            return os.mkdir, (str(tmp_path / "executed"),)

    path = tmp_path / "latest.pt"
    torch.save({"step": 1, "model": Bomb()}, path)
    checkpoint._seal(path)
    with pytest.raises(UserError, match="only run code could rebuild"):
        checkpoint.load(path)
    path.write_bytes(pickle.dumps(Bomb()))
    with pytest.raises(checkpoint.DamagedError):
        checkpoint.load(path)
    assert not (tmp_path / "executed").exists()


def test_another_format_is_refused_with_both_numbers(tmp_path):
    path = tmp_path / "latest.pt"
    torch.save({"step": 1, "format": 99}, path)
    checkpoint._seal(path)
    with pytest.raises(UserError, match="format 99; this version reads 2"):
        checkpoint.load(path)


def test_a_background_save_holds_the_values_of_its_moment_and_reports_its_error(tmp_path):
    saver = checkpoint.Saver(in_background=True)
    values = state(1)
    saver.save(tmp_path / "latest.pt", values)
    values["model"]["w"].fill_(99.0)
    saver.wait()
    assert (checkpoint.load(tmp_path / "latest.pt")["model"]["w"] == 1).all()
    saver.save(tmp_path / "missing" / "latest.pt", values)
    with pytest.raises(OSError, match="missing"):
        saver.wait()
