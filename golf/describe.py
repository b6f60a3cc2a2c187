"""Stage describe: what the judge may know of a recipe without understanding it, and without any data.

`parameters` is a count over the model built without memory; `techniques` are the names of what is on; `variants` hold
one recipe text for each of them, with that technique alone switched off; `estimated_bytes` is an estimate of the
counted size (code, recipe, artifact), see `estimated_artifact_bytes`.

TECHNIQUES is the list of everything that can be switched: the tests of neutrality and causality walk it as well.
"""

from __future__ import annotations

import sys
from collections.abc import Iterable
from pathlib import Path
from typing import Any, NamedTuple

import torch
import yaml

from golf.config import MAX_CHARACTERS, Config, as_tree, load, parse
from golf.dist import Ranks
from golf.model.gpt import GPT
from golf.wire import Setup, Wire


class Technique(NamedTuple):
    """A name and the fields (section.field) that switch it off, with their neutral values."""

    name: str
    neutral: dict[str, Any]


TECHNIQUES = (
    Technique("softcap", {"model.softcap": 0.0}),
    Technique("partial-rope", {"model.rope_dims": 0}),
    Technique("unet-skips", {"model.skips": False}),
    Technique("skip-gates", {"model.skip_gates": False}),
    Technique("parallel-residuals", {"model.parallel_last": 0}),
    Technique("depth-recurrence", {"model.loop_layers": []}),
    Technique("leaky-relu", {"model.mlp_slope": 0.0}),
    Technique("low-rank-q", {"model.q_rank": 0}),
    Technique("ln-scale", {"model.ln_scale": False}),
    Technique("xsa", {"model.xsa_last": 0}),
    Technique("attention-gate", {"model.attn_gate": False}),
    Technique("smear-gate", {"model.smear": False}),
    Technique("bigram-hash", {"model.bigram_buckets": 0}),
    Technique("value-embedding", {"model.ve_dim": 0, "model.ve_layers": []}),
    Technique("orthogonal-init", {"model.init": "default"}),
    Technique("overtone-init", {"model.overtone": False}),
    Technique("phase-mix", {"model.phase_mix": False}),
    Technique("muon-decay", {"optim.muon_decay": 0.0}),
    Technique("muon-equalise", {"optim.muon_equalise": False}),
    Technique("adam-decay", {"optim.embed_decay": 0.0, "optim.scalar_decay": 0.0}),
    Technique("momentum-warmup", {"optim.muon_momentum_warmup": 0}),
    Technique("gradient-clip", {"optim.clip": 0.0}),
    Technique("warmdown", {"optim.warmdown": 0}),
    Technique("ema", {"optim.ema_decay": 0.0, "optim.ema_fraction": 0.0}),
    Technique("shuffled-loader", {"train.loader": "stream"}),
    Technique("qat", {"train.qat_bits": 0}),
    Technique("int-grid", {"quant.bits": None}),
    Technique("layer-bits", {"quant.embed_bits": 0, "quant.attn_bits": 0, "quant.up_bits": 0, "quant.down_bits": 0}),
    Technique("row-bits", {"quant.row_bits": False}),
    Technique("bit-allocation", {"quant.allocate": False}),
    Technique("awq", {"quant.awq": False}),
    Technique("hadamard", {"quant.rotate": False}),
    Technique("clip-range", {"quant.clip": "max"}),
    Technique("fisher-clip", {"quant.fisher": False}),
    Technique("scale-floor", {"quant.floor": False}),
    Technique("gptq", {"quant.gptq": False}),
    Technique("entropy-coder", {"quant.entropy": False}),
    Technique("byte-shuffle", {"quant.shuffle": 1}),
    Technique("test-time-training", {"adapt.epochs": 0}),
    Technique("bias-descent", {"adapt.bias_lr": 0.0}),
)
GRID = next(technique for technique in TECHNIQUES if technique.name == "int-grid")
FIRST_CHANGED = {"quant": "pack", "score": "score", "adapt": "score"}
"""The first stage whose outcome a section decides; training for those not named."""


