"""A tiny recipe, weights and statistics for the tests of packing, and ways to open an artifact."""

from __future__ import annotations

import dataclasses

import numpy as np
import torch

from golf.model.gpt import GPT
from golf.model.init import initialise
from golf.quant.stats import TensorStats
from golf.recipe.config import Config, load
from golf.stages import pack
from golf.storage import arrays, codec
from golf.training import checkpoint
from tests.golf.fakes.matrices import gaussian, inputs

V = 64
TINY = """
model: {layers: 3, width: 48, heads: 4, kv_heads: 2, mlp_hidden: 96, bigram_buckets: 32, bigram_dim: 16,
        smear: true, ve_dim: 16, ve_layers: [2], attn_gate: true, xsa_last: 1, init: orthogonal}
quant: {rotate: true, floor: true, fp16_limit: 400}
score: {window: 32, stride: 8, chunk_tokens: 64, batch_windows: 3}
"""


def config_of(text: str = TINY, **quant: object) -> Config:
    config = load(text)
    return dataclasses.replace(config, quant=dataclasses.replace(config.quant, **quant))


def weights_of(config: Config, seed: int = 0) -> dict[str, torch.Tensor]:
    """Weights as after training: no tensor is all zeros or ones."""
    model = GPT(config.model, V)
    initialise(model, config.model, seed)
    random = torch.Generator().manual_seed(seed)
    return {
        name: tensor + 0.05 * torch.randn(tensor.shape, generator=random)
        for name, tensor in model.state_dict().items()
    }


def statistics_of(config: Config) -> dict[str, TensorStats]:
    """Synthetic statistics of everything that the recipe measures."""
    found = {}
    for seed, (name, shapes) in enumerate(checkpoint.statistics_of(config, V).items()):
        stats = TensorStats()
        if "hessian" in shapes:
            x_NC = inputs(shapes["activation"][0], seed=seed, spread=0.3)
            stats = stats._replace(hessian_CC=x_NC.T @ x_NC / len(x_NC), activation_C=x_NC.abs().mean(dim=0))
        if "fisher" in shapes:
            rows, columns = shapes["fisher"]
            fisher_RC = gaussian(rows, columns, seed).square() * gaussian(rows, 1, seed + 1).exp()
            stats = stats._replace(fisher_RC=1e-6 * fisher_RC)
        if "row_score" in shapes:
            stats = stats._replace(row_score_R=gaussian(1, *shapes["row_score"], seed)[0].abs())
        found[name] = stats
    return found


NO_LIMIT = 1 << 24
"""A byte limit that nothing here reaches."""
CONFIG = config_of()
WEIGHTS = weights_of(CONFIG)
FULL = TINY.replace(
    "init: orthogonal}",
    "init: orthogonal}\ntrain: {seq_len: 16, batch_tokens: 128}\n"
    "stats: {hessian_batches: 1, fisher_batches: 1, row_score_every: 1}",
).replace(
    "quant: {rotate: true, floor: true,",
    "quant: {embed_bits: 7, down_bits: 5, row_bits: true, allocate: true, awq: true, rotate: true,\n"
    "        clip: search, fisher: true, floor: true, gptq: true, entropy: true, shuffle: 2,\n"
    "        codec: brotli, level: 9,",
)
"""Every technique of the quantiser at once."""


def pack_and_read(config: Config, limit: int = NO_LIMIT) -> tuple[bytes, dict[str, torch.Tensor], list[str]]:
    """Artifact, the weights read from it, and the lines of the log."""
    lines: list[str] = []
    data = pack.to_artifact(WEIGHTS, statistics_of(config), config, limit, lines.append)
    return data, pack.from_artifact(data, config, V), lines


def arrays_of(data: bytes, config: Config) -> dict[str, np.ndarray]:
    body = codec.CODECS[config.quant.codec][1](data, NO_LIMIT)
    return arrays.from_bytes(codec.unshuffle(body, config.quant.shuffle))[1]


def drop(content: dict, name: str) -> dict:
    return {key: array for key, array in content.items() if key != name}
