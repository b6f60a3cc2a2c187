"""Read the loss of a step without waiting for the steps queued after it on a GPU.

Reading a tensor of a GPU waits for all work queued before the read, so for the newest step too. Here the copy
to pinned memory is queued right behind its own step, and an event tells when it is there. On a CPU a loss is
there at once.
"""

from __future__ import annotations

import torch
from torch import Tensor


class PendingLoss:
    """A loss that the device may still be computing."""

    def __init__(self, loss: Tensor) -> None:
        self.host = loss.to("cpu", non_blocking=True)  # torch pins the target of such a copy from a GPU
        self.copied = torch.cuda.Event() if loss.is_cuda else None
        if self.copied:
            self.copied.record()

    def nats(self) -> float:
        """The number; waits for its own step only."""
        if self.copied:
            self.copied.synchronize()
        return self.host.item()
