"""The model: embedding, one loop over the layer steps of a plan, softcapped logits.

Sliding-window scoring, single predictions, calibration and adaptation call `GPT.forward`. Training calls
`GPT.loss`, so that one compiled graph holds the model and its loss, and V float32 logits a token never leave
it. With `last = n`, the model computes the head, and the queries and feed-forward of the last layer step, for
the last n positions only; for 64 of 512 positions this saves most of one block. The legend of axes is in
golf/model/layers.py.

Source: the challenge's starting script, #586, and #1493 for depth recurrence, parallel residuals and gated
skips. There is no key cache, and all sequences of a batch have the same length.
"""

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


def mean_nats(logits_BTV: Tensor, targets_BT: Tensor) -> Tensor:
    """logits_BTV, targets_BT (integers) -> mean cross-entropy in nats, a scalar."""
    return functional.cross_entropy(logits_BTV.flatten(0, 1), targets_BT.flatten())


class Block(nn.Module):
    """x_BSD -> x_BTD for the last T positions: embedding mix, attention, feed-forward.

        x_in = mix0 x + mix1 x0
        x1 = x_in + attn_scale Attention(norm(x_in) s)
        out = x1 + mlp_scale MLP(norm(x1) s)

    Cost: 4 D parameters besides attention and feed-forward. Parallel residuals (in the last `parallel_last`
    layers): the feed-forward reads norm(x_in) s instead. No parameters. Neutral: 0 layers. Source: #1493.
    """

    scale: Tensor

    def __init__(self, cfg: ModelConfig, layer: int, attention: str) -> None:
        super().__init__()
        # A tensor, because torch.compile would write a number into the code of each layer's kernels
        self.register_buffer("scale", layer_scale(layer, cfg.ln_scale), persistent=False)
        self.attn = Attention(cfg, layer, ATTENTION[attention])
        self.parallel = layer >= cfg.layers - cfg.parallel_last
        self.mlp = FeedForward(cfg.width, cfg.mlp_hidden, cfg.mlp_slope)
        self.attn_scale = nn.Parameter(torch.empty(cfg.width))
        self.mlp_scale = nn.Parameter(torch.empty(cfg.width))
        self.resid_mix = nn.Parameter(torch.empty(2, cfg.width))

    def forward(
        self, x_BSD: Tensor, x0_BSD: Tensor, table: Rotary, value_BSR: Tensor | None, last: int
    ) -> Tensor:
        mix_2D = self.resid_mix.to(x_BSD.dtype)
        x_BSD = torch.addcmul(mix_2D[1] * x0_BSD, mix_2D[0], x_BSD)
        normed_BSD = rms_norm(x_BSD, self.scale)
        attn_BTD = self.attn(normed_BSD, table, value_BSR, last)
        x_BTD = torch.addcmul(x_BSD[:, -last:], self.attn_scale.to(x_BSD.dtype), attn_BTD)
        mlp_input_BTD = normed_BSD[:, -last:] if self.parallel else rms_norm(x_BTD, self.scale)
        return torch.addcmul(x_BTD, self.mlp_scale.to(x_BTD.dtype), self.mlp(mlp_input_BTD))


