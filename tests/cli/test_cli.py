"""The command line: streams that are closed or go away, folders, lazy imports, help."""

import os
import shutil
import subprocess
import sys
import time

import click
import pytest
from click.testing import CliRunner

from oelm_lib import config
from oelm_lib.cli import COMMANDS, OelmGroup, main, pages
from oelm_lib.cli.options import sbatch_from
from oelm_lib.config import PARAMS, paths
from oelm_lib.errors import USER_ERROR, UserError
from oelm_lib.launch.doctor import check_declaration
from oelm_lib.report.make import STANDARD
from tests import runs_factory


def python(code, **options):
    return subprocess.run([sys.executable, "-c", code], text=True, timeout=60, **options)


def test_every_command_has_help_in_one_sentence():
    for command in COMMANDS:
        result = CliRunner().invoke(main, [command.name, "--help"])
        assert result.exit_code == 0, result.output
        assert len(command.get_short_help_str(300)) <= 66  # the list of commands cuts no line
        assert all(item.help for item in command.params if isinstance(item, click.Option))


def test_the_help_of_report_names_every_standard_page():
    assert all(f"`{name}`" in pages.report.help for name in STANDARD)


@pytest.mark.parametrize("command", ["rm", "replay"])
def test_the_help_of_a_command_on_one_run_says_when_an_id_names_it(command):
    text = " ".join(CliRunner().invoke(main, [command, "--help"]).output.split())
    assert "RUN is ID/seed<k>, a run folder, or an ID that has one run." in text


def help_text(*command):
    """The help of a command on one line."""
    return " ".join(CliRunner().invoke(main, [*command, "--help"]).output.split())


def test_the_help_of_set_says_what_overrides_do_in_each_command():
    for command in ("run", "submit", "new"):
        text = help_text(command)
        assert "Override keys" in text
        assert ("makes the run a rehearsal" in text) == (command != "new")


def test_the_help_of_data_show_says_that_it_may_prepare():
    assert "A corpus that is not prepared yet is prepared first" in help_text("data", "show")


def test_files_that_are_no_experiments_are_named_in_one_note(tmp_path, monkeypatch):
    (tmp_path / "DEMO-02-Copy1.yaml").write_text("")
    monkeypatch.setattr(paths, "PARAMS", tmp_path)
    monkeypatch.setenv("OELM_OUTPUTS", str(tmp_path / "outputs"))
    note = "note: params/ has files that are no experiments: DEMO-02-Copy1.yaml; rename one"
    for command in (["status"], ["run"]):
        assert CliRunner().invoke(main, command).stderr.count(note) == 1


def test_a_file_that_the_system_refuses_ends_a_command_as_other_mistakes_do(tmp_path):
    command = click.Command("write", callback=lambda: (tmp_path / "file").mkdir())
    (tmp_path / "file").touch()
    result = CliRunner().invoke(OelmGroup(commands=[command]), ["write"])
    assert result.exit_code == USER_ERROR
    assert result.stderr.startswith(f"oelm: {tmp_path}/file: File exists; a file or a dangling")


@pytest.mark.parametrize("closed", [(1,), (2,), (0, 1, 2)])
def test_closed_streams_are_opened_for_the_command_and_its_children(closed, tmp_path):
    code = (
        "import os, subprocess, sys\n"
        f"for number in {closed}: os.close(number)\n"
        f"if 1 in {closed}: sys.stdout = None\n"
        "from oelm_lib.cli.streams import open_closed_streams\n"
        "open_closed_streams()\n"
        "print('text')\n"
        "child = 'import os; [os.fstat(number) for number in range(3)]'\n"
        "done = subprocess.run([sys.executable, '-c', child])\n"
        f"open({str(tmp_path / 'code')!r}, 'w').write(str(done.returncode))\n"
    )
    assert python(code, capture_output=True).returncode == 0
    assert (tmp_path / "code").read_text() == "0"


