import pytest


@pytest.mark.slow
def test_a_run_costs_more_than_each_of_its_imports(tmp_path, monkeypatch):
    from tests.bench.around import IMPORTS, around_a_run

    monkeypatch.setenv("OELM_DATA", str(tmp_path / "data"))
    table = around_a_run().set_index("what")
    whole = table.loc["oelm run of one step", "cpu_seconds"]
    imports = table.loc[[f"import: {what}" for what in IMPORTS], "cpu_seconds"]
    assert 0 < imports.min() and imports.max() < whole
    assert table.loc["time budget: page", "wall_seconds"] > 0
