"""The recipe's fields: a tree of frozen dataclasses, each field with its neutral value, its range and its
reason.

The defaults are the shape and optimizers of the challenge's naive baseline; a new technique is one field
here, whose default is the value that does nothing. Ranges stand in the annotations (golf/recipe/section.py),
and `check` says what fields must mean together.

Not covered: reading and writing (golf/recipe/config.py), and what only makes sense together with the data.
"""

from __future__ import annotations

import dataclasses
import typing
from dataclasses import dataclass, field
from typing import Annotated, Literal

from golf.recipe.section import Count, Horizon, NotNegative, Positive, Range, Section, Share, Size, need


@dataclass(frozen=True, kw_only=True)
class ModelConfig(Section):
    """Shape and techniques of the network; the defaults are the naive baseline (17,059,912 parameters at V =
    1024)."""

    SECTION: typing.ClassVar[str] = "model"

    layers: Size = 9
    """Physical transformer blocks."""
    width: Size = 512
    """Residual width D."""
    heads: Size = 8
    """Query heads H; each is width / heads wide."""
    kv_heads: Size = 4
    """Key and value heads K; H / K query heads share one."""
    mlp_hidden: Size = 1024
    """Hidden width of the squared feed-forward."""
    mlp_slope: Share = 0.0
    """Slope of the feed-forward's leaky ReLU below zero, before the square. Neutral: 0, plain ReLU."""
    softcap: NotNegative = 30.0
    """Logits become c * tanh(logits / c). Neutral: 0, no cap."""
    rope_dims: Count = 0
    """Partial rotary embedding: the first n dimensions of a head rotate. Neutral: 0, all of them do."""
    rope_base: Annotated[float, Range(1, open=True)] = 10_000.0
    """Base of the rotary frequencies."""
    q_gain: float = 1.5
    """Initial value of the learned gain of each query head, applied after QK norm and rotation."""
    q_rank: Count = 0
    """Low-rank queries: q = W_up (W_down x) through r dimensions. Neutral: 0, one full matrix."""
    skips: bool = True
    """U-Net skips: the first half of the visits feeds the second, last in first out. Neutral: false."""
    skip_gates: bool = False
    """A skip is mixed in by a learned gate instead of added: (1 - g) w skip + g x; unused without skips.
    Neutral: false."""
    parallel_last: Count = 0
    """Parallel residuals in the last n layers: attention and feed-forward read the same input. Neutral: 0."""
    loop_layers: tuple[int, ...] = ()
    """Depth recurrence: neighbouring layers that are visited again, in order. Neutral: none."""
    loop_passes: Size = 2
    """Passes through loop_layers after the first; unused while loop_layers is empty."""
    ln_scale: bool = False
    """Multiply each block's normed inputs by 1 / sqrt(layer + 1). Neutral: false."""
    xsa_last: Count = 0
    """Exclusive self-attention on the last n layers: outputs lose their part along their own value. Neutral:
    0."""
    attn_gate: bool = False
    """Each head's output times the sigmoid of a linear read of the block's input. Neutral: false."""
    smear: bool = False
    """SmearGate: a learned share of the previous token's embedding. Neutral: false."""
    bigram_buckets: Count = 0
    """BigramHash: rows of a hashed table of token pairs added to the embedding. Neutral: 0."""
    bigram_dim: Size = 128
    """Width of the BigramHash table before its projection; unused while bigram_buckets is 0."""
    ve_dim: Count = 0
    """Shared value embedding: width of its table before its projection. Neutral: 0."""
    ve_layers: tuple[int, ...] = ()
    """Layers whose values receive the shared value embedding; unused while ve_dim is 0."""
    init: Literal["default", "orthogonal"] = "default"
    """Initial matrices: uniform in +-1/sqrt(fan_in), or orthogonal with gain 1. Output projections start at
    zero."""
    embed_std: Positive = 0.005
    """Standard deviation of the initial token, bigram and value tables."""
    overtone: bool = False
    """Overtone init: the token table's k-th singular value becomes the largest one / sqrt(k). Neutral:
    false."""
    phase_mix: bool = False
    """Phase-mixed residual init: early layers start leaning on the embedding, late ones on the stream.
    Neutral: false."""

    def check(self) -> None:
        need(
            self.width % self.heads == 0,
            f"model.width {self.width} must be a multiple of model.heads {self.heads}",
        )
        need(
            self.heads % self.kv_heads == 0,
            f"model.heads {self.heads} must be a multiple of model.kv_heads {self.kv_heads}",
        )
        need(
            self.head_dim % 2 == 0,
            f"model.width / model.heads is {self.head_dim}: rotation needs an even number",
        )
        need(
            self.rope_dims <= self.head_dim and self.rope_dims % 2 == 0,
            f"model.rope_dims {self.rope_dims} must be even and at most the head width {self.head_dim}",
        )
        need(self.q_rank < self.width, f"model.q_rank {self.q_rank} must be below model.width {self.width}")
        for name in ("xsa_last", "parallel_last"):
            need(
                getattr(self, name) <= self.layers,
                f"model.{name} {getattr(self, name)} must be 0..{self.layers}",
            )
        need(self.ve_dim == 0 or len(self.ve_layers) > 0, "model.ve_dim needs model.ve_layers")
        need(
            len(set(self.ve_layers)) == len(self.ve_layers)
            and all(0 <= i < self.layers for i in self.ve_layers),
            f"model.ve_layers {list(self.ve_layers)} must be distinct layers 0..{self.layers - 1}",
        )
        neighbours = tuple(range(min(self.loop_layers, default=0), max(self.loop_layers, default=-1) + 1))
        need(
            self.loop_layers == neighbours and all(0 <= i < self.layers for i in self.loop_layers),
            f"model.loop_layers {list(self.loop_layers)} must be neighbouring layers 0..{self.layers - 1} in "
            "order",
        )

    @property
    def head_dim(self) -> int:
        """Width of one head."""
        return self.width // self.heads


