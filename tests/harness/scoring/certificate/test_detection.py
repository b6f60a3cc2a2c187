"""The accusing tests and the certificate as a whole: exact programs pass, cheats fail, and where noise
decides it is unknown."""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Sequence
from typing import Any

import numpy as np
import pytest

from harness.scoring.certificate import detection
from harness.scoring.certificate.certificate import Certificate, certify
from harness.scoring.certificate.detection import Gains
from harness.scoring.certificate.responses import BoundaryPair, Responses
from harness.scoring.certificate.sampling import Floats, draw
from tests.harness.scoring.certificate.certificates import SEED, responses, scored_text

N_PROBES = 4_000
TEXT = scored_text()
BASE_T = TEXT.nats_T.astype(np.float64)


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


def noise(seed: int, sd: float, n: int = N_PROBES) -> Floats:
    return np.random.default_rng(seed).normal(0, sd, n)


def skew(seed: int, n: int = N_PROBES) -> Floats:
    """Seldom much above, mostly a little below, 0 on average."""
    return np.random.default_rng(seed).gamma(0.2, 0.1, n) - 0.02


def peeks(share: float, nats: float, n: int = N_PROBES) -> Floats:
    return nats * (np.random.default_rng(9).random(n) < share)


def blind(d: float | Floats, n: int = 200, chunk: int = 100) -> list[BoundaryPair]:
    d_B = np.broadcast_to(d, n)
    return [BoundaryPair(chunk * (i + 1), 2.0, 2.0 + float(d_B[i])) for i in range(n)]


def certificate(
    claims_T: Floats,
    first_T: Floats | None = None,
    second_T: Floats | None = None,
    *,
    n_probes: int = N_PROBES,
    boundaries: Sequence[BoundaryPair] = (),
    adapts: bool = False,
    one_witness: bool = False,
) -> Certificate:
    """Of a scorer that claims, and of witnesses that answer, these numbers; honest ones by default."""
    reported = dataclasses.replace(TEXT, nats_T=claims_T)
    plan = draw(SEED, reported, n_probes)
    first = responses(plan, BASE_T if first_T is None else first_T)
    second = responses(plan, BASE_T if second_T is None else second_T)
    witnesses = [first] if one_witness else [first, second]
    return certify(reported, plan, witnesses, boundaries=boundaries, adapts=adapts)


def outcome(made: Certificate, test: str) -> str:
    return {each.name: each.outcome for each in made.tests}[test]


# Each test alone


