"""The fixed order for one tensor: rotate -> clip -> round; and which tensors it is for.

What: `encode` takes a tensor to the arrays that are stored, `decode` takes them back. A tensor is coded on the int-N
grid if it is a matrix of more than `fp16_limit` numbers; every other becomes fp16. Clipping is at the row's largest
number (nothing is cut); harder clips will sit between the two other steps.

Neutral value: bits = null stores everything as fp16, rotate = false and floor = false leave their step out.
Bytes: one a coded number and two a row before compression, two for every other number.
Source: #586 (6 bits; fp16 for what is no matrix or has 65,535 numbers or fewer). The limit is an option
because a smaller model must still exercise the grid. Not covered: which bits a tensor deserves, and compression.
"""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor

from golf.quant import grid, rotate


class Recipe(NamedTuple):
    """What to do with the tensors of a model. The defaults do nothing but halve the bytes."""

    bits: int | None = None
    rotate: bool = False
    floor: bool = False
    fp16_limit: int = 65_535

    def coded(self, shape: tuple[int, ...]) -> bool:
        """Whether a tensor of this shape goes to the grid."""
        return self.bits is not None and len(shape) == 2 and shape[0] * shape[1] > self.fp16_limit

    def row_floor(self) -> float:
        """The least step: 1/R with the floor (#586: 1/31), else 0."""
        return 1 / grid.largest_code(self.bits) if self.floor and self.bits is not None else 0.0


class Stored(NamedTuple):
    """What is stored of one tensor: coded = (int8 codes, fp16 steps), or plain fp16 with step_R None."""

    values: Tensor
    step_R: Tensor | None


def encode(name: str, weight: Tensor, recipe: Recipe) -> Stored:
    """One tensor -> what is stored of it. ValueError names the tensor where a number is not finite or too big."""
    if not torch.isfinite(weight).all():
        raise ValueError(f"tensor {name} holds a NaN or an infinity; nothing was stored")
    if not recipe.coded(tuple(weight.shape)):
        half = weight.to(torch.float16)
        if not torch.isfinite(half).all():
            raise ValueError(f"tensor {name} reaches {weight.abs().max().item():g}, beyond fp16")
        return Stored(half, None)
    assert recipe.bits is not None
    turned_RC = rotate.rotate(weight) if recipe.rotate else weight.float()
    try:
        coded = grid.quantise(turned_RC, recipe.bits, recipe.row_floor())
    except ValueError as error:
        raise ValueError(f"tensor {name}: {error}") from error
    return Stored(coded.codes_RC, coded.step_R)


def decode(stored: Stored, recipe: Recipe) -> Tensor:
    """What is stored of one tensor -> float32 values: the inverse of `encode` but for the rounding."""
    if stored.step_R is None:
        return stored.values.float()
    weight_RC = grid.dequantise(grid.Coded(stored.values, stored.step_R))
    return rotate.rotate(weight_RC) if recipe.rotate else weight_RC
