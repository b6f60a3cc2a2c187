"""The training loss: the same inside the model's graph and outside, in value and gradients."""

from __future__ import annotations

import pytest
import torch

from golf.recipe.config import load
from golf.runtime import compilation
from golf.training.trainer import compiled_loss
from tests.golf.fakes.recipes import FULL, lively, some_ids

CONFIG = load(
    FULL.replace("layers: 5", "layers: 2")
    .replace("loop_layers: [1, 2]", "loop_layers: []")
    .replace("ve_layers: [3, 4]", "ve_layers: [1]")
)


def outcome(model, loss_of):
    model.zero_grad()
    loss = loss_of(some_ids(2, 16), some_ids(2, 16, seed=2), model.plan)
    loss.backward()
    return [loss.detach(), *(p.grad.clone() for p in model.parameters())]


def test_the_loss_is_the_mean_cross_entropy_of_the_logits():
    model, ids, targets = lively(CONFIG), some_ids(2, 16), some_ids(2, 16, seed=2)
    log_p = model(ids).log_softmax(-1)
    expected = -log_p.gather(2, targets[..., None]).mean()
    loss = model.loss(ids, targets)
    assert loss.dtype == torch.float32
    torch.testing.assert_close(loss, expected)


@pytest.mark.slow
@pytest.mark.parametrize("backend", ["eager", "aot_eager"])
def test_inside_and_outside_the_graph_loss_and_gradients_equal_the_uncompiled_ones(backend, monkeypatch):
    torch._dynamo.reset()
    monkeypatch.setattr(compilation, "BACKEND", backend)
    model = lively(CONFIG)
    plain = outcome(model, model.loss)
    for in_graph in (True, False):
        found = outcome(model, compiled_loss(model, in_graph))
        torch.testing.assert_close(found, plain, atol=1e-5, rtol=1e-4)
