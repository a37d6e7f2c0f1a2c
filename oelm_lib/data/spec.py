"""Schema of a corpus file, params/corpora/<name>.yaml: source, documents, split rules."""

import re
from collections.abc import Iterator
from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import Field, model_validator

from oelm_lib.config import (
    CORPUS_PATTERN,
    CORPUS_WORDS,
    PARAMS,
    TOKENIZER_PATTERN,
    Count,
    Flag,
    Real,
    Section,
    matches,
    read_yaml,
    validated,
)
from oelm_lib.data.mqar import Recall
from oelm_lib.data.stories import StoryGrammar
from oelm_lib.errors import UserError

SAMPLE = "-sample"
HUB_WORDS = "a name on the hub, such as Salesforce/wikitext"
HUB_CONFIG_WORDS = "letters, digits, hyphens, dots and underscores"
GUIDE = "docs/own-corpus.md"


class CorpusSpec(Section):
    """A file of params/corpora/: where a text comes from, its documents, its split rules."""

    name: Annotated[str, matches(CORPUS_PATTERN, CORPUS_WORDS)]
    """Name of the file, or the requested name with -sample; not a key of the file."""
    title: str
    """Heading of pages and tables."""
    about: str
    """Note under tables: where the text comes from and how it is split."""
    hub: Annotated[str, matches(r"[\w.-]+(/[\w.-]+)?", HUB_WORDS)] | None = None
    """Data set on the Hugging Face hub; null: local files only."""
    hub_config: Annotated[str, matches(r"[\w-][\w.-]*", HUB_CONFIG_WORDS)] | None = None
    """Configuration of the data set; a local copy may hold it in a folder of this name."""
    revision: str = "main"
    """Revision (branch, tag or commit) on the hub."""
    text_field: Annotated[str, Field(min_length=1)] = "text"
    """Column of a Parquet file, or key of a JSON line, that holds the text."""
    document: Literal["row", "article", "split"]
    """A row, the rows from one WikiText title to the next, or the whole split."""
    text_separator: Annotated[str, Field(min_length=1)] | None = None
    """Text between the documents of a plain-text file; null: a file is one document."""
    end_of_text: Flag = True
    """Whether the end-of-text token follows each document."""
    rows: dict[Literal["train", "validation", "test"], Count] = Field(default={})
    """Number of rows in each split of the complete source; a sample need not have them."""
    limit: Count | None = None
    """Number of documents read from each split of the source (samples only)."""
    token_limit: Count | None = None
    """Reading stops after the document that reaches this number of tokens."""
    validation: Literal["source", "permutation", "tail"] = "source"
    """Validation split: the source's, a random share of train, or the last tokens of train."""
    validation_fraction: Annotated[Real, Field(gt=0, lt=1)] | None = None
    """Share of train that becomes validation, for permutation and tail."""
    validation_seed: Annotated[int, Field(strict=True, ge=0)] | None = None
    """Seed of the permutation, that of `datasets.Dataset.train_test_split`."""
    test: Literal["source", "halves", "none"] = "source"
    """Test split: the source's, validation documents whose text has an odd SHA-256, or none."""
    generator: StoryGrammar | None = None
    """Grammar of a generated corpus."""
    recall: Recall | None = None
    """Sizes of a corpus of multi-query associative recall."""

    @property
    def sample(self) -> bool:
        """Whether this can never pass for the complete corpus."""
        return self.name.endswith(SAMPLE)

    @property
    def source_splits(self) -> tuple[str, ...]:
        """Splits that are read from the source."""
        rules = {"train": "source", "validation": self.validation, "test": self.test}
        return tuple(split for split, rule in rules.items() if rule == "source")

    @property
    def split_rules(self) -> dict[str, Any]:
        """The part of the file that decides the content of the splits, for the manifest."""
        return self.model_dump(
            mode="json", exclude={"name", "title", "about", "generator", "hub", "revision"}
        )

    @model_validator(mode="after")
    def _check(self):
        if conflicts := [*self._split_conflicts(), *self._source_conflicts()]:
            raise ValueError("; ".join(conflicts))
        return self

    def _split_conflicts(self) -> Iterator[str]:
        """Yield each contradiction between the keys that make validation and test."""
        if self.validation != "source" and self.validation_fraction is None:
            yield f"validation: {self.validation} needs validation_fraction, e.g. 0.01"
        if self.validation == "source" and self.validation_fraction is not None:
            yield "validation_fraction needs validation: permutation or tail"
        if self.validation == "permutation" and self.validation_seed is None:
            yield "validation: permutation needs validation_seed, e.g. 42"
        if self.validation != "permutation" and self.validation_seed is not None:
            yield "validation_seed needs validation: permutation"
        if self.validation == "tail" and self.test == "halves":
            yield "validation: tail cuts a document in two, test: halves needs whole ones; use none"
        if self.document == "split" and self.validation == "permutation":
            yield "validation: permutation needs more than one document; use document: row"
        if self.document == "split" and self.test == "halves":
            yield "test: halves needs more than one document; use document: row"
        if self.document == "split" and self.token_limit:
            yield "token_limit keeps whole documents; use document: row, or remove it"

    def _source_conflicts(self) -> Iterator[str]:
        """Yield each contradiction between the keys that describe the source."""
        if self.text_separator and self.document != "row":
            yield f"text_separator divides rows, but document is {self.document}; remove one"
        if unread := set(self.rows) - set(self.source_splits):
            yield f"rows.{min(unread)}: that split is not read under these rules; remove it"
        if self.rows and self.token_limit:
            yield "rows counts a source read to its end, token_limit stops before; remove one"
        if self.limit and not self.sample:
            yield f"limit makes a sample; name the file {self.name}{SAMPLE}.yaml"
        if not (self.generator or self.recall):
            return
        if self.generator and self.recall:
            yield "generator and recall are both given; keep one"
        allowed = {"name", "title", "about", "document", "end_of_text", "generator", "recall"}
        for key in sorted(self.model_fields_set - allowed):
            if getattr(self, key) != type(self).model_fields[key].default:
                yield f"{key}: has no effect on a generated corpus; remove it"


