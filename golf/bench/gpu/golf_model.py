"""golf's process for #586's model: one trainer, whose compiled graph every row of this model uses."""

from __future__ import annotations

import socket
import time
from collections.abc import Callable
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from golf.bench import work
from golf.bench.contestants import WARM_UP_STEPS, open_shards
from golf.bench.gpu import attention, card, switches, training
from golf.bench.gpu.profile import profile_steps
from golf.bench.gpu.race import Gate
from golf.bench.gpu.results import Failed, Found
from golf.bench.gpu.settings import Settings
from golf.bench.gpu.sliding import make_model, sliding
from golf.bench.gpu.worker import Requests
from golf.optim.schedule import TrainingProgress
from golf.recipe.schema import Config
from golf.runtime.dist import Ranks
from golf.runtime.wire import Wire
from golf.stages import train as stage
from golf.training import loader
from golf.training.clocks import StepClock
from golf.training.trainer import Trainer

VOCABULARY = 1024
MARGIN = 1.25
"""Compilations take unequal time."""


class RecordingTrainer(Trainer):
    """A trainer that shows the loss of each step to `record`."""

    record: Callable[[Tensor], None]

    def step(self, batch: loader.Batch, progress: TrainingProgress) -> Tensor:
        loss = super().step(batch, progress)
        self.record(loss)
        return loss


@dataclass
class RaceClock(StepClock):
    """The clock of the training loop in a race: the gate decides whether another step is taken."""

    gate: Gate

    def progress(self, step: int) -> TrainingProgress:
        return TrainingProgress(step, min(step / self.steps, 1.0))

    def finished(self, step: int) -> bool:
        return not self.gate()


