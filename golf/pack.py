"""Stage pack: a checkpoint becomes the artifact, and back; no data and no GPU are needed, and none is used.

What: every tensor goes through the recipe of golf/quant/recipe.py; codes, steps and fp16 tensors become one array
file (golf/arrays.py), and that is compressed (golf/codec.py). The file names the recipe by its digest, and each
array by name, dtype and shape, and nothing else: no seed, no date, no path, so that the same checkpoint and recipe
give the same bytes.

`load` is the inverse, for an artifact that anybody may have written: the digest must be that of the recipe at hand,
the arrays exactly those that the recipe's model has, codes within the grid, steps positive, all numbers finite, and
the size at most what such a model takes. Anything else is a ValueError before a model exists.

Not covered: a search for better roundings, and whether the weights are any good.
"""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from golf import arrays
from golf.codec import CODECS
from golf.config import Config, digest
from golf.dist import Ranks
from golf.model.gpt import GPT
from golf.quant import grid, recipe
from golf.train import CHECKPOINT_FILE, CHECKPOINT_KIND
from golf.wire import Setup, Wire

ARTIFACT_FILE = "artifact.bin"
ARTIFACT_KIND = "golf-artifact-1"
STEP = ":step"
"""Ending of the array that holds the row steps of a coded tensor."""
Shapes = dict[str, tuple[int, ...]]


def shapes_of(config: Config, vocab_size: int) -> Shapes:
    """Name -> shape of every tensor of the recipe's model, without allocating one."""
    with torch.device("meta"):
        model = GPT(config.model, vocab_size)
    return {name: tuple(tensor.shape) for name, tensor in model.state_dict().items()}


def recipe_of(config: Config) -> recipe.Recipe:
    """The part of the configuration that the quantiser understands."""
    quant = config.quant
    return recipe.Recipe(quant.bits, quant.rotate, quant.floor, quant.fp16_limit)


def _same_names(found: set[str], expected: set[str], where: str) -> None:
    if found != expected:
        missing, extra = sorted(expected - found)[:3], sorted(found - expected)[:3]
        raise ValueError(f"{where}: tensors differ from the recipe's model; missing {missing}, unknown {extra}")


def read_checkpoint(folder: Path, config: Config, vocab_size: int, max_bytes: int) -> dict[str, Tensor]:
    """<folder>/weights.arrays -> float32 weights by name; ValueError unless they are exactly the recipe's model."""
    path = folder / CHECKPOINT_FILE
    header, content = arrays.read(path, max_bytes=max_bytes)
    if header.get("kind") != CHECKPOINT_KIND:
        raise ValueError(f"{path}: kind {header.get('kind')!r:.60}, expected {CHECKPOINT_KIND!r}")
    if header.get("config_sha256") != digest(config):
        raise ValueError(f"{path}: was trained with another recipe than {digest(config)[:12]}")
    expected = shapes_of(config, vocab_size)
    _same_names(set(content), set(expected), str(path))
    for name, shape in expected.items():
        if content[name].dtype != np.float32 or content[name].shape != shape:
            found = f"{content[name].dtype} {list(content[name].shape)}"
            raise ValueError(f"{path}: tensor {name} is {found}, expected float32 {list(shape)}")
    return {name: torch.from_numpy(content[name].copy()) for name in expected}


def to_artifact(weights: dict[str, Tensor], config: Config) -> bytes:
    """Float32 weights by name -> the artifact's bytes. Codes lie together and before fp16: alike compresses alike."""
    how = recipe_of(config)
    coded: dict[str, np.ndarray] = {}
    half: dict[str, np.ndarray] = {}
    for name, weight in weights.items():
        stored = recipe.encode(name, weight, how)
        (half if stored.step_R is None else coded)[name] = stored.values.numpy()
        if stored.step_R is not None:
            half[name + STEP] = stored.step_R.numpy()
    body = arrays.to_bytes({"kind": ARTIFACT_KIND, "config_sha256": digest(config)}, {**coded, **half})
    compress, _ = CODECS[config.quant.codec]
    return compress(body, config.quant.level)


def _checked(name: str, array: np.ndarray, dtype: type, shape: tuple[int, ...]) -> Tensor:
    if array.dtype != dtype or array.shape != shape:
        found, wanted = f"{array.dtype} {list(array.shape)}", f"{np.dtype(dtype)} {list(shape)}"
        raise ValueError(f"artifact: array {name} is {found}, expected {wanted}")
    return torch.from_numpy(array.copy())


