"""Watch runs: the table of all runs, their curves and time, and everything on one run.

The parts are plain: `table` turns rows into HTML, `run` shows one run, `curve` draws while it
trains, and `live` puts them into a widget that follows the run folders.
"""

from oelm_lib.monitor.curve import LiveCurve
from oelm_lib.monitor.live import Monitor
from oelm_lib.monitor.run import artefacts, freeze_proof, heading, result, settings
from oelm_lib.monitor.table import run_table, select_rows

__all__ = [
    "LiveCurve",
    "Monitor",
    "artefacts",
    "freeze_proof",
    "heading",
    "result",
    "run_table",
    "select_rows",
    "settings",
]
