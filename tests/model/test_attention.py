import torch

from tests.model.additions import FROZEN


def test_t5_buckets_are_single_then_grow_with_the_logarithm():
    from oelm_lib.model.additions.t5 import bucket

    distance = torch.tensor([-3, 0, 1, 15, 16, 17, 18, 31, 32, 64, 127, 128, 5000])
    assert bucket(distance).tolist() == [0, 0, 1, 15, 16, 16, 16, 21, 21, 26, 31, 31, 31]
    assert (bucket(torch.arange(300)).diff() >= 0).all()


def test_rotary_scores_depend_on_the_distance_alone(model_config):
    from oelm_lib.model.additions.rope import rotate

    angle = torch.arange(9)[:, None] * torch.tensor([1.0, 0.1, 0.01, 0.001])
    turned = rotate(torch.ones(1, 1, 9, 8), angle.cos(), angle.sin())
    scores = turned @ turned.mT
    assert torch.allclose(scores[..., 3:, 3:], scores[..., :-3, :-3], atol=1e-5)
    assert scores[0, 0, 0, 0] > scores[0, 0, 0, 3]


def test_forget_gates_without_content_start_as_alibi(model_config):
    from oelm_lib.model.gpt import GPT

    gated = GPT(model_config(position="learned", forget_gate=True)).blocks[0].attention
    alibi = GPT(model_config(position="alibi")).blocks[0].attention
    blank = torch.zeros(1, 12, 16)
    torch.testing.assert_close(gated.heads(blank)[3], alibi.heads(blank)[3])


def test_induction_heads_start_tied_and_stay_so_where_frozen(model_config):
    from oelm_lib.model.gpt import GPT

    attention = GPT(model_config(**FROZEN | {"induction_heads": 1})).blocks[0].attention
    query, key = attention.q_proj.weight, attention.k_proj.weight
    assert torch.equal(query[:8], key[:8])
    assert not torch.equal(query[8:], key[8:])
    assert not key.requires_grad


def test_frozen_for_some_steps_only(model_config):
    from oelm_lib.model.gpt import GPT

    model = GPT(
        model_config(**FROZEN | {"freeze_from": 3, "freeze_until": 5, "frozen_layers": (0,)})
    )
    query = [block.attention.q_proj.weight for block in model.blocks]
    states = []
    for step in range(6):
        changed = model.freeze(step)
        states.append((changed, query[0].requires_grad, query[1].requires_grad))
    trained, frozen = (True, True), (False, True)
    assert states == [
        (False, *trained),
        (False, *trained),
        (False, *trained),
        (True, *frozen),
        (False, *frozen),
        (True, *trained),
    ]
