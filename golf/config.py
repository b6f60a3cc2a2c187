"""The recipe: a tree of frozen dataclasses, a strict YAML loader, and the resolved text that names a run.

A recipe file holds what differs from the defaults (which are the challenge's naive baseline) and a mapping
`profiles: {solo: {...}, pocket: {...}}` of overrides; the judge names the profile, mappings merge deep, lists and
scalars are replaced. A new technique is one field here, with its neutral value as default.

A `Horizon` counts steps when it is an integer and is a fraction of the run when it is a float, so that a profile with
few steps keeps the shape of a long run.

Not covered: what only makes sense together with the data (a batch larger than the shards wraps around, that is all).
"""

from __future__ import annotations

import dataclasses
import difflib
import hashlib
import types
import typing
from dataclasses import dataclass, field
from typing import Any, Literal

import yaml

MAX_CHARACTERS = 65_536
PROFILES = ("record", "solo", "pocket")
Horizon = int | float


class ConfigError(ValueError):
    """A recipe that cannot be used as written; the message names the key and what was expected."""


def _need(condition: bool, message: str) -> None:
    if not condition:
        raise ConfigError(message)


@dataclass(frozen=True, kw_only=True)
class ModelConfig:
    """Shape and techniques of the network; the defaults are the naive baseline (17,059,912 parameters at V = 1024)."""

    layers: int = 9
    """Physical transformer blocks."""
    width: int = 512
    """Residual width D."""
    heads: int = 8
    """Query heads H; each is width / heads wide."""
    kv_heads: int = 4
    """Key and value heads K; H / K query heads share one."""
    mlp_hidden: int = 1024
    """Hidden width of the relu-squared feed-forward."""
    softcap: float = 30.0
    """Logits become c * tanh(logits / c). Neutral: 0, no cap."""
    rope_dims: int = 0
    """Partial rotary embedding: the first n dimensions of a head rotate. Neutral: 0, all of them do."""
    rope_base: float = 10_000.0
    """Base of the rotary frequencies."""
    q_gain: float = 1.5
    """Initial value of the learned gain of each query head, applied after QK norm and rotation."""
    skips: bool = True
    """U-Net skips: the first half of the layers feeds the second, last in first out. Neutral: false."""
    ln_scale: bool = False
    """Multiply each block's normed inputs by 1 / sqrt(layer + 1). Neutral: false."""
    xsa_last: int = 0
    """Exclusive self-attention on the last n layers: outputs lose their part along their own value. Neutral: 0."""
    attn_gate: bool = False
    """Each head's output times the sigmoid of a linear read of the block's input. Neutral: false."""
    smear: bool = False
    """SmearGate: a learned share of the previous token's embedding. Neutral: false."""
    bigram_buckets: int = 0
    """BigramHash: rows of a hashed table of token pairs added to the embedding. Neutral: 0."""
    bigram_dim: int = 128
    """Width of the BigramHash table before its projection; unused while bigram_buckets is 0."""
    ve_dim: int = 0
    """Shared value embedding: width of its table before its projection. Neutral: 0."""
    ve_layers: tuple[int, ...] = ()
    """Layers whose values receive the shared value embedding; unused while ve_dim is 0."""
    init: Literal["default", "orthogonal"] = "default"
    """Initial matrices: uniform in +-1/sqrt(fan_in), or orthogonal with gain 1. Output projections start at zero."""
    embed_std: float = 0.005
    """Standard deviation of the initial token, bigram and value tables."""

    def __post_init__(self) -> None:
        for name in ("layers", "width", "heads", "kv_heads", "mlp_hidden", "bigram_dim"):
            _need(getattr(self, name) >= 1, f"model.{name} must be at least 1, not {getattr(self, name)}")
        _need(self.width % self.heads == 0, f"model.width {self.width} must be a multiple of model.heads {self.heads}")
        _need(self.heads % self.kv_heads == 0,
              f"model.heads {self.heads} must be a multiple of model.kv_heads {self.kv_heads}")
        head_dim = self.width // self.heads
        _need(head_dim % 2 == 0, f"model.width / model.heads is {head_dim}: rotation needs an even number")
        _need(0 <= self.rope_dims <= head_dim and self.rope_dims % 2 == 0,
              f"model.rope_dims {self.rope_dims} must be even and at most the head width {head_dim}")
        _need(0 <= self.xsa_last <= self.layers, f"model.xsa_last {self.xsa_last} must be 0..{self.layers}")
        _need(self.bigram_buckets >= 0 and self.ve_dim >= 0, "model.bigram_buckets and model.ve_dim cannot be negative")
        _need(self.ve_dim == 0 or len(self.ve_layers) > 0, "model.ve_dim needs model.ve_layers")
        _need(len(set(self.ve_layers)) == len(self.ve_layers) and all(0 <= i < self.layers for i in self.ve_layers),
              f"model.ve_layers {list(self.ve_layers)} must be distinct layers 0..{self.layers - 1}")
        _need(self.softcap >= 0 and self.embed_std > 0 and self.rope_base > 1,
              "model.softcap must be >= 0, model.embed_std > 0 and model.rope_base > 1")

    @property
    def head_dim(self) -> int:
        """Width of one head."""
        return self.width // self.heads


