"""Training: the loop, its state and checkpoints, and what is done with a trained model.

The loop makes the steps of a session. A session is the state (model, optimizer and position: what a
checkpoint holds) and what surrounds it: status, console, progress, saver. Its log points,
evaluations and saves are in record, the end of a run in result.

Each name is imported when it is first used, so that importing the package stays light.
"""

from oelm_lib.lazy import lazy_names

__getattr__, __dir__, __all__ = lazy_names(
    __name__,
    {
        "Trained": "trained",
        "export_model": "export_weights",
        "open_trained": "trained",
        "replay_step": "replay",
        "run_trial": "time_trial",
        "score_test_split": "scoring",
        "train": "loop",
    },
)
