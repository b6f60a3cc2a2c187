"""The tests of a certificate: did the scorer gain by means that a strict predictor does not have?

A test fails only where no honest noise that it models explains the result: symmetric noise, independent
between blocks (the chunks of a program that adapts, otherwise groups of neighbouring probes); skewed noise of
the witnesses alone, or of scorer and witnesses as one noisy program; skewed noise with mean 0; an adaptation
that took a different course, which shows in the boundary predictions too. Each is ruled out at
LEVEL, so three tests over two rounds falsely fail one certificate in ten thousand. What lies beyond the noise
and still cannot be proved is `unknown`, and the evidence says what would decide it. A second witness's
difference from the first widens a tolerance or withholds a failure; it never lowers G (bound.py), since the
contestant controls it. Not covered: which of the conditions a gain broke; gains below the noise, which G
includes; a scorer whose own noise is skewed and earns on average.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from typing import Any, Literal, NamedTuple

import numpy as np
import numpy.typing as npt

from harness.edition import TOLERANCES
from harness.scoring.certificate.responses import BoundaryPair
from harness.scoring.certificate.sampling import Floats
from harness.scoring.robust import robust_sd
from harness.scoring.rows import sums_to_one

Outcome = Literal["pass", "fail", "unknown"]
LEVEL = 2.0**-16  # a p below this counts as proof
STRAY_BOUNDARIES = 0.1  # share of boundary predictions that may differ
MAX_BLOCKS = 1024  # of a program that does not adapt
LARGEST_NATS = 8.0  # a larger gain counts as this one in a mean
SUSPICIOUS = 1e-3  # a p below this is left open, though it proves nothing


class Test(NamedTuple):
    """One test: its outcome, one sentence with the numbers, and the numbers."""

    name: str
    outcome: Outcome
    text: str
    numbers: dict[str, Any]


@dataclasses.dataclass(frozen=True)
class Gains:
    """d = the witness's loss less the reported one, nats, at answered probes (not mixed).

    d1_P: of the first witness; d2_P: of the second one, or d1_P itself without one. blocks_P: the block of
    each probe, rising from 0. `twice`: whether there were two witnesses.
    """

    positions_P: npt.NDArray[np.int64]
    d1_P: Floats
    d2_P: Floats
    blocks_P: npt.NDArray[np.int64]
    adapts: bool
    twice: bool

    @property
    def repeat_P(self) -> Floats:
        """The first witness's loss less the second one's, nats; zeros without a second."""
        return self.d1_P - self.d2_P


def blocks(positions_P: npt.NDArray[np.int64], chunk_tokens: int, adapts: bool) -> npt.NDArray[np.int64]:
    """The block of each probe, counted from 0.

    Its chunk where the program adapts, otherwise one of up to MAX_BLOCKS runs of neighbouring probes.
    """
    if adapts:
        return np.unique(positions_P // chunk_tokens, return_inverse=True)[1].astype(np.int64)
    return np.arange(len(positions_P)) * min(MAX_BLOCKS, len(positions_P)) // max(len(positions_P), 1)


def rms(values: Floats) -> float:
    """Root mean square about the median, each deviation clipped at LARGEST_NATS."""
    if not len(values):
        return 0.0
    return float(np.sqrt((np.clip(values - np.median(values), -LARGEST_NATS, LARGEST_NATS) ** 2).mean()))


def binomial(up: int, down: int) -> float:
    """One-sided sign test: the probability of `up` or more out of up + down where both are equally likely."""
    from scipy import stats

    return float(stats.binom.sf(up - 1, up + down, 0.5)) if up + down else 1.0


def student(values: Floats) -> float:
    """One-sided p of a mean above 0 by Student's t, at least 0.5^n; 1 below three values."""
    from scipy import stats

    if len(values) < 3 or values.mean() <= 0:
        return 1.0
    error = values.std(ddof=1) / np.sqrt(len(values))
    return max(
        float(stats.t.sf(values.mean() / error, len(values) - 1)) if error > 0 else 0.0, 0.5 ** len(values)
    )


