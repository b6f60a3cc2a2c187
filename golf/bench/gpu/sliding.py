"""Time golf's sliding evaluation: microseconds a token over some batches of full windows."""

from __future__ import annotations

import time

import numpy as np
import torch

from golf.bench.gpu.results import Failed, Found
from golf.bench.gpu.settings import OFFICIAL_GPUS
from golf.inference.predict import Predictor
from golf.inference.windows import TokenBuffer
from golf.model import kernels
from golf.model.gpt import GPT
from golf.model.init import initialise
from golf.recipe.schema import Config
from golf.runtime import compilation, dist

FULL_VALIDATION = {1024: 62_021_846, 8192: 40_540_803}
"""Vocabulary size -> tokens of the official validation split."""


def make_model(config: Config, vocab_size: int, device: torch.device) -> GPT:
    """An initialised model in the device's own precision."""
    dtype = dist.precision(config, device)
    kernel = kernels.choose(device, dtype, config, kernels.scoring_calls(config))
    model = GPT(config.model, vocab_size, dtype=dtype, attention=kernel.name).to(device)
    initialise(model, config.model, 0)
    return model


def sliding(model: GPT, config: Config, tokens: np.ndarray, windows: int, device: torch.device) -> Found:
    """Score that many full windows, after one batch that compiles; projected seconds assume 8 equal GPUs.

    Raises Failed for a number that is not finite.
    """
    cfg = config.score
    compiled = compilation.Compiled(model) if compilation.wanted(device) else None
    predictor = Predictor(
        model, window=cfg.window, stride=cfg.stride, batch=cfg.batch_windows, device=device, full=compiled
    )
    start = -(-cfg.window // cfg.stride) * cfg.stride
    count = min(windows * cfg.stride, (len(tokens) - start) // cfg.stride * cfg.stride)
    buffer = TokenBuffer(0, tokens[: start + count])

    def score(stop: int) -> np.ndarray:
        return predictor.nats(buffer, start, stop)

    began = time.perf_counter()
    predictor.warm_up()
    score(min(start + cfg.stride * cfg.batch_windows, start + count))
    warming = time.perf_counter() - began
    began = time.perf_counter()
    nats = score(start + count)
    a_token = (time.perf_counter() - began) / count
    if not np.isfinite(nats).all():
        raise Failed("a number of the ledger is not finite")
    numbers = {"seconds_per_token": a_token, "warm_up_seconds": warming, "nats": float(nats.mean())}
    seen = (
        f"{a_token * 1e6:.2f} microseconds a token: {count // cfg.stride} windows of {cfg.window}, stride "
        f"{cfg.stride}; the warm-up took {warming:.1f} s"
    )
    total = FULL_VALIDATION.get(model.tok_emb.weight.shape[0])
    if total and device.type == "cuda":
        numbers["projected_seconds"] = total * a_token / OFFICIAL_GPUS
        seen += (
            f"; {numbers['projected_seconds']:.0f} s for all {total:,} tokens on {OFFICIAL_GPUS} such GPUs"
        )
    return Found(seen, numbers)
