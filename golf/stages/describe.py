"""Stage describe: report facts about a recipe that the judge can use without understanding it; needs no data.

`parameters` counts the numbers of the model, built without memory. `techniques` names what is switched on.
`variants` holds, for each of them, the recipe with that technique alone switched off. `estimated_bytes`
estimates the counted size (code, recipe, artifact); see `estimated_artifact_bytes`. `remarks` names the
fields that the profile overrides. A parameter that nothing initialises ends the stage.

TECHNIQUES lists everything that can be switched; the tests of neutrality and causality walk it too. Every
other field of the recipe is in PLAIN_SETTINGS.
"""

from __future__ import annotations

import math
from statistics import NormalDist
from typing import Any, NamedTuple

import yaml

from golf.model.init import rule_for
from golf.quant.grid import largest_code
from golf.quant.recipe import Recipe
from golf.recipe.config import Config, as_tree, load, parse
from golf.recipe.mistakes import shown
from golf.recipe.strict_yaml import read_text
from golf.runtime.dist import Ranks
from golf.runtime.program import code_bytes
from golf.runtime.wire import Setup, Wire
from golf.stages.pack import recipes_of
from golf.training.checkpoint import Shapes, meta_model, shapes_of


class Technique(NamedTuple):
    """A name, and the fields (section.field) with the neutral values that switch it off."""

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
    Technique("warmup", {"optim.warmup": 0}),
    Technique("warmdown", {"optim.warmdown": 0}),
    Technique("ema", {"optim.ema_decay": 0.0, "optim.ema_fraction": 0.0}),
    Technique("shuffled-loader", {"train.loader": "stream"}),
    Technique("qat", {"train.qat_bits": 0}),
    Technique("int-grid", {"quant.bits": None}),
    Technique(
        "layer-bits", {"quant.embed_bits": 0, "quant.attn_bits": 0, "quant.up_bits": 0, "quant.down_bits": 0}
    ),
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
    Technique("document-windows", {"score.align": "stream"}),
    Technique("test-time-training", {"adapt.epochs": 0}),
    Technique("bias-descent", {"adapt.bias_lr": 0.0}),
)
PLAIN_SETTINGS = frozenset(
    f"{section}.{field}"
    for section, fields in {
        "model": "layers width heads kv_heads mlp_hidden rope_base q_gain loop_passes bigram_dim embed_std",
        "optim": "muon_lr muon_variant muon_momentum muon_momentum_start muon_steps embed_lr scalar_lr beta1 "
        "beta2 adam_eps warmdown_shape",
        "train": "batch_tokens seq_len loop_start qat_start steps warmup_steps log_every",
        "stats": "hessian_batches fisher_batches batch_tokens row_score_every",
        "quant": "target_bytes quantile sigmas embed_sigmas fp16_limit codec level",
        "score": "window stride chunk_tokens batch_windows single_windows bos",
        "adapt": "lr momentum clip seq_len batch_rows",
        "hardware": "ranks micro_tokens precision attention loss_in_graph fused_loss prefetch banks "
        "deterministic_adaptation",
    }.items()
    for field in fields.split()
)
"""The fields (section.field) of no technique: sizes, rates, and settings of what a technique switches on."""
GRID = next(technique for technique in TECHNIQUES if technique.name == "int-grid")
FIRST_CHANGED = {"quant": "pack", "score": "score", "adapt": "score"}
"""Section -> the first stage that it affects; train for all others."""


def is_on(technique: Technique, config: Config) -> bool:
    """Whether any of the technique's fields differs from its neutral value."""
    tree = as_tree(config)
    values = {path: tree[path.split(".")[0]][path.split(".")[1]] for path in technique.neutral}
    return any(values[path] != neutral for path, neutral in technique.neutral.items())


def first_changed(technique: Technique) -> str:
    """The first stage that gives another result without the technique: train, pack or score."""
    stages = {FIRST_CHANGED.get(path.split(".")[0], "train") for path in technique.neutral}
    return min(stages, key=("train", "pack", "score").index)


def without(technique: Technique, text: str) -> str:
    """The recipe's text with a technique switched off, in the base and in every profile; drops comments."""
    tree = parse(text)
    layers = [tree, *tree.get("profiles", {}).values()]
    for path, neutral in technique.neutral.items():
        section, key = path.split(".")
        for layer in layers:
            layer.get(section, {}).pop(key, None)
        tree.setdefault(section, {})[key] = neutral
    return yaml.safe_dump(tree, sort_keys=False)


