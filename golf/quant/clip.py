"""Clipping range of each row's grid: its maximum, a quantile, k standard deviations, or a search.

W_RC -> clip_R (float32, at least 0); the grid clips larger magnitudes. Methods, by their name in CLIPS:

    max        the row's largest |W|: clips nothing
    quantile   the p-quantile of |row|, interpolated linearly (challenge's starting script: p = .9999984)
    sigma      k standard deviations of the row (SDClip, #1394 and #1493). With k = 12.85 and 6 bits the
               step is .41 standard deviations: codes are small and compress well, with entropy
               H = bits - log2 k + const for normally distributed rows
    search     per matrix, the quantile of QUANTILES (1 is max) with the least squared rounding error
               (GPTQ-lite, #414: its text says per row, its code is per matrix)

Floor: clip_R is at least 1, so a step is at least 1 / (2^(bits-1) - 1), as in #586 and its predecessors.
Rows of small numbers then use fewer codes, which accounts for much of what their compressors save and much
of their error.

With a Fisher diagonal F_RC, importance_R = mean of the row's sqrt(F) / the matrix's largest sqrt(F), in 0..1:

    sigma      k becomes k * (1 + importance) (the range of #1462, per row)
    quantile   the clip moves from the quantile towards the row's maximum by the fraction `importance`;
               not beyond, where it would only coarsen the grid of a row that is not clipped (our choice)
    max        unchanged, for the same reason
    search     squared errors are weighted by F

Neutral: max without floor.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import NamedTuple

import torch
from torch import Tensor

from golf.quant import grid
from golf.quant.loss import loss

QUANTILES = (0.999, 0.9995, 0.9999, 0.99999, 1.0)


class ClipMethod(NamedTuple):
    """A key of CLIPS, its parameter, and the floor. The defaults clip nothing."""

    name: str = "max"
    quantile: float = 0.9999984
    sigmas: float = 12.85
    floor: bool = False

    def apply_floor(self, clip_R: Tensor) -> Tensor:
        """clip_R, at least 1 if `floor` is on."""
        return clip_R.clamp(min=1.0) if self.floor else clip_R


def importance(fisher_RC: Tensor) -> Tensor:
    """Row means of sqrt(F) divided by the matrix's largest sqrt(F), in 0..1; zeros if F is zero."""
    root_RC = fisher_RC.sqrt()
    return root_RC.mean(dim=1) / root_RC.max().clamp(min=torch.finfo(torch.float32).tiny)


def _quantiles(weight_RC: Tensor, fractions: tuple[float, ...]) -> list[Tensor]:
    """Quantiles of |row| as in torch.quantile, but sorting only the largest numbers of each row."""
    last = weight_RC.shape[1] - 1
    top_RC = weight_RC.abs().topk(last + 1 - int(min(fractions) * last), dim=1).values

    def at(fraction: float) -> Tensor:
        below = last - int(fraction * last)  # index counted from the largest
        weight = fraction * last - int(fraction * last)
        return torch.lerp(top_RC[:, below], top_RC[:, max(below - 1, 0)], weight)

    return [at(fraction) for fraction in fractions]


def _max(weight_RC: Tensor, bits: grid.Bits, method: ClipMethod, fisher_RC: Tensor | None) -> Tensor:
    return weight_RC.abs().amax(dim=1)


def _by_quantile(weight_RC: Tensor, bits: grid.Bits, method: ClipMethod, fisher_RC: Tensor | None) -> Tensor:
    clip_R, largest_R = _quantiles(weight_RC, (method.quantile, 1.0))
    return clip_R if fisher_RC is None else torch.lerp(clip_R, largest_R, importance(fisher_RC))


def _by_sigma(weight_RC: Tensor, bits: grid.Bits, method: ClipMethod, fisher_RC: Tensor | None) -> Tensor:
    clip_R = method.sigmas * weight_RC.std(dim=1, correction=min(1, weight_RC.shape[1] - 1))
    return clip_R if fisher_RC is None else clip_R * (1 + importance(fisher_RC))


def _search(weight_RC: Tensor, bits: grid.Bits, method: ClipMethod, fisher_RC: Tensor | None) -> Tensor:
    def error(clip_R: Tensor) -> float:
        quantised = grid.quantise(weight_RC, grid.row_steps(method.apply_floor(clip_R), bits), bits)
        return loss(grid.dequantise(quantised) - weight_RC, fisher_RC=fisher_RC)

    return min(reversed(_quantiles(weight_RC, QUANTILES)), key=error)  # ties: the largest quantile


CLIPS: dict[str, Callable[[Tensor, grid.Bits, ClipMethod, Tensor | None], Tensor]] = {
    "max": _max,
    "quantile": _by_quantile,
    "sigma": _by_sigma,
    "search": _search,
}


def clip(weight_RC: Tensor, bits: grid.Bits, method: ClipMethod, fisher_RC: Tensor | None = None) -> Tensor:
    """clip_R of a matrix (float32). `fisher_RC` must be scaled and rotated like `weight_RC`.

    Raises KeyError for an unknown method.
    """
    return method.apply_floor(CLIPS[method.name](weight_RC, bits, method, fisher_RC))
