"""Measure statistics for the quantiser on training batches, between the last step and the end of the clock.

`stats.hessian_batches` batches through the finished model give, for each weight, the Hessian and the mean
magnitude of its inputs. `stats.fisher_batches` more, with gradients, give every matrix's Fisher diagonal.
Row scores were collected during training. Hessians are averaged over the ranks, gradients before they are
squared, so the result does not depend on the number of processes.

Cost: a forward pass per Hessian batch, a forward and a backward pass per Fisher batch. Neutral: 0 batches,
nothing runs. Source: #1493 (Hessians inside the train clock, after weight averaging, with recurrence on),
#1462 (Fisher over 50 batches). See golf/stages/pack.py for how the quantiser uses them.
"""

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

MARGIN = {"cpu": 1.5, "cuda": 1.1}
"""Device type -> factor on the estimated seconds. On a shared CPU the time of a batch varies far more."""


@torch.no_grad()
def hessians(trainer: Trainer, batches: Iterable[Batch]) -> Statistics:
    """Hessian and mean magnitude of all inputs; runs uncompiled, since compiled graphs skip hooks."""
    with InputStats(trainer.model.inputs()) as inputs:
        for batch in batches:
            for ids_BT, _ in trainer.micro_batches(batch):
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
        trainer.optimizer.gradients.average()
        gradients.add()
        trainer.optimizer.gradients.zero()
    return {name: TensorStats(fisher_RC=mean_RC) for name, mean_RC in gradients.result().items()}


def row_scores(trainer: Trainer) -> Statistics:
    """What was collected during training."""
    scores = trainer.row_scores.result() if trainer.row_scores else {}
    return {name: TensorStats(row_score_R=score_R) for name, score_R in scores.items()}


def measurements(cfg: StatsConfig) -> list[tuple[Callable[[Trainer, Iterable[Batch]], Statistics], int]]:
    """What the recipe measures after the last step, and on how many batches each."""
    return [(run, n) for run, n in ((hessians, cfg.hessian_batches), (fisher, cfg.fisher_batches)) if n]


def merged(parts: Iterable[Statistics]) -> Statistics:
    """Measurements of different fields in one."""
    whole: Statistics = {}
    for part in parts:
        for name, stats in part.items():
            fields = {field: tensor for field, tensor in stats._asdict().items() if tensor is not None}
            whole[name] = whole.get(name, TensorStats())._replace(**fields)
    return whole


def measure(trainer: Trainer, batches: Iterator[Batch]) -> Statistics:
    """All statistics that the recipe asks for; call it after `trainer.finish`."""
    parts = [run(trainer, islice(batches, n)) for run, n in measurements(trainer.config.stats)]
    return merged([*parts, row_scores(trainer)])


def _finished(device: torch.device) -> float:
    """The time, read after everything in a GPU's queue is done."""
    if device.type == "cuda":
        torch.cuda.synchronize(device)
    return time.monotonic()


def warm_up(trainer: Trainer, batch: Batch) -> tuple[Statistics, float]:
    """Statistics of one batch, and the seconds that `measure` will take on all batches.

    The estimate takes a batch's second run, since the first also warms up the kernels. It includes the
    margin of the device.
    """
    parts, seconds, device = [], 0.0, trainer.ranks.device
    for run, n in measurements(trainer.config.stats):
        run(trainer, [batch])
        began = _finished(device)
        parts.append(run(trainer, [batch]))
        seconds += n * MARGIN[device.type] * (_finished(device) - began)
    return merged([*parts, row_scores(trainer)]), seconds
