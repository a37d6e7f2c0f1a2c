"""Measures on arrays whose answers are known."""

import numpy as np
import pytest

from oelm_lib.explore import measures

T = 12
UNIFORM = np.tril(np.ones((T, T))) / np.arange(1, T + 1)[:, None]
SELF = np.eye(T)
PREVIOUS = np.eye(T, k=-1)
PREVIOUS[0, 0] = 1.0
PERIOD = 5  # of 1 + 2 * 5 tokens
RNG = np.random.default_rng(0)


def looking_back(distance: int, length: int = 1 + 2 * PERIOD) -> np.ndarray:
    """A map whose queries give all to the token `distance` before, the first ones to token 0."""
    maps = np.zeros((length, length))
    maps[np.arange(length), np.maximum(np.arange(length) - distance, 0)] = 1.0
    return maps


def test_uniform_attention_has_entropy_one_and_one_key_none():
    assert measures.normalised_entropy(np.stack([UNIFORM, SELF, PREVIOUS])) == pytest.approx(
        [1.0, 0.0, 0.0]
    )


def test_concentration_is_one_for_one_key_and_less_the_more_keys_there_are():
    expected = np.sqrt((1 / np.arange(1, T + 1)).mean())
    assert measures.concentration(np.stack([SELF, UNIFORM])) == pytest.approx([1.0, expected])


def test_shares_of_first_local_and_previous_tokens():
    sink = np.zeros((T, T))
    sink[:, 0] = 1.0
    maps = np.stack([sink, UNIFORM, SELF, PREVIOUS])
    harmonic = (1 / np.arange(2, T + 1)).mean()
    assert measures.first_token_mass(maps) == pytest.approx([1.0, harmonic, 0.0, 1 / (T - 1)])
    assert measures.local_mass(maps) == pytest.approx(
        [0.0, (4 / np.arange(5, T + 1)).mean(), 1.0, 1.0]
    )
    assert measures.previous_token_score(maps) == pytest.approx([1 / (T - 1), harmonic, 0.0, 1.0])


def test_an_induction_head_scores_one_and_a_duplicate_token_head_too():
    maps = np.stack([looking_back(PERIOD - 1), looking_back(PERIOD), looking_back(1)])
    assert measures.induction_score(maps, PERIOD) == pytest.approx([1.0, 0.0, 0.0])
    assert measures.duplicate_token_score(maps, PERIOD) == pytest.approx([0.0, 1.0, 0.0])


def test_repeated_tokens_stand_twice_after_the_first():
    tokens = measures.repeated_tokens(RNG, np.arange(3, 9), 1, PERIOD, 4)
    assert tokens.shape == (4, 1 + 2 * PERIOD)
    assert (tokens[:, 0] == 1).all()
    assert (tokens[:, 1 : PERIOD + 1] == tokens[:, PERIOD + 1 :]).all()
    assert set(tokens[:, 1:].flat) <= set(range(3, 9))


def test_copying_mass_is_what_keys_get_that_hold_the_next_token():
    tokens = np.array([[5, 6, 7, 5, 6, 9]])  # the next token stood earlier for queries 2 and 3
    maps = np.zeros((1, 2, 5, 5))
    maps[0, 0, 2, 0] = maps[0, 0, 3, 1] = 1.0
    maps[0, 1, 2, 0], maps[0, 1, 3, 3] = 0.5, 1.0
    assert measures.copying_mass(maps, tokens) == pytest.approx([1.0, 0.25])


def test_in_context_score_is_the_late_loss_minus_the_early_one():
    losses = np.tile(np.linspace(4.0, 0.0, 512), (3, 1))
    assert measures.in_context_score(losses) == pytest.approx(-450 * 4 / 511)


@pytest.mark.parametrize("n", [1, 2, 3])
def test_repeats_finds_ngrams_that_stood_earlier_in_the_window(n):
    tokens = RNG.integers(0, 4, (6, 20))
    expected = [
        [
            i + 1 >= n
            and any(
                (row[j - n + 1 : j + 1] == row[i - n + 1 : i + 1]).all() for j in range(n - 1, i)
            )
            for i in range(1, 20)
        ]
        for row in tokens
    ]
    assert (measures.repeats(tokens, n) == np.array(expected)).all()


def test_effective_rank_counts_equal_singular_values():
    assert measures.effective_rank(np.array([[2.0, 2, 2, 2], [1, 0, 0, 0]])) == pytest.approx(
        [4.0, 1.0]
    )


def test_orthonormal_queries_and_keys_have_effective_rank_d_head_and_no_orthogonality_error():
    query, key = (np.linalg.qr(RNG.normal(size=(2, 64, 8)))[0].swapaxes(1, 2) for _ in range(2))
    rotated = np.linalg.qr(RNG.normal(size=(8, 8)))[0] @ query
    assert measures.orthogonality_error(3 * query) == pytest.approx([0, 0], abs=1e-12)
    assert measures.orthogonality_error(RNG.normal(size=(2, 8, 64))).min() > 0.1
    assert measures.effective_rank(
        measures.qk_spectrum(query, rotated, np.ones(64))
    ) == pytest.approx([8.0, 8.0])
    full = np.einsum("d,hkd,hke,e->hde", np.arange(64.0), query, key, np.arange(64.0))
    values = measures.qk_spectrum(query, key, np.arange(64.0))
    assert values == pytest.approx(np.linalg.svd(full, compute_uv=False)[:, :8])
