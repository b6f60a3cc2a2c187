"""Statistics for the quantiser, measured on training batches between the last step and the end of the train
clock.

What: `stats.hessian_batches` batches through the finished model give each weight the Hessian and the mean
size of its inputs; `stats.fisher_batches` more, with gradients, give every matrix its Fisher diagonal; row
scores were collected while training. Hessians are averaged over the ranks, gradients before they are squared,
so that any number of processes finds the same. `rehearse` finds out beforehand how long that takes.

Cost: a forward, or a forward and a backward pass a batch. Neutral: 0 batches, nothing runs. Source: #1493
(Hessians inside the train clock, after the average, with recurrence on), #1462 (Fisher over 50 batches). Not
covered: what a quantiser makes of it (golf/stages/pack.py)."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable, Iterator
from itertools import islice

import torch

from golf.quant.stats import GradientStats, InputStats, TensorStats
from golf.recipe.schema import StatsConfig
from golf.training.loader import Batch
from golf.training.trainer import Trainer

Statistics = dict[str, TensorStats]


@torch.no_grad()
def hessians(trainer: Trainer, batches: Iterable[Batch]) -> Statistics:
    """Inputs of every weight that multiplies one. The model runs uncompiled: a compiled graph tells no
    hook."""
    with InputStats(trainer.model.inputs()) as inputs:
        for batch in batches:
            for ids_BT, _ in trainer.passes(batch):
                trainer.model(ids_BT, plan=trainer.plan)
    trainer.ranks.average(inputs.tensors())
    return {
        name: TensorStats(hessian_CC=means.hessian_CC, activation_C=means.activation_C)
        for name, means in inputs.result().items()
    }


def fisher(trainer: Trainer, batches: Iterable[Batch]) -> Statistics:
    """Squared gradients of every matrix."""
    gradients = GradientStats(trainer.matrices.items())
    for batch in batches:
        trainer.backward(batch)
        gradients.add()
        trainer.model.zero_grad()
    return {name: TensorStats(fisher_RC=mean_RC) for name, mean_RC in gradients.result().items()}


def row_scores(trainer: Trainer) -> Statistics:
    """What was collected while training."""
    scores = trainer.rows.result() if trainer.rows else {}
    return {name: TensorStats(row_score_R=score_R) for name, score_R in scores.items()}


def wanted(cfg: StatsConfig) -> list[tuple[Callable[[Trainer, Iterable[Batch]], Statistics], int]]:
    """What is measured after the last step, and on how many batches."""
    return [(run, n) for run, n in ((hessians, cfg.hessian_batches), (fisher, cfg.fisher_batches)) if n]


def joined(parts: Iterable[Statistics]) -> Statistics:
    """Several measurements of different fields in one."""
    whole: Statistics = {}
    for part in parts:
        for name, found in part.items():
            fields = {field: tensor for field, tensor in found._asdict().items() if tensor is not None}
            whole[name] = whole.get(name, TensorStats())._replace(**fields)
    return whole


def measure(trainer: Trainer, batches: Iterator[Batch]) -> Statistics:
    """All statistics that the recipe asks for, of a finished trainer."""
    parts = [run(trainer, islice(batches, n)) for run, n in wanted(trainer.config.stats)]
    return joined([*parts, row_scores(trainer)])


def rehearse(trainer: Trainer, batch: Batch) -> tuple[Statistics, float]:
    """Statistics in the right shape from one batch, and the seconds that `measure` will take: what a batch
    takes the second time that it runs, for as many as there will be."""
    parts, seconds = [], 0.0
    for run, n in wanted(trainer.config.stats):
        run(trainer, [batch])
        began = time.monotonic()
        parts.append(run(trainer, [batch]))
        if trainer.ranks.device.type == "cuda":
            torch.cuda.synchronize()
        seconds += n * (time.monotonic() - began)
    return joined([*parts, row_scores(trainer)]), seconds
