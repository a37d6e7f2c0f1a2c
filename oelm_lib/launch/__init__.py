"""Many runs: queue, GPUs, Slurm, the engine of studies. The interface is the `oelm` command.

A script may call what `oelm run ID` and `oelm study NAME` call; each name is imported when it is
first used. Both return an exit code.
"""

from oelm_lib.lazy import lazy_names

__getattr__, __dir__, __all__ = lazy_names(
    __name__,
    {"run_experiment": "notebook", "run_study": "study_engine"},
)
