"""Probes on models: what attention is, a hand-built induction head, arms of a tiny run."""

import shutil

import numpy as np
import pytest
import torch

from oelm_lib import config, runs, training
from oelm_lib.errors import UserError
from tests.explore.conftest import train_as_demo


@torch.no_grad()
def test_a_hand_built_induction_head_scores_one(model_config):
    """Tied Q = K that reads the token, with the key of the position before it.

    Query i looks for the key whose predecessor is its own token. Shifting only half of a head's key
    leaves half of the match, so the token is coded in the first half alone.
    """
    from oelm_lib.explore import attention as explored
    from oelm_lib.explore import measures
    from oelm_lib.model.gpt import GPT

    vocab, period = 8, 5
    cfg = model_config(
        vocab_size=vocab, d_model=16, num_layers=1, num_heads=1, qk_tied=True, key_shift=True
    )
    model = GPT(cfg)
    for weight in model.parameters():
        weight.zero_()
    model.token_embedding.weight[:, :vocab] = torch.eye(vocab)
    model.blocks[0].ln1.weight.fill_(1.0)
    model.blocks[0].attention.q_proj.weight[:vocab, :vocab] = 10 * torch.eye(vocab)
    block = np.array([[3, 1, 4, 5, 2]])
    tokens = torch.from_numpy(np.concatenate([[[0]], block, block], 1))
    maps = explored.attention_maps(model, tokens)
    assert measures.induction_score(maps, period) == pytest.approx(1.0, abs=1e-3)
    assert measures.duplicate_token_score(maps, period) == pytest.approx(0.0, abs=1e-3)


@pytest.fixture(scope="session")
def trained(tmp_path_factory, stories):
    """Folder with a baseline, an OELM-Freeze and a frozen Gaussian, made once."""
    exps = ("DEMO-01", "DEMO-02", "DEMO-04")
    return train_as_demo(
        tmp_path_factory.mktemp("probes"), stories, exps, **{"train.max_steps": 12}
    )


@pytest.fixture
def arms(trained, stories, tmp_path, monkeypatch):
    """The arms of `trained`, in a copy for one test."""
    from oelm_lib.explore.arms import open_arms

    folder = shutil.copytree(trained, tmp_path / "outputs")
    monkeypatch.setenv("OELM_OUTPUTS", str(folder))
    monkeypatch.setenv("OELM_DATA", str(stories))
    return open_arms("DEMO-*/seed42")


def test_the_probe_tables_of_arms(arms):
    from oelm_lib.explore import probes
    from oelm_lib.explore.arms import run_label
    from oelm_lib.explore.attention import head_table
    from oelm_lib.runs import read_logit_std

    cfg = arms[0].config.model
    heads = head_table(arms[1])
    assert len(heads) == cfg.num_layers * cfg.num_heads
    gaussian = head_table(arms[2])["q_orthogonality_error"]
    assert heads["q_orthogonality_error"].max() < 1e-5 < gaussian.min()
    assert heads["entropy"].between(0, 1).all()
    assert heads["effective_rank"].between(1, cfg.d_head).all()
    table = probes.probe_values(arms)
    assert list(table["run"]) == [run_label(arm) for arm in arms]
    assert table["run"][1] == "OELM-Freeze (DEMO-02, seed 42)"
    assert table.notna().all(axis=None)
    assert set(probes.PROBES) - set(table) == {"recall_accuracy"}
    roles = probes.roles(arms)
    assert list(roles) == ["arm", "role", "heads_with_the_role", "strongest", "share"]
    assert (
        len(roles) == 3 * len(arms)
        and roles["heads_with_the_role"].str.endswith(f"of {len(heads)}").all()
    )
    spread = read_logit_std(arms[0].path)
    assert set(spread["step"]) == {6, 12}
    assert spread.groupby("step")["layer"].nunique().eq(cfg.num_layers).all()


def test_one_layers_maps_are_those_of_all_layers(arms):
    from oelm_lib.explore.attention import attention_maps, layer_maps

    tokens = arms[0].encode("The owl saw a cat.")
    maps = attention_maps(arms[0].model, tokens)
    for layer in range(len(maps)):
        np.testing.assert_array_equal(layer_maps(arms[0].model, tokens, layer), maps[layer])


def test_seeds_of_an_arm_are_one_group_under_the_shortest_name(arms, tiny_run):
    from oelm_lib.explore.arms import one_seed_each, open_arms, runs_by_arm

    names = ["baseline", "OELM-Freeze", "frozen Gaussian"]
    assert {name: len(seeds) for name, seeds in runs_by_arm(arms).items()} == dict.fromkeys(
        names, 1
    )
    second = tiny_run("DEMO-02", seed=43, train__max_steps=6)
    training.train(second)
    second.path.rename(arms[1].path.parent / "seed43")
    rehearsal = tiny_run("DEMO-02", seed=42, train__max_steps=6, train__batch_size=2)
    training.train(rehearsal)
    both = open_arms(f"DEMO-*/seed* {rehearsal.path}")
    sizes = {name: len(seeds) for name, seeds in runs_by_arm(both).items()}
    folder = rehearsal.path.parent.name
    assert sizes == {
        "baseline": 1,
        "OELM-Freeze (DEMO-02)": 2,
        "frozen Gaussian": 1,
        f"OELM-Freeze ({folder})": 1,
    }
    assert [arm.seed for arm in one_seed_each(both, 2)] == [42, 42]


