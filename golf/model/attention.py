"""The attention sub-layer: grouped heads, QK norm and gain, rotation, head gate, exclusive self-attention.

Order (source: #586): project -> values += value embedding -> QK norm -> rotate -> gain -> attend -> head gate
-> exclusive self-attention -> output projection. The gain is applied with the norm, which is the same and one
pass less, since a rotation is linear. The legend of axes is in golf/model/layers.py.

Not covered: the attention kernel itself (golf/model/kernels.py) and the residual around it
(golf/model/gpt.py)."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from golf.model.kernels import Attend
from golf.model.layers import Linear, Rotary, rms_norm, rotate
from golf.recipe.schema import ModelConfig


def exclude_self(y_BTHE: Tensor, v_BTKE: Tensor) -> Tensor:
    """Exclusive self-attention (XSA): y minus its projection on the position's own value vector.

    y_BTHE, v_BTKE -> y_BTHE, each output orthogonal to the value of its own position and head group, so that
    a head must bring something from elsewhere. No parameters. Neutral: not applied (xsa_last = 0). Source:
    #374, #414, #586."""
    n_rows, n_targets, n_heads, head_dim = y_BTHE.shape
    n_groups = v_BTKE.shape[2]
    y_BTKGE = y_BTHE.reshape(n_rows, n_targets, n_groups, n_heads // n_groups, head_dim)
    unit_BTK1E = nn.functional.normalize(v_BTKE, dim=-1, eps=1e-12)[..., None, :]
    along_BTKG1 = (y_BTKGE * unit_BTK1E).sum(dim=-1, keepdim=True)
    return torch.addcmul(y_BTKGE, along_BTKG1, unit_BTK1E, value=-1).reshape(y_BTHE.shape)


class Attention(nn.Module):
    """x_BSD -> y_BTD for the last T positions. Cost: 2 D (D + K E) matrix parameters and H gains.

    Low-rank queries: q = W_up (W_down x) through r dimensions, 2 D r numbers in place of D^2; neutral: r = 0,
    one full matrix. Source: #215, #316.

    Head gate: y_h *= sigmoid(W_HD x)_h with x the block's normed input; H D parameters; neutral: off. Source:
    #586's code (its README leaves it out)."""

    def __init__(self, cfg: ModelConfig, layer: int, attend: Attend) -> None:
        super().__init__()
        self.heads, self.head_dim, self.attend = cfg.heads, cfg.head_dim, attend
        self.exclusive = layer >= cfg.layers - cfg.xsa_last
        self.q_rank = cfg.q_rank
        if cfg.q_rank:
            self.q_down = Linear(cfg.width, cfg.q_rank)
            self.q_up = Linear(cfg.q_rank, cfg.width)
        else:
            self.q = Linear(cfg.width, cfg.width)
        self.k = Linear(cfg.width, cfg.kv_heads * cfg.head_dim)
        self.v = Linear(cfg.width, cfg.kv_heads * cfg.head_dim)
        self.out = Linear(cfg.width, cfg.width)
        self.q_gain = nn.Parameter(torch.empty(cfg.heads))
        if cfg.attn_gate:
            self.gate = Linear(cfg.width, cfg.heads)

    def queries(self, x_BTD: Tensor) -> Tensor:
        """x_BTD -> queries of all heads side by side, q_BTD."""
        return self.q_up(self.q_down(x_BTD)) if self.q_rank else self.q(x_BTD)

    def forward(self, x_BSD: Tensor, table: Rotary, value_BSC: Tensor | None, last: int) -> Tensor:
        """`value_BSC` (C = K E) is added to the values; only the last `last` positions ask and answer."""
        rows, x_BTD = x_BSD.shape[0], x_BSD[:, -last:]
        v_BSC = self.v(x_BSD) if value_BSC is None else self.v(x_BSD) + value_BSC
        v_BSKE = v_BSC.view(rows, -1, v_BSC.shape[-1] // self.head_dim, self.head_dim)
        k_BSKE = rotate(rms_norm(self.k(x_BSD).view(v_BSKE.shape)), table)
        q_BTHE = self.queries(x_BTD).view(rows, -1, self.heads, self.head_dim)
        q_BTHE = rotate(rms_norm(q_BTHE, self.q_gain[:, None]), table.last(last))
        y_BTHE = self.attend(q_BTHE, k_BSKE, v_BSKE)
        if hasattr(self, "gate"):
            y_BTHE = y_BTHE * torch.sigmoid(self.gate(x_BTD))[..., None]
        if self.exclusive:
            y_BTHE = exclude_self(y_BTHE, v_BSKE[:, -last:])
        return self.out(y_BTHE.reshape(x_BTD.shape))
