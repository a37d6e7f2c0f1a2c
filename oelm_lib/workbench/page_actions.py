"""Actions of the buttons that make pages and files of runs: each starts an `oelm` command.

An action returns lines for the user and raises UserError, as in `actions`.
"""

from pathlib import Path

from oelm_lib.errors import UserError
from oelm_lib.runs.names import arm_id, command_line, run_name
from oelm_lib.workbench.actions import check_selected
from oelm_lib.workbench.launches import live_launches, one_starter, start_command
from oelm_lib.workbench.rows import Row


def make_page(target: str, outputs: Path, runs: str = "") -> str:
    """Start `oelm report TARGET`; `runs` names those of the explore page."""
    options = ["--runs", runs] if runs else []
    line = _start_once(["report", target, *options], outputs)
    return f"{line} A link to the page appears below when it is ready."


def compare_runs(rows: list[Row], outputs: Path) -> str:
    """Start `oelm report` for the arms of these rows, from the runs that are done.

    Raises:
        UserError: No run is done, or none but those of a baseline.
    """
    done, left_out = _done_rows(rows, "there is nothing to compare yet")
    if len({row["id"] for row in done}) == 1 and not done[0].get("compare_to"):
        why = " ".join(left_out) or "Select runs of another experiment, too."
        raise UserError(f"only the baseline {done[0]['id']} is done, so nothing is compared. {why}")
    names = {arm_id(row["run"].split("/")[0]) for row in done}
    return "\n".join([make_page(" ".join(sorted(names)), outputs), *left_out])


def explore_runs(rows: list[Row], outputs: Path) -> str:
    """Start the explore page of these rows: one done run of each arm, baselines first.

    Raises:
        UserError: No run is done.
    """
    done, left_out = _done_rows(rows, "there are no weights to look into")
    arms: dict[str, str] = {}
    for row in done:
        arms.setdefault(row["run"].split("/")[0], row["run"])
    return "\n".join([make_page("explore", outputs, " ".join(arms.values())), *left_out])


def run_page(paths: list[Path], outputs: Path) -> str:
    """Start `oelm report RUN` for one run."""
    check_selected(paths)
    if len(paths) > 1:
        raise UserError("a page can be made for one run at a time; select one")
    return make_page(str(paths[0]), outputs)


def export_runs(paths: list[Path], outputs: Path) -> str:
    """Start `oelm export --format csv` for the runs that have metrics.

    Raises:
        UserError: No run has any.
    """
    check_selected(paths)
    begun = [path for path in paths if (path / "metrics.jsonl").is_file()]
    if not begun:
        raise UserError("none of the selected runs has metrics yet; wait for its first steps")
    lines = [_start_once(["export", *map(str, begun), "--format", "csv"], outputs)]
    others = [run_name(path) for path in paths if path not in begun]
    lines += [f"Left out, without metrics yet: {', '.join(others)}."] if others else []
    return "\n".join(lines)


def _start_once(arguments: list[str], outputs: Path) -> str:
    """Start a command, unless the same one runs."""
    command = command_line(arguments)
    with one_starter(outputs):
        if any(launch.command == command for launch in live_launches(outputs)):
            raise UserError(
                f"{command}: runs already; a link to its result appears below when it is ready"
            )
        return f"Started: {start_command(arguments, outputs).command}."


def _done_rows(rows: list[Row], consequence: str) -> tuple[list[Row], list[str]]:
    """Return the rows of done runs, and a line that names the others if there are any.

    Raises:
        UserError: There is none, or none is done.
    """
    check_selected(rows)
    done = [row for row in rows if row["state"] == "done"]
    if not done:
        raise UserError(
            f"none of the selected runs is done, so {consequence}; wait for one, or select others"
        )
    others = [f"{row['run']} ({row['state']})" for row in rows if row["state"] != "done"]
    return done, [f"Left out, since not done: {', '.join(others)}."] if others else []
