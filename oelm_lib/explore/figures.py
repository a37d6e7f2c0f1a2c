"""Figures and tables of explore.ipynb; arms are those of probes.open_arms."""

from collections.abc import Sequence
from html import escape
from typing import Any

import numpy as np
import pandas as pd
import plotly.graph_objects as go

from oelm_lib.arms import arm_colours, arm_name
from oelm_lib.errors import UserError
from oelm_lib.explore import probes
from oelm_lib.view import figure as base

SCALE = [
    [0, "rgba(27,127,196,0.04)"],
    [0.1, "rgba(27,127,196,0.35)"],
    [0.4, "rgba(27,127,196,0.8)"],
    [1, "#08406f"],
]
"""Steep at first: what is spread over thirty keys is still seen."""
SHOWN_TOKENS = 32
"""Tokens of the prompt that maps show."""
ROLES = {
    "previous_token": "previous token (random tokens, twice)",
    "induction": "induction (random tokens, twice)",
}
ROLES |= {
    "duplicate_token": "duplicate token (random tokens, twice)",
    "copying_in_text": "keys that hold the next token (text)",
}


def summary(arms: Sequence[Any]) -> pd.DataFrame:
    """The probe table with an arm in each column."""
    table = probes.summary(arms).set_index("arm").T
    table = table.apply(
        lambda row: row.map("{:,.0f}".format if row.name == "step" else "{:.4f}".format), axis=1
    )
    return (
        table.rename_axis(columns=None, index="measure")
        .reset_index()
        .replace({"measure": {"_": " "}}, regex=True)
    )


def slices(arms: Sequence[Any]) -> pd.DataFrame:
    """Where the gap to the first arm lies: a row a slice, a column an arm."""
    table = probes.slices(arms)
    table["words"] = [
        f"{row.loss:.3f}"
        + (f" ({row.gap_nats:+.3f}, {row.gap_share:.0%})" if row.gap_share == row.gap_share else "")
        for row in table.itertuples()
    ]
    wide = table.pivot_table(
        "words", ["tokens_that", "token_share"], "arm", aggfunc="first", sort=False
    )
    return wide[[probes.label(arm) for arm in arms]].rename_axis(columns=None).reset_index()


def attention_grid(arms: Sequence[Any], prompt: str) -> base.Figure:
    """Draw the maps of all layers and heads, a panel an arm; the mouse shows query, key and share."""
    found = [_maps(arm, prompt) for arm in arms]
    tallest = max(len(maps) for _, maps in found)
    notes = ["one square a layer and head; down: queries, across: keys; the mouse names them"]
    figure = base.new_figure(
        "Attention", notes, [probes.label(arm) for arm in arms], height=60 + 150 * tallest
    )
    for row, (words, maps) in enumerate(found, 1):
        names = [
            [f"layer {layer}, head {head}" for head in range(len(maps[0]))]
            for layer in range(len(maps))
        ]
        _tiles(figure, row, words, maps, names)
        middle, step = len(words) / 2, len(words) + 1
        ticks = {
            "tickvals": [middle + step * n for n in range(len(maps[0]))],
            "showgrid": False,
            "ticks": "",
        }
        figure.update_xaxes(
            ticktext=[f"head {n}" for n in range(len(maps[0]))], **ticks, row=row, col=1
        )
        ticks["tickvals"] = [middle + step * n for n in range(len(maps))]
        figure.update_yaxes(
            ticktext=[f"layer {n}" for n in range(len(maps))], **ticks, row=row, col=1
        )
    return figure.update_layout(showlegend=False)


def attention_pair(arms: Sequence[Any], prompt: str, layer: int, head: int) -> base.Figure:
    """Draw one head's map in two arms, side by side, with the tokens."""
    found = [_maps(arm, prompt) for arm in arms[:2]]
    names = [probes.label(arm) for arm in arms[:2]]
    size = len(found[0][0])
    if any(words != found[0][0] for words, _ in found):
        raise UserError(
            "the two runs cut the prompt into other tokens; choose runs with one tokenizer"
        )
    figure = base.new_figure(
        f"Layer {layer}, head {head}", ["left: " + "; right: ".join(names)], [""], height=480
    )
    words, tiles = found[0][0], np.stack([maps[layer, head] for _, maps in found])[None]
    _tiles(figure, 1, words, tiles, [names])
    places, texts = np.arange(size), [escape(repr(word)[1:-1]) for word in words]
    figure.update_yaxes(
        tickvals=places, ticktext=texts, showgrid=False, title_text="query", tickfont_size=10.5
    )
    across = {
        "tickvals": [*places, *(places + size + 1)][: len(found) * (size + 1)],
        "ticktext": texts * len(found),
    }
    figure.update_xaxes(
        **across, showgrid=False, title_text="key", tickangle=-90, tickfont_size=10.5
    )
    return figure.update_layout(showlegend=False)


