"""The products that a training step cannot do without, counted exactly, and how fast this machine does just
these.

A multiplication and its addition count as two operations. Backwards costs two products for each of forwards:
the gradients of the inputs and of the weights. Attention is counted causally, position t with its t keys.
What is not a product (norms, softmax, the loss, optimizers' vectors) counts nothing, so that a rate of the
products alone bounds the tokens a second of any program that computes this model, on this machine, in this
arithmetic.

Legend: M rows (tokens), C columns in, R columns out. Not covered: memory bounds, and products that a compiler
removes."""

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

PASSES = 3
"""Products of a training step for each one of a forward pass."""
REPEATS = 5


class Product(NamedTuple):
    """`times` products a token: of its row of C numbers with a matrix [C, R]."""

    columns: int
    rows: int
    times: int

    @property
    def flops(self) -> int:
        """Operations for a token in a forward pass."""
        return 2 * self.columns * self.rows * self.times


def model_of(config: Config, vocab_size: int) -> GPT:
    """The model without memory."""
    with torch.device("meta"):
        return GPT(config.model, vocab_size)


def products(model: GPT, plan: Plan) -> list[Product]:
    """The matrix products of a token on its way through a plan, alike ones together."""
    found = Counter([(model.cfg.width, model.tok_emb.weight.shape[0])])
    inside = {layer: list(_linears(block)) for layer, block in enumerate(model.blocks)}
    outside = Counter(_linears(model)) - sum((Counter(each) for each in inside.values()), Counter())
    for step in plan:
        found.update(inside[step.layer])
    return [Product(*shape, count) for shape, count in sorted((found + outside).items())]


def _linears(module: torch.nn.Module) -> Iterator[tuple[int, int]]:
    """(columns, rows) of every Linear inside."""
    return (
        (each.weight.shape[1], each.weight.shape[0]) for each in module.modules() if isinstance(each, Linear)
    )


def attention_flops(model: GPT, plan: Plan, seq_len: int) -> float:
    """Operations of a token's attention in a forward pass, the mean over a row of `seq_len`: scores and
    weighted sum."""
    return len(plan) * 2 * 2 * model.cfg.width * (seq_len + 1) / 2


def flops_per_token(model: GPT, plan: Plan, seq_len: int) -> float:
    """Operations of a token in a training step."""
    return PASSES * (
        sum(each.flops for each in products(model, plan)) + attention_flops(model, plan, seq_len)
    )


def muon_flops(model: GPT, steps: int) -> float:
    """Operations of Newton-Schulz in one training step, over all matrices of the blocks: 2 r^2 c + 2 r^3 + 2
    r^2 c each."""
    shapes = [sorted(shape) for block in model.blocks for shape in _linears(block)]
    return sum(steps * (4 * r * r * c + 2 * r**3) for r, c in shapes)


def best_seconds(run: Callable[[], object], device: torch.device) -> float:
    """Least wall seconds of a few runs, on a device that has finished before the clock is read."""
    found = []
    for _ in range(REPEATS + 1):
        synchronise(device)
        began = time.perf_counter()
        run()
        synchronise(device)
        found.append(time.perf_counter() - began)
    return min(found[1:])


def synchronise(device: torch.device) -> None:
    """Wait for everything that a GPU was given; nothing on a CPU."""
    if device.type == "cuda":
        torch.cuda.synchronize(device)


class Rate(NamedTuple):
    """What the products of a model take, alone: seconds a token in a training step, and operations a
    second."""

    seconds_per_token: float
    flops_per_second: float


def matrix_rate(model: GPT, plan: Plan, dtype: torch.dtype, device: torch.device, tokens: int) -> Rate:
    """Time every product of a training step at its own shape, for a pass of M = `tokens` rows: y = x W^T, dy
    W, dy^T x."""
    seconds = flops = 0.0
    for columns, rows, count in products(model, plan):
        x_MC, w_RC, dy_MR = (
            torch.randn(shape, device=device).to(dtype)
            for shape in ((tokens, columns), (rows, columns), (tokens, rows))
        )
        seconds += count * sum(best_seconds(run, device) for run in _three(x_MC, w_RC, dy_MR))
        flops += count * PASSES * 2 * tokens * columns * rows
    return Rate(seconds / tokens, flops / seconds)


def _three(x_MC: Tensor, w_RC: Tensor, dy_MR: Tensor) -> tuple[Callable[[], Tensor], ...]:
    return lambda: x_MC @ w_RC.T, lambda: dy_MR @ w_RC, lambda: dy_MR.T @ x_MC


def bound(config: Config, vocab_size: int, rate: Rate) -> float:
    """Most tokens a second of a program that does all products of a step at this rate, and nothing else."""
    model, train = model_of(config, vocab_size), config.train
    step = train.batch_tokens * flops_per_token(model, model.plan, train.seq_len) + muon_flops(
        model, config.optim.muon_steps
    )
    return train.batch_tokens / (step / rate.flops_per_second)
