"""Live choices of explore.ipynb in JupyterLab."""

from html import escape

import ipywidgets

from oelm_lib.errors import UserError
from oelm_lib.explore import maps, tables
from oelm_lib.explore.arms import find_named_runs
from oelm_lib.runs.find import find_runs
from oelm_lib.runs.names import run_name
from oelm_lib.runs.schema import CHECKPOINTS
from oelm_lib.training.trained import Trained, open_trained
from oelm_lib.view.tables import table
from oelm_lib.view.tones import toned
from oelm_lib.view.widgets import Panel, button, columns, dropdown, put

MEAN = "mean of the heads"
WIDTH = "30em"
BOTH, OVER_TIME = "the two runs", "the left run's checkpoints"


class HeadExplorer(Panel):
    """All heads of a layer of two runs, and the prompt's tokens with where each looks.

    Args:
        runs: As explore.open_arms takes them; the first two are shown first. Further choices are
            all runs of the outputs folder.
        prompt: Text to begin with.
    """

    def __init__(self, runs: str, prompt: str):
        self._opened: dict[tuple[str, str], Trained] = {}
        named = {run_name(path): path for path in find_named_runs(runs)}
        found = {run_name(path): path for path in find_runs()}
        self._paths = named | found | named  # the named ones first, also where names are equal
        options = list(self._paths)
        self.left = dropdown("left", options, WIDTH)
        self.right = dropdown("right", options, WIDTH)
        self.right.value = options[min(1, len(named) - 1)]
        self.compare = dropdown("compare", [BOTH, OVER_TIME], WIDTH)
        self.checkpoint = dropdown("checkpoint", list(CHECKPOINTS), WIDTH)
        self.layer = dropdown("layer", [0], WIDTH)
        self.head = dropdown("colour", [MEAN], WIDTH)
        self.seed = ipywidgets.BoundedIntText(0, min=0, max=10**6, description="seed")
        self.prompt = ipywidgets.Textarea(
            prompt, description="prompt", continuous_update=False, layout={"width": "60em"}
        )
        self.write = button("write texts", self.write_texts, "Next tokens and a text of each run")
        self.problem = ipywidgets.HTML()
        self.map = ipywidgets.Output()
        self.tokens = ipywidgets.HTML()
        self.words = ipywidgets.HTML()
        left = ipywidgets.VBox([self.left, self.right, self.compare, self.checkpoint])
        right = ipywidgets.VBox([self.layer, self.head, columns(self.seed, self.write)])
        super().__init__(
            [columns(left, right), self.prompt, self.problem, self.tokens, self.map, self.words]
        )
        self._filling = False
        self.draw()
        choices = (self.left, self.right, self.compare, self.checkpoint, self.layer, self.head)
        for widget in (*choices, self.prompt):
            widget.observe(lambda change: self.draw(), "value")

    def draw(self) -> None:
        """Draw the chosen maps; on failure, show the reason and clear the figure."""
        if self._filling:
            return
        self.words.value = ""
        try:
            runs = self._chosen()
            self._offer(runs)
            head = None if self.head.value == MEAN else int(self.head.value.split()[-1])
            figure = maps.layer_grid(runs, self.prompt.value, self.layer.value)
            line = maps.token_line(runs[0], self.prompt.value, self.layer.value, head)
        except UserError as error:
            self._fail(error)
            return
        self.problem.value = ""
        self.tokens.value = (
            f"<p>{escape(runs[0].name)}: point at a token to see where it looks</p>{line}"
        )
        put(self.map, figure)

    def write_texts(self) -> None:
        """Show the next tokens and a text of each run; it takes longer than a map."""
        try:
            runs = self._chosen()
            frames = [
                tables.next_tokens(runs, self.prompt.value),
                tables.texts(runs, self.prompt.value, seed=self.seed.value),
            ]
        except UserError as error:
            self._fail(error)
            return
        self.words.value = "".join(map(table, frames))

    def _fail(self, error: UserError) -> None:
        self.problem.value = toned(str(error), "bad", "p")
        self.map.outputs = ()
        self.tokens.value = self.words.value = ""

    def _chosen(self) -> list[Trained]:
        """Return the runs to draw: two at one checkpoint, or one at all its checkpoints."""
        if self.compare.value == OVER_TIME:
            left, folder = self.left.value, self._paths[self.left.value]
            names = [name for name in CHECKPOINTS if (folder / f"{name}.pt").is_file()]
            runs = [self._open(left, name) for name in names or CHECKPOINTS]
            by_step = {run.step: run for run in runs}  # best may be latest
            return [by_step[step] for step in sorted(by_step)]
        names = dict.fromkeys([self.left.value, self.right.value])
        return [self._open(name, self.checkpoint.value) for name in names]

    def _open(self, name: str, checkpoint: str) -> Trained:
        if (name, checkpoint) not in self._opened:
            self._opened[name, checkpoint] = open_trained(self._paths[name], checkpoint)
        return self._opened[name, checkpoint]

    def _offer(self, runs: list[Trained]) -> None:
        """Offer the layers and heads that all runs have; a choice stays where it can."""
        layers = list(range(min(run.config.model.num_layers for run in runs)))
        count = min(run.config.model.num_heads for run in runs)
        heads = [MEAN, *(f"head {number}" for number in range(count))]
        self._filling = True
        for box, options in ((self.layer, layers), (self.head, heads)):
            if list(box.options) != options:
                chosen = box.value
                box.options = options
                box.value = chosen if chosen in options else options[0]
        self._filling = False
