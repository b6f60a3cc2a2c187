"""Causal attention kernels, and the choice of the fastest one that a device runs.

All take q_BTHE, k_BSKE, v_BSKE with T <= S and H a multiple of K, and return y_BTHE. The queries are the last
T of the S positions: query t sees keys 0 .. S - T + t. Scores are scaled by 1 / sqrt(E).

Order of choice on CUDA: FlashAttention-3, cuDNN, PyTorch's scaled_dot_product_attention (SDPA), as in #586;
elsewhere golf/model/cpu_attention.py. `Choice.why` gives the reason for each kernel passed over, and the logs
of train and score print it; the frame `ready` names the kernel in use.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import NamedTuple

import torch
from torch import Tensor
from torch.nn import functional
from torch.nn.attention import SDPBackend, sdpa_kernel

from golf.model import cpu_attention

Attend = Callable[[Tensor, Tensor, Tensor], Tensor]


def _visible(n_queries: int, n_keys: int, device: torch.device) -> Tensor:
    """mask_TS, true where a query sees a key; the queries are the last positions."""
    return torch.ones(n_queries, n_keys, dtype=torch.bool, device=device).tril(n_keys - n_queries)


def attend_sdpa(q_BTHE: Tensor, k_BSKE: Tensor, v_BSKE: Tensor) -> Tensor:
    """SDPA with the kernel that PyTorch chooses, on any device."""
    q, k, v = (x.transpose(1, 2) for x in (q_BTHE, k_BSKE, v_BSKE))
    square = q.shape[2] == k.shape[2]
    mask_TS = None if square else _visible(q.shape[2], k.shape[2], q.device)
    y_BHTE = functional.scaled_dot_product_attention(
        q, k, v, attn_mask=mask_TS, is_causal=square, enable_gqa=True
    )
    return y_BHTE.transpose(1, 2)


def attend_blocks(q_BTHE: Tensor, k_BSKE: Tensor, v_BSKE: Tensor) -> Tensor:
    """golf/model/cpu_attention.py, for CPUs; SDPA inside torch.compile, which cannot trace that."""
    if torch.compiler.is_compiling():
        return attend_sdpa(q_BTHE, k_BSKE, v_BSKE)
    return cpu_attention.attend(q_BTHE, k_BSKE, v_BSKE)


def attend_cudnn(q_BTHE: Tensor, k_BSKE: Tensor, v_BSKE: Tensor) -> Tensor:
    """cuDNN's kernel, with keys and values repeated for each query head as in #586; SDPA if T < S.

    Also SDPA under deterministic algorithms, for which PyTorch refuses cuDNN's kernel.
    """
    if q_BTHE.shape[1] != k_BSKE.shape[1] or torch.are_deterministic_algorithms_enabled():
        return attend_sdpa(q_BTHE, k_BSKE, v_BSKE)
    group = q_BTHE.shape[2] // k_BSKE.shape[2]
    k, v = (x.repeat_interleave(group, dim=2).transpose(1, 2) for x in (k_BSKE, v_BSKE))
    with sdpa_kernel(SDPBackend.CUDNN_ATTENTION):
        y_BHTE = functional.scaled_dot_product_attention(q_BTHE.transpose(1, 2), k, v, is_causal=True)
    return y_BHTE.transpose(1, 2)


def attend_flash3(q_BTHE: Tensor, k_BSKE: Tensor, v_BSKE: Tensor) -> Tensor:
    """FlashAttention-3 (Hopper), which handles grouped heads and T < S with the same conventions."""
    from flash_attn_interface import flash_attn_func

    deterministic = torch.are_deterministic_algorithms_enabled()
    y = flash_attn_func(q_BTHE, k_BSKE, v_BSKE, causal=True, deterministic=deterministic)
    return y[0] if isinstance(y, tuple) else y


ATTENTION: dict[str, Attend] = {
    "flash3": attend_flash3,
    "cudnn": attend_cudnn,
    "sdpa": attend_sdpa,
    "blocks": attend_blocks,
}


class Choice(NamedTuple):
    """The kernel to use (a key of ATTENTION), and why faster ones cannot run."""

    name: str
    why: str


def _failure(attend: Attend, device: torch.device) -> str:
    """Why a kernel cannot run, found by trying it on a small bfloat16 input; empty if it can."""
    q, k = (torch.zeros(1, 128, heads, 64, device=device, dtype=torch.bfloat16) for heads in (4, 2))
    try:
        attend(q, k, k)
    except (ImportError, RuntimeError) as error:
        return str(error).splitlines()[0][:100]
    return ""


def choose(device: torch.device, dtype: torch.dtype) -> Choice:
    """The fastest kernel that runs on this device in this dtype."""
    if device.type != "cuda":
        return Choice("blocks", f"flash3, cudnn: no CUDA device ({device.type})")
    if dtype != torch.bfloat16:
        return Choice("sdpa", f"flash3, cudnn: {dtype} instead of bfloat16")
    reasons: list[str] = []
    for name in ("flash3", "cudnn"):
        reason = _failure(ATTENTION[name], device)
        if not reason:
            return Choice(name, "; ".join(reasons) or "first choice")
        reasons.append(f"{name}: {reason}")
    return Choice("sdpa", "; ".join(reasons))
