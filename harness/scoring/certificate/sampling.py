"""Draw the tokens that the witness is asked about, after the ledger closed, at random.

    c^_t = -ln((1 - eps) exp(-c_t) + eps b_t)       the reported loss, mixed with the reference model's
    U_t  = -ln(eps b_t) - c^_t                      the largest gain: no row of any witness can cost more
    W_t  = max(U_t, mean(U) / 4)                    at least a quarter of the mean: a smaller pi_t would
                                                    magnify arithmetic noise (d_t / pi_t)
    pi_t = min(1, W_t / K),  sum pi = N             in proportion to what can be gained
    token t is selected  iff  u_t < pi_t,  u = PRF(seed)

One seed always gives the same u_t, so a second round asks about the first one's tokens again, and more.
Besides the selected tokens a plan names `outliers`, whose reported loss is furthest below the reference
model's: the witness is asked about them too, but the bound does not use them (detection.py does). The caller
makes sure that the seed is fresh: see harness/run/certify.py.
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
"""How the allowed error of 1 % is divided between the first and the second round."""


@dataclasses.dataclass(frozen=True)
class ReportedScore:
    """One seed's reported losses, with the reference model. Token 0 is given, not scored.

    tokens_T; nats_T as the scorer reported them; reference_T = reference_model.probabilities(tokens_T);
    n_bytes of the scored text; chunk_tokens as the program declared them.
    """

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
    """Everything about a draw except the random numbers.

    Inclusion probabilities pi_T; largest_T (U_t) and mixed_T (c^_t) in nats; outliers (positions). Tokens
    from position `covered` on are never asked about.
    """

    reported: ReportedScore
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
    """One draw: the positions to ask about, in order, and what the bound needs at each.

    asked_P holds selected tokens and outliers together; selected_P tells which of them the random draw
    selected. pi_P, largest_P (U_t, nats), mixed_P (c^_t, nats) and reference_P (b_t) belong to asked_P.
    theta_max = 1 / K bounds theta; 0 where every token is certain. n_expected is the sum of pi.
    uncovered_nats is the sum of U over the tokens from `covered` on, which cannot be selected.
    """

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
    """u_T in [0, 1): 53 bits a token from SHAKE-256 of the seed and the block's number."""
    assert len(seed) == 32, f"a seed of {len(seed)} bytes instead of 32"
    u_T = np.empty(n_tokens)
    for block, start in enumerate(range(0, n_tokens, BLOCK_TOKENS)):
        part = u_T[start : start + BLOCK_TOKENS]
        digest = hashlib.shake_256(b"pgolf coins 1" + seed + block.to_bytes(8, "little")).digest(
            8 * len(part)
        )
        part[:] = (np.frombuffer(digest, "<u8") >> np.uint64(11)) * 2.0**-53
    return u_T


