"""Checks of a machine before a long run, and a short trial of an experiment."""

import importlib.metadata
import os
import platform
import shutil
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

from oelm_lib import config
from oelm_lib.data import load_tokenizer
from oelm_lib.errors import UserError
from oelm_lib.hardware import (
    VISIBLE_DEVICES,
    TorchBuild,
    open_nvml,
    query_gpu,
    torch_problem,
    visible_gpus,
)
from oelm_lib.runs.corpus_fit import open_fitting_corpus
from oelm_lib.runs.folder import Run
from oelm_lib.units import format_duration

VARIABLES = (
    "OELM_OUTPUTS",
    "OELM_DATA",
    "HF_HUB_OFFLINE",
    "HF_DATASETS_OFFLINE",
    VISIBLE_DEVICES,
    "OMP_NUM_THREADS",
)
MOST_CHECKPOINTS = 4
"""Checkpoints that a run needs room for: best, latest, the one before, and one being written."""


def doctor(exp: str | None) -> Iterator[tuple[bool, str]]:
    """Check this machine, and with an experiment also its corpus, disk and time.

    Yields:
        Whether a check passed, and what it found on one line.
    """
    checks = [_versions, _variables, check_gpus, _outputs]
    if exp:
        checks += [lambda: check_declaration(exp), lambda: _experiment(exp)]
    for check in checks:
        try:
            yield True, check()
        except (UserError, OSError, ImportError) as error:
            yield False, str(error)


def check_gpus(
    open_driver: Callable[[], Any] = open_nvml,
    read_build: Callable[[], TorchBuild] | None = None,
) -> str:
    """Describe the visible GPUs.

    Args:
        open_driver: Opens NVML.
        read_build: Returns what torch can use; default: asks torch.

    Raises:
        UserError: The driver shows a GPU that torch cannot use, or has lost one.
    """
    try:
        nvml = open_driver()
    except UserError as error:
        return f"GPU: none ({str(error).removeprefix('no GPU: ').partition(';')[0]})"
    gpus = visible_gpus(nvml)
    if not gpus:
        return f"GPU: none visible ({VISIBLE_DEVICES}={os.environ.get(VISIBLE_DEVICES, '')})"
    if read_build is None:
        from oelm_lib.training.device import torch_build as read_build
    if problem := torch_problem(gpus, read_build()):
        raise UserError(f"GPU: {problem}")
    return "GPU: " + ", ".join(_describe_gpu(nvml, gpu) for gpu in gpus)


def _describe_gpu(nvml: Any, gpu: str) -> str:
    """Return the name of a GPU and its free memory."""
    memory = query_gpu(nvml, "nvmlDeviceGetMemoryInfo", gpu)
    name = query_gpu(nvml, "nvmlDeviceGetName", gpu) or gpu
    free = f"{memory.free / 2**30:.1f} GiB free" if memory else "memory not reported by the driver"
    return f"{name} {free}"


def _versions() -> str:
    """Check that the installed packages are of the versions that pyproject.toml allows."""
    from packaging.requirements import Requirement

    required = [Requirement(text) for text in importlib.metadata.requires("oelm-workbook") or []]
    required = [item for item in required if not item.marker]
    found = {item.name: importlib.metadata.version(item.name) for item in required}
    wrong = [item.name for item in required if found[item.name] not in item.specifier]
    names = dict.fromkeys(wrong or ("torch", "numpy", "papermill"))
    shown = ", ".join(f"{name} {found[name]}" for name in names)
    if wrong:
        raise UserError(
            f"versions: {shown} do not fit pyproject.toml; pip install -c constraints.txt -e ."
        )
    return f"versions: python {platform.python_version()}, {shown}"


def _variables() -> str:
    """Return the environment variables that change a run."""
    values = [f"{name}={os.environ[name]}" for name in VARIABLES if name in os.environ]
    return f"variables: {', '.join(values) or 'none set'}"


def _outputs() -> str:
    """Check that files can be written and renamed in the outputs folder."""
    outputs = config.outputs_dir()
    outputs.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=outputs) as folder:
        first, second = Path(folder) / "a", Path(folder) / "b"
        first.write_text("")
        second.write_text("")
        os.replace(first, second)
    return f"{outputs}: writable, with atomic renames"


def check_declaration(exp: str) -> str:
    """Check that an experiment declares what it changes against its baseline.

    Raises:
        UserError: It does not; the message has the line to paste.
    """
    experiment = config.load_config(exp)
    if problems := config.change_problems(experiment):
        raise UserError("; ".join(problems))
    if experiment.compare_to is None:
        return f"{experiment.id}: a baseline"
    line = f"{experiment.id}: changes {', '.join(experiment.changes)} of {experiment.compare_to}"
    return "; warning: ".join([line, *config.change_warnings(experiment.id)])


def _experiment(exp: str) -> str:
    """Check corpus, tokenizer and disk of an experiment, and predict its time from 20 steps."""
    from oelm_lib.training import run_trial
    from oelm_lib.training.device import memory_errors

    cfg, outputs = config.load_config(exp), config.outputs_dir()
    corpus = open_fitting_corpus(cfg)
    load_tokenizer(corpus)
    with memory_errors(cfg.id):
        result = run_trial(Run(cfg, 0, corpus, outputs / cfg.folder / "trial"), outputs)
    needed = MOST_CHECKPOINTS * result["checkpoint_bytes"] / 2**30
    free = shutil.disk_usage(outputs).free / 2**30
    low, high = (format_duration(seconds) for seconds in result["seconds"])
    text = f"{cfg.id}: corpus and tokenizer whole"
    if free < needed:
        raise UserError(
            f"{text}, but its checkpoints need {needed:.2f} GiB and {free:.1f} GiB are free;"
            " free some, or set OELM_OUTPUTS to another disk"
        )
    return (
        f"{text}; checkpoints need {needed:.2f} GiB, {free:.1f} GiB are free;"
        f" takes {low} - {high} on {result['device']} in {result['precision']}"
    )
