"""Input features: hashed token pairs, mixing with the previous token, and the shared value embedding.

At position t each reads tokens 0 .. t only. SmearGate and BigramHash read across document boundaries, as in
#586 (later records reset them at a boundary). The legend of axes is in golf/model/layers.py.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn import functional

from golf.model.layers import Linear, Table
from golf.recipe.schema import ModelConfig

HASH_PREVIOUS = 36_313
HASH_CURRENT = 27_191


def bigram_rows(ids_BT: Tensor, buckets: int) -> Tensor:
    """ids_BT -> rows_BT = (36313 previous + 27191 current) mod buckets; position 0 has previous = 0."""
    previous_BT = functional.pad(ids_BT[:, :-1], (1, 0))
    return (HASH_PREVIOUS * previous_BT + HASH_CURRENT * ids_BT) % buckets


class BigramHash(nn.Module):
    """ids_BT -> x_BTD: a hashed table of token pairs, projected, for adding to the embedding before its norm.

    Cost: buckets * dim + dim * D parameters (2048 * 128 + 128 * 512 in the record). Neutral: buckets = 0, no
    tensor. Source: #586: the hash, the initial values (normal table, orthogonal projection), and no scale.
    """

    def __init__(self, buckets: int, dim: int, width: int) -> None:
        super().__init__()
        self.table = Table(buckets, dim)
        self.proj = Linear(dim, width)

    def forward(self, ids_BT: Tensor, dtype: torch.dtype) -> Tensor:
        return self.proj(self.table(bigram_rows(ids_BT, self.table.weight.shape[0])).to(dtype))


class SmearGate(nn.Module):
    """x_BTD -> (1 - s) x_t + s x_{t-1} with s = sigmoid(gate_D) and x_{-1} = 0.

    Cost: D parameters, initially zero (s = 1/2). Neutral: off, no tensor; the limit s -> 0 is equivalent.
    Source: #374, #414, #586.
    """

    def __init__(self, width: int) -> None:
        super().__init__()
        self.gate = nn.Parameter(torch.empty(width))

    def forward(self, x_BTD: Tensor) -> Tensor:
        return torch.lerp(
            x_BTD, functional.pad(x_BTD[:, :-1], (0, 0, 1, 0)), torch.sigmoid(self.gate).to(x_BTD.dtype)
        )


class ValueEmbedding(nn.Module):
    """ids_BT -> value_BTR (R = K E): a token table shared by several layers; each adds it to its values,
    times a learned scalar.

    Cost: V * dim + dim * R parameters and one scalar per layer (initially 0.1). Neutral: ve_dim = 0, no
    tensor. Source: #586 (normal table, orthogonal projection).
    """

    def __init__(self, cfg: ModelConfig, vocab_size: int) -> None:
        super().__init__()
        self.table = Table(vocab_size, cfg.ve_dim)
        self.proj = Linear(cfg.ve_dim, cfg.kv_heads * cfg.head_dim)
        self.scales = nn.Parameter(torch.empty(len(cfg.ve_layers)))

    def forward(self, ids_BT: Tensor, dtype: torch.dtype) -> Tensor:
        return self.proj(self.table(ids_BT).to(dtype))