@pytest.mark.parametrize("writer", ["print", "click.echo"])
def test_a_command_finishes_its_work_after_its_reader_has_gone(writer, tmp_path):
    code = (
        "import click\n"
        "from oelm_lib.cli.streams import outlives_its_reader\n"
        "@outlives_its_reader\n"
        "def work():\n"
        f"    for number in range(20000): {writer}('line')\n"
        f"    open({str(tmp_path / 'made')!r}, 'w').write('whole')\n"
        "work()\n"
    )
    reading, writing = os.pipe()
    process = subprocess.Popen([sys.executable, "-c", code], stdout=writing)
    os.close(writing)
    os.read(reading, 4)
    os.close(reading)
    assert process.wait(60) == 0
    assert (tmp_path / "made").read_text() == "whole"


@pytest.mark.parametrize(
    ("kind", "code", "made"), [("outlives_its_output", 75, True), ("outlives_its_reader", 1, False)]
)
def test_only_work_that_is_more_than_its_output_goes_on_while_the_disk_is_full(
    kind, code, made, tmp_path
):
    text = (
        "import os, resource, signal, sys\n"
        f"from oelm_lib.cli.streams import {kind} as outlives\n"
        "signal.signal(signal.SIGXFSZ, signal.SIG_IGN)\n"
        "@outlives\n"
        "def work():\n"
        "    print('before', flush=True)\n"
        "    resource.setrlimit(resource.RLIMIT_FSIZE, (7, resource.RLIM_INFINITY))\n"
        "    for number in range(20000): print('lost')\n"
        "    print('lost', flush=True)\n"
        "    resource.setrlimit(resource.RLIMIT_FSIZE, (resource.RLIM_INFINITY,) * 2)\n"
        "    print('after', flush=True)\n"
        "    sys.exit(75)\n"
        "work()\n"
    )
    with open(tmp_path / "log", "a") as log:
        done = subprocess.run([sys.executable, "-c", text], stdout=log, stderr=subprocess.PIPE)
    assert done.returncode == code, done.stderr
    assert (tmp_path / "log").read_text().startswith("before\n")
    assert (tmp_path / "log").read_text().endswith("after\n") is made


def test_stop_asks_every_seed_after_its_reader_has_gone(tmp_path):
    runs = [
        runs_factory.make_run(tmp_path, "DEMO-02", seed, state="running", done=0.5)
        for seed in (1, 2)
    ]
    reading, writing = os.pipe()
    os.close(reading)
    command = [sys.executable, "-m", "oelm_lib.cli", "stop", "DEMO-02"]
    environment = os.environ | {"OELM_OUTPUTS": str(tmp_path)}
    process = subprocess.Popen(command, stdout=writing, stderr=writing, env=environment)
    os.close(writing)
    asked = lambda: all((run / "STOP").exists() for run in runs)  # noqa: E731
    while process.poll() is None and not asked():
        time.sleep(0.05)
    process.kill()
    process.wait()
    assert asked()


def test_relative_folders_are_made_absolute_for_the_kernels(monkeypatch, tmp_path):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("OELM_OUTPUTS", "runs")
    monkeypatch.setenv("OELM_DATA", "~/corpora")
    monkeypatch.setenv("HOME", str(tmp_path / "home"))
    assert CliRunner().invoke(main, ["status"]).exit_code == 0
    assert os.environ["OELM_OUTPUTS"] == str(tmp_path / "runs")
    assert os.environ["OELM_DATA"] == str(tmp_path / "home" / "corpora")


