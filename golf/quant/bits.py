"""Bits for each tensor under a byte budget: taken away where it costs least for each byte.

What: for every tensor a ladder of options (bits, loss, bytes), from the bits that the recipe asks for
downwards. All begin at the top; then, as long as the sum of bytes is above the budget, the step down with the
least rise of loss for each byte saved is taken, whichever tensor it is in. Bits are never given, only taken.

Each step is chosen without looking at the budget, so that a smaller budget takes the same steps and then
more: its result is never larger, and never better. An option that saves no bytes over the one above it is no
step.

Neutral value: a budget that everything fits. Bytes: none. Source: marginal analysis (Fox, 1966), which is
optimal at the sizes it passes through where loss is convex in bytes, as rounding error is. Not covered:
filling the room that the last step leaves (at most the largest step of a tensor), what loss means
(golf/quant/loss.py), and what a compressor makes of the bytes (golf/stages/pack.py measures that)."""

from __future__ import annotations

import heapq
from collections.abc import Mapping, Sequence
from typing import NamedTuple


class Option(NamedTuple):
    """A tensor at some number of bits: what it would lose, and about how many bytes it would take."""

    bits: int
    loss: float
    n_bytes: float


def _ladder(options: Sequence[Option]) -> list[Option]:
    """The options that save bytes over every option with more bits, from the most bits down."""
    kept: list[Option] = []
    for option in sorted(options, key=lambda each: -each.bits):
        if not kept or option.n_bytes < kept[-1].n_bytes:
            kept.append(option)
    return kept


def allocate(options: Mapping[str, Sequence[Option]], budget: float) -> dict[str, Option]:
    """Options by tensor (at least one each) and a budget in bytes -> the chosen option of each tensor.

    Raises ValueError with the numbers where the fewest bits do not fit either.
    """
    ladders = {name: _ladder(each) for name, each in options.items()}
    least = sum(ladder[-1].n_bytes for ladder in ladders.values())
    if least > budget:
        raise ValueError(
            f"{least:,.0f} bytes with the fewest bits everywhere, and only {max(budget, 0):,.0f} are left"
        )
    chosen = dict.fromkeys(ladders, 0)
    heap: list[tuple[float, str]] = []

    def offer(name: str) -> None:
        ladder, place = ladders[name], chosen[name]
        if place + 1 < len(ladder):
            above, below = ladder[place], ladder[place + 1]
            heapq.heappush(heap, ((below.loss - above.loss) / (above.n_bytes - below.n_bytes), name))

    for name in ladders:
        offer(name)
    while sum(ladder[chosen[name]].n_bytes for name, ladder in ladders.items()) > budget:
        _, name = heapq.heappop(heap)
        chosen[name] += 1
        offer(name)
    return {name: ladder[chosen[name]] for name, ladder in ladders.items()}
