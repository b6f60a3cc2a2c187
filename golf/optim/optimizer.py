"""Which optimizer owns which parameter, and one step of all of them.

Routing (source: #586): matrices inside blocks belong to Muon; the token embedding, which is the head as well,
to AdamW with its own rate; everything else to AdamW: vectors, gains, mixes, skips, hashed and value tables,
their projections. Every parameter is in exactly one group, which `route` guarantees by construction: it
decides name by name."""

from __future__ import annotations

from collections.abc import Callable, Iterable

import torch
from torch import Tensor, nn

from golf.optim.muon import Muon
from golf.optim.schedule import TrainingProgress, warmdown, warmup
from golf.recipe.schema import OptimConfig

CONTROL = ("resid_mix",)


def route(name: str, parameter: Tensor) -> str:
    """The group of a parameter: muon, embed or scalar."""
    if name == "tok_emb.weight":
        return "embed"
    matrix = name.startswith("blocks.") and parameter.ndim == 2 and not name.endswith(CONTROL)
    return "muon" if matrix else "scalar"


class Optimizer:
    """Muon and AdamW over named parameters; see golf/optim/muon.py for `dtype`, `rank`, `world` and
    `all_reduce`."""

    def __init__(
        self,
        parameters: Iterable[tuple[str, nn.Parameter]],
        cfg: OptimConfig,
        *,
        dtype: torch.dtype = torch.float32,
        rank: int = 0,
        world: int = 1,
        all_reduce: Callable[[Tensor], None] = lambda tensor: None,
    ) -> None:
        self.cfg = cfg
        self.groups: dict[str, list[nn.Parameter]] = {"muon": [], "embed": [], "scalar": []}
        self.names: dict[nn.Parameter, str] = {}
        for name, parameter in parameters:
            self.groups[route(name, parameter)].append(parameter)
            self.names[parameter] = name
        self.muon = Muon(
            self.groups["muon"],
            variant=cfg.muon_variant,
            decay=cfg.muon_decay,
            steps=cfg.muon_steps,
            equalise=cfg.muon_equalise,
            dtype=dtype,
            rank=rank,
            world=world,
            all_reduce=all_reduce,
        )
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
        for parameter in (*self.groups["embed"], *self.groups["scalar"]):
            # What AdamW would make at its first step, made now: so its state has one shape from the start.
            moments = {key: torch.zeros_like(parameter) for key in ("exp_avg", "exp_avg_sq")}
            self.adam.state[parameter] = {"step": torch.zeros((), device=parameter.device), **moments}

    def parameters(self) -> list[nn.Parameter]:
        """Every parameter once, in the order of the groups."""
        return [parameter for group in self.groups.values() for parameter in group]

    def state(self) -> dict[str, Tensor]:
        """Everything that a step leaves for the next one, by name: the tensors themselves."""
        buffers = {f"muon_{rows}x{columns}": buffer for (rows, columns), buffer in self.muon.buffers.items()}
        return buffers | {
            f"{self.names[parameter]}:{key}": tensor
            for parameter, state in self.adam.state.items()
            for key, tensor in state.items()
        }

    def step(self, now: TrainingProgress) -> None:
        """Clip, update every parameter with the rates of this moment, and clear the gradients."""
        cfg = self.cfg
        rate = warmdown(now, cfg.warmdown, cfg.warmdown_shape)
        momentum = warmup(now, cfg.muon_momentum_warmup, cfg.muon_momentum_start, cfg.muon_momentum)
        if cfg.clip:
            nn.utils.clip_grad_norm_(self.parameters(), cfg.clip, foreach=True)
        self.muon.step(cfg.muon_lr * rate, momentum)
        for group in self.adam.param_groups:
            group["lr"] = self.rates[group["name"]] * rate
        self.adam.step()
        for parameter in self.parameters():
            parameter.grad = None
