import json
import sys
from pathlib import Path

from papermill.parameterize import parameterize_path

from oelm_lib.report.kernel import literal_path, own_kernel_manager


def test_the_kernel_is_this_python_even_if_jupyter_finds_another(tmp_path, monkeypatch):
    folder = tmp_path / "kernels" / "python3"
    folder.mkdir(parents=True)
    foreign = {"argv": ["/foreign/python"], "display_name": "Python 3", "language": "python"}
    (folder / "kernel.json").write_text(json.dumps(foreign))
    monkeypatch.setenv("JUPYTER_PATH", str(tmp_path))
    manager = own_kernel_manager()(kernel_name="python3")
    assert manager.kernel_spec.argv[0] == sys.executable


def test_braces_of_a_path_survive_papermill():
    for text in ("o{1}", "o{x}/out.ipynb", "o {seed}", "{{a}}", "plain"):
        assert parameterize_path(literal_path(Path(text)), {"x": 1}) == text
