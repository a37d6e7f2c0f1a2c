"""What an experiment changes against its baseline, as a table."""

from collections.abc import Sequence
from html import escape

from oelm_lib.config import Experiment, diff_configs, load_config
from oelm_lib.errors import UserError
from oelm_lib.markup import Html, html_table
from oelm_lib.yaml_text import as_yaml


def changes_table(experiment: Experiment, styles: Sequence[str] = (), css_class: str = "") -> Html:
    """Return the keys that differ from the baseline, with both values and whether it says so.

    The baseline has the overrides of the experiment too. Where there is none, a sentence says why.

    Args:
        styles, css_class: Arguments of html_table.
    """
    if not experiment.compare_to:
        return Html("<p>This is a baseline: it is compared to no other experiment.</p>")
    try:
        base = load_config(experiment.compare_to, experiment.overrides)
    except UserError as error:
        return Html(f"<p>{escape(str(error))}</p>")
    undeclared = Html("<b>not declared</b>")
    rows = [
        (key, as_yaml(old), as_yaml(new), "yes" if key in experiment.changes else undeclared)
        for key, (old, new) in diff_configs(base, experiment).items()
    ]
    head = ("differs from the baseline in", base.id, experiment.id, "declared")
    return html_table(head, rows, styles, css_class)
