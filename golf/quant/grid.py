"""The int-N grid: one symmetric step a row, one rounding rule, and its inverse beside it.

What: a matrix W_RC becomes whole numbers codes_RC in -(R+1) .. R, R = 2^(N-1) - 1, and one fp16 step a row:

    step_R = max(clip_R / R, floor)          clip_R = the largest |W| of the row unless the caller clips harder
    codes  = clamp(round(W / step), -R-1, R) half to even; W is divided by the step as it is stored, not as computed
    W'     = codes * step

Floor: #586 and its ancestors use floor = 1/R, by which a row whose largest number is below 1 gets the step 1/31 and so
uses fewer than N bits. That is much of what its compressor then saves, and much of its error; 0 turns it off.

Neutral value: none of its own; golf/quant/recipe.py leaves a tensor alone where bits is null. Bytes: one a number
before compression, two a row. Source: #586 (clamp -32..31, step max|row|/31, N = 6). Not covered: error feedback.
"""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor

# The smallest normal fp16: below it a step loses digits, so that |W - W'| <= step/2 would no longer hold.
SMALLEST_STEP = 2.0**-14
BITS = range(2, 9)


class Coded(NamedTuple):
    """A matrix on the grid: codes_RC (int8) and step_R (float16, positive)."""

    codes_RC: Tensor
    step_R: Tensor


def largest_code(bits: int) -> int:
    """R: 31 for 6 bits. Raises ValueError for a number of bits that int8 does not hold."""
    if bits not in BITS:
        raise ValueError(f"bits must be {BITS.start} to {BITS.stop - 1}, not {bits}")
    return 2 ** (bits - 1) - 1


def row_steps(clip_R: Tensor, bits: int, floor: float) -> Tensor:
    """The fp16 steps that reach up to clip_R; at least `floor`, and never zero. Raises ValueError beyond fp16."""
    step_R = (clip_R / largest_code(bits)).clamp(min=max(floor, SMALLEST_STEP)).to(torch.float16)
    if not torch.isfinite(step_R).all():
        raise ValueError(f"a row reaches {clip_R.abs().max().item():g}, for which no finite fp16 step exists")
    return step_R


def quantise(weight_RC: Tensor, bits: int, floor: float = 0.0) -> Coded:
    """W_RC (float32, finite) -> codes and steps. |W - dequantise| <= step/2 in every place. Raises ValueError."""
    if weight_RC.ndim != 2:
        raise ValueError(f"only matrices have rows to quantise; this one has shape {tuple(weight_RC.shape)}")
    weight_RC = weight_RC.float()
    largest = largest_code(bits)
    step_R = row_steps(weight_RC.abs().amax(dim=1), bits, floor)
    codes_RC = torch.round(weight_RC / step_R.float()[:, None]).clamp(-largest - 1, largest)
    return Coded(codes_RC.to(torch.int8), step_R)


def dequantise(coded: Coded) -> Tensor:
    """Codes and steps -> W'_RC float32, the same on every machine (one product a number)."""
    return coded.codes_RC.float() * coded.step_R.float()[:, None]
