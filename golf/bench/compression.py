"""One trained model packed in one way: bytes, compression ratio, squared error, and its nats on a text.

The artifact is made and read back by golf/stages/pack.py as in a run, and scored by golf/bench/evaluation.py,
so that two ways to pack the same weights can be compared row by row of the text: `paired` gives the
difference with an interval that is much narrower than either score's. `portrait` says in numbers what the
weights of each matrix look like.

Not covered: what another training would give.
"""

from __future__ import annotations

import math
from dataclasses import replace
from typing import Any, NamedTuple

import numpy as np
import torch
from torch import Tensor

from golf.bench import evaluation
from golf.bench.evaluation import Text
from golf.bench.trained_models import MAX_BYTES, TrainedModel
from golf.quant import rotate
from golf.quant.clip import ClipMethod
from golf.quant.recipe import Recipe, encode
from golf.recipe.config import Config
from golf.stages import pack
from golf.storage import entropy

NORMAL_95 = 1.96
"""Half width of a 95 % interval in standard errors: rows are many."""


class CompressionResult(NamedTuple):
    """A packed model, and its weights read back."""

    n_bytes: int
    payload_bytes: int
    """Of codes at one byte and everything else at two: what the compressor gets."""
    squared_error: float
    """Of the matrices on the grid, as a share of their squared weights."""
    weights: dict[str, Tensor]

    @property
    def ratio(self) -> float:
        """Payload over artifact, as #586 counts it."""
        return self.payload_bytes / self.n_bytes


class Interval(NamedTuple):
    """A mean and the half width of its 95 % interval, in bits per byte."""

    mean: float
    half: float

    @property
    def low(self) -> float:
        """Lower end."""
        return self.mean - self.half

    @property
    def high(self) -> float:
        """Upper end."""
        return self.mean + self.half


def paired(difference_N: np.ndarray, text: Text) -> Interval:
    """Sum of differences of rows in nats -> bits per byte of the whole text, rows taken as independent."""
    unit = math.log(2) * int(text.bytes.sum())
    spread = float(difference_N.std(ddof=1)) * math.sqrt(len(difference_N))
    return Interval(float(difference_N.sum()) / unit, NORMAL_95 * spread / unit)


def measure_compression(model: TrainedModel, vocab_size: int, **quant: Any) -> CompressionResult:
    """Pack with these fields of `quant` in place of the subject's own, and read back."""
    config = replace(model.config, quant=replace(model.config.quant, **quant))
    data = pack.to_artifact(model.weights, model.stats, config, MAX_BYTES)
    weights = pack.from_artifact(data, config, vocab_size)
    shapes = {name: tuple(weight.shape) for name, weight in model.weights.items()}
    coded = [name for name, how in pack.recipes_of(config, shapes).items() if how.bits is not None]
    n_coded = sum(model.weights[name].numel() for name in coded)
    steps = sum(2 * len(model.weights[name]) for name in coded)
    payload = 2 * sum(weight.numel() for weight in weights.values()) - n_coded + steps
    moved = sum(_square(weights[name] - model.weights[name]) for name in coded)
    size = sum(_square(model.weights[name]) for name in coded)
    return CompressionResult(len(data), payload, moved / size if size else 0.0, weights)


def nats(weights: dict[str, Tensor], config: Config, vocab_size: int, text: Text) -> np.ndarray:
    """nats_N of each row of the text."""
    return evaluation.row_nats(
        {name: weight.numpy() for name, weight in weights.items()}, config, vocab_size, text
    )


def _square(weight: Tensor) -> float:
    return float(weight.double().square().sum())


def _kurtosis(weight_RC: Tensor) -> float:
    """Mean fourth power over squared mean square of deviations, 3 for a normal distribution."""
    away = weight_RC.double() - weight_RC.double().mean()
    return float(away.pow(4).mean() / away.square().mean().square().clamp(min=1e-300))


def describe_tensor(model: TrainedModel) -> dict[str, dict[str, Any]]:
    """Of each matrix on the grid, by name: size, standard deviation, kurtosis and reach as trained and
    rotated, the share of rows that lies under the floor, and bits a number at 6 bits with and without floor
    and rotation (Shannon)."""
    found: dict[str, dict[str, Any]] = {}
    shapes = {name: tuple(weight.shape) for name, weight in model.weights.items()}
    for name, how in pack.recipes_of(model.config, shapes).items():
        if how.bits is None:
            continue
        weight_RC = model.weights[name]
        turned_RC, std = rotate.rotate(weight_RC), float(weight_RC.std())
        found[name] = {
            "rows": shapes[name][0],
            "columns": shapes[name][1],
            "std": std,
            "kurtosis": _kurtosis(weight_RC),
            "kurtosis_rotated": _kurtosis(turned_RC),
            "reach_in_std": float(weight_RC.abs().amax(dim=1).mean()) / std,
            "reach_in_std_rotated": float(turned_RC.abs().amax(dim=1).mean()) / std,
            "rows_under_floor": float((weight_RC.abs().amax(dim=1) < 1).float().mean()),
            "bits_a_number": {
                label: _bits(name, weight_RC, turned, floor)
                for label, turned, floor in (
                    ("plain", False, False),
                    ("rotated", True, False),
                    ("floor", False, True),
                    ("both", True, True),
                )
            },
        }
    return found


@torch.no_grad()
def _bits(name: str, weight_RC: Tensor, turned: bool, floor: bool) -> float:
    stored = encode(name, weight_RC, Recipe(6, ClipMethod(floor=floor), rotate=turned))
    return 8 * entropy.shannon_bytes(stored.values.numpy()) / weight_RC.numel()
