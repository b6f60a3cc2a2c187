"""Muon: momentum, then the nearest (semi-)orthogonal matrix, as the update of a weight matrix.

The orthogonal factor U V^T of G = U S V^T is approximated by five steps of an odd quintic polynomial whose
slope at 0 is steep and which does not converge: singular values end between about 0.7 and 1.2, which trains
as well as exactly 1 and needs matrix products only. Matrices of one shape are stacked and done at once; with
several ranks each does its share of a stack and the updates are summed over the ranks.

MuonEq-R (`equalise`): the rows of the direction get norm 1 first, so that no row of the weight is left behind
by small gradients. Rows are those of the stored matrix, outputs. Neutral: false.

Source: K. Jordan's Muon (github.com/KellerJordan/Muon); the lerp variant and its decoupled decay are #586's,
MuonEq-R is #1394's and #1493's. Axes: N matrices, R rows, C columns."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from functools import partial

import torch
from torch import Tensor, nn

COEFFICIENTS = (3.4445, -4.7750, 2.0315)


def newton_schulz(g_NRC: Tensor, steps: int = 5, dtype: torch.dtype = torch.float32) -> Tensor:
    """g_NRC -> approximately U V^T of each matrix, in g's shape and dtype, computed in `dtype`.

    bfloat16 moves singular values by about as much as the polynomial leaves them from 1, and halves the time.
    """
    a, b, c = COEFFICIENTS
    x = g_NRC.to(dtype)
    x = x / (x.flatten(1).norm(dim=1)[:, None, None] + 1e-7)
    tall = x.shape[1] > x.shape[2]
    if tall:
        x = x.mT
    for _ in range(steps):
        gram = x @ x.mT
        x = torch.baddbmm(x, torch.baddbmm(gram, gram, gram, beta=b, alpha=c), x, beta=a)
    return (x.mT if tall else x).to(g_NRC.dtype)


def equalised(g_NRC: Tensor) -> Tensor:
    """g_NRC with each row divided by its 2-norm, of which at least 1e-7 is assumed."""
    return g_NRC / torch.linalg.vector_norm(g_NRC, dim=-1, keepdim=True).clamp(min=1e-7)


def look_ahead(g_NRC: Tensor, buffer_NRC: Tensor, momentum: float) -> Tensor:
    """Nesterov: buf <- m buf + g, in place; returns g + m buf."""
    buffer_NRC.mul_(momentum).add_(g_NRC)
    return g_NRC.add(buffer_NRC, alpha=momentum)


def average(g_NRC: Tensor, buffer_NRC: Tensor, momentum: float) -> Tensor:
    """Lerp: buf <- m buf + (1 - m) g, in place; returns buf."""
    return buffer_NRC.lerp_(g_NRC, 1 - momentum)


MOMENTUM: dict[str, Callable[[Tensor, Tensor, float], Tensor]] = {"nesterov": look_ahead, "lerp": average}


class Muon:
    """Muon over matrices, stacked by shape; owns their momentum buffers.

    `dtype` is the arithmetic of the iteration; momentum and weights are float32. `all_reduce` sums a tensor
    over the ranks in place and does nothing on one rank. Gradients must be equal on all ranks before `step`,
    so buffers and weights stay equal as well."""

    def __init__(
        self,
        matrices: Sequence[nn.Parameter],
        *,
        variant: str,
        decay: float,
        steps: int,
        equalise: bool = False,
        dtype: torch.dtype = torch.float32,
        rank: int = 0,
        world: int = 1,
        all_reduce: Callable[[Tensor], None] = lambda tensor: None,
    ) -> None:
        self.momentum_rule, self.decay, self.equalise = MOMENTUM[variant], decay, equalise
        self.orthogonal = partial(newton_schulz, steps=steps, dtype=dtype)
        self.mine, self.world, self.all_reduce = slice(rank, None, world), world, all_reduce
        self.stacks: dict[tuple[int, ...], list[nn.Parameter]] = {}
        for matrix in matrices:
            self.stacks.setdefault(tuple(matrix.shape), []).append(matrix)
        self.buffers = {shape: torch.zeros_like(torch.stack(list(ps))) for shape, ps in self.stacks.items()}

    @torch.no_grad()
    def step(self, lr: float, momentum: float) -> None:
        """One update: w <- (1 - lr decay) w - lr sqrt(max(1, R / C)) orthogonal(equalised(momentum(g)))."""
        for (rows, columns), matrices in self.stacks.items():
            g_NRC = torch.stack([matrix.grad for matrix in matrices])
            direction_NRC = self.momentum_rule(g_NRC, self.buffers[rows, columns], momentum)
            if self.equalise:
                direction_NRC = equalised(direction_NRC)
            if self.world == 1:
                update_NRC = self.orthogonal(direction_NRC)
            else:
                update_NRC = torch.zeros_like(direction_NRC)
                if len(direction_NRC[self.mine]):
                    update_NRC[self.mine] = self.orthogonal(direction_NRC[self.mine])
                self.all_reduce(update_NRC)
            if self.decay:
                torch._foreach_mul_(matrices, 1 - lr * self.decay)
            scale = math.sqrt(max(1.0, rows / columns))
            torch._foreach_add_(matrices, list(update_NRC.unbind()), alpha=-lr * scale)
