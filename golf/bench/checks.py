"""The checks that run on a GPU: each is a function of `CheckSettings` that returns rows for the table.

A check raises `Failed` for a failure that fits on a line; any other exception is a failure too
(golf/bench/gpu.py catches all). Nothing here names a device, so every check also runs on a CPU, at the tiny
sizes of tests. The text is synthetic. Seconds projected for 8 GPUs assume perfect scaling. Bits per byte need
a full training and are not checked.
"""

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
from golf.inference.stream import StreamSpec
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
"""Largest allowed error of an attention kernel against float32, relative to the largest number."""
PEAK_BFLOAT16 = {
    "H100 80GB HBM3": 989e12,
    "H100 SXM": 989e12,
    "H100 PCIe": 756e12,
    "H200": 989e12,
    "A100": 312e12,
    "L40S": 362e12,
    "RTX 4090": 165e12,
}
"""Part of a card's name -> dense bfloat16 operations per second, from the data sheets."""
FULL_VALIDATION = {1024: 62_021_846, 8192: 40_540_803}
"""Vocabulary size -> tokens of the official validation split."""
OFFICIAL_GPUS = 8


class Failed(Exception):
    """A check failed; the message says why."""


class Passed(NamedTuple):
    """A check that passed, or a part of one: what was seen, as a line and as numbers."""

    name: str
    seen: str
    numbers: dict[str, float]


@dataclass(frozen=True)
class CheckSettings:
    """Where the checks run, and at what size."""

    device: torch.device
    dtype: torch.dtype
    compiled: bool
    steps: int = 10
    warm_up: int = 3
    attention_shape: tuple[int, int, int, int, int] = (4, 2048, 8, 4, 64)
    """B, T, H, K, E."""


def peak(device: torch.device) -> float | None:
    """The card's bfloat16 peak in operations per second; None if unknown."""
    name = torch.cuda.get_device_name(device) if device.type == "cuda" else ""
    return next((rate for part, rate in PEAK_BFLOAT16.items() if part in name), None)


def tokens(vocab_size: int, n: int) -> np.ndarray:
    """n random tokens, uint16."""
    return np.random.default_rng(0).integers(0, vocab_size, n).astype(np.uint16)


# Attention kernels against the definition


def _attention_runs(name: str, settings: CheckSettings) -> tuple[list[Tensor], list[Tensor], float]:
    """Output and gradients of q, k, v by the reference and by a kernel on the same numbers; its seconds."""
    rows, length, heads, key_heads, head_dim = settings.attention_shape
    random = torch.Generator().manual_seed(0)
    sizes = (heads, key_heads, key_heads, heads)
    *inputs, dy = (
        torch.randn(rows, length, n, head_dim, generator=random).to(settings.device, settings.dtype)
        for n in sizes
    )

    def run(attend: Attend, dtype: torch.dtype) -> list[Tensor]:
        leaves = [x.to(dtype, copy=True).requires_grad_(True) for x in inputs]
        y = attend(*leaves)
        return [y.detach(), *torch.autograd.grad(y, leaves, dy.to(dtype))]

    exact, found = run(attend_reference, torch.float32), run(ATTENTION[name], settings.dtype)
    seconds = work.best_seconds(lambda: run(ATTENTION[name], settings.dtype), settings.device)
    return exact, found, seconds


def attention(name: str, settings: CheckSettings) -> list[Passed]:
    """One kernel, forward and backward, against the float32 definition."""
    if settings.device.type == "cuda":
        kernels.allow(name)
    try:
        exact, found, seconds = _attention_runs(name, settings)
    except ImportError as error:
        return [Passed(f"attention {name}", f"not there: {error}", {})]
    errors = [((b.float() - a).abs().max() / a.abs().max()).item() for a, b in zip(exact, found, strict=True)]
    if not max(errors) <= TOLERANCE[settings.dtype]:
        raise Failed(
            f"errors of y, dq, dk, dv {', '.join(f'{e:.1e}' for e in errors)} above "
            f"{TOLERANCE[settings.dtype]:.0e}"
        )
    seen = (
        f"largest error {max(errors):.1e} of the largest number; forward and backward {seconds * 1e3:.2f} ms"
    )
    return [Passed(f"attention {name}", seen, {"error": max(errors), "seconds": seconds})]


