"""What an experiment is: typed, frozen, validated; load, override, diff."""

import difflib
import html
import os
import re
from pathlib import Path
from typing import Annotated, Any, Literal

import yaml
from pydantic import (
    BaseModel,
    BeforeValidator,
    ConfigDict,
    Field,
    ValidationError,
    field_validator,
    model_validator,
)

from oelm_lib.errors import UserError
from oelm_lib.files import sha256_json

ROOT = Path(__file__).resolve().parent.parent
PARAMS = ROOT / "params"
ID_PATTERN = r"[A-Z]+-[0-9]{2,4}"
TOKENIZER_PATTERN = r"gpt2|(bpe|ids)-[0-9]+"
SIZES = ("vocab_size", "d_model", "num_layers", "num_heads", "d_ff", "max_seq_len", "dropout")
"""Keys of `model` that say how large an arm is, not which."""
SECTIONS = ("model", "data", "optim", "train", "machine")


def _no_bool(value: Any) -> Any:
    """YAML's true would pass for 1.0."""
    if isinstance(value, bool):
        raise ValueError("should be a number")
    return value


def _switch(value: Any) -> Any:
    """YAML reads a bare `on` or `off` as a bool."""
    return {True: "on", False: "off"}[value] if isinstance(value, bool) else value


Real = Annotated[float, BeforeValidator(_no_bool)]
Count = Annotated[int, Field(strict=True, ge=1)]
Step = Annotated[int, Field(strict=True, ge=0)]
Flag = Annotated[bool, Field(strict=True)]

Layers = Literal["all"] | tuple[Annotated[int, Field(strict=True, ge=0)], ...]


def outputs_dir() -> Path:
    """Folder of the run folders: OELM_OUTPUTS, or outputs/ in the checkout."""
    return Path(os.environ.get("OELM_OUTPUTS") or ROOT / "outputs")


def data_dir() -> Path:
    """Folder of the prepared corpora: OELM_DATA, or data/ in the checkout."""
    return Path(os.environ.get("OELM_DATA") or ROOT / "data")


class Section(BaseModel):
    """Frozen group of keys; unknown keys are refused."""

    model_config = ConfigDict(
        extra="forbid", frozen=True, allow_inf_nan=False, use_attribute_docstrings=True
    )


