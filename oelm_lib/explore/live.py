"""Live choices of explore.ipynb in JupyterLab; the exported page shows what stood there when it was executed."""

from collections.abc import Sequence
from html import escape
from typing import Any

import ipywidgets

from oelm_lib.errors import UserError
from oelm_lib.explore import figures as explore
from oelm_lib.explore import probes
from oelm_lib.runs.reading import find_runs
from oelm_lib.runs.schema import CHECKPOINTS
from oelm_lib.view.live import put
from oelm_lib.view.tables import table


class HeadExplorer(ipywidgets.VBox):
    """One head of two runs side by side, with their next tokens and texts, for a prompt that can be changed.

    Args:
        runs: As probes.open_arms takes them; the two to begin with are the first ones.
        prompt: Text to begin with.
    """

    def __init__(self, runs: str, prompt: str, outputs: str = ""):
        self._outputs = outputs
        names = [arm.name for arm in probes.open_arms(runs, outputs=outputs)]
        others = [f"{path.parent.name}/{path.name}" for path in find_runs(outputs or None)]
        options = list(dict.fromkeys([*names, *others]))
        wide = {"layout": {"width": "30em"}}
        self.left = ipywidgets.Dropdown(description="left", options=options, value=names[0], **wide)
        self.right = ipywidgets.Dropdown(
            description="right", options=options, value=names[min(1, len(names) - 1)], **wide
        )
        self.checkpoint = ipywidgets.Dropdown(description="checkpoint", options=CHECKPOINTS)
        self.layer = ipywidgets.Dropdown(description="layer")
        self.head = ipywidgets.Dropdown(description="head")
        self.seed = ipywidgets.BoundedIntText(0, min=0, max=10**6, description="seed")
        self.prompt = ipywidgets.Textarea(
            prompt, description="prompt", continuous_update=False, layout={"width": "60em"}
        )
        self.problem, self.map, self.words = (
            ipywidgets.HTML(),
            ipywidgets.Output(),
            ipywidgets.HTML(),
        )
        choices = (
            self.left,
            self.right,
            self.checkpoint,
            self.layer,
            self.head,
            self.seed,
            self.prompt,
        )
        columns = ipywidgets.HBox([ipywidgets.VBox(choices[:3]), ipywidgets.VBox(choices[3:6])])
        super().__init__([columns, self.prompt, self.problem, self.map, self.words])
        self._arms: dict[tuple[str, str], Any] = {}
        self._offering = False
        self.draw()
        for widget in choices:
            widget.observe(lambda change: self.draw(), "value")

    def draw(self) -> None:
        """Draw what the choices ask for, or say in one line why not."""
        if self._offering:
            return
        try:
            arms = [self._arm(box.value) for box in (self.left, self.right)]
            self._offer(arms)
            figure = explore.attention_pair(
                arms, self.prompt.value, self.layer.value, self.head.value
            )
            after = (
                explore.next_tokens(arms, self.prompt.value),
                explore.texts(arms, self.prompt.value, seed=self.seed.value),
            )
        except UserError as error:
            self.problem.value = f"<p style='color:#c0392b'>{escape(str(error))}</p>"
            return
        self.problem.value = ""
        put(self.map, figure)
        self.words.value = "".join(table(frame).to_html() for frame in after)

    def _arm(self, name: str) -> Any:
        key = name, self.checkpoint.value
        if key not in self._arms:
            (self._arms[key],) = probes.open_arms(name, self.checkpoint.value, self._outputs)
        return self._arms[key]

    def _offer(self, arms: Sequence[Any]) -> None:
        """Offer the layers and heads that both have; what was chosen stays where it can."""
        self._offering = True
        for box, count in ((self.layer, "num_layers"), (self.head, "num_heads")):
            options, chosen = (
                range(min(getattr(arm.config.model, count) for arm in arms)),
                box.value,
            )
            if len(box.options) != len(options):
                box.options = options
                box.value = chosen if chosen in options else 0
        self._offering = False
