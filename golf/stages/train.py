"""Stage train: build the model, warm up on synthetic tokens, train on the judge's shards, save a checkpoint.

`ready` is sent once the model is built and every kernel of every phase has run; then the state from before
the warm-up is restored. Training ends by the clock or after a number of steps. The clock is wall time from
the arrival of the `train` frame, minus a reserve for what happens between the last step and `trained` (the
recipe's statistics, and saving), which the warm-up measures. A number of steps makes a run repeatable:
`train.steps` of the recipe, or `steps` of the frame, which takes precedence.

Writes <out>/checkpoint (golf/training/checkpoint.py) and <out>/config.resolved.yaml. This stage has no access
to validation text.
"""

from __future__ import annotations

import math
import os
import time
from collections import deque
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

import numpy as np
from torch import Tensor

from golf.optim.schedule import TrainingProgress, learning_rate
from golf.recipe.config import Config, resolved, training_digest
from golf.runtime import compilation
from golf.runtime.dist import Ranks
from golf.runtime.errors import StageError
from golf.runtime.wire import Setup, Wire, WireError
from golf.training import calibrate, checkpoint, loader as data, phases
from golf.training.calibrate import Statistics
from golf.training.checkpoint import Training
from golf.training.clocks import Clock, StepClock, WallClock
from golf.training.losses import PendingLoss
from golf.training.phases import Phase
from golf.training.trainer import Trainer

SPARE_SECONDS = 0.3
"""Reserved on top of what was measured: the judge's clock starts earlier, and machines pause."""
MARGIN_SAVING = 2.0


class Reserve(NamedTuple):
    """Seconds that the end of the run needs by the warm-up: the statistics with their margin, and saving."""

    measuring: float
    saving: float

    @property
    def seconds(self) -> float:
        """How long before the limit training ends."""
        return self.measuring + MARGIN_SAVING * self.saving + SPARE_SECONDS


class TrainRequest(NamedTuple):
    """The content of the judge's `train` frames."""

    arrived: float
    """When the first of them arrived, by time.monotonic: the judge's clock starts as it sends that one."""

    shards: list[tuple[str, np.ndarray]]
    seconds: float
    steps: int
    """0: train until the clock ends."""


def save(folder: Path, trainer: Trainer, steps: int, stats: Statistics) -> None:
    """Write the checkpoint, on rank 0 only."""
    if trainer.ranks.rank == 0:
        folder.mkdir(exist_ok=True)
        training = Training(trainer.config, trainer.vocab_size, trainer.seed, steps)
        checkpoint.write(folder, training, trainer.parameters, stats)


def warm_up(trainer: Trainer, folder: Path) -> Reserve:
    """Run every phase, the statistics and saving once on synthetic tokens, then restore the initial state."""
    config, train = trainer.config, trainer.config.train
    steps = max(train.warmup_steps, int(compilation.wanted(trainer.ranks.device)))
    before = {name: tensor.detach().clone() for name, tensor in trainer.state().items()}

    def synthetic(step: int, batch_tokens: int) -> data.Batch:
        return data.synthetic(step, trainer.logical, batch_tokens, train.seq_len, trainer.vocab_size)

    for phase in phases.possible(config):
        trainer.enter(phase)
        for step in range(steps):
            trainer.update(synthetic(step, train.batch_tokens), TrainingProgress(step, step / steps)).item()
    trainer.finish()
    stats, measuring = calibrate.warm_up(trainer, synthetic(0, config.calibration_tokens))
    began = time.monotonic()
    save(folder, trainer, 0, stats)
    saving = time.monotonic() - began
    trainer.restore(before)
    return Reserve(measuring, saving)


def receive_request(wire: Wire) -> TrainRequest:
    """Receive all `train` frames; seconds and steps are taken from the last one."""
    shards: list[tuple[str, np.ndarray]] = []
    arrived = 0.0
    while True:
        frame = wire.receive("train")
        arrived = arrived or time.monotonic()
        for shard, descriptor in zip(frame.get("shards", list), frame.descriptors, strict=True):
            name, n_tokens = shard["name"], shard["tokens"]
            shards.append((name, data.map_shard(descriptor, name, n_tokens)))
            os.close(descriptor)
        if not frame.get("more", bool, default=False):
            steps = frame.get("steps", int) if "steps" in frame.fields else 0
            if "steps" in frame.fields and steps < 1:
                raise WireError(f"frame train: steps should be positive, not {steps}")
            return TrainRequest(arrived, shards, frame.get("seconds", float), steps)


def next_step(clock: Clock, step: int, wire: Wire) -> TrainingProgress | None:
    """The progress before a step, or None if all are done: by rank 0's clock, on all ranks.

    The ranks tell each other over sockets, because a message by way of a GPU would wait for its queue.
    """
    finished = clock.finished(step)
    fraction = 1.0 if finished else clock.progress(step).fraction
    decision = wire.from_first("clock", finished=finished, fraction=fraction)
    return None if decision.get("finished", bool) else TrainingProgress(step, decision.get("fraction", float))


