"""Any content of a user's file: success, or a UserError of one line (OELM_FAULTS=long: 10,000)."""

import copy
import json
import os
import string

import pytest
import torch
import yaml
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from oelm_lib import config, runs
from oelm_lib.data import corpus
from oelm_lib.errors import UserError
from oelm_lib.runs.overview import overview, table
from oelm_lib.training import checkpoint

EXAMPLES = 1250 if os.environ.get("OELM_FAULTS") == "long" else 40
fuzzed = settings(
    max_examples=EXAMPLES,
    deadline=None,
    suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow],
)
SCALARS = (
    st.none()
    | st.booleans()
    | st.integers()
    | st.floats()
    | st.text(max_size=12)
    | st.sampled_from(["all", "gpt2", ""])
)
VALUES = st.recursive(
    SCALARS, lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=5), inner)
)
KEYS = list(config.flatten(config.load_config("GPT-02")))
GOOD = (config.PARAMS / "GPT-02.yaml").read_text()
PLAIN = yaml.safe_load(GOOD)


def refused_or(function, *arguments):
    """The value of the call, or None where it refuses in one line."""
    try:
        return function(*arguments)
    except UserError as error:
        assert "\n" not in str(error)
        assert len(str(error)) > 20
        return None


@st.composite
def damaged(draw, good):
    """Bytes near the good ones, or any bytes."""
    kind = draw(st.sampled_from(["cut", "flip", "insert", "any"]))
    place = draw(st.integers(0, len(good)))
    if kind == "cut":
        return good[:place]
    if kind == "flip":
        return good[:place] + bytes([draw(st.integers(0, 255))]) + good[place + 1 :]
    if kind == "insert":
        return good[:place] + draw(st.binary(max_size=20)) + good[place:]
    return draw(st.binary(max_size=200))


@fuzzed
@given(data=st.data())
def test_experiment_files(data, tmp_path):
    path = tmp_path / "GPT-02.yaml"
    plain = copy.deepcopy(PLAIN)
    for _ in range(data.draw(st.integers(0, 3))):
        section = data.draw(st.sampled_from(list(plain)))
        where = (
            plain[section]
            if isinstance(plain[section], dict) and data.draw(st.booleans())
            else plain
        )
        where[data.draw(st.sampled_from([*where, "unknown"]))] = data.draw(VALUES)
    text = yaml.safe_dump(plain, allow_unicode=True).encode() if data.draw(st.booleans()) else None
    path.write_bytes(text or data.draw(damaged(GOOD.encode())))
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(config.paths, "PARAMS", tmp_path)
        found = refused_or(config.load_config, "GPT-02")
    if found:
        assert config.parse_experiment(found.to_dict(), "again").to_dict() == found.to_dict()


@fuzzed
@given(exp=VALUES, overrides=VALUES)
def test_arguments(exp, overrides):
    refused_or(config.load_config, exp, overrides)


@fuzzed
@given(changed=st.dictionaries(st.sampled_from(KEYS) | st.text(max_size=12), VALUES, max_size=3))
def test_override_dicts(changed):
    refused_or(config.load_config, "GPT-02", changed)


@fuzzed
@given(
    text=st.lists(
        st.builds("{}={}".format, st.sampled_from(KEYS), st.text(string.printable, max_size=12))
        | st.text(max_size=20)
    ).map(" ".join)
)
def test_override_texts(text):
    refused_or(config.load_config, "GPT-02", text)


@fuzzed
@given(data=st.data())
def test_manifests(data, stories, tmp_path):
    good = (stories / "stories" / "bpe-300" / corpus.MANIFEST).read_bytes()
    plain = json.loads(good)
    plain[data.draw(st.sampled_from(list(plain)))] = data.draw(VALUES)
    content = data.draw(damaged(good) | st.just(json.dumps(plain).encode()))
    folder = tmp_path / "stories" / "bpe-300"
    folder.mkdir(parents=True, exist_ok=True)
    for split in ("train", "val"):
        (folder / f"{split}.bin").write_bytes(b"")
    (folder / corpus.MANIFEST).write_bytes(content)
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("OELM_DATA", str(tmp_path))
        refused_or(corpus.read_corpus, "stories", "bpe-300")