def head_scores(arms: Sequence[Any]) -> base.Figure:
    """Draw what share each head gives in each role; definitions in analysis.measures."""
    notes = [
        f"each mark is a head, layer by layer; a share above {probes.STRONG:g} (dashed) makes it one of that role"
    ]
    figure = base.new_figure("Roles of heads", notes, list(ROLES.values()), height=170)
    colours = _colours(arms)
    for nth, (arm, colour) in enumerate(zip(arms, colours, strict=True)):
        heads = probes.head_table(arm)
        names = [
            f"{layer}.{head}" for layer, head in zip(heads["layer"], heads["head"], strict=True)
        ]
        places = np.arange(len(names)) + 0.6 * ((nth + 0.5) / len(arms) - 0.5)
        for row, role in enumerate(ROLES, 1):
            look = {
                "mode": "markers",
                "marker": {"color": colour, "size": 9, "opacity": 0.85},
                "showlegend": row == 1,
            }
            hover = {
                "text": names,
                "hovertemplate": f"{escape(probes.label(arm))}<br>%{{text}}: %{{y:.3f}}<extra></extra>",
            }
            points = {
                "x": places.tolist(),
                "y": heads[role].round(4).tolist(),
                "name": probes.label(arm),
            } | hover
            base.add(figure, row, go.Scatter(**points, **look))
    figure.add_hline(y=probes.STRONG, line={"dash": "dash", "width": 1.2, "color": base.INK})
    figure.update_yaxes(title_text="share", rangemode="tozero")
    figure.update_xaxes(
        tickvals=list(range(len(names))), ticktext=names, showgrid=False, rangemode="normal"
    )
    base.title_x(figure, "layer.head")
    return figure


def depth(arms: Sequence[Any]) -> base.Figure:
    """Draw entropy and logits' spread over depth: lines are means over heads, dots heads."""
    panels = {
        "entropy": "normalised entropy (1: uniform)",
        "logit_std": "standard deviation of the logits",
    }
    notes = ["validation windows; lines: means over heads; dots: heads"]
    figure = base.new_figure("Over depth", notes, list(panels.values()), height=260)
    for arm, colour in zip(arms, _colours(arms), strict=True):
        heads = probes.head_table(arm)
        means = heads.groupby("layer")[list(panels)].mean()
        for row, key in enumerate(panels, 1):
            dots = {"mode": "markers", "marker": {"size": 5, "opacity": 0.5, "color": colour}}
            _line(figure, row, arm, colour, heads["layer"], heads[key], False, **dots)
            _line(figure, row, arm, colour, means.index, means[key], row == 1)
    figure.update_xaxes(dtick=1, range=[-0.2, len(means) - 0.8])
    return _finished(figure, "layer")


def spectra(arms: Sequence[Any]) -> base.Figure:
    """Draw the singular values of each head's Q/K form, a panel a layer."""
    found = [probes.spectrum(arm) for arm in arms]
    panels = [f"layer {layer}" for layer in range(max(map(len, found)))]
    notes = [
        "diag(g) W_q^T W_k diag(g), g the LayerNorm's gain; lines: means over heads; thin: heads"
    ]
    figure = base.new_figure("Spectra of the Q/K forms", notes, panels, height=200)
    for arm, values, colour in zip(arms, found, _colours(arms), strict=True):
        places = np.arange(1, values.shape[-1] + 1)
        for row, layer in enumerate(values, 1):
            for head in layer:
                thin = {
                    "line": {"width": 0.8, "color": colour},
                    "opacity": 0.4,
                    "hoverinfo": "skip",
                }
                _line(figure, row, arm, colour, places, head, False, **thin)
            _line(figure, row, arm, colour, places, layer.mean(0), row == 1)
    return _finished(figure, "singular value, largest first")


def loss_by_position(arms: Sequence[Any], bins: int = 16) -> base.Figure:
    """Draw the loss over the position in the window, and the gap to the first arm, in `bins` parts of the window."""
    notes = [
        f"validation windows in {bins} parts; the lower panel: nats above {probes.label(arms[0])}"
    ]
    figure = base.new_figure(
        "Loss by position", notes, ["loss", "gap to the first arm"], height=260
    )
    losses = [probes.window_losses(arm)[1].mean(0) for arm in arms]
    places = np.array_split(np.arange(len(losses[0])), min(bins, len(losses[0])))
    for arm, mine, colour in zip(arms, losses, _colours(arms), strict=True):
        for row, values in ((1, mine), (2, mine - losses[0])):
            points = [place.mean() for place in places], [values[place].mean() for place in places]
            _line(figure, row, arm, colour, *points, row == 1, mode="lines+markers", marker_size=5)
    figure.update_yaxes(title_text="nats per token")
    return _finished(figure, "position in the window", "normal")


