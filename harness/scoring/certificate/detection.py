"""The tests that accuse: did the scorer gain by means that a strict predictor does not have?

An accusation needs that every kind of honest noise is ruled out which the test knows: symmetric noise,
independent between blocks (chunks for a program that adapts; a few probes each for one that does not); skewed
noise of the witnesses' own, or of one noisy program that all three are; noise that is skewed and costs
nothing on average; adaptation that went another way, which the blind rows at the borders show as well. Each
is ruled out at LEVEL, so that three tests over two looks falsely accuse once in ten thousand certificates.
What is beyond the noise and yet cannot be proved is `unknown`, with what would decide it. A second witness's
difference from the first widens a tolerance or withholds an accusation; it never lowers G (bound.py), since
the contestant controls it. Not covered: which of the conditions a gain broke; gains below the noise, which G
charges; a scorer whose own noise is skewed and earns."""

from __future__ import annotations

import dataclasses
from typing import Any, Literal, NamedTuple

import numpy as np
import numpy.typing as npt

from harness.edition import TOLERANCES
from harness.scoring.certificate.responses import BoundaryPair
from harness.scoring.certificate.sampling import Floats
from harness.scoring.robust import robust_sd
from harness.scoring.rows import sums_to_one

Outcome = Literal["pass", "fail", "unknown"]
LEVEL = 2.0**-16
STRAY_BOUNDARIES = 0.1
MANY_BLOCKS = 1024
LARGEST_NATS = 8.0  # one gain counts for no more in a mean
SUSPICIOUS = 1e-3


class Test(NamedTuple):
    """One test: its outcome, one sentence with the numbers, and the numbers."""

    name: str
    outcome: Outcome
    text: str
    numbers: dict[str, Any]


@dataclasses.dataclass(frozen=True)
class Gains:
    """Unfloored d = witness - claim, nats, at the probes that were answered; d2_P from a second witness, else
    d1_P itself."""

    positions_P: npt.NDArray[np.int64]
    d1_P: Floats
    d2_P: Floats
    blocks_P: npt.NDArray[np.int64]
    adapts: bool
    twice: bool

    @property
    def repeat_P(self) -> Floats:
        """h1 - h2: what the same question brings twice; zeros without a second witness."""
        return self.d1_P - self.d2_P


