"""Training: the loop, its state and checkpoints, and what is done with a trained model.

loop.py runs the training steps of a session. A session (session.py) holds the training state
(state.py: what a checkpoint stores) with status file, console, progress and checkpoint writer.
record.py logs, evaluates and saves; result.py ends the run.

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
