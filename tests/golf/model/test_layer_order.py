"""Plans of layer steps: the published orders and skips, and that the stack ends empty."""

from __future__ import annotations

import pytest
import torch

from golf.model.gpt import GPT
from golf.model.layer_order import LayerStep, layer_steps, n_skips, order
from golf.recipe.config import load


def test_of_eleven_layers_the_first_five_save_the_next_five_skip_and_the_last_does_neither():
    plan = layer_steps(tuple(range(11)), skips=True)
    assert [step.layer for step in plan if step.save] == [0, 1, 2, 3, 4]
    assert [step.skip for step in plan] == [None] * 5 + [0, 1, 2, 3, 4, None]


def test_the_baseline_has_four_skips():
    assert n_skips(layer_steps(tuple(range(9)), skips=True)) == 4


@pytest.mark.parametrize("n", range(1, 14))
def test_every_saved_output_is_used_once_last_in_first_out(n):
    stack, pairs = [], []
    for step in layer_steps(tuple(range(n)), skips=True):
        if step.skip is not None:
            pairs.append((stack.pop(), step.layer))
        if step.save:
            stack.append(step.layer)
    assert stack == []
    assert all(source + destination == 2 * (n // 2) - 1 for source, destination in pairs)


def test_without_skips_the_plan_is_the_order_and_layers_may_repeat():
    assert layer_steps((0, 1, 1, 2), skips=False) == (LayerStep(0), LayerStep(1), LayerStep(1), LayerStep(2))


def test_depth_recurrence_has_the_published_order():
    plan = layer_steps(order(11, (3, 4, 5), 2), skips=True)
    encoder, decoder = plan[:8], plan[8:]
    assert [step.layer for step in encoder] == [0, 1, 2, 3, 4, 5, 3, 4]
    assert [step.layer for step in decoder] == [5, 3, 4, 5, 6, 7, 8, 9, 10]
    assert all(step.save and step.skip is None for step in encoder)
    assert [step.skip for step in decoder] == [0, 1, 2, 3, 4, 5, 6, 7, None]
    assert not any(step.save for step in decoder)


def test_an_earlier_record_looped_through_two_layers():
    """#1394: encoder 0 1 2 3 4 5 4, decoder 5 4 5 6 .. 10."""
    plan = layer_steps(order(11, (4, 5), 2), skips=True)
    assert [step.layer for step in plan if step.save] == [0, 1, 2, 3, 4, 5, 4]
    assert [step.layer for step in plan if not step.save] == [5, 4, 5, 6, 7, 8, 9, 10]


def test_before_recurrence_each_layer_runs_once_with_the_first_skip_rows():
    with torch.device("meta"):
        model = GPT(load("model: {layers: 11, loop_layers: [3, 4, 5]}").model, 1024)
    assert [step.layer for step in model.first_plan] == list(range(11))
    assert [step.skip for step in model.first_plan if step.skip is not None] == [0, 1, 2, 3, 4]
    assert model.skip_weights.shape == (8, 512)


@pytest.mark.parametrize("loop", [(0,), (0, 1, 2), (2,), (0, 1)])
def test_a_loop_at_either_end_runs_its_layers_again_in_place(loop):
    found = order(3, loop, 2)
    assert sorted(found) == sorted([*range(3), *loop, *loop])
    assert found[: loop[0]] == tuple(range(loop[0]))
    assert found[loop[0] : loop[0] + 3 * len(loop)] == 3 * loop


@pytest.mark.parametrize(("loop", "passes"), [((), 2), ((1, 2), 0)])
def test_no_loop_and_no_passes_are_the_plain_order(loop, passes):
    assert order(4, loop, passes) == (0, 1, 2, 3)
