"""The first screen of a comparison: what is compared, verdict cards, warnings."""

from collections import Counter
from collections.abc import Sequence
from html import escape

import pandas as pd

from oelm_lib.arms import arm_colour, frozen_projections
from oelm_lib.compare import confounds
from oelm_lib.compare.pairs import comparable
from oelm_lib.compare.verdict import Verdict
from oelm_lib.markup import Html, fold, unbroken
from oelm_lib.model.cost import parameter_counts
from oelm_lib.units import format_millions
from oelm_lib.view.tones import verdict_html

MOST_NAMED = 8
"""More seeds than this are counted, not listed."""
CARD = "border-left:5px solid {};padding:.35em .9em;margin:.8em 0;max-width:50em"
SMALL = "font-size:.85em;opacity:.8"
NOTHING = (
    "<p>No arm has a run to judge yet; train some: <code>make demo</code>, or"
    " <code>oelm run ID</code>.</p>"
)


def subtitle(runs: pd.DataFrame) -> Html:
    """Return what is compared in one line: what is frozen, model, text, learning rates, seeds.

    Args:
        runs: Frame of load_runs.
    """
    known = runs[runs["experiment"].notna()]
    if known.empty:
        return Html("")
    arms = list(known.drop_duplicates("variant")["experiment"])
    frozen = Counter(filter(None, (frozen_projections(arm.model) for arm in arms)))
    sizes = [parameter_counts(arm.model)["total"] for arm in arms]
    tokens = [arm.train.max_steps * arm.step_tokens for arm in arms]
    what = [f"{names} in {count} of {len(arms)} arms" for names, count in frozen.items()]
    facts = {
        "Frozen query or key projections": ", ".join(what) or "none",
        "Model": f"{_millions(sizes)} parameters",
        "Text": f"{', '.join(_texts(known))}, {_millions(tokens)} tokens read",
        "Learning rate": _rates(sorted({arm.optim.learning_rate for arm in arms})),
        "Seeds": _seeds(sorted(set(known["seed"]))),
    }
    return Html(f"<p>{' '.join(f'<b>{a}:</b> {escape(b)}.' for a, b in facts.items())}</p>")


def _texts(runs: pd.DataFrame) -> list[str]:
    """Return each corpus, marked where it is generated or a sample."""
    texts = {}
    for corpus, config in zip(runs["corpus"], runs["config"], strict=True):
        facts = (config or {}).get("corpus") or {}
        kinds = {"synthetic": "generated", "sample": "a sample"}
        marks = [words for key, words in kinds.items() if facts.get(key)]
        texts[corpus] = f"{corpus} ({', '.join(marks)})" if marks else corpus
    return list(texts.values())


def _millions(counts: list[int]) -> str:
    """Return the range of counts, in millions."""
    low, high = (format_millions(count) for count in (min(counts), max(counts)))
    return f"{low if low == high else f'{low} to {high}'} million"


def _rates(rates: list[float]) -> str:
    """Return the learning rate of all arms, or the range where arms differ."""
    if len(rates) == 1:
        return f"{rates[0]:g} in every arm"
    return f"{rates[0]:g} to {rates[-1]:g}, not the same in every arm"


def _seeds(seeds: list[int]) -> str:
    if len(seeds) > MOST_NAMED:
        return f"{len(seeds)}, from {seeds[0]} to {seeds[-1]}"
    return ", ".join(map(str, seeds))


def verdict_cards(verdicts: Sequence[Verdict]) -> Html:
    """Return one card per arm: its verdict, what that means in words, and how it was reached.

    Args:
        verdicts: What judge returns.
    """
    return unbroken("".join(map(_card, verdicts)) or NOTHING)


def _card(verdict: Verdict) -> str:
    """Return a verdict, what was compared, and the numbers behind it, folded."""
    what = [f"{verdict.id} against {verdict.baseline} on {verdict.corpus}", verdict.frozen]
    folded = fold("numbers", Html(escape(verdict.details))) if verdict.details else ""
    return (
        f"<div class='oelm-card' style='{CARD.format(arm_colour(verdict.arm))}'>"
        f"{verdict_html(verdict.verdict)} &nbsp;<b>{escape(verdict.arm)}</b>"
        f" {escape(verdict.words)}"
        f"<div style='{SMALL}'>{escape('; '.join(filter(None, what)))}{folded}</div></div>"
    )


def warning_list(runs: pd.DataFrame, baseline: str | None = None) -> Html:
    """Return what weakens the comparison as a list, each once; "" where there is none.

    Args:
        runs, baseline: Arguments of judge.
    """
    sentences = confounds.warnings(runs, baseline)
    if not sentences and comparable(runs).empty:
        return Html("")
    items = "".join(f"<li>{escape(text)}.</li>" for text in sentences)
    text = f"<ul>{items}</ul>" if items else "<p>Nothing found that weakens the comparison.</p>"
    return Html(f"<h3>What weakens the comparison</h3>{text}")