FLOOR_SAVED_BITS = 0.84
"""Bits per number that the row-scale floor saves if weight decay keeps weights small. Apart from its scales
and float16 tensors, #586's artifact of 15,567,435 bytes holds 26,935,296 numbers on a 6-bit grid at 4.54 bits
each; without the floor they would need about 5.38. Without decay (the naive baseline's log: 7.42 bits of 8)
rows reach beyond 1 and the floor saves nothing."""
COMPRESSOR_OVERHEAD = 1.01
"""Size of a general compressor's output over the symbols' entropy: 1.005 to 1.009 on normal rows rounded to 8
bits (brotli, zlib), 1.014 to 1.017 to 6 bits (brotli, zstd). With 1.01, the estimates of four published
artifacts are 1.2 % too low to 0.7 % too high."""


def bits_per_number(how: Recipe, columns: int, decayed: bool) -> float:
    """Entropy in bits per number of a normally distributed row of `columns` numbers on a recipe's grid."""
    assert how.bits is not None
    normal, largest = NormalDist(), largest_code(how.bits)
    method = how.clip_method
    reach = method.sigmas if method.name == "sigma" else normal.inv_cdf(1 - 1 / (2 * columns))
    step = reach / largest
    shares = [
        normal.cdf((code + 0.5) * step) - normal.cdf((code - 0.5) * step)
        for code in range(-largest, largest + 1)
    ]
    entropy = -sum(share * math.log2(share) for share in shares if share > 0)
    return entropy - FLOOR_SAVED_BITS * (method.floor and decayed)


def estimated_artifact_bytes(config: Config, shapes: Shapes, max_bytes: int) -> int:
    """The artifact's size, estimated from shapes; at most `max_bytes` if bits are allocated.

    Float16 numbers and scales take 2 bytes, quantised numbers the entropy of a normal row. After a short
    training, the real size may differ by a fifth.
    """
    coded = half = 0.0
    for name, how in recipes_of(config, shapes).items():
        n_numbers = math.prod(shapes[name])
        if how.bits is None:
            half += 2 * n_numbers
        else:
            coded += n_numbers * bits_per_number(how, shapes[name][1], config.optim.muon_decay > 0) / 8
            half += 2 * shapes[name][0] + 2 * shapes[name][1] * how.awq
    total = coded * (1 if config.quant.entropy else COMPRESSOR_OVERHEAD) + half
    return round(min(total, config.quant.target_bytes or max_bytes) if config.quant.allocate else total)


MAX_REMARK = 200
"""Characters of a remark (docs/protocol.md)."""


def override_remarks(text: str, profile: str) -> list[str]:
    """A remark that names the fields which a profile changes, first those that the top level sets.

    Empty if the profile changes nothing. What does not fit into MAX_REMARK characters is only counted.
    """
    top, base, merged = parse(text), as_tree(load(text)), as_tree(load(text, profile))
    changed = [
        (
            field not in top.get(section, {}),
            f"{section}.{field} ({shown(old)} -> {shown(merged[section][field])})",
        )
        for section, fields in base.items()
        for field, old in fields.items()
        if old != merged[section][field]
    ]
    names = [name for _, name in sorted(changed, key=lambda each: each[0])]
    for n in range(len(names), 0, -1):
        rest = f" and {len(names) - n} more" if n < len(names) else ""
        remark = f"profile {profile} overrides {', '.join(names[:n])}{rest}"
        if len(remark) <= MAX_REMARK or n == 1:
            return [remark[:MAX_REMARK]]
    return []


def run(wire: Wire, setup: Setup, config: Config, ranks: Ranks) -> None:
    """Run the stage: send `ready`, then `description` and its variants."""
    text = read_text(setup.config)
    shapes = shapes_of(config, setup.vocab_size)
    for name, parameter in meta_model(config, setup.vocab_size).named_parameters():
        rule_for(name, parameter.shape, config.model)
    code_and_recipe = code_bytes() + len(text.encode())
    on = [technique for technique in TECHNIQUES if is_on(technique, config)]
    variants = [
        {"name": f"without {each.name}", "config": without(each, text), "changes": first_changed(each)}
        for each in on
    ]
    for variant in variants:
        variant["unquantised"] = without(GRID, variant["config"])
        load(variant["config"], setup.profile), load(variant["unquantised"], setup.profile)
    artifact = estimated_artifact_bytes(config, shapes, setup.limits["counted_bytes"] - code_and_recipe)
    wire.send("ready")
    wire.send(
        "description",
        parameters=sum(map(math.prod, shapes.values())),
        techniques=[each.name for each in on],
        estimated_bytes=code_and_recipe + artifact,
        unquantised=without(GRID, text),
        remarks=override_remarks(text, setup.profile),
        more=bool(variants),
    )
    for variant in variants:  # one per frame, since together they exceed the length of a frame
        wire.send("variants", variants=[variant], more=variant is not variants[-1])
