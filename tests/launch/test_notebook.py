"""The page of a run is made by the process that holds the run's lock."""

from oelm_lib.files import write_json
from oelm_lib.launch.notebook import _make_page
from tests.runs.test_lock import Writer


def test_no_page_is_made_while_another_process_writes_the_run(tiny_run, capsys):
    run = tiny_run()
    run.lock.release()
    (run.path / "train.ipynb").write_text("{}")
    timing = run.path / "timing_stats.json"
    write_json(timing, {"budget": {"step": 1.0}}, checksum=True)
    before = timing.read_bytes()
    writer = Writer(run.path)
    try:
        assert writer("acquire") == "held"
        _make_page(run)
    finally:
        writer.die()
    error = capsys.readouterr().err
    assert "no page of" in error and f"in use by process {writer.process.pid}" in error
    assert timing.read_bytes() == before
    assert not (run.path / "train.html").exists()
