"""An experiment: its sections, bounds, meanings."""

import re
from typing import Annotated, Any, Literal

from pydantic import BeforeValidator, Field, PrivateAttr, model_validator

from oelm_lib.config.fields import Count, Flag, Real, Section, Text, Whole, matches, on_or_off
from oelm_lib.config.model import ModelConfig
from oelm_lib.files import sha256_json
from oelm_lib.markup import html_table

ID_PATTERN = r"[A-Z]+-[0-9]{2,4}"
ID_WORDS = "capitals, a hyphen and 2 to 4 digits, such as DEMO-05"
TOKENIZER_PATTERN = r"gpt2|(bpe|ids)-[0-9]+"
CORPUS_PATTERN = r"[a-z0-9][a-z0-9-]*"
"""Names that a corpus may have; other files in params/corpora/ are ignored."""
CORPUS_WORDS = "small letters, digits and hyphens, such as wikitext103"
DEVICE_PATTERN = r"auto|cpu|cuda(:[0-9]+)?"
SECTIONS = ("model", "data", "optim", "train", "machine")


class DataConfig(Section):
    """Text and tokens."""

    corpus: Annotated[str, matches(CORPUS_PATTERN, CORPUS_WORDS)]
    """Name of a file in params/corpora/, or that name with -sample."""
    tokenizer: Annotated[str, matches(TOKENIZER_PATTERN, "gpt2, bpe-<N> or ids-<N>")]
    """`gpt2`; `bpe-<N>`: a byte-level BPE trained on the corpus' train split; `ids-<N>` (mqar)."""


class ParameterGroup(Section):
    """Parameters with a schedule of their own; its cosine ends with the common one."""

    match: re.Pattern[str]
    """Regular expression searched in parameter names, e.g. `delta|ln1`; the first match counts."""
    learning_rate: Annotated[Real, Field(gt=0)]
    """Their peak learning rate, at the end of their warm-up."""
    warmup_steps: Whole
    """Steps in which their learning rate rises linearly to its peak."""


class OptimConfig(Section):
    """AdamW and its schedule."""

    learning_rate: Annotated[Real, Field(gt=0)]
    """Peak learning rate, at the end of the warm-up."""
    min_learning_rate: Annotated[Real, Field(ge=0)]
    """Learning rate at which the cosine ends, after max_steps."""
    warmup_steps: Whole
    """Steps in which the learning rate rises linearly to its peak."""
    weight_decay: Annotated[Real, Field(ge=0)]
    """AdamW's decoupled weight decay, on every trainable tensor."""
    betas: tuple[Annotated[Real, Field(ge=0, lt=1)], Annotated[Real, Field(ge=0, lt=1)]]
    """AdamW's decay rates of the first and the second moment."""
    grad_clip: Annotated[Real, Field(gt=0)]
    """Largest norm of all gradients together; a larger one is scaled down to it."""
    groups: tuple[ParameterGroup, ...] = ()
    """Parameters with a learning rate and warm-up of their own."""

    @model_validator(mode="after")
    def _check_rates(self):
        for rate in (self.learning_rate, *(group.learning_rate for group in self.groups)):
            if self.min_learning_rate > rate:
                raise ValueError(
                    f"min_learning_rate = {self.min_learning_rate} is above"
                    f" learning_rate = {rate}; lower it"
                )
        return self


class TrainConfig(Section):
    """Length of a run, its batches and evaluations."""

    max_steps: Count
    """Length of the run, in optimizer updates (steps)."""
    batch_size: Count
    """B, windows in a step; a step reads B x T tokens."""
    precision: Literal["fp32", "bf16", "fp16", "auto"]
    """Autocast type of training (evaluation is fp32); auto: bf16 on a GPU that has it, or fp32."""
    eval_interval: Count
    """Steps between evaluations; the last step is followed by one, too."""
    eval_tokens: Count
    """Validation tokens that each evaluation scores; always the same ones."""
    save_interval: Count
    """Steps between saves of latest.pt."""


