"""The settings of `hardware` that change the graph, each in every value that a recipe does not have.

`hardware.banks` is not among them: a single process exchanges nothing. `hardware.prefetch` keeps the graph
and has its own row.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from typing import Any, NamedTuple

from golf.recipe.schema import Config

CHANGE_THE_GRAPH: dict[str, tuple[Any, ...]] = {
    "loss_in_graph": (),
    "fused_loss": (),
    "attention": ("flash3", "cudnn", "cudnn_repeated", "sdpa"),
}
"""Settings that need another compilation; for one that is no boolean, the values to try."""


class Variant(NamedTuple):
    """A recipe with one setting changed."""

    label: str
    config: Config


def _variants(config: Config, name: str, values: tuple[Any, ...]) -> Iterator[Variant]:
    current = getattr(config.hardware, name)
    for value in values or (not current,):
        if value != current:
            hardware = replace(config.hardware, **{name: value})
            yield Variant(f"{name}: {value} instead of {current}", replace(config, hardware=hardware))


def of_graph(config: Config) -> list[Variant]:
    """Every setting that changes the graph, in each of its other values."""
    return [
        variant for name, values in CHANGE_THE_GRAPH.items() for variant in _variants(config, name, values)
    ]
