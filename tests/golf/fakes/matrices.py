"""Matrices, inputs and Hessians shared by the quantiser's tests."""

from __future__ import annotations

import numpy as np
import torch
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

WEIGHTS = hnp.arrays(
    np.float32, st.tuples(st.integers(1, 6), st.integers(1, 48)), elements=st.floats(-1000, 1000, width=32)
).map(torch.from_numpy)


def gaussian(rows: int, columns: int, seed: int = 0) -> torch.Tensor:
    return torch.randn(rows, columns, generator=torch.Generator().manual_seed(seed))


def inputs(columns: int, tokens: int = 0, seed: int = 0, spread: float = 1.0) -> torch.Tensor:
    """x_NC of `tokens` (default 3 per column) inputs: correlated, with very different magnitudes."""
    mixed = (
        gaussian(tokens or 3 * columns, columns, seed) @ gaussian(columns, columns, seed + 1) / columns**0.5
    )
    return mixed * (spread * gaussian(1, columns, seed + 2)).exp()


def hessian(columns: int, tokens: int = 0, seed: int = 0, spread: float = 1.0) -> torch.Tensor:
    x_NC = inputs(columns, tokens, seed, spread)
    return x_NC.T @ x_NC / len(x_NC)
