"""Made-up programs on real numbers, for the simulation: what a scorer reports and how two witnesses respond.

A scenario takes the honest nats of a text and returns (reported_T, first_T, second_T), in nats; an infinite
response is a refusal. Honest scenarios differ by noise alone, the others gain by means that a strict
predictor does not have. The names are labels of the tables and figures of docs/certificate.md.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from typing import NamedTuple

import numpy as np
import numpy.typing as npt

from harness.scoring.certificate.sampling import Floats, ReportedScore, design

CHUNK_TOKENS = 2_048
Rng = np.random.Generator
Make = Callable[[Rng, ReportedScore, int], tuple[Floats, Floats, Floats]]
Noise = Callable[[Rng, Floats], Floats]


class Scenario(NamedTuple):
    """One program.

    `make` takes the honest score and the number of probes and returns (reported_T, first_T,
    second_T). `adapts`: whether noise may be shared within a chunk, so that chunks are the blocks.
    """

    name: str
    make: Make
    adapts: bool = False


def _independent(noise: Noise) -> Make:
    """Scorer and witnesses, each with independent noise."""

    def make(rng: Rng, honest: ReportedScore, _: int) -> tuple[Floats, Floats, Floats]:
        base_T = honest.nats_T.astype(np.float64)
        first, second, third = (np.maximum(base_T + noise(rng, base_T), 0) for _ in range(3))
        return first, second, third

    return make


def _scorer_only(noise: Noise) -> Make:
    """Noise in the scorer alone, as if it ran in other batch shapes than the witnesses."""

    def make(rng: Rng, honest: ReportedScore, _: int) -> tuple[Floats, Floats, Floats]:
        base_T = honest.nats_T.astype(np.float64)
        return np.maximum(base_T + noise(rng, base_T), 0), base_T, base_T

    return make


def _witness_only(noise: Noise) -> Make:
    """Noise in the witnesses alone, independent between them."""

    def make(rng: Rng, honest: ReportedScore, _: int) -> tuple[Floats, Floats, Floats]:
        base_T = honest.nats_T.astype(np.float64)
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
    """Two tokens in a thousand come from a weaker predictor and cost about a nat more."""
    return np.where(rng.random(len(base_T)) < 0.002, rng.gamma(2.0, 0.5, len(base_T)), _rounding(rng, base_T))


def _dropout(rng: Rng, base_T: Floats) -> Floats:
    """Dropout left on: logits off by 0.2, which also costs half their variance."""
    return 0.2 * rng.normal(0, 1, len(base_T)) * np.minimum(1, base_T) + 0.02 * np.minimum(1, base_T)


def _by_chunk(rng: Rng, base_T: Floats) -> Floats:
    """Adaptation that went another way: a shift shared by the whole chunk, and noise in each token."""
    shift_C = rng.normal(0, 0.003, len(base_T) // CHUNK_TOKENS + 1)
    return np.repeat(shift_C, CHUNK_TOKENS)[: len(base_T)] + rng.normal(0, 0.0125, len(base_T))


def _drift(step: float) -> Noise:
    """The same, but the shift is a random walk from chunk to chunk with steps of `step` nats."""

    def drift(rng: Rng, base_T: Floats) -> Floats:
        walk_C = rng.normal(0, step, len(base_T) // CHUNK_TOKENS + 1).cumsum()
        return np.repeat(walk_C, CHUNK_TOKENS)[: len(base_T)] + rng.normal(0, 0.0125, len(base_T))

    return drift


def _by_batch(rng: Rng, base_T: Floats) -> Floats:
    """Another batch size: noise shared by each run of 64 tokens."""
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
    """A shift correlated between neighbouring chunks that returns to 0: autoregressive, 0.9 a chunk."""
    shift_C = rng.normal(0, 1e-3, len(base_T) // CHUNK_TOKENS + 1)
    for i in range(1, len(shift_C)):
        shift_C[i] += 0.9 * shift_C[i - 1]
    return np.repeat(shift_C, CHUNK_TOKENS)[: len(base_T)] + rng.normal(0, 0.0125, len(base_T))


def _skewed(rng: Rng, base_T: Floats) -> Floats:
    """Seldom much more, mostly a little less; 0 on average."""
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
"""Honest programs that were not used to tune the tests until one of them failed. The noise of all but the
first two is asymmetric or not independent."""


def _cheat(change: Callable[[Rng, ReportedScore, Floats, int], Floats], noise: float = 1e-6) -> Make:
    """A scorer that changes its own nats by `change`; all three have normal noise of `noise` nats."""

    def make(rng: Rng, honest: ReportedScore, n_probes: int) -> tuple[Floats, Floats, Floats]:
        base_T = honest.nats_T.astype(np.float64)
        noisy = [np.maximum(base_T + rng.normal(0, noise, len(base_T)), 0) for _ in range(3)]
        reported_T = np.maximum(change(rng, honest, noisy[0], n_probes), 0)
        reported_T[::CHUNK_TOKENS] = noisy[0][::CHUNK_TOKENS]  # given before the chunk was revealed
        return reported_T, noisy[1], noisy[2]

    return make


def _peek(rng: Rng, base_T: Floats, which_T: npt.NDArray[np.bool_], left: float = 0.01) -> Floats:
    return np.where(which_T, left, base_T)


def _costliest(base_T: Floats, share: float) -> npt.NDArray[np.bool_]:
    count = max(1, round(share * len(base_T)))
    chosen_T: npt.NDArray[np.bool_] = base_T >= np.partition(base_T, -count)[-count]
    return chosen_T


def _some_of_costliest(rng: Rng, base_T: Floats, expected: float) -> npt.NDArray[np.bool_]:
    """`expected` tokens, at random among the 1 % with the largest loss."""
    return _costliest(base_T, 0.01) & (rng.random(len(base_T)) < expected / (0.01 * len(base_T)))


def _gamble(expected_hits: float) -> Make:
    """Report 0 at tokens of which `expected_hits` are selected on average, and refuse there.

    This is the gamble that costs the bound most.
    """

    def make(rng: Rng, honest: ReportedScore, n_probes: int) -> tuple[Floats, Floats, Floats]:
        base_T = honest.nats_T.astype(np.float64)
        order = rng.permutation(len(base_T) - 1) + 1
        reported_T = base_T.copy()
        count = round(expected_hits / n_probes * len(base_T))
        for _ in range(
            6
        ):  # reporting 0 makes a token likelier to be selected: repeat until the hits are as expected
            reported_T = base_T.copy()
            reported_T[order[:count]] = 0
            chosen = design(dataclasses.replace(honest, nats_T=reported_T), n_probes)
            count = max(1, round(count * expected_hits / max(float(chosen.pi_T[order[:count]].sum()), 1e-9)))
        refused_T = np.where(reported_T < base_T, np.inf, base_T)
        return reported_T, refused_T, refused_T

    return make


CHEATS = (
    Scenario("peek everywhere", _cheat(lambda rng, s, c, n: _peek(rng, c, np.ones(len(c), bool)))),
    Scenario("peek at 1 %", _cheat(lambda rng, s, c, n: _peek(rng, c, rng.random(len(c)) < 0.01))),
    Scenario("peek at 0.1 %", _cheat(lambda rng, s, c, n: _peek(rng, c, rng.random(len(c)) < 0.001))),
    Scenario("peek at the costliest 0.1 %", _cheat(lambda rng, s, c, n: _peek(rng, c, _costliest(c, 0.001)))),
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
        "peek down to the reference model, costliest 5 %",
        _cheat(lambda rng, s, c, n: np.where(_costliest(c, 0.05), np.minimum(c, -np.log(s.reference_T)), c)),
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
    """Programs that gamble on not being probed.

    They have so few gains that the probes meet `hits` of them on average, by a uniform draw (first program)
    or by the certificate's own draw (second), and nothing to lose where they do.
    """
    return (
        Scenario(
            "peek among the costliest 1 %",
            _cheat(lambda rng, s, c, n: _peek(rng, c, _some_of_costliest(rng, c, hits * len(c) / n))),
        ),
        Scenario("report 0 and refuse", _gamble(hits)),
    )
