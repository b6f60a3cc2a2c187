"""The folder that training writes for packing: weights, and statistics for the quantiser.

    weights.arrays      float32 tensors by name, the whole model: averaged if the recipe averages
    statistics.arrays   float32 arrays NAME:hessian, NAME:activation, NAME:fisher, NAME:row_score;
                        absent if the recipe measures nothing

Both are array files (golf/storage/arrays.py) whose header states their kind, seed, vocabulary, steps, and the
digest of the recipe's training sections (golf/recipe/config.py), so that recipes that differ only in later
sections can share a checkpoint.

Hessian and activation are measured for every weight that multiplies an input, Fisher and row score for every
matrix. Training does not know what the quantiser will need, so it stores small tensors too.

Reading is strict: exactly the arrays that the recipe's model and `stats` section call for, of the right type
and shape, or ValueError. It does not check that both files come from one run.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from golf.model.gpt import GPT
from golf.quant.stats import TensorStats
from golf.recipe.config import Config, training_digest
from golf.storage import arrays

WEIGHTS_FILE = "weights.arrays"
WEIGHTS_KIND = "golf-checkpoint-2"
STATISTICS_FILE = "statistics.arrays"
STATISTICS_KIND = "golf-statistics-1"
ENDINGS = {
    "hessian": "hessian_CC",
    "activation": "activation_C",
    "fisher": "fisher_RC",
    "row_score": "row_score_R",
}
"""Ending of an array's name -> field of TensorStats."""
Shapes = dict[str, tuple[int, ...]]


@dataclass(frozen=True)
class Training:
    """The training that a file comes from."""

    config: Config
    vocab_size: int
    seed: int
    steps: int

    def header(self, kind: str) -> dict[str, str | int]:
        """The header of an array file of this training."""
        return {
            "kind": kind,
            "recipe_sha256": training_digest(self.config),
            "seed": self.seed,
            "vocab_size": self.vocab_size,
            "steps": self.steps,
        }


def meta_model(config: Config, vocab_size: int) -> GPT:
    """The recipe's model with names and shapes but no numbers, hence without memory."""
    with torch.device("meta"):
        return GPT(config.model, vocab_size)


def shapes_of(config: Config, vocab_size: int) -> Shapes:
    """Name -> shape of every tensor of the recipe's model, without allocating one."""
    return {name: tuple(tensor.shape) for name, tensor in meta_model(config, vocab_size).state_dict().items()}


def statistics_of(config: Config, vocab_size: int) -> dict[str, Shapes]:
    """Name -> {ending -> shape} of everything that the recipe measures, in the model's order."""
    stats, multiplied = config.stats, meta_model(config, vocab_size).inputs()
    found: dict[str, Shapes] = {}
    for name, shape in shapes_of(config, vocab_size).items():
        if len(shape) != 2:
            continue
        rows, columns = shape
        shapes: Shapes = {}
        if stats.hessian_batches and name in multiplied:
            shapes |= {"hessian": (columns, columns), "activation": (columns,)}
        if stats.fisher_batches:
            shapes["fisher"] = shape
        if stats.row_score_every:
            shapes["row_score"] = (rows,)
        if shapes:
            found[name] = shapes
    return found


def write(
    folder: Path, training: Training, weights: Mapping[str, Tensor], stats: Mapping[str, TensorStats]
) -> None:
    """Write both files, each atomically: statistics if `stats` holds any, then the weights, whose file says
    that the checkpoint is whole.
    """
    numpy_weights = {name: _array(weight) for name, weight in weights.items()}
    measured = {
        f"{name}:{ending}": _array(tensor)
        for name, of_tensor in stats.items()
        for ending, field in ENDINGS.items()
        if (tensor := getattr(of_tensor, field)) is not None
    }
    if measured:
        arrays.write(folder / STATISTICS_FILE, training.header(STATISTICS_KIND), measured)
    arrays.write(folder / WEIGHTS_FILE, training.header(WEIGHTS_KIND), numpy_weights)


def _array(tensor: Tensor) -> np.ndarray:
    return tensor.detach().float().cpu().numpy()


def _read(
    path: Path, kind: str, config: Config, vocab_size: int, expected: Shapes, max_bytes: int
) -> dict[str, Tensor]:
    """Exactly the expected float32 arrays, in the expected order; ValueError for anything else."""
    header, content = arrays.read(path, max_bytes=max_bytes)
    if header.get("kind") != kind or set(header) != {"kind", "recipe_sha256", "seed", "vocab_size", "steps"}:
        raise ValueError(
            f"{path}: kind {header.get('kind')!r:.60} with {len(header)} facts, expected {kind!r} with 5"
        )
    if header["recipe_sha256"] != training_digest(config):
        raise ValueError(f"{path}: was trained with another recipe than {training_digest(config)[:12]}")
    if header["vocab_size"] != vocab_size:
        raise ValueError(f"{path}: vocabulary of {header['vocab_size']!r:.20}, expected {vocab_size}")
    if set(content) != set(expected):
        missing, extra = sorted(set(expected) - set(content))[:3], sorted(set(content) - set(expected))[:3]
        raise ValueError(
            f"{path}: tensors differ from the recipe's model; missing {missing}, unknown {extra}"
        )
    for name, shape in expected.items():
        if content[name].dtype != np.float32 or content[name].shape != shape:
            found = f"{content[name].dtype} {list(content[name].shape)}"
            raise ValueError(f"{path}: tensor {name} is {found}, expected float32 {list(shape)}")
        if not np.isfinite(content[name]).all():
            raise ValueError(f"{path}: tensor {name} holds a NaN or an infinity")
    return {name: torch.from_numpy(content[name].copy()) for name in expected}


def read_weights(folder: Path, config: Config, vocab_size: int, max_bytes: int) -> dict[str, Tensor]:
    """Float32 weights by name; ValueError unless they are exactly the recipe's model, and finite."""
    shapes = shapes_of(config, vocab_size)
    return _read(folder / WEIGHTS_FILE, WEIGHTS_KIND, config, vocab_size, shapes, max_bytes)


def read_statistics(folder: Path, config: Config, vocab_size: int, max_bytes: int) -> dict[str, TensorStats]:
    """Statistics by name of their weight, exactly those that the recipe measures, or ValueError.

    All numbers must be finite, and non-negative except off the diagonal of a Hessian. If the recipe measures
    nothing, the result is empty whatever the folder holds.
    """
    wanted, path = statistics_of(config, vocab_size), folder / STATISTICS_FILE
    if not wanted:
        return {}
    expected = {
        f"{name}:{ending}": shape for name, shapes in wanted.items() for ending, shape in shapes.items()
    }
    content = _read(path, STATISTICS_KIND, config, vocab_size, expected, max_bytes)
    for name, tensor in content.items():
        if bool(((tensor.diagonal() if name.endswith(":hessian") else tensor) < 0).any()):
            raise ValueError(f"{path}: {name} holds a negative number, which it cannot")
    return {
        name: TensorStats(**{ENDINGS[ending]: content[f"{name}:{ending}"] for ending in shapes})
        for name, shapes in wanted.items()
    }
