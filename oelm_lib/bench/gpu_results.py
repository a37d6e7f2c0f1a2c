"""Tables of what `make gpu` measured, one result per card."""

from pathlib import Path
from typing import Any

import pandas as pd

from oelm_lib.bench import cpu_results
from oelm_lib.config import ROOT

STAGES = ("tests", "bench", "run")


def load_results(folder: Path | str = "") -> list[dict[str, Any]]:
    """Read the results in a folder, by card; default: reports/gpu of the checkout."""
    return cpu_results.load_results(folder or ROOT / "reports" / "gpu", "*.json")


def checks(results: list[dict[str, Any]]) -> pd.DataFrame:
    """Tabulate what passed: one row per card and stage."""
    rows = [
        {
            "card": result["card"],
            "stage": name,
            "result": result[name]["summary"],
            "passed": {True: "yes", False: "no", None: "–"}[result[name].get("passed")],
            "time": round(result[name]["seconds"]),
            "torch": result["versions"]["torch"],
        }
        for result in results
        for name in STAGES
        if name in result
    ]
    return pd.DataFrame(rows or [{"card": "none yet", "result": "not measured: make gpu"}])


def cases(results: list[dict[str, Any]]) -> pd.DataFrame:
    """Tabulate the measured cases, the fastest first within a card."""
    rows = [
        {
            "card": result["card"],
            "code": row["code"],
            "mode": row["mode"],
            "precision": row["precision"],
            "position": row["position"],
            "arm": row["arm"],
            "thousand_tokens_per_s": f"{row['tokens_per_s'] / 1e3:,.0f}",
            "milliseconds": f"{1e3 * row['seconds']:.1f}",
            "floor_milliseconds": f"{1e3 * row['floor_seconds']:.1f}",
            "share_of_peak": f"{row['share_of_peak']:.0%}",
            "memory_MiB": "–"
            if row["memory_bytes"] is None
            else f"{row['memory_bytes'] / cpu_results.MIB:,.0f}",
            "setup_seconds": f"{row['setup_seconds']:.0f}",
        }
        for result in results
        for row in sorted(_bench(result)["rows"], key=lambda row: row["seconds"])
    ]
    return pd.DataFrame(rows or [{"card": "none yet"}])


def left_out(results: list[dict[str, Any]]) -> pd.DataFrame:
    """Tabulate the cases that were not measured, with the reason."""
    rows = [
        {"card": result["card"], **case}
        for result in results
        for case in _bench(result)["left_out"]
    ]
    return pd.DataFrame(rows or [{"card": "–", "reason": "no case was left out"}])


def _bench(result: dict[str, Any]) -> dict[str, Any]:
    return result.get("bench") or {"rows": [], "left_out": []}
