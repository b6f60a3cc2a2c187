"""With the same weights, golf's models have the loss and the gradients of the scripts that they come from.

The scripts are not part of this repository. The environment variable PGOLF_SOURCES names a folder that holds
them, as docs/cuda.md says; without it, or without a script, the tests skip. Widths are small; depths, layer
orders and techniques are those of the submissions' record recipes.
"""

from __future__ import annotations

import hashlib
import os
import re
import sys
import types
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any, NamedTuple

import pytest
from torch import Tensor, nn

from golf.bench.reference_attention import attend_reference
from golf.model.gpt import GPT
from golf.model.layers import Linear
from golf.quant.grid import fake_quantise
from golf.recipe.config import load
from golf.recipe.schema import ModelConfig
from tests.golf.fakes.recipes import ROOT, V, lively, some_ids

SMALL = {"width": 64, "heads": 4, "kv_heads": 2, "mlp_hidden": 128}
LOSS_TOLERANCE = 2e-6
GRADIENT_TOLERANCE = 1e-4
"""Both of float32: nats, and parts of each gradient's largest number, which is as small as 2e-5 in places."""


class Source(NamedTuple):
    """A script, the submission that follows it, and how to build its model at a golf shape."""

    file: str
    sha256: str
    submission: str
    small: dict[str, int]
    build: Callable[[dict[str, Any], ModelConfig], nn.Module]
    names: tuple[tuple[str, str], ...]
    """(pattern in golf's parameter names, the script's name)."""


def positional(cfg: ModelConfig) -> dict[str, Any]:
    """The arguments that #586 and #316 share."""
    return {
        "vocab_size": V,
        "num_layers": cfg.layers,
        "model_dim": cfg.width,
        "num_heads": cfg.heads,
        "num_kv_heads": cfg.kv_heads,
        "mlp_mult": cfg.mlp_hidden // cfg.width,
        "tied_embed_init_std": cfg.embed_std,
        "logit_softcap": cfg.softcap,
        "rope_base": cfg.rope_base,
        "qk_gain_init": cfg.q_gain,
    }


def build_586(script: dict[str, Any], cfg: ModelConfig) -> nn.Module:
    os.environ |= {
        "VE_DIM": str(cfg.ve_dim),
        "XSA_LAYERS": str(cfg.xsa_last),
        "ROPE_DIMS": str(cfg.rope_dims),
    }
    return script["GPT"](**positional(cfg))


def build_316(script: dict[str, Any], cfg: ModelConfig) -> nn.Module:
    return script["GPT"](**positional(cfg), tie_embeddings=True, q_rank=cfg.q_rank, qat_bits=7)


def build_1493(script: dict[str, Any], cfg: ModelConfig) -> nn.Module:
    h = script["Hyperparameters"]()
    h.vocab_size, h.model_dim, h.embedding_dim = V, cfg.width, cfg.width
    h.num_heads, h.num_kv_heads, h.mlp_mult = cfg.heads, cfg.kv_heads, cfg.mlp_hidden / cfg.width
    h.rope_dims = cfg.rope_dims
    return script["GPT"](h)


MATRICES = (
    (r"attn\.(q|k|v|q_down|q_up)\.weight$", r"attn.c_\1.weight"),
    (r"attn\.out\.", "attn.proj."),
    (r"mlp\.up\.", "mlp.fc."),
    (r"mlp\.down\.", "mlp.proj."),
)
INPUTS = (
    (r"bigram\.table", "bigram.emb"),
    (r"smear\.gate", "smear_gate"),
    (r"value_embedding\.table", "ve_shared.embed"),
    (r"value_embedding\.proj", "ve_shared.proj"),
    (r"attn\.gate", "attn.attn_gate"),
)
SOURCES = {
    "586": Source(
        "train_gpt_586.py",
        "4415518e3233e9a7c5ddfff4ca120d0d2fa2077716cd527d6d9906e410035c1e",
        "hadamard-ve128",
        {"rope_dims": 8, "ve_dim": 16},
        build_586,
        (*MATRICES, *INPUTS),
    ),
    "316": Source(
        "train_gpt_316.py",
        "09be4f4163a20ab408a57bae8e4629a6302fa2c3990b1af1238ffa6885efd212",
        "lowrank-q-qat",
        {"q_rank": 16},
        build_316,
        MATRICES,
    ),
    "1493": Source(
        "train_gpt_1493.py",
        "477f432097ce619d4080af0a249d29e6e0bf31b7a747ec4e6b509b5be2e202ee",
        "sp8192-parres-ttt",
        {"rope_dims": 8},
        build_1493,
        MATRICES,
    ),
}


