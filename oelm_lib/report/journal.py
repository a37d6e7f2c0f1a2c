"""The experiment log, regenerated from run folders and recorded results; templates/journal.* hold its words."""

import math
import re
import shlex
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pandas as pd

from oelm_lib import compare
from oelm_lib import stats as statistics
from oelm_lib.compare import confounds
from oelm_lib.compare.pairs import families
from oelm_lib.compare.verdict import CRITERION
from oelm_lib.config import ROOT, as_text, experiment_ids, load_config, read_yaml
from oelm_lib.errors import UserError
from oelm_lib.files import write_text
from oelm_lib.report.render import TEMPLATES
from oelm_lib.report.render import environment as template_environment
from oelm_lib.runs.frames import RECORDED, name, phase3
from oelm_lib.runs.metrics import perplexity
from oelm_lib.runs.status import format_duration

LANGUAGES = ("en", "zh")
MARK = "<!-- oelm journal: regenerated; only text between notes markers is kept -->"
NOTES = re.compile(r"<!-- notes: (\w+) -->\n(.*?)<!-- /notes -->", re.DOTALL)
SHAPE = (
    "model.d_model",
    "model.num_layers",
    "model.num_heads",
    "model.d_ff",
    "model.max_seq_len",
    "model.vocab_size",
)
SHAPE += ("train.batch_size",)
ENOUGH_SEEDS = 3


def journal(
    outputs: Path | str | None = None,
    language: str = "en",
    path: Path | str | None = None,
    rehearsals: bool = True,
) -> str:
    """Regenerate the experiment log as Markdown; every number in it comes from a file.

    Args:
        outputs: Folder of the run folders; default config.outputs_dir().
        language: en or zh.
        path: File to write; hand-written notes between its markers are kept. None only returns the text.
        rehearsals: Whether runs with overrides are listed too.

    Raises:
        UserError: Unknown language; `path` holds something else or a damaged marker, or cannot be written.
    """
    if language not in LANGUAGES:
        raise UserError(
            f"language = {language!r} is not a language of the journal; use {' or '.join(LANGUAGES)}"
        )
    notes = _notes(Path(path)) if path else {}
    say = _words(language)
    facts = _facts(outputs, rehearsals)

    def percent(value: float, digits: int = 2, sign: str = "+") -> str:
        return f"{100 * value:{sign}.{digits}f}{' ' if language == 'en' else ''}%"

    environment = template_environment(keep_trailing_newline=True)
    environment.filters |= {
        "percent": percent,
        "arm": say,
        "corpus": lambda name: facts["corpora"].get(name, name),
        "signed": "{:+.4f}".format,
        "num": lambda value, digits=0: "-" if pd.isna(value) else f"{value:,.{digits}f}",
        "rate": lambda value: "-" if pd.isna(value) else re.sub(r"\.?0*e-0?", "e-", f"{value:.2e}"),
        "duration": lambda value: "-" if pd.isna(value) else format_duration(math.floor(value)),
        "cell": lambda value: (
            re.sub(r"\s+", " ", str(value)).replace("|", "\\|").replace("<", "&lt;")
        ),
    }
    text = environment.get_template("journal.md.j2").render(
        facts, mark=MARK, notes=notes, t=say, language=language
    )
    if path:
        try:
            write_text(Path(path), text)
        except OSError as error:
            raise UserError(
                f"{path}: cannot be written: {error.strerror}; choose another --output"
            ) from None
    return text


def _words(language: str) -> Callable[..., str]:
    words = read_yaml(TEMPLATES / "journal.yaml")

    def say(key: str, **values: Any) -> str:
        return words[key][language].format(**values) if key in words else key

    return say


def _notes(path: Path) -> dict[str, str]:
    """Hand-written notes of an earlier journal by section."""
    try:
        text = path.read_text(encoding="utf-8") if path.exists() else MARK
    except (OSError, UnicodeDecodeError) as error:
        raise UserError(f"{path}: cannot be read: {error}; choose another --output") from None
    notes = dict(NOTES.findall(text))
    if MARK not in text:
        raise UserError(
            f"{path}: not written by oelm journal, so it is left alone; choose another --output or move it"
        )
    if not text.count("<!-- notes: ") == text.count("<!-- /notes -->") == len(notes):
        raise UserError(
            f"{path}: a notes marker is missing or doubled, and notes would be lost; mend it by hand"
        )
    return {section: note for section, note in notes.items() if note.strip()}


