import pytest
import torch

from oelm_lib.seeds import named_generator, named_seed

ORTHONORMAL = 1e-6  # float32 rounding of rows made in float64


def test_each_head_has_orthonormal_rows_and_heads_are_independent():
    from oelm_lib.model.init import head_orthogonal

    weight = head_orthogonal(torch.randn(16, 16, generator=named_generator(1, "q")), 4)
    heads = weight.view(4, 4, 16)
    eye = torch.eye(4).expand(4, 4, 4)
    assert torch.allclose(heads @ heads.mT, eye, atol=ORTHONORMAL)
    assert (heads[0] @ heads[1].T).abs().max() > 0.05


def test_the_sign_fix_makes_the_rows_follow_the_draw():
    """Uniform (Haar) rows: with R's diagonal positive, a row.Gaussian product is positive."""
    from oelm_lib.model.init import head_orthogonal

    gaussian = torch.randn(8, 32, generator=named_generator(1, "q"))
    assert (head_orthogonal(gaussian, 2).mul(gaussian).sum(1) > 0).all()
    flipped = gaussian.clone()
    flipped[0] *= -1
    assert torch.allclose(
        head_orthogonal(flipped, 2)[0], -head_orthogonal(gaussian, 2)[0], atol=ORTHONORMAL
    )


def test_a_row_of_zeros_leaves_no_blank_row():
    from oelm_lib.model.init import head_orthogonal

    gaussian = torch.randn(4, 8, generator=named_generator(1, "q"))
    gaussian[2] = 0
    assert torch.allclose(head_orthogonal(gaussian, 1).norm(dim=1), torch.ones(4), atol=ORTHONORMAL)


@pytest.mark.parametrize(("rows", "heads"), [(10, 3), (16, 1)])
def test_rows_that_cannot_be_split_into_heads_are_refused(rows, heads):
    from oelm_lib.model.init import head_orthogonal

    with pytest.raises(ValueError, match="cannot be split into"):
        head_orthogonal(torch.randn(rows, 8), heads)


def test_streams_differ_by_name_and_seed_only():
    assert named_seed(1, "a") == named_seed(1, "a")
    assert len({named_seed(1, "a"), named_seed(1, "b"), named_seed(2, "a")}) == 3


def test_scale_sets_row_norms_of_both_inits_from_one_draw(model_config):
    from oelm_lib.model.gpt import GPT
    from oelm_lib.model.init import head_orthogonal

    wide = {"d_model": 256, "num_heads": 4, "qk_scale": 2.0}
    normal = GPT(model_config(qk_init="normal", **wide)).blocks[0].attention.q_proj.weight
    orthogonal = GPT(model_config(qk_init="orthogonal", **wide)).blocks[0].attention.q_proj.weight
    assert torch.allclose(orthogonal.norm(dim=1), torch.full((256,), 2.0), atol=1e-5)
    assert normal.norm(dim=1).mean().item() == pytest.approx(2.0, rel=0.01)
    assert torch.allclose(orthogonal, 2 * head_orthogonal(normal, 4), atol=1e-5)


def test_the_logs_scale_gives_its_logit_deviation_at_any_width(model_config):
    from oelm_lib.model.gpt import GPT

    for width in (128, 512):
        attention = GPT(model_config(d_model=width, num_heads=width // 64)).blocks[0].attention
        x = torch.nn.functional.layer_norm(
            torch.randn(512, width, generator=named_generator(0, "x")), (width,)
        )
        q, k = attention.q_proj(x)[:, :64], attention.k_proj(x)[:, :64]
        assert (q @ k.T / 8).std().item() == pytest.approx(0.02**2 * 512, rel=0.15)


def test_low_rank_deltas_start_at_zero_with_rows_of_norm_one(model_config):
    from oelm_lib.model.gpt import GPT

    cfg = model_config(d_model=256, num_heads=4, delta_rank=8)
    attention = GPT(cfg).blocks[0].attention
    for side in ("q", "k"):
        rows = getattr(attention, f"{side}_delta_a").norm(dim=1)
        assert rows.mean().item() == pytest.approx(1.0, rel=0.05)
        assert (getattr(attention, f"{side}_delta_b") == 0).all()


def test_the_forget_gate_reads_content_with_small_gaussian_weights(model_config):
    from oelm_lib.model.gpt import GPT

    model = GPT(model_config(d_model=512, forget_gate=True))
    gates = torch.cat([block.attention.forget_gate.detach() for block in model.blocks])
    assert abs(gates.mean()) < 0.002
    assert gates.std().item() == pytest.approx(0.02, rel=0.1)
