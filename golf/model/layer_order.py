"""The wiring of the trunk as data: plain Python makes a tuple of visits, the model walks it in one loop.

A visit names the physical layer to run and what the U-Net does around it. Since the plan says which layer
runs and not the model, running a layer twice, or changing the order in the middle of training, is another
plan and no other model.

Depth recurrence (source: #1493): neighbouring layers run again before the next one, their weights shared.
Eleven layers with two more passes through 3, 4, 5 make 17 visits: 0 1 2 3 4 5 3 4 | 5 3 4 5 6 7 8 9 10.

U-Net skips (source: the challenge's starting script): with n visits, the first n // 2 leave their output on a
stack; each later visit first takes one off the stack, last in first out, until it is empty. A skip row
belongs to the place in the second half and not to the layer, so plans of different lengths use the first rows
of one table.

Not covered: what a skip does to the stream, and whether a layer is parallel, which is the layer's own affair
(golf/model/gpt.py); weights, which belong to layers and skip rows; when a training changes its plan
(golf/stages/train.py)."""

from __future__ import annotations

from typing import NamedTuple


class LayerStep(NamedTuple):
    """One step of the trunk."""

    layer: int
    """Physical layer to run."""
    save: bool = False
    """Leave the output on the stack."""
    skip: int | None = None
    """Row of the skip weights with which the top of the stack is mixed in before the layer; None mixes in
    nothing."""


Plan = tuple[LayerStep, ...]


def order(layers: int, loop: tuple[int, ...] = (), passes: int = 0) -> tuple[int, ...]:
    """Layers in the order of their visits: `loop`, neighbours in order, runs `passes` times more. Neutral: ()
    or 0."""
    end = loop[-1] + 1 if loop else layers
    return (*range(end), *loop * passes, *range(end, layers))


def layer_steps(order: tuple[int, ...], skips: bool) -> Plan:
    """Layers in the order of their visits -> plan. With skips, n // 2 visits save and as many later ones
    take."""
    half = len(order) // 2 if skips else 0
    return tuple(
        LayerStep(layer, save=step < half, skip=step - half if half <= step < 2 * half else None)
        for step, layer in enumerate(order)
    )


def n_skips(plan: Plan) -> int:
    """Rows of skip weights that a plan uses."""
    return sum(visit.skip is not None for visit in plan)
