"""The fixed order for one tensor: scale -> rotate -> clip -> round; each step in a file of its own, each left
out if off.

What: `encode` takes a tensor to the arrays that are stored, `decode` takes them back:

    V = W diag(s) R        s: AWQ scales (golf/quant/awq.py), R: block Hadamard rotation (golf/quant/rotate.py)
    codes, steps = V on the grid up to its clip (golf/quant/clip.py), rounded to the nearest (golf/quant/grid.py)
                   or with error feedback (golf/quant/gptq.py), bits by row or not (golf/quant/rows.py)
    W' = codes * steps R^T diag(1/s)

With D = W' - W and E the change of V, D = E R^T diag(1/s); so tr(D H D^T) = tr(E H' E^T) for H' = R^T
diag(1/s) H diag(1/s) R, and error feedback goes by H'. Fisher's diagonal becomes F / s^2 and is rotated as a
diagonal.

What was not measured for a tensor is not used for it: a table that is only looked up has no Hessian, and is
rounded to the nearest, unscaled. Bits need not be stored, because steps alone undo the grid.

Neutral value: bits = None stores float16, and every other default leaves its step out. Bytes: one a coded
number, two a row and (AWQ) two a column before compression; two for every other number. Source: the order of
#586 with the scales of AWQ before it. Not covered: which tensors and how many bits (golf/stages/pack.py), and
compression."""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor

from golf.quant import awq, clip, gptq, grid, rotate, rows
from golf.quant.clip import ClipMethod
from golf.quant.stats import TensorStats


class Recipe(NamedTuple):
    """What to do with one tensor. The defaults do nothing but halve the bytes."""

    bits: int | None = None
    reach: ClipMethod = ClipMethod()
    rotate: bool = False
    awq: bool = False
    gptq: bool = False
    fisher: bool = False
    row_bits: bool = False


class Stored(NamedTuple):
    """What is stored of one tensor: plain float16 with step_R None; or int8 codes, float16 steps and, where
    columns are scaled, float16 scale_C."""

    values: Tensor
    step_R: Tensor | None = None
    scale_C: Tensor | None = None


def _half(name: str, weight: Tensor) -> Tensor:
    half = weight.to(torch.float16)
    if not torch.isfinite(half).all():
        raise ValueError(f"tensor {name} reaches {weight.abs().max().item():g}, beyond fp16")
    return half


def _transform(weight_RC: Tensor, scale_C: Tensor | None, how: Recipe) -> Tensor:
    """W -> V, float32."""
    weight_RC = weight_RC.float() if scale_C is None else weight_RC.float() * scale_C.float()
    return rotate.rotate(weight_RC) if how.rotate else weight_RC


def _inverse_transform(stored: Stored, how: Recipe) -> Tensor:
    """Codes -> W': elementwise products and additions only, the same bits on every machine."""
    assert stored.step_R is not None
    turned_RC = grid.dequantise(grid.Coded(stored.values, stored.step_R))
    weight_RC = rotate.rotate(turned_RC) if how.rotate else turned_RC
    return weight_RC if stored.scale_C is None else weight_RC / stored.scale_C.float()


def _transform_fisher(fisher_RC: Tensor, scale_C: Tensor | None, how: Recipe) -> Tensor:
    fisher_RC = fisher_RC if scale_C is None else fisher_RC / scale_C.float().square()
    return rotate.rotate_diagonal(fisher_RC) if how.rotate else fisher_RC


def _transform_hessian(hessian_CC: Tensor, scale_C: Tensor | None, how: Recipe) -> Tensor:
    if scale_C is not None:
        inverse_C = 1 / scale_C.float()
        hessian_CC = hessian_CC * inverse_C * inverse_C[:, None]
    return rotate.rotate_hessian(hessian_CC) if how.rotate else hessian_CC


def _row_bits(how: Recipe, stats: TensorStats) -> grid.Bits:
    assert how.bits is not None
    return (
        rows.row_bits(stats.row_score_R, how.bits)
        if how.row_bits and stats.row_score_R is not None
        else how.bits
    )


def _coded(weight_RC: Tensor, scale_C: Tensor | None, how: Recipe, stats: TensorStats) -> Stored:
    """Everything after the choice of scales."""
    turned_RC, bits = _transform(weight_RC, scale_C, how), _row_bits(how, stats)
    use_fisher = how.fisher and stats.fisher_RC is not None
    fisher_RC = _transform_fisher(stats.fisher_RC, scale_C, how) if use_fisher else None
    step_R = grid.row_steps(clip.clip(turned_RC, bits, how.reach, fisher_RC), bits)
    if how.gptq and stats.hessian_CC is not None:
        coded = gptq.quantise(turned_RC, step_R, bits, _transform_hessian(stats.hessian_CC, scale_C, how))
    else:
        coded = grid.quantise(turned_RC, step_R, bits)
    return Stored(coded.codes_RC, coded.step_R, scale_C)


def encode(name: str, weight: Tensor, how: Recipe, stats: TensorStats | None = None) -> Stored:
    """One tensor -> what is stored of it. ValueError names the tensor where a number is not finite or too
    big."""
    if not torch.isfinite(weight).all():
        raise ValueError(f"tensor {name} holds a NaN or an infinity; nothing was stored")
    if how.bits is None:
        return Stored(_half(name, weight))
    stats, plain, scale_C = stats or TensorStats(), how._replace(gptq=False), None
    try:
        if how.awq and stats.hessian_CC is not None and stats.activation_C is not None:
            scale_C = awq.search(
                weight,
                stats.activation_C,
                stats.hessian_CC,
                lambda scale_C: _inverse_transform(_coded(weight, scale_C, plain, stats), how),
            )
        return _coded(weight, scale_C, how, stats)
    except ValueError as error:
        raise ValueError(f"tensor {name}: {error}") from error


def decode(stored: Stored, how: Recipe) -> Tensor:
    """What is stored of one tensor -> float32 values: the inverse of `encode` but for the rounding."""
    return stored.values.float() if stored.step_R is None else _inverse_transform(stored, how)
