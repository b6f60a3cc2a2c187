"""Stage pack: turn a checkpoint into the artifact, and back into weights; needs no data and no GPU.

Every tensor is encoded by the recipe of golf/quant/recipe.py, with the bits of its kind or, if the recipe
allocates, the bits that golf/quant/bits.py assigns within the byte limit. Codes, steps and float16 tensors
form one array file (golf/storage/arrays.py), which is shuffled and compressed (golf/storage/codec.py); codes
are entropy-coded (golf/storage/entropy.py) if the recipe says so. The file holds the recipe's digest, and
each array's name, dtype and shape: no seed, no date, no path.

The same checkpoint and recipe give the same bytes on the same kind of processor. Packing runs on one thread,
because matrix products sum in another order on two. Only AWQ, GPTQ and the allocator use such products;
without them the bytes are the same everywhere. Decoding uses none, so an artifact gives the same weights
everywhere.

Allocation relies on estimates: plain rounding, no scales, codes at their entropy. The real compressed size
then corrects the budget, up or down, and bits are allocated again, at most ROUNDS times; the largest result
that fits is kept. The log shows bits requested and assigned, losses, bytes, and the coder's size next to its
Shannon bound.

`load` reads an artifact that anybody may have written. It requires the recipe's digest, exactly the arrays of
the recipe's model, codes within the grid, positive steps and scales, finite numbers, and a size that such a
model can have. Anything else is a ValueError before a model is built.
"""

from __future__ import annotations

import contextlib
import math
import os
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import torch
from torch import Tensor

from golf.model.gpt import GPT
from golf.quant import bits, grid, recipe
from golf.quant.clip import ClipMethod
from golf.quant.loss import loss
from golf.quant.recipe import Recipe, Stored
from golf.quant.stats import TensorStats
from golf.recipe.config import Config, digest
from golf.runtime.dist import Ranks
from golf.runtime.program import code_bytes
from golf.runtime.wire import Setup, Wire
from golf.storage import arrays, entropy
from golf.storage.codec import CODECS, shuffle, unshuffle
from golf.training import checkpoint
from golf.training.checkpoint import shapes_of

ARTIFACT_FILE = "artifact.bin"
ARTIFACT_KIND = "golf-artifact-1"
STEP, SCALE = ":step", ":scale"
"""Name endings of the arrays with a coded tensor's row steps, and with its column scales if any."""
WORDS = ("codes:words", "codes:counts", "codes:levels")
"""The arrays that replace all codes if these are entropy-coded."""
KINDS = {"tok_emb.weight": "embed", ".attn.": "attn", ".mlp.up.": "up", ".mlp.down.": "down"}
"""Part of a tensor's name -> its kind; the first match decides."""
ROUNDS = 6
"""Most allocations that are packed and measured."""


def recipe_of(config: Config, name: str, shape: tuple[int, ...]) -> Recipe:
    """How a tensor is stored; only matrices of more than `fp16_limit` numbers are quantised."""
    quant, kind = config.quant, next((kind for part, kind in KINDS.items() if part in name), "other")
    of_kind = {
        "embed": quant.embed_bits,
        "attn": quant.attn_bits,
        "up": quant.up_bits,
        "down": quant.down_bits,
    }
    n_bits = of_kind.get(kind) or quant.bits
    coded = (
        quant.bits is not None and n_bits != 16 and len(shape) == 2 and math.prod(shape) > quant.fp16_limit
    )
    if not coded:
        return Recipe()
    reach = ClipMethod(
        quant.clip, quant.quantile, quant.embed_sigmas if kind == "embed" else quant.sigmas, quant.floor
    )
    return Recipe(n_bits, reach, quant.rotate, quant.awq, quant.gptq, quant.fisher, quant.row_bits)


def recipes_of(config: Config, shapes: checkpoint.Shapes) -> dict[str, Recipe]:
    """Name -> `recipe_of` the tensor."""
    return {name: recipe_of(config, name, shape) for name, shape in shapes.items()}


class Packed(NamedTuple):
    """The artifact, and its entropy-coded part if there is one."""

    data: bytes
    coded: entropy.Coded | None


