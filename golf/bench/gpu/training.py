"""Steps of golf's own trainer on the device: batches, times, the compiled graph beside the plain model."""

from __future__ import annotations

import statistics
import time
from collections.abc import Sequence
from typing import Any, NamedTuple

import torch
from torch import Tensor
from torch.nn import functional

from golf.bench import work
from golf.bench.gpu import card
from golf.bench.gpu.results import Failed, Found
from golf.optim.schedule import TrainingProgress
from golf.recipe.schema import Config
from golf.runtime.dist import Ranks
from golf.training import loader
from golf.training.loader import Batch
from golf.training.phases import Phase
from golf.training.trainer import Trainer

PLAIN_ROWS = 4
"""Rows of an uncompiled pass, which keeps far more for its backward pass than a compiled one."""
NOISE = 0.02


def make_trainer(config: Config, vocab_size: int, device: torch.device) -> Trainer:
    """The trainer of one process with one GPU."""
    return Trainer(config, vocab_size, 0, Ranks(0, 1, device))


def synthetic(trainer: Trainer, batch_tokens: int, step: int = 0) -> Batch:
    """Random tokens in the shape of a batch."""
    return loader.synthetic(
        step, trainer.logical, batch_tokens, trainer.config.train.seq_len, trainer.vocab_size
    )


def step_seconds(
    trainers: Sequence[Trainer], batch_tokens: int, steps: int, warm_up: int = 2
) -> list[list[float]]:
    """Wall seconds of steps of each trainer in its current phase, after a warm-up.

    The trainers take steps alternately, so that drift of the machine's speed affects all alike.
    """
    batches = [synthetic(trainer, batch_tokens) for trainer in trainers]
    found = [list[float]() for _ in trainers]
    for step in range(warm_up + steps):
        for trainer, batch, seconds in zip(trainers, batches, found, strict=True):
            work.synchronise(trainer.ranks.device)
            began = time.perf_counter()
            trainer.update(batch, TrainingProgress(step, 0.5))
            work.synchronise(trainer.ranks.device)
            seconds.append(time.perf_counter() - began)
    return [seconds[warm_up:] for seconds in found]


class Ratio(NamedTuple):
    """Median seconds of two trainings' steps, and the range of their ratio over pairs of steps."""

    first: float
    second: float
    low: float
    high: float

    def __str__(self) -> str:
        change = self.first / self.second - 1
        return (
            f"{self.first * 1e3:.1f} against {self.second * 1e3:.1f} ms a step, {change:+.1%} "
            f"({self.low - 1:+.1%} to {self.high - 1:+.1%})"
        )


def ratio(first: Sequence[float], second: Sequence[float]) -> Ratio:
    """Compare the steps of two trainings that took turns."""
    pairs = [a / b for a, b in zip(first, second, strict=True)]
    return Ratio(statistics.median(first), statistics.median(second), min(pairs), max(pairs))


def overhead(
    with_it: Config,
    without: Config,
    vocab_size: int,
    device: torch.device,
    batch_tokens: int,
    steps: int,
    *,
    quantised: bool = False,
) -> Ratio:
    """Step times with and without a technique; `quantised` puts the former into the quantised phase."""
    trainers = [make_trainer(config, vocab_size, device) for config in (with_it, without)]
    trainers[0].enter(Phase(looped=False, quantised=quantised))
    trainers[1].enter(Phase(looped=False, quantised=False))
    return ratio(*step_seconds(trainers, batch_tokens, steps))


def _gradient(trainer: Trainer) -> Tensor:
    """All gradients in one vector; they are zero afterwards."""
    whole = torch.cat([p.grad.flatten().float() for p in trainer.parameters.values() if p.grad is not None])
    trainer.optimizer.gradients.zero()
    return whole


def compiled_against_plain(trainer: Trainer, rows: int) -> Found:
    """The training graph and the plain model on one pass: loss, and direction of the gradient.

    Noise makes no matrix zero. Raises Failed where they differ by more than bfloat16 explains.
    """
    batch = synthetic(trainer, rows * trainer.config.train.seq_len)
    random = torch.Generator().manual_seed(0)
    with torch.no_grad():
        for matrix in trainer.matrices.values():
            matrix.add_(NOISE * torch.randn(matrix.shape, generator=random).to(matrix.device))
    trainer.optimizer.gradients.zero()
    fused = trainer.backward(batch).item()
    h = _gradient(trainer)
    plain = 0.0
    for ids_BT, targets_BT in zip(*(part.split(PLAIN_ROWS) for part in batch), strict=True):
        ids, targets = (part.to(trainer.ranks.device) for part in (ids_BT, targets_BT))
        loss = trainer.model.loss(ids, targets, trainer.plan) * (len(ids_BT) / rows)
        loss.backward()
        plain += loss.item()
    g = _gradient(trainer)
    cosine = functional.cosine_similarity(g.double(), h.double(), dim=0).item()
    seen = f"loss {plain:.4f} plain and {fused:.4f} compiled; gradients' cosine {cosine:.5f}"
    if abs(plain - fused) > 2e-2 * abs(plain) or not cosine > 0.98:
        raise Failed(seen)
    return Found(seen, {"loss": plain, "compiled_loss": fused, "cosine": cosine})


def steps(trainer: Trainer, batch_tokens: int, n: int) -> Found:
    """Steps in the current phase: time, tokens per second, memory, share of the peak by the causal count."""
    device = trainer.ranks.device
    if device.type == "cuda":
        torch.cuda.reset_peak_memory_stats(device)
    (seconds,) = step_seconds([trainer], batch_tokens, n)
    median = statistics.median(seconds)
    rate = batch_tokens / median
    flops = work.flops_per_token(trainer.model, trainer.plan, trainer.config.train.seq_len)
    numbers: dict[str, Any] = {"step_seconds": seconds, "tokens_per_second": rate, "flops_per_token": flops}
    seen = (
        f"step {median * 1e3:.1f} ms ({min(seconds) * 1e3:.1f} to {max(seconds) * 1e3:.1f}) of "
        f"{batch_tokens:,} tokens, {rate:,.0f} tokens/s, {card.share_of_peak(device, rate * flops)}"
    )
    if device.type == "cuda":
        numbers["peak_bytes"] = torch.cuda.max_memory_allocated(device)
        seen += f"; {numbers['peak_bytes'] / 2**30:.1f} GiB"
    return Found(seen, numbers)
