"""Each test of detection.py alone: exact programs pass, gains fail, what noise may explain is unknown."""

from __future__ import annotations

import dataclasses
from typing import Any

import numpy as np
import pytest

from harness.scoring.certificate import detection
from harness.scoring.certificate.detection import Gains
from harness.scoring.certificate.responses import BoundaryPair
from harness.scoring.certificate.sampling import Floats
from tests.harness.fakes.certificates import noise

N_PROBES = 4_000


def gains(
    d1_P: Floats, d2_P: Floats | None = None, *, adapts: bool = False, chunk: int = 100, seed: int = 0
) -> Gains:
    positions_P = np.arange(len(d1_P)) * 5 + 1
    return Gains(
        positions_P,
        d1_P,
        d1_P if d2_P is None else d2_P,
        detection.blocks(positions_P, chunk, adapts),
        adapts,
        d2_P is not None,
    )


def skew(seed: int, n: int = N_PROBES) -> Floats:
    """Noise seldom much above, mostly a little below, 0 on average."""
    return np.random.default_rng(seed).gamma(0.2, 0.1, n) - 0.02


def peeks(share: float, nats: float, n: int = N_PROBES) -> Floats:
    return nats * (np.random.default_rng(9).random(n) < share)


def boundary_pairs(d: float | Floats, n: int = 200, chunk: int = 100) -> list[BoundaryPair]:
    d_B = np.broadcast_to(d, n)
    return [BoundaryPair(chunk * (i + 1), 2.0, 2.0 + float(d_B[i])) for i in range(n)]


def test_every_test_passes_an_exact_program() -> None:
    exact = gains(np.zeros(N_PROBES), np.zeros(N_PROBES))
    tests = [
        detection.mean_test(exact, []),
        detection.sign_test(exact),
        detection.spike_test(exact),
        detection.outlier_test(exact, 1.0),
        detection.spread_test(exact),
        detection.boundary_test(boundary_pairs(0.0), exact),
        detection.row_test(np.zeros(10)),
    ]
    assert {test.name: test.outcome for test in tests} == dict.fromkeys(
        ("mean", "sign", "spikes", "suspects", "spread", "borders", "rows"), "pass"
    )


@pytest.mark.parametrize("sd", [0.0, 0.0125])
def test_a_mean_gain_of_0_004_nats_fails_in_noise_too(sd: float) -> None:
    found = detection.mean_test(gains(0.004 + noise(1, sd), 0.004 + noise(2, sd)), [])
    assert found.outcome == "fail"
    assert found.numbers["mean_nats"] == pytest.approx(0.004, abs=1e-3)


def test_a_mean_gain_within_the_offset_is_left_to_g() -> None:
    assert detection.mean_test(gains(np.full(N_PROBES, 0.0009)), []).outcome == "pass"


def test_a_loss_by_the_witnesses_own_noise_is_no_gain() -> None:
    """A noisy row loses half its variance on average, since log-probabilities are concave."""
    rows = [0.02 + noise(seed, 0.2) for seed in (1, 2)]
    assert detection.mean_test(gains(*rows), []).outcome == "pass"
    assert detection.mean_test(gains(rows[0], rows[0]), []).outcome == "unknown", (
        "witnesses that agree show no noise"
    )


def test_a_plain_mean_of_nothing_is_no_gain_though_most_tokens_gain() -> None:
    found = detection.mean_test(gains(-skew(3)), [])
    assert (found.outcome, found.numbers["p_within"] < detection.LEVEL) == ("unknown", True)


def test_a_program_that_adapts_does_not_fail_by_a_shift_that_its_boundary_predictions_share() -> None:
    drift_C = 0.01 * np.ones(200)
    both = gains(np.repeat(drift_C, 20), adapts=True)
    assert detection.mean_test(both, boundary_pairs(drift_C)).outcome == "unknown"
    assert detection.mean_test(both, boundary_pairs(0.0)).outcome == "fail", (
        "the boundary predictions show no drift, so the reported losses were lowered"
    )
    assert detection.mean_test(both, []).outcome == "unknown", "nothing tells a drift from a gain"
    assert detection.mean_test(dataclasses.replace(both, adapts=False), []).outcome == "fail", (
        "a program that does not adapt has no drift"
    )


def test_boundary_predictions_are_compared_with_the_probes_of_their_own_chunk() -> None:
    three = Gains(
        np.array([5, 105, 110, 250]),
        np.array([9.0, 1, 3, 5]),
        np.array([9.0, 1, 3, 5]),
        np.array([0, 1, 1, 2]),
        True,
        True,
    )
    boundaries = [BoundaryPair(100, 1.0, 1.5), BoundaryPair(200, 1.0, 1.0), BoundaryPair(300, 1.0, 9.0)]
    assert detection.gains_minus_boundary(three, boundaries, 10.0).tolist() == [2 - 0.5, 5 - 0]


@pytest.mark.parametrize("sd", [0.0, 0.02])
def test_gains_on_some_tokens_without_losses_fail_by_sign(sd: float) -> None:
    common = peeks(0.02, 0.9)
    assert detection.sign_test(gains(common + noise(1, sd), common + noise(2, sd))).outcome == "fail"


