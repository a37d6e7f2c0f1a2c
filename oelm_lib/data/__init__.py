"""Corpora and batches: the names a script needs, each imported when first used.

Only Batches and EvalWindows need torch.
"""

from oelm_lib.lazy import lazy_names

__getattr__, __dir__, __all__ = lazy_names(
    __name__,
    {
        "Batches": "batches",
        "Corpus": "corpus",
        "CorpusSpec": "spec",
        "EvalWindows": "batches",
        "Tokenizer": "tokenizer",
        "check_has_test": "corpus",
        "corpus_names": "spec",
        "list_corpora": "catalog",
        "load_spec": "spec",
        "load_tokenizer": "tokenizer",
        "new_corpus": "new",
        "open_corpus": "preparation",
        "open_test": "corpus",
        "prepare": "preparation",
        "read_corpus": "corpus",
        "show_corpus": "catalog",
    },
)
