"""Statistics: means over all inputs of a module, means of squared gradients, and averaging over ranks."""

from __future__ import annotations

import torch
from torch import nn

from golf.quant.stats import GradientStats, InputStats, RowScores
from tests.golf.fakes.tensors import random_tensor


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
    assert stats.counts == {"a": 4}


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
