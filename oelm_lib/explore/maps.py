"""Pictures of attention: one square per head, and the prompt's tokens with where each looks."""

from collections.abc import Sequence
from html import escape
from itertools import count

import numpy as np
import plotly.graph_objects as go
from torch import Tensor

from oelm_lib.errors import UserError
from oelm_lib.explore.arms import run_label
from oelm_lib.explore.attention import attention_maps, layer_maps
from oelm_lib.markup import Html
from oelm_lib.training.trained import Trained
from oelm_lib.view.figure import Figure, new_figure, plotly_text

SCALE = [
    [0, "rgba(27,127,196,0.04)"],
    [0.1, "rgba(27,127,196,0.35)"],
    [0.4, "rgba(27,127,196,0.8)"],
    [1, "#08406f"],
]
"""Steep at first, so that attention spread over thirty keys is still seen."""
PROMPT_TOKENS = 32
"""Tokens of the prompt that maps show."""
TOP_KEYS = 3
"""Keys that the mouse lists for a token and head."""
_NUMBERS = count()
_BASE_STYLE = (
    "#line{line-height:2.2;margin:8px 0}"
    "#line .token{position:relative;padding:3px 1px;border:1px solid rgba(128,128,128,.35);"
    "border-radius:3px;margin:1px;white-space:pre;cursor:default}"
    "#line .token:hover{outline:2px solid #d55e00}"
    "#line .keys{display:none;position:absolute;left:0;top:1.9em;z-index:9;padding:6px 9px;"
    "line-height:1.4;white-space:pre;border-radius:4px;background:var(--jp-layout-color2,#eee);"
    "color:var(--jp-ui-font-color1,#222);box-shadow:0 1px 6px rgba(0,0,0,.4)}"
    "#line .token:hover .keys{display:block}"
)


def attention_grid(runs: Sequence[Trained], prompt: str) -> Figure:
    """Draw the maps of all layers and heads, a panel per run."""
    panels = [attention_maps(run.model, _tokens(run, prompt))[:, 0] for run in runs]
    notes = ["one square per layer and head; down: queries, across: keys; point at one to read it"]
    figure = new_figure(
        "Attention", notes, [run_label(run) for run in runs], 60 + 150 * max(map(len, panels))
    )
    for row, (run, maps) in enumerate(zip(runs, panels, strict=True), 1):
        layers = [f"layer {layer}" for layer in range(len(maps))]
        _add_squares(figure, row, words_of(run, prompt), maps, layers, run_label(run))
    return figure.update_layout(showlegend=False)


def layer_grid(runs: Sequence[Trained], prompt: str, layer: int) -> Figure:
    """Draw all heads of one layer, a row of squares for each run.

    Raises:
        UserError: The runs cut the prompt into different tokens.
    """
    words = words_of(runs[0], prompt)
    if any(words_of(run, prompt) != words for run in runs[1:]):
        raise UserError(
            "the two runs tokenize the prompt differently; choose runs with the same tokenizer"
        )
    rows = [layer_maps(run.model, _tokens(run, prompt), layer)[0] for run in runs]
    maps = np.full((len(runs), max(map(len, rows)), len(words), len(words)), np.nan)
    for n, row in enumerate(rows):
        maps[n, : len(row)] = row
    names = [f"{run_label(run)}, step {run.step:,}" for run in runs]
    notes = [f"row {row}: {name}" for row, name in enumerate(names, 1)]
    figure = new_figure(f"Layer {layer}, all heads", notes, [""], 60 + 170 * len(runs))
    _add_squares(figure, 1, words, maps, [f"row {row}" for row in range(1, len(runs) + 1)])
    return figure.update_layout(showlegend=False)


def token_line(run: Trained, prompt: str, layer: int, head: int | None = None) -> Html:
    """Return the prompt's tokens; under the mouse, a token shows where it looks.

    Args:
        head: Head whose attention is shown by colour; None: the mean of the layer's heads. The
            list that appears names the strongest keys of each head.
    """
    words = words_of(run, prompt)
    maps = layer_maps(run.model, _tokens(run, prompt), layer)[0]  # (H, T, T)
    shares = maps.mean(0) if head is None else maps[head]
    name = f"oelm-tokens-{next(_NUMBERS)}"
    rules = [_BASE_STYLE.replace("#line", f"#{name}")]
    for query in range(len(words)):
        for key in range(query + 1):
            if shares[query, key] >= 0.02:
                rules.append(
                    f"#{name}:has(.q{query}:hover) .q{key}"
                    f"{{background-color:rgba(27,127,196,{shares[query, key]:.2f})}}"
                )
    spans = [
        f"<span class='token q{n}'>{escape(_visible(word))}{_top_keys(words, maps[:, n])}</span>"
        for n, word in enumerate(words)
    ]
    return Html(f"<style>{''.join(rules)}</style><div id='{name}'>{''.join(spans)}</div>")