class ModelConfig(Section):
    vocab_size: Annotated[int, Field(strict=True, ge=2, le=65536)]
    """V, tokens in the vocabulary; token files are uint16."""
    d_model: Count
    """D, width of the residual stream."""
    num_layers: Count
    """Number of Transformer blocks."""
    num_heads: Count
    """H; must divide d_model."""
    d_ff: Count
    """Width of the feed-forward layer."""
    max_seq_len: Count
    """T, tokens in a window."""
    dropout: Annotated[Real, Field(ge=0, lt=1)]
    """Dropout probability at embeddings, attention, attention output, FFN hidden and FFN output."""
    qk_init: Literal["normal", "orthogonal"]
    """How W_q and W_k start: Gaussian, or one orthonormal block per head."""
    qk_scale: Annotated[Real, Field(gt=0)]
    """(Expected) norm of a row of W_q and W_k."""
    freeze_q: Flag
    """Whether W_q stays at its start in `frozen_layers`."""
    freeze_k: Flag
    """Whether W_k stays at its start in `frozen_layers`."""
    frozen_layers: Layers
    """`all`, or the numbers of the layers that freeze_q and freeze_k apply to."""
    freeze_from: Step
    """First step at which they are frozen; before it they are trained."""
    freeze_until: Step | None
    """First step at which they are trained again; null: never."""
    position: Literal["learned", "rope", "alibi", "t5"]
    """Embeddings added to the tokens', Q and K rotated, or a fixed or learned bias of the scores by distance."""
    qk_tied: Flag
    """Whether W_k is W_q."""
    qk_bias: Flag
    """Whether Q and K have a bias, trained also where their weights are frozen."""
    qk_norm: Flag
    """Whether each head's query and key are divided by their root mean square."""
    qk_gain: Flag
    """Whether each dimension of Q and K has a trained gain."""
    head_temperature: Flag
    """Whether each head's scores have a trained factor."""
    qk_core: Flag
    """Whether each head has a trained (K, K) matrix between query and key."""
    delta_rank: Annotated[int, Field(strict=True, ge=0)]
    """r of a trained low-rank matrix added to each head's rows of W_q and W_k; 0: none."""
    key_conv: Flag
    """Whether keys go through a trained causal convolution over three positions, a filter per dimension."""
    key_shift: Flag
    """Whether the first half of each head's key is that of the position before."""

    @property
    def d_head(self) -> int:
        """K, width of a head."""
        return self.d_model // self.num_heads

    def freezes_at(self, step: int) -> bool:
        """Whether freeze_q and freeze_k hold at step 0, 1, ..."""
        return self.freeze_from <= step and (self.freeze_until is None or step < self.freeze_until)

    @property
    def ever_trains_qk(self) -> bool:
        """Whether they fail to hold at some step."""
        return self.freeze_from > 0 or self.freeze_until is not None

    @model_validator(mode="after")
    def _check(self):
        if self.d_model % self.num_heads:
            divisors = [str(n) for n in range(1, self.d_model + 1) if self.d_model % n == 0]
            shown = ", ".join(divisors[:8]) + (", ..." if len(divisors) > 8 else "")
            raise ValueError(
                f"num_heads = {self.num_heads} does not divide d_model = {self.d_model}; use {shown}"
            )
        if (self.position == "rope" or self.key_shift) and self.d_head % 2:
            raise ValueError(
                f"rope and key_shift part a head in halves, but d_head = {self.d_head}; change num_heads"
            )
        if self.delta_rank > self.d_head:
            raise ValueError(
                f"delta_rank = {self.delta_rank} is above d_head = {self.d_head}; lower it"
            )
        if self.qk_tied and self.freeze_q != self.freeze_k:
            raise ValueError(
                "qk_tied makes W_k and W_q one matrix; set freeze_q and freeze_k alike"
            )
        if self.freeze_until is not None and self.freeze_until <= self.freeze_from:
            raise ValueError(
                f"freeze_until = {self.freeze_until} is not after freeze_from = {self.freeze_from}"
            )
        if self.frozen_layers != "all":
            wrong = [n for n in self.frozen_layers if n >= self.num_layers]
            if wrong:
                raise ValueError(
                    f"frozen_layers names layer {wrong[0]}; allowed are 0 .. {self.num_layers - 1} or all"
                )
        return self


class DataConfig(Section):
    corpus: Annotated[str, Field(pattern=r"^[a-z0-9][a-z0-9-]*$")]
    """Name of a file in params/corpora/."""
    tokenizer: Annotated[str, Field(pattern=rf"^({TOKENIZER_PATTERN})$")]
    """`gpt2`, or `bpe-<N>`: a byte-level BPE of N tokens trained on the corpus' train split; or `ids-<N>` (mqar)."""


class ParameterGroup(Section):
    """Parameters with a schedule of their own; its cosine ends with the common one."""

    match: str
    """Regular expression searched in parameter names, e.g. `delta|ln1`; the first group that matches has them."""
    learning_rate: Annotated[Real, Field(gt=0)]
    """Peak of its schedule."""
    warmup_steps: Step
    """Steps of its linear warm-up."""

    @field_validator("match")
    @classmethod
    def _is_expression(cls, value: str):
        try:
            re.compile(value)
        except re.error as error:
            raise ValueError(f"{value!r} is not a regular expression ({error})") from None
        return value


class OptimConfig(Section):
    learning_rate: Annotated[Real, Field(gt=0)]
    """Peak of the schedule."""
    min_learning_rate: Annotated[Real, Field(ge=0)]
    """End of the cosine."""
    warmup_steps: Step
    """Steps of linear warm-up."""
    weight_decay: Annotated[Real, Field(ge=0)]
    """Decoupled decay of every trainable tensor."""
    betas: tuple[Annotated[Real, Field(ge=0, lt=1)], Annotated[Real, Field(ge=0, lt=1)]]
    """AdamW's decay rates of the two moments."""
    grad_clip: Annotated[Real, Field(gt=0)]
    """Largest global gradient norm."""
    groups: tuple[ParameterGroup, ...]
    """Parameters with a learning rate and warm-up of their own."""

    @model_validator(mode="after")
    def _check(self):
        for rate in (self.learning_rate, *(group.learning_rate for group in self.groups)):
            if self.min_learning_rate > rate:
                raise ValueError(
                    f"min_learning_rate = {self.min_learning_rate} is above learning_rate = {rate}; lower it"
                )
        return self