@dataclass(frozen=True, kw_only=True)
class OptimConfig(Section):
    """Optimizers, their schedules, clipping and weight averaging."""

    SECTION: typing.ClassVar[str] = "optim"

    muon_lr: Positive = 0.04
    """Learning rate of Muon: every matrix inside the blocks."""
    muon_variant: Literal["nesterov", "lerp"] = "nesterov"
    """Momentum: buf = m buf + g looking ahead, or buf = m buf + (1 - m) g as it is."""
    muon_equalise: bool = False
    """MuonEq-R: rows of the update direction get norm 1 before they are orthogonalised. Neutral: false."""
    muon_momentum: Annotated[float, Range(0, 0.999999)] = 0.95
    """Momentum after its warm-up."""
    muon_momentum_start: Annotated[float, Range(0, 0.999999)] = 0.85
    """Momentum at step 0."""
    muon_momentum_warmup: Horizon = 500
    """Horizon of the linear momentum warm-up. Neutral: 0."""
    muon_decay: NotNegative = 0.0
    """Decoupled weight decay of Muon: p *= 1 - lr * decay before the update. Neutral: 0."""
    muon_steps: Size = 5
    """Newton-Schulz iterations."""
    embed_lr: Positive = 0.05
    """AdamW's learning rate of the token embedding, which is the head too."""
    embed_decay: NotNegative = 0.0
    """Decoupled weight decay of the token embedding. Neutral: 0."""
    scalar_lr: Positive = 0.04
    """AdamW's learning rate of everything else: vectors, gains, skips, hashed and value tables, their
    projections."""
    scalar_decay: NotNegative = 0.0
    """Decoupled weight decay of everything else. Neutral: 0."""
    beta1: Annotated[float, Range(0, 0.999999)] = 0.9
    """AdamW's first moment."""
    beta2: Annotated[float, Range(0, 0.999999)] = 0.95
    """AdamW's second moment."""
    adam_eps: Positive = 1e-8
    """AdamW's epsilon."""
    clip: NotNegative = 0.0
    """Limit on the gradient's global 2-norm. Neutral: 0, no clipping."""
    warmdown: Horizon = 1200
    """Horizon of the final descent of all learning rates to 0. Neutral: 0, constant rates."""
    warmdown_shape: Literal["linear", "cosine"] = "linear"
    """Shape of the descent."""
    ema_decay: Annotated[float, Range(0, 0.999999)] = 0.0
    """Decay of the averaged weights that are saved in place of the last ones. Neutral: 0, the last
    weights."""
    ema_fraction: Share = 0.0
    """Where positive, takes ema_decay's place: the average reaches back this fraction of the expected
    steps."""


@dataclass(frozen=True, kw_only=True)
class TrainConfig(Section):
    """The loop: how much a step reads, what changes on the way, and what ends it."""

    SECTION: typing.ClassVar[str] = "train"

    batch_tokens: Size = 524_288
    """Targets a step, over all 8 logical ranks."""
    seq_len: Size = 1024
    """Targets a row."""
    loader: Literal["stream", "shuffled"] = "stream"
    """Rows from one stream in order, or drawn from all shards at random without repetition. Neutral:
    stream."""
    loop_start: Horizon = 0.0
    """Horizon before depth recurrence begins; until then every layer is visited once."""
    qat_bits: Annotated[int, Range(0, 8)] = 0
    """Quantisation-aware training: block matrices act as if on a grid of so many bits. Neutral: 0."""
    qat_start: Horizon = 0.1
    """Horizon before quantisation-aware training begins; unused while qat_bits is 0."""
    steps: Count = 0
    """Stop after so many steps, whatever the time, so that a run repeats exactly. 0: the judge's clock
    decides."""
    warmup_steps: Count = 20
    """Steps on made-up tokens before `ready`, undone afterwards: compilation and allocation happen there."""
    log_every: Size = 50
    """Steps between two lines of the training log."""

    def check(self) -> None:
        need(
            self.batch_tokens % (8 * self.seq_len) == 0,
            f"train.batch_tokens {self.batch_tokens} must be a multiple of 8 * seq_len = {8 * self.seq_len}",
        )
        need(self.qat_bits != 1, "train.qat_bits must be 0 or 2..8")


