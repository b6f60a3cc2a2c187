"""Stage train: build, warm up on made-up tokens, then learn from the judge's shards until the clock ends;
save.

`ready` is sent once the model is built and every kernel of every phase has run; then the state before the
warm-up is put back. The clock is wall time, counted from the arrival of the `train` frame, less a reserve for
what has to happen between the last step and `trained`, measured beforehand: the statistics that the recipe
asks for, and saving. Or it is a number of steps, for runs that must repeat exactly: `train.steps` of the
recipe, or `steps` of the frame, which counts for more.

Leaves <out>/checkpoint (golf/training/checkpoint.py) and <out>/config.resolved.yaml. Not covered: validation
text, which does not exist here, and resuming, which golf/training/trainer.py can do and no judge asks for.
"""

from __future__ import annotations

import os
import time
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

import numpy as np

from golf.optim.schedule import TrainingProgress, warmdown
from golf.recipe.config import Config, resolved, training_digest
from golf.runtime.dist import Ranks
from golf.runtime.wire import Setup, Wire, WireError
from golf.training import calibrate, checkpoint, loader as data, phases
from golf.training.calibrate import Statistics
from golf.training.clocks import Clock, StepClock, WallClock
from golf.training.phases import Phase
from golf.training.trainer import Trainer

SPARE_SECONDS = 0.3
"""Kept free besides what was measured: the clock starts when the judge sends, and machines stutter."""
MARGIN_SAVING = 2.0
MARGIN_MEASURING = 1.5


class Reserve(NamedTuple):
    """Seconds that the end of a run took in the warm-up."""

    measuring: float
    saving: float

    @property
    def seconds(self) -> float:
        """What is kept free of training."""
        return MARGIN_MEASURING * self.measuring + MARGIN_SAVING * self.saving + SPARE_SECONDS


class Work(NamedTuple):
    """What the judge's `train` frames bring."""

    shards: list[tuple[str, np.ndarray]]
    seconds: float
    steps: int
    """0: the clock decides."""


def save(folder: Path, trainer: Trainer, steps: int, stats: Statistics) -> None:
    """Write the checkpoint, on rank 0 alone."""
    if trainer.ranks.rank == 0:
        folder.mkdir(exist_ok=True)
        checkpoint.write(
            folder, trainer.config, trainer.vocab_size, trainer.seed, steps, trainer.parameters, stats
        )


def warm_up(trainer: Trainer, folder: Path) -> Reserve:
    """Run every kernel of every phase on made-up tokens, measure and save once, and put everything back."""
    config, train = trainer.config, trainer.config.train
    before = {name: tensor.detach().clone() for name, tensor in trainer.state().items()}

    def made_up(step: int, batch_tokens: int) -> data.Batch:
        return data.synthetic(step, trainer.logical, batch_tokens, train.seq_len, trainer.vocab_size)

    for phase in phases.every(config):
        trainer.enter(phase)
        for step in range(train.warmup_steps):
            trainer.update(
                made_up(step, train.batch_tokens), TrainingProgress(step, step / train.warmup_steps)
            ).item()
    trainer.finish()
    stats, measuring = calibrate.rehearse(trainer, made_up(0, config.calibration_tokens))
    began = time.monotonic()
    save(folder, trainer, 0, stats)
    saving = time.monotonic() - began
    trainer.restore(before)
    return Reserve(measuring, saving)


def receive_work(wire: Wire) -> Work:
    """All `train` frames; the last one's seconds and steps count."""
    shards: list[tuple[str, np.ndarray]] = []
    while True:
        frame = wire.receive("train")
        for shard, descriptor in zip(frame.get("shards", list), frame.descriptors, strict=True):
            name, n_tokens = shard["name"], shard["tokens"]
            shards.append((name, data.map_shard(descriptor, name, n_tokens)))
            os.close(descriptor)
        if not frame.get("more", bool, default=False):
            steps = frame.get("steps", int) if "steps" in frame.fields else 0
            if "steps" in frame.fields and steps < 1:
                raise WireError(f"frame train: steps should be positive, not {steps}")
            return Work(shards, frame.get("seconds", float), steps)


def loop(trainer: Trainer, loader: data.Loader, clock: Clock, wire: Wire) -> int:
    """Steps until the clock is over; returns how many. Prints a line for each phase and every `log_every`
    steps: they become train.log."""
    cfg, ranks = trainer.config, trainer.ranks
    began, step, loss = time.monotonic(), 0, None
    phase: Phase | None = None
    while not ranks.broadcast(clock.over(step)):
        now = TrainingProgress(step, ranks.broadcast(clock.now(step).fraction))
        earlier, loss = loss, trainer.step(loader.batch(cfg.train.batch_tokens), now)
        if trainer.phase != phase:
            phase = trainer.phase
            ranks.log(f"step {step + 1:6d}  from here on: {phase} (at {now.fraction:.4f} of the run)")
        step += 1
        if earlier is not None:
            nats = (
                earlier.item()
            )  # also keeps the queue of a GPU to one step, so that the clock means something
            wire.progress(now.fraction, f"step {step}, loss {nats:.4f}")
        if step % cfg.train.log_every == 0 or step == 1:
            ranks.average([loss])
            seconds = time.monotonic() - began
            rate = warmdown(now, cfg.optim.warmdown, cfg.optim.warmdown_shape)
            ranks.log(
                f"step {step:6d}  loss {loss.item():.4f} nats  {seconds:7.2f} s  "
                f"{step * cfg.train.batch_tokens / seconds:9.0f} tokens/s  lr x{rate:.3f}"
            )
    return step


def calibration(loader: data.Loader, config: Config) -> Iterator[data.Batch]:
    """New batches from where training stopped reading, without end."""
    while True:
        yield loader.batch(config.calibration_tokens)


def run(wire: Wire, setup: Setup, config: Config, ranks: Ranks) -> None:
    """The stage, from `ready` to `trained`."""
    trainer = Trainer(config, setup.vocab_size, setup.seed, ranks)
    folder = setup.out / "checkpoint"
    n_parameters = sum(p.numel() for p in trainer.model.parameters())
    ranks.log(
        f"{n_parameters} parameters, {trainer.model.dtype}, {ranks.world} x {ranks.device}, attention "
        f"{trainer.kernel.name} ({trainer.kernel.why}), recipe "
        f"{training_digest(config)[:12]}"
    )
    if ranks.rank == 0:
        (setup.out / "config.resolved.yaml").write_text(resolved(config), encoding="utf-8")
    reserve = warm_up(trainer, folder)
    wire.send("ready", attention=trainer.kernel.name, world=ranks.world)
    work = receive_work(wire)
    steps = work.steps or config.train.steps
    clock = StepClock(steps) if steps else WallClock(work.seconds - reserve.seconds)
    loader = data.LOADERS[config.train.loader](
        work.shards, setup.vocab_size, trainer.logical, config.train.seq_len
    )
    done = loop(trainer, loader, clock, wire)
    began = time.monotonic()
    trainer.finish()
    stats = calibrate.measure(trainer, calibration(loader, config))
    measured = time.monotonic()
    save(folder, trainer, done, stats)
    ranks.log(
        f"statistics of {len(stats)} tensors took {measured - began:.2f} s ({reserve.measuring:.2f} s "
        "in the "
        f"warm-up), saving after {done} steps {time.monotonic() - measured:.2f} s "
        f"({reserve.saving:.2f} s); "
        f"{reserve.seconds:.2f} s were kept for both"
    )
    wire.send("trained", steps=done, tokens=done * config.train.batch_tokens)
