import copy
import math

import pytest
import study_factory as factory

from oelm_lib import config
from oelm_lib.errors import UserError
from oelm_lib.study import plan as plans
from oelm_lib.study.cell import BASE_SIZE, Cell
from oelm_lib.study.checks import check_only_adds
from oelm_lib.study.plan import parse_plan, read_plan, study_names
from oelm_lib.study.tuning import next_rates

LADDER = factory.LADDER | {"sizes": {"small": {"set": {"model.d_model": 32}, "rate_factor": 2.0}}}


@pytest.mark.parametrize("name", study_names())
def test_every_declared_study_is_valid(name):
    plan = read_plan(name)
    assert set(plan.corpora) <= factory.corpus_names()
    for size in plan.sizes:
        for arm in plan.arms:
            cell = Cell(plan.corpora[0], size, arm)
            assert plan.config(cell, 0.01).data.corpus == plan.corpora[0]


def test_a_run_is_the_base_with_the_changes_of_plan_size_and_arm():
    plan = factory.make_plan(ladder=LADDER)
    cfg = plan.config(Cell("stories", "small", "frozen"), 0.02)
    base = config.load_config("DEMO-01")
    assert set(config.diff_configs(base, cfg)) == {
        "train.max_steps",
        "model.d_model",
        "model.qk_init",
        "model.qk_scale",
        "model.freeze_q",
        "model.freeze_k",
        "optim.learning_rate",
    }
    assert cfg.optim.learning_rate == 0.02


def test_the_first_rate_is_that_of_corpus_arm_and_size():
    arms = factory.plain_plan()["arms"]
    arms["frozen"] |= {"rate_factor": 1.5}
    tune = {"seeds": [1, 2], "start": {"stories": 0.01}}
    plan = factory.make_plan(arms=arms, tune=tune, ladder=LADDER)
    assert plan.start_rate(Cell("stories", BASE_SIZE, "trained")) == 0.01
    assert plan.start_rate(Cell("stories", "small", "frozen")) == 0.03


def test_seeds_of_a_claim_are_the_first_of_confirmation():
    plan = factory.make_plan()
    assert plan.confirm_seeds(None) == [101, 102, 103, 104]
    assert plan.confirm_seeds(2) == [101, 102]


