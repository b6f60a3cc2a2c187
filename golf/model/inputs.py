"""What a token knows before layer 0: its embedding, its neighbour, hashed pairs; and the shared value
embedding.

Each reads tokens 0 .. t for position t and none later. SmearGate and BigramHash look across document borders,
as in #586 (later records reset them at a border). The legend of axes is in golf/model/layers.py."""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn import functional

from golf.model.layers import Linear, Table
from golf.recipe.schema import ModelConfig

HASH_PREVIOUS = 36_313
HASH_CURRENT = 27_191


def bigram_rows(ids_BT: Tensor, buckets: int) -> Tensor:
    """(36313 previous + 27191 current) mod buckets, the token before position 0 taken as 0: ids_BT ->
    rows_BT."""
    previous_BT = functional.pad(ids_BT[:, :-1], (1, 0))
    return (HASH_PREVIOUS * previous_BT + HASH_CURRENT * ids_BT) % buckets


class BigramHash(nn.Module):
    """ids_BT -> x_BTD: a hashed table of token pairs, projected, added to the embedding before its norm.

    Cost: buckets * dim + dim * D parameters (2048 * 128 + 128 * 512 in the record). Neutral: buckets = 0, no
    tensor. Source: #586's hash, start (normal table, orthogonal projection) and absence of a scale."""

    def __init__(self, buckets: int, dim: int, width: int) -> None:
        super().__init__()
        self.table = Table(buckets, dim)
        self.proj = Linear(dim, width)

    def forward(self, ids_BT: Tensor, dtype: torch.dtype) -> Tensor:
        return self.proj(self.table(bigram_rows(ids_BT, self.table.weight.shape[0])).to(dtype))


class SmearGate(nn.Module):
    """x_BTD -> (1 - s) x_t + s x_{t-1} with s = sigmoid(gate_D), the position before the first being zero.

    Cost: D parameters, zero at the start (half and half). Neutral: off, no tensor; s -> 0 does the same.
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
    """ids_BT -> value_BTC (C = K E): one token table for several layers, added to their values times a
    learned scalar.

    Cost: V * dim + dim * C parameters and a scalar for each layer (0.1 at the start). Neutral: ve_dim = 0, no
    tensor. Source: #586 (table normal, projection orthogonal)."""

    def __init__(self, cfg: ModelConfig, vocab_size: int) -> None:
        super().__init__()
        self.table = Table(vocab_size, cfg.ve_dim)
        self.proj = Linear(cfg.ve_dim, cfg.kv_heads * cfg.head_dim)
        self.scales = nn.Parameter(torch.empty(len(cfg.ve_layers)))

    def forward(self, ids_BT: Tensor, dtype: torch.dtype) -> Tensor:
        return self.proj(self.table(ids_BT).to(dtype))