def words_of(run: Trained, prompt: str) -> list[str]:
    """Return the first PROMPT_TOKENS tokens of a prompt as text."""
    return [run.tokenizer.decode([number]) for number in _tokens(run, prompt)[0].tolist()]


def _tokens(run: Trained, prompt: str) -> Tensor:
    """Return the ids (1, T) of the first PROMPT_TOKENS tokens of a prompt."""
    return run.encode(prompt)[:, :PROMPT_TOKENS]


def _visible(word: str) -> str:
    """Return a token's text with its line breaks shown."""
    return word.replace("\n", "\u21b5")


def _top_keys(words: list[str], shares: np.ndarray) -> str:
    """Return the strongest keys of each head for one query as a list; shares is (H, T)."""
    lines = []
    for head, row in enumerate(shares):
        keys = np.argsort(-row)[:TOP_KEYS]
        texts = [f"{_visible(words[key])!r} {row[key]:.2f}" for key in keys if row[key] >= 0.005]
        lines.append(f"head {head}: {', '.join(texts)}")
    return f"<span class='keys'>{escape(chr(10).join(lines))}</span>"


def _add_squares(
    figure: Figure,
    row: int,
    words: list[str],
    maps: np.ndarray,
    row_names: list[str],
    name: str = "",
) -> None:
    """Add maps (R, C, T, T) to a panel as one picture of R x C squares.

    The mouse shows a square's row and head, its query, key and share; so does a saved table, which
    begins each line with `name`.
    """
    size, (rows, columns) = len(words), maps.shape[:2]
    step = size + 1
    shape = (rows * step - 1, columns * step - 1)
    values, texts = np.full(shape, np.nan), np.full(shape, "", object)
    pairs = _pairs(words)
    for r, c in np.ndindex(rows, columns):
        place = (slice(r * step, r * step + size), slice(c * step, c * step + size))
        values[place] = np.where(np.tri(size, dtype=bool), maps[r, c].round(3), np.nan)
        texts[place] = f"{row_names[r]}, head {c}<br>" + pairs
    z = [[None if np.isnan(value) else value for value in line] for line in values.tolist()]
    bar = {"title": {"text": "share"}, "thickness": 12, "len": 0.5, "outlinewidth": 0}
    heatmap = go.Heatmap(
        name=name,
        z=z,
        text=texts.tolist(),
        hovertemplate="%{text}: %{z:.3f}<extra></extra>",
        hoverongaps=False,
        colorscale=SCALE,
        zmin=0,
        zmax=1,
        showscale=row == 1,
        colorbar=bar,
    )
    figure.add_trace(heatmap, row=row, col=1)
    axis = figure.get_subplot(row, 1).xaxis.plotly_name.replace("axis", "")
    ticks = {"showgrid": False, "ticks": "", "constrain": "domain"}
    figure.update_yaxes(
        autorange="reversed",
        scaleanchor=axis,
        tickvals=[size / 2 + step * n for n in range(rows)],
        ticktext=row_names,
        **ticks,
        row=row,
        col=1,
    )
    figure.update_xaxes(
        rangemode="normal",
        tickvals=[size / 2 + step * n for n in range(columns)],
        ticktext=[f"head {n}" for n in range(columns)],
        **ticks,
        row=row,
        col=1,
    )


def _pairs(words: list[str]) -> np.ndarray:
    """Return `query to key` in words for each pair of tokens (T, T), "" for later keys."""
    shown = [plotly_text(repr(word)) for word in words]
    pairs = np.full((len(words), len(words)), "", object)
    for query, key in zip(*np.tril_indices(len(words)), strict=True):
        pairs[query, key] = f"{shown[query]} to {shown[key]}"
    return pairs