def _facts(outputs: Path | str | None, rehearsals: bool) -> dict[str, Any]:
    """Everything the template prints."""
    measured, log = compare.load_runs(outputs=outputs, rehearsals=rehearsals), phase3()
    runs = pd.concat([measured, compare.recorded()], ignore_index=True)
    known = [load_config(exp) for exp in experiment_ids()]
    shapes: dict[tuple, list[str]] = {}
    for experiment in known:
        shapes.setdefault(tuple(experiment.science[key] for key in SHAPE), []).append(experiment.id)
    whole = runs[
        [getattr(experiment, "kind", None) == "experiment" for experiment in runs["experiment"]]
    ]
    sections = [_section(rows) for _, rows in whole.groupby(["source", "corpus"], sort=False)]
    cross = compare.cross_corpus(whole)
    groups = [
        rows.to_dict("records")
        for _, rows in cross[cross["n"] > 0].groupby(["source", "arm"], sort=False)
    ]
    judged = [row for section in sections for row in section["verdicts"]]
    started = [row | _launch(row) for row in _records(measured)]
    folders = [(row["run"], row["path"]) for row in started]
    folders += [
        (exp, entry["output_dir"])
        for exp, entry in log["experiments"].items()
        if "output_dir" in entry
    ]
    chains = [
        row for section in sections for row in section["ablation"] if row["from"] != section["base"]
    ]
    return {
        "log": log,
        "confidence": 1 - statistics.ALPHA,
        "criterion": 1 + CRITERION,
        "enough_seeds": ENOUGH_SEEDS,
        "corpora": {
            experiment.data.corpus: experiment.title.split(", ")[0] for experiment in known
        },
        "names": {experiment.id: experiment.title for experiment in known},
        "known": len(known),
        "done": whole.loc[
            (whole["source"] != RECORDED) & (whole["state"] == "done"), "id"
        ].nunique(),
        "recorded": list(dict.fromkeys(runs.loc[runs["source"] == RECORDED, "corpus"])),
        "recorded_source": RECORDED,
        "updated": max([log["updated"], *measured["finished"].dropna()])[:10],
        "matrix": _records(compare.matrix(runs, "*")),
        "shape": [key.partition(".")[2] for key in SHAPE],
        "shapes": shapes,
        "measured": started,
        "folders": folders,
        "sections": [section for section in sections if section["arms"]],
        "printed": _printed(log["printed"]),
        "cross": [rows for rows in groups if len(rows) > 1],
        "todo": {
            "never": [
                experiment.id
                for experiment in known
                if experiment.id not in {name(run) for run in measured.itertuples()}
            ],
            "resume": measured.loc[
                measured["state"].isin(["stopped", "dead", "failed"]), "run"
            ].tolist(),
            "seeds": [row["id"] for row in judged if row["n"] < ENOUGH_SEEDS],
            "inconclusive": [
                row["id"] for row in judged if row["verdict"] == statistics.INCONCLUSIVE
            ],
            "rate": [row["id"] for row in judged if "optim.learning_rate" in row["keys"]],
            "mixed": [
                f"{row['from_id']} / {row['to_id']}"
                for row in chains
                if row["differs"].count("qk_") == 2
            ],
            "fail": [row["id"] for row in judged if row["verdict"] == statistics.FAIL],
        },
    }


def _section(runs: pd.DataFrame) -> dict[str, Any]:
    """Results of one corpus from one source: its arms, the verdicts with what differs, and the ablation."""
    results = compare.results(runs)
    arms = {row["id"]: row for row in results[results["n"] > 0].to_dict("records")}
    verdicts = []
    judged = [pair for family in families(runs) for pair in family]  # in the order of the verdicts
    for pair, row in zip(judged, compare.verdicts(runs).to_dict("records"), strict=True):
        if row["n"]:
            base = pair.base.iloc[0]
            differences = confounds.differences(base, pair.arm.iloc[0]).to_dict("records")
            row |= {
                "base_arm": base["arm"],
                "differences": differences,
                "keys": [item["key"] for item in differences],
            }
            row["step_time"] = (
                arms[row["id"]]["mean_step_seconds"] / arms[row["baseline"]]["mean_step_seconds"]
                - 1
            )
            verdicts.append(row)
    return {
        "corpus": runs["corpus"].iloc[0],
        "source": runs["source"].iloc[0],
        "arms": list(arms.values()),
        "base": verdicts[0]["base_arm"] if verdicts else "baseline",
        "verdicts": verdicts,
        "ablation": compare.ablation(runs).to_dict("records"),
    }


def _printed(claims: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """Gaps as the log printed them beside what its numbers give; those of unequal steps, at a step both reached."""
    runs = compare.recorded()
    losses, metrics = runs.set_index("id")["final_val_loss"], compare.load_metrics(runs)
    found = []
    for claim in claims:
        first, second = claim["first"], claim["second"]
        row = {"gap": statistics.gap(losses[second] - losses[first]), "step": None}
        if "steps" in claim:
            table = compare.matched(
                runs[runs["id"].isin([first, second])], metrics, at=claim["steps"]
            )
            row = table[table["n"] > 0].iloc[0][["gap", "step"]].to_dict()
        found.append(claim | row)
    return found


def _launch(run: dict[str, Any]) -> dict[str, Any]:
    """The command that makes a run, its day, folder and perplexity."""
    overrides = run["experiment"].overrides if run["experiment"] else {}
    command = ["oelm", "run", run["id"], "--seed", str(run["seed"])]
    for key, value in overrides.items():
        command += ["--set", as_text({key: value})]
    loss = run["final_val_loss"]
    path = run["path"].relative_to(ROOT) if run["path"].is_relative_to(ROOT) else run["path"]
    known = {"command": shlex.join(command), "date": (run["started"] or "")[:10], "path": path}
    return known | {"perplexity": loss and perplexity(loss)}


def _records(table: pd.DataFrame) -> list[dict[str, Any]]:
    """Rows as dicts, None for what is missing."""
    return table.astype(object).where(table.notna(), None).to_dict("records")
