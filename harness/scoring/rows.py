"""Check whether a row of log-probabilities is a distribution."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from harness.edition import TOLERANCES


def logsumexp(row_V: npt.NDArray[np.floating]) -> float:
    """ln of the sum of exp(row_V), in float64: 0 for a distribution, +inf where a number is not finite."""
    row = row_V.astype(np.float64)
    if not np.isfinite(row).all():
        return np.inf
    peak = row.max()
    return float(peak + np.log(np.exp(row - peak).sum()))


def sums_to_one(log_sum: float) -> bool:
    """Whether a row with this logsumexp counts as normalised."""
    return abs(log_sum) <= TOLERANCES.row_nats
