"""Overview of the corpora: a table of all, and a description of one."""

from typing import TYPE_CHECKING

import numpy as np

from oelm_lib.config import data_dir
from oelm_lib.data.corpus import MANIFEST, Corpus, read_corpus
from oelm_lib.data.preparation import open_corpus
from oelm_lib.data.spec import corpus_names
from oelm_lib.data.tokenizer import load_tokenizer
from oelm_lib.errors import UserError

if TYPE_CHECKING:
    import pandas

EXCERPT_TOKENS = 500
"""Tokens shown of a corpus without end-of-text."""


def list_corpora() -> "pandas.DataFrame":
    """List the prepared corpora and the corpus files that are not prepared, a row each."""
    import pandas

    rows = [
        _describe(path.parts[-3], path.parts[-2])
        for path in sorted(data_dir().glob(f"*/[!.]*/{MANIFEST}"))  # `.` begins a half-made one
    ]
    absent = sorted(set(corpus_names()) - {row["corpus"] for row in rows})
    rows += [{"corpus": name, "state": "not prepared"} for name in absent]
    return pandas.DataFrame(rows).fillna("")


def _describe(name: str, tokenizer: str) -> dict[str, str]:
    """Return a prepared corpus' row of the table."""
    row = {"corpus": name, "tokenizer": tokenizer}
    try:
        manifest = read_corpus(name, tokenizer, hashed=False).manifest
        kinds = [kind for kind in ("sample", "synthetic") if manifest[kind]]
        sizes = {
            f"{split}_{key}": f"{facts[key]:,}"
            for split, facts in manifest["splits"].items()
            for key in ("documents", "tokens")
        }
    except UserError as error:
        return row | {"state": f"broken: {error}"}
    return row | {"state": ", ".join(["prepared", *kinds])} | sizes


def show_corpus(name: str, tokenizer: str = "gpt2", documents: int = 3) -> str:
    """Describe a prepared corpus: source, token statistics, the first validation documents.

    Args:
        name: Name of the corpus; it is prepared where it is not yet.
        tokenizer: The tokenizer it was prepared with.
        documents: How many documents to show.
    """
    corpus = open_corpus(name, tokenizer)
    source = (f"{key} {value}" for key, value in corpus.manifest["source"].items() if value)
    lines = [
        f"{name} ({tokenizer}, {corpus.vocab_size:,} tokens) in {corpus.path}",
        f"source: {', '.join(source)}",
    ]
    for split, facts in corpus.manifest["splits"].items():
        lines.append(
            f"{split}: {facts['documents']:,} documents, {facts['tokens']:,} tokens,"
            f" {facts['bytes']:,} bytes, {facts['bytes'] / facts['tokens']:.3f} bytes a token,"
            f" {facts['literal_eot']:,} literal end-of-text"
        )
    return "\n".join([*lines, *_excerpts(corpus, documents)])


def _excerpts(corpus: Corpus, documents: int) -> list[str]:
    """Return the first validation documents, each below a heading."""
    val, tokenizer = corpus.tokens("val"), load_tokenizer(corpus)
    if corpus.eot is None:
        ends = np.array([min(len(val), EXCERPT_TOKENS)])
    else:
        ends = np.flatnonzero(val == corpus.eot)
    lines = []
    for start, end in zip([0, *(ends + 1).tolist()], ends[:documents].tolist(), strict=False):
        heading = f"--- validation tokens {start:,} to {end:,}"
        lines += ["", heading, tokenizer.decode(val[start:end])]
    return lines
