"""What is checked on a GPU, each check a function of a `Place` that returns rows for the table.

A check raises `Failed` where something is wrong that can be said in a line; any other exception is a failure
as well (golf/bench/gpu.py catches all). Every function runs on a CPU too, at the tiny sizes of tests: nothing
in it names a device. Text is made up. Seconds projected for 8 GPUs take it that these share the work
perfectly. Not covered: bits per byte, which need a full training."""

from __future__ import annotations

import statistics
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor

from golf.bench import work
from golf.bench.reference_attention import attend_reference
from golf.inference.adapt import Adaptation, Chunk
from golf.inference.predict import Predictor
from golf.inference.windows import TokenBuffer
from golf.model import kernels
from golf.model.gpt import GPT
from golf.model.init import initialise
from golf.model.kernels import ATTENTION, Attend
from golf.optim.schedule import TrainingProgress
from golf.recipe.config import load
from golf.recipe.schema import Config
from golf.runtime import dist
from golf.runtime.dist import Ranks
from golf.training import loader as data
from golf.training.phases import Phase
from golf.training.trainer import Trainer

TOLERANCE = {torch.float32: 1e-4, torch.bfloat16: 3e-2}
"""Largest error of an attention kernel against float32, as a share of the largest number."""
PEAK_BFLOAT16 = {
    "H100 80GB HBM3": 989e12,
    "H100 SXM": 989e12,
    "H100 PCIe": 756e12,
    "H200": 989e12,
    "A100": 312e12,
    "L40S": 362e12,
    "RTX 4090": 165e12,
}
"""Dense bfloat16 operations a second, from the makers' data sheets, by a part of the card's name."""
FULL_VALIDATION = {1024: 62_021_846, 8192: 40_540_803}
"""Tokens of the official validation split by vocabulary."""
OFFICIAL_GPUS = 8


class Failed(Exception):
    """A check did not hold; the message is its reason."""


class Passed(NamedTuple):
    """A check, or a part of one, that held: what was seen, in a line, and as numbers."""

    what: str
    seen: str
    numbers: dict[str, float]


@dataclass(frozen=True)
class Place:
    """Where the checks run, and how large: seconds and steps for a measurement, rows for a kernel."""

    device: torch.device
    dtype: torch.dtype
    compiled: bool
    steps: int = 10
    warm_up: int = 3
    attention_shape: tuple[int, int, int, int, int] = (4, 2048, 8, 4, 64)
    """B, T, H, K, E."""


def peak(device: torch.device) -> float | None:
    """The card's bfloat16 peak, operations a second; None where it is not known."""
    name = torch.cuda.get_device_name(device) if device.type == "cuda" else ""
    return next((rate for part, rate in PEAK_BFLOAT16.items() if part in name), None)


def tokens(vocab_size: int, n: int) -> np.ndarray:
    """n made-up tokens, uint16: speed does not depend on what they are."""
    return np.random.default_rng(0).integers(0, vocab_size, n).astype(np.uint16)


# Attention kernels against the definition


def _attention_runs(name: str, place: Place) -> tuple[list[Tensor], list[Tensor], float]:
    """Output and gradients of q, k, v by a kernel and by the reference on the same numbers; seconds of the
    kernel."""
    rows, length, heads, key_heads, head_dim = place.attention_shape
    random = torch.Generator().manual_seed(0)
    sizes = (heads, key_heads, key_heads, heads)
    *inputs, dy = (
        torch.randn(rows, length, n, head_dim, generator=random).to(place.device, place.dtype) for n in sizes
    )

    def run(attend: Attend, dtype: torch.dtype) -> list[Tensor]:
        leaves = [x.to(dtype, copy=True).requires_grad_(True) for x in inputs]
        y = attend(*leaves)
        return [y.detach(), *torch.autograd.grad(y, leaves, dy.to(dtype))]

    exact, found = run(attend_reference, torch.float32), run(ATTENTION[name], place.dtype)
    return exact, found, work.best_seconds(lambda: run(ATTENTION[name], place.dtype), place.device)


def attention(name: str, place: Place) -> list[Passed]:
    """One kernel, forward and backward, against the float32 definition."""
    try:
        exact, found, seconds = _attention_runs(name, place)
    except ImportError as error:
        return [Passed(f"attention {name}", f"not there: {error}", {})]
    errors = [((b.float() - a).abs().max() / a.abs().max()).item() for a, b in zip(exact, found, strict=True)]
    if not max(errors) <= TOLERANCE[place.dtype]:
        raise Failed(
            f"errors of y, dq, dk, dv {', '.join(f'{e:.1e}' for e in errors)} above "
            f"{TOLERANCE[place.dtype]:.0e}"
        )
    seen = (
        f"largest error {max(errors):.1e} of the largest number; forward and backward {seconds * 1e3:.2f} ms"
    )
    return [Passed(f"attention {name}", seen, {"error": max(errors), "seconds": seconds})]


# Compiled against plain


