"""golf's process for the record's SP8192 model: one GPU's share of a batch, in the phase of all visits."""

from __future__ import annotations

import contextlib
import time
from unittest import mock

import numpy as np
import torch

from golf.bench import work
from golf.bench.gpu import training
from golf.bench.gpu.results import Failed, Found
from golf.bench.gpu.settings import OFFICIAL_GPUS, Settings
from golf.bench.gpu.sliding import make_model, sliding
from golf.bench.gpu.worker import Requests
from golf.inference import deterministic
from golf.inference.adapt import Adaptation, Chunk
from golf.inference.stream import StreamSpec
from golf.optim.schedule import TrainingProgress
from golf.quant import stats
from golf.runtime import compilation
from golf.runtime.dist import Ranks
from golf.training import calibrate
from golf.training.phases import Phase

VOCABULARY = 8192
ROWS_A_RANK = 2
"""Rows of an adaptation step on each of 8 GPUs: 16 of a chunk of 32,768 tokens."""


def _as_before(allowed: bool) -> contextlib.AbstractContextManager[None]:
    """In place of the permission to use TF32: products stay in float32."""
    return contextlib.nullcontext()


class RecordModel:
    """Answers the call's questions about training, calibration, adaptation and evaluation of SP8192."""

    def __init__(self, settings: Settings) -> None:
        self.settings, self.config = settings, settings.record
        self.tokens = self.config.train.batch_tokens // OFFICIAL_GPUS
        began = time.monotonic()
        self.trainer = training.make_trainer(self.config, VOCABULARY, settings.device)
        self.trainer.enter(Phase(looped=True, quantised=False))
        self.trainer.update(training.synthetic(self.trainer, self.tokens), TrainingProgress(0, 0.5)).item()
        self.seconds = time.monotonic() - began

    def ready(self) -> Found:
        """The seconds until the training graph was compiled and had run once."""
        kernel = self.trainer.kernel
        seen = f"ready after {self.seconds:.1f} s: {len(self.trainer.plan)} visits to layers, attention "
        return Found(f"{seen}{kernel.name} ({kernel.why})", {"seconds": self.seconds})

    def steps(self) -> Found:
        """Training steps of one GPU's share of the batch."""
        return training.steps(self.trainer, self.tokens, self.settings.steps)

    def hessians(self) -> Found:
        """One batch of Hessians with TF32 products and without, and how far their numbers are apart."""
        batch, device = training.synthetic(self.trainer, self.tokens), self.settings.device
        results, seconds = [], []
        for products in (mock.patch.object(stats, "_tf32", _as_before), contextlib.nullcontext()):
            with products:
                calibrate.hessians(self.trainer, [batch])
                work.synchronise(device)
                began = time.perf_counter()
                results.append(calibrate.hessians(self.trainer, [batch]))
                work.synchronise(device)
                seconds.append(time.perf_counter() - began)
        apart = 0.0
        for name, measured in results[0].items():
            exact, found = measured.hessian_CC, results[1][name].hessian_CC
            assert exact is not None and found is not None
            apart = max(apart, ((exact - found).abs().max() / exact.abs().max()).item())
        seen = (
            f"{self.tokens:,} tokens: {seconds[0]:.3f} s in float32, {seconds[1]:.3f} s with TF32 allowed; "
            f"numbers at most {apart:.1e} of the largest apart"
        )
        return Found(seen, {"float32": seconds[0], "tf32": seconds[1], "apart": apart})

    def adaptation(self, compiled: bool) -> Found:
        """Seconds of an adaptation step on 2 rows, and whether two adaptations of equal weights are equal."""
        length, device = self.config.adapt.seq_len, self.settings.device
        n = ROWS_A_RANK * length
        text = np.random.default_rng(0).integers(0, VOCABULARY, 2 * n).astype(np.uint16)
        weights, seconds = [], 0.0
        compiled = compiled and compilation.wanted(device)
        for _ in range(2):
            model = make_model(self.config, VOCABULARY, device)
            forward = compilation.Compiled(model) if compiled else model
            stream = StreamSpec(VOCABULARY, n_tokens=2 * n, chunk_tokens=n)
            learners = Adaptation(forward, model.parameters(), self.config, stream, Ranks(0, 1, device))
            learners.warm_up(text[:n])
            work.synchronise(device)
            began = time.perf_counter()
            learners.adapt(Chunk(0, text[:n], None))
            work.synchronise(device)
            seconds = time.perf_counter() - began
            weights.append(torch.cat([p.detach().flatten() for p in model.parameters()]))
        if not torch.isfinite(weights[0]).all():
            raise Failed("a weight is not finite after learning")
        a_step, apart = seconds / self.config.adapt.epochs, (weights[0] - weights[1]).abs().max().item()
        seen = (
            f"{a_step * 1e3:.1f} ms a step of {ROWS_A_RANK} rows, {'compiled' if compiled else 'plain'}; two "
            f"adaptations of equal weights end {apart:.1e} apart"
        )
        return Found(seen, {"seconds_per_step": a_step, "apart": apart})

    def sliding(self, windows: int) -> Found:
        """The sliding evaluation of random tokens, with initial weights."""
        score, device = self.config.score, self.settings.device
        n = 2 * score.window + windows * score.stride
        tokens = np.random.default_rng(0).integers(0, VOCABULARY, n).astype(np.uint16)
        model = make_model(self.config, VOCABULARY, device)
        return sliding(model, self.config, tokens, windows, device)


def serve(requests: Requests, settings: Settings) -> None:
    """The work of this model's process."""
    settings.limit_threads()
    deterministic.fix_workspace(settings.record, settings.device)
    requests.serve_all(RecordModel(settings))
