"""Assign each parameter to an optimizer, and step all of them.

Routing (source: #586): Muon updates the matrices inside blocks. AdamW updates the token embedding, which
is also the output head, with its own rate, and everything else with another: vectors, gains, mixes,
skips, the bigram and value tables and their projections. `route` maps each name to one group, so no
parameter is in two.
"""

from __future__ import annotations

from collections.abc import Iterable

import torch
from torch import Tensor, nn

from golf.optim.gradients import FlatGradients
from golf.optim.muon import Muon, MuonOptions
from golf.optim.schedule import TrainingProgress, learning_rate, warmup
from golf.recipe.schema import OptimConfig
from golf.runtime.dist import ALONE, Ranks

NOT_A_WEIGHT_MATRIX = ("resid_mix",)
"""Two-dimensional parameters of a block that are stacked vectors."""


def route(name: str, parameter: Tensor) -> str:
    """The group of a parameter: "muon", "embed" or "scalar"."""
    if name == "tok_emb.weight":
        return "embed"
    matrix = name.startswith("blocks.") and parameter.ndim == 2 and not name.endswith(NOT_A_WEIGHT_MATRIX)
    return "muon" if matrix else "scalar"


class Optimizer:
    """Muon and AdamW over named parameters, whose gradients become views of `gradients`.

    `dtype` is the arithmetic of Muon's iteration. On a GPU, the ranks also exchange in it the updates of
    matrices and, with `banks` (golf/optim/gradients.py), their gradients; on a CPU they do so in float32.
    """

    def __init__(
        self,
        parameters: Iterable[tuple[str, nn.Parameter]],
        cfg: OptimConfig,
        *,
        dtype: torch.dtype = torch.float32,
        ranks: Ranks = ALONE,
        banks: bool = True,
    ) -> None:
        self.cfg = cfg
        self.groups: dict[str, list[nn.Parameter]] = {"muon": [], "embed": [], "scalar": []}
        self.names: dict[Tensor, str] = {}
        for name, parameter in parameters:
            self.groups[route(name, parameter)].append(parameter)
            self.names[parameter] = name
        options = MuonOptions(
            variant=cfg.muon_variant,
            decay=cfg.muon_decay,
            steps=cfg.muon_steps,
            equalise=cfg.muon_equalise,
            dtype=dtype,
        )
        others = [*self.groups["embed"], *self.groups["scalar"]]
        exchange = dtype if ranks.device.type == "cuda" else torch.float32
        self.gradients = FlatGradients(self.groups["muon"], others, ranks, banks=banks, exchange=exchange)
        self.muon = Muon(self.gradients, options)
        self.rates = {"embed": cfg.embed_lr, "scalar": cfg.scalar_lr}
        decays = {"embed": cfg.embed_decay, "scalar": cfg.scalar_decay}
        self.adam = torch.optim.AdamW(
            [
                {"params": self.groups[name], "name": name, "weight_decay": decays[name]}
                for name in self.rates
            ],
            betas=(cfg.beta1, cfg.beta2),
            eps=cfg.adam_eps,
            fused=True,
        )
        for parameter in others:
            # AdamW creates this state at its first step. Created here, `state` always has the same entries.
            moments = {key: torch.zeros_like(parameter) for key in ("exp_avg", "exp_avg_sq")}
            self.adam.state[parameter] = {"step": torch.zeros((), device=parameter.device), **moments}

    def state(self) -> dict[str, Tensor]:
        """All optimizer state by name; the tensors themselves, not copies."""
        buffers = {f"muon_{rows}x{columns}": buffer for (rows, columns), buffer in self.muon.buffers.items()}
        return buffers | {
            f"{self.names[parameter]}:{key}": tensor
            for parameter, state in self.adam.state.items()
            for key, tensor in state.items()
        }

    def step(self, now: TrainingProgress) -> None:
        """Average the gradients over the ranks, clip them, update every parameter at the scheduled rates, and
        clear the gradients.
        """
        cfg = self.cfg
        rate = learning_rate(now, cfg)
        momentum = warmup(now, cfg.muon_momentum_warmup, cfg.muon_momentum_start, cfg.muon_momentum)
        self.gradients.reduce()
        if cfg.clip:
            self.gradients.clip(cfg.clip)
        for group in self.adam.param_groups:
            group["lr"] = self.rates[group["name"]] * rate
        self.muon.step(cfg.muon_lr * rate, momentum, meanwhile=self.adam.step)
        self.gradients.zero()