ROW = (
    b'{"event": "train", "step": 10, "tokens": 9, "loss": 1.5, "perplexity": 4.5, "seconds": 1.0}\n'
)


@fuzzed
@given(data=st.data())
def test_metrics_lines(data, tmp_path):
    lines = data.draw(
        st.lists(
            st.just(ROW)
            | damaged(ROW)
            | st.dictionaries(st.sampled_from(["event", "step", "tokens", "loss"]), VALUES).map(
                lambda row: json.dumps(row).encode() + b"\n"
            ),
            max_size=4,
        )
    )
    (tmp_path / "metrics.jsonl").write_bytes(b"".join(lines))
    rows = refused_or(runs.read_metrics, tmp_path)
    text = b"".join(lines)  # its last line may lack a newline, and \r ends a line, too
    assert rows is None or len(rows) <= len(text.splitlines())


@fuzzed
@given(data=st.data())
def test_the_json_and_yaml_files_of_a_run(data, tmp_path):
    readers = {
        "status.json": (runs.read_status, runs.state),
        "summary.json": (runs.read_summary,),
        "config.yaml": (runs.read_config,),
    }
    name = data.draw(st.sampled_from(list(readers)))
    good = json.dumps(
        {"format": 1, "state": "running", "pid": 1, "host": "a", "heartbeat": 1.0, "seed": 1}
    ).encode()
    value = data.draw(
        st.dictionaries(st.sampled_from(["format", "state", "pid", "host", "heartbeat"]), VALUES)
    )
    (tmp_path / name).write_bytes(data.draw(damaged(good) | st.just(json.dumps(value).encode())))
    for reader in readers[name]:
        refused_or(reader, tmp_path)
    (tmp_path / name).unlink()


STATUS = {
    "state": "running",
    "step": 10,
    "max_steps": 20,
    "heartbeat": 1.0,
    "train_loss": 2.5,
    "eta_seconds": [1.0, 2.0],
    "evals": [[5, 3.0], [10, None]],
    "best": {"step": 5, "loss": 3.0},
    "steps_per_s": 1.0,
    "device": "cpu",
}
SUMMARY = {"steps": 20, "best_val_loss": 1.0, "final_val_loss": None, "best_step": 5, "epochs": 1.0}


@fuzzed
@given(data=st.data())
def test_a_run_with_any_status_and_summary_is_a_row_of_the_overview(data, tmp_path):
    path = tmp_path / "DEMO-01_baseline" / "seed1"
    path.mkdir(parents=True, exist_ok=True)
    for name, good in (("status.json", STATUS), ("summary.json", SUMMARY)):
        changes = data.draw(st.dictionaries(st.sampled_from(list(good)), VALUES, max_size=3))
        if name == "status.json" or data.draw(st.booleans()):
            (path / name).write_text(json.dumps(good | changes))
    (row,) = overview(outputs=tmp_path)
    assert len(table([row]).splitlines()) >= 3
    json.dumps(row)
    assert runs.load_runs(outputs=tmp_path)["reason"][0]
    (path / "summary.json").unlink(missing_ok=True)


@fuzzed
@given(data=st.data())
def test_checkpoint_files(data, tmp_path):
    path, good = tmp_path / "latest.pt", tmp_path / "good.pt"
    if not good.is_file():
        checkpoint.save(good, {"step": 3, "model": {"w": torch.ones(3)}} | {"more": 1})
    content = data.draw(damaged(good.read_bytes()))
    path.write_bytes(content)
    if data.draw(st.booleans()) and len(content) > 2:  # sealed, as if it had been written so
        checkpoint._seal(path)
    try:
        state = refused_or(checkpoint.load, path)
    except checkpoint.DamagedError:
        return
    assert state is None or isinstance(state["step"], int)
