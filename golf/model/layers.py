"""Building blocks of the network: linear maps, RMS norm, rotary positions, the squared feed-forward.

Legend of axes, for all of golf. A tensor's name ends with its axes in order; 1 and 2 are sizes.

    B  sequences of a batch        V  vocabulary                   N  a flat list: tokens, numbers of a matrix
    T  predicted positions         F  feed-forward width           L  matrices stacked
    S  positions read (S >= T)     J  rotary frequencies           U  the part of an axis in one block
    D  residual width              R  rows, outputs of a matrix    P  pairs of sequence and key head, B K
    E  width of a head             C  columns, its inputs          Q  queries of such a pair, T G
    H  query heads                 G  query heads per key head     X  contexts of the entropy coder
    K  key and value heads            (G = H / K)                  A  its symbols

Weights are stored in float32 and cast to the activations' dtype where they are used, so the same modules run
in float32 and bfloat16 without autocast.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn
from torch.nn import functional

EPS = torch.finfo(torch.float32).eps


class Linear(nn.Module):
    """x_BTC -> x_BTR = x W^T. Cost: R * C parameters, W_RC in float32, uninitialised until
    golf/model/init.py fills it.

    `weight_transform`, if set, maps W_RC to the W_RC used in the product; quantisation-aware training
    uses it. It is an instance attribute because torch.compile guards those: setting it recompiles a
    compiled forward, whereas a flag on the class is frozen at its value in the first trace (#315, #374,
    #414). Neutral: None.
    """

    def __init__(self, columns: int, rows: int) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.empty(rows, columns))
        self.weight_transform: Callable[[Tensor], Tensor] | None = None

    def forward(self, x_BTC: Tensor) -> Tensor:
        weight_RC = self.weight if self.weight_transform is None else self.weight_transform(self.weight)
        return functional.linear(x_BTC, weight_RC.to(x_BTC.dtype))


class Table(nn.Module):
    """ids_BT -> x_BTC, the rows of a float32 embedding table. Cost: rows * C parameters."""

    def __init__(self, rows: int, columns: int) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.empty(rows, columns))

    def forward(self, ids_BT: Tensor) -> Tensor:
        return functional.embedding(ids_BT, self.weight)


def _inverse_rms(x: Tensor) -> Tensor:
    """1 / sqrt(mean(x^2) + eps) in float32 over the last axis, which is kept with size 1."""
    norm = torch.linalg.vector_norm(x, dim=-1, keepdim=True, dtype=torch.float32)
    return torch.rsqrt(norm.square() / x.shape[-1] + EPS)


class _RmsNorm(torch.autograd.Function):
    """y = s r x with r = 1 / sqrt(mean(x^2) + eps); dx = s r (dy - x r^2 <dy, x> / size). Few passes."""

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

    If `scale` is a tensor, its last size is 1, or it has no axes. The gradient is written by hand because on
    a CPU each pass over the activations costs as much as the arithmetic: in bfloat16 it is 2.6 times as fast
    as autograd's, and more exact. torch.compile gets the definition and fuses it itself.
    """
    if torch.compiler.is_compiling():
        return (x * (scale * _inverse_rms(x))).to(x.dtype)
    return _RmsNorm.apply(x, scale if isinstance(scale, Tensor) else torch.full((), scale, device=x.device))


class Rotary(NamedTuple):
    """Cosines and sines for each position; J is half the number of rotated dimensions."""

    cos_SJ: Tensor
    sin_SJ: Tensor

    def last(self, n: int) -> Rotary:
        """The tables of the last n positions."""
        return Rotary(self.cos_SJ[-n:], self.sin_SJ[-n:])


def rotary(positions: int, dims: int, base: float, device: torch.device) -> Rotary:
    """Tables for positions 0 .. positions - 1. Frequency j of J = dims / 2 is base^(-2 j / dims)."""
    frequency_J = base ** (-torch.arange(0, dims, 2, device=device, dtype=torch.float32) / dims)
    angle_SJ = torch.outer(torch.arange(positions, device=device, dtype=torch.float32), frequency_J)
    return Rotary(angle_SJ.cos(), angle_SJ.sin())


def rotate(x_BTHE: Tensor, table: Rotary) -> Tensor:
    """Rotate the first 2 J dimensions of each head by its position (half-split form); the rest is unchanged.

    With partial rotation (source: #374, #414, #586) the other dimensions match by content at any distance. No
    parameters. Neutral: 2 J = E, the whole head.
    """
    half = table.cos_SJ.shape[-1]
    cos, sin = (part.to(x_BTHE.dtype)[:, None, :] for part in table)
    a, b, rest = x_BTHE.split([half, half, x_BTHE.shape[-1] - 2 * half], dim=-1)
    return torch.cat([a * cos + b * sin, b * cos - a * sin, rest], dim=-1)


class FeedForward(nn.Module):
    """x_BTD -> leaky_relu(x W_up^T, slope)^2 W_down^T, x_BTD. Cost: 2 * D * F parameters.

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
    """cap * tanh(logits / cap). No parameters. Neutral: cap = 0, logits unchanged.

    Computed as 2 cap sigmoid(2 logits / cap) - cap, which differs by at most 2e-7 cap: a CPU computes the
    sigmoid six times as fast as tanh.
    """
    return torch.sigmoid(logits * (2 / cap)).mul(2 * cap).sub_(cap) if cap else logits


def layer_scale(layer: int, on: bool) -> Tensor:
    """LN scale: factor 1 / sqrt(layer + 1), float32 without axes, on the normed inputs of a block.

    Neutral: off, 1. Source: #374.
    """
    return torch.tensor(1 / math.sqrt(layer + 1) if on else 1.0)
