"""Each technique at its neutral value: the same logits as without it, and no tensor that would cost bytes."""

from __future__ import annotations

import dataclasses

import pytest
import torch

from golf.model.gpt import GPT
from golf.model.layers import rotary
from golf.recipe.config import load
from golf.stages.describe import TECHNIQUES, is_on, without
from tests.golf.fakes.recipes import FULL, MODEL_TECHNIQUES, V, config_without, lively, named, some_ids

State = dict[str, torch.Tensor]

TENSORS = {
    "unet-skips": ["skip_weights", "skip_gates"],
    "skip-gates": ["skip_gates"],
    "low-rank-q": [f"blocks.{i}.attn.q_{part}.weight" for i in range(5) for part in ("down", "up")],
    "attention-gate": [f"blocks.{i}.attn.gate.weight" for i in range(5)],
    "smear-gate": ["smear.gate"],
    "bigram-hash": ["bigram.table.weight", "bigram.proj.weight"],
    "value-embedding": [
        "value_embedding.table.weight",
        "value_embedding.proj.weight",
        "value_embedding.scales",
    ],
}
"""The tensors that a technique adds; techniques not listed add none."""
INSTEAD = {"low-rank-q": [f"blocks.{i}.attn.q.weight" for i in range(5)]}
"""The tensors that a technique replaces."""
SHORTER = {"depth-recurrence": ["skip_weights", "skip_gates"]}
"""The tables with fewer rows without a technique: five layer steps have two skips, seven have three."""


def fold_layer_scale(state: State) -> State:
    """Fold 1 / sqrt(layer + 1) into the weights that read the normed input, except queries and
    keys (QK norm).
    """
    readers = ("attn.v.weight", "attn.gate.weight", "mlp.up.weight")
    return {n: w / (int(n.split(".")[1]) + 1) ** 0.5 if n.endswith(readers) else w for n, w in state.items()}


def product_of_factors(state: State) -> State:
    """Low-rank query matrices multiplied out to full ones."""
    products = {
        name.replace("q_up", "q"): w @ state[name.replace("q_up", "q_down")]
        for name, w in state.items()
        if name.endswith("q_up.weight")
    }
    return {name: w for name, w in state.items() if ".q_" not in name or name.endswith("q_gain")} | products


def zero_gate(state: State) -> State:
    """A head gate of zero weights halves every head; doubling the output projection undoes that."""
    factor = {"attn.gate.weight": 0.0, "attn.out.weight": 2.0}
    return {
        name: w * next((f for end, f in factor.items() if name.endswith(end)), 1.0)
        for name, w in state.items()
    }


NULL = {
    "smear-gate": lambda state: state | {"smear.gate": torch.full((32,), -100.0)},
    "bigram-hash": lambda state: state | {"bigram.table.weight": torch.zeros(50, 8)},
    "value-embedding": lambda state: state | {"value_embedding.scales": torch.zeros(2)},
    "unet-skips": lambda state: (
        state | {"skip_weights": torch.zeros(3, 32), "skip_gates": torch.full((3, 32), 100.0)}
    ),
    "attention-gate": zero_gate,
    "orthogonal-init": lambda state: state,
    "overtone-init": lambda state: state,
    "phase-mix": lambda state: state,
}
"""Weights with which a technique that is on has no effect."""


@pytest.mark.parametrize("technique", MODEL_TECHNIQUES, ids=lambda t: t.name)
def test_switching_a_technique_off_removes_exactly_its_tensors(technique):
    full, off = (GPT(c.model, V).state_dict() for c in (load(FULL), config_without(technique.name)))
    assert sorted(set(full) - set(off)) == sorted(TENSORS.get(technique.name, []))
    assert sorted(set(off) - set(full)) == sorted(INSTEAD.get(technique.name, []))
    shorter = [name for name in full.keys() & off.keys() if off[name].shape != full[name].shape]
    assert sorted(shorter) == sorted(SHORTER.get(technique.name, []))


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
def test_low_rank_queries_equal_full_ones_with_the_product_of_their_factors():
    on, off, ids = lively(load(FULL)), GPT(config_without("low-rank-q").model, V), some_ids(2, 20)
    off.load_state_dict(product_of_factors(on.state_dict()))
    torch.testing.assert_close(on(ids), off(ids), atol=1e-3, rtol=1e-3)


@torch.no_grad()
def test_the_plan_before_recurrence_is_the_model_without_recurrence():
    on, off, ids = lively(load(FULL)), GPT(config_without("depth-recurrence").model, V), some_ids(2, 20)
    state = on.state_dict()
    off.load_state_dict({name: state[name][: len(w)] for name, w in off.state_dict().items()})
    assert torch.equal(on(ids, plan=on.first_plan), off(ids))
    assert off.plan == off.first_plan == on.first_plan
    assert (on(ids) - off(ids)).abs().max() > 1e-3