class GolfModel:
    """Answers the call's questions about golf's training with #586's recipe."""

    def __init__(self, settings: Settings) -> None:
        self.settings, self.config = settings, settings.hadamard
        began = time.monotonic()
        self.trainer = RecordingTrainer(self.config, VOCABULARY, 0, Ranks(0, 1, settings.device))
        start = {name: tensor.clone() for name, tensor in self.trainer.state().items()}
        for step in range(WARM_UP_STEPS):
            batch = training.synthetic(self.trainer, self.config.train.batch_tokens, step)
            self.trainer.update(batch, TrainingProgress(step, 0.0))
        work.synchronise(settings.device)
        self.trainer.restore(start)
        self.seconds = time.monotonic() - began

    def ready(self) -> Found:
        """The seconds until the training graph was compiled and warm."""
        parameters = sum(p.numel() for p in self.trainer.parameters.values())
        kernel = self.trainer.kernel
        flops = work.flops_per_token(self.trainer.model, self.trainer.plan, self.config.train.seq_len)
        return Found(
            f"ready after {self.seconds:.1f} s, {parameters:,} parameters, attention {kernel.name} "
            f"({kernel.why})",
            {"seconds": self.seconds, "parameters": parameters, "flops_per_token": flops},
        )

    @torch.no_grad()
    def load_weights(self, file: Path) -> None:
        """Train from these weights on: every parameter of golf must be there, with its shape."""
        with np.load(file, allow_pickle=False) as arrays:
            weights = {name: torch.from_numpy(arrays[name]) for name in arrays.files}
        self.trainer.model.load_state_dict(weights)
        if self.trainer.ema:
            for name, average in self.trainer.ema.state().items():
                average.copy_(weights[name])

    def race(self, gate: Gate, expected_steps: int) -> None:
        """Train whenever the gate says so, on the dataset, under the schedule of `expected_steps`."""
        paths = sorted(self.settings.data.glob("train_*.bin"))
        train = self.config.train
        self.batches = loader.LOADERS[train.loader](
            open_shards(paths), VOCABULARY, self.trainer.logical, train.seq_len
        )
        self.trainer.record = gate.record
        self.train(RaceClock(expected_steps, gate), self.config.hardware.prefetch)

    def train(self, clock: StepClock, ahead: bool) -> None:
        """Train by a judged run's own loop, which queues a step ahead or waits for each."""
        ours, theirs = socket.socketpair()
        with ours, theirs:  # nobody reads its few lines of progress
            stage.loop(self.trainer, self.batches, clock, Wire(ours), int(ahead))
        work.synchronise(self.settings.device)

    def steps(self) -> Found:
        """Training steps without an opponent."""
        return training.steps(self.trainer, self.config.train.batch_tokens, self.settings.steps)

    def peak_bytes(self) -> int:
        """Most GPU memory in use so far."""
        return card.peak_bytes(self.settings.device)

    def sliding(self, windows: int) -> Found:
        """The sliding evaluation of validation text with the weights of this process."""
        device = self.settings.device
        model = make_model(self.config, VOCABULARY, device)
        model.load_state_dict(self.trainer.model.state_dict())
        ((_, tokens),) = open_shards(sorted(self.settings.data.glob("val_*.bin"))[:1])
        return sliding(model, self.config, tokens, windows, device)

    def compiled_against_plain(self) -> Found:
        """The training graph beside the plain model."""
        return training.compiled_against_plain(self.trainer, self.settings.rows)

    def profile(self, folder: Path) -> Found:
        """The profile of two steps."""
        return profile_steps(self.trainer, self.config.train.batch_tokens, folder)

    def kernel_times(self) -> Found:
        """Attention kernels and matrix products alone, at the size of a training pass."""
        device, rows, length = self.settings.device, self.settings.rows, self.config.train.seq_len
        found = attention.times(self.config.model, rows, length, device, self.trainer.model.dtype)
        attention.allow(self.trainer.kernel.name, device)
        model = self.trainer.model
        rate = work.matrix_rate(model, self.trainer.plan, model.dtype, device, rows * length)
        seen = f"{found.seen}; products alone {card.share_of_peak(device, rate.flops_per_second)}"
        return Found(seen, {"attention": found.numbers, "products_flops_per_second": rate.flops_per_second})

    def prefetch(self) -> Found:
        """`hardware.prefetch`: seconds a step of the training loop that waits, and that queues a step."""
        seconds: dict[bool, list[float]] = {False: [], True: []}
        self.trainer.record = lambda loss: None
        steps = max(2, self.settings.steps // 2)
        for ahead in (False, True, True, False):
            began = time.perf_counter()
            self.train(StepClock(steps), ahead)
            seconds[ahead].append((time.perf_counter() - began) / steps)
        ratio = training.ratio(seconds[False], seconds[True])
        return Found(f"waiting for each step against queueing a step ahead: {ratio}", ratio._asdict())

    def _against(self, config: Config) -> training.Ratio:
        """Steps of a trainer with this recipe against steps of this process's own, in turns."""
        other = training.make_trainer(config, VOCABULARY, self.settings.device)
        tokens = self.config.train.batch_tokens
        return training.ratio(*training.step_seconds([other, self.trainer], tokens, self.settings.steps // 2))

    def graph_switches(self, within: float) -> Found:
        """Each setting that changes the graph against the recipe's.

        A setting is timed if the seconds still hold one that takes MARGIN times as long as the longest so
        far; the others are named. What is found is printed at once, because an answer that comes too late is
        lost.
        """
        in_use: dict[str, Any] = {"attention": self.trainer.kernel.name}
        hardware = replace(self.config.hardware, **in_use)
        variants = switches.of_graph(replace(self.config, hardware=hardware))
        end, longest, seen, numbers = time.monotonic() + within, 0.0, list[str](), {}
        for label, config in variants:
            began = time.monotonic()
            if began + MARGIN * longest > end:
                seen.append(f"{label}: no time left, not measured")
                continue
            try:
                ratio = self._against(config)
                seen.append(f"{label}: {ratio}")
                numbers[label] = ratio._asdict()
            except Exception as error:
                seen.append(f"{label}: {type(error).__name__}: {(str(error).splitlines() or [''])[0][:100]}")
            longest = max(longest, time.monotonic() - began)
            print(seen[-1], flush=True)
        if not numbers:
            raise Failed("; ".join(seen))
        return Found("; ".join(seen), numbers)


def serve(requests: Requests, settings: Settings, expected_steps: int) -> None:
    """The work of golf's process: the race whenever it is asked for, and everything else before and after."""
    settings.limit_threads()
    model = GolfModel(settings)
    model.race(Gate(requests, model, partial(work.synchronise, settings.device)), expected_steps)
    requests.serve_all(model)
