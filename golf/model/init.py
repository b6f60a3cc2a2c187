"""Initial value of each parameter, by name, each from a random generator of its own.

The generator depends only on the seed and the parameter's name. Switching a technique on or off therefore
does not change the other parameters' initial values, which keeps ablations comparable. A name without a
rule is an error, which describe finds without making a tensor.

Source: #586: orthogonal matrices (gain 1), output projections of both sub-layers zero, tables N(0, 0.005).
Its code also scales non-zero output projections by 1 / sqrt(2 layers); there are none, so this is left out.
#1493 makes only matrices of at least 64 by 64 orthogonal, which is every matrix of its model; here smaller
ones are orthogonal too, like the head gates of #586.
"""

from __future__ import annotations

import hashlib
import math
from collections.abc import Callable

import torch
from torch import Tensor, nn

from golf.recipe.schema import ModelConfig
from golf.runtime.errors import StageError

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


def _table(shape: torch.Size, std: float, random: torch.Generator) -> Tensor:
    return torch.empty(shape).normal_(0, std, generator=random)


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


def _residual_mix(layer: int, cfg: ModelConfig) -> Tensor:
    return phase_mix(layer, cfg.layers) if cfg.phase_mix else torch.tensor([[1.0], [0.0]])


def rule_for(name: str, shape: torch.Size, cfg: ModelConfig) -> Callable[[torch.Generator], Tensor]:
    """Generator -> a parameter's initial value, without making it. Raises StageError if no rule fits."""
    for suffix, constant in CONSTANTS.items():
        if name.endswith(suffix):
            return lambda random: torch.full(shape, constant)
    if name.endswith("q_gain"):
        return lambda random: torch.full(shape, cfg.q_gain)
    if name.endswith("resid_mix"):
        return lambda random: _residual_mix(int(name.split(".")[1]), cfg).expand(shape).clone()
    if name == "tok_emb.weight" and cfg.overtone:
        return lambda random: overtone(_table(shape, cfg.embed_std, random))
    if name.endswith(TABLES):
        return lambda random: _table(shape, cfg.embed_std, random)
    if name.endswith(".weight") and len(shape) == 2:
        return lambda random: _matrix((shape[0], shape[1]), cfg.init, random)
    raise StageError(
        f"no rule initialises the parameter {name} of shape {list(shape)}; add one to CONSTANTS or rule_for "
        "in golf/model/init.py"
    )


def initial(name: str, shape: torch.Size, cfg: ModelConfig, seed: int) -> Tensor:
    """Initial value of one parameter, float32 on the CPU. Raises StageError for a name without a rule."""
    return rule_for(name, shape, cfg)(_generator(seed, name))


@torch.no_grad()
def initialise(model: nn.Module, cfg: ModelConfig, seed: int) -> None:
    """Fill every parameter of a model in place, with the same values on every device and rank."""
    for name, parameter in model.named_parameters():
        parameter.copy_(initial(name, parameter.shape, cfg, seed))
