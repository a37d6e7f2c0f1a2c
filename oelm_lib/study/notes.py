"""Notes under a study's answer: how to read it, and what it does not show."""

from html import escape

from oelm_lib import stats
from oelm_lib.markup import Html, unbroken
from oelm_lib.study import verdicts
from oelm_lib.study.cell import Cell
from oelm_lib.study.grid import Grid
from oelm_lib.study.study import Study
from oelm_lib.study.tuning import EDGE, FEWEST, NO_STABLE_RATE
from oelm_lib.units import counted

WIDE_SPREAD = 0.1
"""Spread of the seeds of a cell, in nats, above which it is named; a gap of 5 % is 0.049."""

COLUMNS = "display:grid;grid-template-columns:fit-content(40%) 1fr;column-gap:1em"
OWN_WIDTH = "width:auto"
"""Inline style, since JupyterLab's own columns are too narrow; a page has its style sheet."""


def reading(study: Study) -> Html:
    """Return how to read the numbers, term by term."""
    sizes = {
        verdicts.family_size(study.plan, claim.family, corpus)
        for claim, corpus in study.plan.claims_by_corpus()
    }
    levels = ", ".join(
        f"each at {100 - 100 * stats.ALPHA / n:.4g} % for {counted(n, 'comparison')}"
        for n in sorted(sizes)
    )
    split = study.plan.confirm.text
    terms = {
        "arm": "one variant of the model. The arms are described below the first table.",
        "Q/K weights": "W_q and W_k, the projections that make the queries and keys of attention.",
        "trained share": "numbers that an arm trains between a block's input and its attention"
        " scores (W_q, W_k, or what is added to them), divided by the size of W_q and W_k.",
        "perplexity": f"exp of the mean loss per token of the {split} text; lower is better.",
        "gap": "perplexity of the arm divided by that of its baseline, minus 1.",
        "baseline": "the arm after the word 'against'. It is trained on the same text in the same"
        " order from the same seed. An addition that could help trained W_q and W_k too is in the"
        " baseline as well.",
        "[low, high]": "the confidence interval of the gap: Student's t over the differences of"
        " paired seeds. The intervals of one family on one corpus hold together with 95 %"
        f" (Bonferroni): {levels}. A verdict is read off the interval before it is rounded,"
        " never off the mean.",
        "at most +x %": "PASS: the whole interval is below x. FAIL: it is above x. INCONCLUSIVE: x"
        " lies inside.",
        "equal within ±x %": "YES: the whole interval is inside. NO: it is outside. NOT SHOWN:"
        " neither. Where two gaps are compared, their difference is (1 + one gap) / (1 + the other)"
        " - 1; noise that a seed adds to all arms cancels.",
        "claimed late": "added to the plan after confirmation began: a claim, a corpus, the ladder"
        " of sizes, or more seeds for a question that was left open. More seeds are a second look,"
        " which counts as one more comparison of its family: the family's intervals are wider, and"
        " their level of 95 % is approximate.",
        "rates imprecise": "the tuned learning rate of the arm or of its baseline is known less"
        " well than the plan asks; 'What this does not show' names it.",
        "UNSTABLE": "a seed of the arm or of its baseline diverged (the others are not judged), or"
        " no learning rate of one of them is stable.",
        "question": "one limit of one claim on one corpus. It stays open where its verdict is"
        " INCONCLUSIVE, NOT SHOWN or UNSTABLE.",
        "seeds that would decide": "with 80 % chance, if the true gap is the one seen. A range,"
        " because the spread between seeds is uncertain (its 68 % limits).",
        f"on this {split} text": f"a verdict is about the {split} split that was scored. Where the"
        " error over documents is as large as that over seeds, the interval includes both.",
    }
    items = "".join(
        f"<dt style='{OWN_WIDTH}'>{escape(a)}</dt><dd style='{OWN_WIDTH}'>{escape(b)}</dd>"
        for a, b in terms.items()
    )
    return unbroken(f"<dl style='{COLUMNS}'>{items}</dl>")


def not_shown(study: Study) -> Html:
    """Return what the study does not show, as a list."""
    items = [*study.plan.notes, *_limitations(study)]
    return unbroken("<ul>" + "".join(f"<li>{escape(item)}</li>" for item in items) + "</ul>")


