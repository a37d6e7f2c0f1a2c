"""The lock between containers and users of one machine, with real namespaces."""

import contextlib
import os
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path

import pytest

from oelm_lib.runs.lock import RunLock

ROOT = Path(__file__).parents[2]


ACQUIRE = """
import sys, time
from pathlib import Path
from oelm_lib.runs.lock import RunLock
try:
    RunLock(Path(sys.argv[1])).acquire()
    print("held", flush=True)
    time.sleep(float(sys.argv[2]))
except ValueError as error:
    print(error)
"""


def in_namespace(prefix, folder, seconds=0):
    """Acquire the lock in a process of another namespace; returns what it says."""
    command = [*prefix, sys.executable, "-c", ACQUIRE, folder, str(seconds)]
    environment = os.environ | {"PYTHONPATH": str(ROOT)}
    return subprocess.run(command, capture_output=True, text=True, env=environment)


def skip_unless_permitted(*command):
    done = subprocess.run(command, capture_output=True, text=True)
    if done.returncode:
        pytest.skip(f"{command[0]} is not permitted here: {done.stderr.strip()}")


@pytest.mark.slow
@pytest.mark.parametrize("options", [["--pid"], ["--pid", "--uts", "--ipc"]])
def test_containers_that_share_a_folder_see_each_other(own, tmp_path, options):
    unshare = ["unshare", *options, "--fork", "--mount-proc"]
    skip_unless_permitted(*unshare, "true")
    own.acquire()
    assert f"in use by process {os.getpid()}" in in_namespace(unshare, tmp_path).stdout
    own.check()
    own.release()
    assert in_namespace(unshare, tmp_path).stdout == "held\n"
    own.acquire()  # that container is gone


@pytest.mark.slow
def test_another_user_to_whom_proc_hides_the_writer_is_refused():
    # An instance of its own: a remount would change the one that everybody here sees. The group
    # that may see all processes is root's unless it is named.
    mount = "mount -t proc -o hidepid=2,gid=65534 proc /proc"
    shell = f'{mount} && exec setpriv --reuid 65534 --clear-groups "$@"'
    prefix = ["unshare", "--mount", "bash", "-c", shell, "_"]
    skip_unless_permitted(*prefix, "true")
    assert subprocess.run([*prefix, "test", "-e", f"/proc/{os.getpid()}"]).returncode == 1
    with contextlib.ExitStack() as stack:
        folder = Path(tempfile.mkdtemp())  # pytest's own folder lets nobody in
        stack.callback(shutil.rmtree, folder)
        folder.chmod(0o777)
        holder = RunLock(folder)
        holder.acquire()
        stack.callback(holder.release)
        done = in_namespace(prefix, folder)
        assert f"in use by process {os.getpid()}" in done.stdout, done.stderr
        holder.check()
        holder.release()
        assert in_namespace(prefix, folder).stdout == "held\n"
        holder.acquire()
