"""Which tokens the witness is asked: independent coins, drawn after the ledger closed, and the numbers a
bound needs.

    c^_t = -ln((1 - eps) exp(-c_t) + eps b_t)      the claim, floored by the judge's own predictor (floor.py)
    U_t  = -ln(eps b_t) - c^_t                     no row of any witness can cost more: the largest gain
    W_t  = max(U_t, mean(U) / 4)                   the floor keeps arithmetic noise on cheap tokens from counting for much
    pi_t = min(1, W_t / K),  K so that sum pi = N  in proportion to what is at stake; the dearest may be certain
    token t is asked  iff  u_t < pi_t,  u = PRF(seed)

One seed gives one u_t for ever, so a second look asks the first one's tokens again, and more. Beside the
coins a plan names `suspects`, tokens whose claim is furthest below the judge's price: they are asked too, but
no bound rests on them (accuse.py). Not covered: that the seed was fresh, which is the judge's driver's care.
"""

from __future__ import annotations

import dataclasses
import hashlib
import math

import numpy as np
import numpy.typing as npt

Floats = npt.NDArray[np.float64]
BLOCK_TOKENS = 1 << 20
LEAST_WEIGHT_SHARE = 0.25
OUTLIERS_PER_PROBE = 0.25
ALPHAS = (0.008, 0.002)
"""Share of the 1 % that the first and the second look may err by."""


@dataclasses.dataclass(frozen=True)
class ReportedScore:
    """What the ledger holds of one seed, with the judge's prices. Token 0 is given, not scored.

    tokens_T; nats_T as claimed; prices_T = floor.prices(tokens_T); n_bytes of the scored text; chunk_tokens
    as declared."""

    tokens_T: npt.NDArray[np.uint16]
    nats_T: npt.NDArray[np.floating]
    reference_T: Floats
    n_bytes: int
    chunk_tokens: int

    @property
    def n_scored(self) -> int:
        return len(self.tokens_T) - 1


@dataclasses.dataclass(frozen=True)
class SamplingDesign:
    """Everything about a draw but the coins: pi_T, largest_T (U_t) and floored_T (c^_t) in nats, suspects
    (positions)."""

    scored: ReportedScore
    round_number: int
    eps: float
    covered: int
    pi_T: Floats
    largest_T: Floats
    mixed_T: Floats
    theta_max: float
    outliers: npt.NDArray[np.int64]


@dataclasses.dataclass(frozen=True)
class SamplingPlan:
    """A draw: the positions to ask, in order, and what the bound needs at each; nothing else of the text's
    length.

    asked_P holds coins and suspects together; coin_P says which of them the coins chose. pi_P, largest_P
    (U_t, nats), floored_P (c^_t, nats) and price_P (b_t) belong to asked_P. theta_max = 1 / K bounds theta; 0
    where every token is certain. n_expected is the sum of pi. uncovered_nats is the sum of U over the tokens
    from `covered` on, which no coin can reach."""

    round_number: int
    eps: float
    covered: int
    n_scored: int
    asked_P: npt.NDArray[np.int64]
    selected_P: npt.NDArray[np.bool_]
    pi_P: Floats
    largest_P: Floats
    mixed_P: Floats
    reference_P: Floats
    theta_max: float
    n_expected: float
    uncovered_nats: float

    @property
    def alpha(self) -> float:
        return ALPHAS[self.round_number - 1]


def uniforms(seed: bytes, n_tokens: int) -> Floats:
    """u_T in [0, 1): SHAKE-256 of the seed and the number of the block, 53 bits a token."""
    assert len(seed) == 32, f"a seed of {len(seed)} bytes instead of 32"
    u_T = np.empty(n_tokens)
    for block, start in enumerate(range(0, n_tokens, BLOCK_TOKENS)):
        part = u_T[start : start + BLOCK_TOKENS]
        digest = hashlib.shake_256(b"pgolf coins 1" + seed + block.to_bytes(8, "little")).digest(
            8 * len(part)
        )
        part[:] = (np.frombuffer(digest, "<u8") >> np.uint64(11)) * 2.0**-53
    return u_T


