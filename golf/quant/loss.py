"""What a change of a weight matrix costs: the one measure that AWQ, GPTQ and the bit allocator minimise.

What: for D_RC = W' - W

    tr(D H D^T)         with the inputs' Hessian H_CC = mean of x x^T: the mean squared change of the layer's output
    sum of F D^2        with the Fisher diagonal F_RC = mean of squared gradients: twice the rise of the training loss,
                        to second order and as far as weights do not depend on each other
    sum of D^2 / R      with neither: the mean squared change of a looked-up row, all rows being equally likely

Why three: the first needs inputs, which a table that is looked up does not have; the second compares tensors
of different layers, which the first does only as far as all outputs matter alike. Not covered: cross terms
between rows. Source: GPTQ (arXiv:2210.17323) for the first; the second is the diagonal of the Fisher matrix
in EWC (arXiv:1612.00796)."""

from __future__ import annotations

import torch
from torch import Tensor


def output_error(delta_RC: Tensor, hessian_CC: Tensor) -> float:
    """tr(D H D^T), summed in float64."""
    return float(torch.sum(delta_RC @ hessian_CC * delta_RC, dtype=torch.float64))


def loss(delta_RC: Tensor, hessian_CC: Tensor | None = None, fisher_RC: Tensor | None = None) -> float:
    """What D costs, by Fisher where that is given, else by Hessian, else by row. The units differ."""
    if fisher_RC is not None:
        return float(torch.sum(delta_RC.square() * fisher_RC, dtype=torch.float64))
    if hessian_CC is not None:
        return output_error(delta_RC, hessian_CC)
    return float(torch.sum(delta_RC.square(), dtype=torch.float64)) / len(delta_RC)
