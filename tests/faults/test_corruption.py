"""Files of a stopped run that were damaged: it resumes, or says in one line what to do."""

import random
import shutil

import pytest

from oelm_lib import runs, training
from oelm_lib.errors import UserError
from oelm_lib.runs import lock
from tests.faults.conftest import equal, record
from tests.training.helpers import stop_at

pytestmark = pytest.mark.slow

DAMAGES = {
    "empty": lambda data: b"",
    "torn": lambda data: data[: len(data) // 2],
    "zeros": lambda data: data[: len(data) // 2] + bytes(len(data) - len(data) // 2),
    "bit": lambda data: flipped(data, random.Random(1).randrange(len(data))),
    "garbage": lambda data: random.Random(2).randbytes(len(data)),
}
CHECKPOINTS = ("latest.pt", "latest.prev.pt", "best.pt")
OTHERS = ("metrics.jsonl", "training.log", "status.json", "config.yaml", "lock.json", "STOP")


def flipped(data, place):
    return data[:place] + bytes([data[place] ^ 4]) + data[place + 1 :]


@pytest.fixture
def stopped(tiny_run, monkeypatch, tmp_path, tmp_path_factory):
    """A copy of a run stopped at step 13, and its undisturbed twin; both are trained once."""
    made = tmp_path_factory.getbasetemp() / "corruption"
    twin = tiny_run(folder=made / "undisturbed")
    training.train(twin)  # only the first time
    if not (made / "stopped").exists():
        with monkeypatch.context() as patch:
            stop_at(patch, 13)
            run = tiny_run(folder=made / "stopped")
            training.train(run)
    shutil.copytree(made / "stopped", tmp_path / "outputs")
    monkeypatch.setattr(lock, "WATCH_SECONDS", 0.1)  # the lock's writer is on another host
    run = tiny_run()
    run.lock.release()
    (run.path / "lock.json").write_text(
        '{"pid": 1, "host": "gone", "process_start": 1.0, "since": "then"}'
    )
    (run.path / "STOP").write_text("asked")
    return run, twin


def train_to_the_end(tiny_run):
    """Train until the run is done; each call may end at a stop."""
    run = tiny_run()
    while not run.finished:
        training.train(run)
        run = tiny_run()
    return run


@pytest.mark.parametrize("damage", DAMAGES)
@pytest.mark.parametrize("name", CHECKPOINTS)
def test_a_damaged_checkpoint_is_passed_over_and_the_end_is_bit_equal(
    tiny_run, stopped, capsys, name, damage
):
    run, twin = stopped
    for other in ("lock.json", "STOP"):
        (run.path / other).unlink()
    path = run.path / name
    path.write_bytes(DAMAGES[damage](path.read_bytes()))
    run = train_to_the_end(tiny_run)
    assert ("latest.pt" in capsys.readouterr().out) == (name == "latest.pt")
    assert equal(record(run.path), record(twin.path))


@pytest.mark.parametrize("damage", DAMAGES)
@pytest.mark.parametrize("name", OTHERS)
def test_any_other_damaged_file_is_mended_or_named_in_one_line(tiny_run, stopped, name, damage):
    run, twin = stopped
    path = run.path / name
    path.write_bytes(DAMAGES[damage](path.read_bytes()))
    if name != "lock.json":
        (run.path / "lock.json").unlink()
    try:
        run = train_to_the_end(tiny_run)
    except UserError as error:
        assert "\n" not in str(error)
        assert name in str(error)
        assert name in ("config.yaml", "metrics.jsonl")
        assert runs.state(run) in ("failed", "stopped")
        return
    assert equal(record(run.path)["states"], record(twin.path)["states"])
    assert runs.state(run) == "done"


def test_both_checkpoints_damaged_starts_anew_and_ends_bit_equal(tiny_run, stopped, capsys):
    run, twin = stopped
    (run.path / "lock.json").unlink()
    for name in ("latest.pt", "latest.prev.pt"):
        (run.path / name).write_bytes(b"torn")
    run = train_to_the_end(tiny_run)
    assert "starting at step 0" in capsys.readouterr().out
    assert equal(record(run.path), record(twin.path))


def test_a_best_checkpoint_lost_at_the_end_leaves_the_comparison_whole(
    tiny_run, stopped, monkeypatch, capsys
):
    run, twin = stopped
    from oelm_lib.training import loop

    (run.path / "lock.json").unlink()
    finish = loop.finish

    def lose_best_and_finish(session):
        session.state.best = {"step": 12, "loss": 1.0}  # best.pt holds another step
        return finish(session)

    monkeypatch.setattr(loop, "finish", lose_best_and_finish)
    values = runs.read_summary(train_to_the_end(tiny_run))
    assert "best_val_loss is unknown" in capsys.readouterr().out
    assert values["best_val_loss"] is None
    assert values["final_val_loss"] == runs.read_summary(twin)["final_val_loss"]