def _serialise(stored: dict[str, Stored], config: Config) -> Packed:
    """Stored tensors -> the artifact. Codes come first, then float16: similar bytes compress better."""
    codes = {name: each.values.numpy() for name, each in stored.items() if each.step_R is not None}
    coded = None
    if config.quant.entropy and codes:
        coded = entropy.encode(list(codes.values()))
        codes = dict(zip(WORDS, coded, strict=True))
    half: dict[str, np.ndarray] = {}
    for name, each in stored.items():
        if each.step_R is None:
            half[name] = each.values.numpy()
        else:
            half[name + STEP] = each.step_R.numpy()
        if each.scale_C is not None:
            half[name + SCALE] = each.scale_C.numpy()
    body = arrays.to_bytes({"kind": ARTIFACT_KIND, "config_sha256": digest(config)}, {**codes, **half})
    compress, _ = CODECS[config.quant.codec]
    return Packed(compress(shuffle(body, config.quant.shuffle), config.quant.level), coded)


@contextlib.contextmanager
def _one_thread() -> Iterator[None]:
    """On one thread, matrix products give the same bits each time."""
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        yield
    finally:
        torch.set_num_threads(before)


class _Packer:
    """Encodes a checkpoint's tensors; caches results, since a round of allocation changes few of them."""

    def __init__(self, weights: dict[str, Tensor], stats: dict[str, TensorStats], config: Config) -> None:
        self.weights, self.stats, self.config = weights, stats, config
        self.recipes = recipes_of(config, {name: tuple(weight.shape) for name, weight in weights.items()})
        self.coded = [name for name, how in self.recipes.items() if how.bits is not None]
        self.cache: dict[tuple[str, int | None], Stored] = {}

    def encode(self, bits_of: dict[str, int]) -> dict[str, Stored]:
        """Encode every tensor, quantised ones with these bits."""
        for name, how in self.recipes.items():
            key = (name, bits_of.get(name))
            if key not in self.cache:
                self.cache[key] = recipe.encode(
                    name, self.weights[name], how._replace(bits=key[1]), self.stats.get(name)
                )
        return {name: self.cache[name, bits_of.get(name)] for name in self.recipes}

    def estimate(self, name: str, n_bits: int) -> bits.Option:
        """Estimated loss and bytes of a tensor: plain rounding without scales, codes at their entropy."""
        weight, stats = self.weights[name], self.stats.get(name, TensorStats())
        how = self.recipes[name]._replace(bits=n_bits, awq=False, gptq=False)
        stored = recipe.encode(name, weight, how, stats)
        estimated_loss = loss(
            recipe.decode(stored, how) - weight, stats.hessian_CC, stats.fisher_RC if how.fisher else None
        )
        scales = weight.shape[1] if self.recipes[name].awq else 0
        n_bytes = entropy.shannon_bytes(stored.values.numpy()) + 2 * (weight.shape[0] + scales)
        return bits.Option(n_bits, estimated_loss, n_bytes)

    def fit(self, max_bytes: int, log: Callable[[str], None]) -> tuple[Packed, dict[str, int]]:
        """An artifact of at most max_bytes and the bits of its tensors; ValueError if none is found."""
        options = {
            name: [self.estimate(name, n) for n in range(grid.BITS.start, 1 + (self.recipes[name].bits or 0))]
            for name in self.coded
        }
        rest = sum(2 * weight.numel() for name, weight in self.weights.items() if name not in options)
        least = sum(min(each.n_bytes for each in of_tensor) for of_tensor in options.values())
        budget, tried, sizes, best = float(max_bytes), list[dict[str, bits.Option]](), list[int](), None
        while len(tried) < ROUNDS:
            chosen = bits.allocate(options, max(budget - rest, least))
            if chosen in tried:
                break
            estimate = rest + sum(each.n_bytes for each in chosen.values())
            bits_of = {name: option.bits for name, option in chosen.items()}
            packed = _serialise(self.encode(bits_of), self.config)
            tried, sizes = [*tried, chosen], [*sizes, len(packed.data)]
            about = f"about {estimate:,.0f} bytes, packed {sizes[-1]:,}, limit {max_bytes:,}"
            log(f"allocation {len(tried)}: {about}")
            if sizes[-1] <= max_bytes and (best is None or estimate > best[0]):
                best = (estimate, packed, bits_of)
            budget = estimate + max_bytes - sizes[-1]
        if best is None:
            raise ValueError(
                f"{len(tried)} allocations, and the smallest artifact has {min(sizes):,} bytes; "
                f"{max_bytes:,} are allowed"
            )
        for name in self.coded:
            requested, assigned = options[name][-1], options[name][best[2][name] - grid.BITS.start]
            log(
                f"{name}: {requested.bits} -> {assigned.bits} bits, loss {requested.loss:.4g} -> "
                f"{assigned.loss:.4g}, about {requested.n_bytes:,.0f} -> {assigned.n_bytes:,.0f} bytes"
            )
        return best[1], best[2]

    def report(self, packed: Packed, bits_of: dict[str, int], log: Callable[[str], None]) -> None:
        """Log sizes, the squared error of the weights, and how near the codes are to their Shannon bound."""
        stored = self.encode(bits_of)
        codes = [stored[name].values.numpy() for name in self.coded]
        numbers, coded = sum(weight.numel() for weight in self.weights.values()), sum(map(np.size, codes))
        log(
            f"{numbers:,} numbers, {coded:,} of them on the grid; {len(packed.data):,} bytes, "
            f"{(2 * numbers - coded) / len(packed.data):.3f} times smaller than codes and fp16"
        )
        if not codes:
            return
        error = sum(
            _square(recipe.decode(stored[name], self.recipes[name]) - self.weights[name])
            for name in self.coded
        )
        size = sum(_square(self.weights[name]) for name in self.coded)
        log(f"squared error of the grid: {error / size if size else 0:.4g} of the squared weights")
        bound = sum(map(entropy.shannon_bytes, codes))
        log(f"codes: Shannon bound {bound:,.0f} bytes with a histogram for each tensor")
        if packed.coded is not None:
            bound = entropy.entropy_bytes(packed.coded.counts_XA)
            n_bytes = packed.coded.words.nbytes
            log(f"range coder: {n_bytes:,} bytes, Shannon bound of its contexts {bound:,.0f}")


