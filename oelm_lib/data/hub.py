"""Files of a data set on the Hugging Face hub; each is downloaded when reading reaches it."""

from collections.abc import Callable
from concurrent.futures import wait
from pathlib import Path

from oelm_lib.data.progress import in_background, print_line
from oelm_lib.data.spec import CorpusSpec
from oelm_lib.errors import UserError

HUB_SECONDS = 45.0
"""Longest wait for the hub's first answer."""
PARQUET_REVISION = "refs/convert/parquet"
"""The hub's own Parquet copy, for data sets that are a script."""

Files = dict[str, list[str]]
"""Split -> its files."""


class HubError(UserError):
    """The hub cannot be reached, or lacks the data set."""


def find_hub_files(spec: CorpusSpec) -> tuple[Files, Callable[[str], Path], str]:
    """List the files of a data set.

    Args:
        spec: Names the data set, its configuration and its revision.

    Returns:
        Split -> files; a function that downloads a file and returns its place; the commit.

    Raises:
        HubError: No answer within HUB_SECONDS, no such data set, HF_HUB_OFFLINE is set.
    """
    from huggingface_hub import constants, hf_hub_download

    if spec.hub is None:
        raise HubError(
            f"{spec.name}: not read from the hub (its corpus file names no data set: hub: null)"
        )
    if constants.HF_HUB_OFFLINE:
        raise HubError(f"{spec.hub}: not read from the hub (HF_HUB_OFFLINE is set)")
    files, revision = _ask_with_deadline(spec)

    def fetch(file: str) -> Path:
        print_line(f"{spec.name}: fetching {file}")
        try:
            return Path(hf_hub_download(spec.hub, file, repo_type="dataset", revision=revision))
        except Exception as error:  # the clients' errors are of several families
            raise HubError(f"{spec.hub}: {file} not downloaded ({_first_line(error)})") from None

    return files, fetch, revision


def _ask_with_deadline(spec: CorpusSpec) -> tuple[Files, str]:
    """List the files within HUB_SECONDS; where packets are lost the clients retry for minutes."""
    answer = in_background(lambda: _list_files(spec))
    if not wait([answer], HUB_SECONDS).done:
        raise HubError(f"{spec.hub}: not read from the hub (no answer in {HUB_SECONDS:.0f} s)")
    try:
        return answer.result()
    except Exception as error:  # the clients' errors are of several families
        raise HubError(f"{spec.hub}: not read from the hub ({_first_line(error)})") from None


def _list_files(spec: CorpusSpec) -> tuple[Files, str]:
    """Return split -> files of the data set, and the commit they belong to."""
    from datasets import load_dataset_builder
    from huggingface_hub import HfFileSystem, constants, get_session

    # The only call that the clients do not retry.
    get_session().head(constants.ENDPOINT, timeout=HUB_SECONDS)
    try:
        builder = load_dataset_builder(spec.hub, spec.hub_config, revision=spec.revision)
    except RuntimeError:  # a data set that is a script
        folder = spec.hub_config or "default"
        builder = load_dataset_builder(spec.hub, data_dir=folder, revision=PARQUET_REVISION)
    places = {
        str(split): [HfFileSystem().resolve_path(name) for name in names]
        for split, names in builder.config.data_files.items()
    }
    revision = next(iter(places.values()))[0].revision
    files = {split: [place.path_in_repo for place in found] for split, found in places.items()}
    return files, revision


def _first_line(error: Exception) -> str:
    """First line of an error's message, at most 200 characters."""
    return (str(error).strip() or type(error).__name__).splitlines()[0][:200]
