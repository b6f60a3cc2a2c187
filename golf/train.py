"""Stage train: build, warm up on made-up tokens, then learn from the judge's shards until the clock ends; save.

`ready` is sent once the model is built and every kernel has run; the warm-up's effect is undone by filling in the
initial values again. The clock is wall time, counted from the arrival of the `train` frame, less a reserve for what
has to happen between the last step and `trained`, measured beforehand; or a number of steps (`train.steps`), for runs
that must repeat exactly.

Leaves <out>/checkpoint/weights.arrays (golf/arrays.py: float32, averaged weights by name, header CHECKPOINT_KIND) and
<out>/config.resolved.yaml. Not covered: validation text, which does not exist here, and resuming.
"""

from __future__ import annotations

import os
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional

from golf import arrays, data, dist
from golf.config import Config, digest, resolved
from golf.dist import Ranks
from golf.model import kernels
from golf.model.gpt import GPT
from golf.model.init import initialise
from golf.optim.ema import Ema
from golf.optim.optimizer import Optimizer
from golf.optim.schedule import Moment, average_decay, warmdown
from golf.wire import Setup, Wire

CHECKPOINT_FILE = "weights.arrays"
CHECKPOINT_KIND = "golf-checkpoint-1"
SPARE_SECONDS = 0.3
"""Kept free besides twice the measured time of saving: the clock starts when the judge sends, and machines stutter."""
STEPS_REMEMBERED = 4


@dataclass
class StepClock:
    """A run of a fixed number of steps: repeats exactly."""

    steps: int

    def now(self, step: int) -> Moment:
        return Moment(step, step / self.steps)

    def over(self, step: int) -> bool:
        return step >= self.steps


@dataclass
class WallClock:
    """A run of so many seconds, from the clock's making; ends where another step would not fit."""

    seconds: float
    read: Callable[[], float] = time.monotonic
    begun: list[float] = field(default_factory=list)
    """When the last steps began, the newest last."""

    def __post_init__(self) -> None:
        self.start = self.read()

    def now(self, step: int) -> Moment:
        """Where the run stands; called once at the start of each step."""
        moment = self.read()
        self.begun = [*self.begun[-STEPS_REMEMBERED:], moment]
        return Moment(step, min((moment - self.start) / self.seconds, 1.0))

    def over(self, step: int) -> bool:
        moment = self.read()
        times = np.diff([*self.begun, moment])
        slowest = float(times.max()) if len(times) else 0.0
        return moment - self.start + slowest > self.seconds


Clock = StepClock | WallClock


