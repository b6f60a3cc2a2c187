"""Symmetric integer quantisation with one step per row: rounding, and its inverse.

A matrix W_RC becomes integers codes_RC in -m .. m, m = 2^(bits-1) - 1, and one fp16 step per row:

    step_R = clip_R / m                      clip_R: the row's clipping range (golf/quant/clip.py)
    codes  = clamp(round(W / step), -m, m)   half to even; W is divided by the step as stored in fp16
    W'     = codes * step

`bits` is one number, or one per row (FTLE, golf/quant/rows.py). Dequantising needs only the steps, so bits
are not stored. `fake_quantise` applies the same grid in quantisation-aware training: rounding forward,
identity backward.

Cost: one byte per number before compression, two per row. Neutral: golf/quant/recipe.py does not call this if
bits is null. Source: #586 (6 bits, step max|row|/31; its code -32 cannot occur, as no row reaches 31.5
steps), #1493 (-m .. m), #316 (fake quantisation).
"""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor

# The smallest normal fp16. A smaller step would lose digits, and |W - W'| <= step/2 would not hold.
SMALLEST_STEP = 2.0**-14
BITS = range(2, 9)
Bits = int | Tensor
"""Bits of a matrix: one number, or bits_R, one per row."""


class Quantised(NamedTuple):
    """A quantised matrix: codes_RC (int8) and step_R (float16, positive)."""

    codes_RC: Tensor
    step_R: Tensor


def largest_code(bits: int) -> int:
    """2^(bits-1) - 1, for instance 31 for 6 bits. Raises ValueError unless bits is 2 to 8."""
    if bits not in BITS:
        raise ValueError(f"bits must be {BITS.start} to {BITS.stop - 1}, not {bits}")
    return 2 ** (bits - 1) - 1


def largest_codes(bits: Bits, rows: int) -> Tensor:
    """`largest_code` of each row, as float32. Raises ValueError for invalid bits or a wrong length."""
    bits_R = bits if isinstance(bits, Tensor) else torch.full((rows,), bits)
    if bits_R.shape != (rows,):
        raise ValueError(f"bits of shape {tuple(bits_R.shape)} for {rows} rows")
    largest_of = {each: float(largest_code(each)) for each in bits_R.unique().tolist()}
    return torch.tensor([largest_of[each] for each in bits_R.tolist()])


def row_steps(clip_R: Tensor, bits: Bits) -> Tensor:
    """fp16 steps whose largest code is clip_R; never zero. Raises ValueError if a step exceeds fp16."""
    step_R = (clip_R / largest_codes(bits, len(clip_R))).clamp(min=SMALLEST_STEP).to(torch.float16)
    if not torch.isfinite(step_R).all():
        raise ValueError(f"a row reaches {clip_R.abs().max().item():g}, for which no finite fp16 step exists")
    return step_R


def rounded(weight_RC: Tensor, step_R1: Tensor, largest_R1: Tensor | float) -> Tensor:
    """W / step rounded half to even and clamped to the largest code, in W's dtype."""
    return torch.round(weight_RC / step_R1).clamp(-largest_R1, largest_R1)  # type: ignore[arg-type]


def quantise(weight_RC: Tensor, step_R: Tensor, bits: Bits) -> Quantised:
    """W_RC (float32, finite) -> codes, with |W - W'| <= step/2 where |W| is not clipped.

    Raises ValueError unless W is a matrix.
    """
    if weight_RC.ndim != 2:
        raise ValueError(f"only matrices are quantised; this tensor has shape {tuple(weight_RC.shape)}")
    largest_R = largest_codes(bits, len(weight_RC))
    codes_RC = rounded(weight_RC.float(), step_R.float()[:, None], largest_R[:, None])
    return Quantised(codes_RC.to(torch.int8), step_R)


def dequantise(quantised: Quantised) -> Tensor:
    """Codes and steps -> W'_RC float32, the same bits on every machine (one product per number)."""
    return quantised.codes_RC.float() * quantised.step_R.float()[:, None]


def fake_quantise(weight_RC: Tensor, bits: int) -> Tensor:
    """W_RC rounded to the grid with steps max(|row|, 1e-8) / largest_code(bits), in W's dtype.

    The gradient passes unchanged (straight-through estimator). Source: #316.
    """
    largest = largest_code(bits)
    with torch.no_grad():
        step_R1 = weight_RC.abs().amax(dim=1, keepdim=True).clamp(min=1e-8) / largest
        delta_RC = rounded(weight_RC, step_R1, largest) * step_R1 - weight_RC
    return weight_RC + delta_RC