def is_on(technique: Technique, config: Config) -> bool:
    """Whether any of the technique's fields differs from its neutral value."""
    tree = as_tree(config)
    values = {path: tree[path.split(".")[0]][path.split(".")[1]] for path in technique.neutral}
    return any(values[path] != neutral for path, neutral in technique.neutral.items())


def first_changed(technique: Technique) -> str:
    """The first stage that comes out differently without the technique: train, pack or score."""
    stages = {FIRST_CHANGED.get(path.split(".")[0], "train") for path in technique.neutral}
    return min(stages, key=("train", "pack", "score").index)


def without(technique: Technique, text: str) -> str:
    """The recipe's text with one technique neutral in the base and in every profile; comments are lost."""
    tree = parse(text)
    layers = [tree, *tree.get("profiles", {}).values()]
    for path, neutral in technique.neutral.items():
        section, key = path.split(".")
        for layer in layers:
            layer.get(section, {}).pop(key, None)
        tree.setdefault(section, {})[key] = neutral
    return yaml.safe_dump(tree, sort_keys=False)


def build(config: Config, vocab_size: int) -> GPT:
    """The model without memory: shapes and names only."""
    with torch.device("meta"):
        return GPT(config.model, vocab_size)


BITS_BELOW_GRID = {True: 1.46, False: 0.75}
"""Bits a number that the compressor saves of the grid's bits, with the scale floor and without it.

With it: #586's artifact of 15,567,435 bytes holds 26,935,296 numbers on a 6-bit grid; less 44,032 row scales and
103,514 numbers in float16 that is 4.54 bits a number. Without it: a normally distributed row whose largest of 512
numbers lies at 3.1 standard deviations has an entropy of log2(sqrt(2 pi e) * 31 / 3.1) = 5.4 bits on the grid, heavier
tails have less; 5.25 is taken."""


def estimated_artifact_bytes(config: Config, shapes: Iterable[tuple[int, ...]]) -> int:
    """Bytes of the artifact, guessed from shapes: 2 for each number and row scale in float16, and for each on the
    grid its bits less what zstd was seen to save (BITS_BELOW_GRID). Short trainings may differ by a fifth."""
    total = 0.0
    for shape in shapes:
        n = 1
        for size in shape:
            n *= size
        if config.quant.bits is not None and len(shape) == 2 and n > config.quant.fp16_limit:
            total += n * (config.quant.bits - BITS_BELOW_GRID[config.quant.floor]) / 8 + 2 * shape[0]
        else:
            total += 2 * n
    return round(total)


def code_bytes() -> int:
    """Size of the program that runs: the bundle itself, or the sources where it runs unbundled (then too large)."""
    program = Path(sys.argv[0])
    if program.suffix == ".pyz":
        return program.stat().st_size
    return sum(path.stat().st_size for path in Path(__file__).parent.rglob("*.py"))


def run(wire: Wire, setup: Setup, config: Config, ranks: Ranks) -> None:
    """The stage: `ready`, then `description` and its variants at once."""
    with open(setup.config, encoding="utf-8") as recipe:
        text = recipe.read(MAX_CHARACTERS + 1)
    model = build(config, setup.vocab_size)
    shapes = [tuple(parameter.shape) for parameter in model.parameters()]
    on = [technique for technique in TECHNIQUES if is_on(technique, config)]
    variants = [{"name": f"without {each.name}", "config": without(each, text), "changes": first_changed(each)}
                for each in on]
    for variant in variants:
        variant["unquantised"] = without(GRID, variant["config"])
        load(variant["config"], setup.profile), load(variant["unquantised"], setup.profile)
    wire.send("ready")
    wire.send(
        "description",
        parameters=sum(parameter.numel() for parameter in model.parameters()),
        techniques=[each.name for each in on],
        estimated_bytes=code_bytes() + len(text.encode()) + estimated_artifact_bytes(config, shapes),
        unquantised=without(GRID, text),
        more=bool(variants),
    )
    for variant in variants:  # one a frame: together they are longer than a frame may be
        wire.send("variants", variants=[variant], more=variant is not variants[-1])