class Launched(NamedTuple):
    """A step that the device may still be computing."""

    step: int
    """Its number, from 1."""
    progress: TrainingProgress
    loss: PendingLoss


def loop(trainer: Trainer, loader: data.Loader, clock: Clock, wire: Wire, ahead: int = 0) -> int:
    """Train until the clock ends; returns the number of steps. Logs phases, and every `log_every` steps.

    A step is launched while up to `ahead` earlier ones still run on the device; the first one is waited for,
    because it tells the clock how long a step takes. Raises StageError if a loss is not finite, which is
    noticed up to `ahead` steps later.
    """
    train, ranks = trainer.config.train, trainer.ranks
    began, step = time.monotonic(), 0
    running: deque[Launched] = deque()
    loss: Tensor | None = None
    phase: Phase | None = None

    def wait(most: int) -> None:
        while len(running) > most:
            done = running.popleft()
            nats = done.loss.nats()
            check_loss(done.step, nats)
            wire.progress(done.progress.fraction, f"step {done.step}, loss {nats:.4f}")
            if logged(done.step, train.log_every):
                seconds = time.monotonic() - began
                ranks.log(
                    f"step {done.step:6d}  loss {nats:.4f} nats  {seconds:7.2f} s  "
                    f"{done.step * train.batch_tokens / seconds:9.0f} tokens/s  "
                    f"lr x{learning_rate(done.progress, trainer.config.optim):.3f}"
                )

    while (progress := next_step(clock, step, wire)) is not None:
        loss = trainer.step(loader.batch(train.batch_tokens), progress)
        step += 1
        if trainer.phase != phase:
            phase = trainer.phase
            ranks.log(f"step {step:6d}  from here on: {phase} (at {progress.fraction:.4f} of the run)")
        if logged(step, train.log_every):
            ranks.average([loss])
        running.append(Launched(step, progress, PendingLoss(loss)))
        wait(ahead if step > 1 else 0)
    wait(0)
    if loss is not None:
        ranks.average([loss])  # so that no rank goes on if the loss of another one is not finite
        check_loss(step, loss.item())
    return step


def logged(step: int, every: int) -> bool:
    """Whether the training log has a line about a step."""
    return step % every == 0 or step == 1


def check_loss(step: int, nats: float) -> None:
    """Raise StageError if the loss of a step is infinite or no number: nothing is learned from then on."""
    if not math.isfinite(nats):
        raise StageError(
            f"step {step}: the loss is {nats}; lower the learning rates optim.muon_lr, optim.embed_lr and "
            "optim.scalar_lr, or limit the gradient by optim.clip"
        )


def calibration_batches(loader: data.Loader, config: Config) -> Iterator[data.Batch]:
    """Endless new batches, from where training stopped reading."""
    while True:
        yield loader.batch(config.calibration_tokens)


def run(wire: Wire, setup: Setup, config: Config, ranks: Ranks) -> None:
    """Run the stage, from `ready` to `trained`."""
    trainer = Trainer(config, setup.vocab_size, setup.seed, ranks)
    folder = setup.out / "checkpoint"
    n_parameters = sum(p.numel() for p in trainer.model.parameters())
    ranks.log(
        f"{n_parameters} parameters, {trainer.model.dtype}, {ranks.world} x {ranks.device}, attention "
        f"{trainer.kernel.name} ({trainer.kernel.why}), recipe {training_digest(config)[:12]}"
    )
    if ranks.rank == 0:
        (setup.out / "config.resolved.yaml").write_text(resolved(config), encoding="utf-8")
    reserve = warm_up(trainer, folder)
    if compilation.wanted(ranks.device):
        compilation.refuse_from_now_on()
    wire.send("ready", attention=trainer.kernel.name, world=ranks.world)
    request = receive_request(wire)
    steps = request.steps or config.train.steps
    ahead = int(config.hardware.prefetch and ranks.device.type == "cuda")
    clock = (
        StepClock(steps) if steps else WallClock(request.seconds - reserve.seconds, request.arrived, ahead)
    )
    loader = data.LOADERS[config.train.loader](
        request.shards, setup.vocab_size, trainer.logical, config.train.seq_len
    )
    done = loop(trainer, loader, clock, wire, ahead)
    began = time.monotonic()
    trainer.finish()
    stats = calibrate.measure(trainer, calibration_batches(loader, config))
    measured = time.monotonic()
    save(folder, trainer, done, stats)
    ranks.log(
        f"statistics of {len(stats)} tensors took {measured - began:.2f} s (at most {reserve.measuring:.2f} "
        f"s by the warm-up), saving after {done} steps {time.monotonic() - measured:.2f} s "
        f"({reserve.saving:.2f} s); {reserve.seconds:.2f} s were kept for both"
    )
    wire.send("trained", steps=done, tokens=done * config.train.batch_tokens)
