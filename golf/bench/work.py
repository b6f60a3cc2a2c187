"""Count the matrix products that a training step needs, and measure how fast this machine does just these.

A multiplication and its addition count as two operations. The backward pass needs two products for each of
the forward pass: the gradients of the inputs and of the weights. Attention is counted causally: position t
has t keys. Everything else (norms, softmax, loss, optimizer vectors) counts zero. So the rate of the products
alone bounds the tokens per second of any program that computes this model on this machine in this arithmetic.

Legend: M rows (tokens), C columns in, R columns out. Memory bounds, and products that a compiler removes, are
ignored.
"""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Callable, Iterator
from typing import NamedTuple

import torch
from torch import Tensor

from golf.model.gpt import GPT
from golf.model.layer_order import Plan
from golf.model.layers import Linear
from golf.recipe.schema import Config

PRODUCTS_PER_FORWARD = 3
"""Products of a training step per product of its forward pass."""
REPEATS = 5


class Product(NamedTuple):
    """`times` products per token, of its C numbers with a matrix [C, R]."""

    columns: int
    rows: int
    times: int

    @property
    def flops(self) -> int:
        """Operations per token in a forward pass."""
        return 2 * self.columns * self.rows * self.times


def model_of(config: Config, vocab_size: int) -> GPT:
    """The model on the meta device, without memory."""
    with torch.device("meta"):
        return GPT(config.model, vocab_size)


def products(model: GPT, plan: Plan) -> list[Product]:
    """The matrix products of a token along a plan, equal shapes counted together."""
    found = Counter([(model.cfg.width, model.tok_emb.weight.shape[0])])
    inside = {layer: list(_linears(block)) for layer, block in enumerate(model.blocks)}
    outside = Counter(_linears(model)) - sum((Counter(each) for each in inside.values()), Counter())
    for step in plan:
        found.update(inside[step.layer])
    return [Product(*shape, count) for shape, count in sorted((found + outside).items())]


def _linears(module: torch.nn.Module) -> Iterator[tuple[int, int]]:
    """(columns, rows) of every Linear in a module."""
    return (
        (each.weight.shape[1], each.weight.shape[0]) for each in module.modules() if isinstance(each, Linear)
    )


def attention_flops(model: GPT, plan: Plan, seq_len: int) -> float:
    """Operations per token of attention in a forward pass: scores and weighted sum, mean over a row."""
    return len(plan) * 2 * 2 * model.cfg.width * (seq_len + 1) / 2


def flops_per_token(model: GPT, plan: Plan, seq_len: int) -> float:
    """Operations per token in a training step."""
    return PRODUCTS_PER_FORWARD * (
        sum(each.flops for each in products(model, plan)) + attention_flops(model, plan, seq_len)
    )


def muon_flops(model: GPT, steps: int) -> float:
    """Operations of Newton-Schulz in a training step, over all matrices of the blocks.

    An iteration on an r x c matrix takes 2 r^2 c + 2 r^3 + 2 r^2 c.
    """
    shapes = [sorted(shape) for block in model.blocks for shape in _linears(block)]
    return sum(steps * (4 * r * r * c + 2 * r**3) for r, c in shapes)


def best_seconds(run: Callable[[], object], device: torch.device) -> float:
    """Fewest wall seconds of a few runs; waits for the device before it reads the clock."""
    found = []
    for _ in range(REPEATS + 1):
        synchronise(device)
        began = time.perf_counter()
        run()
        synchronise(device)
        found.append(time.perf_counter() - began)
    return min(found[1:])


def synchronise(device: torch.device) -> None:
    """Wait for a GPU's queue; does nothing on a CPU."""
    if device.type == "cuda":
        torch.cuda.synchronize(device)


class Rate(NamedTuple):
    """Speed of a model's products alone: seconds per token in a training step, operations per second."""

    seconds_per_token: float
    flops_per_second: float


def matrix_rate(model: GPT, plan: Plan, dtype: torch.dtype, device: torch.device, tokens: int) -> Rate:
    """Time every product of a training step at its own shape, with M = `tokens` rows: x W^T, dy W, dy^T x."""
    seconds = flops = 0.0
    for columns, rows, count in products(model, plan):
        x_MC, w_RC, dy_MR = (
            torch.randn(shape, device=device).to(dtype)
            for shape in ((tokens, columns), (rows, columns), (tokens, rows))
        )
        seconds += count * sum(best_seconds(run, device) for run in _step_products(x_MC, w_RC, dy_MR))
        flops += count * PRODUCTS_PER_FORWARD * 2 * tokens * columns * rows
    return Rate(seconds / tokens, flops / seconds)


def _step_products(x_MC: Tensor, w_RC: Tensor, dy_MR: Tensor) -> tuple[Callable[[], Tensor], ...]:
    return lambda: x_MC @ w_RC.T, lambda: dy_MR @ w_RC, lambda: dy_MR.T @ x_MC


def bound(config: Config, vocab_size: int, rate: Rate) -> float:
    """Tokens per second of a program that does all products of a step at this rate, and nothing else."""
    model, train = model_of(config, vocab_size), config.train
    step = train.batch_tokens * flops_per_token(model, model.plan, train.seq_len) + muon_flops(
        model, config.optim.muon_steps
    )
    return train.batch_tokens / (step / rate.flops_per_second)