def blocks(positions_P: npt.NDArray[np.int64], chunk_tokens: int, adapts: bool) -> npt.NDArray[np.int64]:
    """A block for each probe, counted from 0: its chunk where the program adapts, else runs of at least one
    probe."""
    if adapts:
        return np.unique(positions_P // chunk_tokens, return_inverse=True)[1].astype(np.int64)
    return np.arange(len(positions_P)) * min(MANY_BLOCKS, len(positions_P)) // max(len(positions_P), 1)


def rms(values: Floats) -> float:
    """Root mean square about the median, one value counting as no more than LARGEST_NATS."""
    if not len(values):
        return 0.0
    return float(np.sqrt((np.clip(values - np.median(values), -LARGEST_NATS, LARGEST_NATS) ** 2).mean()))


def binomial(up: int, down: int) -> float:
    """P(at least `up` of up + down fair coins)."""
    from scipy import stats

    return float(stats.binom.sf(up - 1, up + down, 0.5)) if up + down else 1.0


def student(values: Floats) -> float:
    """One-sided p of a mean above 0, never below that of as many fair coins that all fall alike; 1 below
    three values."""
    from scipy import stats

    if len(values) < 3 or values.mean() <= 0:
        return 1.0
    error = values.std(ddof=1) / np.sqrt(len(values))
    return max(
        float(stats.t.sf(values.mean() / error, len(values) - 1)) if error > 0 else 0.0, 0.5 ** len(values)
    )


def mean_test(gains: Gains, boundaries: list[BoundaryPair]) -> Test:
    """Is the mean gain above what arithmetic can do? By blocks, each d clipped so that no single one decides.

    It fails where four views of it agree: the clipped mean by its own spread, the means of the blocks, the
    plain mean (noise that is skewed has a clipped mean, and no plain one), and where the program adapts the
    blocks against the blind rows."""
    from scipy import stats

    tau = max(robust_sd(gains.d1_P), robust_sd(gains.repeat_P), 1e-3)
    clip = 8 * tau
    d_P = np.minimum(0.5 * (gains.d1_P + gains.d2_P), LARGEST_NATS)
    x_P, repeat_P = np.clip(d_P, -clip, clip), np.clip(gains.repeat_P, -clip, clip)
    # A witness noisier than the scorer pays half its variance more: log-probabilities are concave. Asked
    # twice it shows that variance, unless its arithmetic repeats and is another one than the scorer's.
    shown = TOLERANCES.mean_gain_nats + float(repeat_P.var()) / 4
    offset = max(shown, TOLERANCES.mean_gain_nats + float(np.clip(gains.d1_P, -clip, clip).var()) / 2)
    count_B = np.bincount(gains.blocks_P)
    x_B = np.bincount(gains.blocks_P, x_P) / count_B
    within = float(((x_P - x_B[gains.blocks_P]) ** 2).sum()) / max(len(x_P) - len(x_B), 1) / len(x_P)
    repeat = float((np.bincount(gains.blocks_P, repeat_P) ** 2).sum()) / 4 / len(x_P) ** 2
    error, mean = float(np.sqrt(within + repeat)), float(x_P.mean())

    def beyond(nats: float) -> float:
        return float(stats.norm.sf((mean - nats) / error)) if error > 0 else float(mean <= nats)

    p_shown, p_within, p_between = beyond(shown), beyond(offset), student(x_B - offset)
    p_plain = student(np.bincount(gains.blocks_P, d_P) / count_B - shown)
    p_blind = student(against_blind(gains, boundaries, clip) - offset) if gains.adapts else 0.0
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
    text = f"mean gain {mean:+.5f} nats over {len(x_P):,} probes in {len(x_B):,} blocks (arithmetic explains {offset:.5f})"
    if max(p_within, p_between, p_plain, p_blind) < LEVEL:
        return Test("mean", "fail", text, numbers)
    if max(p_within, p_between, p_plain) < LEVEL:
        return Test(
            "mean",
            "unknown",
            text + "; too few blind rows, or too unlike, to rule out that it adapted another way",
            numbers,
        )
    if p_within < LEVEL:
        return Test(
            "mean",
            "unknown",
            text + "; too few blocks, or too unlike, to rule out noise that they share",
            numbers,
        )
    if min(p_shown, p_plain) < LEVEL:
        return Test(
            "mean",
            "unknown",
            text + f", {float(d_P.mean()):+.5f} with nothing clipped; the same question asked twice "
            f"explains {shown:.5f}: the witness computes otherwise than the scorer, or knows less",
            numbers,
        )
    return Test("mean", "pass", text, numbers)


def against_blind(gains: Gains, boundaries: list[BoundaryPair], clip: float) -> Floats:
    """For each chunk, the mean clipped gain of its probes less that of the blind row at its border, nats.
    Both come from one state of the program: where scorer and witness adapted apart, as far as it may be, both
    show it alike."""
    if not boundaries or not len(gains.d1_P):
        return np.zeros(0)
    starts = np.array([boundary.position for boundary in boundaries])
    blind = np.array(
        [
            min(boundary.witness_nats, LARGEST_NATS) - min(boundary.scorer_nats, LARGEST_NATS)
            for boundary in boundaries
        ]
    )
    chunk_P = np.searchsorted(starts, gains.positions_P, side="right") - 1
    inside = chunk_P >= 0
    count_C = np.bincount(chunk_P[inside], minlength=len(starts))
    sum_C = np.bincount(chunk_P[inside], np.clip(gains.d1_P[inside], -clip, clip), minlength=len(starts))
    met = count_C > 0
    less: Floats = sum_C[met] / count_C[met] - np.clip(blind[met], -clip, clip)
    return less


def skewed(gains: Gains, threshold: float) -> float:
    """p of so many gains above the threshold in both witnesses, under noise that need not be symmetric.

    If it is the witnesses' alone, each errs for itself, upwards at most as often as not: at most a third of
    the probes that lie above in one of them then lie above in both. If scorer and witnesses are one noisy
    program, each of the three is as often far below the other two. The larger p of the two."""
    from scipy import stats

    d1_P, d2_P, repeat_P = gains.d1_P, gains.d2_P, gains.repeat_P
    both = int((np.minimum(d1_P, d2_P) > threshold).sum())
    either = int((np.maximum(d1_P, d2_P) > threshold).sum())
    lowest = int(
        (np.maximum(d1_P, repeat_P) < -threshold).sum() + (np.maximum(d2_P, -repeat_P) < -threshold).sum()
    )
    return max(float(stats.binom.sf(both - 1, trials, 1 / 3)) for trials in (either, both + lowest))


def sign_test(gains: Gains) -> Test:
    """Among the probes far from their block's middle, do more lie above the claim? Counted by blocks."""
    median_B = np.array([np.median(part) for part in _split(gains.d1_P, gains.blocks_P)])
    centre_P = median_B[gains.blocks_P] if len(gains.d1_P) >= 8 * len(median_B) else np.median(gains.d1_P)
    x1_P, x2_P = gains.d1_P - centre_P, gains.d2_P - centre_P
    tau = max(robust_sd(gains.d1_P - centre_P), robust_sd(gains.repeat_P), 1e-3)
    # What lies far above is no gain if all the rest lies a little below
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
        f"{numbers['up']:,} probes lie more than {numbers['threshold_nats']:.3f} nats above the claim, "
        f"{numbers['down']:,} below it"
    )
    if uneven < LEVEL / 3 and p_mean < LEVEL:
        return Test("sign", "fail", text, numbers)
    if by_block < LEVEL / 3:
        return Test("sign", "unknown", text + "; skewed noise can do that", numbers)
    if by_probe < LEVEL / 3 or by_block < SUSPICIOUS / 3:
        return Test("sign", "unknown", text + "; too few blocks to rule out noise that blocks share", numbers)
    return Test("sign", "pass", text, numbers)