def logit_spread(arms: Sequence[Any]) -> base.Figure:
    """Draw the logits' spread over training, a panel a layer, of runs that recorded it at their evaluations."""
    found = [probes.logit_spread(arm) for arm in arms]
    layers = sorted({layer for table in found for layer in table["layer"]})
    notes = ["one validation window at each evaluation; the mean of a layer's heads"]
    figure = base.new_figure(
        "Standard deviation of the logits", notes, [f"layer {n}" for n in layers], height=170
    )
    for arm, table, colour in zip(arms, found, _colours(arms), strict=True):
        for layer, points in table.groupby("layer"):
            row = layers.index(layer) + 1
            _line(figure, row, arm, colour, points["step"], points["logit_std"], row == 1)
    return _finished(figure, "step" if layers else "")


def texts(arms: Sequence[Any], prompt: str, count: int = 60, seed: int = 0) -> pd.DataFrame:
    """How each arm goes on from the prompt, drawn with the same seed."""
    return pd.DataFrame(
        [
            {"arm": probes.label(arm), "text": prompt + arm.continued(prompt, count, seed=seed)[0]}
            for arm in arms
        ]
    )


def next_tokens(arms: Sequence[Any], prompt: str, count: int = 8) -> pd.DataFrame:
    """The likeliest next tokens of each arm, side by side."""
    rows = [probes.next_tokens(arm, prompt, count) for arm in arms]
    columns = {
        probes.label(arm): [f"{word!r} {share:.1%}" for word, share in table.values]
        for arm, table in zip(arms, rows, strict=True)
    }
    return pd.DataFrame({"rank": range(1, len(rows[0]) + 1)} | columns)


def _maps(arm: Any, prompt: str) -> tuple[list[str], np.ndarray]:
    """The prompt's first tokens as words, and what each gives to each (L, H, T, T)."""
    tokens = arm.encode(prompt)[:, :SHOWN_TOKENS]
    words = [arm.tokenizer.decode([number]) for number in tokens[0].tolist()]
    return words, probes.attention_maps(arm.model, tokens)[:, 0]


def _tiles(
    figure: base.Figure, row: int, words: list[str], maps: np.ndarray, names: list[list[str]]
) -> None:
    """Add maps (R, C, T, T) as one picture of R x C squares; the mouse shows a square's name, query, key and share."""
    size, (rows, columns) = len(words), maps.shape[:2]
    shape = (rows * (size + 1) - 1, columns * (size + 1) - 1)
    values, texts = np.full(shape, np.nan), np.full(shape, "", object)
    shown = [escape(repr(word)) for word in words]
    for r in range(rows):
        for c in range(columns):
            place = (
                slice(r * (size + 1), r * (size + 1) + size),
                slice(c * (size + 1), c * (size + 1) + size),
            )
            values[place] = np.where(np.tri(size, dtype=bool), maps[r, c].round(3), np.nan)
            pairs = [
                [f"{query} to {key}" if k <= q else "" for k, key in enumerate(shown)]
                for q, query in enumerate(shown)
            ]
            texts[place] = [[f"{escape(names[r][c])}<br>{pair}" for pair in line] for line in pairs]
    z = [[None if np.isnan(value) else value for value in line] for line in values.tolist()]
    hover = {
        "text": texts.tolist(),
        "hovertemplate": "%{text}: %{z:.3f}<extra></extra>",
        "hoverongaps": False,
    }
    bar = {"title": {"text": "share"}, "thickness": 12, "len": 0.5, "outlinewidth": 0}
    look = {"colorscale": SCALE, "zmin": 0, "zmax": 1, "showscale": row == 1, "colorbar": bar}
    figure.add_trace(go.Heatmap(z=z, **hover, **look), row=row, col=1)
    axis = figure.get_subplot(row, 1).xaxis.plotly_name.replace("axis", "")
    figure.update_yaxes(autorange="reversed", scaleanchor=axis, constrain="domain", row=row, col=1)
    figure.update_xaxes(constrain="domain", rangemode="normal", row=row, col=1)


def _line(
    figure: base.Figure, row: int, arm: Any, colour: str, x: Any, y: Any, named: bool, **look: Any
) -> None:
    """Add an arm's line to a panel; `named`: and to the legend."""
    points = {
        "x": np.round(x, 1).tolist(),
        "y": np.round(y, 4).tolist(),
        "name": probes.label(arm),
        "showlegend": named,
    }
    look = {"mode": "lines", "line": {"color": colour, "width": 2.2}} | look
    base.add(figure, row, go.Scatter(**points, **look, legendgroup=probes.label(arm)))


def _finished(figure: base.Figure, title: str, rangemode: str = "tozero") -> base.Figure:
    return base.title_x(figure, title).update_yaxes(rangemode=rangemode)


def _colours(arms: Sequence[Any]) -> list[str]:
    """A colour for each arm; seeds of one arm share it."""
    names = [arm_name(arm.config.to_dict(), arm.config.science_overrides) for arm in arms]
    return [arm_colours(names)[name] for name in names]