@pytest.mark.slow
def test_noise_that_is_skewed_in_the_witnesses_alone_does_not_fail() -> None:
    for seed in range(20):
        assert detection.sign_test(gains(skew(seed), skew(100 + seed))).outcome != "fail"
        assert detection.sign_test(gains(-skew(seed), -skew(100 + seed))).outcome != "fail"


@pytest.mark.slow
def test_nor_does_noise_skewed_in_scorer_and_witnesses_alike_or_in_the_scorer_alone() -> None:
    for seed in range(20):
        scorer, first, second = skew(seed), skew(100 + seed), skew(200 + seed)
        for sign in (1, -1):
            assert (
                detection.sign_test(gains(sign * (first - scorer), sign * (second - scorer))).outcome
                != "fail"
            )
            assert detection.sign_test(gains(sign * scorer)).outcome != "fail"


def test_gains_in_only_one_witness_pass() -> None:
    first = peeks(0.05, 3.0) * (np.random.default_rng(4).random(N_PROBES) < 0.5)
    alone = gains(first, peeks(0.05, 3.0) - first)
    assert [test(alone).outcome for test in (detection.sign_test, detection.spike_test)] == ["pass", "pass"]


def test_sixteen_single_gains_are_proof_and_ten_are_unknown() -> None:
    for count, expected in ((16, "fail"), (10, "unknown"), (9, "pass"), (0, "pass")):
        d_P = np.zeros(N_PROBES)
        d_P[:count] = 3.0
        assert detection.spike_test(gains(d_P, d_P.copy())).outcome == expected, count


def test_losses_as_large_as_the_gains_make_them_noise() -> None:
    d_P = np.concatenate([np.full(20, 3.0), np.full(20, -3.0), np.zeros(N_PROBES - 40)])
    assert detection.spike_test(gains(d_P)).outcome == "pass"


def test_outliers_never_fail() -> None:
    found = detection.outlier_test(gains(np.full(50, 5.0)), 1.0)
    assert (found.outcome, found.numbers["up"], len(found.numbers["positions"])) == ("unknown", 50, 8)


def test_boundary_predictions_that_differ_mean_another_program_unless_few_or_noisy() -> None:
    exact, noisy = gains(np.zeros(N_PROBES), np.zeros(N_PROBES)), gains(noise(1, 0.3), noise(2, 0.3))
    assert detection.boundary_test(boundary_pairs(0.3), exact).outcome == "unknown"
    assert (
        detection.boundary_test(boundary_pairs(np.array([0.3] * 10 + [0.0] * 90), 100), exact).outcome
        == "pass"
    )
    assert detection.boundary_test(boundary_pairs(0.9), noisy).outcome == "pass"
    assert detection.boundary_test([BoundaryPair(100, 2.0, np.inf)], exact).outcome == "unknown", (
        "a row that did not come"
    )
    assert detection.boundary_test([], exact).outcome == "pass"


def test_a_witness_that_matches_on_average_and_not_token_by_token_is_not_the_program_that_scored() -> None:
    rare = np.where(np.random.default_rng(1).random(N_PROBES) < 0.02, noise(3, 2.0), 0.0)
    for d_P in (noise(1, 0.3), rare):
        assert detection.spread_test(gains(d_P, d_P.copy())).outcome == "unknown"
    assert detection.spread_test(gains(noise(1, 0.3), noise(2, 0.3))).outcome == "pass", (
        "it differs from itself as much"
    )


@pytest.mark.parametrize(
    ("sums", "expected"),
    [
        ([0.0, 9e-4, -9e-4], "pass"),
        ([0.0, 1.1e-3], "fail"),
        ([0.0, -1.1e-3], "fail"),
        ([0.0, np.inf], "fail"),
        ([0.0, np.nan], "pass"),
        ([np.nan], "unknown"),
        ([], "unknown"),
    ],
)
def test_rows_are_distributions_within_the_tolerance(sums: list[float], expected: str) -> None:
    assert detection.row_test(np.array(sums)).outcome == expected


def test_tests_of_too_few_probes_say_nothing() -> None:
    for n in (1, 2, 5):
        few = gains(np.full(n, 0.5), np.full(n, 0.5))
        assert {
            test.outcome
            for test in (detection.mean_test(few, []), detection.sign_test(few), detection.spike_test(few))
        } <= {"pass", "unknown"}


def test_the_outcome_does_not_depend_on_which_token_is_called_which() -> None:
    """Shuffling the differences among the probes of one block changes nothing."""
    d_P = 0.002 + noise(1, 0.02)
    one = gains(d_P, adapts=True)
    order = np.concatenate(
        [
            np.random.default_rng(i).permutation(part)
            for i, part in enumerate(np.split(np.arange(N_PROBES), np.flatnonzero(np.diff(one.blocks_P)) + 1))
        ]
    )
    other = dataclasses.replace(one, d1_P=d_P[order], d2_P=d_P[order])
    found: list[list[Any]] = [
        [detection.mean_test(each, []), detection.sign_test(each), detection.spread_test(each)]
        for each in (one, other)
    ]
    for left, right in zip(*found, strict=True):
        assert left.outcome == right.outcome
        assert {key: value for key, value in left.numbers.items() if value is not None} == pytest.approx(
            {key: value for key, value in right.numbers.items() if value is not None}
        )
