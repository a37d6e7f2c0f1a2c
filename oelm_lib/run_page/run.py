"""Everything on one run, in the parts that train.ipynb and its page show."""

from html import escape
from typing import Any

from oelm_lib import config
from oelm_lib.arms import arm_name
from oelm_lib.data.corpus import epochs_read
from oelm_lib.errors import UserError
from oelm_lib.markup import Html, fold, html_table
from oelm_lib.runs.folder import Run
from oelm_lib.runs.names import arm_id, command_line
from oelm_lib.runs.overview import overview
from oelm_lib.runs.provenance import commit_name, sessions
from oelm_lib.runs.reading import frozen_unchanged, read_config, read_status, read_summary
from oelm_lib.units import format_bytes, format_duration, perplexity
from oelm_lib.view.changes import changes_table
from oelm_lib.view.gaps import percent
from oelm_lib.yaml_text import as_yaml

Rows = list[tuple[str, str]]
FILES = (
    "config.yaml",
    "training.log",
    "metrics.jsonl",
    "best.pt",
    "latest.pt",
    "summary.json",
    "timing_stats.json",
    "documents.npz",
)


def heading(run: Run) -> Html:
    """Return the title of a run's page: experiment, arm and seed; below it the question.

    What weakens its comparison with the baseline follows: undeclared changes and confounds.
    """
    cfg = run.config
    kind = " (rehearsal)" if cfg.kind == "rehearsal" else ""
    title = f"{cfg.id} {arm_name(cfg)}, seed {run.seed}{kind}"
    lines = [cfg.label, cfg.question]
    texts = [f"<p>{escape(line)}</p>" for line in lines if line]
    problems = [f"<p class='bad'>{escape(line)}</p>" for line in _warnings(cfg)]
    return Html(f"<h1>{escape(title)}</h1>{''.join(texts + problems)}")


def result(run: Run) -> Html:
    """Return what the run reached: one sentence, the gap to its baseline's run, and a table."""
    summary = read_summary(run)
    if not summary:
        status = read_status(run) or {}
        sentence = (
            f"{status.get('state', 'not started').capitalize()} at step {status.get('step', 0):,}"
            f" of {run.config.train.max_steps:,}. Run the cells again to continue."
        )
        return Html(f"<p class='lead'>{escape(sentence)}</p>")
    loss = summary["final_val_loss"]
    reached = (
        "A loss that is not finite"
        if loss is None
        else f"Perplexity <b>{perplexity(loss):.2f}</b> (loss {loss:.4f})"
    )
    where = f"on the whole validation split after {summary['steps']:,} steps."
    table = html_table((), result_rows(summary))
    return Html(f"<p class='lead'>{reached} {where}</p>{_gap(run)}{table}")


def freeze_proof(run: Run) -> Html:
    """Return how many parameters were trained and frozen, and the digests that prove it."""
    summary = read_summary(run)
    if not summary:
        return Html("<p>The proof appears here once the run is done.</p>")
    unchanged = frozen_unchanged(summary.get("frozen"))
    if unchanged is None:
        words = "Nothing was frozen."
    elif unchanged:
        words = "<span class='good'>Proven</span>: the frozen weights did not change by one bit."
    else:
        words = "<span class='bad'>Not frozen</span>: the digests of the frozen weights differ."
    return Html(f"<p>{words}</p>{html_table((), parameter_rows(run, summary))}")


def settings(run: Run) -> Html:
    """Return what differs from the baseline as a table, and all settings folded below it."""
    cfg = run.config
    rows = [
        (key, as_yaml(value) + (" (overridden)" if key in cfg.overrides else ""))
        for key, value in config.flatten(cfg).items()
    ]
    everything = fold(f"All {len(rows)} settings", html_table(("key", "value"), rows))
    return Html(changes_table(cfg) + everything)


def corpus(run: Run) -> Html:
    """Return documents and tokens of the run's corpus, and how much of it the run reads."""
    facts = run.corpus.manifest
    kinds = [kind for kind in ("sample", "synthetic") if facts[kind]]
    title = ", ".join([f"Corpus {run.corpus.name}", *kinds])
    return html_table((title, ""), corpus_rows(run))


def artefacts(run: Run) -> Html:
    """Return the files of the run folder and how to use them."""
    if not (run.path / "config.yaml").is_file():
        return Html("<p>No files yet.</p>")
    name = run.name
    words = (
        f"<p>Next: <code>{_comparison(run)}</code>, <code>oelm generate {escape(name)}</code>,"
        f" <code>oelm export {escape(name)}</code>.</p>"
    )
    return Html(html_table((), file_rows(run)) + words)


