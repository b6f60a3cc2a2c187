"""A spread that a few wild values do not move."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

NORMAL = 1.4826
"""Makes the median absolute deviation of normal values their standard deviation."""


def robust_sd(values: npt.ArrayLike, centre: float | None = None) -> float:
    """1.4826 times the median absolute deviation from `centre`, by default the median; 0 for no values."""
    array = np.asarray(values, np.float64)
    if not array.size:
        return 0.0
    return NORMAL * float(np.median(np.abs(array - (np.median(array) if centre is None else centre))))
