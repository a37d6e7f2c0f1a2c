"""Corpora and batches: the names a script needs, each imported when first used.

Only Batches and EvalWindows need torch.
"""

import importlib
from typing import Any

_FILE_OF = {
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
}
__all__ = sorted(_FILE_OF)


def __getattr__(name: str) -> Any:
    if name not in _FILE_OF:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(importlib.import_module(f"{__name__}.{_FILE_OF[name]}"), name)


def __dir__() -> list[str]:
    return __all__