class TrainConfig(Section):
    max_steps: Count
    """Optimizer updates."""
    batch_size: Count
    """B, windows in a step."""
    precision: Literal["fp32", "bf16", "fp16", "auto"]
    """Autocast type of training (evaluation is fp32); auto: bf16 on a GPU that has it, else fp32."""
    eval_interval: Count
    """Steps between evaluations."""
    eval_tokens: Count
    """Tokens of the fixed validation subset scored during training."""
    save_interval: Count
    """Steps between saves of latest.pt."""


class MachineConfig(Section):
    device: Annotated[str, Field(pattern=r"^(auto|cpu|cuda(:[0-9]+)?)$")] = "auto"
    """auto, cpu, cuda or cuda:N."""
    compile: Annotated[Literal["auto", "off", "on"], BeforeValidator(_switch)] = "auto"
    """Whether the training step goes through torch.compile; auto: on a GPU."""
    deterministic: Flag = False
    """Whether torch takes only algorithms that give the same bits each time; slower on a GPU."""
    log_interval: Count = 10
    """Steps between metric rows."""
    threads: Annotated[int, Field(strict=True, ge=0)] = 0
    """CPU threads of torch; 0 keeps torch's choice."""
    devices: Count = 1
    """GPUs (processes on a CPU) that share each batch; more than one needs `oelm run`."""


class Experiment(Section):
    id: Annotated[str, Field(pattern=rf"^{ID_PATTERN}$")]
    """File name without .yaml."""
    slug: Annotated[str, Field(pattern=r"^[a-z0-9_]+$")]
    """Short name used in the run folder."""
    title: str
    """Corpus and arm, for headings."""
    question: str
    """What the run answers."""
    compare_to: Annotated[str, Field(pattern=rf"^{ID_PATTERN}$")] | None
    """The experiment it is judged against; null for a baseline."""
    changes: tuple[str, ...]
    """Exactly the dotted keys that differ from compare_to."""
    model: ModelConfig
    data: DataConfig
    optim: OptimConfig
    train: TrainConfig
    machine: MachineConfig = MachineConfig()
    _overrides: dict[str, Any] = {}

    @property
    def overrides(self) -> dict[str, Any]:
        """What the caller changed, by dotted key; no file may say so."""
        return self._overrides

    @property
    def science(self) -> dict[str, Any]:
        """Dotted key -> value of everything that decides the result (no machine knobs, no words)."""
        return {
            key: value for key, value in flatten(self).items() if not key.startswith("machine.")
        }

    @property
    def science_overrides(self) -> dict[str, Any]:
        """The overrides that make this a rehearsal."""
        return {
            key: value for key, value in self.overrides.items() if not key.startswith("machine.")
        }

    @property
    def kind(self) -> str:
        """`experiment`, or `rehearsal` where overrides changed it."""
        return "rehearsal" if self.science_overrides else "experiment"

    @property
    def folder(self) -> str:
        """Name of the run folder's parent: <ID>_<slug>, and +<hash> for a rehearsal."""
        if self.kind == "experiment":
            return f"{self.id}_{self.slug}"
        return f"{self.id}_{self.slug}+{sha256_json(self.science_overrides)[:8]}"

    @property
    def label(self) -> str:
        """Heading of pages and tables."""
        return (
            self.title if self.kind == "experiment" else f"Rehearsal, not {self.id}: {self.title}"
        )

    def to_dict(self) -> dict[str, Any]:
        """Plain dicts and lists, as in the YAML file."""
        return self.model_dump(mode="json")

    def _repr_html_(self) -> str:
        """The resolved experiment as a table, overridden keys marked."""
        rows = []
        for key, value in [
            ("title", self.label),
            ("question", self.question),
            *flatten(self).items(),
        ]:
            if key in self.overrides:
                value = f"{value} (overridden)"
            rows.append(f"<tr><td>{html.escape(key)}</td><td>{html.escape(str(value))}</td></tr>")
        head = f"<tr><th>{html.escape(self.id)}</th><th>{html.escape(self.kind)}</th></tr>"
        return (
            f"<table class='oelm-table'><thead>{head}</thead><tbody>{''.join(rows)}</tbody></table>"
        )