def _warnings(cfg: config.Experiment) -> list[str]:
    """Return what weakens the comparison by the experiment's file; [] where the file is gone."""
    try:
        return config.change_warnings(cfg.id)
    except UserError:
        return []


def _gap(run: Run) -> str:
    """Return the gap to the baseline's run with the same seed, where there is one."""
    rows = overview(run.config.id, run.path.parents[1])
    row = next((row for row in rows if row["run"] == run.name), {})
    if row.get("gap") is None:
        return ""
    return (
        f"<p>At step {row['gap_step']:,} its perplexity is {percent(row['gap'], 1)} against"
        f" {escape(row['gap_base'])} with the same seed (validation subset). One pair of runs is no"
        f" verdict: <code>{_comparison(run)}</code>.</p>"
    )


def _comparison(run: Run) -> str:
    """Return the command that compares the run's arm with its baseline, as HTML."""
    return escape(command_line(["report", arm_id(run.config.folder)]))


def result_rows(summary: dict[str, Any]) -> Rows:
    """Return losses, tokens and time of a summary.json."""
    seconds = summary.get("wall_seconds")
    duration = "unknown" if seconds is None else format_duration(seconds)
    tokens, epochs = _text(summary.get("tokens"), "{:,}"), _text(summary.get("epochs"), "{:.2f}")
    rows = [
        ("last weights", _loss(summary, "final_val_loss", "steps")),
        ("bits per byte", _text(summary.get("final_bits_per_byte"), "{:.4f}")),
        ("tokens seen", f"{tokens} ({epochs} epochs)"),
        ("time", f"{duration}, {_text(summary.get('mean_step_seconds'), '{:.4f}')} s a step"),
    ]
    if summary["best_val_loss"] is not None:
        rows.insert(0, ("best checkpoint", _loss(summary, "best_val_loss", "best_step")))
    return rows


def parameter_rows(run: Run, summary: dict[str, Any]) -> Rows:
    """Return the numbers of parameters, and the digests of what was frozen."""
    counts = read_config(run)["parameters"]
    rows = [(name, f"{count:,} ({count / counts['total']:.1%})") for name, count in counts.items()]
    for proof in summary.get("frozen") or []:
        unchanged = frozen_unchanged([proof])
        if unchanged is None:
            continue
        start, end = proof["sha256_start"], proof["sha256_end"]
        steps = f"steps {proof['from_step']} to {proof['to_step']}"
        verdict = "equal" if unchanged else "DIFFER"
        rows.append(
            (
                f"{proof['tensors']} frozen tensors, {steps}",
                f"SHA-256 {start[:12]} at start, {end[:12]} at end: {verdict}",
            )
        )
    return rows


def file_rows(run: Run) -> Rows:
    """Return the folder of a run, the code of each session, and the files with their sizes."""
    rows = [("folder", str(run.path))]
    for session in sessions(read_config(run)):
        rows.append((f"code from step {session['step']:,}", commit_name(session["code"])))
    if summary := read_summary(run):
        state = "verified" if summary.get("checksum") else "none (written by an older version)"
        rows.append(("checksum of the result", state))
    files = [run.path / name for name in FILES if (run.path / name).is_file()]
    return rows + [(file.name, format_bytes(file.stat().st_size)) for file in files]


def corpus_rows(run: Run) -> Rows:
    """Return documents, tokens and bytes of each split, and what the run reads of them."""
    corpus, cfg = run.corpus, run.config
    splits = corpus.manifest["splits"]
    rows = [("tokenizer", f"{corpus.tokenizer}, {corpus.vocab_size:,} tokens in the vocabulary")]
    for name, split in splits.items():
        size = f"{split['documents']:,} documents, {split['tokens']:,} tokens"
        rows.append((name, f"{size}, {split['bytes'] / split['tokens']:.2f} bytes a token"))
    tokens = cfg.train.max_steps * cfg.step_tokens
    passes = epochs_read(cfg, splits["train"]["tokens"])
    return [*rows, ("the run reads", f"{tokens:,} tokens, {passes:.2f} epochs")]


def _loss(summary: dict[str, Any], loss_key: str, step_key: str) -> str:
    loss, step = summary[loss_key], _text(summary.get(step_key), "{:,}")
    if loss is None:
        return f"val_loss not finite (step {step})"
    return (
        f"val_loss {loss:.4f}, perplexity {perplexity(loss):.3f}"
        f" (step {step}, whole validation split)"
    )


def _text(value: Any, form: str) -> str:
    """Return a number in a format, or "unknown" where an old or failed run has none."""
    return "unknown" if value is None else form.format(value)
