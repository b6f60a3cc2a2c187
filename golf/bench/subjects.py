"""The trained models that claims are tested on: each the full shape of a submission, trained for a number of
steps.

A subject is a submission's recipe for `record` with the few changes that let a small machine train it:
smaller batches of shorter rows, horizons as fractions of the run, and the statistics that the tests want.
Every subject sees the same batches in the same order. What is finished lies in a folder of its own as a
checkpoint (golf/training/checkpoint.py) and is not trained again; an interrupted training goes on from its
last saved state.

Not covered: bits per byte as the judge counts them, clocks and seeds: one training each, so that differences
between subjects hold for these trainings, and differences between ways to pack one subject for its weights.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, NamedTuple

import yaml
from torch import Tensor

from golf.bench import contestants
from golf.bench.contestants import SEED, BenchConfig
from golf.quant.stats import TensorStats
from golf.recipe.config import Config, load, parse, training_digest
from golf.runtime import dist
from golf.training import calibrate, checkpoint, loader as data
from golf.training.clocks import StepClock
from golf.training.trainer import Trainer

SUBMISSIONS = Path(__file__).parents[2] / "submissions"
SMALL = {
    "optim": {"muon_momentum_warmup": 0.2, "warmdown": 0.5, "ema_decay": 0.0, "ema_fraction": 0.05},
    "train": {"batch_tokens": 4096, "seq_len": 512},
    "hardware": {"micro_tokens": 4096},
}
"""What every subject has in place of the record's own."""
STEPS_BETWEEN_STATES = 50
MOST_BYTES = 1 << 33


class Subject(NamedTuple):
    """A name, the submission it comes from, the fields (section -> field -> value) that differ from SMALL,
    and how many times the bench's steps it is trained for."""

    name: str
    submission: str
    changes: dict[str, dict[str, Any]]
    times: int = 1

    def config(self) -> Config:
        """Its recipe."""
        tree = parse((SUBMISSIONS / self.submission / "config.yaml").read_text(encoding="utf-8"))
        tree.pop("profiles", None)
        for layer in (SMALL, self.changes):
            for section, fields in layer.items():
                tree[section] = {**tree.get(section, {}), **fields}
        return load(yaml.safe_dump(tree))


class Trained(NamedTuple):
    """A subject's recipe, and its weights and statistics by name, float32."""

    config: Config
    weights: dict[str, Tensor]
    stats: dict[str, TensorStats]


def _batches(loader: data.Loader, config: Config) -> Iterator[data.Batch]:
    while True:
        yield loader.batch(config.train.batch_tokens)


def train(
    subject: Subject, steps: int, bench_config: BenchConfig, folder: Path, say: Callable[[str], None]
) -> None:
    """Train a subject into its folder, from the last state that lies there."""
    config, state = subject.config(), folder / "state.arrays"
    trainer = Trainer(config, bench_config.vocab_size, SEED, dist.join())
    loader = data.LOADERS[config.train.loader](
        contestants.shards(bench_config.train), bench_config.vocab_size, trainer.logical, config.train.seq_len
    )
    folder.mkdir(parents=True, exist_ok=True)
    first = trainer.read(state) if state.exists() else 0
    for _ in range(first):
        loader.skip(config.train.batch_tokens)
    clock, began = StepClock(steps), time.monotonic()
    for step in range(first, steps):
        loss = trainer.step(loader.batch(config.train.batch_tokens), clock.now(step))
        if (step + 1) % 10 == 0:
            seconds = (time.monotonic() - began) / (step + 1 - first)
            say(
                f"{subject.name}: step {step + 1} of {steps}, loss {loss.item():.3f} nats, {seconds:.2f} s a "
                "step"
            )
        if (step + 1) % STEPS_BETWEEN_STATES == 0:
            trainer.write(state, step + 1)
    trainer.finish()
    stats = calibrate.measure(trainer, _batches(loader, config))
    # The weights last: they say that all is there
    checkpoint.write(folder, config, bench_config.vocab_size, SEED, steps, trainer.parameters, stats)
    state.unlink(missing_ok=True)


def trained(
    subject: Subject, steps: int, bench_config: BenchConfig, folder: Path, say: Callable[[str], None]
) -> Trained:
    """A subject after its training, which is done here unless it was before: recipe and steps name its
    folder."""
    config, steps = subject.config(), subject.times * steps
    own = folder / f"{subject.name}-{training_digest(config)[:12]}-{steps}"
    if not (own / checkpoint.WEIGHTS_FILE).exists():
        train(subject, steps, bench_config, own, say)
    weights = checkpoint.read_weights(own, config, bench_config.vocab_size, MOST_BYTES)
    return Trained(
        config, weights, checkpoint.read_statistics(own, config, bench_config.vocab_size, MOST_BYTES)
    )
