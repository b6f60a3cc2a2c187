"""Random tensors for golf's tests."""

from __future__ import annotations

import torch


def random_tensor(
    *shape: int, seed: int = 0, device: str = "cpu", dtype: torch.dtype = torch.float32
) -> torch.Tensor:
    """Normally distributed numbers, drawn on the CPU."""
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed)).to(device, dtype)