# Compiled against plain


def compiled_forward(config: Config, vocab_size: int, settings: CheckSettings) -> list[Passed]:
    """The compiled forward against the plain one: loss, and direction of the gradient; no matrix is zero."""
    trainer = _trainer(
        replace(config, hardware=replace(config.hardware, micro_tokens=config.train.seq_len)),
        vocab_size,
        settings,
    )
    batch = _batch(trainer, config.train.seq_len * data.LOGICAL_RANKS)
    with torch.no_grad():
        for matrix in trainer.matrices.values():
            matrix.add_(
                0.02 * torch.randn(matrix.shape, generator=torch.Generator().manual_seed(0)).to(matrix.device)
            )
    results = []
    for loss_of in (trainer.model.loss, trainer.loss):
        trainer.loss = loss_of
        loss = trainer.backward(batch).item()
        gradients = [p.grad.flatten().float() for p in trainer.parameters.values() if p.grad is not None]
        results.append((loss, torch.cat(gradients)))
        trainer.optimizer.gradients.zero()
    (plain, g), (fused, h) = results
    cosine = torch.nn.functional.cosine_similarity(g, h, dim=0).item()
    if abs(plain - fused) > 2e-2 * abs(plain) or not cosine > 0.98:
        raise Failed(f"loss {plain:.4f} plain, {fused:.4f} compiled; gradients' cosine {cosine:.4f}")
    seen = f"loss {plain:.4f} and {fused:.4f}; gradients' cosine {cosine:.5f}"
    return [Passed("compiled against plain", seen, {"loss": plain, "compiled_loss": fused, "cosine": cosine})]


# Training


def _trainer(config: Config, vocab_size: int, settings: CheckSettings) -> Trainer:
    trainer = Trainer(config, vocab_size, 0, Ranks(0, 1, settings.device))
    if not settings.compiled:
        trainer.loss = trainer.model.loss
    return trainer


def _batch(trainer: Trainer, batch_tokens: int) -> data.Batch:
    stream = tokens(trainer.vocab_size, batch_tokens + data.LOGICAL_RANKS)
    loader = data.Stream(
        [("tokens", stream)], trainer.vocab_size, trainer.logical, trainer.config.train.seq_len
    )
    return loader.batch(batch_tokens)


def step_seconds(
    trainers: Sequence[Trainer], settings: CheckSettings, batch_tokens: int
) -> list[list[float]]:
    """Wall seconds of training steps of each trainer in its current phase, after a warm-up.

    The trainers take steps alternately, so that drift of the machine's speed affects all alike.
    """
    batches = [_batch(trainer, batch_tokens) for trainer in trainers]
    found = [list[float]() for _ in trainers]
    for step in range(settings.warm_up + settings.steps):
        for trainer, batch, seconds in zip(trainers, batches, found, strict=True):
            work.synchronise(settings.device)
            began = time.perf_counter()
            trainer.update(batch, TrainingProgress(step, 0.5))
            work.synchronise(settings.device)
            seconds.append(time.perf_counter() - began)
    return [seconds[settings.warm_up :] for seconds in found]


def _phases(config: Config) -> Iterator[tuple[str, Phase]]:
    yield "", Phase(looped=False, quantised=False)
    if config.model.loop_layers:
        yield ", recurrent", Phase(looped=True, quantised=False)


def training(
    name: str, config: Config, vocab_size: int, batch_tokens: int, settings: CheckSettings
) -> list[Passed]:
    """Steps with one GPU's share of a batch, in each phase: tokens per second, utilisation, memory."""
    trainer, rows = _trainer(config, vocab_size, settings), []
    for label, phase in _phases(config):
        trainer.enter(phase)
        if settings.device.type == "cuda":
            torch.cuda.reset_peak_memory_stats(settings.device)
        (seconds,) = step_seconds([trainer], settings, batch_tokens)
        median, top = statistics.median(seconds), peak(settings.device)
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
        if settings.device.type == "cuda":
            numbers["peak_bytes"] = torch.cuda.max_memory_allocated(settings.device)
            seen += f"; {numbers['peak_bytes'] / 2**30:.1f} GiB"
            if top:
                numbers["utilisation"] = batch_tokens / median * flops / top
                seen += f"; {numbers['utilisation']:.1%} of {top / 1e12:.0f} TFLOP/s"
            else:
                seen += "; this card's peak is not known here"
        rows.append(Passed(f"training {name}{label}", seen, numbers))
    return rows