ARMS = factory.plain_plan()["arms"] | {
    "delta": {"set": factory.FROZEN | {"model.delta_rank": 4}, "against": "trained"},
}
LATE = factory.FROZEN | {"model.freeze_from": 20}
MISTAKES = {
    "unknown arm in a claim": (
        {"claims": [{"arm": "frozn", "at_most": 0.05}]},
        "claims: 'frozn' is not declared; known: frozen, trained, twin",
    ),
    "confirmation seeds that tuned": (
        {"confirm": {"seeds": {"from": 2, "count": 4}}},
        "seed 2 is one of tune.seeds; choose fresh seeds",
    ),
    "seeds of a claim reach tuning's": (
        {
            "tune": {"seeds": [1, 120], "start": 0.01},
            "claims": [{"arm": "frozen", "at_most": 0.05, "seeds": 24}],
        },
        "seed 120 is one of tune.seeds",
    ),
    "one tuning seed": ({"tune": {"seeds": [1], "start": 0.01}}, "tune.seeds"),
    "a tuning seed twice": (
        {"tune": {"seeds": [1, 2, 1], "start": 0.01}},
        "tune.seeds: seed 1 is named 2 times; name each seed once",
    ),
    "a learning rate of the plan": (
        {"set": {"optim.learning_rate": 0.02}},
        "set: optim.learning_rate cannot be set: tuning finds it; start it with tune.start",
    ),
    "a corpus of an arm": (
        {"arms": factory.plain_plan()["arms"] | {"wiki": {"set": {"data.corpus": "wikitext2"}}}},
        "arms.wiki.set: data.corpus cannot be set: the runs of a study read its `corpora`",
    ),
    "a device of a size": (
        {"ladder": LADDER | {"sizes": {"wide": {"set": {"machine.device": "cuda"}}}}},
        "ladder.sizes.wide.set: machine.device cannot be set: it is the CPU, or with",
    ),
    "devices": ({"set": {"machine.devices": 2}}, "set: machine.devices cannot be set: each run"),
    "threads": ({"set": {"machine.threads": 4}}, "set: machine.threads cannot be set: each run"),
    "an arm that no step freezes": (
        {"arms": factory.plain_plan()["arms"] | {"late": {"set": LATE, "against": "trained"}}},
        "late (base): model.freeze_from = 20 is not before train.max_steps = 20, so W_q and W_k",
    ),
    "a cosine that ends above a rate of tuning": (  # 0.01 / 2^6
        {"set": {"optim.min_learning_rate": 2.0e-4}},
        "trained (base): optim.min_learning_rate = 0.0002 is above 0.000157, the lowest",
    ),
    "the same on the second corpus": (
        {
            "corpora": ["stories", "wikitext2"],
            "tune": {"seeds": [1, 2], "start": {"stories": 1.0, "wikitext2": 0.01}, "factor": 2.0},
            "set": {"optim.min_learning_rate": 2.0e-4},
        },
        "optim.min_learning_rate = 0.0002 is above 0.000157, the lowest",
    ),
    "more seeds than any run has": (
        {"confirm": {"seeds": {"from": 101, "count": 10**20}}},
        "confirm.seeds.count = 100000000000000000000: should be at most 10,000",
    ),
    "one confirmation seed": ({"confirm": {"seeds": {"from": 101, "count": 1}}}, "count = 1"),
    "no baseline": ({"claims": [{"arm": "trained", "at_most": 0.05}]}, "'trained' is judged but"),
    "a baseline that is no arm": (
        {"arms": {"trained": {}, "frozen": {"set": factory.FROZEN, "against": "base"}}},
        "against: 'base' is not declared",
    ),
    "an arm against itself": (
        {"arms": {"frozen": {"set": factory.FROZEN, "against": "frozen"}}},
        "against: 'frozen' is not declared",
    ),
    "a claim about one arm twice": (
        {"claims": [{"equal": ["frozen", "frozen"], "within": 0.01}]},
        "claims: 'frozen' is compared with itself; name two arms",
    ),
    "a claim of an arm against itself": (
        {"claims": [{"arm": "frozen", "against": "frozen", "at_most": 0.05}]},
        "claims: 'frozen' is compared with itself; name two arms",
    ),
    "a ladder of one size": (
        {"ladder": LADDER | {"sizes": {"slow": {"set": {"optim.weight_decay": 0.2}}}}},
        "ladder.sizes: all models have",
    ),
    "two names for one arm": (
        {"arms": factory.plain_plan()["arms"] | {"again": {}}},
        "trained (base) and again (base) are the same runs",
    ),
    "unknown key": ({"arm": {}}, "unknown key arm"),
    "unknown setting": (
        {"arms": factory.plain_plan()["arms"] | {"odd": {"set": {"model.frozen": True}}}},
        "unknown key model.frozen",
    ),
    "a claim without a limit": ({"claims": [{"arm": "frozen"}]}, "has no `at_most`"),
    "a claim about nothing": ({"claims": [{"at_most": 0.05}]}, "either `arm` or `equal`"),
    "equality without a margin": ({"claims": [{"equal": ["frozen", "twin"]}]}, "has `within`"),
    "gaps of one arm": (
        {"claims": [{"arm": "frozen", "at_most": 0.05, "gaps": True}]},
        "`gaps` belongs to `equal`",
    ),
    "gaps of a baseline": (
        {"claims": [{"equal": ["frozen", "trained"], "gaps": True, "within": 0.01}]},
        "'trained' is judged but has no baseline",
    ),
    "no claims": ({"claims": []}, "claims"),
    "a corpus twice": ({"corpora": ["stories", "stories"]}, "one corpus twice"),
    "a corpus without a first rate": (
        {"tune": {"seeds": [1, 2], "start": {"wikitext2": 0.01}}},
        "tune.start",
    ),
    "a share above its limit": (
        {"arms": ARMS, "claims": [{"arm": "delta", "at_most": 0.05, "trained_share": 0.1}]},
        "of the Q/K weights of the models of this study, more than trained_share",
    ),
    "a share above its limit in a choice": (
        {
            "arms": ARMS,
            "choices": {"best": {"among": ["frozen", "delta"], "corpus": "stories"}},
            "claims": [{"arm": "best", "at_most": 0.05, "trained_share": 0.1}],
        },
        "'delta' trains 31.25% of the Q/K weights of the models of this study, more than"
        " trained_share = 10.00% of a claim about 'best'",
    ),
    "a share above its limit in an equality": (
        {
            "arms": ARMS,
            "claims": [{"equal": ["frozen", "delta"], "within": 0.01, "trained_share": 0.1}],
        },
        "'delta' trains 31.25%",
    ),
    "a choice without a candidate": (
        {
            "arms": ARMS,
            "choices": {"best": {"among": ["delta"], "corpus": "stories", "trained_share": 0.1}},
        },
        "choices: best: every candidate trains a larger share of the Q/K weights than"
        " trained_share = 10.00%; raise it or leave it out",
    ),
    "a margin of one arm": (
        {"claims": [{"arm": "frozen", "at_most": 0.05, "within": 0.01}]},
        "`within` belongs to `equal`",
    ),
    "a baseline of an equality": (
        {"claims": [{"equal": ["frozen", "twin"], "against": "trained", "within": 0.01}]},
        "`against` belongs to `arm`",
    ),
}