def _square(weight: Tensor) -> float:
    return float(weight.double().square().sum())


def to_artifact(
    weights: dict[str, Tensor],
    stats: dict[str, TensorStats],
    config: Config,
    max_bytes: int,
    log: Callable[[str], None] = lambda line: None,
) -> bytes:
    """Float32 weights and statistics by name -> the artifact; at most max_bytes if the recipe allocates.

    `log` gets lines about the result. Raises ValueError for numbers that cannot be stored, or if nothing
    fits.
    """
    with _one_thread():
        packer = _Packer(weights, stats, config)
        if config.quant.allocate and packer.coded:
            packed, bits_of = packer.fit(max_bytes, log)
        else:
            bits_of = {name: packer.recipes[name].bits or 0 for name in packer.coded}
            packed = _serialise(packer.encode(bits_of), config)
        packer.report(packed, bits_of, log)
    return packed.data


def _checked(name: str, array: np.ndarray, dtype: type, shape: tuple[int, ...]) -> Tensor:
    if array.dtype != dtype or array.shape != shape:
        found, wanted = f"{array.dtype} {list(array.shape)}", f"{np.dtype(dtype)} {list(shape)}"
        raise ValueError(f"artifact: array {name} is {found}, expected {wanted}")
    return torch.from_numpy(array.copy())


def _positive(what: str, name: str, array: np.ndarray, length: int) -> Tensor:
    numbers = _checked(name, array, np.float16, (length,))
    if not (torch.isfinite(numbers).all() and (numbers > 0).all()):
        raise ValueError(f"artifact: the {what} of tensor {name.split(':')[0]} must be finite and positive")
    return numbers


def _stored(name: str, shape: tuple[int, ...], content: dict[str, np.ndarray], how: Recipe) -> Stored:
    """What the artifact holds of a tensor, with every number checked."""
    if how.bits is None:
        half = _checked(name, content[name], np.float16, shape)
        if not torch.isfinite(half).all():
            raise ValueError(f"artifact: tensor {name} holds a NaN or an infinity")
        return Stored(half)
    largest = grid.largest_code(grid.BITS.stop - 1 if how.row_bits else how.bits)
    codes_RC = _checked(name, content[name], np.int8, shape)
    if int(codes_RC.min()) < -largest or int(codes_RC.max()) > largest:
        raise ValueError(f"artifact: codes of tensor {name} lie outside {-largest}..{largest}")
    step_R = _positive("steps", name + STEP, content[name + STEP], shape[0])
    scaled = name + SCALE in content
    return Stored(
        codes_RC,
        step_R,
        _positive("scales", name + SCALE, content[name + SCALE], shape[1]) if scaled else None,
    )


