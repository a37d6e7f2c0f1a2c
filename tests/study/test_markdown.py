import pytest
import study_factory as factory
from test_page import COMPLETE, make_study, with_more_seeds
from test_verdicts import make_grid, with_gap

from oelm_lib.report import journal_facts
from oelm_lib.report.journal import journal
from oelm_lib.study.grid import Grid
from oelm_lib.study.tables import markdown_table
from oelm_lib.view.gaps import interval_text


def test_the_markdown_table_has_the_gaps_and_verdicts_of_the_page():
    study = make_study(make_grid(COMPLETE))
    table = markdown_table(study)
    gap = study.judgements[0].interval
    assert f"{interval_text(gap)}, 4 seeds; ≤ 5 %: **FAIL**" in table
    assert "| comparison | stories |" in table
    empty = markdown_table(make_study(Grid(study.plan, [])))
    assert empty == "No claim has a confirmation run yet."


@pytest.mark.parametrize(
    ("language", "row"),
    [
        (
            "en",
            "| frozen | trained | stories | at most +5 % | +20.4 % \\[+17.0 %, +23.9 %\\] | 4 |"
            " ❌ FAIL |",
        ),
        (
            "zh",
            "| 冻结 | 完整训练 | stories | 不超过 +5% | +20.4% \\[+17.0%, +23.9%\\] | 4 |"
            " ❌ 不成立 |",
        ),
    ],
)
def test_the_journal_has_a_table_of_the_verdicts(monkeypatch, tmp_path, language, row):
    study = make_study(make_grid(COMPLETE))
    monkeypatch.setattr(journal_facts, "load_study", lambda name: study)
    assert row in journal(tmp_path, language)


@pytest.mark.parametrize(
    ("language", "words"), [("en", "claimed late"), ("zh", "结果出来后才提出")]
)
def test_the_journal_marks_a_claim_that_was_declared_late(monkeypatch, tmp_path, language, words):
    study = with_more_seeds((with_gap(0.2) * 2)[:6])
    monkeypatch.setattr(journal_facts, "load_study", lambda name: study)
    text = journal(tmp_path, language)
    assert f"| 6{', ' if language == 'en' else '，'}{words} |" in text
    assert text.count(words) == len(study.judgements[2].limits)


@pytest.mark.parametrize(("language", "words"), [("en", "at most +2.5 %"), ("zh", "不超过 +2.5%")])
def test_a_limit_keeps_its_digits_in_the_journal(monkeypatch, tmp_path, language, words):
    """2.5 % used to be printed as 2 %."""
    plan = factory.make_plan(claims=[{"arm": "frozen", "at_most": 0.025}])
    study = make_study(make_grid(COMPLETE, plan=plan))
    monkeypatch.setattr(journal_facts, "load_study", lambda name: study)
    assert f"| {words} |" in journal(tmp_path, language)
