"""`oelm submit` and slurm/train.sbatch on a real Slurm on loopback, with two pretended GPUs."""

import contextlib
import os
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path

import numpy as np
import pytest

from oelm_lib import config, runs, training
from oelm_lib.config import ROOT, overrides_text
from oelm_lib.runs.reading import ACTIVE, read_metrics, read_status, read_summary, state
from tests.conftest import TINY_RUN
from tests.launch.conftest import wait_for

pytestmark = [pytest.mark.slow, pytest.mark.long]
HERE = Path(__file__).parent
DAEMONS = ("munged", "slurmctld", "slurmd", "slurmdbd", "mariadbd")
SBIN = "/usr/sbin:/sbin:" + os.environ["PATH"]
IDS = ["DEMO-01", "DEMO-02"]
# A run's step reaches the disk every few seconds; by then a fast machine makes 1000.
OVERRIDES = TINY_RUN | {
    "train.max_steps": 1500,
    "train.eval_interval": 500,
    "train.save_interval": 400,
}


def start_slurm(parent, attempts=3):
    """Start the daemons; return their folder.

    On a busy machine they can exceed the time limits of up.sh. Each attempt has its own ports and
    folder, since a half-initialized database refuses connections.
    """
    for attempt in range(attempts):
        # up.sh takes three ports; the workers of pytest-xdist have other process numbers.
        port = 20000 + 3 * (os.getpid() + 1000 * attempt) % 9000
        folder = parent / str(attempt)
        with contextlib.suppress(subprocess.TimeoutExpired):
            if subprocess.run([HERE / "up.sh", folder, str(port)], timeout=240).returncode == 0:
                return folder
        subprocess.run([HERE / "down.sh", folder], timeout=120)
    raise RuntimeError(f"Slurm did not start in {attempts} attempts; see {parent}")


@pytest.fixture(scope="module")
def cluster():
    """A Slurm of this module's own; SLURM_CONF leads to it."""
    missing = [name for name in DAEMONS if not shutil.which(name, path=SBIN)]
    if missing or os.getuid():
        reason = "not root" if os.getuid() else f"no {missing[0]}"
        pytest.skip(f"Slurm cannot be started: {reason}; see tests/slurm/up.sh")
    parent = Path(tempfile.mkdtemp(prefix="oelm-slurm-"))  # pytest's folders are closed to munge
    parent.chmod(0o755)
    try:
        folder = start_slurm(parent)
        with pytest.MonkeyPatch.context() as patch:
            patch.setenv("SLURM_CONF", str(folder / "slurm.conf"))
            yield folder
        subprocess.run([HERE / "down.sh", folder], timeout=120)
    finally:
        shutil.rmtree(parent, ignore_errors=True)


def call(*command):
    """Output of a command, which must succeed."""
    done = subprocess.run(
        [str(part) for part in command], capture_output=True, text=True, timeout=300, cwd=ROOT
    )
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


def submit(*args, overrides=OVERRIDES):
    sets = [
        part for key, value in overrides.items() for part in ("--set", overrides_text({key: value}))
    ]
    return call(sys.executable, "-m", "oelm_lib.cli", "submit", *args, *sets)


def job_numbers(text):
    """Slurm's number of each run, in the order submitted, and of the report."""
    return [line.rsplit(" ", 1)[1] for line in text.splitlines() if ": job " in line]


def last_rows(run):
    """What training came to: the loss of every row, and of every document at the end."""
    with np.load(run / "documents.npz") as documents:
        nats = documents["nats"].tolist()
    rows = read_metrics(run)
    return rows[["event", "step", "loss", "grad_norm"]].to_json(), nats