def run_script(source: Source, monkeypatch: pytest.MonkeyPatch) -> dict[str, Any]:
    """The script's names, with attention on the CPU; nothing but its definitions runs."""
    folder = os.environ.get("PGOLF_SOURCES")
    path = Path(folder or "", source.file)
    if not folder or not path.is_file():
        pytest.skip(f"needs {source.file} in the folder that PGOLF_SOURCES names (docs/cuda.md)")
    content = path.read_bytes()
    assert hashlib.sha256(content).hexdigest() == source.sha256, f"{path} is another version"
    flash = types.ModuleType("flash_attn_interface")
    flash.flash_attn_func = lambda q, k, v, causal: attend_reference(q, k, v)  # type: ignore[attr-defined]
    monkeypatch.setitem(sys.modules, "flash_attn_interface", flash)
    names: dict[str, Any] = {"__name__": source.file}
    packed: list[bytes] = []
    names["exec"] = packed.append
    exec(compile(content, source.file, "exec"), names)
    del names["exec"]
    for text in packed:  # the definitions of the model; what follows needs Python 3.12
        exec(compile(text.split(b"\ndef classify_param")[0], source.file, "exec"), names)
    return names


def in_script(tensors: dict[str, Tensor], source: Source) -> dict[str, Tensor]:
    """Golf's tensors by the script's names; the scales of the value embedding are single numbers there."""
    found = {}
    for name, tensor in tensors.items():
        if name == "value_embedding.scales":
            found |= {f"ve_layer_scales.{i}": scale for i, scale in enumerate(tensor)}
            continue
        for pattern, new in source.names:
            name = re.sub(pattern, new, name)
        found[name] = tensor
    return found


def gradients(model: nn.Module, loss: Tensor) -> dict[str, Tensor]:
    model.zero_grad()
    loss.backward()
    return {name: p.grad.clone() for name, p in model.named_parameters() if p.grad is not None}


def pair(name: str, monkeypatch: pytest.MonkeyPatch) -> tuple[Source, GPT, nn.Module]:
    """Golf's model and the script's, with the same lively weights."""
    source = SOURCES[name]
    monkeypatch.setattr(os, "environ", dict(os.environ))
    script = run_script(source, monkeypatch)
    config = load((ROOT / "submissions" / source.submission / "config.yaml").read_text())
    golf = lively(replace(config, model=replace(config.model, **SMALL, **source.small)))
    theirs = source.build(script, golf.cfg)
    theirs.load_state_dict(in_script(golf.state_dict(), source), strict=True)
    return source, golf, theirs


def assert_same(source: Source, golf: GPT, theirs: nn.Module, plan: Any = None) -> None:
    ids, targets = some_ids(2, 48), some_ids(2, 48, seed=2)
    loss, their_loss = golf.loss(ids, targets, plan), theirs(ids, targets)
    found, expected = in_script(gradients(golf, loss), source), gradients(theirs, their_loss)
    largest = max(
        ((found[name] - grad).abs().max() / grad.abs().max()).item() for name, grad in expected.items()
    )
    print(f"loss {their_loss.item():.6f}, {abs(loss - their_loss).item():.1e} off; gradients {largest:.1e}")
    assert found.keys() == expected.keys()
    assert abs(loss - their_loss).item() <= LOSS_TOLERANCE
    assert largest <= GRADIENT_TOLERANCE


@pytest.mark.slow
@pytest.mark.parametrize("name", ["586", "316"])
def test_a_model_has_its_sources_loss_and_gradients(name, monkeypatch):
    assert_same(*pair(name, monkeypatch))


@pytest.mark.slow
@pytest.mark.parametrize("looped", [False, True])
def test_a_model_with_recurrence_has_its_sources_loss_and_gradients_in_both_plans(looped, monkeypatch):
    source, golf, theirs = pair("1493", monkeypatch)
    theirs.looping_active = looped
    assert_same(source, golf, theirs, golf.plan if looped else golf.first_plan)


@pytest.mark.slow
def test_quantisation_aware_training_has_its_sources_loss_and_gradients(monkeypatch):
    source, golf, theirs = pair("316", monkeypatch)
    for module in theirs.modules():
        module.qat_enabled = True
    for module in golf.blocks.modules():
        if isinstance(module, Linear):
            module.weight_transform = lambda weight_RC: fake_quantise(weight_RC, bits=7)
    assert_same(source, golf, theirs)