def test_a_command_starts_without_the_heavy_packages():
    code = (
        "import sys\n"
        "from oelm_lib.cli import main\n"
        "main(['status', 'DEMO-01'], standalone_mode=False)\n"
        "import oelm_lib.launch.notebook, oelm_lib.launch.queue, papermill\n"
        "loaded = [name for name in ('torch', 'pandas', 'plotly', 'nbconvert', 'rfc3987_syntax')"
        " if sys.modules.get(name)]\n"
        "assert not loaded, loaded\n"
    )
    done = python(code, capture_output=True)
    assert done.returncode == 0, done.stderr


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["export", "DEMO-01", "DEMO-02", "--output", "x"], "--output is for one run"),
        (
            ["export", "DEMO-01", "--format", "csv", "--checkpoint", "best"],
            "leave out --checkpoint",
        ),
        (["status", "--json", "--watch"], "--json prints once; leave out --watch"),
        (["study", "oelm", "--table", "--dry-run"], "leave out --dry-run, --gpus and --slurm"),
        (["run", "DEMO-01", "--seeds", "1,²"], "--seeds '1,²' should be whole numbers"),
        (["run", "DEMO-01", "--seeds", "9" * 5000], "should be whole numbers of at most 18 digits"),
        (["rm", "DEMO-01"], "no run is called 'DEMO-01'"),
        (["report", "CPU-01 CPU-02"], "no finished run of CPU-01, CPU-02; train: oelm run CPU-01"),
        (["report", "compare"], "no finished run of DEMO-*; train: oelm run 'DEMO-*'"),
        (["report", "explore"], "no finished run of DEMO-*; train: oelm run 'DEMO-*'"),
        (["report", "bench"], "no result of `oelm bench` yet"),
        (["report", "explore", "--runs", "DEMO-9*"], "runs = 'DEMO-9*': no run has this name"),
        (["report", "explore", "--runs", "DEMO-01/seed42"], "no run is called 'DEMO-01/seed42'"),
        (["status", "NONE-77"], "no experiment and no run is called 'NONE-77'; `oelm run` lists"),
        (["status", "DEMO-1", "--json"], "is called 'DEMO-1' (did you mean DEMO-01, "),
        (["status", "--watch", "demo-9*"], "no experiment and no run is called 'demo-9*'"),
        (["logs", "DEMO-01"], "no run is called 'DEMO-01'"),
        (["run", "demo-99"], "no experiment 'demo-99'"),
        (["study", "oelm", "--gpus", "2", "--slurm", "account=lab"], "--gpus is for runs here"),
        (["run", "DEMO-01", "--set", "machine.threads=100000"], "machine.threads = 100000: should"),
        (["generate", "DEMO-01", "--prompt", "\udcff"], "the prompt is not UTF-8 text"),
    ],
)
def test_a_mistake_is_one_line(arguments, message, monkeypatch, tmp_path):
    monkeypatch.setenv("OELM_OUTPUTS", str(tmp_path))
    result = CliRunner().invoke(main, arguments)
    assert result.exit_code == 2
    (line,) = result.output.strip().splitlines()
    assert message in line


def test_options_of_sbatch_have_one_spelling_and_one_value():
    given = sbatch_from(("cpus-per-task=16", "--requeue", "comment=a=b"))
    assert given == {"cpus_per_task": "16", "requeue": True, "comment": "a=b"}
    with pytest.raises(UserError, match="sbatch option cpus-per-task: is given twice"):
        sbatch_from(("cpus-per-task=16", "cpus_per_task=8"))


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (["--wait-idle"], "--wait-idle is about GPUs; add --gpus auto or"),
        (["--fresh", "--gpus", "2"], "--fresh starts one run, without --gpus"),
        (["--fresh", "--wait-idle"], "without --gpus and --wait-idle; name one"),
    ],
)
def test_options_that_one_run_cannot_have_are_refused(options, message, monkeypatch, tmp_path):
    monkeypatch.setenv("OELM_OUTPUTS", str(tmp_path))
    result = CliRunner().invoke(main, ["run", "DEMO-01", *options])
    assert result.exit_code == 2
    assert message in result.output.splitlines()[-1]  # after notes on a user's files
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize(
    "arguments",
    [
        ["generate", "DEMO-01", "--temperature", "nan"],
        ["generate", "DEMO-01", "--temperature", "inf"],
        ["generate", "DEMO-01", "--top-p", "nan"],
        ["generate", "DEMO-01", "--samples", "100000000000"],
        ["flops", "DEMO-01", "--utilisation", "nan"],
        ["run", "DEMO-01", "--max-wait", "nan"],
        ["submit", "DEMO-01", "--cpus", "0"],
        ["bench", "--dropout", "nan"],
    ],
)
def test_numbers_out_of_range_are_refused_before_any_work(arguments):
    result = CliRunner().invoke(main, arguments)
    assert result.exit_code == 2
    assert f"Invalid value for '{arguments[-2]}'" in result.output