def _limitations(study: Study) -> list[str]:
    sentences = [
        "An interval holds for the learning rates that tuning chose. The error of tuning is not in"
        " it; the table of tuned learning rates shows it for each arm."
    ]
    corpora = {record.corpus: record.data for record in study.grid.records}
    if synthetic := sorted(name for name, data in corpora.items() if data.get("synthetic")):
        sentences.append(
            f"{', '.join(synthetic)}: generated text, which says nothing about real text."
        )
    if samples := sorted(name for name, data in corpora.items() if data.get("sample")):
        sentences.append(f"{', '.join(samples)}: a sample of the corpus, not all of it.")
    sentences += [
        f"Size '{name}' of the ladder was left out: {why}"
        for name, why in study.plan.left_out.items()
    ]
    fewest = min(judgement.planned for judgement in study.latest())
    if fewest < stats.FEW_SEEDS:
        sentences.append(f"{fewest} seeds: intervals are wide and their width is partly luck.")
    grid = study.grid
    tuned = [cell for cell in grid.cells if grid.is_tuned(cell)]
    if edges := [str(cell) for cell in tuned if grid.fit(cell).state == EDGE]:
        sentences.append(f"Learning rate not tuned to an interior minimum: {'; '.join(edges)}.")
    if unstable := [str(cell) for cell in tuned if grid.fit(cell).state == NO_STABLE_RATE]:
        sentences.append(f"No learning rate that was tried is stable: {'; '.join(unstable)}.")
    if imprecise := [str(cell) for cell in grid.cells if grid.is_imprecise(cell)]:
        sentences.append(
            f"Learning rate imprecise (fewer than {FEWEST} rates are near it, its interval reaches"
            " beyond the rates tried, or its error costs more than"
            f" {study.plan.tune.error:g} nats): {'; '.join(imprecise)}."
        )
    if late := [judgement for judgement in study.judgements if not judgement.declared]:
        sentences.append(
            f"Claimed late: {len(late)} of {len(study.judgements)} comparisons, which the table of"
            " all claims marks."
        )
    if any(not slope.declared for slope in study.slopes):
        sentences.append("Claimed late: the change of the gap with the size of the model.")
    if wide := [text for cell in grid.cells if (text := _wide_spread(grid, cell))]:
        sentences.append(
            f"Seeds that lie far apart, so that one of them moves a gap: {'; '.join(wide)} of"
            f" {study.plan.confirm.text} loss between the best seed and the worst."
        )
    if mixed := _mixed_machines(grid):
        sentences.append(
            "Confirmation runs on more than one device, in more than one precision or with several"
            f" instruction sets, so that a gap may hold their difference too: {'; '.join(mixed)}."
        )
    sentences += [_replaced_sentence(grid, cell) for cell in grid.cells if grid.replaced(cell)]
    return sentences


def _wide_spread(grid: Grid, cell: Cell) -> str:
    """Return a cell and the range of its confirmed losses where that is wide, else ""."""
    losses = [loss for loss in grid.confirmed_losses(cell).values() if loss is not None]
    spread = max(losses, default=0.0) - min(losses, default=0.0)
    return f"{cell}, {spread:.2f} nats" if spread > WIDE_SPREAD else ""


def _mixed_machines(grid: Grid) -> list[str]:
    """Return corpus and size, and the machines of its confirmation runs where they differ."""
    machines: dict[str, set[str]] = {}
    for cell in grid.cells:
        for run in grid.confirmation_records(cell):
            facts = map(run.machine.get, ("device_name", "precision", "instructions"))
            machines.setdefault(cell.place, set()).add(", ".join(filter(None, facts)))
    return [
        f"{place} ({' and '.join(sorted(names))})"
        for place, names in machines.items()
        if len(names) > 1
    ]


def _replaced_sentence(grid: Grid, cell: Cell) -> str:
    """Return which confirmation runs are not judged, and why."""
    runs = grid.replaced(cell)
    old = ", ".join(f"{rate:g}" for rate in sorted({run.rate for run in runs}))
    return (
        f"{cell}: {len(runs)} confirmation runs at learning rate {old} are not judged, since"
        f" further tuning moved the optimum to {grid.rate(cell):g}."
    )