@dataclass(frozen=True, kw_only=True)
class StatsConfig(Section):
    """What is measured on training data, inside the train clock, for the quantiser to go by. Neutral:
    nothing."""

    SECTION: typing.ClassVar[str] = "stats"

    hessian_batches: Count = 0
    """Batches whose inputs give each matrix its Hessian X^T X and mean |x|, after the last step. Neutral:
    0."""
    fisher_batches: Count = 0
    """Batches whose squared gradients give each weight's Fisher diagonal, after the last step. Neutral: 0."""
    batch_tokens: Count = 0
    """Targets a calibration batch, over all 8 logical ranks; a multiple of 8 * train.seq_len. 0: as
    train.batch_tokens."""
    row_score_every: Count = 0
    """Steps between two measurements of each row's gradient norm while training (FTLE scores). Neutral: 0."""


@dataclass(frozen=True, kw_only=True)
class QuantConfig(Section):
    """From averaged weights to the artifact, in this order: scale, rotate, clip, round, compress."""

    SECTION: typing.ClassVar[str] = "quant"

    bits: Annotated[int | None, Range(2, 8)] = 6
    """Bits of a quantised weight, one integer grid for each row. Neutral: null, everything is float16."""
    embed_bits: Annotated[int, Range(0, 16)] = 0
    """Bits of the token embedding; 16 keeps it as float16. Neutral: 0, as `bits`."""
    attn_bits: Annotated[int, Range(0, 8)] = 0
    """Bits of the attention matrices. Neutral: 0, as `bits`."""
    up_bits: Annotated[int, Range(0, 8)] = 0
    """Bits of the feed-forward's first matrix. Neutral: 0, as `bits`."""
    down_bits: Annotated[int, Range(0, 8)] = 0
    """Bits of the feed-forward's second matrix. Neutral: 0, as `bits`."""
    row_bits: bool = False
    """FTLE precision: rows of a tensor differ in bits, around its own number, by their gradients. Neutral:
    false."""
    allocate: bool = False
    """Take bits from tensors, where it hurts least a byte, until everything fits the byte limit. Neutral:
    false."""
    target_bytes: Count = 0
    """Bytes of the artifact that `allocate` must fit; 0: what the judge's limit leaves beside code and
    recipe."""
    awq: bool = False
    """Activation-aware scales of the columns, searched by tr(D H D^T), divided out at load. Neutral:
    false."""
    rotate: bool = False
    """Block-diagonal Hadamard rotation of the columns before rounding, undone at load. Neutral: false."""
    clip: Literal["max", "quantile", "sigma", "search"] = "max"
    """What a row's grid reaches up to: its largest number, a quantile, k standard deviations, or the best of
    several quantiles by squared error (weighted by Fisher where `fisher` is on). Neutral: max."""
    quantile: Annotated[float, Range(0.5, 1)] = 0.9999984
    """The quantile of |row| for clip: quantile."""
    sigmas: Positive = 12.85
    """k for clip: sigma."""
    embed_sigmas: Positive = 20.0
    """k of the token embedding for clip: sigma."""
    fisher: bool = False
    """Fisher-diagonal clip ranges: important rows reach further, and errors count by importance. Neutral:
    false."""
    floor: bool = False
    """Row scales of at least 1 / (2^(bits-1) - 1), as in public scripts: small rows use fewer bits. Neutral:
    false."""
    gptq: bool = False
    """Rounding with error feedback through the Hessian, instead of to the nearest. Neutral: false."""
    fp16_limit: Count = 65_535
    """Tensors of at most so many numbers are kept as float16."""
    entropy: bool = False
    """Code the grid's symbols with an entropy coder (rANS) before the codec. Neutral: false."""
    shuffle: Size = 1
    """Byte shuffle before the codec: all bytes at places 0 mod n, then 1 mod n, ... Neutral: 1."""
    codec: Literal["zstd", "brotli", "lzma", "zlib"] = "zstd"
    """Compressor of the packed tensors."""
    level: Annotated[int, Range(1, 22)] = 22
    """The compressor's level: zstd 1..22, brotli 1..11, lzma and zlib 1..9."""

    def check(self) -> None:
        need(
            self.embed_bits in (0, *range(2, 9), 16),
            f"quant.embed_bits {self.embed_bits} must be 0, 2..8 or 16",
        )
        for name in ("attn_bits", "up_bits", "down_bits"):
            need(getattr(self, name) != 1, f"quant.{name} must be 0 or 2..8")
        highest = {"zstd": 22, "brotli": 11, "lzma": 9, "zlib": 9}[self.codec]
        need(self.level <= highest, f"quant.level {self.level} must be 1..{highest} for {self.codec}")


