"""The recipe as a tree of frozen dataclasses: the whole `Config`, and the sections used after training.

The sections that decide training are in golf/recipe/training.py. Each field has a type, a range and a neutral
value as its default; each section's `check` holds the constraints between its fields.
"""

from __future__ import annotations

import typing
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Annotated, Literal

from golf.recipe.mistakes import ConfigError, Mistake
from golf.recipe.section import Count, NonNegative, Positive, Range, Section, Size
from golf.recipe.training import ModelConfig, OptimConfig, StatsConfig, TrainConfig


@dataclass(frozen=True, kw_only=True)
class QuantConfig(Section):
    """From trained weights to the artifact, in this order: scale, rotate, clip, round, compress."""

    SECTION: typing.ClassVar[str] = "quant"

    bits: Annotated[int | None, Range(2, 8)] = 6
    """Bits of a quantised weight; each row has its own integer grid. Neutral: null, store float16."""
    embed_bits: Annotated[int, Range(0, 16)] = 0
    """Bits of the token embedding; 16 stores float16. Neutral: 0, the same as `bits`."""
    attn_bits: Annotated[int, Range(0, 8)] = 0
    """Bits of the attention matrices. Neutral: 0, the same as `bits`."""
    up_bits: Annotated[int, Range(0, 8)] = 0
    """Bits of the feed-forward's first matrix. Neutral: 0, the same as `bits`."""
    down_bits: Annotated[int, Range(0, 8)] = 0
    """Bits of the feed-forward's second matrix. Neutral: 0, the same as `bits`."""
    row_bits: bool = False
    """FTLE precision: within a tensor, rows with larger gradients get more bits, with the tensor's own number
    as the target mean. Neutral: false."""
    allocate: bool = False
    """Remove bits where it costs least loss per byte, until the artifact fits its limit. Neutral: false."""
    target_bytes: Count = 0
    """Artifact size in bytes for `allocate`; 0: the judge's limit minus code and recipe."""
    awq: bool = False
    """AWQ: scale columns by their activations before rounding, undone at load; the exponent is searched to
    minimise tr(D H D^T). Neutral: false."""
    rotate: bool = False
    """Block-diagonal Hadamard rotation of the columns before rounding, undone at load. Neutral: false."""
    clip: Literal["max", "quantile", "sigma", "search"] = "max"
    """The largest magnitude on a row's grid: the row's maximum, a quantile of |row|, k standard deviations,
    or the quantile with the least squared error (weighted by Fisher if `fisher` is on). Neutral: max."""
    quantile: Annotated[float, Range(0.5, 1)] = 0.9999984
    """The quantile of |row|, for `clip: quantile`."""
    sigmas: Positive = 12.85
    """k, for `clip: sigma`."""
    embed_sigmas: Positive = 20.0
    """k of the token embedding, for `clip: sigma`."""
    fisher: bool = False
    """Use the Fisher diagonal for clipping: important rows get a wider range, and errors are weighted by
    importance. Neutral: false."""
    floor: bool = False
    """Grid steps of at least 1 / (2^(bits-1) - 1): rows of small numbers use fewer codes. Neutral: false."""
    gptq: bool = False
    """GPTQ: round with error feedback through the Hessian instead of to the nearest. Neutral: false."""
    fp16_limit: Count = 65_535
    """Tensors with at most this many numbers are stored as float16."""
    entropy: bool = False
    """Code the quantised numbers with an entropy coder (rANS) before the codec. Neutral: false."""
    shuffle: Size = 1
    """Byte shuffle before the codec: all bytes at positions 0 mod n, then 1 mod n, ... Neutral: 1."""
    codec: Literal["zstd", "brotli", "lzma", "zlib"] = "zstd"
    """Compressor of the packed tensors."""
    level: Annotated[int, Range(1, 22)] = 22
    """The compressor's level: zstd 1..22, brotli 1..11, lzma and zlib 1..9."""

    def check(self) -> Iterator[Mistake]:
        if self.embed_bits not in (0, *range(2, 9), 16):
            yield Mistake(("quant.embed_bits",), f"got {self.embed_bits}; expected 0, 2..8 or 16")
        for name in ("attn_bits", "up_bits", "down_bits"):
            if getattr(self, name) == 1:
                yield Mistake((f"quant.{name}",), "got 1; expected 0 or 2..8")
        highest = {"zstd": 22, "brotli": 11, "lzma": 9, "zlib": 9}[self.codec]
        if self.level > highest:
            text = f"got {self.level}; expected 1..{highest} for {self.codec}"
            yield Mistake(("quant.level", "quant.codec"), text)


@dataclass(frozen=True, kw_only=True)
class ScoreConfig(Section):
    """How the validation text is predicted: sliding windows over the tokens."""

    SECTION: typing.ClassVar[str] = "score"

    window: Size = 1024
    """W: longest context plus the targets, in tokens."""
    stride: Size = 64
    """S: targets per window. Target t sees the inputs max(0, S * (t // S) - (W - S) - 1) .. t - 1."""
    chunk_tokens: Size = 262_144
    """Tokens that the judge reveals at a time; a multiple of the stride, reduced to the judge's limit."""
    batch_windows: Size = 32
    """Windows per forward pass."""
    single_windows: bool = True
    """On a GPU, compute single rows as one window instead of a batch filled with zeros: faster, but perhaps
    rounded differently. False: in the shape of scoring."""
    align: Literal["stream", "documents"] = "stream"
    """Where windows may begin: anywhere in the stream, or no earlier than the document of their target, whose
    first W tokens are then read in one pass. Neutral: stream."""
    bos: Count = 1
    """The token that opens each document, for `align: documents`."""

    def check(self) -> Iterator[Mistake]:
        if self.stride > self.window:
            text = f"got {self.stride}; expected at most score.window, {self.window}"
            yield Mistake(("score.stride", "score.window"), text)
        if self.chunk_tokens % self.stride:
            text = f"got {self.chunk_tokens}; expected a multiple of score.stride, {self.stride}"
            yield Mistake(("score.chunk_tokens", "score.stride"), text)