@pytest.mark.parametrize(
    "arguments",
    [
        ["export", "DEMO-01", "--output"],
        ["journal", "--output"],
        ["data", "prepare", "wikitext2", "--source"],
        ["data", "new", "mine", "--from"],
    ],
)
def test_an_empty_path_is_refused(arguments):
    """An empty path used to mean the working folder."""
    result = CliRunner().invoke(main, [*arguments, ""])
    assert result.exit_code == 2
    assert f"Invalid value for '{arguments[-1]}': the path is empty" in result.output


@pytest.fixture
def own_params(monkeypatch, tmp_path):
    """A params folder of this test with the experiments of the demo."""
    for path in PARAMS.glob("DEMO-0[1-4].yaml"):
        shutil.copy(path, tmp_path)
    monkeypatch.setattr(paths, "PARAMS", tmp_path)
    return tmp_path


def test_a_new_experiment_declares_its_changes_and_is_never_overwritten(own_params):
    command = ["new", "DEMO-05", "--from", "demo-02", "--set", "model.freeze_k=false"]
    shown = CliRunner().invoke(main, [*command, "--dry-run"])
    assert not (own_params / "DEMO-05.yaml").exists()
    result = CliRunner().invoke(main, command)
    assert result.exit_code == 0, result.output
    line = "params/DEMO-05.yaml: written; edit it, then: oelm run DEMO-05\n"
    assert result.output == line  # as docs/tutorial.md shows it
    assert (own_params / "DEMO-05.yaml").read_text() == shown.output
    experiment = config.load_config("DEMO-05")
    assert config.change_problems(experiment) == []
    assert (experiment.compare_to, experiment.model.freeze_k) == ("DEMO-01", False)
    again = CliRunner().invoke(main, command)
    assert (again.exit_code, "exists; choose another id" in again.output) == (2, True)


def test_a_new_experiment_can_be_a_baseline(own_params):
    command = ["new", "MINE-01", "--from", "DEMO-01", "--set", "train.max_steps=130"]
    result = CliRunner().invoke(main, [*command, "--compare-to", "none"])
    assert result.exit_code == 0, result.output
    experiment = config.load_config("MINE-01")
    assert (experiment.compare_to, experiment.changes) == (None, ())
    assert config.change_problems(experiment) == []


def test_a_mistake_in_the_baselines_file_is_a_warning_of_the_arm(own_params):
    (own_params / "DEMO-01.yaml").write_text("id: DEMO-01\n")
    (line,) = config.change_warnings("DEMO-02")
    assert "DEMO-01.yaml" in line


def test_undeclared_changes_and_confounds_are_reported_before_training(own_params):
    file = own_params / "DEMO-02.yaml"
    text = file.read_text()
    assert config.change_warnings("DEMO-01") == config.change_warnings("DEMO-02") == []
    file.write_text(text.replace("  freeze_q:", "  position: t5\n  freeze_q:"))
    undeclared, confounded = config.change_warnings("DEMO-02")
    assert "DEMO-02.yaml: changes is not what differs from DEMO-01; write `changes: [" in undeclared
    assert confounded.startswith("DEMO-02: model.position = t5 (baseline: learned): a gap to DEMO")
    result = CliRunner().invoke(main, ["run", "DEMO-02", "--seeds", "1,2", "--fresh"])
    assert result.exit_code == 2  # refused, after the warnings
    assert f"warning: {undeclared}\nwarning: {confounded}\n" in result.output
    with pytest.raises(UserError, match="write `changes: "):
        check_declaration("DEMO-02")
    assert check_declaration("DEMO-01") == "DEMO-01: a baseline"
    changes = undeclared.partition("`")[2].partition("`")[0]
    lines = file.read_text().splitlines()
    file.write_text("\n".join(changes if x.startswith("changes:") else x for x in lines))
    assert check_declaration("DEMO-02").endswith(f"of DEMO-01; warning: {confounded}")
