from pathlib import Path

import pytest
import yaml

from oelm_lib import config

LISTED = yaml.safe_load((Path(__file__).parent / "mutants" / "equivalent.yaml").read_text())


@pytest.mark.parametrize("entry", LISTED, ids=lambda entry: entry["new"])
def test_a_change_that_no_test_can_notice_is_of_a_line_that_exists(entry):
    lines = (config.ROOT / entry["file"]).read_text().splitlines()
    assert entry["old"] in map(str.strip, lines)
    assert entry["old"] != entry["new"] and entry["why"]
