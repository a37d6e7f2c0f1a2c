"""Mutation run: change the library in one place at a time and see whether a test notices.

`make mutants` draws N changes with SEED, as many from each area, makes one at a time in a copy of
the project and runs the tests of its area, for LIMIT seconds of CPU time and ten times that by
the clock at most. A change that no test notices is printed, but for those in equivalent.yaml.

    make mutants N=200 SEED=1 LIMIT=300     the defaults
    make mutants AREA='stats files'         some areas
    make mutants FILES=1                    the nearest test file only: fast, and more survive
"""

import contextlib
import gc
import importlib
import multiprocessing
import os
import random
import resource
import shutil
import signal
import sys
import tempfile
from collections import Counter
from dataclasses import dataclass
from pathlib import Path

import pytest
import yaml

from tests.mutants.operators import mutate, mutations

ROOT = Path(__file__).resolve().parents[2]
N, SEED = int(os.environ.get("N", 200)), int(os.environ.get("SEED", 1))
LIMIT, FILES = float(os.environ.get("LIMIT", 300)), int(os.environ.get("FILES", 99))
FORK = multiprocessing.get_context("fork")
EQUIVALENT = Path(__file__).with_name("equivalent.yaml")
AREAS = {  # area -> its files, its tests
    "model": (["oelm_lib/model"], ["tests/model"]),
    "training": (["oelm_lib/training"], ["tests/training"]),
    "batches": (
        ["oelm_lib/data/batches.py"],
        ["tests/data/test_batches.py", "tests/data/test_mqar.py"],
    ),
    "stats": (["oelm_lib/stats.py"], ["tests/test_stats.py", "tests/compare/test_verdict.py"]),
    "runs": (["oelm_lib/runs"], ["tests/runs"]),
    "files": (["oelm_lib/files.py"], ["tests/test_files.py", "tests/runs/test_metrics.py"]),
}


@dataclass(frozen=True)
class Mutant:
    file: str  # relative to the project
    line: int
    old: str
    new: str
    source: str  # of the whole changed file
    unchanged: str


def sample(area: str, size: int, generator: random.Random) -> list[Mutant]:
    """Draw mutants of an area: places without replacement, one change at each."""
    files = [path for name in AREAS[area][0] for path in sorted((ROOT / name).rglob("*.py"))]
    files += [ROOT / name for name in AREAS[area][0] if name.endswith(".py")]
    places = [(path, changes) for path in files for _, changes in sorted(mutations(path).items())]
    generator.shuffle(places)
    mutants = []
    while places and len(mutants) < size:
        path, changes = places.pop()
        source = path.read_text()
        if changed := mutate(source, *generator.choice(changes)):
            pairs = zip(source.splitlines(), changed.splitlines(), strict=False)
            lines = ((k, old, new) for k, (old, new) in enumerate(pairs, 1) if old != new)
            line, old, new = next(lines, (0, "", ""))
            name = str(path.relative_to(ROOT))
            mutants.append(Mutant(name, line, old.strip(), new.strip(), changed, source))
    return mutants


def ordered_tests(area: str, file: str) -> list[str]:
    """Test files of an area, at most FILES: named after a file first, then by mentions of it.

    A test is named after a file by its name (test_checkpoint), the first word of it (test_lock
    for lock_file) or its folder's (test_additions).
    """
    found = [path for name in AREAS[area][1] for path in [ROOT / name, *(ROOT / name).rglob("*")]]
    tests = [path for path in found if path.match("test_*.py")]
    place = Path(file)
    words = (place.stem, place.stem.split("_")[0], place.parent.name)
    names = {f"test_{word}" for word in words}

    def rank(path: Path) -> tuple[bool, int]:
        return path.stem not in names, -path.read_text().count(place.stem)

    return [str(path.relative_to(ROOT)) for path in sorted(tests, key=rank)][:FILES]


