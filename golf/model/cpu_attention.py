"""Causal attention for CPUs: a few plain matrix products for each block of queries, and the same backwards.

PyTorch's fused CPU kernel runs its small tiles at a fraction of the machine's matrix rate, in bfloat16
backwards at less than a fifth of it. Here a block of 128 queries of all heads that share a key meets all keys
it may see in one product; what lies above the diagonal inside the block is the only waste. Scores and softmax
are float32; the products with the weights run in the stream's dtype, gradients of keys and values are summed
in float32.

Axes: N = B K rows and key heads together, R = T G queries of one such pair, position by position, P the part
of R in a block, S keys, E head width. Cost: the weights are kept for the way back, half of H T S numbers a
row; a kernel that recomputes them, as FlashAttention does (Dao et al. 2022, whose formula for the softmax's
gradient this is), needs none. Not covered: masks other than the causal one, dropout."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import torch
from torch import Tensor

BLOCK = 128
"""Queries a block: fewer waste less above the diagonal, more make better products."""


def _by_key_head(x_BTHE: Tensor, key_heads: int) -> Tensor:
    """x_BTHE -> x_NRE, contiguous: any positions of a pair are one matrix."""
    x_BKTGE = x_BTHE.unflatten(2, (key_heads, -1)).transpose(1, 2)
    return x_BKTGE.reshape(-1, x_BKTGE.shape[2] * x_BKTGE.shape[3], x_BKTGE.shape[4])


def _by_position(x_NRE: Tensor, shape: torch.Size) -> Tensor:
    """The inverse: x_NRE -> x_BTHE of the given shape."""
    rows, positions, _, head_dim = shape
    return x_NRE.view(rows, len(x_NRE) // rows, positions, -1, head_dim).transpose(1, 2).reshape(shape)


def _blocks(queries: int, keys: int, group: int) -> Iterator[tuple[slice, int]]:
    """For each block its rows of R and how many keys its last query sees; queries are the last of the
    keys."""
    for start in range(0, queries, BLOCK):
        end = min(start + BLOCK, queries)
        yield slice(start * group, end * group), keys - queries + end


class _Attend(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, q_BTHE: Tensor, k_BSKE: Tensor, v_BSKE: Tensor) -> Tensor:
        (_, queries, heads, head_dim), (_, keys, key_heads, _) = q_BTHE.shape, k_BSKE.shape
        q_NRE, k_NSE, v_NSE = (_by_key_head(x, key_heads) for x in (q_BTHE, k_BSKE, v_BSKE))
        scaled_NRE, k_NES = q_NRE.float() * head_dim**-0.5, k_NSE.float().transpose(1, 2)
        group = heads // key_heads
        later = torch.full((min(BLOCK, queries),) * 2, float("-inf"), device=q_NRE.device).triu(1)
        later_PP = later.repeat_interleave(group, dim=0)
        y_NRE, weights = torch.empty_like(q_NRE), []
        for part, seen in _blocks(queries, keys, group):
            score_NPS = torch.bmm(scaled_NRE[:, part], k_NES[:, :, :seen])
            n = score_NPS.shape[1]
            score_NPS[:, :, seen - n // group :] += later_PP[:n, : n // group]
            weight_NPS = score_NPS.softmax(dim=-1).to(q_NRE.dtype)
            y_NRE[:, part] = torch.bmm(weight_NPS, v_NSE[:, :seen])
            if any(ctx.needs_input_grad):
                weights.append(weight_NPS)
        ctx.save_for_backward(q_NRE, k_NSE, v_NSE, y_NRE, *weights)
        ctx.shapes = q_BTHE.shape, k_BSKE.shape
        return _by_position(y_NRE, q_BTHE.shape)

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        q_NRE, k_NSE, v_NSE, y_NRE, *weights = ctx.saved_tensors
        (_, queries, heads, head_dim), (_, keys, key_heads, _) = ctx.shapes
        dy_NRE, dq_NRE = _by_key_head(gradients[0], key_heads), torch.empty_like(q_NRE)
        mean_NR1 = (dy_NRE.float() * y_NRE.float()).sum(dim=-1, keepdim=True).to(q_NRE.dtype)
        dk_NSE, dv_NSE = (torch.zeros_like(k_NSE, dtype=torch.float32) for _ in range(2))
        for (part, seen), weight_NPS in zip(_blocks(queries, keys, heads // key_heads), weights, strict=True):
            dv_NSE[:, :seen] += torch.bmm(weight_NPS.transpose(1, 2), dy_NRE[:, part])
            dscore_NPS = torch.bmm(dy_NRE[:, part], v_NSE[:, :seen].transpose(1, 2))
            dscore_NPS.sub_(mean_NR1[:, part]).mul_(weight_NPS)
            dq_NRE[:, part] = torch.bmm(dscore_NPS, k_NSE[:, :seen])
            dk_NSE[:, :seen] += torch.bmm(dscore_NPS.transpose(1, 2), q_NRE[:, part])
        dq_NRE, dk_NSE = dq_NRE * head_dim**-0.5, dk_NSE * head_dim**-0.5
        folded = (dq_NRE, ctx.shapes[0]), (dk_NSE, ctx.shapes[1]), (dv_NSE, ctx.shapes[1])
        dq_BTHE, dk_BSKE, dv_BSKE = (_by_position(x, shape).to(q_NRE.dtype) for x, shape in folded)
        return dq_BTHE, dk_BSKE, dv_BSKE


def attend(q_BTHE: Tensor, k_BSKE: Tensor, v_BSKE: Tensor) -> Tensor:
    """The convention of golf/model/kernels.py, on any device; made for CPUs."""
    return _Attend.apply(q_BTHE, k_BSKE, v_BSKE)
