"""Statistics that the quantiser goes by, collected from any modules and parameters while batches run through
them.

What: `InputStats` watches the inputs of modules (Hessian and mean size of the inputs of each weight),
`GradientStats` squares gradients (Fisher diagonal), `RowScores` measures the gradient of each row (FTLE
scores). All sum in float32 on the device of what they watch, and divide when they are asked. `tensors()` is a
list in a fixed order: averaged over ranks that saw equally many tokens, it gives the result of one process
that saw them all.

Neutral: not collecting. Bytes: none in the artifact. Source: H as in GPTQ (Frantar et al. 2022), mean |x| as
in AWQ (Lin et al. 2023), Fisher as the mean of grad^2 over batches (#1462), row scores of #316. Not covered:
which of them a quantiser needs, and running the batches (golf/training/calibrate.py).

Axes: R rows and C columns of a weight, N inputs of a module, flattened.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any, NamedTuple, Self

import torch
from torch import Tensor, nn


class TensorStats(NamedTuple):
    """What is known of one weight W_RC, float32; None where it was not measured."""

    hessian_CC: Tensor | None = None
    """Mean over tokens of x x^T, x being the weight's input."""
    activation_C: Tensor | None = None
    """Mean over tokens of |x|."""
    fisher_RC: Tensor | None = None
    """Mean over batches of the squared gradient."""
    row_score_R: Tensor | None = None
    """Mean over measurements of the 2-norm of each row's gradient."""


class InputMeans(NamedTuple):
    """Means over all inputs that a module saw."""

    hessian_CC: Tensor
    activation_C: Tensor


class InputStats:
    """x x^T and |x|, averaged over every input x of each module; counts while it is entered.

    A module that runs several times in one forward pass, as under depth recurrence, counts each time (source:
    #1493)."""

    def __init__(self, modules: Mapping[str, nn.Module]) -> None:
        self.modules = dict(modules)
        self.sums: dict[str, InputMeans] = {}
        self.counts = dict.fromkeys(self.modules, 0)

    def __enter__(self) -> Self:
        self.hooks = [
            module.register_forward_pre_hook(self._watch(name)) for name, module in self.modules.items()
        ]
        return self

    def __exit__(self, *error: object) -> None:
        for hook in self.hooks:
            hook.remove()

    def _watch(self, name: str) -> Any:
        @torch.no_grad()
        def add(module: nn.Module, inputs: tuple[Tensor, ...]) -> None:
            x_NC = inputs[0].detach().flatten(0, -2).float()
            columns = x_NC.shape[1]
            if name not in self.sums:
                self.sums[name] = InputMeans(x_NC.new_zeros(columns, columns), x_NC.new_zeros(columns))
            self.sums[name].hessian_CC.addmm_(x_NC.mT, x_NC)
            self.sums[name].activation_C.add_(x_NC.abs().sum(dim=0))
            self.counts[name] += len(x_NC)

        return add

    def tensors(self) -> list[Tensor]:
        """The sums, in the order of the modules."""
        return [tensor for name in self.modules for tensor in self.sums[name]]

    def result(self) -> dict[str, InputMeans]:
        """name -> means. Raises KeyError for a module through which nothing went."""
        return {
            name: InputMeans(*(total / self.counts[name] for total in self.sums[name]))
            for name in self.modules
        }


class GradientStats:
    """The squared gradient of each parameter, averaged over batches: call `add` after each backward pass."""

    def __init__(self, parameters: Iterable[tuple[str, nn.Parameter]]) -> None:
        self.parameters = dict(parameters)
        self.sums = {name: torch.zeros_like(self.of(p.detach())) for name, p in self.parameters.items()}
        self.count = torch.zeros(())

    @staticmethod
    def of(gradient_RC: Tensor) -> Tensor:
        """What is averaged: fisher_RC of one batch."""
        return gradient_RC.float().square()

    @torch.no_grad()
    def add(self) -> None:
        """Count the gradients that lie at the parameters now; equal on all ranks if the gradients are."""
        for name, parameter in self.parameters.items():
            self.sums[name] += self.of(parameter.grad)
        self.count += 1

    def tensors(self) -> list[Tensor]:
        """The sums and their count, in the order of the parameters."""
        return [*self.sums.values(), self.count]

    def result(self) -> dict[str, Tensor]:
        """name -> mean; zeros where nothing was counted."""
        return {name: total / self.count.clamp(min=1).to(total.device) for name, total in self.sums.items()}


class RowScores(GradientStats):
    """The 2-norm of each row's gradient, averaged over measurements: call `add` after a backward pass.
    Source: #316."""

    @staticmethod
    def of(gradient_RC: Tensor) -> Tensor:
        """What is averaged: row_score_R of one measurement."""
        return torch.linalg.vector_norm(gradient_RC, dim=1, dtype=torch.float32)
