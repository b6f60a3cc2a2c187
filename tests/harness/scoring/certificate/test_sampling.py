"""Which tokens are selected: independent of the program, in proportion to what can be gained, the
same for the same seed.
"""

from __future__ import annotations

import dataclasses
import hashlib

import numpy as np
import pytest
from hypothesis import given, settings, strategies as st

from harness.scoring.certificate import sampling
from harness.scoring.certificate.sampling import (
    BLOCK_TOKENS,
    LEAST_WEIGHT_SHARE,
    design,
    draw,
    inclusion,
    mixed,
    uniforms,
)
from tests.harness.fakes.certificates import SEED, scored_text

weights = st.lists(st.floats(1e-3, 1e3), min_size=1, max_size=30).map(np.array)


def test_the_random_numbers_are_the_53_high_bits_of_shake_256_block_by_block() -> None:
    u_T = uniforms(SEED, BLOCK_TOKENS + 3)
    second = hashlib.shake_256(b"pgolf coins 1" + SEED + (1).to_bytes(8, "little")).digest(24)
    assert u_T[BLOCK_TOKENS:].tolist() == [
        (int.from_bytes(second[i : i + 8], "little") >> 11) / 2**53 for i in (0, 8, 16)
    ]
    assert u_T[:1000].tolist() == uniforms(SEED, 1000).tolist()
    assert u_T.min() >= 0 and u_T.max() < 1 and abs(u_T.mean() - 0.5) < 0.001


@given(weight_T=weights, share=st.floats(0.01, 1.2))
@settings(max_examples=200, deadline=None)
def test_inclusion_is_in_proportion_to_the_weight_until_it_is_certain(
    weight_T: sampling.Floats, share: float
) -> None:
    n_probes = share * len(weight_T)
    pi_T, scale = inclusion(weight_T, n_probes)
    assert pi_T.sum() == pytest.approx(min(n_probes, len(weight_T)))
    assert pi_T == pytest.approx(np.minimum(1, scale * weight_T) if share < 1 else np.ones(len(weight_T)))


def test_no_row_can_cost_more_than_the_largest_gain_that_is_charged() -> None:
    chosen = design(scored_text(), 500)
    ceiling_T = (
        mixed(np.full(len(chosen.pi_T), np.inf), chosen.reported.reference_T, chosen.eps) - chosen.mixed_T
    )
    assert chosen.largest_T[1:] == pytest.approx(ceiling_T[1:], abs=1e-9)
    assert (1 / chosen.theta_max >= chosen.largest_T[1:] / chosen.pi_T[1:] - 1e-9).all()


def test_half_the_plans_probability_goes_where_half_of_what_can_be_gained_is() -> None:
    chosen = design(scored_text(), 500)
    weight_T = np.maximum(chosen.largest_T[1:], LEAST_WEIGHT_SHARE * chosen.largest_T[1:].mean())
    assert chosen.pi_T[1:] / weight_T == pytest.approx(np.full(len(weight_T), chosen.theta_max))
    assert chosen.pi_T[0] == 0


def test_the_number_asked_is_near_the_number_wanted_and_the_first_token_never_is() -> None:
    reported = scored_text()
    counts = [int(draw(bytes([i]) * 32, reported, 400).selected_P.sum()) for i in range(30)]
    assert abs(np.mean(counts) - 400) < 20
    assert all(0 not in draw(bytes([i]) * 32, reported, 400).asked_P for i in range(5))


def test_a_second_round_selects_again_all_that_the_first_one_selected() -> None:
    reported = scored_text()
    first, second = draw(SEED, reported, 200), draw(SEED, reported, 1_600, round_number=2)
    assert set(first.asked_P[first.selected_P]) <= set(second.asked_P[second.selected_P])
    assert (first.alpha, second.alpha) == (0.008, 0.002)


def test_a_bounded_witness_is_asked_nothing_beyond_its_reach_which_counts_at_its_largest_gain() -> None:
    reported = scored_text()
    plan = draw(SEED, reported, 500, covered=5_000)
    assert plan.asked_P.max() < 5_000
    assert plan.uncovered_nats == pytest.approx(design(reported, 500).largest_T[5_000:].sum())
    assert draw(SEED, reported, 500).uncovered_nats == 0


def test_the_tokens_reported_furthest_below_the_reference_model_are_asked_whatever_the_draw() -> None:
    reported = scored_text()
    nats_T = reported.nats_T.copy()
    hard = np.argsort(reported.reference_T)[:20]
    nats_T[hard] = 0.01
    for seed in (b"a" * 32, b"b" * 32):
        plan = draw(seed, dataclasses.replace(reported, nats_T=nats_T), 200)
        assert set(hard[hard > 0]) <= set(plan.asked_P)


def test_a_seed_of_another_length_and_an_empty_text_are_refused() -> None:
    with pytest.raises(AssertionError, match="31 bytes"):
        uniforms(b"x" * 31, 10)
    with pytest.raises(AssertionError, match="0 probes"):
        design(scored_text(100), 0)


def test_losses_too_high_for_any_gain_are_still_sampled() -> None:
    reported = scored_text()
    chosen = design(dataclasses.replace(reported, nats_T=np.full(len(reported.tokens_T), 1e4)), 500)
    assert chosen.largest_T.max() == 0
    assert chosen.pi_T[1:] == pytest.approx(np.full(reported.n_scored, 500 / reported.n_scored))
