"""Processes of one run: they meet, their errors are known, and a stop ends those that hang."""

import subprocess
import sys

import pytest

from oelm_lib import runs
from oelm_lib.launch.shared_run import first_error, wait_for_processes
from oelm_lib.runs.lock import RunInUse

DEAF = "import signal, time; signal.signal(signal.SIGTERM, signal.SIG_IGN); time.sleep(600)"

UNNAMED_HOST = ["unshare", "--uts", "bash", "-c", 'hostname no-such-host && exec "$@"', "_"]


@pytest.mark.parametrize("code", ["import time; time.sleep(600)", DEAF])
def test_processes_that_never_met_are_ended_after_a_stop(code):
    process = subprocess.Popen([sys.executable, "-c", code])
    assert wait_for_processes(process, lambda: True, training=lambda: False, patience=0.2)
    assert process.wait(10) < 0


def test_processes_that_train_end_by_themselves():
    process = subprocess.Popen([sys.executable, "-c", "import time; time.sleep(0.5)"])
    assert not wait_for_processes(process, lambda: True, training=lambda: True, patience=0.1)
    assert process.returncode == 0


def test_the_error_that_was_recorded_first_is_the_reason(tmp_path, monkeypatch):
    from torch.distributed.elastic.multiprocessing.errors import record

    def fail(error):
        raise error

    assert first_error(tmp_path) is None
    later = ConnectionError("connection closed by peer\nframe #0")
    for rank, error in ((1, RunInUse("seed1: in use by process 7: really")), (0, later)):
        file = tmp_path / "launch" / "attempt_0" / str(rank) / "error.json"
        file.parent.mkdir(parents=True)
        monkeypatch.setenv("TORCHELASTIC_ERROR_FILE", str(file))
        with pytest.raises(type(error)):
            record(fail)(error)
    first = first_error(tmp_path)
    assert (type(first), str(first)) == (RunInUse, "seed1: in use by process 7: really")
    last = first_error(tmp_path / "launch" / "attempt_0" / "0")
    assert str(last) == "ConnectionError: connection closed by peer"


@pytest.mark.slow
def test_processes_meet_where_the_host_name_does_not_resolve(tiny_env, tiny):
    if subprocess.run([*UNNAMED_HOST, "true"], capture_output=True).returncode:
        pytest.skip("a namespace with another host name is not permitted here")
    changes = [f"--set={key}={value}" for key, value in tiny(machine__devices=2).items()]
    command = [sys.executable, "-m", "oelm_lib.cli", "run", "DEMO-02", *changes]
    done = subprocess.run([*UNNAMED_HOST, *command], capture_output=True, text=True, timeout=300)
    assert done.returncode == 0, done.stdout + done.stderr
    (run,) = runs.find_runs(tiny_env)
    assert runs.state(run) == "done"
