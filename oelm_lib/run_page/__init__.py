"""One run: the parts of its page, and its curve while it trains; shown by train.ipynb."""

from oelm_lib.run_page.curve import LiveCurve
from oelm_lib.run_page.run import artefacts, corpus, freeze_proof, heading, result, settings

__all__ = ["LiveCurve", "artefacts", "corpus", "freeze_proof", "heading", "result", "settings"]
