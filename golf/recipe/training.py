"""Recipe fields that decide training: the sections model, optim, train and stats.

The defaults are the shape and optimizers of the challenge's naive baseline. Each technique is one field whose
default, called neutral below, switches it off.
"""

from __future__ import annotations

import typing
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Annotated, Literal

from golf.recipe.mistakes import Mistake, shown
from golf.recipe.section import Count, Fraction, Horizon, NonNegative, Positive, Range, Section, Size


@dataclass(frozen=True, kw_only=True)
class ModelConfig(Section):
    """Shape and techniques of the network. The defaults give the naive baseline: 17,059,912 parameters with a
    vocabulary of 1024.
    """

    SECTION: typing.ClassVar[str] = "model"

    layers: Size = 9
    """Transformer blocks with weights of their own."""
    width: Size = 512
    """Residual width D."""
    heads: Size = 8
    """Query heads H; each is width / heads wide."""
    kv_heads: Size = 4
    """Key and value heads K; each serves H / K query heads."""
    mlp_hidden: Size = 1024
    """Hidden width F of the squared-ReLU feed-forward."""
    mlp_slope: Fraction = 0.0
    """Negative slope of the feed-forward's leaky ReLU, before squaring. Neutral: 0, plain ReLU."""
    softcap: NonNegative = 30.0
    """Cap c: logits become c * tanh(logits / c). Neutral: 0, no cap."""
    rope_dims: Count = 0
    """Partial rotary embedding: rotate only the first n dimensions of each head. Neutral: 0, rotate all."""
    rope_base: Annotated[float, Range(1, open=True)] = 10_000.0
    """Base of the rotary frequencies."""
    q_gain: float = 1.5
    """Initial value of each query head's learned gain, applied after QK norm."""
    q_rank: Count = 0
    """Low-rank queries: q = W_up (W_down x) with rank r. Neutral: 0, one full matrix."""
    skips: bool = True
    """U-Net skips: the first half of the layer steps feeds the second, last in first out. Neutral: false."""
    skip_gates: bool = False
    """Mix each skip in with a learned gate, (1 - g) w skip + g x, instead of adding it; unused without skips.
    Neutral: false."""
    parallel_last: Count = 0
    """Parallel residuals in the last n layers: attention and feed-forward read the same input. Neutral: 0."""
    loop_layers: tuple[int, ...] = ()
    """Depth recurrence: consecutive layers that run again, in ascending order. Neutral: none."""
    loop_passes: Size = 2
    """Additional passes through loop_layers; unused while loop_layers is empty."""
    ln_scale: bool = False
    """Multiply each block's normed inputs by 1 / sqrt(layer + 1). Neutral: false."""
    xsa_last: Count = 0
    """Exclusive self-attention (XSA) in the last n layers: remove from each position's output its projection
    on the position's own value vector. Neutral: 0."""
    attn_gate: bool = False
    """Multiply each head's output by the sigmoid of a linear map of the block's input. Neutral: false."""
    smear: bool = False
    """SmearGate: mix a learned fraction of the previous embedding into each token's. Neutral: false."""
    bigram_buckets: Count = 0
    """BigramHash: rows of a hashed table of token pairs, added to the embedding. Neutral: 0, no table."""
    bigram_dim: Size = 128
    """Width of the BigramHash table, which is projected to D; unused while bigram_buckets is 0."""
    ve_dim: Count = 0
    """Shared value embedding: width of its table, which is projected to the values' width. Neutral: 0."""
    ve_layers: tuple[int, ...] = ()
    """Layers that add the shared value embedding to their values; unused while ve_dim is 0."""
    init: Literal["default", "orthogonal"] = "default"
    """Initial matrices: `default` is uniform in +-1/sqrt(fan_in), `orthogonal` has gain 1. Output
    projections start at zero."""
    embed_std: Positive = 0.005
    """Standard deviation of the initial token, bigram and value embedding tables."""
    overtone: bool = False
    """Overtone init: make the token table's k-th singular value the largest one / sqrt(k). Neutral: false."""
    phase_mix: bool = False
    """Phase-mixed residual init: early layers start with more weight on the embedding, late layers with more
    on the residual stream. Neutral: false."""

    def check(self) -> Iterator[Mistake]:
        if self.width % self.heads:
            text = f"got {self.width}; expected a multiple of model.heads, {self.heads}"
            yield Mistake(("model.width", "model.heads"), text)
        elif self.head_dim % 2:
            text = f"got {self.width}, so that heads are {self.head_dim} wide; rotation needs an even width"
            yield Mistake(("model.width", "model.heads"), text)
        if self.heads % self.kv_heads:
            text = f"got {self.heads}; expected a multiple of model.kv_heads, {self.kv_heads}"
            yield Mistake(("model.heads", "model.kv_heads"), text)
        if self.rope_dims > self.head_dim or self.rope_dims % 2:
            text = f"got {self.rope_dims}; expected an even number up to the width of a head, {self.head_dim}"
            yield Mistake(("model.rope_dims", "model.width", "model.heads"), text)
        if self.q_rank >= self.width:
            text = f"got {self.q_rank}; expected a number below model.width, {self.width}"
            yield Mistake(("model.q_rank", "model.width"), text)
        for name in ("xsa_last", "parallel_last"):
            if getattr(self, name) > self.layers:
                text = f"got {getattr(self, name)}; expected at most model.layers, {self.layers}"
                yield Mistake((f"model.{name}", "model.layers"), text)
        if self.ve_dim and not self.ve_layers:
            text = f"got {self.ve_dim} without layers to use it; name them in model.ve_layers"
            yield Mistake(("model.ve_dim", "model.ve_layers"), text)
        last = self.layers - 1
        if len(set(self.ve_layers)) < len(self.ve_layers) or not all(0 <= i <= last for i in self.ve_layers):
            text = f"got {shown(self.ve_layers)}; expected distinct layers in 0..{last}"
            yield Mistake(("model.ve_layers", "model.layers"), text)
        first = min(self.loop_layers, default=0)
        end = first + len(self.loop_layers)
        if self.loop_layers != tuple(range(first, end)) or first < 0 or end > self.layers:
            text = f"got {shown(self.loop_layers)}; expected consecutive layers in 0..{last}, ascending"
            yield Mistake(("model.loop_layers", "model.layers"), text)

    @property
    def head_dim(self) -> int:
        """Width of one head."""
        return self.width // self.heads


