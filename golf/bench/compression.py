"""Pack a trained model in one way, and measure bytes, compression ratio, squared error, and nats on a text.

golf/stages/pack.py makes the artifact and reads it back, as in a run; golf/bench/evaluation.py scores it. So
two ways to pack the same weights can be compared row by row of the text: `paired` gives the difference with
an interval that is much narrower than that of either score. `describe_tensor` describes each matrix's weights
in numbers. All results hold for one training.
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
"""Half width of a 95 % interval in standard errors; there are enough rows for the normal approximation."""


class CompressionResult(NamedTuple):
    """The size of a packed model, and the weights read back from it."""

    n_bytes: int
    payload_bytes: int
    """What the compressor gets: codes at one byte, everything else at two."""
    squared_error: float
    """Of the quantised matrices, as a fraction of their squared weights."""
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
    """Differences of rows in nats -> bits per byte of the whole text; treats rows as independent."""
    unit = math.log(2) * int(text.bytes.sum())
    spread = float(difference_N.std(ddof=1)) * math.sqrt(len(difference_N))
    return Interval(float(difference_N.sum()) / unit, NORMAL_95 * spread / unit)


def measure_compression(model: TrainedModel, vocab_size: int, **quant: Any) -> CompressionResult:
    """Pack with these fields of `quant` in place of the model's own, and read back."""
    config = replace(model.config, quant=replace(model.config.quant, **quant))
    data = pack.to_artifact(model.weights, model.stats, config, MAX_BYTES)
    weights = pack.from_artifact(data, config, vocab_size)
    shapes = {name: tuple(weight.shape) for name, weight in model.weights.items()}
    coded = [name for name, how in pack.recipes_of(config, shapes).items() if how.bits is not None]
    n_coded = sum(model.weights[name].numel() for name in coded)
    steps = sum(2 * len(model.weights[name]) for name in coded)
    payload = 2 * sum(weight.numel() for weight in weights.values()) - n_coded + steps
    error = sum(_square(weights[name] - model.weights[name]) for name in coded)
    size = sum(_square(model.weights[name]) for name in coded)
    return CompressionResult(len(data), payload, error / size if size else 0.0, weights)


def nats(weights: dict[str, Tensor], config: Config, vocab_size: int, text: Text) -> np.ndarray:
    """nats_N of each row of the text."""
    return evaluation.row_nats(
        {name: weight.numpy() for name, weight in weights.items()}, config, vocab_size, text
    )


def _square(weight: Tensor) -> float:
    return float(weight.double().square().sum())


def _kurtosis(weight_RC: Tensor) -> float:
    """Fourth central moment over the squared variance; 3 for a normal distribution."""
    away = weight_RC.double() - weight_RC.double().mean()
    return float(away.pow(4).mean() / away.square().mean().square().clamp(min=1e-300))


def describe_tensor(model: TrainedModel) -> dict[str, dict[str, Any]]:
    """Describe each quantised matrix, by name.

    Size, standard deviation, kurtosis and reach as trained and rotated, the fraction of rows under the floor,
    and the Shannon entropy in bits per number on a 6-bit grid, with and without floor and rotation.
    """
    found: dict[str, dict[str, Any]] = {}
    shapes = {name: tuple(weight.shape) for name, weight in model.weights.items()}
    for name, how in pack.recipes_of(model.config, shapes).items():
        if how.bits is None:
            continue
        weight_RC = model.weights[name]
        rotated_RC, std = rotate.rotate(weight_RC), float(weight_RC.std())
        found[name] = {
            "rows": shapes[name][0],
            "columns": shapes[name][1],
            "std": std,
            "kurtosis": _kurtosis(weight_RC),
            "kurtosis_rotated": _kurtosis(rotated_RC),
            "reach_in_std": float(weight_RC.abs().amax(dim=1).mean()) / std,
            "reach_in_std_rotated": float(rotated_RC.abs().amax(dim=1).mean()) / std,
            "rows_under_floor": float((weight_RC.abs().amax(dim=1) < 1).float().mean()),
            "bits_a_number": {
                label: _bits(name, weight_RC, rotated, floor)
                for label, rotated, floor in (
                    ("plain", False, False),
                    ("rotated", True, False),
                    ("floor", False, True),
                    ("both", True, True),
                )
            },
        }
    return found


@torch.no_grad()
def _bits(name: str, weight_RC: Tensor, rotated: bool, floor: bool) -> float:
    stored = encode(name, weight_RC, Recipe(6, ClipMethod(floor=floor), rotate=rotated))
    return 8 * entropy.shannon_bytes(stored.values.numpy()) / weight_RC.numel()
