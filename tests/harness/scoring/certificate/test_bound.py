"""The bound holds: exactly, over every way that the coins can fall, also for a witness that watches them."""

from __future__ import annotations

import dataclasses
import itertools
import math
from collections.abc import Callable

import numpy as np
import pytest
from hypothesis import given, settings, strategies as st

from harness.scoring.certificate.bound import THETAS, bound, expected, gains, largest_sum
from harness.scoring.certificate.sampling import Floats, ReportedScore, design, draw, mixture_share, select
from tests.harness.scoring.certificate.certificates import SEED, scored_text

ALPHA = 0.2  # large, so that a bound that fails too often is seen to in a text of ten tokens


def failure(
    scored: ReportedScore, n_probes: float, d_of: Callable[[tuple[bool, ...], float], float]
) -> float:
    """The exact probability that the bound is below the sum of d. d_of(coins so far, largest gain) -> d of
    the next token."""
    chosen = design(scored, n_probes)  # type: ignore[arg-type]
    failed = 0.0
    for fallen in itertools.product((False, True), repeat=scored.n_scored):
        pi = chosen.pi_T[1:]
        chance = float(np.prod(np.where(fallen, pi, 1 - pi)))
        d_T = np.array([0.0, *(d_of(fallen[:t], chosen.largest_T[t + 1]) for t in range(len(fallen)))])
        plan = select(chosen, np.array([1.0, *(0.0 if heads else 1.0 for heads in fallen)]))
        found = bound(plan, d_T[plan.asked_P], ALPHA).sampling * scored.n_scored
        failed += chance * (found < d_T.sum() - 1e-9)
    return failed


@given(
    shares=st.lists(st.floats(-1, 1), min_size=7, max_size=7),
    n_probes=st.sampled_from([1, 3, 6]),
    seed=st.integers(0, 5),
)
@settings(max_examples=25, deadline=None)
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
        lambda past, largest: 0.0 if any(past) else largest,  # peeks until it has been asked
        lambda past, largest: largest if any(past) else 0.0,  # only afterwards
        lambda past, largest: (
            largest if sum(past) % 2 else -3 * largest
        ),  # answers far better than it claimed, and far worse
        lambda past, largest: largest,  # refuses everything
    ],
    ids=["until asked", "after", "to and fro", "refuses"],
)
def test_nor_for_a_witness_whose_answers_depend_on_what_it_was_asked_before(
    strategy: Callable[[tuple[bool, ...], float], float],
) -> None:
    for n_probes in (1, 3, 6):
        assert failure(scored_text(9, 1), n_probes, strategy) <= ALPHA + 1e-9


def test_over_all_the_coins_the_product_is_on_average_what_the_proof_says() -> None:
    """E prod (1 - theta I d / pi) = prod (1 - theta d), read back out of the bound of a single theta."""
    scored = scored_text(10, 2)
    chosen = design(scored, 3)
    d_T, theta = 0.8 * chosen.largest_T, 0.9 * chosen.theta_max
    average = 0.0
    for fallen in itertools.product((False, True), repeat=scored.n_scored):
        plan = select(chosen, np.array([1.0, *(0.0 if heads else 1.0 for heads in fallen)]))
        ratio_C = (d_T[plan.asked_P] / plan.pi_P)[plan.selected_P]
        product = math.exp(-math.log(ALPHA) - theta * largest_sum([(1.0, theta)], ratio_C, ALPHA))
        average += product * float(np.prod(np.where(fallen, chosen.pi_T[1:], 1 - chosen.pi_T[1:])))
    assert average == pytest.approx(math.prod(1 - theta * d_T[1:]), rel=1e-9)


def test_the_bound_is_as_small_as_one_can_be_a_bold_program_escapes_nearly_as_often_as_it_is_allowed_to() -> (
    None
):
    """The gains that the bound still allows a program in which none was found go unseen about once in 1 /
    alpha draws."""
    scored = scored_text(2_000)
    chosen = design(scored, 20)
    plan = select(chosen, np.ones(2_000))
    allowed = bound(plan, np.zeros(len(plan.asked_P)), ALPHA).sampling * scored.n_scored
    order = np.argsort(-chosen.largest_T)
    taken = order[chosen.largest_T[order].cumsum() <= allowed]
    assert math.prod(1 - chosen.pi_T[taken]) == pytest.approx(ALPHA, rel=0.2)


def test_certain_tokens_are_summed_and_not_guessed() -> None:
    scored = scored_text(200)
    plan = draw(SEED, scored, 10_000)
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
    assert bound(plan, np.where(plan.selected_P, 0, 0.5)).total == middle.total, "suspects do not count"
    assert middle.total == pytest.approx(middle.mixture + middle.sampling + middle.uncovered)


def test_a_mixture_of_thetas_serves_noise_better_than_any_one_and_costs_an_exact_program_next_to_nothing() -> (
    None
):
    scored = scored_text(60_000)
    plan = draw(SEED, scored, 20_000)
    ratio_C = plan.selected_P.nonzero()[0]
    noise = np.random.default_rng(0).normal(0, 1.0, len(ratio_C)) / plan.pi_P[ratio_C]
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
    scored = scored_text(40_000)
    gap = float((-np.log(scored.reference_T) - scored.nats_T)[1:].mean())
    for n_probes in (512, 4_096):
        plan = draw(SEED, scored, n_probes)
        found = bound(plan, np.zeros(len(plan.asked_P))).total
        assert found == pytest.approx(expected(gap, n_probes, plan.alpha, mixture_share(n_probes)), rel=0.1)


def test_the_share_of_the_judge_is_the_one_that_makes_the_bound_smallest() -> None:
    shares = [mixture_share(4_096) * factor for factor in (0.25, 0.5, 1, 2, 4)]
    charged = [expected(1.5, 4_096, 0.008, eps) for eps in shares]
    assert charged.index(min(charged)) == 2


def test_floors_leave_the_score_itself_alone() -> None:
    """The claims are bounded by the judge's share only in the bound: a claim dearer than the judge's price
    changes no sum."""
    scored = scored_text()
    dear = dataclasses.replace(scored, nats_T=scored.nats_T + np.float32(20))
    plan = draw(SEED, dear, 300)
    assert np.isfinite(bound(plan, gains(plan, np.full(len(plan.asked_P), 25.0))).total)
