"""Activation-aware column scales (AWQ): columns with large inputs are rounded more finely.

Column j of W_RC is multiplied by s_j before rotating, clipping and rounding, and divided by s_j afterwards.
s_j = a_j^alpha, normalised to geometric mean 1, with a_j the mean |x_j| of the column's inputs. alpha is the
one of ALPHAS whose result W' has the least tr((W' - W) H (W' - W)^T). Scales are stored as fp16, and the
search uses the stored values.

A column whose input was always zero is left out of the mean and gets scale 1. Scales are limited to 2^-10 ..
2^10, where fp16 has full precision and the products stay in its range.

Neutral: alpha 0, all scales 1, nothing stored. Cost: two bytes per column of a matrix that is scaled. Source:
AWQ (arXiv:2306.00978), but searching on tr(D H D^T) instead of measured outputs; the code of #1462, #1731 and
#1732 contains no such search. Clips are not searched along with alpha, and matrices with the same input do
not share scales.
"""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor

from golf.quant.loss import output_error

ALPHAS = tuple(step / 20 for step in range(21))
LARGEST_SCALE = 2.0**10


def scales(activation_C: Tensor, alpha: float) -> Tensor:
    """s_C in fp16 for one alpha; ones for alpha 0. `activation_C` is mean |x|, at least 0."""
    used_C = activation_C > 0
    log_C = torch.where(used_C, activation_C.double(), 1.0).log() * alpha
    mean = log_C[used_C].mean() if used_C.any() else 0.0
    scale_C = torch.where(used_C, (log_C - mean).exp(), 1.0)
    return scale_C.clamp(1 / LARGEST_SCALE, LARGEST_SCALE).to(torch.float16)


def search(
    weight_RC: Tensor, activation_C: Tensor, hessian_CC: Tensor, round_trip: Callable[[Tensor | None], Tensor]
) -> Tensor | None:
    """The best scales, or None if no scales are best.

    `round_trip(scale_C)` gives W'_RC: W scaled, quantised and dequantised; `round_trip(None)` does so
    without scales.
    """
    best_C, least = None, output_error(round_trip(None) - weight_RC, hessian_CC)
    for alpha in ALPHAS[1:]:
        scale_C = scales(activation_C, alpha)
        error = output_error(round_trip(scale_C) - weight_RC, hessian_CC)
        if error < least:
            best_C, least = scale_C, error
    return best_C
