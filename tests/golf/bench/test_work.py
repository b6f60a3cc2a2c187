"""Operations counted by hand and by torch's own counter."""

from __future__ import annotations

import torch
from torch.utils.flop_counter import FlopCounterMode

from golf.bench import work
from golf.model.gpt import GPT
from golf.model.init import initialise
from golf.recipe.config import load

SMALL = "model: {layers: 4, width: 32, heads: 4, kv_heads: 2, mlp_hidden: 48}\n"
RICH = """
model: {layers: 4, width: 32, heads: 4, kv_heads: 2, mlp_hidden: 48, q_rank: 8, loop_layers: [1, 2],
        loop_passes: 1, bigram_buckets: 16, bigram_dim: 8, ve_dim: 8, ve_layers: [3], attn_gate: true}
"""
V, T = 40, 16


def counted(text: str) -> tuple[float, float]:
    """(products of a token by our count, by torch's) in a forward pass without attention's own products."""
    config = load(text)
    model = GPT(config.model, V, attention="sdpa")
    initialise(model, config.model, 0)
    with FlopCounterMode(display=False) as counter:
        model(torch.zeros(2, T, dtype=torch.int64))
    counts = counter.get_flop_counts()["Global"]
    matrix = sum(n for operation, n in counts.items() if "attention" not in str(operation))
    return sum(each.flops for each in work.products(model, model.plan)), matrix / (2 * T)


def test_matrix_products_are_those_that_torch_counts():
    for text in (SMALL, RICH):
        ours, theirs = counted(text)
        assert ours == theirs


def test_a_training_step_of_the_naive_baseline_by_hand():
    model = work.model_of(load(""), 1024)
    blocks = 9 * (2 * 512 * 512 + 2 * 512 * 256 + 2 * 512 * 1024)
    attention = 9 * 4 * 512 * 1025 / 2
    assert work.flops_per_token(model, model.plan, 1024) == 3 * (2 * (blocks + 1024 * 512) + attention)


def test_recurrence_costs_its_visits():
    model = work.model_of(load(RICH), V)
    longer, shorter = (work.flops_per_token(model, plan, T) for plan in (model.plan, model.first_plan))
    assert longer > shorter
    assert (
        work.attention_flops(model, model.plan, T) / work.attention_flops(model, model.first_plan, T)
        == len(model.plan) / 4
    )


def test_newton_schulz_of_a_square_matrix_is_three_products_an_iteration():
    model = work.model_of(
        load("model: {layers: 1, width: 8, heads: 1, kv_heads: 1, mlp_hidden: 8, skips: false}\n"), V
    )
    assert work.muon_flops(model, 5) == 6 * 5 * 3 * 2 * 8**3


def test_the_bound_falls_as_products_take_longer():
    config = load(SMALL + "train: {batch_tokens: 128, seq_len: 16}\n")
    model = work.model_of(config, V)
    rate = work.matrix_rate(model, model.plan, torch.float32, torch.device("cpu"), 64)
    assert rate.flops_per_second > 0
    slower = rate._replace(flops_per_second=rate.flops_per_second / 2)
    assert work.bound(config, V, slower) * 2 == work.bound(config, V, rate)
