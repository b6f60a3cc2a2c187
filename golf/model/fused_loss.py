"""Softcap and cross-entropy in one Triton kernel each way: a row of logits is read once and not stored again.

The forward pass keeps one float32 a token, the logsumexp; the backward pass writes the gradient of the logits
in their own dtype. A program takes one row, and the whole vocabulary fits its registers. Written as PyTorch
operators, so that a compiled graph holds them as they are. `hardware.fused_loss: true` alone imports this
module, because only CUDA builds of PyTorch bring Triton.

Source: the idea of a fused softcapped cross-entropy is from the challenge's records and modded-nanogpt. Not
covered: the head's matrix product, whose output is still V numbers a token in the activations' dtype; targets
to ignore. TRITON_INTERPRET=1 runs the kernels on a CPU, for tests.
"""

from __future__ import annotations

import torch
import triton
import triton.language as tl
from torch import Tensor


def _capped(x_V, CAP: tl.constexpr):  # type: ignore[no-untyped-def]
    """The softcap of golf/model/layers.py and its derivative."""
    if CAP > 0:
        s_V = tl.sigmoid(x_V * (2 / CAP))
        return s_V * (2 * CAP) - CAP, 4 * s_V * (1 - s_V)
    return x_V, tl.full(x_V.shape, 1.0, tl.float32)


def _forward(logits, targets, nats, logsumexp, size, CAP: tl.constexpr, BLOCK: tl.constexpr):  # type: ignore[no-untyped-def]
    row = tl.program_id(0).to(tl.int64)
    v = tl.arange(0, BLOCK)
    x_V = tl.load(logits + row * size + v, mask=v < size, other=0.0).to(tl.float32)
    z_V = tl.where(v < size, capped(x_V, CAP)[0], float("-inf"))
    top = tl.max(z_V, axis=0)
    total = top + tl.log(tl.sum(tl.exp(z_V - top), axis=0))
    own = tl.sum(tl.where(v == tl.load(targets + row), z_V, 0.0), axis=0)
    tl.store(nats + row, total - own)
    tl.store(logsumexp + row, total)


def _backward(logits, targets, logsumexp, dnats, dlogits, size, CAP: tl.constexpr, BLOCK: tl.constexpr):  # type: ignore[no-untyped-def]
    row = tl.program_id(0).to(tl.int64)
    v = tl.arange(0, BLOCK)
    x_V = tl.load(logits + row * size + v, mask=v < size, other=0.0).to(tl.float32)
    z_V, slope_V = capped(x_V, CAP)
    own_V = tl.where(v == tl.load(targets + row), 1.0, 0.0)
    dz_V = (tl.exp(z_V - tl.load(logsumexp + row)) - own_V) * tl.load(dnats + row)
    tl.store(dlogits + row * size + v, (dz_V * slope_V).to(dlogits.dtype.element_ty), mask=v < size)


capped, forward, backward = (triton.jit(kernel) for kernel in (_capped, _forward, _backward))


def _settings(logits_NV: Tensor, cap: float) -> dict[str, float]:
    block = triton.next_power_of_2(logits_NV.shape[1])
    return {"CAP": cap, "BLOCK": block, "num_warps": min(max(block // 512, 1), 16)}


@torch.library.custom_op("golf::softcap_nats", mutates_args=())
def softcap_nats(logits_NV: Tensor, targets_N: Tensor, cap: float) -> tuple[Tensor, Tensor]:
    """Uncapped logits_NV (any float dtype), targets_N (integers) -> nats_N and logsumexp_N, float32.

    `cap` is that of golf/model/layers.py's `softcap`; 0: none.
    """
    logits_NV = logits_NV.contiguous()
    nats_N, logsumexp_N = (logits_NV.new_empty(len(logits_NV), dtype=torch.float32) for _ in range(2))
    settings = _settings(logits_NV, cap)
    forward[(len(logits_NV),)](logits_NV, targets_N, nats_N, logsumexp_N, logits_NV.shape[1], **settings)
    return nats_N, logsumexp_N


@torch.library.custom_op("golf::softcap_nats_backward", mutates_args=())
def softcap_nats_backward(
    logits_NV: Tensor, targets_N: Tensor, logsumexp_N: Tensor, dnats_N: Tensor, cap: float
) -> Tensor:
    """The gradient of the uncapped logits_NV, in their dtype, from that of nats_N."""
    logits_NV, dnats_N = logits_NV.contiguous(), dnats_N.contiguous()
    dlogits_NV, settings = torch.empty_like(logits_NV), _settings(logits_NV, cap)
    backward[(len(logits_NV),)](
        logits_NV, targets_N, logsumexp_N, dnats_N, dlogits_NV, logits_NV.shape[1], **settings
    )
    return dlogits_NV


@softcap_nats.register_fake
def _shapes(logits_NV: Tensor, targets_N: Tensor, cap: float) -> tuple[Tensor, Tensor]:
    nats_N = logits_NV.new_empty(logits_NV.shape[0], dtype=torch.float32)
    return nats_N, torch.empty_like(nats_N)


@softcap_nats_backward.register_fake
def _backward_shape(logits_NV: Tensor, *others: Tensor | float) -> Tensor:
    return torch.empty_like(logits_NV, memory_format=torch.contiguous_format)


def _remember(ctx, inputs, output):  # type: ignore[no-untyped-def]
    logits_NV, targets_N, ctx.cap = inputs
    ctx.save_for_backward(logits_NV, targets_N, output[1])


def _differentiate(ctx, dnats_N, dlogsumexp_N):  # type: ignore[no-untyped-def]
    return softcap_nats_backward(*ctx.saved_tensors, dnats_N, ctx.cap), None, None


softcap_nats.register_autograd(_differentiate, setup_context=_remember)


def mean_nats(logits_NV: Tensor, targets_N: Tensor, cap: float) -> Tensor:
    """Uncapped logits_NV, targets_N -> mean cross-entropy of the capped logits in nats, a float32 scalar."""
    return softcap_nats(logits_NV, targets_N, cap)[0].mean()