def test_slices_part_all_tokens_and_their_shares_of_the_gap_sum_to_one(arms):
    from oelm_lib.explore import probes
    from oelm_lib.explore.arms import runs_by_arm

    table = probes.loss_by_slice(arms).set_index(["arm", "tokens_that"])
    names = list(runs_by_arm(arms))
    assert list(table.index.unique("arm")) == names
    for arm in names:
        for yes, no in (
            ("end an earlier bigram", "do not"),
            ("stood earlier", "are new in the window"),
        ):
            parts, whole = table.loc[arm].loc[[yes, no]], table.loc[arm].loc["all"]
            assert parts["token_share"].sum() == pytest.approx(1)
            assert (parts["token_share"] * parts["loss"]).sum() == pytest.approx(
                whole["loss"], abs=1e-5
            )
            if arm != names[0]:
                assert parts["gap_share"].sum() == pytest.approx(1, abs=1e-4)


def test_of_associative_recall_only_answers_count(tmp_path, monkeypatch):
    from oelm_lib.explore import figures, probes
    from oelm_lib.training.trained import open_trained

    monkeypatch.setenv("OELM_DATA", str(tmp_path / "data"))
    size = {"model.vocab_size": 40, "model.d_model": 16, "model.num_heads": 2, "model.d_ff": 32}
    changes = {"data.tokenizer": "ids-40", "train.max_steps": 2, "train.eval_interval": 2}
    run = runs.open_run(config.load_config("MQAR-01", size | changes), 1, tmp_path)
    training.train(run)
    trained = open_trained(run.path)
    scored = pytest.approx(runs.read_summary(run)["final_val_loss"], abs=1e-3)  # but one window
    assert probes.PROBES["loss"].measure(trained) == scored
    table = probes.loss_by_slice([trained]).set_index("tokens_that")
    assert table.loc["all", "loss"] == scored
    halves = table.loc[["end an earlier bigram", "do not"], "token_share"]
    assert halves.sum() == pytest.approx(1)
    drawn = np.array(figures.loss_by_position([trained]).data[0].y, float)
    assert np.isnan(drawn[0]) and np.nanmean(drawn) > 0  # keys and values come first


def test_slices_and_steps_are_those_of_all_seeds_of_an_arm(arms, tiny_run):
    from oelm_lib.explore import probes, tables
    from oelm_lib.explore.arms import open_arms

    run = tiny_run("DEMO-02", seed=44, train__max_steps=6)
    training.train(run)
    run.path.rename(arms[1].path.parent / "seed44")
    (second,) = open_arms("DEMO-02/seed44")

    def losses(*runs):
        table = probes.loss_by_slice([arms[0], *runs]).set_index(["arm", "tokens_that"])
        return table.loc["OELM-Freeze", "loss"]

    mean = (losses(arms[1]) + losses(second)) / 2
    np.testing.assert_allclose(losses(arms[1], second), mean, rtol=1e-5)
    assert not np.allclose(losses(arms[1], second), losses(arms[1]), rtol=1e-5)
    summary = tables.summary([arms[0], arms[1], second])
    assert summary["OELM-Freeze"].iloc[0] == "6 to 12"


def test_a_run_named_twice_is_opened_once_and_a_rehearsal_is_called_one(arms, tiny_run):
    from oelm_lib.explore.arms import open_arms, run_label

    named = open_arms("DEMO-02/seed42 DEMO-*/seed42")
    assert [arm.config.id for arm in named] == ["DEMO-02", "DEMO-01", "DEMO-04"]
    run = tiny_run("DEMO-02", seed=42, train__max_steps=6)
    training.train(run)
    (rehearsal,) = open_arms(str(run.path))
    assert run_label(rehearsal) == f"OELM-Freeze ({run.path.parent.name}, seed 42)"
    assert run_label(rehearsal) != run_label(named[0])
    assert len(open_arms("DEMO-*/seed*")) == 3  # unless it is asked for
    assert [arm.path for arm in open_arms("DEMO-*+*/seed*")] == [run.path]


def test_next_tokens_are_the_likeliest(arms):
    from oelm_lib.explore import probes

    table = probes.likeliest_tokens(arms[0], "The owl", 300)
    assert table["probability"].is_monotonic_decreasing
    assert table["probability"].sum() == pytest.approx(1, abs=1e-5)


def test_what_cannot_be_opened_or_compared_is_one_line(arms, tiny_run):
    from oelm_lib.explore import probes
    from oelm_lib.explore.arms import open_arms

    with pytest.raises(UserError, match=r"runs = 'GPT-\*': no run has this name"):
        open_arms("GPT-*")
    run = tiny_run("DEMO-03", model__max_seq_len=8, train__max_steps=2)
    training.train(run)
    other = open_arms(str(run.path))
    with pytest.raises(UserError, match="windows differ from those of DEMO-01_baseline"):
        probes.loss_by_slice([arms[0], *other])
