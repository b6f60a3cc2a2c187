"""A block-diagonal Hadamard rotation of a matrix's columns: spreads outliers before rounding, and is its own
inverse.

What: W' = W * blockdiag(H_b, H_b, ...), with H_b the Sylvester matrix of size b divided by sqrt(b), and b the
largest power of two that divides the number of columns (512 -> one block of 512, 1536 -> three of 512, 192 ->
three of 64). H_b is symmetric and orthonormal, so that the same function undoes it. It lives in weight space
only: rotated before rounding, rotated back after reading; nothing is rotated when the model runs.

Why by additions: log2(b) passes of a + b and a - b give the same bits on every machine and with any number of
threads, which a matrix product does not; so the artifact's bytes, and the weights read from it, are the same
everywhere.

Why b divides the columns: a Hadamard matrix cut down to n x n is not orthogonal (#1462 did so: at 1536
columns |H H^T - I| reaches 0.25).

What belongs to a rotated matrix turns with it: a Hessian H_CC of the inputs becomes R^T H R (#1400), so that
tr(D H D^T) is the same on both sides, and a diagonal (Fisher) becomes the mean of its block, which is the
diagonal of R^T diag(f) R.

Neutral value: not calling it. Bytes: none. Source: #586. Not covered: random signs, rotating activations.
"""

from __future__ import annotations

import torch
from torch import Tensor


def block_size(columns: int) -> int:
    """The largest power of two dividing `columns`; 1, which rotates nothing, for an odd number."""
    if columns < 1:
        raise ValueError(f"a matrix of {columns} columns cannot be rotated")
    return columns & -columns


def rotate(weight_RC: Tensor) -> Tensor:
    """W_RC -> W_RC * blockdiag(H_b, ...), float32. rotate(rotate(W)) is W up to rounding; row norms stay."""
    rows, columns = weight_RC.shape
    size = block_size(columns)
    turned = weight_RC.float().reshape(rows * (columns // size), size)
    half = 1
    while half < size:
        pairs = turned.reshape(-1, size // (2 * half), 2, half)
        upper, lower = pairs[:, :, 0], pairs[:, :, 1]
        turned = torch.stack((upper + lower, upper - lower), dim=2)
        half *= 2
    return turned.reshape(rows, columns) * size**-0.5


def rotate_hessian(hessian_CC: Tensor) -> Tensor:
    """H_CC (symmetric) -> R^T H R, the Hessian of a matrix whose columns `rotate` has turned."""
    return rotate(rotate(hessian_CC).T.contiguous())


def rotate_diagonal(diagonal_RC: Tensor) -> Tensor:
    """Second moments f_RC, one for each weight -> those of the rotated weights where they do not depend on
    each other."""
    rows, columns = diagonal_RC.shape
    blocks = diagonal_RC.float().reshape(rows, -1, block_size(columns))
    return blocks.mean(dim=2, keepdim=True).expand_as(blocks).reshape(rows, columns)