class Trainer:
    """Model, optimizer and average of one process, and one step of them."""

    def __init__(self, config: Config, vocab_size: int, seed: int, ranks: Ranks) -> None:
        self.config, self.vocab_size, self.seed, self.ranks = config, vocab_size, seed, ranks
        dtype = dist.precision(config, ranks.device)
        self.kernel = kernels.choose(ranks.device, dtype)
        self.model = GPT(config.model, vocab_size, dtype=dtype, attention=self.kernel.name).to(ranks.device)
        compiled = ranks.device.type == "cuda"
        self.forward = torch.compile(self.model, dynamic=False) if compiled else self.model
        self.logical = data.logical_ranks(ranks.rank, ranks.world)
        self.reset()

    def reset(self) -> None:
        """Initial weights, empty optimizer states, empty average."""
        initialise(self.model, self.config.model, self.seed)
        self.optimizer = Optimizer(
            self.model.named_parameters(), self.config.optim,
            rank=self.ranks.rank, world=self.ranks.world, all_reduce=self.ranks.all_reduce,
        )  # fmt: skip
        averaging = self.config.optim.ema_decay > 0 or self.config.optim.ema_fraction > 0
        self.ema = Ema(self.model.named_parameters()) if averaging else None

    def step(self, batch: data.Batch, now: Moment) -> Tensor:
        """One update of everything; returns this process's mean loss in nats, on its device, still being computed."""
        loss = self.backward(batch)
        self.ranks.average([p.grad for p in self.model.parameters()])
        self.optimizer.step(now)
        if self.ema:
            self.ema.update(average_decay(now, self.config.optim.ema_decay, self.config.optim.ema_fraction))
        return loss

    def backward(self, batch: data.Batch) -> Tensor:
        """Gradients of the mean cross-entropy over the rows of this process, in as few passes as memory allows."""
        rows = len(batch.ids_BT)
        passes = -(-batch.ids_BT.numel() // self.config.hardware.micro_tokens)
        total = torch.zeros((), device=self.ranks.device)
        for ids_BT, targets_BT in zip(batch.ids_BT.chunk(passes), batch.targets_BT.chunk(passes), strict=True):
            logits_BTV = self.forward(ids_BT.to(self.ranks.device, non_blocking=True))
            targets = targets_BT.to(self.ranks.device, non_blocking=True)
            loss = functional.cross_entropy(logits_BTV.flatten(0, 1), targets.flatten()) * (len(ids_BT) / rows)
            loss.backward()
            total += loss.detach()
        return total

    def weights(self) -> dict[str, np.ndarray]:
        """What is saved: name -> float32 array, the average where there is one."""
        state = self.ema.state() if self.ema else dict(self.model.named_parameters())
        return {name: tensor.detach().float().cpu().numpy() for name, tensor in state.items()}


def save(folder: Path, trainer: Trainer, steps: int) -> None:
    """Write the checkpoint, atomically and complete."""
    header = {"kind": CHECKPOINT_KIND, "config_sha256": digest(trainer.config), "seed": trainer.seed,
              "vocab_size": trainer.vocab_size, "steps": steps}
    arrays.write(folder / CHECKPOINT_FILE, header, trainer.weights())


def warm_up(trainer: Trainer, folder: Path) -> float:
    """Run every kernel on made-up tokens, save once, undo all; returns the seconds that the end of a run will take."""
    train = trainer.config.train
    for step in range(train.warmup_steps):
        batch = data.made_up(step, trainer.logical, train.batch_tokens, train.seq_len, trainer.vocab_size)
        trainer.step(batch, Moment(step, step / train.warmup_steps)).item()
    began = time.monotonic()
    if trainer.ranks.rank == 0:
        folder.mkdir(exist_ok=True)
        save(folder, trainer, 0)
    seconds = time.monotonic() - began
    trainer.reset()
    return seconds


def receive_shards(wire: Wire, vocab_size: int) -> tuple[data.TokenStream, float]:
    """All `train` frames -> the stream and the seconds that the judge allows."""
    shards: list[tuple[str, np.ndarray]] = []
    while True:
        frame = wire.receive("train")
        for shard, descriptor in zip(frame.get("shards", list), frame.descriptors, strict=True):
            name, n_tokens = shard["name"], shard["tokens"]
            shards.append((name, data.map_shard(descriptor, name, n_tokens)))
            os.close(descriptor)
        if not frame.get("more", bool, default=False):
            return data.TokenStream(shards, vocab_size), frame.get("seconds", float)


def loop(trainer: Trainer, stream: data.TokenStream, clock: Clock, wire: Wire) -> int:
    """Steps until the clock is over; returns how many. Prints a line every `log_every` steps: it becomes train.log."""
    cfg, ranks = trainer.config, trainer.ranks
    began, step, loss = time.monotonic(), 0, None
    while not ranks.from_first(clock.over(step)):
        now = Moment(step, ranks.from_first(clock.now(step).fraction))
        batch = data.batch(stream, step, trainer.logical, cfg.train.batch_tokens, cfg.train.seq_len)
        earlier, loss = loss, trainer.step(batch, now)
        step += 1
        if earlier is not None:
            nats = earlier.item()  # also keeps the queue of a GPU to one step, so that the clock means something
            wire.progress(now.fraction, f"step {step}, loss {nats:.4f}")
        if step % cfg.train.log_every == 0 or step == 1:
            ranks.average([loss])
            seconds = time.monotonic() - began
            rate = warmdown(now, cfg.optim.warmdown, cfg.optim.warmdown_shape)
            ranks.say(f"step {step:6d}  loss {loss.item():.4f} nats  {seconds:7.2f} s  "
                      f"{step * cfg.train.batch_tokens / seconds:9.0f} tokens/s  lr x{rate:.3f}")  # fmt: skip
    return step


def run(wire: Wire, setup: Setup, config: Config, ranks: Ranks) -> None:
    """The stage, from `ready` to `trained`."""
    trainer = Trainer(config, setup.vocab_size, setup.seed, ranks)
    folder = setup.out / "checkpoint"
    n_parameters = sum(p.numel() for p in trainer.model.parameters())
    ranks.say(f"{n_parameters} parameters, {trainer.model.dtype}, {ranks.world} x {ranks.device}, "
              f"attention {trainer.kernel.name} ({trainer.kernel.why}), recipe {digest(config)[:12]}")  # fmt: skip
    if ranks.rank == 0:
        (setup.out / "config.resolved.yaml").write_text(resolved(config), encoding="utf-8")
    saving = warm_up(trainer, folder)
    wire.send("ready", attention=trainer.kernel.name, world=ranks.world)
    stream, seconds = receive_shards(wire, setup.vocab_size)
    reserve = 2 * saving + SPARE_SECONDS
    clock = StepClock(config.train.steps) if config.train.steps else WallClock(seconds - reserve)
    steps = loop(trainer, stream, clock, wire)
    if ranks.rank == 0:
        save(folder, trainer, steps)
        ranks.say(f"saved after {steps} steps; {reserve:.2f} s were kept for it")
    wire.send("trained", steps=steps, tokens=steps * config.train.batch_tokens)
