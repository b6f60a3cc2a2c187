"""Causal attention kernels, and the choice of one for a device.

All take q_BTHE, k_BSKE, v_BSKE with T <= S and H a multiple of K, and return y_BTHE. The queries are the last
T of the S positions: query t sees keys 0 .. S - T + t. Scores are scaled by 1 / sqrt(E).

`hardware.attention` names the kernel, and one that cannot run is then an error. With `auto` the order on CUDA
is FlashAttention-3, cuDNN, PyTorch's scaled_dot_product_attention (SDPA), as in #586; elsewhere
golf/model/cpu_attention.py. A kernel is tried in the largest shapes in which the recipe calls it, backward
too where it learns. `Choice.why` gives the reason for each kernel passed over, and the logs of train and
score print it; the frame `ready` names the kernel in use.

PyTorch's own kernels are selected by flags of the process (`allow`). #586 does the same; a context manager
inside the model would have to be traced with it, and keeps a compiled graph out of the caches.

Not covered: dropout, masks other than the causal one, numbers in float32 on CUDA (`refusal`).
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import NamedTuple

import torch
from torch import Tensor
from torch.nn import functional

from golf.model import cpu_attention
from golf.recipe.schema import Config
from golf.runtime.errors import StageError

Attend = Callable[[Tensor, Tensor, Tensor], Tensor]


def _visible(n_queries: int, n_keys: int, device: torch.device) -> Tensor:
    """mask_TS, true where a query sees a key; the queries are the last positions."""
    return torch.ones(n_queries, n_keys, dtype=torch.bool, device=device).tril(n_keys - n_queries)


def attend_sdpa(q_BTHE: Tensor, k_BSKE: Tensor, v_BSKE: Tensor) -> Tensor:
    """SDPA with the kernel that PyTorch chooses among those that `allow` left, on any device."""
    square = q_BTHE.shape[1] == k_BSKE.shape[1]
    if q_BTHE.is_cuda and not square:
        return attend_flash(q_BTHE, k_BSKE, v_BSKE)
    q, k, v = (x.transpose(1, 2) for x in (q_BTHE, k_BSKE, v_BSKE))
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


def attend_flash(q_BTHE: Tensor, k_BSKE: Tensor, v_BSKE: Tensor) -> Tensor:
    """PyTorch's FlashAttention-2 on CUDA, which needs no mask for T < S; SDPA elsewhere."""
    if not q_BTHE.is_cuda:
        return attend_sdpa(q_BTHE, k_BSKE, v_BSKE)
    q, k, v = (x.transpose(1, 2) for x in (q_BTHE, k_BSKE, v_BSKE))
    # SDPA refuses is_causal where T < S. Its kernel aligns the last query with the last key, as
    # torch.nn.attention.bias.causal_lower_right relies on too.
    return torch.ops.aten._scaled_dot_product_flash_attention(q, k, v, is_causal=True)[0].transpose(1, 2)


def attend_cudnn(q_BTHE: Tensor, k_BSKE: Tensor, v_BSKE: Tensor) -> Tensor:
    """cuDNN's kernel (after `allow`), which groups heads itself.

    FlashAttention-2 runs where T < S; where the length is no multiple of 128, for which cuDNN's gradients may
    be NaN (NVIDIA/cudnn-frontend#160, pytorch/pytorch#196678); and under deterministic algorithms, where
    PyTorch refuses cuDNN's kernel.
    """
    length = q_BTHE.shape[1]
    if length != k_BSKE.shape[1] or length % 128 or torch.are_deterministic_algorithms_enabled():
        return attend_flash(q_BTHE, k_BSKE, v_BSKE)
    return attend_sdpa(q_BTHE, k_BSKE, v_BSKE)


def attend_cudnn_repeated(q_BTHE: Tensor, k_BSKE: Tensor, v_BSKE: Tensor) -> Tensor:
    """`attend_cudnn` with keys and values repeated for each query head, as in #586."""
    group = q_BTHE.shape[2] // k_BSKE.shape[2]
    return attend_cudnn(q_BTHE, *(x.repeat_interleave(group, dim=2) for x in (k_BSKE, v_BSKE)))


def attend_flash3(q_BTHE: Tensor, k_BSKE: Tensor, v_BSKE: Tensor) -> Tensor:
    """FlashAttention-3 (Hopper), which handles grouped heads and T < S with the same conventions."""
    from flash_attn_interface import flash_attn_func

    deterministic = torch.are_deterministic_algorithms_enabled()
    y = flash_attn_func(q_BTHE, k_BSKE, v_BSKE, causal=True, deterministic=deterministic)
    return y[0] if isinstance(y, tuple) else y