def draw_prefix(seed: bytes, scored: ReportedScore, chunks: int) -> int:
    """Where a witness that covers at most `chunks` chunks stops, in tokens: after half of them or more, by
    the seed, so that nobody knows before the score was fixed how far it comes (but for one chunk, which has
    no half)."""
    whole = -(-len(scored.tokens_T) // scored.chunk_tokens)
    most = min(chunks, whole)
    if most == whole:
        return len(scored.tokens_T)
    least = -(-most // 2)
    drawn = int.from_bytes(hashlib.shake_256(b"pgolf prefix 1" + seed).digest(8), "little")
    return max((least + drawn % (most - least + 1)) * scored.chunk_tokens, 2)


def mixture_share(n_probes: int, round_number: int = 1) -> float:
    """eps: the judge's share of the mixture. ln(1/alpha) / N minimises what an honest program is charged
    (bound.py)."""
    return min(0.5, -math.log(ALPHAS[round_number - 1]) / n_probes)


def mixed(nats_T: npt.NDArray[np.floating], reference_T: Floats, eps: float) -> Floats:
    """-ln((1 - eps) exp(-nats) + eps b): the cost in nats under the mixture; +inf nats (no answer) leaves the
    floor alone."""
    mixed_T: Floats = -np.logaddexp(
        math.log1p(-eps) - nats_T.astype(np.float64), math.log(eps) + np.log(reference_T)
    )
    return mixed_T


def design(
    scored: ReportedScore, n_probes: int, *, round_number: int = 1, covered: int | None = None
) -> SamplingDesign:
    """Inclusion probabilities for n_probes tokens on average. `covered` bounds a witness that stops early:
    tokens from that position on are never asked, and are charged whole."""
    n_tokens = len(scored.tokens_T)
    covered = n_tokens if covered is None else min(covered, n_tokens)
    assert covered > 1 and n_probes > 0, f"{n_probes} probes among {covered} tokens"
    eps = mixture_share(n_probes, round_number)
    mixed_T = mixed(scored.nats_T, scored.reference_T, eps)
    largest_T = np.maximum(-math.log(eps) - np.log(scored.reference_T) - mixed_T, 0.0)
    inside = slice(1, covered)
    pi_T = np.zeros(n_tokens)
    pi_T[inside], theta_max = inclusion(
        np.maximum(largest_T[inside], LEAST_WEIGHT_SHARE * largest_T[inside].mean()), n_probes
    )
    outliers = np.zeros(0, np.int64)
    if n_outliers := min(int(OUTLIERS_PER_PROBE * n_probes), covered - 1):
        surprise_T = -np.log(scored.reference_T[inside]) - scored.nats_T[inside]
        outliers = 1 + np.argpartition(-surprise_T, n_outliers - 1)[:n_outliers]
    return SamplingDesign(scored, round_number, eps, covered, pi_T, largest_T, mixed_T, theta_max, outliers)


def select(chosen: SamplingDesign, u_T: Floats) -> SamplingPlan:
    """The plan that these coins make of a design."""
    selected_T = u_T < chosen.pi_T
    asked_T = selected_T.copy()
    asked_T[chosen.outliers] = True
    asked_P, inside = np.flatnonzero(asked_T), slice(1, chosen.covered)
    return SamplingPlan(
        chosen.round_number,
        chosen.eps,
        chosen.covered,
        chosen.scored.n_scored,
        asked_P,
        selected_T[asked_P],
        chosen.pi_T[asked_P],
        chosen.largest_T[asked_P],
        chosen.mixed_T[asked_P],
        chosen.scored.reference_T[asked_P],
        chosen.theta_max,
        float(chosen.pi_T[inside].sum()),
        float(chosen.largest_T[chosen.covered :].sum()),
    )


def draw(
    seed: bytes, scored: ReportedScore, n_probes: int, *, round_number: int = 1, covered: int | None = None
) -> SamplingPlan:
    """The plan of a seed. A larger n_probes of the same seed asks nearly a superset: the same u_T against
    higher pi_T."""
    return select(
        design(scored, n_probes, round_number=round_number, covered=covered),
        uniforms(seed, len(scored.tokens_T)),
    )


def inclusion(weight_T: Floats, n_probes: float) -> tuple[Floats, float]:
    """(pi_T, 1 / K): pi = min(1, W / K) with sum pi = n_probes, or all 1 where there are no more tokens than
    probes.

    Tokens whose pi is 1 leave the sum that the others share, until none of those would exceed 1.
    """
    if n_probes >= len(weight_T):
        return np.ones(len(weight_T)), 0.0
    if (
        not weight_T.any()
    ):  # claims so dear that nothing can have been gained: any token is as good as another
        weight_T = np.ones(len(weight_T))
    ordered_T = np.sort(weight_T)[::-1]
    rest_T = ordered_T[::-1].cumsum()[::-1]  # the sum from each place on
    certain = np.arange(min(math.ceil(n_probes), len(weight_T)))  # how many are certain
    scales = (n_probes - certain) / rest_T[certain]
    scale = (
        float(scales[np.flatnonzero(ordered_T[certain] * scales <= 1)[0]])
        if n_probes >= 1
        else float(scales[0])
    )
    return np.minimum(1.0, scale * weight_T), scale
