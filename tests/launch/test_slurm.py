import os
import subprocess

import pytest

from oelm_lib.config import ROOT
from oelm_lib.errors import UserError
from oelm_lib.files import write_json
from oelm_lib.launch.jobs import make_jobs
from oelm_lib.launch.slurm import asks_for_gpu, submit


def test_a_dry_run_prints_the_matrix_without_what_is_done(tiny_env, tiny):
    overrides = tiny()
    jobs = make_jobs(["DEMO-01", "DEMO-02"], [1, 2], overrides)
    jobs[0].path.mkdir(parents=True)
    write_json(
        jobs[0].path / "summary.json", {"steps": 24, "best_val_loss": 1.0, "final_val_loss": 1.0}
    )
    lines = submit(jobs, overrides, {"time": "60", "gres": "gpu:1"}, 2, report=True, dry_run=True)
    assert lines[0].startswith("4 runs: 1 done before, 3 in one array (time=60, gres=gpu:1)")
    assert [line.split(" --set")[0].split("run ")[1] for line in lines[1:4]] == [
        "DEMO-02 --seed 1",
        "DEMO-01 --seed 2",
        "DEMO-02 --seed 2",
    ]
    assert "--set machine.device=cpu" in lines[1]  # the caller's word goes before the GPU asked for
    first, second = (job.path.parent.name for job in jobs[:2])  # a page names rehearsals by folder
    assert lines[4:] == [f"then: oelm report '{first} {second}'"]
    assert "then:" not in submit(jobs, overrides, {}, 2, report=False, dry_run=True)[-1]
    assert (
        "--set 'model.frozen_layers=[0, 1]'"
        in submit(jobs, {"model.frozen_layers": [0, 1]}, {}, 2, True, True)[1]
    )
    assert not (tiny_env / "slurm").exists()


@pytest.mark.parametrize(
    ("options", "expected"),
    [
        ({"gres": "gpu:1"}, True),
        ({"gres": "gpu:a100:2"}, True),
        ({"gpus": "1"}, True),
        ({"gpus-per-node": "1"}, True),
        ({"gpus_per_task": 1}, True),
        ({"tres-per-job": "gres/gpu:1"}, True),
        ({"gres": "tmpdisk:10"}, False),
        ({"partition": "gpu", "time": "60"}, False),
    ],
)
def test_a_job_that_asks_for_a_gpu_must_train_on_one(options, expected, tiny_env, tiny):
    assert asks_for_gpu(options) is expected
    overrides = {key: value for key, value in tiny().items() if key != "machine.device"}
    jobs = make_jobs(["DEMO-01"], [1], overrides)
    lines = submit(jobs, overrides, options, 2, report=False, dry_run=True)
    assert ("machine.device=cuda" in lines[1]) is expected


def test_a_machine_without_slurm_gets_one_line(tiny_env, tiny, monkeypatch, tmp_path):
    monkeypatch.setenv("PATH", str(tmp_path))
    jobs = make_jobs(["DEMO-01"], [1], tiny())
    with pytest.raises(
        UserError,
        match="no Slurm here: sbatch is not found; submit from a login node, or use oelm run",
    ):
        submit(jobs, tiny(), {}, 2, report=False, dry_run=False)


def test_the_plain_script_is_valid_bash():
    subprocess.run(["bash", "-n", ROOT / "slurm" / "train.sbatch"], check=True)


@pytest.fixture
def plain_script(tmp_path):
    """A function that executes slurm/train.sbatch with a given `oelm`, and returns how it ended."""
    command = tmp_path / ".venv" / "bin" / "oelm"
    command.parent.mkdir(parents=True)

    def execute(*arguments, oelm="echo $*", **environment):
        command.write_text(f"#!/bin/bash\n{oelm}\n")
        command.chmod(0o755)
        return subprocess.run(
            ["bash", ROOT / "slurm" / "train.sbatch", *arguments],
            env={"PATH": os.environ["PATH"], "SLURM_ARRAY_TASK_ID": "5"} | environment,
            cwd=tmp_path,
            capture_output=True,
            text=True,
            timeout=60,
        )

    return execute


def test_the_plain_script_starts_a_run_anew_once_and_then_continues_it(plain_script):
    arguments = ["--fresh", "--set", "train.max_steps=9"]
    first = plain_script(*arguments, SLURM_RESTART_COUNT="0").stdout.split()
    again = plain_script(*arguments, SLURM_RESTART_COUNT="1").stdout.split()
    assert first == ["run", "DEMO-02", "--seed", "43", *arguments]
    assert again == ["run", "DEMO-02", "--seed", "43", *arguments[1:]]


def test_the_plain_script_queues_a_run_again_that_has_stopped_at_once(plain_script, tmp_path):
    """At once: before the script goes on after its start, and before it looks for the run."""
    slow = (
        'trap() { sleep 0.2; builtin trap "$@"; }\n'
        'kill() { builtin kill "$@"; local code=$?; sleep 0.5; return $code; }\n'
    )
    (tmp_path / "slow").write_text(slow)
    scontrol = tmp_path / "scontrol"
    scontrol.write_text("#!/bin/bash\necho $*\n")
    scontrol.chmod(0o755)
    done = plain_script(
        oelm="builtin trap 'exit 75' USR1; builtin kill -USR1 $PPID; while :; do sleep 0.1; done",
        BASH_ENV=str(tmp_path / "slow"),
        PATH=f"{tmp_path}:{os.environ['PATH']}",
        SLURM_JOB_ID="7",
    )
    assert (done.returncode, done.stdout.strip()) == (75, "requeue 7"), done.stderr


@pytest.mark.parametrize(
    ("gpus", "arguments", "expected"),
    [
        ("", [], "run DEMO-02 --seed 43"),
        ("0", [], "run DEMO-02 --seed 43 --set machine.device=cuda"),
        ("0", ["--set", "machine.device=cpu"], "run DEMO-02 --seed 43 --set machine.device=cpu"),
        ("0", ["--set=machine.device=cpu"], "run DEMO-02 --seed 43 --set=machine.device=cpu"),
    ],
)
def test_the_plain_script_asks_for_a_gpu_where_it_has_one(gpus, arguments, expected, plain_script):
    done = plain_script(*arguments, SLURM_JOB_GPUS=gpus)
    assert (done.returncode, done.stdout.strip()) == (0, expected), done.stderr
