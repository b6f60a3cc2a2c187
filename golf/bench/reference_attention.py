"""Causal attention by its definition, in float32: what the kernels of golf/model/kernels.py are
tested against.

Kept out of golf/model because no submission runs it, and counted code should not hold it.
"""

from __future__ import annotations

import torch
from torch import Tensor


def attend_reference(q_BTHE: Tensor, k_BSKE: Tensor, v_BSKE: Tensor) -> Tensor:
    """y_BTHE for the last T of S positions, computed with the whole score matrix in float32."""
    group = q_BTHE.shape[2] // k_BSKE.shape[2]
    k_BSHE, v_BSHE = (x.float().repeat_interleave(group, dim=2) for x in (k_BSKE, v_BSKE))
    score_BHTS = torch.einsum("bthe,bshe->bhts", q_BTHE.float(), k_BSHE) / q_BTHE.shape[-1] ** 0.5
    n_queries, n_keys = score_BHTS.shape[2:]
    visible_TS = torch.ones(n_queries, n_keys, dtype=torch.bool, device=q_BTHE.device).tril(
        n_keys - n_queries
    )
    weight_BHTS = score_BHTS.masked_fill(~visible_TS, float("-inf")).softmax(dim=-1)
    return torch.einsum("bhts,bshe->bthe", weight_BHTS, v_BSHE).to(q_BTHE.dtype)