def mean_test(gains: Gains, boundaries: Sequence[BoundaryPair]) -> Test:
    """Is the mean gain above what arithmetic noise explains?

    Each d is clipped, so no single one decides.

    Fails where all four views of the mean agree: the clipped mean against the spread within blocks, the means
    of the blocks, the mean without clipping (skewed noise shifts the clipped mean, not this one), and for a
    program that adapts, the blocks against the boundary predictions.
    """
    from scipy import stats

    tau = max(robust_sd(gains.d1_P), robust_sd(gains.repeat_P), 1e-3)
    clip = 8 * tau
    d_P = np.minimum(0.5 * (gains.d1_P + gains.d2_P), LARGEST_NATS)
    x_P, repeat_P = np.clip(d_P, -clip, clip), np.clip(gains.repeat_P, -clip, clip)
    # Noise in a witness's logits raises its mean loss by half the noise's variance, which looks like a gain.
    # The difference between two witnesses shows that variance (it has twice the variance, hence / 4), unless
    # both deviate from the scorer in the same way: the variance of d1 covers that case.
    shown = TOLERANCES.mean_gain_nats + float(repeat_P.var()) / 4
    offset = max(shown, TOLERANCES.mean_gain_nats + float(np.clip(gains.d1_P, -clip, clip).var()) / 2)
    count_B = np.bincount(gains.blocks_P)
    x_B = np.bincount(gains.blocks_P, x_P) / count_B
    within = float(((x_P - x_B[gains.blocks_P]) ** 2).sum()) / max(len(x_P) - len(x_B), 1) / len(x_P)
    repeat = float((np.bincount(gains.blocks_P, repeat_P) ** 2).sum()) / 4 / len(x_P) ** 2
    error, mean = float(np.sqrt(within + repeat)), float(x_P.mean())

    def p_above(nats: float) -> float:
        return float(stats.norm.sf((mean - nats) / error)) if error > 0 else float(mean <= nats)

    p_shown, p_within, p_between = p_above(shown), p_above(offset), student(x_B - offset)
    p_plain = student(np.bincount(gains.blocks_P, d_P) / count_B - shown)
    p_blind = student(gains_minus_boundary(gains, boundaries, clip) - offset) if gains.adapts else 0.0
    numbers = {
        "mean_nats": mean,
        "offset_nats": offset,
        "shown_nats": shown,
        "error_nats": error,
        "p_within": p_within,
        "p_shown": p_shown,
        "p_between": p_between,
        "p_plain": p_plain,
        "p_blind": p_blind if gains.adapts else None,
        "blocks": len(x_B),
    }
    text = (
        f"mean gain {mean:+.5f} nats over {len(x_P):,} probes in {len(x_B):,} blocks "
        f"(arithmetic noise explains {offset:.5f})"
    )
    if max(p_within, p_between, p_plain, p_blind) < LEVEL:
        return Test("mean", "fail", text, numbers)
    if max(p_within, p_between, p_plain) < LEVEL:
        text += "; the boundary predictions are too few or differ too much to rule out another adaptation"
    elif p_within < LEVEL:
        text += "; the blocks are too few or differ too much to rule out noise shared within a block"
    elif min(p_shown, p_plain) < LEVEL:
        text += (
            f", {float(d_P.mean()):+.5f} without clipping; the difference between two witnesses explains "
            f"{shown:.5f}: the witness computes otherwise than the scorer, or knows less"
        )
    else:
        return Test("mean", "pass", text, numbers)
    return Test("mean", "unknown", text, numbers)


def gains_minus_boundary(gains: Gains, boundaries: Sequence[BoundaryPair], clip: float) -> Floats:
    """By chunk: the probes' mean clipped gain less that of the boundary prediction, nats.

    Both come from the same state of the program, so where scorer and witness adapted differently, the
    difference shows in both and cancels.
    """
    if not boundaries or not len(gains.d1_P):
        return np.zeros(0)
    starts_C = np.array([boundary.position for boundary in boundaries])
    gain_C = np.array(
        [
            min(boundary.witness_nats, LARGEST_NATS) - min(boundary.scorer_nats, LARGEST_NATS)
            for boundary in boundaries
        ]
    )
    chunk_P = np.searchsorted(starts_C, gains.positions_P, side="right") - 1
    inside_P = chunk_P >= 0
    count_C = np.bincount(chunk_P[inside_P], minlength=len(starts_C))
    sum_C = np.bincount(
        chunk_P[inside_P], np.clip(gains.d1_P[inside_P], -clip, clip), minlength=len(starts_C)
    )
    met_C = count_C > 0
    less: Floats = sum_C[met_C] / count_C[met_C] - np.clip(gain_C[met_C], -clip, clip)
    return less


def skewed(gains: Gains, threshold: float) -> float:
    """Probability that noise, symmetric or not, lifts so many probes above the threshold in both witnesses.

    The larger of two probabilities. If only the witnesses are noisy, they err independently and upwards at
    most half of the time, so at most a third of the probes above the threshold in one witness or both are
    above it in both. If scorer and witnesses are the same noisy program, each of the three is equally
    often the one far below the other two.
    """
    from scipy import stats

    d1_P, d2_P, repeat_P = gains.d1_P, gains.d2_P, gains.repeat_P
    both = int((np.minimum(d1_P, d2_P) > threshold).sum())
    either = int((np.maximum(d1_P, d2_P) > threshold).sum())
    lowest = int(
        (np.maximum(d1_P, repeat_P) < -threshold).sum() + (np.maximum(d2_P, -repeat_P) < -threshold).sum()
    )
    return max(float(stats.binom.sf(both - 1, trials, 1 / 3)) for trials in (either, both + lowest))