def draw_prefix(seed: bytes, reported: ReportedScore, chunks: int) -> int:
    """The position where a witness that covers at most `chunks` chunks stops.

    It covers between half of the chunks and all of them. The seed decides how many, so nobody can know it
    before the score was fixed (except where `chunks` is 1).
    """
    n_chunks = -(-len(reported.tokens_T) // reported.chunk_tokens)
    most = min(chunks, n_chunks)
    if most == n_chunks:
        return len(reported.tokens_T)
    least = -(-most // 2)
    drawn = int.from_bytes(hashlib.shake_256(b"pgolf prefix 1" + seed).digest(8), "little")
    return max((least + drawn % (most - least + 1)) * reported.chunk_tokens, 2)


def mixture_share(n_probes: int, round_number: int = 1) -> float:
    """eps, the reference model's share of the mixture.

    ln(1/alpha) / N minimises G of a program that repeats itself exactly (`expected` in forecast.py).
    """
    return min(0.5, -math.log(ALPHAS[round_number - 1]) / n_probes)


def mixed(nats_T: npt.NDArray[np.floating], reference_T: Floats, eps: float) -> Floats:
    """The loss under the mixture, nats: -ln((1 - eps) exp(-nats) + eps b).

    Where nats are +inf (no answer), the reference model's share alone remains.
    """
    mixed_T: Floats = -np.logaddexp(
        math.log1p(-eps) - nats_T.astype(np.float64), math.log(eps) + np.log(reference_T)
    )
    return mixed_T


def largest_gains(nats_T: npt.NDArray[np.floating], reference_T: Floats, eps: float) -> Floats:
    """U, nats: the most that each token's row can have gained; 0 where the reported loss is too high."""
    return np.maximum(-math.log(eps) - np.log(reference_T) - mixed(nats_T, reference_T, eps), 0.0)


def design(
    reported: ReportedScore, n_probes: int, *, round_number: int = 1, covered: int | None = None
) -> SamplingDesign:
    """Inclusion probabilities for n_probes tokens on average.

    `covered`: where the witness stops, if it stops early. The tokens from there on are never asked about and
    count at their largest gain.
    """
    n_tokens = len(reported.tokens_T)
    covered = n_tokens if covered is None else min(covered, n_tokens)
    assert covered > 1 and n_probes > 0, f"{n_probes} probes among {covered} tokens"
    eps = mixture_share(n_probes, round_number)
    mixed_T = mixed(reported.nats_T, reported.reference_T, eps)
    largest_T = largest_gains(reported.nats_T, reported.reference_T, eps)
    inside = slice(1, covered)
    pi_T = np.zeros(n_tokens)
    pi_T[inside], theta_max = inclusion(
        np.maximum(largest_T[inside], LEAST_WEIGHT_SHARE * largest_T[inside].mean()), n_probes
    )
    outliers = np.zeros(0, np.int64)
    if n_outliers := min(int(OUTLIERS_PER_PROBE * n_probes), covered - 1):
        surprise_T = -np.log(reported.reference_T[inside]) - reported.nats_T[inside]
        outliers = 1 + np.argpartition(-surprise_T, n_outliers - 1)[:n_outliers]
    return SamplingDesign(reported, round_number, eps, covered, pi_T, largest_T, mixed_T, theta_max, outliers)


def select(chosen: SamplingDesign, u_T: Floats) -> SamplingPlan:
    """The plan that these random numbers u_T select from a design."""
    selected_T = u_T < chosen.pi_T
    asked_T = selected_T.copy()
    asked_T[chosen.outliers] = True
    asked_P, inside = np.flatnonzero(asked_T), slice(1, chosen.covered)
    return SamplingPlan(
        chosen.round_number,
        chosen.eps,
        chosen.covered,
        chosen.reported.n_scored,
        asked_P,
        selected_T[asked_P],
        chosen.pi_T[asked_P],
        chosen.largest_T[asked_P],
        chosen.mixed_T[asked_P],
        chosen.reported.reference_T[asked_P],
        chosen.theta_max,
        float(chosen.pi_T[inside].sum()),
        float(chosen.largest_T[chosen.covered :].sum()),
    )


def draw(
    seed: bytes, reported: ReportedScore, n_probes: int, *, round_number: int = 1, covered: int | None = None
) -> SamplingPlan:
    """The plan of a random seed.

    With the same seed a larger n_probes selects nearly a superset: the same u_T against higher pi_T.
    """
    return select(
        design(reported, n_probes, round_number=round_number, covered=covered),
        uniforms(seed, len(reported.tokens_T)),
    )


def inclusion(weight_T: Floats, n_probes: float) -> tuple[Floats, float]:
    """(pi_T, 1 / K) with pi = min(1, W / K) and sum pi = n_probes; (all 1, 0) for few tokens.

    Tokens with pi = 1 are taken out and the remaining probes are shared among the others, until no pi would
    exceed 1.
    """
    if n_probes >= len(weight_T):
        return np.ones(len(weight_T)), 0.0
    if not weight_T.any():  # the reported losses are too high for any gain: sample uniformly
        weight_T = np.ones(len(weight_T))
    ordered_T = np.sort(weight_T)[::-1]
    rest_T = ordered_T[::-1].cumsum()[::-1]  # the sum of this weight and all smaller ones
    certain = np.arange(min(math.ceil(n_probes), len(weight_T)))  # possible numbers of certain tokens
    scales = (n_probes - certain) / rest_T[certain]
    scale = (
        float(scales[np.flatnonzero(ordered_T[certain] * scales <= 1)[0]])
        if n_probes >= 1
        else float(scales[0])
    )
    return np.minimum(1.0, scale * weight_T), scale
