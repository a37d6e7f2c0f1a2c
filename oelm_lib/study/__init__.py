"""Studies: a question declared in one file, trained by an engine, answered on a page.

The names that a notebook or a script needs, each imported when first used; none needs torch.
"""

from oelm_lib.lazy import lazy_names

__getattr__, __dir__, __all__ = lazy_names(
    __name__,
    {
        "Plan": "plan",
        "Record": "records",
        "fit_rates": "tuning",
        "load_study": "study",
        "read_plan": "plan",
        "read_records": "records",
        "records_path": "records",
        "study_names": "plan",
    },
)
