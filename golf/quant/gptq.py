"""Rounding with error feedback: what one column loses, the columns after it make good (GPTQ).

What: given steps, columns are rounded one after another; with U the upper Cholesky factor of H^-1, the error
e = (w - q) / U_jj of column j moves the columns that are still to come by -e U_j. Columns go in falling order
of H_jj. Where H_jj = 0 the input never fed column j: its weights become 0, for nothing depends on them. H
gets DAMPING of its mean diagonal added. Blocks of 128 columns only save memory traffic: the sums are the
same.

The result is compared with plain rounding on the undamped tr(D H D^T), and plain rounding is kept unless
feedback is better: damping and cut-off codes can make feedback lose, and so it never does.

Why float64 for the factor alone: H^-1 of a nearly singular H loses too many digits in float32; the feedback
itself is cut to whole codes anyway. Columns are summed by matrix products, so that codes may differ between
kinds of processor, not between runs or numbers of threads as golf/stages/pack.py calls it. Reading codes
involves none of this.

Neutral value: not calling it. Bytes: none. Sources: arXiv:2210.17323; ordering, damping and blocks as in
#1493. Not covered: clips that move with the feedback."""

from __future__ import annotations

import torch
from torch import Tensor

from golf.quant import grid
from golf.quant.loss import output_error

DAMPING = 0.01
BLOCK = 128


def _order_and_factor(hessian_CC: Tensor) -> tuple[Tensor, Tensor]:
    """The order of the columns, and U_CC (float32) for columns in that order."""
    damped_CC = hessian_CC.double().clone()
    diagonal_C = damped_CC.diagonal()
    diagonal_C[diagonal_C == 0] = 1.0
    diagonal_C += DAMPING * diagonal_C.mean()
    order_C = torch.argsort(diagonal_C, descending=True, stable=True)
    lower_CC = torch.linalg.cholesky(damped_CC[order_C][:, order_C])
    return order_C, torch.linalg.cholesky(torch.cholesky_inverse(lower_CC), upper=True).float()


def _feed_back(weight_RC: Tensor, step_R: Tensor, bits: grid.Bits, upper_CC: Tensor) -> Tensor:
    """Codes (float32) of a matrix whose columns are in order. `weight_RC` is used up."""
    rows, columns = weight_RC.shape
    step_R, largest_R = step_R.float(), grid.largest_codes(bits, rows)
    codes_RC = torch.empty_like(weight_RC)
    for start in range(0, columns, BLOCK):
        block = slice(start, min(start + BLOCK, columns))
        # Columns are rows here, so that each lies together in memory.
        within_BR = weight_RC[:, block].T.contiguous()
        codes_BR, errors_BR, upper_BB = (
            torch.empty_like(within_BR),
            torch.empty_like(within_BR),
            upper_CC[block, block],
        )
        for j in range(len(within_BR)):
            codes_BR[j] = grid.rounded(within_BR[j], step_R, largest_R)
            errors_BR[j] = (within_BR[j] - codes_BR[j] * step_R) / upper_BB[j, j]
            within_BR[j + 1 :].addr_(upper_BB[j, j + 1 :], errors_BR[j], alpha=-1)
        codes_RC[:, block] = codes_BR.T
        weight_RC[:, block.stop :].addmm_(errors_BR.T, upper_CC[block, block.stop :], alpha=-1)
    return codes_RC


def quantise(weight_RC: Tensor, step_R: Tensor, bits: grid.Bits, hessian_CC: Tensor) -> grid.Coded:
    """W_RC and its inputs' H_CC -> codes on the given steps, never worse on tr(D H D^T) than `grid.quantise`.

    Raises ValueError where H is no Hessian of such a matrix.
    """
    columns = weight_RC.shape[1]
    if hessian_CC.shape != (columns, columns) or not (hessian_CC.diagonal() >= 0).all():
        raise ValueError(
            f"a Hessian of shape {tuple(hessian_CC.shape)} is none for {columns} columns, or it is negative"
        )
    weight_RC = weight_RC.float()
    plain = grid.quantise(weight_RC, step_R, bits)
    try:
        order_C, upper_CC = _order_and_factor(hessian_CC)
    except torch.linalg.LinAlgError as error:
        raise ValueError(f"the Hessian is not positive semidefinite: {error}") from error
    alive_RC = torch.where(hessian_CC.diagonal() == 0, 0.0, weight_RC)
    codes_RC = torch.empty_like(weight_RC)
    codes_RC[:, order_C] = _feed_back(alive_RC[:, order_C], step_R, bits, upper_CC)
    fed_back = grid.Coded(codes_RC.to(torch.int8), step_R)
    errors = [output_error(grid.dequantise(coded) - weight_RC, hessian_CC) for coded in (plain, fed_back)]
    return fed_back if errors[1] < errors[0] else plain