class MachineConfig(Section):
    """Where and how a run is computed; never part of what it asks."""

    device: Annotated[str, matches(DEVICE_PATTERN, "auto, cpu, cuda or cuda:<N>")] = "auto"
    """Device of torch; auto: a GPU if torch can use one, or the CPU."""
    compile: Annotated[Literal["auto", "off", "on"], BeforeValidator(on_or_off)] = "auto"
    """Whether the training step goes through torch.compile; auto: on a GPU."""
    deterministic: Flag = False
    """Whether torch takes only algorithms that give the same bits each time; slower on a GPU."""
    log_interval: Count = 10
    """Steps between train rows of metrics.jsonl."""
    threads: Annotated[int, Field(strict=True, ge=0, le=1024)] = 0
    """CPU threads of torch; 0 keeps torch's choice."""
    devices: Count = 1
    """GPUs (processes on a CPU) that share each batch; more than one needs `oelm run`."""


class Experiment(Section):
    """One experiment file."""

    id: Annotated[str, matches(ID_PATTERN, ID_WORDS)]
    """File name without .yaml."""
    slug: Annotated[str, matches(r"[a-z0-9_]+", "small letters, digits and underscores")]
    """Short name used in the run folder."""
    title: Text
    """Corpus and arm, for headings."""
    question: Text
    """What the run answers, in a sentence."""
    compare_to: Annotated[str, matches(ID_PATTERN, ID_WORDS)] | None
    """The experiment it is judged against; null for a baseline."""
    changes: tuple[str, ...]
    """Exactly the dotted keys that differ from compare_to."""
    model: ModelConfig
    data: DataConfig
    optim: OptimConfig
    train: TrainConfig
    machine: MachineConfig = MachineConfig()
    _overrides: dict[str, Any] = PrivateAttr(default_factory=dict)

    @property
    def overrides(self) -> dict[str, Any]:
        """The caller's changes by dotted key; not a key of the file."""
        return self._overrides

    @property
    def science(self) -> dict[str, Any]:
        """Dotted key -> value of everything that decides the result (no machine keys, no text)."""
        return _without_machine(flatten(self))

    @property
    def science_overrides(self) -> dict[str, Any]:
        """The overrides that make this a rehearsal."""
        return _without_machine(self.overrides)

    @property
    def step_tokens(self) -> int:
        """Tokens of a training step, B * T."""
        return self.train.batch_size * self.model.max_seq_len

    @property
    def freezes(self) -> bool:
        """Whether W_q or W_k is frozen in some layer, at least for some steps of the run."""
        return self.model.is_frozen and self.model.freeze_from < self.train.max_steps

    @property
    def freeze_problem(self) -> str:
        """Why a run with freeze_q or freeze_k never freezes; "" where it does, or has neither."""
        if self.freezes or not self.model.is_frozen:
            return ""
        return (
            f"model.freeze_from = {self.model.freeze_from:,} is not before train.max_steps ="
            f" {self.train.max_steps:,}, so W_q and W_k are never frozen"
        )

    @property
    def kind(self) -> str:
        """`experiment`, or `rehearsal` if overrides changed its science."""
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
        if self.kind == "experiment":
            return self.title
        return f"Rehearsal, not {self.id}: {self.title}"

    def to_dict(self) -> dict[str, Any]:
        """Plain dicts and lists, as in the YAML file."""
        return self.model_dump(mode="json")

    def _repr_html_(self) -> str:
        """The resolved experiment as a table, overridden keys marked."""
        keys = {"title": self.label, "question": self.question, **flatten(self)}
        rows = [
            (key, f"{value} (overridden)" if key in self.overrides else value)
            for key, value in keys.items()
        ]
        return html_table((self.id, self.kind), rows)


def flatten(experiment: Experiment) -> dict[str, Any]:
    """Return dotted key -> plain value of the sections model, data, optim, train, machine."""
    plain = experiment.to_dict()
    return {f"{name}.{key}": value for name in SECTIONS for key, value in plain[name].items()}


def _without_machine(values: dict[str, Any]) -> dict[str, Any]:
    return {key: value for key, value in values.items() if not key.startswith("machine.")}
