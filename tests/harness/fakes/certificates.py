"""Scores and responses for tests of the certificate: a plain predictor's losses on made-up tokens."""

from __future__ import annotations

import numpy as np

from harness.scoring.certificate import reference_model
from harness.scoring.certificate.responses import Responses
from harness.scoring.certificate.sampling import Floats, ReportedScore, SamplingPlan

SEED = bytes(range(32))
VOCAB = 64


def scored_text(n_tokens: int = 20_000, seed: int = 0, chunk_tokens: int = 256) -> ReportedScore:
    """A text with structure to learn (a noisy walk over the vocabulary) and the nats of a strict
    predictor that knows the walk.
    """
    rng = np.random.default_rng(seed)
    steps = np.where(rng.random(n_tokens) < 0.6, 1, rng.integers(0, VOCAB, n_tokens))
    tokens_T = (steps.cumsum() % VOCAB).astype(np.uint16)
    p_T = 0.4 / VOCAB + 0.6 * (np.diff(tokens_T.astype(int), prepend=0) % VOCAB == 1)
    nats_T = -np.log(p_T).astype(np.float32)
    nats_T[0] = 0
    return ReportedScore(
        tokens_T, nats_T, reference_model.probabilities(tokens_T, VOCAB), 2 * n_tokens, chunk_tokens
    )


def responses(plan: SamplingPlan, nats_T: Floats) -> Responses:
    """The responses of a witness with this loss at each token; NaN: no answer there."""
    nats_P = nats_T[plan.asked_P].astype(np.float64)
    return Responses(np.nan_to_num(nats_P, posinf=np.inf), np.where(np.isnan(nats_P), np.nan, 1e-6))


def noise(seed: int, sd: float, n: int = 4_000) -> Floats:
    """n normal values."""
    return np.random.default_rng(seed).normal(0, sd, n)
