"""The model: embed, one loop over the plan's visits, softcapped logits. The only forward; everything uses it.

Training, sliding-window scoring, single predictions, calibration and adaptation call `GPT.forward`. With
`last = n` only the last n positions are wanted: the head, and in the last visit the queries and the
feed-forward, are computed for these alone, which for 64 of 512 positions saves most of one block. The legend
of axes is in golf/model/layers.py.

Source: the challenge's starting script, #586, and #1493 for depth recurrence, parallel residuals and gated
skips. Not covered: when a training begins its recurrence (golf/stages/train.py), cached keys, and rows of
different lengths."""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn import functional

from golf.model import layer_order as plans
from golf.model.attention import Attention
from golf.model.inputs import BigramHash, SmearGate, ValueEmbedding
from golf.model.kernels import ATTENTION
from golf.model.layer_order import Plan
from golf.model.layers import FeedForward, Linear, Rotary, Table, layer_scale, rms_norm, rotary, softcap
from golf.recipe.schema import ModelConfig


class Block(nn.Module):
    """x_BSD -> x_BTD for the last T positions: embedding mix, attention, feed-forward. Cost: 4 D and its
    parts.

    x_in = mix0 x + mix1 x0;  x1 = x_in + attn_scale Attention(norm(x_in) s);  out = x1 + mlp_scale MLP(norm(x1) s).
    Parallel residuals (the last `parallel_last` layers): the feed-forward reads norm(x_in) s as well. Neutral: 0
    layers; no parameters. Source: #1493.
    """

    def __init__(self, cfg: ModelConfig, layer: int, attention: str) -> None:
        super().__init__()
        self.scale = layer_scale(layer, cfg.ln_scale)
        self.attn = Attention(cfg, layer, ATTENTION[attention])
        self.parallel = layer >= cfg.layers - cfg.parallel_last
        self.mlp = FeedForward(cfg.width, cfg.mlp_hidden, cfg.mlp_slope)
        self.attn_scale = nn.Parameter(torch.empty(cfg.width))
        self.mlp_scale = nn.Parameter(torch.empty(cfg.width))
        self.resid_mix = nn.Parameter(torch.empty(2, cfg.width))

    def forward(
        self, x_BSD: Tensor, x0_BSD: Tensor, table: Rotary, value_BSC: Tensor | None, last: int
    ) -> Tensor:
        mix_2D = self.resid_mix.to(x_BSD.dtype)
        x_BSD = torch.addcmul(mix_2D[1] * x0_BSD, mix_2D[0], x_BSD)
        normed_BSD = rms_norm(x_BSD, self.scale)
        attn_BTD = self.attn(normed_BSD, table, value_BSC, last)
        x_BTD = torch.addcmul(x_BSD[:, -last:], self.attn_scale.to(x_BSD.dtype), attn_BTD)
        read_BTD = normed_BSD[:, -last:] if self.parallel else rms_norm(x_BTD, self.scale)
        return torch.addcmul(x_BTD, self.mlp_scale.to(x_BTD.dtype), self.mlp(read_BTD))