@dataclass(frozen=True, kw_only=True)
class OptimConfig(Section):
    """Optimizers, their schedules, gradient clipping and weight averaging."""

    SECTION: typing.ClassVar[str] = "optim"

    muon_lr: Positive = 0.04
    """Learning rate of Muon, which updates every matrix inside the blocks."""
    muon_variant: Literal["nesterov", "lerp"] = "nesterov"
    """Momentum rule: `nesterov` is buf = m buf + g with the update g + m buf; `lerp` is buf = m buf + (1 - m)
    g with the update buf."""
    muon_equalise: bool = False
    """MuonEq-R: scale each row of the update to norm 1 before orthogonalising. Neutral: false."""
    muon_momentum: Annotated[float, Range(0, 0.999999)] = 0.95
    """Momentum after its warm-up."""
    muon_momentum_start: Annotated[float, Range(0, 0.999999)] = 0.85
    """Momentum at step 0."""
    muon_momentum_warmup: Horizon = 500
    """Length of the linear momentum warm-up, in steps or as a fraction of the run. Neutral: 0."""
    muon_decay: NonNegative = 0.0
    """Decoupled weight decay of Muon: p *= 1 - lr * decay before the update. Neutral: 0."""
    muon_steps: Size = 5
    """Newton-Schulz iterations."""
    embed_lr: Positive = 0.05
    """AdamW's learning rate for the token embedding, which is also the output head."""
    embed_decay: NonNegative = 0.0
    """Decoupled weight decay of the token embedding. Neutral: 0."""
    scalar_lr: Positive = 0.04
    """AdamW's learning rate for all other parameters: vectors, gains, skips, the bigram and value tables and
    their projections."""
    scalar_decay: NonNegative = 0.0
    """Decoupled weight decay of all other parameters. Neutral: 0."""
    beta1: Annotated[float, Range(0, 0.999999)] = 0.9
    """AdamW's decay of the first moment."""
    beta2: Annotated[float, Range(0, 0.999999)] = 0.95
    """AdamW's decay of the second moment."""
    adam_eps: Positive = 1e-8
    """AdamW's epsilon."""
    clip: NonNegative = 0.0
    """Upper limit of the gradient's global 2-norm. Neutral: 0, no clipping."""
    warmup: Horizon = 0
    """Length of the linear growth of all learning rates from 0 to full, in steps or as a fraction of the run;
    in steps, the first moves nothing. Source: #586, by accident, over 400 steps: its graph was compiled again
    inside the clock, so that the run seemed shorter than it was. Neutral: 0."""
    warmdown: Horizon = 1200
    """Length of the final decay of all learning rates to 0, in steps or as a fraction of the run. Neutral: 0,
    constant rates."""
    warmdown_shape: Literal["linear", "cosine"] = "linear"
    """Shape of that decay."""
    ema_decay: Annotated[float, Range(0, 0.999999)] = 0.0
    """Decay of the exponential moving average of the weights, which is saved instead of the last weights.
    Neutral: 0, save the last weights."""
    ema_fraction: Fraction = 0.0
    """If positive, replaces ema_decay: average over about this fraction of the expected steps."""