def compiled_twin(config: Config, vocab_size: int, place: Place) -> list[Passed]:
    """The compiled forward and its gradients against the plain one, no matrix zero: the loss, the gradient's
    direction."""
    trainer = _trainer(
        replace(config, hardware=replace(config.hardware, micro_tokens=config.train.seq_len)),
        vocab_size,
        place,
    )
    batch = _batch(trainer, config.train.seq_len * data.LOGICAL_RANKS)
    with torch.no_grad():
        for matrix in trainer.matrices.values():
            matrix.add_(
                0.02 * torch.randn(matrix.shape, generator=torch.Generator().manual_seed(0)).to(matrix.device)
            )
    results = []
    for forward in (trainer.model, trainer.forward):
        trainer.forward = forward
        loss = trainer.backward(batch).item()
        gradients = [p.grad.flatten().float() for p in trainer.parameters.values() if p.grad is not None]
        results.append((loss, torch.cat(gradients)))
        for parameter in trainer.parameters.values():
            parameter.grad = None
    (plain, g), (fused, h) = results
    cosine = torch.nn.functional.cosine_similarity(g, h, dim=0).item()
    if abs(plain - fused) > 2e-2 * abs(plain) or not cosine > 0.98:
        raise Failed(f"loss {plain:.4f} plain, {fused:.4f} compiled; gradients' cosine {cosine:.4f}")
    seen = f"loss {plain:.4f} and {fused:.4f}; gradients' cosine {cosine:.5f}"
    return [Passed("compiled against plain", seen, {"loss": plain, "compiled_loss": fused, "cosine": cosine})]


# Training


def _trainer(config: Config, vocab_size: int, place: Place) -> Trainer:
    trainer = Trainer(config, vocab_size, 0, Ranks(0, 1, place.device))
    if not place.compiled:
        trainer.forward = trainer.model
    return trainer


def _batch(trainer: Trainer, batch_tokens: int) -> data.Batch:
    stream = tokens(trainer.vocab_size, batch_tokens + data.LOGICAL_RANKS)
    loader = data.Stream(
        [("tokens", stream)], trainer.vocab_size, trainer.logical, trainer.config.train.seq_len
    )
    return loader.batch(batch_tokens)


def step_seconds(trainers: Sequence[Trainer], place: Place, batch_tokens: int) -> list[list[float]]:
    """Wall seconds of training steps of each trainer in its present phase, after warming up: the trainers
    take steps in turns, so that a machine whose speed drifts is the same for all."""
    batches, found = (
        [_batch(trainer, batch_tokens) for trainer in trainers],
        [list[float]() for _ in trainers],
    )
    for step in range(place.warm_up + place.steps):
        for trainer, batch, seconds in zip(trainers, batches, found, strict=True):
            work.synchronise(place.device)
            began = time.perf_counter()
            trainer.update(batch, TrainingProgress(step, 0.5))
            work.synchronise(place.device)
            seconds.append(time.perf_counter() - began)
    return [seconds[place.warm_up :] for seconds in found]


def _phases(config: Config) -> Iterator[tuple[str, Phase]]:
    yield "", Phase(looped=False, quantised=False)
    if config.model.loop_layers:
        yield ", recurrent", Phase(looped=True, quantised=False)


def training(name: str, config: Config, vocab_size: int, batch_tokens: int, place: Place) -> list[Passed]:
    """Steps of one GPU's share of a batch, in each phase: tokens a second, utilisation, memory, spread of
    step times."""
    trainer, rows = _trainer(config, vocab_size, place), []
    for label, phase in _phases(config):
        trainer.enter(phase)
        if place.device.type == "cuda":
            torch.cuda.reset_peak_memory_stats(place.device)
        (seconds,) = step_seconds([trainer], place, batch_tokens)
        median, top = statistics.median(seconds), peak(place.device)
        flops = work.flops_per_token(trainer.model, trainer.plan, config.train.seq_len)
        numbers = {
            "tokens_per_second": batch_tokens / median,
            "step_seconds": median,
            "slowest": max(seconds),
            "fastest": min(seconds),
            "flops_per_token": flops,
        }
        seen = (
            f"{numbers['tokens_per_second']:,.0f} tokens/s; step {median * 1e3:.1f} ms "
            f"({min(seconds) * 1e3:.1f} to {max(seconds) * 1e3:.1f}) of {batch_tokens:,} tokens"
        )
        if place.device.type == "cuda":
            numbers["peak_bytes"] = torch.cuda.max_memory_allocated(place.device)
            seen += f"; {numbers['peak_bytes'] / 2**30:.1f} GiB"
            if top:
                numbers["utilisation"] = batch_tokens / median * flops / top
                seen += f"; {numbers['utilisation']:.1%} of {top / 1e12:.0f} TFLOP/s"
            else:
                seen += "; this card's peak is not known here"
        rows.append(Passed(f"training {name}{label}", seen, numbers))
    return rows


def step_pairs(
    slow: tuple[Config, bool], fast: tuple[Config, bool], vocab_size: int, batch_tokens: int, place: Place
) -> tuple[list[float], list[float]]:
    """Seconds of steps of two (recipe, quantised) in turns: those of `slow`, those of `fast`."""
    trainers = []
    for config, quantised in (slow, fast):
        trainers.append(_trainer(config, vocab_size, place))
        trainers[-1].enter(Phase(looped=False, quantised=quantised))
    first, second = step_seconds(trainers, place, batch_tokens)
    return first, second


