"""The GPT, its attention, its cost: the names a script needs, each imported when first used.

GPT, generate and head_orthogonal need torch; the cost and the additions do not.
"""

from oelm_lib.lazy import lazy_names

__getattr__, __dir__, __all__ = lazy_names(
    __name__,
    {
        "ADDITIONS": "additions",
        "GPT": "gpt",
        "biases_scores": "additions",
        "cost_table": "cost",
        "generate": "generation",
        "head_orthogonal": "init",
        "parameter_counts": "cost",
        "qk_share": "cost",
        "step_bytes": "cost",
        "step_flops": "cost",
        "unfolded": "additions",
    },
)
