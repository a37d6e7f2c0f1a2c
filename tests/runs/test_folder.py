import dataclasses
import json
import os
import resource
import subprocess
import sys
from pathlib import Path

import pytest
import yaml

from oelm_lib import runs
from oelm_lib.errors import UserError
from oelm_lib.files import write_json
from oelm_lib.runs import lock
from oelm_lib.runs.process import is_alive, process_start, this_process

PARAMETERS = {"total": 1, "trainable": 1, "frozen": 0}


def test_a_new_run_is_locked_and_the_error_names_its_holder(tiny_run, tmp_path, stories):
    run = tiny_run()
    holder = json.loads((run.path / "lock.json").read_text())
    assert holder["pid"] == os.getpid()
    assert tiny_run().path == run.path  # the same process may open it again
    code = (
        "from oelm_lib import config, runs; from tests.conftest import TINY_RUN;"
        f"runs.open_run(config.load_config('DEMO-02', TINY_RUN), 1, {str(tmp_path / 'outputs')!r})"
    )
    environment = os.environ | {"OELM_DATA": str(stories)}
    done = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, env=environment
    )
    assert (
        f"in use by process {os.getpid()} on {holder['host']} since {holder['since']}"
        in done.stderr
    )
    run.lock.release()
    assert not (run.path / "lock.json").exists()
    assert subprocess.run([sys.executable, "-c", code], env=environment).returncode == 0


def test_a_run_with_another_config_is_refused_with_the_differing_keys(tiny_run):
    run = tiny_run()
    run.record_session(0, {}, PARAMETERS)
    plain = (run.path / "config.yaml").read_text()
    (run.path / "config.yaml").write_text(
        plain.replace("learning_rate: 0.01", "learning_rate: 0.02", 1)
    )
    with pytest.raises(
        UserError, match=r"optim.learning_rate was 0.02, is 0.01.*use overrides, or start over"
    ):
        tiny_run()


@pytest.mark.parametrize("title", ["1e-3", "on", "2026-01-01"])
def test_a_title_that_looks_like_another_value_is_read_back_as_text(tiny_run, title):
    run = tiny_run()
    titled = dataclasses.replace(run, config=run.config.model_copy(update={"title": title}))
    titled.record_session(0, {}, PARAMETERS)
    assert runs.read_config(run)["experiment"]["title"] == title
    plain = yaml.safe_load((run.path / "config.yaml").read_text())  # other tools read it so
    assert plain["experiment"]["title"] == title


def test_fresh_keeps_the_old_folder_under_another_name(tiny_run, tiny_config, tmp_path):
    run = tiny_run()
    (run.path / "kept").touch()
    again = runs.open_run(tiny_config(), 1, tmp_path / "outputs", fresh=True)
    assert not (again.path / "kept").exists()
    assert len(list(again.path.parent.glob("seed1.*/kept"))) == 1
    assert not list(again.path.parent.glob("seed1.*/lock.json"))
    assert again.lock.held
    assert runs.find_runs(tmp_path / "outputs") == [again.path]


def test_fresh_can_be_asked_for_twice_within_a_second(tiny_run, tiny_config, tmp_path):
    """The second folder was to have the name of the first: Directory not empty."""
    run = tiny_run()
    for _ in range(3):
        (run.path / "kept").touch()
        run = runs.open_run(tiny_config(), 1, tmp_path / "outputs", fresh=True)
    assert len(list(run.path.parent.glob("seed1.*/kept"))) == 3


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        (
            {"model__vocab_size": 400},
            r"model.vocab_size = 400, but stories prepared with bpe-300 has 300 tokens; ",
        ),
        (
            {"model__max_seq_len": 200_000},
            r"has \d+ tokens.*; lower one of them|less than one window",
        ),
        (
            {"train__batch_size": 10_000_000},
            r"train.batch_size = 10000000 x model.max_seq_len = 16 needs 16",
        ),
        (
            {"model__max_seq_len": 100_000},
            r"the val split of stories has \d+ tokens, less than one window of 100001",
        ),
        ({"machine__devices": 3}, r"machine.devices = 3 does not divide train.batch_size = 4; use"),
    ],
)
def test_data_and_model_that_do_not_fit_are_refused_before_anything_is_written(
    tiny_run, tmp_path, changes, message
):
    with pytest.raises(UserError, match=message):
        tiny_run(**changes)
    assert not (tmp_path / "outputs").exists()


def test_the_least_seed_is_0(tiny_run):
    run = tiny_run(seed=0)
    assert run.path.name == "seed0"
    run.lock.release()


@pytest.mark.parametrize("seed", [-1, 1.5, "42", True, 10**18, 10**4000])
def test_a_seed_is_a_whole_number(tiny_run, seed):
    with pytest.raises(UserError, match=r"seed = .* should be a whole number of at least 0"):
        tiny_run(seed=seed)


