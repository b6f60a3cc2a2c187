"""The bound holds: exactly, over every possible draw, also for a witness that reacts to the draw."""

from __future__ import annotations

import dataclasses
import itertools
import math
from collections.abc import Callable

import numpy as np
import pytest
from hypothesis import given, settings, strategies as st

from harness.scoring.certificate.bound import THETAS, bound, gains, largest_sum
from harness.scoring.certificate.forecast import Losses, expected, sample
from harness.scoring.certificate.sampling import Floats, ReportedScore, design, draw, mixture_share, select
from tests.harness.fakes.certificates import SEED, scored_text

ALPHA = 0.2  # large, so that failing too often shows in a text of ten tokens


def failure(
    reported: ReportedScore, n_probes: float, d_of: Callable[[tuple[bool, ...], float], float]
) -> float:
    """The exact probability that the bound is below the sum of d. d_of(selection so far, largest gain)
    -> d of the next token.
    """
    chosen = design(reported, n_probes)  # type: ignore[arg-type]
    failed = 0.0
    for drawn in itertools.product((False, True), repeat=reported.n_scored):
        pi = chosen.pi_T[1:]
        chance = float(np.prod(np.where(drawn, pi, 1 - pi)))
        d_T = np.array([0.0, *(d_of(drawn[:t], chosen.largest_T[t + 1]) for t in range(len(drawn)))])
        plan = select(chosen, np.array([1.0, *(0.0 if chosen_t else 1.0 for chosen_t in drawn)]))
        found = bound(plan, d_T[plan.asked_P], ALPHA).sampling * reported.n_scored
        failed += chance * (found < d_T.sum() - 1e-9)
    return failed


@given(
    shares=st.lists(st.floats(-1, 1), min_size=7, max_size=7),
    n_probes=st.sampled_from([1, 3, 6]),
    seed=st.integers(0, 5),
)
@settings(max_examples=25, deadline=None)
@pytest.mark.slow
def test_whatever_the_gains_the_bound_fails_no_oftener_than_it_says(
    shares: list[float], n_probes: int, seed: int
) -> None:
    assert (
        failure(scored_text(8, seed), n_probes, lambda past, largest: shares[len(past)] * largest)
        <= ALPHA + 1e-9
    )


@pytest.mark.parametrize(
    "strategy",
    [
        lambda past, largest: 0.0 if any(past) else largest,  # gains until it is asked
        lambda past, largest: largest if any(past) else 0.0,  # only afterwards
        lambda past, largest: (
            largest if sum(past) % 2 else -3 * largest
        ),  # responds far better than it reported, and far worse
        lambda past, largest: largest,  # refuses everything
    ],
    ids=["until asked", "after", "to and fro", "refuses"],
)
def test_nor_for_a_witness_whose_answers_depend_on_what_it_was_asked_before(
    strategy: Callable[[tuple[bool, ...], float], float],
) -> None:
    for n_probes in (1, 3, 6):
        assert failure(scored_text(9, 1), n_probes, strategy) <= ALPHA + 1e-9


def test_over_all_draws_the_product_is_on_average_what_the_proof_says() -> None:
    """E prod (1 - theta I d / pi) = prod (1 - theta d), read back out of the bound of a single theta."""
    reported = scored_text(10, 2)
    chosen = design(reported, 3)
    d_T, theta = 0.8 * chosen.largest_T, 0.9 * chosen.theta_max
    average = 0.0
    for drawn in itertools.product((False, True), repeat=reported.n_scored):
        plan = select(chosen, np.array([1.0, *(0.0 if chosen_t else 1.0 for chosen_t in drawn)]))
        ratio_R = (d_T[plan.asked_P] / plan.pi_P)[plan.selected_P]
        product = math.exp(-math.log(ALPHA) - theta * largest_sum([(1.0, theta)], ratio_R, ALPHA))
        average += product * float(np.prod(np.where(drawn, chosen.pi_T[1:], 1 - chosen.pi_T[1:])))
    assert average == pytest.approx(math.prod(1 - theta * d_T[1:]), rel=1e-9)