def flatten(experiment: Experiment) -> dict[str, Any]:
    """Dotted key -> plain value of the sections model, data, optim, train, machine."""
    plain = experiment.to_dict()
    return {f"{name}.{key}": value for name in SECTIONS for key, value in plain[name].items()}


def diff_configs(first: Experiment, second: Experiment) -> dict[str, tuple[Any, Any]]:
    """Dotted key -> (first value, second value) of every science key that differs."""
    return diff_science(first.science, second.science)


def diff_science(first: dict[str, Any], second: dict[str, Any]) -> dict[str, tuple[Any, Any]]:
    """diff_configs of two `science`, the first of which may be an older record that lacks keys."""
    return {
        key: (first.get(key), value) for key, value in second.items() if first.get(key) != value
    }


def experiment_ids() -> list[str]:
    """Ids of all experiment files, sorted; those that `oelm sweep` made in params/study/ are not among them."""
    return sorted(path.stem for path in PARAMS.glob("*.yaml"))


def experiment_path(exp: str) -> Path:
    """File of an experiment: params/<exp>.yaml, or params/study/<exp>.yaml for STUDY-0001 and so on."""
    return PARAMS / ("study" if exp.startswith("STUDY-") else "") / f"{exp}.yaml"


def load_config(exp: str, overrides: dict[str, Any] | str | None = None) -> Experiment:
    """Load the file of an experiment and apply overrides.

    Args:
        exp: Experiment id, e.g. "GPT-02".
        overrides: Dotted keys, as a dict or as "train.max_steps=50 optim.learning_rate=1e-3".

    Raises:
        UserError: Unknown experiment or key, wrong type, value out of range.
    """
    if not isinstance(exp, str):
        raise UserError(
            f"exp = {exp!r} is not an experiment id such as GPT-02; allowed: {', '.join(experiment_ids())}"
        )
    path = experiment_path(exp)
    if not re.fullmatch(ID_PATTERN, exp) or not path.is_file():
        raise UserError(
            f"no experiment {exp!r}{_nearest(exp, experiment_ids())}; allowed: {', '.join(experiment_ids())};"
            " add one as params/<ID>.yaml"
        )
    plain = read_yaml(path)
    where = _shown(path)
    if plain.get("id") != exp:
        raise UserError(f"{where}: id is {plain.get('id')!r}; write {exp}, the name of the file")
    experiment = parse_experiment(plain, where)
    changed = parse_overrides(overrides)
    known = flatten(experiment)
    for key, value in changed.items():
        if key not in known:
            raise UserError(
                f"overrides: unknown key {key}{_nearest(key, known)}; allowed: {', '.join(known)}"
            )
        section, _, name = key.partition(".")
        plain.setdefault(section, {})[name] = value
    if not changed:
        return experiment
    made = parse_experiment(plain, f"overrides of {exp}")
    resolved = flatten(made)
    made._overrides = {key: resolved[key] for key in changed if resolved[key] != known[key]}
    return made


def parse_experiment(
    plain: dict[str, Any], where: str, overrides: dict[str, Any] | None = None
) -> Experiment:
    """Validate a mapping that `overrides` have changed; `where` names its source in errors. Raises UserError."""
    experiment = validated(Experiment, plain, where)
    experiment._overrides = overrides or {}
    return experiment


def validated(kind: type[Section], plain: dict[str, Any], where: str) -> Any:
    """A mapping as a section of that kind. Raises UserError with every mistake on one line."""
    try:
        return kind.model_validate(plain)
    except ValidationError as error:
        raise UserError(f"{where}: " + "; ".join(reword(item) for item in error.errors())) from None


