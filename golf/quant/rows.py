"""FTLE precision: rows with larger gradients get more bits.

Scores score_R (each row's mean gradient norm during training, golf/quant/stats.py) become bits_R with a mean
near the target:

    fraction_R = (score - min) / (max - min)     1 for all rows if all scores are equal
    wanted_R   = 4 + 4 * fraction
    bits_R     = round(clamp(wanted + (target - mean of wanted), 4, 8))

The mean is only near the target because clamping comes after the shift. A target below 4, which only the bit
allocator asks for, also lowers the clamp's lower end (our choice: the published search covers 8 to 5).

Neutral: not called, uniform bits, which #316 found better at 8, 7, 6 and 5. No bytes: dequantising needs only
the steps. Source: #316, which names it after finite-time Lyapunov exponents.
"""

from __future__ import annotations

import torch
from torch import Tensor

from golf.quant import grid

LEAST, MOST = 4, 8


def row_bits(score_R: Tensor, target: int) -> Tensor:
    """Scores of the rows -> bits_R (int64) in min(4, target) .. 8, with a mean near the target.

    Raises ValueError unless target is 2 to 8.
    """
    grid.largest_code(target)
    low, high = score_R.min(), score_R.max()
    fraction_R = (score_R - low) / (high - low) if high > low else torch.ones_like(score_R)
    wanted_R = LEAST + (MOST - LEAST) * fraction_R
    wanted_R = wanted_R + (target - wanted_R.mean())
    return wanted_R.clamp(min(LEAST, target), MOST).round().long()
