"""CPU time around a run: what `oelm run` takes beyond the steps that it trains.

python -m tests.bench.around
"""

import os
import subprocess
import sys
from tempfile import TemporaryDirectory

import pandas as pd

from oelm_lib.config import load_config
from oelm_lib.runs.names import run_folder
from oelm_lib.runs.reading import read_timing

EXPERIMENT, SEED = "DEMO-02", 42
OVERRIDES = "train.max_steps=1 optim.warmup_steps=0"
IMPORTS = {
    "Python": "pass",
    "oelm, papermill": "import oelm_lib.cli, oelm_lib.launch.notebook, papermill, nbclient",
    "page (nbconvert)": "import oelm_lib.report.page, nbconvert",
    "kernel (ipykernel)": "import ipykernel.kernelapp",
    "training (torch)": "import oelm_lib.training.loop",
}
"""What a run imports, in a process each."""


def around_a_run() -> pd.DataFrame:
    """Run DEMO-02 for one step, and tabulate its CPU seconds and those of its imports.

    The load of the machine does not matter, but for the phases of the time budget, which are
    seconds by the clock.

    Raises:
        RuntimeError: The run failed.
    """
    whole, budget = _run_one_step()
    imports = {
        what: _cpu_seconds([sys.executable, "-c", code], os.environ)
        for what, code in IMPORTS.items()
    }
    rows = [{"what": "oelm run of one step", "cpu_seconds": whole}]
    for what, seconds in imports.items():
        own = seconds if what == "Python" else seconds - imports["Python"]
        rows.append({"what": f"import: {what}", "cpu_seconds": own})
    for phase, seconds in budget.items():
        rows.append({"what": f"time budget: {phase}", "wall_seconds": seconds})
    return pd.DataFrame(rows)


def _run_one_step() -> tuple[float, dict[str, float]]:
    """CPU seconds of a run of one step, its kernel included, and its time budget."""
    command = [sys.executable, "-m", "oelm_lib.cli", "run", EXPERIMENT, "--seed", str(SEED)]
    with TemporaryDirectory() as outputs:
        environment = os.environ | {"OELM_OUTPUTS": outputs}
        seconds = _cpu_seconds([*command, "--set", OVERRIDES], environment)
        folder = run_folder(load_config(EXPERIMENT, OVERRIDES), SEED, outputs)
        return seconds, read_timing(folder)["budget"]


def _cpu_seconds(command: list[str], environment: dict[str, str]) -> float:
    """CPU seconds of a process and of those that it waited for."""
    process = subprocess.Popen(command, env=environment, stdout=subprocess.DEVNULL)
    _, status, usage = os.wait4(process.pid, 0)
    process.returncode = os.waitstatus_to_exitcode(status)
    if process.returncode:
        raise RuntimeError(f"{' '.join(command)}: exit code {process.returncode}")
    return usage.ru_utime + usage.ru_stime


if __name__ == "__main__":
    print(around_a_run().to_string(index=False, float_format="%.2f", na_rep="–"))
