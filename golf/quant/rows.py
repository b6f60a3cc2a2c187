"""FTLE precision: rows whose gradients were larger get more bits, rows whose were smaller fewer.

What: scores score_R (mean gradient norm of each row while training) become bits_R around a target for their
mean:

    share_R = (score - min) / (max - min)     1 for all where the scores are flat
    bits_R  = round(clamp(4 + 4 * share + (target - mean of that), 4, 8))

The shift comes before the clamp, so that the mean is only near the target. A target below 4, which only the
bit allocator asks for, takes the lower end of the clamp with it: our reading, as the published search goes
from 8 to 5.

Neutral value: not calling it: uniform bits, which #316 found better at 8, 7, 6 and 5. Bytes: none, since
steps alone undo the rounding. Source: #316, named after finite-time Lyapunov exponents. Not covered: scores
(golf/quant/stats.py)."""

from __future__ import annotations

import torch
from torch import Tensor

from golf.quant import grid

LEAST, MOST = 4, 8


def row_bits(score_R: Tensor, target: int) -> Tensor:
    """Scores of the rows -> bits_R (int64) in min(4, target) .. 8, their mean near the target."""
    grid.largest_code(target)
    low, high = score_R.min(), score_R.max()
    share_R = (score_R - low) / (high - low) if high > low else torch.ones_like(score_R)
    wanted_R = LEAST + (MOST - LEAST) * share_R
    wanted_R = wanted_R + (target - wanted_R.mean())
    return wanted_R.clamp(min(LEAST, target), MOST).round().long()
