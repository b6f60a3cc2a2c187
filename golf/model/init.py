"""Initial value of each parameter, by name, each from a random generator of its own.

The generator depends only on the seed and the parameter's name. Switching a technique on or off therefore
does not change the other parameters' initial values, which keeps ablations comparable. A name without a
rule is an error.

Source: #586: orthogonal matrices (gain 1), output projections of both sub-layers zero, tables N(0, 0.005).
Its code also scales non-zero output projections by 1 / sqrt(2 layers); there are none, so this is left out.
#1493 makes only matrices of at least 64 by 64 orthogonal, which is every matrix of its model; here smaller
ones are orthogonal too, like the head gates of #586.
"""

from __future__ import annotations

import hashlib
import math

import torch
from torch import Tensor, nn

from golf.recipe.schema import ModelConfig

CONSTANTS = {
    "attn_scale": 1.0,
    "mlp_scale": 1.0,
    "skip_weights": 1.0,
    "skip_gates": 0.0,
    "smear.gate": 0.0,
    "value_embedding.scales": 0.1,
    "attn.out.weight": 0.0,
    "mlp.down.weight": 0.0,
}
TABLES = ("tok_emb.weight", "table.weight")


def _generator(seed: int, name: str) -> torch.Generator:
    key = hashlib.sha256(f"{seed}:{name}".encode()).digest()
    return torch.Generator().manual_seed(int.from_bytes(key[:8], "little") >> 1)


def _matrix(shape: tuple[int, int], scheme: str, random: torch.Generator) -> Tensor:
    """W_RC: orthogonal (rows or columns orthonormal, whichever are fewer), or uniform in +-1/sqrt(C)."""
    if scheme == "orthogonal":
        return nn.init.orthogonal_(torch.empty(shape), generator=random)
    return torch.empty(shape).uniform_(-1, 1, generator=random) / math.sqrt(shape[1])


def overtone(table_VD: Tensor) -> Tensor:
    """Overtone init: the table with its k-th singular value replaced by the largest one / sqrt(k), k from 1.

    Trained embeddings have such a power-law spectrum. The singular vectors are unchanged. Source: #316.
    """
    left, singular_values, right = torch.linalg.svd(table_VD, full_matrices=False)
    return left * (singular_values[0] * torch.arange(1, len(singular_values) + 1).rsqrt()) @ right


def phase_mix(layer: int, layers: int) -> Tensor:
    """mix_21: initial weights of residual stream and embedding; the embedding weighs more in early layers.

        [p, 1 - p] with p = sigmoid(3 (layer / (layers - 1) - 1/2)); a single layer counts as the first

    Neutral: off, [1, 0]. Source: #316.
    """
    p = torch.sigmoid(torch.tensor(3 * (layer / max(layers - 1, 1) - 0.5)))
    return torch.stack([p, 1 - p])[:, None]


def initial(name: str, shape: torch.Size, cfg: ModelConfig, seed: int) -> Tensor:
    """Initial value of one parameter, float32 on the CPU. Raises ValueError for a name without a rule."""
    for suffix, constant in CONSTANTS.items():
        if name.endswith(suffix):
            return torch.full(shape, constant)
    if name.endswith("q_gain"):
        return torch.full(shape, cfg.q_gain)
    if name.endswith("resid_mix"):
        mix_21 = (
            phase_mix(int(name.split(".")[1]), cfg.layers) if cfg.phase_mix else torch.tensor([[1.0], [0.0]])
        )
        return mix_21.expand(shape).clone()
    if name.endswith(TABLES):
        table = torch.empty(shape).normal_(0, cfg.embed_std, generator=_generator(seed, name))
        return overtone(table) if cfg.overtone and name == "tok_emb.weight" else table
    if name.endswith(".weight") and len(shape) == 2:
        return _matrix((shape[0], shape[1]), cfg.init, _generator(seed, name))
    raise ValueError(f"no rule initialises the parameter {name} of shape {list(shape)}")


@torch.no_grad()
def initialise(model: nn.Module, cfg: ModelConfig, seed: int) -> None:
    """Fill every parameter of a model in place, with the same values on every device and rank."""
    for name, parameter in model.named_parameters():
        parameter.copy_(initial(name, parameter.shape, cfg, seed))
