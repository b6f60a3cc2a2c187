"""A standard deviation that a few outliers do not change: 1.4826 times the median absolute deviation."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

SD_PER_MAD = 1.4826
"""Standard deviation over median absolute deviation of normally distributed values."""


def robust_sd(values: npt.ArrayLike, centre: float | None = None) -> float:
    """1.4826 times the median absolute deviation from `centre`, by default the median; 0 for no values."""
    array = np.asarray(values, np.float64)
    if not array.size:
        return 0.0
    return SD_PER_MAD * float(np.median(np.abs(array - (np.median(array) if centre is None else centre))))
