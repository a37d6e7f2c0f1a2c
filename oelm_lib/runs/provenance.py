"""Provenance of a run: the code, versions and machine of each of its sessions."""

import contextlib
import hashlib
import importlib.metadata
import platform
import subprocess
from pathlib import Path
from typing import Any

from oelm_lib import config
from oelm_lib.files import sha256_file
from oelm_lib.runs.process import now

PACKAGES = ("torch", "numpy", "datasets", "tiktoken", "tokenizers", "papermill", "plotly")


def session_record(step: int, resolved: dict[str, Any]) -> dict[str, Any]:
    """Return the record of a session: its start, code, versions and machine.

    Args:
        step: Steps done when the session began.
        resolved: Values of the machine keys: device, precision, threads, compile.
    """
    return {
        "started": now(),
        "step": step,
        "code": code_version(),
        "versions": {
            "python": platform.python_version(),
            **{name: importlib.metadata.version(name) for name in PACKAGES},
        },
        "resolved": resolved,
    }


def cpu_name() -> str:
    """Return the model name of this machine's CPU."""
    with contextlib.suppress(OSError):
        for line in Path("/proc/cpuinfo").read_text(encoding="utf-8").splitlines():
            if line.startswith("model name"):
                return line.partition(":")[2].strip()
    return platform.processor() or platform.machine()


def sessions(plain: dict[str, Any]) -> list[dict[str, Any]]:
    """Return the sessions of a config.yaml; a file of an older version has one."""
    first = {
        "started": plain.get("created"),
        "step": 0,
        "code": plain["code"],
        "versions": plain["versions"],
        "resolved": plain["resolved"],
    }
    return plain.get("sessions") or [first]


def describe_changes(before: dict[str, Any], after: dict[str, Any]) -> str:
    """Return what of code, versions and machine differs between two sessions, or ""."""
    changes = []
    if before["code"] != after["code"]:
        changes.append(f"code was {commit_name(before['code'])}, is {commit_name(after['code'])}")
    for group in ("versions", "resolved"):
        old, new = before[group], after[group]
        changes += [
            f"{key} was {old.get(key)}, is {new.get(key)}"
            for key in sorted(old.keys() | new.keys())
            if old.get(key) != new.get(key)
        ]
    return "; ".join(changes)


def commit_name(code: dict[str, Any]) -> str:
    """Return the commit of a `code` record as a person reads it."""
    if not code.get("commit"):
        return f"version {code.get('version')}, of no git checkout"
    return code["commit"][:10] + (" with uncommitted changes" if code.get("dirty") else "")


def code_version() -> dict[str, Any]:
    """Return the package's version, and commit, dirty flag and changes of the git checkout, if any.

    Changes below reports/ do not count: the study's own records grow there while it runs. Files
    that git does not track count below oelm_lib/, where they are code.
    """
    changed = git_output("diff", "HEAD", "--", ".", ":(exclude)reports")
    if changed is not None:
        changed += _untracked_code()
    return {
        "version": importlib.metadata.version("oelm-workbook"),
        "commit": git_output("rev-parse", "HEAD"),
        "dirty": None if changed is None else bool(changed),
        "diff_sha256": hashlib.sha256(changed.encode()).hexdigest() if changed else None,
    }


def _untracked_code() -> str:
    """Return name and SHA-256 of each file of oelm_lib/ that git neither tracks nor ignores."""
    names = git_output("ls-files", "--others", "--exclude-standard", "-z", "--", "oelm_lib") or ""
    files = [name for name in names.split("\0") if (config.ROOT / name).is_file()]
    return "".join(f"\n{name} {sha256_file(config.ROOT / name)}" for name in files)


def git_output(*arguments: str, folder: Path | None = None) -> str | None:
    """Return the output of a git command in a folder of a checkout, or None where it fails.

    Args:
        folder: None: the checkout of this package.
    """
    command = ["git", "-C", folder or config.ROOT, *arguments]
    try:
        done = subprocess.run(command, capture_output=True, timeout=30)
    except (OSError, subprocess.TimeoutExpired):
        return None
    return done.stdout.decode(errors="replace").strip() if done.returncode == 0 else None