def test_the_bound_is_tight_a_program_with_the_gains_it_allows_escapes_nearly_as_often_as_alpha() -> None:
    """The gains that the bound allows where none was found are all missed about once in 1 / alpha draws."""
    reported = scored_text(2_000)
    chosen = design(reported, 20)
    plan = select(chosen, np.ones(2_000))
    allowed = bound(plan, np.zeros(len(plan.asked_P)), ALPHA).sampling * reported.n_scored
    order = np.argsort(-chosen.largest_T)
    taken = order[chosen.largest_T[order].cumsum() <= allowed]
    assert math.prod(1 - chosen.pi_T[taken]) == pytest.approx(ALPHA, rel=0.2)


def test_certain_tokens_are_summed_and_not_guessed() -> None:
    reported = scored_text(200)
    plan = draw(SEED, reported, 10_000)
    assert (plan.pi_P == 1).all()
    d_P = np.linspace(-0.1, 0.3, len(plan.asked_P))
    assert bound(plan, d_P).sampling == pytest.approx(d_P.sum() / 199)


def test_silence_costs_the_largest_gain_and_nothing_costs_more() -> None:
    plan = draw(SEED, scored_text(), 300)
    assert gains(plan, np.full(len(plan.asked_P), np.inf)) == pytest.approx(plan.largest_P)
    assert (gains(plan, np.full(len(plan.asked_P), 1e6)) <= plan.largest_P).all()


def test_a_gain_found_raises_the_bound_and_a_loss_lowers_it() -> None:
    plan = draw(SEED, scored_text(), 300)
    nothing = np.zeros(len(plan.asked_P))
    middle = bound(plan, nothing)
    assert (
        bound(plan, np.where(plan.selected_P, 0.5, 0)).total
        > middle.total
        > bound(plan, np.where(plan.selected_P, -0.5, 0)).total
    )
    assert bound(plan, np.where(plan.selected_P, 0, 0.5)).total == middle.total, "outliers do not count"
    assert middle.total == pytest.approx(middle.mixture + middle.sampling + middle.uncovered)


def test_a_mixture_of_thetas_suits_noise_better_than_one_and_hardly_costs_an_exact_program() -> None:
    reported = scored_text(60_000)
    plan = draw(SEED, reported, 20_000)
    ratio_R = plan.selected_P.nonzero()[0]
    noise = np.random.default_rng(0).normal(0, 1.0, len(ratio_R)) / plan.pi_P[ratio_R]
    thetas = [(weight, factor * plan.theta_max) for weight, factor in THETAS]
    alone = [(1.0, thetas[0][1])]
    assert largest_sum(thetas, noise, 0.008) < 0.6 * largest_sum(alone, noise, 0.008)
    assert largest_sum(thetas, np.zeros(1), 0.008) < 1.01 * largest_sum(alone, np.zeros(1), 0.008)


@given(ratios=st.lists(st.floats(-50, 1), max_size=20).map(np.array))
@settings(max_examples=60, deadline=None)
def test_the_bound_on_the_sum_solves_its_equation(ratios: Floats) -> None:
    thetas = list(THETAS)
    found = largest_sum(thetas, ratios, 0.01)
    total = sum(
        weight * math.exp(theta * found) * math.prod(1 - theta * ratio for ratio in ratios)
        for weight, theta in thetas
    )
    assert total == pytest.approx(100, rel=1e-6)


def test_the_formula_for_an_exact_program_is_what_the_bound_gives_it() -> None:
    reported = scored_text(40_000)
    for n_probes in (512, 4_096):
        plan = draw(SEED, reported, n_probes)
        found = bound(plan, np.zeros(len(plan.asked_P))).total
        assert found == pytest.approx(expected(sample(reported), n_probes), rel=0.1)


def test_the_reference_models_share_makes_the_bound_smallest() -> None:
    shares = [mixture_share(4_096) * factor for factor in (0.25, 0.5, 1, 2, 4)]
    losses = Losses(np.full(1, 2.0), np.exp(np.full(1, -3.5)))
    charged = [expected(losses, 4_096, eps) for eps in shares]
    assert charged.index(min(charged)) == 2


def test_mixing_in_the_reference_model_leaves_the_score_itself_alone() -> None:
    """Only the bound mixes in the reference model: reporting more than the reference model's loss changes no
    sum.
    """
    reported = scored_text()
    high = dataclasses.replace(reported, nats_T=reported.nats_T + np.float32(20))
    plan = draw(SEED, high, 300)
    assert np.isfinite(bound(plan, gains(plan, np.full(len(plan.asked_P), 25.0))).total)
