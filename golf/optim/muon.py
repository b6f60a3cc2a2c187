"""Muon: update each weight matrix by the nearest (semi-)orthogonal matrix to its gradient's momentum.

Five Newton-Schulz steps approximate the orthogonal factor U V^T of G = U S V^T. Each applies an odd quintic
polynomial that is steep at 0 and does not converge: singular values end between about 0.7 and 1.2, which
trains as well as exactly 1 and needs only matrix products. Matrices of one shape are stacked and processed
together; with several ranks, each rank processes its part of a stack and the updates are summed.

MuonEq-R (`equalise`): each row of the update (one output of the matrix) is first scaled to norm 1, so that
rows with small gradients are updated as much as the others. Neutral: false.

Source: K. Jordan's Muon (github.com/KellerJordan/Muon); the lerp variant and its decoupled decay are from
#586, MuonEq-R from #1394 and #1493. The legend of axes is in golf/model/layers.py.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor, nn

COEFFICIENTS = (3.4445, -4.7750, 2.0315)


def newton_schulz(g_LRC: Tensor, steps: int = 5, dtype: torch.dtype = torch.float32) -> Tensor:
    """g_LRC -> approximately U V^T of each matrix, in g's shape and dtype, computed in `dtype`.

    bfloat16 halves the time; its error in the singular values is about as large as the polynomial's own.
    """
    a, b, c = COEFFICIENTS
    x = g_LRC.to(dtype)
    x = x / (x.flatten(1).norm(dim=1)[:, None, None] + 1e-7)
    tall = x.shape[1] > x.shape[2]
    if tall:
        x = x.mT
    for _ in range(steps):
        gram = x @ x.mT
        x = torch.baddbmm(x, torch.baddbmm(gram, gram, gram, beta=b, alpha=c), x, beta=a)
    return (x.mT if tall else x).to(g_LRC.dtype)


def normalise_rows(g_LRC: Tensor) -> Tensor:
    """g_LRC with each row divided by its 2-norm, or by 1e-7 if the norm is smaller."""
    return g_LRC / torch.linalg.vector_norm(g_LRC, dim=-1, keepdim=True).clamp(min=1e-7)


def nesterov(g_LRC: Tensor, buffer_LRC: Tensor, momentum: float) -> Tensor:
    """Nesterov: buf <- m buf + g, in place; returns g + m buf."""
    buffer_LRC.mul_(momentum).add_(g_LRC)
    return g_LRC.add(buffer_LRC, alpha=momentum)


def lerp(g_LRC: Tensor, buffer_LRC: Tensor, momentum: float) -> Tensor:
    """Lerp: buf <- m buf + (1 - m) g, in place; returns buf."""
    return buffer_LRC.lerp_(g_LRC, 1 - momentum)


MOMENTUM: dict[str, Callable[[Tensor, Tensor, float], Tensor]] = {"nesterov": nesterov, "lerp": lerp}


@dataclass(frozen=True, kw_only=True)
class MuonOptions:
    """The update rule: see the fields `muon_*` of golf/recipe/training.py."""

    variant: str
    """Key of MOMENTUM."""
    decay: float
    """Decoupled weight decay."""
    steps: int
    """Newton-Schulz iterations."""
    equalise: bool = False
    """MuonEq-R."""
    dtype: torch.dtype = torch.float32
    """Arithmetic of the iteration; momentum and weights are float32."""


class Muon:
    """Muon over matrices, stacked by shape; owns their momentum buffers.

    `all_reduce` sums a tensor over the ranks in place; with one rank it does nothing. Gradients must be equal
    on all ranks before `step`; buffers and weights then stay equal too.
    """

    def __init__(
        self,
        matrices: Sequence[nn.Parameter],
        options: MuonOptions,
        *,
        rank: int = 0,
        world: int = 1,
        all_reduce: Callable[[Tensor], None] = lambda tensor: None,
    ) -> None:
        self.options, self.momentum_rule = options, MOMENTUM[options.variant]
        self.own, self.world, self.all_reduce = slice(rank, None, world), world, all_reduce
        self.stacks: dict[tuple[int, ...], list[Tensor]] = {}
        for matrix in matrices:
            self.stacks.setdefault(tuple(matrix.shape), []).append(matrix)
        self.buffers = {shape: torch.zeros_like(torch.stack(list(ps))) for shape, ps in self.stacks.items()}

    def _orthogonalise(self, g_LRC: Tensor) -> Tensor:
        return newton_schulz(g_LRC, self.options.steps, self.options.dtype)

    @torch.no_grad()
    def step(self, lr: float, momentum: float) -> None:
        """One update: w <- (1 - lr decay) w - lr sqrt(max(1, R / C)) u with u = orthogonalise(momentum(g)).

        With `equalise`, `normalise_rows` is applied before orthogonalising.
        """
        for (rows, columns), matrices in self.stacks.items():
            g_LRC = torch.stack([matrix.grad for matrix in matrices])  # type: ignore[misc]  # set by backward
            direction_LRC = self.momentum_rule(g_LRC, self.buffers[rows, columns], momentum)
            if self.options.equalise:
                direction_LRC = normalise_rows(direction_LRC)
            if self.world == 1:
                update_LRC = self._orthogonalise(direction_LRC)
            else:
                update_LRC = torch.zeros_like(direction_LRC)
                if len(direction_LRC[self.own]):
                    update_LRC[self.own] = self._orthogonalise(direction_LRC[self.own])
                self.all_reduce(update_LRC)
            if self.options.decay:
                torch._foreach_mul_(matrices, 1 - lr * self.options.decay)
            scale = math.sqrt(max(1.0, rows / columns))
            torch._foreach_add_(matrices, list(update_LRC.unbind()), alpha=-lr * scale)