def spike_size(gains: Gains) -> float:
    """Nats beyond which a gain is no noise of this program."""
    if not len(gains.d1_P):
        return TOLERANCES.spike_nats
    repeat = float(np.quantile(np.abs(gains.repeat_P), 0.999))
    below = float(np.quantile(-gains.d1_P, 0.999))
    return max(TOLERANCES.spike_nats, 8 * repeat, 8 * below)


def spike_test(gains: Gains) -> Test:
    """Single large gains, in both witnesses, against single large losses."""
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
        return Test("spikes", "unknown", text + "; too few to be proof", numbers)
    return Test("spikes", "pass", text, numbers)


def outlier_test(gains: Gains, size: float) -> Test:
    """Tokens that cost suspiciously little beside the judge's own price: they never convict, they ask for a
    second look."""
    up_P = np.minimum(gains.d1_P, gains.d2_P) > size
    where = [int(position) for position in gains.positions_P[up_P][:8]]
    numbers = {"threshold_nats": size, "asked": len(gains.d1_P), "up": int(up_P.sum()), "positions": where}
    if not where:
        return Test(
            "suspects",
            "pass",
            f"the {len(gains.d1_P):,} tokens furthest below the judge's price are confirmed",
            numbers,
        )
    return Test(
        "suspects",
        "unknown",
        f"{int(up_P.sum()):,} of the {len(gains.d1_P):,} tokens furthest below the judge's price "
        f"cost the witness over {size:.2f} nats more, the first at {', '.join(map(str, where))}",
        numbers,
    )


def boundary_test(boundaries: list[BoundaryPair], gains: Gains) -> Test:
    """The scorer's blind rows are a free control: where more than one in ten of the witness's differ by more
    than the same question asked twice does, it is not the program that scored."""
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
            f"at {len(apart)} of {len(boundaries)} borders the witness's row is up to {worst:.3f} "
            "nats off the scorer's blind one: the witness is not the program that scored",
            numbers,
        )
    return Test(
        "borders",
        "pass",
        f"{len(boundaries) - len(apart)} of {len(boundaries)} blind rows of the scorer match the witness's "
        f"(largest difference {worst:.1e} nats)",
        numbers,
    )


def spread_test(gains: Gains) -> Test:
    """A scorer that imitates a slow predictor, or knows more than its witness, matches it on average or on
    most tokens, and not token by token. Root mean squares, so that a few large differences show as well as
    many small ones."""
    spread, repeat = rms(gains.d1_P), rms(gains.repeat_P)
    numbers = {"spread_nats": spread, "repeat_nats": repeat if gains.twice else None}
    text = f"d spreads by {spread:.2e} nats" + (
        f", the same question asked twice by {repeat:.2e}" if gains.twice else ""
    )
    if spread > TOLERANCES.spread_nats + 4 * repeat:
        return Test("spread", "unknown", text + ": the witness is not the program that scored", numbers)
    return Test("spread", "pass", text, numbers)


def row_test(logsumexp_P: Floats) -> Test:
    """Is every row a distribution? NaN: no row came; inf: not a row of finite numbers."""
    came = logsumexp_P[~np.isnan(logsumexp_P)]
    broken = int((~np.isfinite(came)).sum())
    worst = (
        float(came[np.isfinite(came)][np.argmax(np.abs(came[np.isfinite(came)]))])
        if len(came) > broken
        else 0.0
    )
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