@dataclass(frozen=True, kw_only=True)
class AdaptConfig(Section):
    """Learning from each chunk after its scores are committed. Neutral: no learning, no `adapt` frames."""

    SECTION: typing.ClassVar[str] = "adapt"

    epochs: Count = 0
    """Test-time training: passes of SGD over all parameters on each scored chunk. Neutral: 0."""
    lr: Positive = 0.005
    """SGD's learning rate at the first chunk; it decays to 0 along a cosine over the chunks."""
    momentum: Annotated[float, Range(0, 0.999999)] = 0.9
    """SGD's momentum; its buffers are kept from chunk to chunk."""
    clip: NonNegative = 1.0
    """Upper limit of the SGD gradient's global 2-norm; 0: none."""
    seq_len: Size = 2048
    """Targets per row of an SGD batch."""
    batch_rows: Size = 32
    """Most rows per SGD step, over all ranks."""
    bias_lr: NonNegative = 0.0
    """Online bias descent: rate of one full-gradient step per chunk on a bias of the logits. Neutral: 0."""

    @property
    def on(self) -> bool:
        """Whether scored text is learned from at all."""
        return self.epochs > 0 or self.bias_lr > 0


@dataclass(frozen=True, kw_only=True)
class HardwareConfig(Section):
    """Settings that depend on the machine, not on the method."""

    SECTION: typing.ClassVar[str] = "hardware"

    ranks: int = 1
    """Processes on a CPU: 1, 2, 4 or 8, which share its threads. Ignored on GPUs: one process per GPU."""
    micro_tokens: Size = 65_536
    """Most tokens in one forward and backward pass; larger batches are split evenly into such passes."""
    precision: Literal["auto", "float32", "bfloat16"] = "auto"
    """Arithmetic of the forward pass. `auto`: bfloat16 where the device supports it natively."""
    attention: Literal["auto", "flash3", "cudnn", "cudnn_repeated", "sdpa", "blocks"] = "auto"
    """The attention kernel; one that cannot run is an error. `auto`: the fastest that runs in the recipe's
    shapes. `cudnn_repeated` is cuDNN's with keys and values repeated for each query head."""
    loss_in_graph: bool = True
    """Compile the loss with the model, so that the float32 logits never leave the graph; matters on GPUs."""
    fused_loss: bool = False
    """Softcap and cross-entropy of training in one Triton kernel each way; needs a GPU."""
    prefetch: bool = True
    """On a GPU, read the next batch and queue its step while one step still runs; false: wait for each step.
    Without effect on a CPU."""
    banks: bool = True
    """Each process receives the mean of its own share of Muon's gradients only, on a GPU in the dtype of the
    forward pass; false: the mean of all gradients, in float32. With one process, nothing is exchanged."""
    deterministic_adaptation: bool = True
    """On a GPU, learn from scored text with deterministic algorithms, so that a witness learns the same."""

    def check(self) -> Iterator[Mistake]:
        if self.ranks not in (1, 2, 4, 8):
            yield Mistake(("hardware.ranks",), f"got {self.ranks}; expected 1, 2, 4 or 8")
        if self.fused_loss and not self.loss_in_graph:
            text = "got true; it needs hardware.loss_in_graph, because it takes the place of the graph's loss"
            yield Mistake(("hardware.fused_loss", "hardware.loss_in_graph"), text)


@dataclass(frozen=True, kw_only=True)
class Config:
    """One resolved recipe, with the profile merged in."""

    model: ModelConfig = field(default_factory=ModelConfig)
    optim: OptimConfig = field(default_factory=OptimConfig)
    train: TrainConfig = field(default_factory=TrainConfig)
    stats: StatsConfig = field(default_factory=StatsConfig)
    quant: QuantConfig = field(default_factory=QuantConfig)
    score: ScoreConfig = field(default_factory=ScoreConfig)
    adapt: AdaptConfig = field(default_factory=AdaptConfig)
    hardware: HardwareConfig = field(default_factory=HardwareConfig)

    def __post_init__(self) -> None:
        if mistakes := list(self.check()):
            raise ConfigError(*mistakes)

    def check(self) -> Iterator[Mistake]:
        """Broken constraints between fields of different sections."""
        quant, stats, row = self.quant, self.stats, 8 * self.train.seq_len
        if stats.batch_tokens % row:
            text = f"got {stats.batch_tokens}; expected a multiple of 8 * train.seq_len, {row}"
            yield Mistake(("stats.batch_tokens", "train.seq_len"), text)
        for name, source in (
            ("gptq", "hessian_batches"),
            ("awq", "hessian_batches"),
            ("fisher", "fisher_batches"),
            ("row_bits", "row_score_every"),
        ):
            if getattr(quant, name) and not getattr(stats, source):
                text = f"got true; it needs stats.{source} above 0, because pack has no access to data"
                yield Mistake((f"quant.{name}", f"stats.{source}"), text)

    def require_tokens(self, vocab_size: int) -> None:
        """Raise ConfigError if the recipe names a token that a vocabulary of this size lacks."""
        if self.score.align == "documents" and self.score.bos >= vocab_size:
            text = f"got {self.score.bos}; the vocabulary has the tokens 0 .. {vocab_size - 1}"
            raise ConfigError(Mistake(("score.bos",), text))

    @property
    def calibration_tokens(self) -> int:
        """Targets per calibration batch."""
        return self.stats.batch_tokens or self.train.batch_tokens
