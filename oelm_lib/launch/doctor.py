"""What can go wrong before a run of many hours does: asked beforehand, and a short trial."""

import importlib.metadata
import os
import platform
import shutil
import tempfile
from collections.abc import Iterator
from pathlib import Path

from oelm_lib import config
from oelm_lib.data.corpus import open_corpus
from oelm_lib.data.tokenizer import load_tokenizer
from oelm_lib.errors import UserError
from oelm_lib.launch.devices import open_nvml
from oelm_lib.runs.folder import Run, check_fit
from oelm_lib.runs.status import format_duration

VARIABLES = "OELM_OUTPUTS OELM_DATA HF_HUB_OFFLINE HF_DATASETS_OFFLINE CUDA_VISIBLE_DEVICES OMP_NUM_THREADS".split()
CHECKPOINTS = 4
"""Files of a checkpoint's size that a run needs room for: best, latest, the one before, and one being written."""


def doctor(exp: str | None) -> Iterator[tuple[bool, str]]:
    """Check this machine, and with an experiment also its data, disk and time; yields (fine, what was found)."""
    checks = [_versions, _variables, _gpus, _outputs]
    for check in [*checks, lambda: _trial(exp)] if exp else checks:
        try:
            yield True, check()
        except (UserError, OSError, ImportError) as error:
            yield False, str(error)


def _versions() -> str:
    from packaging.requirements import Requirement

    wanted = [Requirement(text) for text in importlib.metadata.requires("oelm-workbook") or []]
    found = {item.name: importlib.metadata.version(item.name) for item in wanted if not item.marker}
    wrong = [
        name
        for name in found
        if any(i.name == name and found[name] not in i.specifier for i in wanted)
    ]
    shown = ", ".join(f"{name} {found[name]}" for name in wrong or ("torch", "numpy", "papermill"))
    if wrong:
        raise UserError(
            f"versions: {shown} not as pyproject.toml asks; pip install -c constraints.txt -e ."
        )
    return f"versions: python {platform.python_version()}, {shown}"


def _variables() -> str:
    return "variables: " + (
        ", ".join(f"{name}={os.environ[name]}" for name in VARIABLES if name in os.environ) or "-"
    )


def _gpus() -> str:
    try:
        nvml = open_nvml()
    except UserError as error:
        return f"GPU: none that can be asked ({str(error).partition(';')[0]})"
    handles = [
        nvml.nvmlDeviceGetHandleByIndex(number) for number in range(nvml.nvmlDeviceGetCount())
    ]
    free = [
        f"{nvml.nvmlDeviceGetMemoryInfo(handle).free / 2**30:.1f} GiB free" for handle in handles
    ]
    return "GPU: " + ", ".join(
        f"{nvml.nvmlDeviceGetName(h)} {text}" for h, text in zip(handles, free, strict=True)
    )


def _outputs() -> str:
    outputs = config.outputs_dir()
    outputs.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=outputs) as folder:
        first, second = Path(folder) / "a", Path(folder) / "b"
        first.write_text("")
        os.link(first, second)
        os.replace(first, second)
    return f"{outputs}: writable, links and renames in one step"


def _trial(exp: str) -> str:
    from oelm_lib.training import run_trial

    cfg, outputs = config.load_config(exp), config.outputs_dir()
    corpus = open_corpus(cfg.data.corpus, cfg.data.tokenizer, cfg)
    check_fit(cfg, corpus)
    load_tokenizer(corpus)
    found = run_trial(Run(cfg, 0, corpus, outputs / cfg.folder / "trial"), outputs)
    needed, free = (
        CHECKPOINTS * found["checkpoint_bytes"] / 2**30,
        shutil.disk_usage(outputs).free / 2**30,
    )
    low, high = (format_duration(seconds) for seconds in found["seconds"])
    text = f"{exp}: corpus and tokenizer whole; checkpoints need {needed:.2f} GiB, {free:.1f} GiB are free; takes"
    if free < needed:
        raise UserError(f"{text} more; free some, or set OELM_OUTPUTS to another disk")
    return f"{text} {low} - {high} on {found['device']} in {found['precision']}"