@dataclass(frozen=True, kw_only=True)
class OptimConfig:
    """Optimizers, their schedules, clipping and weight averaging."""

    muon_lr: float = 0.04
    """Learning rate of Muon: every matrix inside the blocks."""
    muon_variant: Literal["nesterov", "lerp"] = "nesterov"
    """Momentum: buf = m buf + g looking ahead, or buf = m buf + (1 - m) g as it is."""
    muon_momentum: float = 0.95
    """Momentum after its warm-up."""
    muon_momentum_start: float = 0.85
    """Momentum at step 0."""
    muon_momentum_warmup: Horizon = 500
    """Horizon of the linear momentum warm-up. Neutral: 0."""
    muon_decay: float = 0.0
    """Decoupled weight decay of Muon: p *= 1 - lr * decay before the update. Neutral: 0."""
    muon_steps: int = 5
    """Newton-Schulz iterations."""
    embed_lr: float = 0.05
    """AdamW's learning rate of the token embedding, which is the head too."""
    scalar_lr: float = 0.04
    """AdamW's learning rate of everything else: vectors, gains, skips, hashed and value tables, their projections."""
    adam_decay: float = 0.0
    """Decoupled weight decay of AdamW. Neutral: 0."""
    beta1: float = 0.9
    """AdamW's first moment."""
    beta2: float = 0.95
    """AdamW's second moment."""
    adam_eps: float = 1e-8
    """AdamW's epsilon."""
    clip: float = 0.0
    """Limit on the gradient's global 2-norm. Neutral: 0, no clipping."""
    warmdown: Horizon = 1200
    """Horizon of the final descent of all learning rates to 0. Neutral: 0, constant rates."""
    warmdown_shape: Literal["linear", "cosine"] = "linear"
    """Shape of the descent."""
    ema_decay: float = 0.0
    """Decay of the averaged weights that are saved in place of the last ones. Neutral: 0, the last weights."""
    ema_fraction: float = 0.0
    """Where positive, takes ema_decay's place: the average reaches back this fraction of the expected steps."""

    def __post_init__(self) -> None:
        for name in ("muon_lr", "embed_lr", "scalar_lr", "adam_eps"):
            _need(getattr(self, name) > 0, f"optim.{name} must be positive, not {getattr(self, name)}")
        for name in ("muon_momentum", "muon_momentum_start", "beta1", "beta2", "ema_decay"):
            _need(0 <= getattr(self, name) < 1, f"optim.{name} must be in [0, 1), not {getattr(self, name)}")
        for name in ("muon_decay", "adam_decay", "clip"):
            _need(getattr(self, name) >= 0, f"optim.{name} cannot be negative")
        for name in ("muon_momentum_warmup", "warmdown", "ema_fraction"):
            value = getattr(self, name)
            _need(value >= 0 and (isinstance(value, int) or value <= 1.0),
                  f"optim.{name} {value}: an integer counts steps, a float is a fraction of the run in 0..1")
        _need(self.muon_steps >= 1, "optim.muon_steps must be at least 1")


@dataclass(frozen=True, kw_only=True)
class TrainConfig:
    """The loop: how much a step reads and what ends it."""

    batch_tokens: int = 524_288
    """Targets a step, over all 8 logical ranks."""
    seq_len: int = 1024
    """Targets a row."""
    steps: int = 0
    """Stop after so many steps, whatever the time, so that a run repeats exactly. 0: the judge's clock decides."""
    warmup_steps: int = 20
    """Steps on made-up tokens before `ready`, undone afterwards: compilation and allocation happen there."""
    log_every: int = 50
    """Steps between two lines of the training log."""

    def __post_init__(self) -> None:
        _need(self.seq_len >= 1 and self.log_every >= 1, "train.seq_len and train.log_every must be at least 1")
        _need(self.batch_tokens >= 1 and self.batch_tokens % (8 * self.seq_len) == 0,
              f"train.batch_tokens {self.batch_tokens} must be a multiple of 8 * seq_len = {8 * self.seq_len}")
        _need(self.steps >= 0 and self.warmup_steps >= 0, "train.steps and train.warmup_steps cannot be negative")


