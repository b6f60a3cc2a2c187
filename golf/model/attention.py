"""The attention sub-layer: grouped heads, QK norm and gain, rotation, head gate, exclusive self-attention.

Order (source: #586): project, add the value embedding to the values, QK norm, rotate, gain, attend, head
gate, exclusive self-attention, output projection. The gain is applied together with the norm, which saves a
pass and gives the same result because rotation is linear. Kernels are in golf/model/kernels.py, the residual
connection is in golf/model/gpt.py, and the legend of axes is in golf/model/layers.py.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn

from golf.model.kernels import Attend
from golf.model.layers import Linear, Rotary, rms_norm, rotate
from golf.recipe.schema import ModelConfig


def exclude_self(y_BTHE: Tensor, v_BTKE: Tensor) -> Tensor:
    """Exclusive self-attention (XSA): y minus its projection on the position's own value vector.

    y_BTHE, v_BTKE -> y_BTHE, each output orthogonal to the value of its position and key head, so a head can
    only contribute what comes from other positions. No parameters. Neutral: not applied (xsa_last = 0).
    Source: #374, #414, #586.
    """
    n_sequences, n_positions, n_heads, head_dim = y_BTHE.shape
    key_heads = v_BTKE.shape[2]
    y_BTKGE = y_BTHE.reshape(n_sequences, n_positions, key_heads, n_heads // key_heads, head_dim)
    unit_BTK1E = nn.functional.normalize(v_BTKE, dim=-1, eps=1e-12)[..., None, :]
    projection_BTKG1 = (y_BTKGE * unit_BTK1E).sum(dim=-1, keepdim=True)
    return torch.addcmul(y_BTKGE, projection_BTKG1, unit_BTK1E, value=-1).reshape(y_BTHE.shape)


class Attention(nn.Module):
    """x_BSD -> y_BTD for the last T positions. Cost: 2 D (D + K E) matrix parameters and H gains.

    Low-rank queries: q = W_up (W_down x) with rank r, 2 D r parameters instead of D^2. Neutral: r = 0, one
    full matrix. Source: #215, #316.

    Head gate: y_h *= sigmoid(W_HD x)_h with x the block's normed input; H D parameters. Neutral: off. Source:
    the code of #586 (its README doesn't mention it).
    """

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
        """x_BTD -> q_BTD, the queries of all heads concatenated."""
        return self.q_up(self.q_down(x_BTD)) if self.q_rank else self.q(x_BTD)

    def forward(self, x_BSD: Tensor, table: Rotary, value_BSR: Tensor | None, last: int) -> Tensor:
        """Outputs of the last T = `last` positions. `value_BSR` (R = K E) is added to the values."""
        batch, x_BTD = x_BSD.shape[0], x_BSD[:, -last:]
        v_BSR = self.v(x_BSD) if value_BSR is None else self.v(x_BSD) + value_BSR
        v_BSKE = v_BSR.view(batch, -1, v_BSR.shape[-1] // self.head_dim, self.head_dim)
        k_BSKE = rotate(rms_norm(self.k(x_BSD).view(v_BSKE.shape)), table)
        q_BTHE = self.queries(x_BTD).view(batch, -1, self.heads, self.head_dim)
        q_BTHE = rotate(rms_norm(q_BTHE, self.q_gain[:, None]), table.last(last))
        y_BTHE = self.attend(q_BTHE, k_BSKE, v_BSKE)
        if hasattr(self, "gate"):
            y_BTHE = y_BTHE * torch.sigmoid(self.gate(x_BTD))[..., None]
        if self.exclusive:
            y_BTHE = exclude_self(y_BTHE, v_BSKE[:, -last:])
        return self.out(y_BTHE.reshape(x_BTD.shape))
