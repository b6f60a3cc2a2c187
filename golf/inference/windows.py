"""Which tokens predict which: the one window rule behind scoring, `predict` and `lanes`. No tensors.

The stream is cut into blocks of S targets (S the stride, W the window). Target t >= 1 lies in block
k = floor(t / S) and is predicted from the inputs

    max(0, S k - (W - S) - 1) .. t - 1        at most W; at least W - S + 1 once the stream is that long

so one causal pass over a block's W inputs predicts all of its S targets. Only the beginning is special: the
first blocks have shorter inputs, and block 0 has one target less (x_0 is never predicted). At the end, a
block is as long as any other; inputs beyond the known tokens are zeros, which no causal row sees. A
prediction therefore has the same inputs and shapes whether it is requested alone, in a batch, or with its
whole block, and chunks may have any length. Windows cross document boundaries, as in all public systems.

Source: the sliding evaluation of #1493, which needed more than W - S tokens; this is exact for any length.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field
from itertools import groupby
from typing import NamedTuple

import numpy as np


class Window(NamedTuple):
    """A pass over inputs start .. start + length - 1, of which the last `targets` give a prediction each."""

    start: int
    length: int
    targets: int

    @property
    def first_target(self) -> int:
        """The position of the first token that this pass predicts."""
        return self.start + self.length - self.targets + 1


def block_window(block: int, window: int, stride: int) -> Window:
    """The pass that predicts the targets of one block: S k .. S k + S - 1 (block 0: 1 .. S - 1)."""
    first = stride * block
    start = max(0, first - (window - stride) - 1)
    return Window(start, first + stride - 1 - start, stride if block else stride - 1)


def target_window(target: int, window: int, stride: int) -> Window:
    """The pass that predicts one target. Raises ValueError for target 0, which has no context."""
    if target < 1:
        raise ValueError(f"token {target} of a stream is not predicted: nothing comes before it")
    return block_window(target // stride, window, stride)


def batches(start: int, stop: int, window: int, stride: int, size: int) -> Iterator[list[Window]]:
    """The passes for targets start .. stop - 1, in order, in batches of one shape and at most `size`."""
    blocks = range(start // stride, -(-stop // stride))
    all_windows = (block_window(block, window, stride) for block in blocks)
    for _, group in groupby((w for w in all_windows if w.targets), key=lambda w: (w.length, w.targets)):
        same_shape = list(group)
        for i in range(0, len(same_shape), size):
            yield same_shape[i : i + size]


def share(start: int, stop: int, stride: int, rank: int, world: int) -> tuple[int, int]:
    """A rank's part low .. high - 1 of the targets start .. stop - 1: whole blocks, in equal shares."""
    first, last = start // stride, -(-stop // stride)
    low = first + (last - first) * rank // world
    high = first + (last - first) * (rank + 1) // world
    return min(max(start, low * stride), stop), max(start, min(stop, high * stride))


@dataclass
class TokenBuffer:
    """The last tokens of the revealed stream: those at positions start .. stop - 1."""

    start: int = 0
    tokens: np.ndarray = field(default_factory=lambda: np.zeros(0, np.uint16))

    @property
    def stop(self) -> int:
        """The position of the next token, which is not revealed yet."""
        return self.start + len(self.tokens)

    def reveal(self, tokens: np.ndarray, keep: int) -> None:
        """Append tokens (uint16); of the earlier ones, keep only the last `keep`."""
        drop = max(0, len(self.tokens) - keep)
        self.tokens = np.concatenate([self.tokens[drop:], tokens])
        self.start += drop

    def inputs(self, window: Window) -> np.ndarray:
        """The window's inputs_T, int64, 0 where not revealed yet; ValueError for tokens already dropped."""
        if window.start < self.start:
            raise ValueError(
                f"inputs from {window.start} on are needed, but the tokens kept begin at {self.start}"
            )
        inputs = np.zeros(window.length, np.int64)
        known = self.tokens[window.start - self.start : window.start - self.start + window.length]
        inputs[: len(known)] = known
        return inputs
