"""Pages and the experiment log.

`export` makes a page of an executed notebook, `report` makes the page of what a user names;
`keep.keep` publishes a page in reports/, `journal.journal` writes the experiment log.
"""

from oelm_lib.lazy import lazy_names

__getattr__, __dir__, __all__ = lazy_names(
    __name__,
    {"export": "page", "report": "make"},
)