class GPT(nn.Module):
    """ids_BS -> logits_BTV, float32 and softcapped. Embedding and head share one table.

    `dtype` is the stream's arithmetic (float32 or bfloat16), `attention` a key of kernels.ATTENTION.
    Parameters are float32 and empty until `golf.model.init.initialise` or `load_state_dict` fills them.

    `plan` is the whole order of visits, `first_plan` that before recurrence begins: the same where there is
    none, and over the same parameters where there is. Gated skips cost as much again as the skip weights."""

    def __init__(
        self,
        cfg: ModelConfig,
        vocab_size: int,
        *,
        dtype: torch.dtype = torch.float32,
        attention: str = "sdpa",
    ) -> None:
        super().__init__()
        self.cfg, self.dtype, self.attention = cfg, dtype, attention
        self.plan = plans.layer_steps(plans.order(cfg.layers, cfg.loop_layers, cfg.loop_passes), cfg.skips)
        self.first_plan = plans.layer_steps(plans.order(cfg.layers), cfg.skips)
        self.tok_emb = Table(vocab_size, cfg.width)
        if cfg.bigram_buckets:
            self.bigram = BigramHash(cfg.bigram_buckets, cfg.bigram_dim, cfg.width)
        if cfg.smear:
            self.smear = SmearGate(cfg.width)
        if cfg.ve_dim:
            self.value_embedding = ValueEmbedding(cfg, vocab_size)
        if plans.n_skips(self.plan):
            self.skip_weights = nn.Parameter(torch.empty(plans.n_skips(self.plan), cfg.width))
            if cfg.skip_gates:
                self.skip_gates = nn.Parameter(torch.empty_like(self.skip_weights))
        self.blocks = nn.ModuleList(Block(cfg, layer, attention) for layer in range(cfg.layers))
        self.head_input = nn.Identity()

    def inputs(self) -> dict[str, nn.Module]:
        """Weight name -> module whose input the weight multiplies: every Linear, and the head's input for the
        table.

        Tables that are only looked up multiply nothing and are absent.
        """
        linears = {
            f"{name}.weight": module for name, module in self.named_modules() if isinstance(module, Linear)
        }
        return {"tok_emb.weight": self.head_input, **linears}

    def embed(self, ids_BS: Tensor) -> Tensor:
        """ids_BS -> x0_BSD: the sum of what a token knows before layer 0, normed, then smeared."""
        x_BSD = self.tok_emb(ids_BS).to(self.dtype)
        if self.cfg.bigram_buckets:
            x_BSD = x_BSD + self.bigram(ids_BS, self.dtype)
        x_BSD = rms_norm(x_BSD)
        return self.smear(x_BSD) if self.cfg.smear else x_BSD

    def values(self, ids_BS: Tensor) -> dict[int, Tensor]:
        """What is added to the values of each layer that has a share in the value embedding, value_BSC by
        layer."""
        if not self.cfg.ve_dim:
            return {}
        value_BSC = self.value_embedding(ids_BS, self.dtype)
        scales = self.value_embedding.scales.to(self.dtype)
        return {layer: scales[i] * value_BSC for i, layer in enumerate(self.cfg.ve_layers)}

    def mix_skip(self, x_BSD: Tensor, saved_BSD: Tensor, row: int) -> Tensor:
        """Mix a saved stream in with row `row` of the skip weights: x + w saved, or gated (1 - g) w saved + g
        x.

        g = sigmoid(gate), one half at the start, so that a gated skip is a mean and no sum. Source: #1493.
        """
        weight_D = self.skip_weights[row]
        if not self.cfg.skip_gates:
            return torch.addcmul(x_BSD, weight_D.to(self.dtype), saved_BSD)
        gate_D = torch.sigmoid(self.skip_gates[row])
        return torch.addcmul(
            gate_D.to(self.dtype) * x_BSD, ((1 - gate_D) * weight_D).to(self.dtype), saved_BSD
        )

    def trunk(self, ids_BS: Tensor, last: int, plan: Plan) -> Tensor:
        """ids_BS -> x_BTD of the last positions: the plan, step by step."""
        x_BSD = x0_BSD = self.embed(ids_BS)
        table = rotary(
            ids_BS.shape[1], self.cfg.rope_dims or self.cfg.head_dim, self.cfg.rope_base, ids_BS.device
        )
        value_BSC = self.values(ids_BS)
        stack: list[Tensor] = []
        for index, step in enumerate(plan):
            if step.skip is not None:
                x_BSD = self.mix_skip(x_BSD, stack.pop(), step.skip)
            wanted = last if index == len(plan) - 1 else ids_BS.shape[1]
            x_BSD = self.blocks[step.layer](x_BSD, x0_BSD, table, value_BSC.get(step.layer), wanted)
            if step.save:
                stack.append(x_BSD)
        return x_BSD

    def forward(self, ids_BS: Tensor, last: int | None = None, plan: Plan | None = None) -> Tensor:
        """ids_BS (integers) -> logits_BTV for the last T = `last` positions, or for all of them, along a
        plan."""
        x_BTD = self.trunk(
            ids_BS, ids_BS.shape[1] if last is None else last, self.plan if plan is None else plan
        )
        x_BTD = self.head_input(rms_norm(x_BTD))
        logits_BTV = functional.linear(x_BTD, self.tok_emb.weight.to(x_BTD.dtype)).float()
        return softcap(logits_BTV, self.cfg.softcap)
