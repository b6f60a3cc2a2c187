"""Make learning from scored text repeat bit for bit on a GPU, where scorer and witness must learn the same.

By default CUDA adds up gradients in whatever order its threads finish, so two processes drift apart over
thousands of steps. PyTorch's deterministic algorithms fix the order, and need a fixed workspace for cuBLAS.
They are on only while something is learned: scoring has no such sums. cuDNN's attention is not available
then; golf/model/kernels.py takes another. A CPU repeats itself anyway. See docs/cuda.md.
"""

from __future__ import annotations

import contextlib
import os
from collections.abc import Iterator

import torch

from golf.recipe.schema import Config

WORKSPACE = "CUBLAS_WORKSPACE_CONFIG"


def needed(config: Config, device: torch.device) -> bool:
    """Whether the recipe learns on a GPU and wants to repeat itself."""
    return config.adapt.on and config.hardware.deterministic_adaptation and device.type == "cuda"


def fix_workspace(config: Config, device: torch.device) -> None:
    """Set cuBLAS's workspace where `needed`; must run before this process's first matrix product."""
    if needed(config, device):
        os.environ.setdefault(WORKSPACE, ":4096:8")


@contextlib.contextmanager
def algorithms(on: bool) -> Iterator[None]:
    """Deterministic algorithms inside, if `on`; afterwards, and after an error, the setting from before."""
    if not on:
        yield
        return
    before, warn_only = (
        torch.are_deterministic_algorithms_enabled(),
        torch.is_deterministic_algorithms_warn_only_enabled(),
    )
    torch.use_deterministic_algorithms(True)
    try:
        yield
    finally:
        torch.use_deterministic_algorithms(before, warn_only=warn_only)