def corpus_names() -> list[str]:
    """Return the names of all corpus files, sorted."""
    stems = (path.stem for path in (PARAMS / "corpora").glob("*.yaml"))
    return sorted(stem for stem in stems if re.fullmatch(CORPUS_PATTERN, stem))


def corpus_path(name: str) -> Path:
    """Return the path of a corpus file, params/corpora/<name>.yaml."""
    return PARAMS / "corpora" / f"{name}.yaml"


def load_spec(name: str) -> CorpusSpec:
    """Load params/corpora/<name>.yaml.

    A name NAME-sample without a file of its own has the rules of NAME, without its row counts.

    Raises:
        UserError: No such corpus, or a mistake in the file.
    """
    known, stem = corpus_names(), name
    if stem not in known and isinstance(name, str):
        stem = name.removesuffix(SAMPLE)
    if stem not in known:
        raise UserError(
            f"no corpus {str(name)[:80]!r}; allowed: {', '.join(known)} (each also as"
            f" NAME{SAMPLE}); add one as params/corpora/<name>.yaml ({GUIDE})"
        )
    shown = f"params/corpora/{stem}.yaml"
    plain = read_yaml(corpus_path(stem), guide=GUIDE)
    if "name" in plain:
        raise UserError(f"{shown}: name is the file's name; remove the key")
    spec = validated(CorpusSpec, plain | {"name": name}, shown, guide=GUIDE)
    return spec.model_copy(update={"rows": {}}) if spec.sample else spec


def tokenizer_size(tokenizer: str) -> int | None:
    """Return N of `bpe-<N>` or `ids-<N>`, None for `gpt2`. Raises UserError for anything else."""
    if not isinstance(tokenizer, str) or not re.fullmatch(TOKENIZER_PATTERN, tokenizer):
        raise UserError(
            f"tokenizer = {str(tokenizer)[:80]!r} is unknown; use gpt2 or bpe-<N>, e.g. bpe-1024"
        )
    if tokenizer == "gpt2":
        return None
    kind, _, digits = tokenizer.partition("-")
    fewest, note = (8, "") if kind == "ids" else (257, " (256 bytes, end-of-text; uint16 ids)")
    size = int(digits[:6])  # Python refuses to read thousands of digits
    # A number of another spelling (bpe-0512) would be a second folder of the same corpus.
    if str(size) != digits or not fewest <= size <= 65536:
        raise UserError(f"tokenizer = {tokenizer[:80]}: N must be {fewest} .. 65536{note}")
    return size
