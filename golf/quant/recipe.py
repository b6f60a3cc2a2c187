"""Quantise one tensor in a fixed order: scale, rotate, clip, round. Steps that are off are left out.

`encode` maps a tensor W to the arrays that are stored, `decode` maps them to W':

    V = W diag(s) Q              s: AWQ scales (awq.py), Q: block Hadamard rotation (rotate.py)
    codes, steps = quantise(V)   clipped (clip.py), bits per tensor or per row (rows.py), rounded to the
                                 nearest (grid.py) or with error feedback (gptq.py)
    W' = codes * steps Q^T diag(1/s)

Let D = W' - W and E be the change of V, so D = E Q^T diag(1/s). Then tr(D H D^T) = tr(E H' E^T) for

    H' = Q^T diag(1/s) H diag(1/s) Q

which is the Hessian that GPTQ uses. The Fisher diagonal becomes F / s^2, rotated as a diagonal.

A step whose statistics were not measured for a tensor is left out: a table that is only looked up has
no Hessian, so it is neither scaled nor rounded with feedback. Bits are not stored: dequantising needs
only the steps.

Neutral: bits = None stores float16; every other default leaves its step out. Cost: one byte per quantised
number, two per row and (AWQ) two per column before compression; two per other number. Source: the order of
#586, with AWQ's scales first. golf/stages/pack.py chooses tensors and bits, and compresses.
"""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor

from golf.quant import awq, clip, gptq, grid, rotate, rows
from golf.quant.clip import ClipMethod
from golf.quant.stats import TensorStats


class Recipe(NamedTuple):
    """How to quantise one tensor. The defaults only convert it to float16."""

    bits: int | None = None
    clip_method: ClipMethod = ClipMethod()
    rotate: bool = False
    awq: bool = False
    gptq: bool = False
    fisher: bool = False
    row_bits: bool = False


class Stored(NamedTuple):
    """One tensor as stored: float16 values and no steps, or int8 codes, float16 steps and, if its columns are
    scaled, float16 scale_C.
    """

    values: Tensor
    step_R: Tensor | None = None
    scale_C: Tensor | None = None


def _half(name: str, weight: Tensor) -> Tensor:
    half = weight.to(torch.float16)
    if not torch.isfinite(half).all():
        raise ValueError(f"tensor {name} reaches {weight.abs().max().item():g}, beyond the range of fp16")
    return half


def _transform(weight_RC: Tensor, scale_C: Tensor | None, recipe: Recipe) -> Tensor:
    """W_RC -> V_RC, float32."""
    weight_RC = weight_RC.float() if scale_C is None else weight_RC.float() * scale_C.float()
    return rotate.rotate(weight_RC) if recipe.rotate else weight_RC


def _inverse_transform(stored: Stored, recipe: Recipe) -> Tensor:
    """Codes -> W'_RC, by elementwise products and additions only: the same bits on every machine."""
    assert stored.step_R is not None
    weight_RC = grid.dequantise(grid.Quantised(stored.values, stored.step_R))
    weight_RC = rotate.rotate(weight_RC) if recipe.rotate else weight_RC
    return weight_RC if stored.scale_C is None else weight_RC / stored.scale_C.float()


def _transform_fisher(fisher_RC: Tensor, scale_C: Tensor | None, recipe: Recipe) -> Tensor:
    fisher_RC = fisher_RC if scale_C is None else fisher_RC / scale_C.float().square()
    return rotate.rotate_diagonal(fisher_RC) if recipe.rotate else fisher_RC


def _transform_hessian(hessian_CC: Tensor, scale_C: Tensor | None, recipe: Recipe) -> Tensor:
    if scale_C is not None:
        inverse_C = 1 / scale_C.float()
        hessian_CC = hessian_CC * inverse_C * inverse_C[:, None]
    return rotate.rotate_hessian(hessian_CC) if recipe.rotate else hessian_CC


def _bits(recipe: Recipe, stats: TensorStats) -> grid.Bits:
    assert recipe.bits is not None
    if recipe.row_bits and stats.row_score_R is not None:
        return rows.row_bits(stats.row_score_R, recipe.bits)
    return recipe.bits


def _quantise(weight_RC: Tensor, scale_C: Tensor | None, recipe: Recipe, stats: TensorStats) -> Stored:
    """Every step, with given scales."""
    transformed_RC, bits = _transform(weight_RC, scale_C, recipe), _bits(recipe, stats)
    fisher_RC = stats.fisher_RC if recipe.fisher else None
    if fisher_RC is not None:
        fisher_RC = _transform_fisher(fisher_RC, scale_C, recipe)
    step_R = grid.row_steps(clip.clip(transformed_RC, bits, recipe.clip_method, fisher_RC), bits)
    if recipe.gptq and stats.hessian_CC is not None:
        hessian_CC = _transform_hessian(stats.hessian_CC, scale_C, recipe)
        quantised = gptq.quantise(transformed_RC, step_R, bits, hessian_CC)
    else:
        quantised = grid.quantise(transformed_RC, step_R, bits)
    return Stored(quantised.codes_RC, quantised.step_R, scale_C)


def encode(name: str, weight: Tensor, recipe: Recipe, stats: TensorStats | None = None) -> Stored:
    """Quantise one tensor. Raises ValueError with its name if a number is not finite or too large."""
    if not torch.isfinite(weight).all():
        raise ValueError(f"tensor {name} holds a NaN or an infinity")
    if recipe.bits is None:
        return Stored(_half(name, weight))
    stats, plain, scale_C = stats or TensorStats(), recipe._replace(gptq=False), None
    try:
        if recipe.awq and stats.hessian_CC is not None and stats.activation_C is not None:
            scale_C = awq.search(
                weight,
                stats.activation_C,
                stats.hessian_CC,
                lambda scale_C: _inverse_transform(_quantise(weight, scale_C, plain, stats), recipe),
            )
        return _quantise(weight, scale_C, recipe, stats)
    except ValueError as error:
        raise ValueError(f"tensor {name}: {error}") from error


def decode(stored: Stored, recipe: Recipe) -> Tensor:
    """float32 values of a stored tensor: the inverse of `encode` up to rounding."""
    return stored.values.float() if stored.step_R is None else _inverse_transform(stored, recipe)
