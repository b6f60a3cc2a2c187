"""Small recipes shared by golf's tests: every technique on, or all but one."""

from __future__ import annotations

from pathlib import Path

import torch

from golf.model.gpt import GPT
from golf.model.init import initialise
from golf.recipe.config import Config, load
from golf.stages.describe import TECHNIQUES, Technique, without

ROOT = Path(__file__).resolve().parents[3]
SUBMISSION = ROOT / "submissions" / "hadamard-ve128" / "config.yaml"
V = 97

FULL = """
model: {layers: 5, width: 32, heads: 4, kv_heads: 2, mlp_hidden: 48, mlp_slope: 0.5, rope_dims: 4, q_rank: 6,
        ln_scale: true, skip_gates: true, parallel_last: 2, loop_layers: [1, 2], loop_passes: 1, xsa_last: 2,
        attn_gate: true, smear: true, bigram_buckets: 50, bigram_dim: 8, ve_dim: 6, ve_layers: [3, 4],
        init: orthogonal, overtone: true, phase_mix: true}
optim: {muon_variant: lerp, muon_equalise: true, muon_momentum_warmup: 0.5, muon_decay: 0.04,
        embed_decay: 0.04, scalar_decay: 0.02, clip: 0.3, warmup: 2, warmdown: 0.5, warmdown_shape: cosine,
        ema_fraction: 0.2}
train: {seq_len: 16, batch_tokens: 256, warmup_steps: 1, steps: 4, log_every: 2, loader: shuffled,
        loop_start: 0.5, qat_bits: 6, qat_start: 0.25}
stats: {hessian_batches: 2, fisher_batches: 2, row_score_every: 2}
quant: {embed_bits: 7, down_bits: 5, row_bits: true, allocate: true, target_bytes: 12000, awq: true,
        rotate: true, clip: search, fisher: true, floor: true, gptq: true, fp16_limit: 127, entropy: true,
        shuffle: 2}
score: {window: 32, stride: 8, chunk_tokens: 64, batch_windows: 4, align: documents}
adapt: {epochs: 2, seq_len: 16, batch_rows: 4, bias_lr: 0.1}
"""
"""Every technique on."""
MODEL_TECHNIQUES = [t for t in TECHNIQUES if any(path.startswith("model.") for path in t.neutral)]


def named(name: str) -> Technique:
    return next(technique for technique in TECHNIQUES if technique.name == name)


def config_without(name: str) -> Config:
    return load(without(named(name), FULL))


def lively(config: Config, seed: int = 0, vocab_size: int = V) -> GPT:
    """A model with initial values plus noise, so that every parameter and every path has an effect."""
    model = GPT(config.model, vocab_size)
    initialise(model, config.model, seed)
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            noise = torch.Generator().manual_seed(sum(name.encode()) + seed)
            parameter += 0.2 * torch.randn(parameter.shape, generator=noise)
    return model


def some_ids(rows: int, length: int, seed: int = 1) -> torch.Tensor:
    return torch.randint(V, (rows, length), generator=torch.Generator().manual_seed(seed))
