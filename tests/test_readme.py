"""What README says is what the files say."""

import math
import re
from html import unescape

import yaml

from oelm_lib import config
from oelm_lib.study import load_study
from oelm_lib.study.cell import BASE_SIZE, Cell
from oelm_lib.study.tables import markdown_table

README = (config.ROOT / "README.md").read_text()


def test_recorded_numbers_are_those_of_the_recorded_file():
    written = dict(re.findall(r"(GPT-0\d): ([^|]*) \|", README))
    recorded = yaml.safe_load((config.PARAMS / "recorded" / "phase3.yaml").read_text())[
        "experiments"
    ]
    assert set(written) == set(recorded)
    for exp, text in written.items():
        perplexity = recorded[exp]["best_val_perplexity"]
        base = config.load_config(exp).compare_to
        if base:
            gap = perplexity / recorded[base]["best_val_perplexity"] - 1
            assert text == f"{perplexity:.2f} ({100 * gap:+.2f} %)"
        else:
            assert text == f"{perplexity:.2f}"


def visible_text(page):
    """The text of a kept page, without tags and scripts."""
    text = re.sub(r"<(script|style)\b.*?</\1>", " ", page.read_text(), flags=re.DOTALL)
    return re.sub(r"\s+", " ", unescape(re.sub(r"<[^>]+>", " ", text)))


def test_every_number_of_the_answer_stands_on_the_kept_page():
    answer = re.search(r"<!-- answer -->(.*?)<!-- /answer -->", README, re.DOTALL).group(1)
    sentences = re.findall(r"^\d\. (.*?)(?=^\d\. |\Z)", answer, re.M | re.DOTALL)
    assert 1 <= len(sentences) <= 5
    shown = visible_text(config.ROOT / "reports" / "study_oelm.html")
    for sentence in sentences:
        numbers = re.findall(r"[\d.]+ %|\[[^]a-z]+\]", sentence.replace("\n   ", " "))
        assert any(number.startswith("[") for number in numbers), sentence
        assert [number for number in numbers if number not in shown] == []


def test_the_table_of_the_study_is_that_of_its_records():
    assert markdown_table(load_study("oelm")) in README


def test_the_perplexities_below_the_answer_are_those_of_the_records():
    """Of the seeds that both arms have, so that the gap is their ratio."""
    pattern = (
        r"frozen: ([\d.]+) and ([\d.]+); .*? ([\d.]+) and ([\d.]+); .*? ([\d.]+) and ([\d.]+)\. "
    )
    written = re.search(pattern, README.replace("\n", " ")).groups()
    grid = load_study("oelm").grid
    measured = []
    for change in ("", " + T5", " + T5, shifted heads"):
        cells = [
            Cell("tinystories-sample", BASE_SIZE, arm + change) for arm in ("trained", "frozen")
        ]
        trained, frozen = map(grid.confirmed_losses, cells)
        shared = sorted(trained.keys() & frozen.keys())
        for losses in (trained, frozen):
            mean = sum(losses[seed] for seed in shared) / len(shared)
            measured.append(f"{math.exp(mean):.1f}")
    assert written == tuple(measured)


def test_commands_and_links_exist():
    for name in re.findall(r"^make (\w+)", README, re.MULTILINE):
        assert re.search(rf"^{name}:", (config.ROOT / "Makefile").read_text(), re.MULTILINE)
    for link in re.findall(r"\]\((?!http)([^)#]+)\)", README):
        assert (config.ROOT / link).exists(), link


def test_the_three_lists_of_requirements_agree():
    import tomllib

    project = tomllib.loads((config.ROOT / "pyproject.toml").read_text())["project"]
    constraints = dict(
        line.split("==")
        for line in (config.ROOT / "constraints.txt").read_text().splitlines()
        if "==" in line
    )
    assert "torch==2.13.0" in project["dependencies"]
    assert constraints["torch"] == "2.13.0"
    extras = project["optional-dependencies"]
    from packaging.requirements import Requirement
    from packaging.utils import canonicalize_name

    pinned = {canonicalize_name(name): version for name, version in constraints.items()}
    for text in project["dependencies"] + extras["dev"] + extras["slurm"] + extras["bench"]:
        requirement = Requirement(text)
        assert requirement.specifier.contains(pinned[canonicalize_name(requirement.name)]), text
    environment = yaml.safe_load((config.ROOT / "environment.yml").read_text())
    assert environment["dependencies"][-1] == {"pip": ["-c constraints.txt", "-e .[dev,slurm]"]}
    python = next(item for item in environment["dependencies"] if str(item).startswith("python="))
    assert Requirement(f"python{project['requires-python']}").specifier.contains(
        python.removeprefix("python=")
    )
