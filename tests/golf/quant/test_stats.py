"""Statistics: means over all inputs of a module, means of squared gradients, and averaging over ranks."""

from __future__ import annotations

import pytest
import torch
from torch import nn

from golf.model.layers import Linear
from golf.quant.stats import GradientStats, InputStats, RowScores
from golf.recipe.config import load
from tests.golf.fakes.recipes import FULL, lively, some_ids
from tests.golf.fakes.tensors import random_tensor

FULL_RANK = load(FULL.replace("q_rank: 6", "q_rank: 0"))


def test_input_statistics_are_means_over_every_token_of_every_pass():
    layer, identity = nn.Linear(5, 3), nn.Identity()
    inputs = [random_tensor(2, 7, 5), random_tensor(4, 1, 5, seed=1)]
    with InputStats({"a": layer, "b": identity}) as stats:
        for x in inputs:
            layer(x)
            identity(x.bfloat16())
    x_NC = torch.cat([x.flatten(0, 1) for x in inputs])
    found = stats.result()
    torch.testing.assert_close(found["a"].hessian_CC, x_NC.mT @ x_NC / 18)
    torch.testing.assert_close(found["a"].activation_C, x_NC.abs().mean(0))
    torch.testing.assert_close(found["b"].hessian_CC, x_NC.mT @ x_NC / 18, atol=0.02, rtol=0.02)
    assert found["b"].hessian_CC.dtype == torch.float32


def test_nothing_is_recorded_after_the_with_block_and_outputs_are_unchanged():
    layer, x = nn.Linear(5, 3), random_tensor(4, 5)
    before = layer(x)
    with InputStats({"a": layer}) as stats:
        assert torch.equal(layer(x), before)
    layer(100 * x)
    assert stats.counts == {layer: 4}


def test_the_hessian_predicts_the_squared_error_of_a_changed_weight():
    layer, x, change = nn.Linear(6, 4, bias=False), random_tensor(50, 6), random_tensor(4, 6, seed=2)
    with InputStats({"w": layer}) as stats:
        layer(x)
    error = (x @ change.mT).square().sum(1).mean()
    torch.testing.assert_close((change @ stats.result()["w"].hessian_CC * change).sum(), error)


def test_gradient_statistics_are_means_of_squares_and_of_row_norms():
    weight, gradients = (
        nn.Parameter(random_tensor(3, 4)),
        [random_tensor(3, 4, seed=1), random_tensor(3, 4, seed=2)],
    )
    fisher, rows = GradientStats([("w", weight)]), RowScores([("w", weight)])
    for gradient in gradients:
        weight.grad = gradient
        fisher.add()
        rows.add()
    torch.testing.assert_close(fisher.result()["w"], torch.stack(gradients).square().mean(0))
    torch.testing.assert_close(rows.result()["w"], torch.stack(gradients).norm(dim=2).mean(0))


def test_sums_averaged_over_ranks_give_the_result_of_one_process():
    layer, x = nn.Linear(5, 3), random_tensor(8, 5)
    parts = []
    for part in (x, x[:4], x[4:]):
        with InputStats({"a": layer}) as stats:
            layer(part)
        parts.append(stats)
    whole, left, right = parts
    for mine, other in zip(left.tensors(), right.tensors(), strict=True):
        mine.add_(other).div_(2)
    for found, expected in zip(left.result()["a"], whole.result()["a"], strict=True):
        torch.testing.assert_close(found, expected)


@pytest.mark.parametrize("config", [load(FULL), FULL_RANK], ids=["low-rank queries", "full-rank queries"])
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_weights_that_read_the_same_tensor_share_its_statistics_bit_for_bit(config, dtype):
    model = lively(config)
    model.dtype = dtype
    alone = {f"{name}.weight": module for name, module in model.named_modules() if isinstance(module, Linear)}
    with torch.no_grad(), InputStats(model.inputs()) as shared, InputStats(alone) as separate:
        for seed in range(2):
            model(some_ids(2, 16, seed))
    found, expected = shared.result(), separate.result()
    assert set(found) == {*expected, "tok_emb.weight"}
    for name, means in expected.items():
        assert all(map(torch.equal, found[name], means)), name
    # q or q_down, k and the gate everywhere; the feed-forward of the two parallel layers
    assert len(shared.tensors()) == len(separate.tensors()) + 2 - 2 * (3 * 5 + 2)


def test_only_products_of_bfloat16_inputs_may_use_tf32_and_the_setting_is_restored(monkeypatch):
    seen, addmm = [], torch.Tensor.addmm_

    def spy(total, *factors):
        seen.append(torch.backends.cuda.matmul.allow_tf32)
        return addmm(total, *factors)

    monkeypatch.setattr(torch.Tensor, "addmm_", spy)
    identity, x_NC = nn.Identity(), random_tensor(4, 5)
    with InputStats({"a": identity}):
        identity(x_NC)
        identity(x_NC.bfloat16())
    assert seen == [False, True]
    assert not torch.backends.cuda.matmul.allow_tf32
