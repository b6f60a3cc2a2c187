"""The wiring of the trunk as data: plain Python makes a tuple of visits, the model walks it in one loop.

A visit names the physical layer to run and what the U-Net does around it. Since the plan says which layer runs and not
the model, running a layer twice, or changing the order in the middle of training, is another plan and no other model.

U-Net skips (source: the challenge's starting script): with n visits, the first n // 2 leave their output on a stack;
each later visit first takes one off the stack, last in first out, until it is empty.

Not covered: what a skip does to the stream (golf/model/gpt.py), and weights, which belong to layers and skip rows.
"""

from __future__ import annotations

from typing import NamedTuple


class Visit(NamedTuple):
    """One step of the trunk."""

    layer: int
    """Physical layer to run."""
    save: bool = False
    """Leave the output on the stack."""
    skip: int | None = None
    """Row of the skip weights with which the top of the stack is added before the layer; None adds nothing."""


def visits(order: tuple[int, ...], skips: bool) -> tuple[Visit, ...]:
    """Layers in the order of their visits -> plan. With skips, n // 2 visits save and as many later ones take."""
    half = len(order) // 2 if skips else 0
    return tuple(
        Visit(layer, save=step < half, skip=step - half if half <= step < 2 * half else None)
        for step, layer in enumerate(order)
    )


def n_skips(plan: tuple[Visit, ...]) -> int:
    """Rows of skip weights that a plan uses."""
    return sum(visit.skip is not None for visit in plan)