@torch.no_grad()
def test_layers_without_effect_may_run_again():
    text = without(named("unet-skips"), FULL)
    on, ids = lively(load(text)), some_ids(2, 20)
    off = GPT(load(without(named("depth-recurrence"), text)).model, V)
    for layer in on.cfg.loop_layers:
        block = on.blocks[layer]
        block.attn.out.weight.zero_(), block.mlp.down.weight.zero_()
        block.resid_mix.copy_(torch.tensor([[1.0], [0.0]]))
    off.load_state_dict(on.state_dict())
    torch.testing.assert_close(on(ids), off(ids))


@torch.no_grad()
def test_a_gated_skip_interpolates_between_the_weighted_skip_and_the_stream():
    on, off = lively(load(FULL)), lively(config_without("skip-gates"))
    x, saved = torch.randn(2, 3, 32), torch.randn(2, 3, 32)
    for row in range(3):
        gate = torch.sigmoid(on.skip_gates[row])
        expected = torch.lerp(on.skip_weights[row] * saved, x, gate)
        torch.testing.assert_close(on.mix_skip(x, saved, row), expected, atol=1e-5, rtol=1e-5)
        off.skip_weights[row] = on.skip_weights[row] * (1 - gate) / gate
        torch.testing.assert_close(gate * off.mix_skip(x, saved, row), expected, atol=1e-5, rtol=1e-4)


@torch.no_grad()
@pytest.mark.parametrize("zeroed", ["attn.out.weight", "attn_scale"])
def test_parallel_residuals_equal_sequential_ones_where_attention_outputs_zero(zeroed):
    on, off, ids = lively(load(FULL)), lively(config_without("parallel-residuals")), some_ids(2, 20)
    assert (on(ids) - off(ids)).abs().max() > 1e-3
    for model in (on, off):
        for block in model.blocks[-2:]:
            block.get_parameter(zeroed).zero_()
    torch.testing.assert_close(on(ids), off(ids), atol=1e-5, rtol=1e-5)


@torch.no_grad()
def test_a_parallel_feed_forward_does_not_read_the_attention_output():
    """The contributions of attention and feed-forward to a parallel block, measured separately, add up."""
    block = lively(load(FULL)).blocks[-1]
    x, table = torch.randn(2, 9, 32), rotary(9, 4, 10_000.0, torch.device("cpu"))
    both = block(x, x, table, None, 9)
    base = torch.addcmul(block.resid_mix[1] * x, block.resid_mix[0], x)
    scales = block.attn_scale.clone(), block.mlp_scale.clone()
    block.mlp_scale.zero_()
    attention = block(x, x, table, None, 9) - base
    block.attn_scale.zero_(), block.mlp_scale.copy_(scales[1])
    feed_forward = block(x, x, table, None, 9) - base
    torch.testing.assert_close(both, base + attention + feed_forward, atol=1e-5, rtol=1e-5)


@torch.no_grad()
@pytest.mark.parametrize(
    ("field", "value", "off"), [("rope_dims", 8, "partial-rope"), ("softcap", 3e3, "softcap")]
)
def test_the_limit_of_a_setting_equals_off(field, value, off):
    config = load(FULL)
    on, bare, ids = lively(config), lively(config_without(off)), some_ids(2, 20)
    limit = GPT(dataclasses.replace(config.model, **{field: value}), V)
    limit.load_state_dict(on.state_dict())
    torch.testing.assert_close(limit(ids), bare(ids), atol=1e-3, rtol=1e-3)
    assert not torch.allclose(on(ids), bare(ids), atol=1e-3)


@torch.no_grad()
def test_exclusive_attention_outputs_zero_where_only_its_own_value_is_visible():
    on, off, ids = lively(load(FULL)), lively(config_without("xsa")), some_ids(4, 1)
    for block in off.blocks[-2:]:
        block.attn.out.weight.zero_()
    torch.testing.assert_close(on(ids), off(ids), atol=1e-4, rtol=1e-4)


@torch.no_grad()
@pytest.mark.parametrize("name", [technique.name for technique in MODEL_TECHNIQUES])
def test_every_technique_changes_the_logits_when_on(name):
    on, off, ids = lively(load(FULL)), lively(config_without(name)), some_ids(2, 20)
    assert (on(ids) - off(ids)).abs().max() > 1e-3


@pytest.mark.slow
def test_the_full_recipe_has_every_technique_on_and_each_variant_lacks_one():
    full = load(FULL)
    assert all(is_on(technique, full) for technique in TECHNIQUES)
    for technique in TECHNIQUES:
        config = config_without(technique.name)
        assert [t for t in TECHNIQUES if not is_on(t, config)] == [technique]
