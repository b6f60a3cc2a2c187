"""Made-up programs on real numbers, for the simulations: what a scorer claims and what two witnesses would
answer.

A world takes the honest nats of a text and returns (claims_T, first_T, second_T); an infinite answer is a
refusal. The honest ones differ from themselves by noise alone, the others gain by means that a strict
predictor does not have."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from typing import NamedTuple

import numpy as np
import numpy.typing as npt

from harness.scoring.certificate.sampling import Floats, ReportedScore, design

CHUNK_TOKENS = 2_048
Rng = np.random.Generator


class Scenario(NamedTuple):
    """`adapts`: whether noise may be shared within a chunk, so that chunks are the blocks."""

    name: str
    make: Callable[[Rng, ReportedScore, int], tuple[Floats, Floats, Floats]]
    adapts: bool = False


def _independent(
    noise: Callable[[Rng, Floats], Floats],
) -> Callable[[Rng, ReportedScore, int], tuple[Floats, Floats, Floats]]:
    """Scorer and witnesses each with noise of their own."""

    def make(rng: Rng, scored: ReportedScore, _: int) -> tuple[Floats, Floats, Floats]:
        base_T = scored.nats_T.astype(np.float64)
        first, second, third = (np.maximum(base_T + noise(rng, base_T), 0) for _ in range(3))
        return first, second, third

    return make


def _scorer_only(
    noise: Callable[[Rng, Floats], Floats],
) -> Callable[[Rng, ReportedScore, int], tuple[Floats, Floats, Floats]]:
    """Two witnesses on one kernel agree exactly; the scorer ran in another shape."""

    def make(rng: Rng, scored: ReportedScore, _: int) -> tuple[Floats, Floats, Floats]:
        base_T = scored.nats_T.astype(np.float64)
        return np.maximum(base_T + noise(rng, base_T), 0), base_T, base_T

    return make


def _witness_only(
    noise: Callable[[Rng, Floats], Floats],
) -> Callable[[Rng, ReportedScore, int], tuple[Floats, Floats, Floats]]:
    def make(rng: Rng, scored: ReportedScore, _: int) -> tuple[Floats, Floats, Floats]:
        base_T = scored.nats_T.astype(np.float64)
        return base_T, np.maximum(base_T + noise(rng, base_T), 0), np.maximum(base_T + noise(rng, base_T), 0)

    return make


def _rounding(rng: Rng, base_T: Floats) -> Floats:
    return rng.normal(0, 1e-6, len(base_T))


def _bf16(rng: Rng, base_T: Floats) -> Floats:
    return rng.normal(0, 0.0125, len(base_T))


def _heavy(rng: Rng, base_T: Floats) -> Floats:
    return 0.01 * rng.standard_t(2, len(base_T))


def _glitches(rng: Rng, base_T: Floats) -> Floats:
    return np.where(rng.random(len(base_T)) < 0.001, rng.normal(0, 2, len(base_T)), _rounding(rng, base_T))


def _fallback(rng: Rng, base_T: Floats) -> Floats:
    """Two tokens in a thousand come from a weaker predictor: dearer by about a nat."""
    return np.where(rng.random(len(base_T)) < 0.002, rng.gamma(2.0, 0.5, len(base_T)), _rounding(rng, base_T))


def _dropout(rng: Rng, base_T: Floats) -> Floats:
    """Left on: logits off by 0.2, which also costs half their variance."""
    return 0.2 * rng.normal(0, 1, len(base_T)) * np.minimum(1, base_T) + 0.02 * np.minimum(1, base_T)


def _by_chunk(rng: Rng, base_T: Floats) -> Floats:
    """Adaptation that went another way: a shift that the whole chunk shares, and some for each token."""
    shift_C = rng.normal(0, 0.003, len(base_T) // CHUNK_TOKENS + 1)
    return np.repeat(shift_C, CHUNK_TOKENS)[: len(base_T)] + rng.normal(0, 0.0125, len(base_T))


def _drift(step: float) -> Callable[[Rng, Floats], Floats]:
    """The same, wandering from chunk to chunk by `step` nats instead of returning."""

    def drift(rng: Rng, base_T: Floats) -> Floats:
        walk_C = rng.normal(0, step, len(base_T) // CHUNK_TOKENS + 1).cumsum()
        return np.repeat(walk_C, CHUNK_TOKENS)[: len(base_T)] + rng.normal(0, 0.0125, len(base_T))

    return drift


def _by_batch(rng: Rng, base_T: Floats) -> Floats:
    """Another batch size: noise that runs of 64 tokens share."""
    shift_B = rng.normal(0, 0.005, len(base_T) // 64 + 1)
    return np.repeat(shift_B, 64)[: len(base_T)] + rng.normal(0, 0.02, len(base_T))


HONEST = (
    Scenario("exact but for rounding", _independent(_rounding)),
    Scenario("bf16 numbers, rows sum to 1", _independent(_bf16)),
    Scenario("heavy tails (Student, 2 df)", _independent(_heavy)),
    Scenario("glitches of 2 nats, 0.1 %", _independent(_glitches)),
    Scenario("rare weaker fallback, 0.2 %", _independent(_fallback)),
    Scenario("dropout left on", _independent(_dropout)),
    Scenario("scorer in other batches, witnesses agree", _scorer_only(_by_batch)),
    Scenario("witnesses noisier than scorer", _witness_only(_dropout)),
    Scenario("adaptation, noise shared by chunk", _independent(_by_chunk), adapts=True),
    Scenario("adaptation, witnesses agree", _scorer_only(_by_chunk), adapts=True),
    Scenario("adaptation, drifting", _independent(_drift(3e-4)), adapts=True),
)


def _regressing(rng: Rng, base_T: Floats) -> Floats:
    """A shift that chunks share with their neighbours and that returns to 0: autoregressive, 0.9 a chunk."""
    shift_C = rng.normal(0, 1e-3, len(base_T) // CHUNK_TOKENS + 1)
    for i in range(1, len(shift_C)):
        shift_C[i] += 0.9 * shift_C[i - 1]
    return np.repeat(shift_C, CHUNK_TOKENS)[: len(base_T)] + rng.normal(0, 0.0125, len(base_T))


def _skewed(rng: Rng, base_T: Floats) -> Floats:
    """Seldom much dearer, mostly a little cheaper; 0 on average."""
    return rng.gamma(0.2, 0.1, len(base_T)) - 0.02


def _skewed_the_other_way(rng: Rng, base_T: Floats) -> Floats:
    return -_skewed(rng, base_T)


HELD_OUT = (
    Scenario("drift of a third", _independent(_drift(1e-4)), adapts=True),
    Scenario("drift of three times", _independent(_drift(1e-3)), adapts=True),
    Scenario("drift in the scorer, witnesses agree", _scorer_only(_drift(3e-4)), adapts=True),
    Scenario("three times that drift, witnesses agree", _scorer_only(_drift(1e-3)), adapts=True),
    Scenario("correlated between chunks, witnesses agree", _scorer_only(_regressing), adapts=True),
    Scenario("skewed, scorer and witnesses alike", _independent(_skewed)),
    Scenario("seldom cheaper, scorer and witnesses alike", _independent(_skewed_the_other_way)),
    Scenario("skewed, witnesses only", _witness_only(_skewed)),
    Scenario("seldom cheaper, witnesses only", _witness_only(_skewed_the_other_way)),
    Scenario("skewed, scorer only, witnesses agree", _scorer_only(_skewed)),
    Scenario("seldom cheaper, scorer only, witnesses agree", _scorer_only(_skewed_the_other_way)),
)
"""Honest programs on which no test was tuned, until they were accused; all but the first two break symmetry
or independence."""


def _cheat(
    change: Callable[[Rng, ReportedScore, Floats, int], Floats], noise: float = 1e-6
) -> Callable[[Rng, ReportedScore, int], tuple[Floats, Floats, Floats]]:
    def make(rng: Rng, scored: ReportedScore, n_probes: int) -> tuple[Floats, Floats, Floats]:
        base_T = scored.nats_T.astype(np.float64)
        noisy = [np.maximum(base_T + rng.normal(0, noise, len(base_T)), 0) for _ in range(3)]
        claims_T = np.maximum(change(rng, scored, noisy[0], n_probes), 0)
        claims_T[::CHUNK_TOKENS] = noisy[0][::CHUNK_TOKENS]  # these were given blind
        return claims_T, noisy[1], noisy[2]

    return make


def _peek(rng: Rng, base_T: Floats, which_T: npt.NDArray[np.bool_], left: float = 0.01) -> Floats:
    return np.where(which_T, left, base_T)


def _dearest(base_T: Floats, share: float) -> npt.NDArray[np.bool_]:
    count = max(1, round(share * len(base_T)))
    chosen_T: npt.NDArray[np.bool_] = base_T >= np.partition(base_T, -count)[-count]
    return chosen_T


def _some_of_dearest(rng: Rng, base_T: Floats, expected: float) -> npt.NDArray[np.bool_]:
    """`expected` tokens, at random among the dearest 1 %."""
    return _dearest(base_T, 0.01) & (rng.random(len(base_T)) < expected / (0.01 * len(base_T)))


def _gamble(expected_hits: float) -> Callable[[Rng, ReportedScore, int], tuple[Floats, Floats, Floats]]:
    """The dearest gamble against the bound: claim 0 where the coins fall `expected_hits` times on average,
    refuse there."""

    def make(rng: Rng, scored: ReportedScore, n_probes: int) -> tuple[Floats, Floats, Floats]:
        base_T = scored.nats_T.astype(np.float64)
        order = rng.permutation(len(base_T) - 1) + 1
        claims_T = base_T.copy()
        count = round(expected_hits / n_probes * len(base_T))
        for _ in range(6):  # a claim of 0 raises its own probability: count until the hits are as expected
            claims_T = base_T.copy()
            claims_T[order[:count]] = 0
            chosen = design(dataclasses.replace(scored, nats_T=claims_T), n_probes)
            count = max(1, round(count * expected_hits / max(float(chosen.pi_T[order[:count]].sum()), 1e-9)))
        refused_T = np.where(claims_T < base_T, np.inf, base_T)
        return claims_T, refused_T, refused_T

    return make


CHEATS = (
    Scenario("peek everywhere", _cheat(lambda rng, s, c, n: _peek(rng, c, np.ones(len(c), bool)))),
    Scenario("peek at 1 %", _cheat(lambda rng, s, c, n: _peek(rng, c, rng.random(len(c)) < 0.01))),
    Scenario("peek at 0.1 %", _cheat(lambda rng, s, c, n: _peek(rng, c, rng.random(len(c)) < 0.001))),
    Scenario("peek at the dearest 0.1 %", _cheat(lambda rng, s, c, n: _peek(rng, c, _dearest(c, 0.001)))),
    Scenario("0.9 nat on 0.4 %", _cheat(lambda rng, s, c, n: c - 0.9 * (rng.random(len(c)) < 0.004))),
    Scenario("0.3 nat on 0.1 %", _cheat(lambda rng, s, c, n: c - 0.3 * (rng.random(len(c)) < 0.001))),
    Scenario("shift of 0.004 nats", _cheat(lambda rng, s, c, n: c - 0.004)),
    Scenario("the same in noise of 0.0125", _cheat(lambda rng, s, c, n: c - 0.004, noise=0.0125)),
    Scenario("shift of 0.001 nats", _cheat(lambda rng, s, c, n: c - 0.001)),
    Scenario(
        "half the nats, last 20 % of the text",
        _cheat(lambda rng, s, c, n: np.where(np.arange(len(c)) > 0.8 * len(c), 0.5 * c, c)),
    ),
    Scenario(
        "peek down to the judge's price, dearest 5 %",
        _cheat(lambda rng, s, c, n: np.where(_dearest(c, 0.05), np.minimum(c, -np.log(s.reference_T)), c)),
    ),
    Scenario(
        "one document in 50",
        _cheat(lambda rng, s, c, n: np.where(np.arange(len(c)) // 1000 % 50 == 7, 0.5 * c, c)),
    ),
    Scenario("adapting: shift of 0.004 nats", _cheat(lambda rng, s, c, n: c - 0.004), adapts=True),
    Scenario(
        "adapting: the same in noise of 0.0125",
        _cheat(lambda rng, s, c, n: c - 0.004, noise=0.0125),
        adapts=True,
    ),
    Scenario(
        "adapting: peek at 1 %",
        _cheat(lambda rng, s, c, n: _peek(rng, c, rng.random(len(c)) < 0.01)),
        adapts=True,
    ),
)


def gambles(hits: float) -> tuple[Scenario, Scenario]:
    """Programs that bet on not being asked: so few gains that a uniform draw would meet `hits` of them, or
    exactly this one that many, and nothing to lose where it is met."""
    return (
        Scenario(
            "peek among the dearest 1 %",
            _cheat(lambda rng, s, c, n: _peek(rng, c, _some_of_dearest(rng, c, hits * len(c) / n))),
        ),
        Scenario("claim 0 and refuse", _gamble(hits)),
    )