@dataclass(frozen=True, kw_only=True)
class TrainConfig(Section):
    """The training loop: batch size, loader, what switches on during the run, and when it ends."""

    SECTION: typing.ClassVar[str] = "train"

    batch_tokens: Size = 524_288
    """Targets per step, over all 8 logical ranks."""
    seq_len: Size = 1024
    """Targets per row of a batch."""
    loader: Literal["stream", "shuffled"] = "stream"
    """`stream` reads the rows in order; `shuffled` draws them from all shards at random without replacement.
    Neutral: stream."""
    loop_start: Horizon = 0.0
    """When depth recurrence begins, in steps or as a fraction of the run; before, every layer runs once."""
    qat_bits: Annotated[int, Range(0, 8)] = 0
    """Quantisation-aware training: the forward pass rounds block matrices to this many bits. Neutral: 0."""
    qat_start: Horizon = 0.1
    """Start of quantisation-aware training, in steps or as a fraction of the run; unused if qat_bits is 0."""
    steps: Count = 0
    """Stop after this many steps regardless of time, for reproducible runs. 0: stop by the judge's clock."""
    warmup_steps: Count = 20
    """Steps on synthetic tokens in each phase before `ready`, for compilation and allocation; their effect is
    undone. On a GPU at least one runs."""
    log_every: Size = 50
    """Steps between lines of the training log."""

    def check(self) -> Iterator[Mistake]:
        if self.batch_tokens % (8 * self.seq_len):
            expected = f"a multiple of 8 * train.seq_len, {8 * self.seq_len}"
            yield Mistake(
                ("train.batch_tokens", "train.seq_len"), f"got {self.batch_tokens}; expected {expected}"
            )
        if self.qat_bits == 1:
            yield Mistake(("train.qat_bits",), "got 1; expected 0 or 2..8")


@dataclass(frozen=True, kw_only=True)
class StatsConfig(Section):
    """Statistics for the quantiser, measured on training data inside the train clock. Neutral: none."""

    SECTION: typing.ClassVar[str] = "stats"

    hessian_batches: Count = 0
    """Batches after training for each matrix's input Hessian X^T X and mean |x|. Neutral: 0."""
    fisher_batches: Count = 0
    """Batches after training for the Fisher diagonal, the mean of squared gradients. Neutral: 0."""
    batch_tokens: Count = 0
    """Targets per calibration batch, over all 8 logical ranks; a multiple of 8 * train.seq_len. 0: the same
    as train.batch_tokens."""
    row_score_every: Count = 0
    """Training steps between measurements of each row's gradient norm (FTLE scores). Neutral: 0, none."""
