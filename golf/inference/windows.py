"""Which tokens predict which: the one window rule behind scoring, `predict` and `lanes`. No tensors.

The stream is cut into blocks of S targets (S the stride, W the window). Target t >= 1 lies in block
k = floor(t / S) and is predicted from the inputs

    max(0, S k - (W - S) - 1) .. t - 1        at most W; at least W - S + 1 once the stream is that long

so one causal pass over a block's W inputs predicts all of its S targets. Only the beginning is special: the
first blocks have shorter inputs, and block 0 has one target less (x_0 is never predicted). At the end, a
block is as long as any other; inputs beyond the known tokens are zeros, which no causal row sees. A
prediction therefore has the same inputs and shapes whether it is requested alone, in a batch, or with its
whole block, and chunks may have any length. Windows cross document boundaries, as in all public systems.

Aligned to documents, a window begins no earlier than the document of its target: at the last BOS token before
t, if that is later. A BOS token is itself predicted from the document before it. Blocks stay where they are,
so the position and the last W tokens still decide a prediction. All targets whose window begins with their
document share one pass, in which every position is read: an opening pass. Its inputs are padded at the end
with zeros to a quarter, a half or the whole of W, so that few shapes exist. The same prediction may then come
from passes of different lengths, which agree up to rounding (measured in docs/windows.md).

Source: the sliding evaluation of #1493, which needed more than W - S tokens; this is exact for any length.
"""

from __future__ import annotations

from bisect import bisect_left
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from itertools import groupby
from operator import attrgetter
from typing import NamedTuple

import numpy as np


class Window(NamedTuple):
    """A causal pass over `length` inputs from `start` on, whose last `targets` give a prediction each.

    Of these, the predictions of targets low .. high - 1 are read; inputs from high - 1 on are zeros.
    """

    start: int
    length: int
    targets: int
    low: int
    high: int

    @property
    def shape(self) -> tuple[int, int]:
        """Inputs and predictions."""
        return self.length, self.targets

    @property
    def first_target(self) -> int:
        """The position of the first token that this pass predicts."""
        return self.start + self.length - self.targets + 1

    @property
    def opening(self) -> bool:
        """Whether every input gives a prediction, so that inputs may be added at the end."""
        return self.length == self.targets

    @property
    def order(self) -> tuple[bool, int]:
        """Sort key: full windows first, then opening passes, from long to short."""
        return self.opening, -self.length


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

    def after(self, start: int) -> np.ndarray:
        """The tokens from a position on; ValueError if some of them were dropped."""
        if start < self.start:
            raise ValueError(f"inputs from {start} on are needed, but the tokens kept begin at {self.start}")
        return self.tokens[start - self.start :]


class WindowRule(NamedTuple):
    """W and S, and the token that opens a document if windows are aligned to documents."""

    window: int
    stride: int
    bos: int | None = None

    @property
    def shapes(self) -> list[tuple[int, int]]:
        """Inputs and predictions of the passes, without those at the beginning of a stream that is not
        aligned: a full window, then opening passes from short to long.
        """
        openings = [-(-self.window // part) for part in (4, 2, 1)] if self.bos is not None else []
        return list(dict.fromkeys([(self.window, self.stride), *((n, n) for n in openings)]))

    def first_input(self, target: int) -> int:
        """Where the window of a target begins, unless its document begins later."""
        block = target // self.stride
        return max(0, self.stride * block - (self.window - self.stride) - 1)

    def windows(self, buffer: TokenBuffer, start: int, stop: int) -> list[Window]:
        """The passes for targets start .. stop - 1 without 0, in order; the buffer holds what precedes them.

        Aligned, they are sorted by `Window.order`.
        """
        if self.bos is None:
            return list(self._stream_windows(max(start, 1), stop))
        aligned = self._document_windows(buffer, max(start, 1), stop)
        return sorted(aligned, key=lambda window: window.order)

    def _stream_windows(self, start: int, stop: int) -> Iterator[Window]:
        while start < stop:
            first, end = max(1, start // self.stride * self.stride), (start // self.stride + 1) * self.stride
            begin, high = self.first_input(start), min(end, stop)
            yield Window(begin, end - 1 - begin, end - first, start, high)
            start = high

    def _document_windows(self, buffer: TokenBuffer, start: int, stop: int) -> Iterator[Window]:
        kept = buffer.tokens[: stop - buffer.start]
        openings = [0, *(np.flatnonzero(kept == self.bos) + buffer.start).tolist()]
        while start < stop:
            following = bisect_left(openings, start)
            opening, begin = openings[following - 1], self.first_input(start)
            # The document's last target is the BOS token of the next one.
            last = openings[following] if following < len(openings) else stop - 1
            if opening >= begin:
                first_block_beyond = (opening + self.window - self.stride + 1) // self.stride + 1
                high = min(first_block_beyond * self.stride, last + 1)
                length = next(n for n, targets in self.shapes if n == targets and n >= high - 1 - opening)
                yield Window(opening, length, length, start, high)
            else:
                high = min((start // self.stride + 1) * self.stride, last + 1)
                yield Window(begin, self.window, self.stride, start, high)
            start = high

    def share(self, windows: list[Window], rank: int, world: int) -> list[Window]:
        """A rank's windows: equally many for each, and of every length if they are aligned."""
        n = len(windows)
        return (
            windows[n * rank // world : n * (rank + 1) // world] if self.bos is None else windows[rank::world]
        )

    def rows(self, length: int, size: int) -> int:
        """Passes of a length in a batch that has as many inputs as `size` full windows."""
        return size * self.window // length

    def batches(self, windows: Iterable[Window], size: int) -> Iterator[list[Window]]:
        """Windows in order, in batches of one shape; opening passes get the longest one's length."""
        kind = attrgetter("shape" if self.bos is None else "opening")
        for opening, group in groupby(windows, kind):
            rest = list(group)
            while rest:
                length = rest[0].length
                rows = self.rows(length, size)
                batch, rest = rest[:rows], rest[rows:]
                if self.bos is not None and opening:
                    batch = [window._replace(length=length, targets=length) for window in batch]
                yield batch
