"""Collect statistics for quantisation from modules and parameters while batches run through them.

`InputStats` records module inputs (Hessian and mean magnitude), `GradientStats` squared gradients (Fisher
diagonal), `RowScores` gradient norms of rows (FTLE scores). All accumulate sums in float32 on the device
of their source, and divide in `result`. `tensors` lists the sums in a fixed order; averaged over ranks
that saw equally many tokens, they give the result of one process that saw all. golf/training/calibrate.py
runs the batches.

Source: H as in GPTQ (Frantar et al. 2022), mean |x| as in AWQ (Lin et al. 2023), Fisher as the mean of grad^2
over batches (#1462), row scores from #316.
"""

from __future__ import annotations

import contextlib
from collections.abc import Iterable, Iterator, Mapping
from typing import NamedTuple, Self

import torch
from torch import Tensor, nn


class TensorStats(NamedTuple):
    """Statistics of one weight W_RC, float32; None if not measured."""

    hessian_CC: Tensor | None = None
    """Mean over tokens of x x^T, x being the weight's input."""
    activation_C: Tensor | None = None
    """Mean over tokens of |x|."""
    fisher_RC: Tensor | None = None
    """Mean over batches of the squared gradient."""
    row_score_R: Tensor | None = None
    """Mean over measurements of the 2-norm of each row's gradient."""


class InputMeans(NamedTuple):
    """Means (or sums) over all inputs of a module."""

    hessian_CC: Tensor
    activation_C: Tensor


@contextlib.contextmanager
def _tf32(allowed: bool) -> Iterator[None]:
    """Within the block, CUDA's float32 products may round their factors to TF32, if allowed."""
    matmul, before = torch.backends.cuda.matmul, torch.backends.cuda.matmul.allow_tf32
    matmul.allow_tf32 = allowed or before
    try:
        yield
    finally:
        matmul.allow_tf32 = before


class InputStats:
    """Means of x x^T and |x| over all inputs x of each module, recorded inside the `with` block.

    A module that runs several times in one forward pass (depth recurrence) counts each time
    (source: #1493). Names of the same module share one measurement.

    bfloat16 inputs are multiplied in TF32 on CUDA. It keeps their 8 significant bits (it has 11) and sums in
    float32, so the products are those of float32, at many times the speed.
    """

    def __init__(self, modules: Mapping[str, nn.Module]) -> None:
        self.modules = dict(modules)
        self.sums: dict[nn.Module, InputMeans] = {}
        self.counts = dict.fromkeys(self.modules.values(), 0)

    def __enter__(self) -> Self:
        self.hooks = [module.register_forward_pre_hook(self._add) for module in self.counts]
        return self

    def __exit__(self, *error: object) -> None:
        for hook in self.hooks:
            hook.remove()

    @torch.no_grad()
    def _add(self, module: nn.Module, inputs: tuple[Tensor, ...]) -> None:
        x_NC = inputs[0].detach().flatten(0, -2)
        exact, x_NC = x_NC.dtype == torch.bfloat16, x_NC.float()
        columns = x_NC.shape[1]
        if module not in self.sums:
            self.sums[module] = InputMeans(x_NC.new_zeros(columns, columns), x_NC.new_zeros(columns))
        with _tf32(allowed=exact):
            self.sums[module].hessian_CC.addmm_(x_NC.mT, x_NC)
        self.sums[module].activation_C.add_(x_NC.abs().sum(dim=0))
        self.counts[module] += len(x_NC)

    def tensors(self) -> list[Tensor]:
        """The sums, in the order of the modules."""
        return [tensor for module in self.counts for tensor in self.sums[module]]

    def result(self) -> dict[str, InputMeans]:
        """name -> means; names of one module share tensors. Raises KeyError for a module without input."""
        means = {
            module: InputMeans(*(total / count for total in self.sums[module]))
            for module, count in self.counts.items()
        }
        return {name: means[module] for name, module in self.modules.items()}


class GradientStats:
    """Mean over batches of each parameter's squared gradient; call `add` after each backward pass."""

    def __init__(self, parameters: Iterable[tuple[str, nn.Parameter]]) -> None:
        self.parameters = dict(parameters)
        self.sums = {
            name: torch.zeros_like(self.statistic(p.detach())) for name, p in self.parameters.items()
        }
        self.count = torch.zeros(())

    @staticmethod
    def statistic(gradient_RC: Tensor) -> Tensor:
        """The statistic that is averaged: fisher_RC of one batch."""
        return gradient_RC.float().square()

    @torch.no_grad()
    def add(self) -> None:
        """Add the parameters' current gradients; equal on all ranks if the gradients are."""
        for name, parameter in self.parameters.items():
            assert parameter.grad is not None, f"{name} has no gradient"
            self.sums[name] += self.statistic(parameter.grad)
        self.count += 1

    def tensors(self) -> list[Tensor]:
        """The sums and their count, in the order of the parameters."""
        return [*self.sums.values(), self.count]

    def result(self) -> dict[str, Tensor]:
        """name -> mean; zeros if nothing was added."""
        return {name: total / self.count.clamp(min=1).to(total.device) for name, total in self.sums.items()}


class RowScores(GradientStats):
    """Mean over measurements of each row's gradient norm; call `add` after a backward pass. Source: #316."""

    @staticmethod
    def statistic(gradient_RC: Tensor) -> Tensor:
        """The statistic that is averaged: row_score_R of one measurement."""
        return torch.linalg.vector_norm(gradient_RC, dim=1, dtype=torch.float32)
