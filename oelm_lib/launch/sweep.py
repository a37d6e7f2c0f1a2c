"""A declared grid of runs: experiment files from a plan, the queue, and a record of each run in git."""

import math
import re
from dataclasses import dataclass
from pathlib import Path
from statistics import median
from typing import Annotated, Any

import yaml
from pydantic import Field, model_validator

from oelm_lib import config
from oelm_lib.config import Experiment, Flag, Real, Section, Step
from oelm_lib.data.corpus import open_corpus
from oelm_lib.errors import UserError
from oelm_lib.files import sha256_json, write_text
from oelm_lib.launch.jobs import Job, make_job
from oelm_lib.launch.queue import run_queue
from oelm_lib.launch.slots import Slots
from oelm_lib.runs.folder import Run
from oelm_lib.study.records import RECORDS, append_record, make_record, read_records

FOLDER = config.PARAMS / "study"
BASELINE = "baseline"
Rates = tuple[Annotated[Real, Field(gt=0)], ...]


class Arm(Section):
    set: dict[str, Any] = Field(default={})
    """What it changes in the plan's base, by dotted key."""
    baseline: str = BASELINE
    """The arm with trained Q/K and the same addition, where there is one."""
    learning_rates: Rates | None = None
    """Peaks, in place of the plan's."""


class Plan(Section):
    """A grid of runs: every arm at each of its learning rates, on each corpus with that corpus' seeds."""

    question: str
    """What the experiments answer."""
    base: str
    """Experiment that all are made from."""
    set: dict[str, Any]
    """What they all change in it, by dotted key."""
    corpora: dict[str, tuple[Step, ...]]
    """Corpus -> seeds."""
    learning_rates: Rates
    """Peaks of every arm that names none."""
    test: Flag
    """Whether runs are scored on the test split at their end."""
    arms: dict[str, Arm]
    """Name -> arm; the first is `baseline`, and changes nothing."""

    @model_validator(mode="after")
    def _check(self):
        if next(iter(self.arms), None) != BASELINE or self.arms[BASELINE].set:
            raise ValueError(f"arms begins with `{BASELINE}: {{}}`, which changes nothing")
        unknown = {arm.baseline for arm in self.arms.values()} - set(self.arms)
        if unknown:
            raise ValueError(
                f"baseline = {unknown.pop()!r} is no arm of the plan; name one of arms"
            )
        return self


@dataclass(frozen=True)
class Cell:
    """One run of a plan."""

    arm: str
    config: Experiment
    job: Job


def sweep(path: Path, dry_run: bool, workers: int, sbatch: dict[str, str] | None = None) -> int:
    """Write the experiment files of a plan, then train what has no record yet; returns an exit code.

    Args:
        dry_run: Stop when the files are written and the cost is told.
        workers: Runs at a time.
        sbatch: Options of a Slurm job; given, the runs are submitted, and the next call records what has ended.

    Raises:
        UserError: The plan is wrong, or a corpus is not the one that recorded runs read.
    """
    plan = read_plan(path)
    cells = make_cells(plan, FOLDER)

    def record() -> list[Cell]:
        return record_finished(plan, path.stem, cells, RECORDS)

    to_go, records = record(), read_records(RECORDS)
    print(cost_table(cells, to_go, workers, _seconds_per_step(cells, to_go, records)))
    if dry_run or not to_go:
        return 0
    _check_corpora(cells, records)
    jobs = [cell.job for cell in to_go]
    if sbatch is not None:
        from oelm_lib.launch.slurm import submit

        print("\n".join(submit(jobs, {}, sbatch, len(jobs), report=False, dry_run=False)))
        return 0
    code = run_queue(jobs, {}, Slots(workers), on_end=record)
    record()
    return code


def read_plan(path: Path) -> Plan:
    """Read a plan file. Raises UserError."""
    return config.validated(Plan, config.read_yaml(path), str(path))


def make_cells(plan: Plan, folder: Path) -> list[Cell]:
    """All runs of a plan, first seeds first; experiments that have no file yet get the next free id."""
    files = [
        config.parse_experiment(config.read_yaml(file), str(file))
        for file in sorted(folder.glob("STUDY-*.yaml"))
    ]
    known = {sha256_json(made.science): made for made in files}
    cells = []
    for corpus, seeds in plan.corpora.items():
        plain: list[Experiment] = []
        for name, arm in plan.arms.items():
            for rate in arm.learning_rates or plan.learning_rates:
                changes = plan.set | arm.set | {"data.corpus": corpus, "optim.learning_rate": rate}
                cfg = config.load_config(plan.base, changes)
                content = sha256_json(cfg.science)
                if content not in known:
                    near = sorted(plain, key=lambda e: abs(math.log(e.optim.learning_rate / rate)))
                    base = None if name == BASELINE else near[0]
                    number = 1 + max((int(made.id[6:]) for made in known.values()), default=0)
                    known[content] = _write(folder, number, name, cfg, base, plan.question)
                found = known[content]
                plain += [found] if name == BASELINE else []
                cells += [
                    (n, Cell(name, found, make_job(found, seed, plan.test)))
                    for n, seed in enumerate(seeds)
                ]
    return [cell for _, cell in sorted(cells, key=lambda item: item[0])]


