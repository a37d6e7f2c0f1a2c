import itertools
import json
import math
import re

import numpy as np
import pytest
import yaml

from oelm_lib import stats
from oelm_lib.compare.verdict import CONFOUNDED
from oelm_lib.config import PARAMS, experiment_ids, paths
from oelm_lib.errors import UserError
from oelm_lib.report.journal import LANGUAGES, escape, journal
from oelm_lib.report.journal_facts import gather
from oelm_lib.report.render import TEMPLATES
from oelm_lib.runs.frames import log_results
from tests.broken_runs import break_run
from tests.project_params import copy_params
from tests.runs_factory import make_run

NUMBER = re.compile(r"(?<![\w.])\d[\d,]*(?:\.\d+)?(?:e-\d+)?")


def fill(folder):
    """Two arms of two seeds, a rehearsal, an unfinished and a broken run."""
    for exp in ("DEMO-01", "DEMO-02"):
        for seed in (42, 43):
            make_run(folder, exp, seed)
    make_run(folder, "DEMO-02", 44, overrides="train.max_steps=130")
    make_run(folder, "DEMO-03", 44, state="failed", done=0.5)
    break_run(make_run(folder, "DEMO-04"), "half_written")
    return folder


@pytest.fixture(scope="module")
def recorded(tmp_path_factory):
    """The journal without any run, by language."""
    return {language: journal(tmp_path_factory.mktemp("empty"), language) for language in LANGUAGES}


@pytest.fixture(scope="module")
def measured(tmp_path_factory):
    """The English journal of `fill`, with its rehearsal."""
    return journal(fill(tmp_path_factory.mktemp("filled")), rehearsals=True)


def printed(number):
    """Value of a printed number and half a unit of its last digit."""
    digits, _, exponent = number.replace(",", "").partition("e")
    scale = 10 ** int(exponent or 0)
    return float(digits) * scale, 0.5 * 10 ** -len(digits.partition(".")[2]) * scale


def scalars(value):
    """Every number in a parsed file, those inside its texts included."""
    if isinstance(value, dict):
        return [number for item in [*value, *value.values()] for number in scalars(item)]
    if isinstance(value, list):
        return [number for item in value for number in scalars(item)]
    if isinstance(value, str):
        return [printed(number)[0] for number in re.findall(r"\d[\d,]*(?:\.\d+)?(?:e-\d+)?", value)]
    return [float(value)] if isinstance(value, int | float) else []


def derived(groups):
    """Losses, perplexities, gaps both ways, nats and step-time ratios within each corpus."""
    numbers = []
    for losses, times in groups:
        numbers += [*losses, *(math.exp(loss) for loss in losses)]
        for first, second in itertools.permutations(losses, 2):
            numbers += [abs(first - second), 100 * abs(math.exp(first - second) - 1)]
        numbers += [
            100 * abs(first / second - 1) for first, second in itertools.permutations(times, 2)
        ]
    return numbers


@pytest.mark.parametrize("language", LANGUAGES)
def test_recorded_journal_gives_the_logs_figures_recomputed(recorded, language):
    text = recorded[language]
    plain = text.replace(" %", "%")
    for figure in (
        "+9.75%",
        "+16.45%",
        "**5.75%**",
        "6.10%",
        "+14.92%",
        "+15.52%",
        "4h 31m 27s",
        "12,494",
        "0.0837s",
    ):
        assert figure in plain
    one_seed = {"en": "One seed has no interval", "zh": "只有一个种子，没有置信区间"}
    assert text.count(one_seed[language]) == 4
    assert "_html" not in text and "{" not in text


def test_both_languages_have_one_structure(tmp_path, measured):
    english, chinese = measured, journal(fill(tmp_path), "zh", rehearsals=True)
    shape = [
        [re.match(r"#+|\||- |> |```|<!--|", line).group() for line in text.splitlines()]
        for text in (english, chinese)
    ]
    assert shape[0] == shape[1]
    assert len(re.findall("[一-鿿]", chinese)) > 1000
    assert not re.search("[一-鿿]", english)