def run_tests(copy: Path, tests: list[str], limit: float) -> str:
    """Run tests in a process of their own; "passed", or how a test noticed."""
    process = FORK.Process(target=_run_pytest, args=(copy, tests, int(limit)))
    process.start()
    process.join(10 * limit)
    code = process.exitcode
    with contextlib.suppress(ProcessLookupError):
        os.killpg(process.pid, signal.SIGKILL)  # what the tests have started, too
    process.join()
    if code in (None, -signal.SIGXCPU):
        return "time limit"
    return "killed" if code else "passed"


def _run_pytest(copy: Path, tests: list[str], limit: int) -> None:
    """Be a test process of the copy; exit with 0 where no test fails."""
    os.setsid()
    resource.setrlimit(resource.RLIMIT_CPU, (limit, limit + 10))
    os.chdir(copy)
    sys.path[:] = [str(copy), *(entry for entry in sys.path if entry not in ("", str(ROOT)))]
    for name in [name for name in sys.modules if name.split(".")[0] == "tests"]:
        del sys.modules[name]
    os.environ["PYTHONPATH"] = str(copy)
    with open(copy / "pytest.log", "w") as log:
        os.dup2(log.fileno(), 1)
        os.dup2(log.fileno(), 2)
    code = pytest.main(["-x", "-q", "-p", "no:anyio", "-p", "no:xdist", *tests])
    sys.exit(0 if code == pytest.ExitCode.NO_TESTS_COLLECTED else code)  # all of them are slow


def write_source(path: Path, source: str) -> None:
    """Write a file of the copy and remove its byte code, which knows only its second and size."""
    path.write_text(source)
    for compiled in path.parent.glob(f"__pycache__/{path.stem}.*"):
        compiled.unlink()


def run_area(area: str, size: int, copy: Path) -> int:
    """Run the tests of an area on each of its mutants; return how many survive."""
    mutants = sample(area, size, random.Random(f"{SEED} {area}"))
    tests = {test for mutant in mutants for test in ordered_tests(area, mutant.file)}
    if run_tests(copy, sorted(tests), 10 * LIMIT) != "passed":
        sys.exit((copy / "pytest.log").read_text() + f"{area}: the tests fail without a change")
    listed = yaml.safe_load(EQUIVALENT.read_text())
    equivalent = {(entry["file"], entry["old"], entry["new"]) for entry in listed}
    outcomes = Counter()
    for mutant in mutants:
        write_source(copy / mutant.file, mutant.source)
        outcome = run_tests(copy, ordered_tests(area, mutant.file), LIMIT)
        write_source(copy / mutant.file, mutant.unchanged)
        if outcome == "passed":
            change = mutant.file, mutant.old, mutant.new
            outcome = "equivalent" if change in equivalent else "survived"
        outcomes[outcome] += 1
        print(f"{outcome}: {mutant.file}:{mutant.line}", flush=True)
        if outcome == "survived":
            print(f"    - {mutant.old}\n    + {mutant.new}", flush=True)
    counts = ", ".join(f"{count} {outcome}" for outcome, count in sorted(outcomes.items()))
    print(f"{area}: {len(mutants)} changes: {counts}", flush=True)
    return outcomes["survived"]


def main() -> None:
    """Run the chosen areas; exit with 1 if a mutant survives."""
    areas = os.environ.get("AREA", "").split() or list(AREAS)
    for name in ("beartype", "hypothesis", "pandas", "pydantic", "scipy.stats", "torch"):
        importlib.import_module(name)  # once for all test processes, which are forks
    gc.freeze()
    with tempfile.TemporaryDirectory(prefix="mutants-") as folder:
        copy = Path(folder) / "project"
        shutil.copytree(ROOT, copy, ignore=shutil.ignore_patterns(".*", "__pycache__", "outputs"))
        survivors = [run_area(area, N // len(areas), copy) for area in areas]
    sys.exit(1 if any(survivors) else 0)


if __name__ == "__main__":
    main()
