"""Each technique, neutral: the same logits as without it, no tensor in the state dict, so no byte paid for `off`."""

from __future__ import annotations

import dataclasses

import pytest
import torch

from golf.config import load
from golf.describe import TECHNIQUES, is_on
from golf.model.gpt import GPT
from golf.quant.recipe import Recipe
from tests.golf.recipes import FULL, MODEL_TECHNIQUES, V, config_without, lively, some_ids

State = dict[str, torch.Tensor]

TENSORS = {
    "unet-skips": ["skip_weights"],
    "attention-gate": [f"blocks.{i}.attn.gate.weight" for i in range(5)],
    "smear-gate": ["smear.gate"],
    "bigram-hash": ["bigram.table.weight", "bigram.proj.weight"],
    "value-embedding": ["value_embedding.table.weight", "value_embedding.proj.weight", "value_embedding.scales"],
}
"""The tensors that a technique brings; those not named bring none."""


def fold_layer_scale(state: State) -> State:
    """Fold 1 / sqrt(layer + 1) into the weights that read the normed stream; queries and keys are normed anyway."""
    readers = ("attn.v.weight", "attn.gate.weight", "mlp.up.weight")
    return {n: w / (int(n.split(".")[1]) + 1) ** 0.5 if n.endswith(readers) else w for n, w in state.items()}


def zero_gate(state: State) -> State:
    """A head gate of zero weights halves every head; doubling the output projection undoes that."""
    factor = {"attn.gate.weight": 0.0, "attn.out.weight": 2.0}
    return {name: w * next((f for end, f in factor.items() if name.endswith(end)), 1.0) for name, w in state.items()}


NULL = {
    "smear-gate": lambda state: state | {"smear.gate": torch.full((32,), -100.0)},
    "bigram-hash": lambda state: state | {"bigram.table.weight": torch.zeros(50, 8)},
    "value-embedding": lambda state: state | {"value_embedding.scales": torch.zeros(2)},
    "unet-skips": lambda state: state | {"skip_weights": torch.zeros(2, 32)},
    "attention-gate": zero_gate,
    "orthogonal-init": lambda state: state,
}
"""Weights with which a technique, on, must do nothing."""


@pytest.mark.parametrize("technique", MODEL_TECHNIQUES, ids=lambda t: t.name)
def test_off_has_exactly_the_tensors_of_the_others(technique):
    full, off = (GPT(c.model, V).state_dict() for c in (load(FULL), config_without(technique.name)))
    assert sorted(set(full) - set(off)) == sorted(TENSORS.get(technique.name, []))
    assert all(off[name].shape == full[name].shape for name in off)


@torch.no_grad()
@pytest.mark.parametrize("name", NULL)
def test_on_with_null_weights_equals_off(name):
    full, off, ids = lively(load(FULL)), GPT(config_without(name).model, V), some_ids(2, 20)
    state = full.state_dict()
    off.load_state_dict({key: state[key] for key in off.state_dict()})
    full.load_state_dict(NULL[name](state))
    torch.testing.assert_close(full(ids), off(ids), atol=1e-4, rtol=1e-4)


@torch.no_grad()
def test_layer_scale_equals_its_folding_into_the_weights():
    on, off, ids = lively(load(FULL)), GPT(config_without("ln-scale").model, V), some_ids(2, 20)
    off.load_state_dict(fold_layer_scale(on.state_dict()))
    torch.testing.assert_close(on(ids), off(ids), atol=1e-3, rtol=1e-3)


@torch.no_grad()
@pytest.mark.parametrize(("field", "value", "off"), [("rope_dims", 8, "partial-rope"), ("softcap", 1e5, "softcap")])
def test_the_limit_of_a_setting_equals_off(field, value, off):
    config = load(FULL)
    on, without, ids = lively(config), lively(config_without(off)), some_ids(2, 20)
    limit = GPT(dataclasses.replace(config.model, **{field: value}), V)
    limit.load_state_dict(on.state_dict())
    torch.testing.assert_close(limit(ids), without(ids), atol=1e-3, rtol=1e-3)
    assert not torch.allclose(on(ids), without(ids), atol=1e-3)


@torch.no_grad()
def test_exclusive_attention_has_nothing_to_say_where_only_its_own_value_is_seen():
    on, off, ids = lively(load(FULL)), lively(config_without("xsa")), some_ids(4, 1)
    for block in off.blocks[-2:]:
        block.attn.out.weight.zero_()
    torch.testing.assert_close(on(ids), off(ids), atol=1e-4, rtol=1e-4)


@torch.no_grad()
@pytest.mark.parametrize("name", [technique.name for technique in MODEL_TECHNIQUES])
def test_every_technique_changes_the_logits_when_on(name):
    on, off, ids = lively(load(FULL)), lively(config_without(name)), some_ids(2, 20)
    assert (on(ids) - off(ids)).abs().max() > 1e-3


def test_the_full_recipe_has_every_technique_on_and_each_variant_lacks_one():
    full = load(FULL)
    assert all(is_on(technique, full) for technique in TECHNIQUES)
    for technique in TECHNIQUES:
        assert [t for t in TECHNIQUES if not is_on(t, config_without(technique.name))] == [technique]


def test_the_neutral_quantiser_neither_rotates_nor_raises_steps():
    assert (Recipe().rotate, Recipe().row_floor()) == (False, 0.0)