def sign_test(gains: Gains) -> Test:
    """Among the probes far from their block's median, do more lie above than below? Counted by blocks."""
    median_B = np.array([np.median(part) for part in _split(gains.d1_P, gains.blocks_P)])
    centre_P = median_B[gains.blocks_P] if len(gains.d1_P) >= 8 * len(median_B) else np.median(gains.d1_P)
    x1_P, x2_P = gains.d1_P - centre_P, gains.d2_P - centre_P
    tau = max(robust_sd(gains.d1_P - centre_P), robust_sd(gains.repeat_P), 1e-3)
    # Skewed noise can put some probes far above the median and the others a little below it, without any
    # gain: so the mean must be above 0 too.
    d_P = np.minimum(0.5 * (gains.d1_P + gains.d2_P), LARGEST_NATS)
    p_mean = student(np.bincount(gains.blocks_P, d_P) / np.bincount(gains.blocks_P))
    best: tuple[float, float, float, dict[str, Any]] | None = None
    for factor in (4.5, 15.0, 50.0):
        up_P, down_P = np.minimum(x1_P, x2_P) > factor * tau, np.maximum(x1_P, x2_P) < -factor * tau
        net_B = np.bincount(gains.blocks_P, up_P.astype(float) - down_P)
        by_block = binomial(int((net_B > 0).sum()), int((net_B < 0).sum()))
        by_probe = binomial(int(up_P.sum()), int(down_P.sum()))
        p_skewed = skewed(gains, factor * tau)
        numbers = {
            "threshold_nats": factor * tau,
            "up": int(up_P.sum()),
            "down": int(down_P.sum()),
            "blocks_up": int((net_B > 0).sum()),
            "blocks_down": int((net_B < 0).sum()),
            "p_blocks": by_block,
            "p_probes": by_probe,
            "p_skewed": p_skewed,
            "p_mean": p_mean,
        }
        if best is None or (max(by_block, p_skewed), by_block, by_probe) < best[:3]:
            best = (max(by_block, p_skewed), by_block, by_probe, numbers)
    assert best is not None
    uneven, by_block, by_probe, numbers = best
    text = (
        f"{numbers['up']:,} probes cost the witness over {numbers['threshold_nats']:.3f} nats more than "
        f"reported, {numbers['down']:,} that much less"
    )
    if uneven < LEVEL / 3 and p_mean < LEVEL:
        return Test("sign", "fail", text, numbers)
    if by_block < LEVEL / 3:
        return Test("sign", "unknown", text + "; skewed noise explains that", numbers)
    if by_probe < LEVEL / 3 or by_block < SUSPICIOUS / 3:
        return Test(
            "sign", "unknown", text + "; too few blocks to rule out noise shared within a block", numbers
        )
    return Test("sign", "pass", text, numbers)


def spike_size(gains: Gains) -> float:
    """The gain, in nats, above which noise of this program is no explanation."""
    if not len(gains.d1_P):
        return TOLERANCES.spike_nats
    repeat = float(np.quantile(np.abs(gains.repeat_P), 0.999))
    below = float(np.quantile(-gains.d1_P, 0.999))
    return max(TOLERANCES.spike_nats, 8 * repeat, 8 * below)


def spike_test(gains: Gains) -> Test:
    """Are there single large gains, in both witnesses, and few single losses as large?"""
    size = spike_size(gains)
    up_P = np.minimum(gains.d1_P, gains.d2_P) > size
    down = int((np.maximum(gains.d1_P, gains.d2_P) < -size).sum())
    up = int(up_P.sum())
    p, p_skewed = binomial(up, down), skewed(gains, size)
    where = [int(position) for position in gains.positions_P[up_P][:8]]
    numbers = {
        "threshold_nats": size,
        "up": up,
        "down": down,
        "p": p,
        "p_skewed": p_skewed,
        "positions": where,
    }
    text = f"{up:,} single gains above {size:.2f} nats, {down:,} single losses as large"
    if max(p, p_skewed) <= LEVEL:
        return Test("spikes", "fail", text, numbers)
    if p < SUSPICIOUS:
        return Test("spikes", "unknown", text + "; too few to prove it", numbers)
    return Test("spikes", "pass", text, numbers)