def test_a_folder_that_cannot_be_made_is_one_line(tiny_config, tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(UserError, match="cannot write here"):
        runs.open_run(tiny_config(), 1, tmp_path / "file")


@pytest.mark.skipif(sys.platform != "linux", reason="reads /proc")
def test_a_process_is_known_by_its_start_since_boot():
    ticks = float(Path("/proc/self/stat").read_text().rsplit(")", 1)[1].split()[19])
    assert process_start(os.getpid()) == pytest.approx(ticks / os.sysconf("SC_CLK_TCK"), abs=0.011)


def test_a_dead_process_and_a_reused_pid_are_recognised():
    assert is_alive(this_process())
    assert not is_alive(this_process() | {"process_start": 1.0})
    gone = subprocess.Popen([sys.executable, "-c", ""])
    gone.wait()
    for pid in (gone.pid, None, "x", 1 << 80):
        assert not is_alive({"pid": pid, "process_start": 1.0})


def test_a_folder_that_cannot_be_made_names_the_cause_and_the_place(tiny_config, tmp_path):
    (tmp_path / "link").symlink_to(tmp_path / "nowhere")
    (tmp_path / "loop").symlink_to(tmp_path / "loop")
    (tmp_path / "file").touch()
    for name, cause in {
        "link": "link: cannot write here: .*a dangling link",
        "loop": "loop.*: Too many levels of symbolic links; remove the link",
        "file/below": "a file stands where a folder should be",
        "n" * 300: "choose a folder with a shorter name",
    }.items():
        with pytest.raises(UserError, match=cause):
            runs.open_run(tiny_config(), 1, tmp_path / name)


def test_too_few_open_files_are_not_called_a_full_disk(tiny_config, tmp_path):
    cfg = tiny_config()
    runs.open_run(cfg, 1, tmp_path / "before").lock.release()
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    held = [os.open(os.devnull, os.O_RDONLY)]
    resource.setrlimit(resource.RLIMIT_NOFILE, (held[0] + 1, hard))
    try:
        with pytest.raises(UserError, match=r"Too many open files; .*ulimit -n"):
            lock.RunLock(tmp_path).acquire()
    finally:
        resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))
        os.close(held[0])


def test_a_relative_outputs_folder_stays_where_it_was(tiny_config, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    run = runs.open_run(tiny_config(), 1, "relative")
    monkeypatch.chdir("/")
    assert run.path.is_relative_to(tmp_path / "relative")
    run.lock.check()
    run.lock.release()


def test_a_finished_run_is_not_locked_and_its_damaged_documents_are_reported(tiny_run):
    run = tiny_run()
    run.record_session(0, {}, PARAMETERS)
    summary = {"steps": 24, "best_val_loss": 1.0, "final_val_loss": 1.0}
    write_json(run.path / "summary.json", summary, checksum=True)
    run.lock.release()
    assert not tiny_run().lock.held
    (run.path / "documents.npz").write_bytes(b"PK torn")
    with pytest.raises(UserError, match=r"documents\.npz: is damaged; delete it and summary\.json"):
        tiny_run()
    text = (run.path / "summary.json").read_text()
    (run.path / "summary.json").write_text(
        text.replace('"final_val_loss": 1.0', '"final_val_loss": 0.1')
    )
    with pytest.raises(UserError, match=r"summary\.json: fails its checksum"):
        tiny_run()


@pytest.fixture
def before_lock(monkeypatch):
    """A function that sets what other processes do when this one is about to take the lock."""
    true_open = os.open

    def set_action(action):
        def open_after_action(path, flags, *mode, **options):
            if flags & os.O_EXCL and Path(path).name == "lock.json":
                action()
            return true_open(path, flags, *mode, **options)

        monkeypatch.setattr(os, "open", open_after_action)

    return set_action


def test_a_run_that_is_finished_just_before_the_lock_is_not_held(tiny_run, before_lock):
    run = tiny_run()
    run.record_session(0, {}, PARAMETERS)
    run.lock.release()
    summary = {"steps": 24, "best_val_loss": 1.0, "final_val_loss": 1.0}
    before_lock(lambda: write_json(run.path / "summary.json", summary, checksum=True))
    again = tiny_run()
    assert again.finished
    assert not again.lock.held


def test_a_config_that_is_written_just_before_the_lock_is_compared(tiny_run, tmp_path, before_lock):
    run = tiny_run(folder="other")
    run.record_session(0, {}, PARAMETERS)
    text = (run.path / "config.yaml").read_text().replace("seed: 1", "seed: 2")
    run.lock.release()
    path = tmp_path / "outputs" / run.name
    before_lock(lambda: (path / "config.yaml").write_text(text))
    with pytest.raises(UserError, match="seed was 2, is 1"):
        tiny_run()
    assert not lock.RunLock(path).held


def test_a_run_that_another_process_writes_is_not_renamed_by_fresh(tiny_run, tiny_config, tmp_path):
    run = tiny_run()
    (run.path / "lock.json").write_text('{"token": "another"}')
    with pytest.raises(lock.LockLost):
        runs.open_run(tiny_config(), 1, tmp_path / "outputs", fresh=True)
    assert [path.name for path in run.path.parent.iterdir()] == ["seed1"]
    run.lock.release()
