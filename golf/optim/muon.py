"""Muon: update each weight matrix by the nearest (semi-)orthogonal matrix to its gradient's momentum.

Five Newton-Schulz steps approximate the orthogonal factor U V^T of G = U S V^T. Each applies an odd quintic
polynomial that is steep at 0 and does not converge: singular values end between about 0.7 and 1.2, which
trains as well as exactly 1 and needs only matrix products. Matrices of one shape are processed together.
With several ranks, each rank keeps the momentum of its own share of them and orthogonalises only that; then
the ranks gather each other's updates.

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
from torch import Tensor

from golf.optim.gradients import Bank, FlatGradients

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
    """Muon over the banks of `gradients`; owns the momentum buffers of this rank's matrices."""

    def __init__(self, gradients: FlatGradients, options: MuonOptions) -> None:
        self.gradients, self.options = gradients, options
        self.momentum_rule = MOMENTUM[options.variant]
        self.buffers = {bank.shape: torch.zeros_like(bank.share(gradients.own_S)) for bank in gradients.banks}

    def _update(self, bank: Bank, momentum: float) -> Tensor:
        """update_LRC of this rank's share of a bank."""
        g_LRC = bank.share(self.gradients.own_S)
        direction_LRC = self.momentum_rule(g_LRC, self.buffers[bank.shape], momentum)
        if self.options.equalise:
            direction_LRC = normalise_rows(direction_LRC)
        return newton_schulz(direction_LRC, self.options.steps, self.options.dtype)

    def _gather(self, updates: Sequence[Tensor], meanwhile: Callable[[], None]) -> list[list[Tensor]]:
        """This rank's updates of each bank -> the updates of all matrices of each bank."""
        gradients = self.gradients
        if gradients.ranks.world == 1:
            meanwhile()
            return [list(update_LRC.unbind()) for update_LRC in updates]
        own_S = torch.zeros_like(gradients.own_S, dtype=gradients.exchange)
        for bank, update_LRC in zip(gradients.banks, updates, strict=True):
            bank.share(own_S).copy_(update_LRC)
        segments_WS, gathering = gradients.ranks.gather(own_S)
        meanwhile()
        gathering.wait()
        whole_WS = segments_WS.float()
        return [bank.split(whole_WS) for bank in gradients.banks]

    @torch.no_grad()
    def step(self, lr: float, momentum: float, meanwhile: Callable[[], None] = lambda: None) -> None:
        """One update: w <- (1 - lr decay) w - lr sqrt(max(1, R / C)) u with u = orthogonalise(momentum(g)).

        With `equalise`, `normalise_rows` is applied before orthogonalising. `meanwhile` runs while the ranks
        gather the updates.
        """
        banks = self.gradients.banks
        updates = self._gather([self._update(bank, momentum) for bank in banks], meanwhile)
        for (shape, matrices, _), whole in zip(banks, updates, strict=True):
            if self.options.decay:
                torch._foreach_mul_(matrices, 1 - lr * self.options.decay)
            scale = math.sqrt(max(1.0, shape[0] / shape[1]))
            torch._foreach_add_(matrices, whole, alpha=-lr * scale)
