"""One run through `oelm run`: its lock, its exit code, its page."""

from click.testing import CliRunner

from oelm_lib.cli import main
from oelm_lib.errors import IN_USE
from oelm_lib.files import write_json
from oelm_lib.launch.jobs import make_jobs
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


def test_a_run_in_use_by_another_process_has_an_exit_code_of_its_own(tiny_env, tiny):
    (job,) = make_jobs(["DEMO-02"], [1], tiny())
    job.path.mkdir(parents=True)
    writer = Writer(job.path)
    try:
        assert writer("acquire") == "held"
        changes = [f"--set={key}={value}" for key, value in tiny().items()]
        done = CliRunner().invoke(main, ["run", "DEMO-02", "--seed", "1", *changes])
    finally:
        writer.die()
    assert done.exit_code == IN_USE
    assert done.output.startswith(f"oelm: {job.path}: in use by process {writer.process.pid}")
    assert done.output.count("\n") == 1