def read_yaml(path: Path) -> dict[str, Any]:
    """Read a YAML mapping. Raises UserError with the place of a mistake."""
    try:
        plain = yaml.safe_load(path.read_text(encoding="utf-8"))
    except (yaml.YAMLError, ValueError, RecursionError) as error:
        raise UserError(f"{_shown(path)}: not valid YAML: {error}; mend the file") from None
    except OSError as error:
        raise UserError(
            f"{_shown(path)}: cannot be read: {error.strerror}; check the name and its rights"
        ) from None
    if not isinstance(plain, dict):
        raise UserError(
            f"{_shown(path)}: holds {type(plain).__name__}, not a mapping of keys; see params/GPT-01.yaml"
        )
    return plain


def parse_overrides(overrides: dict[str, Any] | str | None) -> dict[str, Any]:
    """Dotted key -> YAML value; a dict passes through."""
    if overrides is None:
        return {}
    if isinstance(overrides, dict):
        return overrides
    if not isinstance(overrides, str):
        raise UserError(
            f'overrides = {overrides!r} is not text such as "train.max_steps=50"; quote it'
        )
    changed = {}
    for item in re.split(r"\s+(?=[\w.]+=)", overrides.strip()) if overrides.strip() else ():
        key, equals, text = item.partition("=")
        if not equals or not key:
            raise UserError(f"overrides: {item!r} is not key=value, e.g. train.max_steps=50")
        if key in changed:
            raise UserError(f"overrides: {key} is given twice; keep one")
        try:
            changed[key] = yaml.safe_load(text)
        except (
            yaml.YAMLError,
            ValueError,
            RecursionError,
        ):  # of dates and numbers that are none, PyYAML's own
            raise UserError(f"overrides: the value of {key} is not valid YAML: {text!r}") from None
    return changed


def as_text(overrides: dict[str, Any]) -> str:
    """Overrides as one line that parse_overrides reads back to the same values."""

    def plain(value: Any) -> str:
        return (
            yaml.safe_dump(value, default_flow_style=True, width=10**6)
            .removesuffix("\n...\n")
            .strip()
        )

    return " ".join(f"{key}={plain(value)}" for key, value in overrides.items())


def reword(item: dict[str, Any]) -> str:
    """One pydantic error as: key, what was found, what is allowed."""
    # A union's error location ends in the branch pydantic tried; the key is what the reader knows.
    key = ".".join(str(part) for part in item["loc"] if isinstance(part, int) or "[" not in part)
    message = item["msg"].removeprefix("Value error, ").replace("Input should", "should")
    if item["type"] == "extra_forbidden":
        return f"unknown key {key}{_nearest(key, _all_keys())}"
    if item["type"] == "missing":
        return f"{key} is missing; see params/GPT-01.yaml"
    if item["type"] == "value_error":
        return f"{key}: {message}" if key else message
    return f"{key} = {item['input']!r}: {message}"


def _all_keys() -> list[str]:
    keys = [name for name in Experiment.model_fields if name not in SECTIONS]
    for name in SECTIONS:
        keys += [f"{name}.{key}" for key in Experiment.model_fields[name].annotation.model_fields]
    return keys


def _nearest(word: str, words: Any) -> str:
    """ " (did you mean X?)" or "" for the known word nearest to `word`."""
    words = list(words)
    tails: dict[str, str] = {name.rpartition(".")[2]: name for name in words}
    close = difflib.get_close_matches(word, words, 1, 0.6)
    close = close or [
        tails[t] for t in difflib.get_close_matches(word.rpartition(".")[2], tails, 1, 0.6)
    ]
    aliases = {
        "lr": "learning_rate",
        "n_head": "num_heads",
        "n_layer": "num_layers",
        "n_embd": "d_model",
    }
    alias = aliases.get(word.rpartition(".")[2])
    if alias in tails:
        close = [tails[alias]]
    return f" (did you mean {close[0]}?)" if close else ""


def _shown(path: Path) -> str:
    """Path relative to the checkout where it lies in it."""
    return str(path.relative_to(ROOT)) if path.is_relative_to(ROOT) else str(path)
