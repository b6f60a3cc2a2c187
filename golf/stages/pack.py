"""Stage pack: a checkpoint becomes the artifact, and back; no data and no GPU are needed, and none is used.

What: every tensor goes through the recipe of golf/quant/recipe.py with the bits of its kind, or, where the
recipe allocates, with those that golf/quant/bits.py leaves it under the byte limit. Codes, steps and fp16
tensors become one array file (golf/storage/arrays.py), with the codes entropy-coded (golf/storage/entropy.py)
where the recipe says so; that is shuffled and compressed (golf/storage/codec.py). The file names the recipe
by its digest, and each array by name, dtype and shape, and nothing else: no seed, no date, no path.

The same checkpoint and recipe give the same bytes on the same kind of processor: everything runs on one
thread, because matrix products sum in another order on two. Only AWQ, GPTQ and the allocator use such
products; without them the bytes are the same everywhere. Reading uses none, so that an artifact gives the
same weights everywhere.

Allocation goes by estimates: plain rounding without scales, codes at their entropy. What the compressor
really makes of the result corrects the budget, up or down, and bits are allocated again, ROUNDS times at
most; the largest that fitted is taken. Everything is printed: bits asked for and given, losses, bytes, and
what the coder reached beside its bound.

`load` is the inverse, for an artifact that anybody may have written: the digest must be that of the recipe at
hand, the arrays exactly those that the recipe's model has, codes within the grid, steps and scales positive,
all numbers finite, and the size at most what such a model takes. Anything else is a ValueError before a model
exists.

Not covered: whether the weights are any good.
"""

from __future__ import annotations

import contextlib
import math
import os
from collections.abc import Callable, Iterator
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
"""Endings of the arrays that hold the row steps of a coded tensor, and its column scales where it has
some."""
WORDS = ("codes:words", "codes:counts", "codes:levels")
"""The arrays that take the place of all codes where they are entropy-coded."""
KINDS = {"tok_emb.weight": "embed", ".attn.": "attn", ".mlp.up.": "up", ".mlp.down.": "down"}
"""What a tensor is by a part of its name; the first that it has decides."""
ROUNDS = 6
"""Allocations that are packed and measured at most."""


def recipe_of(config: Config, name: str, shape: tuple[int, ...]) -> Recipe:
    """What the configuration asks for one tensor. Only matrices of more than `fp16_limit` numbers go to the
    grid."""
    quant, kind = config.quant, next((kind for part, kind in KINDS.items() if part in name), "other")
    of_kind = {
        "embed": quant.embed_bits,
        "attn": quant.attn_bits,
        "up": quant.up_bits,
        "down": quant.down_bits,
    }
    asked = of_kind.get(kind) or quant.bits
    coded = quant.bits is not None and asked != 16 and len(shape) == 2 and math.prod(shape) > quant.fp16_limit
    if not coded:
        return Recipe()
    reach = ClipMethod(
        quant.clip, quant.quantile, quant.embed_sigmas if kind == "embed" else quant.sigmas, quant.floor
    )
    return Recipe(asked, reach, quant.rotate, quant.awq, quant.gptq, quant.fisher, quant.row_bits)


def recipes_of(config: Config, shapes: checkpoint.Shapes) -> dict[str, Recipe]:
    """`recipe_of` every tensor."""
    return {name: recipe_of(config, name, shape) for name, shape in shapes.items()}


class Packed(NamedTuple):
    """The artifact, and the entropy-coded part of it where there is one."""

    data: bytes
    coded: entropy.Coded | None


def _serialise(stored: dict[str, Stored], config: Config) -> Packed:
    """What is stored of each tensor -> the artifact. Codes lie together and before fp16: alike compresses
    alike."""
    codes, coded = (
        {name: each.values.numpy() for name, each in stored.items() if each.step_R is not None},
        None,
    )
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
    """Matrix products give the same bits each time."""
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        yield
    finally:
        torch.set_num_threads(before)


