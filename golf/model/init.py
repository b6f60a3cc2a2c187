"""Initial values of every parameter, by name, each from its own random stream.

A parameter's stream depends on the seed and its name alone, so switching a technique on or off leaves all
other parameters as they were, and ablations compare like with like. A name that no rule covers is an error.

Source: #586: orthogonal matrices (gain 1), output projections of both sub-layers at zero, tables N(0, 0.005).
Its code also scales output projections by 1 / sqrt(2 L), but only those that are not zero, of which there are
none: left out. #1493 makes only matrices of at least 64 by 64 orthogonal, which are all that its model has;
ours makes smaller ones orthogonal too, as #586 does with the weights of its head gates."""

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


def _matrix(shape: tuple[int, int], how: str, random: torch.Generator) -> Tensor:
    """W_RC: orthogonal (rows or columns orthonormal, whichever are fewer), or uniform in +-1/sqrt(C)."""
    if how == "orthogonal":
        return nn.init.orthogonal_(torch.empty(shape), generator=random)
    return torch.empty(shape).uniform_(-1, 1, generator=random) / math.sqrt(shape[1])


def overtone(table_VD: Tensor) -> Tensor:
    """The table with its k-th singular value replaced by the largest one / sqrt(k), k = 1 .. min(V, D); same
    vectors.

    Overtone init: a spectrum that falls off like a power law, as those of trained embeddings do. Source:
    #316."""
    left, values_K, right = torch.linalg.svd(table_VD, full_matrices=False)
    return left * (values_K[0] * torch.arange(1, len(values_K) + 1).rsqrt()) @ right


def phase_mix(layer: int, layers: int) -> Tensor:
    """[p, 1 - p] with p = sigmoid(3 (layer / (layers - 1) - 1/2)), mix_21: shares of the stream and of the
    embedding.

    Early layers start leaning on the embedding, late ones on the stream; a single layer counts as the first.
    Neutral: off, [1, 0]. Source: #316.
    """
    share = torch.sigmoid(torch.tensor(3 * (layer / max(layers - 1, 1) - 0.5)))
    return torch.stack([share, 1 - share])[:, None]


def initial(name: str, shape: torch.Size, cfg: ModelConfig, seed: int) -> Tensor:
    """The float32 start of one parameter, on the CPU. Raises ValueError for a name that no rule covers."""
    for ending, constant in CONSTANTS.items():
        if name.endswith(ending):
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
    """Fill every parameter of a model in place; the same values on every device and rank."""
    for name, parameter in model.named_parameters():
        parameter.copy_(initial(name, parameter.shape, cfg, seed))
