"""The certificate as a whole: exact programs pass, cheats fail by the test meant for them, noise is
unknown.
"""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Sequence

import numpy as np
import pytest

from harness.scoring.certificate.certificate import Certificate, certify
from harness.scoring.certificate.responses import BoundaryPair, Responses
from harness.scoring.certificate.sampling import Floats, draw
from tests.harness.fakes.certificates import SEED, noise, responses, scored_text

N_PROBES = 4_000
TEXT = scored_text()
BASE_T = TEXT.nats_T.astype(np.float64)


def certificate(
    reported_T: Floats,
    first_T: Floats | None = None,
    second_T: Floats | None = None,
    *,
    n_probes: int = N_PROBES,
    boundaries: Sequence[BoundaryPair] = (),
    adapts: bool = False,
    one_witness: bool = False,
) -> Certificate:
    """The certificate of a scorer that reports, and of witnesses that respond with, these losses;
    honest ones by default.
    """
    reported = dataclasses.replace(TEXT, nats_T=reported_T)
    plan = draw(SEED, reported, n_probes)
    first = responses(plan, BASE_T if first_T is None else first_T)
    second = responses(plan, BASE_T if second_T is None else second_T)
    witnesses = [first] if one_witness else [first, second]
    return certify(reported, plan, witnesses, boundaries=boundaries, adapts=adapts)


def outcome(made: Certificate, test: str) -> str:
    return {each.name: each.outcome for each in made.tests}[test]


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


def test_too_few_peeks_for_proof_ask_for_a_second_round() -> None:
    reported_T = BASE_T.copy()
    reported_T[np.flatnonzero(BASE_T > 3)[::150]] = 0.01
    made = certificate(reported_T, n_probes=1_000)
    assert made.conditions[0].outcome == "unknown" and made.wants_second_round
    assert "a second round of 8,000 probes would decide it" in made.conditions[0].evidence


def test_noise_alone_passes() -> None:
    noisy = [np.maximum(BASE_T + noise(seed, 0.05, len(BASE_T)), 0) for seed in (1, 2, 3)]
    assert certificate(*noisy).conditions[0].outcome == "pass"


def test_a_scorer_that_gains_0_04_nats_by_knowing_more_than_its_witness_does_not_pass() -> None:
    rng = np.random.default_rng(5)
    knows_T = np.where(rng.random(len(BASE_T)) < 0.1, rng.normal(-0.4, 0.8, len(BASE_T)), 0)
    made = certificate(np.maximum(BASE_T + knows_T, 0))
    assert made.conditions[0].outcome != "pass"


def test_what_is_not_answered_counts_as_a_gain_and_never_passes() -> None:
    silent_T = np.where(np.arange(len(BASE_T)) % 10 == 0, np.nan, BASE_T)
    made, whole = certificate(BASE_T, silent_T), certificate(BASE_T)
    assert made.unanswered > 0 and made.G_nats > whole.G_nats
    assert made.conditions[0].outcome == "unknown"
    assert f"{made.unanswered:,} of {made.asked:,} questions got no answer" in made.conditions[0].evidence


def test_a_witness_that_never_answers_leaves_everything_open() -> None:
    made = certificate(BASE_T, np.full(len(BASE_T), np.nan))
    assert [condition.outcome for condition in made.conditions] == ["unknown"] * 4
    assert (made.unanswered, made.largest_gain_position) == (made.asked, None)
    json.dumps(made.public(), allow_nan=False)


def test_one_witness_alone_fails_nobody_and_passes_no_cheat() -> None:
    """Its own noise cannot be told from a gain: a second round must have two witnesses."""
    cheat_T = np.where(np.arange(len(BASE_T)) % 50 == 0, 0.01, BASE_T)
    silent_T = np.full(len(BASE_T), np.nan)
    for made in (certificate(cheat_T, None, silent_T), certificate(cheat_T, one_witness=True)):
        assert (made.failed, made.conditions[0].outcome, made.wants_second_round) == (False, "unknown", True)
        assert "withheld: no second witness confirms it" in made.conditions[0].evidence
    assert certificate(cheat_T).failed
    assert not certificate(BASE_T, None, silent_T).failed


def test_an_honest_program_whose_only_witness_stumbles_does_not_fail() -> None:
    rng = np.random.default_rng(7)
    for _ in range(10):
        stumbles_T = BASE_T + 2 * (rng.random(len(BASE_T)) < 0.006)
        assert not certificate(BASE_T, stumbles_T, one_witness=True).failed


def test_a_second_witness_never_lowers_g() -> None:
    wild_T = BASE_T + noise(1, 3.0, len(BASE_T)).clip(-1)
    assert certificate(BASE_T, None, wild_T).G_nats == certificate(BASE_T).G_nats


def test_a_failure_is_withheld_where_most_boundary_predictions_are_not_the_witnesses() -> None:
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
    "reported_T",
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
def test_whatever_is_reported_and_answered_the_certificate_is_plain_json(
    reported_T: Floats, first_T: Floats
) -> None:
    made = certificate(
        reported_T, first_T, first_T, n_probes=300, boundaries=[BoundaryPair(256, 2.0, np.inf)]
    )
    shown = json.loads(json.dumps(made.public(), allow_nan=False))
    assert shown["conditions"][0]["condition"] == "C1"


def test_a_cheat_fails_whichever_witness_comes_first() -> None:
    cheat_T = np.where(np.arange(len(BASE_T)) % 40 == 0, 0.01, BASE_T)
    a_T, b_T = (np.maximum(BASE_T + noise(seed, 0.05, len(BASE_T)), 0) for seed in (1, 2))
    assert certificate(cheat_T, a_T, b_T).failed == certificate(cheat_T, b_T, a_T).failed is True


def test_responses_to_another_number_of_probes_are_refused() -> None:
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


def test_another_reported_score_gives_another_plan() -> None:
    other = dataclasses.replace(TEXT, nats_T=np.maximum(BASE_T - 1, 0))
    assert draw(SEED, TEXT, 500).asked_P.tolist() != draw(SEED, other, 500).asked_P.tolist()
