"""What follows from a comparison: the commands that train the seeds its open verdicts lack."""

from collections.abc import Iterator, Sequence
from html import escape

from oelm_lib import stats
from oelm_lib.compare.pairs import Pair
from oelm_lib.compare.verdict import LIMIT, Verdict
from oelm_lib.config import overrides_text
from oelm_lib.markup import Html
from oelm_lib.runs.frames import MEASURED
from oelm_lib.runs.names import command_line

HEAD = "More seeds for the open verdicts, of the arm and of its baseline:"
MOST_LISTED = 32
"""Most seeds of an arm that a command asks for."""


def next_steps(verdicts: Sequence[Verdict]) -> Html:
    """Return for each open verdict the command that trains the arm and its baseline further.

    Args:
        verdicts: What judge returns.
    """
    items = []
    for verdict in verdicts:
        count = _seeds_in_all(verdict) if verdict.source == MEASURED else None
        if count:
            commands = [f"<code>{escape(command)}</code>" for command in _commands(verdict, count)]
            why = verdict.to_decide or "one seed has no interval"
            words = f"{verdict.id}: {verdict.verdict}; {why}."
            items.append(
                f"<li>{escape(words)} Train {count} in all before you look again:"
                f" {'; '.join(commands)}</li>"
            )
    return Html(f"<p>{HEAD}</p><ul>{''.join(items)}</ul>" if items else "")


def _seeds_in_all(verdict: Verdict) -> int | None:
    """Return how many shared seeds an open verdict asks for; None where seeds do not decide it."""
    if verdict.verdict == stats.UNKNOWN:
        return stats.FEW_SEEDS
    if verdict.verdict != stats.INCONCLUSIVE:
        return None
    seeds = stats.deciding_seeds(verdict.interval, stats.bounds_at_most(LIMIT))
    if seeds is None or seeds[0] > MOST_LISTED:
        return None
    return min(seeds[1] or MOST_LISTED, MOST_LISTED)


def _commands(verdict: Verdict, count: int) -> Iterator[str]:
    """Yield the commands after which arm and baseline share `count` seeds."""
    shared = verdict.pair.shared()[0].index
    first = max(shared) + 1
    seeds = ",".join(map(str, range(first, first + count - len(shared))))
    for overrides, ids in _ids_by_overrides(verdict.pair).items():
        options = ["--set", overrides] if overrides else []
        yield command_line(["run", *ids, "--seeds", seeds, *options])


def _ids_by_overrides(pair: Pair) -> dict[str, list[str]]:
    """Return the overrides of baseline and arm as text, with the experiments that have them."""
    ids: dict[str, list[str]] = {}
    for runs in (pair.base, pair.arm):
        experiment = runs.iloc[0]["experiment"]
        ids.setdefault(overrides_text(experiment.science_overrides), []).append(experiment.id)
    return ids