@pytest.mark.parametrize("language", LANGUAGES)
def test_every_number_comes_from_a_file(recorded, language):
    log = log_results()
    groups = []
    for members in (("GPT-01", "GPT-02", "GPT-03"), ("GPT-04", "GPT-05"), ("GPT-06", "GPT-07")):
        entries = [log["experiments"][exp] for exp in members]
        losses = [math.log(entry["best_val_perplexity"]) for entry in entries]
        groups.append((losses, [entry["mean_step_seconds"] for entry in entries]))
    experiments = [yaml.safe_load(path.read_text()) for path in PARAMS.glob("*.yaml")]
    files = scalars(log) + scalars(experiments)
    epochs = [
        exp["train"]["max_steps"] * exp["train"]["batch_size"] * exp["model"]["max_seq_len"]
        for exp in experiments
    ]
    epochs = [tokens / size for tokens in epochs for size in log["train_tokens"].values()]
    gaps = [math.expm1(losses[1] - losses[0]) for losses, _ in groups]
    curves = [
        np.array([[e["step"], e["loss"]] for e in log["experiments"][exp]["evaluations"]])
        for exp in ("GPT-01", "GPT-02")
    ]
    losses = [
        [np.interp(np.log(at), np.log(c[:, 0]), c[:, 1]) for c in curves] for at in (20000, 59000)
    ]
    interim = [100 * math.expm1(second - first) for first, second in losses]
    counts = [
        len(experiments),
        0,
        1,
        3,
        100 * (log["criterion"] - 1),
        100 * (max(gaps) - min(gaps)),
    ]  # n and n wanted
    pool = files + derived(groups) + epochs + interim + counts
    text = re.sub(r"(?<=\n)### (?:Study |研究：).*?(?=\n### )", "", recorded[language], flags=re.S)
    numbers = set(NUMBER.findall(text))  # a study's numbers are those of its records
    strangers = [number for number in numbers if not near(number, pool)]
    assert strangers == []
    assert len(numbers) > 100
    assert not near("7.77", pool) and not near("12.35", pool)


def near(number, pool):
    value, half = printed(number)
    return any(abs(value - candidate) <= half * 1.0001 + 1e-12 for candidate in pool)


def test_templates_hold_no_numbers():
    files = [TEMPLATES / "journal.md.j2", *(TEMPLATES / "journal").iterdir()]
    assert len(files) > 5
    for file in files:
        template = file.read_text(encoding="utf-8")
        text = re.sub(r"\{\{.*?\}\}|\{%.*?%\}", "", template, flags=re.DOTALL)
        assert not re.search(r"\d", text), file
    words = yaml.safe_load((TEMPLATES / "journal.yaml").read_text(encoding="utf-8"))["phrases"]
    for key, phrase in words.items():
        assert set(phrase) == set(LANGUAGES), key
        assert not any(re.search(r"\d", text) for text in phrase.values()), key
        fields = [set(re.findall(r"\{(\w+)\}", text)) for text in phrase.values()]
        assert fields[0] == fields[1], key


def test_a_changed_file_changes_the_journal(tmp_path, measured):
    before = measured
    file = fill(tmp_path) / "DEMO-02_oelm_freeze" / "seed42" / "summary.json"
    summary = json.loads(file.read_text())
    file.write_text(json.dumps(summary | {"final_val_loss": 3.0, "wall_seconds": 7777}))
    after = journal(tmp_path, rehearsals=True)
    assert f"| {math.exp(3.0):.2f} |" in after and f"| {math.exp(3.0):.2f} |" not in before
    assert "2h 09m 37s" in after and "2h 09m 37s" not in before


def test_measured_runs_appear_with_command_state_and_reason(measured):
    text = measured
    assert "oelm run DEMO-02 --seed 44 --set train.max_steps=130" in text
    assert "❌ failed" in text and "loss is nan" in text
    assert "⚠️ unreadable" in text
    assert re.search(r"n = 2, 95 % CI [-+][\d.]+ % to [-+][\d.]+ %\. ", text)
    matrix_row = next(
        line for line in text.splitlines() if line.startswith("| DEMO-02_oelm_freeze+")
    )
    assert "| 130 |" in matrix_row
    assert "| 44 |" in matrix_row
    assert f"2 of {len(experiment_ids())} experiments done by this code" in text


def test_rehearsals_are_left_out_unless_asked_for(measured, tmp_path):
    assert "DEMO-02_oelm_freeze+" in measured
    assert "DEMO-02_oelm_freeze+" not in journal(fill(tmp_path))


def test_next_steps_follow_from_the_results_and_name_no_recorded_run(measured):
    text = measured.partition("## Next steps")[2].partition("authors' plans")[0]
    (never,) = re.findall("Run with this code: (.*)", text)
    assert "GPT-08" in never and "DEMO-02" not in never
    assert "Go on with: DEMO-03_oelm_random/seed44" in text
    assert re.search(r"Add seeds \(fewer than 3\): DEMO-02\n", text)
    experiments = set(re.findall(r"[A-Z]+-\d+", text))
    assert not experiments & set(log_results()["experiments"])