class _Packing:
    """The tensors of one checkpoint on their way; remembers what was encoded, since a round changes few
    bits."""

    def __init__(self, weights: dict[str, Tensor], stats: dict[str, TensorStats], config: Config) -> None:
        self.weights, self.stats, self.config = weights, stats, config
        self.asked = recipes_of(config, {name: tuple(weight.shape) for name, weight in weights.items()})
        self.coded = [name for name, how in self.asked.items() if how.bits is not None]
        self.known: dict[tuple[str, int | None], Stored] = {}

    def stored(self, given: dict[str, int]) -> dict[str, Stored]:
        """Every tensor encoded, coded ones with the given bits."""
        for name, how in self.asked.items():
            key = (name, given.get(name))
            if key not in self.known:
                self.known[key] = recipe.encode(
                    name, self.weights[name], how._replace(bits=key[1]), self.stats.get(name)
                )
        return {name: self.known[name, given.get(name)] for name in self.asked}

    def option(self, name: str, n_bits: int) -> bits.Option:
        """About what a tensor would lose and take: to the nearest code, without scales, its codes at their
        entropy."""
        weight, stats = self.weights[name], self.stats.get(name, TensorStats())
        how = self.asked[name]._replace(bits=n_bits, awq=False, gptq=False)
        stored = recipe.encode(name, weight, how, stats)
        lost = loss(
            recipe.decode(stored, how) - weight, stats.hessian_CC, stats.fisher_RC if how.fisher else None
        )
        scales = weight.shape[1] if self.asked[name].awq else 0
        return bits.Option(
            n_bits, lost, entropy.shannon_bytes(stored.values.numpy()) + 2 * (weight.shape[0] + scales)
        )

    def fit(self, max_bytes: int, say: Callable[[str], None]) -> tuple[Packed, dict[str, int]]:
        """The artifact and the bits of its tensors, with at most max_bytes; ValueError where none is
        found."""
        options = {
            name: [self.option(name, n) for n in range(grid.BITS.start, 1 + (self.asked[name].bits or 0))]
            for name in self.coded
        }
        rest = sum(2 * weight.numel() for name, weight in self.weights.items() if name not in options)
        least = sum(min(each.n_bytes for each in of_one) for of_one in options.values())
        budget, tried, sizes, best = float(max_bytes), list[dict[str, bits.Option]](), list[int](), None
        while (
            len(tried) < ROUNDS and (chosen := bits.allocate(options, max(budget - rest, least))) not in tried
        ):
            estimate, given = (
                rest + sum(each.n_bytes for each in chosen.values()),
                {n: o.bits for n, o in chosen.items()},
            )
            packed = _serialise(self.stored(given), self.config)
            tried, sizes = [*tried, chosen], [*sizes, len(packed.data)]
            say(
                f"allocation {len(tried)}: about {estimate:,.0f} bytes, packed {sizes[-1]:,}, limit "
                f"{max_bytes:,}"
            )
            if sizes[-1] <= max_bytes and (best is None or estimate > best[0]):
                best = (estimate, packed, given)
            budget = estimate + max_bytes - sizes[-1]
        if best is None:
            raise ValueError(
                f"{len(tried)} allocations, and the smallest artifact has {min(sizes):,} bytes; "
                f"{max_bytes:,} are allowed"
            )
        for name in self.coded:
            asked, got = options[name][-1], options[name][best[2][name] - grid.BITS.start]
            say(
                f"{name}: {asked.bits} -> {got.bits} bits, loss {asked.loss:.4g} -> {got.loss:.4g}, "
                f"about {asked.n_bytes:,.0f} -> {got.n_bytes:,.0f} bytes"
            )
        return best[1], best[2]

    def tell(self, packed: Packed, given: dict[str, int], say: Callable[[str], None]) -> None:
        """What was made of the codes, and how far the weights have moved."""
        stored = self.stored(given)
        codes = [stored[name].values.numpy() for name in self.coded]
        numbers, coded = (
            sum(weight.numel() for weight in self.weights.values()),
            sum(each.size for each in codes),
        )
        say(
            f"{numbers:,} numbers, {coded:,} of them on the grid; {len(packed.data):,} bytes, "
            f"{(2 * numbers - coded) / len(packed.data):.3f} times smaller than codes and fp16"
        )
        if not codes:
            return
        moved = sum(
            _square(recipe.decode(stored[name], self.asked[name]) - self.weights[name]) for name in self.coded
        )
        size = sum(_square(self.weights[name]) for name in self.coded)
        say(f"squared error of the grid: {moved / size if size else 0:.4g} of the squared weights")
        say(
            f"codes: Shannon bound {sum(map(entropy.shannon_bytes, codes)):,.0f} bytes with a histogram for "
            "each tensor"
        )
        if packed.coded is not None:
            bound = entropy.entropy_bytes(packed.coded.counts_XA)
            say(
                f"range coder: {packed.coded.words.nbytes:,} bytes, Shannon bound of its contexts "
                f"{bound:,.0f}"
            )


