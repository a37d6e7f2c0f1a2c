"""Mutation run: change the library in one place at a time and see whether a test notices.

`make mutants N=200 SEED=1 LIMIT=300` draws N changes, as many from each area, and runs the tests
of the area on each in a copy of the project; a change that no test notices is printed.
AREA=stats takes one area only. Changes with a reason in equivalent.yaml do not count.
"""

import gc
import importlib
import os
import random
import shutil
import signal
import sys
import tempfile
import time
from collections import Counter
from dataclasses import dataclass
from pathlib import Path

import pytest
import yaml

from tests.mutants.operators import mutate, mutations

ROOT = Path(__file__).resolve().parents[2]
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


def ordered_tests(area: str, file: str, most: int) -> list[str]:
    """Test files of an area, at most `most`: the one named after a file, then by mentions of it."""
    found = [path for name in AREAS[area][1] for path in [ROOT / name, *(ROOT / name).rglob("*")]]
    tests = [path for path in found if path.match("test_*.py")]
    place = Path(file)
    word = "additions" if place.parent.name == "additions" else place.stem

    def rank(path: Path) -> tuple[bool, int]:
        return path.stem != f"test_{place.stem}", -path.read_text().count(word)

    return [str(path.relative_to(ROOT)) for path in sorted(tests, key=rank)][:most]


def run_tests(copy: Path, tests: list[str], limit: float) -> str:
    """Run tests in a child process; "passed", or how a test noticed."""
    child = os.fork()
    if child == 0:
        try:
            os._exit(_run_pytest(copy, tests))
        finally:
            os._exit(1)
    end = time.monotonic() + limit
    status = None
    while status is None and time.monotonic() < end:
        pid, code = os.waitpid(child, os.WNOHANG)
        status = code if pid else time.sleep(0.05)
    try:
        os.killpg(child, signal.SIGKILL)
    except ProcessLookupError:
        pass
    if status is None:
        os.waitpid(child, 0)
        return "time limit"
    return "killed" if status else "passed"


def _run_pytest(copy: Path, tests: list[str]) -> int:
    """Be a test process of the copy; return pytest's exit code, 0 where all tests are slow."""
    os.setsid()
    os.chdir(copy)
    sys.path[:] = [str(copy), *(entry for entry in sys.path if entry not in ("", str(ROOT)))]
    for name in [name for name in sys.modules if name.split(".")[0] == "tests"]:
        del sys.modules[name]
    os.environ["PYTHONPATH"] = str(copy)
    with open(copy / "pytest.log", "w") as log:
        os.dup2(log.fileno(), 1)
        os.dup2(log.fileno(), 2)
    code = pytest.main(["-x", "-q", "-p", "no:anyio", "-p", "no:xdist", *tests])
    return 0 if code == pytest.ExitCode.NO_TESTS_COLLECTED else code


def write_source(path: Path, source: str) -> None:
    """Write a file of the copy and remove its byte code, which knows only its second and size."""
    path.write_text(source)
    for compiled in path.parent.glob(f"__pycache__/{path.stem}.*"):
        compiled.unlink()


def run_area(area: str, size: int, seed: int, copy: Path, limit: float, most: int) -> int:
    """Run the tests of an area on each of its mutants; return how many survive."""
    began = time.monotonic()
    mutants = sample(area, size, random.Random(f"{seed} {area}"))
    tests = {test for m in mutants for test in ordered_tests(area, m.file, most)}
    if run_tests(copy, sorted(tests), 10 * limit) != "passed":
        sys.exit((copy / "pytest.log").read_text() + f"{area}: the tests fail without a change")
    print(f"{area}: the tests pass in {time.monotonic() - began:.0f} s", flush=True)
    listed = yaml.safe_load(EQUIVALENT.read_text()) or []
    reasons = {(entry["file"], entry["old"], entry["new"]): entry["why"] for entry in listed}
    outcomes = Counter()
    for mutant in mutants:
        write_source(copy / mutant.file, mutant.source)
        outcome = run_tests(copy, ordered_tests(area, mutant.file, most), limit)
        write_source(copy / mutant.file, mutant.unchanged)
        if outcome == "passed":
            known = (mutant.file, mutant.old, mutant.new) in reasons
            outcome = "equivalent" if known else "survived"
        outcomes[outcome] += 1
        print(f"{outcome}: {mutant.file}:{mutant.line}", flush=True)
        if outcome == "survived":
            print(f"    - {mutant.old}\n    + {mutant.new}", flush=True)
    counts = ", ".join(f"{count} {outcome}" for outcome, count in sorted(outcomes.items()))
    print(f"{area}: {len(mutants)} changes: {counts}", flush=True)
    return outcomes["survived"]


def main() -> None:
    """Run the areas named in AREA (all of them by default); exit with 1 if a mutant survives."""
    size, seed = int(os.environ.get("N", 200)), int(os.environ.get("SEED", 1))
    limit, most = float(os.environ.get("LIMIT", 300)), int(os.environ.get("FILES", 99))
    areas = os.environ.get("AREA", "").split() or list(AREAS)
    for name in ("beartype", "hypothesis", "pandas", "pydantic", "scipy.stats", "torch"):
        importlib.import_module(name)  # once for all test processes, which are forks
    gc.freeze()
    with tempfile.TemporaryDirectory(prefix="mutants-") as folder:
        copy = Path(folder) / "project"
        ignored = shutil.ignore_patterns(".*", "__pycache__", "outputs")
        shutil.copytree(ROOT, copy, ignore=ignored)
        survivors = [run_area(area, size // len(AREAS), seed, copy, limit, most) for area in areas]
    sys.exit(1 if any(survivors) else 0)


if __name__ == "__main__":
    main()