class GPT(nn.Module):
    """ids_BS -> logits_BTV, float32 and softcapped. Embedding and head share one table.

    `dtype` is the dtype of the activations (float32 or bfloat16), `attention` a key of
    kernels.ATTENTION. Parameters are float32 and uninitialised until `golf.model.init.initialise` or
    `load_state_dict` fills them.

    With `fused_loss`, `loss` runs golf/model/fused_loss.py, which needs Triton.

    `plan` is the full order of layer steps, `first_plan` the order before depth recurrence begins;
    both use the same parameters, and without recurrence they are equal. Cost of skips: D parameters
    each, 2 D if gated.
    """

    def __init__(
        self,
        cfg: ModelConfig,
        vocab_size: int,
        *,
        dtype: torch.dtype = torch.float32,
        attention: str = "sdpa",
        fused_loss: bool = False,
    ) -> None:
        super().__init__()
        self.cfg, self.dtype, self.attention, self.fused_loss = cfg, dtype, attention, fused_loss
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
        """Weight name -> the module whose input the weight multiplies: each Linear, and the head for
        the token table. Weights that multiply the same tensor have the same module; the tensors are the
        same only if all positions are predicted.

        Tables that are only looked up are absent.
        """
        modules = dict(self.named_modules())
        found = {f"{name}.weight": module for name, module in modules.items() if isinstance(module, Linear)}
        for name, block in modules.items():
            if isinstance(block, Block):
                parts = ("attn.q", "attn.q_down", "attn.k", "attn.gate", *["mlp.up"] * block.parallel)
                readers = found.keys() & {f"{name}.{part}.weight" for part in parts}
                found |= dict.fromkeys(readers, block.attn.v)
        return {"tok_emb.weight": self.head_input, **found}

    def embed(self, ids_BS: Tensor) -> Tensor:
        """ids_BS -> x0_BSD: token embedding plus bigram feature, normed, then smeared."""
        x_BSD = self.tok_emb(ids_BS).to(self.dtype)
        if self.cfg.bigram_buckets:
            x_BSD = x_BSD + self.bigram(ids_BS, self.dtype)
        x_BSD = rms_norm(x_BSD)
        return self.smear(x_BSD) if self.cfg.smear else x_BSD

    def values(self, ids_BS: Tensor) -> dict[int, Tensor]:
        """ids_BS -> value_BSR by layer, for each layer that adds the shared value embedding."""
        if not self.cfg.ve_dim:
            return {}
        value_BSR = self.value_embedding(ids_BS, self.dtype)
        scales = self.value_embedding.scales.to(self.dtype)
        return {layer: scales[i] * value_BSR for i, layer in enumerate(self.cfg.ve_layers)}

    def mix_skip(self, x_BSD: Tensor, saved_BSD: Tensor, row: int) -> Tensor:
        """x_BSD with a saved output mixed in by row `row` of the skip weights w: x + w saved.

        With gates (source: #1493): g x + (1 - g) w saved, where g = sigmoid(gate) is initially 1/2.
        """
        weight_D = self.skip_weights[row]
        if not self.cfg.skip_gates:
            return torch.addcmul(x_BSD, weight_D.to(self.dtype), saved_BSD)
        gate_D = torch.sigmoid(self.skip_gates[row])
        return torch.addcmul(
            gate_D.to(self.dtype) * x_BSD, ((1 - gate_D) * weight_D).to(self.dtype), saved_BSD
        )

    def trunk(self, ids_BS: Tensor, last: int, plan: Plan) -> Tensor:
        """ids_BS -> x_BTD of the last positions, by running the plan's layer steps in order."""
        x_BSD = x0_BSD = self.embed(ids_BS)
        table = rotary(
            ids_BS.shape[1], self.cfg.rope_dims or self.cfg.head_dim, self.cfg.rope_base, ids_BS.device
        )
        value_BSR = self.values(ids_BS)
        stack: list[Tensor] = []
        for index, step in enumerate(plan):
            if step.skip is not None:
                x_BSD = self.mix_skip(x_BSD, stack.pop(), step.skip)
            n_outputs = last if index == len(plan) - 1 else ids_BS.shape[1]
            x_BSD = self.blocks[step.layer](x_BSD, x0_BSD, table, value_BSR.get(step.layer), n_outputs)
            if step.save:
                stack.append(x_BSD)
        return x_BSD

    def uncapped(self, ids_BS: Tensor, last: int | None = None, plan: Plan | None = None) -> Tensor:
        """ids_BS -> logits_BTV before the softcap, in the activations' dtype; arguments as of `forward`."""
        x_BTD = self.trunk(
            ids_BS, ids_BS.shape[1] if last is None else last, self.plan if plan is None else plan
        )
        x_BTD = self.head_input(rms_norm(x_BTD))
        return functional.linear(x_BTD, self.tok_emb.weight.to(x_BTD.dtype))

    def forward(self, ids_BS: Tensor, last: int | None = None, plan: Plan | None = None) -> Tensor:
        """ids_BS (integers) -> logits_BTV of the last T = `last` positions (default: all), running `plan`
        (default: the full one).
        """
        return softcap(self.uncapped(ids_BS, last, plan).float(), self.cfg.softcap)

    def loss(self, ids_BT: Tensor, targets_BT: Tensor, plan: Plan | None = None) -> Tensor:
        """ids_BT, targets_BT (integers) -> mean cross-entropy in nats, a float32 scalar."""
        if not self.fused_loss:
            return mean_nats(self(ids_BT, plan=plan), targets_BT)
        from golf.model import fused_loss

        logits_NV = self.uncapped(ids_BT, plan=plan).flatten(0, 1)
        return fused_loss.mean_nats(logits_NV, targets_BT.flatten(), self.cfg.softcap)
