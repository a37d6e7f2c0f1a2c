"""What made a page: its command, times, code and versions."""

import os
import shlex
from datetime import UTC, datetime
from importlib import metadata
from pathlib import Path
from typing import Any

from oelm_lib.runs.provenance import code_version, cpu_name

PACKAGES = ("torch", "numpy", "pandas", "plotly", "papermill", "nbconvert")
KEY = "oelm"
"""Entry of a notebook's metadata that holds the command which executed it."""


def provenance(source: Path, notebook: Any) -> list[tuple[str, str]]:
    """Return name and text of each fact about an executed notebook and the page made of it."""
    rows = []
    if command := command_of(source, notebook):
        rows.append(("command", command))
    record = papermill_record(notebook)
    if start := str(record.get("start_time") or "")[:16].replace("T", " "):
        rows.append(("executed", f"{start} UTC, {float(record.get('duration') or 0):.0f} s"))
    code = code_version()
    changed = " with uncommitted changes" if code["dirty"] else ""
    made = datetime.now(UTC).strftime("%Y-%m-%d %H:%M")
    python = notebook.metadata.get("language_info", {}).get("version", "unknown")
    versions = [f"Python {python}", *(f"{name} {metadata.version(name)}" for name in PACKAGES)]
    return [
        *rows,
        ("code", f"{code['version']}, commit {code['commit']}{changed}"),
        ("versions", ", ".join(versions)),
        ("page made", f"{made} UTC on {cpu_name()}, {os.cpu_count()} threads"),
    ]


def command_of(source: Path, notebook: Any) -> str | None:
    """Return the command that executed a notebook; None where nothing recorded it."""
    own = notebook.metadata.get(KEY)
    if isinstance(own, dict) and own.get("command"):
        return str(own["command"])
    record = papermill_record(notebook)
    if not record:
        return None
    name = Path(record.get("input_path") or source).name
    parts = ["papermill", f"notebooks/{name}", source.name]
    for key, value in record.get("parameters", {}).items():
        parts += ["-p", str(key), str(value)]
    return shlex.join(parts)


def papermill_record(notebook: Any) -> dict[str, Any]:
    """Return what papermill recorded of an execution; {} where it did not execute the notebook."""
    record = notebook.metadata.get("papermill")
    return record if isinstance(record, dict) else {}
