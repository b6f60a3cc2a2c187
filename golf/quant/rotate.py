"""Block-diagonal Hadamard rotation of a matrix's columns, which spreads outliers before rounding.

W' = W * blockdiag(H_b, H_b, ...), with H_b the Sylvester matrix of size b divided by sqrt(b), and b the
largest power of two that divides the number of columns (512 -> one block of 512, 1536 -> three of 512, 192 ->
three of 64). H_b is symmetric and orthonormal, so the rotation is its own inverse. Weights are rotated before
rounding and rotated back after dequantising; activations are not rotated.

The rotation is computed by log2(b) passes of a + b and a - b. Unlike a matrix product, this gives the same
bits on every machine and with any number of threads, so artifacts and the weights read from them are
identical everywhere.

b divides the columns because a Hadamard matrix truncated to n x n is not orthogonal (in #1462, with 1536
columns, |H H^T - I| reaches 0.25).

Statistics are rotated along: with the rotation Q, the inputs' Hessian H_CC becomes Q^T H Q (#1400), which
keeps tr(D H D^T), and a diagonal (Fisher) becomes the mean over its block, the diagonal of Q^T diag(f) Q.

Neutral: not called. Source: #586, without random signs.
"""

from __future__ import annotations

import torch
from torch import Tensor


def block_size(columns: int) -> int:
    """The largest power of two that divides `columns`; 1 (no rotation) for an odd number."""
    if columns < 1:
        raise ValueError(f"a matrix of {columns} columns cannot be rotated")
    return columns & -columns


def rotate(weight_RC: Tensor) -> Tensor:
    """W_RC -> W_RC * blockdiag(H_b, ...), float32; its own inverse up to rounding. Keeps row norms."""
    rows, columns = weight_RC.shape
    size = block_size(columns)
    rotated = weight_RC.float().reshape(rows * (columns // size), size)
    half = 1
    while half < size:
        pairs = rotated.reshape(-1, size // (2 * half), 2, half)
        upper, lower = pairs[:, :, 0], pairs[:, :, 1]
        rotated = torch.stack((upper + lower, upper - lower), dim=2)
        half *= 2
    return rotated.reshape(rows, columns) * size**-0.5


def rotate_hessian(hessian_CC: Tensor) -> Tensor:
    """H_CC (symmetric) -> Q^T H Q, the Hessian for a matrix rotated by `rotate`."""
    return rotate(rotate(hessian_CC).T.contiguous())


def rotate_diagonal(diagonal_RC: Tensor) -> Tensor:
    """Second moments of each weight, f_RC -> those of the rotated weights, assuming independence."""
    rows, columns = diagonal_RC.shape
    blocks = diagonal_RC.float().reshape(rows, -1, block_size(columns))
    return blocks.mean(dim=2, keepdim=True).expand_as(blocks).reshape(rows, columns)
