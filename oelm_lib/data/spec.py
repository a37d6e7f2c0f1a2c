"""What params/corpora/<name>.yaml says: where a corpus comes from, what a document is, how it is split."""

import re
from typing import Annotated, Any, Literal

from pydantic import BeforeValidator, Field, model_validator

from oelm_lib.config import PARAMS, TOKENIZER_PATTERN, Count, Real, Section, read_yaml, validated
from oelm_lib.errors import UserError

SAMPLE = "-sample"
Words = Annotated[tuple[str, ...], BeforeValidator(str.split)]


class Sentences(Section):
    count: tuple[int, int]
    """Fewest and most of them in a story."""
    sentences: tuple[str, ...]
    """Templates; `{job}` is the story's job, `{a_job}` has its article, `{food2}` is a second food."""


class Generator(Section):
    stories: dict[Literal["train", "validation", "test"], Count]
    """Stories in each split."""
    words: dict[str, Words]
    """Slot of the templates -> words it may take."""
    openings: tuple[str, ...]
    """First sentences; each names all five facts."""
    callbacks: Sentences
    """Sentences that repeat facts of the opening."""
    fillers: Sentences
    """Sentences without facts."""


class Recall(Section):
    examples: dict[Literal["train", "validation", "test"], Count]
    """Examples in each split."""
    length: Count
    """T, tokens of an example; the model's max_seq_len."""
    pairs: Count
    """Keys with their values, each asked for once."""
    power: Annotated[Real, Field(gt=0)]
    """a of the power law a x^(a-1) of the queries' places."""

    @model_validator(mode="after")
    def _fits(self):
        if self.length % 2 or 4 * self.pairs > self.length:
            raise ValueError(
                f"length = {self.length} should be even and at least 4 x pairs = {4 * self.pairs}"
            )
        return self


class CorpusSpec(Section):
    name: str
    """The file's name, or the name it was asked for with -sample."""
    title: str
    """Heading for people."""
    about: str
    """What the reader of a table should know."""
    hub: str | None = None
    """Data set on the hub; null: local files only."""
    hub_config: str | None = None
    """Configuration of the data set; also the sub-folder looked into in a local copy."""
    revision: str = "main"
    """Revision on the hub."""
    text_field: str = "text"
    """Column, or key of a JSON line, that holds the text."""
    document: Literal["row", "article", "split"]
    """A row, the rows from one WikiText title to the next, or the whole split."""
    text_separator: str | None = None
    """What parts documents in plain-text files; null: a file is one document."""
    end_of_text: bool = True
    """Whether the end-of-text token follows each document."""
    rows: dict[Literal["train", "validation", "test"], Count] = Field(default={})
    """Rows that the source's splits have when complete; a sample need not."""
    limit: Count | None = None
    """Documents read from each split of the source."""
    token_limit: Count | None = None
    """Reading stops after the document that reaches this many tokens."""
    validation: Literal["source", "permutation", "tail"] = "source"
    """The source's own split; that of `datasets`' train_test_split; or the last tokens of train."""
    validation_fraction: Annotated[Real, Field(gt=0, lt=1)] | None = None
    """Share of train that becomes validation."""
    validation_seed: int | None = None
    """Seed of the permutation."""
    test: Literal["source", "halves", "none"] = "source"
    """The source's own split; the validation documents whose text has an odd SHA-256; or no test split."""
    generator: Generator | None = None
    """Grammar of a generated corpus."""
    recall: Recall | None = None
    """Sizes of a corpus of multi-query associative recall."""

    @property
    def sample(self) -> bool:
        """Whether this can never pass for the complete corpus."""
        return self.name.endswith(SAMPLE)

    @property
    def source_splits(self) -> tuple[str, ...]:
        """Splits read from the source."""
        if self.validation != "source":
            return ("train",)
        return ("train", "validation", "test") if self.test == "source" else ("train", "validation")

    @property
    def split_rules(self) -> dict[str, Any]:
        """What the manifest keeps of this: every rule, no words."""
        return self.model_dump(
            mode="json", exclude={"name", "title", "about", "generator", "hub", "revision"}
        )


def corpus_names() -> list[str]:
    """Names of all corpus files, sorted."""
    return sorted(path.stem for path in (PARAMS / "corpora").glob("*.yaml"))


def load_spec(name: str) -> CorpusSpec:
    """Load params/corpora/<name>.yaml; NAME-sample without a file has the rules of NAME but for its row counts.

    Raises:
        UserError: No such corpus, or a mistake in the file.
    """
    stems = [name, name.removesuffix(SAMPLE)] if isinstance(name, str) else []
    stem = next((stem for stem in stems if stem in corpus_names()), None)
    if stem is None:
        raise UserError(
            f"no corpus {name!r}; allowed: {', '.join(corpus_names())} (each also as NAME{SAMPLE});"
            " add one as params/corpora/<name>.yaml"
        )
    path = PARAMS / "corpora" / f"{stem}.yaml"
    spec = validated(CorpusSpec, read_yaml(path) | {"name": name}, f"params/corpora/{stem}.yaml")
    return spec.model_copy(update={"rows": {}}) if spec.sample else spec


def bpe_size(tokenizer: str) -> int | None:
    """N of `bpe-<N>` or `ids-<N>`, None for `gpt2`. Raises UserError for anything else."""
    if not isinstance(tokenizer, str) or not re.fullmatch(TOKENIZER_PATTERN, tokenizer):
        raise UserError(f"tokenizer = {tokenizer!r} is unknown; use gpt2 or bpe-<N>, e.g. bpe-1024")
    if tokenizer == "gpt2":
        return None
    size = int(tokenizer[4:])
    if tokenizer.startswith("ids-"):
        if 8 <= size <= 65536:
            return size
        raise UserError(f"tokenizer = {tokenizer}: N must be 8 .. 65536")
    if not 257 <= size <= 65536:
        raise UserError(
            f"tokenizer = {tokenizer}: N must be 257 .. 65536 (256 bytes, end-of-text; uint16 ids)"
        )
    return size
