"""The folder that training leaves for packing: weights, and what was measured for the quantiser.

    weights.arrays      float32 tensors by name, the whole model: the average where the recipe has one
    statistics.arrays   float32 arrays NAME:hessian, NAME:activation, NAME:fisher, NAME:row_score; absent where the
                        recipe measures nothing

Both are array files (golf/storage/arrays.py) whose header holds their kind, the digest of what decides a
training (golf/recipe/config.py: recipes that differ in later sections only may share a checkpoint), seed,
vocabulary and steps.

Measured are: Hessian and activation of every weight that multiplies an input, Fisher and row score of every
matrix. What a quantiser needs of it is not known to training, so nothing is left out for being small.

Reading is strict: exactly the arrays that the recipe's model and its `stats` section ask for, of the right
type and shape, or ValueError. Not covered: that both files come from one run, and whether the weights are any
good."""

from __future__ import annotations

from collections.abc import Mapping
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


def _on_meta(config: Config, vocab_size: int) -> GPT:
    with torch.device("meta"):
        return GPT(config.model, vocab_size)


def shapes_of(config: Config, vocab_size: int) -> Shapes:
    """Name -> shape of every tensor of the recipe's model, without allocating one."""
    return {name: tuple(tensor.shape) for name, tensor in _on_meta(config, vocab_size).state_dict().items()}


def statistics_of(config: Config, vocab_size: int) -> dict[str, Shapes]:
    """Name -> {ending -> shape} of everything that the recipe measures, in the order of the model's
    tensors."""
    stats, multiplied = config.stats, _on_meta(config, vocab_size).inputs()
    found: dict[str, Shapes] = {}
    for name, shape in shapes_of(config, vocab_size).items():
        if len(shape) != 2:
            continue
        rows, columns = shape
        asked: Shapes = {}
        if stats.hessian_batches and name in multiplied:
            asked |= {"hessian": (columns, columns), "activation": (columns,)}
        if stats.fisher_batches:
            asked["fisher"] = shape
        if stats.row_score_every:
            asked["row_score"] = (rows,)
        if asked:
            found[name] = asked
    return found


def write(
    folder: Path,
    config: Config,
    vocab_size: int,
    seed: int,
    steps: int,
    weights: Mapping[str, Tensor],
    stats: Mapping[str, TensorStats],
) -> None:
    """Write both files, each atomically; the second only where `stats` holds something."""
    facts = {"recipe_sha256": training_digest(config), "seed": seed, "vocab_size": vocab_size, "steps": steps}
    arrays.write(
        folder / WEIGHTS_FILE, {"kind": WEIGHTS_KIND, **facts}, {n: _array(w) for n, w in weights.items()}
    )
    measured = {
        f"{name}:{ending}": _array(tensor)
        for name, of_one in stats.items()
        for ending, field in ENDINGS.items()
        if (tensor := getattr(of_one, field)) is not None
    }
    if measured:
        arrays.write(folder / STATISTICS_FILE, {"kind": STATISTICS_KIND, **facts}, measured)


def _array(tensor: Tensor) -> np.ndarray:
    return tensor.detach().float().cpu().numpy()


def _read(
    path: Path, kind: str, config: Config, vocab_size: int, expected: Shapes, max_bytes: int
) -> dict[str, Tensor]:
    """Exactly the expected float32 arrays, copied, in the expected order; ValueError for anything else."""
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
    """Statistics by the name of their weight, exactly those that the recipe asks for, or ValueError.

    All of them are finite, and none but the Hessian's numbers off its diagonal is negative. A recipe that
    measures nothing has none, whatever lies in the folder."""
    wanted, path = statistics_of(config, vocab_size), folder / STATISTICS_FILE
    if not wanted:
        return {}
    expected = {
        f"{name}:{ending}": shape for name, asked in wanted.items() for ending, shape in asked.items()
    }
    content = _read(path, STATISTICS_KIND, config, vocab_size, expected, max_bytes)
    for name, tensor in content.items():
        if bool(((tensor.diagonal() if name.endswith(":hessian") else tensor) < 0).any()):
            raise ValueError(f"{path}: {name} is negative where it cannot be")
    return {
        name: TensorStats(**{ENDINGS[ending]: content[f"{name}:{ending}"] for ending in asked})
        for name, asked in wanted.items()
    }