@dataclass(frozen=True, kw_only=True)
class QuantConfig:
    """From averaged weights to the artifact."""

    bits: int | None = 6
    """Bits of a quantised weight, one integer grid for each row. Neutral: null, everything is float16."""
    rotate: bool = False
    """Block-diagonal Hadamard rotation of the columns before rounding, undone at load. Neutral: false."""
    floor: bool = False
    """Row scales of at least 1 / (2^(bits-1) - 1), as in public scripts: small rows use fewer bits. Neutral: false."""
    fp16_limit: int = 65_535
    """Tensors of at most so many numbers are kept as float16."""
    codec: Literal["zstd"] = "zstd"
    """Compressor of the packed tensors."""
    level: int = 22
    """The compressor's level."""

    def __post_init__(self) -> None:
        _need(self.bits is None or 2 <= self.bits <= 8, f"quant.bits {self.bits} must be 2..8 or null")
        _need(self.fp16_limit >= 0, "quant.fp16_limit cannot be negative")
        _need(1 <= self.level <= 22, f"quant.level {self.level} must be 1..22")


@dataclass(frozen=True, kw_only=True)
class ScoreConfig:
    """How the text is predicted."""

    window: int = 1024
    """Longest context and targets together, W."""
    stride: int = 64
    """Targets a window, S: target t sees the inputs max(0, S * (t // S) - (W - S) - 1) .. t - 1."""
    chunk_tokens: int = 262_144
    """Tokens that the judge reveals at a time; a multiple of the stride, cut to the judge's limit."""
    batch_windows: int = 32
    """Windows in one forward pass."""

    def __post_init__(self) -> None:
        _need(1 <= self.stride <= self.window, f"score.stride {self.stride} must be 1..window ({self.window})")
        _need(self.chunk_tokens >= 1 and self.chunk_tokens % self.stride == 0,
              f"score.chunk_tokens {self.chunk_tokens} must be a positive multiple of score.stride {self.stride}")
        _need(self.batch_windows >= 1, "score.batch_windows must be at least 1")


@dataclass(frozen=True, kw_only=True)
class HardwareConfig:
    """What depends on the machine and not on the idea."""

    ranks: int = 1
    """Processes on a CPU: 1, 2, 4 or 8, which share its threads. On GPUs there is one for each, whatever stands here."""
    micro_tokens: int = 65_536
    """Most tokens in one forward and backward pass; the rows of a process are cut to it, evenly."""
    precision: Literal["auto", "float32", "bfloat16"] = "auto"
    """Arithmetic of the trunk. auto: bfloat16 where the device has it natively."""

    def __post_init__(self) -> None:
        _need(self.ranks in (1, 2, 4, 8), f"hardware.ranks {self.ranks} must be 1, 2, 4 or 8")
        _need(self.micro_tokens >= 1, "hardware.micro_tokens must be at least 1")


@dataclass(frozen=True, kw_only=True)
class Config:
    """One resolved recipe; the profile has been merged in."""

    model: ModelConfig = field(default_factory=ModelConfig)
    optim: OptimConfig = field(default_factory=OptimConfig)
    train: TrainConfig = field(default_factory=TrainConfig)
    quant: QuantConfig = field(default_factory=QuantConfig)
    score: ScoreConfig = field(default_factory=ScoreConfig)
    hardware: HardwareConfig = field(default_factory=HardwareConfig)


class _StrictLoader(yaml.SafeLoader):
    """SafeLoader that refuses duplicate keys and merge keys; anchors and tags are refused before it runs."""

    def construct_mapping(self, node: yaml.MappingNode, deep: bool = False) -> dict[Any, Any]:
        seen: set[str] = set()
        for key_node, _ in node.value:
            place = f"line {key_node.start_mark.line + 1}"
            _need(key_node.tag == "tag:yaml.org,2002:str", f"{place}: keys must be plain words")
            _need(key_node.value not in seen, f"{place}: duplicate key {key_node.value!r}")
            seen.add(key_node.value)
        return super().construct_mapping(node, deep=deep)


