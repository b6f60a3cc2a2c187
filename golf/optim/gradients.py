"""The gradients of all parameters as views of one flat float32 buffer, and their mean over the ranks.

Muon's matrices form banks, one for each shape. A bank is cut into one share of whole matrices per rank, with
zeros added where the number of ranks does not divide it. The shares of a rank form its segment:

    | segment of rank 0 | segment of rank 1 | ... | other gradients |

Before a step, `reduce` gives each rank the mean of what it needs: its own segment, because it orthogonalises
only its own matrices, and all other gradients. With `banks`, the segments are exchanged by one reduce-scatter
in the dtype `exchange`; without, everything is averaged by one all-reduce in float32. With one rank, nothing
is exchanged, and the only segment holds whole banks.

Cost: backward passes add to the buffer instead of replacing it. Source: parameter banks from #586; the legend
of axes is in golf/model/layers.py.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import torch
from torch import Tensor, nn

from golf.runtime.dist import ALONE, Ranks

ALIGNMENT = 64
"""Every bank and every other gradient begins at a multiple of this many numbers, for vector instructions."""


def aligned(n: int) -> int:
    """The next multiple of ALIGNMENT."""
    return -(-n // ALIGNMENT) * ALIGNMENT


class Bank(NamedTuple):
    """Matrices of one shape, and the place of a rank's share of them in its segment."""

    shape: torch.Size
    matrices: list[Tensor]
    place: slice

    def share(self, segment_S: Tensor) -> Tensor:
        """A segment -> its part of this bank, share_LRC."""
        return segment_S[self.place].view(-1, *self.shape)

    def split(self, segments_WS: Tensor) -> list[Tensor]:
        """The segments of all ranks -> a view per matrix."""
        shares_WLRC = segments_WS[:, self.place].unflatten(1, (-1, *self.shape))
        return [view_RC for share in shares_WLRC.unbind() for view_RC in share.unbind()][: len(self.matrices)]


def in_banks(matrices: Sequence[Tensor], world: int) -> list[Bank]:
    """Matrices sorted by shape, with equal shares for `world` ranks."""
    stacks: dict[torch.Size, list[Tensor]] = {}
    for matrix in matrices:
        stacks.setdefault(matrix.shape, []).append(matrix)
    banks, start = [], 0
    for shape, stack in stacks.items():
        stop = start + -(-len(stack) // world) * shape.numel()
        banks.append(Bank(shape, stack, slice(start, stop)))
        start = aligned(stop)
    return banks


class FlatGradients:
    """The buffer, whose views are the parameters' gradients from here on: nothing else may replace them."""

    def __init__(
        self,
        matrices: Sequence[Tensor],
        others: Sequence[Tensor],
        ranks: Ranks = ALONE,
        *,
        banks: bool = True,
        exchange: torch.dtype = torch.float32,
    ) -> None:
        self.ranks, self.scattered, self.exchange = ranks, banks, exchange
        self.banks = in_banks(matrices, ranks.world)
        size = aligned(self.banks[-1].place.stop) if self.banks else 0
        sizes = [aligned(parameter.numel()) for parameter in others]
        device = next(iter((*matrices, *others))).device
        self.flat = torch.zeros(ranks.world * size + sum(sizes), device=device)
        segments, self.others = self.flat.split([ranks.world * size, sum(sizes)])
        self.segments_WS = segments.view(ranks.world, size)
        self.own_S = self.segments_WS[ranks.rank]
        views = {
            parameter: part[: parameter.numel()].view_as(parameter)
            for parameter, part in zip(others, self.others.split(sizes), strict=True)
        }
        for bank in self.banks:
            views |= zip(bank.matrices, bank.split(self.segments_WS), strict=True)
        self.views = {parameter: views[parameter] for parameter in (*matrices, *others)}
        for parameter, view in self.views.items():
            parameter.grad = view

    def _check(self) -> None:
        replaced = [tuple(p.shape) for p, view in self.views.items() if p.grad is not view]
        assert not replaced, f"gradients of {replaced} are no views of the flat buffer: clear them by `zero`"

    def _norm(self) -> Tensor:
        if self.ranks.world == 1:
            return nn.utils.get_total_norm(list(self.views.values()), foreach=True)
        square = torch.linalg.vector_norm(self.own_S).square()
        self.ranks.all_reduce(square)
        return (square + torch.linalg.vector_norm(self.others).square()).sqrt()

    def average(self) -> None:
        """Every gradient becomes its mean over the ranks. Doing it twice changes nothing."""
        self._check()
        self.ranks.mean(self.flat)

    def reduce(self) -> None:
        """This rank's segment `own_S` and all `others` become their means over the ranks."""
        if not self.scattered:
            return self.average()
        self._check()
        if self.ranks.world > 1:
            self.own_S.copy_(self.ranks.mean_share(self.segments_WS.to(self.exchange)))
            self.ranks.mean(self.others)

    def clip(self, limit: float) -> None:
        """After `reduce`: scale all gradients so that their global 2-norm is at most `limit`."""
        factor = (limit / (self._norm() + 1e-6)).clamp(max=1.0)
        self.own_S.mul_(factor)
        self.others.mul_(factor)

    def zero(self) -> None:
        """Clear all gradients."""
        self.flat.zero_()