def test_a_matrix_preempted_and_requeued_ends_bit_equal_and_is_reported(
    cluster,
    tiny_env,
    tmp_path,
):
    out = submit(*IDS, "--seeds", "1,2", "--partition", "low", "--gres", "gpu:1", "--cpus", "1")
    numbers = job_numbers(out)
    assert len(numbers) == 5
    paths = [
        tiny_env / config.load_config(exp, OVERRIDES).folder / f"seed{seed}"
        for seed in (1, 2)
        for exp in IDS
    ]

    def step(path):
        return (read_status(path) or {}).get("step", 0) if state(path) in ACTIVE else 0

    wait_for(lambda: step(paths[0]) > 50 and step(paths[1]) > 50, "two runs get going", 200)
    assert {read_status(path)["gpus"] for path in paths[:2]} == {"0", "1"}
    assert [state(path) for path in paths].count("queued") == 2
    # Someone with a better partition takes the whole machine; the two go, saved, and come back.
    call("srun", "--partition=high", "--gres=gpu:2", "true")
    requeued = wait_for(
        lambda: next((path for path in paths if step(path)), None), "runs come back", 200
    )
    call("scontrol", "requeue", numbers[paths.index(requeued)])
    wait_for(lambda: not call("squeue", "-h"), "the queue is empty", 900)
    assert [state(path) for path in paths] == ["done"] * 4
    restarts = [
        int(call("scontrol", "show", "job", number).split("Restarts=")[1].split()[0])
        for number in numbers
    ]
    assert restarts[0] >= 1 and restarts[1] >= 1 and restarts[paths.index(requeued)] >= 1
    completed = {f"{number}|COMPLETED" for number in numbers}

    def ended():
        return set(call("sacct", "-n", "-X", "-P", "-o", "JobID,State").splitlines())

    wait_for(lambda: completed <= ended(), "accounting knows of the last job", 60)
    pages = list(tiny_env.glob("compare*.html"))
    assert pages and pages[0].stat().st_mtime > max(
        (path / "summary.json").stat().st_mtime for path in paths
    )
    for path in dict.fromkeys([paths[0], paths[1], requeued]):
        # The same run, undisturbed and without Slurm.
        exp, seed = path.parent.name.split("_")[0], path.name.removeprefix("seed")
        cfg = config.load_config(exp, OVERRIDES)
        training.train(runs.open_run(cfg, int(seed), tmp_path / "alone"))
        assert last_rows(tmp_path / "alone" / path.parent.name / path.name) == last_rows(path)


def test_what_slurm_refuses_is_one_line_and_nothing_is_queued(cluster, tiny_env):
    command = [sys.executable, "-m", "oelm_lib.cli", "submit", "DEMO-01", "--partition", "nope"]
    command += [
        part for key, value in OVERRIDES.items() for part in ("--set", overrides_text({key: value}))
    ]
    done = subprocess.run(command, capture_output=True, text=True, timeout=60, cwd=ROOT)
    assert done.returncode == 2
    (line,) = done.stderr.splitlines()
    assert "Slurm refuses: " in line and "nvalid partition" in line and "see sinfo" in line
    assert not runs.find_runs()


def test_the_plain_script_stops_is_queued_again_and_a_cancelled_run_goes_on(cluster, tiny_env):
    overrides = OVERRIDES | {"train.max_steps": 4000}
    sets = [
        part for key, value in overrides.items() for part in ("--set", overrides_text({key: value}))
    ]
    options = [
        "--parsable",
        "--partition=low",
        "--array=0-0",
        "--cpus-per-task=1",
        f"--output={tiny_env.parent}/%j.log",
    ]
    number = call("sbatch", *options, "slurm/train.sbatch", *sets).strip()
    path = tiny_env / config.load_config("DEMO-01", overrides).folder / "seed42"

    def going():
        return state(path) == "running" and read_status(path)["step"] > 50

    wait_for(going, "the run gets going", 200)
    call("scancel", "--signal=USR1", "--batch", number)  # as two minutes before the end of its time
    wait_for(lambda: state(path) == "stopped", "the run stops")
    wait_for(going, "the run comes back", 200)
    call("scancel", number)
    wait_for(lambda: not call("squeue", "-h"), "the job is gone")
    wait_for(lambda: state(path) in ("stopped", "dead"), "the run has left")
    assert not read_summary(path)
    assert (path / "latest.pt").is_file()
