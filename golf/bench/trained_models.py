"""Train the models that claims are tested on: a submission's full shape, for a few hundred steps.

A `ModelSpec` is a submission's recipe for `record` with the changes that let a small machine train it:
smaller batches of shorter rows, horizons as fractions of the run, and the statistics that the tests need. All
models see the same batches in the same order. A finished model is kept in its own folder as a checkpoint
(golf/training/checkpoint.py) and not trained again; an interrupted training continues from its last saved
state.

Each model is trained once, with one seed: a difference between two models holds for these two trainings, and
a difference between ways to pack one model holds for its weights.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any, NamedTuple

import yaml
from torch import Tensor

from golf.bench import contestants, resume
from golf.bench.contestants import SEED, BenchConfig
from golf.quant.stats import TensorStats
from golf.recipe.config import Config, load, parse, training_digest
from golf.runtime import dist
from golf.training import calibrate, checkpoint, loader as data
from golf.training.checkpoint import Training
from golf.training.clocks import StepClock
from golf.training.trainer import Trainer

SUBMISSIONS = Path(__file__).parents[2] / "submissions"
SMALL: dict[str, dict[str, Any]] = {
    "optim": {"muon_momentum_warmup": 0.2, "warmdown": 0.5, "ema_decay": 0.0, "ema_fraction": 0.05},
    "train": {"batch_tokens": 4096, "seq_len": 512},
    "hardware": {"micro_tokens": 4096},
}
"""What every model has instead of the record's settings."""
STEPS_BETWEEN_STATES = 50
MAX_BYTES = 1 << 33


class ModelSpec(NamedTuple):
    """Which model to train, and for how long."""

    name: str
    submission: str
    changes: Mapping[str, Mapping[str, Any]]
    """section -> field -> value, on top of SMALL."""
    times: int = 1
    """Its number of steps as a multiple of the benchmark's."""

    def config(self) -> Config:
        """The model's recipe."""
        tree = parse((SUBMISSIONS / self.submission / "config.yaml").read_text(encoding="utf-8"))
        tree.pop("profiles", None)
        for layer in (SMALL, self.changes):
            for section, fields in layer.items():
                tree[section] = {**tree.get(section, {}), **fields}
        return load(yaml.safe_dump(tree))


class TrainedModel(NamedTuple):
    """A recipe, and the trained weights and statistics by name, float32."""

    config: Config
    weights: dict[str, Tensor]
    stats: dict[str, TensorStats]


def _batches(loader: data.Loader, config: Config) -> Iterator[data.Batch]:
    while True:
        yield loader.batch(config.train.batch_tokens)


def train(
    spec: ModelSpec, steps: int, bench_config: BenchConfig, folder: Path, log: Callable[[str], None]
) -> None:
    """Train a model into its folder, continuing from a saved state if there is one."""
    config, state = spec.config(), folder / "state.arrays"
    trainer = Trainer(config, bench_config.vocab_size, SEED, dist.join())
    loader = data.LOADERS[config.train.loader](
        contestants.open_shards(bench_config.train),
        bench_config.vocab_size,
        trainer.logical,
        config.train.seq_len,
    )
    folder.mkdir(parents=True, exist_ok=True)
    first = resume.load(trainer, state) if state.exists() else 0
    for _ in range(first):
        loader.batch(config.train.batch_tokens)  # read again, to be at the same place
    clock, began = StepClock(steps), time.monotonic()
    for step in range(first, steps):
        loss = trainer.step(loader.batch(config.train.batch_tokens), clock.progress(step))
        if (step + 1) % 10 == 0:
            seconds = (time.monotonic() - began) / (step + 1 - first)
            log(
                f"{spec.name}: step {step + 1} of {steps}, loss {loss.item():.3f} nats, {seconds:.2f} s a "
                "step"
            )
        if (step + 1) % STEPS_BETWEEN_STATES == 0:
            resume.save(trainer, state, step + 1)
    trainer.finish()
    stats = calibrate.measure(trainer, _batches(loader, config))
    training = Training(config, bench_config.vocab_size, SEED, steps)
    checkpoint.write(folder, training, trainer.parameters, stats)
    state.unlink(missing_ok=True)


def train_or_read(
    spec: ModelSpec, steps: int, bench_config: BenchConfig, folder: Path, log: Callable[[str], None]
) -> TrainedModel:
    """The trained model; trains it unless the folder named after its recipe and steps already holds it."""
    config, steps = spec.config(), spec.times * steps
    own = folder / f"{spec.name}-{training_digest(config)[:12]}-{steps}"
    if not (own / checkpoint.WEIGHTS_FILE).exists():
        train(spec, steps, bench_config, own, log)
    weights = checkpoint.read_weights(own, config, bench_config.vocab_size, MAX_BYTES)
    return TrainedModel(
        config, weights, checkpoint.read_statistics(own, config, bench_config.vocab_size, MAX_BYTES)
    )
