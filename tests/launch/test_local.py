import pytest

from oelm_lib import config
from oelm_lib.config import as_text
from oelm_lib.errors import UserError
from oelm_lib.launch.local import make_jobs


def test_jobs_are_every_experiment_and_seed_once():
    jobs = make_jobs(["DEMO-*", "DEMO-01"], [1, 2], {})
    assert [(job.exp, job.seed) for job in jobs] == [
        (f"DEMO-0{n}", seed) for seed in (1, 2) for n in (1, 2, 3, 4)
    ]
    assert jobs[0].path == config.outputs_dir() / "DEMO-01_baseline" / "seed1"


def test_a_glob_that_matches_nothing_and_a_wrong_override_are_refused():
    with pytest.raises(UserError, match=r"'NONE-\*' matches no experiment; allowed: CPU-01"):
        make_jobs(["NONE-*"], [1], {})
    with pytest.raises(UserError, match=r"unknown key train\.x"):
        make_jobs(["DEMO-01"], [1], {"train.x": 1})


def test_overrides_survive_the_way_through_text():
    overrides = {
        "train.max_steps": 5,
        "model.frozen_layers": [0, 1],
        "data.corpus": "stories",
        "optim.learning_rate": 1e-3,
    }
    text = as_text(overrides)
    assert "\n" not in text
    assert config.parse_overrides(text) == overrides