def test_every_test_passes_an_exact_program() -> None:
    exact = gains(np.zeros(N_PROBES), np.zeros(N_PROBES))
    tests = [
        detection.mean_test(exact, []),
        detection.sign_test(exact),
        detection.spike_test(exact),
        detection.outlier_test(exact, 1.0),
        detection.spread_test(exact),
        detection.boundary_test(blind(0.0), exact),
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


def test_a_gain_that_the_witness_pays_for_its_own_noise_is_no_gain() -> None:
    """Half the variance of a noisy row is paid on average, for log-probabilities are concave."""
    rows = [0.02 + noise(seed, 0.2) for seed in (1, 2)]
    assert detection.mean_test(gains(*rows), []).outcome == "pass"
    assert detection.mean_test(gains(rows[0], rows[0]), []).outcome == "unknown", (
        "noise that never shows is claimed, not shown"
    )


def test_a_plain_mean_of_nothing_is_no_gain_though_most_tokens_gain() -> None:
    found = detection.mean_test(gains(-skew(3)), [])
    assert (found.outcome, found.numbers["p_within"] < detection.LEVEL) == ("unknown", True)


def test_a_program_that_adapts_is_not_accused_of_a_shift_that_its_blind_rows_share() -> None:
    drift_C = 0.01 * np.ones(200)
    both = gains(np.repeat(drift_C, 20), adapts=True)
    assert detection.mean_test(both, blind(drift_C)).outcome == "unknown"
    assert detection.mean_test(both, blind(0.0)).outcome == "fail", (
        "the blind rows show no drift, so the claims were shaved"
    )
    assert detection.mean_test(both, []).outcome == "unknown", "nothing tells a drift from a shave"
    assert detection.mean_test(dataclasses.replace(both, adapts=False), []).outcome == "fail", (
        "nothing drifts in it"
    )


def test_blind_rows_are_set_against_the_probes_of_their_own_chunk() -> None:
    three = Gains(
        np.array([5, 105, 110, 250]),
        np.array([9.0, 1, 3, 5]),
        np.array([9.0, 1, 3, 5]),
        np.array([0, 1, 1, 2]),
        True,
        True,
    )
    boundaries = [BoundaryPair(100, 1.0, 1.5), BoundaryPair(200, 1.0, 1.0), BoundaryPair(300, 1.0, 9.0)]
    assert detection.less_boundary_gains(three, boundaries, 10.0).tolist() == [2 - 0.5, 5 - 0]


@pytest.mark.parametrize("sd", [0.0, 0.02])
def test_gains_on_some_tokens_without_losses_fail_by_sign(sd: float) -> None:
    common = peeks(0.02, 0.9)
    assert detection.sign_test(gains(common + noise(1, sd), common + noise(2, sd))).outcome == "fail"


def test_noise_that_is_skewed_in_the_witnesses_alone_is_not_accused() -> None:
    for seed in range(20):
        assert detection.sign_test(gains(skew(seed), skew(100 + seed))).outcome != "fail"
        assert detection.sign_test(gains(-skew(seed), -skew(100 + seed))).outcome != "fail"


def test_nor_in_scorer_and_witnesses_alike_nor_in_the_scorer_alone() -> None:
    for seed in range(20):
        scorer, first, second = skew(seed), skew(100 + seed), skew(200 + seed)
        for sign in (1, -1):
            assert (
                detection.sign_test(gains(sign * (first - scorer), sign * (second - scorer))).outcome
                != "fail"
            )
            assert detection.sign_test(gains(sign * scorer)).outcome != "fail"


def test_what_only_one_witness_says_accuses_nobody() -> None:
    first = peeks(0.05, 3.0) * (np.random.default_rng(4).random(N_PROBES) < 0.5)
    alone = gains(first, peeks(0.05, 3.0) - first)
    assert [test(alone).outcome for test in (detection.sign_test, detection.spike_test)] == ["pass", "pass"]


def test_sixteen_single_gains_are_proof_and_a_few_are_a_question() -> None:
    for count, expected in ((16, "fail"), (10, "unknown"), (9, "pass"), (0, "pass")):
        d_P = np.zeros(N_PROBES)
        d_P[:count] = 3.0
        assert detection.spike_test(gains(d_P, d_P.copy())).outcome == expected, count


def test_losses_as_large_as_the_gains_make_them_noise() -> None:
    d_P = np.concatenate([np.full(20, 3.0), np.full(20, -3.0), np.zeros(N_PROBES - 40)])
    assert detection.spike_test(gains(d_P)).outcome == "pass"


def test_suspects_never_convict() -> None:
    found = detection.outlier_test(gains(np.full(50, 5.0)), 1.0)
    assert (found.outcome, found.numbers["up"], len(found.numbers["positions"])) == ("unknown", 50, 8)


def test_blind_rows_that_differ_mean_another_program_unless_they_are_strays_or_noise() -> None:
    exact, noisy = gains(np.zeros(N_PROBES), np.zeros(N_PROBES)), gains(noise(1, 0.3), noise(2, 0.3))
    assert detection.boundary_test(blind(0.3), exact).outcome == "unknown"
    assert detection.boundary_test(blind(np.array([0.3] * 10 + [0.0] * 90), 100), exact).outcome == "pass"
    assert detection.boundary_test(blind(0.9), noisy).outcome == "pass"
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


# The certificate as a whole


def test_an_exact_program_passes_all_four_conditions() -> None:
    made = certificate(BASE_T, boundaries=[BoundaryPair(t, 2.0, 2.0) for t in range(256, 19_000, 256)])
    assert [condition.outcome for condition in made.conditions] == ["pass"] * 4
    assert not made.wants_second_round and not made.failed


@pytest.mark.parametrize(
    ("cheat", "test"),
    [
        (np.full(len(BASE_T), 0.01), "spikes"),
        (np.where(np.arange(len(BASE_T)) % 50 == 0, 0.01, BASE_T), "spikes"),
        (np.where(np.random.default_rng(3).random(len(BASE_T)) < 0.05, BASE_T - 0.4, BASE_T), "sign"),
        (BASE_T - 0.01, "mean"),
        (np.where(np.arange(len(BASE_T)) > 18_000, 0.5 * BASE_T, BASE_T), "spikes"),
    ],
    ids=["everywhere", "one in 50", "0.4 nats on 5 %", "0.01 nats everywhere", "the last tenth"],
)
def test_a_cheat_fails_by_its_test(cheat: Floats, test: str) -> None:
    made = certificate(np.maximum(cheat, 0.0))
    assert (outcome(made, test), made.conditions[0].outcome) == ("fail", "fail")
    assert {condition.outcome for condition in made.conditions[1:]} <= {"unknown"}


def test_too_few_peeks_for_proof_ask_for_a_second_look_and_say_so() -> None:
    claims_T = BASE_T.copy()
    claims_T[np.flatnonzero(BASE_T > 3)[::150]] = 0.01
    made = certificate(claims_T, n_probes=1_000)
    assert made.conditions[0].outcome == "unknown" and made.wants_second_round
    assert "a second round of 8,000 probes would decide it" in made.conditions[0].evidence


def test_noise_decides_nothing_and_accuses_nobody() -> None:
    noisy = [np.maximum(BASE_T + noise(seed, 0.05, len(BASE_T)), 0) for seed in (1, 2, 3)]
    assert certificate(*noisy).conditions[0].outcome == "pass"


def test_a_scorer_that_gains_0_04_nats_by_knowing_more_than_its_witness_does_not_pass() -> None:
    rng = np.random.default_rng(5)
    knows_T = np.where(rng.random(len(BASE_T)) < 0.1, rng.normal(-0.4, 0.8, len(BASE_T)), 0)
    made = certificate(np.maximum(BASE_T + knows_T, 0))
    assert made.conditions[0].outcome != "pass"


def test_what_is_not_answered_is_charged_and_never_passes() -> None:
    silent_T = np.where(np.arange(len(BASE_T)) % 10 == 0, np.nan, BASE_T)
    made, whole = certificate(BASE_T, silent_T), certificate(BASE_T)
    assert made.unanswered > 0 and made.G_nats > whole.G_nats
    assert made.conditions[0].outcome == "unknown"
    assert f"{made.unanswered:,} of {made.asked:,} probes got no answer" in made.conditions[0].evidence


def test_a_witness_that_says_nothing_at_all_leaves_everything_open() -> None:
    made = certificate(BASE_T, np.full(len(BASE_T), np.nan))
    assert [condition.outcome for condition in made.conditions] == ["unknown"] * 4
    assert (made.unanswered, made.largest_gain_position) == (made.asked, None)
    json.dumps(made.public(), allow_nan=False)


def test_one_witness_alone_accuses_nobody_and_passes_no_cheat() -> None:
    """Its own noise cannot be told from a gain: a second look must bring two."""
    cheat_T = np.where(np.arange(len(BASE_T)) % 50 == 0, 0.01, BASE_T)
    silent_T = np.full(len(BASE_T), np.nan)
    for made in (certificate(cheat_T, None, silent_T), certificate(cheat_T, one_witness=True)):
        assert (made.failed, made.conditions[0].outcome, made.wants_second_round) == (False, "unknown", True)
        assert "withheld: no second witness confirms it" in made.conditions[0].evidence
    assert certificate(cheat_T).failed
    assert not certificate(BASE_T, None, silent_T).failed


def test_an_honest_program_whose_only_witness_stumbles_is_not_accused() -> None:
    rng = np.random.default_rng(7)
    for _ in range(10):
        stumbles_T = BASE_T + 2 * (rng.random(len(BASE_T)) < 0.006)
        assert not certificate(BASE_T, stumbles_T, one_witness=True).failed


def test_a_second_witness_never_lowers_g() -> None:
    wild_T = BASE_T + noise(1, 3.0, len(BASE_T)).clip(-1)
    assert certificate(BASE_T, None, wild_T).G_nats == certificate(BASE_T).G_nats


def test_an_accusation_is_withheld_where_most_blind_rows_are_not_the_witnesses() -> None:
    off = [BoundaryPair(t, 2.0, 2.5) for t in range(256, 19_000, 256)]
    made = certificate(BASE_T - 0.01, boundaries=off)
    assert (outcome(made, "mean"), made.failed, made.conditions[0].outcome) == ("unknown", False, "unknown")
    few = [BoundaryPair(t, 2.0, 2.5 if t < 2_000 else 2.0) for t in range(256, 19_000, 256)]
    assert certificate(BASE_T - 0.01, boundaries=few).failed, "a few of them withhold nothing"


def test_an_honest_witness_that_learned_nothing_is_not_proof_against_its_scorer() -> None:
    worse_T = BASE_T + np.random.default_rng(1).gamma(1.0, 0.8, len(BASE_T))
    off = [BoundaryPair(t, 2.0, float(2.0 + worse_T[t] - BASE_T[t])) for t in range(256, 19_000, 256)]
    made = certificate(BASE_T, worse_T, worse_T, boundaries=off, adapts=True)
    assert (made.failed, made.conditions[0].outcome) == (False, "unknown")


def test_rows_off_in_the_second_witness_alone_are_found() -> None:
    plan = draw(SEED, TEXT, 500)
    good = responses(plan, BASE_T)
    off = Responses(good.nats_P, good.logsumexp_P + 0.002)
    assert certify(TEXT, plan, [good, off]).conditions[1].outcome == "fail"


@pytest.mark.parametrize(
    "claims_T",
    [
        np.zeros(len(BASE_T)),
        np.full(len(BASE_T), 500.0),
        np.full(len(BASE_T), np.float64(np.finfo(np.float32).max)),
        BASE_T,
    ],
)
@pytest.mark.parametrize(
    "first_T",
    [
        np.full(len(BASE_T), np.inf),
        np.full(len(BASE_T), np.nan),
        np.zeros(len(BASE_T)),
        np.full(len(BASE_T), 1e300),
    ],
)
@pytest.mark.filterwarnings("error")
def test_whatever_is_claimed_and_answered_the_certificate_is_plain_json(
    claims_T: Floats, first_T: Floats
) -> None:
    made = certificate(claims_T, first_T, first_T, n_probes=300, boundaries=[BoundaryPair(256, 2.0, np.inf)])
    shown = json.loads(json.dumps(made.public(), allow_nan=False))
    assert shown["conditions"][0]["condition"] == "C1"


def test_the_outcome_does_not_depend_on_which_token_is_called_which() -> None:
    """The tests see differences at places: shuffling the differences among the probes of one block changes
    nothing."""
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


def test_which_witness_came_first_changes_no_accusation_by_itself() -> None:
    cheat_T = np.where(np.arange(len(BASE_T)) % 40 == 0, 0.01, BASE_T)
    a_T, b_T = (np.maximum(BASE_T + noise(seed, 0.05, len(BASE_T)), 0) for seed in (1, 2))
    assert certificate(cheat_T, a_T, b_T).failed == certificate(cheat_T, b_T, a_T).failed is True


def test_answers_to_another_number_of_questions_are_refused() -> None:
    plan = draw(SEED, TEXT, 100)
    good, short = responses(plan, BASE_T), Responses(np.zeros(3), np.zeros(3))
    for witnesses in ([short], [good, short]):
        with pytest.raises(AssertionError, match="3 responses to"):
            certify(TEXT, plan, witnesses)
    for witnesses in ([], [good] * 3):
        with pytest.raises(AssertionError, match="expected one or two"):
            certify(TEXT, plan, witnesses)


def test_the_guarantee_names_the_numbers_it_rests_on() -> None:
    made = certificate(BASE_T, n_probes=500)
    for part in (
        f"drew {made.n_probes:,} of 19,999 tokens",
        "99% confidence",
        f"at most {made.G_bpb:.4f} bits per byte",
    ):
        assert part in made.guarantee


def test_a_text_that_another_scorer_claimed_is_another_plan() -> None:
    other = dataclasses.replace(TEXT, nats_T=np.maximum(BASE_T - 1, 0))
    assert draw(SEED, TEXT, 500).asked_P.tolist() != draw(SEED, other, 500).asked_P.tolist()