def _stored(name: str, shape: tuple[int, ...], content: dict[str, np.ndarray], how: recipe.Recipe) -> recipe.Stored:
    """What the artifact holds of one tensor, every number of it checked."""
    if not how.coded(shape):
        half = _checked(name, content[name], np.float16, shape)
        if not torch.isfinite(half).all():
            raise ValueError(f"artifact: tensor {name} holds a NaN or an infinity")
        return recipe.Stored(half, None)
    assert how.bits is not None
    largest = grid.largest_code(how.bits)
    codes_RC = _checked(name, content[name], np.int8, shape)
    step_R = _checked(name + STEP, content[name + STEP], np.float16, shape[:1])
    if not (torch.isfinite(step_R).all() and (step_R > 0).all()):
        raise ValueError(f"artifact: the steps of tensor {name} must be finite and positive")
    if int(codes_RC.min()) < -largest - 1 or int(codes_RC.max()) > largest:
        raise ValueError(f"artifact: codes of tensor {name} lie outside {-largest - 1}..{largest}")
    return recipe.Stored(codes_RC, step_R)


def from_artifact(data: bytes, config: Config, vocab_size: int) -> dict[str, Tensor]:
    """The artifact's bytes -> float32 weights by name. Raises ValueError for all that `to_artifact` cannot make."""
    expected, how = shapes_of(config, vocab_size), recipe_of(config)
    names = set(expected) | {name + STEP for name, shape in expected.items() if how.coded(shape)}
    numbers = sum(int(np.prod(shape)) for shape in expected.values())
    _, decompress = CODECS[config.quant.codec]
    body = decompress(data, 4 * numbers + arrays.MAX_HEADER_BYTES)
    header, content = arrays.from_bytes(body)
    if header.get("kind") != ARTIFACT_KIND or set(header) != {"kind", "config_sha256"}:
        raise ValueError(f"artifact: its header is not that of a {ARTIFACT_KIND}")
    if header["config_sha256"] != digest(config):
        found = str(header["config_sha256"])[:12]
        raise ValueError(f"artifact: made with recipe {found}, but the recipe here is {digest(config)[:12]}")
    _same_names(set(content), names, "artifact")
    stored = {name: _stored(name, shape, content, how) for name, shape in expected.items()}
    return {name: recipe.decode(each, how) for name, each in stored.items()}


def load(path: Path, config: Config, vocab_size: int, max_bytes: int, **options: Any) -> GPT:
    """Artifact file -> model on the CPU, ready to predict; `options` are GPT's dtype and attention."""
    descriptor, _ = arrays.open_regular(path, max_bytes)
    with os.fdopen(descriptor, "rb") as file:
        data = file.read(max_bytes)
    try:
        weights = from_artifact(data, config, vocab_size)
    except ValueError as error:
        raise ValueError(f"{path}: {error}") from error
    model = GPT(config.model, vocab_size, **options)
    model.load_state_dict(weights, strict=True)
    return model.eval().requires_grad_(False)


def run(wire: Wire, setup: Setup, config: Config, ranks: Ranks) -> None:
    """The stage, from `ready` to `packed`."""
    assert setup.checkpoint is not None
    wire.send("ready")
    weights = read_checkpoint(setup.checkpoint, config, setup.vocab_size, setup.limits["checkpoint_bytes"])
    wire.progress(0.1, "compressing")
    data = to_artifact(weights, config)
    from_artifact(data, config, setup.vocab_size)  # what cannot be read again must not leave this stage
    arrays.write_atomically(setup.out / ARTIFACT_FILE, data)
    how, numbers = recipe_of(config), sum(weight.numel() for weight in weights.values())
    coded = sum(weight.numel() for weight in weights.values() if how.coded(tuple(weight.shape)))
    ratio = (2 * numbers - coded) / len(data)
    print(f"{numbers} numbers, {coded} of them at {how.bits} bits (rotate {how.rotate}, floor {how.floor}); "
          f"{len(data)} bytes, {ratio:.3f} times smaller than codes and fp16", flush=True)  # fmt: skip
    wire.send("packed")
