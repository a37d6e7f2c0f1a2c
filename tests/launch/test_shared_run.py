"""Processes of one run: they meet, their errors are known, and a stop ends those that hang."""

import os
import signal
import subprocess
import sys

import pytest

from oelm_lib import runs
from oelm_lib.launch.shared_run import first_error, wait_for_processes
from oelm_lib.runs.lock import RunInUse

HEARS = "import time; print(flush=True); time.sleep(600)"
DEAF = f"import signal; signal.signal(signal.SIGTERM, signal.SIG_IGN); {HEARS}"

UNNAMED_HOST = ["unshare", "--uts", "bash", "-c", 'hostname no-such-host && exec "$@"', "_"]


@pytest.mark.parametrize(
    ("code", "ends"),
    [(HEARS, (-signal.SIGTERM, -signal.SIGKILL)), (DEAF, (-signal.SIGKILL,))],
    ids=["hears", "deaf"],
)
def test_processes_that_never_met_are_ended_after_a_stop(code, ends):
    with subprocess.Popen([sys.executable, "-c", code], stdout=subprocess.PIPE) as process:
        process.stdout.readline()  # from here on it is deaf, or hears
        assert wait_for_processes(process, lambda: True, training=lambda: False, patience=0.2)
        assert process.wait(10) in ends


def test_processes_that_train_end_by_themselves():
    process = subprocess.Popen([sys.executable, "-c", "import time; time.sleep(0.5)"])
    assert not wait_for_processes(process, lambda: True, training=lambda: True, patience=0.1)
    assert process.returncode == 0


IN_USE = RunInUse("seed1: in use by process 7: really")


@pytest.mark.parametrize(
    ("cause", "times"),
    [(IndexError("no row"), (2, 1)), (IN_USE, (2, 1)), (IN_USE, (1, 1)), (IN_USE, (1, 2))],
)
def test_the_error_that_was_recorded_first_or_is_the_users_is_the_reason(
    tmp_path, monkeypatch, cause, times
):
    from torch.distributed.elastic.multiprocessing.errors import record

    def fail(error):
        raise error

    assert first_error(tmp_path) is None
    lost = ConnectionError("connection closed by peer\nframe #0")
    for rank, error in enumerate((lost, cause)):
        file = tmp_path / "launch" / "attempt_0" / str(rank) / "error.json"
        file.parent.mkdir(parents=True)
        monkeypatch.setenv("TORCHELASTIC_ERROR_FILE", str(file))
        with pytest.raises(type(error)):
            record(fail)(error)
        os.utime(file, (times[rank], times[rank]))
    first = first_error(tmp_path)
    assert str(first) == ("IndexError: no row" if cause is not IN_USE else str(IN_USE))
    assert type(first) is (RuntimeError if cause is not IN_USE else RunInUse)
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
