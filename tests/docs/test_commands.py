"""Every command on a page exists, and those that take seconds end without an error."""

import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from oelm_lib.config import ROOT
from tests.docs.commands import commands, inline_commands, parse
from tests.docs.test_pages import PAGES, blocks, page_name
from tests.project_params import copy_params

NOT_RUN = {
    r"make (setup|demo|test|check)\b": "takes minutes; its parts are tested",
    r"make lab\b": "stays open; tests/lab.py opens JupyterLab",
    r"make (bench|gpu)\b|oelm bench\b": "takes minutes, or needs a GPU",
    r"pip install\b": "changes the environment",
    r"papermill .* -p exp GPT-|oelm run .*\b(GPT|CPU)-": "trains for minutes to hours",
    r"oelm run .*--seeds 45,": "trains ten more runs, as the command for three seeds does",
    r"oelm run (.* )?--(gpus|all)\b": "needs a GPU, or trains for days",
    r"oelm doctor GPT-": "trains 20 steps of 45 million parameters on a corpus of the hub",
    r"oelm submit\b": "needs Slurm; tests/launch/test_slurm.py",
    r"oelm data prepare tinystories": "reads the hub, or FOLDER",
    r"oelm study (example|decay)( --workers 2)?$": "takes minutes; launch/test_study_engine.py",
    r"oelm report explore\b": "executes the notebook that the next line of the page executes",
    r"oelm export .*--format (tensorboard|wandb)": "needs a package that the plain install lacks",
    r"python -m tests\.": "measures; tests/bench/test_around.py",
    r"oelm report example$": "makes the same page as that of the plan below it",
}
TINY = {
    "d_model: 64": "d_model: 16",
    "d_ff: 256": "d_ff: 32",
    "warmup_steps: 50": "warmup_steps: 4",
    "max_steps: 650": "max_steps: 24",
    "eval_interval: 65": "eval_interval: 12",
    "eval_tokens: 16384": "eval_tokens: 512",
    "save_interval: 325": "save_interval: 24",
}
TRAIN_THE_DEMO = """
from oelm_lib import load_config, runs, training
for seed in (42, 43):
    for exp in ("DEMO-01", "DEMO-02", "DEMO-03", "DEMO-04"):
        cfg = load_config(exp)
        training.train(runs.open_run(cfg, seed))
"""


def reason_not_to_run(command: str) -> str | None:
    """Why a command is parsed only, or None."""
    bare = command.partition(" #")[0].strip()
    return next((why for pattern, why in NOT_RUN.items() if re.match(pattern, bare)), None)


RUN = [page for page in PAGES if not all(map(reason_not_to_run, commands(page)))]
"""Pages with a command that is run."""


def with_one_seed(command: str) -> str:
    """A command with the first of its seeds: the others would take the same path."""
    return re.sub(r"(--seeds \d+)(,\d+)+", r"\1", command)


@pytest.mark.parametrize("page", PAGES, ids=page_name)
def test_commands_exist_with_their_options(page):
    for command in commands(page):
        if reason_not_to_run(command):
            parse(command)
    for command in inline_commands(page):
        parse(command)


def test_every_reason_has_a_command():
    every = [command.partition(" #")[0].strip() for page in PAGES for command in commands(page)]
    for pattern in NOT_RUN:
        assert any(re.match(pattern, command) for command in every), pattern


def environment(checkout: Path) -> dict[str, str]:
    """Variables under which a command finds a copy of the checkout and writes into it only."""
    return os.environ | {
        "PATH": f"{Path(sys.executable).parent}:{os.environ['PATH']}",
        "PYTHONPATH": str(checkout),
        "OELM_OUTPUTS": str(checkout / "outputs"),
        "OELM_DATA": str(checkout / "data"),
        "HF_HUB_OFFLINE": "1",
    }


@pytest.fixture(scope="session")
def trained_checkout(tmp_path_factory):
    """A copy of the checkout after `make demo`, whose experiments are tiny."""
    checkout = tmp_path_factory.mktemp("checkout") / "oelm"
    for name in ("oelm_lib", "notebooks", "slurm"):
        ignored = shutil.ignore_patterns("__pycache__")  # others write there meanwhile
        shutil.copytree(ROOT / name, checkout / name, ignore=ignored)
    copy_params(checkout)
    for path in checkout.glob("params/DEMO-*.yaml"):
        text = path.read_text()
        for old, new in TINY.items():
            assert old in text
            text = text.replace(old, new)
        path.write_text(text)
    code = [sys.executable, "-c", TRAIN_THE_DEMO]
    subprocess.run(code, cwd=checkout, env=environment(checkout), check=True, capture_output=True)
    return checkout


def write_what_the_page_asks_for(page: Path, checkout: Path) -> None:
    """Write the files that a page shows or takes: a plan, an addition, a text."""
    if page.name == "studies.md":
        (plan,) = blocks(page, "yaml")
        (checkout / "params" / "studies" / "decay.yaml").write_text(plan)
    if page.name == "own-attention.md":
        key, addition, _ = blocks(page, "python")
        schema = checkout / "oelm_lib" / "config" / "model.py"
        before, after = schema.read_text().split("    key_shift: ")
        schema.write_text(f"{before}{key}    key_shift: {after}")
        additions = checkout / "oelm_lib" / "model" / "additions"
        (additions / "query_shift.py").write_text(addition)
    if page.name == "own-corpus.md":
        stories = [f"Once there was a hen. It had {n} eggs and a bucket.\n\n" for n in range(300)]
        (checkout / "my-text.txt").write_text("".join(stories))


@pytest.mark.slow
@pytest.mark.long
@pytest.mark.parametrize("page", RUN, ids=page_name)
def test_the_commands_of_a_page_run(page, trained_checkout, tmp_path):
    checkout = tmp_path / "oelm"
    shutil.copytree(trained_checkout, checkout)
    write_what_the_page_asks_for(page, checkout)
    for command in commands(page):
        if reason_not_to_run(command):
            continue
        done = subprocess.run(
            ["bash", "-c", with_one_seed(command)],
            cwd=checkout,
            env=environment(checkout),
            capture_output=True,
            text=True,
        )
        assert done.returncode == 0, f"{command}\n{done.stdout}\n{done.stderr}"
