"""Runs of a few steps for the probes and figures."""

import pytest

from tests.conftest import TINY_RUN


def train_as_demo(folder, stories, exps, **changes):
    """Train each experiment with seed 42; the folders are named as the demo's runs."""
    from oelm_lib import config, runs, training

    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("OELM_DATA", str(stories))
        for exp in exps:
            run = runs.open_run(config.load_config(exp, TINY_RUN | changes), 42, folder)
            training.train(run)
            run.path.parent.rename(folder / f"{exp}_{run.config.slug}")
    return folder