@dataclass(frozen=True, kw_only=True)
class ScoreConfig(Section):
    """How the text is predicted."""

    SECTION: typing.ClassVar[str] = "score"

    window: Size = 1024
    """Longest context and targets together, W."""
    stride: Size = 64
    """Targets a window, S: target t sees the inputs max(0, S * (t // S) - (W - S) - 1) .. t - 1."""
    chunk_tokens: Size = 262_144
    """Tokens that the judge reveals at a time; a multiple of the stride, cut to the judge's limit."""
    batch_windows: Size = 32
    """Windows in one forward pass."""

    def check(self) -> None:
        need(self.stride <= self.window, f"score.stride {self.stride} must be 1..window ({self.window})")
        need(
            self.chunk_tokens % self.stride == 0,
            f"score.chunk_tokens {self.chunk_tokens} must be a positive multiple of score.stride "
            f"{self.stride}",
        )


@dataclass(frozen=True, kw_only=True)
class AdaptConfig(Section):
    """What is learned from a chunk once its scores are committed. Neutral: nothing, and no `adapt` is asked
    for."""

    SECTION: typing.ClassVar[str] = "adapt"

    epochs: Count = 0
    """Test-time training: passes of SGD over all parameters on each scored chunk. Neutral: 0."""
    lr: Positive = 0.005
    """Its learning rate at the first chunk, falling to 0 along a cosine over the chunks."""
    momentum: Annotated[float, Range(0, 0.999999)] = 0.9
    """Its momentum, kept from chunk to chunk."""
    clip: NotNegative = 1.0
    """Limit on its gradient's global 2-norm; 0: none."""
    seq_len: Size = 2048
    """Targets a row of it."""
    batch_rows: Size = 32
    """Most rows a step of it, over all ranks."""
    bias_lr: NotNegative = 0.0
    """Online bias descent: rate of one exact gradient step a chunk on a bias of the logits. Neutral: 0."""

    @property
    def on(self) -> bool:
        """Whether anything is learned."""
        return self.epochs > 0 or self.bias_lr > 0


@dataclass(frozen=True, kw_only=True)
class HardwareConfig(Section):
    """What depends on the machine and not on the idea."""

    SECTION: typing.ClassVar[str] = "hardware"

    ranks: int = 1
    """Processes on a CPU: 1, 2, 4 or 8, which share its threads. On GPUs there is one for each, whatever
    stands here."""
    micro_tokens: Size = 65_536
    """Most tokens in one forward and backward pass; the rows of a process are cut to it, evenly."""
    precision: Literal["auto", "float32", "bfloat16"] = "auto"
    """Arithmetic of the trunk. auto: bfloat16 where the device has it natively."""

    def check(self) -> None:
        need(self.ranks in (1, 2, 4, 8), f"hardware.ranks {self.ranks} must be 1, 2, 4 or 8")


@dataclass(frozen=True, kw_only=True)
class Config:
    """One resolved recipe; the profile has been merged in."""

    model: ModelConfig = field(default_factory=ModelConfig)
    optim: OptimConfig = field(default_factory=OptimConfig)
    train: TrainConfig = field(default_factory=TrainConfig)
    stats: StatsConfig = field(default_factory=StatsConfig)
    quant: QuantConfig = field(default_factory=QuantConfig)
    score: ScoreConfig = field(default_factory=ScoreConfig)
    adapt: AdaptConfig = field(default_factory=AdaptConfig)
    hardware: HardwareConfig = field(default_factory=HardwareConfig)

    def __post_init__(self) -> None:
        quant, stats = self.quant, self.stats
        need(
            stats.batch_tokens % (8 * self.train.seq_len) == 0,
            f"stats.batch_tokens {stats.batch_tokens} must be a multiple of 8 * train.seq_len = "
            f"{8 * self.train.seq_len}",
        )
        for name, source, on in (
            ("gptq", "hessian_batches", quant.gptq),
            ("awq", "hessian_batches", quant.awq),
            ("fisher", "fisher_batches", quant.fisher),
            ("row_bits", "row_score_every", quant.row_bits),
        ):
            need(
                not on or getattr(stats, source) > 0, f"quant.{name} needs stats.{source}: pack sees no data"
            )

    @property
    def calibration_tokens(self) -> int:
        """Targets of a calibration batch."""
        return self.stats.batch_tokens or self.train.batch_tokens


SECTIONS = tuple(part.name for part in dataclasses.fields(Config))
