"""Exponential moving average of the weights: what is saved in place of the last step's.

e <- d e + (1 - d) p after every step, in float32. Cost: one more copy of the parameters while training, no
byte in the artifact. Neutral: off, the last weights are saved. Source: #414, #586 (d = 0.997)."""

from __future__ import annotations

from collections.abc import Iterable

import torch
from torch import Tensor, nn


class Ema:
    """Averages of named parameters, started at their present values."""

    def __init__(self, parameters: Iterable[tuple[str, nn.Parameter]]) -> None:
        self.names, self.live = zip(*parameters, strict=True)
        self.averages = [parameter.detach().clone() for parameter in self.live]

    @torch.no_grad()
    def update(self, decay: float) -> None:
        """One step of the average towards the present weights; decay 0 copies them."""
        torch._foreach_lerp_(self.averages, list(self.live), 1 - decay)

    def state(self) -> dict[str, Tensor]:
        """name -> averaged tensor."""
        return dict(zip(self.names, self.averages, strict=True))
