"""A user's own experiments, corpora and runs are never in the way of the project's tests."""

import os
import re
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path

import pytest

from oelm_lib import config
from tests import runs_factory

COPIED = "oelm_lib params notebooks tests docs slurm README.md CONTRIBUTING.md Makefile .gitignore"
COPIED += " pyproject.toml constraints.txt environment.yml"
READS_THE_CHECKOUT = re.compile(
    r"\b(PARAMS|experiment_ids|corpus_names|study_names|form_fields|CliRunner|Workbench|RunRows)\b"
    r'|\bROOT / "(params|outputs|data)"'
)
"""Names in test files that can see a user's params/, outputs/ or data/; others make their own."""


@pytest.fixture
def checkout():
    """A copy of the project in which a user has worked, where other users may read it."""
    with tempfile.TemporaryDirectory() as folder:
        Path(folder).chmod(0o755)
        fill_checkout(Path(folder))
        yield Path(folder)


def fill_checkout(folder):
    """Copy the project, and add experiments, corpora, notebooks and runs of a user."""
    for name in (*COPIED.split(), "reports"):
        source, target = config.ROOT / name, folder / name
        if source.is_dir():
            shutil.copytree(source, target, ignore=shutil.ignore_patterns("__pycache__"))
        else:
            shutil.copy(source, target)
    params = folder / "params"
    # Confounded with the freeze, of a family of its own, and a duplicate that JupyterLab made.
    for new_id, base, changes in (
        ("DEMO-05", "DEMO-02", "model.position=t5"),
        ("MY-01", "CPU-02", "data.corpus=mytext optim.learning_rate=0.5"),
    ):
        (params / f"{new_id}.yaml").write_text(config.new_experiment(base, new_id, changes))
    shutil.copy(params / "DEMO-02.yaml", params / "DEMO-02-Copy1.yaml")
    corpus = (params / "corpora" / "tinyshakespeare.yaml").read_text()
    (params / "corpora" / "mytext.yaml").write_text(corpus)
    (params / "corpora" / "stories-Copy1.yaml").write_text(corpus)
    runs_factory.make_demo(folder / "outputs", seeds=(42,))
    runs_factory.make_run(folder / "outputs", "DEMO-02", 7, overrides={"train.max_steps": 130})
    (folder / "data" / "mytext" / "gpt2").mkdir(parents=True)
    (folder / "lab").mkdir()
    shutil.copy(folder / "notebooks" / "train.ipynb", folder / "lab" / "Untitled.ipynb")


@pytest.mark.slow
@pytest.mark.long
def test_the_tests_pass_beside_a_users_own_experiments_corpora_and_runs(checkout):
    names = [name for name in os.environ if name.startswith(("OELM_", "PYTEST_"))]
    environment = {key: value for key, value in os.environ.items() if key not in names}
    command = [sys.executable, "-m", "pytest", "-q", "-x", "-p", "no:cacheprovider"]
    files = [
        str(path)
        for path in sorted(checkout.glob("tests/**/test_*.py"))
        if READS_THE_CHECKOUT.search(path.read_text()) and path.name != "test_own_files.py"
    ]
    done = subprocess.run(
        [*command, *files],
        cwd=checkout,
        env=environment | {"PYTHONPATH": str(checkout)},
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, done.stdout[-5000:]


@pytest.mark.slow
def test_the_demo_passes_beside_them(checkout):
    """What `make demo` runs, in a moment: the demo's runs of seed 42 are done, DEMO-05's is not."""
    environment = os.environ | {
        "PYTHONPATH": str(checkout),
        "OELM_OUTPUTS": str(checkout / "outputs"),
    }
    environment |= {"OELM_DATA": str(checkout / "data")}
    oelm = [sys.executable, "-m", "oelm_lib.cli"]
    path = checkout / "params" / "DEMO-05.yaml"
    path.write_text(path.read_text().replace("max_steps: 650", "max_steps: 60"))
    for arguments in (["run", "DEMO-*", "--seeds", "42", "--workers", "2"], ["report", "compare"]):
        done = subprocess.run(
            [*oelm, *arguments], cwd=checkout, env=environment, capture_output=True, text=True
        )
        assert done.returncode == 0, done.stdout + done.stderr
        if arguments[0] == "run":
            assert done.stderr.count("DEMO-02-Copy1.yaml") == 1
            assert done.stdout.count("DEMO-05 seed 42: done") == 1
            assert "DEMO-05.yaml: changes is not what differs" in done.stderr
