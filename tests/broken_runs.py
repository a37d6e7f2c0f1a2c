"""Damaged run folders."""

import json
from pathlib import Path

import yaml

from tests.synthetic_run import write_json, write_yaml

BROKEN = (
    "empty",
    "half_written",
    "newer",
    "nan",
    "torn",
    "no_status",
    "no_config",
    "unreadable_summary",
)


def break_run(path: Path, how: str) -> Path:
    """Damage a run folder in one of the ways of BROKEN."""
    if how == "empty":
        for file in path.iterdir():
            file.unlink()
    elif how == "half_written":
        text = (path / "config.yaml").read_text()
        (path / "config.yaml").write_text(text[: len(text) // 2] + "\n  [")
        (path / "summary.json").unlink()
        (path / "timing_stats.json").write_text("")
    elif how == "newer":
        plain = yaml.safe_load((path / "config.yaml").read_text())
        write_yaml(path / "config.yaml", plain | {"format": 99})
    elif how == "nan":
        lines = (path / "metrics.jsonl").read_text().splitlines()
        rows = [
            json.loads(line) | {"loss": None, "perplexity": None}
            for line in lines[len(lines) // 2 :]
        ]
        (path / "metrics.jsonl").write_text(
            "\n".join(lines[: len(lines) // 2] + [json.dumps(r) for r in rows]) + "\n"
        )
        summary = json.loads((path / "summary.json").read_text())
        gone = dict.fromkeys(("final_val_loss", "final_val_perplexity", "final_bits_per_byte"))
        write_json(path / "summary.json", summary | gone)
    elif how == "torn":
        text = (path / "metrics.jsonl").read_text()
        (path / "metrics.jsonl").write_text(text[:-20])
    elif how == "no_status":
        (path / "status.json").unlink()
    elif how == "no_config":
        (path / "config.yaml").unlink()
    elif how == "unreadable_summary":
        (path / "summary.json").write_text('{"id": "DEMO-01", "final_val')
    else:
        raise AssertionError(f"unknown damage {how}")
    return path
