"""Where text comes from: a local folder or file, the hub, or the generator."""

import re
import threading
from collections import Counter
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

from oelm_lib.data.readers import KINDS, Piece, cut_documents, is_text, join_rows, read_rows
from oelm_lib.data.spec import CorpusSpec
from oelm_lib.data.stories import generate_stories
from oelm_lib.errors import UserError

HUB_SECONDS = 45.0
"""How long the hub may take to answer at all."""
PARQUET_REVISION = "refs/convert/parquet"
"""The hub's own Parquet copy, for data sets that are a script."""
_SPLITS = {"train": "train", "validation": "validation|valid|val", "test": "test"}


class HubError(UserError):
    """The hub cannot be reached, or has not what was asked for."""


class Source:
    """Files of each split and how to read them.

    Attributes:
        facts: Where the text came from, for the manifest.
        revision: The hub's commit.
        rows: Rows read of each split.
        fraction: Share read of the split that `pieces` reads.
    """

    def __init__(self, spec: CorpusSpec, files: dict[str, Any], facts: dict[str, Any], revision: str | None = None):
        self.spec, self.files, self.facts, self.revision = spec, files, facts, revision
        self.rows: Counter[str] = Counter()
        self.fraction = 0.0
        missing = [split for split in spec.source_splits if not files.get(split)]
        if missing:
            found = ", ".join(sorted(Path(file).name for names in files.values() for file in names)) or "none"
            raise UserError(
                f"{facts.get('path') or facts.get('id')}: no {' and no '.join(missing)} file for {spec.name} (found:"
                f" {found}); name a folder with {', '.join(f'{split}.parquet' for split in spec.source_splits)}"
                f" (or {', '.join(KINDS[1:])}; also parts: train-00000-of-00002.parquet)"
            )

    def pieces(self, split: str) -> Iterator[Piece]:
        """Yield the documents of a split, in order, long ones in pieces."""
        self.rows[split] = documents = 0
        rows = self.read(split)
        if self.spec.document != "row":
            rows = join_rows(rows, articles=self.spec.document == "article")
        for piece in cut_documents(rows, strip=bool(self.spec.text_separator) and is_text(self.files[split][0])):
            documents += piece[1]
            if self.spec.document == "row":
                self.rows[split] = documents
            yield piece
            if documents == self.spec.limit:
                return

    def read(self, split: str) -> Iterator[Piece]:
        """Yield the rows of a split."""
        for number, file in enumerate(self.files[split]):
            for fraction, text, ends in read_rows(self.fetch(file), self.spec):
                self.fraction = (number + fraction) / len(self.files[split])
                self.rows[split] += ends
                yield text, ends

    def fetch(self, file: str) -> Path:
        """Where the file lies on this machine."""
        return Path(file)


class Generated(Source):
    """The embedded corpus: its files are its stories."""

    def read(self, split: str) -> Iterator[Piece]:
        """Yield the stories of a split."""
        yield from ((story, True) for story in self.files[split])


class Hub(Source):
    """A data set of the hub; each file is downloaded when reading gets there."""

    def __init__(self, spec: CorpusSpec, echo: Callable[[str], None]):
        self.echo = echo
        files, revision = _hub_files(spec)
        super().__init__(spec, files, {"kind": "hub", "id": spec.hub, "config": spec.hub_config}, revision)

    def fetch(self, file: str) -> Path:
        """Download the file; one that is in the hub client's cache stays there."""
        from huggingface_hub import hf_hub_download

        self.echo(f"{self.spec.name}: fetching {file}")
        try:
            return Path(hf_hub_download(self.spec.hub, file, repo_type="dataset", revision=self.revision))
        except Exception as error:  # the client's errors are of several families
            raise HubError(f"{self.spec.hub}: {file} not downloaded ({_first_line(error)})") from None


def open_source(spec: CorpusSpec, source: str | Path | None, echo: Callable[[str], None]) -> Source:
    """Find the files of every split. Raises UserError where they are not there."""
    if source is None:
        return (
            Generated(spec, generate_stories(spec.generator), {"kind": "generated"})
            if spec.generator
            else Hub(spec, echo)
        )
    path = Path(source)
    if path.is_file() and path.name.endswith(KINDS):
        return Source(spec, {"train": [str(path)]}, {"kind": "file", "path": str(path)})
    if not path.is_dir():
        state = "is not text that can be read" if path.exists() else "no such file or folder"
        raise UserError(f"{path}: {state}; name a folder, or a file that ends in {', '.join(KINDS)}")
    folder = path / (spec.hub_config or "")
    found = sorted((folder if folder.is_dir() else path).rglob("*"))
    files = {
        split: [str(file) for file in found if file.name.endswith(KINDS) and file.is_file() and _holds(file, names)]
        for split, names in _SPLITS.items()
    }
    return Source(spec, files, {"kind": "folder", "path": str(path)})


def _holds(file: Path, names: str) -> bool:
    """Whether the file is called SPLIT.* or SPLIT-<number>*, or lies in a folder called SPLIT."""
    return bool(
        re.fullmatch(rf"({names})(-[0-9].*)?", file.name.partition(".")[0]) or re.fullmatch(names, file.parent.name)
    )


def _hub_files(spec: CorpusSpec) -> tuple[dict[str, list[str]], str]:
    """Split -> files of the data set, and the commit they belong to. Raises HubError within a minute."""
    from huggingface_hub import constants

    answer: list[Any] = [f"no answer in {HUB_SECONDS:.0f} s"]

    def ask() -> None:
        try:
            answer.append(_ask_hub(spec))
        except Exception as error:  # the clients' errors are of several families
            answer.append(error)

    if spec.hub is None or constants.HF_HUB_OFFLINE:
        answer.append("it has no data set there" if spec.hub is None else "HF_HUB_OFFLINE is set")
    else:
        # The clients retry for minutes where packets are dropped, so they get a thread and a deadline.
        thread = threading.Thread(target=ask, daemon=True)
        thread.start()
        thread.join(HUB_SECONDS)
    if not isinstance(answer[-1], tuple):
        raise HubError(f"{spec.hub or spec.name}: not read from the hub ({_first_line(answer[-1])})")
    return answer[-1]


def _ask_hub(spec: CorpusSpec) -> tuple[dict[str, list[str]], str]:
    from datasets import load_dataset_builder
    from huggingface_hub import HfFileSystem, constants, get_session

    get_session().head(constants.ENDPOINT, timeout=HUB_SECONDS)  # unlike the rest, not tried again
    try:
        builder = load_dataset_builder(spec.hub, spec.hub_config, revision=spec.revision)
    except RuntimeError:  # a data set that is a script
        folder = spec.hub_config or "default"
        builder = load_dataset_builder(spec.hub, data_dir=folder, revision=PARQUET_REVISION)
    files = builder.config.data_files
    found = {str(split): list(map(HfFileSystem().resolve_path, names)) for split, names in files.items()}
    revision = next(iter(found.values()))[0].revision
    return {split: [file.path_in_repo for file in places] for split, places in found.items()}, revision


def _first_line(error: Any) -> str:
    return (str(error).strip() or type(error).__name__).splitlines()[0][:200]