def test_an_experiment_that_separates_orthogonality_from_scale_is_asked_for_until_it_ran(tmp_path):
    def proposals():
        return gather(tmp_path, rehearsals=False)["todo"]["mixed"]

    for exp in ("DEMO-01", "DEMO-02", "DEMO-03"):
        make_run(tmp_path, exp)
    assert proposals() == ["DEMO-04", "GPT-08"]
    make_run(tmp_path, "DEMO-04")
    assert proposals() == ["GPT-08"]


def test_only_a_change_of_init_and_scale_mixes_orthogonality_with_scale(tmp_path):
    for exp in ("GPT-10", "GPT-11", "GPT-13", "GPT-15", "GPT-14"):
        make_run(tmp_path, exp)
    sections = gather(tmp_path, rehearsals=False)["sections"]
    steps = [row for section in sections for row in section["ablation"]]
    mixed = {row["differs"] for row in steps if row["is_mixed"]}
    others = {row["differs"] for row in steps if not row["is_mixed"]}
    assert all("model.qk_init" in text and "model.qk_scale" in text for text in mixed)
    assert any(text.count("qk_") > 2 for text in mixed)
    assert any(text.count("qk_") == 2 for text in others)


def test_results_come_before_matrices(recorded):
    headings = re.findall("^## (.*)", recorded["en"], re.MULTILINE)
    assert headings[:3] == ["Goal", "Results", "Overall findings"]
    assert headings.index("Results") < headings.index("Experiment matrix")


def test_chinese_words_are_chinese(tmp_path):
    text = journal(fill(tmp_path), "zh")
    for english in (
        "INCONCLUSIVE",
        "UNKNOWN",
        "PASS",
        "FAIL",
        "not run",
        "frozen Gaussian",
        "百万",
    ):
        assert english not in text, english
    assert "Baseline + T5 偏置，偏置与增益" in text and "冻结高斯" in text
    assert not re.search("[一-鿿] [一-鿿]", text)


@pytest.mark.parametrize("language", LANGUAGES)
def test_recorded_results_are_called_the_best_of_their_evaluations(recorded, measured, language):
    best, final = {"en": ("Best PPL", "Final PPL"), "zh": ("最佳 PPL", "最终 PPL")}[language]
    results = recorded[language].split("\n## ")[2]
    assert best in results and final not in results
    assert "**Final PPL**" in measured


def test_every_phrase_that_a_verdict_needs_is_there():
    words = yaml.safe_load((TEMPLATES / "journal.yaml").read_text(encoding="utf-8"))["phrases"]
    verdicts = {stats.PASS, stats.FAIL, stats.INCONCLUSIVE, stats.UNKNOWN, stats.UNSTABLE}
    assert verdicts | {CONFOUNDED} <= set(words)
    shared = verdicts | {stats.YES, stats.NO, stats.NOT_SHOWN}
    assert {f"study_{verdict}" for verdict in shared} <= set(words)


@pytest.mark.parametrize("language", LANGUAGES)
def test_titles_and_reasons_cannot_leave_their_cell(tmp_path, language):
    title = "Stories, a | b <script>alert(1)</script> [x](javascript:y) `c`"
    make_run(tmp_path, "DEMO-01")
    make_run(tmp_path, "DEMO-02", experiment={"title": title, "model.frozen_layers": [0]})
    text = journal(tmp_path, language)
    assert "<script" not in text and not re.search(r"(?<!\\)\]\(javascript", text)
    assert r"a \| b &lt;script>alert(1)&lt;/script> \[x\](javascript:y) \`c\`" in text
    for table in re.findall(r"(?:^\|.*\n)+", text, re.MULTILINE):
        cells = {len(re.findall(r"(?<!\\)\|", line)) for line in table.splitlines()}
        assert len(cells) == 1, table


def test_escape_keeps_plain_text():
    assert escape("GPT-02_oelm_freeze/seed42, 1.5 %") == "GPT-02_oelm_freeze/seed42, 1.5 %"
    assert escape("a\nb & <i>") == "a b &amp; &lt;i>"


def test_notes_survive_regeneration(tmp_path):
    outputs, path = tmp_path / "outputs", tmp_path / "journal.md"
    text = journal(outputs, "en", path)
    note = "Seed 44 ran beside another job; 1.23 is mine.\n"
    text = text.replace("<!-- notes: results -->\n", f"<!-- notes: results -->\n{note}")
    path.write_text(
        text + "\n<!-- notes: old_section -->\nkeep me\n<!-- /notes -->\n", encoding="utf-8"
    )
    make_run(outputs, "DEMO-02", 50)
    again = journal(outputs, "zh", path)
    assert path.read_text(encoding="utf-8") == again
    assert f"<!-- notes: results -->\n{note}<!-- /notes -->" in again
    assert "<!-- notes: old_section -->\nkeep me\n<!-- /notes -->" in again
    assert journal(outputs, "zh", path) == again
    assert [file.name for file in tmp_path.iterdir() if file.is_file()] == ["journal.md"]