def _check_names(found: set[str], needed: set[str], allowed: set[str]) -> None:
    missing, extra = sorted(needed - found)[:3], sorted(found - needed - allowed)[:3]
    if missing or extra:
        raise ValueError(
            f"artifact: tensors differ from the recipe's model; missing {missing}, unknown {extra}"
        )


def read_arrays(data: bytes, config: Config, shapes: checkpoint.Shapes) -> dict[str, np.ndarray]:
    """The artifact's bytes -> its arrays by name, the codes of coded tensors under the tensors' names.

    `shapes` are those of the recipe's model. Raises ValueError for other names than `to_artifact` writes.
    """
    recipes = recipes_of(config, shapes)
    coded = [name for name, how in recipes.items() if how.bits is not None]
    _, decompress = CODECS[config.quant.codec]
    body = decompress(data, 4 * sum(map(math.prod, shapes.values())) + arrays.MAX_HEADER_BYTES)
    header, content = arrays.from_bytes(unshuffle(body, config.quant.shuffle))
    if header.get("kind") != ARTIFACT_KIND or set(header) != {"kind", "config_sha256"}:
        raise ValueError(f"artifact: its header is not that of a {ARTIFACT_KIND}")
    if header["config_sha256"] != digest(config):
        found = str(header["config_sha256"])[:12]
        raise ValueError(f"artifact: made with recipe {found}, but the recipe here is {digest(config)[:12]}")
    entropy_coded = config.quant.entropy and len(coded) > 0
    values = set(shapes) - set(coded) | set(WORDS) if entropy_coded else set(shapes)
    scales = {name + SCALE for name in coded if recipes[name].awq}
    _check_names(set(content), values | {name + STEP for name in coded}, scales)
    if entropy_coded:
        words = entropy.Coded(*(content.pop(name) for name in WORDS))
        matrices = entropy.decode(words, [shapes[name] for name in coded])
        content |= zip(coded, matrices, strict=True)
    return content


def from_artifact(data: bytes, config: Config, vocab_size: int) -> dict[str, Tensor]:
    """The artifact's bytes -> float32 weights by name; ValueError for what `to_artifact` cannot produce."""
    shapes = shapes_of(config, vocab_size)
    recipes, content = recipes_of(config, shapes), read_arrays(data, config, shapes)
    return {
        name: recipe.decode(_stored(name, shape, content, recipes[name]), recipes[name])
        for name, shape in shapes.items()
    }


def load(path: Path, config: Config, vocab_size: int, max_bytes: int, **options: Any) -> GPT:
    """Artifact file -> model on the CPU, in eval mode; `options` are GPT's dtype and attention."""
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


def artifact_limit(config: Config, setup: Setup) -> int:
    """Most bytes of the artifact: the recipe's target, or the judge's limit minus code and recipe."""
    remaining = setup.limits["counted_bytes"] - code_bytes() - setup.config.stat().st_size
    return config.quant.target_bytes or remaining


def run(wire: Wire, setup: Setup, config: Config, ranks: Ranks) -> None:
    """Run the stage, from `ready` to `packed`."""
    assert setup.checkpoint is not None
    wire.send("ready")
    max_bytes = setup.limits["checkpoint_bytes"]
    weights = checkpoint.read_weights(setup.checkpoint, config, setup.vocab_size, max_bytes)
    stats = checkpoint.read_statistics(setup.checkpoint, config, setup.vocab_size, max_bytes)
    wire.progress(0.1, "quantising and compressing")
    log = partial(print, flush=True)
    data = to_artifact(weights, stats, config, artifact_limit(config, setup), log)
    from_artifact(data, config, setup.vocab_size)  # fail here, not in score, if it cannot be read
    arrays.write_atomically(setup.out / ARTIFACT_FILE, data)
    wire.send("packed")