ATTENTION: dict[str, Attend] = {
    "flash3": attend_flash3,
    "cudnn": attend_cudnn,
    "cudnn_repeated": attend_cudnn_repeated,
    "sdpa": attend_sdpa,
    "blocks": attend_blocks,
}
ONLY_CUDA = ("flash3", "cudnn", "cudnn_repeated")
AUTOMATIC = ("flash3", "cudnn", "sdpa")
"""What `auto` tries on CUDA, in this order."""


class Call(NamedTuple):
    """A shape in which a model calls attention, and whether gradients are needed."""

    rows: int
    queries: int
    keys: int
    backward: bool


class Choice(NamedTuple):
    """The kernel to use (a key of ATTENTION), and why faster ones cannot run."""

    name: str
    why: str


def training_calls(config: Config) -> list[Call]:
    """The calls of a training step, at its largest number of rows."""
    length = config.train.seq_len
    return [Call(max(1, config.hardware.micro_tokens // length), length, length, backward=True)]


def scoring_calls(config: Config) -> list[Call]:
    """The calls of scoring, and of learning from scored text: only the last layer has T < S."""
    score, adapt = config.score, config.adapt
    rows = max(1, min(adapt.batch_rows, config.hardware.micro_tokens // adapt.seq_len))
    learning = [Call(rows, adapt.seq_len, adapt.seq_len, backward=True)] if adapt.epochs else []
    windows = [
        Call(score.batch_windows, n, score.window, backward=False) for n in (score.stride, score.window)
    ]
    return windows + learning


def allow(name: str) -> None:
    """Let SDPA on CUDA use only cuDNN's kernel, or only PyTorch's own, in this process.

    The definition with its S x S scores is never allowed, so nothing falls back to it silently. The name also
    tags compiled code: PyTorch's caches do not know these flags, and would give a graph of another kernel.
    """
    cudnn = name.startswith("cudnn")
    torch.compiler.config.cache_key_tag = name
    torch.backends.cuda.enable_math_sdp(False)
    torch.backends.cuda.enable_cudnn_sdp(cudnn)
    torch.backends.cuda.enable_flash_sdp(not cudnn)
    torch.backends.cuda.enable_mem_efficient_sdp(not cudnn)


def refusal(device_type: str, dtype: torch.dtype, name: str) -> str:
    """Why a kernel is not taken for a device and dtype, without trying it; empty if it may be tried."""
    if device_type != "cuda":
        return f"no CUDA device ({device_type})" if name in ONLY_CUDA else ""
    if dtype == torch.float32:
        return (
            "in float32, PyTorch's only kernel for grouped heads on CUDA keeps all T x S scores of a layer; "
            "set hardware.precision: bfloat16"
        )
    return ""


def _failure(name: str, shapes: tuple[int, int, int], calls: Sequence[Call], device: torch.device) -> str:
    """Why a kernel cannot run calls with H, K, E = `shapes` in bfloat16, found by trying; empty if it can."""
    heads, key_heads, head_dim = shapes
    allow(name)
    try:
        for call in calls:
            q, k, v = (
                torch.randn(call.rows, length, n, head_dim, device=device, dtype=torch.bfloat16)
                for length, n in ((call.queries, heads), (call.keys, key_heads), (call.keys, key_heads))
            )
            leaves = [x.requires_grad_(call.backward) for x in (q, k, v)]
            y = ATTENTION[name](*leaves)
            results = [y, *torch.autograd.grad(y, leaves, torch.ones_like(y))] if call.backward else [y]
            if not all(torch.isfinite(x).all() for x in results):
                return f"a result is not finite at {call}"
    except Exception as error:  # an extension of any version may fail in any way
        return f"{type(error).__name__}: {str(error).splitlines()[0][:100]}" if str(error) else repr(error)
    return ""


def choose(device: torch.device, dtype: torch.dtype, config: Config, calls: Sequence[Call]) -> Choice:
    """The kernel that `hardware.attention` names, or for `auto` the fastest one that runs these calls.

    Raises StageError if it cannot run, and for `auto` if none can.
    """
    wanted, model = config.hardware.attention, config.model
    if wanted == "auto" and device.type != "cuda":
        return Choice("blocks", f"flash3, cudnn: {refusal(device.type, dtype, 'cudnn')}")
    reasons: list[str] = []
    for name in AUTOMATIC if wanted == "auto" else (wanted,):
        reason = refusal(device.type, dtype, name)
        if not reason and device.type == "cuda":
            reason = _failure(name, (model.heads, model.kv_heads, model.head_dim), calls, device)
        if not reason:
            why = "first choice" if wanted == "auto" else "named by the recipe"
            return Choice(name, "; ".join(reasons) or why)
        reasons.append(f"{name}: {reason}" if wanted == "auto" else reason)
    hint = "no kernel is left" if wanted == "auto" else "name another kernel, or auto for one that runs"
    raise StageError(f"hardware.attention: {wanted} cannot run here: {'; '.join(reasons)}; {hint}")
