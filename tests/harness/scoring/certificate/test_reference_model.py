"""The reference model: its probabilities equal those of a plain loop, are causal, and sum to one."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt
import pytest
from hypothesis import given, settings, strategies as st

from harness.scoring.certificate.reference_model import DISCOUNT, probabilities

Tokens = npt.NDArray[np.uint16]
VOCAB = 5
streams = st.lists(st.integers(0, VOCAB - 1), min_size=1, max_size=40).map(
    lambda ids: np.array(ids, np.uint16)
)


def plain(tokens_T: Tokens, vocab_size: int, order: int) -> list[float]:
    """The definition, token by token, from the text before each."""
    ids = [int(token) for token in tokens_T]
    found = []
    for t, token in enumerate(ids):
        probability = (ids[:t].count(token) + 0.5) / (t + vocab_size / 2)
        for length in range(1, min(order, t) + 1):
            after = [ids[s] for s in range(length, t) if ids[s - length : s] == ids[t - length : t]]
            if after:
                spread = DISCOUNT * len(set(after)) * probability
                probability = (max(after.count(token) - DISCOUNT, 0) + spread) / len(after)
        found.append(probability)
    return found


@pytest.mark.parametrize("order", [0, 1, 2, 3])
@given(tokens_T=streams)
@settings(max_examples=60, deadline=None)
def test_ranks_within_groups_give_what_a_loop_over_tokens_gives(order: int, tokens_T: Tokens) -> None:
    assert probabilities(tokens_T, VOCAB, order) == pytest.approx(plain(tokens_T, VOCAB, order), rel=1e-12)


@given(tokens_T=streams)
@settings(max_examples=60, deadline=None)
def test_over_every_token_that_could_come_next_the_probabilities_sum_to_one(tokens_T: Tokens) -> None:
    following = [probabilities(np.append(tokens_T, np.uint16(token)), VOCAB)[-1] for token in range(VOCAB)]
    assert sum(following) == pytest.approx(1, rel=1e-12)
    assert min(following) > 0


@given(tokens_T=streams, more_T=streams)
@settings(max_examples=60, deadline=None)
def test_no_probability_depends_on_what_comes_later(tokens_T: Tokens, more_T: Tokens) -> None:
    longer = probabilities(np.concatenate([tokens_T, more_T]), VOCAB)
    assert longer[: len(tokens_T)].tolist() == probabilities(tokens_T, VOCAB).tolist()


def test_a_long_text_of_a_large_vocabulary_is_predicted_as_by_the_loop() -> None:
    tokens_T = np.random.default_rng(3).zipf(1.3, 600).clip(max=8191).astype(np.uint16)
    assert probabilities(tokens_T, 8192) == pytest.approx(plain(tokens_T, 8192, 2), rel=1e-12)


def test_an_id_beyond_the_vocabulary_is_refused() -> None:
    with pytest.raises(AssertionError, match="token 7 of a vocabulary of 5"):
        probabilities(np.array([1, 7], np.uint16), VOCAB)