def _write(
    folder: Path, number: int, arm: str, cfg: Experiment, base: Experiment | None, question: str
) -> Experiment:
    """Write params/study/STUDY-<number>.yaml; `base` is the plain baseline at the nearest rate, None for itself."""
    plain = cfg.to_dict() | {
        "id": f"STUDY-{number:04d}",
        "slug": re.sub(r"[^a-z0-9]+", "_", arm.lower()),
    }
    plain |= {
        "title": f"{cfg.data.corpus}, {arm}, rate {cfg.optim.learning_rate:g}",
        "question": question,
    }
    plain |= {
        "compare_to": base and base.id,
        "changes": list(config.diff_configs(base, cfg)) if base else [],
    }
    plain["machine"] = cfg.machine.model_dump(exclude_defaults=True)
    made = config.parse_experiment(plain, plain["id"])
    folder.mkdir(parents=True, exist_ok=True)
    text = yaml.safe_dump(
        plain, sort_keys=False, default_flow_style=None, width=120, allow_unicode=True
    )
    write_text(folder / f"{made.id}.yaml", text)
    return made


def record_finished(plan: Plan, name: str, cells: list[Cell], records: Path) -> list[Cell]:
    """Record every run that has ended since, whoever trained it; returns the runs that are still to be made.

    A record without probes is made again where its run folder is still here.
    """
    known = {(record["id"], record["seed"]): record for record in read_records(records)}
    left = []
    for cell in cells:
        record = known.get((cell.config.id, cell.job.seed))
        whole = (
            record
            and _same(record, cell.config)
            and not (plan.test and record["final_test_loss"] is None)
        )
        if whole and ("probes" in record or not (cell.job.path / "latest.pt").is_file()):
            continue
        if cell.job.done:
            from oelm_lib.explore import probes

            labels = {"plan": name, "arm": cell.arm, "baseline": plan.arms[cell.arm].baseline}
            append_record(
                labels | make_record(cell.job.path) | {"probes": probes.recorded(cell.job.path)},
                records,
            )
        else:
            left.append(cell)
    return left


def _same(record: dict[str, Any], cfg: Experiment) -> bool:
    """Whether a record is of this experiment; keys that came into being after it say nothing."""
    return not config.diff_science(cfg.science, record["science"])


def _seconds_per_step(
    cells: list[Cell], to_go: list[Cell], records: list[dict[str, Any]]
) -> dict[str, float]:
    """Arm -> wall seconds of a run over its steps: as recorded, else of any arm, else by a trial of the first run."""
    ids = {cell.config.id: cell.arm for cell in cells}
    took = [(ids[r["id"]], r["wall_seconds"] / r["steps"]) for r in records if r["id"] in ids]
    if not took and to_go:
        from oelm_lib.training import run_trial

        cfg, outputs = to_go[0].config, config.outputs_dir()
        outputs.mkdir(parents=True, exist_ok=True)
        run = Run(cfg, 0, open_corpus(cfg.data.corpus, cfg.data.tokenizer, cfg), to_go[0].job.path)
        took = [("", run_trial(run, outputs)["seconds"][1] / cfg.train.max_steps)]
    mine = {arm: [seconds for name, seconds in took if name == arm] for arm in ids.values()}
    return {arm: median(own or [seconds for _, seconds in took]) for arm, own in mine.items()}


def cost_table(
    cells: list[Cell], to_go: list[Cell], workers: int, seconds: dict[str, float]
) -> str:
    """Runs, steps and hours of each arm as text; `seconds` per step by arm."""
    lines = [
        f"{'arm':<34}{'rates':>22}{'runs':>6}{'done':>6}{'steps':>9}{'s/step':>8}{'core-hours':>12}"
    ]
    hours = 0.0
    for arm in dict.fromkeys(cell.arm for cell in cells):
        mine = [cell for cell in cells if cell.arm == arm]
        left = [cell for cell in to_go if cell.arm == arm]
        rates = ", ".join(
            f"{rate:g}" for rate in dict.fromkeys(cell.config.optim.learning_rate for cell in mine)
        )
        steps = sum(cell.config.train.max_steps for cell in left)
        cost = (
            sum(c.config.train.max_steps * max(c.config.machine.threads, 1) for c in left)
            * seconds[arm]
            / 3600
        )
        hours += cost
        done = len(mine) - len(left)
        lines.append(
            f"{arm:<34}{rates:>22}{len(mine):>6}{done:>6}{steps:>9,}{seconds[arm]:>8.3f}{cost:>12.2f}"
        )
    done = len(cells) - len(to_go)
    lines.append(
        f"{len(cells)} runs: {done} recorded before, {len(to_go)} to go, {hours:.1f} core-hours,"
    )
    return "\n".join(lines) + f" about {hours / workers:.1f} h at {workers} workers"


def _check_corpora(cells: list[Cell], records: list[dict[str, Any]]) -> None:
    """Raise UserError where a corpus here is not the one that recorded runs read."""
    for data in dict.fromkeys(cell.config.data for cell in cells):
        corpus = open_corpus(data.corpus, data.tokenizer)
        for record in records:
            read = record["corpus"]
            if (read["name"], read["tokenizer"]) == (corpus.name, corpus.tokenizer):
                if read["manifest_sha256"] != corpus.manifest_sha256:
                    raise UserError(
                        f"{corpus.path}: other content than {record['id']} in {RECORDS.name} read (manifest"
                        f" {read['manifest_sha256'][:12]}); prepare it from the same files (reports/study/plan.md)"
                    )
