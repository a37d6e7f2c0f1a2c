"""Fixtures: an empty data folder, small sources, the samples of real text."""

import os
from pathlib import Path

import pytest

from oelm_lib.config import ROOT
from oelm_lib.data import prepare
from oelm_lib.data.corpus import MANIFEST

SAMPLES = Path(os.environ.get("OELM_SAMPLES") or ROOT.parent / "shared" / "data")
STORIES = [
    f"Once there was a fox, number {number}, who liked ducks.\n\nThe end." for number in range(40)
]


def nothing_left(folder: Path) -> bool:
    """Whether a data folder holds no corpus and no part of one."""
    parts = [path for path in folder.glob("*/*") if path.is_dir()]
    return not parts and not list(folder.rglob(MANIFEST))


@pytest.fixture(autouse=True)
def data_folder(tmp_path, monkeypatch):
    """An empty OELM_DATA."""
    monkeypatch.setenv("OELM_DATA", str(tmp_path / "data"))
    return tmp_path / "data"


@pytest.fixture(scope="session")
def stories(tmp_path_factory):
    """The embedded corpus in bpe-1024, made once."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("OELM_DATA", str(tmp_path_factory.mktemp("stories")))
        return prepare("stories", tokenizer="bpe-1024")


@pytest.fixture
def source(tmp_path):
    """A function from texts of each split to a folder of Parquet files."""
    import pyarrow
    import pyarrow.parquet

    def write(field: str = "text", **splits: list) -> Path:
        folder = tmp_path / "source"
        folder.mkdir(exist_ok=True)
        for split, texts in splits.items():
            table = pyarrow.table({field: pyarrow.array(texts, pyarrow.string())})
            pyarrow.parquet.write_table(table, folder / f"{split}.parquet")
        return folder

    return write


@pytest.fixture
def samples():
    """Folder of the real text samples."""
    if not SAMPLES.is_dir():
        pytest.skip(f"no real text samples at {SAMPLES}; OELM_SAMPLES names their folder")
    return SAMPLES
