"""Fixtures that every part uses.

oelm_lib.model must be imported inside functions: jaxtyping's hook comes first.
"""

import fcntl
import os
import shutil
import signal
import sys

# Several test processes share the cores; tiny matrix products gain nothing from threads of their
# own.
os.environ.setdefault("OMP_NUM_THREADS", "1")

import pytest
from hypothesis import settings

# jsonschema's grammar of IRIs takes 1 s in each process; `oelm` leaves it out too.
sys.modules.setdefault("rfc3987_syntax", None)
# A shell starts its background jobs with SIGINT ignored, and their children inherit that.
signal.signal(signal.SIGINT, signal.default_int_handler)
signal.signal(signal.SIGHUP, signal.SIG_DFL)
# A busy machine fails no test, and only `make faults` draws new examples: elsewhere a test that
# fails says that the code has changed.
_is_long = os.environ.get("OELM_FAULTS") == "long"
settings.register_profile("here", deadline=None, derandomize=not _is_long, print_blob=_is_long)
settings.load_profile("here")

TINY_MODEL = {
    "vocab_size": 61,
    "d_model": 16,
    "num_layers": 2,
    "num_heads": 2,
    "d_ff": 32,
    "max_seq_len": 12,
    "dropout": 0.0,
    "qk_init": "normal",
    "qk_scale": 0.45254834,
    "freeze_q": False,
    "freeze_k": False,
}
FROZEN = {"freeze_q": True, "freeze_k": True}
ARMS = {
    "baseline": {},
    "oelm_freeze": FROZEN | {"qk_init": "orthogonal", "qk_scale": 1.0},
    "oelm_random": FROZEN,
    "frozen_gaussian": FROZEN | {"qk_scale": 1.0},
}


def pytest_collection_modifyitems(items):
    """Start the longest tests first: at the end, the other processes would wait for each."""
    items.sort(key=lambda item: item.get_closest_marker("long") is None)


@pytest.fixture
def model_config():
    """A function from changes to a tiny ModelConfig."""
    from oelm_lib.config import ModelConfig

    return lambda **changes: ModelConfig(**TINY_MODEL | changes)


@pytest.fixture(params=ARMS)
def arm_config(request, model_config):
    """Each arm as a tiny ModelConfig."""
    return model_config(**ARMS[request.param])


@pytest.fixture(scope="session")
def stories(tmp_path_factory):
    """Data folder with the embedded corpus in a small tokenizer.

    It is made once for all test processes; each gets a copy.
    """
    from oelm_lib.data import open_corpus

    shared = tmp_path_factory.getbasetemp()
    if "PYTEST_XDIST_WORKER" in os.environ:
        shared = shared.parent
    with open(shared / "stories.lock", "w") as lock, pytest.MonkeyPatch.context() as patch:
        fcntl.flock(lock, fcntl.LOCK_EX)
        patch.setenv("OELM_DATA", str(shared / "stories"))
        open_corpus("stories", "bpe-300")
    return shutil.copytree(shared / "stories", tmp_path_factory.mktemp("data") / "stories")


TINY_RUN = {
    "model.vocab_size": 300,
    "model.d_model": 16,
    "model.num_layers": 2,
    "model.num_heads": 2,
    "model.d_ff": 32,
    "model.max_seq_len": 16,
    "model.dropout": 0.1,
    "data.tokenizer": "bpe-300",
    "optim.warmup_steps": 4,
    "train.max_steps": 24,
    "train.batch_size": 4,
    "train.eval_interval": 6,
    "train.eval_tokens": 256,
    "train.save_interval": 5,
    "machine.threads": 1,
    "machine.device": "cpu",
}


@pytest.fixture
def tiny_config(stories, monkeypatch):
    """A function from an experiment id and changes to a config that trains in a second."""
    from oelm_lib import config

    monkeypatch.setenv("OELM_DATA", str(stories))
    return lambda exp="DEMO-02", **changes: config.load_config(
        exp, TINY_RUN | {key.replace("__", "."): value for key, value in changes.items()}
    )


@pytest.fixture
def tiny_run(tiny_config, tmp_path):
    """A function that opens a run of tiny_config in a folder of this test."""
    from oelm_lib import runs

    return lambda exp="DEMO-02", seed=1, folder="outputs", **changes: runs.open_run(
        tiny_config(exp, **changes), seed, tmp_path / folder
    )


@pytest.fixture
def demo(tmp_path):
    """An outputs folder with DEMO-01..04, three seeds each."""
    from tests import runs_factory

    runs_factory.make_demo(tmp_path)
    return tmp_path
