"""Initial values of every parameter, by name, each from its own random stream.

A parameter's stream depends on the seed and its name alone, so switching a technique on or off leaves all other
parameters as they were, and ablations compare like with like. A name that no rule covers is an error.

Source: #586: orthogonal matrices (gain 1), output projections of both sub-layers at zero, tables N(0, 0.005). Its code
also scales output projections by 1 / sqrt(2 L), but only those that are not zero, of which there are none: left out.
"""

from __future__ import annotations

import hashlib
import math

import torch
from torch import Tensor, nn

from golf.schema import ModelConfig

CONSTANTS = {
    "attn_scale": 1.0,
    "mlp_scale": 1.0,
    "skip_weights": 1.0,
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


def initial(name: str, shape: torch.Size, cfg: ModelConfig, seed: int) -> Tensor:
    """The float32 start of one parameter, on the CPU. Raises ValueError for a name that no rule covers."""
    for ending, constant in CONSTANTS.items():
        if name.endswith(ending):
            return torch.full(shape, constant)
    if name.endswith("q_gain"):
        return torch.full(shape, cfg.q_gain)
    if name.endswith("resid_mix"):
        return torch.tensor([[1.0], [0.0]]).expand(shape).clone()
    if name.endswith(TABLES):
        return torch.empty(shape).normal_(0, cfg.embed_std, generator=_generator(seed, name))
    if name.endswith(".weight") and len(shape) == 2:
        return _matrix((shape[0], shape[1]), cfg.init, _generator(seed, name))
    raise ValueError(f"no rule initialises the parameter {name} of shape {list(shape)}")


@torch.no_grad()
def initialise(model: nn.Module, cfg: ModelConfig, seed: int) -> None:
    """Fill every parameter of a model in place; the same values on every device and rank."""
    for name, parameter in model.named_parameters():
        parameter.copy_(initial(name, parameter.shape, cfg, seed))
