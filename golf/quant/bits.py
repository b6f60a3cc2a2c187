"""Allocate bits to tensors under a byte budget, greedily by loss per byte saved.

Each tensor has options (bits, loss, bytes), at most with the bits that the recipe asks for. All tensors start
with the most bits. While the total exceeds the budget, the next-smaller option with the least rise of loss
per byte saved is taken, over all tensors. An option that saves no bytes over one with more bits is skipped.

The choice of each step does not depend on the budget. A smaller budget therefore takes the same steps and
then more; its result is never larger and never better.

Neutral: a budget in which all tensors fit with the most bits. Source: marginal analysis (Fox, 1966). If loss
is convex in bytes, as rounding error is, the result of every step has the least loss for its size. What the
last step saves beyond need (at most the largest step) stays unused. See golf/quant/loss.py for the loss;
golf/stages/pack.py measures the bytes after compression.
"""

from __future__ import annotations

import heapq
from collections.abc import Mapping, Sequence
from typing import NamedTuple


class Option(NamedTuple):
    """A tensor at one number of bits: its loss, and about how many bytes it takes."""

    bits: int
    loss: float
    n_bytes: float


def _shrinking(options: Sequence[Option]) -> list[Option]:
    """The options that are smaller than every option with more bits, from the most bits down."""
    kept: list[Option] = []
    for option in sorted(options, key=lambda each: -each.bits):
        if not kept or option.n_bytes < kept[-1].n_bytes:
            kept.append(option)
    return kept


def allocate(options: Mapping[str, Sequence[Option]], budget: float) -> dict[str, Option]:
    """Options by tensor (at least one each) and a budget in bytes -> the chosen option of each tensor.

    Raises ValueError, with the numbers, if even the fewest bits do not fit.
    """
    choices = {name: _shrinking(each) for name, each in options.items()}
    least = sum(each[-1].n_bytes for each in choices.values())
    if least > budget:
        raise ValueError(
            f"{least:,.0f} bytes with the fewest bits everywhere, and only {max(budget, 0):,.0f} are left"
        )
    index = dict.fromkeys(choices, 0)
    heap: list[tuple[float, str]] = []

    def push_next_step(name: str) -> None:
        remaining = choices[name][index[name] :]
        if len(remaining) > 1:
            now, then = remaining[:2]
            heapq.heappush(heap, ((then.loss - now.loss) / (now.n_bytes - then.n_bytes), name))

    for name in choices:
        push_next_step(name)
    while sum(each[index[name]].n_bytes for name, each in choices.items()) > budget:
        _, name = heapq.heappop(heap)
        index[name] += 1
        push_next_step(name)
    return {name: each[index[name]] for name, each in choices.items()}