def outlier_test(gains: Gains, size: float) -> Test:
    """Does the witness confirm the losses reported furthest below the reference model's?

    Never fails; asks for a second round. Named `suspects` in verdict.json.
    """
    up_P = np.minimum(gains.d1_P, gains.d2_P) > size
    where = [int(position) for position in gains.positions_P[up_P][:8]]
    numbers = {"threshold_nats": size, "asked": len(gains.d1_P), "up": int(up_P.sum()), "positions": where}
    if not where:
        return Test(
            "suspects",
            "pass",
            f"the {len(gains.d1_P):,} tokens reported furthest below the reference model are confirmed",
            numbers,
        )
    return Test(
        "suspects",
        "unknown",
        f"{int(up_P.sum()):,} of the {len(gains.d1_P):,} tokens reported furthest below the reference model "
        f"cost the witness over {size:.2f} nats more, the first at {', '.join(map(str, where))}",
        numbers,
    )


def boundary_test(boundaries: Sequence[BoundaryPair], gains: Gains) -> Test:
    """Are the scorer's boundary predictions the witness's?

    Two predictions differ where they are apart by more than 0.05 nats plus the difference between two
    witnesses. If more than one in ten differ, the witness is not the program that scored: `unknown`.
    Named `borders` in verdict.json.
    """
    allowed = TOLERANCES.boundary_breach_nats + (
        float(np.quantile(np.abs(gains.repeat_P), 0.999)) if len(gains.d1_P) else 0.0
    )
    apart = [
        boundary
        for boundary in boundaries
        if not abs(boundary.witness_nats - boundary.scorer_nats) <= allowed
    ]
    worst = max((abs(boundary.witness_nats - boundary.scorer_nats) for boundary in boundaries), default=0.0)
    numbers = {
        "borders": len(boundaries),
        "apart": len(apart),
        "allowed_nats": allowed,
        "largest_nats": min(worst, 1e3),
        "positions": [boundary.position for boundary in apart[:8]],
    }
    if len(apart) > STRAY_BOUNDARIES * len(boundaries):
        return Test(
            "borders",
            "unknown",
            f"at {len(apart)} of {len(boundaries)} chunk boundaries the witness's prediction is up to "
            f"{worst:.3f} nats off the scorer's: the witness is not the program that scored",
            numbers,
        )
    return Test(
        "borders",
        "pass",
        f"at {len(boundaries) - len(apart)} of {len(boundaries)} chunk boundaries the scorer's prediction "
        f"matches the witness's (largest difference {worst:.1e} nats)",
        numbers,
    )


def spread_test(gains: Gains) -> Test:
    """Does the witness match the reported losses token by token?

    A scorer that imitates a slow predictor, or knows more than its witness, matches it on average or on most
    tokens only. By root mean squares, in which a few large differences show as well as many small ones.
    """
    spread, repeat = rms(gains.d1_P), rms(gains.repeat_P)
    numbers = {"spread_nats": spread, "repeat_nats": repeat if gains.twice else None}
    text = f"the witness's losses differ from the reported ones by {spread:.2e} nats (root mean square)" + (
        f", two witnesses by {repeat:.2e}" if gains.twice else ""
    )
    if spread > TOLERANCES.spread_nats + 4 * repeat:
        return Test("spread", "unknown", text + ": the witness is not the program that scored", numbers)
    return Test("spread", "pass", text, numbers)


def row_test(logsumexp_P: Floats) -> Test:
    """Is every row a distribution? logsumexp_P: NaN where no row came, inf where a number was not finite."""
    came = logsumexp_P[~np.isnan(logsumexp_P)]
    finite = came[np.isfinite(came)]
    broken = len(came) - len(finite)
    worst = float(finite[np.argmax(np.abs(finite))]) if len(finite) else 0.0
    numbers = {"rows": len(came), "broken": broken, "largest_logsumexp": worst}
    if broken or not sums_to_one(worst):
        return Test(
            "rows",
            "fail",
            f"of {len(came):,} rows {broken:,} are not finite, and the worst sums to exp({worst:.2e}) "
            f"instead of 1 (tolerance {TOLERANCES.row_nats:g} nats)",
            numbers,
        )
    if not len(came):
        return Test("rows", "unknown", "no row came", numbers)
    return Test(
        "rows", "pass", f"{len(came):,} rows sum to 1 (largest |logsumexp| {abs(worst):.1e})", numbers
    )


def _split(values_P: Floats, blocks_P: npt.NDArray[np.int64]) -> list[Floats]:
    """The values of each block; blocks are in order."""
    return np.split(values_P, np.flatnonzero(np.diff(blocks_P)) + 1)
