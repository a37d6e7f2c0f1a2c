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

    Args:
        files: Split -> its files; of a generated corpus, its documents.
        fetch: Where a file lies on this machine.
        facts: Where the text comes from, for the manifest.

    Attributes:
        rows: Rows read of each split.
        fraction: Share read of the split that `pieces` reads.
    """

    def __init__(
        self,
        spec: CorpusSpec,
        files: dict[str, list[str]],
        fetch: Callable[[str], Path] = Path,
        **facts: Any,
    ):
        self.spec, self.files, self.fetch, self.facts = spec, files, fetch, facts
        self.rows: Counter[str] = Counter()
        self.fraction = 0.0
        missing = [split for split in spec.source_splits if not files.get(split)]
        if missing:
            found = (
                ", ".join(sorted(Path(file).name for names in files.values() for file in names))
                or "none"
            )
            raise UserError(
                f"{facts.get('path') or facts.get('id')}: no {' and no '.join(missing)} file for {spec.name} (found:"
                f" {found}); name a folder with {', '.join(f'{split}.parquet' for split in spec.source_splits)}"
                f" (or {', '.join(KINDS[1:])}; also parts: train-00000-of-00002.parquet)"
            )

    def pieces(self, split: str) -> Iterator[Piece]:
        """Yield the documents of a split, in order, long ones in pieces."""
        self.rows[split] = documents = 0
        rows, strip = (
            self._rows(split),
            bool(self.spec.text_separator) and is_text(self.files[split][0]),
        )
        if self.spec.document != "row":
            rows = join_rows(rows, articles=self.spec.document == "article")
        for text, ends in cut_documents(rows, strip):
            documents += ends
            if self.spec.document == "row":
                self.rows[split] = documents
            yield text, ends
            if documents == self.spec.limit:
                return

    def _rows(self, split: str) -> Iterator[Piece]:
        if self.facts["kind"] == "generated":
            yield from ((story, True) for story in self.files[split])
            return
        for number, file in enumerate(self.files[split]):
            for fraction, text, ends in read_rows(self.fetch(file), self.spec):
                self.fraction = (number + fraction) / len(self.files[split])
                self.rows[split] += ends
                yield text, ends


def open_source(spec: CorpusSpec, source: str | Path | None, echo: Callable[[str], None]) -> Source:
    """Find the files of every split. Raises UserError where they are not there."""
    if spec.generator or spec.recall:
        if source is not None:
            raise UserError(
                f"{spec.name}: is generated, not read from {source}; leave --source out"
            )
        files = (
            generate_stories(spec.generator)
            if spec.generator
            else {key: ["drawn"] for key in spec.source_splits}
        )
        return Source(spec, files, kind="generated")
    if source is None:
        return _open_hub(spec, echo)
    path = Path(source)
    if path.is_file() and path.name.endswith(KINDS):
        return Source(spec, {"train": [str(path)]}, kind="file", path=str(path))
    if not path.is_dir():
        state = "is not text that can be read" if path.exists() else "no such file or folder"
        raise UserError(
            f"{path}: {state}; name a folder, or a file that ends in {', '.join(KINDS)}"
        )
    folder = path / (spec.hub_config or "")
    found = sorted((folder if folder.is_dir() else path).rglob("*"))
    files = {
        split: [
            str(file)
            for file in found
            if file.name.endswith(KINDS) and file.is_file() and _holds(file, names)
        ]
        for split, names in _SPLITS.items()
    }
    return Source(spec, files, kind="folder", path=str(path))


def _holds(file: Path, names: str) -> bool:
    """Whether the file is called SPLIT.* or SPLIT-<number>*, or lies in a folder called SPLIT."""
    return bool(
        re.fullmatch(rf"({names})(-[0-9].*)?", file.name.partition(".")[0])
        or re.fullmatch(names, file.parent.name)
    )


def _open_hub(spec: CorpusSpec, echo: Callable[[str], None]) -> Source:
    """The data set on the hub; each file is downloaded when reading gets there. Raises HubError within a minute."""
    from huggingface_hub import constants, hf_hub_download

    answer: list[Any] = [f"no answer in {HUB_SECONDS:.0f} s"]

    def ask() -> None:
        try:
            answer.append(_list_hub(spec))
        except Exception as error:  # the clients' errors are of several families
            answer.append(error)

    def fetch(file: str) -> Path:
        echo(f"{spec.name}: fetching {file}")
        try:
            return Path(hf_hub_download(spec.hub, file, repo_type="dataset", revision=revision))
        except Exception as error:  # as above
            raise HubError(f"{spec.hub}: {file} not downloaded ({_first_line(error)})") from None

    if spec.hub is None or constants.HF_HUB_OFFLINE:
        answer.append(
            "HF_HUB_OFFLINE is set" if spec.hub else "its corpus file names no data set (hub: null)"
        )
    else:
        # The clients try again for minutes where packets are dropped, so they get a thread and a deadline.
        thread = threading.Thread(target=ask, daemon=True)
        thread.start()
        thread.join(HUB_SECONDS)
    if not isinstance(answer[-1], tuple):
        raise HubError(
            f"{spec.hub or spec.name}: not read from the hub ({_first_line(answer[-1])})"
        )
    files, revision = answer[-1]
    return Source(
        spec, files, fetch, kind="hub", id=spec.hub, config=spec.hub_config, revision=revision
    )


def _list_hub(spec: CorpusSpec) -> tuple[dict[str, list[str]], str]:
    """Split -> files of the data set, and the commit they belong to."""
    from datasets import load_dataset_builder
    from huggingface_hub import HfFileSystem, constants, get_session

    get_session().head(
        constants.ENDPOINT, timeout=HUB_SECONDS
    )  # the one call that is not tried again
    try:
        builder = load_dataset_builder(spec.hub, spec.hub_config, revision=spec.revision)
    except RuntimeError:  # a data set that is a script
        folder = spec.hub_config or "default"
        builder = load_dataset_builder(spec.hub, data_dir=folder, revision=PARQUET_REVISION)
    files = {
        str(split): [HfFileSystem().resolve_path(file) for file in names]
        for split, names in builder.config.data_files.items()
    }
    revision = next(iter(files.values()))[0].revision
    return {
        split: [file.path_in_repo for file in places] for split, places in files.items()
    }, revision


def _first_line(error: Any) -> str:
    return (str(error).strip() or type(error).__name__).splitlines()[0][:200]
