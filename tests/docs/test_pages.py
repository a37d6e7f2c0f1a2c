"""The pages of docs/, README and CONTRIBUTING: links, lengths, names of files, the interface."""

import importlib
import os
import re
import subprocess
import sys

import pytest

import oelm_lib
from oelm_lib.config import ROOT

DOCS = sorted((ROOT / "docs").glob("*.md"))
PAGES = [ROOT / "README.md", ROOT / "CONTRIBUTING.md", ROOT / "notebooks" / "README.md", *DOCS]
LONGEST_LINE = 125
LONGEST_README = 130
PACKAGES = (
    "config data model runs training compare stats view explore run_page study bench report launch "
    "workbench"
)
LINK = re.compile(r"\]\((?!https?:)([^)\s]*)\)")


def page_name(path):
    return str(path.relative_to(ROOT))


def prose(path):
    """The text of a page without its blocks of code."""
    return re.sub(r"^```.*?^```", "", path.read_text(), flags=re.MULTILINE | re.DOTALL)


def blocks(path, language):
    """The blocks of code of a page in a language."""
    pattern = rf"^```{language}\n(.*?)^```"
    return re.findall(pattern, path.read_text(), re.MULTILINE | re.DOTALL)


def anchors(path):
    """The anchors that GitHub gives to the headings of a page."""
    headings = re.findall(r"^#+ (.*)$", prose(path), re.MULTILINE)
    return {re.sub(r"[^\w\- ]", "", heading.lower()).replace(" ", "-") for heading in headings}


@pytest.mark.parametrize("path", PAGES, ids=page_name)
def test_links_lead_to_files_and_headings(path):
    for link in LINK.findall(prose(path)):
        file, _, anchor = link.partition("#")
        target = path.parent / file if file else path
        assert target.exists(), link
        assert not anchor or anchor in anchors(target), link


@pytest.mark.parametrize("path", DOCS, ids=page_name)
def test_every_page_is_linked_from_another(path):
    links = {
        (page.parent / link.partition("#")[0]).resolve()
        for page in PAGES
        if page != path
        for link in LINK.findall(prose(page))
    }
    assert path in links


@pytest.mark.parametrize("path", DOCS, ids=page_name)
def test_lines_are_short(path):
    long = [
        line
        for line in path.read_text().splitlines()
        if len(line) > LONGEST_LINE and not line.startswith("|")
    ]
    assert long == []


def test_readme_is_short():
    assert len((ROOT / "README.md").read_text().splitlines()) <= LONGEST_README


@pytest.mark.parametrize("path", PAGES, ids=page_name)
def test_files_of_the_project_that_a_page_names_exist(path):
    names = re.findall(r"`((?:oelm_lib|tests|params|notebooks|slurm)/[\w./-]+\.\w+)`", prose(path))
    invented = {"params/DEMO-05.yaml", "params/corpora/my-text.yaml", "params/studies/decay.yaml"}
    invented |= {"oelm_lib/model/additions/query_shift.py"}
    assert [name for name in names if name not in invented and not (ROOT / name).exists()] == []


@pytest.mark.parametrize("name", ["docs/architecture.md", "CONTRIBUTING.md"])
def test_files_of_the_library_that_a_page_names_exist(name):
    """Both pages name files of the library without `oelm_lib/`."""
    names = re.findall(r"`([\w/-]+\.(?:py|js|ipynb))`", prose(ROOT / name))
    assert len(names) > 5
    for file in names:
        assert (ROOT / "oelm_lib" / file).exists() or (ROOT / file).exists(), file


def test_the_layers_of_the_architecture_page_are_those_of_the_tests():
    from tests.test_layers import LAYERS

    rows = re.findall(r"^\| \d+ \| (.*?) \|", (ROOT / "docs" / "architecture.md").read_text(), re.M)
    documented = [set(re.findall(r"`(\w+)`", row)) for row in rows]
    assert documented == LAYERS


def test_the_page_of_studies_names_every_key_of_a_plan():
    from oelm_lib.study import schema
    from oelm_lib.study.plan import Plan

    code = " ".join(re.findall(r"`([^`\n]+)`", (ROOT / "docs" / "studies.md").read_text()))
    parts = (schema.Arm, schema.Tune, schema.Confirm, schema.ConfirmSeeds, schema.Claim)
    for part in (Plan, *parts, schema.Choice, schema.Ladder, schema.Size):
        names = {field.alias or name for name, field in part.model_fields.items()}
        assert names - set(re.findall(r"\w+", code)) == set(), part.__name__


def documented_names(package):
    """The names in the table of a package on docs/api.md."""
    text = (ROOT / "docs" / "api.md").read_text()
    section = text.split(f"\n## oelm_lib.{package}\n")[1].split("\n## ")[0]
    rows = re.findall(r"^\| (`.*?) \| .* \|$", section, re.MULTILINE)
    return [name for row in rows for name in re.findall(r"`(\w+)`", row)]


@pytest.mark.parametrize("package", PACKAGES.split())
def test_the_interface_page_lists_the_public_names(package):
    module = importlib.import_module(f"oelm_lib.{package}")
    assert sorted(documented_names(package)) == sorted(module.__all__)
    for name in module.__all__:
        public = getattr(module, name)
        assert not callable(public) or public.__doc__, name


def test_every_package_but_the_command_line_is_on_the_interface_page():
    folders = {path.parent.name for path in (ROOT / "oelm_lib").glob("*/__init__.py")}
    assert folders - {"cli"} == set(PACKAGES.split()) - {"stats"}
    assert oelm_lib.__all__ == ["load_config"]
    assert set(dir(oelm_lib)) == {*PACKAGES.split(), "load_config"}


def test_a_package_is_loaded_when_it_is_named():
    code = "import oelm_lib as oelm, sys; print('oelm_lib.view' in sys.modules, oelm.view.__name__)"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout == "False oelm_lib.view\n"


@pytest.mark.slow
def test_the_examples_of_the_interface_page_run(tmp_path):
    script = tmp_path / "examples.py"
    script.write_text("\n".join(blocks(ROOT / "docs" / "api.md", "python")))
    done = subprocess.run(
        [sys.executable, script],
        cwd=tmp_path,
        env=os.environ
        | {
            "OELM_OUTPUTS": str(tmp_path / "outputs"),
            "OELM_DATA": str(tmp_path / "data"),
            "PYTHONPATH": str(ROOT),
        },
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, done.stderr