@pytest.mark.parametrize("mistake", MISTAKES)
def test_a_mistake_in_a_plan_is_one_line(mistake):
    changes, words = MISTAKES[mistake]
    with pytest.raises(UserError) as error:
        parse_plan(factory.plain_plan(**changes), "params/studies/x.yaml")
    assert words in str(error.value)
    assert str(error.value).startswith("params/studies/x.yaml: ")
    assert "\n" not in str(error.value)
    assert "GPT-01" not in str(error.value)


def test_the_lowest_rate_is_the_last_of_a_tuning_that_goes_down_only():
    plan = factory.make_plan()
    cell, points = Cell("stories", BASE_SIZE, "trained"), []
    while rates := next_rates(points, plan.tune, plan.start_rate(cell)):
        points += [(rate, seed, math.log2(rate)) for rate in rates for seed in plan.tune.seeds]
    assert min(rate for rate, _, _ in points) == plan.lowest_rate(cell)
    assert len({rate for rate, _, _ in points}) == plan.tune.most_rates


def test_a_choice_may_hold_candidates_that_a_claim_allows_by_its_own_share():
    choice = {"among": ["frozen", "delta"], "corpus": "stories", "trained_share": 0.1}
    claims = [{"arm": "best", "at_most": 0.05, "trained_share": 0.1}]
    plan = factory.make_plan(arms=ARMS, choices={"best": choice}, claims=claims)
    assert plan.candidates("best") == ["frozen"]


def test_a_choice_without_a_share_keeps_a_candidate_that_trains_more_than_w_q_and_w_k():
    """T5 adds numbers to trained W_q and W_k: a share of 100.4 %, which counted as too large."""
    arms = ARMS | {"trained + T5": {"set": {"model.position": "t5"}, "against": "trained"}}
    choices = {"best": {"among": ["frozen", "trained + T5"], "corpus": "stories"}}
    plan = factory.make_plan(arms=arms, choices=choices)
    assert plan.trained_share("trained + T5") > 1
    assert plan.candidates("best") == ["frozen", "trained + T5"]


def test_an_unknown_study_names_those_there_are():
    with pytest.raises(UserError, match=r"no study 'nothing'; known: .*example"):
        read_plan("nothing")


def test_a_plan_may_add_after_confirmation_began():
    old, plain = factory.make_plan(), factory.plain_plan()
    plain["arms"]["more"] = {"set": factory.FROZEN | {"model.qk_scale": 2.0}, "against": "trained"}
    plain["claims"].append({"arm": "more", "at_most": 0.05})
    plain["corpora"].append("tinyshakespeare")
    plain["ladder"] = LADDER
    check_only_adds(old, parse_plan(plain, "plan"))


def test_words_of_a_plan_may_change_after_confirmation_began():
    old, plain = factory.make_plan(), factory.plain_plan()
    plain["arms"]["frozen"]["about"] = "Other words."
    plain["claims"][0]["headline"] = not old.claims[0].headline
    check_only_adds(old, parse_plan(plain, "plan"))


def changed(path, value):
    plain = copy.deepcopy(factory.plain_plan())
    target = plain
    for key in path[:-1]:
        target = target[key]
    target[path[-1]] = value
    return parse_plan(plain, "plan")


@pytest.mark.parametrize(
    ("path", "value"),
    [
        (["set", "train.max_steps"], 30),
        (["tune", "seeds"], [1, 2, 3]),
        (["confirm", "seeds", "count"], 8),
        (["arms", "frozen", "set", "model.qk_scale"], 2.0),
        (["claims", 0, "at_most"], [0.05]),
        (["corpora"], ["tinyshakespeare", "stories"]),
    ],
)
def test_a_plan_that_changes_after_confirmation_began_is_refused(path, value):
    """A hypothesis that was declared used to change after 4 of its 5 seeds had run."""
    with pytest.raises(UserError, match="the plan changed after its confirmation began"):
        check_only_adds(factory.make_plan(), changed(path, value))


def test_the_hash_follows_the_content_alone():
    assert factory.make_plan().hash == factory.make_plan().hash
    assert changed(["set", "train.max_steps"], 30).hash != factory.make_plan().hash


def test_plans_are_files_below_params(monkeypatch, tmp_path):
    monkeypatch.setattr(plans, "plans_folder", lambda: tmp_path)
    assert study_names() == []
    (tmp_path / "broken.yaml").write_text("arms: [")
    with pytest.raises(UserError, match="not valid YAML"):
        read_plan("broken")
