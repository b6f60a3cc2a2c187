"""The learning parts of one process (model, optimizer, average, row scores) and a training step with them.

`state` gives everything that a step leaves for the next one as a flat dict of tensors by name; `restore` puts
a copy of it back, which undoes a warm-up.

See golf/stages/train.py for data and clocks, and golf/training/calibrate.py for what is measured after the
last step.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from functools import partial

import torch
from torch import Tensor

from golf.model import kernels
from golf.model.gpt import GPT, mean_nats
from golf.model.init import initialise
from golf.model.layers import Linear
from golf.optim.ema import Ema
from golf.optim.optimizer import Optimizer
from golf.optim.schedule import TrainingProgress, average_decay
from golf.quant.grid import fake_quantise
from golf.quant.stats import RowScores
from golf.recipe.config import Config
from golf.runtime import compilation, dist
from golf.runtime.dist import Ranks
from golf.runtime.errors import StageError
from golf.training import loader, phases
from golf.training.phases import Phase

Loss = Callable[..., Tensor]


def compiled_loss(model: GPT, in_graph: bool) -> Loss:
    """`model.loss` as one graph; unless `in_graph`, only the model is a graph and its loss runs outside."""
    if in_graph:
        return compilation.Compiled(model.loss)
    forward = compilation.Compiled(model)
    return lambda ids_BT, targets_BT, plan: mean_nats(forward(ids_BT, plan=plan), targets_BT)


class Trainer:
    """The learning parts of one process. `ranks` decides which rows it reads."""

    def __init__(self, config: Config, vocab_size: int, seed: int, ranks: Ranks) -> None:
        self.config, self.vocab_size, self.seed, self.ranks = config, vocab_size, seed, ranks
        dtype = dist.precision(config, ranks.device)
        self.kernel = kernels.choose(ranks.device, dtype, config, kernels.training_calls(config))
        model = GPT(
            config.model,
            vocab_size,
            dtype=dtype,
            attention=self.kernel.name,
            fused_loss=config.hardware.fused_loss,
        )
        self.model = model.to(ranks.device)
        initialise(self.model, config.model, seed)
        if config.hardware.fused_loss and ranks.device.type != "cuda":
            raise StageError("hardware.fused_loss: its Triton kernels need a GPU; set it to false")
        self.loss: Loss = self.model.loss
        if compilation.wanted(ranks.device):
            self.loss = compiled_loss(self.model, config.hardware.loss_in_graph)
        self.logical = loader.logical_ranks(ranks.rank, ranks.world)
        self.parameters = dict(self.model.named_parameters())
        self.matrices = {name: p for name, p in self.parameters.items() if p.ndim == 2}
        self.optimizer = Optimizer(
            self.parameters.items(), config.optim, dtype=dtype, ranks=ranks, banks=config.hardware.banks
        )
        averaging = config.optim.ema_decay > 0 or config.optim.ema_fraction > 0
        self.ema = Ema(self.parameters.items()) if averaging else None
        self.row_scores = RowScores(self.matrices.items()) if config.stats.row_score_every else None
        # Created once: torch.compile guards on the object, and another one would be compiled again.
        self.grid = partial(fake_quantise, bits=config.train.qat_bits)
        self.enter(phases.at(TrainingProgress(0, 0.0), config))

    def enter(self, phase: Phase) -> None:
        """Train in this phase from here on."""
        weight_transform = self.grid if phase.quantised else None
        for module in self.model.blocks.modules():
            if isinstance(module, Linear):
                module.weight_transform = weight_transform
        self.plan = self.model.plan if phase.looped else self.model.first_plan
        self.phase = phase

    def step(self, batch: loader.Batch, progress: TrainingProgress) -> Tensor:
        """One update of everything, in the phase that `progress` calls for.

        Returns this process's mean loss in nats, on its device; a GPU may still be computing it.
        """
        phase = phases.at(progress, self.config)
        if phase != self.phase:
            self.enter(phase)
        return self.update(batch, progress)

    def update(self, batch: loader.Batch, progress: TrainingProgress) -> Tensor:
        """Like `step`, in the phase that was entered last."""
        cfg = self.config.optim
        loss = self.backward(batch)
        if self.row_scores and progress.step % self.config.stats.row_score_every == 0:
            self.optimizer.gradients.average()
            self.row_scores.add()
        self.optimizer.step(progress)
        if self.ema:
            self.ema.update(average_decay(progress, cfg.ema_decay, cfg.ema_fraction))
        return loss

    def micro_batches(self, batch: loader.Batch) -> Iterator[loader.Batch]:
        """A batch on the device, cut into parts of at most `hardware.micro_tokens`, as equal as possible."""
        n = -(-batch.ids_BT.numel() // self.config.hardware.micro_tokens)
        for part in zip(batch.ids_BT.chunk(n), batch.targets_BT.chunk(n), strict=True):
            yield loader.Batch(*part).to(self.ranks.device)

    def backward(self, batch: loader.Batch) -> Tensor:
        """Add the gradients of this process's mean cross-entropy, which is returned.

        The optimizer's step averages them over the ranks; `optimizer.gradients.average` does it without one.
        """
        total = torch.zeros((), device=self.ranks.device)
        for ids_BT, targets_BT in self.micro_batches(batch):
            loss = self.loss(ids_BT, targets_BT, self.plan) * (len(ids_BT) / len(batch.ids_BT))
            loss.backward()
            total += loss.detach()
        return total

    @torch.no_grad()
    def finish(self) -> None:
        """After the last step: load the averaged weights and enter the phase in which the model predicts."""
        self.enter(Phase(looped=True, quantised=False))
        if self.ema:
            for name, average in self.ema.state().items():
                self.parameters[name].copy_(average)

    def state(self) -> dict[str, Tensor]:
        """Everything that a step leaves for the next one, by name: the tensors themselves, no copies."""
        parts: dict[str, Mapping[str, Tensor]] = {
            "weight": self.parameters,
            "optimizer": self.optimizer.state(),
        }
        if self.ema:
            parts["average"] = self.ema.state()
        if self.row_scores:
            names = (*self.matrices, "count")
            parts["row_score"] = dict(zip(names, self.row_scores.tensors(), strict=True))
        return {
            f"{part}:{name}": tensor for part, tensors in parts.items() for name, tensor in tensors.items()
        }

    @torch.no_grad()
    def restore(self, saved: Mapping[str, Tensor]) -> None:
        """Put back a copy of `state`."""
        for name, tensor in self.state().items():
            tensor.copy_(saved[name])
