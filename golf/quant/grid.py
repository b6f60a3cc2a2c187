"""The int-N grid: one symmetric step a row, one rounding rule, and its inverse beside it.

What: a matrix W_RC becomes whole numbers codes_RC in -R .. R, R = 2^(N-1) - 1, and one fp16 step a row:

    step_R = clip_R / R                      clip_R: what the row's grid reaches up to (golf/quant/clip.py)
    codes  = clamp(round(W / step), -R, R)   half to even; W is divided by the step as it is stored, not as computed
    W'     = codes * step

N is one number, or one for each row (FTLE, golf/quant/rows.py). The step alone undoes the rounding, so that N
is not stored. `fake_quantise` is the same grid for quantisation-aware training: rounded going forward, the
identity backward.

Neutral value: none of its own; golf/quant/recipe.py leaves a tensor alone where bits is null. Bytes: one a
number before compression, two a row. Sources: #586 (N = 6, step max|row|/31; its -32 cannot occur, as no row
reaches 31.5 steps), #1493 (-R .. R), #316 (fake quantisation). Not covered: error feedback
(golf/quant/gptq.py)."""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor

# The smallest normal fp16: below it a step loses digits, so that |W - W'| <= step/2 would no longer hold.
SMALLEST_STEP = 2.0**-14
BITS = range(2, 9)
Bits = int | Tensor
"""Bits of a matrix: one number, or bits_R, one for each row."""


class Coded(NamedTuple):
    """A matrix on the grid: codes_RC (int8) and step_R (float16, positive)."""

    codes_RC: Tensor
    step_R: Tensor


def largest_code(bits: int) -> int:
    """R: 31 for 6 bits. Raises ValueError for a number of bits that int8 does not hold."""
    if bits not in BITS:
        raise ValueError(f"bits must be {BITS.start} to {BITS.stop - 1}, not {bits}")
    return 2 ** (bits - 1) - 1


def largest_codes(bits: Bits, rows: int) -> Tensor:
    """R of each of the rows, as float32. Raises ValueError as `largest_code` does, and for a bits_R of
    another length."""
    bits_R = bits if isinstance(bits, Tensor) else torch.full((rows,), bits)
    if bits_R.shape != (rows,):
        raise ValueError(f"bits of shape {tuple(bits_R.shape)} for {rows} rows")
    largest_of = {each: float(largest_code(each)) for each in bits_R.unique().tolist()}
    return torch.tensor([largest_of[each] for each in bits_R.tolist()])


def row_steps(clip_R: Tensor, bits: Bits) -> Tensor:
    """The fp16 steps that reach up to clip_R, never zero. Raises ValueError beyond fp16."""
    step_R = (clip_R / largest_codes(bits, len(clip_R))).clamp(min=SMALLEST_STEP).to(torch.float16)
    if not torch.isfinite(step_R).all():
        raise ValueError(f"a row reaches {clip_R.abs().max().item():g}, for which no finite fp16 step exists")
    return step_R


def rounded(weight_RC: Tensor, step_R1: Tensor, largest_R1: Tensor | float) -> Tensor:
    """The one rounding rule: whole numbers of steps, half to even, cut off at the largest code; in W's
    dtype."""
    return torch.round(weight_RC / step_R1).clamp(-largest_R1, largest_R1)


def quantise(weight_RC: Tensor, step_R: Tensor, bits: Bits) -> Coded:
    """W_RC (float32, finite) -> codes. |W - dequantise| <= step/2 wherever |W| <= R * step. Raises
    ValueError."""
    if weight_RC.ndim != 2:
        raise ValueError(f"only matrices have rows to quantise; this one has shape {tuple(weight_RC.shape)}")
    largest_R = largest_codes(bits, len(weight_RC))
    codes_RC = rounded(weight_RC.float(), step_R.float()[:, None], largest_R[:, None])
    return Coded(codes_RC.to(torch.int8), step_R)


def dequantise(coded: Coded) -> Tensor:
    """Codes and steps -> W'_RC float32, the same on every machine (one product a number)."""
    return coded.codes_RC.float() * coded.step_R.float()[:, None]


def fake_quantise(weight_RC: Tensor, bits: int) -> Tensor:
    """W_RC as it would be on the grid (step max|row| / R, at least 1e-8 / R), in W's dtype; the gradient
    passes as if nothing had happened (straight-through). Source: #316."""
    largest = largest_code(bits)
    with torch.no_grad():
        step_R1 = weight_RC.abs().amax(dim=1, keepdim=True).clamp(min=1e-8) / largest
        moved_RC = rounded(weight_RC, step_R1, largest) * step_R1 - weight_RC
    return weight_RC + moved_RC
