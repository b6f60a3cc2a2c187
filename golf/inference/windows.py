"""Which tokens predict which: the one window rule behind score, predict and lanes. Plain Python, no tensors.

What: the stream is cut into blocks of S targets (S the stride, W the window). Target t >= 1 lies in block
k = floor(t / S) and is predicted from the inputs

    max(0, S k - (W - S) - 1) .. t - 1        at most W of them; at least W - S + 1 once the stream is that long

so that one causal pass over a block's W inputs gives all of its S targets. The first blocks have shorter
inputs, block 0 has one target less (x_0 is never predicted), and that is all that is special at the
beginning; at the end a block is as long as any other, its inputs beyond the known tokens being zeros that no
causal row can see. A prediction so has the same inputs and the same shapes whether it is asked for alone, in
a batch, or with its whole block, and any chunk length works. Tokens are read across document borders, as all
public systems do.

Source: the sliding evaluation of #1493, made exact for any length (it needed more than W - S tokens).
Not covered: what a model makes of the inputs.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field
from itertools import groupby
from typing import NamedTuple

import numpy as np


class Window(NamedTuple):
    """One block's pass: inputs at positions start .. start + length - 1; the last `targets` of them are read
    out."""

    start: int
    length: int
    targets: int

    @property
    def first_target(self) -> int:
        """The position that the first row read out predicts."""
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


def batches(start: int, stop: int, window: int, stride: int, most: int) -> Iterator[list[Window]]:
    """The passes that predict the targets start .. stop - 1, in order; at most `most` at a time, all of one
    shape."""
    blocks = range(start // stride, -(-stop // stride))
    all_windows = (block_window(block, window, stride) for block in blocks)
    for _, group in groupby((w for w in all_windows if w.targets), key=lambda w: (w.length, w.targets)):
        alike = list(group)
        for i in range(0, len(alike), most):
            yield alike[i : i + most]


def share(start: int, stop: int, stride: int, rank: int, world: int) -> tuple[int, int]:
    """The part of the targets start .. stop - 1 that one of `world` ranks predicts: whole blocks, contiguous,
    even."""
    first, last = start // stride, -(-stop // stride)
    low = first + (last - first) * rank // world
    high = first + (last - first) * (rank + 1) // world
    return min(max(start, low * stride), stop), max(start, min(stop, high * stride))


@dataclass
class TokenBuffer:
    """The end of the revealed stream: `tokens` are those at positions start .. stop - 1, and no more than
    needed."""

    start: int = 0
    tokens: np.ndarray = field(default_factory=lambda: np.zeros(0, np.uint16))

    @property
    def stop(self) -> int:
        """The position of the next token, which is not known yet."""
        return self.start + len(self.tokens)

    def reveal(self, tokens: np.ndarray, keep: int) -> None:
        """Append tokens (uint16); of those before them only the last `keep` stay."""
        drop = max(0, len(self.tokens) - keep)
        self.tokens = np.concatenate([self.tokens[drop:], tokens])
        self.start += drop

    def inputs(self, window: Window) -> np.ndarray:
        """The window's inputs as int64; zeros stand for tokens not revealed. ValueError if it begins too
        early."""
        if window.start < self.start:
            raise ValueError(
                f"inputs from {window.start} on are needed, but the tokens kept begin at {self.start}"
            )
        inputs = np.zeros(window.length, np.int64)
        known = self.tokens[window.start - self.start : window.start - self.start + window.length]
        inputs[: len(known)] = known
        return inputs
