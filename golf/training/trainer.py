"""Everything that learns, and one step of it: model, optimizer, average and row scores of one process.

The state of a run is a flat dict of tensors by name: copied and put back it undoes a warm-up, written to a
file it continues a run elsewhere, bit for bit (on the same machine and number of ranks; the loader has to
skip what was read).

Not covered: data and clocks (golf/stages/train.py), and what is measured after the last step
(golf/training/calibrate.py)."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from functools import partial
from pathlib import Path

import torch
from torch import Tensor
from torch.nn import functional

from golf.model import kernels
from golf.model.gpt import GPT
from golf.model.init import initialise
from golf.model.layers import Linear
from golf.optim.ema import Ema
from golf.optim.optimizer import Optimizer
from golf.optim.schedule import TrainingProgress, average_decay
from golf.quant.grid import fake_quantise
from golf.quant.stats import RowScores
from golf.recipe.config import Config, training_digest
from golf.runtime import dist
from golf.runtime.dist import Ranks
from golf.storage import arrays
from golf.training import loader, phases
from golf.training.phases import Phase

STATE_KIND = "golf-training-1"


class Trainer:
    """The learning parts of one process. `ranks` says which rows are its own and averages its gradients."""

    def __init__(self, config: Config, vocab_size: int, seed: int, ranks: Ranks) -> None:
        self.config, self.vocab_size, self.seed, self.ranks = config, vocab_size, seed, ranks
        dtype = dist.precision(config, ranks.device)
        self.kernel = kernels.choose(ranks.device, dtype)
        self.model = GPT(config.model, vocab_size, dtype=dtype, attention=self.kernel.name).to(ranks.device)
        initialise(self.model, config.model, seed)
        compiled = ranks.device.type == "cuda"
        self.forward = torch.compile(self.model, dynamic=False) if compiled else self.model
        self.logical = loader.logical_ranks(ranks.rank, ranks.world)
        self.parameters = dict(self.model.named_parameters())
        self.matrices = {name: p for name, p in self.parameters.items() if p.ndim == 2}
        self.optimizer = Optimizer(
            self.parameters.items(),
            config.optim,
            dtype=dtype,
            rank=ranks.rank,
            world=ranks.world,
            all_reduce=ranks.all_reduce,
        )
        averaging = config.optim.ema_decay > 0 or config.optim.ema_fraction > 0
        self.ema = Ema(self.parameters.items()) if averaging else None
        self.rows = RowScores(self.matrices.items()) if config.stats.row_score_every else None
        # Made once: a compiled graph is kept for this very object, and another one would be compiled for
        # again.
        self.grid = partial(fake_quantise, bits=config.train.qat_bits)
        self.enter(phases.at(TrainingProgress(0, 0.0), config))

    def enter(self, phase: Phase) -> None:
        """Train in a phase from here on."""
        weight_transform = self.grid if phase.quantised else None
        for module in self.model.blocks.modules():
            if isinstance(module, Linear):
                module.weight_transform = weight_transform
        self.plan = self.model.plan if phase.looped else self.model.first_plan
        self.phase = phase

    def step(self, batch: loader.Batch, now: TrainingProgress) -> Tensor:
        """One update of everything, in the phase of this moment; returns this process's mean loss in nats, on
        its device, still being computed."""
        phase = phases.at(now, self.config)
        if phase != self.phase:
            self.enter(phase)
        return self.update(batch, now)

    def update(self, batch: loader.Batch, now: TrainingProgress) -> Tensor:
        """`step` in the phase that was entered last."""
        cfg = self.config.optim
        loss = self.backward(batch)
        if self.rows and now.step % self.config.stats.row_score_every == 0:
            self.rows.add()
        self.optimizer.step(now)
        if self.ema:
            self.ema.update(average_decay(now, cfg.ema_decay, cfg.ema_fraction))
        return loss

    def passes(self, batch: loader.Batch) -> Iterator[loader.Batch]:
        """A batch on the device, cut into as few passes as memory allows."""
        n = -(-batch.ids_BT.numel() // self.config.hardware.micro_tokens)
        for part in zip(batch.ids_BT.chunk(n), batch.targets_BT.chunk(n), strict=True):
            yield loader.Batch(*(tensor.to(self.ranks.device, non_blocking=True) for tensor in part))

    def backward(self, batch: loader.Batch) -> Tensor:
        """Gradients of the mean cross-entropy over all ranks; returns the mean over the rows of this
        process."""
        total = torch.zeros((), device=self.ranks.device)
        for ids_BT, targets_BT in self.passes(batch):
            logits_BTV = self.forward(ids_BT, plan=self.plan)
            share = len(ids_BT) / len(batch.ids_BT)
            loss = functional.cross_entropy(logits_BTV.flatten(0, 1), targets_BT.flatten()) * share
            loss.backward()
            total += loss.detach()
        self.ranks.average([p.grad for p in self.parameters.values()])
        return total

    @torch.no_grad()
    def finish(self) -> None:
        """After the last step: the average becomes the weights, and the model is what it will be when it
        predicts."""
        self.enter(Phase(looped=True, quantised=False))
        if self.ema:
            for name, average in self.ema.state().items():
                self.parameters[name].copy_(average)

    def state(self) -> dict[str, Tensor]:
        """Everything that a step leaves for the next one, by name: the tensors themselves."""
        parts: dict[str, Mapping[str, Tensor]] = {
            "weight": self.parameters,
            "optimizer": self.optimizer.state(),
        }
        if self.ema:
            parts["average"] = self.ema.state()
        if self.rows:
            parts["row_score"] = dict(zip((*self.matrices, "count"), self.rows.tensors(), strict=True))
        return {
            f"{part}:{name}": tensor for part, tensors in parts.items() for name, tensor in tensors.items()
        }

    @torch.no_grad()
    def restore(self, saved: Mapping[str, Tensor]) -> None:
        """Put back a copy of `state`; ValueError where it is of another run."""
        state = self.state()
        if {name: tensor.shape for name, tensor in state.items()} != {
            name: saved[name].shape for name in saved
        }:
            raise ValueError("the state of a training with other tensors cannot be put back")
        for name, tensor in state.items():
            tensor.copy_(saved[name])

    def _facts(self) -> dict[str, str | int]:
        return {
            "kind": STATE_KIND,
            "recipe_sha256": training_digest(self.config),
            "seed": self.seed,
            "vocab_size": self.vocab_size,
        }

    def write(self, path: Path, steps: int) -> None:
        """Write the state after so many steps to an array file."""
        tensors = {name: tensor.detach().cpu().numpy() for name, tensor in self.state().items()}
        arrays.write(path, {**self._facts(), "steps": steps}, tensors)

    def read(self, path: Path) -> int:
        """Continue from a file that `write` made for the same recipe and seed; returns the steps that were
        done."""
        header, tensors = arrays.read(path)
        steps = header.pop("steps", None)
        if header != self._facts() or type(steps) is not int:
            raise ValueError(f"{path}: is not the state of this training")
        self.restore({name: torch.from_numpy(tensor.copy()) for name, tensor in tensors.items()})
        return steps