def _square(weight: Tensor) -> float:
    return float(weight.double().square().sum())


def _silent(line: str) -> None:
    """Say nothing."""


def to_artifact(
    weights: dict[str, Tensor],
    stats: dict[str, TensorStats],
    config: Config,
    max_bytes: int,
    say: Callable[[str], None] = _silent,
) -> bytes:
    """Float32 weights and statistics by name -> the artifact's bytes, with at most max_bytes where the recipe
    allocates.

    `say` is told in lines what was done. Raises ValueError for numbers that cannot be stored, and where
    nothing fits."""
    with _one_thread():
        packing = _Packing(weights, stats, config)
        if config.quant.allocate and packing.coded:
            packed, given = packing.fit(max_bytes, say)
        else:
            given = {name: packing.asked[name].bits or 0 for name in packing.coded}
            packed = _serialise(packing.stored(given), config)
        packing.tell(packed, given, say)
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
    """What the artifact holds of one tensor, every number of it checked."""
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


def _need_names(found: set[str], needed: set[str], allowed: set[str]) -> None:
    missing, extra = sorted(needed - found)[:3], sorted(found - needed - allowed)[:3]
    if missing or extra:
        raise ValueError(
            f"artifact: tensors differ from the recipe's model; missing {missing}, unknown {extra}"
        )


def from_artifact(data: bytes, config: Config, vocab_size: int) -> dict[str, Tensor]:
    """The artifact's bytes -> float32 weights by name. Raises ValueError for all that `to_artifact` cannot
    make."""
    shapes = shapes_of(config, vocab_size)
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
    _need_names(set(content), values | {name + STEP for name in coded}, scales)
    if entropy_coded:
        words = entropy.Coded(*(content[name] for name in WORDS))
        matrices = entropy.decode(words, [shapes[name] for name in coded])
        content = {**content, **dict(zip(coded, matrices, strict=True))}
    return {
        name: recipe.decode(_stored(name, shape, content, recipes[name]), recipes[name])
        for name, shape in shapes.items()
    }


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


def artifact_limit(config: Config, setup: Setup) -> int:
    """Bytes that the artifact may take: the recipe's own target, or what the judge's limit leaves beside code
    and recipe."""
    left = setup.limits["counted_bytes"] - code_bytes() - setup.config.stat().st_size
    return config.quant.target_bytes or left


def run(wire: Wire, setup: Setup, config: Config, ranks: Ranks) -> None:
    """The stage, from `ready` to `packed`."""
    assert setup.checkpoint is not None
    wire.send("ready")
    most = setup.limits["checkpoint_bytes"]
    weights = checkpoint.read_weights(setup.checkpoint, config, setup.vocab_size, most)
    stats = checkpoint.read_statistics(setup.checkpoint, config, setup.vocab_size, most)
    wire.progress(0.1, "quantising and compressing")
    data = to_artifact(
        weights, stats, config, artifact_limit(config, setup), lambda line: print(line, flush=True)
    )
    from_artifact(data, config, setup.vocab_size)  # what cannot be read again must not leave this stage
    arrays.write_atomically(setup.out / ARTIFACT_FILE, data)
    wire.send("packed")