def overhead(
    name: str,
    with_it: Config,
    without: Config,
    vocab_size: int,
    batch_tokens: int,
    place: Place,
    quantised: bool,
    claim: str,
) -> list[Passed]:
    """Median step time with a technique over that without it, of steps in turns, and the range over pairs of
    steps."""
    first, second = step_pairs((with_it, quantised), (without, False), vocab_size, batch_tokens, place)
    medians, ratios = (
        [statistics.median(each) for each in (first, second)],
        [a / b for a, b in zip(first, second, strict=True)],
    )
    numbers = {
        "with": medians[0],
        "without": medians[1],
        "ratio": medians[0] / medians[1],
        "low": min(ratios),
        "high": max(ratios),
    }
    seen = (
        f"step {numbers['with'] * 1e3:.1f} ms with, {numbers['without'] * 1e3:.1f} ms without: "
        f"{numbers['ratio'] - 1:+.1%} "
        f"({numbers['low'] - 1:+.1%} to {numbers['high'] - 1:+.1%}; {claim})"
    )
    return [Passed(f"step time of {name}", seen, numbers)]


# Evaluation


def _model(config: Config, vocab_size: int, place: Place) -> GPT:
    kernel = kernels.choose(place.device, place.dtype)
    model = GPT(config.model, vocab_size, dtype=place.dtype, attention=kernel.name).to(place.device)
    initialise(model, config.model, 0)
    return model


def _projected(vocab_size: int, rate: float) -> tuple[str, dict[str, float]]:
    total = FULL_VALIDATION.get(vocab_size)
    if total is None:
        return "", {}
    seconds = total / rate / OFFICIAL_GPUS
    return f"; {seconds:.0f} s for all {total:,} tokens on {OFFICIAL_GPUS} GPUs", {
        "projected_seconds": seconds
    }


def sliding(name: str, config: Config, vocab_size: int, batches: int, place: Place) -> list[Passed]:
    """Tokens a second of the sliding evaluation, over so many batches of full windows, and the whole split's
    seconds."""
    cfg, model = config.score, _model(config, vocab_size, place)
    full = torch.compile(model, dynamic=False) if place.compiled else None
    predictor = Predictor(
        model, window=cfg.window, stride=cfg.stride, batch=cfg.batch_windows, device=place.device, full=full
    )
    start = -(-cfg.window // cfg.stride) * cfg.stride
    count = batches * cfg.batch_windows * cfg.stride
    buffer = TokenBuffer(0, tokens(vocab_size, start + count))

    def score(stop: int) -> np.ndarray:
        return predictor.nats(buffer, start, stop)

    score(start + cfg.stride * cfg.batch_windows)
    began = time.perf_counter()
    nats = score(start + count)
    rate = count / (time.perf_counter() - began)
    if not np.isfinite(nats).all():
        raise Failed("a number of the ledger is not finite")
    projected, more = _projected(vocab_size, rate)
    seen = f"{rate:,.0f} tokens/s (window {cfg.window}, stride {cfg.stride}){projected}"
    return [Passed(f"sliding evaluation {name}", seen, {"tokens_per_second": rate, **more})]


def adaptation(name: str, config: Config, vocab_size: int, place: Place) -> list[Passed]:
    """Tokens a second of learning from one scored chunk, all epochs of it, and the whole split's seconds."""
    model, n = _model(config, vocab_size, place), config.score.chunk_tokens
    forward = torch.compile(model, dynamic=False) if place.compiled else model
    learners = Adaptation(
        forward,
        model.parameters(),
        config.adapt,
        vocab_size=vocab_size,
        n_tokens=2 * n,
        chunk_tokens=n,
        ranks=Ranks(0, 1, place.device),
        micro_tokens=config.hardware.micro_tokens,
    )
    text = tokens(vocab_size, 2 * n)
    learners.adapt(Chunk(0, text[:n], None))
    work.synchronise(place.device)
    began = time.perf_counter()
    learners.adapt(Chunk(0, text[n:], int(text[n - 1])))
    work.synchronise(place.device)
    rate = n / (time.perf_counter() - began)
    if not all(torch.isfinite(parameter).all() for parameter in model.parameters()):
        raise Failed("a weight is not finite after learning")
    projected, more = _projected(vocab_size, rate)
    seen = f"{rate:,.0f} tokens/s in {config.adapt.epochs} epochs of {n:,} tokens{projected}"
    return [Passed(f"adaptation {name}", seen, {"tokens_per_second": rate, **more})]


def default_place(device: torch.device) -> Place:
    """The real sizes, in the arithmetic of the device."""
    return Place(device, dist.precision(Config(), device), compiled=device.type == "cuda")


def recipe(folder: Path) -> Config:
    """A submission's recipe, profile `record`."""
    return load((folder / "config.yaml").read_text(encoding="utf-8"), "record")