def test_a_file_of_someone_else_is_left_alone(tmp_path):
    path = tmp_path / "diary.md"
    path.write_text("my own words")
    with pytest.raises(UserError, match=r"not written by oelm journal.*--output"):
        journal(tmp_path, "en", path)
    assert path.read_text() == "my own words"


def test_a_damaged_marker_stops_before_notes_are_lost(tmp_path, recorded):
    path = tmp_path / "journal.md"
    path.write_text(recorded["en"].replace("<!-- /notes -->", "my note", 1), encoding="utf-8")
    with pytest.raises(UserError, match=r"marker is missing or doubled.*fix"):
        journal(tmp_path, "en", path)
    assert "my note" in path.read_text(encoding="utf-8")


def test_mistakes_are_one_line(tmp_path):
    with pytest.raises(UserError, match="'fr' is not a language of the journal; use en or zh"):
        journal(tmp_path, "fr")
    with pytest.raises(UserError, match="cannot be written"):
        journal(tmp_path, "en", tmp_path / "missing" / "journal.md")


def test_strings_from_files_cannot_break_the_table(tmp_path):
    path = make_run(tmp_path, "DEMO-01", state="failed", done=0.1)
    status = json.loads((path / "status.json").read_text())
    (path / "status.json").write_text(json.dumps(status | {"error": "a | b\n<script>"}))
    text = journal(tmp_path)
    assert r"a \| b &lt;script>" in text
    assert "<script>" not in text


def test_a_chain_of_baselines_keeps_each_finding_with_its_own_base(tmp_path):
    """GPT-08 is compared to GPT-02, itself an arm: pairs and verdicts come in two orders."""
    for exp in ("GPT-01", "GPT-02", "GPT-08", "GPT-09"):
        make_run(
            tmp_path,
            exp,
            42,
            overrides={"optim.learning_rate": 5.7e-3, "model.frozen_layers": [0, 1]},
        )
    for exp in ("GPT-01", "GPT-02", "GPT-08", "GPT-09"):
        make_run(tmp_path, exp, 42)
    text = journal(tmp_path, rehearsals=True)
    changes = [
        line for line in text.splitlines() if "changes:" in line and "frozen Gaussian" in line
    ]
    assert changes and all(
        "OELM-Freeze → frozen Gaussian changes: model.qk_init" in line for line in changes
    )
    assert "--set optim.learning_rate=0.0057 --set 'model.frozen_layers=[0, 1]'" in text


def test_every_gap_names_its_own_base_and_arms_of_one_name_their_ids(tmp_path):
    for exp in ("GPT-01", "GPT-02", "GPT-08", "GPT-09"):
        make_run(tmp_path, exp, 42)
    text = journal(tmp_path)
    (gaps,) = [line for line in text.splitlines() if line.startswith("| Gap (to)")]
    assert re.findall(r"\*\* \((.*?)\) \|", gaps) == [
        "baseline (GPT-01)",
        "OELM-Freeze",
        "baseline (GPT-01)",
    ]
    assert "that of baseline (GPT-01)" in text and "baseline (GPT-09) (" in text
    steps = re.findall(r"^(.*) → frozen Gaussian: .* from (.*)\)$", text, re.MULTILINE)
    assert steps == [("OELM-Freeze", "OELM-Freeze")]
    assert "frozen Gaussian is" not in text  # the finding against its base says it
    assert "| Gap to baseline | base | **+9.75 %** |" in text  # the log's arms have one base


def test_advice_is_for_arms_that_freeze_and_rates_that_are_not_the_question(tmp_path):
    for exp, seed in itertools.product(("GPT-01", "GPT-02", "GPT-09", "GPT-10"), (1, 2, 3)):
        loss = 1.3 if exp == "GPT-01" else 1.6
        make_run(tmp_path, exp, seed, final_loss=loss + seed / 1000)
    todo = gather(tmp_path, rehearsals=False)["todo"]
    assert todo["fail"] == ["GPT-02"]
    assert "GPT-02" in todo["rate"] and "GPT-09" not in todo["rate"]


def test_the_first_experiment_of_a_corpus_names_it(tmp_path, monkeypatch):
    params = copy_params(tmp_path)
    monkeypatch.setattr(paths, "PARAMS", params)
    text = (params / "DEMO-02.yaml").read_text().replace("DEMO-02", "DEMO-05")
    (params / "DEMO-05.yaml").write_text(re.sub("title: .*", "title: Of mine", text))
    assert gather(tmp_path / "outputs", False)["corpora"]["stories"] == "Stories"
