"""The hub path with the real clients, against a loopback server."""

import json
import os
import socket
import subprocess
import sys

import pytest

from oelm_lib.data.hub import HUB_SECONDS

from .conftest import STORIES
from .hub import Hub, commit, running

pytestmark = pytest.mark.slow

CARD = """---
configs:
- config_name: wikitext-103-raw-v1
  data_files:
  - {split: test, path: wikitext-103-raw-v1/test-*}
  - {split: train, path: wikitext-103-raw-v1/train-*}
  - {split: validation, path: wikitext-103-raw-v1/validation-*}
- config_name: wikitext-2-v1
  data_files:
  - {split: train, path: wikitext-2-v1/train-*}
---
"""
PROGRAM = """
import json, sys
from oelm_lib.data import hub, prepare
from oelm_lib.errors import UserError
hub.HUB_SECONDS = float(sys.argv[3])
try:
    corpus = prepare(sys.argv[1], limit=int(sys.argv[2]) or None)
    print(json.dumps(corpus.manifest))
except UserError as error:
    print(json.dumps(str(error)))
"""
TRAIN = "data/train-00000-of-00001.parquet"


@pytest.fixture
def hub(source):
    """A hub with the three data sets as they are laid out there, with little in them."""
    rows = ["", " = Fox = \n", "", " Text . \n"] * 9
    folder = source(train=STORIES * 50, validation=STORIES, rows=rows)
    train, validation, articles = (
        (folder / f"{name}.parquet").read_bytes() for name in ("train", "validation", "rows")
    )
    wikitext = {
        f"wikitext-103-raw-v1/{split}-00000-of-00001.parquet": articles
        for split in ("train", "validation", "test")
    }
    with running(
        Hub(
            {
                "roneneldan/TinyStories": {
                    "main": {
                        "README.md": b"---\nlicense: cdla-sharing-1.0\n---\n",
                        "TinyStories-train.txt": b"not a split",
                        TRAIN: train,
                        "data/validation-00000-of-00001.parquet": validation,
                    }
                },
                "Salesforce/wikitext": {
                    "main": {
                        "README.md": CARD.encode(),
                        "wikitext-2-v1/train-00000-of-00001.parquet": b"",
                        **wikitext,
                    }
                },
                "Skylion007/openwebtext": {
                    "main": {"README.md": b"a script", "openwebtext.py": b"import datasets"},
                    "refs/convert/parquet": {
                        "plain_text/train/0000.parquet": train,
                        "plain_text/train/0001.parquet": train,
                    },
                },
            }
        )
    ) as hub:
        yield hub


@pytest.fixture
def prepared(tmp_path):
    """A function that prepares in a process of its own and returns the manifest or the message.

    The clients read HF_ENDPOINT when they are imported.
    """

    def run(name, endpoint, limit=0, seconds=HUB_SECONDS):
        environment = {
            name: value
            for name, value in os.environ.items()
            if not name.startswith("HF_") and not name.lower().endswith("_proxy")
        } | {"HF_ENDPOINT": endpoint, "HF_HOME": str(tmp_path / "hf")}
        command = [sys.executable, "-c", PROGRAM, name, str(limit), str(seconds)]
        done = subprocess.run(
            command, env=environment, capture_output=True, text=True, timeout=120, check=True
        )
        return json.loads(done.stdout.splitlines()[-1])  # after the lines of progress

    return run


def test_official_splits_and_revision_after_a_dropped_connection_is_resumed(hub, prepared):
    hub.faults[TRAIN] = "drop"
    manifest = prepared("tinystories-sample", hub.url)
    assert not hub.faults
    assert manifest["revision"] == commit("main")
    assert manifest["source"].items() >= {"kind": "hub", "id": "roneneldan/TinyStories"}.items()
    splits = manifest["splits"]
    assert splits["train"]["documents"] == 2000
    assert splits["val"]["documents"] + splits["test"]["documents"] == 40


def test_the_configuration_of_a_corpus_is_found(hub, prepared):
    manifest = prepared("wikitext103-sample", hub.url)
    assert {
        split: facts["documents"] for split, facts in manifest["splits"].items()
    } == dict.fromkeys(("train", "val", "test"), 9)


def test_a_data_set_that_is_a_script_is_read_from_its_parquet_copy_and_no_more_than_needed(
    hub, prepared
):
    manifest = prepared("openwebtext-phase3-sample", hub.url, limit=100)
    assert manifest["revision"] == commit("refs/convert/parquet")
    assert manifest["splits"]["train"]["documents"] + manifest["splits"]["val"]["documents"] in (
        100,
        101,
    )
    fetched = [
        line for line in hub.requests if line.startswith("GET") and line.endswith(".parquet")
    ]
    assert len(fetched) == 1 and fetched[0].endswith("plain_text/train/0000.parquet")


def test_a_part_on_the_hub_is_not_taken_for_the_corpus(hub, prepared):
    message = prepared("tinystories-phase3", hub.url)
    assert "the train split of the source has 2,000 rows, the complete corpus 2,119,719" in message


@pytest.mark.parametrize("fault", ["dead", "size"])
def test_a_file_that_cannot_be_downloaded(hub, prepared, data_folder, fault):
    hub.faults[TRAIN] = fault
    message = prepared("tinystories-sample", hub.url)
    assert message.startswith(f"roneneldan/TinyStories: {TRAIN} not downloaded (")
    assert message.endswith(
        "`oelm data prepare tinystories-sample --tokenizer gpt2 --source FOLDER`"
    )
    assert not list(data_folder.rglob("*.bin"))


def test_a_missing_data_set(hub, prepared):
    del hub.data_sets["roneneldan/TinyStories"]
    assert prepared("tinystories-sample", hub.url).startswith(
        "roneneldan/TinyStories: not read from the hub ("
    )


def test_a_hub_that_is_missing_or_silent_is_an_error(prepared):
    assert "not read from the hub" in prepared("tinystories", "http://127.0.0.1:9")
    with socket.create_server(("127.0.0.1", 0)) as silent:
        endpoint = f"http://127.0.0.1:{silent.getsockname()[1]}"
        assert "(no answer in 1 s)" in prepared("tinystories", endpoint, seconds=1.0)
