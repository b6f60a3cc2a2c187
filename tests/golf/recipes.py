"""Small recipes that the tests of golf share: everything on, and that with one technique off."""

from __future__ import annotations

from pathlib import Path

import torch

from golf.config import Config, load
from golf.describe import TECHNIQUES, Technique, without
from golf.model.gpt import GPT
from golf.model.init import initialise

ROOT = Path(__file__).resolve().parents[2]
SUBMISSION = ROOT / "submissions" / "hadamard-ve128" / "config.yaml"
V = 97

FULL = """
model: {layers: 5, width: 32, heads: 4, kv_heads: 2, mlp_hidden: 48, rope_dims: 4, ln_scale: true, xsa_last: 2,
        attn_gate: true, smear: true, bigram_buckets: 50, bigram_dim: 8, ve_dim: 6, ve_layers: [3, 4],
        init: orthogonal}
optim: {muon_variant: lerp, muon_momentum_warmup: 0.5, muon_decay: 0.04, adam_decay: 0.04, clip: 0.3,
        warmdown: 0.5, warmdown_shape: cosine, ema_fraction: 0.2}
train: {seq_len: 16, batch_tokens: 256, warmup_steps: 1, steps: 4, log_every: 2}
quant: {rotate: true, floor: true, fp16_limit: 127}
score: {window: 32, stride: 8, chunk_tokens: 64, batch_windows: 4}
"""
MODEL_TECHNIQUES = [t for t in TECHNIQUES if any(path.startswith("model.") for path in t.neutral)]


def named(name: str) -> Technique:
    return next(technique for technique in TECHNIQUES if technique.name == name)


def config_without(name: str) -> Config:
    return load(without(named(name), FULL))


def lively(config: Config, seed: int = 0, vocab_size: int = V) -> GPT:
    """A model none of whose parameters is trivial: initial values plus noise, so that every path carries signal."""
    model = GPT(config.model, vocab_size)
    initialise(model, config.model, seed)
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            noise = torch.Generator().manual_seed(sum(name.encode()) + seed)
            parameter += 0.2 * torch.randn(parameter.shape, generator=noise)
    return model


def some_ids(rows: int, length: int, seed: int = 1) -> torch.Tensor:
    return torch.randint(V, (rows, length), generator=torch.Generator().manual_seed(seed))
