"""The order in which layers run and how U-Net skips connect them, as a tuple of layer steps.

The model executes such a plan in one loop, so running a layer twice, or changing the order during training,
needs another plan and not another model.

Depth recurrence (source: #1493): consecutive layers run again, with the same weights, before the next layer.
Eleven layers with two additional passes through 3, 4, 5 make 17 steps: 0 1 2 3 4 5 3 4 | 5 3 4 5 6 7 8 9 10.

U-Net skips (source: the challenge's starting script): of n steps, the first n // 2 push their output on a
stack. Each later step first pops one output, last in first out, until the stack is empty. The k-th step of
the second half uses row k of the skip weights, whatever its layer, so plans of different lengths use the
first rows of one table.

golf/model/gpt.py defines how a skip is mixed in; golf/training/phases.py decides when training
changes its plan.
"""

from __future__ import annotations

from typing import NamedTuple


class LayerStep(NamedTuple):
    """One run of one layer."""

    layer: int
    """Index of the layer to run."""
    save: bool = False
    """Push the output on the stack."""
    skip: int | None = None
    """Row of the skip weights for mixing in the top of the stack before the layer; None: no skip."""


Plan = tuple[LayerStep, ...]


def order(layers: int, loop: tuple[int, ...] = (), passes: int = 0) -> tuple[int, ...]:
    """Layer indices in running order; the layers `loop` run `passes` more times. Neutral: () or 0."""
    end = loop[-1] + 1 if loop else layers
    return (*range(end), *loop * passes, *range(end, layers))


def layer_steps(order: tuple[int, ...], skips: bool) -> Plan:
    """Layer indices in running order -> plan. With skips, n // 2 steps save and the next n // 2 mix in."""
    half = len(order) // 2 if skips else 0
    return tuple(
        LayerStep(layer, save=step < half, skip=step - half if half <= step < 2 * half else None)
        for step, layer in enumerate(order)
    )


def n_skips(plan: Plan) -> int:
    """Number of rows of skip weights that a plan uses."""
    return sum(step.skip is not None for step in plan)
