"""GPTQ: round column by column, and correct the remaining columns for each column's rounding error.

For given steps: with U the upper Cholesky factor of H^-1, the error e = (w - q) / U_jj of column j
changes the columns not yet rounded by -e U_j. Columns are rounded in descending order of H_jj. H_jj = 0
means that the input of column j was always 0: its weights become 0, since nothing depends on them.
DAMPING times the mean of its diagonal is added to H's diagonal. Blocks of 128 columns only save memory
traffic: the sums are the same.

Damping and clipped codes can make the result worse than plain rounding. Both are therefore compared on the
undamped tr(D H D^T), and GPTQ's result is used only if it is better.

Only the factor is computed in float64: H^-1 of a nearly singular H loses too many digits in float32, while
the feedback is rounded to whole codes anyway. Because matrix products do the sums, codes may differ between
types of processor, but not between runs or numbers of threads the way golf/stages/pack.py calls this.
Dequantising is not affected.

Neutral: not called. Source: arXiv:2210.17323; column order, damping and blocks as in #1493. Clips are fixed
before rounding.
"""

from __future__ import annotations

import torch
from torch import Tensor

from golf.quant import grid
from golf.quant.loss import output_error

DAMPING = 0.01
BLOCK = 128


def _order_and_factor(hessian_CC: Tensor) -> tuple[Tensor, Tensor]:
    """The order in which columns are rounded, and U_CC (float32) for columns in that order."""
    damped_CC = hessian_CC.double().clone()
    diagonal_C = damped_CC.diagonal()
    diagonal_C[diagonal_C == 0] = 1.0
    diagonal_C += DAMPING * diagonal_C.mean()
    order_C = torch.argsort(diagonal_C, descending=True, stable=True)
    lower_CC = torch.linalg.cholesky(damped_CC[order_C][:, order_C])
    return order_C, torch.linalg.cholesky(torch.cholesky_inverse(lower_CC), upper=True).float()


def _round_with_feedback(weight_RC: Tensor, step_R: Tensor, bits: grid.Bits, upper_CC: Tensor) -> Tensor:
    """Codes (float32) of a matrix whose columns are in rounding order. Overwrites `weight_RC`."""
    rows, columns = weight_RC.shape
    step_R, largest_R = step_R.float(), grid.largest_codes(bits, rows)
    codes_RC = torch.empty_like(weight_RC)
    for start in range(0, columns, BLOCK):
        block = slice(start, min(start + BLOCK, columns))
        # Transposed, so that each column is contiguous in memory.
        weight_UR, upper_UU = weight_RC[:, block].T.contiguous(), upper_CC[block, block]
        codes_UR, error_UR = torch.empty_like(weight_UR), torch.empty_like(weight_UR)
        for j in range(len(weight_UR)):
            codes_UR[j] = grid.rounded(weight_UR[j], step_R, largest_R)
            error_UR[j] = (weight_UR[j] - codes_UR[j] * step_R) / upper_UU[j, j]
            weight_UR[j + 1 :].addr_(upper_UU[j, j + 1 :], error_UR[j], alpha=-1)
        codes_RC[:, block] = codes_UR.T
        weight_RC[:, block.stop :].addmm_(error_UR.T, upper_CC[block, block.stop :], alpha=-1)
    return codes_RC


def quantise(weight_RC: Tensor, step_R: Tensor, bits: grid.Bits, hessian_CC: Tensor) -> grid.Quantised:
    """W_RC and its inputs' H_CC -> codes on the given steps, never worse on tr(D H D^T) than `grid.quantise`.

    Raises ValueError if H has another shape or is not positive semidefinite.
    """
    columns = weight_RC.shape[1]
    if hessian_CC.shape != (columns, columns) or not (hessian_CC.diagonal() >= 0).all():
        raise ValueError(
            f"Hessian of shape {tuple(hessian_CC.shape)} for {columns} columns, or with a negative diagonal"
        )
    weight_RC = weight_RC.float()
    plain = grid.quantise(weight_RC, step_R, bits)
    try:
        order_C, upper_CC = _order_and_factor(hessian_CC)
    except torch.linalg.LinAlgError as error:
        raise ValueError(f"the Hessian is not positive semidefinite: {error}") from error
    used_RC = torch.where(hessian_CC.diagonal() == 0, 0.0, weight_RC)
    codes_RC = torch.empty_like(weight_RC)
    codes_RC[:, order_C] = _round_with_feedback(used_RC[:, order_C], step_R, bits, upper_CC)
    corrected = grid.Quantised(codes_RC.to(torch.int8), step_R)
    errors = [output_error(grid.dequantise(each) - weight_RC, hessian_CC) for each in (plain, corrected)]
    return corrected if errors[1] < errors[0] else plain
