"""What a row's grid reaches up to: its largest number, a quantile, k standard deviations, or a search.

What: W_RC -> clip_R (float32, not negative); numbers beyond it are cut off by the grid. CLIPS, by name:

    max        the row's largest |W|: nothing is cut
    quantile   the p-quantile of |row|, interpolated linearly (challenge's starting script: p = .9999984)
    sigma      k standard deviations of the row (SDClip, #1394 and #1493). With k = 12.85 and 6 bits the step is .41
               standard deviations, so that codes are small and compress: H = bits - log2 k + const for normal rows
    search     per matrix, the quantile among QUANTILES (1 is max) whose rounded matrix has the least squared error
               (GPTQ-lite, #414: its text says per row, its code is per matrix)

Floor: with it clip_R is at least 1, so that a step is at least 1/R, as in #586 and its ancestors: a row of
small numbers uses fewer than N bits. That is much of what their compressors then save, and much of their
error.

With a Fisher diagonal F_RC, `importance_R` is the row's mean of sqrt(F) over the matrix's largest sqrt(F), in
0..1, and

    sigma      k becomes k * (1 + importance)            (#1462's range, on rows)
    quantile   the clip moves from the quantile towards the row's maximum by the share `importance`: our reading, because
               a reach beyond the maximum would only coarsen the grid of a row that nothing is cut from
    max        unchanged for the same reason
    search     squared errors are weighted by F

Neutral value: max without floor. Bytes: none. Not covered: clips chosen by Hessian.
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
    """How far a grid reaches: the method, its number, and the floor. The defaults cut nothing."""

    method: str = "max"
    quantile: float = 0.9999984
    sigmas: float = 12.85
    floor: bool = False

    def floored(self, clip_R: Tensor) -> Tensor:
        """At least 1 with the floor, which gives steps of at least 1/R."""
        return clip_R.clamp(min=1.0) if self.floor else clip_R


def importance(fisher_RC: Tensor) -> Tensor:
    """Row means of sqrt(F) over the matrix's largest: in 0..1; zeros where nothing ever had a gradient."""
    root_RC = fisher_RC.sqrt()
    return root_RC.mean(dim=1) / root_RC.max().clamp(min=torch.finfo(torch.float32).tiny)


def _quantiles(weight_RC: Tensor, shares: tuple[float, ...]) -> list[Tensor]:
    """Quantiles of |row|, as torch.quantile gives them; that would sort whole rows, where a few of the
    largest do."""
    last = weight_RC.shape[1] - 1
    top_RC = weight_RC.abs().topk(last + 1 - int(min(shares) * last), dim=1).values

    def at(share: float) -> Tensor:
        below = last - int(share * last)  # the place from the top
        return torch.lerp(top_RC[:, below], top_RC[:, max(below - 1, 0)], share * last - int(share * last))

    return [at(share) for share in shares]


def _max(weight_RC: Tensor, bits: grid.Bits, reach: ClipMethod, fisher_RC: Tensor | None) -> Tensor:
    return weight_RC.abs().amax(dim=1)


def _by_quantile(weight_RC: Tensor, bits: grid.Bits, reach: ClipMethod, fisher_RC: Tensor | None) -> Tensor:
    clip_R, largest_R = _quantiles(weight_RC, (reach.quantile, 1.0))
    return clip_R if fisher_RC is None else torch.lerp(clip_R, largest_R, importance(fisher_RC))


def _by_sigma(weight_RC: Tensor, bits: grid.Bits, reach: ClipMethod, fisher_RC: Tensor | None) -> Tensor:
    clip_R = reach.sigmas * weight_RC.std(dim=1, correction=min(1, weight_RC.shape[1] - 1))
    return clip_R if fisher_RC is None else clip_R * (1 + importance(fisher_RC))


def _search(weight_RC: Tensor, bits: grid.Bits, reach: ClipMethod, fisher_RC: Tensor | None) -> Tensor:
    def error(clip_R: Tensor) -> float:
        coded = grid.quantise(weight_RC, grid.row_steps(reach.floored(clip_R), bits), bits)
        return loss(grid.dequantise(coded) - weight_RC, fisher_RC=fisher_RC)

    return min(reversed(_quantiles(weight_RC, QUANTILES)), key=error)  # of equals the farthest


CLIPS: dict[str, Callable[[Tensor, grid.Bits, ClipMethod, Tensor | None], Tensor]] = {
    "max": _max,
    "quantile": _by_quantile,
    "sigma": _by_sigma,
    "search": _search,
}


def clip(weight_RC: Tensor, bits: grid.Bits, reach: ClipMethod, fisher_RC: Tensor | None = None) -> Tensor:
    """clip_R of a matrix (float32). `fisher_RC` belongs to W as it is given here: scaled and rotated like it.

    Raises KeyError for an unknown method."""
    return reach.floored(CLIPS[reach.method](weight_RC, bits, reach, fisher_RC))
