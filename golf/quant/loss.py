"""Loss from changing a weight matrix, minimised by AWQ, GPTQ and the bit allocator.

For D_RC = W' - W:

    tr(D H D^T)       with the inputs' Hessian H_CC = mean of x x^T: the mean squared change of the
                      layer's output
    sum of F D^2      with the Fisher diagonal F_RC = mean of squared gradients: twice the rise of the
                      training loss, to second order and without cross terms between weights
    sum of D^2 / R    with neither: the mean squared change of a looked-up row, with all rows equally likely

The first needs inputs, which a lookup table does not have. The second is comparable between layers; the first
is so only if all outputs matter equally. Source: GPTQ (arXiv:2210.17323) for the first, the Fisher diagonal
of EWC (arXiv:1612.00796) for the second.
"""

from __future__ import annotations

import torch
from torch import Tensor


def output_error(delta_RC: Tensor, hessian_CC: Tensor) -> float:
    """tr(D H D^T), summed in float64."""
    return float(torch.sum(delta_RC @ hessian_CC * delta_RC, dtype=torch.float64))


def loss(delta_RC: Tensor, hessian_CC: Tensor | None = None, fisher_RC: Tensor | None = None) -> float:
    """Loss of D by the Fisher diagonal if given, else by the Hessian, else per row. The units differ."""
    if fisher_RC is not None:
        return float(torch.sum(delta_RC.square() * fisher_RC, dtype=torch.float64))
    if hessian_CC is not None:
        return output_error(delta_RC, hessian_CC)
    return float(torch.sum(delta_RC.square(), dtype=torch.float64)) / len(delta_RC)
