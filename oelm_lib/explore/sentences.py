"""What explore.ipynb sees, in sentences that follow from the numbers by rule."""

from collections.abc import Sequence
from html import escape

from IPython.display import clear_output

from oelm_lib.explore import probes
from oelm_lib.explore.arms import run_label, runs_by_arm
from oelm_lib.explore.attention import ROLES, STRONG, head_table
from oelm_lib.explore.windows import window_losses
from oelm_lib.markup import Html
from oelm_lib.training.trained import Trained

UNIFORM = 0.95
"""Entropy of attention above which it is called nearly uniform."""
CONCENTRATED, AVOIDED = 1.5, 0.67
"""Share of the gap / share of the tokens from which the gap is called concentrated there, and up to
which it is said to lie elsewhere."""


def findings(runs: Sequence[Trained]) -> Html:
    """Return the findings as a list, and below it a caution about the number of seeds."""
    _measure(runs)
    lines = [*_unfinished(runs), *_heads(runs), *_focus(runs), *_directions(runs), *_gap(runs)]
    seeds = min(len(members) for members in runs_by_arm(runs).values())
    caution = (
        "One seed per arm: these sentences describe single runs and test nothing."
        if seeds == 1
        else f"At least {seeds} seeds per arm; the sentences are about means over seeds."
    )
    items = "".join(f"<li><b>{escape(head)}</b> {escape(text)}</li>" for head, text in lines)
    return Html(f"<ul>{items}</ul><p class='note'>{escape(caution)}</p>")


def _measure(runs: Sequence[Trained]) -> None:
    """Fill the caches of head_table and window_losses, which takes seconds to minutes a run.

    Meanwhile a line says which run it is; the next output of the cell replaces it.
    """
    for number, run in enumerate(runs, 1):
        print(f"looking into {run.name}, {number} of {len(runs)}", flush=True)
        head_table(run)
        window_losses(run)
        clear_output(wait=True)


def _unfinished(runs: Sequence[Trained]) -> list[tuple[str, str]]:
    """Name the checkpoints that are not of the end of a run."""
    places = [
        f"{run_label(run)} at step {run.step:,} of {run.config.train.max_steps:,}"
        for run in runs
        if run.step < run.config.train.max_steps
    ]
    return [("Not trained to the end.", f"{'; '.join(places)}.")] if places else []


def _heads(runs: Sequence[Trained]) -> list[tuple[str, str]]:
    """Name for each role the arms that have such heads, or the head that comes nearest."""
    table = probes.roles(runs)
    lines = []
    for words in ROLES.values():
        part = table[table["role"] == words]
        strong = part[part["share"] > STRONG]
        if len(strong):
            found = [f"{row.arm} has {row.heads_with_the_role}" for row in strong.itertuples()]
            text = f"{'; '.join(found)}."
        else:
            best = part.loc[part["share"].idxmax()]
            text = (
                f"No arm has such a head. The nearest is {best['strongest']} of {best['arm']},"
                f" with a share of {best['share']:.2f}."
            )
        lines.append((f"{words.capitalize()} heads.", text))
    return lines


def _focus(runs: Sequence[Trained]) -> list[tuple[str, str]]:
    """Name the arms whose attention is the most and the least focused, by its entropy."""
    entropy = _group_means(runs, "entropy")
    lowest, highest = min(entropy, key=entropy.get), max(entropy, key=entropy.get)
    lines = []
    if uniform := [name for name, value in entropy.items() if value > UNIFORM]:
        verb = "attends" if len(uniform) == 1 else "attend"
        lines.append(f"{_listed(uniform)} {verb} nearly uniformly.")
    if len(entropy) > 1:
        lines.append(
            f"The most focused is {lowest} (entropy {entropy[lowest]:.2f}),"
            f" the least {highest} ({entropy[highest]:.2f})."
        )
    return [("Focus.", " ".join(lines))] if lines else []


def _directions(runs: Sequence[Trained]) -> list[tuple[str, str]]:
    """Name the arms whose heads compare the most and the fewest directions, by effective rank."""
    rank = _group_means(runs, "effective_rank")
    if len(rank) < 2:
        return []
    lowest, highest = min(rank, key=rank.get), max(rank, key=rank.get)
    widths = {run.config.model.d_head for run in runs}
    of = f"Of {widths.pop()} directions, t" if len(widths) == 1 else "T"
    return [
        (
            "Directions.",
            f"{of}he heads of {highest} compare the most (effective rank"
            f" {rank[highest]:.1f}), those of {lowest} the fewest ({rank[lowest]:.1f}).",
        )
    ]


def _gap(runs: Sequence[Trained]) -> list[tuple[str, str]]:
    """Say on which tokens each arm has its gap to the first one."""
    table = probes.loss_by_slice(runs)
    reference, *others = table["arm"].unique()
    lines = []
    for name in others:
        part = table[table["arm"] == name].set_index("tokens_that")
        gap = part.loc["all", "gap_nats"]
        if gap <= 0:
            lines.append((f"Gap of {name}.", f"It is not behind {reference} on these windows."))
            continue
        share = part.loc["end an earlier bigram", "gap_share"]
        tokens = part.loc["end an earlier bigram", "token_share"]
        place = _place(share / tokens)
        lines.append(
            (
                f"Gap of {name}.",
                f"{place} Tokens that end an earlier bigram are {tokens:.0%} of the text and"
                f" {share:.0%} of its gap to {reference}.",
            )
        )
    return lines


def _place(ratio: float) -> str:
    """Say where a gap lies, by its share on copyable tokens over their share of the text."""
    if ratio >= CONCENTRATED:
        return "It is concentrated on tokens that could be copied."
    if ratio <= AVOIDED:
        return "It lies mostly on tokens that could not be copied."
    return "It is spread over all tokens."


def _group_means(runs: Sequence[Trained], column: str) -> dict[str, float]:
    """Return the mean of a column of head_table over the heads and seeds of each arm."""
    return {
        name: float(sum(head_table(run)[column].mean() for run in members) / len(members))
        for name, members in runs_by_arm(runs).items()
    }


def _listed(names: list[str]) -> str:
    return names[0] if len(names) == 1 else f"{', '.join(names[:-1])} and {names[-1]}"
