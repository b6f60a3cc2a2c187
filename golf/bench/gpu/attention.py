"""Attention kernels on the device: which exist, whether they are right, and how long they take.

Each kernel of golf/model/kernels.py runs forward and backward and is compared to its definition in float32
(golf/bench/reference_attention.py). A kernel that cannot run is reported with its reason and is no failure;
one that is wrong is.
"""

from __future__ import annotations

from collections.abc import Iterable
from functools import partial
from typing import NamedTuple

import torch
from torch import Tensor

from golf.bench import work
from golf.bench.gpu.results import Failed, Found
from golf.bench.gpu.settings import Settings
from golf.bench.gpu.worker import Requests
from golf.bench.reference_attention import attend_reference
from golf.model import kernels
from golf.model.kernels import ATTENTION, Attend
from golf.recipe.schema import ModelConfig

TOLERANCE = {torch.float32: 1e-4, torch.bfloat16: 3e-2}
"""Largest allowed error, relative to the largest number."""
ROWS_COMPARED = 4
"""The reference holds whole score matrices, so it gets fewer rows than a training pass."""


class Shape(NamedTuple):
    """Sizes of a call of attention."""

    rows: int
    queries: int
    keys: int
    heads: int
    kv_heads: int
    head_dim: int

    def inputs(self, device: torch.device, dtype: torch.dtype) -> tuple[Tensor, Tensor, Tensor, Tensor]:
        """Random q_BTHE, k_BSKE, v_BSKE and dy_BTHE."""
        random = torch.Generator().manual_seed(0)
        b, t, s, h, k, e = self
        q, k_BSKE, v, dy = (
            torch.randn(shape, generator=random).to(device, dtype)
            for shape in ((b, t, h, e), (b, s, k, e), (b, s, k, e), (b, t, h, e))
        )
        return q, k_BSKE, v, dy

    @property
    def flops(self) -> float:
        """Operations of forward and backward, counted causally: two products forward, five backward."""
        pairs = self.queries * (self.keys - (self.queries - 1) / 2)
        return 7 * 2 * self.rows * self.heads * pairs * self.head_dim


def allow(name: str, device: torch.device) -> None:
    """Let this process use the kernel, as golf does after its choice."""
    if device.type == "cuda":
        kernels.allow(name)


def shape_of(cfg: ModelConfig, rows: int, queries: int, keys: int) -> Shape:
    """The call that a model of this recipe makes."""
    return Shape(rows, queries, keys, cfg.heads, cfg.kv_heads, cfg.head_dim)


def forward_and_backward(attend: Attend, inputs: Iterable[Tensor], dtype: torch.dtype) -> list[Tensor]:
    """y and the gradients of q, k and v."""
    *leaves, dy = (x.to(dtype, copy=True) for x in inputs)
    leaves = [x.requires_grad_(True) for x in leaves]
    y = attend(*leaves)
    return [y.detach(), *torch.autograd.grad(y, leaves, dy)]


def error(name: str, shape: Shape, device: torch.device, dtype: torch.dtype) -> float:
    """The largest error of y, dq, dk and dv, relative to each one's largest number."""
    inputs = shape.inputs(device, dtype)
    allow(name, device)
    exact = forward_and_backward(attend_reference, inputs, torch.float32)
    found = forward_and_backward(ATTENTION[name], inputs, dtype)
    return max(
        ((b.float() - a).abs().max() / a.abs().max()).item() for a, b in zip(exact, found, strict=True)
    )


class Kernels:
    """Answers the call's questions about attention, in a process of its own."""

    def __init__(self, settings: Settings) -> None:
        self.settings, self.names = settings, list(ATTENTION)

    def errors(self) -> Found:
        """Every kernel at the shapes of training and of scoring's last layer."""
        settings, config = self.settings, self.settings.hadamard
        length, stride = config.train.seq_len, config.score.stride
        shapes = {
            f"{length} x {length}": shape_of(config.model, ROWS_COMPARED, length, length),
            f"{stride} x {length}": shape_of(config.model, ROWS_COMPARED, stride, length),
        }
        seen, numbers, wrong = [], {}, []
        for name in self.names:
            for label, shape in shapes.items():
                try:
                    found = error(name, shape, settings.device, settings.dtype)
                except (ImportError, RuntimeError, NotImplementedError) as reason:
                    seen.append(f"{name} {label} cannot run: {str(reason).strip().splitlines()[0][:90]}")
                    continue
                seen.append(f"{name} {label} {found:.1e}")
                numbers[f"{name} {label}"] = found
                if not found <= TOLERANCE[settings.dtype]:
                    wrong.append(f"{name} {label}")
        text = "largest errors of y, dq, dk, dv, relative to the largest number: " + "; ".join(seen)
        if wrong or not numbers:
            raise Failed(f"{', '.join(wrong) or 'no kernel'} above {TOLERANCE[settings.dtype]:.0e}; {text}")
        return Found(text, numbers)


def serve_kernels(requests: Requests, settings: Settings) -> None:
    """The work of the kernels' process."""
    requests.serve_all(Kernels(settings))


def times(cfg: ModelConfig, rows: int, length: int, device: torch.device, dtype: torch.dtype) -> Found:
    """Milliseconds of each kernel, forward and backward, for a training pass."""
    shape = shape_of(cfg, rows, length, length)
    *leaves, dy = shape.inputs(device, dtype)
    leaves = [x.requires_grad_(True) for x in leaves]
    seen, numbers = [], {}

    def run(attend: Attend) -> None:
        torch.autograd.grad(attend(*leaves), leaves, dy)

    for name, attend in ATTENTION.items():
        if name == "blocks" and device.type == "cuda":
            continue  # for CPUs
        try:
            allow(name, device)
            seconds = work.best_seconds(partial(run, attend), device)
        except (ImportError, RuntimeError, NotImplementedError):
            continue
        numbers[name] = seconds
        seen.append(f"{name} {seconds * 1e3:.2f} ms ({shape.flops / seconds / 1e12:.3g} TFLOP/s)")
    return Found(f"attention at {rows} x {length}: {', '.join(seen)}", numbers)