@dataclass(frozen=True)
class StepCost:
    """A technique whose cost in step time is measured, and what is claimed about it."""

    name: str
    with_it: Config
    without: Config
    claim: str
    quantised: bool = False
    """Whether the steps with the technique are in the quantised phase."""


def overhead(cost: StepCost, vocab_size: int, batch_tokens: int, settings: CheckSettings) -> list[Passed]:
    """Ratio of median step times with and without a technique, and its range over pairs of steps."""
    trainers = []
    for config, quantised in ((cost.with_it, cost.quantised), (cost.without, False)):
        trainers.append(_trainer(config, vocab_size, settings))
        trainers[-1].enter(Phase(looped=False, quantised=quantised))
    first, second = step_seconds(trainers, settings, batch_tokens)
    medians = [statistics.median(each) for each in (first, second)]
    ratios = [a / b for a, b in zip(first, second, strict=True)]
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
        f"({numbers['low'] - 1:+.1%} to {numbers['high'] - 1:+.1%}; {cost.claim})"
    )
    return [Passed(f"step time of {cost.name}", seen, numbers)]


# Evaluation


def _model(config: Config, vocab_size: int, settings: CheckSettings) -> GPT:
    calls = kernels.scoring_calls(config)
    kernel = kernels.choose(settings.device, settings.dtype, config, calls)
    model = GPT(config.model, vocab_size, dtype=settings.dtype, attention=kernel.name).to(settings.device)
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


def sliding(
    name: str, config: Config, vocab_size: int, batches: int, settings: CheckSettings
) -> list[Passed]:
    """Tokens per second of the sliding evaluation over some batches of full windows; the split's seconds."""
    cfg, model = config.score, _model(config, vocab_size, settings)
    full = torch.compile(model, dynamic=False) if settings.compiled else None
    predictor = Predictor(
        model,
        window=cfg.window,
        stride=cfg.stride,
        batch=cfg.batch_windows,
        device=settings.device,
        full=full,
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


def adaptation(name: str, config: Config, vocab_size: int, settings: CheckSettings) -> list[Passed]:
    """Tokens per second of learning from a scored chunk, with all epochs; the split's seconds."""
    model, n = _model(config, vocab_size, settings), config.score.chunk_tokens
    forward = torch.compile(model, dynamic=False) if settings.compiled else model
    learners = Adaptation(
        forward,
        model.parameters(),
        config,
        StreamSpec(vocab_size, n_tokens=2 * n, chunk_tokens=n),
        Ranks(0, 1, settings.device),
    )
    text = tokens(vocab_size, 2 * n)
    learners.adapt(Chunk(0, text[:n], None))
    work.synchronise(settings.device)
    began = time.perf_counter()
    learners.adapt(Chunk(0, text[n:], int(text[n - 1])))
    work.synchronise(settings.device)
    rate = n / (time.perf_counter() - began)
    if not all(torch.isfinite(parameter).all() for parameter in model.parameters()):
        raise Failed("a weight is not finite after learning")
    projected, more = _projected(vocab_size, rate)
    seen = f"{rate:,.0f} tokens/s in {config.adapt.epochs} epochs of {n:,} tokens{projected}"
    return [Passed(f"adaptation {name}", seen, {"tokens_per_second": rate, **more})]


def default_settings(device: torch.device) -> CheckSettings:
    """The real sizes, in the device's own precision."""
    return CheckSettings(device, dist.precision(Config(), device), compiled=device.type == "cuda")


def submission_recipe(folder: Path) -> Config:
    """A submission's recipe in profile `record`."""
    return load((folder / "config.yaml").read_text(encoding="utf-8"), "record")
