"""Exponential moving average of the weights, saved instead of the last step's weights.

e <- d e + (1 - d) p after every step, in float32. Cost: one more copy of the parameters while training, no
bytes in the artifact. Neutral: off, save the last weights. Source: #414, #586 (d = 0.997).
"""

from __future__ import annotations

from collections.abc import Iterable

import torch
from torch import Tensor, nn


class Ema:
    """Averages of named parameters, starting at their current values."""

    def __init__(self, parameters: Iterable[tuple[str, nn.Parameter]]) -> None:
        self.names, self.parameters = zip(*parameters, strict=True)
        self.averages = [parameter.detach().clone() for parameter in self.parameters]

    @torch.no_grad()
    def update(self, decay: float) -> None:
        """Move the averages towards the current weights; decay 0 copies them."""
        torch._foreach_lerp_(self.averages, list(self.parameters), 1 - decay)

    def state(self) -> dict[str, Tensor]:
        """name -> averaged tensor."""
        return dict(zip(self.names, self.averages, strict=True))
