"""Primitives of every block: linear maps, RMS norm, rotary positions, the squared feed-forward.

Axes, here and in all of golf/model: B rows, T targets or queries, S keys, D width, H query heads, K key
heads, G = H / K, E head width, F feed-forward width, V vocabulary.

Weights are float32 masters, cast to the stream's dtype where they are used, so that the same modules run in
float32 and in bfloat16 without autocast. Not covered: learnable norm weights and biases, which no system of
the family has."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn
from torch.nn import functional

EPS = torch.finfo(torch.float32).eps


class Linear(nn.Module):
    """x_BTC -> x_BTR = x W^T. Cost: R * C parameters, W_RC in float32, empty until golf/model/init.py fills
    it.

    `weight_transform`, where set, is what the master weight passes on its way into the product, W_RC -> W_RC: the
    place of quantisation-aware training. It is an attribute of the instance, which torch.compile guards:
    setting it makes a compiled forward recompile (a flag on the class is folded into the first trace: #315,
    #374, #414). Neutral: None."""

    def __init__(self, columns: int, rows: int) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.empty(rows, columns))
        self.weight_transform: Callable[[Tensor], Tensor] | None = None

    def forward(self, x_BTC: Tensor) -> Tensor:
        weight_RC = self.weight if self.weight_transform is None else self.weight_transform(self.weight)
        return functional.linear(x_BTC, weight_RC.to(x_BTC.dtype))


class Table(nn.Module):
    """ids_BT -> rows_BTC of a float32 table. Cost: N * C parameters."""

    def __init__(self, rows: int, columns: int) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.empty(rows, columns))

    def forward(self, ids_BT: Tensor) -> Tensor:
        return functional.embedding(ids_BT, self.weight)


def _inverse_rms(x: Tensor) -> Tensor:
    """1 / sqrt(mean(x^2) + eps) over the last axis, which stays with size 1, in float32."""
    norm = torch.linalg.vector_norm(x, dim=-1, keepdim=True, dtype=torch.float32)
    return torch.rsqrt(norm.square() / x.shape[-1] + EPS)


class _RmsNorm(torch.autograd.Function):
    """y = x s r with r = 1 / sqrt(mean(x^2) + eps), and dx = s r (dy - x r^2 <dy, x> / size), both in few
    passes."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, scale: Tensor) -> Tensor:
        inverse = _inverse_rms(x)
        ctx.save_for_backward(x, inverse, scale)
        return (x * (scale * inverse)).to(x.dtype)

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor, Tensor | None]:
        (x, inverse, scale), (dy,) = ctx.saved_tensors, gradients
        along = (dy * x).sum(dim=-1, keepdim=True, dtype=torch.float32) * inverse
        factor = scale * inverse
        dx = (dy * factor).addcmul_(x, factor * along * inverse / -x.shape[-1])
        return dx.to(x.dtype), along.sum_to_size(scale.shape) if ctx.needs_input_grad[1] else None


def rms_norm(x: Tensor, scale: float | Tensor = 1.0) -> Tensor:
    """x * scale / sqrt(mean(x^2) + eps) over the last axis, the mean in float32. No parameters.

    A scale that is a tensor has 1 as its last size. The gradient is written out, because on a CPU each pass
    over the stream costs as much as the arithmetic: in bfloat16 2.6 times as fast as what autograd derives,
    and more exact. A compiler gets the definition, whose passes it fuses itself."""
    if torch.compiler.is_compiling():
        return (x * (scale * _inverse_rms(x))).to(x.dtype)
    return _RmsNorm.apply(x, scale if isinstance(scale, Tensor) else torch.full((), scale, device=x.device))


class Rotary(NamedTuple):
    """Cosines and sines of each position, S by half the number of rotated dimensions."""

    cos_SR: Tensor
    sin_SR: Tensor

    def last(self, n: int) -> Rotary:
        """The rows of the last n positions."""
        return Rotary(self.cos_SR[-n:], self.sin_SR[-n:])


def rotary(positions: int, dims: int, base: float, device: torch.device) -> Rotary:
    """Tables for positions 0 .. positions - 1; frequency i of dims / 2 is base^(-2 i / dims)."""
    frequency_R = base ** (-torch.arange(0, dims, 2, device=device, dtype=torch.float32) / dims)
    angle_SR = torch.outer(torch.arange(positions, device=device, dtype=torch.float32), frequency_R)
    return Rotary(angle_SR.cos(), angle_SR.sin())


def rotate(x_BTHE: Tensor, table: Rotary) -> Tensor:
    """Rotate the first 2 R dimensions of each head by its position, half-split form; the rest passes through.

    Partial rotation (source: #374, #414, #586) lets most dimensions match by content at any distance.
    No parameters; neutral when 2 R is the whole head.
    """
    half = table.cos_SR.shape[-1]
    cos, sin = (part.to(x_BTHE.dtype)[:, None, :] for part in table)
    a, b, rest = x_BTHE.split([half, half, x_BTHE.shape[-1] - 2 * half], dim=-1)
    return torch.cat([a * cos + b * sin, b * cos - a * sin, rest], dim=-1)


class FeedForward(nn.Module):
    """x_BTD -> leaky_relu(x U^T, slope)^2 W^T, x_BTD. Cost: 2 * D * F parameters.

    Neutral: slope 0, plain ReLU. Source: the challenge's starting script; the slope (0.5) from #1493.
    """

    def __init__(self, width: int, hidden: int, slope: float) -> None:
        super().__init__()
        self.slope = slope
        self.up = Linear(width, hidden)
        self.down = Linear(hidden, width)

    def forward(self, x_BTD: Tensor) -> Tensor:
        return self.down(functional.leaky_relu(self.up(x_BTD), self.slope, inplace=True).square())


def softcap(logits: Tensor, cap: float) -> Tensor:
    """cap * tanh(logits / cap): bounded logits, monotone. No parameters. Neutral: cap = 0, logits as they
    are.

    Written as 2 cap sigmoid(2 logits / cap) - cap, the same function up to 2e-7 cap: a CPU computes the
    sigmoid six times as fast."""
    return torch.sigmoid(logits * (2 / cap)).mul(2 * cap).sub_(cap) if cap else logits


def layer_scale(layer: int, on: bool) -> float:
    """LN scale: 1 / sqrt(layer + 1), multiplied onto the normed inputs of a block. Neutral: off, 1. Source:
    #374."""
    return 1 / math.sqrt(layer + 1) if on else 1.0
