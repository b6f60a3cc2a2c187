"""Activation-aware scales of a matrix's columns: what is fed by large inputs is rounded more finely.

What: column j of W_RC is multiplied by s_j before it is rotated, clipped and rounded, and divided by it
afterwards. s_j = a_j^alpha with a_j the mean |x_j| of the column's inputs, brought to geometric mean 1; alpha
is the one of ALPHAS whose matrix W' has the least tr((W' - W) H (W' - W)^T). Scales are fp16, and the search
uses them as they are stored.

A column that was never fed has no say in the mean and gets the scale 1. Scales stay within 2^-10 .. 2^10,
where fp16 keeps all its digits and the products stay in its range.

Neutral value: alpha 0, every scale 1, for which nothing is stored. Bytes: two a column, where they help.
Source: AWQ (arXiv:2306.00978) with a search on the output error instead of its own grid on outputs; no code
of #1462, #1731 or #1732 contains one. Not covered: clips searched along with alpha, scales shared by matrices
with one input."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor

from golf.quant.loss import output_error

ALPHAS = tuple(step / 20 for step in range(21))
LARGEST_SCALE = 2.0**10


def scales(activation_C: Tensor, alpha: float) -> Tensor:
    """s_C in fp16 for one alpha; ones for alpha 0. `activation_C` is mean |x|, not negative."""
    fed_C = activation_C > 0
    log_C = torch.where(fed_C, activation_C.double(), 1.0).log() * alpha
    mean = log_C[fed_C].mean() if fed_C.any() else 0.0
    scale_C = torch.where(fed_C, (log_C - mean).exp(), 1.0)
    return scale_C.clamp(1 / LARGEST_SCALE, LARGEST_SCALE).to(torch.float16)


def search(
    weight_RC: Tensor, activation_C: Tensor, hessian_CC: Tensor, round_trip: Callable[[Tensor | None], Tensor]
) -> Tensor | None:
    """The best scales, or None where none are better. `round_trip(scale_C)` gives W'_RC: W scaled, rounded and
    brought back, by the recipe that will be used; `round_trip(None)` without scales."""
    best_C, least = None, output_error(round_trip(None) - weight_RC, hessian_CC)
    for alpha in ALPHAS[1:]:
        scale_C = scales(activation_C, alpha)
        error = output_error(round_trip(scale_C) - weight_RC, hessian_CC)
        if error < least:
            best_C, least = scale_C, error
    return best_C