def parse(text: str) -> dict[str, Any]:
    """YAML text -> nested dict; raises ConfigError on size, anchors, aliases, tags, duplicates or a second document."""
    _need(len(text) <= MAX_CHARACTERS, f"recipe of {len(text)} characters: at most {MAX_CHARACTERS} are read")
    depth = 0
    try:
        for event in yaml.parse(text, Loader=yaml.SafeLoader):
            place = f"line {event.start_mark.line + 1}"
            _need(not isinstance(event, yaml.AliasEvent) and not getattr(event, "anchor", None),
                  f"{place}: anchors and aliases are not accepted")
            _need(not getattr(event, "tag", None), f"{place}: explicit tags are not accepted")
            depth += isinstance(event, yaml.CollectionStartEvent) - isinstance(event, yaml.CollectionEndEvent)
            _need(depth <= 8, f"{place}: nested deeper than 8")
        tree = yaml.load(text, Loader=_StrictLoader)
    except (yaml.YAMLError, RecursionError) as error:
        raise ConfigError(f"not readable as YAML: {error}") from None
    if tree is None:
        return {}
    _need(isinstance(tree, dict), "the recipe must be a mapping of sections")
    return tree


def _merge(base: dict[str, Any], over: dict[str, Any]) -> dict[str, Any]:
    merged = dict(base)
    for key, value in over.items():
        both = isinstance(value, dict) and isinstance(merged.get(key), dict)
        merged[key] = _merge(merged[key], value) if both else value
    return merged


def _value(value: Any, hint: Any, place: str) -> Any:
    """Check one scalar or list against its annotation, exactly: no bool as a number, no text as a float."""
    if typing.get_origin(hint) is Literal:
        options = typing.get_args(hint)
        _need(value in options and type(value) is str, f"{place}: expected one of {', '.join(options)}; got {value!r}")
        return value
    if typing.get_origin(hint) is tuple:
        _need(isinstance(value, list), f"{place}: expected a list, got {value!r}")
        item = typing.get_args(hint)[0]
        return tuple(_value(each, item, f"{place}[{i}]") for i, each in enumerate(value))
    allowed = typing.get_args(hint) if isinstance(hint, types.UnionType) else (hint,)
    if type(value) is int and float in allowed and int not in allowed:
        value = float(value)
    named = " or ".join(t.__name__ for t in allowed)
    advice = " (write 1.0e-8, not 1e-8)" if isinstance(value, str) and float in allowed else ""
    _need(type(value) in allowed, f"{place}: expected {named}, got {value!r}{advice}")
    _need(type(value) is not float or abs(value) < float("inf"), f"{place}: {value} is not a finite number")
    return value


def _build(kind: type, tree: Any, place: str) -> Any:
    """A dataclass from a mapping; unknown keys raise with the nearest known one."""
    _need(isinstance(tree, dict), f"{place or 'the recipe'}: expected a mapping, got {tree!r}")
    hints = typing.get_type_hints(kind)
    known = [f.name for f in dataclasses.fields(kind)]
    values = {}
    for key, value in tree.items():
        dotted = f"{place}.{key}" if place else key
        if key not in known:
            near = difflib.get_close_matches(key, known, n=1, cutoff=0.5)
            guess = f"did you mean {near[0]!r}?" if near else f"known: {', '.join(known)}"
            raise ConfigError(f"{dotted}: unknown key; {guess}")
        nested = dataclasses.is_dataclass(hints[key])
        values[key] = _build(hints[key], value, dotted) if nested else _value(value, hints[key], dotted)
    return kind(**values)


def load(text: str, profile: str = "record") -> Config:
    """Recipe text and profile name -> Config. `record` is the recipe as written, without any override."""
    tree = parse(text)
    profiles = tree.pop("profiles", {})
    _need(profile in PROFILES, f"unknown profile {profile!r}; known: {', '.join(PROFILES)}")
    _need(isinstance(profiles, dict), "profiles: expected a mapping of profile names")
    for name, override in profiles.items():
        _need(name in PROFILES[1:], f"profiles.{name}: unknown profile; known: {', '.join(PROFILES[1:])}")
        _need(isinstance(override, dict), f"profiles.{name}: expected a mapping of sections")
        _build(Config, _merge(tree, override), "")  # a mistake in any profile is found in every run
    return _build(Config, _merge(tree, profiles.get(profile, {})), "")


def as_tree(config: Config) -> dict[str, Any]:
    """Config -> nested dict of plain values, every field present."""
    tree = dataclasses.asdict(config)
    return {section: {key: list(value) if isinstance(value, tuple) else value for key, value in fields.items()}
            for section, fields in tree.items()}


def resolved(config: Config) -> str:
    """The YAML text of a resolved recipe: every field, in order; `load(resolved(c)) == c`."""
    return yaml.safe_dump(as_tree(config), sort_keys=False, default_flow_style=False)


def digest(config: Config) -> str:
    """sha256 of the resolved text: the recipe's name in checkpoints and artifacts."""
    return hashlib.sha256(resolved(config).encode()).hexdigest()
