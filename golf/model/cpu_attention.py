"""Causal attention for CPUs, forward and backward: a few plain matrix products per block of queries.

PyTorch's fused CPU kernel works in small tiles and reaches a fraction of the machine's matrix rate, in
bfloat16 backward less than a fifth. Here a block takes 128 queries, of all heads that share a key head, and
multiplies them with all keys they see in one product; only the part above the diagonal inside the block is
wasted. Scores and softmax are float32, products with the attention weights run in the inputs' dtype, and
gradients of keys and values are summed in float32.

Q is ordered by position, then by head of the group; U is the part of Q in a block. Memory: the backward
pass needs the attention weights, H T S / 2 numbers per sequence. FlashAttention (Dao et al. 2022), whose
formula for the softmax's gradient this uses, recomputes them instead. The legend of axes is in
golf/model/layers.py.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import torch
from torch import Tensor

BLOCK = 128
"""Positions per block: fewer waste less above the diagonal, more make faster products."""


def _by_key_head(x_BTHE: Tensor, key_heads: int) -> Tensor:
    """x_BTHE -> x_PQE, contiguous, so that consecutive positions of a pair form one matrix."""
    x_BKTGE = x_BTHE.unflatten(2, (key_heads, -1)).transpose(1, 2)
    return x_BKTGE.reshape(-1, x_BKTGE.shape[2] * x_BKTGE.shape[3], x_BKTGE.shape[4])


def _by_position(x_PQE: Tensor, shape: torch.Size) -> Tensor:
    """The inverse of `_by_key_head`: x_PQE -> x_BTHE of the given shape."""
    rows, positions, _, head_dim = shape
    return x_PQE.view(rows, len(x_PQE) // rows, positions, -1, head_dim).transpose(1, 2).reshape(shape)


def _blocks(queries: int, keys: int, group: int) -> Iterator[tuple[slice, int]]:
    """For each block, its slice of Q and the number of keys that its last query sees."""
    for start in range(0, queries, BLOCK):
        end = min(start + BLOCK, queries)
        yield slice(start * group, end * group), keys - queries + end


class _Attend(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, q_BTHE: Tensor, k_BSKE: Tensor, v_BSKE: Tensor) -> Tensor:
        (_, queries, heads, head_dim), (_, keys, key_heads, _) = q_BTHE.shape, k_BSKE.shape
        q_PQE, k_PSE, v_PSE = (_by_key_head(x, key_heads) for x in (q_BTHE, k_BSKE, v_BSKE))
        scaled_PQE, k_PES = q_PQE.float() * head_dim**-0.5, k_PSE.float().transpose(1, 2)
        group = heads // key_heads
        mask_TT = torch.full((min(BLOCK, queries),) * 2, float("-inf"), device=q_PQE.device).triu(1)
        mask_UT = mask_TT.repeat_interleave(group, dim=0)
        y_PQE, weights = torch.empty_like(q_PQE), []
        for part, seen in _blocks(queries, keys, group):
            score_PUS = torch.bmm(scaled_PQE[:, part], k_PES[:, :, :seen])
            n = score_PUS.shape[1]
            score_PUS[:, :, seen - n // group :] += mask_UT[:n, : n // group]
            weight_PUS = score_PUS.softmax(dim=-1).to(q_PQE.dtype)
            y_PQE[:, part] = torch.bmm(weight_PUS, v_PSE[:, :seen])
            if any(ctx.needs_input_grad):
                weights.append(weight_PUS)
        ctx.save_for_backward(q_PQE, k_PSE, v_PSE, y_PQE, *weights)
        ctx.shapes = q_BTHE.shape, k_BSKE.shape
        return _by_position(y_PQE, q_BTHE.shape)

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        q_PQE, k_PSE, v_PSE, y_PQE, *weights = ctx.saved_tensors
        (_, queries, heads, head_dim), (_, keys, key_heads, _) = ctx.shapes
        dy_PQE, dq_PQE = _by_key_head(gradients[0], key_heads), torch.empty_like(q_PQE)
        mean_PQ1 = (dy_PQE.float() * y_PQE.float()).sum(dim=-1, keepdim=True).to(q_PQE.dtype)
        dk_PSE, dv_PSE = (torch.zeros_like(k_PSE, dtype=torch.float32) for _ in range(2))
        for (part, seen), weight_PUS in zip(_blocks(queries, keys, heads // key_heads), weights, strict=True):
            dv_PSE[:, :seen] += torch.bmm(weight_PUS.transpose(1, 2), dy_PQE[:, part])
            dscore_PUS = torch.bmm(dy_PQE[:, part], v_PSE[:, :seen].transpose(1, 2))
            dscore_PUS.sub_(mean_PQ1[:, part]).mul_(weight_PUS)
            dq_PQE[:, part] = torch.bmm(dscore_PUS, k_PSE[:, :seen])
            dk_PSE[:, :seen] += torch.bmm(dscore_PUS.transpose(1, 2), q_PQE[:, part])
        dq_PQE, dk_PSE = dq_PQE * head_dim**-0.5, dk_PSE * head_dim**-0.5
        gradients_and_shapes = (dq_PQE, ctx.shapes[0]), (dk_PSE, ctx.shapes[1]), (dv_PSE, ctx.shapes[1])
        dq_BTHE, dk_BSKE, dv_BSKE = (
            _by_position(x, shape).to(q_PQE.dtype) for x, shape in gradients_and_shapes
        )
        return dq_BTHE, dk_BSKE, dv_BSKE


def attend(q_BTHE: Tensor, k_BSKE: Tensor, v_BSKE: Tensor) -> Tensor:
    """Attention with the conventions of golf/model/kernels.py; runs on any device, optimised for CPUs."""
    return _Attend.apply(q_BTHE, k_BSKE, v_BSKE)
